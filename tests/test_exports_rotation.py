"""The rotation: what the parts of a table can't tell is found within so many runs."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from db_backup_harness import LAYOUT, BackupTool, wait_until
from exports.chunks import digests
from exports.manifest import now
from exports.plan import Plan
from exports.rotation import RUNS, Rotation, due, looked_at
from ooni_common.database import StatementFailed
from test_exports_levels import BY_MONTH, INSERT, exported_by

pytestmark = pytest.mark.rotation

FEW_RUNS = 3
MONTHS = ["202401", "202402", "202403", "202404", "202405"]
LOOKS = re.compile(r"m: [0-9.,]+ \w+ read for the rotation: (\d+) chunk")


def make(tool: BackupTool, engine: str = "MergeTree") -> None:
    """Make a table of five months with two rows for each ID, of which a policy shows one."""
    execute = tool.database.execute
    execute(
        "CREATE TABLE m (t DateTime, id UInt32, v UInt32, text String)"
        f" ENGINE = {engine} ORDER BY (t, id, v)"
    )
    for month in range(1, 6):
        for version in (1, 2):
            execute(INSERT.format(month, version, 100))


def show(monkeypatch: pytest.MonkeyPatch, condition: str) -> None:
    """Let the server show some rows only, as a row policy does: no part tells of it."""
    settings = {"priority": 10, "additional_table_filters": f"{{'m': '{condition}'}}"}
    monkeypatch.setattr("backup_config.Config.query_settings", settings)


def exported_within(tool: BackupTool, runs: int) -> list[str]:
    """Return what so many runs export, each in a second of its own: manifests have no fractions."""
    names: list[str] = []
    for _ in range(runs):
        second = now()
        wait_until(lambda second=second: now() != second)  # type: ignore[misc]
        names += exported_by(tool)
    return sorted(names)


@pytest.mark.long
@pytest.mark.parametrize("engine", ["MergeTree", "ReplacingMergeTree"])
def test_what_only_a_digest_sees_is_found(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setattr("exports.rotation.RUNS", FEW_RUNS)
    make(backup_tool, engine)
    show(monkeypatch, "v = 1")
    assert backup_tool.run(tables={"m": BY_MONTH})[0] == 0
    # The first looks only see whether rows are as many, and keep a digest.
    assert exported_within(backup_tool, FEW_RUNS) == []
    assert all(export.fingerprint.is_read for export in backup_tool.manifest("m").exports)
    show(monkeypatch, "v = if(toYYYYMM(t) = 202403, 2, 1)")
    backup_tool.database.execute("OPTIMIZE TABLE m FINAL")
    assert exported_within(backup_tool, FEW_RUNS) == ["202403"]
    assert b",2," in backup_tool.csv("m_202403.csv.zstd")
    assert exported_within(backup_tool, FEW_RUNS) == []


@pytest.mark.long
def test_a_look_sees_other_numbers_of_rows_but_never_replaces_many_by_few(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exports.rotation.RUNS", FEW_RUNS)
    make(backup_tool)
    show(monkeypatch, "v = 1 OR id < 10")
    assert backup_tool.run(tables={"m": BY_MONTH})[0] == 0
    show(monkeypatch, "v = 1 OR id < 12")
    assert exported_within(backup_tool, FEW_RUNS) == MONTHS
    show(monkeypatch, "id < 20")
    for _ in range(FEW_RUNS):
        status, log = backup_tool.run()
    assert (status, "too many rows are gone" in log) == (65, True), log


@pytest.mark.long
def test_a_run_looks_at_its_share_also_after_one_that_was_interrupted(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exports.rotation.RUNS", FEW_RUNS)
    make(backup_tool)
    assert backup_tool.run(tables={"m": BY_MONTH})[0] == 0
    assert backup_tool.manifest("m").looks == {}
    with monkeypatch.context() as patched:
        patched.setattr("exports.export.Exporter.carry_out", interrupt)
        with pytest.raises(KeyboardInterrupt):
            backup_tool.run()
    seen = []
    for _ in range(FEW_RUNS):
        status, log = backup_tool.run()
        assert (status, len(LOOKS.findall(log))) == (0, 1), log
        seen.append(len(backup_tool.manifest("m").looks))
    assert seen == [2, 4, 5]
    assert "would keep" in backup_tool.run("--dry-run")[1]


def make_replacing(tool: BackupTool) -> None:
    """Make a table of two months whose rows are there twice until they are merged; export it."""
    execute = tool.database.execute
    execute(
        "CREATE TABLE m (t DateTime, id UInt32, v UInt32, text String)"
        " ENGINE = ReplacingMergeTree(v) ORDER BY (t, id)"
    )
    execute("SYSTEM STOP MERGES m")
    for month in (1, 2):
        for version in (1, 2):
            execute(INSERT.format(month, version, 100))
    assert tool.run(tables={"m": BY_MONTH})[0] == 0


def merge(tool: BackupTool) -> None:
    """Let each row be there once."""
    tool.database.execute("SYSTEM START MERGES m")
    tool.database.execute("OPTIMIZE TABLE m FINAL")


@pytest.mark.long
def test_a_row_that_comes_before_a_first_digest_is_read_is_exported(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_replacing(backup_tool)
    monkeypatch.setattr("exports.rotation.RUNS", 1)
    merge(backup_tool)

    def looked_at_late(*arguments: Any) -> Plan:
        late = "INSERT INTO m VALUES ('2024-01-05 00:00:00', 777, 9, 'LATE')"
        backup_tool.database.execute(late)
        return looked_at(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr("exports.export_command.looked_at", looked_at_late)
        assert exported_by(backup_tool) == []
    exports = backup_tool.manifest("m").chunks
    assert [exports[name].fingerprint.is_read for name in MONTHS[:2]] == [False, True]
    assert list(backup_tool.manifest("m").looks) == ["202402"]
    assert exported_by(backup_tool) == ["202401"]
    assert b"LATE" in backup_tool.csv("m_202401.csv.zstd")


@pytest.mark.long
def test_merges_leave_a_digest_of_what_they_leave(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exports.rotation.RUNS", 1)
    make_replacing(backup_tool)
    assert exported_by(backup_tool) == []
    before = backup_tool.manifest("m").chunks["202401"].fingerprint
    assert (before.is_read, before.rows, before.merged) == (True, 200, 100)
    merge(backup_tool)
    manifest = backup_tool.manifest("m")
    manifest.surveyed = ""  # so all rows are counted
    backup_tool.put(LAYOUT.manifest("m"), msgspec.json.encode(manifest))
    monkeypatch.setattr("exports.export_command.looked_at", lambda *given: given[2])  # the plan
    assert exported_by(backup_tool) == []
    after = backup_tool.manifest("m").chunks["202401"].fingerprint
    assert after == msgspec.structs.replace(before, rows=100)


@pytest.mark.parametrize(
    ("months", "turns"), [([2], [1, 2, 3, 4]), ([1, 2, 3, 4], [1, 2, 3])], ids=["chunk", "server"]
)
def test_a_look_that_fails_holds_up_neither_the_table_nor_the_others(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch, months: list[int], turns: list[int]
) -> None:
    monkeypatch.setattr("exports.rotation.RUNS", 1)
    make(backup_tool)
    assert backup_tool.run(tables={"m": BY_MONTH})[0] == 0
    backup_tool.database.execute("INSERT INTO m VALUES ('2024-05-06 00:00:00', 777, 9, 'LATE')")
    sick = {f"20240{month}" for month in months}

    def digests_of_some(reader: Any, chunks: list[Any], **how: bool) -> dict[str, Any]:
        if sick & {chunk.name for chunk in chunks}:
            raise StatementFailed("database: a broken part", 40, "")
        return digests(reader, chunks, **how)

    monkeypatch.setattr("exports.rotation.digests", digests_of_some)
    status, log = backup_tool.run()
    told = re.findall(r"m: 20240(\d): the rotation could not read it: database: a broken part", log)
    assert (status, sorted(map(int, told))) == (69, months[:3]), log
    assert b"LATE" in backup_tool.csv("m_202405.csv.zstd")
    assert sorted(backup_tool.manifest("m").looks) == [f"20240{month}" for month in turns]


def interrupt(*_: object) -> None:
    """End a run in the middle."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("chunks", [1, 3, 25, 26, 27, 100, 1000])
def test_all_chunks_are_looked_at_within_so_many_runs(tmp_path: Path, chunks: int) -> None:
    rotation, looks = Rotation(tmp_path), []
    for _ in range(2 * RUNS):
        looks.append(rotation.share("m", chunks))
        rotation.end_run("m")
        rotation = Rotation(tmp_path)
    assert all(sum(looks[first : first + RUNS]) >= chunks for first in range(RUNS))
    assert max(looks) <= -(-chunks // RUNS)


@dataclass
class _Export:
    finished: str


@dataclass
class _Chunk:
    name: str


@dataclass
class _Step:
    chunk: _Chunk
    last: _Export
    reason: str = field(default="unchanged")


def test_those_come_first_whose_rows_were_read_longest_ago() -> None:
    steps = [
        _Step(_Chunk(name), _Export(f"2026-01-0{day}T00:00:00Z"), reason)
        for name, day, reason in (
            ("a", 3, "unchanged"),
            ("b", 1, "unchanged"),
            ("c", 1, "changed"),
            ("d", 1, "unchanged"),
            ("e", 2, "unchanged"),
        )
    ]
    looks = {
        "b": "2026-01-04T00:00:00Z",
        "gone": "2026-01-05T00:00:00Z",
        "d": "2099-01-01T00:00:00Z",  # by a clock that was wrong
    }
    names = [step.chunk.name for step in due(steps, looks, 3)]  # type: ignore[arg-type]
    assert names == ["d", "e", "a"]
