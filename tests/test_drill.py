"""The disaster drill: a fresh server, the two buckets, and the commands of the manual."""

import json
import re
import shlex
import signal
from pathlib import Path

import clickhouse_driver
import pytest

from backups.signature import signature_of
from conftest import Database
from db_backup_harness import BACKUPS, ROOT, BackupTool
from dev.embedded_clickhouse import EmbeddedClickHouse
from test_restore_kills import run_killed

KEY = "k" * 32
MANUAL = ROOT / "debian" / "man" / "ooni-db-backup.h2m"
COMMAND = re.compile(
    r"^ +(?:runuser -u ooni -- )?(ooni-db-backup|clickhouse-client -q) (.+)$", re.MULTILINE
)
# In an order that is not that of the names.
TABLES_SQL = """
CREATE TABLE zz_accounts (k UInt64, e String) ENGINE = MergeTree ORDER BY k;
INSERT INTO zz_accounts VALUES (1, 'one'), (2, 'two');
CREATE DICTIONARY names (k UInt64, e String) PRIMARY KEY k
    SOURCE(CLICKHOUSE(TABLE 'zz_accounts' DB '{database}')) LIFETIME(0) LAYOUT(FLAT());
CREATE TABLE asks (k UInt64, e String DEFAULT dictGetOrDefault('{database}.names', 'e', k, '?'))
    ENGINE = MergeTree ORDER BY k;
INSERT INTO asks (k) VALUES (1), (2), (3);
CREATE TABLE small (k LowCardinality(UInt16), n Nested(a UInt8, b String))
    ENGINE = MergeTree ORDER BY k;
INSERT INTO small VALUES (7, [(1, 'a'), (2, 'b')]);
CREATE TABLE rocks (name String, pattern String) ENGINE = EmbeddedRocksDB PRIMARY KEY name;
INSERT INTO rocks VALUES ('a', 'b');
CREATE TABLE joined (asn UInt32, name String) ENGINE = Join(ANY, LEFT, asn);
INSERT INTO joined VALUES (1, 'AS1');
CREATE TABLE hourly (k UInt64, rows UInt64) ENGINE = SummingMergeTree ORDER BY k;
CREATE MATERIALIZED VIEW a_to_hourly TO hourly AS SELECT k, count() AS rows FROM asks GROUP BY k;
CREATE MATERIALIZED VIEW a_counters ENGINE = SummingMergeTree ORDER BY k AS
    SELECT k, count() AS rows FROM asks GROUP BY k;
CREATE VIEW a_view AS SELECT asks.k, names.e FROM asks JOIN names USING k;
CREATE VIEW a_view_of_the_view AS SELECT * FROM a_view;
INSERT INTO asks (k) VALUES (4);
CREATE TABLE jsonl (id String, date Date) ENGINE = MergeTree ORDER BY id;
INSERT INTO jsonl VALUES ('x', '2026-01-01');
CREATE TABLE not_kept (x UInt8) ENGINE = MergeTree ORDER BY x
"""
SETTINGS = {"allow_suspicious_low_cardinality_types": 1, "flatten_nested": 0}
POLICY = {"not_kept": "none", "jsonl": "public", "*_restored": "none", "*": "private"}
ROWS = ("zz_accounts", "asks", "small", "rocks", "joined", "hourly", "a_counters", "jsonl")
QUEUE = "CREATE TABLE {database}.queue\n(\n    `x` UInt8\n)\nENGINE = Kafka\nSETTINGS a = 1"
VIEW_OF_QUEUE = "CREATE MATERIALIZED VIEW {database}.of_queue TO {database}.hourly AS SELECT * FROM {database}.queue"  # noqa: E501


@pytest.fixture
def lost(backup_tool: BackupTool) -> BackupTool:
    """A tool whose server is gone, with what was on it."""
    name = backup_tool.database.name
    client = backup_tool.database.client()
    for statement in TABLES_SQL.format(database=name).split(";"):
        client.execute(statement, settings=SETTINGS)
    backup_tool.keep_private(tables=POLICY, manifest_key=KEY)
    status, printed = backup_tool.run("run")
    assert status == 0, printed
    return backup_tool


def rows(tool: BackupTool) -> dict[str, object]:
    """Return a checksum of the rows of each table."""
    return {name: tool.checksum(name) for name in ROWS}


def schemas(tool: BackupTool) -> dict[str, str]:
    """Return the statement of each table, view and dictionary."""
    names = tool.database.execute("SHOW TABLES")
    return {
        name: tool.database.execute(f"SHOW CREATE TABLE `{name}`")[0][0]
        for (name,) in names
        if not name.startswith(".inner")
    }


def add_queue(tool: BackupTool) -> None:
    """Let the backup have the definition of a queue, which the embedded server can't have."""
    (backup,) = tool.backups()
    document = json.loads(tool.get_private(BACKUPS.manifest(backup.name)))
    document["definitions"] |= {
        "queue": QUEUE.format(database=tool.database.name),
        "of_queue": VIEW_OF_QUEUE.format(database=tool.database.name),
    }
    document["order"] += ["queue", "of_queue"]
    content = json.dumps(document).encode()
    signature = signature_of(KEY.encode(), content)
    for key, body in (
        (BACKUPS.signature(backup.name), signature),
        (BACKUPS.manifest(backup.name), content),
    ):
        tool.client.put_object(Bucket=tool.private_bucket_name, Key=key, Body=body)


def commands() -> list[tuple[str, str]]:
    """Return the drill's commands, as the manual has them: program and arguments."""
    manual = MANUAL.read_text()
    drill = manual[manual.index("[DISASTER DRILL]") : manual.index("Practise this")]
    found = COMMAND.findall(drill.replace("\\-", "-"))
    assert len(found) >= 5
    return found


@pytest.mark.long
def test_the_disaster_drill_of_the_manual(lost: BackupTool, tmp_path: Path) -> None:
    before, created = rows(lost), schemas(lost)
    add_queue(lost)
    assert lost.run("verify")[0] == 0
    (lost.folder / "state" / "backups.json").unlink()  # it was on the server's disk
    transcript: list[str] = []
    with EmbeddedClickHouse(tmp_path / "empty") as server:
        lost.configure(
            clickhouse_url=server.uri(database=lost.database.name),
            http_url=server.http_url().partition("?")[0],
        )
        name = lost.database.name
        lost.database = Database(name, server)
        for program, arguments in commands():
            if program == "ooni-db-backup":
                status, printed = lost.run(*shlex.split(arguments))
            else:
                (query,) = shlex.split(re.sub(r"\booni\b", name, arguments))
                with clickhouse_driver.Client.from_url(server.uri()) as client:
                    status, printed = 0, str(client.execute(query))
            transcript += [f"$ {program} {arguments}", printed, f"[{status}]"]
            if arguments == "doctor" and not lost.database.execute("SHOW TABLES"):
                failed = re.findall(r"^FAILED +(\S.*?)  ", printed, re.MULTILINE)
                assert set(failed) <= {"tables", "backups, list"}, printed
            else:
                assert status == 0, "\n".join(transcript)
        assert rows(lost) == before, "\n".join(transcript)
        assert schemas(lost) == created
        printed = "\n".join(transcript)
        assert "queue (it takes messages from a queue as soon as it is there)" in printed
        assert "of_queue (it needs queue)" in printed
        assert "ENGINE = Kafka" in printed
        assert lost.run("verify")[0] == 0
        assert lost.run("run")[0] == 0
        print("\n".join(transcript))  # noqa: T201 (pytest shows it where it fails)


@pytest.mark.long
def test_one_table_that_cannot_be_made_stops_no_other(lost: BackupTool, tmp_path: Path) -> None:
    with EmbeddedClickHouse(tmp_path / "empty") as server:
        lost.configure(
            clickhouse_url=server.uri(database=lost.database.name),
            http_url=server.http_url().partition("?")[0],
        )
        lost.database = Database(lost.database.name, server)
        (backup,) = lost.backups()
        key = BACKUPS.rows(backup.name, "rocks")
        kept = lost.get_private(key)
        lost.client.put_object(Bucket=lost.private_bucket_name, Key=key, Body=b"damaged")
        status, printed = lost.run("restore", "--all", "--skip", "small")
        assert status in (65, 69), printed
        there = {name for (name,) in lost.database.execute("SHOW TABLES")}
        assert {"asks", "zz_accounts", "joined", "names", "a_view"} <= there
        assert not there & {"rocks", "small"}
        lost.client.put_object(Bucket=lost.private_bucket_name, Key=key, Body=kept)
        status, printed = lost.run("restore", "--all")
        assert status == 0, printed
        assert printed.count("is there already") >= 4
        assert {"rocks", "small"} <= {name for (name,) in lost.database.execute("SHOW TABLES")}


@pytest.mark.long
def test_tables_are_made_first_and_filled_later(lost: BackupTool, tmp_path: Path) -> None:
    before = {name: sums for name, sums in rows(lost).items() if name != "jsonl"}
    with EmbeddedClickHouse(tmp_path / "empty") as server:
        lost.configure(
            clickhouse_url=server.uri(database=lost.database.name),
            http_url=server.http_url().partition("?")[0],
        )
        lost.database = Database(lost.database.name, server)
        assert lost.run("restore", "--all", "--schema-only")[0] == 0
        assert lost.database.execute("SELECT count() FROM asks") == [(0,)]
        for _ in range(2):  # the second one finds all of it there
            status, printed = lost.run("restore", "--all", "--data-only")
            assert status == 0, printed
            assert {name: lost.checksum(name) for name in before} == before


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_drill_that_is_killed_at_any_statement_goes_on(lost: BackupTool, tmp_path: Path) -> None:
    before = {name: sums for name, sums in rows(lost).items() if name != "jsonl"}
    created, name = schemas(lost), lost.database.name
    with EmbeddedClickHouse(tmp_path / "empty") as server:
        lost.configure(
            clickhouse_url=server.uri(database=name), http_url=server.http_url().partition("?")[0]
        )
        lost.database, number, status = Database(name, server), 0, -signal.SIGKILL
        while status == -signal.SIGKILL:
            number += 1
            with clickhouse_driver.Client.from_url(server.uri()) as client:
                client.execute(f"DROP DATABASE IF EXISTS {name} SYNC")
            status, printed = run_killed(lost, number, "restore", "--all")
            assert status in (0, -signal.SIGKILL), printed
            status_of_next, printed = lost.run("restore", "--all")
            assert status_of_next == 0, f"killed at {number}: {printed}"
            assert {table: lost.checksum(table) for table in before} == before, number
            assert schemas(lost) == created
            there = [table for (table,) in lost.database.execute("SHOW TABLES")]
            assert not [table for table in there if table.startswith("ooni_restoring_")]
    assert number > 30  # there were statements to kill it at
