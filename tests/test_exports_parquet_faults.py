"""Parquet that fails, or comes late: the CSV goes on, and nothing that was exported is lost."""

import pytest

from db_backup_harness import BackupTool
from exports.export import Exporter
from exports.parquet_rows import ParquetRows
from exports.steps import Step
from ooni_common.errors import DataRefused, ScriptError, Unavailable
from test_exports_parquet import BOTH, MONTHS, PARQUET, export_of, parquets, times, tool

__all__ = ["tool"]  # a fixture

pytestmark = pytest.mark.long
CSV_ALONE = {"formats": ["csv.zstd"]}


def make(tool: BackupTool, engine: str, rows: int = 100) -> dict[str, object]:
    """Make a table of two months and export it as CSV; return the policy."""
    tool.database.execute(
        f"CREATE TABLE r (at DateTime, n UInt32, v UInt32) ENGINE = {engine} ORDER BY n"
        " PARTITION BY toYYYYMM(at)"
    )
    if engine != "MergeTree":
        tool.database.execute("SYSTEM STOP MERGES r")
    for version in range(3):
        for month in (1, 2):
            tool.database.execute(
                f"INSERT INTO r SELECT '2026-0{month}-01', number + {month * 1000}, {version}"
                f" FROM numbers({rows})"
            )
    policy: dict[str, object] = {"r": MONTHS}
    assert tool.run("export", tables=policy, **CSV_ALONE)[0] == 0
    return policy


@pytest.mark.parametrize("kept", [0, 10])
def test_rows_that_are_gone_while_parquet_is_added_take_no_csv_away(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    policy = make(tool, "MergeTree")
    content = tool.csv("r_202601.csv.zstd")
    export = Exporter._export

    def lose(exporter: Exporter, steps: list[Step]) -> list[ScriptError]:
        tool.database.execute(
            f"ALTER TABLE r DELETE WHERE toYYYYMM(at) = 202601 AND (n >= {1000 + kept} OR v > 0)"
            " SETTINGS mutations_sync = 2"
        )
        return export(exporter, steps)

    with monkeypatch.context() as patched:
        patched.setattr(Exporter, "_export", lose)
        status, log = tool.run("export", tables=policy, retries=2, **BOTH)
    assert (status, f"the database counts {kept} now" in log) == (69, True), log
    assert tool.csv("r_202601.csv.zstd") == content
    assert export_of(tool, "202601", "r").rows == 300
    status, _ = tool.run("export")
    assert status == (65 if kept else 0)  # too few rows; no row at all: it is dropped
    assert tool.csv("r_202601.csv.zstd") == content


def test_what_was_merged_since_its_csv_was_exported_comes_in_both_at_once(
    tool: BackupTool,
) -> None:
    policy = make(tool, "ReplacingMergeTree")
    tool.database.execute("SYSTEM START MERGES r")
    tool.database.execute("OPTIMIZE TABLE r FINAL")
    status, log = tool.run("export", tables=policy, retries=0, **BOTH)
    assert (status, "trying again" in log) == (0, False), log
    assert [export_of(tool, month, "r").rows for month in ("202601", "202602")] == [100, 100]
    assert tool.verifies()
    assert "nothing to do" in tool.run("export")[1]


def test_a_database_that_does_not_answer_over_http_is_not_asked_for_each_chunk(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make(tool, "MergeTree")
    attempts = []

    def fail(*_: object) -> int:
        attempts.append(1)
        raise Unavailable("database over HTTP: Connection refused")

    with monkeypatch.context() as patched:
        patched.setattr(ParquetRows, "send", fail)
        status, log = tool.run("export", tables=policy, retries=1, **BOTH)
    assert (status, len(attempts)) == (69, 2), log
    assert "r: no Parquet any more in this run" in log
    assert tool.run("export", "--force")[0] == 0
    assert len([name for name in parquets(tool) if name.startswith("r_")]) == 2


def test_where_the_parquet_of_a_changed_chunk_fails_the_old_one_goes(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make(tool, "MergeTree")
    assert tool.run("export", tables=policy, **BOTH)[0] == 0
    before = times(tool)
    tool.database.execute("INSERT INTO r VALUES ('2026-01-02', 1, 1)")

    def fail(*_: object) -> int:
        raise DataRefused("not this one")

    with monkeypatch.context() as patched:
        patched.setattr(ParquetRows, "send", fail)
        status, log = tool.run("export")
    assert (status, "not this one" in log) == (65, True), log
    assert before.keys() - times(tool).keys() == {f"{PARQUET}r_202601.parquet"}
    assert tool.verifies()
    assert tool.run("export")[0] == 0
    assert times(tool).keys() == before.keys()


def test_another_server_than_the_one_that_has_counted_is_refused(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make(tool, "MergeTree")
    with monkeypatch.context() as patched:
        patched.setattr("exports.clickhouse_http.ClickHouseHTTP.value", lambda *_: "another")
        status, log = tool.run("export", tables=policy, **BOTH)
    assert (status, "is another server than db_uri reaches" in log) == (69, True), log
    assert tool.run("export")[0] == 0
