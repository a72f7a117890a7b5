"""What is damaged in the bucket of the backups, or gone from the database: nothing good is lost."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from db_backup_harness import BACKUPS, BackupTool
from documents import LARGEST_DOCUMENT

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_backups")]

TABLES = {"accounts": "private", "incidents": "private"}


@pytest.fixture
def tool(backup_tool: BackupTool) -> BackupTool:
    """The tool, and two tables of which there is a good backup."""
    for table in TABLES:
        backup_tool.database.execute(
            f"CREATE TABLE {table} (id UInt32, text Nullable(String))"
            " ENGINE = MergeTree ORDER BY id"
        )
        backup_tool.database.execute(f"INSERT INTO {table} SELECT number, NULL FROM numbers(10)")
    backup_tool.keep_private(tables=TABLES)
    status, log = backup_tool.run("run")
    assert status == 0, log
    return backup_tool


def put(tool: BackupTool, key: str, content: bytes) -> None:
    tool.client.put_object(Bucket=tool.private_bucket_name, Key=key, Body=content)


def states(tool: BackupTool) -> list[str]:
    """Return the states of the backups, oldest first."""
    status, printed = tool.run("list", "--json")
    assert status == 0, printed
    return [backup["state"] for backup in json.loads(printed)["backups"]]


def changed(tool: BackupTool, change: Callable[[dict[str, Any]], object]) -> bytes:
    manifest = json.loads(tool.get_private(BACKUPS.manifest(tool.backups()[-1].name)))
    change(manifest)
    return json.dumps(manifest).encode()


def part_with(**fields: object) -> Callable[[BackupTool], bytes]:
    def content(tool: BackupTool) -> bytes:
        return changed(tool, lambda manifest: manifest["parts"]["incremental"].update(fields))

    return content


DAMAGES: dict[str, Callable[[BackupTool], bytes]] = {
    "nothing": lambda _: b"",
    "zeros": lambda _: bytes(1000),
    "deep arrays": lambda _: b"[" * 200_000,
    "deep objects": lambda _: b'{"more":' * 200_000,
    "deep shards": lambda _: b'{"shards": [' * 100_000,
    "too large": lambda _: b'{"name": "' + b"x" * LARGEST_DOCUMENT + b'"}',
    "another's": lambda tool: changed(tool, lambda m: m.update(name="20200101T000000Z")),
    "no name": lambda tool: changed(tool, lambda m: m.pop("name")),
    "a name that leads out": lambda tool: changed(tool, lambda m: m.update(name="../../raw")),
    "its own base": lambda tool: changed(tool, lambda m: m.update(base=m["name"])),
    "a base that is not there": lambda tool: changed(tool, lambda m: m.update(base="2020")),
    "a part elsewhere": part_with(path="raw/"),
    "a part that leads out": part_with(path="clickhouse_backup/data/../../raw/"),
    "a base elsewhere": part_with(base="raw/"),
    "no parts": lambda tool: changed(tool, lambda m: m.update(parts={})),
    "a part without its tables": part_with(tables=[]),
    "a huge number": lambda tool: changed(tool, lambda m: m.update(rows_bytes=10**400)),
    "a control character": part_with(path="\x1b[2Jgone\n<3>error: all is lost"),
}


def test_a_manifest_that_no_run_has_written_is_of_no_good_backup(tool: BackupTool) -> None:
    key = BACKUPS.manifest(tool.backups()[0].name)
    sound = tool.get_private(key)
    for name, damage in DAMAGES.items():
        put(tool, key, sound)
        put(tool, key, damage(tool))
        assert states(tool) == ["damaged"], name
        status, log = tool.run("verify", "--quick")
        assert (status, "\x1b" in log, "Traceback" in log) == (65, False, False), (name, log)


@pytest.mark.parametrize("name", ["deep arrays", "a part that leads out", "a control character"])
def test_the_next_backup_mends_a_damaged_one(tool: BackupTool, name: str) -> None:
    backup = tool.backups()[0].name
    put(tool, "raw/precious", b"precious")
    put(tool, BACKUPS.manifest(backup), DAMAGES[name](tool))
    status, log = tool.run("run")
    expected = f"the backup {backup} is damaged"
    assert (status, expected in log, "\x1b" in log) == (0, True, False), log
    assert states(tool) == ["damaged", "good"]
    assert tool.run("prune", "--confirm")[0] == 0
    if name == "deep arrays":  # nobody knows what it has
        assert states(tool) == ["damaged", "good"]
        assert tool.run("prune", "--damaged", "--confirm")[0] == 0
    assert states(tool) == ["good"]
    assert tool.get_private("raw/precious") == b"precious"


def test_a_newest_backup_that_is_damaged_is_no_reason_to_do_nothing(tool: BackupTool) -> None:
    tool.database.execute("INSERT INTO accounts VALUES (100, 'x')")
    assert tool.run("run")[0] == 0
    newest = tool.backups()[-1].name
    put(tool, BACKUPS.manifest(newest), b"[" * 100_000)
    tool.database.execute("ALTER TABLE accounts DELETE WHERE id = 100 SETTINGS mutations_sync = 1")
    status, log = tool.run("run")
    assert (status, "backup" in log) == (0, True), log
    assert states(tool) == ["good", "damaged", "good"]
    assert tool.run("verify", "--from", "all")[0] == 65
    assert tool.run("verify", "accounts", "incidents")[0] == 65  # it says what is damaged, too
    tool.client.delete_object(Bucket=tool.private_bucket_name, Key=BACKUPS.manifest(newest))
    assert tool.run("verify")[0] == 0


@pytest.mark.parametrize("tables", [TABLES, {"*": "private"}])
def test_a_table_that_is_gone_fails_each_run_until_it_is_said_to_be(
    tool: BackupTool, tables: dict[str, str]
) -> None:
    first = tool.backups()[0].name
    tool.database.execute("DROP TABLE accounts SYNC")
    for _ in range(2):
        status, log = tool.run("run", tables=tables)
        assert (status, "'accounts'" in log, '"gone"' in log) == (65, True, True), log
    assert tool.run("doctor")[0] == 65
    status, log = tool.run("run", tables=tables | {"accounts": "gone"})
    assert status == 0, log
    for number in range(3):
        tool.database.execute(f"INSERT INTO incidents VALUES ({number}, 'x')")
        assert tool.run("backup", "--full")[0] == 0
    assert tool.run("prune", "--keep", "1", "--confirm")[0] == 0
    assert tool.backups()[0].name == first
    status, log = tool.run("restore", "accounts")
    assert status == 0, log
    assert tool.database.execute("SELECT count() FROM accounts_restored") == [(10,)]
    tool.database.execute("DROP TABLE accounts_restored SYNC")
    assert tool.run("prune", "--keep", "1", "--confirm", tables={"*": "none"})[0] == 0
    assert first not in [backup.name for backup in tool.backups()]


def test_all_private_tables_are_gone(tool: BackupTool) -> None:
    for table in TABLES:
        tool.database.execute(f"DROP TABLE {table} SYNC")
    status, log = tool.run("run", tables={"*": "private"})
    assert (status, "'accounts', 'incidents'" in log) == (65, True), log


def test_a_table_that_is_listed_as_gone_and_there_is_not_listed(tool: BackupTool) -> None:
    status, log = tool.run("run", tables=TABLES | {"accounts": "gone"})
    assert (status, "not listed" in log, "'accounts'" in log) == (65, True, True), log


@pytest.mark.parametrize("engine", ["File(CSV)", "Buffer('', incidents, 1, 1, 1, 1, 1, 1, 1)"])
def test_rows_that_nobody_saves_are_never_called_none(tool: BackupTool, engine: str) -> None:
    engine = engine.replace("''", f"'{tool.database.name}'")
    tool.database.execute(f"CREATE TABLE notes AS incidents ENGINE = {engine}")
    for _ in range(2):
        status, log = tool.run("run", tables=TABLES | {"notes": "private"})
        assert (status, "'notes': rows of the engine" in log) == (65, True), log
    assert tool.run("doctor")[0] == 65
    status, log = tool.run("run", tables=TABLES | {"notes": "none"})
    assert status == 0, log


def test_an_engine_without_rows_is_no_failure(tool: BackupTool) -> None:
    tool.database.execute("CREATE TABLE nothing (id UInt32) ENGINE = Null")
    status, log = tool.run("run", tables=TABLES | {"nothing": "private"})
    assert status == 0, log


@pytest.mark.parametrize("public", [False, True])
def test_the_last_copy_of_a_table_that_is_gone_is_verified(
    tool: BackupTool, *, public: bool
) -> None:
    if not public:
        for key in [key for key in tool.config if key.startswith("public_")]:
            del tool.config[key]
    first = tool.backups()[0].name
    tool.database.execute("DROP TABLE accounts SYNC")
    assert tool.run("run", tables=TABLES | {"accounts": "gone"})[0] == 0
    assert [list(backup.tables) for backup in tool.backups()][-1] == ["incidents"]
    for arguments in (["verify"], ["verify", "accounts"]):
        status, log = tool.run(*arguments)
        assert (status, f"the backup {first} can be restored" in log) == (0, True), log
    for key in tool.kept():
        if f"/{first}/" in key and "accounts" in key and "/data/" in key.partition(first)[2]:
            put(tool, key, b"junk")
    for arguments in (["verify"], ["verify", "accounts"]):
        status, log = tool.run(*arguments)
        assert (status, "accounts" in log) == (65, True), log


@pytest.mark.parametrize(
    "statement", ["TRUNCATE TABLE accounts", "DELETE FROM accounts WHERE id > 0"]
)
def test_a_table_that_was_emptied_keeps_its_last_good_copy(
    tool: BackupTool, statement: str
) -> None:
    first = tool.backups()[0].name
    tool.database.execute(statement, settings={"mutations_sync": 2})
    for number in range(3):
        tool.database.execute(f"INSERT INTO incidents VALUES ({number}, 'x')")
        status, log = tool.run("backup", "--full")
        assert (status, "'accounts': " in log, f"backup {first}" in log) == (65, True, True), log
    assert [list(backup.tables) for backup in tool.backups()][1:] == [["incidents"]] * 3
    assert tool.run("run")[0] == 65  # though nothing else has changed
    assert len(tool.backups()) == 4
    assert tool.run("prune", "--keep", "1", "--confirm")[0] == 0
    assert tool.run("restore", "accounts")[0] == 0
    assert tool.database.execute("SELECT count() FROM accounts_restored") == [(10,)]
    tool.database.execute("DROP TABLE accounts_restored SYNC")
    status, log = tool.run("backup", "--force")
    assert status == 0, log
    assert tool.run("run")[0] == 0
    assert "accounts" in tool.backups()[-1].tables


def test_rows_that_were_merged_are_not_lost(tool: BackupTool) -> None:
    execute = tool.database.execute
    execute("CREATE TABLE merging (id UInt32) ENGINE = ReplacingMergeTree ORDER BY id")
    execute("SYSTEM STOP MERGES merging")
    for _ in range(3):
        execute("INSERT INTO merging SELECT number FROM numbers(10)")
    tables = TABLES | {"merging": "private"}
    assert tool.run("run", tables=tables)[0] == 0
    execute("SYSTEM START MERGES merging")
    execute("OPTIMIZE TABLE merging FINAL")
    assert "nothing to do" in tool.run("run")[1]
    assert tool.run("backup", "--full")[0] == 0
    assert tool.backups()[-1].tables["merging"].rows == 10
    execute("TRUNCATE TABLE merging")
    assert tool.run("run")[0] == 65


@pytest.mark.parametrize("content", [None, b"{", "good"])
def test_a_time_in_the_future_stops_nothing(tool: BackupTool, content: bytes | str | None) -> None:
    future = "99990101T000000Z"
    first = tool.backups()[0].name
    put(tool, f"{BACKUPS.data(future)}x", b"x")
    if isinstance(content, bytes):
        put(tool, BACKUPS.manifest(future), content)
    elif content:
        sound = tool.get_private(BACKUPS.manifest(first))
        put(tool, BACKUPS.manifest(future), sound.replace(first.encode(), future.encode()))
    for number in (1, 2):
        tool.database.execute(f"INSERT INTO incidents VALUES ({number}, 'x')")
        status, log = tool.run("run")
        assert (status, "is complete" in log, "time in the future" in log) == (65, True, True), log
    status, log = tool.run("run")
    assert (status, "nothing to do" in log, "time in the future" in log) == (65, True, True), log
    status, log = tool.run("restore", "accounts")
    assert status == 0, log
    tool.database.execute("DROP TABLE accounts_restored SYNC")
    tool.client.delete_object(Bucket=tool.private_bucket_name, Key=f"{BACKUPS.data(future)}x")
    assert tool.run("prune", "--damaged", "--confirm")[0] == 0
    assert not any(future in key for key in tool.kept())
    assert tool.run("run")[0] == 0
    assert first in [backup.name for backup in tool.backups()]
