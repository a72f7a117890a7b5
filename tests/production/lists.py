"""The updater of the test lists on the cluster, and what its nodes have live."""

from types import ModuleType
from typing import ClassVar

import citizenlab_test_lists_updater
from dev.cluster.cluster import Cluster
from production.watching import LISTS, Content
from updater_harness import Harness

ROWS = 400


class Updater(Harness):
    """The updater of the test lists."""

    module: ClassVar[ModuleType] = citizenlab_test_lists_updater
    tables = ("citizenlab",)


def live(cluster: Cluster) -> list[Content | None]:
    """Return what each node has live; None for one that is away."""
    return [node.execute(LISTS)[0] if node.pid else None for node in cluster.nodes]


def paths(cluster: Cluster) -> set[str]:
    """Return the replica paths of the live table, on all nodes that are up."""
    query = "SELECT zookeeper_path FROM system.replicas WHERE table = 'citizenlab'"
    return {node.execute(query)[0][0] for node in cluster.nodes if node.pid}


def agree(cluster: Cluster, rows: int) -> None:
    """Check that all nodes that are up have the same list of this length, under the same path."""
    contents = {content for content in live(cluster) if content}
    assert [content[0] for content in contents] == [rows]
    assert len(paths(cluster)) == 1


def load(updater: Updater) -> None:
    """Run, which must succeed."""
    status, log = updater.run()
    assert status == 0, log
