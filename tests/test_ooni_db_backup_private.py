"""The private backups: made, verified and restored with the engine's own BACKUP and a real S3."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from db_backup_harness import BackupTool

TABLES = ("measurements", "rocks", "joined")
MERGING = ("replacing", "hourly", "counters")  # how many rows they have is up to the server
POLICY = {"*_restored": "none", "*": "private"}


TABLES_SQL = """
CREATE TABLE measurements (id UInt64, country LowCardinality(String), text String,
    upper_text String MATERIALIZED upper(text), at DateTime('UTC'))
    ENGINE = MergeTree PARTITION BY toYYYYMM(at) ORDER BY (country, id);
CREATE TABLE replacing (k UInt32, v UInt32) ENGINE = ReplacingMergeTree(v) ORDER BY k;
CREATE TABLE rocks (name String, pattern String) ENGINE = EmbeddedRocksDB PRIMARY KEY name;
CREATE TABLE joined (asn UInt32, name String) ENGINE = Join(ANY, LEFT, asn);
CREATE TABLE hourly (hour DateTime('UTC'), countries AggregateFunction(uniq, String))
    ENGINE = AggregatingMergeTree ORDER BY hour;
CREATE MATERIALIZED VIEW to_hourly TO hourly AS
    SELECT toStartOfHour(at) AS hour, uniqState(country) AS countries
    FROM measurements GROUP BY hour;
CREATE MATERIALIZED VIEW counters ENGINE = SummingMergeTree ORDER BY country AS
    SELECT country, count() AS cnt FROM measurements GROUP BY country;
CREATE VIEW recent AS SELECT * FROM measurements WHERE id > 1000
"""
ROWS_SQL = """
INSERT INTO measurements SELECT number, ['IT', 'IR', 'DE'][number % 3 + 1], toString(number),
    toDateTime('2026-01-01', 'UTC') + number * 3600 FROM numbers({first}, 1000);
INSERT INTO replacing SELECT number % 700, number FROM numbers({first}, 1000);
INSERT INTO rocks SELECT toString(number), 'x' FROM numbers({first}, 1000);
INSERT INTO joined SELECT number, 'AS' || toString(number) FROM numbers({first}, 1000)
"""


def make_tables(tool: BackupTool) -> None:
    """Create tables of each kind, a view and two materialized views."""
    for statement in TABLES_SQL.split(";"):
        tool.database.execute(statement)


def add_rows(tool: BackupTool, number: int) -> None:
    """Add rows to every table."""
    for statement in ROWS_SQL.format(first=number * 1000).split(";"):
        tool.database.execute(statement)


@pytest.fixture
def private_tool(backup_tool: BackupTool) -> BackupTool:
    """A tool that backs up a database with tables of each kind."""
    make_tables(backup_tool)
    add_rows(backup_tool, 0)
    backup_tool.keep_private(tables=POLICY, action="backup")
    return backup_tool


def content(tool: BackupTool, database: str = "") -> dict[str, object]:
    """Return a checksum of the content of each table."""
    database = database or tool.database.name
    return {
        name: tool.database.execute(
            f"SELECT count(), sum(cityHash64(formatRow('RowBinary', *))) FROM {database}.{name}"
        )
        for name in TABLES
    }


def schemas(tool: BackupTool, database: str = "") -> dict[str, str]:
    """Return what creates each table and view, without the name of the database."""
    database = database or tool.database.name
    names = tool.database.execute(
        "SELECT name FROM system.tables WHERE database = %(database)s"
        " AND name NOT LIKE '.inner%%' ORDER BY name",
        {"database": database},
    )
    return {
        name: tool.database.execute(f"SHOW CREATE TABLE {database}.{name}")[0][0].replace(
            f"{database}.", ""
        )
        for (name,) in names
    }


def drop_everything(tool: BackupTool) -> None:
    """Drop every table and view."""
    for name in ("to_hourly", "counters", "recent", "measurements", "replacing", "rocks",
                 "joined", "hourly"):  # fmt: skip
        tool.database.execute(f"DROP TABLE {name} SYNC")


@contextmanager
def another_database(tool: BackupTool) -> Iterator[str]:
    """Give the name of a database that does not exist, and drop what comes to have it."""
    name = f"{tool.database.name}_two"
    try:
        yield name
    finally:
        tool.database.execute(f"DROP DATABASE IF EXISTS {name} SYNC")


@pytest.fixture
def chain(private_tool: BackupTool) -> BackupTool:
    """A full backup and three incremental ones."""
    for number in range(1, 5):
        status, log = private_tool.run("run")
        assert status == 0, log
        if number < 4:
            add_rows(private_tool, number)
    assert [backup.kind for backup in private_tool.backups()] == ["full"] + 3 * ["incremental"]
    return private_tool


def test_everything_comes_back_in_the_original_database(chain: BackupTool) -> None:
    before, created = content(chain), schemas(chain)
    drop_everything(chain)
    status, log = chain.run("restore", "--all")
    assert status == 0, log
    assert content(chain) == before
    assert schemas(chain) == created
    chain.database.execute(
        "INSERT INTO measurements SELECT 9999, 'FR', '', toDateTime('2026-06-01', 'UTC')"
    )
    assert chain.database.execute("SELECT cnt FROM counters WHERE country = 'FR'") == [(1,)]


def test_everything_comes_back_in_another_database(chain: BackupTool) -> None:
    with another_database(chain) as database:
        status, log = chain.run("restore", "--all", "--to-database", database)
        assert status == 0, log
        assert content(chain, database) == content(chain)
        assert schemas(chain, database) == schemas(chain)


def test_every_backup_of_a_chain_is_verified(chain: BackupTool) -> None:
    status, log = chain.run("verify", "--from", "all")
    assert status == 0, log
    assert log.count("can be restored") == 4
    databases = chain.database.execute("SHOW DATABASES LIKE 'ooni_verify_%'")
    assert databases == []
