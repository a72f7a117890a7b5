"""The updater of the test lists on OONI's three replicas."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dev.cluster.cluster import Cluster, Node
from dev.samples.test_lists import SampleTestLists
from production import airflow
from production.harness import wait_for, wait_until_writable
from production.lists import ROWS, Updater, agree, live, load
from production.proxy import round_robin
from production.watching import Watch

pytestmark = pytest.mark.production

RUNS_AWAY = int(os.environ.get("OONI_TEST_RUNS_AWAY", "2"))


@contextmanager
def complete_versions_only(cluster: Cluster, *versions: int) -> Iterator[None]:
    """Check that readers see nothing but complete lists of these lengths meanwhile."""
    with Watch(cluster) as watch:
        yield
        time.sleep(0.2)  # for what comes late; a longer wait would find more, never less
    assert {rows for rows, _ in watch.contents()} <= set(versions)
    assert len(watch.contents()) <= len(versions)


def test_without_a_cluster_in_the_configuration_nothing_is_touched(
    updater: Updater, production: Cluster
) -> None:
    for _ in range(2):
        status, log = updater.run(cluster="")
        assert status == 78, log
        assert "cluster" in log
    assert all(
        node.execute("EXISTS TABLE ooni.citizenlab_flip") == [(1,)] for node in production.nodes
    )


def test_an_update_is_live_on_every_node(updater: Updater, production: Cluster) -> None:
    load(updater)
    agree(production, ROWS)


def test_readers_see_the_old_list_or_the_new_one(
    updater: Updater, production: Cluster, lists: SampleTestLists
) -> None:
    load(updater)
    with complete_versions_only(production, ROWS, ROWS + 1):
        lists.add_rows("it", 1)
        load(updater)
        agree(production, ROWS + 1)


def test_a_run_heals_a_node_that_somebody_swapped_alone(
    updater: Updater, production: Cluster, lists: SampleTestLists
) -> None:
    load(updater)
    first = production.nodes[0]
    rows = first.execute("SELECT * FROM ooni.citizenlab")
    airflow.update(first, rows)
    with complete_versions_only(production, ROWS):
        load(updater)
        agree(production, ROWS)


def test_one_node_that_is_away_stops_nothing(updater: Updater, production: Cluster) -> None:
    production.nodes[2].kill()
    load(updater)
    agree(production, ROWS)


def test_a_node_that_comes_back_is_healed_by_the_next_run(
    updater: Updater, production: Cluster, lists: SampleTestLists
) -> None:
    load(updater)
    third = production.nodes[2]
    third.kill()
    for _ in range(RUNS_AWAY):
        lists.add_rows("it", 1)
        load(updater)
    with complete_versions_only(production, ROWS, ROWS + RUNS_AWAY):
        third.start()
        wait_until_writable(third)
        load(updater)
        agree(production, ROWS + RUNS_AWAY)


def test_late_parts_delay_the_swap_and_nothing_else(
    updater: Updater, production: Cluster, lists: SampleTestLists
) -> None:
    load(updater)
    lists.add_rows("it", 1)
    for node in production.nodes:
        node.serve_parts_after(1)
    with complete_versions_only(production, ROWS, ROWS + 1):
        load(updater)
        agree(production, ROWS + 1)


def test_a_run_heals_what_one_left_that_was_killed_between_two_nodes(
    updater: Updater, production: Cluster, lists: SampleTestLists
) -> None:
    load(updater)
    lists.add_rows("it", 1)
    with complete_versions_only(production, ROWS, ROWS + 1):
        production.nodes[1].delay(r"^EXCHANGE", 30)
        process = updater.start()
        try:
            wait_for(lambda: len(set(live(production))) == 2, "a swap on one node alone")
        finally:
            process.kill()
            process.communicate()
            production.nodes[1].mend()
        load(updater)
        agree(production, ROWS + 1)


def test_a_swap_that_fails_on_one_node_is_undone_or_made_good(
    updater: Updater, production: Cluster, lists: SampleTestLists
) -> None:
    load(updater)
    lists.add_rows("it", 1)
    production.nodes[1].fail(r"^EXCHANGE", 999, "Session expired")
    with complete_versions_only(production, ROWS, ROWS + 1):
        updater.run()
        production.nodes[1].mend()
        load(updater)
        agree(production, ROWS + 1)


def test_behind_a_proxy_to_all_replicas_nothing_is_touched(
    updater: Updater, production: Cluster
) -> None:
    with round_robin([node.port for node in production.nodes]) as port:
        uri = f"clickhouse://write:write@127.0.0.1:{port}/ooni"
        status, log = updater.run(cluster="", db_uri=uri)
    assert status == 78, log
    assert live(production) == [(0, 0)] * 3


@pytest.mark.parametrize("user", ["fastpath", "readonly", "guest"])
def test_a_user_without_the_rights_is_a_matter_for_a_person(
    updater: Updater, production: Cluster, user: str
) -> None:
    node = production.nodes[0]
    status, log = updater.run(cluster="", db_uri=node.uri(user, user, "ooni"))
    assert status == 78, log
    assert node_tables(node) == {"citizenlab", "citizenlab_flip"}


def node_tables(node: Node) -> set[str]:
    query = "SELECT name FROM system.tables WHERE database = 'ooni' AND name LIKE 'citizenlab%'"
    return {name for (name,) in node.execute(query)}


def has_shadow(node: Node) -> bool:
    return "citizenlab_flip" in node_tables(node)


def test_a_node_that_hangs_is_absent_after_the_time_to_connect(
    updater: Updater, production: Cluster
) -> None:
    third = production.nodes[2]
    os.kill(third.pid, signal.SIGSTOP)
    try:
        uri = production.nodes[0].uri("write", "write", "ooni", connect_timeout=1)
        begin = time.monotonic()
        status, log = updater.run(db_uri=uri)
        seconds = time.monotonic() - begin
    finally:
        os.kill(third.pid, signal.SIGCONT)
    assert status == 0, log
    assert f"127.0.0.1:{third.port} is absent" in log
    assert seconds < 60  # a statement may take 300
    load(updater)
    wait_until_writable(third)
    load(updater)  # the first may have found it without a session with ZooKeeper
    agree(production, ROWS)


def test_rows_that_are_kept_are_not_those_of_an_odd_node(
    updater: Updater, production: Cluster, lists: SampleTestLists
) -> None:
    load(updater)
    first = production.nodes[0]
    airflow.update(first, [("example.org", "http://example.org/", "it", "NEWS")])
    lists.break_file("ru")
    lists.add_rows("it", 1)
    status, log = updater.run(on_broken_file="hold")
    assert status == 0, log
    agree(production, ROWS + 1)


def test_a_node_without_the_table_gets_it_when_it_is_complete(
    updater: Updater, production: Cluster, lists: SampleTestLists
) -> None:
    load(updater)
    third = production.nodes[2]
    third.execute("DROP TABLE ooni.citizenlab SYNC")
    lists.add_rows("it", 1)
    for node in production.nodes:
        node.serve_parts_after(1)
    with complete_versions_only(production, ROWS, ROWS + 1):
        load(updater)
        agree(production, ROWS + 1)


@pytest.mark.parametrize("changed", [True, False], ids=["changed", "unchanged"])
def test_a_node_that_lost_its_disk_stops_nothing(
    updater: Updater, production: Cluster, lists: SampleTestLists, *, changed: bool
) -> None:
    load(updater)
    third = production.nodes[2]
    third.kill()
    shutil.rmtree(third.log.parent / "data")
    third.start()
    third.execute("CREATE DATABASE ooni ENGINE = Atomic")
    if changed:
        lists.add_rows("it", 1)
    load(updater)

    def healed() -> bool:  # not before its old session with ZooKeeper has expired
        load(updater)
        return bool(third.execute("EXISTS TABLE ooni.citizenlab")[0][0])

    wait_for(healed, "the node that lost its disk")
    agree(production, ROWS + changed)


def test_a_rollback_that_a_minority_could_do_is_refused(
    updater: Updater, production: Cluster, lists: SampleTestLists
) -> None:
    load(updater)
    lists.add_rows("it", 1)
    load(updater)
    for node in production.nodes[1:]:
        node.execute("DROP TABLE ooni.citizenlab_flip SYNC")
    with complete_versions_only(production, ROWS + 1):
        status, log = updater.run("--rollback")
    assert status == 65, log
    assert "no majority" in log
