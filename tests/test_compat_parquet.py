"""Exports as Parquet on every version: DuckDB reads the same from all, and nothing is lost."""

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import duckdb
import pytest

from dev.embedded_clickhouse.errors import ServerError
from dev.engines import Engine
from exports.comparison import Records
from exports.csv_rows import OUTPUT_SETTINGS
from exports.fingerprint import counted
from exports.manifest import Export, ParquetObject, TableManifest
from exports.parquet_footer import footer_of
from exports.parquet_rows import SETTINGS, ParquetFormat, texts_of
from exports.plan import types_of
from exports.read_back import NotReadBack, ReadBack, TextOfCSV
from exports.reader import NOT_AS_DEMANDED, Chunk, Reader
from ooni_common.database import SESSION, Database, server_error
from tables.inventory import Column, SourceTable
from tables.policy import TablePolicy
from test_restore_types import RANDOM
from test_restore_types import SETTINGS as SETTINGS_OF_TYPES

pytestmark = [pytest.mark.compat, pytest.mark.timeout(600)]

COLUMNS = {
    "at": ("DateTime", "'2106-02-07 06:28:15'"),
    "zoned": ("DateTime('Asia/Kolkata')", "'2026-01-01 05:30:00'"),
    "maybe": ("Nullable(DateTime)", "NULL"),
    "times": ("Array(DateTime)", "['2026-01-01 00:00:00']"),
    "day": ("Date", "'2149-06-06'"),
    "early": ("Date32", "'1900-01-01'"),
    "precise": ("DateTime64(6)", "'2026-01-01 00:00:00.123456'"),
    "flag": ("Enum8('t' = 1, 'f' = -2, 'a, (\\'x\\')' = 3)", "'a, (\\'x\\')'"),
    "flags": ("Array(Nullable(Enum16('on' = 300)))", "['on', NULL]"),
    "text": ("String", "'измерения'"),
    "low": ("LowCardinality(Nullable(String))", "NULL"),
    "fixed": ("FixedString(3)", "unhex('FF0041')"),
    "big": ("Int256", "-1"),
    "money": ("Decimal(38, 10)", "'1.25'"),
    "number": ("Float64", "nan"),
    "yes": ("Bool", "true"),
    "address": ("IPv4", "'1.2.3.4'"),
    "wide": ("IPv6", "'::1'"),
    "tags": ("Map(String, Array(Nullable(UInt8)))", "map('k', [1, NULL])"),
    "pair": ("Tuple(a DateTime, b String)", "('2026-01-01 00:00:00', 'x')"),
}
READ = "at, zoned, maybe, times, day, early, flag, flags, text, low, money, yes, pair"


@pytest.fixture
def exporting(engine: Engine) -> Engine:
    """An engine with a table of many types, of which one chunk has a text that is none."""
    for name, value in SESSION.items():
        engine.execute(f"SET {name} = {value!r}")
    columns = ", ".join(f"{name} {kind}" for name, (kind, _) in COLUMNS.items())
    engine.execute(f"CREATE TABLE t (n UInt32, {columns}) ENGINE = MergeTree ORDER BY n")
    values = ", ".join(value for _, value in COLUMNS.values())
    for number in range(3):
        engine.execute(f"INSERT INTO t VALUES ({number}, {values})")
    engine.execute(
        "INSERT INTO t SELECT * REPLACE (7 AS n, unhex('FF') AS text)"
        " FROM (SELECT * FROM t WHERE n = 0)"
    )
    return engine


def reader_of(engine: Engine, *binary: str) -> Reader:
    """Return a reader of the table, which only says how its rows are read."""
    columns = engine.rows(
        "SELECT name, type FROM system.columns WHERE table = 't' AND"
        " database = currentDatabase() ORDER BY position"
    )
    table = SourceTable("t", "MergeTree", tuple(Column(*column) for column in columns), "n", "", "")
    policy = TablePolicy(policy="public", binary_columns=binary)
    return Reader(cast("Database", None), table, policy)


def parquet(engine: Engine, reader: Reader, chunk: Chunk) -> bytes:
    """Return a chunk as this version writes it for the tool."""
    names = ", ".join(f"'{name}'" for name in SETTINGS)
    rows = engine.rows(f"SELECT name FROM system.settings WHERE name IN ({names})")
    settings = {name: SETTINGS[name] for (name,) in rows}
    for name, value in settings.items():
        engine.execute(f"SET {name} = {value!r}")
    form = ParquetFormat(cast("Any", None), settings)
    demand = " AND ".join(texts_of(reader).values())
    return engine.execute(reader.select(chunk, demand, form.types(reader)), "Parquet")


def read(path: Path, columns: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        columns = re.sub(r"\b(at)\b", r'"\1"', columns)
        return connection.execute(f"SELECT {columns} FROM '{path}' ORDER BY n").fetchall()


def test_no_value_is_lost_and_others_read_texts_and_times(
    exporting: Engine, tmp_path: Path
) -> None:
    reader = reader_of(exporting)
    content = parquet(exporting, reader, Chunk("00000", "n < 7"))
    assert footer_of(content).rows == 3
    path = tmp_path / "t.parquet"
    path.write_bytes(content)
    rows = read(path, f"{READ.replace('at,', 'epoch(at)::BIGINT,', 1)}")
    assert len(rows) == 3
    at, zoned, maybe, _, day, early, flag, flags, text, low, *_, pair = rows[0]
    assert (at, f"{zoned:%F %T}", maybe) == (2**32 - 1, "2026-01-01 00:00:00", None)
    assert (str(day), str(early)) == ("2149-06-06", "1900-01-01")
    assert [as_text(value) for value in (flag, *flags)] == ["a, ('x')", "on", None]
    assert (text, low, pair["b"]) == ("измерения", None, "x")
    structure = ", ".join(f"{column.name} {column.type}" for column in reader.table.columns)
    escaped = structure.replace("\\", "\\\\").replace("'", "\\'")
    figures = "count(), sum(cityHash64(formatRow('RowBinary', *)))"
    there = exporting.rows(f"SELECT {figures} FROM t WHERE n < 7")
    back = exporting.rows(
        f"SELECT {figures} FROM file('{path}', 'Parquet', '{escaped}')"
        # Without it, 24.8 takes the smallest and the largest time for others than the column's.
        " SETTINGS input_format_parquet_filter_push_down = 0"
    )
    assert back == there


def as_text(value: str | bytes | None) -> str | None:
    """Return an enumeration's value, which newer servers mark as such and DuckDB gives as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def test_a_text_that_is_none_fails_its_own_chunk_alone(exporting: Engine) -> None:
    reader = reader_of(exporting)
    assert footer_of(parquet(exporting, reader, Chunk("00000", "n < 7"))).rows == 3
    with pytest.raises(ServerError) as caught:
        parquet(exporting, reader, Chunk("00001", "n >= 7"))
    assert caught.value.code == NOT_AS_DEMANDED


def test_a_binary_column_is_bytes(exporting: Engine, tmp_path: Path) -> None:
    content = parquet(exporting, reader_of(exporting, "text"), Chunk("00001", "n >= 7"))
    footer = footer_of(content)
    path = tmp_path / "t.parquet"
    path.write_bytes(content[: -footer.size] + footer.with_bytes(["text"]))
    assert read(path, "text") == [(b"\xff",)]


def test_types_that_have_no_form_in_it_are_refused_with_codes_that_are_known(
    engines: Mapping[str, Engine],
) -> None:
    for engine in engines.values():
        for setting in ("variant", "dynamic"):
            engine.execute(f"SET allow_experimental_{setting}_type = 1")
        for kind in ("Variant(UInt8, String)", "Dynamic", "IntervalDay"):
            engine.execute("DROP TABLE IF EXISTS r")
            engine.execute(f"CREATE TABLE r (c {kind}) ENGINE = Memory")
            with pytest.raises(ServerError) as caught:
                engine.execute("SELECT c FROM r LIMIT 0", "Parquet")
            assert caught.value.code == 50


class EngineHTTP:
    """What reading back needs of the HTTP interface, from an engine without one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def value(self, expression: str) -> str:
        """Return the text of an expression."""
        return self._engine.execute(f"SELECT {expression}", "RawBLOB").decode()

    @contextlib.contextmanager
    def result(self, query: bytes, settings: Mapping[str, object]) -> Iterator[Iterator[bytes]]:
        """Run a query that names a format; give its result."""
        for name, value in {**settings, "max_query_size": 2 * len(query)}.items():
            self._engine.execute(f"SET {name} = {value!r}")
        try:
            rows = self._engine.execute(query.decode())
        except ServerError as error:
            raise server_error(error.code, error.text) from None
        yield iter([rows])


def finding_of(engine: Engine, reader: Reader, content: bytes, later: Engine | None = None) -> str:
    """Return what `verify` says of a Parquet object, compared with the CSV of rows below 7.

    With a later engine, that reads the object back.
    """
    for name, value in OUTPUT_SETTINGS.items():
        for one in (engine, later or engine):
            one.execute(f"SET {name} = {str(value)!r}")
    chunk = Chunk("00000", "n < 7")
    text = engine.execute(reader.select(chunk), "CSVWithNames")
    records = Records()
    records.write(text)
    parquet = ParquetObject(
        key="t.parquet",
        compressed_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        token="",
        started="",
        finished="",
    )
    export = Export(
        chunk=chunk,
        key="t.csv.zstd",
        query="",
        rows=records.count,
        bytes=len(text),
        compressed_bytes=0,
        sha256="",
        token="",
        fingerprint=counted(records.count),
        started="",
        finished="",
        types=types_of(reader),
        parquet=parquet,
    )
    columns = [(column.name, column.type) for column in reader.table.columns]
    read_back = ReadBack(cast("Any", EngineHTTP(later or engine)))
    csv = TextOfCSV(export.key, records, export.bytes)
    manifest = TableManifest(table="t", columns=columns)
    return read_back.compare(manifest, export, footer_of(content), iter([content]), csv)


def test_what_is_read_back_has_the_text_of_the_csv(exporting: Engine) -> None:
    reader = reader_of(exporting)
    content = parquet(exporting, reader, Chunk("00000", "n < 7"))
    assert finding_of(exporting, reader, content) == ""
    exporting.execute("INSERT INTO t SELECT * REPLACE (3 AS n) FROM t WHERE n = 2")
    exporting.execute("ALTER TABLE t DELETE WHERE n = 2 SETTINGS mutations_sync = 2")
    assert "its rows are not those of t.csv.zstd" in finding_of(exporting, reader, content)


def test_no_type_is_blamed(engine: Engine, engines: Mapping[str, Engine]) -> None:
    for name, value in {**SESSION, **SETTINGS_OF_TYPES}.items():
        if engine.rows(f"SELECT 1 FROM system.settings WHERE name = '{name}'"):
            engine.execute(f"SET {name} = {value!r}")
    kinds = [kind.strip() for kind in RANDOM.replace("\n", " ").split(";")]
    if engine.version < "26":  # which refuse to write these
        kinds = [kind for kind in kinds if "UUID" not in kind]
    columns = ", ".join(f"c{index} {kind}" for index, kind in enumerate([*kinds, "Float64"]))
    engine.execute(f"CREATE TABLE t (n UInt32, {columns}) ENGINE = MergeTree ORDER BY n")
    drawn = ", ".join(f"c{index} {kind}" for index, kind in enumerate(kinds)).replace("'", "\\'")
    floats = "['0', '-0', '1e308', '1e-308', 'inf', '-inf', 'nan', '0.1']"
    engine.execute(
        f"INSERT INTO t SELECT n % 7, * EXCEPT (n), toFloat64({floats}[n % 8 + 1]) FROM (SELECT"
        f" rowNumberInAllBlocks() AS n, * FROM generateRandom('{drawn}', 1, 8, 4) LIMIT 200)"
    )
    texts = [f"c{index}" for index, kind in enumerate(kinds) if "String" in kind]
    reader = reader_of(engine, *texts)
    content = parquet(engine, reader, Chunk("00000", "n < 7"))
    assert finding_of(engine, reader, content) == ""
    # After an upgrade, or by another server: what they don't read of each other is no finding.
    for other in engines.values():
        for name, value in SESSION.items():
            other.execute(f"SET {name} = {value!r}")
        with contextlib.suppress(NotReadBack):
            assert finding_of(engine, reader, content, other) == "", other.version
    unread = [index for index, kind in enumerate(kinds) if "UUID" in kind or "DateTime64(9" in kind]
    engine.execute("ALTER TABLE t " + ", ".join(f"DROP COLUMN c{index}" for index in unread))
    fewer = reader_of(engine, *[name for name in texts if int(name[1:]) not in unread])
    readable = parquet(engine, fewer, Chunk("00000", "n < 7"))
    for other in engines.values():
        assert finding_of(engine, fewer, readable, other) == "", other.version
