"""Rows that have to go leave the exports (`forget`), and one month of a table is restored alone."""

import pytest

from db_backup_harness import CSV, LAYOUT, BackupTool

MONTHS = {"policy": "public", "chunk_by": "month", "column": "d"}
SECRET = b"do-not-keep"


@pytest.fixture
def tool(backup_tool: BackupTool) -> BackupTool:
    """A table whose export has two months, in a bucket that keeps versions."""
    backup_tool.client.put_bucket_versioning(
        Bucket=backup_tool.bucket_name, VersioningConfiguration={"Status": "Enabled"}
    )
    backup_tool.database.execute("CREATE TABLE t (d Date, s String) ENGINE = MergeTree ORDER BY d")
    backup_tool.database.execute(
        "INSERT INTO t SELECT toDate('2026-01-20') + number, 'x' FROM numbers(20)"
    )
    backup_tool.database.execute("INSERT INTO t VALUES ('2026-01-25', 'do-not-keep')")
    assert backup_tool.run("export", tables={"t": MONTHS})[0] == 0
    return backup_tool


def delete_rows(tool: BackupTool, condition: str) -> None:
    """Delete rows in the database."""
    tool.database.execute(f"ALTER TABLE t DELETE WHERE {condition} SETTINGS mutations_sync = 2")


def versions(tool: BackupTool, key: str) -> list[str]:
    """Return the versions of an object, and marks of its deletion."""
    listed = tool.client.list_object_versions(Bucket=tool.bucket_name, Prefix=key)
    return [
        one["VersionId"]
        for one in [*listed.get("Versions", []), *listed.get("DeleteMarkers", [])]
        if one["Key"] == key
    ]


def test_what_was_deleted_leaves_the_export_and_its_older_versions(tool: BackupTool) -> None:
    delete_rows(tool, "d < '2026-01-31'")  # more than max_shrink: no run would export that
    assert tool.run("export")[0] == 65
    before = tool.manifest("t").chunks
    assert "CHANGES.txt" not in tool.get(LAYOUT.index).decode()
    assert SECRET in tool.csv("t_202601.csv.zstd")
    status, log = tool.run("forget", "t", "--chunk", "202601")
    assert (status, "export again 202601: again, by --force, 1 rows (-12)" in log) == (
        0,
        True,
    )
    assert SECRET in tool.csv("t_202601.csv.zstd")
    status, log = tool.run(
        "forget", "t", "--chunk", "202601", "--note", "It had\na name in it.", "--confirm"
    )
    assert status == 0, log
    assert tool.csv("t_202601.csv.zstd") == b'"d","s"\n"2026-01-31","x"\n'
    assert len(versions(tool, f"{CSV}t_202601.csv.zstd")) == 1
    after = tool.manifest("t").chunks
    assert after["202602"].token == before["202602"].token
    note = tool.get(LAYOUT.changes).decode()
    assert note.count("\n") == 1
    assert "csv/t_202601.csv.zstd: rows were removed. " in note
    assert before["202601"].sha256 in note
    assert 'href="CHANGES.txt"' in tool.get(LAYOUT.index).decode()
    assert note.endswith(f"its successor has {after['202601'].sha256}. It had a name in it.\n")
    assert tool.verifies()
    assert tool.run("export")[0] == 0
    assert tool.manifest("t").chunks["202601"].token == after["202601"].token


def test_a_new_month_is_exported_after_all_others_were_exported_again(tool: BackupTool) -> None:
    tool.database.execute("INSERT INTO t VALUES ('2026-03-01', 'new')")
    both = ("--chunk", "202601", "--chunk", "202602")
    assert tool.run("forget", "t", *both, "--confirm")[0] == 0
    assert sorted(tool.manifest("t").chunks) == ["202601", "202602"]
    assert tool.run("export")[0] == 0
    assert sorted(tool.manifest("t").chunks) == ["202601", "202602", "202603"]


def test_of_a_month_without_rows_nothing_is_left(tool: BackupTool) -> None:
    delete_rows(tool, "d < '2026-02-01'")
    status, log = tool.run("forget", "t", "--chunk", "202601", "--confirm")
    assert status == 0, log
    assert tool.exports() == ["t_202602.csv.zstd"]
    assert len(versions(tool, f"{CSV}t_202601.csv.zstd")) == 1  # the mark that it is deleted
    assert "its successor" not in tool.get(LAYOUT.changes).decode()
    assert tool.verifies()


def test_of_a_range_that_is_split_meanwhile_all_rows_stay(backup_tool: BackupTool) -> None:
    ranges = {"policy": "public", "chunk_by": "range", "rows_per_chunk": 10}
    backup_tool.database.execute("CREATE TABLE t (d UInt32) ENGINE = MergeTree ORDER BY d")
    backup_tool.database.execute("INSERT INTO t SELECT number FROM numbers(15)")
    assert backup_tool.run("export", tables={"t": ranges})[0] == 0
    backup_tool.database.execute("INSERT INTO t SELECT 15 + number FROM numbers(85)")
    delete_rows(backup_tool, "d = 7")
    status, log = backup_tool.run("forget", "t", "--chunk", "00000", "--confirm")
    assert status == 0, log
    rows = [backup_tool.csv(name).split()[1:] for name in backup_tool.exports()]
    assert len(rows) > 5
    assert sorted(int(row) for chunk in rows for row in chunk) == [*range(7), *range(8, 100)]
    assert backup_tool.verifies()


def test_who_has_deleted_nothing_is_told(tool: BackupTool) -> None:
    status, log = tool.run("forget", "t", "--chunk", "202601")
    assert (status, "202601: it has as many rows as before" in log) == (0, True)


@pytest.mark.parametrize("arguments", [["t", "--chunk", "202612"], ["u", "--chunk", "202601"]])
def test_what_is_not_exported_can_not_be_forgotten(tool: BackupTool, arguments: list[str]) -> None:
    with tool.unchanged():
        assert tool.run("forget", *arguments, "--confirm")[0] == 2


# --- one month ---


def test_one_month_is_restored_alone(tool: BackupTool) -> None:
    assert tool.run("restore", "t", "--chunk", "202602", "--as", "february")[0] == 0
    rows = tool.database.execute("SELECT min(d), count() FROM february")
    assert rows == tool.database.execute("SELECT min(d), count() FROM t WHERE d >= '2026-02-01'")
    assert tool.run("restore", "t", "--chunk", "202602", "--chunk", "202601")[0] == 0
    assert tool.checksum("t_restored") == tool.checksum("t")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["t", "--chunk", "202612"], "there is no chunk of t: '202612'"),
        (["--all", "--chunk", "202601"], "--chunk is for the export of one table"),
        (["t", "--chunk", "202601", "--from", "x"], "--chunk is for the export of one table"),
        (["t", "--chunk", "202601", "--replace"], "an export is only restored under a new name"),
    ],
)
def test_a_month_that_can_not_be_restored_alone(
    tool: BackupTool, arguments: list[str], reason: str
) -> None:
    status, log = tool.run("restore", *arguments)
    assert (status, reason in log) == (2, True), log
