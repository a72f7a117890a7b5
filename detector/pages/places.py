"""The pages of countries and of services: how it is now, charts, and all incidents."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from outputs import statuses
from outputs.charts import Drawing
from outputs.links import country_link, country_page, country_path, service_page, service_path
from outputs.published import Item
from outputs.report import ONGOING, Report
from outputs.silence_items import of_silence
from outputs.timeline import MOSTLY_OVER
from outputs.wording import clean, country
from pages.drafts import Draft, seed_of
from pages.entries import Entry
from pages.incident import drawn
from pages.lists import numbers_of, pages_of
from pages.rendering import Site, render

MOST_CHARTS = 6
MOST_ROWS = 120  # of what is blocked now; the data has all
MOST_SILENCES = 20

BLOCKED, NONE, UNKNOWN = "blocked", "none", "unknown"


@dataclass(frozen=True)
class Now:
    """How a service is in a country now.

    Attributes:
        service, probe_cc: which.
        status: BLOCKED, NONE or UNKNOWN.
        blocked: networks with signs of blocking.
        measured: networks of which a status is known.
        since: when that began; None: nothing is blocked.
        seen_begin: whether that is known.
        entry: the incident that goes on; None: it was blocked before anybody looked.
    """

    service: str
    probe_cc: str
    status: str
    blocked: int
    measured: int
    since: datetime | None
    seen_begin: bool
    entry: Entry | None


@dataclass
class Place:
    """A country or a service.

    Attributes:
        code: of the country; "" of a service.
        name: of the service; "" of a country.
        now: how it is now, everywhere or with every service.
        entries: all incidents, the newest first.
        silences: of a country, the newest first.
    """

    code: str
    name: str
    now: list[Now] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    silences: list[Item] = field(default_factory=list)

    @property
    def page(self) -> str:
        """Its path, without a suffix."""
        return service_page(self.name) if self.name else country_page(self.code)

    @property
    def feed(self) -> str:
        """Of its feeds the path below rss/ and json/, without a suffix."""
        return service_path(self.name) if self.name else country_path(self.code)

    @property
    def blocked(self) -> list[Now]:
        """What is blocked now, on most networks first."""
        blocked = (now for now in self.now if now.status == BLOCKED)
        return sorted(blocked, key=lambda now: (-now.blocked, now.probe_cc, now.service))

    def with_status(self, status: str) -> list[Now]:
        """Return where, or which service, it is so now, by name."""
        those = (now for now in self.now if now.status == status)
        return sorted(those, key=lambda now: (country(now.probe_cc), now.service.casefold()))


def now_of(services: Iterable[statuses.Service], entries: Iterable[Entry]) -> list[Now]:
    """Return how each service is in each country.

    Args:
        services: as the statuses say.
        entries: all incidents, the newest first.
    """
    ongoing: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        if entry.state == ONGOING or (entry.state == MOSTLY_OVER and entry.end is None):
            ongoing.setdefault((entry.service, entry.probe_cc), entry)
    return [
        Now(
            clean(service.name),
            clean(place.probe_cc),
            status,
            len(place.blocked),
            len(place.measured),
            place.since,
            place.seen_begin,
            ongoing.get((clean(service.name), clean(place.probe_cc))),
        )
        for service in services
        for status, of_status in (
            (BLOCKED, service.blocked),
            (NONE, service.others),
            (UNKNOWN, service.unknown),
        )
        for place in of_status
    ]


def places_of(
    report: Report, now: Iterable[Now], entries: Iterable[Entry]
) -> tuple[list[Place], list[Place]]:
    """Return all countries and all services, by name."""
    countries: dict[str, Place] = {}
    services: dict[str, Place] = {}

    def of(service: str, code: str) -> Iterator[Place]:
        yield countries.setdefault(code, Place(code, ""))
        if service:
            yield services.setdefault(service, Place("", service))

    for one in now:
        for place in of(one.service, one.probe_cc):
            place.now.append(one)
    for entry in entries:
        for place in of(entry.service, entry.probe_cc):
            place.entries.append(entry)
    for silence in reversed(report.silences):
        for place in of("", silence.probe_cc):
            if len(place.silences) < MOST_SILENCES:
                place.silences.append(of_silence(silence))
    return (
        [countries[code] for code in sorted(countries, key=lambda code: (country(code), code))],
        [services[name] for name in sorted(services, key=lambda name: (name.casefold(), name))],
    )


def place_pages(report: Report, places: Iterable[Place], site: Site) -> Iterator[Draft]:
    """Yield the pages of countries or services."""
    for place in places:
        for number, entries in pages_of(place.entries):
            path = f"{place.page}.{number}.html" if number else f"{place.page}.html"
            make = functools.partial(_page, report, place, site, path, number)
            if number:
                links = numbers_of(place.entries, number)
                seeds = [entry.seed for entry in entries]
                yield Draft(path, make, seed_of(place.page, seeds, links, site))
            else:
                yield Draft(path, make)


def _page(report: Report, place: Place, site: Site, path: str, number: int) -> bytes:
    entries = dict(pages_of(place.entries))[number]
    charted = () if number else charts_of(report, place.entries)
    return render(
        "place",
        path,
        site,
        place=place,
        number=number,
        entries=entries,
        numbers=numbers_of(place.entries, number),
        stem=place.page.partition("/")[2],
        until=report.until,
        charted=charted,
        charts=bool(charted),
        most=MOST_ROWS,
        explorer=country_link(place.code),
    )


def charts_of(report: Report, entries: Sequence[Entry]) -> list[tuple[Entry, Drawing]]:
    """Return the last incidents that have a chart, those that go on first."""
    incidents = [entry for entry in entries if entry.incident and not entry.withdrawn]
    with_chart = [e for e in incidents if e.incident and e.incident.key in report.charts]
    first = sorted(with_chart, key=lambda entry: entry.state != ONGOING)[:MOST_CHARTS]
    return [
        (entry, drawn(report, entry.incident, report.charts[entry.incident.key]))
        for entry in first
        if entry.incident
    ]
