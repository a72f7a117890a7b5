"""What the feeds tell: that something is blocked, and that it no longer is.

Titles and descriptions say what the measurements show, and no more. Titles are plain text and never
hold an input; descriptions are HTML, as readers of feeds take them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any
from urllib.parse import quote

from outputs.incidents import Incident
from outputs.links import incident_link, name_hash, search_link
from outputs.report import Report
from outputs.tallies import Tally, until_detected, until_over, until_sure
from outputs.wording import (
    clean,
    counted,
    country,
    iso,
    network_name,
    spoken,
    spoken_duration,
    within,
)
from series import BLOCKED, STATE_NAMES, Event, Series, Target

AUTHORITY = "tag:ooni.org,2025:detector"  # RFC 4151: what begins like this is ours to name
LISTED = 50  # networks, at most, that a description names; the JSON names all
CAUTION = (
    "Found automatically, in measurements by volunteers. Anomalies are a sign of blocking, not "
    "proof of it: please look at the measurements."
)


@dataclass(frozen=True)
class Item:
    """One entry of a feed.

    Attributes:
        guid: never changes, and no other one has it.
        title: plain text.
        link: to the measurements.
        time: when it was sure.
        description: HTML.
        categories: what a reader can filter by.
        data: the same for programs.
    """

    guid: str
    title: str
    link: str
    time: datetime
    description: str
    categories: tuple[str, ...]
    data: dict[str, Any]


def of_incident(report: Report, incident: Incident) -> Iterator[Item]:
    """Yield the item that tells of an incident, and the one that tells of its end."""
    data = _data(incident, report.state_of(incident))
    yield _begun(incident, report.tallies.get(until_detected(incident)), data)
    if incident.end is not None and incident.end_detected is not None:
        tally = report.tallies.get(until_over(incident, incident.end))
        yield _ended(incident, tally, data, incident.end, incident.end_detected)


def guid_of(incident: Incident) -> str:
    """Return what tells an incident from all others, and never changes."""
    place = f"{quote(clean(incident.probe_cc))}/{quote(clean(incident.service), safe='')}"
    return f"{AUTHORITY}/{place}/{iso(incident.detected)}"


def _begun(incident: Incident, tally: Tally | None, data: dict[str, Any]) -> Item:
    service, place = clean(incident.service), within(incident.probe_cc)
    number = counted(len(incident.networks), "network")
    times = f"began about {spoken(incident.start)}, detected {spoken(incident.detected)}"
    paragraphs = [
        f"OONI measurements show signs that {service} is blocked in {place}, on {number}: {times}.",
        *_tally_said(tally),
    ]
    return Item(
        guid_of(incident),
        f"{service} appears to be blocked in {place}: {_networks_said(incident)}",
        # Up to when all was sure: what comes later must not change the item from run to run.
        incident_link(incident, incident.last_detected),
        incident.detected,
        _html(paragraphs, incident),
        (service, country(incident.probe_cc)),
        {"incident": data, "counts": _tally_data(tally), "status": "BLOCKED"},
    )


def _ended(
    incident: Incident, tally: Tally | None, data: dict[str, Any], end: datetime, detected: datetime
) -> Item:
    service, place = clean(incident.service), within(incident.probe_cc)
    number = counted(len(incident.networks), "network")
    lasted = spoken_duration(end - incident.start)
    times = f"blocked since about {spoken(incident.start)}, for {lasted}; ended about {spoken(end)}"
    paragraphs = [
        f"OONI measurements show that {service} can be reached again in {place}, on {number}.",
        f"It appeared to be {times}, detected {spoken(detected)}.",
        *_tally_said(tally),
    ]
    return Item(
        f"{guid_of(incident)}/ended/{iso(end)}",
        f"{service} appears to be reachable again in {place}: {_networks_said(incident)}",
        incident_link(incident, end),
        detected,
        _html(paragraphs, incident),
        (service, country(incident.probe_cc)),
        {"incident": data, "counts": _tally_data(tally), "status": "OK"},
    )


def _networks_said(incident: Incident) -> str:
    asns = incident.networks
    return network_name(asns[0]) if len(asns) == 1 else counted(len(asns), "network")


def _tally_said(tally: Tally | None) -> list[str]:
    if tally is None:
        return []
    whole = counted(tally.measurements, "measurement")
    return [f"In that time, {tally.anomalies:,} of {whole} showed anomalies."]


def _tally_data(tally: Tally | None) -> dict[str, int] | None:
    return None if tally is None else tally._asdict()


def _html(paragraphs: Sequence[str], incident: Incident) -> str:
    networks = incident.by_network
    listed = networks[:LISTED]
    named = ", ".join(
        f"{network_name(network.asn)} since {spoken(network.start)}" for network in listed
    )
    more = f", and {len(networks) - LISTED:,} more" if len(networks) > LISTED else ""
    return _paragraphs([*paragraphs, f"Networks: {named}{more}."], incident.targets)


def _paragraphs(texts: Sequence[str], targets: Sequence[Target]) -> str:
    """Return a description. An input must not turn the text around it from right to left."""
    tested = "; ".join(
        f"<bdi>{escape(clean(input_))}</bdi> ({escape(clean(test_name))})"
        if input_
        else escape(clean(test_name))
        for test_name, input_ in targets
    )
    paragraphs = "".join(f"<p>{escape(text)}</p>" for text in texts)
    return f"{paragraphs}<p>Tested: {tested}.</p><p>{CAUTION}</p>"


def _data(incident: Incident, state: str) -> dict[str, Any]:
    """Return what an incident is, for programs."""
    return {
        "id": guid_of(incident),
        "service": clean(incident.service),
        "probe_cc": clean(incident.probe_cc),
        "country": country(incident.probe_cc),
        "state": state,
        "start": iso(incident.start),
        "detected": iso(incident.detected),
        "end": _iso(incident.end),
        "end_detected": _iso(incident.end_detected),
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
    return Item(
        f"{AUTHORITY}/series/{name_hash(series)}/{iso(event.detection_time)}/{event.status}",
        f"{service} appears to be {said} {where}",
        link,
        event.detection_time,
        _paragraphs(paragraphs, [series.target]),
        (service, country(series.probe_cc)),
        {"status": event.status, "since": iso(event.time), "counts": _tally_data(tally)},
    )


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
