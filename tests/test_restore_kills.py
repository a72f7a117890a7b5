"""Restores that are killed, at each of their statements: no row that existed is gone."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from db_backup_harness import ROOT, BackupTool
from tables.staging import Place

pytestmark = pytest.mark.long

ROWS = 50
# Runs the tool, and kills it before one of the statements that change something: that of a number,
# or the first that begins with a word.
KILLED = """
import os, signal, sys
import ooni_db_backup
from exports.clickhouse_http import ClickHouseHTTP
from ooni_common.database import Database

place = sys.argv[1]
sent = 0

def counted(method):
    def call(self, sql, *arguments, **options):
        global sent
        if not sql.startswith(("SELECT", "SHOW", "EXISTS", "DESCRIBE")):
            sent += 1
            if place == str(sent) or sql.startswith(place):
                print("\\nKILLED BEFORE", sql.partition("\\n")[0], flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
        return method(self, sql, *arguments, **options)
    return call

Database.query = counted(Database.query)
ClickHouseHTTP.insert = counted(ClickHouseHTTP.insert)
sys.exit(ooni_db_backup.main(sys.argv[2:]))
"""


def run_killed(tool: BackupTool, place: int | str, *arguments: str) -> tuple[int, str]:
    """Run a command that is killed before a statement; return its status and what it printed."""
    folders = [ROOT, ROOT / "db-backup"]
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(place), "--config", str(tool.config_file), *arguments],
        env=dict(os.environ) | {"PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return process.returncode, process.stdout + process.stderr


@pytest.fixture
def replacing(backup_tool: BackupTool) -> BackupTool:
    """A tool with a backup and an export of rows; the live tables have other ones now."""
    execute = backup_tool.database.execute
    execute("CREATE TABLE t (id UInt32) ENGINE = MergeTree ORDER BY id")
    execute("CREATE TABLE rocks (id UInt32) ENGINE = EmbeddedRocksDB PRIMARY KEY id")
    for name in ("t", "rocks"):
        execute(f"INSERT INTO {name} SELECT number FROM numbers({ROWS})")
    backup_tool.keep_private(tables={"t": "both", "rocks": "both"})
    assert backup_tool.run("run")[0] == 0
    for name in ("t", "rocks"):
        execute(f"TRUNCATE TABLE {name}")
        execute(f"INSERT INTO {name} SELECT 1000 + number FROM numbers({ROWS})")
    return backup_tool


def others(tool: BackupTool, name: str) -> list[str]:
    """Return the tables that have all the rows that a table had before its restore, and no more."""
    tables = tool.database.execute(f"SHOW TABLES LIKE '{name}%%'")
    return [
        table
        for (table,) in tables
        if tool.database.execute(f"SELECT count(), min(id) FROM `{table}`") == [(ROWS, 1000)]
    ]


def survives(tool: BackupTool, number: int, *arguments: str) -> bool:
    """Run a restore that is killed twice, then to its end; return whether it was killed."""
    for _ in range(2):
        status, log = run_killed(tool, number, *arguments)
        assert status in (0, -signal.SIGKILL), log
        assert others(tool, "t"), log
        assert others(tool, "rocks"), log
        if status == 0:
            return False
    status, log = tool.run(*arguments)
    assert status == 0, log
    return True


def check_and_put_back(tool: BackupTool, *names: str) -> None:
    """Check the end of a restore; then make the live tables what they were."""
    for name in names:
        assert tool.database.execute(f"SELECT count(), min(id) FROM {name}") == [(ROWS, 0)]
        kept = others(tool, name)
        assert kept, name
        tool.database.execute(f"EXCHANGE TABLES {name} AND `{kept[0]}`")
    for (table,) in tool.database.execute("SHOW TABLES"):
        if "_replaced_" in table or table.startswith("ooni_restoring_"):
            tool.database.execute(f"DROP TABLE `{table}` SYNC")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("arguments", "names"),
    [(("t", "--replace"), ("t",)), (("--all", "--replace"), ("t", "rocks"))],
)
def test_a_replacement_that_is_killed_twice_at_any_statement_loses_no_row(
    replacing: BackupTool, arguments: tuple[str, ...], names: tuple[str, ...]
) -> None:
    number = 1
    while survives(replacing, number, "restore", *arguments):
        check_and_put_back(replacing, *names)
        number += 1
    assert number > 6  # there were statements to kill it at


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_restore_of_an_export_that_is_killed_twice_at_any_statement_loses_no_row(
    replacing: BackupTool,
) -> None:
    number = 1
    while survives(replacing, number, "restore", "t", "--from", "exports"):
        (rows,) = replacing.database.execute("SELECT count(), min(id) FROM t_restored")
        assert rows == (ROWS, 0)
        assert replacing.database.execute("SHOW TABLES LIKE 'ooni\\_restoring\\_%%'") == []
        replacing.database.execute("DROP TABLE t_restored SYNC")
        number += 1
    assert number > 3


@pytest.mark.parametrize("statement", ["RENAME", "EXCHANGE"])
def test_a_replacement_that_is_killed_around_its_exchange_loses_no_row(
    replacing: BackupTool, statement: str
) -> None:
    for _ in range(2):
        status, log = run_killed(replacing, statement, "restore", "t", "--replace")
        assert (status, f"KILLED BEFORE {statement}" in log) == (-signal.SIGKILL, True)
        assert others(replacing, "t"), log
    assert replacing.run("restore", "t", "--replace")[0] == 0
    check_and_put_back(replacing, "t")


def test_a_table_that_2_0_0_left_in_mid_replacement_is_never_dropped(
    replacing: BackupTool,
) -> None:
    replacing.database.execute("RENAME TABLE t TO t_restoring")  # as it was after the EXCHANGE
    replacing.database.execute("CREATE TABLE t (id UInt32) ENGINE = MergeTree ORDER BY id")
    assert replacing.run("restore", "t", "--replace")[0] == 0
    assert replacing.run("restore", "t")[0] == 0
    assert replacing.run("restore", "t", "--from", "exports", "--as", "u")[0] == 0
    assert others(replacing, "t") == ["t_restoring"]


def test_what_a_killed_restore_has_left_is_dropped_and_never_published(
    replacing: BackupTool,
) -> None:
    public = {"t": "private", "rocks": "none", "*": "public"}
    replacing.configure(tables=public)
    for statement in ("RENAME", "EXCHANGE"):
        status, log = run_killed(replacing, statement, "restore", "t", "--replace")
        assert status == -signal.SIGKILL, log
    exports = replacing.exports()
    assert len(replacing.database.execute("SHOW TABLES")) == 3
    assert replacing.run("run")[0] == 0
    assert replacing.exports() == exports
    status, log = run_killed(replacing, "RENAME", "restore", "t")
    assert status == -signal.SIGKILL
    status, log = replacing.run("restore", "t")
    assert (status, "which an interrupted restore has left" in log) == (0, True), log
    assert replacing.database.execute("SHOW TABLES LIKE 'ooni\\_restoring\\_%%'") == []


def test_a_table_of_another_name_is_nobodys_to_drop(replacing: BackupTool) -> None:
    names = [
        "t_restoring_20260101T000000Z",
        "ooni_restoring_20260101T000000Z",
        f"{Place('', 'rocks').staging(datetime(2026, 1, 1, tzinfo=UTC)).table}",
    ]
    for name in names:
        replacing.database.execute(f"CREATE TABLE {name} (id UInt32) ENGINE = Memory")
    assert replacing.run("restore", "t", "--replace")[0] == 0
    there = [name for (name,) in replacing.database.execute("SHOW TABLES")]
    assert set(names) <= set(there)


def test_a_database_that_exchanges_no_tables_is_told_before_anything_is_done(
    replacing: BackupTool,
) -> None:
    other = f"{replacing.database.name}_memory"
    replacing.database.execute(f"CREATE DATABASE {other} ENGINE = Memory")
    try:
        replacing.database.execute(f"CREATE TABLE {other}.t (id UInt32) ENGINE = Memory")
        status, log = replacing.run("restore", "t", "--replace", "--to-database", other)
        assert (status, "exchanges no tables" in log) == (78, True), log
        assert replacing.database.execute(f"SHOW TABLES FROM {other}") == [("t",)]
    finally:
        replacing.database.execute(f"DROP DATABASE {other} SYNC")


def test_a_table_of_another_structure_leaves_nothing_beside_it(replacing: BackupTool) -> None:
    execute = replacing.database.execute
    execute("DROP TABLE t SYNC")
    execute("CREATE TABLE t (id UInt32, more String) ENGINE = MergeTree ORDER BY (id, more)")
    status, log = replacing.run("restore", "--all", "--data-only", "--skip", "rocks")
    assert (status != 0, "Traceback" in log) == (True, False), log
    assert sorted(execute("SHOW TABLES")) == [("rocks",), ("t",)]
    assert execute("SELECT count() FROM t") == [(0,)]
