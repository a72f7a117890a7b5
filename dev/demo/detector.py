"""The detector, on sample measurements and beside others on labelled series."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import feedparser
from clickhouse_driver import Client

from dev.demo.stage import ROOT, Script, Servers, expect, title
from dev.samples import blocking, observations
from dev.samples.measurements import create

DETECTOR = Script("detector/detector.py", "detector.conf")


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
