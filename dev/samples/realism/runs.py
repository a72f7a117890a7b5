"""The runs of the probes of a network, with what they measure, as columns of numbers.

Everything is arithmetic on arrays of all runs of a network at once. Times are in seconds since the
first hour of the suite, as the probe's clock has them; `received` is the server's.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dev.samples.realism.mixture import HOURS
from dev.samples.realism.network import INPUT_FACTORS, OTHER_INPUTS, Enthusiast, Floats, Network

HOUR = 3600  # seconds
INCLUDED = 0.7  # the part of the web runs that measures a target
MOST_OTHERS = 40  # inputs of a run that nobody follows
STEP = 7  # from one of these inputs to the next one
MOST_PROBES = 12
SIZES = np.array([1, 3, 8, 16, 40])  # a probe's runs have up to so many inputs
SIZE_WEIGHTS = np.array([0.1, 0.35, 0.3, 0.15, 0.1])
SOFTWARE = 6  # that probes are made of: places in table.SOFTWARE; a release is one more
ADOPTION = 72.0  # hours until a probe has a new version, on average
USES_VPN, WRONG_CLOCK = 0.04, 0.03  # parts of the probes
BLOCKED_IN_LINKS = 0.9  # what an OONI Run link asks for is mostly blocked

Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]

COLUMNS = {
    "run": np.uint64,
    "asn": np.uint32,
    "country": np.uint8,
    "target": np.uint8,
    "begun": np.int32,
    "start": np.int32,
    "received": np.int32,
    "targets": np.uint32,
    "bad": np.uint32,
    "confirmed": np.uint32,
    "others": np.uint8,
    "first": np.uint8,
    "bad_others": np.uint64,
    "link": np.uint32,
    "software": np.uint8,
}
Runs = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Probes:
    """The probes of a network, each with habits of its own.

    Attributes:
        active: by probe and hour, its part of the runs, as a sum up to this probe.
        sizes: the most inputs of a run.
        clock: seconds by which its clock is fast.
        vpn: it measures somewhere else, where nothing is blocked.
        software: place in SOFTWARE.
        adopted: the hour since when it has a new version.
        hit: by a fault that hits some probes only.
        broken: everything looks blocked to it, while it is active.
    """

    active: Floats
    sizes: Numbers
    clock: Numbers
    vpn: Flags
    software: Numbers
    adopted: Floats
    hit: Flags
    broken: Flags


def probes_of(network: Network, random: np.random.Generator) -> Probes:
    """Draw the probes of a network; the first one stays, others come and go."""
    count = int(np.clip(1 + random.poisson(1.5 + 2 * network.rate), 1, MOST_PROBES))
    begin = np.where(random.random(count) < 0.4, random.uniform(0, HOURS, count), 0)
    end = np.where(random.random(count) < 0.4, begin + random.exponential(400, count), HOURS)
    begin[0], end[0] = 0, HOURS
    hours = np.arange(HOURS)
    weight = random.gamma(1.0, 1.0, count) + 0.05
    active = weight[:, None] * ((hours >= begin[:, None]) & (hours < end[:, None]))
    broken = np.zeros(count, dtype=bool)
    if network.broken_probe is not None:
        start, over, part = network.broken_probe
        added = active.sum(axis=0) * part / (1 - part) * ((hours >= start) & (hours < over))
        active, broken = np.vstack([active, added]), np.append(broken, True)
        count += 1
    wrong = random.random(count) < WRONG_CLOCK
    wrong[0] = False
    offset = random.choice([-12, -5, -1, 1, 3, 12, 72], count) * HOUR
    adopted = np.full(count, np.inf)
    if network.release is not None:
        adopted = network.release.hour + random.exponential(ADOPTION, count)
    hit = random.random(count) < network.probes_hit
    hit[0] = True
    return Probes(
        active=np.cumsum(active, axis=0),
        sizes=random.choice(SIZES, count, p=SIZE_WEIGHTS),
        clock=np.where(wrong, offset, 0),
        vpn=(random.random(count) < USES_VPN) & ~broken,
        software=random.integers(0, SOFTWARE, count),
        adopted=adopted,
        hit=hit,
        broken=broken,
    )


@dataclass(frozen=True)
class _Times:
    """When runs begin, and whose they are: the hour, the second in it, the probe."""

    hour: Numbers
    second: Numbers
    probe: Numbers


def runs_of(network: Network, country: int, codes: list[int], random: np.random.Generator) -> Runs:
    """Return the runs of a network.

    Args:
        network: what happens in it.
        country: the number of its country.
        codes: the number of each of its targets.
        random: draws them.
    """
    probes = probes_of(network, random)
    parts = [_web_runs(network, probes, codes, random)]
    parts += [_app_runs(network, probes, place, codes, random) for place in network.apps]
    if network.enthusiast is not None:
        parts.append(_runs_of_enthusiast(network, codes, network.enthusiast))
    starts = np.cumsum([0, *(len(part["run"]) for part in parts)])
    for part, start in zip(parts, starts.tolist(), strict=False):
        part["run"] = part["run"] + (network.asn << 32) + start
        part["asn"] = np.full(len(part["run"]), network.asn)
        part["country"] = np.full(len(part["run"]), country)
    return {
        name: np.concatenate([part[name] for part in parts]).astype(kind)
        for name, kind in COLUMNS.items()
    }


def _web_runs(
    network: Network, probes: Probes, codes: list[int], random: np.random.Generator
) -> Runs:
    """Return runs of the web test: lists of inputs, single ones, and what a link asks for."""
    times = _times(network.rate / INCLUDED * network.activity, probes, random)
    count = len(times.hour)
    size = 1 + (random.random(count) * probes.sizes[times.probe]).astype(np.int64)
    places = np.array(network.web)
    included = random.random((count, len(places))) < INCLUDED
    alone = np.flatnonzero(size == 1)
    included[alone] = False
    included[alone, random.integers(0, len(places), len(alone))] = True
    link = np.where(random.random(count) < network.links, random.integers(10_000, 10_400, count), 0)
    link[alone] = 0
    bad = random.random(included.shape) < _shares(network, probes, times, places)
    others = np.clip(size - included.sum(axis=1), 0, MOST_OTHERS)
    first = random.integers(0, OTHER_INPUTS, count)
    masks = np.left_shift(1, np.array(codes)[places])
    blocked = network.blocked[times.hour][:, places] > 0
    confirmed = bad & blocked & network.block_page
    return _columns(times, probes) | {
        "target": np.zeros(count),
        "targets": (included * masks).sum(axis=1),
        "bad": (bad * included * masks).sum(axis=1),
        "confirmed": (confirmed * included * masks).sum(axis=1),
        "others": others,
        "first": first,
        "bad_others": _bad_others(network, probes, times, (others, first, link), random),
        "link": link,
    }


def _app_runs(
    network: Network, probes: Probes, place: int, codes: list[int], random: np.random.Generator
) -> Runs:
    """Return runs of the test of an app, of one measurement each."""
    times = _times(network.rate * network.activity, probes, random)
    count = len(times.hour)
    share = _shares(network, probes, times, np.array([place]))[:, 0]
    mask = 1 << codes[place]
    return (
        _columns(times, probes)
        | _only_targets(count, codes[place])
        | {
            "targets": np.full(count, mask),
            "bad": (random.random(count) < share) * mask,
        }
    )


def _runs_of_enthusiast(network: Network, codes: list[int], person: Enthusiast) -> Runs:
    """Return the measurements of one person, of all web targets, all of them bad."""
    count = person.measurements
    second = np.arange(count) * (person.hours * HOUR) // count + person.hour * HOUR
    mask = sum(1 << codes[place] for place in network.web)
    return _only_targets(count, 0) | {
        "run": np.zeros(count) if person.one_run else np.arange(count),
        "begun": np.full(count, second[0]) if person.one_run else second,
        "start": second,
        "received": second + 60,
        "software": np.zeros(count),
        "targets": np.full(count, mask),
        "bad": np.full(count, mask),
    }


def _times(rate: Floats, probes: Probes, random: np.random.Generator) -> _Times:
    """Draw when runs begin, at a rate by hour, and which probes make them."""
    hour = np.repeat(np.arange(HOURS), random.poisson(rate))
    count = len(hour)
    drawn = random.random(count) * probes.active[-1, hour]
    probe = (probes.active[:, hour] <= drawn).sum(axis=0)
    return _Times(hour, random.integers(0, HOUR, count), probe)


def _columns(times: _Times, probes: Probes) -> Runs:
    """Return what all runs have."""
    true = times.hour * HOUR + times.second
    start = true + probes.clock[times.probe]
    adopted = times.hour >= probes.adopted[times.probe]
    return {
        "run": np.arange(len(true)),
        "begun": start,
        "start": start,
        "received": true + 60,
        "software": np.where(adopted, SOFTWARE, 0) + probes.software[times.probe],
    }


def _only_targets(count: int, target: int) -> Runs:
    """Return the columns of runs that measure nothing but targets."""
    names = ("confirmed", "others", "first", "bad_others", "link")
    return {name: np.zeros(count) for name in names} | {"target": np.full(count, target)}


def _shares(network: Network, probes: Probes, times: _Times, places: Numbers) -> Floats:
    """Return the probability of an anomaly, by run and target."""
    hour, probe = times.hour, times.probe
    share = network.usual[places] + _shift(network, probes, times)[:, None]
    blocked = network.blocked[hour][:, places] * ~probes.vpn[probe][:, None]
    faulty = network.faulty[hour][:, places] * probes.hit[probe][:, None]
    broken = 0.95 * probes.broken[probe][:, None]
    return np.asarray(np.maximum.reduce([share, blocked, faulty, broken + 0 * share]))


def _shift(network: Network, probes: Probes, times: _Times) -> Floats:
    """Return by how much a new version of the probe takes more for anomalies, by run."""
    if network.release is None:
        return np.zeros(len(times.hour))
    return np.where(times.hour >= probes.adopted[times.probe], network.release.points, 0.0)


def _bad_others(
    network: Network,
    probes: Probes,
    times: _Times,
    drawn: tuple[Numbers, Numbers, Numbers],
    random: np.random.Generator,
) -> Floats:
    """Return which of a run's inputs that nobody follows are anomalies, as bits.

    Args:
        network: where the runs are made.
        probes: that make them.
        times: of the runs.
        drawn: by run: how many such inputs, which is the first, and the link that asked for them.
        random: draws the anomalies.
    """
    others, first, link = drawn
    run = np.repeat(np.arange(len(others)), others)
    place = np.arange(len(run)) - np.repeat(np.cumsum(others) - others, others)
    factor = INPUT_FACTORS[(first[run] + STEP * place) % OTHER_INPUTS]
    usual = np.minimum(0.9, network.usual_of_others * factor / INPUT_FACTORS.mean())
    share = np.where(link > 0, BLOCKED_IN_LINKS, 0.0)
    share = np.maximum(share, network.others_faulty[times.hour] * probes.hit[times.probe])
    share = np.maximum(share, 0.95 * probes.broken[times.probe])
    shares = np.maximum(usual + _shift(network, probes, times)[run], share[run])
    bad = random.random(len(run)) < shares
    # Sums of different powers of two below 2 ** 53 are exact.
    bits: Floats = np.bincount(run, bad * 2.0**place, len(others)).astype(float)
    return bits
