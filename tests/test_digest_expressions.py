"""The digest of rows as SQL: what is hashed of a type, and of which rows it is."""

import pytest

from ooni_common.errors import DataRefused
from tables.digest import Expression, digest, is_sound, row_hash, split_arguments, sum_of_digests


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("  ", []),
        (" a , [b, c] ,d ", ["a", "[b, c]", "d"]),
        ("a", ["a"]),
        ("a, toDate(b, 'x,y'), (`c,(`, d)", ["a", "toDate(b, 'x,y')", "(`c,(`, d)"]),
        (r"'it\'s, (', `b\`,`", [r"'it\'s, ('", r"`b\`,`"]),
        ("Array(UInt8), Map(String, Array(Enum8('a)' = 1)))",
         ["Array(UInt8)", "Map(String, Array(Enum8('a)' = 1)))"]),
    ],
)  # fmt: skip
def test_sql_is_split_at_its_own_commas(text: str, parts: list[str]) -> None:
    assert split_arguments(text) == parts


NAN = "if(isNaN({0}), CAST(nan AS {1}), {0})"
ARGUMENTS = {
    "UInt8": "c",
    "Int256": "c",
    "Decimal(9, 2)": "c",
    "Bool": "c",
    "FixedString(16)": "c",
    "UUID": "c",
    "IPv6": "c",
    "Date32": "c",
    "DateTime": "c",
    "DateTime64(3, 'Asia/Kolkata')": "c",
    "Enum8('Nullable(' = 1, 'Float32,' = 2)": "c",
    "Enum16('two\nlines' = 1)": "c",
    "LowCardinality(String)": "c",
    "SimpleAggregateFunction(max, UInt64)": "c",
    "SimpleAggregateFunction(anyLast, LowCardinality(String))": "c",
    "Nullable(UInt8)": "ifNull(cityHash64(c), 0), isNull(c)",
    "Nullable(Decimal(9, 2))": "ifNull(cityHash64(c), 0), isNull(c)",
    "LowCardinality(Nullable(String))": "ifNull(cityHash64(c), 0), isNull(c)",
    "Float32": NAN.format("c", "Float32"),
    "BFloat16": NAN.format("c", "BFloat16"),
    "SimpleAggregateFunction(sum, Float64)": NAN.format("c", "Float64"),
    "Nullable(Float64)": f"ifNull(cityHash64({NAN.format('c', 'Float64')}), 0), isNull(c)",
    "JSON": "toString(c), toString(JSONAllPathsWithTypes(c))",
    "JSON(a UInt8)": "toString(c), toString(JSONAllPathsWithTypes(c))",
}
ROWS = {
    "Point": "c",
    "AggregateFunction(uniq, String)": "c",
    "Array(String)": "c",
    "Variant(Float32, String)": "c",
    "Nullable(Tuple(Float32))": "c",
    "Tuple(`a Float64` String)": "c",
    "Tuple(JSON String, Object UInt8)": "c",
    "Array(Float32)": f"arrayMap(_0 -> {NAN.format('_0', 'Float32')}, c)",
    "Array(Nullable(Float32))": f"arrayMap(_0 -> {NAN.format('_0', 'Float32')}, c)",
    "SimpleAggregateFunction(groupArrayArray, Array(Float64))": (
        f"arrayMap(_0 -> {NAN.format('_0', 'Float64')}, c)"
    ),
    "Array(Array(Float64))": (
        f"arrayMap(_0 -> arrayMap(_1 -> {NAN.format('_1', 'Float64')}, _0), c)"
    ),
    "Map(String, Float32)": (
        f"arrayZip(mapKeys(c), arrayMap(_0 -> {NAN.format('_0', 'Float32')}, mapValues(c)))"
    ),
    "Map(Float32, Array(Float64))": (
        f"arrayZip(arrayMap(_0 -> {NAN.format('_0', 'Float32')}, mapKeys(c)),"
        f" arrayMap(_0 -> arrayMap(_1 -> {NAN.format('_1', 'Float64')}, _0), mapValues(c)))"
    ),
    "Tuple(UInt8, Float64)": (
        f"tuple(tupleElement(c, 1), {NAN.format('tupleElement(c, 2)', 'Float64')})"
    ),
    "Tuple(`a b` Float32, x\n  Array(UInt8))": (
        f"tuple({NAN.format('tupleElement(c, 1)', 'Float32')}, tupleElement(c, 2))"
    ),
    "Array(Tuple(x Float32))": (
        f"arrayMap(_0 -> tuple({NAN.format('tupleElement(_0, 1)', 'Float32')}), c)"
    ),
}


@pytest.mark.parametrize(
    ("kind", "argument"),
    [
        *ARGUMENTS.items(),
        *((kind, f"formatRow('RowBinary', {value})") for kind, value in ROWS.items()),
    ],
)
def test_a_type_is_hashed_as_all_versions_can(kind: str, argument: str) -> None:
    assert row_hash([Expression("c", kind)]) == f"cityHash64({argument})"


@pytest.mark.parametrize(
    "kind", ["Array(JSON)", "Tuple(a JSON(b UInt8))", "Object('json')", "Nullable(JSON)"]
)
def test_json_within_another_type_is_refused_by_its_column(kind: str) -> None:
    with pytest.raises(
        DataRefused, match=r"^column `j`: values of type .* can't be compared; give"
    ):
        row_hash([Expression("`j`", kind)])


COLUMNS = [Expression("`a`", "UInt8"), Expression("`b`", "Nullable(String)")]


def test_a_digest_is_of_all_rows_and_never_null() -> None:
    whole = "cityHash64(`a`, ifNull(cityHash64(`b`), 0), isNull(`b`))"
    assert row_hash(COLUMNS) == whole
    assert digest(COLUMNS) == f"ifNull(toString(sum({whole})), '')"


def test_rows_are_compared_with_those_of_2_0_0_as_it_hashed_them() -> None:
    assert row_hash(COLUMNS, "1") == "cityHash64(`a`, `b`)"
    assert digest(COLUMNS, "1") == "ifNull(toString(sum(cityHash64(`a`, `b`))), '')"


@pytest.mark.parametrize(
    ("digests", "together"),
    [
        ([], "0"),
        (["5"], "5"),
        (["5", "", None, "7"], "12"),
        ([str(2**64 - 1), "1"], "0"),
        ([str(2**63), str(2**63), "9"], "9"),
    ],
)
def test_digests_add_up_as_the_server_adds(digests: list[str | None], together: str) -> None:
    assert sum_of_digests(digests) == together


@pytest.mark.parametrize(
    ("kind", "scheme", "aliases", "sound"),
    [
        ("UInt8", "1", [], True),
        ("LowCardinality(String)", "1", [], True),
        ("UInt8", "1", ["chunk", "c"], False),
        ("UInt8", "1", ["chunk"], True),
        ("Nullable(UInt8)", "1", [], False),
        ("Array(UInt8)", "1", [], False),
        ("Nullable(UInt8)", "2", [], True),
        ("UInt8", "2", ["c"], True),
    ],
)
def test_a_digest_of_2_0_0_has_seen_scalars_that_are_never_null_and_have_no_alias(
    kind: str, scheme: str, aliases: list[str], *, sound: bool
) -> None:
    hashed = [Expression("`k`", "Date"), Expression("`c`", kind)]
    assert is_sound(hashed, scheme, aliases) is sound
