"""What the parts of a table tell: rows are read once, and only where they may have changed."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

import exports.plan
from db_backup_harness import LAYOUT, BackupTool
from exports.clickhouse_http import ClickHouseHTTP
from ooni_common.errors import Unavailable
from tables.parts import NO_TABLE

pytestmark = pytest.mark.long

BY_MONTH = {"policy": "public", "chunk_by": "month", "column": "t"}
MONTHS = {"m": BY_MONTH}
MOST_READ = 1.05  # times the bytes of the table


class Reads:
    """The bytes of columns that the server has read, as it counts them itself."""

    def __init__(self, tool: BackupTool) -> None:
        self._tool = tool
        self.bytes = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is read within the block."""
        before = self._total()
        yield
        self.bytes = self._total() - before

    def _total(self) -> int:
        rows = self._tool.database.execute(
            "SELECT value FROM system.events WHERE event = 'SelectedBytes'"
        )
        return sum(value for (value,) in rows)


def size_of(tool: BackupTool, table: str) -> int:
    """Return how many bytes the columns of a table have."""
    reads = Reads(tool)
    with reads.counted():
        tool.database.execute(f"SELECT count() FROM {table} WHERE NOT ignore(*)")
    return reads.bytes


@contextmanager
def growing(tool: BackupTool, insert: str) -> Iterator[None]:
    """Insert rows all the time, a thousand each."""
    stop, begun = threading.Event(), threading.Event()

    def work() -> None:
        with tool.database.client() as client:
            while not stop.is_set():
                client.execute(insert)
                begun.set()
                stop.wait(0.2)

    writer = threading.Thread(target=work)
    writer.start()
    try:
        assert begun.wait(60)
        yield
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize(
    ("columns", "engine", "policy"),
    [
        ("id UInt64, t DateTime", "MergeTree ORDER BY id", {"policy": "public"}),
        ("id UInt64, t DateTime", "ReplacingMergeTree ORDER BY (t, id)", BY_MONTH),
        (
            "id UInt64, t DateTime, v DateTime64(3) MATERIALIZED now64()",
            "ReplacingMergeTree(v) PARTITION BY toYYYYMM(t) ORDER BY id",
            BY_MONTH,
        ),
    ],
)
def test_a_table_that_grows_is_read_once(
    backup_tool: BackupTool, columns: str, engine: str, policy: dict[str, str]
) -> None:
    tool = backup_tool
    tool.database.execute(f"CREATE TABLE growing ({columns}, text String) ENGINE = {engine}")
    insert = (
        "INSERT INTO growing (id, t, text) SELECT rand64(), toDateTime('2024-01-01 00:00:00') +"
        " rand() % 2600000, randomPrintableASCII(300) FROM numbers({})"
    )
    tool.database.execute(insert.format(50_000))
    reads, before = Reads(tool), size_of(tool, "growing")
    with reads.counted(), growing(tool, insert.format(1000)):
        status, log = tool.run(tables={"growing": policy}, max_bandwidth=10_000_000)
    assert status == 0, log
    assert before < reads.bytes <= MOST_READ * size_of(tool, "growing"), log
    assert tool.run("verify")[0] == 0
    # Again, when it stands still: what came after the first query was taken.
    with reads.counted():
        status, log = tool.run(max_bandwidth=0)
    assert (status, "growing.csv.zstd: changed" in log or "growing_2024" in log) == (0, True), log
    assert reads.bytes <= MOST_READ * size_of(tool, "growing")
    (rows,) = tool.database.execute("SELECT count() FROM growing")
    assert sum(export.rows for export in tool.manifest("growing").exports) == rows[0]
    with reads.counted(), tool.unchanged():
        assert tool.run()[0] == 0
    assert reads.bytes < size_of(tool, "growing") / 20


# --- what is a change, and what is none ---


@pytest.fixture
def months(backup_tool: BackupTool) -> BackupTool:
    """A table of three months, exported while it has several parts."""
    execute = backup_tool.database.execute
    execute(
        "CREATE TABLE m (t DateTime, id UInt32, text String) ENGINE = MergeTree ORDER BY id"
        " SETTINGS enable_block_number_column = 0"
    )
    execute("SYSTEM STOP MERGES m")
    for month in (1, 2, 3):
        execute(f"INSERT INTO m SELECT '2024-0{month}-05', number, 'x' FROM numbers(100)")
    status, log = backup_tool.run(tables=MONTHS)
    assert status == 0, log
    assert not any(export.fingerprint.is_read for export in backup_tool.manifest("m").exports)
    execute("SYSTEM START MERGES m")
    return backup_tool


def exported_by(tool: BackupTool) -> list[str]:
    """Return the chunks that the next run exports; the one after it has nothing to do."""
    tokens = {name: export.token for name, export in tool.manifest("m").chunks.items()}
    status, log = tool.run()
    assert status == 0, log
    with tool.unchanged():
        status, log = tool.run()
    assert (status, "nothing to do" in log) == (0, True), log
    assert tool.verifies()
    return [
        name
        for name, export in tool.manifest("m").chunks.items()
        if tokens.get(name) != export.token
    ]


NOW = {"mutations_sync": 2}
CHANGES: dict[str, tuple[Sequence[str], list[str]]] = {
    "a merge": (["OPTIMIZE TABLE m FINAL"], []),
    "a merge, twice": (["OPTIMIZE TABLE m FINAL", "OPTIMIZE TABLE m FINAL"], []),
    "detached and attached": (["DETACH TABLE m", "ATTACH TABLE m"], []),
    "a late row": (["INSERT INTO m VALUES ('2024-02-01', 7, 'late')"], ["202402"]),
    "a late row, merged": (
        ["INSERT INTO m VALUES ('2024-02-01', 7, 'late')", "OPTIMIZE TABLE m FINAL"],
        # The part has rows of all months; of the others nobody knows.
        ["202401", "202402", "202403"],
    ),
    "a new month": (["INSERT INTO m VALUES ('2024-04-01', 7, 'new')"], ["202404"]),
    "a changed cell": (
        ["ALTER TABLE m UPDATE text = 'y' WHERE t = '2024-03-05' AND id = 5"],
        ["202401", "202402", "202403"],
    ),
    "a deleted row": (["DELETE FROM m WHERE t = '2024-03-05' AND id = 5"], ["202403"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_has_changed_is_exported(months: BackupTool, name: str) -> None:
    statements, chunks = CHANGES[name]
    for statement in statements:
        months.database.execute(statement, settings=NOW)
    exported = exported_by(months)
    if "deleted" in name:
        assert "202403" in exported
    else:
        assert exported == chunks


def test_what_was_read_once_decides_the_next_time(months: BackupTool) -> None:
    """A cell is changed, so all parts are written again; then another one."""
    change = "ALTER TABLE m UPDATE text = '{}' WHERE t = '2024-03-05' AND id = 5"
    months.database.execute(change.format("y"), settings=NOW)
    assert len(exported_by(months)) == 3
    months.database.execute(change.format("z"), settings=NOW)
    assert exported_by(months) == ["202403"]


def test_a_dropped_partition_exports_no_other_month(backup_tool: BackupTool) -> None:
    execute = backup_tool.database.execute
    execute(
        "CREATE TABLE m (t DateTime, id UInt32) ENGINE = MergeTree PARTITION BY toYYYYMM(t)"
        " ORDER BY id"
    )
    for _ in range(2):
        execute("INSERT INTO m SELECT addMonths(toDateTime('2024-01-05'), number % 3), number"
                " FROM numbers(300)")  # fmt: skip
    assert backup_tool.run(tables=MONTHS)[0] == 0
    execute("ALTER TABLE m DROP PARTITION 202401")
    execute("OPTIMIZE TABLE m FINAL")
    assert exported_by(backup_tool) == []
    execute("TRUNCATE TABLE m")
    assert exported_by(backup_tool) == []
    assert all(export.dropped for export in backup_tool.manifest("m").exports)


COLUMNS = "(t DateTime, id UInt32, text String)"
FILL = "INSERT INTO n SELECT t, id, 'y' FROM m"


@pytest.mark.parametrize(
    "make_another",
    [
        f"CREATE TABLE n AS m; {FILL}; EXCHANGE TABLES m AND n; DROP TABLE n",
        f"CREATE TABLE n AS m; {FILL}; DROP TABLE m SYNC; RENAME TABLE n TO m",
        f"CREATE TABLE n {COLUMNS} ENGINE = Log; {FILL}; DROP TABLE m SYNC; RENAME TABLE n TO m",
        "ALTER TABLE m MODIFY COLUMN text String TTL t + INTERVAL 1 DAY; OPTIMIZE TABLE m FINAL",
    ],
)
def test_another_table_of_this_name_has_other_rows(months: BackupTool, make_another: str) -> None:
    for statement in make_another.split("; "):
        months.database.execute(statement)
    assert exported_by(months) == ["202401", "202402", "202403"]


def test_a_database_without_uuids_knows_a_table_by_its_definition(months: BackupTool) -> None:
    """As databases of the engine Ordinary do, and the one that `clickhouse local` has."""
    execute = months.database.execute
    name = months.database.name.replace("test_", "m_")
    uri = months.config["clickhouse_url"]
    months.config["clickhouse_url"] = f"{uri.rpartition('/')[0]}/default"
    policy = {name: BY_MONTH, "*": "none"}
    create = f"CREATE TABLE default.{name} {COLUMNS} ENGINE = MergeTree ORDER BY id"
    fill = f"INSERT INTO default.{name} SELECT t, id, '{{}}' FROM m"
    try:
        execute(create)
        ((uuid,),) = execute(
            "SELECT toString(uuid) FROM system.tables"
            f" WHERE database = 'default' AND name = '{name}'"
        )
        if uuid != NO_TABLE:
            pytest.skip("on this server the database default gives tables a UUID")
        execute(fill.format("x"))
        time.sleep(1.1)  # times of definitions are whole seconds
        assert months.run(tables=policy)[0] == 0
        assert not any(export.fingerprint.is_read for export in months.manifest(name).exports)
        tokens = [export.token for export in months.manifest(name).exports]
        execute(f"OPTIMIZE TABLE default.{name} FINAL")
        assert "nothing to do" in months.run()[1]
        assert [export.token for export in months.manifest(name).exports] == tokens
        execute(f"DROP TABLE default.{name} SYNC")
        execute(create)
        execute(fill.format("y"))
        assert "3 chunks exported" in months.run()[1]
    finally:
        execute(f"DROP TABLE IF EXISTS default.{name} SYNC")


def test_a_default_that_was_never_written_can_change(backup_tool: BackupTool) -> None:
    execute = backup_tool.database.execute
    execute("CREATE TABLE m (t DateTime, id UInt32) ENGINE = MergeTree ORDER BY id")
    execute("INSERT INTO m VALUES ('2024-01-05', 1)")
    execute("ALTER TABLE m ADD COLUMN text String DEFAULT 'x'")
    assert backup_tool.run(tables=MONTHS)[0] == 0
    execute("ALTER TABLE m MODIFY COLUMN text String DEFAULT 'y'")
    assert exported_by(backup_tool) == ["202401"]
    assert b'"y"' in backup_tool.csv("m_202401.csv.zstd")


def test_an_interrupted_run_repeats_no_finished_chunk(
    months: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run of a table ends after one of three chunks."""
    for key in months.objects():
        months.client.delete_object(Bucket=months.bucket_name, Key=key)
    rows = ClickHouseHTTP.rows

    def failing(source: ClickHouseHTTP, select: str, *arguments: Any, **options: Any) -> Any:
        if "202402" in select:
            raise Unavailable("gone")
        return rows(source, select, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(ClickHouseHTTP, "rows", failing)
        assert months.run()[0] == 69
    (first,) = months.manifest("m").exports
    status, log = months.run()
    assert (status, "2 chunks exported" in log) == (0, True), log
    assert months.manifest("m").chunks["202401"].token == first.token


def test_parts_that_may_not_be_seen_tell_nothing(
    months: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the digest decides, and it is read before an export."""
    monkeypatch.setattr(exports.plan, "read_snapshot", lambda *_: None)
    months.database.execute("INSERT INTO m VALUES ('2024-04-01', 7, 'new')")
    assert len(exported_by(months)) == 4
    assert all(export.fingerprint.is_read for export in months.manifest("m").exports)
    months.database.execute("OPTIMIZE TABLE m FINAL")
    assert exported_by(months) == []


def test_the_manifest_of_many_parts_is_small(months: BackupTool) -> None:
    before = len(months.get(LAYOUT.manifest("m")))
    months.database.execute("SYSTEM STOP MERGES m")
    for number in range(30):
        months.database.execute(f"INSERT INTO m VALUES ('2024-03-01', {number}, 'x')")
    assert exported_by(months) == ["202403"]
    assert len(months.get(LAYOUT.manifest("m"))) < before + 200
