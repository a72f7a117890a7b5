"""One table on the nodes of a cluster: one that fails at its statement gets the other tables."""

import logging
from collections.abc import Callable
from typing import TypeVar

from ooni_common.database import StatementFailed, StatementRefused
from ooni_common.doctor import worst_of
from ooni_common.nodes import Node, Nodes
from tables.staging import Place

log = logging.getLogger("ooni.db_backup")

T = TypeVar("T")


class Attempt:
    """Does the work for one table on each node.

    Args:
        nodes: of the cluster.
        place: of the table.
    """

    def __init__(self, nodes: Nodes, place: Place) -> None:
        self._nodes = nodes
        self._place = place
        self._failures: list[StatementFailed | StatementRefused] = []

    def each(self, work: Callable[[Node], T], among: list[Node]) -> dict[Node, T]:
        """Do the same on each node, and return what it gave where it succeeded.

        A node that answers with an error (too little memory, say) is left out of the result, and
        goes on taking part: it can get other tables. One that gives no answer is lost.

        Args:
            work: is given the node.
            among: the nodes.

        Raises:
            Unavailable, ConfigError, DataRefused: as Nodes.each.
        """

        def results_of(node: Node) -> list[T]:
            try:
                return [work(node)]
            except (StatementFailed, StatementRefused) as error:
                error.args = (f"{node}: {error}", *error.args[1:])
                log.warning("%s: %s", self._place, error)
                self._failures.append(error)
                return []

        results = self._nodes.each(results_of, among=among)
        return {node: result for node, one in results.items() for result in one}

    def check(self) -> None:
        """Raise StatementFailed or StatementRefused where nodes have answered with an error."""
        if self._failures:
            raise worst_of(self._failures)
