"""Exports on a server in another time zone: the same bytes on every version of the engine.

What a session's zone reaches differs from version to version; so the statements name the zone.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

import times_table
from dev.engines import VERSIONS, Engine, python_of
from engine_client import EngineClient
from exports.chunks import survey
from exports.clickhouse_http import INPUT_SETTINGS
from exports.csv_rows import OUTPUT_SETTINGS
from exports.plan import types_of
from exports.reader import Chunk, Reader
from exports.restore import insert_statement
from ooni_common.database import SESSION, Database
from tables.inventory import Column, SourceTable
from tables.policy import TablePolicy
from tables.staging import Place
from times_table import COLUMNS, ZONES

pytestmark = pytest.mark.compat


@pytest.fixture(params=VERSIONS)
def zoned_engine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Engine]:
    """An engine in Kolkata, with a table that was made there, and a session in UTC."""
    python = python_of(request.param)
    if not python.exists():
        pytest.skip(f"ClickHouse {request.param} is not installed here: `make compat` does it")
    monkeypatch.setenv("TZ", ZONES[0])
    with Engine(python, tmp_path / "engine") as engine:
        engine.execute("CREATE DATABASE zoned ENGINE = Atomic")
        engine.execute("USE zoned")
        for name in ("times", "back"):
            engine.execute(times_table.create(name, "PARTITION BY toYYYYMM(at)"))
        engine.execute(times_table.fill("times"))
        for name, value in (SESSION | OUTPUT_SETTINGS | INPUT_SETTINGS).items():
            engine.execute(f"SET {name} = {value!r}")
        yield engine


def test_chunks_have_the_same_bytes_and_can_be_restored(
    zoned_engine: Engine, tmp_path: Path
) -> None:
    columns = tuple(Column(*column) for column in COLUMNS.items())
    table = SourceTable("times", "MergeTree", columns, "at", "", "")
    policy = TablePolicy(policy="public", chunk_by="month", column="at")
    reader = Reader(Database(EngineClient(zoned_engine)), table, policy, in_utc=False)
    chunks: list[Chunk] = [chunk for chunk, _ in survey(reader, [])]
    exported = {
        chunk.name: zoned_engine.execute(reader.select(chunk), "CSVWithNames").decode()
        for chunk in chunks
    }
    assert exported == {
        "202412": times_table.exported(2024),
        "202501": times_table.exported(2025),
    }
    insert = insert_statement(
        Place("zoned", "back"), list(COLUMNS.items()), types_of(reader), in_utc=False
    )
    for name, content in exported.items():
        path = tmp_path / f"{name}.csv"
        path.write_text(content)
        # As the embedded server does it: chDB runs input() without any rows.
        source = f"file('{path}', 'CSVWithNames', "
        zoned_engine.execute(insert.replace("input(", source).removesuffix(" FORMAT CSVWithNames"))
    same = "SELECT groupArray(formatRow('RowBinary', *)) FROM (SELECT * FROM {} ORDER BY at)"
    assert zoned_engine.execute(same.format("back")) == zoned_engine.execute(same.format("times"))
    parts = "SELECT partition, sum(rows) FROM system.parts WHERE active AND table = '{}' GROUP BY 1"
    assert sorted(zoned_engine.rows(parts.format("back"))) == sorted(
        zoned_engine.rows(parts.format("times"))
    )
