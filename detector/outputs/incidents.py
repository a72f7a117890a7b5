"""From the changes of single series to incidents: what happened to a service in a country.

A change of a series to BLOCKED and the next one to OK are one blocking. Blockings of a service in
a country that begin within a window are one incident, whatever the networks. They are looked at in
the order in which they were detected, so that a later one never changes to which incident an
earlier one belongs: what has been published keeps its name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

from series import BLOCKED, STATE_NAMES, Event, Series, Target

Key = tuple[str, str, datetime]  # of an incident: service, country, when it was detected


@dataclass(frozen=True)
class Blocking:
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
        blockings: its blockings, in the order in which they were detected; at least one.
    """

    asn: int
    blockings: tuple[Blocking, ...]

    @property
    def start(self) -> datetime:
        """When its first blocking began."""
        return min(blocking.start for blocking in self.blockings)

    @property
    def detected(self) -> datetime:
        """When that was sure."""
        return self.blockings[0].detected

    @property
    def end(self) -> datetime | None:
        """When its last blocking ended; None while there is one that has not."""
        return last_of([blocking.end for blocking in self.blockings])


@dataclass(frozen=True)
class Incident:
    """The blockings of a service in a country that belong together; at least one.

    Attributes:
        service: its name, as configured.
        probe_cc: the country.
        blockings: in the order in which they were detected.
    """

    service: str
    probe_cc: str
    blockings: tuple[Blocking, ...]

    @property
    def key(self) -> Key:
        """What tells this incident from all others, and never changes."""
        return self.service, self.probe_cc, self.detected

    @cached_property
    def start(self) -> datetime:
        """When it began, as far as the measurements tell: before it was detected, in any case.

        An anomaly by chance, before a blocking, makes that seem to have begun earlier. Where many
        began there are always some, so the earliest tenth does not count.
        """
        starts = sorted(blocking.start for blocking in self.blockings)
        start = starts[len(starts) // 10]
        return start if start < self.detected else self.blockings[0].start

    @property
    def detected(self) -> datetime:
        """When the first blocking was sure."""
        return self.blockings[0].detected

    @property
    def last_detected(self) -> datetime:
        """When the last blocking was sure."""
        return max(blocking.detected for blocking in self.blockings)

    @property
    def end(self) -> datetime | None:
        """When the last blocking ended; None while there is one that has not."""
        return last_of([blocking.end for blocking in self.blockings])

    @property
    def end_detected(self) -> datetime | None:
        """When it was sure that the last blocking had ended."""
        return last_of([blocking.end_detected for blocking in self.blockings])

    @property
    def networks(self) -> list[int]:
        """The ASNs of all networks, from the lowest to the highest."""
        return sorted({blocking.series.probe_asn for blocking in self.blockings})

    @property
    def blocked_networks(self) -> list[int]:
        """The ASNs of the networks in which a blocking has not ended."""
        return sorted(
            {blocking.series.probe_asn for blocking in self.blockings if blocking.end is None}
        )

    @cached_property
    def by_network(self) -> list[Network]:
        """The networks with their blockings, from the lowest ASN to the highest."""
        blockings: dict[int, list[Blocking]] = {}
        for blocking in self.blockings:
            blockings.setdefault(blocking.series.probe_asn, []).append(blocking)
        return [Network(asn, tuple(blockings[asn])) for asn in sorted(blockings)]

    @property
    def series(self) -> tuple[Series, ...]:
        """All series that have blockings, sorted."""
        return tuple(sorted({blocking.series for blocking in self.blockings}))

    @property
    def targets(self) -> list[Target]:
        """What is blocked: tests and inputs."""
        return sorted({blocking.series.target for blocking in self.blockings})


def last_of(ends: Sequence[datetime | None]) -> datetime | None:
    """Return the last one, if all have come."""
    past = [end for end in ends if end is not None]
    return max(past) if len(past) == len(ends) else None


def blockings_of(events: Iterable[Event]) -> list[Blocking]:
    """Return the blockings that events tell of, in the order in which they were detected."""
    blockings: list[Blocking] = []
    begun: dict[Series, Blocking] = {}
    for event in sorted(events, key=lambda event: (event.series, event.detection_time)):
        blocking = begun.get(event.series)
        if event.status == STATE_NAMES[BLOCKED]:
            if blocking is None:
                begun[event.series] = Blocking(event.series, event.time, event.detection_time)
        elif blocking is not None:
            ended = replace(blocking, end=event.time, end_detected=event.detection_time)
            blockings.append(ended)
            del begun[event.series]
    blockings += begun.values()
    return sorted(
        blockings, key=lambda blocking: (blocking.detected, blocking.start, blocking.series)
    )


def incidents_of(
    blockings: Sequence[Blocking], services: Mapping[Target, str], window: timedelta
) -> list[Incident]:
    """Put the blockings together that belong together.

    Args:
        blockings: in the order in which they were detected.
        services: test and input → the name of the service; other blockings are left out.
        window: a blocking belongs to the latest incident of its service and country if it began no
            later than this after the latest beginning of one in there, or was detected when the
            first one in there was: else two incidents would have the same key.

    Returns:
        The incidents, in the order in which they were detected.
    """
    groups: list[list[Blocking]] = []
    latest: dict[tuple[str, str], tuple[list[Blocking], datetime]] = {}
    for blocking in blockings:
        series = blocking.series
        service = services.get(series.target)
        if service is None:
            continue
        place = (service, series.probe_cc)
        members, newest = latest.get(place, ([], blocking.start))
        apart = blocking.start > newest + window
        if not members or (apart and blocking.detected > members[0].detected):
            members = []
            newest = blocking.start
            groups.append(members)
        members.append(blocking)
        latest[place] = (members, max(newest, blocking.start))
    return [
        Incident(
            services[members[0].series.target],
            members[0].series.probe_cc,
            tuple(members),
        )
        for members in groups
    ]
