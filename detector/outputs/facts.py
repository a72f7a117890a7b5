"""What the outputs tell of an incident, beside what it consists of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from outputs.incidents import Block, Incident, last_of
from series import Series

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


def sure_since(incident: Incident) -> datetime:
    """Return when its last block was sure."""
    return max(block.detected for block in incident.blocks)
