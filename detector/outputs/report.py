"""What the outputs are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from outputs.incidents import Incident
from outputs.tallies import Chart, Counts, Period
from series import Event, Series, SeriesStatus

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
        counts: of the periods that the outputs tell of (tallies.periods_of), where there are any
            measurements.
    """

    until: datetime
    statuses: Sequence[SeriesStatus]
    events: Sequence[Event]
    incidents: Sequence[Incident]
    charts: Mapping[tuple[str, str, datetime], Chart]
    stale: timedelta
    counts: Mapping[Period, Counts]

    @cached_property
    def last_measurements(self) -> dict[Series, datetime]:
        """When each series was measured last."""
        return {status.series: status.last for status in self.statuses}

    @cached_property
    def services(self) -> dict[Series, str]:
        """What each series is a part of."""
        return {status.series: status.service for status in self.statuses}

    def state_of(self, incident: Incident) -> str:
        """Tell whether an incident is over, as far as the measurements tell."""
        if incident.end is not None:
            return ENDED
        last = self.last_measurements
        blocked = (block.series for block in incident.blocks if block.end is None)
        recent = any(
            series in last and last[series] >= self.until - self.stale for series in blocked
        )
        return ONGOING if recent else SILENT
