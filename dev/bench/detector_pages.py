"""What it takes to publish years of incidents: the first time, an hour later, and when one begins.

python -m dev.bench.detector_pages FOLDER [--countries 50] [--services 10] [--years 5]
"""

import argparse
import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "detector"))

from dev.samples.report import COUNTRIES, HOUR, STALE, UNTIL
from outputs.incidents import Incident, blockings_of, incidents_of
from outputs.news import news_of
from outputs.publish import drafts_of, publish
from outputs.report import Report
from outputs.severity import Severity
from outputs.tallies import Chart, Tally, periods_of, so_far
from pages.rendering import Site
from series import Event, Series, SeriesStatus

PER_YEAR = 4  # incidents of a service in a country
NETWORKS = (1, 2, 4, 9)  # of these, in turn
PAGE_AGE = timedelta(days=60)


def main() -> None:
    """Publish three times, and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    for name, usual in (("countries", 50), ("services", 10), ("years", 5)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    arguments = parser.parse_args()
    events = list(_events(arguments.countries, arguments.services, arguments.years))
    print(f"{len(events):,} changes of series")
    for title, until in (("first", 0), ("the same again", 0), ("an hour later", 1)):
        report = _report(events, until)
        _measure(title, report, arguments.folder)
    files = [path for path in (arguments.folder / "output").rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    largest = max(p.stat().st_size for p in files if p.suffix == ".html")
    print(f"{len(files):,} files, {size / 1e6:.1f} MB; the largest page has {largest:,} bytes")


def _events(countries: int, services: int, years: int) -> Iterator[Event]:
    """Yield changes; in each place something is blocked for a week, several times a year."""
    for place in range(countries * services):
        code, service = COUNTRIES[place // services], place % services
        for number in range(years * PER_YEAR):
            ago = 24 * 365 * (number + place / countries / services) / PER_YEAR
            start = UNTIL - HOUR * round(ago + 30)
            for asn in range(1, 1 + NETWORKS[number % len(NETWORKS)]):
                url = f"https://service-{service}.example/"
                series = Series("web_connectivity", url, code, asn)
                yield Event(series, "BLOCKED", start, start + 6 * HOUR)
                end = start + 170 * HOUR
                if end + 9 * HOUR <= UNTIL:
                    yield Event(series, "OK", end, end + 9 * HOUR)


def _report(events: list[Event], hours: int) -> Report:
    until = UNTIL + hours * HOUR
    events = sorted(events, key=lambda event: (event.detection_time, event.series))
    names = {event.series.target: f"Service {event.series.input[16:-9]}" for event in events}
    incidents = incidents_of(blockings_of(events), names, 48 * HOUR)
    latest = {event.series: event for event in events}
    statuses = [
        SeriesStatus(
            one, names[one.target], event.status, "OK", event.time, until, 9, 0, 90, 10, 0, 1
        )
        for one, event in sorted(latest.items())
    ]
    periods = [*periods_of(incidents, events), *(so_far(i, until) for i in incidents)]
    charted = [i for i in incidents if i.end is None or i.end > until - PAGE_AGE]
    report = Report(until, statuses, events, incidents, {}, STALE, {})
    return replace(
        report,
        tallies={period: Tally(90, 80, 40) for period in periods},
        charts={incident.key: _chart(incident) for incident in charted},
        severities={i.key: Severity(len(i.networks), 12, 80, 100) for i in incidents},
    )


def _chart(incident: Incident) -> Chart:
    steps = 80
    return Chart(incident.start - 72 * HOUR, 3 * HOUR, (9,) * steps, (3,) * steps, (4,) * steps)


def _measure(title: str, report: Report, folder: Path) -> None:
    started, before = time.perf_counter(), os.times()
    drafts = drafts_of(report, news_of(report), Site())
    done = publish(drafts, folder / "output", folder / "ledger.json")
    after, lasted = os.times(), time.perf_counter() - started
    spent = after.user + after.system - before.user - before.system
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{title}: {len(report.incidents):,} incidents, {done.written:,} files written,"
        f" {done.kept:,} kept, {spent:.1f} s of CPU, {lasted:.1f} s, peak {peak:.0f} MiB"
    )


if __name__ == "__main__":
    main()
