"""From the changes of single series to incidents: what happened to a service in a country.

A change of a series to BLOCKED and the next one to OK are one block. Blocks of a service in a
country that begin within a window are one incident, whatever the networks. Blocks are looked at in
the order in which they were detected, so that a later one never changes to which incident an
earlier one belongs: what has been published keeps its name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

from series import BLOCKED, NAMES, Event, Series


@dataclass(frozen=True)
class Block:
    """A time in which a series was blocked.

    Attributes:
        series: which.
        start: when it began, as far as the measurements tell.
        detected: when that was sure.
        end: when it ended, as far as the measurements tell; None: it has not.
        end_detected: when that was sure.
    """

    series: Series
    start: datetime
    detected: datetime
    end: datetime | None = None
    end_detected: datetime | None = None


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
class Incident:
    """The blocks of a service in a country that belong together; at least one.

    Attributes:
        service: its name, as configured.
        probe_cc: the country.
        blocks: in the order in which they were detected.
    """

    service: str
    probe_cc: str
    blocks: tuple[Block, ...]

    @property
    def key(self) -> tuple[str, str, datetime]:
        """What tells this incident from all others, and never changes."""
        return self.service, self.probe_cc, self.detected

    @cached_property
    def start(self) -> datetime:
        """When it began, as far as the measurements tell: before it was detected, in any case.

        An anomaly by chance, before a block, makes that seem to have begun earlier. Of many blocks
        there are always some, so the earliest tenth does not count.
        """
        starts = sorted(block.start for block in self.blocks)
        start = starts[len(starts) // 10]
        return start if start < self.detected else self.blocks[0].start

    @property
    def detected(self) -> datetime:
        """When the first block was sure."""
        return self.blocks[0].detected

    @property
    def last_detected(self) -> datetime:
        """When the last block was sure."""
        return max(block.detected for block in self.blocks)

    @property
    def end(self) -> datetime | None:
        """When the last block ended; None while there is one that has not."""
        return last_of([block.end for block in self.blocks])

    @property
    def end_detected(self) -> datetime | None:
        """When it was sure that the last block had ended."""
        return last_of([block.end_detected for block in self.blocks])

    @property
    def networks(self) -> list[int]:
        """The ASNs of all networks, from the lowest to the highest."""
        return sorted({block.series.probe_asn for block in self.blocks})

    @property
    def blocked_networks(self) -> list[int]:
        """The ASNs of the networks in which a block has not ended."""
        return sorted({block.series.probe_asn for block in self.blocks if block.end is None})

    @cached_property
    def by_network(self) -> list[Network]:
        """The networks with their blocks, from the lowest ASN to the highest."""
        blocks: dict[int, list[Block]] = {}
        for block in self.blocks:
            blocks.setdefault(block.series.probe_asn, []).append(block)
        return [Network(asn, tuple(blocks[asn])) for asn in sorted(blocks)]

    @property
    def series(self) -> tuple[Series, ...]:
        """All series that have blocks, sorted."""
        return tuple(sorted({block.series for block in self.blocks}))

    @property
    def targets(self) -> list[tuple[str, str]]:
        """What is blocked: tests and inputs."""
        return sorted({block.series.target for block in self.blocks})


def last_of(ends: Sequence[datetime | None]) -> datetime | None:
    """Return the last one, if all have come."""
    known = [end for end in ends if end is not None]
    return max(known) if len(known) == len(ends) else None


def blocks_of(events: Iterable[Event]) -> list[Block]:
    """Return the blocks that events tell of, in the order in which they were detected."""
    blocks: list[Block] = []
    begun: dict[Series, Block] = {}
    for event in sorted(events, key=lambda event: (event.series, event.detection_time)):
        block = begun.get(event.series)
        if event.status == NAMES[BLOCKED]:
            if block is None:
                begun[event.series] = Block(event.series, event.time, event.detection_time)
        elif block is not None:
            ended = replace(block, end=event.time, end_detected=event.detection_time)
            blocks.append(ended)
            del begun[event.series]
    blocks += begun.values()
    return sorted(blocks, key=lambda block: (block.detected, block.start, block.series))


def incidents_of(
    blocks: Sequence[Block], services: Mapping[tuple[str, str], str], window: timedelta
) -> list[Incident]:
    """Put the blocks together that belong together.

    Args:
        blocks: in the order in which they were detected.
        services: test and input → the name of the service; other blocks are left out.
        window: a block belongs to the latest incident of its service and country if it began no
            later than this after the latest beginning of one in there, or was detected when the
            first one in there was: else two incidents would have the same key.

    Returns:
        The incidents, in the order in which they were detected.
    """
    found: list[list[Block]] = []
    latest: dict[tuple[str, str], tuple[list[Block], datetime]] = {}
    for block in blocks:
        series = block.series
        service = services.get(series.target)
        if service is None:
            continue
        place = (service, series.probe_cc)
        members, newest = latest.get(place, ([], block.start))
        apart = block.start > newest + window
        if not members or (apart and block.detected > members[0].detected):
            members = []
            newest = block.start
            found.append(members)
        members.append(block)
        latest[place] = (members, max(newest, block.start))
    return [
        Incident(
            services[members[0].series.target],
            members[0].series.probe_cc,
            tuple(members),
        )
        for members in found
    ]
