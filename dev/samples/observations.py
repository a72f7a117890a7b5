"""Labelled observations for detector/evaluation/: hourly counts, and what really happened.

    python -m dev.samples.observations FOLDER --seeds 1 2 --series 60

writes FOLDER/observations.csv.gz and FOLDER/labels.json, with so many series of each scenario for
each seed. What is in them is known by construction: each series follows one scenario for 60 days,
at one of several rates, with a share of anomalies of its own while nothing is blocked.
"""

import argparse
import csv
import gzip
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

START = datetime(2025, 1, 1, tzinfo=UTC)
HOURS = 60 * 24
RATES = (0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 8.0, 20.0)  # measurements per hour
NETWORKS = 30  # of a national blocking


@dataclass
class Series:
    """What one series is made of, hour by hour.

    Attributes:
        rate: measurements that are expected.
        share: of anomalies among them.
        more: anomalous measurements on top.
        events: the hour of each change, and the state since then.
        usual: the share while nothing is blocked.
        blocked: the share while all is.
    """

    rate: NDArray[np.float64]
    share: NDArray[np.float64]
    usual: float
    blocked: float
    more: NDArray[np.int64] = field(default_factory=lambda: np.zeros(HOURS, dtype=np.int64))
    events: list[tuple[int, str]] = field(default_factory=list)

    def block(self, start: int, end: int, share: float) -> None:
        """Block from one hour up to another one."""
        self.share[start:end] = share
        self.events.append((start, "BLOCKED"))
        if end < HOURS:
            self.events.append((end, "OK"))


Scenario = Callable[[Series, int, np.random.Generator], None]


def _quiet(_series: Series, _hour: int, _random: np.random.Generator) -> None:
    pass


def _blocked_for(hours: int) -> Scenario:
    def scenario(series: Series, hour: int, _random: np.random.Generator) -> None:
        series.block(hour, min(hour + hours, HOURS), series.blocked)

    return scenario


def _partly(series: Series, hour: int, random: np.random.Generator) -> None:
    end = hour + 240 if random.random() < 0.5 else HOURS
    series.block(hour, end, random.uniform(0.4, 0.6))


def _slowly(series: Series, hour: int, random: np.random.Generator) -> None:
    """Block more and more, over two to five days."""
    end = hour + int(random.integers(48, 120))
    series.block(hour, HOURS, series.blocked)
    series.share[hour:end] = np.linspace(series.usual, series.blocked, end - hour)


def _unblocked(series: Series, hour: int, _random: np.random.Generator) -> None:
    series.share[:hour] = series.blocked
    series.events.append((hour, "OK"))


def _outage(series: Series, hour: int, _random: np.random.Generator) -> None:
    series.share[hour : hour + 3] = 1.0


def _silent(*, other_state: bool) -> Scenario:
    """Have no measurements for three to ten days, and then be as before or not."""

    def scenario(series: Series, hour: int, random: np.random.Generator) -> None:
        end = hour + int(random.integers(72, 240))
        series.rate[hour:end] = 0.0
        states = [("BLOCKED", series.blocked), ("OK", series.usual)]
        if random.random() < 0.5:
            states.reverse()
        series.share[:] = states[0][1]
        if other_state:
            series.share[end:] = states[1][1]
            series.events.append((end, states[1][0]))

    return scenario


def _more_volume(series: Series, hour: int, _random: np.random.Generator) -> None:
    series.rate[hour:] *= 20


def _one_probe(series: Series, hour: int, _random: np.random.Generator) -> None:
    """Have one probe that repeats a failing measurement."""
    series.more[hour] = 500


def _day_and_night(series: Series, _hour: int, _random: np.random.Generator) -> None:
    swing = 1 + 0.9 * np.sin(2 * np.pi * np.arange(HOURS) / 24)
    series.share[:] = min(series.usual, 0.13) * swing


def _shifted(series: Series, hour: int, _random: np.random.Generator) -> None:
    """Have more anomalies for good, and yet not be blocked."""
    series.share[:hour], series.share[hour:] = 0.03, 0.15


SCENARIOS: dict[str, Scenario] = {
    "quiet": _quiet,
    "permanent blocking": _blocked_for(HOURS),
    "blocking of 10 days": _blocked_for(240),
    "blocking of 2 days": _blocked_for(48),
    "blocking of 12 hours": _blocked_for(12),
    "partial blocking": _partly,
    "slow onset": _slowly,
    "unblocking": _unblocked,
    "outage of 3 hours": _outage,
    "gap, then the same": _silent(other_state=False),
    "gap, then the other state": _silent(other_state=True),
    "volume x 20": _more_volume,
    "one probe, 500 times": _one_probe,
    "noise by day and night": _day_and_night,
    "share shifts": _shifted,
    "national blocking": _blocked_for(HOURS),
}


@dataclass(frozen=True)
class Sample:
    """A series: its name, how it was made, and its counts, hour by hour."""

    name: str
    scenario: str
    rate: float
    measurements: NDArray[np.int64]
    anomalies: NDArray[np.int64]
    events: Sequence[tuple[int, str]]


def samples(seed: int, series: int) -> Iterator[Sample]:
    """Yield so many series of each scenario; the same ones for the same seed."""
    random = np.random.default_rng(seed)
    for scenario, follow in SCENARIOS.items():
        hour = 0
        for number in range(series):
            national = scenario == "national blocking" and number % NETWORKS
            if not national:  # all networks of a country are blocked at once
                hour = int(random.integers(20 * 24, 30 * 24))
            rate = float(random.choice(RATES))
            made = _usual(rate, random)
            follow(made, hour, random)
            measurements = random.poisson(made.rate) + made.more
            anomalies = random.binomial(measurements - made.more, made.share) + made.more
            name = f"{scenario} {seed}-{number}"
            yield Sample(name, scenario, rate, measurements, anomalies, made.events)


def _usual(rate: float, random: np.random.Generator) -> Series:
    """Return a series that is never blocked, with more measurements by day than by night.

    Its share of anomalies is mostly a few per cent, as in reality, and up to 25 %.
    """
    usual = float(np.clip(np.exp(random.normal(np.log(0.035), 0.8)), 0.01, 0.25))
    hours = np.arange(HOURS) + random.integers(24)
    return Series(
        rate=rate * (1 + 0.7 * np.sin(2 * np.pi * hours / 24)),
        share=np.full(HOURS, usual),
        usual=usual,
        blocked=float(random.uniform(0.9, 1.0)),
    )


def write(folder: Path, seeds: Iterable[int], series: int) -> None:
    """Write observations and labels of so many series of each scenario, for each seed."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = {}
    with (
        gzip.open(folder / "observations.csv.gz", "wt", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["series", "t", "cnt", "anomaly_cnt"])
        for sample in itertools.chain.from_iterable(samples(seed, series) for seed in seeds):
            labels[sample.name] = {
                "scenario": sample.scenario,
                "rate_per_h": sample.rate,
                "events": [{"t": _time(hour), "to": state} for hour, state in sample.events],
            }
            for hour in np.flatnonzero(sample.measurements).tolist():
                counts = (sample.measurements[hour], sample.anomalies[hour])
                writer.writerow([sample.name, _time(hour), *counts])
    (folder / "labels.json").write_text(json.dumps(labels, indent=1))


def _time(hour: int) -> str:
    return f"{START + timedelta(hours=hour):%Y-%m-%dT%H:%M:%S}"


def main() -> int:
    """Write the files that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], metavar="N")
    parser.add_argument("--series", type=int, default=60, metavar="N", help="of each scenario")
    arguments = parser.parse_args()
    write(arguments.folder, arguments.seeds, arguments.series)
    return 0


if __name__ == "__main__":
    sys.exit(main())
