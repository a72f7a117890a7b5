"""`detector evaluate`: how good the detector is on labelled observations, beside two others.

An event counts as found when a change to its state is detected at or after it, and before the next
event of the series, at most 20 days later. Every other change is false. The first state that a
series gets is no change. The time of a detection is the end of the hour whose data caused it.
"""

import argparse
import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from evaluation.baselines import Cusum, WeightedMean
from evaluation.observations import Observations, read_observations
from ooni_common.errors import DataRefused, UsageError
from ooni_common.output import show
from sequential import Detector, Indices
from series import STATE_NAMES, UNKNOWN, hour_of

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


class Candidate(Protocol):
    """A detector that is evaluated."""

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

    def add(self, score: "Score") -> None:
        """Add what was found in another series."""
        self.found += score.found
        self.false += score.false
        self.missed += score.missed
        self.delays += score.delays
        self.clear += score.clear
        self.clear_found += score.clear_found
        self.weeks += score.weeks

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


@dataclass(frozen=True)
class Coverage:
    """The hours of one series that have measurements, and how many these are."""

    hour: Indices
    measurements: Indices

    def between(self, start: int, end: int | None) -> int:
        """Return the measurements from an hour on, up to another one."""
        within = self.hour >= start
        if end is not None:
            within &= self.hour < end
        return int(self.measurements[within].sum())


NOT_MEASURED = Coverage(np.array([], dtype=np.int64), np.array([], dtype=np.int64))
DETECTORS: dict[str, Callable[[int], Candidate]] = {
    "sequential": Detector,
    "cusum": Cusum,
    "weighted_mean": WeightedMean,
}
FIGURES = {
    "tp": ("events found", "d"),
    "fn": ("events missed", "d"),
    "fp": ("false changes", "d"),
    "precision": ("precision", ".3f"),
    "recall": ("recall", ".3f"),
    "recall_of_clear_events": ("recall of clear events", ".3f"),
    "median_delay_h": ("median delay, hours", ".1f"),
    "p90_delay_h": ("9 of 10 delays are at most, hours", ".1f"),
    "false_per_1000_series_weeks": ("false changes per 1,000 series-weeks", ".2f"),
}
SHORT = {  # of a scenario
    "recall": ("recall", ".3f"),
    "median_delay_h": ("median", ".1f"),
    "p90_delay_h": ("p90", ".1f"),
    "fp": ("false", "d"),
}
NAME = 24  # letters of a scenario's name that are shown


def declare_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `evaluate` is told."""
    parser.add_argument(
        "--observations",
        type=Path,
        required=True,
        metavar="FILE",
        help="CSV: series,t,cnt,anomaly_cnt; may be compressed with gzip",
    )
    parser.add_argument(
        "--labels", type=Path, required=True, metavar="FILE", help="JSON: what really happened"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def evaluate(arguments: argparse.Namespace) -> None:
    """Print how good the detector is, beside two others.

    Raises:
        UsageError: a file can't be opened.
        DataRefused: one is not what it should be.
    """
    for option in ("observations", "labels"):
        path = getattr(arguments, option)
        try:
            path.open("rb").close()
        except OSError as error:
            raise UsageError(f"--{option} {path}: {error.strerror}") from None
    results = evaluate_files(arguments.observations, arguments.labels)
    show(json.dumps(results, indent=2) if arguments.json else shown(results))


def evaluate_files(observations_file: Path, labels_file: Path) -> dict[str, dict[str, Any]]:
    """Return the figures of each detector, by its name; see figures_of.

    Raises:
        DataRefused: a file is not what it should be; file, line, reason, and what is expected.
    """
    truths = read_labels(labels_file)
    observations = read_observations(observations_file)
    return {
        name: figures_of(detector(len(observations.series)), observations, truths)
        for name, detector in DETECTORS.items()
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


def figures_of(
    detector: Candidate, observations: Observations, truths: Mapping[str, Truth]
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
    coverage = coverage_of(observations)
    numbers = {name: number for number, name in enumerate(observations.series)}
    total = Score()
    by_scenario: dict[str, Score] = defaultdict(Score)
    by_rate: dict[float, Score] = defaultdict(Score)
    for name, truth in truths.items():
        number = numbers.get(name)
        if number is None:
            score = score_of((), truth, NOT_MEASURED)
        else:
            score = score_of(changes.get(number, ()), truth, coverage[number])
            score.weeks = observations.weeks
        for whole in (total, by_scenario[truth.scenario], by_rate[truth.rate_per_h]):
            whole.add(score)
    return {
        **total.figures(),
        "by_scenario": {name: score.figures() for name, score in sorted(by_scenario.items())},
        "by_rate": {f"{rate:g}": score.figures() for rate, score in sorted(by_rate.items())},
    }


def changes_of(detector: Candidate, observations: Observations) -> dict[int, list[tuple[int, str]]]:
    """Let a detector follow observations; return the changes of each series that has any.

    A change is the end of the hour that caused it, in hours since 1970, and the state since then.
    """
    changes: dict[int, list[tuple[int, str]]] = {}
    for hour, part in observations.hours():
        changed, old = detector.advance(
            hour,
            observations.index[part],
            observations.measurements[part],
            observations.anomalies[part],
        )
        for series, state in zip(changed.tolist(), old.tolist(), strict=True):
            if state != UNKNOWN:
                name = STATE_NAMES[detector.status[series]]
                changes.setdefault(series, []).append((hour + 1, name))
    return changes


def coverage_of(observations: Observations) -> list[Coverage]:
    """Return the coverage of each series, in their order."""
    order = np.argsort(observations.index, kind="stable")
    bounds = np.searchsorted(observations.index[order], np.arange(len(observations.series) + 1))
    hour, measurements = observations.hour[order], observations.measurements[order]
    return [
        Coverage(hour[start:end], measurements[start:end])
        for start, end in itertools.pairwise(bounds.tolist())
    ]


def score_of(changes: Sequence[tuple[int, str]], truth: Truth, coverage: Coverage) -> Score:
    """Compare the changes of a series with what really happened."""
    score = Score()
    left = list(changes)
    events = sorted((hour_of(label.t), label.to) for label in truth.events)
    inside_before = ENOUGH
    for (start, state), following in itertools.zip_longest(events, events[1:]):
        end = following[0] if following else None
        inside = coverage.between(start, end)
        # Nobody can find the end of what nobody could find.
        clear = inside >= ENOUGH and (inside_before >= ENOUGH or state == "BLOCKED")
        inside_before = inside
        latest = start + LATEST if end is None else min(start + LATEST, end - 1)
        hit = next((time for time, to in left if to == state and start <= time <= latest), None)
        score.clear += clear
        if hit is None:
            score.missed += 1
            continue
        left.remove((hit, state))
        score.found += 1
        score.clear_found += clear
        score.delays.append(hit - start)
    score.false = len(left)
    return score


def shown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures as tables for people, at most 80 columns wide."""
    lines = [" " * 38 + "".join(f"{name:>14}" for name in results)]
    for key, (title, form) in FIGURES.items():
        values = "".join(f"{_value(figures[key], form):>14}" for figures in results.values())
        lines.append(f"{title:38}{values}")
    lines += ["", *_by_scenario(results, ["sequential", "cusum"])]
    lines += [
        "",
        f"Clear events: with {ENOUGH} measurements or more until the next one; the end of a",
        "blocking is one only if its beginning is. Delays are those of the events found.",
    ]
    return "\n".join(lines)


def _by_scenario(results: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Return a table of the detectors side by side, a line for each scenario."""
    width = 7 * len(SHORT)
    lines = [
        " " * NAME + "".join(f"{name:>{width}}" for name in names),
        " " * NAME + "".join(f"{title:>7}" for _ in names for title, _ in SHORT.values()),
    ]
    for scenario in results[names[0]]["by_scenario"]:
        figures = [results[name]["by_scenario"][scenario] for name in names]
        values = (
            _value(of_one[key], form) for of_one in figures for key, (_, form) in SHORT.items()
        )
        shown = "".join(letter if letter.isprintable() else "?" for letter in scenario)
        lines.append(f"{shown[: NAME - 1]:{NAME}}" + "".join(f"{value:>7}" for value in values))
    return lines


def _value(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
