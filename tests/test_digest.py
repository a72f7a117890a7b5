"""The digest of rows sees every row of every type, in exports and in backups."""

import itertools
import json
from collections.abc import Iterable
from typing import Any

import pytest

from db_backup_harness import BACKUPS, LAYOUT, BackupTool
from documents import encoded
from exports.fingerprint import Fingerprint
from exports.manifest import Export, TableManifest
from exports.reader import Chunk
from ooni_common.errors import DataRefused

# Each table but `aliases` has rows with a NULL; both changes are of one cell of such a row, which
# keeps a NULL.
TABLES = {
    "incidents": (
        "id UInt32, title String, end_time Nullable(DateTime)) ENGINE = MergeTree ORDER BY id",
        "(1, 'a', NULL)",
        ("title = 'b'", "title = 'c'"),
    ),
    "mixed": (
        "id UInt32, n Nullable(UInt8), m Nullable(String)) ENGINE = MergeTree ORDER BY id",
        "(1, NULL, 'a'), (2, 3, NULL), (3, NULL, NULL), (4, 1, 'x')",
        ("m = 'b'", "m = 'c'"),
    ),
    "low": (
        "id UInt32, low LowCardinality(Nullable(String)), n UInt8) ENGINE = MergeTree ORDER BY id",
        "(1, NULL, 1), (2, 'x', 2)",
        ("n = 3", "n = 4"),
    ),
    "keys": (
        "k Nullable(Int8), v UInt8) ENGINE = MergeTree ORDER BY k SETTINGS allow_nullable_key = 1",
        "(NULL, 1), (3, 2)",
        ("v = 9", "v = 8"),
    ),
    "composite": (
        "id Int8, a Array(Nullable(Int8)), t Tuple(Nullable(Int8))) ENGINE = MergeTree ORDER BY id",
        "(1, [NULL, 1], tuple(NULL)), (2, [], tuple(1))",
        ("a = [1, NULL]", "a = [2, NULL]"),
    ),
    "maps": (
        "id UInt32, m Map(String, Nullable(Float64))) ENGINE = MergeTree ORDER BY id",
        "(1, {'k': NULL}), (2, {})",
        ("m = map('j', NULL)", "m = map('i', NULL)"),
    ),
    "open": (
        "id UInt32, v Variant(UInt8, String), d Dynamic) ENGINE = MergeTree ORDER BY id",
        "(1, NULL, NULL), (2, 5, 'x')",
        ("d = 1::Dynamic", "d = 2::Dynamic"),
    ),
    "aliases": (  # that were in the queries of 2.0.0
        "k UInt8, id UInt32, rows String) ENGINE = MergeTree ORDER BY k",
        "(1, 5, 'x')",
        ("id = 6", "id = 7"),
    ),
    "rocks": (
        "name String, value Nullable(String), n UInt8) ENGINE = EmbeddedRocksDB PRIMARY KEY name",
        "('a', NULL, 1), ('b', 'x', 2)",
        ("n = 3", "n = 4"),
    ),
}
# Of them, those of which 2.0.0 saw no row, not every row, and every row.
OF_2_0_0 = ("incidents", "mixed", "aliases")
BOTH = {"*_restored": "none", "*": "both"}


def make_tables(tool: BackupTool, names: Iterable[str]) -> None:
    """Create tables, which are exported and backed up."""
    for name in names:
        definition, rows, _ = TABLES[name]
        tool.database.execute(f"CREATE TABLE {name} ({definition}")
        tool.database.execute(f"INSERT INTO {name} VALUES {rows}")
    tool.keep_private(tables=BOTH)


@pytest.fixture
def nulls(backup_tool: BackupTool) -> BackupTool:
    """A tool that exports and backs up tables with NULLs."""
    make_tables(backup_tool, TABLES)
    return backup_tool


def change(tool: BackupTool, names: Iterable[str], turn: int = 0) -> None:
    """Change a cell of the first row of tables."""
    for name in names:
        update = TABLES[name][2][turn]
        others = {"keys": "k IS NULL", "aliases": "k = 1", "rocks": "name = 'a'"}
        first = others.get(name, "id = 1")
        tool.database.execute(
            f"ALTER TABLE {name} UPDATE {update} WHERE {first} SETTINGS mutations_sync = 2"
        )


def states(tool: BackupTool) -> list[str]:
    """Return the states of the backups, oldest first, as `list` shows them."""
    backups = json.loads(tool.run("list", "--json")[1])["backups"]
    return [backup["state"] for backup in backups]


def test_every_change_of_a_row_with_a_null_is_exported_and_backed_up(nulls: BackupTool) -> None:
    status, log = nulls.run("run")
    assert status == 0, log
    objects, backups = nulls.hashes(), nulls.kept()
    status, log = nulls.run("run")
    assert (status, log.count("nothing to do")) == (0, 2), log
    assert (nulls.hashes(), nulls.kept()) == (objects, backups)
    for turn in (0, 1):  # the first export keeps no digest, so only the second change meets one
        change(nulls, TABLES, turn)
        status, log = nulls.run("run")
        assert (status, f"{len(TABLES)} chunks exported" in log) == (0, True), log
    assert states(nulls) == ["good", "good", "good"]
    for former, newer in itertools.pairwise(nulls.backups()):
        for name in TABLES:
            assert newer.tables[name].partitions != former.tables[name].partitions, name
    assert nulls.run("verify")[0] == 0


def test_columns_are_hashed_whatever_their_names(backup_tool: BackupTool) -> None:
    backup_tool.database.execute(
        "CREATE TABLE t (day Date, chunk Int8, id Int8, rows Int8) ENGINE = MergeTree ORDER BY day"
    )
    backup_tool.database.execute("INSERT INTO t VALUES ('2026-01-02', 1, 2, 3)")
    by_month = {"policy": "public", "chunk_by": "month", "column": "day"}
    backup_tool.configure(tables={"t": by_month})
    for column in ("chunk", "id", "rows"):
        assert backup_tool.run("run")[0] == 0
        backup_tool.database.execute(
            f"ALTER TABLE t UPDATE {column} = 9 WHERE 1 SETTINGS mutations_sync = 2"
        )
        status, log = backup_tool.run("run")
        assert (status, "1 chunk exported" in log) == (0, True), column


@pytest.mark.long
def test_rows_with_a_null_come_back_from_a_backup(nulls: BackupTool) -> None:
    assert nulls.run("run")[0] == 0
    two = f"{nulls.database.name}_two"
    try:
        status, log = nulls.run("restore", "--all", "--to-database", two)
        assert status == 0, log
        for name in TABLES:
            assert nulls.checksum(f"{two}.{name}") == nulls.checksum(name)
    finally:
        nulls.database.execute(f"DROP DATABASE IF EXISTS {two} SYNC")


# --- what version 2.0.0 left ---


def as_of_2_0_0(document: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the manifest of a table's exports or of a backup as 2.0.0 wrote it.

    Where each row has a NULL, `sum` had nothing to add up; where some have, it passed over them.
    """
    document.pop("storages", None)
    for export in document.get("chunks", {}).values():
        del export["storage"], export["etag"]
        fingerprint = export["fingerprint"]
        del fingerprint["scheme"]
        if name != "plain":
            fingerprint["hash"] = None if name == "incidents" else "17"
    for table, saved in document.get("tables", {}).items():
        del saved["scheme"]
        for partition in saved["partitions"].values():
            if table != "plain":
                partition["checksum"] = None if table == "incidents" else "17"
    return document


@pytest.fixture
def upgraded(backup_tool: BackupTool) -> BackupTool:
    """A tool whose buckets have what 2.0.0 left there."""
    tool = backup_tool
    make_tables(tool, OF_2_0_0)
    tool.database.execute("CREATE TABLE plain (k UInt32, x Float32) ENGINE = MergeTree ORDER BY k")
    tool.database.execute("INSERT INTO plain VALUES (1, 0.5), (2, nan)")
    assert tool.run("run")[0] == 0
    tool.forget_parts("plain")
    assert tool.run("run")[0] == 0  # with the digest of its rows
    for name in [*OF_2_0_0, "plain"]:
        key = LAYOUT.manifest(name)
        tool.put(key, json.dumps(as_of_2_0_0(json.loads(tool.get(key)), name)).encode())
    (backup,) = tool.backups()
    key = BACKUPS.manifest(backup.name)
    old = as_of_2_0_0(json.loads(tool.get_private(key)), "")
    body = json.dumps(old).encode()
    tool.client.put_object(Bucket=tool.private_bucket_name, Key=key, Body=body)
    return tool


@pytest.mark.long
def test_exports_of_2_0_0_are_renewed_once_where_their_digest_passed_over_rows(
    upgraded: BackupTool,
) -> None:
    tokens = {name: token_of(upgraded, name) for name in [*OF_2_0_0, "plain"]}
    status, log = upgraded.run("export")
    assert status == 0, log
    # The exports of `aliases`, which is one chunk, had no alias; it was changed here, as all were.
    assert log.count("the digest of version 2.0.0 missed some rows") == len(OF_2_0_0) - 1
    assert f"{len(OF_2_0_0)} chunks exported" in log
    renewed = {name for name, token in tokens.items() if token_of(upgraded, name) != token}
    assert renewed == set(OF_2_0_0)
    assert upgraded.manifest("plain").exports[0].fingerprint.scheme == "2"
    status, log = upgraded.run("export")
    assert (status, "nothing to do" in log) == (0, True), log
    assert upgraded.run("verify", "--from", "exports")[0] == 0


def token_of(tool: BackupTool, name: str) -> str:
    """Return the token of the only object of a table."""
    (export,) = tool.manifest(name).exports
    return export.token


@pytest.mark.long
def test_a_backup_of_2_0_0_can_be_restored_and_the_next_one_sees_every_row(
    upgraded: BackupTool,
) -> None:
    assert states(upgraded) == ["good"]
    two = f"{upgraded.database.name}_two"
    try:
        status, log = upgraded.run("restore", "incidents", "--to-database", two)
        assert (status, "rows are only counted" in log) == (0, True), log
        assert upgraded.checksum(f"{two}.incidents") == upgraded.checksum("incidents")
    finally:
        upgraded.database.execute(f"DROP DATABASE IF EXISTS {two} SYNC")
    status, log = upgraded.run("backup")
    assert (status, "2.0.0 missed some rows or columns" in log) == (0, True), log
    status, log = upgraded.run("backup")
    assert (status, "nothing to do" in log) == (0, True), log
    assert states(upgraded) == ["good", "good"]


@pytest.mark.long
def test_what_was_only_counted_is_not_taken_for_the_rows_of_the_backup(
    upgraded: BackupTool,
) -> None:
    change(upgraded, OF_2_0_0)
    assert upgraded.run("restore", "--all")[0] == 78
    status, log = upgraded.run("restore", "--all", "--replace")
    assert status == 0, log
    assert log.count("as many as were backed up") == len(OF_2_0_0)
    assert log.count("what was there is") == len(OF_2_0_0)
    assert "`plain` is there already, with the rows of the backup" in log


# --- parts that are the same, and rows that are not ---


def test_another_default_is_another_content_of_the_same_parts(backup_tool: BackupTool) -> None:
    execute = backup_tool.database.execute
    execute("CREATE TABLE t (k UInt8) ENGINE = MergeTree ORDER BY k")
    execute("INSERT INTO t VALUES (1)")
    execute("ALTER TABLE t ADD COLUMN x UInt8 DEFAULT 1")
    backup_tool.keep_private(tables={"t": "private"})
    assert backup_tool.run("backup")[0] == 0
    execute("ALTER TABLE t MODIFY COLUMN x UInt8 DEFAULT 2")
    assert backup_tool.run("backup")[0] == 0
    status, log = backup_tool.run("verify")
    assert (status, "as backed up" in log) == (0, True), log


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ("DateTime('UTC')", "DateTime64(3, 'Asia/Kolkata')", b"2026-01-01 00:00:00.000"),
        ("Enum8('a' = 1)", "Int8", b"1"),
    ],
)
def test_another_type_exports_the_same_rows_again_as_another_text(
    backup_tool: BackupTool, before: str, after: str, text: bytes
) -> None:
    execute = backup_tool.database.execute
    execute(f"CREATE TABLE t (k UInt8, c {before}) ENGINE = MergeTree ORDER BY k")
    execute(f"INSERT INTO t SELECT 1, CAST({1 if 'Enum' in before else 1767225600} AS {before})")
    backup_tool.configure(tables={"t": "public"})
    assert backup_tool.run("run")[0] == 0
    execute(f"ALTER TABLE t MODIFY COLUMN c {after}")
    status, log = backup_tool.run("run")
    assert (status, "with other columns" in log) == (0, True), log
    assert text in backup_tool.csv("t.csv.zstd")
    assert backup_tool.run("restore", "t")[0] == 0
    assert backup_tool.checksum("t_restored") == backup_tool.checksum("t")
    assert "nothing to do" in backup_tool.run("run")[1]


# --- what can't be hashed, and what can't be read back ---


def test_a_column_that_hides_the_partition_is_refused_by_name_after_the_others_are_done(
    backup_tool: BackupTool,
) -> None:
    for name, column in (("a", "_partition_id"), ("b", "k")):
        backup_tool.database.execute(
            f"CREATE TABLE {name} ({column} UInt8) ENGINE = MergeTree ORDER BY {column}"
        )
    backup_tool.keep_private(tables={"*": "private"})
    status, log = backup_tool.run("backup")
    assert (status, "'a': its column _partition_id hides the server's own" in log) == (65, True)
    assert [list(backup.tables) for backup in backup_tool.backups()] == [["b"]]


def test_a_version_that_is_no_text_is_exported(backup_tool: BackupTool) -> None:
    execute = backup_tool.database.execute
    execute("CREATE TABLE t (k UInt8, v String) ENGINE = MergeTree ORDER BY k")
    execute("INSERT INTO t SELECT 1, unhex('FFFE')")
    backup_tool.configure(tables={"t": {"policy": "public", "version": "v"}})
    assert backup_tool.run("run")[0] == 0
    assert backup_tool.verifies()


def test_a_column_that_cannot_be_compared_is_refused_by_name_after_the_others_are_done(
    backup_tool: BackupTool,
) -> None:
    backup_tool.database.execute(
        "CREATE TABLE a (id UInt8, j Array(JSON)) ENGINE = MergeTree ORDER BY id"
    )
    backup_tool.database.execute("CREATE TABLE b (id UInt8) ENGINE = MergeTree ORDER BY id")
    backup_tool.database.execute("INSERT INTO b VALUES (1)")
    backup_tool.keep_private(tables=BOTH)
    status, log = backup_tool.run("run")
    assert (status, log.count("column `j`: values of type Array(JSON)")) == (65, 2), log
    assert backup_tool.exports() == ["b.csv.zstd"]
    assert [list(backup.tables) for backup in backup_tool.backups()] == [["b"]]


def test_json_is_compared_by_its_text_and_its_types(backup_tool: BackupTool) -> None:
    execute = backup_tool.database.execute
    execute("CREATE TABLE a (id UInt8, j JSON) ENGINE = MergeTree ORDER BY id")
    execute("""INSERT INTO a VALUES (1, '{"x": 1, "y": null}')""")
    backup_tool.configure(tables={"a": "public"})
    for _ in range(2):
        assert backup_tool.run("run")[0] == 0
        backup_tool.forget_parts("a")
    before = backup_tool.manifest("a").exports[0].fingerprint
    assert before.is_read
    execute("TRUNCATE TABLE a")
    execute("""INSERT INTO a VALUES (1, '{"x": "1", "y": null}')""")
    assert backup_tool.run("run")[0] == 0
    after = backup_tool.manifest("a").exports[0].fingerprint
    assert after.is_read
    assert not after.same_as(before)


def test_a_manifest_that_could_not_be_read_back_is_not_written() -> None:
    wrong: Any = None
    export = Export(
        chunk=Chunk("", ""),
        key="k",
        query="q",
        rows=wrong,
        bytes=1,
        compressed_bytes=1,
        sha256="0" * 64,
        token="t",
        fingerprint=Fingerprint(1, "", "1", 1),
        started="",
        finished="",
    )
    with pytest.raises(DataRefused, match="Expected `int`, got `null`"):
        encoded(TableManifest(table="t", chunks={"": export}), "t.json")
