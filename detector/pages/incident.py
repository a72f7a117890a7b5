"""The page of an incident, under an address that never changes; it stays when it was withdrawn."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from ooni_common.output import counted
from outputs.charts import Drawing, drawing_of
from outputs.doubts import doubts_of
from outputs.growth import growth_of, title_at_detection
from outputs.incidents import Incident
from outputs.items import WITHDRAWN_TITLE
from outputs.links import country_path, incident_link, network_link, search_link, service_path
from outputs.report import ONGOING, SILENT, WITHDRAWN, Report
from outputs.severity import Severity
from outputs.tallies import Chart, Tally, so_far, until_turn
from outputs.timeline import MOSTLY_OVER, Turn
from outputs.wording import clean, network_name, percent, spoken_duration, within
from pages.drafts import Draft, seed_of
from pages.entries import Entry
from pages.rendering import Link, Site, linked_within, render, shortened

MOST_NETWORKS = 600  # that a page names; the data has all
MOST_TARGETS = 50
MOST_GROWTH = 24  # lines of the history that tell of networks which joined
BUDGET = 15_000  # characters of the addresses in each of these lists


@dataclass(frozen=True)
class Place:
    """A network of an incident.

    Attributes:
        link: its name, and its measurements.
        start: when the signs began there.
        end: when they ended; None: they have not.
    """

    link: Link
    start: datetime
    end: datetime | None


class Line(NamedTuple):
    """What was reported at a time.

    Attributes:
        time: when.
        text: what was said then.
        withdrawn: why it was wrong; "" while it holds.
    """

    time: datetime
    text: str
    withdrawn: str = ""


class Early(NamedTuple):
    """The networks whose signs are older than the incident, and the time of the first ones."""

    networks: int
    start: datetime


@dataclass(frozen=True)
class Details:
    """What is known of an incident that holds, or was withdrawn by hand.

    Attributes:
        lasted: how long, in words; "" where nobody can know.
        targets: what was measured, with the measurements.
        inside: counts of the interval, up to now while it lasts; None: it has none.
        severity: the networks and runs that are concerned; None: nobody measured it lately.
        turn: when it was mostly over; None: it was not, or it has ended.
        doubts: why it may be none, in sentences.
        earlier: counts of the time before it, to compare with.
        link: to the measurements.
        drawing: the chart; None: it is too old for one.
    """

    lasted: str
    targets: Sequence[Link]
    inside: Tally | None
    severity: Severity | None
    turn: Turn | None
    doubts: Sequence[str]
    earlier: Tally | None
    link: str
    drawing: Drawing | None


def incident_pages(report: Report, entries: Sequence[Entry], site: Site) -> Iterator[Draft]:
    """Yield the page of each incident."""
    for entry in entries:
        path = f"{entry.page}.html"
        make = functools.partial(page_of, report, entry, site, path)
        yield Draft(path, make, _seed(report, entry, site))


def _seed(report: Report, entry: Entry, site: Site) -> str:
    """Return what the page is made of; only of one that goes on does the hour matter."""
    incident = entry.incident
    if incident is None:
        return seed_of(entry.seed, site)
    chart = report.charts.get(incident.key)
    if incident.end is not None:
        return seed_of(entry.seed, site, chart)
    until = report.until if entry.state == ONGOING else report.until.date()
    return seed_of(entry.seed, site, chart, until, counts_of(report, incident)[1])


def page_of(report: Report, entry: Entry, site: Site, path: str) -> bytes:
    """Return the page of an incident."""
    details = None if entry.incident is None else details_of(report, entry.incident)
    return render(
        "incident",
        path,
        site,
        entry=entry,
        until=report.until,
        details=details,
        charts=details is not None and details.drawing is not None,
        networks=_networks(report, entry),
        more_networks=max(0, len(entry.data["networks"]) - MOST_NETWORKS),
        more_targets=max(0, len(entry.data["targets"]) - MOST_TARGETS),
        early=early_of(entry),
        history=history_of(entry),
        corrected=[item for item in entry.items if item.withdrawn],
        sure=sure_of(entry, details.doubts if details else ()),
        country_feed=country_path(entry.probe_cc),
        service_feed=service_path(entry.service),
    )


def sure_of(entry: Entry, doubts: Sequence[str]) -> str:
    """Return how sure it is, in words."""
    if entry.state == WITHDRAWN:
        return "Withdrawn: it is no longer held to be a blocking."
    if doubts:
        return f"In doubt. {' '.join(doubts)}"
    number = len(entry.data["networks"])
    agreed = f"{number:,} networks show the same, and no" if number > 1 else "No"
    return f"{agreed} reason for doubt is seen."


def history_of(entry: Entry) -> list[Line]:
    """Return what was reported, in the order of time, each with what was known then.

    Of an incident that grew in more hours than a page shows, those in the middle are left out.
    """
    lines = [
        Line(
            item.time,
            title_at_detection(entry.data)
            if item.kind == "blocked"
            else item.title.removeprefix(WITHDRAWN_TITLE),
            item.withdrawn,
        )
        for item in entry.items
    ]
    grown = growth_of(entry.data)[1:]
    shown = grown if len(grown) <= MOST_GROWTH else [*grown[: MOST_GROWTH - 1], grown[-1]]
    lines += [Line(reach.time, f"Grown to {reach.networks:,} networks") for reach in shown]
    return sorted(lines, key=lambda line: line.time)


def early_of(entry: Entry) -> Early | None:
    """Return which networks began before the incident did; None: none did."""
    starts = [_time(network["start"]) for network in entry.data["networks"]]
    early = [start for start in starts if start < entry.start]
    return Early(len(early), min(early)) if early else None


def _networks(report: Report, entry: Entry) -> list[Place]:
    """Return the networks, the first ones first, with links where the incident is there."""
    code, incident = entry.probe_cc, entry.incident
    if incident is None:
        times = [(n["probe_asn"], n["start"], n["end"]) for n in entry.data["networks"]]
        places = [
            Place(Link(network_name(asn), ""), _time(start), _time(end) if end else None)
            for asn, start, end in times
        ]
    else:
        places = [
            Place(
                Link(network_name(n.asn), network_link(n, code, n.end or report.until)),
                n.start,
                n.end,
            )
            for n in incident.by_network
        ]
    places = sorted(places, key=lambda place: place.start)[:MOST_NETWORKS]
    links = linked_within([place.link for place in places], BUDGET)
    return [replace(place, link=link) for place, link in zip(places, links, strict=True)]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def details_of(report: Report, incident: Incident) -> Details:
    """Return what is known of an incident."""
    state = report.state_of(incident)
    turn, inside = counts_of(report, incident)
    end = incident.end or (turn.end if turn else report.until)
    chart = report.charts.get(incident.key)
    earlier = None if chart is None else chart.tally_within(chart.start, incident.start)
    targets = [
        Link(
            shortened(input_ or f"{test_name} test"),
            search_link((test_name, input_), incident.probe_cc, None, incident.start, end),
        )
        for test_name, input_ in incident.targets[:MOST_TARGETS]
    ]
    return Details(
        lasted="" if state in (SILENT, WITHDRAWN) else spoken_duration(end - incident.start),
        targets=linked_within(targets, BUDGET),
        inside=inside,
        severity=report.severities.get(incident.key),
        turn=turn,
        doubts=list(doubts_of(report, incident).values()),
        earlier=earlier,
        link=incident_link(incident, end),
        drawing=None if chart is None else drawn(report, incident, chart),
    )


def counts_of(report: Report, incident: Incident) -> tuple[Turn | None, Tally | None]:
    """Return when an incident was mostly over, if it is, and what was measured while it lasted."""
    turns = report.turns_of(incident)
    turn = turns[-1] if turns and report.state_of(incident) == MOSTLY_OVER else None
    period = until_turn(incident, turn) if turn else so_far(incident, report.until)
    return turn, report.tallies.get(period)


def drawn(report: Report, incident: Incident, chart: Chart) -> Drawing:
    """Return the chart of an incident."""
    turn, inside = counts_of(report, incident)
    earlier = chart.tally_within(chart.start, incident.start)
    marked = turn.end if turn else incident.end
    return drawing_of(chart, incident.start, marked, _label(incident, inside, earlier))


def _label(incident: Incident, inside: Tally | None, earlier: Tally | None) -> str:
    """Return what the chart shows, for those who can't see it."""

    def share(tally: Tally | None) -> str:
        if tally is None:
            return "no measurements"
        share = percent(tally.anomalies, tally.measurements)
        return f"{share}% of {counted(tally.measurements, 'measurement')}"

    return (
        f"Chart for {clean(incident.service)} in {shortened(within(incident.probe_cc))}: anomalies"
        f" in {share(inside)} of the detected interval, and in {share(earlier)} before it"
    )
