"""Worlds: independent simulations, with countries, networks and what happens in them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from detector_config import SERVICES, target_of
from dev.samples.realism.mixture import (
    BESIDE_BLOCKING,
    COUNTRIES,
    HOURS,
    MIXED_WORLDS,
    ONE_SERVICE_EVERY,
    PAIRS,
    RATES,
    SPARSE_RATES,
    WORLDS,
    Part,
    WorldPart,
)
from dev.samples.realism.network import Floats, Network, Target
from dev.samples.realism.stories import FIRST, LAST, STORIES, Case

CODES = "IRRUCNTRPKEGVEMMTHVNIDINBRUGETTZSDSNGNTMUZKZBYAZIQSAAEQAOMJOLBSYYEDZMATNLYNGKEGHCMCD"
FIRST_ASN = 64500
WEDNESDAY = 2  # the first day
WEEKEND = 0.75  # measurements, of those of another day


@dataclass(frozen=True)
class World:
    """A simulation that depends on no other one."""

    number: int
    networks: list[Network]


def generator(*numbers: int) -> np.random.Generator:
    """Return a generator of random numbers that is always the same for the same numbers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(numbers)))


def worlds_of(seed: int, numbers: Sequence[int] | None = None) -> Iterator[World]:
    """Yield the worlds of a seed.

    Args:
        seed: the same one gives the same worlds.
        numbers: only these, for a quick look; None: all.
    """
    mixed = [partial(_mixed_world, seed, number) for number in range(MIXED_WORLDS)]
    of_one_story = [
        partial(_world_of, seed, MIXED_WORLDS + place, number, story)
        for place, (number, story) in enumerate(
            (number, story) for story in WORLDS for number in range(story.worlds)
        )
    ]
    for number, make in enumerate(mixed + of_one_story):
        if numbers is None or number in numbers:
            yield make()


def _mixed_world(seed: int, number: int) -> World:
    """Tell each story of a country in a country of its own."""
    world = World(number, [])
    for place, story in enumerate(COUNTRIES):
        random = generator(seed, number, place)
        targets, first = _targets(PAIRS[(number + place) % len(PAIRS)])
        if story.scenario == "one of three inputs":
            targets, first = _targets(("Telegram",))
        networks = [
            _network(world, len(world.networks) + n, place, targets, story, random)
            for n in range(story.networks)
        ]
        world.networks.extend(networks)
        group = f"{seed}.{number}.{place}"
        affected = list(range(len(targets)))
        if number % ONE_SERVICE_EVERY == 0 or story.scenario == "one of three inputs":
            affected = list(range(first))
        hours = story.hours[number % len(story.hours)] if story.hours else 0
        start = int(random.integers(FIRST, LAST))
        _tell(story.scenario, Case(networks, affected, start, hours, random), group)
    return world


def _world_of(seed: int, world_number: int, number: int, story: WorldPart) -> World:
    """Tell one story in all countries of a world."""
    world = World(world_number, [])
    random = generator(seed, world_number, 0)
    services = PAIRS[story.services[number % len(story.services)]]
    targets, _ = _targets(services[:1] if story.alone else services)
    for place in range(story.countries):
        world.networks.append(_network(world, place, place, targets, story, random))
    # Each seed goes on with the next lengths.
    turn = seed * story.worlds + number
    hours = story.hours[turn % len(story.hours)] if story.hours else 0
    start = int(random.integers(FIRST, LAST))
    affected = list(range(len(targets)))
    case = Case(world.networks, affected, start, hours, random)
    _tell(story.scenario, case, f"{seed}.{world_number}")
    return world


def _targets(services: tuple[str, ...]) -> tuple[list[Target], int]:
    """Return the targets of some services, and how many of them are of the first one."""
    targets = [[target_of(entry) for entry in SERVICES[service]] for service in services]
    return [target for of_one in targets for target in of_one], len(targets[0])


def _tell(scenario: str, case: Case, group: str) -> None:
    """Let the story happen, and put the series that it is not about in a class of their own."""
    for network in case.networks:
        network.group = group
        network.fault_hours = case.hours or None
    STORIES[scenario](case)
    eventful = any(any(network.events) for network in case.networks)
    for network in case.networks if eventful else ():
        for place, events in enumerate(network.events):
            if not events:
                network.scenarios[place] = BESIDE_BLOCKING


def _network(
    world: World,
    number: int,
    country: int,
    targets: list[Target],
    story: Part | WorldPart,
    random: np.random.Generator,
) -> Network:
    """Return a network in which nothing happens.

    Its shares of anomalies are mostly a few per cent, as in reality, and up to 30 %.
    """
    rates = SPARSE_RATES if isinstance(story, Part) and story.sparse else RATES
    weights = np.array(list(rates.values())) / 100
    rate = float(random.choice(list(rates), p=weights))
    usual = np.clip(np.exp(random.normal(np.log(0.035), 0.8, len(targets))), 0.01, 0.3)
    return Network(
        cc=CODES[2 * country : 2 * country + 2],
        asn=FIRST_ASN + 1000 * world.number + number,
        rate=rate,
        targets=targets,
        usual=usual,
        usual_of_others=float(np.clip(np.exp(random.normal(np.log(0.05), 0.6)), 0.01, 0.25)),
        activity=_day_and_week(int(random.integers(24))),
        block_page=bool(random.random() < 0.3),
        scenarios=[story.scenario] * len(targets),
        group="",
    )


def _day_and_week(phase: int) -> Floats:
    """Return how much is measured in each hour: more by day, less on weekends; 1 on average."""
    hours = np.arange(HOURS)
    day = 1 + 0.7 * np.sin(2 * np.pi * (hours + phase) / 24)
    weekday = (hours // 24 + WEDNESDAY) % 7
    activity = day * np.where(weekday >= 5, WEEKEND, 1.0)
    return np.asarray(activity / activity.mean())
