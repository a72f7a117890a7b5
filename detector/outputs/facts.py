"""What the outputs tell of an incident, beside what it consists of."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from outputs.incidents import Block, Incident, last_of
from outputs.report import Chart, Counts, Period
from series import Event, Series

ONGOING = "ongoing"
ENDED = "ended"
SILENT = "no recent measurements"


@dataclass(frozen=True)
class Network:
    """A network of an incident.

    Attributes:
        asn: its number.
        blocks: its blocks, in the order in which they were detected; at least one.
    """

    asn: int
    blocks: tuple[Block, ...]

    @property
    def start(self) -> datetime:
        """When its first block began."""
        return min(block.start for block in self.blocks)

    @property
    def detected(self) -> datetime:
        """When that was sure."""
        return self.blocks[0].detected

    @property
    def end(self) -> datetime | None:
        """When its last block ended; None while there is one that has not."""
        return last_of([block.end for block in self.blocks])


def networks_of(incident: Incident) -> list[Network]:
    """Return the networks of an incident, from the lowest number to the highest."""
    blocks: dict[int, list[Block]] = {}
    for block in incident.blocks:
        blocks.setdefault(block.series.probe_asn, []).append(block)
    return [Network(asn, tuple(blocks[asn])) for asn in sorted(blocks)]


def state_of(incident: Incident, last: Mapping[Series, datetime], newest: datetime) -> str:
    """Tell whether an incident is over, as far as the measurements tell.

    Args:
        incident: which.
        last: when each series was measured last.
        newest: before this time, a measurement tells nothing of today.
    """
    if incident.end is not None:
        return ENDED
    blocked = (block.series for block in incident.blocks if block.end is None)
    measured = any(series in last and last[series] >= newest for series in blocked)
    return ONGOING if measured else SILENT


def beginnings_of(incidents: Iterable[Incident]) -> dict[Series, datetime]:
    """Return when that began what blocks a series now: when its incident did."""
    return {
        block.series: incident.start
        for incident in incidents
        for block in incident.blocks
        if block.end is None
    }


def until_detected(incident: Incident) -> Period:
    """Return from when to when an incident was found."""
    return Period(incident.series, incident.start, incident.detected)


def until_over(incident: Incident, end: datetime) -> Period:
    """Return from when to when an incident lasted."""
    return Period(incident.series, incident.start, end)


def until_sure(event: Event) -> Period:
    """Return from when to when a change of a series was found."""
    return Period((event.series,), event.time, event.detection_time)


def periods_of(incidents: Iterable[Incident], events: Iterable[Event]) -> Iterator[Period]:
    """Yield the periods whose measurements the outputs tell of."""
    for incident in incidents:
        yield until_detected(incident)
        if incident.end is not None:
            yield until_over(incident, incident.end)
    yield from map(until_sure, events)


def counts_within(chart: Chart, start: datetime, end: datetime | None) -> Counts | None:
    """Add up the steps of a chart that lie wholly in a time; None: there are no measurements.

    Args:
        chart: of an incident; one of its steps begins when that does.
        start: of the time.
        end: of the time; None: that of the chart.
    """
    first = max(0, -((chart.start - start) // chart.step))
    stop = None if end is None else max(0, (end - chart.start) // chart.step)
    measurements = sum(chart.measurements[first:stop])
    return Counts(measurements, sum(chart.anomalies[first:stop])) if measurements else None


def end_of(chart: Chart) -> datetime:
    """Return when the last step of a chart ends."""
    return chart.start + chart.step * len(chart.measurements)


def sure_since(incident: Incident) -> datetime:
    """Return when its last block was sure."""
    return max(block.detected for block in incident.blocks)
