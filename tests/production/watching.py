"""What readers of the test lists see on each node, at every instant."""

import threading
import time
from types import TracebackType
from typing import Self

import clickhouse_driver
from clickhouse_driver import errors

from dev.cluster.cluster import Cluster, Node

LISTS = "SELECT count(), sum(cityHash64(*)) FROM ooni.citizenlab"
Content = tuple[int, int]


class Watch:
    """A reader on each node that asks all the time, also while the node is away for a while.

    It rests as long as it has read: three that never rest leave nothing of two cores to the tool.

    Attributes:
        seen: by node, what its live table held, one after the other.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.seen: dict[Node, list[Content]] = {node: [] for node in cluster.nodes}
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._read, args=(node,)) for node in cluster.nodes
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def contents(self) -> set[Content]:
        """Return everything that was seen anywhere."""
        return {content for contents in self.seen.values() for content in contents}

    def _read(self, node: Node) -> None:
        while not self._stop.is_set():
            try:
                with clickhouse_driver.Client("127.0.0.1", node.port, connect_timeout=1) as client:
                    while not self._stop.is_set():
                        begin = time.monotonic()
                        self._note(node, client.execute(LISTS)[0])
                        self._stop.wait(time.monotonic() - begin)
            except (errors.Error, OSError, EOFError):
                self._stop.wait(0.05)

    def _note(self, node: Node, content: Content) -> None:
        if self.seen[node][-1:] != [content]:
            self.seen[node].append(content)
