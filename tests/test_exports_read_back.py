"""`verify` lets the database read Parquet back: no value may differ, and nothing may be blamed."""

import hashlib
import io
import json
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from db_backup_harness import LAYOUT, BackupTool
from exports import parquet_rows, read_back
from exports.clickhouse_http import ClickHouseHTTP
from exports.compact import DamagedFooter
from exports.parquet_footer import MAGIC, footer_of
from exports.parquet_groups import row_groups
from ooni_common.database import server_error
from ooni_common.errors import Unavailable
from test_exports_parquet import BOTH, EXACT, KINDS, PARQUET
from test_restore_types import SETTINGS as SETTINGS_OF_TYPES

ROWS = 250
KEY = f"{PARQUET}t.parquet"
COLUMNS = "n, if(n % 3 = 0, NULL, n) AS m, toString(n) AS s, [n, n + 1] AS a"


@pytest.fixture
def tool(backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch) -> BackupTool:
    """A table that was exported as CSV, and as Parquet of two row groups."""
    monkeypatch.setattr(
        parquet_rows,
        "SETTINGS",
        {**parquet_rows.SETTINGS, "output_format_parquet_row_group_size": 100},
    )
    backup_tool.query(
        "CREATE TABLE t (n UInt32, m Nullable(UInt32), s String, a Array(UInt32))"
        " ENGINE = MergeTree ORDER BY n"
    )
    backup_tool.query(
        f"INSERT INTO t SELECT {COLUMNS} FROM (SELECT number AS n FROM numbers({ROWS}))"
    )
    assert backup_tool.run("export", tables={"t": "public"}, **BOTH)[0] == 0
    return backup_tool


def replace(tool: BackupTool, content: bytes) -> None:
    """Put another Parquet object into the place of that of `t`, and let the manifest say so."""
    old = tool.client.head_object(Bucket=tool.bucket_name, Key=KEY)
    tool.put(KEY, content, Metadata=old["Metadata"])
    manifest = json.loads(tool.get(LAYOUT.manifest("t")))
    etag = tool.client.head_object(Bucket=tool.bucket_name, Key=KEY)["ETag"]
    manifest["chunks"][""]["parquet"] |= {
        "sha256": hashlib.sha256(content).hexdigest(),
        "compressed_bytes": len(content),
        "etag": etag.strip('"'),
    }
    tool.put(LAYOUT.manifest("t"), json.dumps(manifest).encode())


def verified(tool: BackupTool) -> tuple[int, str]:
    """Verify the table's exports."""
    return tool.run("verify", "--from", "exports", "t")


@pytest.mark.long
def test_an_export_is_as_its_csv_says(tool: BackupTool) -> None:
    assert pyarrow.parquet.ParquetFile(io.BytesIO(tool.get(KEY))).num_row_groups == 2
    status, printed = verified(tool)
    assert status == 0, printed
    assert f"{KEY}: its values are those of {LAYOUT.export('t', '')}" in printed


@pytest.mark.parametrize(
    "changed",
    [
        "if(n = 170, 7, n) AS n, m, s, a",
        "n, if(n = 0, 0, m) AS m, s, a",  # NULL is no 0
        "n, m, if(n = 249, '249 ', s) AS s, a",
        "n, m, s, if(n = 5, [5, 7], a) AS a",
        "if(n = 2, 1, n) AS n, if(n = 1, 1, m) AS m, if(n = 1, '1', s) AS s, [n, n + 1] AS a",
    ],
)
@pytest.mark.long
def test_a_value_that_differs_is_found_though_the_checksum_is_right(
    tool: BackupTool, changed: str
) -> None:
    replace(tool, tool.query(f"SELECT {changed} FROM t ORDER BY n FORMAT Parquet"))
    status, printed = verified(tool)
    assert (status, f"{KEY}: its rows are not those of {LAYOUT.export('t', '')}" in printed) == (
        65,
        True,
    ), printed


@pytest.mark.long
def test_a_flipped_byte_is_found_in_a_file_that_can_still_be_read(tool: BackupTool) -> None:
    plain = "output_format_parquet_compression_method = 'none'"
    plain += ", output_format_parquet_max_dictionary_size = 0"
    content = tool.query(f"SELECT * FROM t ORDER BY n FORMAT Parquet SETTINGS {plain}")
    replace(tool, content)
    assert verified(tool)[0] == 0
    place = content.index(b"\x03\0\0\x00149") + 4
    replace(tool, content[:place] + b"7" + content[place + 1 :])
    status, printed = verified(tool)
    assert (status, f"{KEY}: " in printed) == (65, True), printed


@pytest.mark.parametrize(
    ("select", "finding"),
    [
        ("n, m, s", "its columns are not those of the CSV"),
        ("m, n, s, a", "its columns are not those of the CSV"),
        ("n, m, s, a, 1 AS more", "its columns are not those of the CSV"),
        ("n, m, 'x' AS s, 1 AS a", f"{KEY}: the database can't read it"),
        ("n, m, if(n = 3, NULL, s) AS s, a", f"{KEY}: "),  # of a column that has none
        ("n, m, repeat('x', 1000) AS s, a", "its rows are not those of"),
    ],
)
@pytest.mark.long
def test_a_file_of_another_table_is_found(tool: BackupTool, select: str, finding: str) -> None:
    replace(tool, tool.query(f"SELECT {select} FROM t ORDER BY n FORMAT Parquet"))
    status, printed = verified(tool)
    assert (status, finding in printed) == (65, True), printed


@pytest.mark.long
def test_the_order_of_the_rows_does_not_count(tool: BackupTool) -> None:
    replace(tool, tool.query("SELECT * FROM t ORDER BY cityHash64(n) FORMAT Parquet"))
    assert verified(tool)[0] == 0


# --- values of all types ---


@pytest.mark.long
def test_no_type_is_blamed(backup_tool: BackupTool) -> None:
    client = backup_tool.database.client()
    nested = "[(number % 256, 'a,\"b\\n'), (1, '')]"
    chosen = {
        **EXACT,
        "JSON": '\'{"a": 1, "b": [1, null], "c": "2026-01-01"}\'',
        "Nested(a UInt8, b String)": nested,
    }
    kinds = [*KINDS, *chosen]
    columns = ", ".join(f"c{index} {kind}" for index, kind in enumerate(kinds))
    client.execute(
        f"CREATE TABLE t (n UInt32, {columns}) ENGINE = MergeTree ORDER BY n",
        settings=SETTINGS_OF_TYPES,
    )
    drawn = ", ".join(f"c{index} {kind}" for index, kind in enumerate(KINDS)).replace("'", "\\'")
    client.execute(
        f"INSERT INTO t SELECT number, * EXCEPT (number), {', '.join(chosen.values())} FROM (SELECT"
        f" rowNumberInAllBlocks() AS number, * FROM generateRandom('{drawn}', 1, 8, 4) LIMIT 200)",
        settings=SETTINGS_OF_TYPES,
    )
    binary = [f"c{index}" for index, kind in enumerate(kinds) if kind == "Nullable(String)"]
    policy = {"policy": "public", "binary_columns": binary}
    status, printed = backup_tool.run("export", tables={"t": policy}, **BOTH)
    assert status == 0, printed
    status, printed = verified(backup_tool)
    assert (status, f"{KEY}: its values are those of" in printed) == (0, True), printed


@pytest.mark.long
def test_bytes_that_are_no_text_and_many_columns_are_compared(backup_tool: BackupTool) -> None:
    many = ", ".join(f"c{number} Nullable(UInt8)" for number in range(1000))
    backup_tool.query(f"CREATE TABLE t (n UInt32, b String, {many}) ENGINE = MergeTree ORDER BY n")
    backup_tool.query(
        "INSERT INTO t (n, b, c7) SELECT number, unhex('FF0A22'), 7 FROM numbers(1000)"
    )
    policy = {"policy": "public", "binary_columns": ["b"]}
    assert backup_tool.run("export", tables={"t": policy}, **BOTH)[0] == 0
    status, printed = verified(backup_tool)
    assert (status, f"{KEY}: its values are those of" in printed) == (0, True), printed


# --- what is hostile, or fails ---


@pytest.mark.long
def test_a_file_that_unpacks_to_anything_is_bounded(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 200 * 1024**2
    monkeypatch.setattr(read_back, "SETTINGS", {**read_back.SETTINGS, "max_memory_usage": limit})
    column = pa.array(["x" * 8_000_000] * ROWS)
    table = pa.table(
        {
            "n": pa.array(range(ROWS), pa.uint32()),
            "m": pa.array([None] * ROWS, pa.uint32()),
            "s": column,
            "a": pa.array([[]] * ROWS, pa.list_(pa.uint32())),
        }
    )
    file = io.BytesIO()
    pyarrow.parquet.write_table(
        table, file, compression="zstd", dictionary_pagesize_limit=100_000_000
    )
    assert len(file.getvalue()) < 1_000_000
    replace(tool, file.getvalue())
    status, printed = verified(tool)
    not_compared = "its values were not compared: a row group takes more than" in printed
    assert (status, not_compared) == (0, True) or (status, "but larger" in printed) == (65, True)
    assert tool.query("SELECT 1") == b"1\n"


@pytest.mark.long
def test_any_damage_is_a_finding_and_no_bug(tool: BackupTool) -> None:
    content = tool.get(KEY)
    draw = random.Random(27)
    for _ in range(20):
        damaged = bytearray(content)
        for _ in range(draw.choice([1, 1, 5, 50])):
            damaged[draw.randrange(4, len(damaged) - 8)] = draw.randrange(256)
        replace(tool, bytes(damaged))
        status, printed = verified(tool)
        assert status == 65 or "its values are those of" in printed, printed


@pytest.mark.long
def test_a_row_group_that_is_too_large_is_said_not_to_be_compared(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_back, "LARGEST_GROUP", 100)
    status, printed = verified(tool)
    assert (
        status,
        f"{KEY}: its values were not compared: 125 rows in one row group" in printed,
    ) == (
        0,
        True,
    ), printed


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (server_error(241, "Query memory limit exceeded: would use 3 GiB"), 0),
        (server_error(241, "(total) memory limit exceeded: would use 3 GiB"), 69),
        (server_error(497, "Not enough privileges"), 78),
        (server_error(117, "Bad page header"), 65),
        (server_error(48, "Unsupported encoding"), 65),
        (Unavailable("database over HTTP: Connection refused"), 69),
    ],
)
@pytest.mark.long
def test_a_failure_of_the_database_is_none_of_the_file(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: int
) -> None:
    result = ClickHouseHTTP.result

    def fail(http: ClickHouseHTTP, query: str | bytes, settings: Any) -> Any:
        if isinstance(query, bytes):
            raise error
        return result(http, query, settings)

    monkeypatch.setattr(ClickHouseHTTP, "result", fail)
    tool.put(f"{PARQUET}u.parquet", b"")
    status, printed = tool.run("verify", "--from", "exports")
    assert f"{PARQUET}u.parquet: no manifest names it" in printed  # all else was looked at
    assert status == (expected or 65), printed
    assert (f"{KEY}: the database can't read it" in printed) == (expected == 65)
    assert ("its values were not compared" in printed) == (expected != 65)


@pytest.mark.long
def test_a_sample_of_parquet_alone_reads_its_csv_too(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exports.verify._skipped", lambda *_: {LAYOUT.export("t", "")})
    status, printed = tool.run("verify", "--from", "exports", "--sample", "1", "t")
    assert (status, f"{KEY}: its values are those of" in printed) == (0, True), printed


# --- row groups ---


def file_of(groups: int = 3) -> bytes:
    """Return a file as another library writes it."""
    rows = 100 * groups
    table = pa.table(
        {"n": list(range(rows)), "s": ["a", None] * (rows // 2), "l": [[1, 2], []] * (rows // 2)}
    )
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file, row_group_size=100, write_page_index=True)
    return file.getvalue()


def test_each_row_group_is_a_file_of_its_own() -> None:
    content = file_of()
    tables = [
        pyarrow.parquet.read_table(
            io.BytesIO(MAGIC + content[group.start : group.end] + group.ending)
        )
        for group in row_groups(footer_of(content), len(content))
    ]
    assert [len(table) for table in tables] == [100, 100, 100]
    whole = pyarrow.parquet.read_table(io.BytesIO(content))
    assert pa.concat_tables(tables).to_pydict() == whole.to_pydict()


@pytest.mark.parametrize("groups", [1, 20])
def test_a_footer_with_any_damage_is_refused_or_has_groups_within_the_file(groups: int) -> None:
    content = file_of(groups)
    size = footer_of(content).size
    draw = random.Random(groups)
    for _ in range(500):
        damaged = bytearray(content)
        for _ in range(draw.choice([1, 1, 3])):
            damaged[draw.randrange(len(content) - size, len(content) - 8)] = draw.randrange(256)
        try:
            footer = footer_of(bytes(damaged))
            found = list(row_groups(footer, len(content)))
        except DamagedFooter:
            continue
        assert sum(group.rows for group in found) == footer.rows
        for group in found:
            assert 4 <= group.start <= group.end <= len(content) - size
            footer_of(group.ending)


def test_a_file_without_rows_has_no_row_groups() -> None:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pa.table({"n": pa.array([], pa.int8())}), file)
    content = file.getvalue()
    assert list(row_groups(footer_of(content), len(content))) == []
