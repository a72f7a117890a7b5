"""The embedded ClickHouse: every type, through the unmodified driver, both ways."""

import datetime as dt
import sys
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import zstandard
from clickhouse_driver.errors import ServerException

from dev.embedded_clickhouse import EmbeddedClickHouse

if TYPE_CHECKING:
    from conftest import Database

UTC = dt.UTC
LONG = "long " * 60

# Type, value in Python, the same value in SQL.
VALUES: list[tuple[str, Any, str]] = [
    ("Int8", -128, "-128"),
    ("Int16", -32768, "-32768"),
    ("Int32", -(2**31), "-2147483648"),
    ("Int64", -(2**63), "-9223372036854775808"),
    ("Int128", -(2**127), "'-170141183460469231731687303715884105728'::Int128"),
    ("Int256", -(2**200), f"'{-(2**200)}'::Int256"),
    ("UInt8", 255, "255"),
    ("UInt16", 65535, "65535"),
    ("UInt32", 2**32 - 1, "4294967295"),
    ("UInt64", 2**64 - 1, "18446744073709551615"),
    ("UInt128", 2**128 - 1, f"'{2**128 - 1}'::UInt128"),
    ("UInt256", 2**256 - 1, f"'{2**256 - 1}'::UInt256"),
    ("Float32", 0.5, "0.5"),
    ("Float64", -1.25e300, "-1.25e300"),
    ("Bool", True, "true"),
    ("String", "naïve \0 'q' \r\n", "'naïve \\0 \\'q\\' \\r\\n'"),
    ("String", LONG, "repeat('long ', 60)"),
    ("String", "", "''"),
    ("FixedString(32)", "ZZ", "toFixedString('ZZ', 32)"),
    ("Date", dt.date(2149, 6, 6), "toDate('2149-06-06')"),
    ("Date32", dt.date(1925, 1, 1), "toDate32('1925-01-01')"),
    ("DateTime('UTC')", dt.datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC), "'2024-02-29 23:59:59'"),
    (
        "DateTime('Asia/Tokyo')",
        dt.datetime(2024, 2, 29, 0, 0, 0, tzinfo=UTC),
        "toDateTime('2024-02-29 09:00:00', 'Asia/Tokyo')",
    ),
    (
        "DateTime64(6, 'UTC')",
        dt.datetime(2199, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        "toDateTime64('2199-01-02 03:04:05.678901', 6, 'UTC')",
    ),
    ("Decimal(9, 2)", Decimal("-1234567.89"), "toDecimal32('-1234567.89', 2)"),
    ("Decimal(18, 4)", Decimal("12345678901234.5678"), "toDecimal64('12345678901234.5678', 4)"),
    ("Decimal(38, 10)", Decimal("-1.0000000001"), "toDecimal128('-1.0000000001', 10)"),
    (
        "Decimal(76, 20)",
        Decimal("5.00000000000000000001"),
        "toDecimal256('5.00000000000000000001', 20)",
    ),
    (
        "UUID",
        UUID("00112233-4455-6677-8899-aabbccddeeff"),
        "'00112233-4455-6677-8899-aabbccddeeff'",
    ),
    ("IPv4", IPv4Address("198.51.100.7"), "toIPv4('198.51.100.7')"),
    ("IPv6", IPv6Address("2001:db8::7"), "toIPv6('2001:db8::7')"),
    ("Enum8('nat' = 1, 'isp, (x)' = 2)", "isp, (x)", "'isp, (x)'"),
    ("Enum16('a' = -1, 'b' = 1000)", "b", "'b'"),
    ("Nullable(Int32)", None, "NULL"),
    ("Nullable(Int32)", 7, "7"),
    ("Nullable(String)", None, "NULL"),
    ("Nullable(FixedString(2))", "IT", "'IT'"),
    ("LowCardinality(String)", "x", "'x'"),
    ("LowCardinality(Nullable(String))", None, "NULL"),
    ("LowCardinality(Nullable(String))", "y", "'y'"),
    ("LowCardinality(FixedString(2))", "IT", "'IT'"),
    ("Array(UInt8)", [1, 2, 3], "[1, 2, 3]"),
    ("Array(String)", [], "[]"),
    ("Array(Array(Nullable(String)))", [["a", None], [], ["b"]], "[['a', NULL], [], ['b']]"),
    ("Array(LowCardinality(String))", ["a", "b", "a"], "['a', 'b', 'a']"),
    ("Array(LowCardinality(String))", [], "[]"),
    ("Tuple(UInt8, String)", (1, "a"), "(1, 'a')"),
    ("Tuple(n UInt8, s Array(String))", (1, ["a", "b"]), "(1, ['a', 'b'])"),
    ("Map(String, UInt64)", {"a": 1, "b": 2}, "map('a', 1, 'b', 2)"),
    ("Map(String, UInt64)", {}, "map()"),
    ("Map(LowCardinality(String), Array(String))", {"k": ["v", "w"]}, "map('k', ['v', 'w'])"),
    ("Point", (1.5, -2.0), "(1.5, -2.0)"),
    ("Ring", [(0.0, 0.0), (1.0, 1.0)], "[(0, 0), (1, 1)]"),
    ("SimpleAggregateFunction(max, UInt32)", 9, "9"),
    ("IntervalDay", 3, "INTERVAL 3 DAY"),
]


@pytest.fixture(scope="module")
def clickhouse_server(embedded_clickhouse: EmbeddedClickHouse) -> EmbeddedClickHouse:
    """These tests are about the embedded server, whatever the environment names."""
    return embedded_clickhouse


@pytest.fixture
def zstd_for_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's zstd comes from another package than ours: stand in for it."""
    stand_in = SimpleNamespace(
        compress=lambda data, level=3: zstandard.ZstdCompressor(level).compress(data),
        decompress=zstandard.ZstdDecompressor().decompress,
    )
    monkeypatch.setitem(sys.modules, "zstd", stand_in)


@pytest.fixture(params=["plain", "lz4", "zstd"])
def compression(request: pytest.FixtureRequest) -> dict[str, object]:
    """Settings of a client for each way of compression."""
    if request.param == "plain":
        return {}
    if request.param == "zstd":
        request.getfixturevalue("zstd_for_the_driver")
        return {"compression": "zstd", "network_compression_method": "zstd"}
    return {"compression": request.param}


def test_every_type_is_stored_as_sent_and_read_as_stored(
    database: "Database", compression: dict[str, object]
) -> None:
    client = database.client(**compression)
    columns = ", ".join(f"c{i} {kind}" for i, (kind, _, _) in enumerate(VALUES))
    client.execute(f"CREATE TABLE t (n UInt8, {columns}) ENGINE = Memory")
    row = tuple(value for _, value, _ in VALUES)
    assert client.execute("INSERT INTO t VALUES", [(n, *row) for n in range(3)]) == 3

    for index, (kind, value, literal) in enumerate(VALUES):
        column = f"c{index}"
        same = f"isNotDistinctFrom({column}, CAST({literal} AS {kind}))"
        assert client.execute(f"SELECT countIf({same}) FROM t") == [(3,)], (kind, value)
    read = client.execute("SELECT * EXCEPT n FROM t WHERE n = 1")[0]
    for (kind, value, _), got in zip(VALUES, read, strict=True):
        assert got == value, kind


def test_time_zones_of_columns_reach_the_client(database: "Database") -> None:
    kinds = [
        "DateTime('Asia/Tokyo')",
        "Nullable(DateTime('Asia/Tokyo'))",
        "Array(DateTime('Asia/Tokyo'))",
        "Map(String, DateTime('Asia/Tokyo'))",
        "DateTime",
    ]
    client = database.client()
    columns = ", ".join(f"c{n} {kind}" for n, kind in enumerate(kinds))
    client.execute(f"CREATE TABLE t ({columns}, s String) ENGINE = Memory")
    for _ in range(2):
        moment = dt.datetime(2024, 2, 29, tzinfo=UTC)
        rows = [(moment, moment, [moment], {"a": moment}, moment, "x" * n) for n in range(300)]
        client.execute("INSERT INTO t VALUES", rows)
    read, described = client.execute("SELECT * FROM t", with_column_types=True)
    assert [kind for _, kind in described] == [*kinds, "String"]
    assert {str(row[0]) for row in read} == {"2024-02-29 09:00:00+09:00"}
    assert len(read) == 600


def test_nested_columns(database: "Database") -> None:
    client = database.client()
    client.execute("CREATE TABLE t (n Nested(a UInt8, b String)) ENGINE = Memory")
    client.execute("INSERT INTO t (n.a, n.b) VALUES", [([1, 2], ["x", "y"]), ([], [])])
    rows = client.execute("SELECT n.a, n.b FROM t ORDER BY length(n.a)")
    assert rows == [([], []), ([1, 2], ["x", "y"])]


def test_nested_columns_in_one_piece(database: "Database") -> None:
    client = database.client()
    client.execute("SET flatten_nested = 0")
    client.execute("CREATE TABLE t (n Nested(a UInt8, b String)) ENGINE = Memory")
    client.execute("INSERT INTO t VALUES", [([(1, "x"), (2, "y")],), ([],)])
    rows = client.execute("SELECT n FROM t ORDER BY length(n)")
    assert rows == [([],), ([(1, "x"), (2, "y")],)]


@pytest.mark.parametrize(
    "kind",
    [
        "AggregateFunction(uniq, String)",
        "Variant(String, UInt8)",
        "Dynamic",
        "JSON",
        "Array(Tuple(a UInt8, b JSON))",
    ],
)
def test_types_that_cannot_be_inserted_are_refused_before_any_data(
    database: "Database", kind: str
) -> None:
    client = database.client()
    client.execute(f"CREATE TABLE t (a {kind}) ENGINE = Memory")
    with pytest.raises(ServerException) as caught:
        client.execute("INSERT INTO t VALUES", [("x",)])
    assert caught.value.code == 48
    assert client.execute("SELECT count() FROM t") == [(0,)]


@pytest.mark.parametrize(
    ("literal", "kind"),
    [
        ("'a'::Variant(String, UInt8)", "Variant(String, UInt8)"),
        ("1::Dynamic", "Dynamic"),
        ("uniqState('x')", "AggregateFunction(uniq, String)"),
    ],
)
def test_types_that_the_driver_cannot_read_are_never_read_wrongly(
    database: "Database", literal: str, kind: str
) -> None:
    with pytest.raises(ServerException) as caught:
        database.client().execute(f"SELECT {literal} AS v")
    assert caught.value.code == 48
    assert kind in str(caught.value)
    text = database.client().execute(f"SELECT toTypeName({literal})")
    assert text == [(kind,)]


def test_json_is_read_and_not_inserted(database: "Database") -> None:
    client = database.client()
    client.execute("CREATE TABLE t (a JSON, b Array(JSON)) ENGINE = Memory")
    document = '{"x": 1, "y": {"z": "w"}, "l": [1, 2]}'
    client.execute(f"INSERT INTO t SELECT '{document}', ['{document}', '{{}}']")
    expected = {"x": 1, "y": {"z": "w"}, "l": [1, 2]}
    assert client.execute("SELECT a, b FROM t") == [(expected, [expected, {}])]


def test_text_that_is_not_utf8_keeps_its_bytes(database: "Database") -> None:
    client = database.client(strings_as_bytes=True)
    client.execute("CREATE TABLE t (a String) ENGINE = Memory")
    client.execute("INSERT INTO t VALUES", [(b"\xff\x00\xfe",)])
    assert client.execute("SELECT a, hex(a) FROM t") == [(b"\xff\x00\xfe", b"FF00FE")]


def test_strings_across_all_length_borders(database: "Database") -> None:
    lengths = [0, 1, 127, 128, 129, 16383, 16384, 300_000, 2_500_000]
    client = database.client()
    client.execute("CREATE TABLE t (n UInt32, a String, b Array(String)) ENGINE = Memory")
    rows = [(n, "x" * n, ["y" * n, "", "z" * n]) for n in lengths]
    client.execute("INSERT INTO t VALUES", rows)
    assert client.execute("SELECT * FROM t ORDER BY n") == rows
    assert client.execute("SELECT countIf(length(a) != n) FROM t") == [(0,)]


def test_low_cardinality_beyond_one_byte_of_keys(database: "Database") -> None:
    client = database.client()
    client.execute("CREATE TABLE t (a LowCardinality(String)) ENGINE = MergeTree ORDER BY a")
    rows = sorted((f"v{n:05}",) for n in range(70_000))
    client.execute("INSERT INTO t VALUES", rows)
    assert client.execute("SELECT a FROM t ORDER BY a") == rows
