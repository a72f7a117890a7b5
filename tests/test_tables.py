"""Replacing tables as a whole, against a real ClickHouse engine."""

import subprocess
import sys
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import clickhouse_driver
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import Database as FreshDatabase
from dev.embedded_clickhouse import EmbeddedClickHouse
from ooni_common.config import DatabaseConfig, SecretUrl
from ooni_common.database import Database, connected
from ooni_common.errors import ConfigError, DataRefused, Stopped, Unavailable
from ooni_common.nodes import Nodes
from ooni_common.state import read_state, write_state
from ooni_common.swap.content import BLOCK_ROWS, Content, blocks_of, content_of
from ooni_common.swap.preview import preview_tables
from ooni_common.swap.replace import replace_tables
from ooni_common.swap.update import Change, LossLimit, Table, Update
from reference_tables import (
    COLUMNS,
    FIRST,
    PAIR,
    SECOND,
    Row,
    content_of_rows,
    new_rows,
    old_rows,
    row,
    structure_of,
)
from update_state import (
    UpdateState,
    is_current,
    kept_by_rollback,
    next_state,
    roll_back,
    rolled_back_state,
    to_roll_back,
)

ANY_NUMBER = (0, 10**6)
TENTH = (LossLimit(0.1),)


@pytest.fixture
def db(database: FreshDatabase) -> Database:
    return Database(database.client())


def updating(
    table: Table,
    rows: Iterable[Row],
    limits: tuple[LossLimit, ...] = (),
    *,
    bounds: tuple[int, int] = ANY_NUMBER,
    content: Content | None = None,
) -> Update:
    blocks = list(blocks_of(rows)) if isinstance(rows, list) else blocks_of(rows)
    return Update(table, blocks, bounds, limits, content)


def load(db: Database, table: Table, rows: list[Row], **options: Any) -> Change:
    force = options.pop("force", False)
    (change,) = replace_tables(Nodes.one(db), [updating(table, rows, **options)], force=force)
    return change


def rows_of(db: Database, table: str) -> list[Row]:
    return sorted(
        db.query(f"SELECT name, toStringCutToZero(cc), number, kind, changed FROM {table}")
    )


def held(db: Database, table: Table) -> Content:
    return content_of(db, table.columns, table.name)


@contextmanager
def live_unchanged(db: Database, *tables: Table) -> Iterator[None]:
    before = [rows_of(db, table.name) for table in tables]
    yield
    assert [rows_of(db, table.name) for table in tables] == before


class FailingClient:
    """A connection on which one statement fails, before or after it is carried out."""

    def __init__(self, client: clickhouse_driver.Client, statement: str, number: int = 1) -> None:
        self._client = client
        self._statement = statement
        self._left = number
        self.carried_out = False
        self.error: BaseException = clickhouse_driver.errors.NetworkError("cut")

    def execute(self, query: str, params: Any = None, **options: Any) -> Any:
        chosen = query.startswith(self._statement)
        self._left -= chosen
        if chosen and self._left == 0 and not self.carried_out:
            raise self.error
        result = self._client.execute(query, params, **options)
        if chosen and self._left == 0:
            raise self.error
        return result

    def disconnect(self) -> None:
        self._client.disconnect()


@pytest.mark.parametrize("table", PAIR, ids=lambda table: table.name)
def test_the_live_table_gets_the_new_rows_and_the_shadow_keeps_the_old(
    db: Database, table: Table
) -> None:
    load(db, table, old_rows())
    change = load(db, table, new_rows())
    assert rows_of(db, table.name) == sorted(new_rows())
    assert rows_of(db, table.shadow) == sorted(old_rows())
    assert str(change) == f"{table.name}: 110 rows (+10 -0)"


def test_missing_tables_are_created(db: Database) -> None:
    load(db, FIRST, new_rows())
    assert structure_of(db, FIRST.name) == structure_of(db, FIRST.shadow)
    _, (_, clauses, *_) = structure_of(db, FIRST.name)
    assert clauses == "MergeTree ORDER BY name SETTINGS index_granularity = 8192"


@pytest.mark.parametrize(
    "engine",
    ["EmbeddedRocksDB PRIMARY KEY(name)", "ReplacingMergeTree ORDER BY (cc, name)"],
)
def test_the_shadow_takes_the_live_tables_engine(db: Database, engine: str) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    db.query(f"CREATE TABLE first ({columns}, note String DEFAULT 'none') ENGINE = {engine}")
    load(db, FIRST, new_rows())
    load(db, FIRST, old_rows())
    assert rows_of(db, "first") == sorted(old_rows())
    assert structure_of(db, "first") == structure_of(db, "first_tmp")
    assert structure_of(db, "first")[1][0] == engine.split(maxsplit=1)[0]
    assert db.query("SELECT DISTINCT note FROM first") == [("none",)]


@pytest.mark.parametrize(
    "shadow",
    [
        "CREATE TABLE first_tmp (name String) ENGINE = MergeTree ORDER BY name",
        "CREATE TABLE first_tmp AS first ENGINE = MergeTree ORDER BY cc",
        "CREATE TABLE first_tmp AS first ENGINE = Memory",
    ],
)
def test_a_shadow_with_other_columns_or_another_engine_is_made_anew(
    db: Database, shadow: str
) -> None:
    load(db, FIRST, old_rows())
    db.query("DROP TABLE first_tmp SYNC")
    db.query(shadow)
    load(db, FIRST, new_rows())
    assert rows_of(db, "first") == sorted(new_rows())
    assert structure_of(db, "first") == structure_of(db, "first_tmp")


def test_what_an_interrupted_run_left_in_the_shadow_is_removed(db: Database) -> None:
    load(db, FIRST, old_rows())
    db.query("INSERT INTO first_tmp SELECT * FROM first")
    load(db, FIRST, new_rows())
    assert rows_of(db, "first") == sorted(new_rows())


@pytest.mark.parametrize("early", [True, False], ids=["known beforehand", "found after filling"])
def test_unchanged_content_is_not_swapped(db: Database, early: bool) -> None:
    load(db, FIRST, old_rows())
    load(db, FIRST, new_rows())
    uuid = db.query("SELECT uuid FROM system.tables WHERE name = 'first'")
    rows = list(reversed(new_rows()))
    change = load(db, FIRST, rows, content=content_of_rows(rows) if early else None)
    assert not change.swapped
    assert str(change) == "first: 110 rows, unchanged"
    assert db.query("SELECT uuid FROM system.tables WHERE name = 'first'") == uuid
    assert not early or rows_of(db, "first_tmp") == sorted(old_rows())


def test_several_blocks_arrive_whole(db: Database) -> None:
    rows = new_rows(2 * BLOCK_ROWS + 1)
    load(db, FIRST, rows)
    assert held(db, FIRST) == content_of_rows(rows)


def test_no_rows_at_all_are_refused(db: Database) -> None:
    load(db, FIRST, old_rows())
    with live_unchanged(db, FIRST), pytest.raises(DataRefused, match="first: 0 rows; between"):
        load(db, FIRST, [])


@pytest.mark.parametrize("bounds", [(110, 1000), (10, 110)], ids=["too few", "too many"])
def test_a_number_of_rows_outside_the_bounds_is_refused_even_with_force(
    db: Database, bounds: tuple[int, int]
) -> None:
    load(db, FIRST, old_rows())
    update = updating(FIRST, new_rows(110), bounds=bounds)
    with live_unchanged(db, FIRST), pytest.raises(DataRefused, match="first: 110 rows; between"):
        replace_tables(Nodes.one(db), [update], force=True)


def test_an_endless_upstream_is_refused_before_it_fills_the_disk(db: Database) -> None:
    def endless() -> Iterator[Row]:
        number = 0
        while True:
            number += 1
            yield row(f"name {number}")

    with pytest.raises(DataRefused, match="rows; between 0 and 1,000 are expected"):
        replace_tables(Nodes.one(db), [updating(FIRST, endless(), bounds=(0, 1000))])
    assert rows_of(db, "first") == []


def test_a_loss_up_to_the_limit_is_accepted(db: Database) -> None:
    load(db, FIRST, old_rows(100))
    load(db, FIRST, new_rows(90), limits=TENTH)
    assert rows_of(db, "first") == sorted(new_rows(90))


def test_a_loss_beyond_the_limit_is_refused_unless_forced(db: Database) -> None:
    load(db, FIRST, old_rows(100))
    reason = "first: 11 of 100 rows would disappear, more than 10%; .*--force"
    with live_unchanged(db, FIRST), pytest.raises(DataRefused, match=reason):
        load(db, FIRST, new_rows(89), limits=TENTH)
    load(db, FIRST, new_rows(89), limits=TENTH, force=True)
    assert rows_of(db, "first") == sorted(new_rows(89))


def test_rows_that_disappear_count_although_others_come(db: Database) -> None:
    load(db, FIRST, old_rows(100))
    rows = [row(f"other {number}") for number in range(100)]
    with live_unchanged(db, FIRST), pytest.raises(DataRefused, match="100 of 100 rows"):
        load(db, FIRST, rows, limits=TENTH)


def test_rows_that_only_change_do_not_count_as_a_loss(db: Database) -> None:
    load(db, FIRST, old_rows(100))
    load(db, FIRST, new_rows(100), limits=TENTH)
    assert rows_of(db, "first") == sorted(new_rows(100))


def test_a_net_loss_is_of_the_number_of_rows_whatever_they_are(db: Database) -> None:
    load(db, FIRST, old_rows(100))
    renamed = [row(f"renamed {number}") for number in range(90)]
    limits = (LossLimit(0.1, net=True),)
    reason = "first: 11 of 100 rows would disappear, more than 10%"
    with live_unchanged(db, FIRST), pytest.raises(DataRefused, match=reason):
        load(db, FIRST, renamed[1:], limits=limits)
    load(db, FIRST, renamed, limits=limits)
    assert rows_of(db, "first") == sorted(renamed)
    smaller = updating(FIRST, renamed[10:], limits)
    with pytest.raises(DataRefused, match="first: 10 of 90 rows would disappear"):
        list(preview_tables(Nodes.one(db), [smaller]))


@pytest.mark.parametrize("count", [0, 50])
def test_what_is_refused_for_its_figures_leaves_the_way_back_open(db: Database, count: int) -> None:
    nodes = Nodes.one(db)
    first, second = load(db, FIRST, old_rows(100)), load(db, FIRST, old_rows(101))
    rows = old_rows(count)
    content = sum((block.content for block in blocks_of(rows)), start=Content())
    with pytest.raises(DataRefused):
        load(db, FIRST, rows, limits=(LossLimit(0.1, net=True),), content=content)
    state = next_state(next_state(UpdateState(), {}, [first]), {}, [second])
    assert [str(change) for change in roll_back(nodes, [FIRST], state)] == ["first: 100 rows"]


def test_a_value_that_the_database_stores_as_another_is_refused(db: Database) -> None:
    load(db, FIRST, old_rows())
    with live_unchanged(db, FIRST), pytest.raises(DataRefused, match="stored something else"):
        load(db, FIRST, [*new_rows(), row("name", cc="it\0")])


@pytest.mark.parametrize(
    "instead",
    [
        "CREATE VIEW first AS SELECT * FROM kept",
        "CREATE TABLE first AS kept ENGINE = Merge(currentDatabase(), 'kept')",
    ],
)
def test_what_holds_no_rows_of_its_own_is_not_replaced(db: Database, instead: str) -> None:
    load(db, FIRST, old_rows())
    db.query("RENAME TABLE first TO kept")
    db.query(instead)
    with pytest.raises(ConfigError, match="first has no rows of its own"):
        load(db, FIRST, new_rows())
    with pytest.raises(ConfigError, match="first has no rows of its own"):
        list(preview_tables(Nodes.one(db), [updating(FIRST, new_rows())]))
    assert rows_of(db, "kept") == sorted(old_rows())


@pytest.mark.parametrize(
    "kind",
    [
        "Nullable(String)",
        "LowCardinality(Nullable(String))",
        "Array(String)",
        "Tuple(String)",
        "Map(String, String)",
        "Nullable(UInt32)",
    ],
)
def test_columns_whose_values_the_content_misses_are_refused(db: Database, kind: str) -> None:
    load(db, FIRST, old_rows())
    db.query("ALTER TABLE first DROP COLUMN kind")
    db.query(f"ALTER TABLE first ADD COLUMN kind {kind}")
    with pytest.raises(ConfigError, match=r"column kind is .*; run: ALTER TABLE first MODIFY"):
        load(db, FIRST, new_rows())


@pytest.mark.parametrize("kind", ["LowCardinality(String)", "Enum8('nat' = 1, 'isp' = 2)"])
def test_columns_of_other_plain_types_are_verified_too(db: Database, kind: str) -> None:
    load(db, FIRST, old_rows())
    db.query(f"ALTER TABLE first MODIFY COLUMN kind {kind}")
    load(db, FIRST, new_rows())
    assert rows_of(db, "first") == sorted(new_rows())
    assert held(db, FIRST) == content_of_rows(new_rows())


@pytest.mark.parametrize(
    "meanwhile",
    [
        (f"DROP TABLE {FIRST.shadow} SYNC", f"CREATE TABLE {FIRST.shadow} AS {FIRST.name}"),
        (f"INSERT INTO {FIRST.shadow} SELECT * FROM {FIRST.name}",),
    ],
    ids=["made", "added"],
)
def test_a_shadow_that_another_run_has_changed_meanwhile_is_not_swapped_in(
    db: Database, database: FreshDatabase, meanwhile: tuple[str, ...]
) -> None:
    load(db, FIRST, old_rows())

    class Another:
        """A connection that changes the shadow as soon as ours is verified."""

        def execute(self, query: str, params: Any = None, **options: Any) -> Any:
            result = client.execute(query, params, **options)
            if "NOT IN" in query:  # what is lost: the last question before the swap
                for statement in meanwhile:
                    client.execute(statement)
            return result

        def disconnect(self) -> None:
            client.disconnect()

    client = database.client()
    with live_unchanged(db, FIRST), pytest.raises(Unavailable, match="another run"):
        load(Database(Another()), FIRST, new_rows())


@pytest.mark.parametrize("day", [date(1969, 12, 31), date(2149, 6, 7)])
def test_a_date_that_the_database_can_not_hold_is_refused(db: Database, day: date) -> None:
    load(db, FIRST, old_rows())
    with live_unchanged(db, FIRST), pytest.raises(DataRefused, match="Column changed: ushort"):
        load(db, FIRST, [*new_rows(), ("name", "it", 1, "nat", day)])


def test_rows_that_the_engine_drops_are_noticed(db: Database) -> None:
    load(db, SECOND, old_rows())
    with live_unchanged(db, SECOND), pytest.raises(DataRefused, match="110 rows of 111"):
        load(db, SECOND, [*new_rows(), new_rows()[0]])


def test_a_live_table_without_a_needed_column_is_an_error_of_configuration(db: Database) -> None:
    db.query("CREATE TABLE first (name String, number UInt32) ENGINE = MergeTree ORDER BY name")
    with pytest.raises(ConfigError, match="table first has no column cc, kind, changed"):
        load(db, FIRST, new_rows())


def test_no_table_of_a_pair_changes_when_the_second_is_refused(db: Database) -> None:
    for table in PAIR:
        load(db, table, old_rows())
    updates = [
        updating(FIRST, new_rows()),
        updating(SECOND, new_rows(), bounds=(500, 1000)),
    ]
    with live_unchanged(db, *PAIR), pytest.raises(DataRefused, match="second"):
        replace_tables(Nodes.one(db), updates)


@pytest.mark.parametrize("number", [1, 2])
def test_a_swap_that_fails_leaves_all_tables_of_the_pair_as_they_were(
    database: FreshDatabase, number: int
) -> None:
    db = Database(database.client())
    for table in PAIR:
        load(db, table, old_rows())
    client = FailingClient(database.client(), "EXCHANGE", number)
    updates = [updating(table, new_rows()) for table in PAIR]
    with live_unchanged(db, *PAIR), pytest.raises(Unavailable, match="cut"):
        replace_tables(Nodes.one(Database(client)), updates)
    replace_tables(Nodes.one(db), updates)
    assert [rows_of(db, table.name) for table in PAIR] == [sorted(new_rows())] * 2


@pytest.mark.parametrize("number", [1, 2])
def test_a_swap_whose_answer_is_lost_is_a_swap(database: FreshDatabase, number: int) -> None:
    db = Database(database.client())
    for table in PAIR:
        load(db, table, old_rows())
    client = FailingClient(database.client(), "EXCHANGE", number)
    client.carried_out = True
    updates = [updating(table, new_rows()) for table in PAIR]
    changes = replace_tables(Nodes.one(Database(client)), updates)
    assert all(change.swapped for change in changes)
    assert [rows_of(db, table.name) for table in PAIR] == [sorted(new_rows())] * 2


def test_a_signal_between_the_swaps_leaves_all_tables_as_they_were(
    database: FreshDatabase,
) -> None:
    db = Database(database.client())
    for table in PAIR:
        load(db, table, old_rows())
    client = FailingClient(database.client(), "EXCHANGE", 2)
    client.error = Stopped("SIGTERM")
    with live_unchanged(db, *PAIR), pytest.raises(Stopped):
        replace_tables(Nodes.one(Database(client)), [updating(table, new_rows()) for table in PAIR])


KILLED_AT = [
    ("before", "CREATE TABLE", 1),
    ("after", "CREATE TABLE", 1),
    pytest.param("before", "DROP TABLE", 1, marks=pytest.mark.long),
    pytest.param("after", "DROP TABLE", 1, marks=pytest.mark.long),
    pytest.param("before", "INSERT", 1, marks=pytest.mark.long),
    ("after", "INSERT", 1),
    pytest.param("after", "INSERT", 3, marks=pytest.mark.long),
    pytest.param("after", "INSERT", 4, marks=pytest.mark.long),
    pytest.param("before", "EXCHANGE", 1, marks=pytest.mark.long),
    ("after", "EXCHANGE", 1),
    pytest.param("before", "EXCHANGE", 2, marks=pytest.mark.long),
    pytest.param("after", "EXCHANGE", 2, marks=pytest.mark.long),
]


@pytest.mark.long
@pytest.mark.parametrize(("when", "statement", "number"), KILLED_AT)
def test_after_a_kill_each_live_table_is_old_or_new_and_the_next_run_heals(
    database: FreshDatabase, when: str, statement: str, number: int
) -> None:
    db = Database(database.client())
    count = BLOCK_ROWS + 1 if statement == "INSERT" else 1000  # two blocks, or one
    old, new = content_of_rows(old_rows(count)), content_of_rows(new_rows(count))
    for table in PAIR:
        load(db, table, old_rows(count))
    script = Path(__file__).with_name("killed_replacement.py")
    process = subprocess.run(
        [sys.executable, str(script), database.uri, str(count), when, statement, str(number)],
        env={"PYTHONPATH": str(script.parent.parent)},
        capture_output=True,
        check=False,
    )
    assert process.returncode == -9, process.stderr.decode()
    after = [held(db, table) for table in PAIR]
    swapped = {("after", 1): 1, ("before", 2): 1, ("after", 2): 2}
    expected = swapped.get((when, number), 0) if statement == "EXCHANGE" else 0
    assert after == [new] * expected + [old] * (2 - expected)
    replace_tables(Nodes.one(db), [updating(table, new_rows(count)) for table in PAIR])
    assert [held(db, table) for table in PAIR] == [new, new]


def test_a_reader_sees_the_old_content_or_the_new_at_every_instant(
    database: FreshDatabase,
) -> None:
    db = Database(database.client())
    load(db, FIRST, old_rows(2000))
    seen, ended = set(), threading.Event()
    reader = Database(database.client())

    def read() -> None:
        while not ended.is_set():
            seen.add(held(reader, FIRST))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for _ in range(5):
            load(db, FIRST, new_rows(2000))
            load(db, FIRST, old_rows(2000))
    finally:
        ended.set()
        thread.join()
    assert seen == {content_of_rows(old_rows(2000)), content_of_rows(new_rows(2000))}


def test_a_preview_says_what_would_change_and_changes_nothing(database: FreshDatabase) -> None:
    db = Database(database.client())
    load(db, FIRST, old_rows(95))
    load(db, FIRST, old_rows(100))
    shadow = rows_of(db, "first_tmp")
    rows = [*old_rows(99), row("other")]
    with live_unchanged(db, FIRST):
        previewing = Database(database.client())
        lines = list(preview_tables(Nodes.one(previewing), [updating(FIRST, rows)]))
        previewing.close()
    assert lines == [
        "would change: first: 100 rows (+1 -1)",
        "- name 99 | it | 99 | nat | 2025-01-31",
        "+ other | it | 1 | nat | 2025-01-31",
    ]
    assert rows_of(db, "first_tmp") == shadow


def test_a_preview_of_the_same_rows_says_that_nothing_would_change(db: Database) -> None:
    load(db, FIRST, old_rows(100))
    lines = list(preview_tables(Nodes.one(db), [updating(FIRST, old_rows(100))]))
    assert lines == ["first: 100 rows, unchanged"]


def test_a_preview_of_a_first_run_creates_nothing(db: Database) -> None:
    lines = list(preview_tables(Nodes.one(db), [updating(FIRST, new_rows())]))
    assert lines == ["first: would be created with 110 rows"]
    assert not db.exists("first")


def test_a_preview_refuses_what_a_run_refuses(db: Database) -> None:
    load(db, FIRST, old_rows(100))
    with pytest.raises(DataRefused, match="50 of 100 rows would disappear"):
        list(preview_tables(Nodes.one(db), [updating(FIRST, new_rows(50), TENTH)]))


def test_a_first_run_without_rows_is_refused(db: Database) -> None:
    with pytest.raises(DataRefused, match="first: 0 rows; between"):
        load(db, FIRST, [], content=Content())
    assert rows_of(db, "first") == []


def test_a_preview_refuses_a_number_of_rows_outside_the_bounds(db: Database) -> None:
    with pytest.raises(DataRefused, match="first: 110 rows; between"):
        list(preview_tables(Nodes.one(db), [updating(FIRST, new_rows(), bounds=(0, 110))]))


def after(changes: list[Change], state: UpdateState | None = None) -> UpdateState:
    return next_state(state or UpdateState(), {"commit": "1"}, changes)


def test_a_rollback_puts_the_content_of_before_back_and_a_second_one_undoes_it(
    db: Database,
) -> None:
    state = after([load(db, FIRST, old_rows())])
    state = after([load(db, FIRST, new_rows())], state)
    for rows in (old_rows(), new_rows(), old_rows()):
        state = after(roll_back(Nodes.one(db), [FIRST], state), state)
        assert rows_of(db, "first") == sorted(rows)
        assert is_current(Nodes.one(db), [FIRST], state)


def test_a_rollback_of_a_pair_swaps_the_tables_that_the_last_update_changed(
    db: Database,
) -> None:
    updates = [updating(table, old_rows()) for table in PAIR]
    state = after(replace_tables(Nodes.one(db), updates))
    updates = [
        updating(FIRST, new_rows()),
        updating(SECOND, new_rows()),
    ]
    state = after(replace_tables(Nodes.one(db), updates), state)
    second = updating(SECOND, new_rows(120), content=content_of_rows(new_rows(120)))
    first = updating(FIRST, new_rows(), content=content_of_rows(new_rows()))
    state = after(replace_tables(Nodes.one(db), [first, second]), state)
    roll_back(Nodes.one(db), PAIR, state)
    assert rows_of(db, "first") == sorted(new_rows())
    assert rows_of(db, "second") == sorted(new_rows())


@pytest.mark.parametrize("force", [False, True])
def test_a_rollback_leaves_the_table_of_a_pair_that_the_last_update_did_not_change(
    db: Database, *, force: bool
) -> None:
    state = after(replace_tables(Nodes.one(db), [updating(table, old_rows()) for table in PAIR]))
    state = after([load(db, FIRST, new_rows())], state)
    state = after([load(db, SECOND, new_rows())], state)
    if force:
        db.query("INSERT INTO second_tmp SELECT * FROM second_tmp LIMIT 1")
    (planned,) = to_roll_back(Nodes.one(db), PAIR, state, force=force)
    (change,) = roll_back(Nodes.one(db), PAIR, state, force=force)
    assert planned.change == change
    assert change.table == SECOND
    assert rows_of(db, "first") == sorted(new_rows())


def test_what_was_rolled_back_of_a_table_is_kept_away_by_no_update_of_another_one() -> None:
    first = Change(FIRST, Content(1, 1), Content(2, 2))
    second = Change(SECOND, Content(3, 3), Content(4, 4))
    source = {"version": "1", "first.sha256": "a", "second.sha256": "b"}
    state = rolled_back_state(next_state(UpdateState(), source, []), [first, second])
    state = next_state(state, source, [second])
    assert state.tables_rolled_back == {"first"}
    assert kept_by_rollback(state, PAIR) == {"version": "1", "first.sha256": "a"}
    state = rolled_back_state(state, [first])
    assert state.tables_rolled_back == set(), "a second rollback undoes the first"
    assert kept_by_rollback(state, PAIR) == {}


def test_rows_that_were_refused_can_not_be_rolled_back_to(db: Database) -> None:
    state = after([load(db, FIRST, old_rows())])
    state = after([load(db, FIRST, new_rows())], state)
    with pytest.raises(DataRefused):
        load(db, FIRST, new_rows(5), limits=TENTH)
    with live_unchanged(db, FIRST), pytest.raises(DataRefused, match="does not hold what was live"):
        roll_back(Nodes.one(db), [FIRST], state)


def test_force_rolls_back_to_whatever_the_shadow_holds_unless_it_is_empty(db: Database) -> None:
    load(db, FIRST, old_rows())
    with live_unchanged(db, FIRST), pytest.raises(DataRefused, match="nothing to roll back"):
        roll_back(Nodes.one(db), [FIRST], UpdateState(), force=True)
    load(db, FIRST, new_rows())
    roll_back(Nodes.one(db), [FIRST], UpdateState(), force=True)
    assert rows_of(db, "first") == sorted(old_rows())


@pytest.mark.parametrize("force", [False, True])
def test_the_first_load_of_a_table_can_not_be_rolled_back_to_nothing(
    db: Database, *, force: bool
) -> None:
    state = after([load(db, FIRST, old_rows())])
    empty = "first was empty before its last update"
    with live_unchanged(db, FIRST), pytest.raises(DataRefused, match=empty):
        roll_back(Nodes.one(db), [FIRST], state, force=force)


def test_without_an_update_on_record_there_is_nothing_to_roll_back(db: Database) -> None:
    load(db, FIRST, old_rows())
    load(db, FIRST, new_rows())
    with live_unchanged(db, FIRST), pytest.raises(DataRefused, match="no update is on record"):
        roll_back(Nodes.one(db), [FIRST], UpdateState())


def test_without_the_tables_there_is_nothing_to_roll_back(db: Database) -> None:
    with pytest.raises(DataRefused, match="first was never updated here"):
        roll_back(Nodes.one(db), [FIRST], UpdateState(), force=True)


def test_a_run_that_died_before_it_wrote_its_state_can_be_rolled_back(db: Database) -> None:
    state = after([load(db, FIRST, old_rows())])
    load(db, FIRST, new_rows())
    roll_back(Nodes.one(db), [FIRST], state)
    assert rows_of(db, "first") == sorted(old_rows())


def test_tables_are_current_only_with_the_content_that_was_left_in_them(db: Database) -> None:
    assert not is_current(Nodes.one(db), [FIRST], UpdateState())
    state = after([load(db, FIRST, old_rows())])
    assert is_current(Nodes.one(db), [FIRST], state)
    db.query("INSERT INTO first SELECT * FROM first LIMIT 1")
    assert not is_current(Nodes.one(db), [FIRST], state)
    db.query("DROP TABLE first")
    assert not is_current(Nodes.one(db), [FIRST], state)


def test_a_state_survives_its_file(tmp_path: Path) -> None:
    live, previous = {"first": Content(1, 2**64 - 1)}, {"first": Content(0, 0)}
    state = UpdateState({"commit": "1"}, live, previous, frozenset(["second", "first"]))
    write_state(tmp_path / "state.json", state)
    assert read_state(tmp_path / "state.json", UpdateState) == state


@pytest.mark.parametrize(
    ("said", "tables"),
    [('"rolled_back": true, ', {"first"}), ('"rolled_back": false, ', {}), ("", {})],
)
def test_an_older_state_file_says_of_all_tables_whether_they_were_rolled_back(
    tmp_path: Path, said: str, tables: Collection[str]
) -> None:
    path = tmp_path / "state.json"
    path.write_text(f'{{{said}"live": {{"first": {{"rows": 1, "digest": 1}}}}}}')
    state = read_state(path, UpdateState)
    assert state.live
    assert state.tables_rolled_back == set(tables)


@pytest.mark.parametrize("text", ["", "{", '{"live": 1}', "\x00"])
def test_a_damaged_state_file_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    assert read_state(tmp_path / "state.json", UpdateState) == UpdateState()


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@pytest.mark.long
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            TEXT,
            st.from_regex("[a-z]{0,32}", fullmatch=True),
            st.integers(0, 2**32 - 1),
            st.sampled_from(["nat", "isp"]),
            st.dates(date(1970, 1, 1), date(2149, 6, 6)),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_the_database_computes_the_same_content_as_we_do(db: Database, rows: list[Row]) -> None:
    for name in ("first", "first_tmp"):
        db.query(f"DROP TABLE IF EXISTS {name} SYNC")
    load(db, FIRST, rows)
    assert held(db, FIRST) == content_of_rows(rows)


def config_for(uri: str) -> DatabaseConfig:
    return DatabaseConfig(state_dir=Path("/nonexistent"), db_uri=SecretUrl(uri))


def test_a_database_that_is_down_is_unavailable() -> None:
    with (
        connected(config_for("clickhouse://127.0.0.1:1/default")) as db,
        pytest.raises(Unavailable, match=r"^database: .*refused.*127\.0\.0\.1:1"),
    ):
        load(db, FIRST, new_rows())


def test_an_unknown_database_host_is_unavailable() -> None:
    with (
        connected(config_for("clickhouse://nobody.invalid/default")) as db,
        pytest.raises(Unavailable, match="database: "),
    ):
        load(db, FIRST, new_rows())


def test_a_wrong_password_is_an_error_of_configuration_and_is_not_shown(tmp_path: Path) -> None:
    with EmbeddedClickHouse(tmp_path, users=["api:right-password"]) as server:
        uri = server.uri(user="api", password="wrong-password")
        with connected(config_for(uri)) as db, pytest.raises(ConfigError) as caught:
            load(db, FIRST, new_rows())
    assert "Authentication failed" in str(caught.value)
    assert "wrong-password" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.long
def test_a_server_that_dies_during_the_inserts_leaves_the_live_table_as_it_was(
    tmp_path: Path,
) -> None:
    with EmbeddedClickHouse(tmp_path) as server:

        def rows_of_a_doomed_server() -> Iterator[Row]:
            yield from new_rows(70_000)
            server.kill()
            yield from new_rows(140_000)[70_000:]

        with connected(config_for(server.uri())) as db:
            load(db, FIRST, old_rows())
            with pytest.raises(Unavailable, match=r"^database: "):
                replace_tables(Nodes.one(db), [updating(FIRST, rows_of_a_doomed_server())])
        server.start()
        with connected(config_for(server.uri())) as db:
            assert rows_of(db, "first") == sorted(old_rows())
            load(db, FIRST, new_rows())
            assert rows_of(db, "first") == sorted(new_rows())


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.floats(width=32, allow_nan=False),
            st.floats(0, 1e6).map(lambda value: round(value, 2)),
            st.integers(86_400, 4_000_000_000).map(lambda time: datetime.fromtimestamp(time, UTC)),
        ),
        min_size=1,
        max_size=50,
    )
)
def test_numbers_and_times_are_verified_too(
    db: Database, rows: list[tuple[float, float, datetime]]
) -> None:
    columns = {
        "number": "Int32",
        "one": "Float32",
        "other": "Float32",
        "time": "DateTime64(3)",
        "same": "DateTime('UTC')",
    }
    table = Table(
        "measured", "measured_tmp", columns, "ENGINE = MergeTree ORDER BY number", ("number",)
    )
    numbered = [(number, *row, row[2]) for number, row in enumerate(rows)]
    db.query("DROP TABLE IF EXISTS measured")
    (change,) = replace_tables(Nodes.one(db), [Update.of_rows(table, numbered, ANY_NUMBER)])
    assert held(db, table) == change.live
    stored = db.query(
        "SELECT toUnixTimestamp(time), toUnixTimestamp(same) FROM measured ORDER BY number"
    )
    assert stored == [(int(time.timestamp()), int(time.timestamp())) for _, _, time in rows]
    other = [(*row[:2], row[2] + 1, *row[3:]) for row in numbered]
    (change,) = replace_tables(
        Nodes.one(db), [Update.of_rows(table, other, ANY_NUMBER)], force=True
    )
    assert change.swapped


@pytest.mark.parametrize("column", ["UInt8", "Date"])
def test_the_same_block_inserted_twice_is_stored_twice(db: Database, column: str) -> None:
    """A Date takes an INSERT with a SELECT, which has settings of its own."""
    window = "SETTINGS non_replicated_deduplication_window = 100"
    db.query(f"CREATE TABLE t (number {column}) ENGINE = MergeTree ORDER BY number {window}")
    value = {"UInt8": 1, "Date": date(2025, 1, 31)}[column]
    for _ in range(2):
        db.insert("t", {"number": column}, [[value] * 3])
    assert db.query("SELECT count() FROM t") == [(6,)]
