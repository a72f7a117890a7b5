"""What a plain export of a table looks like: the yardstick of `make bench`.

It checks nothing and uploads nothing: rows by the driver, csv, zstandard, a file.

    python -m dev.bench.plain_csv_export URI TABLE FILE
"""

import csv
import io
import sys
from pathlib import Path

import zstandard
from clickhouse_driver import Client


def main() -> None:
    """Read, write as CSV, compress."""
    uri, table, file = sys.argv[1:]
    with (
        Client.from_url(uri) as client,
        zstandard.open(Path(file), "wb") as compressed,
        io.TextIOWrapper(compressed, newline="") as text,
    ):
        rows = client.execute_iter(f"SELECT * FROM {table}", with_column_types=True)  # noqa: S608
        writer = csv.writer(text)
        writer.writerow(name for name, _ in next(rows))
        writer.writerows(rows)


if __name__ == "__main__":
    main()
