"""What goes wrong on OONI's tables when replica paths are taken for structure.

No tool of this project takes part: these are the facts that the rules for clusters come from.
"""

import pytest
from clickhouse_driver import errors

from dev.cluster.cluster import Cluster, Node
from production import airflow
from production.harness import everywhere, wait_for, wait_until_writable
from production.watching import LISTS

pytestmark = pytest.mark.production

OLD = [(f"old{number}.org", f"http://old{number}.org/", "it", "NEWS") for number in range(50)]
NEW = [(f"new{number}.org", f"http://new{number}.org/", "it", "NEWS") for number in range(60)]
SYNC = ("SYSTEM SYNC REPLICA ooni.citizenlab", "SYSTEM SYNC REPLICA ooni.citizenlab_flip")


def counts(cluster: Cluster) -> list[int]:
    """Return the rows of the live table on each node, when all have caught up."""
    wait_until_writable(*cluster.nodes)
    everywhere(cluster, *SYNC)
    return [node.execute("SELECT count() FROM ooni.citizenlab")[0][0] for node in cluster.nodes]


def live_path(node: Node) -> str:
    query = "SELECT zookeeper_path FROM system.replicas WHERE table = 'citizenlab'"
    path: str = node.execute(query)[0][0]
    return path


@pytest.fixture
def lists(production: Cluster) -> Cluster:
    """The cluster with the same old test lists on each node."""
    production.nodes[0].execute("INSERT INTO ooni.citizenlab VALUES", OLD)
    assert counts(production) == [len(OLD)] * 3
    return production


def test_a_swap_on_one_node_crosses_the_paths_and_hides_the_update(lists: Cluster) -> None:
    first, second, third = lists.nodes
    airflow.update(first, NEW)
    assert counts(lists) == [len(NEW), len(OLD), len(OLD)]
    assert live_path(first) != live_path(second) == live_path(third)


def test_with_crossed_paths_emptying_a_shadow_empties_the_live_table(lists: Cluster) -> None:
    airflow.update(lists.nodes[0], OLD)
    assert counts(lists) == [len(OLD)] * 3
    lists.nodes[0].execute("TRUNCATE TABLE ooni.citizenlab_flip")
    assert counts(lists) == [len(OLD), 0, 0]


def test_a_dropped_shadow_cannot_be_made_like_the_live_table(lists: Cluster) -> None:
    first = lists.nodes[0]
    first.execute("DROP TABLE ooni.citizenlab_flip SYNC")
    for _ in range(2):
        with pytest.raises(errors.ServerException) as failure:
            first.execute("CREATE TABLE ooni.citizenlab_flip AS ooni.citizenlab")
        assert failure.value.code == errors.ErrorCodes.REPLICA_IS_ALREADY_EXIST


def test_a_node_that_was_away_shows_what_the_next_update_does_to_its_live_table(
    lists: Cluster,
) -> None:
    first, second, third = lists.nodes
    third.kill()
    first.execute("INSERT INTO ooni.citizenlab_flip VALUES", NEW)
    for node in (first, second):
        node.execute("SYSTEM SYNC REPLICA ooni.citizenlab_flip")
        node.execute("EXCHANGE TABLES ooni.citizenlab_flip AND ooni.citizenlab")
    third.start()
    assert counts(lists) == [len(NEW), len(NEW), len(OLD)]
    # The next update begins: the shadow of the two is what the third one has live.
    first.execute("TRUNCATE TABLE ooni.citizenlab_flip")
    assert counts(lists) == [len(NEW), len(NEW), 0]
    first.execute("INSERT INTO ooni.citizenlab_flip VALUES", OLD[:10])
    wait_for(lambda: third.execute(LISTS)[0][0] == 10, "a list that is half filled")
