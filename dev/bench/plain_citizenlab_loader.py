"""What a plain loader of the test lists looks like: the yardstick of `make bench`.

It trusts everything: git checks the repository out, csv.DictReader reads it, a list of dicts goes
in with one INSERT, and EXCHANGE makes it live.

    python -m dev.bench.plain_citizenlab_loader GIT_URL DB_URI
"""

import csv
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from clickhouse_driver import Client

COLUMNS = "(domain String, url String, cc FixedString(32), category_code String)"
ENGINE = "ENGINE = ReplacingMergeTree ORDER BY (domain, url, cc, category_code)"


def main() -> None:
    """Clone, read, insert, exchange."""
    git_url, db_uri = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "-q", "--depth=1", git_url, folder], check=True)
        rows = read_rows(Path(folder) / "lists")
    with Client.from_url(db_uri) as client:
        for table in ("citizenlab", "citizenlab_flip"):
            client.execute(f"CREATE TABLE IF NOT EXISTS {table} {COLUMNS} {ENGINE}")
        client.execute("TRUNCATE TABLE citizenlab_flip")
        client.execute("INSERT INTO citizenlab_flip (domain, url, cc, category_code) VALUES", rows)
        client.execute("EXCHANGE TABLES citizenlab_flip AND citizenlab")


def read_rows(folder: Path) -> list[dict[str, str]]:
    """Return the rows of all country lists."""
    rows: list[dict[str, str]] = []
    for path in sorted(folder.glob("*.csv")):
        if path.stem == "global" or len(path.stem) == 2:
            cc = "ZZ" if path.stem == "global" else path.stem
            with path.open(newline="", encoding="utf-8") as file:
                rows.extend(
                    {
                        "domain": urlsplit(row["url"]).hostname or "",
                        "url": row["url"],
                        "cc": cc,
                        "category_code": row["category_code"],
                    }
                    for row in csv.DictReader(file)
                )
    return rows


if __name__ == "__main__":
    main()
