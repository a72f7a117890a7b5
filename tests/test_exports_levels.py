"""The levels of change: what a run reads to decide, and that it misses nothing by reading less."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from db_backup_harness import LAYOUT, BackupTool
from exports.chunks import digests
from exports.clickhouse_http import ClickHouseHTTP
from exports.commands import reader_of
from exports.reader import Reader
from ooni_common.database import Database, StatementFailed
from ooni_common.errors import Unavailable
from ooni_common.nodes import Node
from tables.inventory import SourceTable, read_table

pytestmark = pytest.mark.long

BY_MONTH = {"policy": "public", "chunk_by": "month", "column": "t"}
UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
ROWS = 300_000
NOW = {"mutations_sync": 2}
ENGINES = {
    "plain": "MergeTree ORDER BY (t, id)",
    "replacing": "ReplacingMergeTree(v) ORDER BY (t, id)",
    "by partition": "ReplacingMergeTree(v) PARTITION BY toYYYYMM(t) ORDER BY id",
}
MONTHS = ["202401", "202402", "202403"]
INSERT = (
    "INSERT INTO m SELECT toDateTime('2024-0{}-05') + number % 1000, number, {}, 'x'"
    " FROM numbers({})"
)


def make(tool: BackupTool, engine: str, *, rows: int = 100) -> None:
    """Make a table of three months, with one part for each, and export it."""
    tool.database.execute(
        f"CREATE TABLE m (t DateTime, id UInt32, v UInt32, text String) ENGINE = {ENGINES[engine]}"
    )
    for month in (1, 2, 3):
        tool.database.execute(INSERT.format(month, 1, rows))
    status, log = tool.run(tables={"m": BY_MONTH})
    assert status == 0, log


def decided_with(log: str) -> float:
    """Return how many bytes a run has read to decide, as it says."""
    ((number, unit),) = re.findall(r"\bm: ([0-9.,]+) (\w+) read to decide", log)
    return float(number.replace(",", "")) * UNITS[unit]


def exported_by(tool: BackupTool) -> list[str]:
    """Return the chunks that the next run exports."""
    tokens = {name: export.token for name, export in tool.manifest("m").chunks.items()}
    status, log = tool.run()
    assert status == 0, log
    chunks = tool.manifest("m").chunks
    return [name for name in sorted(chunks) if tokens.get(name) != chunks[name].token]


def assert_exports_have_the_rows(tool: BackupTool) -> None:
    """Check that the objects have what the table has, and that nothing is left to do."""
    with tool.unchanged():
        status, log = tool.run()
    assert (status, "nothing to do" in log) == (0, True), log
    exported = [
        line
        for name in tool.manifest("m").chunks
        for line in tool.csv(f"m_{name}.csv.zstd").splitlines()[1:]
    ]
    assert sorted(exported) == sorted(tool.query("SELECT * FROM m FORMAT CSV").splitlines())


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_read_to_decide_is_what_has_come(backup_tool: BackupTool, engine: str) -> None:
    make(backup_tool, engine, rows=ROWS)
    keys = 3 * ROWS * 12
    assert decided_with(backup_tool.run()[1]) < keys / 100
    backup_tool.database.execute("OPTIMIZE TABLE m FINAL")
    assert decided_with(backup_tool.run()[1]) < keys / 100
    backup_tool.database.execute(INSERT.format(2, 2, 10))
    log = backup_tool.run()[1]
    assert ("m_202402.csv.zstd: changed" in log, "1 chunk exported" in log) == (True, True)
    # The new part, and the time of the rows of one month of three.
    assert decided_with(log) < keys / 100 + ROWS * 5
    assert decided_with(backup_tool.run()[1]) < keys / 100


# What is done, one after the other, and which chunks are exported then.
CHANGES: dict[str, tuple[Sequence[str], list[str]]] = {
    "rows of a new month": ([INSERT.format(4, 1, 10)], ["202404"]),
    "late rows": (["INSERT INTO m VALUES ('2024-02-05', 5000, 2, 'late')"], ["202402"]),
    "a merge": (["OPTIMIZE TABLE m FINAL"], []),
    "rows of another table": (
        ["INSERT INTO n VALUES ('2024-02-05', 6000, 2, 'x')", "ALTER TABLE m ATTACH {part} FROM n"],
        ["202402"],
    ),
    # All parts are written again, and no digest of the others is there yet.
    "a changed cell": (
        ["ALTER TABLE m UPDATE text = 'y' WHERE id = 5000"],
        [*MONTHS, "202404"],
    ),
    "another one": (["ALTER TABLE m UPDATE text = 'z' WHERE id = 5000"], ["202402"]),
    "no cell": (["ALTER TABLE m UPDATE text = 'y' WHERE id = 70000"], []),
    "a row, deleted lightly": (["DELETE FROM m WHERE id = 6000"], ["202402"]),
    "another table": (
        [
            "TRUNCATE TABLE n",
            "INSERT INTO n SELECT t, id, v, 'u' FROM m",
            "EXCHANGE TABLES m AND n",
        ],
        [*MONTHS, "202404"],
    ),
    "another column": (["ALTER TABLE m ADD COLUMN o UInt8 DEFAULT 1"], [*MONTHS, "202404"]),
}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_change_is_seen_by_the_next_run(backup_tool: BackupTool, engine: str) -> None:
    make(backup_tool, engine)
    backup_tool.run(tables={"m": BY_MONTH, "n": "none"})
    execute = backup_tool.database.execute
    execute("CREATE TABLE n AS m")
    part = "PARTITION 202402" if engine == "by partition" else "PARTITION tuple()"
    for change, (statements, chunks) in CHANGES.items():
        for statement in statements:
            execute(statement.format(part=part), settings=NOW)
        exported = exported_by(backup_tool)
        assert exported == chunks, change
    assert_exports_have_the_rows(backup_tool)


@pytest.mark.parametrize("merged", [False, True], ids=["", "and hidden by a merge"])
def test_a_part_that_is_dropped_is_seen(backup_tool: BackupTool, *, merged: bool) -> None:
    make(backup_tool, "plain")
    execute = backup_tool.database.execute
    execute("SYSTEM STOP MERGES m")
    for name in (1, 2, 3):
        execute(f"INSERT INTO m VALUES ('2024-02-05', {name + 5000}, 1, 'late')")
    assert exported_by(backup_tool) == ["202402"]
    rows = execute("SELECT name FROM system.parts WHERE active AND table = 'm' AND rows = 1"
                   " AND database = currentDatabase() ORDER BY name")  # fmt: skip
    execute(f"ALTER TABLE m DROP PART '{rows[1][0]}'")
    if merged:
        execute("SYSTEM START MERGES m")
        execute("OPTIMIZE TABLE m FINAL")
    assert exported_by(backup_tool) == ["202402"]
    assert_exports_have_the_rows(backup_tool)


def test_a_chunk_that_an_interrupted_run_has_not_exported_is_not_forgotten(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its blocks are those that the manifest names, but it has no export of it."""
    make(backup_tool, "replacing")
    execute = backup_tool.database.execute
    execute(INSERT.format(4, 1, 10))
    execute(INSERT.format(5, 1, 10))
    rows = ClickHouseHTTP.rows

    def failing(source: ClickHouseHTTP, select: str, *arguments: Any, **options: Any) -> Any:
        if "202405" in select:
            raise Unavailable("gone")
        return rows(source, select, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(ClickHouseHTTP, "rows", failing)
        assert backup_tool.run()[0] == 69
    assert "202404" in backup_tool.manifest("m").chunks
    assert exported_by(backup_tool) == ["202405"]
    assert_exports_have_the_rows(backup_tool)


def as_by_2_0(tool: BackupTool) -> None:
    """Leave in the manifest what a run of 2.0.1 would: it keeps nothing that it does not know."""
    key = LAYOUT.manifest("m")
    manifest = json.loads(tool.get(key))
    for name in ("storages", "surveyed", "looks"):
        manifest.pop(name, None)
    for export in manifest["chunks"].values():
        export.pop("storage", None)
        export["fingerprint"].pop("whole", None)
    tool.put(key, json.dumps(manifest).encode())


def test_a_manifest_of_2_0_is_followed_once_as_2_0_does(backup_tool: BackupTool) -> None:
    make(backup_tool, "replacing")
    execute = backup_tool.database.execute
    as_by_2_0(backup_tool)
    # Rows were only counted, so nobody knows; then a digest does.
    assert exported_by(backup_tool) == MONTHS
    as_by_2_0(backup_tool)
    assert exported_by(backup_tool) == []
    assert backup_tool.manifest("m").surveyed
    as_by_2_0(backup_tool)
    execute("INSERT INTO m VALUES ('2024-02-05', 5000, 2, 'late')")
    assert exported_by(backup_tool) == ["202402"]
    assert_exports_have_the_rows(backup_tool)


def twice_in_each_month(tool: BackupTool, ttl: str = "") -> None:
    """Make a table whose rows are there twice, in parts that have not been merged; export it."""
    execute = tool.database.execute
    execute(f"CREATE TABLE m (t DateTime, id UInt32, v UInt32, text String)"
            f" ENGINE = {ENGINES['replacing']} {ttl}"
            " SETTINGS max_bytes_to_merge_at_max_space_in_pool = 1")  # fmt: skip
    for version in (1, 2):
        for month in (1, 2, 3):
            execute(INSERT.format(month, version, 100))
    status, log = tool.run(tables={"m": BY_MONTH})
    assert status == 0, log


@pytest.mark.parametrize("engine", ["MergeTree", "ReplacingMergeTree(v)"])
def test_a_part_is_new_that_has_the_number_of_a_dropped_one(
    backup_tool: BackupTool, engine: str
) -> None:
    """A server that is started again counts from the highest number that it has."""
    execute = backup_tool.database.execute
    execute(
        f"CREATE TABLE m (t DateTime, id UInt32, v UInt32, text String) ENGINE = {engine}"
        " PARTITION BY toYYYYMM(t) ORDER BY id"
    )
    for month in (1, 2):
        execute(INSERT.format(month, 1, 100))
    assert backup_tool.run(tables={"m": BY_MONTH})[0] == 0
    execute("ALTER TABLE m DROP PARTITION 202402")
    for statement in ("DETACH TABLE m", "ATTACH TABLE m", "SELECT sleep(1.1)"):
        execute(statement)
    execute(INSERT.format(2, 1, 100).replace("'x'", "'y'"))
    assert exported_by(backup_tool) == ["202402"]
    execute("OPTIMIZE TABLE m FINAL")
    assert exported_by(backup_tool) == []


@pytest.mark.parametrize("told", [True, False], ids=["", "where parts tell nothing"])
def test_rows_that_merges_drop_are_no_change(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch, *, told: bool
) -> None:
    if not told:
        monkeypatch.setattr("exports.plan.read_snapshot", lambda *_: None)
    twice_in_each_month(backup_tool)
    execute = backup_tool.database.execute
    execute("ALTER TABLE m UPDATE text = 'y' WHERE id = 1", settings=NOW)
    # Where parts tell nothing, nothing tells of cells beside key and version.
    assert exported_by(backup_tool) == (MONTHS if told else [])
    execute("OPTIMIZE TABLE m FINAL")
    assert execute("SELECT count() FROM m") == [(300,)]
    if told:
        execute("ALTER TABLE m UPDATE text = 'z' WHERE id = 70000", settings=NOW)
    assert exported_by(backup_tool) == []
    execute("INSERT INTO m VALUES ('2024-02-05', 5000, 2, 'late')")
    assert exported_by(backup_tool) == ["202402"]


def test_a_digest_of_before_is_compared_with_one_of_all_rows(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("exports.plan.read_snapshot", lambda *_: None)
        patched.setattr("exports.reader.Reader.digests_merged", False)
        twice_in_each_month(backup_tool)
    assert exported_by(backup_tool) == []
    execute = backup_tool.database.execute
    execute("INSERT INTO m VALUES ('2024-02-05', 5000, 2, 'late')")
    assert exported_by(backup_tool) == ["202402"]


def test_rows_of_a_table_with_a_ttl_are_always_counted(backup_tool: BackupTool) -> None:
    make(backup_tool, "plain")
    execute = backup_tool.database.execute
    execute("ALTER TABLE m ADD COLUMN until DateTime DEFAULT '2100-01-01'")
    execute("ALTER TABLE m MODIFY TTL until", settings=NOW)
    assert exported_by(backup_tool) == MONTHS
    assert exported_by(backup_tool) == []
    execute("INSERT INTO m VALUES ('2024-02-05', 5000, 1, 'short', now() + 2)")
    execute("SYSTEM STOP TTL MERGES m")
    assert exported_by(backup_tool) == ["202402"]
    assert not any(export.fingerprint.is_read for export in backup_tool.manifest("m").exports)
    time.sleep(2.5)
    execute("SYSTEM START TTL MERGES m")
    execute("OPTIMIZE TABLE m FINAL")
    assert execute("SELECT count() FROM m") == [(300,)]
    assert exported_by(backup_tool) == ["202402"]
    assert_exports_have_the_rows(backup_tool)


def test_rows_that_merges_drop_are_not_lost_where_rows_expire(backup_tool: BackupTool) -> None:
    twice_in_each_month(backup_tool, "TTL t + INTERVAL 50 YEAR")
    execute = backup_tool.database.execute
    assert execute("SELECT count() FROM m") == [(600,)]
    execute("OPTIMIZE TABLE m FINAL")
    assert execute("SELECT count() FROM m") == [(300,)]
    assert exported_by(backup_tool) == []
    execute("ALTER TABLE m DELETE WHERE id < 50 AND t < '2024-02-01'", settings=NOW)
    status, log = backup_tool.run()
    assert (status, "m: 202401: shrunk, 50 rows" in log) == (65, True), log


BROKEN = "m: {}: not compared, and its export stays: database: "


def break_months(tool: BackupTool, *months: int) -> None:
    """Let a column fail in the rows of some months that were there before it, as damage does."""
    sick = f"toMonth(t) IN ({', '.join(map(str, months))})" if months else "0"
    tool.database.execute(f"ALTER TABLE m MODIFY COLUMN x DEFAULT throwIf({sick}, 'a broken part')")


def make_breakable(tool: BackupTool, months: int = 3, ttl: str = "") -> None:
    """Make a table of so many months with a column that no part has yet, and export it."""
    tool.database.execute(
        f"CREATE TABLE m (t DateTime, id UInt32) ENGINE = ReplacingMergeTree ORDER BY (t, id) {ttl}"
    )
    for month in range(1, months + 1):
        tool.database.execute(f"INSERT INTO m SELECT '2024-0{month}-05', number FROM numbers(100)")
    tool.database.execute("ALTER TABLE m ADD COLUMN x UInt8 DEFAULT 0")
    status, log = tool.run(tables={"m": BY_MONTH})
    assert status == 0, log


def add_to(tool: BackupTool, month: int) -> None:
    """Add a row to a month."""
    tool.database.execute(f"INSERT INTO m VALUES ('2024-0{month}-06', 5000, 5)")


def test_a_chunk_that_can_not_be_compared_holds_up_no_other_one(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exports.plan.read_snapshot", lambda *_: None)
    make_breakable(backup_tool)
    before = backup_tool.manifest("m").chunks
    break_months(backup_tool, 1)
    add_to(backup_tool, 3)
    status, log = backup_tool.run()
    assert (status, BROKEN.format(202401) in log, "a broken part" in log) == (69, True, True), log
    after = backup_tool.manifest("m").chunks
    assert [name for name in MONTHS if after[name] != before[name]] == ["202403"]
    assert backup_tool.csv("m_202403.csv.zstd").count(b",5000,5") == 1
    # What has happened meanwhile is seen when the chunk can be read again.
    backup_tool.database.execute("ALTER TABLE m MODIFY COLUMN x DEFAULT toMonth(t) = 1")
    assert exported_by(backup_tool) == ["202401"]
    assert_exports_have_the_rows(backup_tool)


def test_a_chunk_whose_blocks_tell_of_a_change_is_asked_again_when_it_can_be_read(
    backup_tool: BackupTool,
) -> None:
    make_breakable(backup_tool)
    before = backup_tool.manifest("m").chunks["202401"]
    break_months(backup_tool, 1)  # other defaults are another table
    for _ in range(2):
        status, log = backup_tool.run()
        assert (status, BROKEN.format(202401) in log) == (69, True), log
        assert backup_tool.manifest("m").chunks["202401"] == before
    break_months(backup_tool)
    assert "202401" in exported_by(backup_tool)
    assert_exports_have_the_rows(backup_tool)


def test_a_chunk_that_may_have_shrunk_and_can_not_be_read_holds_up_no_other_one(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exports.plan.read_snapshot", lambda *_: None)
    make_breakable(backup_tool)
    before = backup_tool.manifest("m").chunks["202401"]
    backup_tool.database.execute("DELETE FROM m WHERE id < 90 AND toMonth(t) = 1")
    break_months(backup_tool, 1)
    add_to(backup_tool, 3)
    status, log = backup_tool.run()
    assert (status, BROKEN.format(202401) in log) == (69, True), log
    assert backup_tool.manifest("m").chunks["202401"] == before
    assert backup_tool.csv("m_202403.csv.zstd").count(b",5000,5") == 1
    break_months(backup_tool)
    status, log = backup_tool.run()
    assert (status, "m: 202401: shrunk, 10 rows" in log) == (65, True), log


def test_several_chunks_in_a_row_that_can_not_be_compared_are_the_server(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exports.plan.read_snapshot", lambda *_: None)
    make_breakable(backup_tool, 5)
    break_months(backup_tool, 1, 2, 3, 4)
    add_to(backup_tool, 5)
    status, log = backup_tool.run()
    told = [month for month in range(1, 6) if BROKEN.format(f"20240{month}") in log]
    assert (status, told) == (69, [1, 2, 3]), log
    assert backup_tool.csv("m_202405.csv.zstd").count(b",5000,5") == 0


def test_a_digest_that_can_not_be_read_keeps_no_chunk_from_being_exported(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where FINAL takes more time or memory than the server allows; the rows take less."""
    asked = []

    def digests_of_some(reader: Reader, chunks: Sequence[Any], **how: bool) -> dict[str, Any]:
        asked.append([chunk.name for chunk in chunks])
        if "202402" in asked[-1]:
            raise StatementFailed("database: too slow", 159, "")
        return digests(reader, chunks, **how)

    with monkeypatch.context() as patched:
        patched.setattr("exports.plan.digests", digests_of_some)
        twice_in_each_month(backup_tool, "TTL t + INTERVAL 50 YEAR")
    assert asked == [[name] for name in MONTHS]  # and never all of the table in one statement
    exports = backup_tool.manifest("m").chunks
    assert [exports[name].fingerprint.is_read for name in MONTHS] == [True, False, True]
    assert_exports_have_the_rows(backup_tool)


def test_a_month_that_can_not_be_read_holds_up_no_other_one_where_rows_expire(
    backup_tool: BackupTool,
) -> None:
    make_breakable(backup_tool, ttl="TTL t + INTERVAL 50 YEAR")
    break_months(backup_tool, 1)
    before = backup_tool.manifest("m").chunks["202401"]
    status, log = backup_tool.run("--force")
    assert (status, "m: 202401: not exported: database: " in log) == (69, True), log
    after = backup_tool.manifest("m").chunks
    assert after["202401"] == before
    assert [after[name].fingerprint.is_read for name in MONTHS[1:]] == [True, True]
    backup_tool.database.execute("ALTER TABLE m MODIFY COLUMN x DEFAULT toMonth(t) = 1")
    assert exported_by(backup_tool) == ["202401"]
    assert_exports_have_the_rows(backup_tool)


class OtherNode:
    """The replicas of a table: it is planned on one, and its rows come from another."""

    def __init__(self, database: Database) -> None:
        self.databases = [database]
        self.chosen = [Node("a:1", 1, database)]

    def choose(self) -> None:
        """Choose the other one."""
        self.chosen = [Node("b:1", 1, *self.databases)]


@pytest.mark.parametrize("told", [True, False], ids=["", "whose parts tell nothing"])
def test_a_changed_cell_is_seen_of_rows_that_came_from_another_replica(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch, *, told: bool
) -> None:
    def reader_of_other_node(*arguments: Any) -> Reader:
        reader = reader_of(*arguments)
        return replace(reader, replicas=cast("Any", OtherNode(reader.database)))

    with monkeypatch.context() as patched:
        patched.setattr("exports.export_command.reader_of", reader_of_other_node)
        if not told:
            patched.setattr("exports.chosen_nodes.read_snapshot", lambda *_: None)
        make(backup_tool, "replacing")
    read = [export.fingerprint.is_read for export in backup_tool.manifest("m").exports]
    assert read == [not told] * 3
    execute = backup_tool.database.execute
    execute("ALTER TABLE m UPDATE text = 'y' WHERE id = 5", settings=NOW)
    assert exported_by(backup_tool) == MONTHS
    assert_exports_have_the_rows(backup_tool)


def test_a_cell_that_was_changed_while_parts_told_nothing_is_seen_when_they_do(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of patches of UPDATE: until merges have applied them, key and version decide."""
    make(backup_tool, "replacing")
    as_by_2_0(backup_tool)
    assert exported_by(backup_tool) == MONTHS  # and now there are digests
    backup_tool.database.execute("ALTER TABLE m UPDATE text = 'y' WHERE id = 5", settings=NOW)
    with monkeypatch.context() as patched:
        patched.setattr("exports.plan.read_snapshot", lambda *_: None)
        assert exported_by(backup_tool) == []
    assert exported_by(backup_tool) == MONTHS
    assert_exports_have_the_rows(backup_tool)


def test_a_table_that_becomes_one_of_another_engine_is_another_table(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(backup_tool, "plain")
    assert exported_by(backup_tool) == []

    def read_another(*arguments: Any) -> SourceTable:
        return replace(read_table(*arguments), engine="AnotherMergeTree")

    monkeypatch.setattr("exports.commands.read_table", read_another)
    assert exported_by(backup_tool) == MONTHS
    assert exported_by(backup_tool) == []
