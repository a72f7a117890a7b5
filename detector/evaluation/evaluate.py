"""`detector evaluate`: how good the detector is on labelled observations, beside two others.

Files of several seeds are followed one after the other, so that only one is in memory.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from evaluation.baselines import Cusum, WeightedMean
from evaluation.candidates import Candidate, changes_of, our_changes
from evaluation.controls import controlled
from evaluation.figures import figures_of
from evaluation.observations import Observations, read_observations, read_others
from evaluation.outcomes import Outcome, Truth, outcomes_of
from evaluation.tables import CUSUM, OURS, shown
from ooni_common.errors import DataRefused, UsageError
from ooni_common.output import show

BESIDE: dict[str, Callable[[int], Candidate]] = {CUSUM: Cusum, "weighted_mean": WeightedMean}


class Suite(NamedTuple):
    """The files of a simulation: observations, labels, and others, if there are any."""

    observations: Path
    labels: Path
    others: Path | None = None


def declare_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `evaluate` is told."""
    parser.add_argument(
        "--observations",
        type=Path,
        required=True,
        nargs="+",
        metavar="FILE",
        help="CSV: series,t,cnt,anomaly_cnt; may be compressed with gzip; several: one a seed",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        required=True,
        nargs="+",
        metavar="FILE",
        help="JSON: what really happened; as many, in the same order",
    )
    parser.add_argument(
        "--others",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="CSV: the inputs that nobody follows, by network and hour; as many, in the same order",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def evaluate(arguments: argparse.Namespace) -> None:
    """Print how good the detector is, beside two others.

    Raises:
        UsageError: a file can't be opened, or one is missing.
        DataRefused: one is not what it should be.
    """
    results = evaluate_files(suites_of(arguments))
    show(json.dumps(results, indent=2) if arguments.json else shown(results))


def suites_of(arguments: argparse.Namespace) -> list[Suite]:
    """Return the files that the command line names, by seed.

    Raises:
        UsageError: a file can't be opened, or one is missing.
    """
    files: dict[str, list[Path]] = {}
    for option in ("observations", "labels", "others"):
        files[option] = getattr(arguments, option) or []
        for path in files[option]:
            try:
                path.open("rb").close()
            except OSError as error:
                raise UsageError(f"--{option} {path}: {error.strerror}") from None
    count = len(files["observations"])
    for option in ("labels", "others"):
        if len(files[option]) != count and (files[option] or option == "labels"):
            raise UsageError(
                f"{count} {'file' if count == 1 else 'files'} of --observations and"
                f" {len(files[option])} of --{option}: name as many, in the same order"
            )
    return [Suite(*paths) for paths in zip(*filter(None, files.values()), strict=True)]


def evaluate_files(suites: Sequence[Suite]) -> dict[str, dict[str, Any]]:
    """Return the figures of each detector, by its name; see figures_of.

    Raises:
        DataRefused: a file is not what it should be; file, line, reason, and what is expected.
    """
    outcomes: dict[str, list[list[Outcome]]] = {name: [] for name in (OURS, *BESIDE)}
    for number, suite in enumerate(suites):
        truths = read_labels(suite.labels)
        observations = read_observations(suite.observations)
        check_labels(observations, truths, suite.labels)
        others = None if suite.others is None else read_others(suite.others)
        controls = controlled(observations, others)
        changes = {OURS: our_changes(observations, others)}
        observations = observations.summed()
        for name, detector in BESIDE.items():
            changes[name] = changes_of(detector(len(observations.series)), observations)
        for name, of_one in changes.items():
            outcomes[name].append(outcomes_of(of_one, observations, truths, controls, number))
    return {name: figures_of(of_suites) for name, of_suites in outcomes.items()}


def read_labels(path: Path) -> dict[str, Truth]:
    """Read what is known of each series, from JSON.

    Raises:
        DataRefused: it isn't such a file.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Truth])
    except (OSError, msgspec.DecodeError) as error:
        raise DataRefused(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def check_labels(observations: Observations, truths: Mapping[str, Truth], path: Path) -> None:
    """Refuse labels that say nothing of a series."""
    unknown = [name for name in observations.series if name not in truths]
    if unknown:
        more = f" and {len(unknown) - 1} more" if unknown[1:] else ""
        raise DataRefused(
            f"{path}: no labels of the series {unknown[0]!r}{more}: expected some of each"
        )
