"""The embedded ClickHouse's reading of blocks, frames and SQL, without a server."""

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev.embedded_clickhouse import sql
from dev.embedded_clickhouse.blocks import (
    BlockCopier,
    Header,
    WireReader,
    binary,
    check_insertable,
    text,
    varint,
)
from dev.embedded_clickhouse.errors import ConnectionLost, ServerError
from dev.embedded_clickhouse.frames import frame_reader, lz4_frames, zstd_frames

Rows = list[tuple[str, list[str | None], int]]
TYPES = ("String", "Array(Nullable(String))", "LowCardinality(Nullable(String))", "Decimal(18, 4)")


def block(rows: Rows) -> bytes:
    """Encode a block of a String, an array, a dictionary and a number, as a client does."""
    strings = b"".join(text(value) for value, _, _ in rows)
    flat = [item for _, items, _ in rows for item in items]
    ends = [sum(len(items) for _, items, _ in rows[: n + 1]) for n in range(len(rows))]
    array = struct.pack(f"<{len(ends)}Q", *ends)
    array += bytes(item is None for item in flat) + b"".join(text(item or "") for item in flat)
    keys = bytes(number % 2 for _, _, number in rows)
    dictionary = struct.pack("<QQQ", 1, 1 << 9 | 1 << 10, 2) + text("") + text("é" * 70)
    dictionary += struct.pack("<Q", len(rows)) + keys
    numbers = struct.pack(f"<{len(rows)}q", *(number for _, _, number in rows))
    columns = (strings, array, dictionary, numbers)
    head = varint(len(TYPES)) + varint(len(rows))
    return head + b"".join(
        text(f"c{n}") + text(kind) + data
        for n, (kind, data) in enumerate(zip(TYPES, columns, strict=True))
    )


def stream(data: bytes, step: int) -> WireReader:
    """Return a reader that gets the data in pieces."""
    file = io.BytesIO(data)
    return WireReader(lambda size: file.read(min(size, step)))


words = st.text(max_size=200)
rows_of_blocks = st.lists(
    st.tuples(words, st.lists(st.none() | words, max_size=4), st.integers(0, 2**60)),
    min_size=1,
    max_size=20,
)


@given(rows=rows_of_blocks, step=st.integers(1, 300))
def test_blocks_are_copied_byte_for_byte_however_they_arrive(rows: Rows, step: int) -> None:
    encoded = block(rows)
    copy = io.BytesIO()
    reader = stream(encoded + b"\0\0" + b"rest", step)
    copier = BlockCopier(reader, copy)
    names = tuple((f"c{n}", kind) for n, kind in enumerate(TYPES))
    assert copier.copy() == Header(names, len(rows))
    assert copier.copy() == Header((), 0)
    assert copy.getvalue() == encoded
    assert reader.take(4) == b"rest"


@given(rows=rows_of_blocks, step=st.integers(1, 300), data=st.data())
def test_a_block_cut_short_is_never_taken_for_a_whole_one(
    rows: Rows, step: int, data: st.DataObject
) -> None:
    encoded = block(rows)
    length = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(ConnectionLost):
        BlockCopier(stream(encoded[:length], step), io.BytesIO()).copy()


def test_other_types_can_be_put_in_their_place() -> None:
    encoded = varint(1) + varint(1) + text("t") + text("DateTime") + b"\0\0\0\0"
    copy = io.BytesIO()
    BlockCopier(stream(encoded, 99), copy, {0: "DateTime('UTC')"}).copy()
    assert copy.getvalue() == encoded.replace(text("DateTime"), text("DateTime('UTC')"))


@given(value=st.integers(0, 2**63 - 1), payload=st.binary(max_size=300), step=st.integers(1, 50))
def test_primitives_round_trip(value: int, payload: bytes, step: int) -> None:
    reader = stream(varint(value) + binary(payload), step)
    assert reader.varint() == value
    assert reader.binary() == payload


@pytest.mark.parametrize("broken", [b"\xff" * 11, varint(1 << 40)])
def test_absurd_lengths_are_refused(broken: bytes) -> None:
    with pytest.raises(ServerError):
        stream(broken, 99).binary()


@pytest.mark.parametrize(
    "kind",
    [
        "Nullable(Decimal(9, 2))",
        "Enum8('a, (b)' = 1, 'it\\'s' = 2)",
        "Tuple(`a b` String, c Nested(x UInt8, y Array(Tuple())))",
        "Map(LowCardinality(String), Array(Nullable(DateTime64(3, 'Europe/Rome'))))",
        "SimpleAggregateFunction(anyLast, Nullable(Float64))",
        "MultiPolygon",
    ],
)
def test_types_that_can_be_inserted(kind: str) -> None:
    check_insertable(kind)


@pytest.mark.parametrize(
    "kind",
    ["Array(JSON)", "Dynamic", "Variant(String, UInt8)", "AggregateFunction(sum, UInt8)", "", "("],
)
def test_types_that_cannot(kind: str) -> None:
    with pytest.raises(ServerError) as caught:
        check_insertable(kind)
    assert caught.value.code == 48


@pytest.mark.parametrize("compress", [lz4_frames, zstd_frames])
def test_frames_round_trip_and_damage_is_noticed(compress: type[bytes]) -> None:
    data = bytes(range(256)) * 20_000
    frames = compress(data)
    reader = WireReader(frame_reader(stream(frames, 1000)))
    assert reader.take(len(data)) == data
    for position in (0, 20, 100):
        damaged = bytearray(frames)
        damaged[position] ^= 1
        with pytest.raises((ServerError, ConnectionLost)):
            WireReader(frame_reader(stream(bytes(damaged), 1000))).take(len(data))


@pytest.mark.parametrize(
    ("statement", "target", "columns", "format_name", "data"),
    [
        ("INSERT INTO t VALUES", "t", (), "Values", ""),
        (
            "insert into d.`t x` (a, `b c`, n.x) values (1)",
            "d.`t x` ",
            ("a", "b c", "n.x"),
            "Values",
            "(1)",
        ),
        ("INSERT INTO t FORMAT CSV\n  1,'x\n", "t", (), "CSV", "  1,'x\n"),
        ("INSERT INTO t FORMAT CSV;\r\n1", "t", (), "CSV", "1"),
        ("INSERT INTO t FORMAT CSV SETTINGS a = 'b', c = 2 3", "t", (), "CSV", "3"),
        (
            "INSERT INTO FUNCTION s3('u', 'k)', CSV) (a) FORMAT TSV",
            "s3('u', 'k)', CSV) ",
            ("a",),
            "TSV",
            "",
        ),
        (
            "INSERT INTO values (format, values) VALUES",
            "values ",
            ("format", "values"),
            "Values",
            "",
        ),
        ("INSERT INTO t (* EXCEPT(a)) VALUES", "t ", (), "Values", ""),
        ("-- INSERT\nINSERT INTO TABLE t /* VALUES (9) */ VALUES (1)", "t ", (), "Values", "(1)"),
    ],
)
def test_inserts_are_taken_apart(
    statement: str, target: str, columns: tuple[str, ...], format_name: str, data: str
) -> None:
    insert = sql.parse_insert(statement)
    assert insert is not None
    assert insert.target.strip() == target.strip()
    found = (insert.columns, insert.format_name, insert.data.lstrip(" "))
    assert found == (columns, format_name, data.lstrip(" "))


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "INSERT INTO t SELECT 1",
        "INSERT INTO t (a) WITH 1 AS x SELECT x",
        "INSERT INTO t (SELECT 1)",
        "WITH 1 AS x INSERT INTO t SELECT x",
        "EXPLAIN INSERT INTO t VALUES",
        "INSERT INTO",
        "INSERT INTO t (a",
        "INSERT",
        "",
    ],
)
def test_statements_that_are_no_inserts_of_rows(statement: str) -> None:
    assert sql.parse_insert(statement) is None


def test_an_insert_from_a_file_keeps_columns_and_settings() -> None:
    insert = sql.parse_insert("INSERT INTO t (a, b) SETTINGS x = 1, y = 'VALUES' VALUES (1, 2)")
    assert insert is not None
    statement = " ".join(insert.from_file("/a'b", "Native").split())
    assert statement == (
        "INSERT INTO t (a, b) FROM INFILE '/a\\'b' COMPRESSION 'none' "
        "SETTINGS x = 1, y = 'VALUES' FORMAT Native"
    )


@pytest.mark.parametrize(
    ("query", "parts"),
    [
        ("SELECT 1 FORMAT CSV", ("SELECT 1", "CSV", "")),
        ("SELECT 1 FORMAT CSV SETTINGS a = 1", ("SELECT 1", "CSV", "SETTINGS a = 1")),
        ("SELECT 1 SETTINGS a = 1 FORMAT CSV", ("SELECT 1 SETTINGS a = 1", "CSV", "")),
        ("SELECT 'FORMAT CSV'", ("SELECT 'FORMAT CSV'", "", "")),
        ("SELECT a FROM t ORDER BY FORMAT DESC", ("SELECT a FROM t ORDER BY FORMAT DESC", "", "")),
        ("SELECT (SELECT FORMAT CSV)", ("SELECT (SELECT FORMAT CSV)", "", "")),
    ],
)
def test_the_format_is_taken_off(query: str, parts: tuple[str, str, str]) -> None:
    output = sql.split_output(query)
    assert (output.query.strip(), output.format_name, output.settings.strip()) == parts


@given(name=st.text(min_size=1, max_size=30))
def test_identifiers_survive_quoting(name: str) -> None:
    insert = sql.parse_insert(f"INSERT INTO t ({sql.quote(name)}) VALUES")
    assert insert is not None
    assert insert.columns == (name,)
