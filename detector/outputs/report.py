"""What the outputs are made of: the report, from statuses, events and measurements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

from detector_config import Config
from ooni_common.database import Database
from outputs.incidents import Incident, Key, blockings_of, incidents_of
from outputs.tallies import Chart, Period, Tally, charted, periods_of
from series import Event, Series, SeriesStatus, time_of

CHARTS = "charts.json"  # in state_dir
MOST_INCIDENTS = 500  # on the page

ONGOING = "ongoing"
ENDED = "ended"
SILENT = "no recent measurements"


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
    """

    until: datetime
    statuses: Sequence[SeriesStatus]
    events: Sequence[Event]
    incidents: Sequence[Incident]
    charts: Mapping[Key, Chart]
    stale: timedelta
    tallies: Mapping[Period, Tally]

    def service_of(self, series: Series) -> str:
        """Return what a series is a part of, or the name of its test."""
        status = self._status_of.get(series)
        return series.test_name if status is None else status.service

    def state_of(self, incident: Incident) -> str:
        """Tell whether an incident is over, as far as the measurements tell."""
        if incident.end is not None:
            return ENDED
        blocked = [blocking.series for blocking in incident.blockings if blocking.end is None]
        last = [self._status_of[series].last for series in blocked if series in self._status_of]
        recent = bool(last) and max(last) >= self.until - self.stale
        return ONGOING if recent else SILENT

    @cached_property
    def _status_of(self) -> dict[Series, SeriesStatus]:
        return {status.series: status for status in self.statuses}


def report_of(
    config: Config,
    database: Database,
    statuses: Sequence[SeriesStatus],
    events: Sequence[Event],
    unsettled: tuple[int, int],
    *,
    anew: bool,
) -> Report:
    """Put together what people are told.

    Args:
        config: says which services, and for how long something is news.
        database: has the measurements.
        statuses: of all series.
        events: of all times; those of series that are no longer followed are left out.
        unsettled: hours whose measurements can change: from the first up to the second, without
            it, which is as far as this run has looked.
        anew: count all measurements again.
    """
    services = config.service_of
    followed = [event for event in events if event.series.target in services]
    window = timedelta(hours=config.incident_hours)
    report = Report(
        until=time_of(unsettled[1]),
        statuses=statuses,
        events=sorted(followed, key=lambda event: (event.detection_time, event.series)),
        incidents=incidents_of(blockings_of(followed), services, window),
        charts={},
        stale=timedelta(days=config.stale_days),
        tallies={},
    )
    recent = _recent_incidents(report, timedelta(days=config.page_days))
    periods = list(periods_of(report.incidents, report.events))
    charts, tallies = charted(
        database, recent, periods, unsettled, config.state_dir / CHARTS, anew=anew
    )
    return replace(report, charts=charts, tallies=tallies)


def _recent_incidents(report: Report, age: timedelta) -> list[Incident]:
    """Return the incidents that the page shows: the ongoing ones, and those of the last time."""
    limit = report.until - age
    recent = [
        incident
        for incident in report.incidents
        if (incident.end_detected or incident.detected) >= limit
        or report.state_of(incident) == ONGOING
    ]
    return recent[-MOST_INCIDENTS:]
