"""The lists that are held, from run to run: what is kept of them, what people and metrics are told.

They are kept in a file of the state directory. Where it is lost, all waiting begins again.
"""

import logging
from collections.abc import Iterator

import msgspec

from citizenlab.holds import DAY, Hold, Holds, Plan, Sick, day_of, describe
from ooni_common import __version__
from ooni_common.config import DatabaseConfig
from ooni_common.run import Job
from ooni_common.state import read_state, write_state
from update_state import UpdateState

log = logging.getLogger("ooni.citizenlab")

SHOWN_HOSTS = 10  # of those that would be lost, in a dry run


class HeldLists:
    """The lists that the run before has held.

    Attributes:
        holds: what is kept of them.
        now: when this run began, in Unix time.
    """

    def __init__(self, job: Job[DatabaseConfig], days: int) -> None:
        self._path = job.state_file.with_suffix(".holds.json")
        self._job = job
        self._days = days
        self.now = job.clock()
        self.holds = read_state(self._path, Holds)
        source = read_state(job.state_file, UpdateState).source
        self._lost = not self.holds.logged and source.get("version") == __version__

    def to_be_judged(self) -> bool:
        """Tell whether the same commit is worth a look: for a person, or to accept a list."""
        shown = self._job.dry_run and bool(self.holds.by_country)
        return shown or self.holds.due(self.now, self._days)

    def tell_nothing_new(self, nothing: str) -> None:
        """Say that there is nothing to do and what is held: while that lasts, once a day."""
        held = self.holds.by_country
        told = 0 <= self.now - self.holds.logged < DAY and not self._job.attended
        level = logging.DEBUG if held and told else logging.INFO
        log.log(level, "nothing to do: %s", nothing)
        if held and not told:
            log.warning("%s", self.summary())
            if not self._job.dry_run:
                self._write(msgspec.structs.replace(self.holds, logged=self.now))
        self._send(held)

    def summary(self) -> str:
        """Return all holds in one line."""
        held = self.holds.by_country
        named = ", ".join(describe(cc, hold, self._days) for cc, hold in held.items())
        if len(held) == 1:
            return f"1 country is held, and keeps its live rows: {named}"
        return f"{len(held)} countries are held, and keep their live rows: {named}"

    def tell(self, plan: Plan) -> None:
        """Log what becomes of the lists of a commit, and send it as metrics."""
        if self._lost and plan.held:
            log.warning("%s is lost: whatever was held is held from today on", self._path)
        for one in plan.held:
            log.warning("%s", self._line(one, plan.holds.by_country[one.cc]))
        sick = {one.cc for one in (*plan.held, *plan.accepted)}
        for cc in sorted(asked_for(self._job) - sick):
            log.warning("%s is not held: there is nothing to accept", cc)
        for one in plan.accepted:
            how = "by --force" if self._job.force else f"after {self._days} days"
            how = "by --accept" if one.cc in asked_for(self._job) else how
            log.warning(
                "%s; accepted %s: %s loses %s rows", one.reason, how, one.cc, f"{one.loss:,}"
            )
        for cc in plan.released:
            if cc not in sick:
                log.info("%s is not held any more", cc)
        self._send(plan.holds.by_country)

    def preview(self, plan: Plan) -> Iterator[str]:
        """Say what would be lost if what is held were accepted, as lines for people."""
        for one in plan.held:
            if one.broken:
                yield f"held: {one.cc}, whose list is broken"
                continue
            hosts = sorted(one.gone)
            more = f" and {len(hosts) - SHOWN_HOSTS:,} more" if len(hosts) > SHOWN_HOSTS else ""
            lost = f", {len(hosts):,} hosts would be gone: {', '.join(hosts[:SHOWN_HOSTS])}{more}"
            yield (
                f"held: {one.cc}; accepted, it would have {one.rows:,} rows instead of"
                f" {one.live.rows:,}{lost if hosts else ''}"
            )

    def forget(self) -> None:
        """Let what was rolled back stay: no list of the same commit is accepted by itself."""
        if self._job.dry_run:
            return
        if self.holds.by_country:
            log.info("held lists are judged again with the next commit")
        self._send({})
        self._write(msgspec.structs.replace(self.holds, by_country={}))

    def keep(self, plan: Plan, commit: str) -> None:
        """Keep what is held of a commit, for the next run."""
        self._write(msgspec.structs.replace(plan.holds, commit=commit))

    def _line(self, one: Sick, hold: Hold) -> str:
        kept = f"{one.reason}; {one.cc} is held: its {one.live.rows:,} live rows stay"
        moment = hold.accepted_at(self._days)
        if moment is None:
            return f"{kept} until upstream mends the list"
        return (
            f"{kept}. The list is accepted on {day_of(moment)} if upstream still wants it, or now"
            f" by --accept {one.cc}"
        )

    def _send(self, held: dict[str, Hold]) -> None:
        metrics = self._job.metrics
        metrics.gauge("held_countries", len(held))
        for cc in sorted(held.keys() | self.holds.by_country.keys()):
            moment = held[cc].accepted_at(self._days) if cc in held else None
            metrics.gauge(f"accepted_at_{cc}", int(moment or 0))

    def _write(self, holds: Holds) -> None:
        write_state(self._path, holds)


def asked_for(job: Job[DatabaseConfig]) -> frozenset[str]:
    """Return the countries that --accept names, in the table's spelling."""
    given: list[str] = getattr(job.arguments, "accept", None) or []
    names = [name.strip() for text in given for name in text.split(",")]
    return frozenset(spelt(name) for name in names if name)


def spelt(name: str) -> str:
    """Return a country in the table's spelling; anything else stays as it is."""
    return "ZZ" if name.lower() in ("zz", "global") else name.lower()
