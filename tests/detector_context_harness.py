"""Hours that are made up for the detector with context, and the changes that it tells of."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from contextual import ContextDetector
from control import OtherRows, RunRows, network_key
from pooling import Grouping
from series import STATE_NAMES, UNKNOWN

WEB, APP = "web", "app"
A, B, C = 11, 12, 13  # kinds of probes
QUIET = 240  # hours in which nothing happens
FINE, ALL_BAD, NO_OTHERS = 1, 4, 0  # buckets


@dataclass(frozen=True)
class Run:
    """Runs of an hour that measure one input in one network."""

    hour: int
    asn: int
    bad: int
    good: int = 0
    source: int = A
    bucket: int = FINE
    country: int = 1
    target: str = WEB


@dataclass(frozen=True)
class Other:
    """What runs of an hour find of other inputs."""

    hour: int
    asn: int
    bad: int
    good: int
    source: int = A
    country: int = 1


def quiet(
    asn: int, *, end: int = QUIET, step: int = 1, start: int = 0, **kinds: object
) -> list[Run]:
    """Return a good run of each hour, or of some."""
    return [Run(hour, asn, 0, 1, **kinds) for hour in range(start, end, step)]  # type: ignore[arg-type]


def bad(asn: int, start: int, end: int, *, step: int = 1, **kinds: object) -> list[Run]:
    """Return a bad run of each hour, or of some."""
    return [Run(hour, asn, 1, **kinds) for hour in range(start, end, step)]  # type: ignore[arg-type]


def others(asn: int, start: int, end: int, *, bad: int, good: int, **kinds: int) -> list[Other]:
    """Return the same of other inputs for each of some hours."""
    return [Other(hour, asn, bad, good, **kinds) for hour in range(start, end)]


class Following:
    """A detector, with the changes that it tells of."""

    def __init__(self, runs: Iterable[Run], beside: Iterable[Other] = ()) -> None:
        self.runs, self.beside = list(runs), list(beside)
        self.series = sorted({(run.country, run.asn, run.target) for run in self.runs})
        grouping = Grouping()
        for country, asn, target in self.series:
            grouping.add(0, (country, asn), target, "service")
        self.groups = grouping.groups()
        self.changes: dict[tuple[int, int, str], list[tuple[int, str]]] = {}

    def follow(self, detector: ContextDetector, start: int, end: int) -> ContextDetector:
        """Let it follow the hours from one up to another one."""
        place = {series: number for number, series in enumerate(self.series)}
        for hour in range(start, end):
            runs = [run for run in self.runs if run.hour == hour]
            beside = [other for other in self.beside if other.hour == hour]
            changed, old, news = detector.advance(
                hour,
                RunRows(
                    whole(place[run.country, run.asn, run.target] for run in runs),
                    whole(int(network_key(run.country, run.asn)) for run in runs),
                    whole(run.source for run in runs),
                    whole(run.bucket for run in runs),
                    whole(run.bad + run.good for run in runs).astype(float),
                    whole(run.bad for run in runs).astype(float),
                ),
                OtherRows(
                    whole(int(network_key(other.country, other.asn)) for other in beside),
                    whole(other.source for other in beside),
                    whole(other.bad + other.good for other in beside).astype(float),
                    whole(other.bad for other in beside).astype(float),
                ),
                self.groups,
            )
            for number in [*changed[old != UNKNOWN].tolist(), *news.tolist()]:
                change = (hour, STATE_NAMES[detector.status[number]])
                self.changes.setdefault(self.series[number], []).append(change)
        return detector


def whole(numbers: Iterable[int]) -> np.ndarray:
    return np.array(list(numbers), dtype=np.int64)


def changes(
    runs: Iterable[Run], beside: Iterable[Other] = (), end: int | None = None
) -> dict[int, list[tuple[int, str]]]:
    """Return the changes of each network, of all its series."""
    following = Following(runs, beside)
    last = max(run.hour for run in following.runs) + 1
    following.follow(ContextDetector(len(following.series)), 0, end or last)
    by_network: dict[int, list[tuple[int, str]]] = {}
    for (_, asn, _), some in following.changes.items():
        by_network.setdefault(asn, []).extend(some)
    return by_network
