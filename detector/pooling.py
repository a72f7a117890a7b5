"""Pooling: what other networks of a country show of the same input, or service.

Where several of them begin to look blocked at once, less evidence suffices for the next one, and
likewise when blockings end. What counts is how many of those that are measured agree: a large
country has some network with an anomaly at any time.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hours import NEVER, Arrays, Flags, Floats, Indices, Lowered, States, sums_of
from keyed import exact
from sequential import Detector
from series import BLOCKED, OK, UNKNOWN


@dataclass(frozen=True)
class PoolParameters:
    """What pooling goes by; chosen on the seeds 11 to 14 of the realism suite.

    Attributes:
        most: the part by which the threshold of a beginning is lowered, at most.
        most_of_ends: likewise, of an end.
        noise: the part of a threshold that counts for nothing.
        each: what a network counts, at most, in thresholds.
        enough: the sum of the others that lowers all that can be lowered, in thresholds.
        share: likewise, for each of those that are measured: nearly half of them suffice.
        service: what the other inputs of a service count beside the same input.
        agrees: from here on, the country agrees.
        memory: hours for which a network counts.
        measured: hours for which a network counts as measured.
        recent: hours for which a network that has become BLOCKED counts in full.
        long: what it counts later, in thresholds.
        over: hours after the end of a blocking in which nobody hints at another one of the same
            network.
        newly: after that, networks that have been BLOCKED for at most so many hours do.
        first: hours between a first state BLOCKED and a change of another network, for an event.
    """

    most: float = 0.7
    most_of_ends: float = 0.6
    noise: float = 0.25
    each: float = 0.5
    enough: float = 0.7
    share: float = 0.23
    service: float = 0.7
    agrees: float = 0.4
    memory: int = 96
    measured: int = 24
    recent: int = 240
    long: float = 0.15
    over: int = 12
    newly: int = 48
    first: int = 96


class Groups(NamedTuple):
    """What series belong together: numbers, by series.

    Attributes:
        everywhere: same input, all over the world.
        peers: same input, same country.
        network: same service, same network.
        country: same service, same country.
    """

    everywhere: Indices
    peers: Indices
    network: Indices
    country: Indices


class Grouping:
    """Numbers what series belong to."""

    def __init__(self) -> None:
        self._numbers: tuple[dict[object, int], ...] = ({}, {}, {}, {})
        self._rows: list[tuple[int, int, int, int]] = []
        self._groups: Groups | None = None  # of all rows

    def add(
        self, world: object, network: tuple[object, object], target: object, service: object
    ) -> None:
        """Add a series: its world, the country and ASN of its network, its input and service."""
        self._groups = None
        targets, peers, networks, countries = self._numbers
        everywhere = targets.setdefault((world, target), len(targets))
        of_peers = peers.setdefault((everywhere, network[0]), len(peers))
        country = countries.setdefault((world, network[0], service), len(countries))
        of_network = networks.setdefault((country, network[1]), len(networks))
        self._rows.append((everywhere, of_peers, of_network, country))

    def groups(self) -> Groups:
        """Return the numbers of all that were added."""
        if self._groups is None:
            table = np.array(self._rows, dtype=np.int64).reshape(-1, 4).T
            self._groups = Groups(*(np.ascontiguousarray(row) for row in table))
        return self._groups


class Pool:
    """Knows how far each series is, for the others of its country.

    Args:
        series: how many.
        parameters: what it goes by.
    """

    def __init__(self, series: int, parameters: PoolParameters | None = None) -> None:
        self._parameters = parameters or PoolParameters()
        self._blocked_since: Indices = np.full(series, NEVER)
        self._ok_since: Indices = np.full(series, NEVER)  # after a blocking
        self._changed: Indices = np.full(series, NEVER)  # from OK to BLOCKED
        self._first: Indices = np.full(series, NEVER)  # the hour of a first state that was not told

    def arrays(self) -> Arrays:
        """Return what is known, by name."""
        return {
            "blocked_since": self._blocked_since,
            "ok_since": self._ok_since,
            "changed": self._changed,
            "first": self._first,
        }

    def lowered(self, hour: int, groups: Groups, detector: Detector, index: Indices) -> Lowered:
        """Return what suffices for some series, by what was known before an hour.

        Args:
            hour: its number.
            groups: of all series.
            detector: has their states.
            index: those that are measured in this hour.
        """
        parameters, used = self._parameters, slice(len(groups.peers))
        status, last = detector.status[used], detector.last[used]
        fresh = (last > hour - parameters.memory) & (status != UNKNOWN)
        measured = fresh & (last > hour - parameters.measured)
        blocked = status == BLOCKED
        since = self._blocked_since[used]
        recent, newly = (since > hour - hours for hours in (parameters.recent, parameters.newly))
        begun = self._counted(detector.begins[used]) * (fresh & ~blocked)
        begins = begun + np.where(recent, parameters.each, parameters.long) * (fresh & blocked)
        begins_newly = begun + parameters.each * (fresh & blocked & newly)
        turned = (status == OK) & (self._ok_since[used] > hour - parameters.memory)
        ends = np.where(blocked, self._counted(detector.ends[used]), parameters.each * turned)
        by_beginnings, by_new_ones, by_ends = self._agreements(
            groups,
            index,
            last >= 0,
            (measured, [begins, begins_newly]),
            (measured & (blocked | turned), [ends * fresh]),
        )
        # Networks still blocked by one that has ended here do not hint at a new one.
        again = self._ok_since[index] <= hour - parameters.over
        by_beginnings = np.where(turned[index], by_new_ones * again, by_beginnings)
        return Lowered(
            1 - parameters.most * by_beginnings,
            1 - parameters.most_of_ends * by_ends,
            by_beginnings >= parameters.agrees,
        )

    def _counted(self, parts: Floats) -> Floats:
        counted: Floats = np.clip(parts - self._parameters.noise, 0.0, self._parameters.each)
        return counted

    def _agreements(
        self, groups: Groups, index: Indices, seen: Flags, *asked: tuple[Flags, list[Floats]]
    ) -> list[Floats]:
        """Return how far the others of the country agree, from 0 to 1, for each question.

        Args:
            groups: of all series.
            index: those that are asked about.
            seen: which of all have ever been measured.
            asked: which of all are measured, and the values of all, in thresholds: one question
                each, few are not 0.
        """
        count = int(groups.peers.max(initial=-1)) + 1
        # By network: a service with more inputs counts no more.
        inputs = np.maximum(1.0, sums_of(groups.network, seen.astype(float)))
        country = np.zeros(len(inputs), dtype=np.int64)
        country[groups.network] = groups.country
        peers, here, network = (
            group[index] for group in (groups.peers, groups.country, groups.network)
        )
        agreements = []
        for those, questions in asked:
            measured = those.astype(float)
            active = (sums_of(groups.network, measured) > 0).astype(float)
            of_peers = sums_of(groups.peers, measured)[peers] - measured[index]
            of_service = sums_of(country, active)[here] - active[network]
            for values in questions:
                some = np.flatnonzero(values)
                given = exact(values[some])
                sums = sums_of(groups.peers[some], given, count)
                same = self._agrees(sums[peers] - exact(values[index]), of_peers)
                networks = sums_of(groups.network[some], given, len(inputs))
                networks = exact(networks / inputs)
                sums = sums_of(country, networks)
                service = self._agrees(sums[here] - networks[network], of_service)
                agreements.append(np.maximum(same, self._parameters.service * service))
        return agreements

    def _agrees(self, total: Floats, count: Floats) -> Floats:
        parameters = self._parameters
        absolute = np.clip(total / parameters.enough, 0.0, 1.0)
        agrees: Floats = absolute * np.clip(
            total / np.maximum(1.0, count) / parameters.share, 0.0, 1.0
        )
        return agrees

    def news(
        self, hour: int, groups: Groups, changed: Indices, states: tuple[States, States]
    ) -> Indices:
        """Note the changes of an hour; return the series whose first state is news now.

        A first state BLOCKED is where another network of the country becomes BLOCKED that was
        OK, within some days before or after it.

        Args:
            hour: its number.
            groups: of all series.
            changed: the series that have changed in it.
            states: from which state to which, two rows.
        """
        old, new = states
        begun, over = changed[new == BLOCKED], changed[new == OK]
        self._blocked_since[begun] = hour
        self._first[changed[(new == BLOCKED) & (old == UNKNOWN)]] = hour
        self._changed[changed[(new == BLOCKED) & (old == OK)]] = hour
        self._ok_since[changed[(new == OK) & (old == BLOCKED)]] = hour
        self._first[over] = NEVER
        used = slice(len(groups.peers))
        waiting = np.flatnonzero(self._first[used] > hour - self._parameters.first - 1)
        if not len(waiting):
            return waiting
        latest = np.full(int(groups.country.max()) + 1, NEVER)
        np.maximum.at(latest, groups.country, self._changed[used])
        near = latest[groups.country[waiting]]
        told = waiting[np.abs(near - self._first[waiting]) <= self._parameters.first]
        self._first[told] = NEVER
        return np.asarray(told)
