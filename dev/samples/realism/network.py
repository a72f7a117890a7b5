"""A network in which series are measured, and all that happens to it, hour by hour."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dev.samples.realism.mixture import HOURS

Floats = NDArray[np.float64]
Target = tuple[str, str]  # a test, and its input

WEB = "web_connectivity"
OTHER_INPUTS = 61  # that web runs measure and nobody follows
# Their shares of anomalies, as multiples of what is usual in a network: from 0.2 to 5.
INPUT_FACTORS: Floats = 0.2 * 25 ** (np.arange(OTHER_INPUTS) * 37 % OTHER_INPUTS / 60)


class Release(NamedTuple):
    """A version of the probe that takes more for an anomaly: since an hour, by so much."""

    hour: int
    points: float


class BrokenProbe(NamedTuple):
    """A probe to which everything looks blocked: when, and its part of the runs."""

    start: int
    end: int
    part: float


class Enthusiast(NamedTuple):
    """Somebody who measures one input again and again for some hours, and sees it blocked.

    Attributes:
        hour: the first one.
        hours: how many.
        measurements: of each input.
        one_run: all in one run, or each in a run of its own.
    """

    hour: int
    hours: int
    measurements: int
    one_run: bool


@dataclass
class Network:
    """A network.

    Attributes:
        cc: the country.
        asn: its number, which no other network of the suite has.
        rate: runs an hour that measure a series, on average.
        targets: what is followed in it.
        usual: the share of anomalies of each target while nothing is blocked.
        usual_of_others: of the inputs that nobody follows, on average.
        activity: by hour, 1 on average.
        blocked: the share of anomalies that a blocking causes, by hour and target.
        faulty: likewise a fault; everybody is hit, or some of the probes.
        others_faulty: likewise, for the inputs that nobody follows.
        probes_hit: the part of the probes that a fault hits.
        links: the part of the web runs that an OONI Run link asked for.
        block_page: blocked measurements are confirmed.
        events: of each target, the hour of each change and the state since then.
        scenarios: the class of each target.
        group: what its series depend on each other by: one story, told once.
        fault_hours: how long the fault of the story lasts.
    """

    cc: str
    asn: int
    rate: float
    targets: Sequence[Target]
    usual: Floats
    usual_of_others: float
    activity: Floats
    block_page: bool
    scenarios: list[str]
    group: str
    fault_hours: int | None = None
    links: float = 0.03
    probes_hit: float = 1.0
    release: Release | None = None
    broken_probe: BrokenProbe | None = None
    enthusiast: Enthusiast | None = None
    blocked: Floats = field(init=False)
    faulty: Floats = field(init=False)
    others_faulty: Floats = field(init=False)
    events: list[list[tuple[int, str]]] = field(init=False)

    def __post_init__(self) -> None:
        """Let nothing happen."""
        self.blocked = np.zeros((HOURS, len(self.targets)))
        self.faulty = np.zeros((HOURS, len(self.targets)))
        self.others_faulty = np.zeros(HOURS)
        self.events = [[] for _ in self.targets]

    @property
    def web(self) -> list[int]:
        """The places of the targets that are URLs."""
        return [place for place, (test, _) in enumerate(self.targets) if test == WEB]

    @property
    def apps(self) -> list[int]:
        """The places of the others."""
        return [place for place, (test, _) in enumerate(self.targets) if test != WEB]

    def stands_alone(self) -> None:
        """Depend on no other network of the country."""
        self.group = f"{self.group}.{self.asn}"

    def block(self, places: Sequence[int], start: int, end: int, share: float | Floats) -> None:
        """Block some targets from an hour up to another one, and label that."""
        for place in places:
            self.blocked[start:end, place] = share
            self.events[place].append((start, "BLOCKED"))
            if end < HOURS:
                self.events[place].append((end, "OK"))

    def fail(self, places: Sequence[int], start: int, hours: int, share: float) -> None:
        """Let measurements of some targets and of all other inputs fail for some hours."""
        self.faulty[start : start + hours, places] = share
        self.others_faulty[start : start + hours] = share
