"""The sequential test: from hourly counts to the hours in which blocking began or ended.

Each series (a test, an input, a country, a network) is in one of two states. Of each hour's counts
the logarithm of the likelihood ratio is added up: how much better does the other state explain
them? The sum starts anew at zero, as in Page's CUSUM; where it reaches the threshold, the state
changes. What a series looks like while nothing is blocked is learned from itself.

Three things keep a single probe, or a short outage, from deciding: of an hour only a few
measurements count; one hour can't give more than a part of the threshold, so that it takes several;
and evidence fades while there is silence.

All of it is arithmetic on numpy arrays, for all series that have measurements in an hour at once.
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from series import BLOCKED, OK, UNKNOWN

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
States = NDArray[np.int8]
Arrays = dict[str, NDArray[Any]]

FIRST_SHARES = 0.8, 0.15  # of anomalies, in a series that begins blocked or not
BLOCKED_SHARES = 0.4, 0.97  # no series is believed to have fewer or more while BLOCKED
LEAST_STEP = 0.2  # by which the share of anomalies falls when a blocking ends


@dataclass(frozen=True)
class Parameters:
    """What the test goes by; chosen on simulated series, see detector/README.md.

    Attributes:
        blocked_shares: of anomalies, where some or nearly all of the measurements are blocked.
        blocked_thresholds: evidence for each of them that suffices for a change to BLOCKED, in nats
            (natural logarithms of odds).
        ok_threshold: evidence for a change to OK, in nats.
        first_threshold: evidence for the first state that a series gets, in nats.
        blocked_hours: the least number of hours that can give as much as that threshold. More than
            three, so that an outage of three hours is no blocking.
        ok_hours: likewise, for a change to OK.
        counted: measurements of one hour that count, at most; more of them have less weight each.
        half_life: hours of silence after which half of the evidence is left.
        prior: anomalies and other measurements, as if seen before the first one, while OK.
        start_shares: of anomalies in a blocking that one of blocked_shares has just found. The
            higher one is lower than that: a partial blocking may have begun with anomalies only.
        start_weight: measurements, as if seen with that share.
        memory: measurements from which the share while OK is known; older ones fade.
        blocked_memory: likewise, while BLOCKED.
        learning: the part of the threshold up to which a series is believed to be as it was, so
            that its share is learned, while OK.
        blocked_learning: likewise, while BLOCKED; a partial blocking has to become known soon.
        least_share: no series is believed to have fewer anomalies, while OK.
        most_share: nor more.
    """

    blocked_shares: tuple[float, ...] = (0.55, 0.9)
    blocked_thresholds: tuple[float, ...] = (11.5, 10.0)
    ok_threshold: float = 9.2
    first_threshold: float = 6.0
    blocked_hours: float = 3.7
    ok_hours: float = 2.5
    counted: float = 3.0
    half_life: float = 720.0
    prior: tuple[float, float] = (1.0, 9.0)
    start_shares: tuple[float, ...] = (0.55, 0.82)
    start_weight: float = 5.0
    memory: float = 140.0
    blocked_memory: float = 60.0
    learning: float = 0.4
    blocked_learning: float = 0.6
    least_share: float = 0.055
    most_share: float = 0.25


class Hour(NamedTuple):
    """What is counted in an hour, of some series.

    Attributes:
        number: of the hour.
        series: which.
        anomalies: how many, with their weight.
        others: measurements, likewise.
        fading: the part of earlier evidence that is left.
    """

    number: int
    series: Indices
    anomalies: Floats
    others: Floats
    fading: Floats

    def where(self, mask: NDArray[np.bool_]) -> "Hour":
        """Return only some of the series."""
        if mask.all():  # the usual case, and worth it
            return self
        rest = (self.series[mask], self.anomalies[mask], self.others[mask], self.fading[mask])
        return Hour(self.number, *rest)

    def ratio(self, share: Floats | float, instead_of: Floats | float) -> Floats:
        """Return how much better one share of anomalies explains the counts than another one.

        Args:
            share: above 0, below 1.
            instead_of: likewise.

        Returns:
            The logarithm of the likelihood ratio, in nats.
        """
        by_anomaly = np.log(share / instead_of)
        by_other = np.log((1 - share) / (1 - instead_of))
        ratio: Floats = self.anomalies * by_anomaly + self.others * by_other
        return ratio


class Evidence:
    """Sums of log-likelihood ratios, one for each series, that never fall below zero.

    Attributes:
        value: in nats.
        since: the hour of the first evidence that counts; -1 where there is none.
    """

    def __init__(self, series: int, threshold: float, hours: float) -> None:
        self.value: Floats = np.zeros(series)
        self.since: Indices = np.full(series, -1)
        self._threshold = threshold
        self._most = threshold / hours
        self._least = -threshold / 1.5

    def add(self, hour: Hour, ratio: Floats) -> Floats:
        """Add what an hour gives, after what came before has faded.

        Returns:
            How much of the threshold there is, for each series of the hour; 1 suffices.
        """
        index = hour.series
        limited = np.minimum(np.maximum(ratio, self._least), self._most)
        value = np.maximum(0.0, self.value[index] * hour.fading + limited)
        since = self.since[index]
        self.value[index] = value
        self.since[index] = np.where(value <= 0, -1, np.where(since < 0, hour.number, since))
        part: Floats = value / self._threshold
        return part

    def arrays(self) -> Arrays:
        """Return what is known, by name."""
        return {"value": self.value, "since": self.since}

    def part(self) -> Floats:
        """Return how much of the threshold there is: 1 suffices."""
        return self.value / self._threshold

    def forget(self, index: Indices) -> None:
        """Start anew."""
        self.value[index] = 0.0
        self.since[index] = -1


class Shares:
    """The share of anomalies that each series is known to have, as counts that fade.

    Args:
        series: how many.
        prior: anomalies and other measurements, as if seen before.
        memory: measurements that count.
    """

    def __init__(self, series: int, prior: tuple[float, float], memory: float) -> None:
        self.anomalies: Floats = np.full(series, prior[0])
        self.others: Floats = np.full(series, prior[1])
        self._memory = memory

    def arrays(self) -> Arrays:
        """Return what is known, by name."""
        return {"anomalies": self.anomalies, "others": self.others}

    def of(self, index: Indices) -> Floats:
        """Return the shares, from 0 to 1."""
        anomalies = self.anomalies[index]
        share: Floats = anomalies / (anomalies + self.others[index])
        return share

    def learn(self, hour: Hour) -> None:
        """Add the measurements of an hour."""
        index = hour.series
        total = self.anomalies[index] + self.others[index]
        kept = np.minimum(1.0, self._memory / total)
        self.anomalies[index] = self.anomalies[index] * kept + hour.anomalies
        self.others[index] = self.others[index] * kept + hour.others

    def start(self, index: Indices, share: Floats, weight: float) -> None:
        """Know nothing but a share, as if from so many measurements."""
        self.anomalies[index] = share * weight
        self.others[index] = (1 - share) * weight


class Detector:
    """Follows the states of many series, hour by hour.

    Attributes:
        status: UNKNOWN, OK or BLOCKED, for each series.
        since: the hour in which that began, as far as the measurements tell; -1 before the first.
        last: the last hour that has measurements; -1 before the first.
    """

    def __init__(self, series: int, parameters: Parameters | None = None) -> None:
        parameters = parameters or Parameters()
        self._parameters = parameters
        self.status: States = np.zeros(series, dtype=np.int8)
        self.since: Indices = np.full(series, -1)
        self.last: Indices = np.full(series, -1)
        self._ok = Shares(series, parameters.prior, parameters.memory)
        highest, weight = parameters.start_shares[-1], parameters.start_weight
        prior = (highest * weight, (1 - highest) * weight)
        self._blocked = Shares(series, prior, parameters.blocked_memory)
        self._for_blocked = [
            Evidence(series, threshold, parameters.blocked_hours)
            for threshold in parameters.blocked_thresholds
        ]
        self._for_ok = Evidence(series, parameters.ok_threshold, parameters.ok_hours)
        self._first: Floats = np.zeros(series)  # above zero: for BLOCKED

    def arrays(self) -> Arrays:
        """Return all that is known of the series, by name; `put` takes it back."""
        parts: dict[str, Shares | Evidence] = {
            "ok": self._ok,
            "blocked": self._blocked,
            "for_ok": self._for_ok,
        }
        parts |= {f"for_blocked_{n}": evidence for n, evidence in enumerate(self._for_blocked)}
        nested = {
            f"{part}_{name}": array
            for part, held in parts.items()
            for name, array in held.arrays().items()
        }
        own: Arrays = {"status": self.status, "since": self.since, "last": self.last}
        return own | {"first": self._first} | nested

    def put(self, arrays: Arrays) -> None:
        """Know of the first series what `arrays` of another detector says.

        Raises:
            KeyError: there is none of a name.
            ValueError: it has another type, or more series than this detector.
        """
        for name, array in self.arrays().items():
            given = arrays[name]
            if given.dtype != array.dtype or len(given) > len(array):
                raise ValueError(name)
            array[: len(given)] = given

    def progress(self) -> Floats:
        """Return how much of the evidence for another state each series has, from 0 to 1."""
        parameters = self._parameters
        shares = (
            np.abs(self._first) / parameters.first_threshold,
            np.max([evidence.part() for evidence in self._for_blocked], axis=0),
            self._for_ok.part(),
        )
        share: Floats = np.choose(self.status, shares)
        return np.minimum(1.0, share)

    def advance(
        self, hour: int, index: Indices, measurements: Indices, anomalies: Indices
    ) -> tuple[Indices, States]:
        """Take the counts of one hour; return the series whose state has changed, and from which.

        Args:
            hour: its number; each one is higher than those before.
            index: the series that have measurements in this hour, each once.
            measurements: how many, from 1.
            anomalies: how many of them.

        Returns:
            The series, and their state before: UNKNOWN where it is their first one.
        """
        counted = self._counted(hour, index, measurements, anomalies)
        status = self.status[index]
        unknown, ok, blocked = (counted.where(status == state) for state in (UNKNOWN, OK, BLOCKED))
        groups = [self._follow_unknown(unknown), self._follow_ok(ok), self._follow_blocked(blocked)]
        changed = np.concatenate(groups)
        old = np.repeat(np.array([UNKNOWN, OK, BLOCKED], np.int8), [len(group) for group in groups])
        order = np.argsort(changed)
        return changed[order], old[order]

    def _counted(
        self, hour: int, index: Indices, measurements: Indices, anomalies: Indices
    ) -> Hour:
        """Give measurements their weight, and note the hour."""
        parameters = self._parameters
        weight: Floats = np.minimum(1.0, parameters.counted / measurements)
        last = self.last[index]
        self.since[index[last < 0]] = hour
        self.last[index] = hour
        # Where there were no measurements before, there is no evidence that could fade.
        fading: Floats = np.exp2((hour - last - 1) / -parameters.half_life)
        seen, others = anomalies * weight, (measurements - anomalies) * weight
        return Hour(hour, index, seen, others, fading)

    def _follow_unknown(self, hour: Hour) -> Indices:
        """Add up the evidence for the first state; return the series that have one now."""
        parameters, index = self._parameters, hour.series
        most = parameters.first_threshold / 2
        ratio = np.clip(hour.ratio(*FIRST_SHARES), -most, most)
        value = self._first[index] * hour.fading + ratio
        self._first[index] = value
        blocked, ok = (
            index[value > parameters.first_threshold],
            index[value < -parameters.first_threshold],
        )
        self.status[blocked], self.status[ok] = BLOCKED, OK
        return np.concatenate([blocked, ok])

    def _follow_ok(self, hour: Hour) -> Indices:
        """Add up the evidence for a blocking; return the series that are blocked now."""
        parameters = self._parameters
        usual = np.clip(self._ok.of(hour.series), parameters.least_share, parameters.most_share)
        parts = [
            evidence.add(hour, hour.ratio(share, usual))
            for share, evidence in zip(parameters.blocked_shares, self._for_blocked, strict=True)
        ]
        most = functools.reduce(np.maximum, parts)
        enough = most >= 1
        self._ok.learn(hour.where(most < parameters.learning))
        changed = hour.series[enough]
        which = np.stack(parts)[:, enough].argmax(axis=0)
        since = [evidence.since[changed] for evidence in self._for_blocked]
        self.since[changed] = np.choose(which, since)
        self.status[changed] = BLOCKED
        self._blocked.start(
            changed, np.array(parameters.start_shares)[which], parameters.start_weight
        )
        self._blocked.learn(hour.where(enough))
        for evidence in self._for_blocked:
            evidence.forget(changed)
        return changed

    def _follow_blocked(self, hour: Hour) -> Indices:
        """Add up the evidence for the end of a blocking; return the series that are OK now."""
        parameters = self._parameters
        usual = np.clip(self._ok.of(hour.series), parameters.least_share, parameters.most_share)
        blocked = np.clip(self._blocked.of(hour.series), *BLOCKED_SHARES)
        back = np.maximum(np.minimum(usual, blocked - LEAST_STEP), parameters.least_share)
        part = self._for_ok.add(hour, hour.ratio(back, blocked))
        enough = part >= 1
        self._blocked.learn(hour.where(part < parameters.blocked_learning))
        self._ok.learn(hour.where(enough))
        changed = hour.series[enough]
        self.since[changed] = self._for_ok.since[changed]
        self.status[changed] = OK
        self._for_ok.forget(changed)
        return changed
