"""How an incident grew: on how many networks it was detected, and by when.

Its item in the feeds keeps its GUID and its time, and is updated as networks join. So a number of
networks always comes with the time by which there were so many.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from itertools import accumulate
from typing import Any, NamedTuple

from ooni_common.output import counted
from outputs.wording import network_name, spoken, within


class Reach(NamedTuple):
    """On how many networks an incident was detected by a time; it was detected on one just then."""

    time: datetime
    networks: int


def growth_of(data: Mapping[str, Any]) -> list[Reach]:
    """Return how an incident grew, from its detection on.

    Args:
        data: what it is, as programs get it (items.data_of).
    """
    joined = Counter(network["detected"] for network in data["networks"])
    times = sorted(joined)
    totals = accumulate(joined[time] for time in times)
    return [
        Reach(datetime.fromisoformat(time), total)
        for time, total in zip(times, totals, strict=True)
    ]


def title_at_detection(data: Mapping[str, Any]) -> str:
    """Return the title of an incident as it was when it was detected; see growth_of."""
    first = min(data["networks"], key=lambda network: str(network["detected"]))
    reached = growth_of(data)[0].networks
    where = network_name(first["probe_asn"]) if reached == 1 else counted(reached, "network")
    return f"{data['service']} appears to be blocked in {within(data['probe_cc'])}: {where}"


def title_of(data: Mapping[str, Any]) -> str:
    """Return the title of an incident: how it began, and how far it has come; see growth_of."""
    title, last = title_at_detection(data), growth_of(data)[-1]
    if last == growth_of(data)[0]:
        return title
    return f"{title}; {counted(last.networks, 'network')} by {spoken(last.time)}"


def times_said(data: Mapping[str, Any]) -> str:
    """Return when an incident began and was detected, in words; see growth_of."""
    growth = growth_of(data)
    first, last = growth[0], growth[-1]
    said = f"began about {spoken(datetime.fromisoformat(data['start']))}, detected"
    if first == last:
        return f"{said} {spoken(first.time)}"
    return (
        f"{said} {spoken(first.time)} on {first.networks:,} of them, on all by {spoken(last.time)}"
    )
