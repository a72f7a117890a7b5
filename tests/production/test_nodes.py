"""Which nodes take part, and what stops one of them, or all."""

from pathlib import Path

import pytest

from conftest import Database
from dev.cluster.cluster import Cluster
from dev.cluster.configuration import NAME
from dev.samples.test_lists import SampleTestLists
from dev.servers.git import GitServer
from production import airflow
from production.lists import ROWS, Updater, agree, live, load
from production.watching import Watch

pytestmark = pytest.mark.production

ATTEMPTS = 20
ACCESS_DENIED, SESSION_EXPIRED = 497, 999


def addresses(cluster: Cluster) -> list[str]:
    return [f"127.0.0.1:{node.port}" for node in cluster.nodes]


def test_nodes_can_be_named_in_place_of_the_cluster(
    updater: Updater, production: Cluster, lists: SampleTestLists
) -> None:
    updater.configure(cluster="", nodes=addresses(production))
    load(updater)
    agree(production, ROWS)
    production.nodes[0].kill()  # the one of db_uri
    lists.add_rows("it", 1)
    load(updater)
    agree(production, ROWS + 1)


def test_a_server_that_is_named_twice_is_no_majority(updater: Updater, production: Cluster) -> None:
    first, second, _ = addresses(production)
    same = first.replace("127.0.0.1", "localhost")
    for nodes in ([first, second, first], [first, second, same]):
        status, log = updater.run(cluster="", nodes=nodes)
        assert (status, "there once" in log or "there twice" in log) == (78, True), log
    assert live(production) == [(0, 0)] * 3


def test_nodes_that_are_not_all_replicas_are_refused(updater: Updater, production: Cluster) -> None:
    status, log = updater.run(cluster="", nodes=addresses(production)[:2])
    assert (status, "has 3 replicas, and the cluster only 2" in log) == (78, True), log
    assert live(production) == [(0, 0)] * 3


def test_without_a_session_with_zookeeper_nothing_is_written(
    updater: Updater, production: Cluster, lists: SampleTestLists
) -> None:
    load(updater)
    lists.add_rows("it", 1)
    with Watch(production) as watch:
        production.zookeeper.kill()
        status, log = updater.run()
        assert (status, "ZooKeeper" in log) == (69, True), log
        production.zookeeper.start()
        production.mend()
        for _ in range(ATTEMPTS):  # a node without its session is brought along by a later run
            if updater.run()[0] == 0 and len(set(live(production))) == 1:
                break
    agree(production, ROWS + 1)
    assert {rows for rows, _ in watch.contents()} == {ROWS, ROWS + 1}


@pytest.mark.parametrize("statement", ["^SHOW CREATE", "^DROP", "^CREATE", "^EXCHANGE"])
def test_what_only_a_person_can_mend_on_one_node_stops_the_others_never(
    updater: Updater, production: Cluster, lists: SampleTestLists, statement: str
) -> None:
    load(updater)
    lists.add_rows("it", 1)
    sick, *healthy = production.nodes
    sick.fail(statement, ACCESS_DENIED, "Not enough privileges")
    status, log = updater.run()
    assert (status, f"127.0.0.1:{sick.port} does not take part any more" in log) == (0, True), log
    assert {content[0] for content in live(production)[1:] if content} == {ROWS + 1}
    sick.mend()
    load(updater)
    agree(production, ROWS + 1)
    assert len(healthy) == 2


def test_a_node_that_takes_no_rows_is_not_asked_in_each_run(
    updater: Updater, production: Cluster
) -> None:
    production.nodes[0].fail("^INSERT", SESSION_EXPIRED, "Session expired")
    statuses: list[int] = []
    while not statuses or (statuses[-1] == 69 and len(statuses) < ATTEMPTS):
        statuses.append(updater.run()[0])
    assert statuses[-1] == 0


def test_a_dry_run_compares_with_what_most_nodes_have(
    updater: Updater, production: Cluster, lists: SampleTestLists
) -> None:
    load(updater)
    first = production.nodes[0]
    airflow.update(first, [("example.org", "http://example.org/", "it", "NEWS")])
    lists.add_rows("it", 1)
    status, log = updater.run("--dry-run")
    assert status == 0, log
    assert "has something else than the others" in log
    assert f"{ROWS + 1} rows (+1 -0)" in log
    assert first.execute("SELECT count() FROM ooni.citizenlab") == [(1,)]


def test_where_no_majority_agrees_a_held_country_keeps_what_the_last_run_left(
    updater: Updater, production: Cluster, lists: SampleTestLists
) -> None:
    load(updater)
    first, second, third = production.nodes
    of_russia = "SELECT count() FROM ooni.citizenlab WHERE cc = toFixedString('ru', 32)"
    before = second.execute(of_russia)
    third.kill()
    airflow.update(first, [("example.org", "http://example.org/", "ru", "NEWS")])
    lists.break_file("ru")
    load(updater)
    assert [node.execute(of_russia) for node in (first, second)] == [before] * 2


def test_two_hosts_that_run_the_updater_at_once_show_complete_lists_only(
    updater: Updater, production: Cluster, lists: SampleTestLists, git: GitServer, tmp_path: Path
) -> None:
    load(updater)
    folder = tmp_path / "another host"
    folder.mkdir()
    another = Updater(folder, Database("ooni", production.nodes[1]), updater.capsys)
    uri = production.nodes[1].uri("write", "write", "ooni")
    another.configure(db_uri=uri, git_url=git.url("test-lists"), min_rows=100, cluster=NAME)
    with Watch(production) as watch:
        for number in (1, 2, 3):
            lists.add_rows("it", 1)
            production.nodes[number % 3].delay("^(INSERT|CREATE)", 0.1 * number)
            processes = [updater.start(), another.start()]
            for process in processes:
                log = process.communicate()[1]
                assert process.returncode in {0, 65, 69, 75}, log
            production.mend()
    load(updater)
    agree(production, ROWS + 3)
    assert {rows for rows, _ in watch.contents()} <= {ROWS, ROWS + 1, ROWS + 2, ROWS + 3}
