"""The figures of a detector, from what became of series: of all, by class, by rate, by fault."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np

from evaluation.intervals import (
    Interval,
    Sums,
    Values,
    percentile,
    percentile_interval,
    rate_interval,
    share_interval,
)
from evaluation.outcomes import WEEK, EventOutcome, Outcome

Figures = dict[str, Any]

HUNDRED, THOUSAND = 100, 1000
SOON = 96  # hours in which an end should be told
LEAST_NETWORKS = 3  # of an incident
SPREAD = (  # figures whose spread from seed to seed is told
    "precision",
    "recall",
    "recall_of_clear_events",
    "median_delay_h",
    "p90_delay_h",
    "false_per_100_series",
    "false_per_1000_series_weeks",
)


def figures_of(suites: Sequence[Sequence[Outcome]]) -> Figures:
    """Return the figures of all series that are judged, and of all by part.

    Args:
        suites: outcomes of independent simulations (seeds) of the same mixture.
    """
    outcomes = [outcome for suite in suites for outcome in suite]
    judged = [[outcome for outcome in suite if outcome.truth.judged] for suite in suites]
    return {
        "suites": len(suites),
        **_figures_and_spread(judged),
        "by_scenario": {
            scenario: _figures_and_spread(part) | _about(part)
            for scenario, part in _by(lambda o: o.truth.scenario, suites).items()
        },
        "by_rate": {
            f"{rate:g}": _figures_and_spread(part)
            for rate, part in _by(lambda o: o.truth.rate_per_h, judged).items()
        },
        "by_scenario_and_rate": _by_scenario_and(lambda o: o.truth.rate_per_h, outcomes),
        "by_fault_hours": _by_scenario_and(
            lambda o: o.truth.fault_hours, [o for o in outcomes if o.truth.fault_hours]
        ),
        "incidents_by_scenario": incidents_of(outcomes),
    }


def _by(
    key: Callable[[Outcome], Any], suites: Sequence[Sequence[Outcome]]
) -> dict[Any, list[list[Outcome]]]:
    """Return the outcomes of each suite by a key, sorted."""
    parts: dict[Any, list[list[Outcome]]] = {}
    for number, suite in enumerate(suites):
        for outcome in suite:
            parts.setdefault(key(outcome), [[] for _ in suites])[number].append(outcome)
    return dict(sorted(parts.items()))


def _by_scenario_and(
    key: Callable[[Outcome], Any], outcomes: Sequence[Outcome]
) -> dict[str, dict[str, Figures]]:
    """Return the figures of each class by a number."""
    return {
        scenario: {
            f"{number:g}": simple_figures(some) for number, (some,) in _by(key, [part]).items()
        }
        for scenario, (part,) in _by(lambda o: o.truth.scenario, [outcomes]).items()
    }


def _figures_and_spread(suites: Sequence[Sequence[Outcome]]) -> Figures:
    outcomes = [outcome for suite in suites for outcome in suite]
    figures = simple_figures(outcomes) | {"intervals": intervals_of(outcomes)}
    if len(suites) > 1:
        by_seed = [simple_figures(suite) for suite in suites]
        figures["seeds"] = {
            name: _spread([of_seed[name] for of_seed in by_seed]) for name in SPREAD
        }
    return figures


def _about(suites: Sequence[Sequence[Outcome]]) -> Figures:
    """Return what is told of a class beside its figures."""
    outcomes = [outcome for suite in suites for outcome in suite]
    shares = [o.controlled for o in outcomes if o.controlled is not None]
    return {
        "judged": all(outcome.truth.judged for outcome in outcomes),
        "hours_with_controls": mean(shares) if shares else None,
    }


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    """Return mean, standard deviation, least and most; None where one has no value."""
    some = [value for value in values if value is not None]
    if len(some) < len(values):
        return None
    return {
        "mean": mean(some),
        "standard_deviation": stdev(some),
        "least": min(some),
        "most": max(some),
    }


def simple_figures(outcomes: Sequence[Outcome]) -> Figures:
    """Return the figures of some series; None where there is nothing to tell from."""
    events = [event for outcome in outcomes for event in outcome.events]
    found = sum(event.delay is not None for event in events)
    clear = [event for event in events if event.clear]
    false = [state for outcome in outcomes for state in outcome.false]
    return {
        "series": len(outcomes),
        "events": len(events),
        "tp": found,
        "fp": len(false),
        "fn": len(events) - found,
        "precision": _share(found, found + len(false)),
        "recall": _share(found, len(events)),
        "recall_of_clear_events": _share(sum(e.delay is not None for e in clear), len(clear)),
        **_delays(outcomes, ("BLOCKED", "OK"), ""),
        **_delays(outcomes, ("BLOCKED",), "beginnings_"),
        **_delays(outcomes, ("OK",), "ends_"),
        "false_beginnings": false.count("BLOCKED"),
        "false_ends": false.count("OK"),
        "series_with_false": sum(bool(outcome.false) for outcome in outcomes),
        "false_per_100_series": _share(HUNDRED * len(false), len(outcomes)),
        "false_per_1000_series_weeks": _share(
            THOUSAND * len(false), sum(outcome.weeks for outcome in outcomes)
        ),
    }


def _delays(outcomes: Iterable[Outcome], states: Sequence[str], prefix: str) -> Figures:
    """Return how soon changes to some states were found, of those that were."""
    delays = [event.delay for o in outcomes for event in o.events if event.to in states]
    found = np.array([delay for delay in delays if delay is not None], dtype=float)
    figures = {
        f"{prefix}median_delay_h": percentile(found, 50),
        f"{prefix}p90_delay_h": percentile(found, 90),
    }
    if prefix:
        figures |= {
            f"{prefix}events": len(delays),
            f"{prefix}recall": _share(len(found), len(delays)),
            f"{prefix}p95_delay_h": percentile(found, 95),
            f"{prefix}within_{SOON}_h": _share(int((found <= SOON).sum()), len(delays)),
        }
    return figures


def intervals_of(outcomes: Sequence[Outcome]) -> Figures:
    """Return what the figures lie in with 95 % confidence; None where nothing tells it."""
    names: dict[str, int] = {}
    groups = np.array([names.setdefault(o.group, len(names)) for o in outcomes], dtype=np.int64)

    def counted(wanted: Callable[[EventOutcome], bool]) -> Values:
        return np.array([sum(map(wanted, o.events)) for o in outcomes], dtype=float)

    def share(parts: Values, wholes: Values) -> Interval | None:
        return share_interval(Sums.by_group(groups, parts, wholes))

    events, found = counted(lambda _: True), counted(lambda e: e.delay is not None)
    begun = counted(lambda e: e.to == "BLOCKED")
    begun_found = counted(lambda e: e.to == "BLOCKED" and e.delay is not None)
    false = np.array([len(o.false) for o in outcomes], dtype=float)
    by_series = rate_interval(Sums.by_group(groups, false, np.ones(len(outcomes))))
    delays = np.array([e.delay for o in outcomes for e in o.events if e.delay is not None], float)
    of_delays = np.repeat(groups, found.astype(int))
    return {
        "precision": share(found, found + false),
        "recall": share(found, events),
        "beginnings_recall": share(begun_found, begun),
        "median_delay_h": percentile_interval(of_delays, delays, 50),
        "p90_delay_h": percentile_interval(of_delays, delays, 90),
        "false_per_100_series": by_series and tuple(HUNDRED * limit for limit in by_series),
    }


def incidents_of(outcomes: Iterable[Outcome]) -> dict[str, Figures]:
    """Return how long incidents seem to go on after their end, by class.

    An incident is what the files call one story, of one service: at least three networks whose
    blocking ends, told once the last of these is back.
    """
    incidents: dict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for outcome in outcomes:
        ends = [event.delay for event in outcome.events if event.to == "OK"]
        if len(ends) == 1 and outcome.details.probe_asn:
            key = (outcome.truth.scenario, outcome.group, outcome.details.service)
            until = float("inf") if ends[0] is None else float(ends[0])
            incidents[key][outcome.details.probe_asn].append(until)
    by_scenario: dict[str, list[list[float]]] = defaultdict(list)
    for (scenario, _, _), networks in incidents.items():
        if len(networks) >= LEAST_NETWORKS:
            by_scenario[scenario].append(sorted(max(delays) for delays in networks.values()))
    return {
        scenario: {
            "incidents": len(some),
            "half_back_median_h": _told([delays[(len(delays) - 1) // 2] for delays in some]),
            "all_back_median_h": _told([delays[-1] for delays in some]),
            "not_all_back_in_a_week": _share(sum(d[-1] > WEEK for d in some), len(some)),
        }
        for scenario, some in sorted(by_scenario.items())
    }


def _told(delays: Sequence[float]) -> float | None:
    """Return the median; None where it is never."""
    middle = percentile(np.array(delays), 50)
    return None if middle is None or np.isinf(middle) else middle


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
