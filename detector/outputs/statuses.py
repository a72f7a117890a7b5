"""What is blocked now: by service and country, and of every series."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from outputs.doubts import wrong_measurements
from outputs.incidents import Incident
from outputs.report import Report
from outputs.wording import clean, country, iso
from series import BLOCKED, STATE_NAMES, UNKNOWN, Series, SeriesStatus

COLUMNS = (
    "target",
    "probe_cc",
    "probe_asn",
    "status",
    "old_status",
    "since",
    "last",
    "cnt",
    "confirmed_perc",
    "pure_anomaly_perc",
    "accessible_perc",
    "change",
    "stability",
)


@dataclass
class Country:
    """How a service is in a country.

    Attributes:
        probe_cc: its code.
        blocked: the networks in which at least one series is blocked.
        measured: the networks of which a status is known, these included.
        since: when what is blocked began first: its incident, or, where nobody knows how it was
            before, its status, which can be older; None: nothing is blocked.
        seen_begin: whether that is known.
    """

    probe_cc: str
    blocked: set[int] = field(default_factory=set)
    measured: set[int] = field(default_factory=set)
    since: datetime | None = None
    seen_begin: bool = True

    def add(
        self,
        status: SeriesStatus,
        beginnings: Mapping[Series, datetime],
        withdrawn: Collection[Series],
    ) -> None:
        """Take the status of a series into account.

        Args:
            status: of the series.
            beginnings: when the incidents of series began.
            withdrawn: the series whose incidents are no longer held to be any.
        """
        if status.status == STATE_NAMES[UNKNOWN]:
            return
        asn = status.series.probe_asn
        self.measured.add(asn)
        if status.status != STATE_NAMES[BLOCKED] or status.series in withdrawn:
            return
        self.blocked.add(asn)
        since = beginnings.get(status.series, status.since)
        if self.since is None or since < self.since:
            self.since = since
            self.seen_begin = status.old_status != STATE_NAMES[UNKNOWN]


@dataclass(frozen=True)
class Service:
    """How a service is in all countries, sorted by their names.

    Attributes:
        name: as configured.
        blocked: where some network blocks it.
        others: where none does.
        unknown: where too little is measured to tell.
    """

    name: str
    blocked: Sequence[Country]
    others: Sequence[Country]
    unknown: Sequence[Country]


def services_of(report: Report) -> list[Service]:
    """Return how each service is, sorted by name."""
    services: dict[str, dict[str, Country]] = {}
    held = [i for i in report.incidents if i.key not in report.withdrawn]
    beginnings = _beginnings_of(held)
    wrong = _beginnings_of(i for i in report.incidents if i.key in report.withdrawn)
    withdrawn = wrong.keys() - beginnings.keys()
    for status in report.statuses:
        countries = services.setdefault(status.service, {})
        code = status.series.probe_cc
        if code not in countries:
            countries[code] = Country(code)
        countries[code].add(status, beginnings, withdrawn)
    return [
        _service(name, services[name].values())
        for name in sorted(services, key=lambda n: n.casefold())
    ]


def _beginnings_of(incidents: Iterable[Incident]) -> dict[Series, datetime]:
    """Return when that began what blocks a series now: when its incident did."""
    return {
        blocking.series: incident.start
        for incident in incidents
        for blocking in incident.blockings
        if blocking.end is None
    }


def _service(name: str, countries: Iterable[Country]) -> Service:
    ordered = sorted(countries, key=lambda place: (country(place.probe_cc), place.probe_cc))
    return Service(
        name,
        [place for place in ordered if place.blocked],
        [place for place in ordered if place.measured and not place.blocked],
        [place for place in ordered if not place.measured],
    )


def as_json(report: Report, services: Sequence[Service]) -> bytes:
    """Return all statuses: the summary, and one row of each series.

    A row has the values of `columns`, in which `target` is a place in `targets`.
    """
    targets: dict[tuple[str, str, str], int] = {}
    times: dict[datetime, str] = {}  # most are the same ones
    rows = [_row(status, targets, times) for status in report.statuses]
    content = {
        "until": iso(report.until),
        "in_doubt": _in_doubt(report),
        "summary": [_summary(service) for service in services],
        "targets": [
            {"test_name": clean(test_name), "input": clean(input_), "service": clean(service)}
            for test_name, input_, service in targets
        ],
        "columns": COLUMNS,
        "series": rows,
    }
    return msgspec.json.encode(content)


def _in_doubt(report: Report) -> dict[str, object]:
    failing, countries, held = report.in_doubt
    return {
        "sentence": wrong_measurements(report),
        "failing": [{"service": clean(name), "since": iso(since)} for name, since in failing],
        "countries": [{"probe_cc": clean(code), "since": iso(since)} for code, since in countries],
        "held": {"series": len(held), "since": iso(held[0]) if held else None},
    }


def _row(
    status: SeriesStatus, targets: dict[tuple[str, str, str], int], times: dict[datetime, str]
) -> tuple[object, ...]:
    series = status.series
    target = (series.test_name, series.input, status.service)
    since = times.get(status.since) or times.setdefault(status.since, iso(status.since))
    last = times.get(status.last) or times.setdefault(status.last, iso(status.last))
    return (
        targets.setdefault(target, len(targets)),
        series.probe_cc if series.probe_cc.isascii() else clean(series.probe_cc),
        series.probe_asn,
        status.status,
        status.old_status,
        since,
        last,
        _rounded(status.cnt, 10),
        _rounded(status.confirmed_perc, 10),
        _rounded(status.pure_anomaly_perc, 10),
        _rounded(status.accessible_perc, 10),
        _rounded(status.change, 100),
        _rounded(status.stability, 100),
    )


def _rounded(value: float, parts: int) -> float:
    """Return a value, from 0, to so many parts of one; round() takes several times as long."""
    return int(value * parts + 0.5) / parts


def _summary(service: Service) -> dict[str, object]:
    return {
        "service": clean(service.name),
        "blocked": [
            {
                "probe_cc": clean(place.probe_cc),
                "country": country(place.probe_cc),
                "networks_blocked": sorted(place.blocked),
                "networks_known": len(place.measured),
                "since": None if place.since is None else iso(place.since),
                "seen_begin": place.seen_begin,
            }
            for place in service.blocked
        ],
        "not_blocked": [clean(place.probe_cc) for place in service.others],
        "unknown": [clean(place.probe_cc) for place in service.unknown],
    }
