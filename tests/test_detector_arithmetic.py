"""The sequential test, computed once more: for one series at a time, in plain numbers.

Its rules and numbers are written down a second time here. Whatever is counted, a series among
others has to come to the same states in the same hours.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pytest

from hours import Lowered, Rows
from sequential import ALONE, Detector, Parameters
from series import BLOCKED, OK, UNKNOWN
from support import SupportParameters

# Whoever changes one measures again how good the detector is: `make evaluate`.
MEASURED_WITH = Parameters(
    blocked_shares=(0.55, 0.9),
    blocked_thresholds=(10.5, 8.8),
    ok_threshold=8.4,
    first_threshold=6.0,
    blocked_hours=2.5,
    ok_hours=2.0,
    counted=3.0,
    counted_of_source=1.5,
    half_life=720.0,
    prior=(1.0, 9.0),
    start_shares=(0.55, 0.82),
    start_weight=5.0,
    memory=140.0,
    blocked_memory=60.0,
    learning=0.4,
    blocked_learning=0.6,
    least_share=0.055,
    most_share=0.25,
    most_excess=0.6,
    full_share=0.85,
    full_evidence=4.0,
    most_full_evidence=6.0,
)
MEASURED_ALONE = replace(
    MEASURED_WITH,
    blocked_thresholds=(11.5, 10.0),
    ok_threshold=9.2,
    blocked_hours=3.7,
    ok_hours=2.5,
    full_evidence=math.inf,
)
# Two hours that give the most are as much as each threshold, to the bit.
EXACT = replace(MEASURED_WITH, blocked_hours=2.0, learning=0.5, blocked_learning=0.5, counted=5.0)
SERIES, HOURS = 20, 400
WAIT = 8  # hours after which much evidence needs no support
MUCH, LITTLE = 0.45, 0.35  # of what suffices: from where these hours count, and begin again


def test_the_numbers_are_those_that_the_figures_were_measured_with() -> None:
    assert Parameters() == MEASURED_WITH
    assert ALONE == MEASURED_ALONE


class Count(NamedTuple):
    """Runs of one kind of probe in an hour; `excess` is that of Rows."""

    source: int
    bad: int
    good: int
    excess: float = 0.0


class Measured(NamedTuple):
    """An hour in which a series is measured.

    Attributes:
        counts: what was found.
        controlled: whether something controls that.
        beginnings, ends: the part of the thresholds that suffices.
    """

    counts: Sequence[Count]
    controlled: bool = True
    beginnings: float = 1.0
    ends: float = 1.0


def log_ratio(bad: float, good: float, share: float, instead_of: float) -> float:
    return bad * math.log(share / instead_of) + good * math.log((1 - share) / (1 - instead_of))


def within(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)


@dataclass
class Evidence:
    """What speaks for another state, in nats, and since which hour."""

    threshold: float
    hours: float
    value: float = 0.0
    since: int = -1

    def add(self, hour: int, fading: float, ratio: float) -> float:
        limited = within(ratio, -self.threshold / 1.5, self.threshold / self.hours)
        self.value = max(0.0, self.value * fading + limited)
        if self.value <= 0:
            self.since = -1
        elif self.since < 0:
            self.since = hour
        return self.value / self.threshold

    def forget(self) -> None:
        self.value, self.since = 0.0, -1


@dataclass
class Share:
    """Anomalies and other measurements, of which so many are remembered."""

    bad: float
    good: float
    memory: float

    def of(self) -> float:
        return self.bad / (self.bad + self.good)

    def learn(self, bad: float, good: float) -> None:
        kept = min(1.0, self.memory / (self.bad + self.good))
        self.bad, self.good = self.bad * kept + bad, self.good * kept + good


@dataclass
class OneSeries:
    """A series by itself; its attributes are those of Detector.

    Args:
        numbers: what the test goes by.
        needs_support: whether evidence that nothing controls is half of what suffices at most,
            until there has been much of it for eight hours.
    """

    numbers: Parameters
    needs_support: bool
    status: int = UNKNOWN
    since: int = -1
    last: int = -1
    held_since: int = -1
    much_since: int | None = None
    begins: float = 0.0
    ends: float = 0.0
    first: float = 0.0
    partial: float = 0.0
    ok: Share = field(init=False)
    blocked: Share = field(init=False)
    for_blocked: list[Evidence] = field(init=False)
    for_ok: list[Evidence] = field(init=False)

    def __post_init__(self) -> None:
        numbers = self.numbers
        self.ok = Share(*numbers.prior, numbers.memory)
        weight, share = numbers.start_weight, numbers.start_shares[1]
        self.blocked = Share(share * weight, (1 - share) * weight, numbers.blocked_memory)
        self.for_blocked = [
            Evidence(threshold, numbers.blocked_hours) for threshold in numbers.blocked_thresholds
        ]
        self.for_ok = [Evidence(numbers.ok_threshold, numbers.ok_hours) for _ in range(2)]

    @property
    def usual(self) -> float:
        return within(self.ok.of(), self.numbers.least_share, self.numbers.most_share)

    @property
    def progress(self) -> float:
        if self.status == UNKNOWN:
            return abs(self.first) / self.numbers.first_threshold
        if self.status == OK:
            return max(one.value / one.threshold for one in self.for_blocked)
        return self.ends

    def measure(self, hour: int, measured: Measured) -> None:
        fading = 2 ** (-(hour - self.last - 1) / self.numbers.half_life)
        if self.last < 0:
            self.since = hour
        self.last = hour
        counts = self.weighed(measured.counts)
        bad, good = (sum(column) for column in zip(*[(b, g) for b, g, _ in counts], strict=True))
        if self.status == UNKNOWN:
            self.measure_unknown(fading, bad, good, measured)
        elif self.status == OK:
            self.measure_ok(hour, fading, counts, measured)
        else:
            self.measure_blocked(hour, fading, (bad, good), measured)

    def weighed(self, counts: Sequence[Count]) -> list[tuple[float, float, float]]:
        """Return anomalies, others and excess of each kind of probe: few of each count."""
        numbers = self.numbers
        weights = [
            min(1.0, numbers.counted_of_source / (one.bad + one.good)) if one.source else 1.0
            for one in counts
        ]
        runs = sum((c.bad + c.good) * weight for c, weight in zip(counts, weights, strict=True))
        most = min(1.0, numbers.counted / runs)
        return [
            (one.bad * weight * most, one.good * weight * most, one.excess)
            for one, weight in zip(counts, weights, strict=True)
        ]

    def measure_unknown(self, fading: float, bad: float, good: float, measured: Measured) -> None:
        threshold = self.numbers.first_threshold
        ratio = log_ratio(bad, good, 0.8, 0.15)
        self.first = self.first * fading + within(ratio, -threshold / 2, threshold / 2)
        if self.first > threshold * measured.beginnings:
            self.status = BLOCKED
        elif self.first < -threshold:
            self.status = OK

    def measure_ok(
        self,
        hour: int,
        fading: float,
        counts: Sequence[tuple[float, float, float]],
        measured: Measured,
    ) -> None:
        numbers, usual = self.numbers, self.usual
        parts = []
        for share, evidence in zip(numbers.blocked_shares, self.for_blocked, strict=True):
            ratio = 0.0
            for bad, good, excess in counts:
                raised = max(usual, min(usual + excess, numbers.most_excess))
                ratio += log_ratio(bad, good, max(share, min(0.93, raised + 0.3)), raised)
            parts.append(evidence.add(hour, fading, ratio))
        most = max(parts)
        which = parts.index(most)
        since = self.for_blocked[which].since
        if most >= MUCH and self.much_since is None:
            self.much_since = hour
        waited = most >= MUCH and self.much_since is not None and hour - self.much_since >= WAIT
        if most < LITTLE:
            self.much_since = None
        free = not self.needs_support or measured.controlled or waited
        if free:
            self.held_since = -1
        else:
            held = most >= 0.5
            self.held_since = (self.held_since if self.held_since >= 0 else hour) if held else -1
            for evidence in self.for_blocked:
                evidence.value = min(evidence.value, 0.5 * evidence.threshold)
            most = min(most, 0.5)
        self.begins = most if free else 0.0
        bad, good = sum(one[0] for one in counts), sum(one[1] for one in counts)
        if most < numbers.learning:
            self.ok.learn(bad, good)
        if free and most >= measured.beginnings:
            self.status, self.since, self.ends = BLOCKED, since, 0.0
            weight, share = numbers.start_weight, numbers.start_shares[which]
            self.blocked.bad, self.blocked.good = share * weight, (1 - share) * weight
            self.blocked.learn(bad, good)
            self.partial = (2.0, -2.5)[which]
            self.forget()

    def measure_blocked(
        self, hour: int, fading: float, found: tuple[float, float], measured: Measured
    ) -> None:
        numbers, (bad, good) = self.numbers, found
        blocked = within(self.blocked.of(), 0.4, 0.97)
        back = max(min(self.usual, blocked - 0.2), numbers.least_share)
        parts = [
            evidence.add(hour, fading, log_ratio(bad, good, back, share))
            for share, evidence in zip(
                (blocked, max(blocked, numbers.full_share)), self.for_ok, strict=True
            )
        ]
        which = 1 if self.partial <= -numbers.full_evidence else 0
        self.ends = parts[which]
        learns = self.ends < numbers.blocked_learning
        if learns:
            self.blocked.learn(bad, good)
        if learns or bad > good:
            most = numbers.most_full_evidence
            ratio = within(log_ratio(bad, good, *numbers.blocked_shares), -1.5, 1.5)
            self.partial = within(self.partial + ratio, -most, most)
        if self.ends >= measured.ends:
            self.ok.learn(bad, good)
            self.status, self.since, self.begins = OK, self.for_ok[which].since, 0.0
            for evidence in self.for_ok:
                evidence.forget()

    def forget(self) -> None:
        self.much_since = None
        for evidence in (*self.for_blocked, *self.for_ok):
            evidence.forget()


def follow_hour(detector: Detector, hour: int, measured: Sequence[tuple[int, Measured]]) -> None:
    """Let series be measured in an hour."""
    rows = [
        (series, count.source, count.bad, count.good, count.excess, one.controlled, False)
        for series, one in measured
        for count in one.counts
    ]
    kinds = (np.int64, np.int64, float, float, float, bool, bool)
    columns = zip(*rows, strict=True)
    index = np.array([series for series, _ in measured])
    lowered = Lowered(
        np.array([one.beginnings for _, one in measured]),
        np.array([one.ends for _, one in measured]),
        np.zeros(len(measured), dtype=bool),
    )
    given = Rows._make(np.array(c, kind) for c, kind in zip(columns, kinds, strict=True))
    before = detector.status.copy()
    changed, old = detector.follow(hour, given, detector.see(hour, index), lowered)
    expected = np.flatnonzero(detector.status != before)
    assert changed.tolist() == expected.tolist()
    assert old.tolist() == before[expected].tolist()


def compare(detector: Detector, series: Sequence[OneSeries]) -> None:
    """Check that a detector knows of its series what they know of themselves."""
    for name in ("status", "since", "last", "held_since"):
        assert getattr(detector, name).tolist() == [getattr(one, name) for one in series], name
    progress, usual = detector.progress(), detector.usual(np.arange(len(series)))
    for name, numbers in (("begins", detector.begins), ("ends", detector.ends),
                          ("progress", progress), ("usual", usual)):  # fmt: skip
        assert numbers.tolist() == pytest.approx([getattr(one, name) for one in series]), name


KINDS = ("good", "good", "bad", "half", "any")
SUFFICES = ((1.0, 1.0), (1.0, 1.0), (0.6, 0.7))  # for beginnings and ends


def made_up(seed: int, hours: int, *, sources: bool) -> dict[int, Measured]:
    """Return hour → what is found of a series: for some time the same, then something else.

    Args:
        seed: draws it.
        hours: how many, about.
        sources: whether the kinds of probes are known; there are up to two then.
    """
    draw = random.Random(seed)
    made: dict[int, Measured] = {}
    hour = 0
    while hour < hours:
        kind, pause, controlled = draw.choice(KINDS), draw.choice((1, 1, 1, 9)), draw.random() < 0.5
        beginnings, ends = draw.choice(SUFFICES)
        excess, most = draw.choice((0.0, 0.0, 0.2, 0.5)), draw.choice((1, 2, 5))
        for _ in range(draw.randint(1, 25)):
            counts = []
            for source in range(1, draw.randint(2, 3)) if sources else (0,):
                runs = draw.randint(1, most)
                bad = {"good": 0, "bad": runs, "half": (runs + 1) // 2}.get(kind)
                bad = draw.randint(0, runs) if bad is None else bad
                counts.append(Count(source, bad, runs - bad, excess))
            made[hour] = Measured(counts, controlled, beginnings, ends)
            hour += pause
    return made


def one_after_the_other(*phases: tuple[int, int, int]) -> dict[int, Measured]:
    """Return hours in which the same is found for some hours, then something else.

    Args:
        phases: hours, anomalies and other runs.
    """
    runs = [counts for hours, *counts in phases for _ in range(hours)]
    return {hour: Measured([Count(0, *counts)]) for hour, counts in enumerate(runs)}


# Partial, then full; and full, in which one hour more or less makes it sure.
BLOCKINGS = [
    *(
        one_after_the_other((30, 0, 2), (partial, 1, 1), (full, 3, 0), (20, 0, 2))
        for partial in range(6, 12)
        for full in (4, 5, 6)
    ),
    *(one_after_the_other((30, 0, 5), (full, 5, 0), (20, 0, 1)) for full in range(2, 6)),
]


@pytest.mark.parametrize(
    ("numbers", "support"),
    [(None, False), (ALONE, False), (EXACT, False), (None, True), (EXACT, True)],
    ids=["with context", "alone", "exact", "with support", "exact, with support"],
)
def test_series_by_themselves_come_to_the_same_states(
    numbers: Parameters | None, *, support: bool
) -> None:
    written_down = {None: MEASURED_WITH, ALONE: MEASURED_ALONE}.get(numbers, EXACT)
    measured = [made_up(seed, HOURS, sources=not support) for seed in range(SERIES)]
    measured += BLOCKINGS
    plain = [OneSeries(written_down, support) for _ in measured]
    detector = Detector(len(plain), numbers, SupportParameters() if support else None)
    compare(detector, plain)
    ways = set()
    for hour in range(HOURS):
        of_hour = [(place, found[hour]) for place, found in enumerate(measured) if hour in found]
        if not of_hour:
            continue
        before = detector.status.copy()
        follow_hour(detector, hour, of_hour)
        for place, one in of_hour:
            plain[place].measure(hour, one)
        compare(detector, plain)
        ways |= set(zip(before.tolist(), detector.status.tolist(), strict=True))
    assert {(UNKNOWN, OK), (UNKNOWN, BLOCKED), (OK, BLOCKED), (BLOCKED, OK)} < ways
