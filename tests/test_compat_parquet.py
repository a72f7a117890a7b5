"""Exports as Parquet on every version: DuckDB reads the same from all, and nothing is lost."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import duckdb
import pytest

from dev.embedded_clickhouse.errors import ServerError
from dev.engines import Engine
from exports.parquet_footer import footer_of
from exports.parquet_rows import SETTINGS, ParquetFormat, texts_of
from exports.reader import NOT_AS_DEMANDED, Chunk, Reader
from inventory import Column, SourceTable
from ooni_common.database import SESSION, Database
from table_policy import TablePolicy

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
