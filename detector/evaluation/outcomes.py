"""What a detector made of a series: which events it found, and when; which changes were none.

An event is found when a change to its state is detected at or after it, and before the next event
of the series, at most 20 days later. Every other change is false, one back to OK as well. The first
state that a series gets isn't a change. The time of a detection is the end of the hour whose data
caused it.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from evaluation.candidates import Change, Changes
from evaluation.observations import Details, Observations
from hours import Indices
from series import hour_of

LATEST = 20 * 24  # hours after an event in which it can be found
ENOUGH = 10  # measurements inside an event that anybody could find
WEEK = 7 * 24  # hours


class Label(msgspec.Struct, frozen=True):
    """A change that really happened: the hour in which it did, UTC, and the state since then."""

    t: datetime
    to: Literal["OK", "BLOCKED"]


class Truth(msgspec.Struct, frozen=True):
    """What is known of a series.

    Attributes:
        scenario: the class that it is reported in.
        rate_per_h: its runs or measurements an hour, by design.
        events: its changes.
        group: what happened to all series of this name happened once; "" where to this one alone.
        fault_hours: how long a fault lasted that isn't an event.
        judged: it counts in the totals.
    """

    scenario: str
    rate_per_h: float
    events: tuple[Label, ...]
    group: str = ""
    fault_hours: int | None = None
    judged: bool = True


class EventOutcome(NamedTuple):
    """What became of an event: the state that it is a change to, and the hours until it was found.

    Attributes:
        to: the state.
        delay: None where it was missed.
        clear: anybody could find it.
    """

    to: str
    delay: int | None
    clear: bool


@dataclass(frozen=True)
class Outcome:
    """What became of a series.

    Attributes:
        truth: what happened.
        events: likewise, and whether that was found.
        false: the states that it was believed to have got.
        weeks: from its first measurement to its last one.
        details: of the series.
        group: of the suite it is in, and of its story; see Truth.
        controlled: the share of its hours that have controls.
    """

    truth: Truth
    events: tuple[EventOutcome, ...]
    false: tuple[str, ...]
    weeks: float
    details: Details
    group: str
    controlled: float | None = None


@dataclass(frozen=True)
class Coverage:
    """The hours of one series that have measurements, and how many these are."""

    hour: Indices
    measurements: Indices

    def between(self, start: int, end: int | None) -> int:
        """Return the measurements from an hour on, up to another one."""
        within = self.hour >= start
        if end is not None:
            within &= self.hour < end
        return int(self.measurements[within].sum())

    @property
    def weeks(self) -> float:
        """For how long the series was observed: from its first hour to its last one."""
        return (int(self.hour[-1] - self.hour[0]) + 1) / WEEK if len(self.hour) else 0.0


NOT_MEASURED = Coverage(np.array([], dtype=np.int64), np.array([], dtype=np.int64))


def outcomes_of(
    changes: Changes,
    observations: Observations,
    truths: Mapping[str, Truth],
    controls: Sequence[float | None],
    suite: int = 0,
) -> list[Outcome]:
    """Return what a detector makes of all series that something is known of.

    The events of a series that has no measurements are missed, as all others that nobody could
    find; but it was not observed, so no week of it counts.

    Args:
        changes: of each series that has any, by its number.
        observations: what the detector followed; summed.
        truths: what is known of each series.
        controls: the share of the hours of each series that have any.
        suite: the number of these files, where there are several.
    """
    coverage = coverage_of(observations)
    numbers = {name: number for number, name in enumerate(observations.series)}
    outcomes = []
    for name, truth in truths.items():
        number = numbers.get(name)
        covered = NOT_MEASURED if number is None else coverage[number]
        details = Details() if number is None else observations.details[number]
        events, false = compared(() if number is None else changes.get(number, ()), truth, covered)
        group = f"{suite} {truth.group or name}"
        share = None if number is None else controls[number]
        outcomes.append(Outcome(truth, events, false, covered.weeks, details, group, share))
    return outcomes


def coverage_of(observations: Observations) -> list[Coverage]:
    """Return the coverage of each series, in their order."""
    order = np.argsort(observations.index, kind="stable")
    bounds = np.searchsorted(observations.index[order], np.arange(len(observations.series) + 1))
    hour, measurements = observations.hour[order], observations.measurements[order]
    return [
        Coverage(hour[start:end], measurements[start:end])
        for start, end in itertools.pairwise(bounds.tolist())
    ]


def compared(
    changes: Sequence[Change], truth: Truth, coverage: Coverage
) -> tuple[tuple[EventOutcome, ...], tuple[str, ...]]:
    """Compare changes with what happened; return what became of the events, and false changes."""
    outcomes = []
    left = list(changes)
    events = sorted((hour_of(label.t), label.to) for label in truth.events)
    inside_before = ENOUGH
    for (start, state), following in itertools.zip_longest(events, events[1:]):
        end = following[0] if following else None
        inside = coverage.between(start, end)
        # Nobody can find the end of what nobody could find.
        clear = inside >= ENOUGH and (inside_before >= ENOUGH or state == "BLOCKED")
        inside_before = inside
        latest = start + LATEST if end is None else min(start + LATEST, end - 1)
        hit = next((time for time, to in left if to == state and start <= time <= latest), None)
        if hit is not None:
            left.remove((hit, state))
        outcomes.append(EventOutcome(state, None if hit is None else hit - start, clear))
    return tuple(outcomes), tuple(state for _, state in left)
