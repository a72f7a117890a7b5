"""What an export reads to decide what has changed, beside the bytes of the key columns.

python -m dev.bench backup-levels     OONI_BENCH_ROWS=50000000 by default
"""

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from datetime import date

from clickhouse_driver import Client

from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.samples.measurements import create, fill

ROWS = int(os.environ.get("OONI_BENCH_ROWS", "50000000"))
DAYS = 1095  # three years, so that a week is 0.6 % of them
KEY = "measurement_start_time, report_id, input, measurement_uid"
READ = re.compile(r"fastpath: ([0-9.,]+) (\w+) read to decide")
LOOKED = re.compile(r"fastpath: ([0-9.,]+) (\w+) read for the rotation")
UNITS = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}


def fill_years(db: EmbeddedClickHouse) -> None:
    """Create `fastpath` with three years of rows, a month at a time, as they would come."""
    with Client.from_url(db.uri(send_receive_timeout=3600)) as client:
        create(client, "fastpath")
        fill(client, "fastpath", ROWS, start=date(2021, 1, 1), days=DAYS)


def measure_levels(command: Sequence[str], db: EmbeddedClickHouse) -> None:
    """Export the table, change it, export again, and print what that has read to decide."""
    with Client.from_url(db.uri(send_receive_timeout=3600)) as client:
        client.execute(f"SELECT count() FROM fastpath WHERE NOT ignore({KEY})")  # noqa: S608
        key = client.last_query.progress.bytes
        print(f"key columns: {key / 1e6:,.1f} MB")

        def statement(sql: str) -> Callable[[], object]:
            return lambda: client.execute(sql)

        def week() -> None:
            for day in range(7):
                fill(client, "fastpath", ROWS // DAYS, start=date(2024, 1, 1 + day), days=1)

        def late_day() -> None:
            fill(client, "fastpath", ROWS // DAYS // 10, start=date(2022, 2, 2), days=1)

        steps: dict[str, tuple[Callable[[], object], str]] = {
            "the first run": (lambda: None, ""),
            "nothing new": (lambda: None, "at most 0.1 %"),
            "a new week": (week, "at most 1 %"),
            "OPTIMIZE FINAL": (statement("OPTIMIZE TABLE fastpath FINAL"), "at most 10 %"),
            "a late day": (late_day, "at most 1 %"),
        }
        for name, (change, goal) in steps.items():
            change()
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            log = done.stderr + done.stdout
            size, looked = (bytes_in(log, pattern) for pattern in (READ, LOOKED))
            wanted = f" (goal: {goal})" if goal else ""
            last = log.strip().splitlines()[-1]
            print(f"{name:<16} {size / 1e3:>12,.1f} kB  {100 * size / key:8.4f} %{wanted}", end="")
            print(f"; rotation: {100 * looked / key:.2f} %  {last}")


def bytes_in(log: str, pattern: re.Pattern[str]) -> float:
    """Return how many bytes a log says, in a line of this pattern; 0 without one."""
    return sum(
        float(number.replace(",", "")) * UNITS[unit] for number, unit in pattern.findall(log)
    )
