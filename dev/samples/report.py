"""A made-up report of the detector, and what its outputs make of it: to look at page and feeds.

    python -m dev.samples.report FOLDER --incidents 3

writes the outputs into FOLDER; FOLDER/index.html is the page. The same arguments give the same
files. With --hostile, inputs and services are as nasty as they can be.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "detector"))

from outputs.incidents import Incident, blockings_of, incidents_of
from outputs.news import news_of
from outputs.publish import drafts_of, publish
from outputs.report import Report
from outputs.severity import Severity
from outputs.tallies import Chart, Period, Tally, periods_of, so_far
from pages.rendering import Site
from series import Event, Series, SeriesStatus

UNTIL = datetime(2026, 2, 1, 15, tzinfo=UTC)
HOUR = timedelta(hours=1)
STALE = timedelta(days=30)
WINDOW = timedelta(hours=24)
SERVICES = {
    "Facebook": (("web_connectivity", "https://www.facebook.com/"), ("facebook_messenger", "")),
    "Instagram": (("web_connectivity", "https://www.instagram.com/"),),
    "Signal": (("signal", ""),),
    "Telegram": (("telegram", ""), ("web_connectivity", "https://web.telegram.org/")),
    "TikTok": (("web_connectivity", "https://www.tiktok.com/"),),
    "Twitter": (
        ("web_connectivity", "https://twitter.com/"),
        ("web_connectivity", "https://x.com/"),
    ),
    "WhatsApp": (("whatsapp", ""),),
    "YouTube": (("web_connectivity", "https://www.youtube.com/"),),
}
CODES = (
    "IRRUCNTRPKEGVEMMTHVNIDINBRUGETTZSDSNGNTMUZKZBYAZIQSAAEQAOMJOLBSYYEDZMATNLYNGKEGH"
    "CMCDCGGATDNEMLBFTGBJCIZMZWMZAOZAUSCAMXGTHNSVNICRPACUDOCOECPEBOCLARUYPYGBIEFRESPT"
    "ITDENLBECHATPLCZSKHUROBGGRRSUAMDEELVLTFISENODKJPKRTWHKPHMYSGKHLABDLKNPAFKGTJMNAU"
    "NZFJSBKY"
)
COUNTRIES = [CODES[i : i + 2] for i in range(0, len(CODES), 2)]
HOSTILE = {
    "<script>alert(1)</script>": (
        ("web_connectivity", "https://a.example/?q=\"><script>alert('x')</script>&amp;<!--"),
        ("web_connectivity", "https://b.example/" + "../" * 20 + "etc/passwd"),
        ("web_connectivity", "https://c.example/" + "W" * 2000),
    ),
    '\u202eBidi 🦄 & {{ 7*7 }}" onclick="alert(1)': (
        ("web_connectivity", "https://d.example/\u202e\u05d0\u05d1\u0627\u0644/🔒/" + "é" * 1000),
        ("web_connectivity", "https://e.example/\x01\x08\x0b\x1f\x7f\x85\ufffe]]>\r\n\t"),
    ),
}


def sample_report(
    incidents: int, *, series: int = 3000, hostile: bool = False, seed: int = 1
) -> Report:
    """Return a report.

    Args:
        incidents: how many; the last ones are still ongoing.
        series: how many are followed, at least.
        hostile: use inputs that break what is careless.
        seed: of all that is random.
    """
    chosen = random.Random(seed)  # noqa: S311 (no secret)
    services = HOSTILE if hostile else SERVICES
    events = [
        event
        for number, (service, code) in enumerate(_places(incidents, services, chosen))
        for event in _events(services[service], code, number, incidents, chosen)
    ]
    events.sort(key=lambda event: (event.detection_time, event.series))
    names = {target: service for service, targets in services.items() for target in targets}
    invented = incidents_of(blockings_of(events), names, WINDOW)
    statuses = _statuses(events, names, series, chosen)
    last = {status.series: status.last for status in statuses}
    charts = {incident.key: _chart(incident, last, chosen) for incident in invented}
    periods = [*periods_of(invented, events), *(so_far(incident, UNTIL) for incident in invented)]
    tallies = {period: _tally(period, chosen) for period in periods}
    severities = {incident.key: _severity(incident, chosen) for incident in invented}
    return Report(UNTIL, statuses, events, invented, charts, STALE, tallies, severities=severities)


def _places(
    incidents: int, services: Iterable[str], chosen: random.Random
) -> list[tuple[str, str]]:
    """Return where something happens: each service in each country once, so that none merge."""
    places = [(service, code) for service in services for code in COUNTRIES]
    return chosen.sample(places, incidents)


def _events(
    targets: Sequence[tuple[str, str]],
    code: str,
    number: int,
    incidents: int,
    chosen: random.Random,
) -> list[Event]:
    """Return the changes of an incident; those with high numbers are the newest."""
    networks = (1, 3, 30, 2, 1, 12, 5, 1)[number % 8]
    age = (incidents - number - 1) / incidents
    start = UNTIL - HOUR * (20 + int(2000 * age**2) + chosen.randrange(10))
    length = HOUR * (5000, 9, 5000, 120, 50, 300, 14)[number % 7]
    events = []
    for asn in chosen.sample(range(1000, 400_000), networks):
        series = Series(*chosen.choice(targets), code, asn)
        begun = start + HOUR * chosen.randrange(6)
        events.append(Event(series, "BLOCKED", begun, begun + HOUR * chosen.randrange(3, 9)))
        over = begun + length
        if over + 8 * HOUR < UNTIL:
            events.append(Event(series, "OK", over, over + HOUR * chosen.randrange(3, 8)))
    return [event for event in events if event.detection_time <= UNTIL]


def _statuses(
    events: Iterable[Event],
    names: dict[tuple[str, str], str],
    series: int,
    chosen: random.Random,
) -> list[SeriesStatus]:
    """Return the statuses of the series that have events, and of others that have none."""
    latest = {event.series: event for event in events}
    statuses = [
        _status(event.series, names, event.status, event.time, chosen) for event in latest.values()
    ]
    targets = sorted(names)
    chosen_series = set(latest)
    while len(chosen_series) < series:
        new = Series(*chosen.choice(targets), chosen.choice(COUNTRIES), chosen.randrange(400_000))
        if new not in chosen_series:
            chosen_series.add(new)
            status = chosen.choices(("OK", "BLOCKED", "UNKNOWN"), (90, 0.3, 10))[0]
            since = UNTIL - HOUR * chosen.randrange(3000, 9000)
            statuses.append(_status(new, names, status, since, chosen))
    return sorted(statuses, key=lambda status: status.series)


def _status(
    series: Series,
    names: dict[tuple[str, str], str],
    status: str,
    since: datetime,
    chosen: random.Random,
) -> SeriesStatus:
    anomalies = {"OK": 3.0, "BLOCKED": 94.0, "UNKNOWN": 10.0}[status] + chosen.random()
    # What is blocked for long is often measured no more.
    silent = status == "BLOCKED" and UNTIL - since > STALE and chosen.random() < 0.9
    last = UNTIL - HOUR * chosen.randrange(10) - (STALE if silent else 0 * HOUR)
    return SeriesStatus(
        series=series,
        service=names[series.test_name, series.input],
        status=status,
        old_status={"OK": "BLOCKED", "BLOCKED": chosen.choice(("OK", "UNKNOWN"))}.get(status, "OK"),
        since=since,
        last=max(since, last),
        cnt=chosen.uniform(1, 300),
        confirmed_perc=0.0,
        pure_anomaly_perc=anomalies,
        accessible_perc=100.0 - anomalies,
        change=chosen.random() / 3,
        stability=1 - anomalies / 100,
    )


def _chart(incident: Incident, last: dict[Series, datetime], chosen: random.Random) -> Chart:
    """Return the counts around an incident, with more measurements by day than by night."""
    start = incident.start - 72 * HOUR
    over = UNTIL if incident.end_detected is None else incident.end_detected + 72 * HOUR
    hours = min(UNTIL, over, start + 720 * HOUR) - start
    step = next((s for s, most in {1: 80, 3: 240, 6: 480}.items() if hours <= most * HOUR), 12)
    steps = max(1, -(-hours // (step * HOUR)))
    rate = chosen.uniform(0.1, 0.6) * step * len(incident.networks)
    measurements, anomalies = [], []
    for number in range(steps):
        at = start + number * step * HOUR
        daily = 1.5 if 6 <= at.hour < 22 else 0.4
        measured = any(at < last[blocking.series] for blocking in incident.blockings)
        count = round(rate * daily * chosen.uniform(0.4, 1.6)) if measured else 0
        blocked = incident.start <= at < (incident.end or UNTIL)
        measurements.append(count)
        anomalies.append(sum(chosen.random() < (0.93 if blocked else 0.04) for _ in range(count)))
    runs = [-(-count // 3) for count in measurements]
    return Chart(start, step * HOUR, tuple(measurements), tuple(anomalies), tuple(runs))


def _tally(period: Period, chosen: random.Random) -> Tally:
    measurements = len(period.series) * ((period.end - period.start) // HOUR)
    anomalies = round(measurements * chosen.uniform(0.85, 1))
    return Tally(measurements, anomalies, -(-measurements // 3))


def _severity(incident: Incident, chosen: random.Random) -> Severity:
    blocked = len(incident.networks)
    runs = 40 * blocked + chosen.randrange(40)
    return Severity(blocked, blocked + chosen.randrange(6), 40 * blocked, runs)


def main() -> None:
    """Write the outputs of a report."""
    parser = argparse.ArgumentParser(description="write the outputs of a made-up report")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--incidents", type=int, default=3)
    parser.add_argument("--series", type=int, default=3000)
    parser.add_argument("--hostile", action="store_true", help="inputs that break what is careless")
    arguments = parser.parse_args()
    report = sample_report(arguments.incidents, series=arguments.series, hostile=arguments.hostile)
    started = time.perf_counter()
    done = publish(drafts_of(report, news_of(report), Site()), arguments.folder)
    print(
        f"{done.written} files written, {done.kept} unchanged, {done.removed} removed "
        f"in {time.perf_counter() - started:.1f} s; see {arguments.folder / 'index.html'}"
    )


if __name__ == "__main__":
    main()
