"""Rows of exports over the native protocol: the bytes of `FORMAT CSVWithNames` on every version."""

from collections.abc import Iterator, Mapping

import pytest
from hypothesis import HealthCheck, given, settings

from dev.engines import Engine
from drawn_tables import SETTINGS, create, tables
from exports.clickhouse_native import csv_of
from exports.csv_rows import OUTPUT_SETTINGS, header_of
from ooni_common.database import SESSION
from test_exports import ALL_TYPES, ALL_VALUES

UUID = "61f0c404-5cb3-11e7-907b-a6006ad3dba0"

pytestmark = [pytest.mark.compat, pytest.mark.timeout(600)]

EXPORTED = SESSION | OUTPUT_SETTINGS
TEXTS = {
    "line breaks and quotes": r"""'a\r\n"b",\n""'""",
    "NULL and what looks so": r"'\\N', NULL::Nullable(String), 'NULL', ''",
    "bytes that are no text": "unhex('00FF80C3'), toFixedString('a\\0', 4)",
    "zones": "toDateTime64('2026-03-29 01:30:00.125', 3, 'UTC')::DateTime64(3, 'Europe/Rome')",
    "numbers": "nan, inf, -inf, -0.0, toInt256('-1'), toDecimal256('1.10', 30), 1e-7, 1e21",
    "low": "toLowCardinality(NULL::Nullable(String)), toLowCardinality('a\nb')",
    "composite": "[('a\"', [NULL, 1])], map('k', [toDate(0)]), tuple(NULL), (1, (2, 'x')), []",
    "addresses": "toIPv4('1.2.3.4'), toIPv6('::1'), toUUID('00000000-0000-0000-0000-000000000001')",
    "others": "true AS yes, CAST(1 AS Enum8('a, \"b\"' = 1)), point, number",
}


@pytest.fixture
def exporting(engines: Mapping[str, Engine]) -> Iterator[Mapping[str, Engine]]:
    """The engines in a session of an export."""
    for engine in engines.values():
        for name, value in EXPORTED.items():
            engine.execute(f"SET {name} = {value!r}")
    yield engines
    for engine in engines.values():
        for name in EXPORTED:
            engine.execute(f"SET {name} = DEFAULT")


def document(engine: Engine, select: str) -> bytes:
    """Return the rows as they come over the native protocol, checked against the server's own."""
    names = [name for name, *_ in engine.rows(f"DESCRIBE TABLE ({select})")]
    content = header_of(names) + engine.execute(csv_of(select, names), "RawBLOB")
    assert content == engine.execute(select, "CSVWithNames")
    return content


@settings(max_examples=200, suppress_health_check=list(HealthCheck), derandomize=True)
@given(tables())
def test_rows_of_any_types_have_the_bytes_of_http_on_all_versions(
    exporting: Mapping[str, Engine], table: tuple[list[str], list[list[str]], int, int, str]
) -> None:
    types, rows, *_ = table
    documents = {}
    for version, engine in exporting.items():
        create(engine, types, rows)
        documents[version] = document(engine, "SELECT * FROM t")
    assert len(set(documents.values())) == 1, documents


@pytest.mark.parametrize("values", TEXTS.values(), ids=TEXTS)
def test_rows_of_these_values_have_the_bytes_of_http_on_all_versions(
    exporting: Mapping[str, Engine], values: str
) -> None:
    select = f"SELECT {values} FROM (SELECT number, (0.5, 1)::Point AS point FROM numbers(3))"
    documents = {version: document(engine, select) for version, engine in exporting.items()}
    assert len(set(documents.values())) == 1, documents


def test_rows_of_all_types_have_the_bytes_of_http_on_all_versions(
    exporting: Mapping[str, Engine],
) -> None:
    documents = {}
    # Random ones differ, and 24.8 can't read the smallest number of all.
    fixed = ALL_VALUES.replace("generateUUIDv4(number)", f"toUUID('{UUID}')")
    fixed = fixed.replace("5e-324", "1e-300")
    for version, engine in exporting.items():
        engine.execute(ALL_TYPES)
        engine.execute(fixed)
        documents[version] = document(engine, "SELECT * FROM everything ORDER BY id")
    assert len(set(documents.values())) == 1


def test_open_types_have_the_bytes_of_http_on_all_versions(exporting: Mapping[str, Engine]) -> None:
    documents = {}
    for version, engine in exporting.items():
        for setting in SETTINGS:
            engine.execute(f"SET {setting} = 1")
        engine.execute(
            "CREATE TABLE j (j JSON, d Dynamic, v Variant(String, UInt8)) ENGINE = Memory"
        )
        engine.execute("""INSERT INTO j VALUES ('{"a": "x, y", "b": [1, null]}', 'a', 1)""")
        documents[version] = document(engine, "SELECT * FROM j")
    assert len(set(documents.values())) == 1, documents
