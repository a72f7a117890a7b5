"""Benchmarks: `make bench`. Every figure stands beside a plain implementation's of the same run."""

import os
import sys
import tempfile
from pathlib import Path

from clickhouse_driver import Client

from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.git_server import GitServer
from dev.measure import Contender, compare, ratio
from dev.sample_asn_map import write_asn_map
from dev.sample_test_lists import SampleTestLists
from dev.sample_upstream import SampleUpstream

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def main() -> None:
    """Run every benchmark."""
    for bench in (bench_citizenlab, bench_asnmeta):
        with tempfile.TemporaryDirectory(prefix="ooni-bench-") as folder:
            bench(Path(folder))


def bench_citizenlab(folder: Path, rows: int = 40_000) -> None:
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


def bench_asnmeta(folder: Path) -> None:
    """Measure the ASN metadata updater against the plain loader and against the engine itself."""
    upstream_folder = folder / "upstream"
    upstream_folder.mkdir()
    document = upstream_folder / "all_as_org_map.json"
    expected = write_asn_map(document)
    print(
        f"\nASN metadata updater: {expected.rows:,} rows from a local HTTP server into ClickHouse"
    )
    with EmbeddedClickHouse(folder / "db") as db, SampleUpstream(upstream_folder) as upstream:
        url = upstream.url(document.name)
        config = folder / "update-asn-metadata.conf"
        config.write_text(
            f'url = "{url}"\ndb_uri = "{db.uri()}"\nstate_dir = "{folder}/state"\nstatsd = ""\n'
        )
        updater = [PYTHON, str(ROOT / "analysis" / "asnmeta_updater.py"), "--config", str(config)]
        whole, unchanged = "the updater, a new document", "the updater, nothing new"
        plain = [PYTHON, "-m", "dev.plain_asnmeta_loader", url, db.uri()]
        engine = [PYTHON, "-m", "dev.engine_asnmeta_loader", str(document), str(folder / "engine")]
        medians = compare(
            {
                "a plain loader": Contender(plain),
                whole: Contender([*updater, "--force"], lambda: one_row_less(db)),
                unchanged: Contender(updater),
                "the engine, reading the file itself": Contender(engine),
            },
            ENVIRONMENT,
            rounds=5,
        )
    ratio(medians, "a plain loader", whole, "at least 3.00")
    print(f"peak memory of {whole}: {medians[whole].peak:.0f} MiB (goal: at most 150)")


def one_row_less(db: EmbeddedClickHouse) -> None:
    """Make the table differ from the document, so that it has to be replaced."""
    with Client.from_url(db.uri()) as client:
        client.execute("DELETE FROM asnmeta WHERE asn = (SELECT max(asn) FROM asnmeta)")


if __name__ == "__main__":
    main()
