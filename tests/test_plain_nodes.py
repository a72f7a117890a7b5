"""A table on three nodes that replicate nothing: all are written, one that differs is healed.

The nodes are three databases of one server.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from clickhouse_driver.errors import NetworkError, ServerException

import ooni_common.nodes
from conftest import ClickHouseServer, fresh_database
from conftest import Database as FreshDatabase
from ooni_common.config import DatabaseConfig, SecretUrl
from ooni_common.database import Database
from ooni_common.driver import Driver
from ooni_common.errors import ConfigError, NotStored, Unavailable
from ooni_common.node_checks import attendance, on_all
from ooni_common.nodes import Node, Nodes, connected_nodes
from ooni_common.swap.agreement import agreed_database
from ooni_common.swap.content import blocks_of, content_of
from ooni_common.swap.replace import replace_tables
from ooni_common.swap.update import Update
from reference_tables import FIRST, new_rows
from update_state import heal_tables


class Connection:
    """A connection to a node, which can go.

    Attributes:
        is_gone: whether every statement fails from now on.
        fails_at: a pattern of statements that have too little memory.
        loses_rows: whether what is inserted is gone.
    """

    def __init__(self, client: Driver) -> None:
        self._client = client
        self.is_gone = False
        self.fails_at = ""
        self.loses_rows = False

    def execute(self, query: str, params: object = None, **options: object) -> object:
        """Run a statement."""
        if self.is_gone:
            raise NetworkError("connection refused")
        if self.fails_at and re.search(self.fails_at, query):
            raise ServerException("Memory limit exceeded", MEMORY_LIMIT_EXCEEDED)
        if self.loses_rows and query.startswith("INSERT"):
            return None
        return self._client.execute(query, params, **options)

    def execute_iter(self, query: str) -> object:
        """Run a query; yield its blocks."""
        return self._client.execute_iter(query)

    def disconnect(self) -> None:
        """Close it."""
        self._client.disconnect()


MEMORY_LIMIT_EXCEEDED = 241  # ClickHouse's error code
NAMES = ("a:9000", "b:9000", "c:9000")
LAST = NAMES[-1]
ANY = SecretUrl("clickhouse://127.0.0.1/ooni")


@pytest.fixture
def databases(clickhouse_server: ClickHouseServer) -> Iterator[list[FreshDatabase]]:
    with ExitStack() as stack:
        yield [stack.enter_context(fresh_database(clickhouse_server)) for _ in NAMES]


@pytest.fixture
def connections(databases: list[FreshDatabase]) -> list[Connection]:
    return [Connection(database.client()) for database in databases]


@pytest.fixture
def nodes(connections: list[Connection]) -> Nodes:
    up = [
        Node(name, 1, Database(connection))
        for name, connection in zip(NAMES, connections, strict=True)
    ]
    return Nodes({1: len(NAMES)}, up, sleep=lambda _seconds: None)


def load(nodes: Nodes, rows: int) -> None:
    replace_tables(nodes, [Update(FIRST, blocks_of(new_rows(rows)), (0, 10**6))])


def counts(databases: list[FreshDatabase]) -> list[int]:
    return [one.execute(f"SELECT count() FROM {FIRST.name}")[0][0] for one in databases]


def test_all_are_written_and_one_that_differs_gets_what_the_others_have(
    databases: list[FreshDatabase], nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    load(nodes, 50)
    assert counts(databases) == [50] * 3
    assert heal_tables(nodes, [FIRST]) == []
    databases[2].execute(f"ALTER TABLE {FIRST.name} DELETE WHERE 1 SETTINGS mutations_sync = 1")
    assert counts(databases) == [50, 50, 0]
    assert [node.name for node in heal_tables(nodes, [FIRST])] == [LAST]
    assert counts(databases) == [50] * 3
    assert f"{FIRST.name}: {LAST} has what the others have again" in caplog.text
    contents = {tuple(one.execute(f"SELECT * FROM {FIRST.name} ORDER BY ALL")) for one in databases}
    assert len(contents) == 1


def test_one_that_has_lost_its_table_gets_it_again(
    databases: list[FreshDatabase], nodes: Nodes
) -> None:
    load(nodes, 50)
    databases[2].execute(f"DROP TABLE {FIRST.name} SYNC")
    heal_tables(nodes, [FIRST])
    assert counts(databases) == [50] * 3


def test_one_that_is_gone_stops_nothing_until_a_second_one_is(
    databases: list[FreshDatabase], connections: list[Connection], nodes: Nodes
) -> None:
    load(nodes, 50)
    connections[2].is_gone = True
    load(nodes, 60)
    assert counts(databases) == [60, 60, 50]
    assert nodes.absent.keys() == {LAST}
    connections[1].is_gone = True
    with pytest.raises(Unavailable, match="1 of the 3 nodes of shard 1 take part"):
        load(nodes, 70)
    assert counts(databases) == [60, 60, 50]


@pytest.mark.parametrize("statement", [r"NOT IN \(SELECT", "cityHash64.*FROM `first_tmp`"])
def test_one_that_fails_at_a_comparison_or_a_check_is_left_out(
    databases: list[FreshDatabase], connections: list[Connection], nodes: Nodes, statement: str
) -> None:
    load(nodes, 50)
    connections[0].fails_at = statement
    load(nodes, 60)
    assert counts(databases) == [50, 60, 60]
    assert nodes.absent.keys() == {NAMES[0]}


def test_one_that_stores_something_else_is_left_out_until_most_do(
    databases: list[FreshDatabase], connections: list[Connection], nodes: Nodes
) -> None:
    load(nodes, 50)
    connections[0].loses_rows = True
    load(nodes, 60)
    assert counts(databases) == [50, 60, 60]
    connections[1].loses_rows = True
    with pytest.raises(NotStored, match="0 rows of 70"):
        load(nodes, 70)
    assert counts(databases) == [50, 60, 60]


def test_where_no_majority_agrees_the_fullest_is_read_or_what_the_last_run_left(
    databases: list[FreshDatabase], connections: list[Connection], nodes: Nodes
) -> None:
    connections[0].is_gone = True
    load(nodes, 60)
    connections[0].is_gone = False
    stale = Nodes({1: len(NAMES)}, [Node(NAMES[0], 1, Database(connections[0])), nodes.up[0]])
    assert agreed_database(stale, FIRST) is stale.up[1].database  # the other one has no table
    databases[0].execute(f"CREATE TABLE {FIRST.name} AS {databases[1].name}.{FIRST.name}")
    assert agreed_database(stale, FIRST) is stale.up[1].database
    left = content_of(stale.up[1].database, FIRST.columns, FIRST.name)
    copied = f"INSERT INTO {FIRST.name} SELECT * FROM {databases[1].name}.{FIRST.name}"
    for _ in range(2):
        databases[0].execute(copied)
    assert agreed_database(stale, FIRST) is stale.first
    assert agreed_database(stale, FIRST, left) is stale.up[1].database


@pytest.mark.parametrize("host", ["ch1..org", "h" * 64, "1:2:3", "h\0"])
def test_one_whose_name_in_system_clusters_is_no_host_is_absent(
    databases: list[FreshDatabase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    config = DatabaseConfig(db_uri=SecretUrl(databases[0].uri), state_dir=tmp_path, cluster="one")
    parts = urlsplit(databases[0].uri)
    addresses = [(parts.hostname, parts.port, 1), (host, 9000, 1)]
    monkeypatch.setattr(ooni_common.nodes, "_addresses", lambda *_: addresses)
    with connected_nodes(config, one_suffices=True) as nodes:
        assert len(nodes.up) == 1
        assert "is not the name of a host" in nodes.absent[f"{host}:9000"]


def test_who_takes_part_is_said_in_one_line(nodes: Nodes, tmp_path: Path) -> None:
    config = DatabaseConfig(db_uri=ANY, state_dir=tmp_path, cluster="oonidata")
    plain = DatabaseConfig(db_uri=ANY, state_dir=tmp_path)
    assert attendance(nodes, config) == "3 of 3 nodes of oonidata"
    nodes.lose(nodes.up[2], Unavailable("connection refused"))
    said = f"2 of 3 nodes of oonidata; {LAST}: connection refused"
    assert attendance(nodes, config) == said
    assert attendance(nodes, plain).startswith("2 of 3 nodes of `nodes`")
    alone = Nodes.one(nodes.first)
    assert attendance(alone, config) == "not set; one server"


def test_a_check_says_once_what_all_say(nodes: Nodes) -> None:
    def check(node: Node) -> str:
        if node.name == LAST:
            raise ConfigError("no grant")
        return "fine"

    assert on_all(nodes, nodes.up, lambda _node: "fine") == "fine"
    said = on_all(nodes, nodes.up, check)
    assert "fine" in said
    assert f"{LAST}: no grant" in said

    def check_more(node: Node) -> str:
        return check(nodes.up[2]) if node.name != NAMES[0] else check(node)

    with pytest.raises(ConfigError, match="no grant"):
        on_all(nodes, nodes.up, check_more)
