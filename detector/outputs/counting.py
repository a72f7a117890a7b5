"""Counting measurements step by step, for the outputs.

The database counts; what can't change any more is asked for once, and kept.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from counts import ANOMALY, MEASURED
from numbered import COUNTRY, TARGET, Numbered
from ooni_common.database import Database
from ooni_common.state import read_state, write_state
from series import HOUR, Series

TOGETHER = 30 * 24  # hours in which the windows begin that one question is about
LOOKBACK = 24 * HOUR  # seconds before a step in which a run of it may have been counted

# A run (report_id) counts in the step in which it is first seen, so that the runs of steps add up.
# One that pauses for longer than LOOKBACK counts again, whichever steps are asked for.
CHARTED = f"""\
SELECT number, position, sum(measured), sum(bad), countIf(latest_before < starts - {LOOKBACK})
FROM (
  SELECT number, position, measured, bad, starts, begin,
    lagInFrame(latest) OVER (PARTITION BY number, run ORDER BY position) AS latest_before
  FROM (
    SELECT number, run, begin, intDiv(time - origin, step) AS position,
      origin + position * step AS starts, count() AS measured, countIf(is_bad) AS bad,
      max(time) AS latest
    FROM (
      SELECT {TARGET} AS target, {COUNTRY} AS country, probe_asn,
        toInt64(toUnixTimestamp(measurement_start_time)) AS time, {ANOMALY} AS is_bad,
        cityHash64(report_id) AS run
      {MEASURED}
        AND probe_cc IN %(countries)s AND probe_asn IN %(networks)s
    ) AS measured
    INNER JOIN charted USING (target, country, probe_asn)
    WHERE time >= greatest(origin, begin - {LOOKBACK}) AND time < finish
    GROUP BY number, run, origin, step, begin, position
  )
)
WHERE starts >= begin
GROUP BY number, position
"""
# Of rows with another input nothing else is read. The server looks at columns of the sorting key
# alone before FINAL, as `input` is: they are the same in all versions of a row.
INPUT_FIRST = {"optimize_move_to_prewhere_if_final": "1"}
STRUCTURE = {
    "test_name": "String",
    "input": "String",
    "probe_cc": "String",
    "probe_asn": "Int32",
    "number": "UInt32",
    "origin": "Int64",
    "begin": "Int64",
    "finish": "Int64",
    "step": "Int64",
}

Steps = tuple[list[int], list[int], list[int]]  # measurements, anomalies and runs of each step
NOTHING: Steps = ([], [], [])


class Settled(msgspec.Struct, frozen=True):
    """What is kept for the next runs: fingerprint of a window → counts of its first steps."""

    windows: dict[str, Steps] = {}


@dataclass(frozen=True)
class Window:
    """What is counted.

    Attributes:
        series: whose measurements are added up.
        start: the first hour, in hours since 1970.
        step: hours that are added up.
        end: the hour after the last one, in the middle of a step perhaps.
        grows: whether it can end later in the next run.
    """

    series: tuple[Series, ...]
    start: int
    step: int
    end: int
    grows: bool

    @property
    def steps(self) -> int:
        """How many there are; at least one."""
        return max(1, -((self.start - self.end) // self.step))

    @property
    def fingerprint(self) -> str:
        """What tells this window from all others, but for how far it goes while it grows."""
        beginning = (self.series, self.start, self.step)
        text = repr(beginning if self.grows else (*beginning, self.end))
        return hashlib.sha256(text.encode()).hexdigest()


class Counting:
    """Counts windows, and keeps the steps that change no more for the next run.

    Args:
        database: has the measurements.
        unsettled: hours whose measurements can change: from the first up to the second, without it.
        path: keeps what changes no more.
        reprocess: ask for all of it nevertheless.

    Attributes:
        database, reprocess: as above.
        settled_until: the first of the unsettled hours.
        until: the hour after the last one.
    """

    def __init__(
        self, database: Database, unsettled: tuple[int, int], path: Path, *, reprocess: bool
    ) -> None:
        self.database = database
        self.settled_until, self.until = unsettled
        self.reprocess = reprocess
        self._path = path
        self._kept = read_state(path, Settled).windows
        self._earlier: dict[str, Steps] = {} if reprocess else self._kept
        self._settled: dict[str, Steps] = {}

    def count(self, windows: Sequence[Window]) -> list[Steps]:
        """Return the counts of the steps of each window."""
        prints = [window.fingerprint for window in windows]
        firsts = [_usable(self._earlier.get(fingerprint, NOTHING)) for fingerprint in prints]
        counts = complete(self.database, windows, firsts)
        for window, fingerprint, steps in zip(windows, prints, counts, strict=True):
            over = max(0, (self.settled_until - window.start) // window.step)
            self._settled[fingerprint] = (steps[0][:over], steps[1][:over], steps[2][:over])
        return counts

    def keep(self) -> None:
        """Write what changes no more, of all windows that were counted."""
        if self._settled != self._kept:
            write_state(self._path, Settled(self._settled))


def _usable(steps: Steps) -> Steps:
    """Return kept counts of steps, or none where no run can have left these."""
    if len({len(counts) for counts in steps}) > 1:
        return NOTHING
    possible = (0 <= a <= m and 0 <= r <= m for m, a, r in zip(*steps, strict=True))
    return steps if all(possible) else NOTHING


def complete(database: Database, windows: Sequence[Window], firsts: Sequence[Steps]) -> list[Steps]:
    """Return the counts of each window, of which those of the first steps are known."""
    counts: list[Steps] = []
    rows = []
    for number, (window, first) in enumerate(zip(windows, firsts, strict=True)):
        settled = min(len(first[0]), window.steps)
        zeros = [0] * (window.steps - settled)
        measured, bad, runs = (part[:settled] + zeros for part in first)
        counts.append((measured, bad, runs))
        begin = window.start + settled * window.step
        if begin < window.end:
            times = (window.start * HOUR, begin * HOUR, window.end * HOUR, window.step * HOUR)
            rows += [(*series, number, *times) for series in window.series]
    for together in by_time(rows, list(STRUCTURE).index("begin")):
        for number, step, *counted in asked(
            database, CHARTED, "charted", STRUCTURE, together, LOOKBACK
        ):
            for part, value in zip(counts[number], counted, strict=True):
                part[step] = value
    return counts


def by_time(rows: list[tuple[Any, ...]], begin: int) -> Iterator[list[tuple[Any, ...]]]:
    """Yield rows that begin at about the same time: years are too much at once.

    Args:
        rows: are sorted.
        begin: where in a row that is, in seconds since 1970.
    """
    rows.sort(key=lambda row: int(row[begin]))
    first = 0
    for place, row in enumerate(rows):
        if row[begin] >= rows[first][begin] + TOGETHER * HOUR:
            yield rows[first:place]
            first = place
    if rows:
        yield rows[first:]


def asked(
    database: Database,
    sql: str,
    name: str,
    structure: Mapping[str, str],
    rows: Sequence[tuple[Any, ...]],
    earlier: int = 0,
) -> list[tuple[Any, ...]]:
    """Ask for what was measured between the times of each row.

    Args:
        database: is asked.
        sql: joins the rows, as a table, by target and country, and reads from {start} to {end}.
        name: of that table.
        structure: column → type: test_name, input, probe_cc and more, among them `begin` and
            `finish` in seconds since 1970.
        rows: its rows.
        earlier: seconds before the first `begin` from which on measurements are read.
    """
    columns = dict(zip(structure, zip(*rows, strict=True), strict=True))
    targets = set(zip(columns["test_name"], columns["input"], strict=True))
    numbered = Numbered(targets, set(columns["probe_cc"]))
    parameters = {**numbered.parameters, "networks": tuple(set(columns.get("probe_asn", ())))}
    table = numbered.table(name, structure, rows)
    period = {"start": min(columns["begin"]) - earlier, "end": max(columns["finish"])}
    return database.query(sql.format(**period), parameters, [table], INPUT_FIRST)
