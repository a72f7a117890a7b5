"""The test bed itself: replicas that replicate, and faults that come when they are asked for."""

import time

import pytest
from clickhouse_driver import errors

from dev.cluster.cluster import Cluster, Node
from production.harness import everywhere, wait_for, wait_until_writable

pytestmark = pytest.mark.production

CREATE = """
    CREATE TABLE ooni.numbers (number UInt64, text String)
    ENGINE = ReplicatedMergeTree('/clickhouse/{cluster}/tables/ooni/numbers/{shard}', '{replica}')
    ORDER BY number SETTINGS min_bytes_for_wide_part = 0
"""
INSERT = (
    "INSERT INTO ooni.numbers SELECT number + {0}, hex(sipHash128(number, {0})) FROM numbers({1})"
)
CONTENT = "SELECT count(), sum(cityHash64(*)) FROM ooni.numbers"
ROWS = 100_000
# Beyond 2,048 bytes a file's checksum is a chain; wide parts have files of all sizes.


def synced(node: Node) -> list[tuple[int, int]]:
    """Return what a node has when it has caught up."""
    wait_until_writable(node)
    node.execute("SYSTEM SYNC REPLICA ooni.numbers")
    content: list[tuple[int, int]] = node.execute(CONTENT)
    return content


@pytest.fixture
def numbers(cluster: Cluster) -> Cluster:
    """The cluster with a replicated table."""
    everywhere(cluster, CREATE)
    return cluster


@pytest.mark.timeout(300)
def test_a_node_that_was_killed_catches_up_twenty_times(numbers: Cluster) -> None:
    first, _, third = numbers.nodes
    rows = 0
    for turn in range(20):
        third.kill()
        first.execute(INSERT.format(turn * ROWS, ROWS if not turn else 1_000))
        rows += ROWS if not turn else 1_000
        third.start()
        contents = [synced(node) for node in numbers.nodes]
        assert contents[0] == contents[1] == contents[2]
        assert contents[0][0][0] == rows


def test_zookeeper_dies_between_two_inserts(numbers: Cluster) -> None:
    first, second, _ = numbers.nodes
    first.execute(INSERT.format(0, ROWS))
    numbers.zookeeper.kill()
    assert first.execute("SELECT count() FROM ooni.numbers") == [(ROWS,)]
    wait_for(lambda: readonly(first), "a table that is read-only without ZooKeeper")
    with pytest.raises(errors.ServerException):
        first.execute(INSERT.format(ROWS, ROWS) + " SETTINGS insert_keeper_max_retries = 0")
    numbers.zookeeper.start()
    wait_until_writable(*numbers.nodes)
    second.execute(INSERT.format(ROWS, ROWS))
    contents = [synced(node) for node in numbers.nodes]
    assert contents[0] == contents[1] == contents[2]
    assert contents[0][0][0] == 2 * ROWS


def readonly(node: Node) -> bool:
    return bool(node.execute("SELECT max(is_readonly) FROM system.replicas")[0][0])


def test_a_node_reads_from_the_others(numbers: Cluster) -> None:
    first, _, third = numbers.nodes
    first.execute(INSERT.format(0, ROWS))
    for node in numbers.nodes:
        synced(node)
    replicas = "clusterAllReplicas('oonidata_cluster', ooni.numbers)"
    every = f"SELECT tcpPort(), count() FROM {replicas} GROUP BY 1"
    assert sorted(first.execute(every)) == sorted((node.port, ROWS) for node in numbers.nodes)
    remote = f"SELECT number FROM remote('127.0.0.1:{third.port}', ooni.numbers) WHERE number < 3"
    assert sorted(first.execute(remote)) == [(0,), (1,), (2,)]


def test_two_shards_share_the_rows_of_a_distributed_table(zookeeper_is_installed: None) -> None:
    with Cluster(shards=2, replicas=2) as cluster:
        everywhere(cluster, "CREATE DATABASE ooni ENGINE = Atomic", CREATE)
        everywhere(
            cluster,
            "CREATE TABLE ooni.everything AS ooni.numbers "
            "ENGINE = Distributed('oonidata_cluster', ooni, numbers, number)",
        )
        first, _, third, fourth = cluster.nodes
        fourth.kill()
        insert = "INSERT INTO ooni.everything SETTINGS distributed_foreground_insert = 1"
        first.execute(f"{insert} SELECT number, hex(sipHash128(number)) FROM numbers({ROWS})")
        fourth.start()
        contents = [synced(node) for node in cluster.nodes]
        assert contents[0] == contents[1]
        assert contents[2] == contents[3]
        assert [contents[0][0][0], contents[2][0][0]] == [ROWS / 2, ROWS / 2]
        read = third.execute("SELECT number FROM ooni.everything")
        assert sorted(number for (number,) in read) == list(range(ROWS))


def test_parts_come_late_or_not_at_all(numbers: Cluster) -> None:
    first, second, _ = numbers.nodes
    first.refuse_parts()
    first.execute(INSERT.format(0, ROWS))
    tried = "SELECT max(num_tries) FROM system.replication_queue"
    wait_for(lambda: second.execute(tried)[0][0] > 1, "a fetch that failed twice")
    assert second.execute("SELECT count() FROM ooni.numbers") == [(0,)]
    first.mend()
    assert synced(second)[0][0] == ROWS
    first.serve_parts_after(1)
    begin = time.monotonic()
    first.execute(INSERT.format(ROWS, ROWS))
    assert synced(second)[0][0] == 2 * ROWS
    assert time.monotonic() - begin > 1


def test_a_statement_fails_on_one_node(cluster: Cluster) -> None:
    first, second, _ = cluster.nodes
    first.fail(r"^EXCHANGE", 999, "Session expired")
    with pytest.raises(errors.ServerException, match="Session expired"):
        first.execute("EXCHANGE TABLES ooni.a AND ooni.b")
    with pytest.raises(errors.ServerException) as failure:
        second.execute("EXCHANGE TABLES ooni.a AND ooni.b")
    assert failure.value.code == errors.ErrorCodes.UNKNOWN_TABLE


# It depends on the moment how a client meets it.
CUT = (errors.NetworkError, EOFError, OSError)


def test_connections_to_one_node_are_cut(cluster: Cluster) -> None:
    first, second, _ = cluster.nodes
    with first.client() as client:
        assert client.execute("SELECT 1") == [(1,)]
        first.cut()
        with pytest.raises(CUT):
            client.execute("SELECT sleep(3)")
        with pytest.raises(CUT):
            first.execute("SELECT 1")
        assert second.execute("SELECT 1") == [(1,)]
        first.mend()
        wait_for(lambda: first.execute("SELECT 1") == [(1,)], "an answer")
