"""Everything as CSV and JSON, and the page that says what each column means."""

import csv
import functools
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from outputs.report import Report
from outputs.silence_items import of_silence
from outputs.wording import country, iso
from pages.drafts import ROOT, Draft, ready, seed_of
from pages.entries import Entry
from pages.places import Now, Place
from pages.rendering import Link, Site, render

TIME = "UTC, as 2026-01-28T15:00:00Z"
INCIDENTS = {
    "id": "its name, which never changes",
    "service": "the service",
    "probe_cc": "the country, two letters (ISO 3166-1)",
    "country": "its name",
    "state": "ongoing, mostly over, ended, no recent measurements, or withdrawn",
    "start": f"when it began, as far as the measurements tell; {TIME}",
    "detected": "when the first signs were detected",
    "end": "when it ended; empty: it has not",
    "end_detected": "when its end was detected",
    "networks": "how many networks had signs of blocking, from the beginning to the end",
    "networks_blocked": "how many were blocked when the last one was detected; empty: not measured",
    "networks_measured": "how many measured the service in the 14 days before that",
    "runs_blocked": "runs of OONI Probe in those 14 days, from those with signs of blocking",
    "runs": "all runs of those 14 days that measured it",
    "doubts": "few_runs, one_network, worldwide: reasons for doubt, with spaces between them",
    "withdrawn": "why it was withdrawn; empty: it holds",
    "page": "its page, below the address of this site",
}
NETWORKS = {
    "id": "of the incident",
    "probe_asn": "the number of the network (AS)",
    "start": f"when it began there; {TIME}",
    "detected": "when it was detected there",
    "end": "when it ended there; empty: it has not",
}
STATUS = {
    "service": "the service",
    "probe_cc": "the country, two letters (ISO 3166-1)",
    "country": "its name",
    "status": "blocked: signs of blocking; none: no signs; unknown: too few measurements",
    "networks_blocked": "networks with signs of blocking",
    "networks_measured": "networks of which a status is known",
    "since": f"when it began; {TIME}; empty: nothing is blocked",
    "seen_begin": "true, or false: it may have begun earlier",
    "id": "of the incident that goes on; empty: there is none",
}
SILENCES = {
    "probe_cc": "the country, two letters (ISO 3166-1)",
    "country": "its name",
    "probe_asn": "the number of the network (AS); empty: the whole country",
    "start": f"the first hour without a run; {TIME}",
    "detected": "when the silence was detected",
    "end": "the first hour with one; empty: there was none yet",
}
FILES = {
    "data/incidents.csv": ("All incidents since the beginning, one a row", INCIDENTS),
    "data/networks.csv": ("The networks of all incidents, one a row", NETWORKS),
    "data/status.csv": ("How each service is in each country now, one a row", STATUS),
    "data/silences.csv": ("When nobody measured, though usually many do, one a row", SILENCES),
}


def data_files(
    report: Report, entries: Sequence[Entry], now: Iterable[Now], site: Site
) -> Iterator[Draft]:
    """Yield all data files."""
    incidents = [
        {**entry.data, "state": entry.state, "withdrawn": entry.withdrawn or None,
         "page": f"{entry.page}.html"}
        for entry in entries
    ]  # fmt: skip
    about = {"licence": site.licence, "licence_url": site.licence_url, "copyright": site.copyright}
    encoded = msgspec.json.encode({**about, "incidents": incidents})
    seed = seed_of(encoded)
    yield ready("data/incidents.json", encoded)
    yield Draft("data/incidents.csv", functools.partial(_incidents_csv, incidents), seed)
    yield Draft("data/networks.csv", functools.partial(_networks_csv, incidents), seed)
    yield ready("data/status.csv", _csv(STATUS, map(_status_row, now)))
    silences = [of_silence(silence).data["silence"] for silence in report.silences]
    yield ready("data/silences.csv", _csv(SILENCES, _silences(silences)))
    yield ready("schema.json", (ROOT / "outputs.schema.json").read_bytes())


def _incidents_csv(incidents: Sequence[Mapping[str, Any]]) -> bytes:
    return _csv(INCIDENTS, map(_incident_row, incidents))


def _networks_csv(incidents: Sequence[Mapping[str, Any]]) -> bytes:
    return _csv(NETWORKS, _networks(incidents))


def _csv(columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return rows as CSV (RFC 4180), with a header; a text is never a formula of a spreadsheet."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([_cell(row[name]) for name in columns] for row in rows)
    return file.getvalue().encode()


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value


def _incident_row(incident: Mapping[str, Any]) -> dict[str, Any]:
    severity = incident["severity"] or dict.fromkeys(
        ("networks_blocked", "networks_measured", "runs_blocked", "runs")
    )
    return {
        **incident,
        **severity,
        "networks": len(incident["networks"]),
        "doubts": " ".join(incident["doubts"]),
    }


def _networks(incidents: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for incident in incidents:
        for network in incident["networks"]:
            yield {"id": incident["id"], **network}


def _status_row(now: Now) -> dict[str, Any]:
    return {
        "service": now.service,
        "probe_cc": now.probe_cc,
        "country": country(now.probe_cc),
        "status": now.status,
        "networks_blocked": now.blocked,
        "networks_measured": now.measured,
        "since": None if now.since is None else iso(now.since),
        "seen_begin": now.seen_begin,
        "id": now.entry.id if now.entry else None,
    }


def _silences(silences: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for silence in silences:
        for time in silence["times"]:
            yield {**silence, **time}


def data_page(places: tuple[Sequence[Place], Sequence[Place]], site: Site) -> Draft:
    """Return the page that says what there is, what it means, and how to cite it."""
    path = "data.html"
    countries, services = (
        [
            Link(place.name or country(place.code), place.feed)
            for place in of_kind
            if place.entries or (place.code and place.silences)
        ]
        for of_kind in places
    )
    make = functools.partial(
        render, "data", path, site, files=FILES, countries=countries, services=services
    )
    return Draft(path, make, seed_of(countries, services, site))
