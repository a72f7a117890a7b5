"""DuckDB, pandas and ClickHouse read the exports as the page says, and get the same values."""

import html
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest

from db_backup_harness import CSV, LAYOUT, BackupTool

FILE = "t_202601.csv.zstd"
ROWS = [
    "('2026-01-01 10:00:00', 1, NULL, 'plain')",
    "('2026-01-02 10:00:00', NULL, 1.5, 'a \"quoted\", \\\\N and\\nbroken line')",
    "('2026-01-03 10:00:00', 3, NULL, '\\\\N')",
    "('2026-01-04 10:00:00', 4, 2, 'NA')",
    "('2026-01-05 10:00:00', 5, NULL, '')",
]
TEXTS = ["plain", 'a "quoted", \\N and\nbroken line', "\\N", "NA", ""]


@pytest.fixture
def tool(backup_tool: BackupTool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BackupTool:
    """An export with numbers that are missing, and texts that look so; the folder has its file."""
    backup_tool.database.execute(
        "CREATE TABLE t (at DateTime, n Nullable(UInt32), f Nullable(Float64), s String)"
        " ENGINE = MergeTree ORDER BY at"
    )
    backup_tool.database.execute(f"INSERT INTO t VALUES {', '.join(ROWS)}")
    months = {"policy": "public", "chunk_by": "month", "column": "at"}
    assert backup_tool.run("export", tables={"t": months})[0] == 0
    (tmp_path / FILE).write_bytes(backup_tool.get(CSV + FILE))
    monkeypatch.chdir(tmp_path)
    return backup_tool


def snippet(tool: BackupTool, name: str) -> str:
    """Return an example of the page."""
    page = tool.get(LAYOUT.index).decode()
    match = re.search(rf'<pre id="{name}">(.*?)</pre>', page, re.DOTALL)
    assert match
    return html.unescape(match[1])


def test_duckdb_reads_an_export(tool: BackupTool) -> None:
    statement = snippet(tool, "duckdb")
    with duckdb.connect() as connection:
        assert connection.execute(statement).fetchall() == [(len(ROWS),)]
        rows = connection.execute(statement.replace("count(*)", "n, f, s", 1)).fetchall()
    assert [row[0] for row in rows] == [1, None, 3, 4, 5]
    assert [row[1] for row in rows] == [None, 1.5, None, 2.0, None]
    assert [row[2] for row in rows] == TEXTS


def test_pandas_reads_an_export(tool: BackupTool) -> None:
    names: dict[str, Any] = {}
    exec(snippet(tool, "pandas"), names)
    rows = names["rows"]
    assert rows["n"].sum() == 13
    assert (rows["n"].dtype, int(rows["n"].isna().sum())) == ("Int64", 1)
    assert int(rows["f"].isna().sum()) == 3
    # A text that is \N is one of the values that pandas can't tell from a missing one.
    assert rows["s"].fillna("\\N").tolist() == TEXTS


@pytest.mark.parametrize("name", ["url", "s3"])
def test_clickhouse_reads_an_export_from_where_it_is(tool: BackupTool, name: str) -> None:
    tool.client.put_object_acl(Bucket=tool.bucket_name, Key=CSV + FILE, ACL="public-read")
    base = f"{tool.s3.endpoint}/{tool.bucket_name}/{LAYOUT.prefix}"
    statement = snippet(tool, name).replace("BASE", base)
    assert tool.database.execute(statement) == [(len(ROWS),)]
    rows = tool.database.execute(statement.replace("count()", "groupArray(s), sum(n), count(f)"))
    assert rows == [(TEXTS, 13, 2)]


def test_the_page_names_the_licence(tool: BackupTool) -> None:
    page = tool.get(LAYOUT.index).decode()
    assert "https://creativecommons.org/licenses/by-nc-sa/4.0/" in page
