"""What `doctor` says of three replicas, and that a run ends with the same line."""

from collections.abc import Iterator

import pytest

from dev.cluster.cluster import Cluster, Node
from dev.samples.test_lists import SampleTestLists
from production import airflow
from production.harness import everywhere, wait_for, wait_until_writable
from production.lists import ROWS, Updater, agree, load

pytestmark = pytest.mark.production

OTHERS = [("example.org", "http://example.org/", "it", "NEWS")]
# A fourth replica of the live table, under another name in another database of the first node.
FOURTH = """
    CREATE TABLE elsewhere.citizenlab
    (`domain` String, `url` String, `cc` FixedString(32), `category_code` String)
    ENGINE = ReplicatedReplacingMergeTree('{path}', '04')
    ORDER BY (domain, url, cc, category_code) SETTINGS index_granularity = 4
"""


def examined(updater: Updater, **keys: object) -> tuple[int, dict[str, tuple[str, str]]]:
    """Return the exit status, and for each check its state and text."""
    status, printed = updater.run("doctor", **keys)
    lines = [line for line in printed.splitlines() if line.startswith(("ok", "note", "FAILED"))]
    return status, {line[8:23].rstrip(): (line[:6].rstrip(), line[25:]) for line in lines}


def unwell(checks: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Return the checks that are not ok, and their states."""
    return {name: state for name, (state, _) in checks.items() if state != "ok"}


def test_three_replicas_are_well_before_and_after_a_run(updater: Updater) -> None:
    for rows in (0, ROWS):
        status, checks = examined(updater)
        assert (status, unwell(checks)) == (0, {}), checks
        assert checks["cluster"][1] == "3 of 3 nodes of oonidata_cluster"
        assert checks["replicas"][1] == "citizenlab: 3 replicas"
        assert checks["rows"][1] == f"citizenlab: {rows}"
        load(updater)


def test_a_node_that_is_away_is_noted_with_the_reason(
    updater: Updater, production: Cluster
) -> None:
    load(updater)
    third = production.nodes[2]
    third.kill()
    status, checks = examined(updater)
    assert (status, unwell(checks)) == (0, {"cluster": "note"}), checks
    text = checks["cluster"][1]
    assert text.startswith(f"2 of 3 nodes of oonidata_cluster; 127.0.0.1:{third.port}: ")
    assert "Connection refused" in text
    assert "warning: " not in updater.run("doctor")[1]


def test_without_a_majority_doctor_and_run_end_alike(updater: Updater, production: Cluster) -> None:
    for node in production.nodes[1:]:
        node.kill()
    status, checks = examined(updater)
    assert (status, unwell(checks)) == (69, {"cluster": "FAILED"}), checks
    assert "1 of the 3 nodes of shard 1 take part, which is no majority" in checks["cluster"][1]
    status, log = updater.run()
    assert (status, f"error: {checks['cluster'][1]}\n" in log) == (69, True), log


def test_an_odd_node_is_noted_until_a_run_has_mended_it(
    updater: Updater, production: Cluster, lists: SampleTestLists
) -> None:
    load(updater)
    first = production.nodes[0]
    airflow.update(first, OTHERS)
    status, checks = examined(updater)
    assert (status, unwell(checks)) == (0, {"rows": "note"}), checks
    assert checks["rows"][1] == (
        f"citizenlab: {ROWS}, but others on 127.0.0.1:{first.port}; the next run mends that"
    )
    load(updater)
    assert unwell(examined(updater)[1]) == {}


@pytest.fixture
def fourth(updater: Updater, production: Cluster) -> Iterator[Node]:
    """A node that has a fourth replica of the list, which no node of the cluster is."""
    load(updater)
    first = production.nodes[0]
    paths = "SELECT zookeeper_path FROM system.replicas WHERE table = 'citizenlab'"
    ((path,),) = first.execute(paths)
    first.execute("CREATE DATABASE elsewhere ENGINE = Atomic")
    first.execute(FOURTH.format(path=path))
    yield first
    first.execute("DROP DATABASE elsewhere SYNC")


def test_a_running_replica_that_is_no_node_of_the_cluster_is_refused(
    updater: Updater, fourth: Node, lists: SampleTestLists
) -> None:
    status, checks = examined(updater)
    assert (status, checks["replicas"][0]) == (78, "FAILED"), checks
    assert "'04' has a running server: name a cluster that has it" in checks["replicas"][1]
    lists.add_rows("it", 1)
    status, log = updater.run()
    assert (status, f"error: {checks['replicas'][1]}\n" in log) == (78, True), log


def test_a_stale_replica_is_noted_with_its_statement_and_stops_no_update(
    updater: Updater, production: Cluster, fourth: Node, lists: SampleTestLists
) -> None:
    fourth.execute("DETACH TABLE elsewhere.citizenlab")
    status, checks = examined(updater)
    statement = "SYSTEM DROP REPLICA '04' FROM TABLE ooni.citizenlab"
    assert (status, unwell(checks)) == (0, {"replicas": "note"}), checks
    assert checks["replicas"][1].endswith(statement)
    lists.add_rows("it", 1)
    status, log = updater.run()
    assert (status, f"warning: replicas: {checks['replicas'][1]}\n" in log) == (0, True), log
    agree(production, ROWS + 1)
    assert unwell(examined(updater)[1]) == {}  # the fresh path has no such entry
    for rows in (2, 3):
        lists.add_rows("it", 1)
        load(updater)
        agree(production, ROWS + rows)


def test_a_stale_replica_and_an_absent_node_stop_no_update(
    updater: Updater, production: Cluster, fourth: Node, lists: SampleTestLists
) -> None:
    fourth.execute("DETACH TABLE elsewhere.citizenlab")
    third = production.nodes[2]
    third.kill()
    lists.add_rows("it", 1)
    load(updater)
    agree(production, ROWS + 1)
    third.start()
    wait_until_writable(third)
    load(updater)
    agree(production, ROWS + 1)


def test_the_statement_that_doctor_tells_removes_a_stale_replica(
    updater: Updater, production: Cluster, fourth: Node
) -> None:
    fourth.execute("DETACH TABLE elsewhere.citizenlab")
    text = examined(updater)[1]["replicas"][1]
    production.nodes[1].execute(text[text.index("SYSTEM") :])
    assert unwell(examined(updater)[1]) == {}
    agree(production, ROWS)


def test_without_zookeeper_doctor_and_run_end_alike(updater: Updater, production: Cluster) -> None:
    load(updater)
    production.zookeeper.kill()
    readonly = "SELECT max(is_readonly) FROM system.replicas"
    for node in production.nodes:
        wait_for(lambda node=node: node.execute(readonly) == [(1,)], "a read-only table")  # type: ignore[misc]
    try:
        status, checks = examined(updater)
        assert (status, checks["tables"][0]) == (69, "FAILED"), checks
        assert "citizenlab is read-only: the server has no session with ZooKeeper" in str(checks)
        status, log = updater.run()
        assert (status, f"error: {checks['tables'][1]}\n" in log) == (69, True), log
    finally:
        production.zookeeper.start()
        wait_until_writable(*production.nodes)
    assert unwell(examined(updater)[1]) == {}


def test_without_a_cluster_the_key_is_told(updater: Updater) -> None:
    status, checks = examined(updater, cluster="")
    assert (status, checks["replicas"][0]) == (78, "FAILED"), checks
    assert checks["replicas"][1].endswith('set cluster = "oonidata_cluster"')
    status, log = updater.run()
    assert (status, f"error: {checks['replicas'][1]}\n" in log) == (78, True), log


def test_without_a_cluster_replicas_that_are_gone_are_told_with_their_statements(
    updater: Updater, production: Cluster
) -> None:
    load(updater)
    first, *others = production.nodes
    for node in others:
        node.kill()
    running = "SELECT active_replicas FROM system.replicas WHERE table = 'citizenlab'"
    wait_for(lambda: first.execute(running) == [(1,)], "the end of the others' sessions")
    status, checks = examined(updater, cluster="")
    assert (status, checks["replicas"][0]) == (78, "FAILED"), checks
    for name in ("02", "03"):
        statement = f"SYSTEM DROP REPLICA '{name}' FROM TABLE ooni.citizenlab"
        assert statement in checks["replicas"][1]


@pytest.mark.parametrize(("user", "check"), [("fastpath", "grants"), ("guest", "grants")])
def test_users_of_ooni_that_only_read_or_insert(
    updater: Updater, production: Cluster, user: str, check: str
) -> None:
    uri = production.nodes[0].uri(user, user, "ooni")
    status, checks = examined(updater, db_uri=uri)
    assert (status, unwell(checks)) == (78, {check: "FAILED"}), checks


def test_a_user_who_may_not_see_the_replicas_is_told_the_grant(
    updater: Updater, production: Cluster
) -> None:
    for node in production.nodes:
        node.fail(r"FROM system\.replicas", 497, "fastpath: Not enough privileges.")
    status, checks = examined(updater)
    assert (status, checks["tables"][0]) == (78, "FAILED"), checks
    assert checks["tables"][1].endswith("run: GRANT SELECT ON system.replicas TO default")


def test_a_node_that_lacks_a_column_is_noted(updater: Updater, production: Cluster) -> None:
    third = production.nodes[2]
    everywhere(production, "DROP TABLE ooni.citizenlab SYNC")
    third.execute("CREATE TABLE ooni.citizenlab (domain String) ENGINE = MergeTree ORDER BY domain")
    status, checks = examined(updater)
    assert (status, checks["tables"][0]) == (0, "note"), checks
    assert f"127.0.0.1:{third.port}: table citizenlab has no column" in checks["tables"][1]


def test_a_view_in_the_place_of_the_list_is_noted(updater: Updater, production: Cluster) -> None:
    load(updater)
    third = production.nodes[2]
    third.execute("DROP TABLE ooni.citizenlab SYNC")
    third.execute(
        "CREATE VIEW ooni.citizenlab AS"
        " SELECT '' AS domain, '' AS url, toFixedString('it', 32) AS cc, '' AS category_code"
    )
    status, checks = examined(updater)
    assert (status, unwell(checks)) == (0, {"tables": "note", "rows": "note"}), checks
    for check in ("tables", "rows"):
        assert f"127.0.0.1:{third.port}: citizenlab has no rows of its own" in checks[check][1]
