"""How good a detector is on labelled observations: what it finds, how soon, what it gets wrong.

An event counts as found when a change to its state is detected at or after it, and before the next
event of the series, at most 20 days later. Every other change is false. The first state that a
series gets is no change. The time of a detection is the end of the hour whose data caused it.
"""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from evaluation.observations import Observations
from ooni_common.errors import DataRefused
from sequential import Indices
from series import NAMES, UNKNOWN, hour_of

LATEST = 20 * 24  # hours after an event in which it can be found
ENOUGH = 10  # measurements inside an event that anybody could find

Figures = dict[str, float | int | None]


class Label(msgspec.Struct, frozen=True):
    """A change that really happened: the hour in which it did, UTC, and the state since then."""

    t: datetime
    to: Literal["OK", "BLOCKED"]


class Truth(msgspec.Struct, frozen=True):
    """What is known of a series: how it was made, its measurements per hour, its changes."""

    scenario: str
    rate_per_h: float
    events: tuple[Label, ...]


class Follower(Protocol):
    """A detector."""

    status: NDArray[np.int8]

    def advance(
        self, hour: int, index: Indices, measurements: Indices, anomalies: Indices
    ) -> tuple[Indices, NDArray[np.int8]]:
        """Take the counts of one hour; return the changed series and their states before."""


@dataclass
class Score:
    """What a detector has found, and what not.

    Attributes:
        found: events.
        false: changes that are no event.
        missed: events.
        delays: of those found, in hours.
        clear: events that anybody could find.
        clear_found: of these.
        weeks: for how long the series were observed.
    """

    found: int = 0
    false: int = 0
    missed: int = 0
    delays: list[int] = field(default_factory=list)
    clear: int = 0
    clear_found: int = 0
    weeks: float = 0.0

    def add(self, other: "Score") -> None:
        """Add what was found in another series."""
        self.found += other.found
        self.false += other.false
        self.missed += other.missed
        self.delays += other.delays
        self.clear += other.clear
        self.clear_found += other.clear_found
        self.weeks += other.weeks

    def figures(self) -> Figures:
        """Return what is reported; None where there is nothing to tell from."""

        def share(part: int, whole: float) -> float | None:
            return part / whole if whole else None

        def percentile(percent: int) -> float | None:
            return float(np.percentile(self.delays, percent)) if self.delays else None

        return {
            "tp": self.found,
            "fp": self.false,
            "fn": self.missed,
            "precision": share(self.found, self.found + self.false),
            "recall": share(self.found, self.found + self.missed),
            "recall_of_clear_events": share(self.clear_found, self.clear),
            "median_delay_h": percentile(50),
            "p90_delay_h": percentile(90),
            "false_per_1000_series_weeks": share(1000 * self.false, self.weeks),
        }


def read_labels(path: Path) -> dict[str, Truth]:
    """Read what is known of each series, from JSON.

    Raises:
        DataRefused: it is no such file.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Truth])
    except (OSError, msgspec.DecodeError) as error:
        raise DataRefused(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def changes_of(detector: Follower, observations: Observations) -> dict[int, list[tuple[int, str]]]:
    """Let a detector follow observations; return the changes of each series that has any.

    A change is the end of the hour that caused it, in hours since 1970, and the state since then.
    """
    found: dict[int, list[tuple[int, str]]] = {}
    for hour, part in observations.hours():
        changed, before = detector.advance(
            hour,
            observations.index[part],
            observations.measurements[part],
            observations.anomalies[part],
        )
        for series, state in zip(changed.tolist(), before.tolist(), strict=True):
            if state != UNKNOWN:
                name = NAMES[detector.status[series]]
                found.setdefault(series, []).append((hour + 1, name))
    return found


def score_of(changes: Sequence[tuple[int, str]], truth: Truth, counts: "Counts") -> Score:
    """Compare the changes of a series with what really happened."""
    score = Score()
    left = list(changes)
    events = sorted((hour_of(label.t), label.to) for label in truth.events)
    inside_before = ENOUGH
    for (start, state), following in itertools.zip_longest(events, events[1:]):
        end = following[0] if following else None
        inside = counts.between(start, end)
        # Nobody can find the end of what nobody could find.
        clear = inside >= ENOUGH and (inside_before >= ENOUGH or state == "BLOCKED")
        inside_before = inside
        latest = start + LATEST if end is None else min(start + LATEST, end - 1)
        hit = next((each for each in left if each[1] == state and start <= each[0] <= latest), None)
        score.clear += clear
        if hit is None:
            score.missed += 1
            continue
        left.remove(hit)
        score.found += 1
        score.clear_found += clear
        score.delays.append(hit[0] - start)
    score.false = len(left)
    return score


@dataclass(frozen=True)
class Counts:
    """The hours of one series that have measurements, and how many these are."""

    hour: Indices
    measurements: Indices

    def between(self, start: int, end: int | None) -> int:
        """Return the measurements from an hour on, up to another one."""
        within = self.hour >= start
        if end is not None:
            within &= self.hour < end
        return int(self.measurements[within].sum())


def evaluate(
    detector: Follower, observations: Observations, truths: Mapping[str, Truth]
) -> dict[str, Any]:
    """Return the figures of a detector (see Score.figures) for all series, by_scenario and by_rate.

    The events of a series that has no measurements are missed, as all others that nobody could
    find; but it was not observed, so no week of it counts.

    Args:
        detector: it has not seen anything yet.
        observations: what it follows.
        truths: what is known of each series.

    Raises:
        DataRefused: nothing is known of a series.
    """
    unknown = [name for name in observations.series if name not in truths]
    if unknown:
        more = f" and {len(unknown) - 1} more" if unknown[1:] else ""
        raise DataRefused(f"no labels of the series {unknown[0]!r}{more}: expected some of each")
    changes = changes_of(detector, observations)
    counts = counts_of(observations)
    numbers = {name: number for number, name in enumerate(observations.series)}
    total = Score()
    by_scenario: dict[str, Score] = defaultdict(Score)
    by_rate: dict[float, Score] = defaultdict(Score)
    for name, truth in truths.items():
        number = numbers.get(name)
        if number is None:
            score = score_of((), truth, NONE)
        else:
            score = score_of(changes.get(number, ()), truth, counts[number])
            score.weeks = observations.weeks
        for each in (total, by_scenario[truth.scenario], by_rate[truth.rate_per_h]):
            each.add(score)
    return {
        **total.figures(),
        "by_scenario": {name: score.figures() for name, score in sorted(by_scenario.items())},
        "by_rate": {f"{rate:g}": score.figures() for rate, score in sorted(by_rate.items())},
    }


NOTHING = np.array([], dtype=np.int64)
NONE = Counts(NOTHING, NOTHING)


def counts_of(observations: Observations) -> list["Counts"]:
    """Return the measurements of each series."""
    order = np.argsort(observations.index, kind="stable")
    bounds = np.searchsorted(observations.index[order], np.arange(len(observations.series) + 1))
    hour, measurements = observations.hour[order], observations.measurements[order]
    return [
        Counts(hour[start:end], measurements[start:end])
        for start, end in itertools.pairwise(bounds.tolist())
    ]
