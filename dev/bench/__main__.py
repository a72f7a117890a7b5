"""Benchmarks: `make bench`. Every figure stands beside a plain implementation's of the same run.

python -m dev.bench [NAME …]     only some of them, by the names in main()
"""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

from clickhouse_driver import Client

from dev.bench.levels import ROWS, fill_years, measure_levels
from dev.bench.measure import (
    Contender,
    Figures,
    compare,
    forget_peak_of,
    peak_of,
    peak_of_own_memory,
    ratio,
    run,
    show_medians,
    show_processors,
)
from dev.bench.parquet_versions import answer_with, measure_versions, wants_parquet
from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.engines import VERSIONS, python_of
from dev.samples.asn_map import ROWS as ASN_ROWS
from dev.samples.asn_map import write_asn_map
from dev.samples.blocking import fill_evenly, fill_runs
from dev.samples.geoip import write_month
from dev.samples.measurements import create, fill
from dev.samples.test_lists import SampleTestLists
from dev.servers.fault_proxy import Exchange, FaultProxy, passed
from dev.servers.git import GitServer
from dev.servers.s3 import KEY, KEY_ID, S3Server, contents
from dev.servers.upstream import SampleUpstream

ROOT = Path(__file__).parents[2]
PYTHON = sys.executable
DETECTOR_DAYS = int(os.environ.get("OONI_BENCH_DAYS", "60"))
BACKUP_ROWS = int(os.environ.get("OONI_BENCH_ROWS", "5000000"))
PARQUET_ROWS = int(os.environ.get("OONI_BENCH_ROWS", "20000000"))
TABLE = 'chunk_by = "table"'
MONTHS = 'chunk_by = "month", column = "measurement_start_time"'
DAYS = 'chunk_by = "day", column = "measurement_start_time"'
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
# The backup tool, for which every server is one that sends no exception tag over HTTP.
NATIVE_BACKUP = f"""
import sys
sys.path.insert(0, {str(ROOT / "db-backup")!r})
import ooni_db_backup
from exports import row_source
row_source.FIRST_WITH_TAGS = (99, 1)
sys.exit(ooni_db_backup.main(sys.argv[1:]))
"""


def main() -> None:
    """Run every benchmark."""
    benches = {
        "citizenlab": bench_citizenlab,
        "asnmeta": bench_asnmeta,
        "geoip": bench_geoip,
        "large-geoip": bench_large_geoip,
        "backup": bench_backup,
        "backup-delay": bench_backup_delay,
        "backup-memory": bench_backup_memory,
        "backup-private": bench_backup_private,
        "backup-levels": bench_backup_levels,
        "parquet": bench_parquet,
        "parquet-versions": bench_parquet_versions,
        "detector": bench_detector,
    }
    for name in sys.argv[1:] or benches:
        bench = benches[name]
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
        plain = [PYTHON, "-m", "dev.bench.plain_citizenlab_loader", git_url, db.uri()]
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
    write_asn_map(document)
    print(f"\nASN metadata updater: {ASN_ROWS:,} rows from a local HTTP server into ClickHouse")
    with EmbeddedClickHouse(folder / "db") as db, SampleUpstream(upstream_folder) as upstream:
        url = upstream.url(document.name)
        config = folder / "update-asn-metadata.conf"
        config.write_text(
            f'url = "{url}"\ndb_uri = "{db.uri()}"\nstate_dir = "{folder}/state"\nstatsd = ""\n'
        )
        updater = [PYTHON, str(ROOT / "analysis" / "asnmeta_updater.py"), "--config", str(config)]
        whole, unchanged = "the updater, a new document", "the updater, nothing new"
        plain = [PYTHON, "-m", "dev.bench.plain_asnmeta_loader", url, db.uri()]
        engine = [
            PYTHON,
            "-m",
            "dev.bench.engine_asnmeta_loader",
            str(document),
            str(folder / "engine"),
        ]
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


def bench_geoip(folder: Path, networks: int = 1_000_000) -> None:
    """Measure the GeoIP downloader against two plain downloads, of a million networks each."""
    print(f"\nGeoIP downloader: two databases of {networks:,} networks from a local HTTP server")
    downloader, urls = geoip_downloader(folder, networks=networks)
    with SampleUpstream(folder / "upstream") as upstream:
        command = downloader(upstream)
        plain = [
            f'"$0" -m dev.bench.plain_geoip_download {upstream.url(url)} {folder}/{url}.mmdb'
            for url in urls
        ]
        whole, check = "the downloader, a new month", "the downloader, --check"
        medians = compare(
            {
                "two plain downloads": Contender(["sh", "-c", " && ".join(plain), PYTHON]),
                whole: Contender([*command, "--force"]),
                "the downloader, nothing new": Contender(command),
                check: Contender([*command, "--check"]),
            },
            ENVIRONMENT,
            rounds=3,
        )
    print(f"check of both databases: {medians[check].wall:.2f} s (goal: less than 10 s for each)")


def bench_large_geoip(folder: Path) -> None:
    """Measure the downloader's own memory, without the mapped file, with databases of 150 MB."""
    downloader, _ = geoip_downloader(folder, networks=1_000_000, padding=1720)
    with SampleUpstream(folder / "upstream") as upstream:
        peak = peak_of_own_memory(downloader(upstream), ENVIRONMENT)
    sizes = [path.stat().st_size / 1e6 for path in (folder / "output").glob("*.mmdb")]
    largest = max(sizes)
    print(f"\nGeoIP downloader: peak of its own memory with a database of {largest:.0f} MB:")
    print(f"{peak:.0f} MiB (goal: at most 60)")


def geoip_downloader(
    folder: Path, *, networks: int, padding: int = 0
) -> tuple[Callable[[SampleUpstream], list[str]], list[str]]:
    """Write sample databases; return what gives the command, and the names of the downloads."""
    for name in ("upstream", "output"):
        (folder / name).mkdir()
    month = f"{datetime.now(UTC):%Y-%m}"
    write_month(folder / "upstream", month, networks=networks, padding=padding)
    names = sorted(path.name for path in (folder / "upstream").iterdir())

    def command(upstream: SampleUpstream) -> list[str]:
        asn_url, cc_url = map(upstream.url, names)
        config = folder / "download-geoip.conf"
        config.write_text(
            f'asn_url = "{asn_url}"\ncc_url = "{cc_url}"\nstatsd = ""\n'
            f'output_dir = "{folder}/output"\nstate_dir = "{folder}/state"\n'
        )
        return [PYTHON, str(ROOT / "geoip" / "ooni_download_geoip.py"), "--config", str(config)]

    return command, names


def bench_backup(folder: Path, rows: int = BACKUP_ROWS) -> None:
    """Measure an export to S3 against the engine itself, and against a plain one once."""
    print(f"\nBackup tool: `fastpath` with {rows:,} rows in 12 chunks to a local S3 server")
    with sample_fastpath(folder, rows) as (db, s3):
        with EmbeddedClickHouse(folder / "engine") as engine_server:
            fill_fastpath(engine_server, rows)
        command = backup_command(folder, db, s3.endpoint, "public", chunks=MONTHS)
        one_job = backup_command(folder, db, s3.endpoint, "public", chunks=MONTHS, jobs=1)
        whole, unchanged = "the tool, everything", "the tool, nothing new"
        native = "the tool, over the native protocol"
        engine = [PYTHON, "-m", "dev.bench.engine_csv_export", f"{folder}/engine/data", "fastpath"]
        to_file, to_store = "the engine's INTO OUTFILE", "the engine, to the same store"
        medians = compare(
            {
                whole: Contender([*command, "--force"]),
                "the tool, one job": Contender([*one_job, "--force"]),
                native: Contender([PYTHON, "-c", NATIVE_BACKUP, *command[2:], "--force"]),
                unchanged: Contender(command),
                to_file: Contender([*engine, f"{folder}/e.csv.zst"]),
                to_store: Contender([*engine, f"{s3.endpoint}/ooni-data/engine.csv.zst"]),
            },
            ENVIRONMENT,
            rounds=2,
        )
        show_processors(
            Contender([*command, "--force"]), ENVIRONMENT, {"database": db.pid, "store": s3.pid}
        )
        plain = ["dev.bench.plain_csv_export", db.uri(), "fastpath", f"{folder}/plain.csv.zst"]
        figures = run(Contender([PYTHON, "-m", *plain]), ENVIRONMENT)
    print(f"the driver, csv and zstandard, to a file: {figures.wall:.2f} s (for information)")
    ratio(medians, whole, to_file, "at most 1.15")
    ratio(medians, whole, to_store, "for information")
    ratio(medians, native, whole, "at most 2.20")
    print(f"peak memory of {whole}: {medians[whole].peak:.0f} MiB (goal: at most 250)")


def bench_backup_delay(folder: Path, rows: int = BACKUP_ROWS // 100, chunks: int = 240) -> None:
    """Measure exports of small chunks to a store that is far away, by one job and by several."""
    with sample_fastpath(folder, rows, days=chunks) as (db, s3):
        for milliseconds in (100, 250):
            print(f"\nBackup tool: {chunks} chunks of {rows // chunks:,} rows, to a store")
            print(f"that takes {milliseconds} ms for each request")

            def late(exchange: Exchange, seconds: float = milliseconds / 1000) -> None:
                time.sleep(seconds)
                passed(exchange)

            with FaultProxy(s3.endpoint) as store:
                store.fail(late, lambda _request: True)
                contenders = {
                    name: Contender(
                        [
                            *backup_command(
                                folder, db, store.url, "public", chunks=DAYS, jobs=jobs
                            ),
                            "--force",
                        ]
                    )
                    for name, jobs in {"one job": 1, "as many jobs as cores": 0}.items()
                }
                medians = compare(contenders, ENVIRONMENT, rounds=1)
            ratio(medians, "one job", "as many jobs as cores", "at least 4.00")


def bench_backup_memory(folder: Path) -> None:
    """Measure the memory of exports of different sizes."""
    print("\nBackup tool: memory (goal: at most 150 MiB)")
    for rows in (1_000_000, 5_000_000, 20_000_000):
        part = folder / str(rows)
        with sample_fastpath(part, rows) as (db, s3):
            figures = run(Contender(backup_command(part, db, s3.endpoint, "public")), ENVIRONMENT)
        print(f"{rows:>12,} rows: {figures.peak:.0f} MiB, {figures.wall:.1f} s")


def bench_parquet(folder: Path, rows: int = PARQUET_ROWS) -> None:
    """Measure memory of the database and of the tool for exports as Parquet, in one chunk."""
    print(f"\nBackup tool: `fastpath` with {rows:,} rows as Parquet")
    print(f"{'':<28} {'wall':>8} {'tool':>10} {'database':>10}")
    with sample_fastpath(folder, rows) as (db, s3):
        command = backup_command(folder, db, s3.endpoint, "public")
        config = Path(command[-1])
        csv_alone = config.read_text()
        both = f'formats = ["csv.zstd", "parquet"]\n{csv_alone}'
        steps = {
            "CSV alone": (csv_alone, command),
            "Parquet beside that CSV": (both, command),
            "both at a time": (both, [*command, "--force"]),
        }
        for name, (text, step) in steps.items():
            config.write_text(text)
            forget_peak_of(db.pid)
            before = peak_of(db.pid)
            figures = run(Contender(step), ENVIRONMENT)
            database = f"{peak_of(db.pid) - before:+6.0f} MiB"
            print(f"{name:<28} {figures.wall:6.1f} s {figures.peak:6.0f} MiB {database}")
        for key, size in contents(s3.client(), "ooni-data").items():
            if key.endswith((".csv.zstd", ".parquet")):
                print(f"{key}: {size / 2**20:.0f} MiB")


def bench_parquet_versions(folder: Path, rows: int = PARQUET_ROWS) -> None:
    """Measure the same for the oldest supported version, one in between, and the pinned one."""
    print(f"\nBackup tool: `fastpath` with {rows:,} rows as Parquet, as each version writes it")
    if not all(python_of(version).exists() for version in VERSIONS):
        print("NOT RUN: `make compat` installs the engines")
        return
    with sample_fastpath(folder, rows) as (db, s3), FaultProxy(db.http_url()) as proxy:
        command = backup_command(folder, db, s3.endpoint, "public")
        config = Path(command[-1])
        text = config.read_text().replace(db.http_url(), proxy.url)
        config.write_text(f'formats = ["csv.zstd", "parquet"]\n{text}')

        def send(file: Path) -> Figures:
            proxy.fail(answer_with(file), wants_parquet)
            figures = run(Contender([*command, "--force"]), ENVIRONMENT)
            proxy.heal()
            return figures

        measure_versions(folder, rows, send)


def bench_backup_levels(folder: Path) -> None:
    """Measure what an export reads to decide what has changed."""
    print(f"\nBackup tool: `fastpath` with {ROWS:,} rows of three years, by month")
    with EmbeddedClickHouse(folder / "db") as db, S3Server() as s3:
        fill_years(db)
        s3.create_bucket("ooni-data")
        measure_levels(backup_command(folder, db, s3.endpoint, "public", chunks=MONTHS), db)


def bench_backup_private(folder: Path) -> None:
    """Measure private backups of two sizes beside the plain statement of the server."""
    for rows, rounds in ((1_000_000, 1), (5_000_000, 3)):
        print(
            f"\nBackup tool: private backups of `fastpath` with {rows:,} rows to a local S3 server"
        )
        part = folder / str(rows)
        measured: dict[str, list[Figures]] = {}
        with sample_fastpath(part, rows) as (db, s3):
            s3.create_bucket("ooni-private")
            command = backup_command(part, db, s3.endpoint, "private")
            new_rows = partial(add_rows, db, rows // 100)
            for number in range(rounds):
                full, incremental = f"{number}-full", f"{number}-incremental"
                steps = {
                    "the plain BACKUP, full": Contender(plain_backup(db, s3, full)),
                    "the tool, full": Contender([*command, "backup", "--full"]),
                    "the tool, nothing new": Contender([*command, "backup"]),
                    "the plain BACKUP, 1 % new": Contender(
                        plain_backup(db, s3, incremental, base=full), new_rows
                    ),
                    "the tool, 1 % new": Contender([*command, "backup"]),
                    "the tool, verify": Contender([*command, "verify"]),
                }
                for name, step in steps.items():
                    measured.setdefault(name, []).append(run(step, ENVIRONMENT))
        medians = show_medians(measured, rounds)
        peak = max(figures.peak for name, figures in medians.items() if name.startswith("the tool"))
        print(f"peak memory of the tool: {peak:.0f} MiB (goal: at most 150)")
    ratio(medians, "the tool, full", "the plain BACKUP, full", "at most 2.00")


def bench_detector(folder: Path) -> None:
    """Measure the detector beside a plain one on few series, and alone on many."""
    few = partial(fill_evenly, series=2_000)
    medians = measure_detector(folder / "few", "2,000 series, measured every hour", few, plain=True)
    ratio(
        medians,
        "the detector, all of it",
        "a plain detector, all of it",
        "for information: the plain one looks at no context",
    )
    # As many would take the plain one an hour, and more memory than there is.
    many = partial(fill_evenly, series=100_000, every=4)
    measure_detector(folder / "many", "100,000 series, measured every 4 hours", many)
    world = partial(fill_runs, rows=100_000)
    text = "100,000 rows an hour, runs of 1 to 40 inputs, 100,000 series"
    measure_detector(folder / "world", text, world)
    print("goals: all of it in 180 s, the hourly run in 10 s, 1,024 MiB, the database in 2,048 MiB")


def measure_detector(
    folder: Path, text: str, fill_table: Callable[..., None], *, plain: bool = False
) -> dict[str, Figures]:
    """Let the detector reprocess 60 days but for the last hour, and then look at this one."""
    print(f"\nDetector: {text}, for {DETECTOR_DAYS} days")
    folder.mkdir()
    end = int(datetime.now(UTC).timestamp()) // 3600
    start = end - DETECTOR_DAYS * 24
    with EmbeddedClickHouse(folder / "db") as db:
        with Client.from_url(db.uri(send_receive_timeout=3600)) as client:
            create(client, "fastpath")
            fill_table(client, start=start, end=end)
        forget_peak_of(db.pid)
        config = folder / "detector.conf"
        config.write_text(
            f'db_uri = "{db.uri()}"\nstate_dir = "{folder}/state"\n'
            f'output_dir = "{folder}/output"\nstatsd = ""\n'
        )
        command = [PYTHON, str(ROOT / "detector" / "detector.py"), "--config", str(config)]
        first, last = (datetime.fromtimestamp(hour * 3600, UTC) for hour in (start, end - 1))
        dates = ("--start-date", f"{first:%FT%H:00}", "--end-date", f"{last:%FT%H:00}")
        steps = {
            "the detector, all of it": Contender([*command, "--reprocess", *dates]),
            "the detector, the hourly run": Contender(command),
        }
        if plain:
            arguments = [db.uri(), str(start), str(end)]
            steps["a plain detector, all of it"] = Contender(
                [PYTHON, "-m", "dev.bench.plain_detector", *arguments]
            )
        figures = {name: [run(step, ENVIRONMENT)] for name, step in steps.items()}
        medians = show_medians(figures, 1)
        print(f"peak memory of the database: {peak_of(db.pid):.0f} MiB")
        return medians


@contextlib.contextmanager
def sample_fastpath(
    folder: Path, rows: int, days: int = 365
) -> Iterator[tuple[EmbeddedClickHouse, S3Server]]:
    """Fill a table in a new database, and start an S3 server with a bucket."""
    folder.mkdir(exist_ok=True)
    with EmbeddedClickHouse(folder / "db") as db, S3Server() as s3:
        fill_fastpath(db, rows, days)
        s3.create_bucket("ooni-data")
        yield db, s3


def fill_fastpath(db: EmbeddedClickHouse, rows: int, days: int = 365) -> None:
    """Create the table and fill it."""
    with Client.from_url(db.uri(send_receive_timeout=3600)) as client:
        create(client, "fastpath")
        fill(client, "fastpath", rows, days=days)


def backup_command(
    folder: Path,
    db: EmbeddedClickHouse,
    endpoint: str,
    side: str,
    *,
    chunks: str = TABLE,
    jobs: int = 0,
) -> list[str]:
    """Write a configuration for exports (public) or backups (private); return the command.

    Args:
        folder: gets the configuration.
        db: has the table.
        endpoint: of the store.
        side: "public" or "private".
        chunks: how the table is divided.
        jobs: that are at work at once; 0: as many as there are cores.
    """
    action, bucket = ("export", "ooni-data") if side == "public" else ("backup", "ooni-private")
    config = folder / f"{side}-{jobs}.conf"
    config.write_text(
        f'db_uri = "{db.uri()}"\nhttp_url = "{db.http_url()}"\naction = "{action}"\n'
        f'{side}_endpoint = "{endpoint}"\n{side}_bucket_name = "{bucket}"\n'
        f'{side}_aws_access_key_id = "{KEY_ID}"\n{side}_aws_secret_access_key = "{KEY}"\n'
        f'state_dir = "{folder}/state"\nstatsd = ""\nrest = 0\njobs = {jobs}\n'
        f'[tables]\nfastpath = {{ policy = "{side}", {chunks} }}\n'
    )
    config.chmod(0o600)
    return [PYTHON, str(ROOT / "db-backup" / "ooni_db_backup.py"), "--config", str(config)]


def plain_backup(db: EmbeddedClickHouse, s3: S3Server, name: str, base: str = "") -> list[str]:
    """Return a command that lets the server back up the table, and does nothing else."""

    def target(name: str) -> str:
        return f"S3('{s3.endpoint}/ooni-private/plain/{name}/', '{KEY_ID}', '{KEY}')"

    settings = f" SETTINGS base_backup = {target(base)}" if base else ""
    statement = f"BACKUP TABLE fastpath TO {target(name)}{settings}"
    program = (
        "import sys; from clickhouse_driver import Client;"
        " Client.from_url(sys.argv[1]).execute(sys.argv[2])"
    )
    return [PYTHON, "-c", program, db.uri(send_receive_timeout=3600), statement]


def add_rows(db: EmbeddedClickHouse, rows: int) -> None:
    """Add rows to the table, of a later year."""
    with Client.from_url(db.uri(send_receive_timeout=3600)) as client:
        fill(client, "fastpath", rows, start=date(2024, 1, 1))


def one_row_less(db: EmbeddedClickHouse) -> None:
    """Make the table differ from the document, so that it has to be replaced."""
    with Client.from_url(db.uri()) as client:
        client.execute("DELETE FROM asnmeta WHERE asn = (SELECT max(asn) FROM asnmeta)")


if __name__ == "__main__":
    main()
