"""The detectors that are evaluated, each fed with what it knows of: counts, or context, too."""

from collections.abc import Hashable, Iterator
from typing import Protocol

import numpy as np

from contextual import ContextDetector
from control import MOST_COUNTRIES, UNKNOWN_SOURCE, OtherRows, RunRows, network_key
from evaluation.observations import Observations, Others
from hours import Indices, States
from ooni_common.errors import DataRefused
from pooling import Grouping, Groups
from sequential import ALONE, Detector
from series import STATE_NAMES, UNKNOWN

Change = tuple[int, str]  # the end of the hour that caused it, and the state since then
Changes = dict[int, list[Change]]


class Candidate(Protocol):
    """A detector that is evaluated on counts alone."""

    status: States

    def advance(
        self, hour: int, index: Indices, measurements: Indices, anomalies: Indices
    ) -> tuple[Indices, States]:
        """Take the counts of one hour; return the changed series and their states before."""


def changes_of(detector: Candidate, observations: Observations) -> Changes:
    """Let a detector follow summed observations; return the changes of each series that has any."""
    changes: Changes = {}
    for hour, part in observations.hours():
        changed, old = detector.advance(
            hour,
            observations.index[part],
            observations.measurements[part],
            observations.anomalies[part],
        )
        _note(changes, hour, changed[old != UNKNOWN], detector.status)
    return changes


def our_changes(observations: Observations, others: Others | None) -> Changes:
    """Let the detector follow observations with their context, or without where there is none.

    Args:
        observations: with a row for each bucket and source, if the file tells.
        others: the inputs that nobody follows, if there are any.
    """
    if observations.runs is None or any(not d.probe_cc for d in observations.details):
        return changes_of(Detector(len(observations.series), ALONE), observations.summed())
    places = _Places()
    networks, groups = _placed(observations, places)
    others_at = np.array(
        [places.network(*network) for network in (others.networks if others else ())], np.int64
    )
    detector = ContextDetector(len(observations.series), places.world_of)
    changes: Changes = {}
    hours = [hour for hour, _ in observations.hours()]
    rows = zip(observations.hours(), _others(others, others_at, hours), strict=True)
    for (hour, part), beside in rows:
        runs = _runs(observations, networks, part)
        changed, old, news = detector.advance(hour, runs, beside, groups)
        _note(changes, hour, np.union1d(changed[old != UNKNOWN], news), detector.status)
    return changes


class _Places:
    """Numbers countries and worlds, as simulations have several of the same name."""

    def __init__(self) -> None:
        self.world_of: Indices = np.zeros(MOST_COUNTRIES, dtype=np.int64)
        self._countries: dict[Hashable, int] = {}
        self._worlds: dict[Hashable, int] = {}

    def network(self, world: str, code: str, asn: str) -> int:
        """Return the key of a network."""
        country = self._countries.setdefault((world, code), len(self._countries))
        if country >= MOST_COUNTRIES or not asn.isdecimal() or int(asn) >= 2**31:
            raise DataRefused(f"AS{asn} of {code}: more than {MOST_COUNTRIES} countries, or no ASN")
        self.world_of[country] = self._worlds.setdefault(world, len(self._worlds))
        return int(network_key(country, int(asn)))


def _placed(observations: Observations, places: _Places) -> tuple[Indices, Groups]:
    """Return the keys of the networks of series, and their groups."""
    grouping = Grouping()
    keys = []
    for details in observations.details:
        keys.append(places.network(details.world, details.probe_cc, details.probe_asn))
        network = (details.probe_cc, details.probe_asn)
        grouping.add(details.world, network, (details.service, details.input), details.service)
    return np.array(keys, dtype=np.int64), grouping.groups()


def _runs(observations: Observations, networks: Indices, part: slice) -> RunRows:
    index = observations.index[part]
    nothing = np.zeros(len(index), dtype=np.int64)
    columns = (observations.source, observations.control, observations.runs, observations.bad_runs)
    source, control, runs, bad = (nothing if c is None else c[part] for c in columns)
    return RunRows(index, networks[index], source, control, runs.astype(float), bad.astype(float))


def _others(others: Others | None, keys: Indices, hours: list[int]) -> Iterator[OtherRows]:
    """Yield the others of some hours."""
    if others is None:
        no_places, nothing = np.array([], dtype=np.int64), np.array([])
        yield from (OtherRows(no_places, no_places, nothing, nothing) for _ in hours)
        return
    source = np.full(len(others.hour), UNKNOWN_SOURCE) if others.source is None else others.source
    for part in others.hours(hours):
        measurements = others.measurements[part].astype(np.float64)
        anomalies = others.anomalies[part].astype(np.float64)
        yield OtherRows(keys[others.index[part]], source[part], measurements, anomalies)


def _note(changes: Changes, hour: int, changed: Indices, status: States) -> None:
    for series in changed.tolist():
        changes.setdefault(series, []).append((hour + 1, STATE_NAMES[status[series]]))
