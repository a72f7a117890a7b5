"""How good the detector is on labelled observations, beside two others: `detector evaluate`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.baselines import Cusum, WeightedMean
from evaluation.evaluate import ENOUGH, Follower, evaluate, read_labels
from evaluation.observations import read_observations
from sequential import Detector

DETECTORS: dict[str, Callable[[int], Follower]] = {
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


def evaluate_files(observations: Path, labels: Path) -> dict[str, dict[str, Any]]:
    """Return the figures of each detector, by its name; see evaluation.evaluate.

    Raises:
        DataRefused: a file is not what it should be; file, line, reason, and what is expected.
    """
    truths = read_labels(labels)
    counts = read_observations(observations)
    return {
        name: evaluate(detector(len(counts.series)), counts, truths)
        for name, detector in DETECTORS.items()
    }


def shown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures as tables for people, at most 80 columns wide."""
    lines = [" " * 38 + "".join(f"{name:>14}" for name in results)]
    for key, (what, form) in FIGURES.items():
        values = "".join(f"{_value(figures[key], form):>14}" for figures in results.values())
        lines.append(f"{what:38}{values}")
    lines += ["", *_by_scenario(results, ["sequential", "cusum"])]
    lines += [
        "",
        f"Clear events: with {ENOUGH} measurements or more until the next one; the end of a",
        "block is one only if its beginning is. Delays are those of the events found.",
    ]
    return "\n".join(lines)


def _by_scenario(results: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Return a table of the detectors side by side, a line for each scenario."""
    width = 7 * len(SHORT)
    lines = [
        " " * NAME + "".join(f"{name:>{width}}" for name in names),
        " " * NAME + "".join(f"{what:>7}" for _ in names for what, _ in SHORT.values()),
    ]
    for scenario in results[names[0]]["by_scenario"]:
        figures = [results[name]["by_scenario"][scenario] for name in names]
        values = (_value(each[key], form) for each in figures for key, (_, form) in SHORT.items())
        shown = "".join(letter if letter.isprintable() else "?" for letter in scenario)
        lines.append(f"{shown[: NAME - 1]:{NAME}}" + "".join(f"{value:>7}" for value in values))
    return lines


def _value(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
