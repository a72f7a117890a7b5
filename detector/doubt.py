"""What is in doubt now: where the last hours say something that is not believed.

A service or a country is where most of what was measured lately was left out: these runs find
anomalies in everything, or the same input fails in several countries.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from contextual import LATELY, ContextDetector
from series import InDoubt, Series, Target, time_of

# At least so many countries in which a service fails, and half of the measured ones; or in which
# something begins at once.
COUNTRIES = 4
NETWORKS = 3  # that fail in a country, at least, and half of the measured ones
HELD = 24  # hours after which a series that is not measured is not held any more


def in_doubt(
    series: Sequence[Series], services: Mapping[Target, str], detector: ContextDetector, until: int
) -> InDoubt:
    """Return what is in doubt at the end of an hour.

    Args:
        series: in the order of the detector's.
        services: test and input → the name of the service; other ones are left out.
        detector: knows these series.
        until: the hour after the last one.
    """
    used, test = slice(len(series)), detector.test
    left_out = detector.left_out_since(until)[used].tolist()
    countries, networks = _Spread(COUNTRIES), _Spread(NETWORKS)
    for number in np.flatnonzero(test.last[used] >= until - LATELY).tolist():
        of = series[number]
        if service := services.get(of.target):
            countries.add(service, of.probe_cc, left_out[number])
            networks.add(of.probe_cc, of.probe_asn, left_out[number])
    held = test.held_since[(test.held_since >= 0) & (test.last >= until - HELD)]
    return InDoubt(
        failing=tuple((name, time_of(since)) for name, since in countries.doubtful()),
        countries=tuple((name, time_of(since)) for name, since in networks.doubtful()),
        held=tuple(time_of(hour) for hour in sorted(held.tolist())),
    )


class _Spread:
    """How many places of a thing are in doubt: countries of a service, networks of a country."""

    def __init__(self, least: int) -> None:
        self._least = least
        self._measured: dict[str, set[str | int]] = defaultdict(set)
        self._doubtful: dict[str, set[str | int]] = defaultdict(set)
        self._since: dict[str, list[int]] = defaultdict(list)

    def add(self, name: str, place: str | int, since: int) -> None:
        """Add a series that is measured, and since when it is in doubt; below zero: it is not."""
        self._measured[name].add(place)
        if since >= 0:
            self._doubtful[name].add(place)
            self._since[name].append(since)

    def doubtful(self) -> list[tuple[str, int]]:
        """Return what is in doubt in most of its places, and since when in half of them."""
        return [
            (name, sorted(self._since[name])[(len(self._since[name]) - 1) // 2])
            for name, places in sorted(self._doubtful.items())
            if len(places) >= self._least and 2 * len(places) >= len(self._measured[name])
        ]
