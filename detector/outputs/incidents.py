"""From the changes of single series to incidents: what happened to a service in a country.

A change of a series to BLOCKED and the next one to OK are one blocking. Blockings of a service in
a country that belong together are one incident, whatever the networks. They are looked at in the
order in which they were detected, with no more than was known at that hour. So a later one never
changes to which incident an earlier one belongs, and what has been published keeps its name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

from series import BLOCKED, STATE_NAMES, Event, Series, Target

Key = tuple[str, str, datetime]  # of an incident: service, country, when it was detected
NATIONAL = 3  # networks that are blocked: one that follows, however late, isn't news of its own


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

    def is_open_at(self, time: datetime) -> bool:
        """Tell whether nobody could know at a time, after it was detected, that it has ended."""
        return self.end_detected is None or self.end_detected > time


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
        window: blockings that were detected later than this after the first one do not tell when
            it began: a network that joins late moves nothing.
    """

    service: str
    probe_cc: str
    blockings: tuple[Blocking, ...]
    window: timedelta = timedelta(hours=48)

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
        latest = self.detected + self.window
        starts = sorted(
            blocking.start for blocking in self.blockings if blocking.detected <= latest
        )
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


class _Gathering:
    """The blockings of an incident while they are put together."""

    def __init__(self, first: Blocking) -> None:
        self.members = [first]
        self._newest = first.start

    def add(self, blocking: Blocking) -> None:
        self.members.append(blocking)
        self._newest = max(self._newest, blocking.start)

    def takes(self, blocking: Blocking, window: timedelta) -> bool:
        """Tell whether a blocking belongs to this, with what was known when it was detected."""
        now, start = blocking.detected, blocking.start
        if now == self.members[0].detected:
            return True  # else two incidents would have the same key
        ends = [
            (member.series.probe_asn, member.end)
            for member in self.members
            if member.end is not None and not member.is_open_at(now)
        ]
        seen_before = any(start < end for _, end in ends)
        if len(ends) == len(self.members):
            return seen_before
        if seen_before or start <= self._newest + window:
            return True
        asn = blocking.series.probe_asn
        if any(number == asn and start <= end + window for number, end in ends):
            return True
        blocked = {m.series.probe_asn for m in self.members if m.is_open_at(now)}
        networks = {member.series.probe_asn for member in self.members}
        return len(blocked) >= max(NATIONAL, len(networks - blocked))


def incidents_of(
    blockings: Sequence[Blocking], services: Mapping[Target, str], window: timedelta
) -> list[Incident]:
    """Put the blockings together that belong together.

    A blocking belongs to an incident of its service and country that is not over and

    - in which the latest blocking began no longer than the window before it did, or ended after
      it began, or
    - in which its network was blocked until no longer than the window before, or
    - that is national: several networks are blocked, and most of those that were.

    Of one that is over, it is a part if it began earlier than the end. A blocking that is detected
    in the same hour as an incident always belongs to that.

    Args:
        blockings: in the order in which they were detected.
        services: test and input → the name of the service; other blockings are left out.
        window: see above.

    Returns:
        The incidents, in the order in which they were detected.
    """
    gathered: list[tuple[str, str, _Gathering]] = []
    of_place: dict[tuple[str, str], list[_Gathering]] = {}
    for blocking in blockings:
        service = services.get(blocking.series.target)
        if service is None:
            continue
        place = (service, blocking.series.probe_cc)
        earlier = of_place.setdefault(place, [])
        takers = (one for one in reversed(earlier) if one.takes(blocking, window))
        if taker := next(takers, None):
            taker.add(blocking)
        else:
            earlier.append(_Gathering(blocking))
            gathered.append((*place, earlier[-1]))
    return [
        Incident(service, code, tuple(gathering.members), window)
        for service, code, gathering in gathered
    ]
