"""What a restore finds on the nodes: merged, lagging, half-made and crossed tables."""

from typing import Any

import pytest

from backups import replica_restore, standings
from dev.cluster.cluster import Cluster
from ooni_common.database import Database
from ooni_common.errors import Stopped
from production.backup_tool import Tool
from production.harness import everywhere
from production.private_tables import (
    FACTS,
    INSERT,
    NUMBERS,
    TABLES,
    content,
    contents_of,
    path_of,
    tables,
    wait_for_rows,
)

pytestmark = pytest.mark.production

# Rows with the keys of rows that are there, of a later version: a merge leaves 300 of 600.
AGAIN = "INSERT INTO ooni.facts SELECT month, number, 2 FROM ooni.facts"

LATER = (
    "CREATE TABLE ooni.plain_2 (number UInt64) ENGINE = MergeTree ORDER BY number",
    "INSERT INTO ooni.plain_2 SELECT number FROM numbers(20)",
)
# What becomes the table of a node.
REPLICA = "`ooni`.`ooni_restoring_[0-9a-f]+_[0-9TZ]+_replicated`"


@pytest.fixture
def of_facts(saving: Tool) -> Tool:
    """The tool, with one table alone to look after."""
    saving.config["tables"] = {"facts": "private", "*": "none"}
    return saving


def kept(cluster: Cluster) -> list[int]:
    """Return how many tables of before each node keeps."""
    return [sum("_replaced_" in name for name in names) for names in tables(cluster)]


def test_rows_that_merges_have_made_one_are_no_loss(of_facts: Tool, cluster: Cluster) -> None:
    everywhere(cluster, "SYSTEM STOP MERGES ooni.facts")
    cluster.nodes[0].execute(AGAIN)
    wait_for_rows(cluster, "facts", 600)
    of_facts.succeed("backup")
    everywhere(cluster, "SYSTEM START MERGES ooni.facts")
    cluster.nodes[0].execute("OPTIMIZE TABLE ooni.facts FINAL")
    wait_for_rows(cluster, "facts", 300)
    before = contents_of(cluster, "facts")
    log = of_facts.succeed("restore", "--all")
    assert "of which those with the same key have become one" in log
    cluster.nodes[2].execute("DROP TABLE ooni.facts SYNC")
    assert "joined" in of_facts.succeed("restore", "--all")
    assert contents_of(cluster, "facts") == before
    assert not any("ooni_restoring" in name for names in tables(cluster) for name in names)


def test_missing_rows_of_a_table_that_merges_are_told_and_the_others_restored(
    saving: Tool, cluster: Cluster
) -> None:
    saving.config["tables"] = {"facts": "private", "plain": "private", "*": "none"}
    saving.succeed("backup")
    first = cluster.nodes[0]
    before = content(first, "facts")
    first.execute("TRUNCATE TABLE ooni.facts")
    first.execute(INSERT.format(202501, 0, 7))
    wait_for_rows(cluster, "facts", 7)
    cluster.nodes[2].execute("DROP TABLE ooni.plain SYNC")
    status, log = saving.run("restore", "--all")
    assert (status, "`facts` is not as in the backup: rows are missing" in log) == (65, True), log
    assert content(cluster.nodes[2], "plain")[0] == 10
    assert [rows for rows, _ in contents_of(cluster, "facts")] == [7]
    saving.succeed("restore", "--all", "--replace")
    assert contents_of(cluster, "facts") == {before}


def test_a_table_that_takes_no_such_rows_is_told_and_the_others_restored(
    saving: Tool, cluster: Cluster
) -> None:
    saving.config["tables"] = {"facts": "private", "plain": "private", "*": "none"}
    saving.succeed("backup")
    everywhere(cluster, "DROP TABLE ooni.facts SYNC")
    everywhere(cluster, FACTS.replace("ORDER BY number", "ORDER BY (number, month)"))
    cluster.nodes[2].execute("DROP TABLE ooni.plain SYNC")
    status, log = saving.run("restore", "--all")
    assert (status, "facts" in log.splitlines()[-1]) == (69, True), log
    assert content(cluster.nodes[2], "plain")[0] == 10
    assert "restored `ooni`.`plain`" in log, log


@pytest.mark.parametrize(
    ("ill", "code", "expected"), [([2], 241, 69), ([0, 1, 2], 243, 69), ([0, 1, 2], 497, 78)]
)
def test_nodes_that_fail_at_one_plain_table_get_the_others(
    saving: Tool, cluster: Cluster, ill: list[int], code: int, expected: int
) -> None:
    everywhere(cluster, *LATER)
    saving.config["tables"] = {"plain": "private", "plain_2": "private", "*": "none"}
    saving.succeed("backup")
    everywhere(cluster, "DROP TABLE ooni.plain SYNC", "DROP TABLE ooni.plain_2 SYNC")
    sick = [cluster.nodes[number] for number in ill]
    for node in sick:
        node.fail("^RESTORE TABLE `ooni`.`plain` ", code)
    status, log = saving.run("restore", "--all")
    assert (status, log.splitlines()[-1].count("`ooni`.`plain`: 127.0.0.1:")) == (expected, 1), log
    for node in sick:
        assert f"`ooni`.`plain`: 127.0.0.1:{node.port}: database: injected (code {code}" in log
    assert ["plain" in names for names in tables(cluster)] == [
        node not in sick for node in cluster.nodes
    ]
    assert [content(node, "plain_2")[0] for node in cluster.nodes] == [20] * 3
    cluster.mend()
    saving.succeed("restore", "--all")
    assert [content(node, "plain")[0] for node in cluster.nodes] == [10] * 3


@pytest.mark.parametrize("statement", ["CREATE TABLE", "SYSTEM START MERGES", "RENAME TABLE"])
def test_a_node_that_fails_at_its_replica_gets_the_other_tables(
    saving: Tool, cluster: Cluster, statement: str
) -> None:
    everywhere(cluster, *LATER)
    saving.config["tables"] = {"facts": "private", "plain_2": "private", "*": "none"}
    saving.succeed("backup")
    before = content(cluster.nodes[0], "facts")
    everywhere(cluster, "DROP TABLE ooni.facts SYNC")
    *others, third = cluster.nodes
    third.execute("DROP TABLE ooni.plain_2 SYNC")
    third.fail(f"^{statement} {REPLICA}", 241)
    status, log = saving.run("restore", "--all")
    last = log.splitlines()[-1]
    assert (status, f"`ooni`.`facts`: 127.0.0.1:{third.port}: " in last) == (69, True), log
    assert ["facts" in names for names in tables(cluster)] == [True, True, False]
    assert [content(node, "facts") for node in others] == [before] * 2
    assert content(third, "plain_2")[0] == 20
    cluster.mend()
    assert "joined" in saving.succeed("restore", "--all")
    assert contents_of(cluster, "facts") == {before}
    assert not any("ooni_restoring" in name for names in tables(cluster) for name in names)


def test_a_node_that_fails_at_an_empty_replica_gets_the_other_tables(
    saving: Tool, cluster: Cluster
) -> None:
    everywhere(cluster, *LATER)
    saving.config["tables"] = {"facts": "private", "plain_2": "private", "*": "none"}
    saving.succeed("backup")
    everywhere(cluster, "DROP TABLE ooni.facts SYNC", "DROP TABLE ooni.plain_2 SYNC")
    third = cluster.nodes[2]
    third.fail(f"^RENAME TABLE {REPLICA}", 243)
    status, log = saving.run("restore", "--all", "--schema-only")
    last = log.splitlines()[-1]
    assert (status, f"`ooni`.`facts`: 127.0.0.1:{third.port}: " in last) == (69, True), log
    assert ["facts" in names for names in tables(cluster)] == [True, True, False]
    assert all("plain_2" in names for names in tables(cluster))
    cluster.mend()
    saving.succeed("restore", "--all", "--schema-only", "--skip", "plain_2")
    assert len({path_of(node, "facts") for node in cluster.nodes}) == 1


def test_replicas_under_two_paths_become_one_table(of_facts: Tool, cluster: Cluster) -> None:
    of_facts.succeed("backup")
    *others, third = cluster.nodes
    third.kill()
    for node in others:
        node.execute("DROP TABLE ooni.facts SYNC")
    of_facts.succeed("restore", "facts", "--as", "facts")
    third.start()
    log = of_facts.succeed("restore", "--all")
    assert f"on 127.0.0.1:{third.port} is not a replica of the others' table" in log
    assert len({path_of(node, "facts") for node in cluster.nodes}) == 1
    assert kept(cluster) == [0, 0, 1]
    others[0].execute(INSERT.format(202504, 1000, 30))
    wait_for_rows(cluster, "facts", 330)


def test_a_restore_that_was_killed_before_an_exchange_goes_on_there(
    of_facts: Tool, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(cluster.nodes[0], "facts")
    of_facts.succeed("backup")
    cluster.nodes[0].execute(INSERT.format(202504, 1000, 30))
    wait_for_rows(cluster, "facts", 330)
    query, exchanges = Database.query, []

    def killed(database: Database, sql: str, *arguments: Any, **options: Any) -> Any:
        exchanges.extend([sql] if sql.startswith("EXCHANGE") else [])
        if len(exchanges) > 1:
            raise Stopped("killed")
        return query(database, sql, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Database, "query", killed)
        assert of_facts.run("restore", "facts", "--replace")[0] == 75
    assert [content(node, "facts")[0] for node in cluster.nodes] == [300, 330, 330]
    of_facts.succeed("restore", "facts", "--replace")
    assert contents_of(cluster, "facts") == {before}
    assert len({path_of(node, "facts") for node in cluster.nodes}) == 1
    assert kept(cluster) == [1, 1, 1]


def test_one_server_joins_no_table_that_others_have(of_facts: Tool, cluster: Cluster) -> None:
    of_facts.succeed("backup")
    cluster.nodes[0].execute("DROP TABLE ooni.facts SYNC")
    before = content(cluster.nodes[1], "facts")
    status, log = of_facts.run("restore", "--all", "--skip", "counted", cluster="")
    assert status == 65, log
    assert "is that of a table that other servers have" in log
    assert content(cluster.nodes[1], "facts") == content(cluster.nodes[2], "facts") == before
    assert "facts" not in tables(cluster)[0]


def test_a_replica_under_another_name_is_told_and_the_others_restored(
    saving: Tool, cluster: Cluster
) -> None:
    saving.succeed("backup")
    third = cluster.nodes[2]
    third.execute("RENAME TABLE ooni.facts TO ooni.mine")
    third.execute("DROP TABLE ooni.plain SYNC")
    status, log = saving.run("restore", "--all")
    told = f"127.0.0.1:{third.port}: `ooni`.`mine` is a replica of the others' `ooni`.`facts`"
    assert (status, told in log) == (78, True), log
    assert content(third, "plain")[0] == 10
    assert "mine" in tables(cluster)[2]
    third.execute("RENAME TABLE ooni.mine TO ooni.facts")
    saving.succeed("restore", "--all")


def test_replicas_with_names_of_their_own_are_restored_on_every_node(
    of_facts: Tool, cluster: Cluster
) -> None:
    create = """CREATE TABLE ooni.named (number UInt64)
    ENGINE = ReplicatedMergeTree('/clickhouse/named/named', 'node {}') ORDER BY number"""
    for number, node in enumerate(cluster.nodes):
        node.execute(create.format(number))
    cluster.nodes[0].execute("INSERT INTO ooni.named SELECT number FROM numbers(50)")
    wait_for_rows(cluster, "named", 50)
    before = content(cluster.nodes[0], "named")
    of_facts.config["tables"] = {"named": "private", "*": "none"}
    of_facts.succeed("backup")
    of_facts.succeed("restore", "named")
    cluster.nodes[2].execute("DROP TABLE ooni.named SYNC")
    of_facts.succeed("restore", "named", "--as", "named")
    everywhere(cluster, "DROP TABLE ooni.named SYNC", "DROP TABLE ooni.named_restored SYNC")
    of_facts.succeed("restore", "--all")
    assert [content(node, "named") for node in cluster.nodes] == [before] * 3
    cluster.nodes[1].execute("INSERT INTO ooni.named SELECT number FROM numbers(50, 5)")
    wait_for_rows(cluster, "named", 55)


def test_rows_that_are_on_an_absent_node_alone_are_not_restored_beside_them(
    saving: Tool, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere(cluster, NUMBERS)
    *others, third = cluster.nodes
    third.execute("INSERT INTO ooni.numbers SELECT number FROM numbers(50)")
    wait_for_rows(cluster, "numbers", 50)
    saving.config["tables"] = TABLES | {"numbers": "private"}
    saving.succeed("backup")
    third.execute("TRUNCATE TABLE ooni.numbers")
    wait_for_rows(cluster, "numbers", 0)
    for node in others:
        node.execute("SYSTEM STOP FETCHES ooni.numbers")
        node.execute("DROP TABLE ooni.plain SYNC")
    third.execute("INSERT INTO ooni.numbers SELECT number FROM numbers(50)")
    third.kill()
    monkeypatch.setattr(standings, "IN_STEP_AFTER", 0.5)
    status, log = saving.run("restore", "--all")
    assert (status, "`numbers` lags on" in log) == (69, True), log
    assert [content(node, "plain")[0] for node in others] == [10, 10]
    third.start()
    for node in others:
        node.execute("SYSTEM START FETCHES ooni.numbers")
    wait_for_rows(cluster, "numbers", 50)
    saving.succeed("restore", "--all")
    assert {rows for rows, _ in contents_of(cluster, "numbers")} == {50}


def test_a_node_that_fetches_late_is_waited_for(
    of_facts: Tool, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_facts.succeed("backup")
    *others, third = cluster.nodes
    ((create,),) = third.execute("SHOW CREATE TABLE ooni.facts")
    for node in others:
        node.refuse_parts()
    third.execute("DROP TABLE ooni.facts SYNC")
    third.execute(create)
    with monkeypatch.context() as patched:
        patched.setattr(standings, "IN_STEP_AFTER", 0.5)
        status, log = of_facts.run("restore", "--all")
    assert (status, f"lags on 127.0.0.1:{third.port} (" in log) == (69, True), log
    for node in others:
        node.mend()
    assert "`facts` is there already" in of_facts.succeed("restore", "--all")
    assert len(contents_of(cluster, "facts")) == 1
    assert kept(cluster) == [0, 0, 0]


def test_a_node_that_fetches_nothing_joins_at_a_later_restore(
    of_facts: Tool, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_facts.succeed("backup")
    *others, third = cluster.nodes
    third.execute("DROP TABLE ooni.facts SYNC")
    for node in others:
        node.refuse_parts()
    with monkeypatch.context() as patched:
        patched.setattr(replica_restore, "STALLED_AFTER", 0.5)
        status, log = of_facts.run("restore", "--all")
    assert (status, "has fetched nothing" in log) == (69, True), log
    for node in others:
        node.mend()
    assert "joined" in of_facts.succeed("restore", "--all")
    assert len({path_of(node, "facts") for node in cluster.nodes}) == 1


def test_a_node_that_has_lost_its_disk_joins_again(of_facts: Tool, cluster: Cluster) -> None:
    of_facts.succeed("backup")
    third = cluster.nodes[2]
    third.execute("DETACH TABLE ooni.facts")  # ZooKeeper keeps its replica, which is not active
    third.execute("RENAME DATABASE ooni TO lost")
    third.execute("CREATE DATABASE ooni ENGINE = Atomic")
    try:
        assert "joined" in of_facts.succeed("restore", "--all")
        wait_for_rows(cluster, "facts", 300)
    finally:
        third.execute("DROP DATABASE lost SYNC")
