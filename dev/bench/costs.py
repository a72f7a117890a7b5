"""What exports and backups of `fastpath` cost here, a row and a request: for dev/scale.toml.

    python -m dev.bench.costs [ROWS]

Of time, only what processors have done is taken: that is the same on a busy machine. Prints TOML.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from clickhouse_driver import Client

from dev.bench.__main__ import ENVIRONMENT, MONTHS, backup_command, sample_fastpath
from dev.bench.measure import Contender, run, seconds_of
from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.servers.fault_proxy import FaultProxy
from dev.servers.s3 import contents

ROWS = 1_000_000
PARTS = "SELECT sum(data_uncompressed_bytes), sum(bytes_on_disk) FROM system.parts WHERE active"
KEY = (
    "SELECT sum(data_uncompressed_bytes) FROM system.columns"
    " WHERE table = 'fastpath' AND (is_in_sorting_key OR name = 'update_time')"
)


def main() -> None:
    """Export, verify, restore, back up and restore; print what each of them costs."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory(prefix="ooni-costs-") as name:
        folder = Path(name)
        with (
            sample_fastpath(folder, rows) as (db, s3),
            FaultProxy(s3.endpoint) as store,
            Client.from_url(db.uri()) as client,
        ):
            s3.create_bucket("ooni-private")
            sizes = (*client.execute(PARTS)[0], client.execute(KEY)[0][0])
            public = backup_command(folder, db, store.url, "public", chunks=MONTHS)
            private = backup_command(folder, db, store.url, "private", chunks=MONTHS)
            steps = {
                "export": [*public, "run"],
                "unchanged": [*public, "run"],
                "verify": [*public, "verify"],
                "restore": [*public, "restore", "fastpath", "--as", "of_export"],
                "backup": [*private, "backup", "--full"],
                "restore_backup": [*private, "restore", "fastpath", "--as", "of_backup"],
            }
            costs = {name: cost(steps[name], db, store, rows) for name in steps}
            exported = sum(contents(s3.client(), "ooni-data").values()) / rows
            saved = sum(contents(s3.client(), "ooni-private").values()) / rows
    print(f"[costs]  # of {rows:,} rows in 12 chunks")
    for name, value in zip(("uncompressed", "on_disk", "key"), sizes, strict=True):
        print(f"{name} = {value / rows:.1f}  # bytes a row")
    print(f"exported = {exported:.1f}\nsaved = {saved:.1f}")
    start = costs.pop("unchanged")
    seconds = start["tool"] * rows / 1e6
    print(f"# A run that has nothing to do: {start['requests']} requests, and {seconds:.2f} s of")
    print("# processors, which the others take for their start, too: it is left out here.")
    for name, figures in costs.items():
        tool, server = (max(figures[key] - start[key], 0) for key in ("tool", "server"))
        listed = f"tool = {tool:.2f}, server = {server:.2f}, memory = {figures['memory']:.0f}"
        print(f"{name} = {{ {listed} }}  # {figures['requests']} requests")


def cost(
    command: Sequence[str], db: EmbeddedClickHouse, store: FaultProxy, rows: int
) -> Mapping[str, float]:
    """Run a command; return microseconds of processors a row, MiB of memory, and requests."""
    before, asked = seconds_of(db.pid), len(store.requests)
    figures = run(Contender(command), ENVIRONMENT)
    server = seconds_of(db.pid) - before
    return {
        "tool": figures.cpu / rows * 1e6,
        "server": server / rows * 1e6,
        "memory": figures.peak,
        "requests": len(store.requests) - asked,
    }


if __name__ == "__main__":
    main()
