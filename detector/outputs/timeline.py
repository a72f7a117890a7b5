"""When an incident was mostly over, and when it was over: its turns, in the order of detection.

An incident does not end with its slowest network. It is mostly over when more of its measured
networks are reachable again than are not. Each turn rests on what was known at its hour, so that
what has been told of it stays true whatever comes later.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from outputs.incidents import Incident

MEASURED = timedelta(days=14)  # a network without measurements for so long is not counted

MOSTLY_OVER = "mostly over"
OVER = "ended"

Silent = tuple[int, datetime]  # a network, and an hour before which nobody measured it for long


@dataclass(frozen=True)
class Turn:
    """An hour in which an incident became mostly over, or over.

    Attributes:
        kind: MOSTLY_OVER or OVER.
        end: when the last of the networks that were over was reachable again.
        detected: when it was sure.
        over: the networks that were reachable again.
        blocked: those that were still blocked; none if it is over.
        silent: those that had no measurements for long; of OVER none.
    """

    kind: str
    end: datetime
    detected: datetime
    over: tuple[int, ...]
    blocked: tuple[int, ...]
    silent: tuple[int, ...]


def turns_of(incident: Incident, unmeasured: Collection[Silent] = ()) -> list[Turn]:
    """Return the turns of an incident, in order; none while most of it is blocked.

    Args:
        incident: which.
        unmeasured: of `doubtful_of`, those that had no measurements.
    """
    turns: list[Turn] = []
    kind = ""
    for time in _changes_of(incident):
        turn = _turn_at(incident, time, unmeasured)
        told = turn is None or kind in (turn.kind, OVER)
        repeated = turn is not None and any(turn.end == t.end for t in turns if t.kind == turn.kind)
        if turn is not None and not told and not repeated:
            turns.append(turn)
        kind = "" if turn is None else turn.kind
    return turns


def phase_of(incident: Incident, unmeasured: Collection[Silent] = ()) -> str:
    """Return whether an incident is MOSTLY_OVER or OVER now; "" while most of it is blocked."""
    turn = _turn_at(incident, _changes_of(incident)[-1], unmeasured)
    return "" if turn is None else turn.kind


def doubtful_of(incident: Incident) -> Iterator[Silent]:
    """Yield networks and hours of turns before which nobody may have measured them for long.

    A network was measured when its blocking was detected; before 14 days have passed there is
    nothing to ask.
    """
    if all(blocking.end is None for blocking in incident.blockings):
        return
    for time in _changes_of(incident):
        latest: dict[int, datetime] = {}
        for blocking in incident.blockings:
            if blocking.detected <= time and blocking.is_open_at(time):
                asn = blocking.series.probe_asn
                latest[asn] = max(blocking.detected, latest.get(asn, blocking.detected))
        yield from ((asn, time) for asn in sorted(latest) if latest[asn] <= time - MEASURED)


def _turn_at(incident: Incident, time: datetime, unmeasured: Collection[Silent]) -> Turn | None:
    members = [blocking for blocking in incident.blockings if blocking.detected <= time]
    closed = [b for b in members if not b.is_open_at(time)]
    still = {b.series.probe_asn for b in members if b.is_open_at(time)}
    over = {b.series.probe_asn for b in closed} - still
    silent = {asn for asn in still if (asn, time) in unmeasured}
    blocked = still - silent
    if len(over) <= len(blocked):
        return None
    ends = [b.end for b in closed if b.end is not None and b.series.probe_asn in over]
    networks = (tuple(sorted(part)) for part in (over, blocked, silent))
    return Turn(MOSTLY_OVER if still else OVER, max(ends), time, *networks)


def _changes_of(incident: Incident) -> list[datetime]:
    """Return the hours in which something of an incident was detected, each once."""
    times = {blocking.detected for blocking in incident.blockings}
    times |= {b.end_detected for b in incident.blockings if b.end_detected is not None}
    return sorted(times)
