"""The detector, on sample measurements and beside others on labelled series."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import feedparser
from clickhouse_driver import Client

from dev.demo.stage import Script, Servers, keep
from dev.demo.story import expect, figure
from dev.samples import blocking, observations
from dev.samples.measurements import create

DETECTOR = Script("detector/detector.py", "detector.conf")


def show_detector(servers: Servers) -> None:
    """Detect blocking in two countries; again, with nothing new; and from the beginning."""
    story = servers.story
    story.chapter("Detector", "where and when social media are blocked, as a page and as feeds")
    with Client.from_url(servers.clickhouse.uri()) as client:
        client.execute("CREATE DATABASE measurements ENGINE = Atomic")
    user = {"user": "detector", "password": "detector"}
    uri = servers.clickhouse.uri(**user, database="measurements")
    now = datetime.now(UTC)
    with Client.from_url(uri) as client:
        create(client, "fastpath")
        blocking.fill(client, blocking.sample(now))
        ((rows,),) = client.execute("SELECT count() FROM fastpath")
    output = servers.folder / "output"
    keys = {
        "db_uri": uri,
        "state_dir": str(servers.folder / "state"),
        "statsd": servers.statsd.address,
        "output_dir": str(output),
    }
    servers.statsd.clear()
    log = servers.run(DETECTOR, keys)
    events = servers.log_table(
        "measurements.blocking_events",
        ["toString(time, 'UTC')", "status", "probe_cc", "probe_asn", "test_name", "input"],
        "cityHash64(probe_asn, input)",
    )
    servers.log_metrics()
    expect("incidents: 2 ongoing, 1 ended" in log, "the blocking in both countries is found")
    story.tell("first run", f"{rows:,} measurements of 30 days: {events} events, 3 incidents;")
    story.tell("", f"the newest: {log_output(servers, output)}")
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    log = servers.run(DETECTOR, keys)
    expect(log.count("unchanged") == 2, "both tables are as they were")
    now_written = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    expect(now_written == times, "the second run writes no file")
    story.tell("second run", "no new hour is over: no row changes, no file is written")
    start = f"{now - timedelta(days=40):%Y-%m-%d}"
    log = servers.run(DETECTOR, keys, "--reprocess", "--start-date", start)
    expect(log.count("unchanged") == 2, "both tables are as they were")
    story.tell("--reprocess", "history, computed again from its first day, is the same")
    files = sum(path.is_file() for path in output.rglob("*"))
    story.outcome("detector", f"2 tables, {files} files: page, feeds, JSON")
    story.page(f"{keep(output, 'detector')}/index.html", "what is blocked where, and the feeds")


def log_output(servers: Servers, output: Path) -> str:
    """Log what the global feed says, and which files there are; return its newest title."""
    feed = feedparser.parse((output / "rss" / "global.xml").read_bytes())
    servers.story.note(f"\nrss/global.xml: {feed.feed.title}")
    for entry in feed.entries:
        servers.story.note(f"    {entry.published}  {entry.title}")
    files = [path for path in output.rglob("*") if path.is_file()]
    servers.story.note(f"\n{len(files)} files in {output.name}, among them:")
    for path in sorted(file for file in files if "by-series" not in str(file)):
        servers.story.note(f"    {path.stat().st_size:>9,}  {path.relative_to(output)}")
    return str(feed.entries[0].title)


def show_evaluation(servers: Servers) -> None:
    """Tell how good the detector is on a small labelled sample."""
    folder = servers.folder / "labelled"
    observations.write(folder, seeds=[1], series=10)
    files = [folder / "observations.csv.gz", folder / "labels.json"]
    keys = {"state_dir": str(servers.folder / "state"), "statsd": servers.statsd.address}
    log = servers.run(
        DETECTOR, keys, "evaluate", "--observations", str(files[0]), "--labels", str(files[1])
    )
    events = figure(r"events found +(\d+)", log)
    missed = figure(r"events missed +(\d+)", log)
    delay = figure(r"median delay, hours +(\d+)", log)
    false = figure(r"false changes +(\d+)", log)
    changes = f"{events} of {int(events) + int(missed)} changes found"
    servers.story.tell("labelled data", f"{changes}, median delay {delay} h; {false} false alarms")
