"""Tables of made-up types, with NULL in every place that can have one, and rows as literals."""

from collections.abc import Sequence

from hypothesis import strategies as st

from dev.engines import Engine

# Type → the literals of two values that differ, as INSERT … VALUES takes them on all versions.
SCALARS = {
    "UInt8": ("0", "255"),
    "Int16": ("0", "-32768"),
    "UInt64": ("0", "18446744073709551615"),
    "Int128": ("'0'", "'-170141183460469231731687303715884105728'"),
    "UInt256": ("'0'", "'1'"),
    "Float32": ("0", "nan"),
    "Float64": ("0.1", "-0.1"),
    "Decimal(9, 2)": ("'0'", "'1.25'"),
    "Decimal(38, 10)": ("'0'", "'-1234567890.0123456789'"),
    "Bool": ("false", "true"),
    "String": ("''", "'a\\0b'"),
    "FixedString(3)": ("'a'", "'ab'"),
    "UUID": ("'00000000-0000-0000-0000-000000000000'", "'61f0c404-5cb3-11e7-907b-a6006ad3dba0'"),
    "IPv4": ("'0.0.0.0'", "'116.253.40.133'"),
    "IPv6": ("'::'", "'2001:db8::1'"),
    "Date": ("'1970-01-01'", "'2149-06-06'"),
    "Date32": ("'1970-01-01'", "'1900-01-01'"),
    "DateTime('UTC')": ("'1970-01-01 00:00:00'", "'2026-11-26 13:38:00'"),
    "DateTime64(6, 'UTC')": ("'1970-01-01 00:00:00.000000'", "'1969-12-31 23:59:59.999999'"),
    "Enum8('a, (' = 0, 'Nullable(' = 1)": ("'a, ('", "'Nullable('"),
}
IN_LOW_CARDINALITY = ("String", "FixedString(3)", "UInt64", "Date")
AS_KEYS = ("String", "UInt64", "Int16", "Date", "UUID")


OPEN = {  # in which a value brings its type with it
    "Variant(Array(UInt8), String, UInt8)": ("NULL", "1", "'1'", "[1]"),
    "Dynamic": ("NULL", "1", "'1'"),
}
SETTINGS = (
    "allow_suspicious_low_cardinality_types",
    "allow_experimental_variant_type",
    "allow_experimental_dynamic_type",
    "allow_experimental_json_type",
)

Cells = tuple[str, list[str]]  # a type, and literals of values of it that all differ


def cells(depth: int = 2) -> st.SearchStrategy[Cells]:
    """Draw a type, which may have others within, and values."""
    kinds = [st.sampled_from([(kind, list(values)) for kind, values in (SCALARS | OPEN).items()])]
    kinds += [nullable(), low_cardinality()]
    if depth:
        kinds += [arrays(depth - 1), tuples(depth - 1), maps()]
    else:
        kinds[0] = st.sampled_from([(kind, list(values)) for kind, values in SCALARS.items()])
    return st.one_of(kinds)


@st.composite
def nullable(draw: st.DrawFn) -> Cells:
    name = draw(st.sampled_from(sorted(SCALARS)))
    return f"Nullable({name})", [*SCALARS[name], "NULL"]


@st.composite
def low_cardinality(draw: st.DrawFn) -> Cells:
    name = draw(st.sampled_from(IN_LOW_CARDINALITY))
    if draw(st.booleans()):
        return f"LowCardinality(Nullable({name}))", [*SCALARS[name], "NULL"]
    return f"LowCardinality({name})", list(SCALARS[name])


@st.composite
def arrays(draw: st.DrawFn, depth: int) -> Cells:
    inner, values = draw(cells(depth))
    return f"Array({inner})", ["[]", f"[{values[0]}]", f"[{values[-1]}, {values[0]}]"]


@st.composite
def tuples(draw: st.DrawFn, depth: int) -> Cells:
    parts = draw(st.lists(cells(depth), min_size=1, max_size=3))
    named = draw(st.booleans())
    names = [f"`a Float64, {number}` " if named else "" for number in range(len(parts))]
    types = [f"{name}{kind}" for name, (kind, _) in zip(names, parts, strict=True)]
    values = [f"tuple({', '.join(literals[place] for _, literals in parts)})" for place in (0, -1)]
    return f"Tuple({', '.join(types)})", values


@st.composite
def maps(draw: st.DrawFn) -> Cells:
    key = draw(st.sampled_from(AS_KEYS))
    inner, values = draw(cells(0))
    first = SCALARS[key][0]
    pairs = [f"map({first}, {value})" for value in (values[0], values[-1])]
    return f"Map({key}, {inner})", ["map()", *pairs]


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]], int, int, str]:
    """Draw the types of columns, rows of literals, and a cell with another value for it."""
    columns = draw(st.lists(cells(), min_size=1, max_size=4))
    rows = [
        [draw(st.sampled_from(values)) for _, values in columns]
        for _ in range(draw(st.integers(1, 4)))
    ]
    row = draw(st.integers(0, len(rows) - 1))
    column = draw(st.integers(0, len(columns) - 1))
    others = [value for value in columns[column][1] if value != rows[row][column]]
    return [kind for kind, _ in columns], rows, row, column, draw(st.sampled_from(others))


def create(engine: Engine, types: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Make a table `t` with columns `c0`, `c1` … of these types, and of these rows."""
    for setting in SETTINGS:
        engine.execute(f"SET {setting} = 1")
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(types))
    engine.execute(f"CREATE OR REPLACE TABLE t ({columns}) ENGINE = Memory")
    values = ", ".join(f"({', '.join(row)})" for row in rows)
    engine.execute(f"INSERT INTO t VALUES {values}")
