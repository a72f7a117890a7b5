"""Control: what runs find of the inputs that nobody follows tells how they fare themselves.

A run whose other inputs fail more than they usually do in its network is broken, or its network is,
or the test helper: what it says of a service does not count. Where a run has no other inputs, those
of its network speak for it, or those of the country. A kind of probe (platform, software, version,
architecture) that finds more anomalies than usual in a network, or all over the world as after a
release, raises by so much what is usual for its runs.

A network's key is that of its country and its ASN, see `network_key`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hours import Arrays, Flags, Floats, Indices, Rows
from keyed import Keyed, exact

ASN_BITS = 31
SOURCE_BITS = 20
UNKNOWN_SOURCE = 0  # of runs whose software the table doesn't tell
MOST_COUNTRIES = 2**12
BUCKET_SHARES: Floats = np.array([0.0, 0.05, 0.2, 0.45, 0.8])  # typical of each bucket


class RunRows(NamedTuple):
    """What the runs of an hour say: a row for each series, source and bucket.

    Attributes:
        series: their numbers.
        network: the keys of theirs.
        source: which kind of probe; UNKNOWN_SOURCE where that is not known.
        bucket: of the share of anomalies among the runs' other inputs; see context.BUCKETS.
        runs: how many.
        bad: how many of them have an anomaly.
    """

    series: Indices
    network: Indices
    source: Indices
    bucket: Indices
    runs: Floats
    bad: Floats


class OtherRows(NamedTuple):
    """Measurements of the inputs that nobody follows in an hour, by network and source."""

    network: Indices
    source: Indices
    measurements: Floats
    anomalies: Floats


@dataclass(frozen=True)
class ControlParameters:
    """What control goes by; chosen on the seeds 11 and 12 of the realism suite.

    Attributes:
        broken: a run is, if so much more of its others are anomalies than usual in its network.
        network_doubt: likewise, of a network in an hour and the one before.
        country_doubt: likewise, of a country.
        network_least: measurements of others without which a network tells nothing.
        country_least: likewise, a country.
        usual_half_life: hours in which half of what is usual is forgotten.
        network_most: measurements of others that count in an hour for what is usual in a network.
        country_most: likewise, in a country.
        prior: anomalies and measurements, as if seen before the first ones.
        country_weight: measurements, as if seen in a network with the share of its country.
        source_half_life: hours in which half of what a source found in a network is forgotten.
        source_least: measurements without which it tells nothing of its own.
        source_weight: measurements, as if seen with the share that is expected.
        drift_half_life: hours, likewise for a source all over the world.
        drift_most: measurements of a network that count for it, in an hour.
        drift_weight: measurements, as if seen as usual.
        doubtful: from this excess on, nothing counts.
    """

    broken: float = 0.35
    network_doubt: float = 0.35
    country_doubt: float = 0.3
    network_least: float = 3.0
    country_least: float = 5.0
    usual_half_life: float = 672.0
    network_most: float = 10.0
    country_most: float = 20.0
    prior: tuple[float, float] = (2.0, 20.0)
    country_weight: float = 20.0
    source_half_life: float = 36.0
    source_least: float = 4.0
    source_weight: float = 4.0
    drift_half_life: float = 48.0
    drift_most: float = 5.0
    drift_weight: float = 30.0
    doubtful: float = 0.5


class Level:
    """The others of networks, or of countries: what is usual, and this hour with the one before."""

    def __init__(self, prior: tuple[float, float], half_life: float, most: float) -> None:
        self.table = Keyed("anomalies", "total", "since", "n0", "a0", "h0", "n1", "a1", "h1")
        self._prior = prior
        self._half_life = half_life
        self._most = most

    def usual(self, hour: int, keys: Indices) -> tuple[Floats, Floats]:
        """Return anomalies and measurements, as far as they are remembered, with the prior."""
        anomalies, total, since = self.table.read(keys, "anomalies", "total", "since")
        kept = np.exp2((since - hour) / self._half_life)
        return anomalies * kept + self._prior[0], total * kept + self._prior[1]

    def add(self, hour: int, keys: Indices, counts: tuple[Floats, Floats]) -> None:
        """Add the measurements and anomalies of an hour; a key may come several times."""
        unique, at = np.unique(keys, return_inverse=True)
        measurements, anomalies = (np.bincount(at, array, len(unique)) for array in counts)
        places = self.table.places(unique)
        columns, slot = self.table.columns, hour % 2
        kept = np.exp2((columns["since"][places] - hour) / self._half_life)
        weight = np.minimum(1.0, self._most / measurements)
        columns["anomalies"][places] = columns["anomalies"][places] * kept + weight * anomalies
        columns["total"][places] = columns["total"][places] * kept + weight * measurements
        columns["since"][places] = hour
        columns[f"n{slot}"][places], columns[f"a{slot}"][places] = measurements, anomalies
        columns[f"h{slot}"][places] = hour

    def lately(self, hour: int, keys: Indices) -> tuple[Floats, Floats]:
        """Return the measurements and anomalies of an hour and the one before."""
        measurements, anomalies = np.zeros(len(keys)), np.zeros(len(keys))
        for slot in "01":
            n, a, at = self.table.read(keys, f"n{slot}", f"a{slot}", f"h{slot}")
            fresh = at >= hour - 1
            measurements += np.where(fresh, n, 0.0)
            anomalies += np.where(fresh, a, 0.0)
        return measurements, anomalies


class Control:
    """Knows how the inputs that nobody follows fare, hour by hour.

    Args:
        world_of: the world of each country, by its number: simulations that share nothing. None:
            there is one.
        parameters: what it goes by.
    """

    def __init__(
        self, world_of: Indices | None = None, parameters: ControlParameters | None = None
    ) -> None:
        self._parameters = parameters = parameters or ControlParameters()
        self._world_of = np.zeros(MOST_COUNTRIES, dtype=np.int64) if world_of is None else world_of
        self._networks = Level((0.0, 0.0), parameters.usual_half_life, parameters.network_most)
        self._countries = Level(
            parameters.prior, parameters.usual_half_life, parameters.country_most
        )
        self._sources = Keyed("anomalies", "total", "since")
        self._drift = Keyed("excess", "total", "since")

    def arrays(self) -> Arrays:
        """Return all that is known, by name; `put` takes it back."""
        return {
            f"{part}_{name}": array
            for part, table in self._tables().items()
            for name, array in table.arrays().items()
        }

    def put(self, arrays: Arrays) -> None:
        """Know what `arrays` of another one says.

        Raises:
            KeyError, ValueError: it is of another kind.
        """
        for part, table in self._tables().items():
            names = table.arrays()
            table.put({name: arrays[f"{part}_{name}"] for name in names})

    def _tables(self) -> dict[str, Keyed]:
        return {
            "networks": self._networks.table,
            "countries": self._countries.table,
            "sources": self._sources,
            "drift": self._drift,
        }

    def judged(self, hour: int, runs: RunRows, others: OtherRows) -> Rows:
        """Return what of the runs counts, after taking the others of the hour.

        Runs in doubt are left out. All rows of an hour have to come at once, hour after hour.
        """
        usual = self._usual(hour, others.network)
        of_runs = self._usual(hour, runs.network)
        countries = self._countries.usual(hour, country_of(runs.network))
        self._take(hour, others, usual)
        excess, controlled = self._excess(hour, runs, of_runs, countries[0] / countries[1])
        counts = excess < self._parameters.doubtful
        rows = Rows(
            runs.series,
            runs.source,
            runs.bad,
            runs.runs - runs.bad,
            excess,
            controlled,
            runs.bucket > 0,
        )
        return rows.where(counts & (runs.runs > 0))

    def _usual(self, hour: int, networks: Indices) -> Floats:
        """Return the usual share of anomalies of networks."""
        weight = self._parameters.country_weight
        anomalies, total = self._networks.usual(hour, networks)
        of_country = self._countries.usual(hour, country_of(networks))
        share: Floats = (anomalies + weight * of_country[0] / of_country[1]) / (total + weight)
        return share

    def _take(self, hour: int, others: OtherRows, usual: Floats) -> None:
        """Take the others of an hour."""
        parameters = self._parameters
        if not len(others.network):
            return
        counts = (others.measurements, others.anomalies)
        self._networks.add(hour, others.network, counts)
        self._countries.add(hour, country_of(others.network), counts)
        keys = source_key(others.network, others.source)
        _add(self._sources, (hour, parameters.source_half_life), keys, "anomalies", counts[::-1])
        # No network alone says what happens in the world.
        weight = np.minimum(1.0, parameters.drift_most / others.measurements)
        excess = exact(weight * (others.anomalies - others.measurements * usual))
        drift = (excess, exact(weight * others.measurements))
        worlds = self._world_key(others.network, others.source)
        _add(self._drift, (hour, parameters.drift_half_life), worlds, "excess", drift)

    def _world_key(self, networks: Indices, sources: Indices) -> Indices:
        return (self._world_of[country_of(networks)] << SOURCE_BITS) | sources

    def _excess(
        self, hour: int, runs: RunRows, usual: Floats, of_country: Floats
    ) -> tuple[Floats, Flags]:
        """Return by how much more anomalies than usual each row has, and whether anything tells.

        1 where the run is broken, or its surroundings.
        """
        parameters = self._parameters
        own = runs.bucket > 0
        broken = BUCKET_SHARES[runs.bucket] - usual >= parameters.broken
        n, a = self._networks.lately(hour, runs.network)
        by_network = n >= parameters.network_least
        network_fails = a - usual * n >= parameters.network_doubt * n
        n, a = self._countries.lately(hour, country_of(runs.network))
        by_country = n >= parameters.country_least
        country_fails = by_country & (a - of_country * n >= parameters.country_doubt * n)
        fails = np.where(own, broken, np.where(by_network, network_fails, country_fails))
        by_source, tells = self._source_excess(hour, runs, usual)
        excess: Floats = np.maximum(fails.astype(float), by_source)
        return excess, own | by_network | by_country | tells

    def _source_excess(self, hour: int, runs: RunRows, usual: Floats) -> tuple[Floats, Flags]:
        """Return how many more anomalies the source has, and whether it tells in this network."""
        parameters = self._parameters
        keys = self._world_key(runs.network, runs.source)
        more, total, since = self._drift.read(keys, "excess", "total", "since")
        kept = np.exp2((since - hour) / parameters.drift_half_life)
        drift = np.maximum(0.0, more * kept / (total * kept + parameters.drift_weight))
        keys = source_key(runs.network, runs.source)
        anomalies, total, since = self._sources.read(keys, "anomalies", "total", "since")
        kept = np.exp2((since - hour) / parameters.source_half_life)
        weight, expected = parameters.source_weight, usual + drift
        here = (anomalies * kept + weight * expected) / (total * kept + weight) - usual
        tells: Flags = total * kept >= parameters.source_least
        return np.maximum(0.0, np.where(tells, here, drift)), tells


def network_key(country: int | Indices, asn: int | Indices) -> Indices:
    """Return the keys of networks, of the numbers of their countries and their ASNs."""
    return np.asarray((np.asarray(country, np.int64) << ASN_BITS) | np.asarray(asn, np.int64))


def country_of(networks: Indices) -> Indices:
    """Return the numbers of the countries of networks."""
    return networks >> ASN_BITS


def source_key(networks: Indices, sources: Indices) -> Indices:
    """Return the keys of kinds of probes in networks."""
    return (networks << SOURCE_BITS) | sources


def _add(
    table: Keyed,
    when: tuple[int, float],
    keys: Indices,
    first: str,
    added: tuple[Floats, Floats],
) -> None:
    """Add to two columns what fades with a half-life; a key may come several times."""
    hour, half_life = when
    unique, at = np.unique(keys, return_inverse=True)
    places = table.places(unique)
    kept = np.exp2((table.columns["since"][places] - hour) / half_life)
    for name, values in zip((first, "total"), added, strict=True):
        column = table.columns[name]
        column[places] = column[places] * kept + np.bincount(at, values, len(unique))
    table.columns["since"][places] = hour
