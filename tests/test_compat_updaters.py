"""The statements of the updaters on the oldest server, a newer one and the pinned engine.

The code that builds the statements is the updaters' own.
"""

import random
from collections.abc import Sequence
from datetime import date

import pytest

import asnmeta_updater
import fingerprints_updater
from citizenlab.holds import Live
from citizenlab.lists import Rows, TestList
from citizenlab.table import TABLE, live_countries, rows_to_load
from dev.engines import Engine
from engine_client import EngineClient
from ooni_common.database import Database
from ooni_common.nodes import Nodes
from ooni_common.swap.preview import preview_tables
from ooni_common.swap.replace import replace_tables
from ooni_common.swap.update import LossLimit, Table, Update
from ordinary_answers import Answer, matched_by_regexps
from pattern_faults import wrong_regexps
from reference_tables import PAIR, Row, new_rows, old_rows, structure_of
from update_state import UpdateState, is_current, next_state, roll_back

pytestmark = pytest.mark.compat

RIGHT = ["", "a+", "^(?i)Zensur é\\.$", "it's \\\\ %(a)s {x}", "[^\\x00-\\x7f]{1,9}", "\\d\t\n\\n"]
WRONG = {
    "(a": "missing ): (a",
    "(?<=a)b": "invalid perl operator: (?<=",
    "(a)\\2": "invalid escape sequence: \\2",
    "a**": "bad repetition operator: **",
    "[z-a]": "invalid character class range: z-a",
}
UPDATERS_TABLES = [
    TABLE,
    *fingerprints_updater.TABLES.values(),
    asnmeta_updater.TABLE,
]


@pytest.fixture
def db(engine: Engine) -> Database:
    return Database(EngineClient(engine))


def test_right_and_wrong_regular_expressions_are_told_apart(db: Database) -> None:
    regexps = [*RIGHT, *WRONG, *(f"a{number}+" for number in range(300))]
    random.Random(1).shuffle(regexps)
    assert wrong_regexps(db, regexps) == WRONG


def test_regular_expressions_are_matched_with_ordinary_answers_alike(db: Database) -> None:
    answers = [Answer("empty", ""), Answer("page", "<html>\n<p>Zensur é.\r\n</p>")]
    regexps = ["x?", "<p>.*</p>", r"\p{L}{6} é\.", "(?-s)<p>.*</p>", "it's \\\\ %(a)s"]
    matched = matched_by_regexps(db, [*regexps, *(f"a{number}+" for number in range(40))], answers)
    assert {regexp: answer.place for regexp, answer in matched.items()} == {
        "x?": "empty",
        "<p>.*</p>": "page",
        r"\p{L}{6} é\.": "page",
    }


@pytest.mark.parametrize("table", UPDATERS_TABLES, ids=lambda table: table.name)
def test_the_tables_of_the_updaters_can_be_created_and_are_as_expected(
    db: Database, table: Table
) -> None:
    db.query(table.ddl(table.name))
    assert list(db.types_of(table.name)) == list(table.columns)


def updating(table: Table, rows: Sequence[Row]) -> Update:
    limits = (LossLimit(0.5), LossLimit(0.5, net=True))
    return Update.of_rows(table, rows, (0, 1000), limits)


@pytest.mark.parametrize("table", PAIR, ids=lambda table: table.name)
def test_a_table_is_replaced_and_rolled_back(db: Database, table: Table) -> None:
    first = replace_tables(Nodes.one(db), [updating(table, old_rows())])
    second = replace_tables(Nodes.one(db), [updating(table, new_rows())])
    assert str(second[0]) == f"{table.name}: 110 rows (+10 -0)"
    state = next_state(next_state(UpdateState(), {}, first), {}, second)
    assert is_current(Nodes.one(db), [table], state)
    (back,) = roll_back(Nodes.one(db), [table], state)
    assert back.live == first[0].live


@pytest.mark.parametrize("table", PAIR, ids=lambda table: table.name)
def test_a_preview_says_what_would_change(db: Database, table: Table) -> None:
    replace_tables(Nodes.one(db), [updating(table, old_rows(10))])
    first, *sample = preview_tables(Nodes.one(db), [updating(table, new_rows(11))])
    assert first == f"would change: {table.name}: 11 rows (+1 -0)"
    assert [line[0] for line in sample] == ["-"] * 10 + ["+"] * 11


def test_a_shadow_of_another_structure_is_made_again(db: Database) -> None:
    table = PAIR[0]
    db.query(f"CREATE TABLE {table.shadow} (name String) ENGINE = MergeTree ORDER BY name")
    (change,) = replace_tables(Nodes.one(db), [updating(table, old_rows())])
    assert change.live.rows == 100
    assert structure_of(db, table.shadow) == structure_of(db, table.name)


def test_the_live_rows_of_a_country_with_a_broken_list_are_kept(db: Database) -> None:
    row = ("example.org", "https://example.org/", "ru", "NEWS")
    replace_tables(
        Nodes.one(db), [Update.of_rows(TABLE, [row, (*row[:2], "it", "NEWS")], (0, 1000))]
    )
    (kept,) = rows_to_load(db, [], ["ru"])
    assert list(zip(*kept.block().columns, strict=True)) == [row]


def test_the_live_hosts_are_those_of_the_countries_whose_list_has_other_rows(db: Database) -> None:
    row = ("www.example.org", "https://www.example.org/", "NEWS")
    in_table = [(*row[:2], cc, row[2]) for cc in ("it", "ru", "ve")]
    replace_tables(Nodes.one(db), [Update.of_rows(TABLE, in_table, (0, 1000))])
    the_same, another = TestList("lists/it.csv", "it"), TestList("lists/ru.csv", "ru")
    the_same.rows = Rows("it", [row])
    another.rows = Rows("ru", [(*row[:2], "POLR")])
    live = live_countries(db, [the_same, another])
    hosts = frozenset({"example.org"})
    assert live == {"it": Live(1), "ru": Live(1, hosts), "ve": Live(1, hosts)}


@pytest.mark.parametrize("column", ["UInt8", "Date"])
def test_the_same_block_inserted_twice_is_stored_twice(db: Database, column: str) -> None:
    window = "SETTINGS non_replicated_deduplication_window = 100"
    db.query(f"CREATE TABLE t (number {column}) ENGINE = MergeTree ORDER BY number {window}")
    value = {"UInt8": 1, "Date": date(2025, 1, 31)}[column]
    for _ in range(2):
        db.insert("t", {"number": column}, [[value] * 3])
    assert db.query("SELECT count() FROM t") == [(6,)]
