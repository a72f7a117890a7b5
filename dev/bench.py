"""Benchmarks: `make bench`. Every figure stands beside a plain implementation's of the same run."""

import os
import sys
import tempfile
from pathlib import Path

from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.git_server import GitServer
from dev.measure import Contender, compare, ratio
from dev.sample_test_lists import SampleTestLists

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def main() -> None:
    """Run every benchmark."""
    with tempfile.TemporaryDirectory(prefix="ooni-bench-") as folder:
        bench_citizenlab(Path(folder), rows=40_000)


def bench_citizenlab(folder: Path, rows: int) -> None:
    """Measure the CitizenLab updater against the plain loader."""
    print(f"\nCitizenLab updater: {rows:,} rows from a local git server into ClickHouse")
    script = str(ROOT / "analysis" / "citizenlab_test_lists_updater.py")
    (folder / "upstream").mkdir()
    lists = SampleTestLists(folder / "upstream")
    lists.create(rows=rows)
    with EmbeddedClickHouse(folder / "db") as db, GitServer(folder / "upstream") as git:
        git_url = git.url("test-lists")
        config = folder / "update-citizenlab.conf"
        config.write_text(
            f'git_url = "{git_url}"\ndb_uri = "{db.uri(user="citizenlab")}"\n'
            f'state_dir = "{folder}/state"\nstatsd = ""\n'
        )
        updater = [PYTHON, script, "--config", str(config)]
        plain = [PYTHON, "-m", "dev.plain_citizenlab_loader", git_url, db.uri()]
        whole, unchanged = "the updater, a new commit", "the updater, nothing new"
        medians = compare(
            {
                "a plain loader": Contender(plain, lambda: lists.add_rows("ru", 1)),
                whole: Contender(updater),
                unchanged: Contender(updater),
                "the updater, --help": Contender([*updater, "--help"]),
            },
            ENVIRONMENT,
        )
    ratio(medians, whole, "a plain loader", "at most 1.20")
    ratio(medians, unchanged, "a plain loader", "at most 0.33")


if __name__ == "__main__":
    main()
