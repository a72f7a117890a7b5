"""Memory of each ClickHouse version that writes a table as Parquet, and of the tool that sends it.

python -m dev.bench parquet-versions     OONI_BENCH_ROWS=20000000 by default; `make compat` first

The older versions have no ports. So each engine runs the tool's own query and writes the file, and
then the tool gets that file from a proxy, as the answer of a server that has the same rows.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dev.bench.measure import Figures, forget_peak_of, peak_of
from dev.engines import VERSIONS, Engine, python_of
from dev.samples.measurements import create, fill
from dev.servers.fault_proxy import Exchange
from dev.servers.loopback import PIECE_BYTES, Request

sys.path.append(str(Path(__file__).resolve().parents[2] / "db-backup"))

from exports.csv_rows import OUTPUT_SETTINGS
from exports.parquet_rows import SETTINGS, ParquetFormat, texts_of
from exports.reader import Chunk, Reader
from ooni_common.database import SESSION, Database
from tables.inventory import Column, SourceTable
from tables.policy import TablePolicy

if TYPE_CHECKING:
    from clickhouse_driver import Client

    from exports.node_http import NodeHTTP

KEY = "measurement_start_time, report_id, input, measurement_uid"


def measure_versions(folder: Path, rows: int, send: Callable[[Path], Figures]) -> None:
    """Print the memory for each version, of one table of measurements in one chunk.

    Args:
        folder: for the engines' data and the files.
        rows: of the table.
        send: lets the tool export the table with this file as the server's answer.
    """
    print(f"{'':<12} {'engine':>22} {'the tool':>12} {'file':>10}")
    for version in VERSIONS:
        path = folder / f"{version}.parquet"
        engines = [Engine(python_of(version), folder / f"engine-{version}") for _ in range(2)]
        with engines[0] as engine:
            _fill(engine, rows)
        with engines[1] as engine:  # which has no memory left from that
            name = engine.version
            growth = _write(engine, path)
        figures = send(path)
        size = path.stat().st_size / 2**20
        print(f"{name:<12} {growth:+17.0f} MiB {figures.peak:8.0f} MiB {size:6.0f} MiB", flush=True)
        path.unlink()


def answer_with(path: Path) -> Callable[[Exchange], None]:
    """Return what answers queries for Parquet with a file; those that only try get nothing."""

    def answered(exchange: Exchange) -> None:
        query = b"".join(exchange.body())
        exchange.send_head(200, {"Transfer-Encoding": "chunked"})
        if not query.endswith(b"LIMIT 0 FORMAT Parquet"):
            with path.open("rb") as file:
                exchange.send_all(iter(lambda: file.read(PIECE_BYTES), b""))
        exchange.end()

    return answered


def wants_parquet(request: Request) -> bool:
    """Tell whether a request is a query for Parquet, by its settings."""
    return "output_format_parquet_row_group_size" in request.target


@dataclass(frozen=True)
class _Samples:
    """What of a client the samples use."""

    engine: Engine

    def execute(self, sql: str) -> None:
        """Run a statement."""
        # The engine of 24.8 was built without base64.
        self.engine.execute(sql.replace("base64Encode(", "base58Encode("))


def _fill(engine: Engine, rows: int) -> None:
    engine.execute("CREATE DATABASE bench ENGINE = Atomic")
    engine.execute("USE bench")
    client = cast("Client", _Samples(engine))
    create(client, "fastpath")
    fill(client, "fastpath", rows)


def _write(engine: Engine, path: Path) -> float:
    """Let an engine write the file; return by how many MiB its memory has grown for that."""
    engine.execute("USE bench")
    names = ", ".join(f"'{name}'" for name in SETTINGS)
    known = engine.rows(f"SELECT name FROM system.settings WHERE name IN ({names})")  # noqa: S608
    settings = {name: SETTINGS[name] for (name,) in known}
    for name, value in {**SESSION, **OUTPUT_SETTINGS, **settings}.items():
        engine.execute(f"SET {name} = {value!r}")
    query = _query(_reader(engine), settings)
    forget_peak_of(engine.pid)
    before = peak_of(engine.pid)
    engine.execute(f"{query} INTO OUTFILE '{path}' FORMAT Parquet")
    return peak_of(engine.pid) - before


def _reader(engine: Engine) -> Reader:
    columns = engine.rows(
        "SELECT name, type FROM system.columns WHERE table = 'fastpath' AND database = 'bench'"
        " ORDER BY position"
    )
    kinds = tuple(Column(*column) for column in columns)
    table = SourceTable("fastpath", "ReplacingMergeTree", kinds, KEY, "", "")
    return Reader(cast("Database", None), table, TablePolicy(policy="public"))


def _query(reader: Reader, settings: Mapping[str, object]) -> str:
    form = ParquetFormat(cast("NodeHTTP", None), settings)
    demand = " AND ".join(texts_of(reader).values())
    return reader.select(Chunk("", ""), demand, form.types(reader))
