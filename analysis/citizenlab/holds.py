"""Which lists are held: one sick country must not stop the others, nor lose its rows.

The list of a country is held when it is broken, or when much of what is live would disappear. Its
country keeps its live rows then. A list that lost much is accepted by a person, or by itself when
upstream has wanted it long enough. Everything here is decided on figures, without a database.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from citizenlab.lists import TestList, file_of
from refusals import Moment

DAY = 86_400  # seconds
TOLERATED_ROWS = 20  # that a country may lose, however small it is; hosts, too
HELD_HOSTS_SHARE = 0.90  # of the live hosts of a country; if more of them are gone, it is held
MOST_HELD_SHARE = 1 / 3  # of all lists


class Hold(msgspec.Struct, frozen=True):
    """How long a country is held, and for what.

    Attributes:
        since: when it began, in Unix time.
        wanted_since: since when upstream has wanted this loss; 0 while its list is broken.
        rows: of the list when it began to be wanted.
        kinds: of its losses: "rows", "hosts".
        reason: for people.
    """

    since: Moment = 0
    wanted_since: Moment = 0
    rows: int = 0
    kinds: list[str] = []
    reason: str = ""

    def accepted_at(self, days: int) -> float | None:
        """Return when it is accepted by itself, after so many days; None: never."""
        return self.wanted_since + days * DAY if self.wanted_since else None


class Holds(msgspec.Struct, frozen=True):
    """All that are held, as they are kept in the state directory.

    Attributes:
        by_country: cc → its hold.
        tried: when lists were last accepted by themselves, in Unix time.
        logged: when the log was last told of all of them.
        commit: whose lists they are.
    """

    by_country: dict[str, Hold] = {}
    tried: Moment = 0
    logged: Moment = 0
    commit: str = ""

    def due(self, now: float, days: int) -> bool:
        """Tell whether a list may be accepted by itself now; once a day is enough to try."""
        moments = [hold.accepted_at(days) for hold in self.by_country.values()]
        tried = 0 <= now - self.tried < DAY
        return not tried and any(moment and moment <= now for moment in moments)


@dataclass(frozen=True)
class Live:
    """What is live of a country: how many rows, and their hosts.

    The hosts may be left out where the list has the very same rows: none can be gone.
    """

    rows: int = 0
    hosts: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Rules:
    """When a list is held, and for how long.

    Attributes:
        country_share: of the live rows of a country, that its list may lose.
        share: of all live rows, that may be lost together.
        days: after which a list is accepted.
        accepted: countries whose list a person accepts.
        all_accepted: a person accepts every list that is not broken.
    """

    country_share: float
    share: float
    days: int
    accepted: frozenset[str] = frozenset()
    all_accepted: bool = False


@dataclass(frozen=True)
class Sick:
    """A list that is to be held.

    Attributes:
        cc: its country.
        broken: nothing of it can be used.
        reason: why, with file and line.
        kinds: of its losses.
        rows: of the list.
        live: of its country.
        gone: live hosts that the list has not.
    """

    cc: str
    broken: bool
    reason: str
    kinds: list[str]
    rows: int
    live: Live
    gone: AbstractSet[str] = frozenset()

    @property
    def loss(self) -> int:
        """How many rows would be lost."""
        return self.live.rows - self.rows


@dataclass(frozen=True)
class Plan:
    """What becomes of the lists of a commit.

    Attributes:
        held: the lists that are not loaded.
        accepted: those that are, though much is lost.
        released: countries that are not held any more.
        holds: for the state file.
        lists: how many lists and countries there are.
        rows: in all, afterwards.
    """

    held: Sequence[Sick]
    accepted: Sequence[Sick]
    released: Sequence[str]
    holds: Holds
    lists: int
    rows: int = field(default=0)

    @property
    def too_many(self) -> bool:
        """Whether so many lists are held that the commit as a whole can't be trusted."""
        return len(self.held) > self.lists * MOST_HELD_SHARE


def plan_of(
    lists: Iterable[TestList], live: Mapping[str, Live], holds: Holds, rules: Rules, now: float
) -> Plan:
    """Decide which lists are held.

    Args:
        lists: of the newest commit.
        live: cc → what the live table has.
        holds: of the last run.
        rules: when and for how long.
        now: Unix time.
    """
    by_country = {test_list.cc: test_list for test_list in lists}
    countries = sorted(by_country.keys() | live.keys())
    sick = [
        found
        for cc in countries
        if (found := examine(cc, by_country.get(cc), live.get(cc, Live()), rules))
    ]
    next_holds = {one.cc: _next_hold(one, holds.by_country.get(one.cc), now) for one in sick}
    rows = {cc: by_country[cc].rows.count if cc in by_country else 0 for cc in countries}
    live_rows = sum(one.rows for one in live.values())
    accepted = [one for one in sick if not one.broken and _by_person(one, rules)]
    after = sum(rows.values()) + sum(one.loss for one in sick if one not in accepted)
    tried = holds.tried
    if holds.due(now, rules.days):
        tried = now
        for one in sorted(sick, key=lambda one: one.loss):
            moment = next_holds[one.cc].accepted_at(rules.days)
            fits = live_rows - (after - one.loss) <= live_rows * rules.share
            if one not in accepted and moment and moment <= now and fits:
                accepted.append(one)
                after -= one.loss
    held = [one for one in sick if one not in accepted]
    return Plan(
        held=held,
        accepted=accepted,
        released=sorted(holds.by_country.keys() - {one.cc for one in held}),
        holds=Holds({one.cc: next_holds[one.cc] for one in held}, tried, now),
        lists=len(countries),
        rows=after,
    )


def examine(cc: str, test_list: TestList | None, live: Live, rules: Rules) -> Sick | None:
    """Return why a list is to be held; None for one that is well."""
    rows = test_list.rows.count if test_list else 0
    if test_list and test_list.broken:
        return Sick(cc, broken=True, reason=str(test_list.broken), kinds=[], rows=0, live=live)
    lost = live.rows - rows
    many_rows = lost > TOLERATED_ROWS and lost > live.rows * rules.country_share
    gone: AbstractSet[str] = frozenset()
    if live.hosts:
        gone = live.hosts - test_list.rows.hosts() if test_list else live.hosts
    many_hosts = len(gone) > TOLERATED_ROWS and len(gone) > len(live.hosts) * HELD_HOSTS_SHARE
    if not many_rows and not many_hosts:
        return None
    kinds = ["rows"] * many_rows + ["hosts"] * many_hosts
    if not test_list:
        reason = f"{file_of(cc)}: no such list, where {live.rows:,} rows are live"
    elif many_rows:
        reason = f"{test_list.file}: {rows:,} rows, where {live.rows:,} are live"
    else:
        reason = f"{test_list.file}: {len(gone):,} of {len(live.hosts):,} live hosts are gone"
    return Sick(cc, broken=False, reason=reason, kinds=kinds, rows=rows, live=live, gone=gone)


def describe(cc: str, hold: Hold, days: int) -> str:
    """Return a hold in a few words: `ru (since 2026-11-01, accepted on 2026-11-15)`."""
    moment = hold.accepted_at(days)
    until = f"accepted on {day_of(moment)}" if moment else "broken"
    return f"{cc} (since {day_of(hold.since)}, {until})"


def day_of(moment: float) -> str:
    """Return the day of a Unix time, in UTC."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"


def _by_person(one: Sick, rules: Rules) -> bool:
    return rules.all_accepted or one.cc in rules.accepted


def _next_hold(one: Sick, last: Hold | None, now: float) -> Hold:
    """Return the hold after this run: a loss that became worse starts its wait over."""
    if not last or last.since > now:  # also where the clock was wrong
        last = Hold(since=now)
    if one.broken:
        return Hold(since=last.since, reason=one.reason)
    shrunk = last.rows - one.rows > max(TOLERATED_ROWS, last.rows / 2)
    same = 0 < last.wanted_since <= now and set(one.kinds) <= set(last.kinds) and not shrunk
    return Hold(
        since=last.since,
        wanted_since=last.wanted_since if same else now,
        rows=last.rows if same else one.rows,
        kinds=last.kinds if same else one.kinds,
        reason=one.reason,
    )
