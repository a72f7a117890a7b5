"""What happens in a country: blockings, which are events, and faults, which are none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dev.samples.realism.mixture import (
    BESIDE_BLOCKING,
    BESIDE_FAULT,
    HOURS,
    OUTAGE_OF_APPS,
)
from dev.samples.realism.network import BrokenProbe, Enthusiast, Network, Release

DAY = 24
FIRST, LAST = 15 * DAY, 30 * DAY  # nothing happens before, nothing new after


@dataclass(frozen=True)
class Case:
    """A story that is told once.

    Attributes:
        networks: of the country.
        affected: the places of the targets that it is about.
        start: the hour in which it begins.
        hours: how long a fault lasts; 0 where the story says.
        random: draws the rest.
    """

    networks: Sequence[Network]
    affected: Sequence[int]
    start: int
    hours: int
    random: np.random.Generator

    def share(self) -> float:
        """Return the share of anomalies on a network where all is blocked or fails."""
        return float(self.random.uniform(0.88, 1.0))

    def soon(self) -> int:
        """Return the hour in which a network follows: they don't block all at once."""
        return self.start + int(self.random.integers(0, 6))

    def end(self, days: int) -> int:
        """Return the end of a blocking that lasts so long, or for ever."""
        return self.start + days * DAY if self.random.random() < 0.5 else HOURS


Story = Callable[[Case], None]


def _blocked_for(hours: int) -> Story:
    def story(case: Case) -> None:
        for network in case.networks:
            start = case.soon()
            network.block(case.affected, start, min(start + hours, HOURS), case.share())

    return story


def _national(case: Case) -> None:
    end = HOURS if case.random.random() < 0.25 else case.start + 12 * DAY
    for network in case.networks:
        network.block(case.affected, case.soon(), end, case.share())


def _one_input(case: Case) -> None:
    place = int(case.random.choice(case.affected))
    for network in case.networks:
        start = case.soon()
        network.block([place], start, start + 10 * DAY, case.share())


def _partial(case: Case) -> None:
    end = case.end(10)
    for network in case.networks:
        network.block(case.affected, case.soon(), end, float(case.random.uniform(0.4, 0.6)))


def _throttling(case: Case) -> None:
    end = case.end(10)
    for network in case.networks:
        network.usual[list(case.affected)] = 0.05
        network.block(case.affected, case.soon(), end, 0.4)


def _slow_onset(case: Case) -> None:
    for network in case.networks:
        full = case.start + int(case.random.integers(48, 120))
        share = case.share()
        network.block(case.affected, case.start, HOURS, share)
        for place in case.affected:
            ramp = np.linspace(network.usual[place], share, full - case.start)
            network.blocked[case.start : full, place] = ramp


def _flapping(case: Case) -> None:
    times = case.start + np.cumsum(case.random.integers(48, 97, size=6)) - 48
    for network in case.networks:
        for start, end in times.reshape(3, 2).tolist():
            network.block(case.affected, start, end, case.share())


def _shutdown(case: Case) -> None:
    end = case.start + int(case.random.integers(48, 97))
    for network in case.networks:
        network.activity[case.start : end] = 0.0
        network.block(case.affected, end, end + 10 * DAY, case.share())


def _appears(case: Case) -> None:
    """Let people install a probe because something is blocked: all but one network begin then."""
    end = case.end(14)
    before, *new = case.networks
    before.block(case.affected, case.start, end, case.share())
    before.scenarios[:] = [
        "national blocking" if scenario != BESIDE_BLOCKING else scenario
        for scenario in before.scenarios
    ]
    for network in new:
        since = case.start + int(case.random.integers(0, 48))
        network.activity[:since] = 0.0
        network.block(case.affected, since, end, case.share())


def _run_links(case: Case) -> None:
    for network in case.networks:
        network.links = 0.7
    _blocked_for(10 * DAY)(case)


def _curfews(case: Case) -> None:
    for network in case.networks:
        share = case.share()
        for day in range(14):
            start = case.start + day * DAY
            network.blocked[start : start + 3, list(case.affected)] = share
        for place in case.affected:
            network.events[place] += [(case.start, "BLOCKED"), (case.start + 14 * DAY, "OK")]


def _ordinary(case: Case) -> None:
    """Have a campaign, in half of the networks."""
    for network in case.networks:
        if case.random.random() < 0.5:
            end = case.start + int(case.random.integers(2 * DAY, 5 * DAY))
            most = max(1.0, 20 / network.rate)
            network.activity[case.start : end] *= min(float(case.random.uniform(4, 8)), most)


def _enthusiast(*, one_run: bool) -> Story:
    def story(case: Case) -> None:
        for network in case.networks:
            network.stands_alone()
            hours = int(case.random.integers(4, 7))
            network.enthusiast = Enthusiast(case.soon(), hours, 150, one_run)
            for place in network.apps:
                network.scenarios[place] = BESIDE_FAULT

    return story


def _broken_probe(case: Case) -> None:
    for network in case.networks:
        network.stands_alone()
        end = case.start + int(case.random.integers(2 * DAY, 10 * DAY))
        part = float(case.random.uniform(1 / 3, 2 / 3))
        network.broken_probe = BrokenProbe(case.start, end, part)


def _outage(*, together: bool, probes: tuple[float, float] = (1.0, 1.0)) -> Story:
    """Let a network, or a country, fail: all looks blocked, to all probes or to some."""

    def story(case: Case) -> None:
        for network in case.networks:
            start = case.start
            if not together:
                start = int(case.random.integers(FIRST, LAST))
                network.stands_alone()
            network.fail(range(len(network.targets)), start, case.hours, case.share())
            network.probes_hit = float(case.random.uniform(*probes))
            for place in network.apps:
                network.scenarios[place] = OUTAGE_OF_APPS

    return story


def _silence(case: Case) -> None:
    for network in case.networks:
        network.activity[case.start : case.start + 4 * DAY] = 0.0


def _others_blocked(case: Case) -> None:
    for network in case.networks:
        network.usual_of_others = float(case.random.uniform(0.4, 0.6))
        network.links = 0.2


def _blocked_before(case: Case) -> None:
    """Have all blocked for ever; networks that appear later aren't news."""
    for number, network in enumerate(case.networks):
        network.blocked[:] = case.share()
        if number:
            network.activity[: int(case.random.integers(FIRST, LAST))] = 0.0


def _service_fails(case: Case) -> None:
    for network in case.networks:
        network.faulty[case.start : case.start + case.hours] = case.share()


def _test_helper_fails(case: Case) -> None:
    for network in case.networks:
        network.fail(network.web, case.start, case.hours, 0.97)
        for place in network.apps:
            network.scenarios[place] = BESIDE_FAULT


def _release(points: float) -> Story:
    def story(case: Case) -> None:
        for network in case.networks:
            network.release = Release(case.start, points)

    return story


STORIES: dict[str, Story] = {
    "permanent blocking": _blocked_for(HOURS),
    "blocking of 10 days": _blocked_for(10 * DAY),
    "blocking of 6 days": _blocked_for(6 * DAY),
    "blocking of 2 days": _blocked_for(2 * DAY),
    "blocking of 8 hours": _blocked_for(8),
    "national blocking": _national,
    "one of three inputs": _one_input,
    "partial blocking": _partial,
    "throttling": _throttling,
    "slow onset": _slow_onset,
    "flapping": _flapping,
    "shutdown, then blocking": _shutdown,
    "appears with blocking": _appears,
    "measured by Run links": _run_links,
    "curfews": _curfews,
    "ordinary": _ordinary,
    "enthusiast, one run": _enthusiast(one_run=True),
    "enthusiast, many runs": _enthusiast(one_run=False),
    "broken probe": _broken_probe,
    "resolver 1-5 h": _outage(together=False, probes=(0.5, 0.9)),
    "resolver 6-12 h": _outage(together=False, probes=(0.5, 0.9)),
    "network 1-5 h": _outage(together=False),
    "network 6-12 h": _outage(together=False),
    "country 1-5 h": _outage(together=True),
    "country 6-12 h": _outage(together=True),
    "silence of 4 days": _silence,
    "others blocked": _others_blocked,
    "blocked before": _blocked_before,
    "service 1-5 h": _service_fails,
    "service 6-12 h": _service_fails,
    "test helper 1-5 h": _test_helper_fails,
    "test helper 6-12 h": _test_helper_fails,
    "release, +12 points": _release(0.12),
    "release, +28 points": _release(0.28),
}
