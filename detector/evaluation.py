"""How good a detector is on labelled observations: what it finds, how soon, what it gets wrong.

An event counts as found when a change to its state is detected at or after it, and before the next
event of the series, at most 20 days later. Every other change is false. The first state that a
series gets is no change. The time of a detection is the end of the hour whose data caused it.
"""

import csv
import gzip
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from ooni_common.errors import DataRefused
from sequential import NAMES, UNKNOWN, Indices

HOUR = timedelta(hours=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = 20 * 24  # hours after an event in which it can be found
COLUMNS = ["series", "t", "cnt", "anomaly_cnt"]
ENOUGH = 10  # measurements inside an event that anybody could find
WEEK = 7 * 24  # hours


class Label(msgspec.Struct, frozen=True):
    """A change that really happened: the hour in which it did, UTC, and the state since then."""

    t: datetime
    to: Literal["OK", "BLOCKED"]


class Truth(msgspec.Struct, frozen=True):
    """What is known of a series: how it was made, its measurements per hour, its changes."""

    scenario: str
    rate_per_h: float
    events: tuple[Label, ...]


@dataclass(frozen=True)
class Observations:
    """Hourly counts of many series, sorted by hour.

    Attributes:
        series: their names.
        hour: of each count, in hours since 1970.
        index: its series.
        measurements: how many.
        anomalies: how many of them.
    """

    series: Sequence[str]
    hour: Indices
    index: Indices
    measurements: Indices
    anomalies: Indices

    @property
    def weeks(self) -> float:
        """For how long all series together were observed, in weeks."""
        if not len(self.hour):
            return 0.0
        hours = int(self.hour[-1] - self.hour[0]) + 1
        return hours * len(self.series) / WEEK


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
    """

    found: int = 0
    false: int = 0
    missed: int = 0
    delays: list[int] = field(default_factory=list)
    clear: int = 0
    clear_found: int = 0

    def add(self, other: "Score") -> None:
        """Add what was found in another series."""
        self.found += other.found
        self.false += other.false
        self.missed += other.missed
        self.delays += other.delays
        self.clear += other.clear
        self.clear_found += other.clear_found

    def figures(self, weeks: float) -> dict[str, float | int | None]:
        """Return what is reported; None where there is nothing to tell from."""

        def share(part: int, whole: int) -> float | None:
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
            "false_per_1000_series_weeks": 1000 * self.false / weeks if weeks else None,
        }


def read_observations(path: Path) -> Observations:
    """Read a CSV file, compressed or not: series, t, cnt, anomaly_cnt, and more if you like.

    Raises:
        DataRefused: it is no such file; file, line and reason.
    """
    names: dict[str, int] = {}
    rows: list[tuple[int, int, int, int]] = []
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            if next(reader, [])[: len(COLUMNS)] != COLUMNS:
                raise DataRefused(f"{path}:1: expected the columns {','.join(COLUMNS)}")
            for row in reader:
                try:
                    rows.append(_counts(row, names))
                except (ValueError, IndexError) as error:
                    raise DataRefused(f"{path}:{reader.line_num}: {error}") from None
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DataRefused(f"{path}: {error}") from None
    table = np.array(sorted(rows), dtype=np.int64).reshape(-1, 4)
    again = (table[1:, :2] == table[:-1, :2]).all(axis=1)
    if again.any():
        hour, index = table[1:][again][0][:2]
        raise DataRefused(f"{path}: two rows of {list(names)[index]!r} for {EPOCH + hour * HOUR}")
    return Observations(list(names), *table.T)


def _counts(row: Sequence[str], names: dict[str, int]) -> tuple[int, int, int, int]:
    """Return hour, series, measurements and anomalies of a row."""
    time = datetime.fromisoformat(row[1])
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    hour, rest = divmod(time - EPOCH, HOUR)
    measurements, anomalies = int(row[2]), int(row[3])
    if rest:
        raise ValueError(f"{row[1]} is no full hour")
    if not 0 <= anomalies <= measurements or not measurements:
        raise ValueError(f"{anomalies} anomalies of {measurements} measurements")
    return hour, names.setdefault(row[0], len(names)), measurements, anomalies


def read_labels(path: Path) -> dict[str, Truth]:
    """Read what is known of each series, from JSON.

    Raises:
        DataRefused: it is no such file.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Truth])
    except (OSError, msgspec.DecodeError) as error:
        raise DataRefused(f"{path}: {error}") from None


def changes_of(detector: Follower, observations: Observations) -> dict[int, list[tuple[int, str]]]:
    """Let a detector follow observations; return the changes of each series that has any.

    A change is the end of the hour that caused it, in hours since 1970, and the state since then.
    """
    found: dict[int, list[tuple[int, str]]] = {}
    for hour, part in hours_of(observations):
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


def hours_of(observations: Observations) -> Iterator[tuple[int, slice]]:
    """Yield each hour that has counts, and where they are."""
    hours, starts = np.unique(observations.hour, return_index=True)
    ends = [*starts[1:].tolist(), len(observations.hour)]
    for hour, start, end in zip(hours.tolist(), starts.tolist(), ends, strict=True):
        yield hour, slice(start, end)


def score_of(changes: Sequence[tuple[int, str]], truth: Truth, counts: "Counts") -> Score:
    """Compare the changes of a series with what really happened."""
    score = Score()
    left = list(changes)
    events = [(hour_of(label.t), label.to) for label in truth.events]
    inside_before = ENOUGH
    for (start, state), following in itertools.zip_longest(events, events[1:]):
        end = following[0] if following else None
        inside = counts.between(start, end)
        # Nobody can find the end of what nobody could find.
        clear = inside >= ENOUGH and (inside_before >= ENOUGH or state == "BLOCKED")
        inside_before = inside
        latest = min(start + LATEST, end if end is not None else start + LATEST)
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


def hour_of(time: datetime) -> int:
    """Return a time, UTC unless it says otherwise, in hours since 1970."""
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - EPOCH) // HOUR


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
    detectors: Mapping[str, Follower], observations: Observations, truths: Mapping[str, Truth]
) -> dict[str, dict[str, object]]:
    """Return the figures of each detector: of all series, and by scenario and rate.

    Args:
        detectors: by name; none has seen anything yet.
        observations: what they follow.
        truths: what is known of each series.

    Raises:
        DataRefused: nothing is known of a series.
    """
    unknown = [name for name in observations.series if name not in truths]
    if unknown:
        raise DataRefused(f"no labels of the series {unknown[0]!r}, and {len(unknown) - 1} more")
    order = np.argsort(observations.index, kind="stable")
    bounds = np.searchsorted(observations.index[order], np.arange(len(observations.series) + 1))
    counts = [
        Counts(observations.hour[order[start:end]], observations.measurements[order[start:end]])
        for start, end in itertools.pairwise(bounds.tolist())
    ]
    results: dict[str, dict[str, object]] = {}
    for name, detector in detectors.items():
        changes = changes_of(detector, observations)
        scores = [
            (truths[series], score_of(changes.get(number, ()), truths[series], counts[number]))
            for number, series in enumerate(observations.series)
        ]
        weeks = observations.weeks / max(1, len(scores))
        results[name] = {
            **_sum([score for _, score in scores], weeks),
            "by_scenario": _by([(truth.scenario, score) for truth, score in scores], weeks),
            "by_rate": _by([(f"{truth.rate_per_h:g}", score) for truth, score in scores], weeks),
        }
    return results


def _by(
    scores: Iterable[tuple[str, Score]], weeks: float
) -> dict[str, dict[str, float | int | None]]:
    groups: dict[str, list[Score]] = {}
    for name, score in scores:
        groups.setdefault(name, []).append(score)
    return {name: _sum(group, weeks) for name, group in sorted(groups.items())}


def _sum(scores: Sequence[Score], weeks: float) -> dict[str, float | int | None]:
    total = Score()
    for score in scores:
        total.add(score)
    return total.figures(weeks * len(scores))
