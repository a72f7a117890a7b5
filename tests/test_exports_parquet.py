"""Exports as Parquet, beside the CSV: made, read back, proven, made again, and left out."""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.parquet
import pytest

from db_backup_harness import CSV, LAYOUT, BackupTool
from exports.chunk_rows import ChunkRows, RowsDiffer
from exports.compact import DamagedFooter
from exports.manifest import Export
from exports.parquet_footer import footer_of, rows_of_footer
from exports.parquet_rows import ParquetRows
from exports.reader import Chunk
from ooni_common.errors import Unavailable
from test_restore_types import CHOSEN, RANDOM
from test_restore_types import SETTINGS as SETTINGS_OF_TYPES

PARQUET = LAYOUT.parquets
BOTH = {"formats": ["csv.zstd", "parquet"]}
MONTHS = {"policy": "public", "chunk_by": "month", "column": "at"}
ROWS = """
('2026-01-01 10:00:00', 1, 'plain'), ('2026-01-02 10:00:00', NULL, 'a "quoted"\\nline'),
('2026-02-03 10:00:00', 3, 'PAR1'), ('2026-02-04 10:00:00', 4, '')
"""
NAMES = ["t_202601.parquet", "t_202602.parquet"]


@pytest.fixture
def tool(backup_tool: BackupTool) -> BackupTool:
    """A table of two months, to be exported as CSV and Parquet."""
    backup_tool.database.execute(
        "CREATE TABLE t (at DateTime, n Nullable(UInt32), s String) ENGINE = MergeTree ORDER BY at"
    )
    backup_tool.database.execute(f"INSERT INTO t VALUES {ROWS}")
    backup_tool.configure(tables={"t": MONTHS}, **BOTH)
    return backup_tool


def parquets(tool: BackupTool) -> list[str]:
    """Return the names of the Parquet objects."""
    return [key.removeprefix(PARQUET) for key in tool.objects() if key.startswith(PARQUET)]


def times(tool: BackupTool) -> dict[str, Any]:
    """Return when each object with rows was written."""
    listed = tool.client.list_objects_v2(Bucket=tool.bucket_name)["Contents"]
    rows = (CSV, PARQUET)
    return {one["Key"]: one["LastModified"] for one in listed if one["Key"].startswith(rows)}


def export_of(tool: BackupTool, chunk: str, table: str = "t") -> Export:
    """Return an export as the manifest has it."""
    return tool.manifest(table).chunks[chunk]


def rows_of(tool: BackupTool, name: str) -> int:
    """Return how many rows a Parquet object has, as another library counts them."""
    file = pyarrow.parquet.ParquetFile(io.BytesIO(tool.get(PARQUET + name)))
    rows: int = file.metadata.num_rows
    return rows


def test_each_chunk_is_a_parquet_object_with_the_rows_of_its_csv(tool: BackupTool) -> None:
    status, printed = tool.run("export")
    assert status == 0, printed
    assert parquets(tool) == NAMES
    assert tool.exports() == ["t_202601.csv.zstd", "t_202602.csv.zstd"]
    assert [rows_of(tool, name) for name in NAMES] == [2, 2]
    export = export_of(tool, "202602")
    assert export.parquet
    assert export.parquet.compressed_bytes == len(tool.get(export.parquet.key))
    sums = tool.get(LAYOUT.sums).decode()
    assert f"{export.parquet.sha256}  parquet/t_202602.parquet\n" in sums
    assert "parquet/t_202602.parquet: 2 rows as Parquet" in printed
    with tool.unchanged():
        status, printed = tool.run("export")
    assert (status, "nothing to do: 2 chunks unchanged" in printed) == (0, True)
    assert tool.verifies()
    assert tool.run("verify", "--quick")[0] == 0


@pytest.mark.long
def test_duckdb_and_pandas_read_what_was_exported(tool: BackupTool, tmp_path: Path) -> None:
    assert tool.run("export")[0] == 0
    for name in NAMES:
        (tmp_path / name).write_bytes(tool.get(PARQUET + name))
    with duckdb.connect() as connection:
        rows = connection.execute(
            f'SELECT n, s, epoch("at")::BIGINT FROM \'{tmp_path}/*.parquet\' ORDER BY "at"'
        ).fetchall()
    assert rows == [
        (1, "plain", 1767261600),
        (None, 'a "quoted"\nline', 1767348000),
        (3, "PAR1", 1770112800),
        (4, "", 1770199200),
    ]
    frame = pd.read_parquet(tmp_path / NAMES[0])
    assert frame["s"].tolist() == ["plain", 'a "quoted"\nline']
    assert frame["at"].tolist()[0] == pd.Timestamp("2026-01-01 10:00:00", tz="UTC")


def test_what_was_exported_before_gets_parquet_without_its_csv_being_sent_again(
    tool: BackupTool,
) -> None:
    assert tool.run("export", formats=["csv.zstd"])[0] == 0
    assert parquets(tool) == []
    before = {name: export_of(tool, name) for name in ("202601", "202602")}
    written = times(tool)
    status, printed = tool.run("export", "--dry-run", **BOTH)
    assert (status, printed.count("lacks Parquet")) == (0, 2)
    assert tool.run("export", **BOTH)[0] == 0
    assert parquets(tool) == NAMES
    assert {key: time for key, time in times(tool).items() if key.startswith(CSV)} == written
    for name, export in before.items():
        now = export_of(tool, name)
        assert (now.token, now.sha256, now.started) == (export.token, export.sha256, export.started)
        assert now.parquet
    assert tool.verifies()


@pytest.mark.long
def test_parquet_that_nobody_wants_any_more_is_left_to_prune(tool: BackupTool) -> None:
    assert tool.run("export")[0] == 0
    assert tool.run("export", formats=["csv.zstd"])[0] == 0
    assert [export.parquet for export in tool.manifest("t").exports] == [None, None]
    assert "parquet" not in tool.get(LAYOUT.sums).decode()
    status, printed = tool.run("verify")
    assert (status, printed.count("no manifest names it")) == (65, 2)
    assert tool.run("prune", "--older-than", "0", "--confirm")[0] == 0
    assert parquets(tool) == []
    assert len(tool.exports()) == 2
    assert tool.verifies()


@pytest.mark.long
def test_a_table_can_have_formats_of_its_own(tool: BackupTool) -> None:
    tool.database.execute("CREATE TABLE u (n UInt8) ENGINE = MergeTree ORDER BY n")
    only_csv = {"policy": "public", "formats": ["csv.zstd"]}
    assert tool.run("export", tables={"t": MONTHS, "u": only_csv})[0] == 0
    assert parquets(tool) == NAMES


def test_restores_read_csv_so_it_can_not_be_left_out(tool: BackupTool) -> None:
    status, printed = tool.run("export", formats=["parquet"])
    assert (status, "formats: expected 'csv.zstd' among them" in printed) == (78, True)
    status, printed = tool.run("export", formats=["csv.zstd", "orc"])
    assert (status, "orc" in printed) == (78, True)


@pytest.mark.long
def test_changed_rows_come_in_both_objects(tool: BackupTool) -> None:
    assert tool.run("export")[0] == 0
    tool.database.execute("INSERT INTO t VALUES ('2026-02-05 10:00:00', 5, 'new')")
    assert tool.run("export")[0] == 0
    assert [rows_of(tool, name) for name in NAMES] == [2, 3]
    assert export_of(tool, "202602").rows == 3
    assert tool.verifies()


@pytest.mark.long
def test_a_lost_object_is_made_again_and_the_csv_is_not(tool: BackupTool) -> None:
    assert tool.run("export")[0] == 0
    written = times(tool)
    tool.client.delete_object(Bucket=tool.bucket_name, Key=PARQUET + NAMES[0])
    status, printed = tool.run("verify")
    assert (status, f"{PARQUET}{NAMES[0]}: missing" in printed) == (65, True)
    assert tool.run("export")[0] == 0
    again = times(tool)
    assert [key for key in again if again[key] != written[key]] in ([], [PARQUET + NAMES[0]])
    assert parquets(tool) == NAMES
    assert tool.verifies()


def _cut(content: bytes) -> bytes:
    return content[:-4]


def _other_byte(content: bytes) -> bytes:
    return content[:10] + bytes([content[10] ^ 1]) + content[11:]


@pytest.mark.parametrize(
    ("damage", "finding"),
    [(_cut, "bytes instead of"), (_other_byte, "SHA-256")],
)
@pytest.mark.long
def test_verify_finds_damage(
    tool: BackupTool, damage: Callable[[bytes], bytes], finding: str
) -> None:
    assert tool.run("export")[0] == 0
    key = PARQUET + NAMES[0]
    metadata = tool.client.head_object(Bucket=tool.bucket_name, Key=key)["Metadata"]
    tool.put(key, damage(tool.get(key)), Metadata=metadata)
    status, printed = tool.run("verify")
    assert (status, f"{key}: " in printed, finding in printed) == (65, True, True)


@pytest.mark.long
def test_verify_counts_the_rows_of_the_footer(tool: BackupTool) -> None:
    assert tool.run("export")[0] == 0
    manifest = json.loads(tool.get(LAYOUT.manifest("t")))
    other, ours = (manifest["chunks"][name]["parquet"] for name in ("202601", "202602"))
    tool.database.execute("INSERT INTO t VALUES ('2026-01-05 10:00:00', 5, 'new')")
    assert tool.run("export")[0] == 0
    manifest = json.loads(tool.get(LAYOUT.manifest("t")))
    content = tool.get(PARQUET + NAMES[1])
    tool.put(PARQUET + NAMES[0], content)
    ours = manifest["chunks"]["202602"]["parquet"]
    manifest["chunks"]["202601"]["parquet"] = ours | {"key": other["key"]}
    tool.put(LAYOUT.manifest("t"), json.dumps(manifest).encode())
    status, printed = tool.run("verify", "t")
    assert (status, f"{other['key']}: 2 rows instead of 3" in printed) == (65, True)


@pytest.mark.long
def test_a_manifest_of_before_parquet_is_read_and_one_with_it_by_2_0(tool: BackupTool) -> None:
    assert tool.run("export")[0] == 0
    manifest = json.loads(tool.get(LAYOUT.manifest("t")))
    for export in manifest["chunks"].values():
        del export["parquet"]  # as 2.0 leaves it, which takes no notice of what it does not know
    tool.put(LAYOUT.manifest("t"), json.dumps(manifest).encode())
    assert tool.run("list")[0] == 0
    assert tool.run("export")[0] == 0
    assert parquets(tool) == NAMES
    assert all(export.parquet for export in tool.manifest("t").exports)
    assert tool.verifies()


@pytest.mark.long
def test_a_removed_row_leaves_both_objects(tool: BackupTool) -> None:
    assert tool.run("export")[0] == 0
    old = export_of(tool, "202601")
    assert old.parquet
    tool.database.execute("ALTER TABLE t DELETE WHERE n = 1 SETTINGS mutations_sync = 2")
    assert tool.run("forget", "t", "--chunk", "202601", "--confirm")[0] == 0
    assert rows_of(tool, NAMES[0]) == 1
    assert old.parquet.sha256 in tool.get(LAYOUT.changes).decode()
    assert tool.verifies()


@pytest.mark.long
def test_of_a_month_without_rows_no_object_is_left(tool: BackupTool) -> None:
    assert tool.run("export")[0] == 0
    old = export_of(tool, "202601")
    tool.database.execute(
        "ALTER TABLE t DELETE WHERE at < '2026-02-01' SETTINGS mutations_sync = 2"
    )
    assert tool.run("forget", "t", "--chunk", "202601", "--confirm")[0] == 0
    assert (tool.exports(), parquets(tool)) == (["t_202602.csv.zstd"], [NAMES[1]])
    note = tool.get(LAYOUT.changes).decode()
    assert [stored.sha256 in note for stored in old.stored] == [True, True]
    assert tool.verifies()


@pytest.mark.parametrize("formats", [["csv.zstd"], BOTH["formats"]])
@pytest.mark.long
def test_a_removed_row_leaves_parquet_objects_that_no_manifest_names(
    tool: BackupTool, formats: list[str]
) -> None:
    assert tool.run("export")[0] == 0
    old = export_of(tool, "202601").parquet
    assert tool.run("export", formats=["csv.zstd"])[0] == 0
    tool.database.execute("ALTER TABLE t DELETE WHERE n = 1 SETTINGS mutations_sync = 2")
    command = ("forget", "t", "--chunk", "202601", "--confirm")
    assert tool.run(*command, formats=formats)[0] == 0
    assert parquets(tool) == ([NAMES[1]] if formats == ["csv.zstd"] else NAMES)
    note = tool.get(LAYOUT.changes).decode()
    assert old
    assert f"parquet/{NAMES[0]}: rows were removed" in note
    assert note.count(old.sha256) == 1


@pytest.mark.long
def test_a_removal_that_failed_at_first_tells_of_both_objects(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tool.run("export")[0] == 0
    old = export_of(tool, "202601")
    tool.database.execute("ALTER TABLE t DELETE WHERE n = 1 SETTINGS mutations_sync = 2")
    command = ("forget", "t", "--chunk", "202601", "--confirm")
    with monkeypatch.context() as patched:

        def fail(*_arguments: object, **_options: object) -> None:
            raise Unavailable("database: gone")

        patched.setattr("exports.chunk_rows.ChunkRows.send", fail)
        assert tool.run(*command, retries=0)[0] == 69
    assert export_of(tool, "202601").parquet == old.parquet
    assert tool.run(*command)[0] == 0
    note = tool.get(LAYOUT.changes).decode()
    assert [stored.sha256 in note for stored in old.stored] == [True, True]
    assert tool.verifies()


@pytest.mark.long
def test_a_removal_that_stops_half_way_tells_of_what_it_has_replaced(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tool.run("export")[0] == 0
    first, second = (export_of(tool, name) for name in ("202601", "202602"))
    tool.database.execute("ALTER TABLE t DELETE WHERE n IN (1, 3) SETTINGS mutations_sync = 2")
    send = ChunkRows.send
    with monkeypatch.context() as patched:

        def fail_later(self: ChunkRows, chunk: Chunk, *arguments: Any, **options: Any) -> Any:
            if chunk.name == "202602":
                raise Unavailable("database: gone")
            return send(self, chunk, *arguments, **options)

        patched.setattr(ChunkRows, "send", fail_later)
        command = ("forget", "t", "--chunk", "202601", "--chunk", "202602", "--confirm")
        assert tool.run(*command, retries=0)[0] == 69
    note = tool.get(LAYOUT.changes).decode()
    assert [stored.sha256 in note for stored in first.stored] == [True, True]
    assert [stored.sha256 in note for stored in second.stored] == [False, False]


@pytest.mark.long
def test_a_table_that_is_not_public_any_more_leaves_no_parquet(tool: BackupTool) -> None:
    assert tool.run("export")[0] == 0
    assert tool.run("prune", "--confirm", tables={"t": {"policy": "none"}})[0] == 0
    assert (parquets(tool), tool.exports()) == ([], [])


@pytest.mark.long
def test_a_whole_table_and_an_empty_one(tool: BackupTool) -> None:
    tool.database.execute("CREATE TABLE e (n UInt8, s String) ENGINE = MergeTree ORDER BY n")
    status, printed = tool.run("export", tables={"t": "public", "e": "public"})
    assert status == 0, printed
    assert {name: rows_of(tool, name) for name in parquets(tool)} == {
        "e.parquet": 0,
        "t.parquet": 4,
    }
    assert tool.verifies()


@pytest.mark.long
def test_several_chunks_at_once(tool: BackupTool) -> None:
    status, printed = tool.run("export", jobs=4)
    assert status == 0, printed
    assert parquets(tool) == NAMES
    assert tool.verifies()


@pytest.mark.long
def test_a_failure_of_parquet_lets_the_csv_go_on_and_the_run_fails(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> int:
        raise RowsDiffer("t: the server has no memory left")

    with monkeypatch.context() as patched:
        patched.setattr("exports.parquet_rows.ParquetRows.send", fail)
        status, printed = tool.run("export", retries=1)
    assert (status, "no memory left; trying again" in printed) == (69, True)
    assert (len(tool.exports()), parquets(tool)) == (2, [])
    written = times(tool)
    assert tool.run("export")[0] == 0
    assert parquets(tool) == NAMES
    assert {key: time for key, time in times(tool).items() if key.startswith(CSV)} == written


@pytest.mark.long
def test_rows_that_came_since_the_csv_let_the_chunk_be_exported_again(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tool.run("export", formats=["csv.zstd"])[0] == 0
    send = ParquetRows.send
    came: list[bool] = []

    def insert_and_send(*arguments: Any) -> int:
        if not came:
            came.append(True)
            for month in ("01", "02"):
                tool.database.execute(f"INSERT INTO t VALUES ('2026-{month}-06 10:00:00', 6, 'x')")
        return send(*arguments)

    monkeypatch.setattr("exports.parquet_rows.ParquetRows.send", insert_and_send)
    status, printed = tool.run("export", retries=2, **BOTH)
    assert status == 0, printed
    assert [rows_of(tool, name) for name in NAMES] == [3, 3]
    assert [export.rows for export in tool.manifest("t").exports] == [3, 3]
    monkeypatch.undo()
    assert tool.run("export")[0] == 0
    assert tool.verifies()


@pytest.mark.long
def test_a_parquet_object_that_came_before_a_kill_is_taken_over(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("exports.manifest_file.ManifestFile.arrived", die)
        with pytest.raises(Killed):
            tool.run("export")
    assert parquets(tool) == NAMES[:1]
    written = times(tool)
    status, printed = tool.run("export")
    assert (status, "taken over from a run that was interrupted" in printed) == (0, True)
    assert parquets(tool) == NAMES
    assert written.items() <= times(tool).items()
    assert tool.verifies()


@pytest.mark.long
def test_a_chunk_that_fails_leaves_nothing_of_its_parquet_object(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool.query("INSERT INTO t SELECT '2026-01-05', number, hex(rand64()) FROM numbers(1000000)")
    begun: list[str] = []

    def fail_when_it_has_begun(*_arguments: object) -> None:
        deadline = time.monotonic() + 60
        while PARQUET + NAMES[0] not in begun and time.monotonic() < deadline:
            begun.extend(tool.uploads())
            time.sleep(0.01)
        raise RowsDiffer("t: other rows")

    monkeypatch.setattr("exports.parquet_rows.LARGEST_FOOTER", 2**16)
    monkeypatch.setattr("exports.chunk_rows.ChunkRows.check", fail_when_it_has_begun)
    status, _ = tool.run("export", retries=0)
    assert (status, PARQUET + NAMES[0] in begun) == (69, True)
    assert (tool.uploads(), tool.exports(), parquets(tool)) == ([], [], [])


@pytest.mark.long
def test_a_footer_that_is_too_large_is_refused_and_smaller_chunks_are_named(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exports.parquet_footer.LARGEST_FOOTER", 100)
    status, printed = tool.run("export", retries=0)
    assert (status, "more than 100; smaller chunks have smaller ones" in printed) == (65, True)
    assert (len(tool.exports()), parquets(tool)) == (2, [])


@pytest.mark.long
def test_what_is_no_parquet_file_is_refused_and_the_table_is_named(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exports.parquet_footer.MAGIC", b"PAR2")
    status, printed = tool.run("export", retries=0, tables={"t": "public"})
    assert (status, "t: the whole table: no whole Parquet file came" in printed) == (69, True)
    assert (tool.exports(), parquets(tool)) == (["t.csv.zstd"], [])


@pytest.mark.long
def test_the_list_has_both_objects(tool: BackupTool) -> None:
    assert tool.run("export")[0] == 0
    listed = tool.run("list", "t")[1]
    names = [line.split()[0] for line in listed.splitlines() if line.startswith("t_")]
    assert names == [
        "t_202601.csv.zstd",
        "t_202601.parquet",
        "t_202602.csv.zstd",
        "t_202602.parquet",
    ]


@pytest.mark.long
def test_without_http_the_csv_of_all_tables_goes_on(tool: BackupTool) -> None:
    tool.database.execute("CREATE TABLE u (n UInt8) ENGINE = MergeTree ORDER BY n")
    status, printed = tool.run(
        "export", tables={"t": MONTHS, "u": "public"}, http_url="", retries=0
    )
    assert (status, "database over HTTP" in printed) == (69, True)
    assert (len(tool.exports()), parquets(tool)) == (3, [])


# --- the footer ---


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PAR1",
        b"PAR1\x00\x00\x00\x00PAR1",
        b"PAR1" + b"\xff\xff\xff\xffPAR1",
        b"PAR1" + b"\x19\xfc\xff\xff\xff\x0f" + b"\x06\x00\x00\x00PAR1",
        b"PAR1" + b"\x1c" * 60 + b"\x3c\x00\x00\x00PAR1",
        b"PAR1" + b"\x00" * 8 + b"\x08\x00\x00\x00PAR1",
        b"Code: 395. DB::Exception: no (X)\n",
    ],
)
def test_what_is_no_footer_is_refused(content: bytes) -> None:
    with pytest.raises(DamagedFooter):
        footer_of(content)


ROOT, ROW_COUNT = b"\x00", b"\x16\x04\x00"  # of two rows


def file_with(schema: bytes) -> bytes:
    """Return the end of a file with two rows and this schema."""
    content = schema + ROW_COUNT
    return content + len(content).to_bytes(4, "little") + b"PAR1"


@pytest.mark.parametrize(
    "schema",
    [
        b"\x29\x2c" + ROOT + b"\x15\x0c\x38\x01s\x01\x01\x00",  # the number of a field is -1
        b"\x29\x2c" + ROOT + b"\x15\x0c\x38\x01s\x01\xfe\xff\x7f\x00",  # and 1048575
        b"\x29\x1c" + b"\x11" * 33 + b"\x00",  # 33 fields of an element
        b"\x29\xfc\xa1\x8d\x06" + b"\x00" * 100_001,  # 100,001 elements
        b"\x29\x0c",  # none
        b"",
    ],
)
def test_a_schema_that_no_table_has_is_refused(schema: bytes) -> None:
    with pytest.raises(DamagedFooter):
        footer_of(file_with(schema)).with_bytes(["s"])


def test_a_text_that_is_said_to_be_bytes_keeps_its_other_fields() -> None:
    text = b"\x15\x0c\x25\x00\x18\x01s\x25\x00\x4c\x1c\x00\x00\x00"
    footer = footer_of(file_with(b"\x29\x2c" + ROOT + text))
    assert footer.rows == rows_of_footer(file_with(b"\x29\x0c")) == 2
    (element,) = footer_of(footer.with_bytes(["s"])).elements[1:]
    assert (element.name, element.is_bytes, element.end - element.start) == (b"s", True, 8)


@pytest.mark.long
def test_every_cut_of_a_file_is_refused(tool: BackupTool) -> None:
    assert tool.run("export")[0] == 0
    content = tool.get(PARQUET + NAMES[0])
    assert footer_of(content).rows == 2
    for end in range(len(content)):
        with pytest.raises(DamagedFooter):
            footer_of(content[:end])


# --- what leads to the objects ---


@pytest.mark.long
def test_a_lost_list_of_the_files_is_written_again(tool: BackupTool) -> None:
    status, printed = tool.run("export")
    assert (status, "gone, or not what was written" in printed) == (0, False)
    key = f"{LAYOUT.prefix}/urls-parquet.txt"
    content = tool.get(key)
    tool.client.delete_object(Bucket=tool.bucket_name, Key=key)
    status, printed = tool.run("export")
    assert (status, f"{key}: gone, or not what was written" in printed) == (0, True)
    assert tool.get(key) == content
    # Neither more files nor none of Parquet are a loss.
    tool.database.execute("INSERT INTO t VALUES ('2026-03-05 10:00:00', 5, 'new')")
    status, printed = tool.run("export", formats=["csv.zstd"])
    assert (status, "gone, or not what was written" in printed) == (0, False)
    assert key not in tool.objects()
    status, printed = tool.run("export", **BOTH)
    assert (status, "gone, or not what was written" in printed) == (0, False)
    assert tool.get(key) == content + b"parquet/t_202603.parquet\n"


@pytest.mark.long
def test_a_table_with_the_names_of_many_columns_is_exported(backup_tool: BackupTool) -> None:
    columns = ", ".join(f"`{'c' * 60}{number:04}` String" for number in range(2200))
    backup_tool.query(f"CREATE TABLE w (k UInt32, {columns}) ENGINE = MergeTree ORDER BY k")
    backup_tool.query("INSERT INTO w (k) VALUES (1)")
    status, printed = backup_tool.run("export", tables={"w": "public"}, **BOTH)
    assert (status, parquets(backup_tool)) == (0, ["w.parquet"]), printed


# --- types ---

KINDS = [kind.strip() for kind in RANDOM.replace("\n", " ").split(";")]
EXACT = {kind: value for kind, value in CHOSEN.items() if kind not in {"BFloat16", "Time"}}
EXACT = {
    kind: value for kind, value in EXACT.items() if not kind.startswith(("Interval", "Nested"))
}
LOSSY = {
    "Variant(UInt8, String)": "'1'",
    "Dynamic": "1",
    "BFloat16": "1",
    "Time": "toTime('12:34:56')",
    "IntervalDay": "toIntervalDay(1)",
    "DateTime64(7)": "toDateTime64('2299-01-01', 7)",
    "Tuple()": "tuple()",
    "Array(Variant(UInt8, String))": "['1']",
}


def read_back(tool: BackupTool, table: str, path: Path) -> str:
    """Return, as SQL, a Parquet object that is read with the structure of its table."""
    path.write_bytes(tool.get(f"{PARQUET}{table}.parquet"))
    columns = tool.database.execute(
        f"SELECT name, type FROM system.columns WHERE database = currentDatabase()"
        f" AND table = '{table}' ORDER BY position"
    )
    structure = ", ".join(f"`{name}` {kind}" for name, kind in columns)
    escaped = structure.replace("\\", "\\\\").replace("'", "\\'")
    return f"file('{path}', 'Parquet', '{escaped}')"


@pytest.mark.long
def test_values_of_every_type_are_the_same_when_they_are_read_back(
    backup_tool: BackupTool, tmp_path: Path
) -> None:
    client = backup_tool.database.client()
    kinds = [*KINDS, *EXACT, "JSON"]
    columns = ", ".join(f"c{index} {kind}" for index, kind in enumerate(kinds))
    client.execute(
        f"CREATE TABLE t (n UInt32, {columns}) ENGINE = MergeTree ORDER BY n",
        settings=SETTINGS_OF_TYPES,
    )
    drawn = ", ".join(f"c{index} {kind}" for index, kind in enumerate(KINDS)).replace("'", "\\'")
    chosen = ", ".join([*EXACT.values(), '\'{"a": 1, "b": [1, null]}\''])
    client.execute(
        f"INSERT INTO t SELECT number, * EXCEPT (number), {chosen} FROM (SELECT"
        f" rowNumberInAllBlocks() AS number, * FROM generateRandom('{drawn}', 1, 8, 4) LIMIT 200)",
        settings=SETTINGS_OF_TYPES,
    )
    status, printed = backup_tool.run("export", tables={"t": "public"}, **BOTH)
    assert status == 0, printed
    source = read_back(backup_tool, "t", tmp_path / "t.parquet")
    figures = ", ".join(
        f"sum(cityHash64(n, formatRow('RowBinary', c{i})))" for i in range(len(kinds))
    )
    ((*there,),) = client.execute(f"SELECT {figures} FROM t", settings=SETTINGS_OF_TYPES)
    ((*back,),) = client.execute(f"SELECT {figures} FROM {source}", settings=SETTINGS_OF_TYPES)
    assert [kind for kind, a, b in zip(kinds, there, back, strict=True) if a != b] == []


@pytest.mark.long
def test_enumerations_are_texts_for_pandas_too(backup_tool: BackupTool) -> None:
    backup_tool.query(
        "CREATE TABLE e (k UInt32, e Enum8('a' = 1), n Nullable(Enum16('b)' = 300)),"
        " f Array(Enum8('c' = 1)), m Map(String, Enum8('d' = 1))) ENGINE = MergeTree ORDER BY k"
    )
    backup_tool.query("INSERT INTO e VALUES (1, 'a', 'b)', ['c'], {'k': 'd'})")
    assert backup_tool.run("export", tables={"e": "public"}, **BOTH)[0] == 0
    frame = pd.read_parquet(io.BytesIO(backup_tool.get(f"{PARQUET}e.parquet")))
    assert frame.iloc[0].to_dict() | {"f": list(frame["f"][0])} == {
        "k": 1,
        "e": "a",
        "n": "b)",
        "f": ["c"],
        "m": [("k", "d")],
    }


@pytest.mark.long
def test_types_that_parquet_has_no_form_of_are_refused_by_name_and_csv_goes_on(
    backup_tool: BackupTool,
) -> None:
    client = backup_tool.database.client()
    columns = ", ".join(f"c{index} {kind}" for index, kind in enumerate(LOSSY))
    client.execute(
        f"CREATE TABLE t (n UInt8, {columns}, s String) ENGINE = MergeTree ORDER BY n",
        settings=SETTINGS_OF_TYPES,
    )
    client.execute(
        f"INSERT INTO t SELECT 1, {', '.join(LOSSY.values())}, 'x'", settings=SETTINGS_OF_TYPES
    )
    backup_tool.database.execute("CREATE TABLE u (n UInt8) ENGINE = MergeTree ORDER BY n")
    backup_tool.database.execute("INSERT INTO u VALUES (1)")
    public: dict[str, Any] = {"t": "public", "u": "public"}
    status, printed = backup_tool.run("export", tables=public, **BOTH)
    assert status == 78
    for index, kind in enumerate(LOSSY):
        assert f"c{index} ({kind.partition('(')[0]}" in printed
    assert "tables.t.formats = ['csv.zstd'] says that there is none" in printed
    assert backup_tool.exports() == ["t.csv.zstd", "u.csv.zstd"]
    assert parquets(backup_tool) == ["u.parquet"]
    status, printed = backup_tool.run("doctor")
    assert (status, "no Parquet, which has no lossless form of c0 (Variant" in printed) == (
        78,
        True,
    )
    public["t"] = {"policy": "public", "formats": ["csv.zstd"]}
    assert backup_tool.run("export", tables=public)[0] == 0
    assert backup_tool.run("doctor")[0] == 0


# --- texts that are none ---


@pytest.fixture
def hostile(tool: BackupTool) -> BackupTool:
    """A table in which one month has texts that are not UTF-8, in a string and in an array."""
    tool.database.execute("ALTER TABLE t ADD COLUMN tags Array(LowCardinality(String))")
    tool.query("INSERT INTO t SELECT '2026-02-07 10:00:00', 7, unhex('FF00C3'), ['a', unhex('80')]")
    return tool


def test_a_chunk_with_texts_that_are_not_utf_8_has_csv_alone(hostile: BackupTool) -> None:
    status, printed = hostile.run("export")
    assert (status, hostile.exports()) == (65, ["t_202601.csv.zstd", "t_202602.csv.zstd"])
    assert parquets(hostile) == NAMES[:1]
    assert export_of(hostile, "202602").parquet is None
    assert "t: 202602: no Parquet: not UTF-8" in printed
    assert "s (1 row), tags (1 row); tables.t.binary_columns = ['s', 'tags']" in printed
    assert hostile.verifies()
    hostile.query("ALTER TABLE t UPDATE s = '', tags = [] WHERE n = 7 SETTINGS mutations_sync = 2")
    assert hostile.run("export")[0] == 0
    assert parquets(hostile) == NAMES


@pytest.mark.long
def test_without_the_check_nobody_could_read_it(
    hostile: BackupTool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exports.parquet_rows.texts_of", lambda _reader: {})
    assert hostile.run("export")[0] == 0
    (tmp_path / NAMES[1]).write_bytes(hostile.get(PARQUET + NAMES[1]))
    with duckdb.connect() as connection, pytest.raises(duckdb.Error, match=r"(?i)utf-?8"):
        connection.execute(f"SELECT s FROM '{tmp_path}/{NAMES[1]}'").fetchall()


@pytest.mark.long
def test_columns_that_are_said_to_be_binary_are_bytes(hostile: BackupTool, tmp_path: Path) -> None:
    table = MONTHS | {"binary_columns": ["s", "tags"]}
    status, printed = hostile.run("export", tables={"t": table})
    assert status == 0, printed
    path = tmp_path / NAMES[1]
    path.write_bytes(hostile.get(PARQUET + NAMES[1]))
    with duckdb.connect() as connection:
        rows = connection.execute(f"SELECT s, tags FROM '{path}' WHERE n = 7").fetchall()
    assert rows == [(b"\xff\x00\xc3", [b"a", b"\x80"])]
    assert pd.read_parquet(path)["s"].tolist()[-1] == b"\xff\x00\xc3"
    assert hostile.verifies()
    structure = "`at` DateTime, n Nullable(UInt32), s String, tags Array(LowCardinality(String))"
    figures = "sum(cityHash64(formatRow('RowBinary', *)))"
    there = hostile.query(f"SELECT {figures} FROM t WHERE toMonth(at) = 2")
    assert hostile.query(f"SELECT {figures} FROM file('{path}', 'Parquet', '{structure}')") == there


@pytest.mark.long
def test_a_binary_column_that_is_not_there_is_named(tool: BackupTool) -> None:
    table = MONTHS | {"binary_columns": ["inputt"]}
    status, printed = tool.run("export", tables={"t": table})
    assert (status, "binary_columns: there is no column 'inputt'" in printed) == (78, True)
    assert (len(tool.exports()), parquets(tool)) == (2, [])


@pytest.mark.long
def test_other_binary_columns_let_all_parquet_objects_have_the_same_types(tool: BackupTool) -> None:
    assert tool.run("export")[0] == 0
    written = times(tool)
    table = {"t": MONTHS | {"binary_columns": ["s"]}}
    status, printed = tool.run("export", "--dry-run", tables=table)
    assert (status, printed.count("lacks Parquet")) == (0, 2)
    assert tool.run("export", tables=table)[0] == 0
    assert {key: time for key, time in times(tool).items() if key.startswith(CSV)} == {
        key: time for key, time in written.items() if key.startswith(CSV)
    }
    for name in NAMES:
        schema = pyarrow.parquet.read_schema(io.BytesIO(tool.get(PARQUET + name)))
        assert schema.field("s").type == pyarrow.binary()
    with tool.unchanged():
        assert tool.run("export", tables=table)[0] == 0
    assert tool.verifies()
