"""What the outputs are made of: the report, from statuses, events and measurements."""

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property

from detector_config import Config
from outputs.counting import Counting
from outputs.incidents import Incident, Key, blockings_of, incidents_of
from outputs.links import guid_of
from outputs.published import Published, names_of
from outputs.severity import Severity, severities_of
from outputs.silence import Silence, watched
from outputs.tallies import (
    NO_SILENT,
    Chart,
    Period,
    Tally,
    charts_and_tallies,
    periods_of,
    unmeasured_of,
)
from outputs.timeline import OVER, Silent, Turn, phase_of, turns_of
from outputs.wording import clean
from series import Event, InDoubt, Series, SeriesStatus, time_of

log = logging.getLogger("ooni.detector")

CHARTS, SEVERITIES = "charts.json", "severities.json"  # in state_dir
MOST_INCIDENTS = 500  # on the page

ONGOING = "ongoing"
ENDED = OVER
SILENT = "no recent measurements"
WITHDRAWN = "withdrawn"


@dataclass(frozen=True)
class Report:
    """All that is known at a time.

    Attributes:
        until: the end of the last hour that was looked at, UTC.
        statuses: of every series, sorted by it.
        events: of every series, the newest last.
        incidents: all that have been detected, the newest last.
        charts: of the incidents that are recent or not over, by `Incident.key`. An incident
            without one is too old for the page.
        stale: an incident whose networks have all had no measurements for so long is neither
            over nor ongoing.
        tallies: of the periods that the outputs tell of (tallies.periods_of), where there are any
            measurements.
        silences: where nobody measured, in the order of detection.
        learned: what was told before it and is missing is not refuted: the run knew too little, or
            the measurements are no more.
        services: the names of those that are followed.
        severities: of the incidents, by `Incident.key`, where there are any measurements.
        names: the GUIDs of incidents by key, where another one than theirs was published.
        withdrawn: why incidents are no longer held to be any, by key.
        withdrawn_by_hand: the same by GUID, also of those that were told and are missing now.
        unmeasured: networks of incidents, by key, and hours before which nobody measured them.
        in_doubt: what the last hours say, and is not believed.
    """

    until: datetime
    statuses: Sequence[SeriesStatus]
    events: Sequence[Event]
    incidents: Sequence[Incident]
    charts: Mapping[Key, Chart]
    stale: timedelta
    tallies: Mapping[Period, Tally]
    silences: Sequence[Silence] = ()
    learned: datetime = field(default_factory=lambda: time_of(0))
    services: Collection[str] = ()
    severities: Mapping[Key, Severity] = field(default_factory=dict)
    names: Mapping[Key, str] = field(default_factory=dict)
    withdrawn: Mapping[Key, str] = field(default_factory=dict)
    withdrawn_by_hand: Mapping[str, str] = field(default_factory=dict)
    unmeasured: Mapping[Key, Collection[Silent]] = field(default_factory=lambda: NO_SILENT)
    in_doubt: InDoubt = field(default_factory=InDoubt)

    def service_of(self, series: Series) -> str:
        """Return what a series is a part of, or the name of its test."""
        status = self._status_of.get(series)
        return series.test_name if status is None else status.service

    def state_of(self, incident: Incident) -> str:
        """Tell whether an incident is over, or mostly, as far as the measurements tell."""
        if incident.key in self.withdrawn:
            return WITHDRAWN
        if phase := phase_of(incident, self.unmeasured.get(incident.key, ())):
            return phase
        blocked = [blocking.series for blocking in incident.blockings if blocking.end is None]
        last = [self._status_of[series].last for series in blocked if series in self._status_of]
        recent = bool(last) and max(last) >= self.until - self.stale
        return ONGOING if recent else SILENT

    def guid_of(self, incident: Incident) -> str:
        """Return what tells an incident from all others, and never changes."""
        return self.names.get(incident.key) or guid_of(incident)

    def turns_of(self, incident: Incident) -> list[Turn]:
        """Return when an incident was over, or mostly, in order."""
        return turns_of(incident, self.unmeasured.get(incident.key, ()))

    def countries_at_once(self, incident: Incident, distance: timedelta) -> int:
        """Return in how many countries something began or was detected when an incident was."""
        return max(
            _countries_near(self._begun, incident.start, distance),
            _countries_near(self._detected, incident.detected, distance),
        )

    def reason_against(self, event: Event) -> str:
        """Return why an event was withdrawn, with its incident; "" if it was not."""
        return self._reasons.get((event.series, event.detection_time), "")

    @cached_property
    def _begun(self) -> list[tuple[datetime, str]]:
        return sorted((incident.start, incident.probe_cc) for incident in self.incidents)

    @cached_property
    def _detected(self) -> list[tuple[datetime, str]]:
        return sorted((incident.detected, incident.probe_cc) for incident in self.incidents)

    @cached_property
    def _reasons(self) -> dict[tuple[Series, datetime | None], str]:
        return {
            (blocking.series, time): self.withdrawn[incident.key]
            for incident in self.incidents
            if incident.key in self.withdrawn
            for blocking in incident.blockings
            for time in (blocking.detected, blocking.end_detected)
        }

    @cached_property
    def _status_of(self) -> dict[Series, SeriesStatus]:
        return {status.series: status for status in self.statuses}


def _countries_near(
    times: Sequence[tuple[datetime, str]], time: datetime, distance: timedelta
) -> int:
    first = bisect_left(times, (time - distance, ""))
    last = bisect_right(times, (time + distance, "\U0010ffff"))
    return len({code for _, code in times[first:last]})


def report_of(
    config: Config,
    counting: Counting,
    statuses: Sequence[SeriesStatus],
    events: Sequence[Event],
    published: Published,
    hours: tuple[int, int],
) -> Report:
    """Put together what people are told.

    Args:
        config: says which services, and for how long something is news.
        counting: counts the measurements.
        statuses: of all series.
        events: of all times; those of series that are no longer followed are left out.
        published: what earlier runs have told.
        hours: the first one that this run has looked at, and that from which on it knows enough of
            the series to refute what was told.
    """
    services = config.service_of
    followed = [event for event in events if event.series.target in services]
    window = timedelta(hours=config.incident_hours)
    report = Report(
        until=time_of(counting.until),
        statuses=statuses,
        events=sorted(followed, key=lambda event: (event.detection_time, event.series)),
        incidents=incidents_of(blockings_of(followed), services, window),
        charts={},
        stale=timedelta(days=config.stale_days),
        tallies={},
        learned=time_of(hours[1]),
        services={clean(service) for service in config.services},
    )
    report = _with_names(report, published, config.withdrawn)
    report = replace(report, unmeasured=unmeasured_of(counting, report.incidents))
    recent = _recent_incidents(report, timedelta(days=config.page_days))
    periods = list(periods_of(report.incidents, report.events, report.unmeasured))
    charts, tallies = charts_and_tallies(counting, recent, periods)
    counting.keep()
    severities = severities_of(counting, report.incidents, services, config.state_dir / SEVERITIES)
    return replace(
        report,
        charts=charts,
        tallies=tallies,
        severities=severities,
        silences=watched(
            counting.database,
            (hours[0], counting.settled_until, counting.until),
            config.state_dir,
            reprocess=counting.reprocess,
        ),
    )


def _with_names(report: Report, published: Published, withdrawn: Mapping[str, str]) -> Report:
    """Give incidents the names that they have been published with, and withdraw some of them.

    Args:
        report: with these incidents.
        published: what earlier runs have told.
        withdrawn: GUID → why; what was withdrawn by a person.
    """
    report = replace(report, names=names_of(report.incidents, published, report.until))
    named = {report.guid_of(incident): incident.key for incident in report.incidents}
    wrong = {named[guid]: reason for guid, reason in withdrawn.items() if guid in named}
    told = {item.incident for item in published.items.values()}
    for guid in sorted(withdrawn.keys() - named.keys() - told):
        log.warning("withdrawn: %s is not the GUID of an incident", guid)
    return replace(report, withdrawn=wrong, withdrawn_by_hand=withdrawn)


def _recent_incidents(report: Report, age: timedelta) -> list[Incident]:
    """Return the incidents that the page shows: the ongoing ones, and those of the last time."""
    limit = report.until - age
    recent = [
        incident
        for incident in report.incidents
        if _last_news(report, incident) >= limit or report.state_of(incident) == ONGOING
    ]
    return recent[-MOST_INCIDENTS:]


def _last_news(report: Report, incident: Incident) -> datetime:
    """Return when the last thing that a feed tells of an incident was sure."""
    turns = report.turns_of(incident)
    return turns[-1].detected if turns else incident.detected
