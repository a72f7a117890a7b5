"""What the outputs tell of an incident, beside what it consists of."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from incidents import Block, Incident, Series, last_of
from report import Chart

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


@dataclass(frozen=True)
class Counts:
    """Measurements of the series of an incident, and how many of them had anomalies."""

    measurements: int
    anomalies: int


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


def counts_within(chart: Chart | None, start: datetime, end: datetime | None) -> Counts | None:
    """Add up the steps of a chart that lie wholly in a time; None: there are no measurements.

    Args:
        chart: of an incident; None: nothing is known.
        start: of the time.
        end: of the time; None: that of the chart.
    """
    if chart is None:
        return None
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
