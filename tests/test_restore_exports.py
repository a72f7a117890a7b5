"""Restored exports: the rows of the table are those of the objects, or nothing is restored."""

import hashlib
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from db_backup_harness import CSV, LAYOUT, BackupTool
from dev.engines import PINNED, Engine
from engine_client import EngineClient
from exports.clickhouse_http import INPUT_SETTINGS
from exports.comparison import Records, composite_floats, reads_floats
from exports.csv_rows import header_of
from exports.restore import insert_statement, names_in
from ooni_common.database import SESSION, Database, literal, quoted
from schemas.tokens import SchemaRefused
from tables.inventory import Column
from tables.staging import Place

PROVEN = "the rows are those that were exported"
REFUSED = "t: the server stored other rows than those that were sent to it"


def records_of(document: bytes, *places: int) -> Records:
    """Return the records of a document that comes in pieces, cut at these places."""
    records = Records()
    for start, end in pairwise([0, *sorted(places), len(document)]):
        records.write(document[start:end])
    return records


def document_of(rows: list[tuple[str, ...]]) -> bytes:
    """Return a document as the server writes it."""

    def quoted(value: str) -> str:
        return '"' + value.replace('"', '""') + '"'

    return "".join(",".join(map(quoted, row)) + "\n" for row in [("a", "b"), *rows]).encode()


ROWS = st.lists(st.tuples(*[st.text('",\n\\N a', max_size=6)] * 2), max_size=6)


@given(rows=ROWS, data=st.data())
def test_a_sum_of_records_does_not_depend_on_their_order_or_on_pieces(
    rows: list[tuple[str, ...]], data: st.DataObject
) -> None:
    document = document_of(rows)
    places = data.draw(st.lists(st.integers(0, len(document)), max_size=8))
    shuffled = document_of(data.draw(st.permutations(rows)))
    records = records_of(document, *places)
    assert (records.count, records.header, records.whole) == (len(rows), b'"a","b"', True)
    assert records_of(shuffled).same_as([records])


@given(rows=ROWS.filter(bool), other=ROWS.filter(bool))
def test_other_rows_have_another_sum(
    rows: list[tuple[str, ...]], other: list[tuple[str, ...]]
) -> None:
    same = sorted(rows) == sorted(other)
    assert records_of(document_of(rows)).same_as([records_of(document_of(other))]) == same


@pytest.mark.parametrize(
    ("rows", "other"),
    [
        ([("a\nb", ""), ("c\nd", "")], [("a\nd", ""), ("c\nb", "")]),
        ([("a", ""), ("a", "")], [("a", ""), ("b", "")]),
        ([("a", "b")], [("b", "a")]),
        ([('","', "")], [("", "")]),
    ],
)
def test_lines_and_fields_that_change_their_places_are_other_rows(
    rows: list[tuple[str, ...]], other: list[tuple[str, ...]]
) -> None:
    assert not records_of(document_of(rows)).same_as([records_of(document_of(other))])


ENGINES = {
    "merge": "MergeTree ORDER BY k",
    "parted": "MergeTree PARTITION BY k % 3 ORDER BY k TTL toDateTime(0) + toIntervalDay(k)",
    "replacing": "ReplacingMergeTree ORDER BY k",
    "versioned": "ReplacingMergeTree(v) ORDER BY k",
    "summing": "SummingMergeTree ORDER BY k",
    "aggregating": "AggregatingMergeTree ORDER BY k",
    "collapsing": "CollapsingMergeTree(sign) ORDER BY k",
    "log": "Log",
    "tiny": "TinyLog",
    "stripe": "StripeLog",
    "memory": "Memory",
    "rocks": "EmbeddedRocksDB PRIMARY KEY k",
    "joined": "Join(ANY, LEFT, k)",
}
UNIQUE = ("rocks", "joined")
# As soon as they have their name, the server may merge them, or drop what is too old.
MERGED = ("parted", "replacing", "versioned", "summing", "aggregating", "collapsing")


def test_the_rows_of_every_engine_are_compared_after_the_insert(backup_tool: BackupTool) -> None:
    execute = backup_tool.database.execute
    columns = "k UInt32, v UInt32, sign Int8, s Nullable(String), f Float64, g Nullable(Float32)"
    row = "number, -1 + (number % 2) * 2, if(number % 3, 'a\\nb', NULL), 1 / number, 1e-30 * number"
    for name, engine in ENGINES.items():
        execute(f"CREATE TABLE {name} ({columns}) ENGINE = {engine}")
        if "MergeTree" in engine:  # rows with one key
            execute(f"SYSTEM STOP MERGES {name}")
        for _ in range(1 if name in UNIQUE else 2):
            execute(
                f"INSERT INTO {name} SELECT intDiv(number, {1 if name in UNIQUE else 2}), {row}"
                " FROM numbers(60) SETTINGS optimize_on_insert = 0"
            )
    assert backup_tool.run("export", tables={"*": "public"})[0] == 0
    for name in ENGINES:
        status, printed = backup_tool.run("restore", name, "--from", "exports")
        assert (status, f"{name}: {PROVEN}" in printed) == (0, True), printed
        if name not in MERGED:
            assert backup_tool.checksum(f"{name}_restored") == backup_tool.checksum(name)


@pytest.fixture
def exported(backup_tool: BackupTool) -> BackupTool:
    """The tool, and a table with NULLs and equal keys that was exported, and was read once."""
    execute = backup_tool.database.execute
    execute(
        "CREATE TABLE t (k UInt32, n Nullable(UInt32), s String, f Array(Float64))"
        " ENGINE = MergeTree ORDER BY k"
    )
    execute(
        "INSERT INTO t SELECT number % 300, nullIf(number, 7), 'text', [number / 4]"
        " FROM numbers(600)"
    )
    assert backup_tool.run("export", tables={"t": "public"})[0] == 0
    assert not backup_tool.manifest("t").chunks[""].fingerprint.is_read
    return backup_tool


REST = "ORDER BY k\nSETTINGS index_granularity = 8192"


def with_schema(tool: BackupTool, old: str, new: str) -> None:
    """Let a manifest have another schema."""
    manifest = json.loads(tool.get(LAYOUT.manifest("t")))
    assert old in manifest["schema"]
    manifest["schema"] = manifest["schema"].replace(old, new)
    tool.put(LAYOUT.manifest("t"), json.dumps(manifest).encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("`k` UInt32", "`k` UInt8", id="a type that is too small"),
        pytest.param("Nullable(UInt32)", "UInt32 DEFAULT 7", id="a default where NULL was"),
        pytest.param(f"MergeTree\n{REST}", "EmbeddedRocksDB\nPRIMARY KEY k", id="keys"),
        pytest.param(f"MergeTree\n{REST}", "Join(ANY, LEFT, k)", id="a join"),
    ],
)
def test_a_server_that_changes_or_loses_rows_is_noticed(
    exported: BackupTool, old: str, new: str
) -> None:
    with_schema(exported, old, new)
    execute = exported.database.execute
    live = exported.checksum("t")
    status, printed = exported.run("restore", "t", "--from", "exports")
    assert (status, REFUSED in printed) == (65, True), printed
    assert len(printed.strip().splitlines()) < 5, printed
    assert execute("SHOW TABLES") == [("t",)]
    assert exported.checksum("t") == live


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("`n` Nullable(UInt32)", "`n` Nullable(UInt32) MATERIALIZED 1"),
        ("`n` Nullable(UInt32)", "`n` Nullable(UInt32) ALIAS k"),
        ("`s` String", "`s` String, CONSTRAINT few CHECK k < 100"),
        ("`n` Nullable(UInt32),", ""),
    ],
)
def test_a_table_that_takes_no_such_rows_is_refused(
    exported: BackupTool, old: str, new: str
) -> None:
    with_schema(exported, old, new)
    status, printed = exported.run("restore", "t", "--from", "exports")
    assert (status, "Traceback" in printed) == (65, False), printed
    assert exported.database.execute("SHOW TABLES") == [("t",)]


def test_a_digest_in_the_manifest_goes_on_being_compared(backup_tool: BackupTool) -> None:
    backup_tool.database.execute("CREATE TABLE t (n UInt32, s String) ENGINE = Log")
    backup_tool.database.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    assert backup_tool.run("export", tables={"t": "public"})[0] == 0
    manifest = json.loads(backup_tool.get(LAYOUT.manifest("t")))
    fingerprint = manifest["chunks"][""]["fingerprint"]
    fingerprint["hash"] = str(int(fingerprint["hash"]) ^ 1)
    backup_tool.put(LAYOUT.manifest("t"), json.dumps(manifest).encode())
    status, printed = backup_tool.run("restore", "t", "--from", "exports")
    assert (status, "as many rows as were exported, but other ones" in printed) == (65, True)
    assert backup_tool.database.execute("SHOW TABLES") == [("t",)]


def test_an_object_with_another_row_and_the_same_size_is_damaged(exported: BackupTool) -> None:
    key = f"{CSV}t.csv.zstd"
    size = len(exported.get(key))
    rows = exported.csv("t.csv.zstd").replace(b'599,"text"', b'599,"TEXT"')
    altered = zstandard.ZstdCompressor(level=19, write_checksum=False).compress(rows)
    room = size - len(altered) - 8
    assert room >= 0
    altered += b"\x50\x2a\x4d\x18" + room.to_bytes(4, "little") + bytes(room)  # is skipped
    assert len(altered) == size
    exported.put(key, altered)
    status, printed = exported.run("restore", "t", "--from", "exports")
    assert (status, "missing or damaged" in printed) == (65, True), printed
    assert exported.database.execute("SHOW TABLES") == [("t",)]


def test_objects_of_several_frames_are_read_as_the_server_reads_them(exported: BackupTool) -> None:
    rows = exported.csv("t.csv.zstd")
    compress = zstandard.ZstdCompressor().compress
    content = b"".join(compress(rows[start : start + 999]) for start in range(0, len(rows), 999))
    records = Records()
    text = zstandard.ZstdDecompressor().stream_writer(records)  # type: ignore[arg-type]
    for start in range(0, len(content), 7):
        text.write(content[start : start + 7])
    assert (records.count, records.same_as([records_of(rows)])) == (600, True)


def test_rows_that_were_exported_with_other_columns_are_only_counted(exported: BackupTool) -> None:
    manifest = json.loads(exported.get(LAYOUT.manifest("t")))
    manifest["chunks"][""]["types"] = ["UInt64", "Nullable(UInt32)", "String", "Array(Float64)"]
    exported.put(LAYOUT.manifest("t"), json.dumps(manifest).encode())
    status, printed = exported.run("restore", "t", "--from", "exports")
    assert (status, "rows are only counted" in printed) == (0, True), printed


ALTERED = {
    "added": ("ADD COLUMN x UInt8 DEFAULT 7 AFTER k", b'"2023-01-05",7,"a",0.5', ""),
    "dropped": ("DROP COLUMN s", b'"2023-01-05",0.5', "s"),
    "renamed": ("RENAME COLUMN s TO u", b'"2023-01-05","",0.5', "s"),
    "moved": ("MODIFY COLUMN f Float64 FIRST", b'0.5,"2023-01-05","a"', ""),
}


@pytest.fixture
def months(backup_tool: BackupTool) -> BackupTool:
    """The tool, and a table of two months; of the first one, only the export has the row."""
    execute = backup_tool.database.execute
    execute(
        "CREATE TABLE t (k Date, s String, f Float64) ENGINE = MergeTree PARTITION BY toYYYYMM(k)"
        " ORDER BY k"
    )
    execute("INSERT INTO t VALUES ('2023-01-05', 'a', 0.5), ('2023-02-05', 'b', 1.5)")
    by_month = {"t": {"policy": "public", "chunk_by": "month", "column": "k"}}
    assert backup_tool.run("export", tables=by_month)[0] == 0
    backup_tool.forget_parts("t")
    assert backup_tool.run("export")[0] == 0
    assert all(export.fingerprint.is_read for export in backup_tool.manifest("t").exports)
    execute("ALTER TABLE t DROP PARTITION 202301")
    return backup_tool


@pytest.mark.parametrize("name", ALTERED)
def test_rows_that_only_an_object_of_other_columns_has_are_restored(
    months: BackupTool, name: str
) -> None:
    alter, row, left_out = ALTERED[name]
    months.database.execute(f"ALTER TABLE t {alter}")
    assert months.run("export")[0] == 0
    assert months.manifest("t").chunks["202301"].dropped
    status, printed = months.run("restore", "t", "--from", "exports")
    assert (status, "rows are only counted" in printed) == (0, True), printed
    warning = "t_202301.csv.zstd: the table has no such columns any more, so their values are"
    assert (f"{warning} left out: {left_out}\n" in printed) == bool(left_out), printed
    live = months.query("SELECT * FROM t FORMAT CSV")
    restored = months.query("SELECT * FROM t_restored ORDER BY k FORMAT CSV")
    assert restored == row + b"\n" + live
    arguments = ("restore", "t", "--from", "exports", "--chunk", "202301", "--as", "one")
    status, printed = months.run(*arguments)
    assert status == 0, printed
    assert months.query("SELECT * FROM one FORMAT CSV") == row + b"\n"


INTO = Place("d", "t")
COLUMNS = [("a", "UInt8"), ("b", "String")]


@pytest.mark.parametrize(
    ("types", "names"),
    [
        pytest.param(["UInt8"], ["a", "b"], id="too few types"),
        pytest.param(["UInt8", "String"], ["a"], id="too many types"),
        pytest.param(["UInt8", "UInt8"], ["a", "a"], id="a name twice"),
        pytest.param(["UInt8"], ["c"], id="no column of the table"),
        pytest.param([], ["a", "c"], id="no type, as of 2.0.0"),
        pytest.param(["UInt8", "x DEFAULT 1"], ["a", "c"], id="a type that is none"),
    ],
)
def test_columns_of_an_object_that_can_not_be_are_refused(
    types: list[str], names: list[str]
) -> None:
    with pytest.raises(SchemaRefused):
        insert_statement(INTO, COLUMNS, types, names, in_utc=True)


def test_a_name_in_an_object_is_never_executed() -> None:
    name = "c` UInt8') SELECT 1 --"
    (name_in_header,) = names_in(header_of([name]).removesuffix(b"\n"))
    assert name_in_header == name
    insert = insert_statement(INTO, COLUMNS, ["UInt8", "UInt8"], ["a", name], in_utc=True)
    assert quoted(name) != name
    structure = literal(f"`a` UInt8, {quoted(name)} UInt8")
    assert insert == (
        f"INSERT INTO {INTO} (`a`) SELECT `a` FROM input({structure})"
        f" WHERE NOT ignore({quoted(name)}) FORMAT CSVWithNames"
    )


def test_a_header_that_is_none_is_damage(exported: BackupTool) -> None:
    for header in (b'"k","n","s","f', b'"k"x,"n","s","f"', b"\xff", b'"k","n","s"', b'"K"'):
        rows = exported.csv("t.csv.zstd").partition(b"\n")[2]
        content = zstandard.ZstdCompressor().compress(header + b"\n" + rows)
        manifest = json.loads(exported.get(LAYOUT.manifest("t")))
        manifest["chunks"][""] |= {
            "compressed_bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        exported.put(LAYOUT.manifest("t"), json.dumps(manifest).encode())
        exported.put(f"{CSV}t.csv.zstd", content)
        status, printed = exported.run("restore", "t", "--from", "exports")
        assert (status, "t.csv.zstd: " in printed) == (65, True), printed
        assert exported.database.execute("SHOW TABLES") == [("t",)]


def test_floats_within_other_types_are_told() -> None:
    kinds = ["Float32", "Nullable(Float64)", "Array(Float32)", "Point", "Tuple(`Float64` String)"]
    columns = [Column(kind, kind) for kind in kinds]
    assert composite_floats(columns) == ["Array(Float32)", "Point"]


@pytest.mark.compat
def test_only_old_servers_read_floats_within_other_types_with_an_error(
    engines: Mapping[str, Engine],
) -> None:
    exact = {
        version: reads_floats(Database(EngineClient(engine))) for version, engine in engines.items()
    }
    assert exact == {"24.8": False, "25.5": False, PINNED: True}


@pytest.mark.compat
@pytest.mark.timeout(600)
def test_every_float_is_read_as_it_was_written_on_all_versions(
    engines: Mapping[str, Engine], tmp_path: Path
) -> None:
    kinds = {
        "f": "Float64",
        "g": "Float32",
        "h": "Nullable(Float64)",
        "i": "SimpleAggregateFunction(max, Nullable(Float32))",
    }
    double = "reinterpretAsFloat64(sipHash64(number))"
    single = "reinterpretAsFloat32(toUInt32(number * 42949))"
    for version, engine in engines.items():
        for name, value in (SESSION | INPUT_SETTINGS).items():
            engine.execute(f"SET {name} = {value!r}")
        for name in ("sent", "back"):
            columns = ", ".join(map(" ".join, kinds.items()))
            engine.execute(f"CREATE TABLE {name} ({columns}) ENGINE = Memory")
        engine.execute(
            f"INSERT INTO sent SELECT {double}, {single}, nullIf({double}, 0), {single}"
            " FROM numbers(100000)"
        )
        engine.execute("INSERT INTO sent (f, h) VALUES (5e-324, NULL), (nan, inf), (-0., -inf)")
        path = tmp_path / f"{version}.csv"
        path.write_bytes(engine.execute("SELECT * FROM sent", "CSVWithNames"))
        ((database,),) = engine.rows("SELECT currentDatabase()")
        insert = insert_statement(Place(database, "back"), list(kinds.items()), in_utc=True)
        source = f"file('{path}', 'CSVWithNames', "
        engine.execute(insert.replace("input(", source).removesuffix(" FORMAT CSVWithNames"))
        back = records_of(engine.execute("SELECT * FROM back", "CSVWithNames"))
        assert back.same_as([records_of(path.read_bytes())]), version
        for name in SESSION | INPUT_SETTINGS:
            engine.execute(f"SET {name} = DEFAULT")
