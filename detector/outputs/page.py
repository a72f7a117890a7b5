"""The page for people: what is blocked now, and what has happened lately; without JavaScript."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from outputs.charts import Drawing, drawing_of
from outputs.doubts import doubts_of, wrong_measurements
from outputs.incidents import Incident
from outputs.items import Item
from outputs.links import (
    country_link,
    country_path,
    incident_link,
    name_hash,
    network_link,
    search_link,
)
from outputs.news import News
from outputs.report import SILENT, WITHDRAWN, Report
from outputs.severity import Severity
from outputs.silence_items import of_silence
from outputs.statuses import Service
from outputs.tallies import Chart, Tally, so_far, until_turn
from outputs.timeline import MOSTLY_OVER, Turn
from outputs.wording import (
    clean,
    counted,
    country,
    iso,
    network_name,
    percent,
    spoken,
    spoken_date,
    spoken_duration,
    within,
)

TEMPLATE = "page.html.jinja"
MOST_LISTED = 20  # silences, and items that were withdrawn; the feeds have all
AGE = timedelta(days=30)  # of the silences that are shown
SHOWN = 8  # networks, and inputs, that are not folded
LONGEST = 90  # characters of an input; its link has all of them


@dataclass(frozen=True)
class Link:
    """What a link says, and where it leads."""

    text: str
    url: str


@dataclass(frozen=True)
class Card:
    """An incident as the page shows it.

    Attributes:
        id: of its element, the same in each run.
        incident: what it is about.
        state: ongoing, ended, or no recent measurements.
        lasted: how long, in words; "" where nobody can know.
        networks: with their measurements.
        targets: what was measured, with the measurements.
        inside: counts of the interval, up to now while it lasts; None: it has none.
        severity: the networks and runs that are concerned; None: nobody measured it lately.
        turn: when it was mostly over; None: it was not, or it has ended.
        doubts: why it may be none, in sentences.
        withdrawn: why it is not held to be one any more; "".
        earlier: counts of the time before it, to compare with.
        link: to the measurements.
        feed: of the country, without a suffix.
        drawing: the chart.
    """

    id: str
    incident: Incident
    state: str
    lasted: str
    networks: Sequence[Link]
    targets: Sequence[Link]
    inside: Tally | None
    severity: Severity | None
    turn: Turn | None
    doubts: Sequence[str]
    withdrawn: str
    earlier: Tally | None
    link: str
    feed: str
    drawing: Drawing


def page(report: Report, services: Sequence[Service], news: News) -> bytes:
    """Return the page.

    Args:
        report: what there is to tell.
        services: how each service is now.
        news: what the feeds tell.
    """
    import jinja2  # noqa: PLC0415 (most commands need none)

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "clean": clean,
        "country": country,
        "counted": counted,
        "date": spoken_date,
        "duration": spoken_duration,
        "country_link": country_link,
        "iso": iso,
        "of_countries": _of_countries,
        "network_name": network_name,
        "percent": percent,
        "said": _said,
        "spoken": spoken,
        "within": within,
    }
    text = environment.get_template(TEMPLATE).render(
        report=report,
        summary=_summary(services),
        wrong=wrong_measurements(report),
        services=services,
        cards=cards_of(report),
        feeds=_country_feeds(news),
        shown=SHOWN,
        withdrawn=news.withdrawn[:MOST_LISTED],
        silences=_silences(report),
    )
    return text.encode()


def _silences(report: Report) -> list[Item]:
    """Return the items of the last silences, the newest first."""
    limit = report.until - AGE
    recent = [s for s in report.silences if s.end is None or s.end >= limit]
    return [of_silence(silence) for silence in reversed(recent)][:MOST_LISTED]


def _summary(services: Sequence[Service]) -> str:
    """Return what matters most."""
    countries = {place.probe_cc for service in services for place in service.blocked}
    if not countries:
        return "No signs of blocking now."
    names = sum(1 for service in services if service.blocked)
    extent = f"{counted(names, 'service')} in {_of_countries(len(countries))}"
    return f"Now, there are signs of blocking of {extent}."


def _of_countries(number: int, which: str = "") -> str:
    return f"{number} {which}{'country' if number == 1 else 'countries'}"


def _said(tally: Tally, noun: str = "measurement") -> str:
    """Return counts for people: "80 of 88 measurements (91%), 40 runs"."""
    whole = counted(tally.measurements, noun) if noun else f"{tally.measurements:,}"
    share = percent(tally.anomalies, tally.measurements)
    return f"{tally.anomalies:,} of {whole} ({share}%), {counted(tally.runs, 'run')}"


def _country_feeds(news: News) -> list[Link]:
    """Return the countries that have a feed, and the path of it, without a suffix."""
    codes = {item.probe_cc for item in news.items}
    ordered = sorted(codes, key=lambda code: (country(code), code))
    return [Link(country(code), country_path(code)) for code in ordered]


def cards_of(report: Report) -> list[Card]:
    """Return the incidents that have a chart, those detected last first."""
    return [
        _card(report, incident, report.charts[incident.key])
        for incident in sorted(
            report.incidents, key=lambda incident: incident.detected, reverse=True
        )
        if incident.key in report.charts
    ]


def _card(report: Report, incident: Incident, chart: Chart) -> Card:
    state = report.state_of(incident)
    turns = report.turns_of(incident)
    turn = turns[-1] if turns and state == MOSTLY_OVER else None
    end = incident.end or (turn.end if turn else report.until)
    period = until_turn(incident, turn) if turn else so_far(incident, report.until)
    inside = report.tallies.get(period)
    marked = end if turn else incident.end
    earlier = chart.tally_within(chart.start, incident.start)
    return Card(
        id=f"incident-{name_hash((report.guid_of(incident),))}",
        incident=incident,
        state=state,
        lasted="" if state in (SILENT, WITHDRAWN) else spoken_duration(end - incident.start),
        networks=[
            Link(
                network_name(network.asn),
                network_link(network, incident.probe_cc, network.end or report.until),
            )
            for network in incident.by_network
        ],
        targets=[
            Link(
                _shortened(*target),
                search_link(target, incident.probe_cc, None, incident.start, end),
            )
            for target in incident.targets
        ],
        inside=inside,
        severity=report.severities.get(incident.key),
        turn=turn,
        doubts=list(doubts_of(report, incident).values()),
        withdrawn=report.withdrawn.get(incident.key, ""),
        earlier=earlier,
        link=incident_link(incident, end),
        feed=country_path(incident.probe_cc),
        drawing=drawing_of(chart, incident.start, marked, _label(incident, inside, earlier)),
    )


def _shortened(test_name: str, input_: str) -> str:
    text = clean(input_ or f"{test_name} test")
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _label(incident: Incident, inside: Tally | None, earlier: Tally | None) -> str:
    """Return what the chart shows, for those who can't see it."""

    def share(tally: Tally | None) -> str:
        if tally is None:
            return "no measurements"
        share = percent(tally.anomalies, tally.measurements)
        return f"{share}% of {counted(tally.measurements, 'measurement')}"

    return (
        f"Chart for {clean(incident.service)} in {within(incident.probe_cc)}: anomalies in "
        f"{share(inside)} of the detected interval, and in {share(earlier)} before it"
    )
