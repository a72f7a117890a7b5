"""Where nobody measures any more, though many usually do: a shutdown, perhaps.

A country, or a network of one, is silent when it has had no run for three hours in which it usually
has ten or more: at these hours of the week, in the middle one of the last five weeks. Hours in
which most countries have none say something of the table, not of the countries.

Each hour is looked at with what was known at its end, so that what has been told stays true.
"""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from ooni_common.database import Database
from ooni_common.state import read_state, write_state
from packed import LETTERS, Packed, asked, letters_of
from series import HOUR, time_of

USUAL = 10  # runs in an hour
WEEK, WEEKS = 7 * 24, 5
MIDDLE = WEEKS // 2 + 1
NEEDED = 3  # hours without a run
REPEATED = 48  # hours after a silence in which the next one of the place is the same news
TOGETHER = 24  # hours that one question is about
SILENCE = "silence.json"  # in state_dir

Place = tuple[str, int]  # a country and a network of it; 0: all of them
WHOLE = 0

ANSWER = Packed(country="UInt16", network="UInt32", hour="UInt32", runs="UInt8")
RUNS = f"""\
SELECT {ANSWER.sql}
FROM (
  SELECT {LETTERS} AS country, if(probe_asn > 0, probe_asn, {WHOLE}) AS network,
    intDiv(toUnixTimestamp(measurement_start_time), {HOUR}) AS hour,
    uniqUpTo({USUAL})(report_id) AS runs
  FROM fastpath
  WHERE measurement_start_time >= toDateTime({{start}})
    AND measurement_start_time < toDateTime({{end}})
    AND match(probe_cc, '^[A-Z][A-Z]$') AND probe_cc != 'ZZ'
  GROUP BY country, network, hour
)
"""
FIRST = """\
SELECT count(), toUnixTimestamp(min(measurement_start_time)) FROM fastpath
WHERE measurement_start_time >= toDateTime({start}) AND measurement_start_time < toDateTime({end})
"""


class Episode(msgspec.Struct, frozen=True):
    """A time without runs; hours since 1970.

    Attributes:
        place: where.
        start: the first hour.
        detected: the end of the hour that made it sure.
        end: the first hour with a run; None: there was none yet.
    """

    place: Place
    start: int
    detected: int
    end: int | None = None


class Quiet(msgspec.Struct):
    """A place without runs, at the moment.

    Attributes:
        since: the first hour.
        usual: hours since then in which it usually has many.
        told: the place in `Watch.episodes`, once it is sure; -1.
    """

    since: int
    usual: int = 0
    told: int = -1


class Watch(msgspec.Struct):
    """What is known before an hour.

    Attributes:
        hour: the first one that was not looked at; 0: none was.
        busy: the places that had many runs, for each hour of the last weeks (as text, for JSON).
        quiet: the places that have none.
        episodes: all silences, in the order in which they were detected.
    """

    hour: int = 0
    busy: dict[str, list[Place]] = {}
    quiet: list[tuple[Place, Quiet]] = []
    episodes: list[Episode] = []

    def look(self, hour: int, runs: Mapping[Place, int]) -> None:
        """Take the runs of the next hour."""
        self.hour = hour + 1
        counts = Counter(
            place
            for week in range(1, WEEKS + 1)
            for place in self.busy.get(str(hour - week * WEEK), ())
        )
        usual = {place for place, count in counts.items() if count >= MIDDLE}
        if not _is_of_the_table(usual, runs):
            self._compare(hour, usual, runs)
        self.busy[str(hour)] = sorted(place for place, count in runs.items() if count >= USUAL)
        self.busy.pop(str(hour - WEEKS * WEEK), None)

    def _compare(self, hour: int, usual: set[Place], runs: Mapping[Place, int]) -> None:
        quiet = dict(self.quiet)
        for place in [place for place in quiet if runs.get(place)]:
            told = quiet.pop(place).told
            if told >= 0:
                self.episodes[told] = msgspec.structs.replace(self.episodes[told], end=hour)
        for place in sorted(usual):  # a country stands before its networks
            if runs.get(place):
                continue
            state = quiet.setdefault(place, Quiet(hour))
            state.usual += 1
            if state.usual >= NEEDED and state.told < 0 and not _is_part(place, state, quiet):
                state.told = len(self.episodes)
                self.episodes.append(Episode(place, state.since, hour + 1))
        self.quiet = sorted(quiet.items(), key=lambda item: item[0])


def _is_of_the_table(usual: Iterable[Place], runs: Mapping[Place, int]) -> bool:
    """Tell whether most countries have no runs: then they are missing here, not there."""
    countries = [place for place in usual if place[1] == WHOLE]
    silent = sum(1 for place in countries if not runs.get(place))
    return not runs or 2 * silent > max(2, len(countries))


def _is_part(place: Place, state: Quiet, quiet: Mapping[Place, Quiet]) -> bool:
    """Tell whether the whole country has been silent for as long."""
    country = quiet.get((place[0], WHOLE))
    return place[1] != WHOLE and country is not None and country.since <= state.since


@dataclass(frozen=True)
class Silence:
    """One or more times without runs that are one piece of news.

    Attributes:
        probe_cc: the country.
        probe_asn: the network; 0: the whole country.
        episodes: the first one first, at least one.
    """

    probe_cc: str
    probe_asn: int
    episodes: tuple[Episode, ...]

    @property
    def start(self) -> datetime:
        """When the first one began."""
        return time_of(self.episodes[0].start)

    @property
    def detected(self) -> datetime:
        """When that was sure."""
        return time_of(self.episodes[0].detected)

    @property
    def end(self) -> datetime | None:
        """When the last one ended; None: it has not."""
        end = self.episodes[-1].end
        return None if end is None else time_of(end)


def silences_of(episodes: Iterable[Episode]) -> list[Silence]:
    """Put the silences of a place together that follow each other soon: curfews."""
    groups: dict[Place, list[list[Episode]]] = {}
    for episode in episodes:
        of_place = groups.setdefault(episode.place, [])
        end = of_place[-1][-1].end if of_place else None
        if end is not None and episode.start <= end + REPEATED:
            of_place[-1].append(episode)
        else:
            of_place.append([episode])
    silences = [
        Silence(*place, tuple(group)) for place, of_place in groups.items() for group in of_place
    ]
    return sorted(silences, key=lambda silence: (silence.detected, silence.probe_cc))


def watched(
    database: Database, hours: tuple[int, int, int], state_dir: Path, *, reprocess: bool
) -> Sequence[Silence]:
    """Return all silences, and keep what is known of them for the next run.

    Args:
        database: has `fastpath`.
        hours: the first one to look at; up to which measurements do not change any more; and up to
            which to look.
        state_dir: where that is kept.
        reprocess: look at all hours again; what was detected before the first one stays.
    """
    start, settled, until = hours
    path = state_dir / SILENCE
    kept = read_state(path, Watch)
    watch = kept
    damaged = any(state.told >= len(kept.episodes) for _, state in kept.quiet)
    if reprocess or damaged or not 0 < kept.hour <= settled:
        old = [episode for episode in kept.episodes if episode.detected <= start]
        watch = Watch(hour=start - WEEKS * WEEK, episodes=old)
    _look_up_to(database, watch, settled)
    written = msgspec.json.encode(watch)
    write_state(path, watch)
    watch = msgspec.json.decode(written, type=Watch)
    _look_up_to(database, watch, until)
    return silences_of(watch.episodes)


def _look_up_to(database: Database, watch: Watch, end: int) -> None:
    if watch.hour >= end:
        return
    times = {"start": watch.hour * HOUR, "end": end * HOUR}
    ((count, oldest),) = database.query(FIRST.format(**times))
    # Of hours without a run anywhere there is nothing to learn.
    watch.hour = oldest // HOUR if count else end
    for first in range(watch.hour, end, TOGETHER):
        last = min(first + TOGETHER, end)
        for hour, runs in _runs_of(database, first, last).items():
            watch.look(hour, runs)


def _runs_of(database: Database, start: int, end: int) -> dict[int, dict[Place, int]]:
    """Return the runs of places from an hour up to another one, without it, hour by hour.

    Of a network at most `USUAL` + 1; of a country the sum of those.
    """
    runs: dict[int, dict[Place, int]] = {hour: {} for hour in range(start, end)}
    rows = asked(database, RUNS.format(start=start * HOUR, end=end * HOUR), None, ANSWER)
    codes = map(functools.cache(letters_of), rows["country"].tolist())
    numbers = (rows[name].tolist() for name in ("network", "hour", "runs"))
    for code, asn, hour, count in zip(codes, *numbers, strict=True):
        of_hour = runs[hour]
        of_hour[code, WHOLE] = of_hour.get((code, WHOLE), 0) + count
        if asn != WHOLE:
            of_hour[code, asn] = count
    return runs
