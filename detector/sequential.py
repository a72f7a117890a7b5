"""The sequential test: from hourly counts to the hours in which blocking began or ended.

Each series (a test, an input, a country, a network) is in one of two states. Of each hour's counts
the logarithm of the likelihood ratio is added up: how much better does the other state explain
them? The sum starts anew at zero, as in Page's CUSUM; where it reaches the threshold, the state
changes. What a series looks like while nothing is blocked is learned from itself.

Four things keep a single probe, or a short outage, from deciding: of an hour only a few
measurements count, one hour can't give more than a part of the threshold, the evidence must come
from several hours, and it fades while there is silence.

All of it is arithmetic on numpy arrays, for all series that have measurements in an hour at once.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
States = NDArray[np.int8]
Arrays = dict[str, NDArray[Any]]

UNKNOWN, OK, BLOCKED = 0, 1, 2
NAMES = ("UNKNOWN", "OK", "BLOCKED")


@dataclass(frozen=True)
class Parameters:
    """What the test goes by; chosen on simulated series, see README.md.

    Attributes:
        blocked_shares: of anomalies, where some or nearly all of the measurements are blocked.
        blocked_thresholds: evidence for each of them that suffices for a change to BLOCKED, in nats
            (natural logarithms of odds).
        ok_threshold: evidence for a change to OK, in nats.
        first_threshold: evidence for the first state that a series gets, in nats.
        blocked_hours: the least number of hours that can give as much as that threshold. More than
            three, so that an outage of three hours is no block.
        blocked_span: the least number of hours from the first evidence to the change.
        ok_hours: likewise, for a change to OK.
        ok_span: likewise.
        counted: measurements of one hour that count, at most; more of them have less weight each.
        half_life: hours of silence after which half of the evidence is left.
        prior: anomalies and other measurements, as if seen before the first one, while OK.
        start_shares: of anomalies in a block that has just been found by each of blocked_shares.
            The higher one is lower than that: a partial block may have begun with anomalies only.
        start_weight: measurements, as if seen with that share.
        memory: measurements from which the share while OK is known; older ones fade.
        blocked_memory: likewise, while BLOCKED.
        learning: the part of the threshold up to which a series is believed to be as it was, so
            that its share is learned, while OK.
        blocked_learning: likewise, while BLOCKED; a partial block has to become known soon.
        least_share: no series is believed to have fewer anomalies, while OK.
        most_share: nor more.
    """

    blocked_shares: tuple[float, ...] = (0.55, 0.9)
    blocked_thresholds: tuple[float, ...] = (11.5, 10.0)
    ok_threshold: float = 9.2
    first_threshold: float = 6.0
    blocked_hours: float = 3.7
    blocked_span: int = 4
    ok_hours: float = 2.5
    ok_span: int = 3
    counted: float = 3.0
    half_life: float = 720.0
    prior: tuple[float, float] = (1.0, 9.0)
    start_shares: tuple[float, ...] = (0.55, 0.82)
    start_weight: float = 5.0
    memory: float = 100.0
    blocked_memory: float = 60.0
    learning: float = 0.4
    blocked_learning: float = 0.6
    least_share: float = 0.055
    most_share: float = 0.3


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

    def add(self, index: Indices, hour: int, ratio: Floats, fading: Floats) -> None:
        """Add what an hour gives, after what came before has faded."""
        limited = np.clip(ratio, self._least, self._most)
        value = np.maximum(0.0, self.value[index] * fading + limited)
        since = self.since[index]
        self.value[index] = value
        self.since[index] = np.where(value <= 0, -1, np.where(since < 0, hour, since))

    def arrays(self) -> Arrays:
        """Return what is known, by name."""
        return {"value": self.value, "since": self.since}

    def part(self) -> Floats:
        """Return how much of the threshold there is: 1 suffices."""
        return self.value / self._threshold

    def part_of(self, index: Indices) -> Floats:
        """Likewise, of some series."""
        part: Floats = self.value[index] / self._threshold
        return part

    def suffices(self, index: Indices, hour: int, span: int) -> NDArray[np.bool_]:
        """Return whether there is enough, gathered over so many hours."""
        lasting = hour - self.since[index] + 1 >= span
        enough: NDArray[np.bool_] = (self.value[index] >= self._threshold) & lasting
        return enough

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

    def learn(self, index: Indices, anomalies: Floats, others: Floats) -> None:
        """Add measurements."""
        total = self.anomalies[index] + self.others[index]
        kept = np.minimum(1.0, self._memory / total)
        self.anomalies[index] = self.anomalies[index] * kept + anomalies
        self.others[index] = self.others[index] * kept + others

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
        known = parameters or Parameters()
        self._parameters = known
        self.status: States = np.zeros(series, dtype=np.int8)
        self.since: Indices = np.full(series, -1)
        self.last: Indices = np.full(series, -1)
        self._ok = Shares(series, known.prior, known.memory)
        highest, weight = known.start_shares[-1], known.start_weight
        prior = (highest * weight, (1 - highest) * weight)
        self._blocked = Shares(series, prior, known.blocked_memory)
        self._for_blocked = [
            Evidence(series, threshold, known.blocked_hours)
            for threshold in known.blocked_thresholds
        ]
        self._for_ok = Evidence(series, known.ok_threshold, known.ok_hours)
        self._first: Floats = np.zeros(series)  # above zero: for BLOCKED

    def arrays(self) -> Arrays:
        """Return all that is known of the series, by name; `put` takes it back."""
        parts: dict[str, Shares | Evidence] = {
            "ok": self._ok,
            "blocked": self._blocked,
            "for_ok": self._for_ok,
        }
        parts |= {f"for_blocked_{n}": each for n, each in enumerate(self._for_blocked)}
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
            known = arrays[name]
            if known.dtype != array.dtype or len(known) > len(array):
                raise ValueError(name)
            array[: len(known)] = known

    def progress(self) -> Floats:
        """Return how much of the evidence for another state each series has, from 0 to 1."""
        known = self._parameters
        shares = (
            np.abs(self._first) / known.first_threshold,
            np.max([each.part() for each in self._for_blocked], axis=0),
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
        known = self._parameters
        weight: Floats = np.minimum(1.0, known.counted / measurements)
        seen: Floats = anomalies * weight
        others: Floats = (measurements - anomalies) * weight
        last = self.last[index]
        silent = np.where(last < 0, 0, hour - last - 1)
        fading = 0.5 ** (silent / known.half_life)
        self.since[index] = np.where(last < 0, hour, self.since[index])
        self.last[index] = hour
        self._gather(index, hour, seen, others, fading)
        changed = self._changes(index, hour)
        before = self.status[changed]
        self.since[changed] = self._since(changed, before)
        self.status[changed] = np.where(
            before == UNKNOWN,
            np.where(self._first[changed] > 0, BLOCKED, OK),
            np.where(before == OK, BLOCKED, OK),
        )
        self._start_anew(changed)
        self._learn(index, seen, others)
        return changed, before

    def _gather(
        self, index: Indices, hour: int, seen: Floats, others: Floats, fading: Floats
    ) -> None:
        """Add up the evidence for the other state."""
        known = self._parameters
        usual = np.clip(self._ok.of(index), known.least_share, known.most_share)
        for share, evidence in zip(known.blocked_shares, self._for_blocked, strict=True):
            blocked = np.maximum(share, np.minimum(usual + 0.25, 0.9))
            evidence.add(index, hour, log_ratio(seen, others, blocked, usual), fading)
        blocked = np.clip(self._blocked.of(index), 0.4, 0.97)
        back = np.maximum(np.minimum(usual, blocked - 0.2), known.least_share)
        self._for_ok.add(index, hour, log_ratio(seen, others, back, blocked), fading)
        most = known.first_threshold / 2
        ratio = np.clip(log_ratio(seen, others, 0.8, 0.15), -most, most)
        self._first[index] = self._first[index] * fading + ratio

    def _strongest(self, index: Indices) -> tuple[Floats, Indices]:
        """Return how much of its threshold the strongest evidence for BLOCKED has, and which it is.

        The latter is a place in `_for_blocked`.
        """
        parts = np.stack([evidence.part_of(index) for evidence in self._for_blocked])
        return parts.max(axis=0), parts.argmax(axis=0)

    def _changes(self, index: Indices, hour: int) -> Indices:
        """Return the series whose evidence suffices for another state."""
        known, status = self._parameters, self.status[index]
        span = known.blocked_span
        blocked = [evidence.suffices(index, hour, span) for evidence in self._for_blocked]
        to_blocked = (status == OK) & np.any(blocked, axis=0)
        to_ok = (status == BLOCKED) & self._for_ok.suffices(index, hour, known.ok_span)
        first = (status == UNKNOWN) & (np.abs(self._first[index]) > known.first_threshold)
        changed: Indices = index[to_blocked | to_ok | first]
        return changed

    def _since(self, changed: Indices, before: States) -> Indices:
        """Return the hour of the first evidence for the state that series change to."""
        _, which = self._strongest(changed)
        blocked = np.choose(which, [evidence.since[changed] for evidence in self._for_blocked])
        since: Indices = np.choose(
            before, (self.since[changed], blocked, self._for_ok.since[changed])
        )
        return since

    def _start_anew(self, changed: Indices) -> None:
        """Forget the evidence that has led to a change, but for which share it spoke."""
        known = self._parameters
        part, which = self._strongest(changed)
        share = np.array(known.start_shares)[np.where(part > 0, which, -1)]
        blocked = self.status[changed] == BLOCKED
        self._blocked.start(changed[blocked], share[blocked], known.start_weight)
        for evidence in (*self._for_blocked, self._for_ok):
            evidence.forget(changed)

    def _learn(self, index: Indices, seen: Floats, others: Floats) -> None:
        """Learn the share of anomalies of the state in which a series is believed to be."""
        known, status = self._parameters, self.status[index]
        part, _ = self._strongest(index)
        calm = (status == OK) & (part < known.learning)
        self._ok.learn(index[calm], seen[calm], others[calm])
        calm = (status == BLOCKED) & (self._for_ok.part_of(index) < known.blocked_learning)
        self._blocked.learn(index[calm], seen[calm], others[calm])


def log_ratio(
    anomalies: Floats, others: Floats, share: Floats | float, instead_of: Floats | float
) -> Floats:
    """Return how much better one share of anomalies explains counts than another, in nats."""
    ratio: Floats = anomalies * np.log(share / instead_of) + others * np.log(
        (1 - share) / (1 - instead_of)
    )
    return ratio
