"""What each of several threads reads the rows of a table with: a connection of its own.

A connection answers one question at a time. The one that the table was planned over is asked how
busy the server is, and on a cluster which replicas are the best.
"""

import contextlib
import logging
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from backup_config import Config
from exports.chunk_rows import ChunkRows
from exports.csv_rows import RowSource
from exports.parquet_rows import ParquetFormat, ParquetRows
from exports.reader import Reader
from exports.row_source import ChosenSource, ReplicaSource
from ooni_common.database import Database, connected, connected_to
from ooni_common.errors import Unavailable
from ooni_common.nodes import Node
from ooni_common.output import counted
from tables.replicas import TableReplicas
from throttle import Bandwidth, Throttle

log = logging.getLogger("ooni.db_backup")

IDENTITY = "SELECT serverUUID(), hostName(), tcpPort()"


@dataclass
class Lane:
    """What reads one chunk at a time.

    Attributes:
        reader: of the table.
        rows: sends the rows.
        parquet: sends them as Parquet; None: there is to be none.
        rests_until: when it may read the next one, on the clock of the lanes.
    """

    reader: Reader
    rows: ChunkRows
    parquet: ParquetRows | None = None
    rests_until: float = 0


class Lanes:
    """The lanes of a table, each of which one thread has at a time.

    Args:
        lanes: all of them.
        throttle: lets them read.
        clock: gives seconds.
    """

    def __init__(
        self, lanes: Sequence[Lane], throttle: Throttle, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lanes = lanes
        self._throttle = throttle
        self._clock = clock
        self._free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        for lane in lanes:
            self._free.put(lane)

    @property
    def make_parquet(self) -> bool:
        """Whether chunks become Parquet objects, too."""
        return any(lane.parquet for lane in self._lanes)

    @property
    def count(self) -> int:
        """How many chunks are read at once."""
        return len(self._lanes)

    @contextlib.contextmanager
    def taken(self) -> Iterator[Lane]:
        """Give a lane that is free and has rested, when the server is not too busy."""
        lane = self._free.get()
        try:
            self._throttle.sleep(max(lane.rests_until - self._clock(), 0))
            with self._throttle.reading():
                started = self._clock()
                try:
                    yield lane
                finally:
                    ended = self._clock()
                    lane.rests_until = ended + self._throttle.rest_after(ended - started)
        finally:
            self._free.put(lane)

    def look_again(self) -> None:
        """After a failure, choose the nodes again: the last one may be gone."""
        for lane in self._lanes[:1]:
            if lane.reader.replicas:
                with contextlib.suppress(Unavailable):  # the next attempt meets it
                    lane.reader.replicas.choose()

    def rest(self) -> None:
        """Wait until all have rested."""
        latest = max(lane.rests_until for lane in self._lanes)
        self._throttle.sleep(max(latest - self._clock(), 0))


class LaneReplicas(TableReplicas):
    """The nodes that a table is read from, as `shared` chooses them, over other connections.

    Args:
        shared: chooses.
        throttle: is asked over the same connections as that.
        connect: connects to a node.
    """

    def __init__(
        self, shared: TableReplicas, throttle: Throttle, connect: Callable[[Node], Database]
    ) -> None:
        self._shared = shared
        self._throttle = throttle
        self._connect = connect
        self._connections: dict[str, Database] = {}
        self.chosen = list(shared.chosen)

    @property
    def databases(self) -> list[Database]:
        """The connections to the nodes."""
        for node in self.chosen:
            if node.name not in self._connections:
                self._connections[node.name] = self._connect(node)
        return [self._connections[node.name] for node in self.chosen]

    def choose(self) -> None:
        """Choose among the nodes that are up now; raise as `TableReplicas` does."""
        with self._throttle.asking:
            self._shared.choose()
            self.chosen = list(self._shared.chosen)


@dataclass(frozen=True)
class Forms:
    """In which forms the rows of a table are read.

    Attributes:
        csv: where they come from as CSV.
        parquet: how they become Parquet; None: they do not.
    """

    csv: RowSource
    parquet: ParquetFormat | None


@contextlib.contextmanager
def lanes_of(
    config: Config,
    reader: Reader,
    forms: Forms,
    throttle: Throttle,
    count: int,
    threads: int,
) -> Iterator[Lanes]:
    """Give so many lanes; fewer, where another connection reaches another server.

    Args:
        config: says where the database is.
        reader: of the table; a single lane reads with it.
        forms: in which the rows are read; a single lane has CSV from the very source.
        throttle: of all.
        count: of lanes.
        threads: that compress, in each.
    """
    bandwidth = Bandwidth(config.max_bandwidth)

    def lane(reader: Reader, source: RowSource) -> Lane:
        rows = ChunkRows(source, reader, bandwidth, config.compression_level, threads)
        return Lane(reader, rows, _parquet_rows(forms, reader, bandwidth))

    with ExitStack() as stack:
        if count == 1:
            lanes = [lane(reader, forms.csv)]
        elif reader.replicas:
            replicas = [_replicas(config, reader.replicas, throttle, stack) for _ in range(count)]
            lanes = [
                lane(replace(reader, replicas=own), ReplicaSource(config, own)) for own in replicas
            ]
        else:
            databases = _connections(config, reader.database, stack, count)
            lanes = [
                lane(replace(reader, database=own), over(forms.csv, own)) for own in databases
            ] or [lane(reader, forms.csv)]
        yield Lanes(lanes, throttle)


def _parquet_rows(forms: Forms, reader: Reader, bandwidth: Bandwidth) -> ParquetRows | None:
    return ParquetRows(forms.parquet, reader, bandwidth) if forms.parquet else None


def over(source: RowSource, database: Database) -> RowSource:
    """Return what gives the same rows over another connection."""
    return source.over(database) if isinstance(source, ChosenSource) else source


def _replicas(
    config: Config, shared: TableReplicas, throttle: Throttle, stack: ExitStack
) -> LaneReplicas:
    def connect(node: Node) -> Database:
        host, _, port = node.name.rpartition(":")
        return stack.enter_context(connected_to(config, host, int(port)))

    return LaneReplicas(shared, throttle, connect)


def _connections(
    config: Config, database: Database, stack: ExitStack, count: int
) -> list[Database]:
    """Return so many more connections to a server; fewer, where they do not reach the same one."""
    connections: list[Database] = []
    identity = database.query(IDENTITY)
    for _ in range(count):
        another = stack.enter_context(connected(config))
        try:
            same = another.query(IDENTITY) == identity
        except Unavailable as error:
            log.warning("%s; %s", error, _at_a_time(connections))
            break
        if not same:
            log.warning(
                "connections to db_uri reach several servers, of which one run reads one; name one"
                " server in db_uri, or set cluster; %s",
                _at_a_time(connections),
            )
            break
        connections.append(another)
    return connections


def _at_a_time(connections: Sequence[Database]) -> str:
    return f"{counted(max(len(connections), 1), 'chunk')} at a time"
