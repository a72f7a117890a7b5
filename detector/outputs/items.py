"""What the feeds tell: that something is blocked, that it no longer is, or mostly not.

Titles and descriptions say what the measurements show, and no more. Titles are plain text and never
hold an input; descriptions are HTML, as readers of feeds take them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from html import escape
from typing import Any

from ooni_common.output import counted
from outputs.doubts import doubts_of
from outputs.growth import times_said, title_of
from outputs.incidents import Incident, Network
from outputs.links import AUTHORITY, incident_link, name_hash, network_link, search_link
from outputs.published import Item
from outputs.report import Report
from outputs.severity import Severity
from outputs.tallies import Tally, since_turn, until_detected, until_sure, until_turn
from outputs.timeline import OVER, Turn
from outputs.wording import (
    clean,
    country,
    iso,
    network_name,
    of_measurements,
    percent,
    spoken,
    spoken_duration,
    within,
)
from series import BLOCKED, STATE_NAMES, Event, Series, Target

WITHDRAWN_TITLE = "Withdrawn: "  # the title of what was wrong begins so
LISTED = 50  # networks, at most, that a description names; the JSON names all
CAUTION = (
    "Found automatically, in measurements by volunteers. Anomalies are a sign of blocking, not "
    "proof of it: please look at the measurements."
)


def withdrawn(item: Item, reason: str) -> Item:
    """Return an item as it is when it was wrong: the same one, which says so."""
    said = f"<p>Withdrawn: {escape(clean(reason))}</p>"
    return replace(
        item,
        title=f"{WITHDRAWN_TITLE}{item.title}",
        description=said + item.description,
        withdrawn=clean(reason),
    )


def of_incident(report: Report, incident: Incident) -> Iterator[Item]:
    """Yield the item that tells of an incident, and those of its turns."""
    data = data_of(report, incident)
    reason = report.withdrawn.get(incident.key, "")
    told = [_begun(report, incident, data)]
    told += [_turned(report, incident, turn, data) for turn in report.turns_of(incident)]
    yield from (withdrawn(item, reason) if reason else item for item in told)


def _begun(report: Report, incident: Incident, data: dict[str, Any]) -> Item:
    tally = report.tallies.get(until_detected(incident))
    service, place = clean(incident.service), within(incident.probe_cc)
    number = counted(len(incident.networks), "network")
    signs = f"OONI measurements show signs that {service} is blocked in {place}"
    paragraphs = [
        f"{signs}, on {number}: {times_said(data)}.",
        *_tally_said(tally, "Up to its detection,"),
        *_severity_said(incident, report.severities.get(incident.key)),
        *(f"Doubt: {doubt}" for doubt in doubts_of(report, incident).values()),
    ]
    return Item(
        report.guid_of(incident),
        title_of(data),
        incident_link(incident, incident.detected),
        incident.detected,
        _html(paragraphs, incident, incident.last_detected, incident.last_detected),
        (service, country(incident.probe_cc)),
        {"incident": data, "counts": _tally_data(tally), "status": "BLOCKED"},
        "blocked",
        service,
        clean(incident.probe_cc),
    )


def _turned(report: Report, incident: Incident, turn: Turn, data: dict[str, Any]) -> Item:
    before = report.tallies.get(until_turn(incident, turn))
    since = report.tallies.get(since_turn(incident, turn))
    service, place = clean(incident.service), within(incident.probe_cc)
    over = turn.kind == OVER
    whole = len(turn.over) + len(turn.blocked) + len(turn.silent)
    number = _networks_said(turn.over) if over else f"{len(turn.over)} of {whole} networks"
    lasted = spoken_duration(turn.end - incident.start)
    times = f"since about {spoken(incident.start)}, for {lasted}; ended about {spoken(turn.end)}"
    paragraphs = [
        f"OONI measurements show that {service} can be reached again in {place}, on {number}.",
        f"It appeared to be blocked {times}, detected {spoken(turn.detected)}.",
        *_tally_said(before),
        *_tally_said(since, "Since then, up to its detection,"),
        *_rest_said("Still blocked", turn.blocked),
        *_rest_said("Without measurements in the 14 days before", turn.silent),
    ]
    kind = "ended" if over else "mostly-over"
    said = "appears to be reachable again" if over else "appears to be mostly reachable again"
    counts = {"counts": _tally_data(before), "counts_since": _tally_data(since)}
    networks = {
        "over": list(turn.over),
        "blocked": list(turn.blocked),
        "not_measured": list(turn.silent),
    }
    return Item(
        f"{report.guid_of(incident)}/{kind}/{iso(turn.end)}",
        f"{service} {said} in {place}: {number}",
        incident_link(incident, turn.end),
        turn.detected,
        _html(paragraphs, incident, turn.end, turn.detected),
        (service, country(incident.probe_cc)),
        {
            "incident": data,
            **counts,
            "status": "OK" if over else "MOSTLY_OK",
            "networks": networks,
        },
        kind,
        service,
        clean(incident.probe_cc),
    )


def _networks_said(asns: Sequence[int]) -> str:
    return network_name(asns[0]) if len(asns) == 1 else counted(len(asns), "network")


def _rest_said(which: str, asns: Sequence[int]) -> list[str]:
    if not asns:
        return []
    more = f", and {len(asns) - LISTED:,} more" if len(asns) > LISTED else ""
    return [f"{which}: {', '.join(map(network_name, asns[:LISTED]))}{more}."]


def _tally_said(tally: Tally | None, when: str = "In that time,") -> list[str]:
    return [] if tally is None else [f"{when} {of_measurements(*tally)} showed anomalies."]


def _severity_said(incident: Incident, severity: Severity | None) -> list[str]:
    if severity is None:
        return []
    share = percent(severity.runs_blocked, severity.runs)
    said = (
        f"Blocked on {spoken(incident.last_detected)}: {severity.networks_blocked:,} of "
        f"{counted(severity.networks_measured, 'network')} that measured it in the 14 days before. "
        f"{share}% of all {counted(severity.runs, 'run')} of these days, blocked or not, came from "
        "the networks that are blocked."
    )
    return [said]


def _tally_data(tally: Tally | None) -> dict[str, int] | None:
    return None if tally is None else tally._asdict()


def _html(paragraphs: Sequence[str], incident: Incident, end: datetime, known: datetime) -> str:
    """Return a description; networks that were detected later than known are not in it."""
    networks = [network for network in incident.by_network if network.detected <= known]

    def linked(network: Network) -> str:
        until = network.end or max(end, network.detected)
        link = escape(network_link(network, incident.probe_cc, until))
        return f'<a href="{link}">{network_name(network.asn)}</a> since {spoken(network.start)}'

    named = ", ".join(map(linked, networks[:LISTED]))
    more = f", and {len(networks) - LISTED:,} more" if len(networks) > LISTED else ""
    listed = f"<p>Networks, with their measurements: {named}{more}.</p>"
    return _paragraphs(paragraphs, incident.targets, listed)


def _paragraphs(texts: Sequence[str], targets: Sequence[Target], listed: str = "") -> str:
    """Return a description. An input must not turn the text around it from right to left."""
    tested = "; ".join(
        f"<bdi>{escape(clean(input_))}</bdi> ({escape(clean(test_name))})"
        if input_
        else escape(clean(test_name))
        for test_name, input_ in targets
    )
    return f"{paragraphs_of(texts)}{listed}<p>Tested: {tested}.</p><p>{CAUTION}</p>"


def paragraphs_of(texts: Iterable[str]) -> str:
    """Return texts as HTML."""
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def data_of(report: Report, incident: Incident) -> dict[str, Any]:
    """Return what an incident is, for programs."""
    severity = report.severities.get(incident.key)
    return {
        "id": report.guid_of(incident),
        "service": clean(incident.service),
        "probe_cc": clean(incident.probe_cc),
        "country": country(incident.probe_cc),
        "state": report.state_of(incident),
        "start": iso(incident.start),
        "detected": iso(incident.detected),
        "end": _iso(incident.end),
        "end_detected": _iso(incident.end_detected),
        "severity": None if severity is None else severity._asdict(),
        "doubts": list(doubts_of(report, incident)),
        "targets": [
            {"test_name": clean(test_name), "input": clean(input_)}
            for test_name, input_ in incident.targets
        ],
        "networks": [
            {
                "probe_asn": network.asn,
                "start": iso(network.start),
                "detected": iso(network.detected),
                "end": _iso(network.end),
            }
            for network in incident.by_network
        ],
    }


def _iso(time: datetime | None) -> str | None:
    return None if time is None else iso(time)


def of_event(report: Report, event: Event) -> Item:
    """Return the item that tells of a change of a series."""
    tally = report.tallies.get(until_sure(event))
    series = event.series
    service = clean(report.service_of(series))
    blocked = event.status == STATE_NAMES[BLOCKED]
    said = "blocked" if blocked else "reachable again"
    where = f"on {network_name(series.probe_asn)} in {within(series.probe_cc)}"
    link = search_link(
        series.target, series.probe_cc, series.probe_asn, event.time, event.detection_time
    )
    shown = (
        f"signs that {service} is blocked" if blocked else f"that {service} can be reached again"
    )
    paragraphs = [
        f"Since about {spoken(event.time)}, OONI measurements show {shown} {where}.",
        f"It was detected {spoken(event.detection_time)}.",
        *_tally_said(tally),
    ]
    item = Item(
        f"{AUTHORITY}/series/{name_hash(series)}/{iso(event.detection_time)}/{event.status}",
        f"{service} appears to be {said} {where}",
        link,
        event.detection_time,
        _paragraphs(paragraphs, [series.target]),
        (service, country(series.probe_cc)),
        {"status": event.status, "since": iso(event.time), "counts": _tally_data(tally)},
        event.status,
        service,
        clean(series.probe_cc),
    )
    reason = report.reason_against(event)
    return withdrawn(item, reason) if reason else item


def data_of_series(series: Series, service: str) -> dict[str, Any]:
    """Return what a series is, for programs."""
    return {
        "test_name": clean(series.test_name),
        "input": clean(series.input),
        "probe_cc": clean(series.probe_cc),
        "country": country(series.probe_cc),
        "probe_asn": series.probe_asn,
        "service": service,
    }
