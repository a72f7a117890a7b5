"""Following series: their states, their events and the counts behind them, hour by hour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from context import ContextCounts
from contextual import CONTROL, ContextDetector
from control import ASN_BITS, OtherRows, RunRows, source_key
from doubt import in_doubt
from hours import Arrays, Floats, Indices, States
from pooling import Grouping
from series import (
    BLOCKED,
    STATE_NAMES,
    UNKNOWN,
    Event,
    InDoubt,
    Series,
    SeriesStatus,
    Target,
    time_of,
)

HALF_LIFE = 168  # hours after which a measurement counts half in the counts behind a state
LEAST_ROOM = 1024  # series that room is made for, at least
PREFIX = "test_"  # begins the names of the detector's arrays


@dataclass(frozen=True)
class Checkpoint:
    """What is known at an hour.

    Attributes:
        hour: the first one, in hours since 1970, that the arrays do not know of.
        until: the end of the last hour that the run which made it had looked at.
        series: in the order of the arrays; those that begin with PREFIX + CONTROL are
            not by series.
        arrays: by name.
    """

    hour: int
    until: int
    series: Sequence[Series]
    arrays: Arrays


class Follower:
    """Follows series that turn up as it goes.

    Args:
        services: test and input → the name of the service; those of one pool their evidence.

    Attributes:
        series: those that it knows, in the order in which they turned up.
    """

    def __init__(self, services: Mapping[Target, str]) -> None:
        self.series: list[Series] = []
        self._services = services
        self._numbers: dict[Series, int] = {}
        self._networks: list[int] = []  # the key of each series'
        self._grouping = Grouping()
        self._make_room(LEAST_ROOM)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, services: Mapping[Target, str]) -> "Follower":
        """Return a follower that knows what the one knew that made a checkpoint.

        Raises:
            KeyError, ValueError: its arrays are of another kind.
        """
        follower = cls(services)
        numbers = follower._numbers_of(checkpoint.series)
        if len(numbers) != len(set(numbers.tolist())):
            raise ValueError("a series twice")
        follower._put(checkpoint.arrays)
        return follower

    def follow(self, counts: ContextCounts) -> list[Event]:
        """Take counts of hours after all that were taken; return what has changed."""
        # The columns are those of RunCount and OthersCount, from the hour on. Sorted, so that sums
        # do not depend on the order in which the server answers.
        runs = counts.runs.T
        series = self._numbers_of(counts.series)[runs[0]]
        order = np.lexsort((runs[3], source_key(series, runs[2]), runs[1]))
        series, runs = series[order], runs[1:, order]
        others = counts.others.T
        order = np.lexsort((source_key(others[0], others[2]), others[1]))
        networks, others = others[0, order], others[1:, order]
        hours = np.arange(counts.start, counts.end + 1)
        of_runs, of_others = (np.searchsorted(table[0], hours).tolist() for table in (runs, others))
        own = np.array(self._networks, dtype=np.int64)
        groups = self._grouping.groups()
        events: list[Event] = []
        for row, hour in enumerate(hours[:-1].tolist()):
            part = slice(of_runs[row], of_runs[row + 1])
            rest = slice(of_others[row], of_others[row + 1])
            index, numbers = series[part], runs[1:, part]
            source, bucket, *_, total, bad = numbers
            self._count(hour, index, numbers[2:5])
            changed, old, news = self._detector.advance(
                hour,
                RunRows(index, own[index], source, bucket, total.astype(float), bad.astype(float)),
                OtherRows(networks[rest], others[1, rest], *others[2:, rest].astype(float)),
                groups,
            )
            self._old[changed] = old
            told = np.union1d(changed[old != UNKNOWN], news)
            events += self._events(hour, told)
        return events

    def checkpoint(self, hour: int, until: int) -> Checkpoint:
        """Return what is known of the series before an hour, sorted by them; copies.

        Args:
            hour: the first one that has not been taken.
            until: the end of the last one that this run looks at.
        """
        order = sorted(range(len(self.series)), key=self.series.__getitem__)
        arrays = {
            name: array.copy() if name.startswith(PREFIX + CONTROL) else array[order]
            for name, array in self._arrays().items()
        }
        return Checkpoint(hour, until, [self.series[number] for number in order], arrays)

    def statuses(
        self, services: Mapping[Target, str], until: int, stale: timedelta
    ) -> list[SeriesStatus]:
        """Return the state of each series of a service, sorted.

        Args:
            services: test and input → the name of the service.
            until: the end of the last hour that was looked at.
            stale: a series without measurements for so long is UNKNOWN.
        """
        rows = zip(
            self.series,
            [services.get(series.target) for series in self.series],
            *self._figures(until, stale),
            strict=True,
        )
        # The first value of a status is its series, and no other one has it.
        return sorted(SeriesStatus._make(row) for row in rows if row[1] is not None)

    def in_doubt(self, services: Mapping[Target, str], until: int) -> InDoubt:
        """Return what the last hours before one say, and is not believed."""
        return in_doubt(self.series, services, self._detector, until)

    def _count(self, hour: int, rows: Indices, counts: Indices) -> None:
        """Add measurements, anomalies and confirmed ones, which are by row, to those of series."""
        index, place = np.unique(rows, return_inverse=True)
        last = self._detector.test.last[index]
        kept = np.exp2(np.where(last < 0, 0, last - hour) / HALF_LIFE)
        for array, added in zip(
            (self._measurements, self._anomalies, self._confirmed), counts, strict=True
        ):
            array[index] = array[index] * kept + np.bincount(place, added, len(index))

    def _events(self, hour: int, changed: Indices) -> list[Event]:
        """Return the events of an hour, of series that have changed in it."""
        test = self._detector.test
        return [
            Event(
                self.series[number],
                STATE_NAMES[test.status[number]],
                time_of(since),
                time_of(hour + 1),
            )
            for number, since in zip(changed.tolist(), test.since[changed].tolist(), strict=True)
        ]

    def _figures(self, until: int, stale: timedelta) -> list[Sequence[Any]]:
        """Return what statuses have after series and service, column by column."""
        used = slice(len(self.series))
        detector = self._detector.test
        last, since, old = detector.last[used], detector.since[used], self._old[used]
        status = detector.status[used]
        silent = until - last - 1 > stale / timedelta(hours=1)
        total = self._measurements[used]
        anomalies = self._anomalies[used] / total
        confirmed = np.minimum(self._confirmed[used] / total, anomalies)
        faded = total * 0.5 ** ((until - 1 - last) / HALF_LIFE)
        stability = np.where(
            status == UNKNOWN, 0.0, np.where(status == BLOCKED, anomalies, 1 - anomalies)
        )
        times = {hour: time_of(hour) for hour in {*since.tolist(), *(last + 1).tolist()}}
        return [
            [STATE_NAMES[state] for state in np.where(silent, UNKNOWN, status).tolist()],
            [STATE_NAMES[state] for state in np.where(silent, status, old).tolist()],
            [times[hour] for hour in since.tolist()],
            [times[hour] for hour in (last + 1).tolist()],
            _rounded(faded),
            _rounded(100 * confirmed),
            _rounded(100 * (anomalies - confirmed)),
            _rounded(100 * (1 - anomalies)),
            _rounded(detector.progress()[used]),
            _rounded(stability),
        ]

    def _numbers_of(self, series: Sequence[Series]) -> Indices:
        """Return the numbers of series, which get one where they have none."""
        numbers = [self._numbers.get(key, -1) for key in series]
        if -1 in numbers:
            for key in series:
                if key not in self._numbers:
                    self._add(key)
            numbers = [self._numbers[key] for key in series]
        if len(self.series) > len(self._old):
            arrays = self._arrays()
            self._make_room(2 * len(self.series))
            self._put(arrays)
        return np.array(numbers, dtype=np.int64)

    def _add(self, series: Series) -> None:
        target, network = series[:2], series[2:]
        self._numbers[series] = len(self.series)
        self.series.append(series)
        self._networks.append(_key_of(*network))
        self._grouping.add(0, network, target, self._services.get(target, target))

    def _make_room(self, series: int) -> None:
        """Know nothing of so many series."""
        self._detector = ContextDetector(series)
        self._old: States = np.zeros(series, dtype=np.int8)
        self._measurements: Floats = np.zeros(series)
        self._anomalies: Floats = np.zeros(series)
        self._confirmed: Floats = np.zeros(series)

    def _own_arrays(self) -> Arrays:
        return {
            "old": self._old,
            "measurements": self._measurements,
            "anomalies": self._anomalies,
            "confirmed": self._confirmed,
        }

    def _arrays(self) -> Arrays:
        detector = {PREFIX + name: array for name, array in self._detector.arrays().items()}
        return self._own_arrays() | detector

    def _put(self, arrays: Arrays) -> None:
        for name, array in self._own_arrays().items():
            if arrays[name].dtype != array.dtype:
                raise ValueError(f"{name}: {arrays[name].dtype}")
            array[: len(arrays[name])] = arrays[name]
        self._detector.put({name.removeprefix(PREFIX): array for name, array in arrays.items()})


def _key_of(code: str, asn: int) -> int:
    """Return the key of a network, see network_key; the code of its country has two letters."""
    return (26 * (ord(code[0]) - ord("A")) + ord(code[1]) - ord("A")) << ASN_BITS | asn


def _rounded(values: Floats) -> list[float]:
    rounded: list[float] = np.round(values, 2).tolist()
    return rounded
