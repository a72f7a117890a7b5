"""The demo: every script run once for real against servers on this machine, and then again.

    make demo                 sample upstreams, generated here
    make demo SOURCES=live    the real upstreams

It ends with an error if a script does anything else than it should.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import feedparser
import geoip2.database
from clickhouse_driver import Client

from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.metrics_catalogue import read_scripts, undocumented, undocumented_samples
from dev.samples import blocking, observations
from dev.samples.asn_map import ASNS, ROWS, write_asn_map
from dev.samples.fingerprints import SampleFingerprints
from dev.samples.geoip import write_month
from dev.samples.measurements import create, fill
from dev.samples.test_lists import SampleTestLists
from dev.servers.git import GitServer
from dev.servers.s3 import KEY, KEY_ID, S3Server, contents
from dev.servers.statsd import StatsdListener
from dev.servers.upstream import SampleUpstream

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Script:
    """A script and the name of its configuration file."""

    path: str
    config: str


CITIZENLAB = Script("analysis/citizenlab_test_lists_updater.py", "update-citizenlab.conf")
FINGERPRINTS = Script("analysis/fingerprints_updater.py", "update-fingerprints.conf")
ASNMETA = Script("analysis/asnmeta_updater.py", "update-asn-metadata.conf")
BACKUP = Script("db-backup/ooni_db_backup.py", "db-backup.conf")
DETECTOR = Script("detector/detector.py", "detector.conf")
GEOIP = Script("geoip/ooni_download_geoip.py", "download-geoip.conf")


@dataclass(frozen=True)
class Servers:
    """The servers that the scripts talk to, and a folder for their configuration and state."""

    folder: Path
    clickhouse: EmbeddedClickHouse
    statsd: StatsdListener

    @property
    def textfiles(self) -> Path:
        """The folder into which the scripts write their metrics, too."""
        return self.folder / "textfiles"

    def run(self, script: Script, keys: Mapping[str, object], *flags: str) -> str:
        """Run a script as its timer would, or another command of it; return what it printed.

        Raises:
            SystemExit: the script failed.
        """
        config = self.folder / script.config
        config.write_text(json.dumps({"textfile_dir": str(self.textfiles), **keys}))
        config.chmod(0o640)  # it can hold a password
        print(f"\n$ {script.path} --config {script.config} {' '.join(flags)}".rstrip())
        process = subprocess.run(
            [sys.executable, str(ROOT / script.path), "--config", str(config), *flags],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(indented(process.stdout))
        if process.returncode != 0:
            sys.exit(f"{script.path} ended with exit status {process.returncode}")
        unknown = undocumented(self.statsd.metrics())
        expect(not unknown, f"metrics are in monitoring/README.md: {', '.join(unknown)}")
        return process.stdout

    def show_table(self, table: str, columns: Sequence[str], order: str) -> None:
        """Print a table's size and a few of its rows."""
        with Client.from_url(self.clickhouse.uri()) as client:
            ((rows, size),) = client.execute(
                f"SELECT count(), formatReadableSize(sum(byteSize(*))) FROM {table}"  # noqa: S608 (constants of this file)
            )
            print(f"\ntable {table}: {rows:,} rows, {size} uncompressed")
            sample = client.execute(
                f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order} LIMIT 5"  # noqa: S608 (constants of this file)
            )
        for row in sample:
            print("    " + "  ".join(ascii(str(value).rstrip("\0"))[1:-1] for value in row))

    def show_metrics(self) -> None:
        """Print the metrics that arrived since the last call."""
        print("\nmetrics received over UDP:")
        for line in self.statsd.received():
            print(f"    {line}")
        self.statsd.clear()


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--sources", choices=["sample", "live"], default="sample")
    sources = parser.parse_args().sources
    with running_servers() as servers:
        if sources == "live":
            show_live_sources(servers)
        else:
            show_citizenlab(servers)
            show_fingerprints(servers)
            show_asnmeta(servers)
            show_geoip(servers)
            show_backup(servers)
            show_detector(servers)
            show_evaluation(servers)
        show_textfiles(servers.textfiles)
    print("\nThe demo is done; everything that it started has ended.")


@contextlib.contextmanager
def running_servers() -> Iterator[Servers]:
    """Start the servers; end them and remove their files afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="ooni-demo-") as name,
        EmbeddedClickHouse(Path(name) / "clickhouse") as clickhouse,
        StatsdListener() as statsd,
    ):
        print(f"embedded ClickHouse: {clickhouse.uri()}, {clickhouse.http_url()}")
        print(f"statsd listener: {statsd.address}")
        servers = Servers(Path(name), clickhouse, statsd)
        servers.textfiles.mkdir()
        yield servers


def show_citizenlab(servers: Servers) -> None:
    """Load sample test lists; again, with nothing new; after a commit; after a broken commit."""
    upstream = servers.folder / "upstream"
    upstream.mkdir()
    lists = SampleTestLists(upstream)
    lists.create()
    with GitServer(upstream) as git:
        config = keys_for(servers, "citizenlab") | {"git_url": git.url("test-lists")}
        title("CitizenLab test lists: the first run creates and fills the table")
        run_citizenlab(servers, config)
        title("the second run: one question for the newest commit, no clone")
        git.clear()
        log = servers.run(CITIZENLAB, config)
        expect("nothing to do" in log and git.fetches() == 0, "nothing is repeated")
        title("upstream adds 40 rows: a dry run says what would change, then they are loaded")
        lists.add_rows("it", 40)
        servers.run(CITIZENLAB, config, "--dry-run")
        log = run_citizenlab(servers, config)
        expect("(+40 -0)" in log, "40 rows are added")
        title("a commit breaks one list: its live rows are kept, the others are updated")
        lists.add_rows("fr", 2)
        lists.break_file("ru")
        log = run_citizenlab(servers, config | {"on_broken_file": "keep-previous"})
        expect("(+2 -0)" in log, "2 rows are added")


def show_fingerprints(servers: Servers) -> None:
    """Load sample fingerprints; again, with nothing new; with a bad regular expression added."""
    folder = servers.folder / "fingerprints"
    folder.mkdir()
    sample = SampleFingerprints()
    (folder / "fingerprints_dns.csv").write_bytes(sample.dns)
    (folder / "fingerprints_http.csv").write_bytes(sample.http)
    with SampleUpstream(folder) as upstream:
        keys = keys_for(servers, "api:api") | {
            "dns_url": upstream.url("fingerprints_dns.csv"),
            "http_url": upstream.url("fingerprints_http.csv"),
        }
        title("Fingerprints: the first run fills both tables and swaps them together")
        run_fingerprints(servers, keys)
        title("the second run: upstream says that nothing was modified")
        log = servers.run(FINGERPRINTS, keys)
        expect("nothing to do" in log, "nothing is repeated")
        title("a row with a regular expression that the database can't compile is refused")
        bad = b"demo.bad,isp,,body,regexp,(?<=a)b,5,IT,demo,,\r\n"
        (folder / "fingerprints_http.csv").write_bytes(sample.with_added("http", 3).http + bad)
        log = run_fingerprints(servers, keys)
        expect("(+3 -0)" in log, "3 rows are added")


def show_asnmeta(servers: Servers) -> None:
    """Load a sample map of the ASNs; again, with nothing new."""
    folder = servers.folder / "asn-map"
    folder.mkdir()
    write_asn_map(folder / "all_as_org_map.json")
    with SampleUpstream(folder) as upstream:
        keys = keys_for(servers, "api:api") | {"url": upstream.url("all_as_org_map.json")}
        title(f"ASN metadata: {ASNS:,} ASNs, read and loaded piece by piece")
        log = run_asnmeta(servers, keys)
        expect(f"asnmeta: {ROWS:,} rows" in log, "all rows are loaded")
        title("the second run: upstream says that nothing was modified")
        log = servers.run(ASNMETA, keys)
        expect("nothing to do" in log, "nothing is repeated")


def show_geoip(servers: Servers) -> None:
    """Install the GeoIP databases of last month, then this month's; again; after damage."""
    folder = servers.folder / "geoip"
    folder.mkdir()
    today = datetime.now(UTC).date()
    last_month = today.replace(day=1) - timedelta(days=1)
    write_month(folder, f"{last_month:%Y-%m}", networks=100_000)
    with SampleUpstream(folder) as upstream:
        keys = geoip_keys(servers) | {
            "asn_url": upstream.url() + "dbip-asn-lite-{year}-{month}.mmdb.gz",
            "cc_url": upstream.url() + "dbip-country-lite-{year}-{month}.mmdb.gz",
        }
        title("GeoIP: this month's databases are not published yet; last month's are installed")
        run_geoip(servers, keys)
        title("they are published: both are checked as a whole and installed together")
        write_month(folder, f"{today:%Y-%m}", networks=100_000)
        run_geoip(servers, keys)
        title("the next run: no request at all")
        upstream.clear()
        log = servers.run(GEOIP, keys)
        expect("nothing to do" in log and not upstream.requests, "nothing is repeated")
        title("an installed file is damaged: it alone is fetched again")
        os.truncate(servers.folder / "ooniapi" / "cc.mmdb", 50_000)
        log = servers.run(GEOIP, keys)
        expect("asn-lite-" in log and "not modified" in log, "the other one is not fetched")
        servers.run(GEOIP, keys, "--check")


def show_backup(servers: Servers) -> None:
    """Export tables of measurements to S3, then back up the database."""
    uri = servers.clickhouse.uri(database="measurements")
    with S3Server() as s3, Client.from_url(servers.clickhouse.uri()) as client:
        client.execute("CREATE DATABASE measurements ENGINE = Atomic")
        with Client.from_url(uri) as measurements:
            for kind in ("fastpath", "jsonl"):
                create(measurements, kind)
                fill(measurements, kind, 200_000)
            keys = {
                "db_uri": uri,
                "http_url": servers.clickhouse.http_url(),
                **bucket_keys(s3, "public", "ooni-data"),
                "rest": 0,
                "tables": {
                    "fastpath": "public",
                    "jsonl": {"policy": "public", "chunk_by": "range", "rows_per_chunk": 50_000},
                },
                "state_dir": str(servers.folder / "state"),
                "statsd": servers.statsd.address,
            }
            show_exports(servers, s3, measurements, keys)
            show_private_backups(servers, s3, measurements, keys)
        client.execute("DROP DATABASE measurements SYNC")  # the detector's has the same name


def bucket_keys(s3: S3Server, side: str, name: str) -> dict[str, object]:
    """Create a bucket; return the keys that lead there."""
    s3.create_bucket(name)
    return {
        f"{side}_bucket_name": name,
        f"{side}_endpoint": s3.endpoint,
        f"{side}_aws_access_key_id": KEY_ID,
        f"{side}_aws_secret_access_key": KEY,
    }


def show_exports(
    servers: Servers, s3: S3Server, measurements: Client, keys: Mapping[str, object]
) -> None:
    """Export everything; again, with nothing new; after a change in one month; restore a table."""
    title("Backup tool: can a run succeed?")
    servers.run(BACKUP, keys, "doctor")
    title("200,000 measurements by month, and their index by ranges of its key")
    servers.run(BACKUP, keys)
    show_bucket(s3, "ooni-data")
    servers.show_metrics()
    servers.run(BACKUP, keys, "verify")
    title("the second run: nothing is read but the fingerprints")
    expect("nothing to do" in servers.run(BACKUP, keys), "nothing is repeated")
    title("one row comes late, in March: a dry run says what would be exported, and why")
    fill(measurements, "fastpath", 1, start=date(2023, 3, 8), days=1)
    servers.run(BACKUP, keys, "--dry-run")
    log = servers.run(BACKUP, keys)
    expect("1 chunks are exported" in log and "_202303" in log, "only March is exported")
    servers.run(BACKUP, keys, "list")
    title("a table is made of the export")
    servers.run(BACKUP, keys, "restore", "fastpath")
    expect(same_rows(measurements, "fastpath", "fastpath_restored"), "it has the same content")


def show_private_backups(
    servers: Servers, s3: S3Server, measurements: Client, keys: Mapping[str, object]
) -> None:
    """Back up; again, with nothing new, and with new rows; verify; restore everything."""
    measurements.execute(
        "CREATE TABLE accounts (account_id FixedString(32), role String)"
        " ENGINE = EmbeddedRocksDB PRIMARY KEY account_id"
    )
    measurements.execute(
        "INSERT INTO accounts SELECT lower(hex(MD5(toString(number)))), 'user' FROM numbers(5000)"
    )
    policy = {"accounts": "private", "jsonl": "both", "fastpath": "public", "*_restored": "none"}
    private = bucket_keys(s3, "private", "ooni-private")
    keys = {**keys, **private, "tables": policy, "action": "backup"}
    servers.statsd.clear()
    title("Private backups: the database's own BACKUP, to another bucket; the first one is full")
    log = servers.run(BACKUP, keys)
    expect("205,000 rows in 2 tables" in log, "both tables are backed up")
    servers.show_metrics()
    title("the second run: nothing has changed, and nothing is written")
    expect("nothing to do" in servers.run(BACKUP, keys), "nothing is repeated")
    title("300 rows more: an incremental backup, which has these alone")
    fill(measurements, "jsonl", 300, start=date(2024, 1, 1), days=1)
    log = servers.run(BACKUP, keys)
    newest = log.partition("the backup ")[2].partition(" ")[0]
    log = servers.run(BACKUP, keys, "list")
    expect("205,300" in log and log.count("good") == 2, "there are two good backups")
    title(
        "is it any good? It is restored, with what it needs, into a database that is dropped again"
    )
    log = servers.run(BACKUP, keys, "verify", "--from", newest)
    expect(f"{newest} can be restored" in log, "it can be restored")
    title("everything is restored, as on an empty server, and its rows are compared")
    servers.run(BACKUP, keys, "restore", "--all", "--to-database", "drill")
    for table in ("accounts", "jsonl"):
        expect(same_rows(measurements, table, f"drill.{table}"), f"{table} is as it was")
    log = servers.run(BACKUP, keys, "restore", "--all", "--to-database", "drill")
    expect("nothing to do" in log, "nothing is repeated")
    measurements.execute("DROP DATABASE drill SYNC")


def same_rows(client: Client, left: str, right: str) -> bool:
    """Tell whether two tables have the same rows."""
    ((first, second),) = client.execute(
        f"SELECT (SELECT sum(cityHash64(*)) FROM {left}), (SELECT sum(cityHash64(*)) FROM {right})"  # noqa: S608 (constants of this file)
    )
    return bool(first == second)


def show_bucket(s3: S3Server, name: str) -> None:
    """Print what is in a bucket."""
    print(f"\nobjects in the bucket {name}:")
    for key, size in contents(s3.client(), name).items():
        print(f"    {size:>11,}  {key}")


def show_detector(servers: Servers) -> None:
    """Detect blocks in two countries; again, with nothing new; and from the beginning."""
    title("Detector: 30 days of measurements; social media are blocked in two countries")
    with Client.from_url(servers.clickhouse.uri()) as client:
        client.execute("CREATE DATABASE measurements ENGINE = Atomic")
    user = {"user": "detector", "password": "detector"}
    uri = servers.clickhouse.uri(**user, database="measurements")
    now = datetime.now(UTC)
    with Client.from_url(uri) as client:
        create(client, "fastpath")
        blocking.fill(client, blocking.sample(now))
    output = servers.folder / "output"
    keys = {
        "db_uri": uri,
        "state_dir": str(servers.folder / "state"),
        "statsd": servers.statsd.address,
        "output_dir": str(output),
    }
    servers.statsd.clear()
    log = servers.run(DETECTOR, keys)
    servers.show_table(
        "measurements.blocking_events",
        ["toString(time, 'UTC')", "status", "probe_cc", "probe_asn", "test_name", "input"],
        "cityHash64(probe_asn, input)",
    )
    servers.show_metrics()
    show_output(output)
    expect("incidents: 2 ongoing, 1 ended" in log, "both countries' blocks are found")
    title("the second run: nothing is new, and no file is written")
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    log = servers.run(DETECTOR, keys)
    expect(log.count("unchanged") == 2, "both tables are as they were")
    now_written = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    expect(now_written == times, "no file was written")
    title("reprocessing all of it gives the same")
    start = f"{now - timedelta(days=40):%Y-%m-%d}"
    log = servers.run(DETECTOR, keys, "--reprocess", "--start-date", start)
    expect(log.count("unchanged") == 2, "both tables are as they were")
    kept = ROOT / "build" / "demo" / "detector"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(output, kept)
    print(f"\nto look at the page, open {kept.relative_to(ROOT)}/index.html")


def show_output(output: Path) -> None:
    """Print what the global feed says, and which files there are."""
    feed = feedparser.parse((output / "rss" / "global.xml").read_bytes())
    print(f"\nrss/global.xml: {feed.feed.title}")
    for entry in feed.entries:
        print(f"    {entry.published}  {entry.title}")
    files = [path for path in output.rglob("*") if path.is_file()]
    print(f"\n{len(files)} files in {output.name}, among them:")
    for path in sorted(file for file in files if "by-series" not in str(file)):
        print(f"    {path.stat().st_size:>9,}  {path.relative_to(output)}")


def show_evaluation(servers: Servers) -> None:
    """Tell how good the detector is on a small labelled sample."""
    title("How good is it? On labelled series, beside two other detectors")
    folder = servers.folder / "labelled"
    observations.write(folder, seeds=[1], series=10)
    files = [folder / "observations.csv.gz", folder / "labels.json"]
    keys = {"state_dir": str(servers.folder / "state"), "statsd": servers.statsd.address}
    servers.run(
        DETECTOR, keys, "evaluate", "--observations", str(files[0]), "--labels", str(files[1])
    )


def show_live_sources(servers: Servers) -> None:
    """Load everything from the real upstreams, twice."""
    for attempt in ("first", "second"):
        title(f"The real upstreams, {attempt} run")
        run_citizenlab(servers, keys_for(servers, "citizenlab"))
        run_fingerprints(servers, keys_for(servers, "api:api"))
        run_asnmeta(servers, keys_for(servers, "api:api"))
        run_geoip(servers, geoip_keys(servers))


def keys_for(servers: Servers, user: str) -> dict[str, str]:
    """Return the keys of the configuration that say where these servers are."""
    name, _, password = user.partition(":")
    return {
        "db_uri": servers.clickhouse.uri(user=name, password=password),
        "state_dir": str(servers.folder / "state"),
        "statsd": servers.statsd.address,
    }


def run_citizenlab(servers: Servers, keys: dict[str, str]) -> str:
    """Run the CitizenLab updater, and show its table and metrics."""
    log = servers.run(CITIZENLAB, keys)
    servers.show_table("citizenlab", ["cc", "category_code", "domain", "url"], "cityHash64(url)")
    servers.show_metrics()
    return log


def run_fingerprints(servers: Servers, keys: dict[str, str]) -> str:
    """Run the fingerprint updater, and show its tables and metrics."""
    log = servers.run(FINGERPRINTS, keys)
    columns = ["name", "scope", "pattern_type", "expected_countries", "substring(pattern, 1, 40)"]
    for table in ("fingerprints_dns", "fingerprints_http"):
        servers.show_table(table, columns, "cityHash64(name)")
    servers.show_metrics()
    return log


def run_asnmeta(servers: Servers, keys: dict[str, str]) -> str:
    """Run the ASN metadata updater, and show its table and metrics."""
    log = servers.run(ASNMETA, keys)
    servers.show_table("asnmeta", ["asn", "cc", "changed", "org_name"], "cityHash64(asn, changed)")
    servers.show_metrics()
    return log


def geoip_keys(servers: Servers) -> dict[str, str]:
    """Return the keys that say where the databases are installed."""
    folder = servers.folder / "ooniapi"
    folder.mkdir(exist_ok=True)
    return {
        "output_dir": str(folder),
        "state_dir": str(servers.folder / "ooni-geoip"),
        "statsd": servers.statsd.address,
    }


def run_geoip(servers: Servers, keys: dict[str, str]) -> None:
    """Run the GeoIP downloader; show its files, an address looked up in them, and its metrics."""
    servers.run(GEOIP, keys)
    folder = Path(keys["output_dir"])
    print(f"\nfiles in {folder.name}:")
    for path in sorted(folder.iterdir()):
        print(f"    {path.stat().st_size:>9,}  {path.name}")
    with (
        geoip2.database.Reader(folder / "asn.mmdb") as asn,
        geoip2.database.Reader(folder / "cc.mmdb") as country,
    ):
        for address in ("8.8.8.8", "2620:fe::fe"):
            network = asn.asn(address)
            number, name = network.autonomous_system_number, network.autonomous_system_organization
            code = country.country(address).country.iso_code
            print(f"    {address}: AS{number} {name}, {code}")
    servers.show_metrics()


def show_textfiles(folder: Path) -> None:
    """Show the metrics of the last run of each script as node_exporter reads them."""
    title("All metrics once more, in files for sites without statsd")
    scripts = [script for script in read_scripts() if (folder / f"ooni_{script}.prom").exists()]
    kept = ROOT / "build" / "demo" / "textfiles"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept)
    for script in scripts:
        text = (folder / f"ooni_{script}.prom").read_text()
        print(f"\nooni_{script}.prom:")
        print(indented("\n".join(line for line in text.splitlines() if line[0] != "#")))
        unknown = undocumented_samples(script, text)
        expect(not unknown, f"metrics are in monitoring/README.md: {', '.join(unknown)}")


def title(text: str) -> None:
    """Print a heading."""
    print(f"\n\n{text}\n{'=' * len(text)}")


def expect(fulfilled: bool, expectation: str) -> None:  # noqa: FBT001 (reads like the sentence it is)
    """End the demo with an error unless the expectation is fulfilled."""
    if not fulfilled:
        sys.exit(f"not as it should be: {expectation}")


def indented(text: str) -> str:
    """Return the text with each line indented."""
    return "\n".join(f"    {line}" for line in text.splitlines())


if __name__ == "__main__":
    main()
