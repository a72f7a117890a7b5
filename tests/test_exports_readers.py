"""DuckDB, pandas, ClickHouse and the shell read the exports as the pages say."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import duckdb
import jsonschema
import pytest

from db_backup_harness import CSV, LAYOUT, BackupTool
from portal.places import Places
from test_portal import SCHEMA

PLACES = Places(LAYOUT)
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


def snippet(tool: BackupTool, name: str, key: str = PLACES.page("t")) -> str:
    """Return an example of a page."""
    page = tool.get(key).decode()
    match = re.search(rf'<pre id="{name}"[^>]*>(.*?)</pre>', page, re.DOTALL)
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


def test_the_page_says_what_an_example_prints(tool: BackupTool) -> None:
    page = tool.get(PLACES.page("t")).decode()
    assert page.count(f"<samp>{len(ROWS)}</samp>") == 4
    results = page.count("<p>Result: ")
    assert results == page.count("<pre id="), "each of the examples says it"
    assert f"These lines are for <code>{FILE}</code>. For another file, put in its name" in page


# --- a month of one country ---

MEASUREMENTS = """
('2026-01-01 10:00:00', 'a', 'IT', 1), ('2026-01-01 10:00:00', 'a', 'IT', 1),
('2026-01-02 10:00:00', 'b', 'DE', 2), ('2026-01-03 10:00:00', 'c', 'IT', 3)
"""


@pytest.fixture
def measurements(
    backup_tool: BackupTool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> BackupTool:
    """An export in which a measurement of Italy is there twice, and one is of Germany."""
    database = backup_tool.database
    database.execute(
        "CREATE TABLE t (measurement_start_time DateTime, measurement_uid String,"
        " probe_cc String, version UInt8, msm_failure Enum8('f' = 1, 't' = 2) DEFAULT 'f')"
        " ENGINE = ReplacingMergeTree ORDER BY measurement_start_time"
    )
    database.execute("SYSTEM STOP MERGES t")
    for row in MEASUREMENTS.replace("),", ");").split(";"):
        database.execute(f"INSERT INTO t (* EXCEPT msm_failure) VALUES {row.strip()}")
    months = {"policy": "public", "chunk_by": "month", "column": "measurement_start_time"}
    assert backup_tool.run("export", tables={"t": months})[0] == 0
    (tmp_path / FILE).write_bytes(backup_tool.get(CSV + FILE))
    monkeypatch.chdir(tmp_path)
    return backup_tool


def test_each_tool_loads_a_month_of_one_country(
    measurements: BackupTool, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = measurements
    with duckdb.connect() as connection:
        last = connection.execute(snippet(tool, "duckdb-country"))
        assert last.fetchall() == [(2,)], "it prints the number of rows"
        flags = connection.execute("SELECT DISTINCT typeof(msm_failure) FROM country").fetchall()
        rows = connection.execute("SELECT measurement_uid FROM country ORDER BY 1").fetchall()
    assert rows == [("a",), ("c",)]
    names: dict[str, Any] = {}
    exec(snippet(tool, "pandas-country"), names)
    assert capsys.readouterr().out == "2\n"
    assert sorted(names["rows"]["measurement_uid"]) == ["a", "c"]
    assert (flags, set(names["rows"]["msm_failure"])) == ([("BOOLEAN",)], {"f"})
    assert "<dt>t and f</dt>" in tool.get(LAYOUT.index).decode(), "these two differ"
    publish_all(tool)
    statement = snippet(tool, "url-country").replace("BASE", address(tool))
    rows = tool.database.execute(f"SELECT measurement_uid FROM ({statement}) ORDER BY 1")
    assert rows == [("a",), ("c",)]


# --- the shell ---


def publish_all(tool: BackupTool) -> None:
    """Let everybody read the bucket."""
    for key in tool.objects():
        tool.client.put_object_acl(Bucket=tool.bucket_name, Key=key, ACL="public-read")


def address(tool: BackupTool) -> str:
    """Return where the exports are for everybody."""
    return f"{tool.s3.endpoint}/{tool.bucket_name}/{LAYOUT.prefix}"


def shell(tool: BackupTool, name: str, key: str) -> str:
    """Run an example of a page in the current folder; return what it prints."""
    text = snippet(tool, name, key).replace("BASE", address(tool))
    done = subprocess.run(
        ["bash", "-ec", text], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


needs = [
    pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} isn't installed")
    for name in ("wget", "zstd", "jq")
]


@needs[0]
@needs[1]
def test_the_shell_downloads_checks_and_shows_a_file(tool: BackupTool) -> None:
    publish_all(tool)
    Path(FILE).unlink()
    printed = shell(tool, "shell", PLACES.page("t"))
    assert printed.startswith(
        f'{FILE}: OK\n"at","n","f","s"\n"2026-01-01 10:00:00",1,\\N,"plain"\n'
    )


@needs[0]
def test_one_command_downloads_everything_and_the_next_one_checks_it(tool: BackupTool) -> None:
    publish_all(tool)
    for name in ("download-all", "check"):
        shell(tool, name, LAYOUT.index)
    assert Path("csv", FILE).read_bytes() == tool.get(CSV + FILE)
    Path("csv", FILE).write_bytes(b"x")
    with pytest.raises(AssertionError):
        shell(tool, "check", LAYOUT.index)


@needs[0]
@needs[2]
def test_programs_ask_what_has_changed_since_a_day(tool: BackupTool) -> None:
    publish_all(tool)
    assert shell(tool, "since", LAYOUT.index).endswith(f"Z csv/{FILE}\n")


# --- Parquet ---


@pytest.mark.long
def test_each_tool_reads_parquet_as_the_page_says(
    backup_tool: BackupTool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, name = backup_tool, "t_202601.parquet"
    tool.database.execute("CREATE TABLE t (at DateTime, s String) ENGINE = MergeTree ORDER BY at")
    tool.database.execute("INSERT INTO t VALUES ('2026-01-01 10:00:00', '\\\\N'), (0, 'x')")
    months = {"policy": "public", "chunk_by": "month", "column": "at"}
    formats = ["csv.zstd", "parquet"]
    assert tool.run("export", tables={"t": months}, formats=formats)[0] == 0
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(tool.get(f"{LAYOUT.parquets}{name}"))
    with duckdb.connect() as connection:
        statement = snippet(tool, "duckdb-parquet")
        assert connection.execute(statement).fetchall() == [(1,)]
        rows = connection.execute(statement.replace("count(*)", "s", 1)).fetchall()
    assert rows == [("\\N",)]
    names: dict[str, Any] = {}
    exec(snippet(tool, "pandas-parquet"), names)
    assert names["rows"]["s"].tolist() == ["\\N"]
    publish_all(tool)
    statement = snippet(tool, "url-parquet").replace("BASE", address(tool))
    assert tool.database.execute(statement) == [(1,)]


@needs[0]
@pytest.mark.long
def test_one_command_downloads_all_files_of_parquet(
    tool: BackupTool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PLACES.parquet_urls not in tool.objects()
    assert "download-parquet" not in tool.get(LAYOUT.index).decode()
    assert tool.run("export", formats=["csv.zstd", "parquet"])[0] == 0
    publish_all(tool)
    for name in ("download-parquet", "check"):
        shell(tool, name, LAYOUT.index)
    parquet = "parquet/t_202601.parquet"
    assert Path(parquet).read_bytes() == tool.get(f"{LAYOUT.prefix}/{parquet}")
    page = tool.get(PLACES.page("t")).decode()
    assert f'<a href="../{parquet}"' in page
    index = json.loads(tool.get(PLACES.catalogue))
    file = index["tables"][0]["files"][0]["parquet"]
    assert (file["path"], file["bytes"]) == (parquet, Path(parquet).stat().st_size)
    jsonschema.validate(index, json.loads(Path(SCHEMA).read_text()))
    assert tool.run("export", formats=["csv.zstd"])[0] == 0
    assert PLACES.parquet_urls not in tool.objects()
    _style, body, shown = tool.get(PLACES.page("t")).decode().lower().partition("<body")
    assert body
    assert "parquet" not in shown
