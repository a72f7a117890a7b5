"""The digest of rows on each version of the engine: the same for the same rows, another for others.

Types are made up, with NULL in every place that can have one, and their values as literals.
"""

from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, given, settings

from dev.engines import Engine
from drawn_tables import create, tables
from tables.digest import Expression, digest

pytestmark = [pytest.mark.compat, pytest.mark.timeout(600)]


def digest_of(engine: Engine, types: list[str], rows: list[list[str]]) -> tuple[str, str]:
    """Return the digest of rows, and an independent text of them."""
    create(engine, types, rows)
    described = [
        Expression(name, kind) for name, kind, *_ in engine.rows("DESCRIBE (SELECT * FROM t)")
    ]
    ((value,),) = engine.rows(f"SELECT {digest(described)} FROM t")
    text = engine.execute("SELECT * FROM t", "JSONCompactEachRow").decode()
    return value, text


@settings(max_examples=400, suppress_health_check=list(HealthCheck), derandomize=True)
@given(tables())
def test_another_value_in_one_cell_is_another_digest_and_all_versions_agree(
    engines: Mapping[str, Engine], table: tuple[list[str], list[list[str]], int, int, str]
) -> None:
    types, rows, row, column, other = table
    before = {version: digest_of(engine, types, rows) for version, engine in engines.items()}
    changed = [list(cells) for cells in rows]
    changed[row][column] = other
    after = {version: digest_of(engine, types, changed) for version, engine in engines.items()}
    assert len({value for value, _ in before.values()}) == 1, before
    assert len({value for value, _ in after.values()}) == 1, after
    assert before["24.8"][0] != after["24.8"][0], (before, after)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("Float64", "{}"),
        ("Nullable(Float32)", "{}"),
        ("Array(Nullable(Float64))", "[1, {}, NULL]"),
        ("Array(Array(Float32))", "[[], [{}, 1]]"),
        ("Tuple(a Int8, `b, c` Tuple(Float64))", "(1, tuple({}))"),
        ("Map(String, Float64)", "map('k', {}, 'l', 1)"),
        ("Map(String, Array(Float32))", "map('k', [{}])"),
    ],
)
def test_all_nans_are_one_as_csv_has_one(
    engines: Mapping[str, Engine], kind: str, value: str
) -> None:
    found = set()
    for engine in engines.values():
        engine.execute(f"CREATE TABLE t (c {kind}) ENGINE = Memory")
        for nan in ("nan", "0 / 0", "reinterpretAsFloat64(9218868437227405313)"):
            engine.execute("TRUNCATE TABLE t")
            engine.execute(f"INSERT INTO t SELECT {value.format(nan)}")
            ((result,),) = engine.rows(f"SELECT {digest([Expression('c', kind)])} FROM t")
            found.add(result)
        engine.execute("DROP TABLE t")
    assert len(found) == 1


def test_json_has_one_digest_whatever_the_order_of_its_paths(engines: Mapping[str, Engine]) -> None:
    found = set()
    for engine in engines.values():
        engine.execute("SET allow_experimental_json_type = 1")
        engine.execute("CREATE TABLE t (c JSON(max_dynamic_paths = 1)) ENGINE = Memory")
        sql = f"SELECT {digest([Expression('c', 'JSON(max_dynamic_paths = 1)')])} FROM t"
        for text in ('{"a": 1, "b": "x"}', '{"b": "x", "a": 1}'):
            engine.execute("TRUNCATE TABLE t")
            engine.execute(f"INSERT INTO t VALUES ('{text}')")
            ((result,),) = engine.rows(sql)
            found.add(result)
        engine.execute("TRUNCATE TABLE t")
        engine.execute("""INSERT INTO t VALUES ('{"a": "1", "b": "x"}')""")
        assert engine.rows(sql) != [[result]]
    assert len(found) == 1
