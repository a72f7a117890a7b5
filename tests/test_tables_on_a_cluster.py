"""Replacing a table on every replica of a cluster.

No cluster runs here. The order of the statements and the handling of a failing node are tested with
a scripted cluster that keeps what each node holds; the syntax of every statement that it was sent
is checked by the real parser.
"""

import re
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest
from clickhouse_driver.errors import ServerException

from conftest import Database as FreshDatabase
from ooni_common.database import Database
from ooni_common.errors import Unavailable
from ooni_common.tables import (
    SETTLE_TIME,
    Change,
    Content,
    Update,
    blocks_of,
    replace_tables,
)
from reference_tables import FIRST, content_of_rows, new_rows, old_rows

OLD, NEW = content_of_rows(old_rows()), content_of_rows(new_rows())
EPOCH = date(1970, 1, 1)
TIMEOUT = ServerException("Distributed DDL task: 1 of 2 hosts did not finish", 159)
STRUCTURE = [("name", "String", "", "")] + [(column, "String", "", "") for column in FIRST.columns]


class ScriptedCluster:
    """Two replicas behind one connection, of which `failing` does not execute distributed DDL.

    `lag` is the number of looks at the replicas after which they have replicated an insert.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, Content]] = {"a:9000": {}, "b:9000": {}}
        self.failing = ""
        self.failing_statement = "EXCHANGE"
        self.lag = 0
        self.statements: list[str] = []
        self.settings: list[dict[str, Any]] = []
        self.pauses: list[float] = []
        self._late: dict[str, Content] = {}

    def execute(self, query: str, params: Any = None, **options: Any) -> Any:
        self.statements.append(query)
        if query.startswith("INSERT"):
            self.settings.append(options["settings"])
            (sent,) = options["external_tables"]
            self._insert(query, [[*row, EPOCH + timedelta(days)] for *row, days in sent["data"]])
            return []
        if " ON CLUSTER " in query:
            self._distribute(query)
            return []
        return list(self._answer(query, params or {}))

    def disconnect(self) -> None:
        pass

    def database(self) -> Database:
        return Database(self, "oonidata", sleep=self.pauses.append)

    def everywhere(self, **tables: Content) -> None:
        for node in self.nodes.values():
            node.update(tables)

    def _insert(self, query: str, rows: list[list[Any]]) -> None:
        table = named(query)[0]
        for name, node in self.nodes.items():
            total = node[table] + content_of_rows(rows)
            if name == "b:9000" and self.lag:
                self._late[table] = total
            else:
                node[table] = total

    def _distribute(self, query: str) -> None:
        failing = self.failing if query.startswith(self.failing_statement) else ""
        for name, node in self.nodes.items():
            if name != failing:
                carry_out(query, node)
        if failing:
            raise TIMEOUT

    def _answer(self, query: str, params: dict[str, str]) -> Iterator[tuple[Any, ...]]:
        here = self.nodes["a:9000"]
        if query.startswith("EXISTS"):
            yield (int(named(query)[0] in here),)
        elif "system.columns" in query:
            yield from STRUCTURE
        elif "system.tables" in query:
            yield ("ReplicatedMergeTree ORDER BY name",)
        elif "system.settings" in query:
            yield ("insert_deduplicate",)
        elif "system.one" in query:
            yield from ((name,) for name in self.nodes)
        elif "clusterAllReplicas" in query:
            yield from self._held(re.findall(r"currentDatabase\(\), `(\w+)`", query)[0])
        elif "countIf" in query:
            yield ("", here[FIRST.name].rows, 0)
        else:
            raise AssertionError(query, params)

    def _held(self, table: str) -> Iterator[tuple[Any, ...]]:
        self.lag -= bool(self.lag)
        if not self.lag and table in self._late:
            self.nodes["b:9000"][table] = self._late.pop(table)
        for name, node in self.nodes.items():
            if node[table].rows:
                yield (name, node[table].rows, node[table].checksum)


def named(query: str) -> list[str]:
    return re.findall(r"`(\w+)`", query.replace("`oonidata`", ""))


def carry_out(query: str, node: dict[str, Content]) -> None:
    first, *others = named(query)
    if query.startswith("EXCHANGE"):
        node[first], node[others[0]] = node[others[0]], node[first]
    elif query.startswith("DROP"):
        del node[first]
    else:
        node[first] = Content()


@pytest.fixture
def cluster() -> ScriptedCluster:
    return ScriptedCluster()


def load(cluster: ScriptedCluster) -> Change:
    updates = [Update(FIRST, blocks_of(new_rows()), (0, 1000))]
    (change,) = replace_tables(cluster.database(), updates)
    return change


def test_a_first_run_creates_fills_and_swaps_on_every_node(cluster: ScriptedCluster) -> None:
    load(cluster)
    tables = {FIRST.name: NEW, FIRST.shadow: Content()}
    assert cluster.nodes == {"a:9000": tables, "b:9000": tables}


def test_every_statement_that_changes_something_runs_on_the_cluster(
    cluster: ScriptedCluster,
) -> None:
    cluster.everywhere(first=OLD, first_tmp=Content())
    load(cluster)
    changing = [text for text in cluster.statements if not re.match("SELECT|EXISTS|INSERT", text)]
    assert changing == [
        "TRUNCATE TABLE `first_tmp` ON CLUSTER `oonidata`",
        "EXCHANGE TABLES `first_tmp` AND `first` ON CLUSTER `oonidata`",
    ]
    assert cluster.settings == [{"insert_deduplicate": "0", "insert_quorum": "auto"}]


def test_all_replicas_are_compared_before_the_shadow_is_emptied_before_and_after_the_swap(
    cluster: ScriptedCluster,
) -> None:
    cluster.everywhere(first=OLD, first_tmp=Content())
    load(cluster)
    order = [
        re.findall("`(first|first_tmp)`", text)[0] if "clusterAll" in text else text.split()[0]
        for text in cluster.statements
        if re.match("TRUNCATE|INSERT|EXCHANGE", text) or "currentDatabase(), `" in text
    ]
    assert order == ["first", "TRUNCATE", "INSERT", "first_tmp", "EXCHANGE", "first"]


def test_a_replica_that_is_late_is_waited_for(cluster: ScriptedCluster) -> None:
    cluster.everywhere(first=OLD, first_tmp=Content())
    cluster.lag = 5
    load(cluster)
    assert cluster.pauses == [1.0] * 3
    assert [node["first"] for node in cluster.nodes.values()] == [NEW, NEW]


def test_a_replica_that_never_gets_the_rows_prevents_the_swap(cluster: ScriptedCluster) -> None:
    cluster.everywhere(first=OLD, first_tmp=Content())
    cluster.lag = 10**6
    reason = r"table first_tmp: its replicas differ \(a:9000 110 rows .*, b:9000 0 rows"
    with pytest.raises(Unavailable, match=reason):
        load(cluster)
    assert len(cluster.pauses) == SETTLE_TIME
    assert [node["first"] for node in cluster.nodes.values()] == [OLD, OLD]


def test_live_replicas_that_differ_beforehand_are_left_alone(cluster: ScriptedCluster) -> None:
    """A TRUNCATE would empty the live table of a node that missed the last EXCHANGE."""
    cluster.nodes["a:9000"] = {"first": OLD, "first_tmp": NEW}
    cluster.nodes["b:9000"] = {"first": NEW, "first_tmp": OLD}
    before = {name: dict(node) for name, node in cluster.nodes.items()}
    with pytest.raises(Unavailable, match=r"table first: its replicas differ .*distributed DDL"):
        load(cluster)
    assert cluster.nodes == before


def test_a_node_that_misses_the_swap_is_reported_with_what_each_holds(
    cluster: ScriptedCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.everywhere(first=OLD, first_tmp=Content())
    cluster.failing = "b:9000"
    with pytest.raises(Unavailable, match="1 of 2 hosts did not finish"):
        load(cluster)
    assert [node["first"] for node in cluster.nodes.values()] == [NEW, OLD]
    assert "first: its replicas differ now: a:9000 110 rows" in caplog.text
    with pytest.raises(Unavailable, match="its replicas differ"):
        load(cluster)
    carry_out("EXCHANGE `first_tmp` AND `first`", cluster.nodes["b:9000"])
    cluster.failing = ""
    load(cluster)
    assert [node["first"] for node in cluster.nodes.values()] == [NEW, NEW]


@pytest.mark.parametrize("statement", ["CREATE", "TRUNCATE"])
def test_a_node_that_misses_another_statement_prevents_the_swap(
    cluster: ScriptedCluster, statement: str
) -> None:
    cluster.everywhere(first=OLD)
    if statement == "TRUNCATE":
        cluster.everywhere(first_tmp=OLD)
    cluster.failing, cluster.failing_statement = "b:9000", statement
    with pytest.raises(Unavailable, match="did not finish"):
        load(cluster)
    assert [node["first"] for node in cluster.nodes.values()] == [OLD, OLD]


def test_the_real_parser_accepts_every_statement(
    cluster: ScriptedCluster, database: FreshDatabase
) -> None:
    load(cluster)
    cluster.everywhere(first=OLD)
    load(cluster)
    for node in cluster.nodes.values():
        del node["first_tmp"]
    cluster.everywhere(first=OLD)
    load(cluster)
    for statement in set(cluster.statements):
        parsed = re.sub(r"%\(\w+\)s", "('first')", statement)
        database.execute("SELECT formatQuery(%(query)s)", {"query": parsed})
