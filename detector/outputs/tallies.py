"""Measurements counted for the outputs: a chart around an incident, the tally of a period.

The database counts; what can't change any more is asked for once.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from counts import ANOMALY, MEASURED
from ooni_common.database import Database
from ooni_common.state import read_state, write_state
from outputs.incidents import Incident, Key
from series import HOUR, Event, Series, hour_of, time_of

BEFORE, AFTER, LONGEST = 3 * 24, 3 * 24, 30 * 24  # hours around an incident
STEPS = {1: 80, 3: 240, 6: 480}  # hours of a step → the longest window that has such steps
LONG_STEP = 12
DAY = 24  # hours; the shortest step of a period
MOST_STEPS = 240  # of a period
TOGETHER = 30 * 24  # hours in which the windows begin that one question is about

CHARTED = f"""\
SELECT number, intDiv(toUnixTimestamp(measurement_start_time) - origin, step) AS position,
  count(), countIf({ANOMALY})
FROM (
  SELECT toString(test_name) AS test_name, input, toString(probe_cc) AS probe_cc, probe_asn,
    measurement_start_time, anomaly, confirmed
  {MEASURED}
    AND probe_cc IN %(countries)s AND probe_asn IN %(networks)s
) AS measured
INNER JOIN charted USING (test_name, input, probe_cc, probe_asn)
WHERE toUnixTimestamp(measurement_start_time) >= begin
  AND toUnixTimestamp(measurement_start_time) < finish
GROUP BY number, position
"""
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

Steps = tuple[list[int], list[int]]  # measurements and anomalies of each step
NOTHING: Steps = ([], [])


class Tally(NamedTuple):
    """Measurements without failures, and how many of them had anomalies."""

    measurements: int
    anomalies: int


@dataclass(frozen=True)
class Chart:
    """Measurements around an incident, of its series together, step by step.

    Attributes:
        start: of the first step.
        step: how long each one is.
        measurements: of each step, without failures; 0 where there are none.
        anomalies: of these.
    """

    start: datetime
    step: timedelta
    measurements: tuple[int, ...]
    anomalies: tuple[int, ...]

    @property
    def end(self) -> datetime:
        """When the last step ends."""
        return self.start + self.step * len(self.measurements)

    def tally_within(self, start: datetime, end: datetime | None) -> Tally | None:
        """Add up the steps that lie wholly in a time; None: there are no measurements.

        Args:
            start: of the time; one of the steps begins when the incident does.
            end: of the time; None: that of the chart.
        """
        first = max(0, -((self.start - start) // self.step))
        stop = None if end is None else max(0, (end - self.start) // self.step)
        measurements = sum(self.measurements[first:stop])
        return Tally(measurements, sum(self.anomalies[first:stop])) if measurements else None


class Period(NamedTuple):
    """Whole hours in which the measurements of some series are counted.

    Attributes:
        series: whose, sorted.
        start: of the first hour.
        end: of the last one.
    """

    series: tuple[Series, ...]
    start: datetime
    end: datetime


def until_detected(incident: Incident) -> Period:
    """Return from when to when an incident was found."""
    return Period(incident.series, incident.start, incident.detected)


def until_over(incident: Incident, end: datetime) -> Period:
    """Return from when to when an incident lasted."""
    return Period(incident.series, incident.start, end)


def until_sure(event: Event) -> Period:
    """Return from when to when a change of a series was found."""
    return Period((event.series,), event.time, event.detection_time)


def periods_of(incidents: Iterable[Incident], events: Iterable[Event]) -> Iterator[Period]:
    """Yield the periods whose measurements the outputs tell of."""
    for incident in incidents:
        yield until_detected(incident)
        if incident.end is not None:
            yield until_over(incident, incident.end)
    yield from map(until_sure, events)


class Settled(msgspec.Struct, frozen=True):
    """What is kept for the next runs: fingerprint of a window → counts of its first steps."""

    charts: dict[str, Steps] = {}


@dataclass(frozen=True)
class Window:
    """What is charted of an incident, or counted as a whole.

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


def charted(
    database: Database,
    incidents: Sequence[Incident],
    periods: Sequence[Period],
    unsettled: tuple[int, int],
    path: Path,
    *,
    anew: bool,
) -> tuple[dict[Key, Chart], dict[Period, Tally]]:
    """Return a chart of each incident, by its key, and the tally of each period that has any.

    Args:
        database: has the measurements.
        incidents: which.
        periods: which.
        unsettled: hours whose measurements can change: from the first up to the second, without it.
        path: keeps what changes no more.
        anew: ask for all of it nevertheless.
    """
    settled_until, until = unsettled
    earlier = {} if anew else read_state(path, Settled).charts
    windows = [window_of(incident, until) for incident in incidents]
    windows += [_as_window(period) for period in periods]
    prints = [window.fingerprint for window in windows]
    firsts = [_usable(earlier.get(fingerprint, NOTHING)) for fingerprint in prints]
    counts = complete(database, windows, firsts)
    settled: dict[str, Steps] = {}
    for window, fingerprint, (measurements, anomalies) in zip(windows, prints, counts, strict=True):
        over = max(0, (settled_until - window.start) // window.step)
        settled[fingerprint] = (measurements[:over], anomalies[:over])
    if settled != earlier:
        write_state(path, Settled(settled))
    charts = {
        incident.key: chart_of(window, steps)
        for incident, window, steps in zip(incidents, windows, counts, strict=False)
    }
    of_periods = zip(periods, counts[len(incidents) :], strict=True)
    tallies = {period: Tally(sum(steps[0]), sum(steps[1])) for period, steps in of_periods}
    return charts, {period: tally for period, tally in tallies.items() if tally.measurements}


def _usable(steps: Steps) -> Steps:
    """Return kept counts of steps, or none where no run can have left these."""
    measurements, anomalies = steps
    pairs = zip(measurements, anomalies, strict=False)
    if len(measurements) == len(anomalies) and all(0 <= a <= m for m, a in pairs):
        return steps
    return NOTHING


def window_of(incident: Incident, until: int) -> Window:
    """Return what is charted: from some days before an incident to some days after it.

    Of a long one, only the beginning is. One of the steps begins when the incident does, so that
    what was measured before it and since then can be told apart.
    """
    begun = hour_of(incident.start)
    start = begun - BEFORE
    over = until if incident.end_detected is None else hour_of(incident.end_detected) + AFTER
    end = min(until, over, start + LONGEST)
    step = next((step for step, longest in STEPS.items() if end - start <= longest), LONG_STEP)
    start -= (start - begun) % step
    whole_steps = start - (start - end) // step * step
    return Window(incident.series, start, step, min(until, whole_steps), grows=True)


def _as_window(period: Period) -> Window:
    """Return a window with steps, so that the end of a long period costs no question about all."""
    start, end = hour_of(period.start), hour_of(period.end)
    step = DAY * max(1, -((start - end) // (DAY * MOST_STEPS)))
    return Window(period.series, start, step, end, grows=False)


def complete(database: Database, windows: Sequence[Window], firsts: Sequence[Steps]) -> list[Steps]:
    """Return the counts of each window, of which those of the first steps are known."""
    counts: list[Steps] = []
    rows = []
    for number, (window, first) in enumerate(zip(windows, firsts, strict=True)):
        settled = min(len(first[0]), window.steps)
        zeros = [0] * (window.steps - settled)
        counts.append((first[0][:settled] + zeros, first[1][:settled] + zeros))
        begin = window.start + settled * window.step
        if begin < window.end:
            times = (window.start * HOUR, begin * HOUR, window.end * HOUR, window.step * HOUR)
            rows += [(*series, number, *times) for series in window.series]
    for together in _by_time(rows):
        for number, step, measurements, anomalies in _asked(database, together):
            counts[number][0][step] = measurements
            counts[number][1][step] = anomalies
    return counts


def _by_time(rows: list[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    """Yield rows of STRUCTURE that begin at about the same time: years are too much at once."""
    begin = list(STRUCTURE).index("begin")
    rows.sort(key=lambda row: int(row[begin]))
    first = 0
    for place, row in enumerate(rows):
        if row[begin] >= rows[first][begin] + TOGETHER * HOUR:
            yield rows[first:place]
            first = place
    if rows:
        yield rows[first:]


def _asked(database: Database, rows: Sequence[tuple[Any, ...]]) -> list[tuple[int, ...]]:
    """Ask the database for window, step, measurements and anomalies; rows are of STRUCTURE."""
    tests, inputs, countries, networks, _, _, begins, ends, _ = zip(*rows, strict=True)
    parameters = {
        "tests": tuple(set(tests)),
        "inputs": tuple(set(inputs)),
        "countries": tuple(set(countries)),
        "networks": tuple(set(networks)),
    }
    table = {
        "name": "charted",
        "structure": list(STRUCTURE.items()),
        "data": [dict(zip(STRUCTURE, row, strict=True)) for row in rows],
    }
    sql = CHARTED.format(start=min(begins), end=max(ends))
    return database.query(sql, parameters, [table])


def chart_of(window: Window, counts: Steps) -> Chart:
    """Return a chart for people."""
    start, second = time_of(window.start), time_of(window.start + window.step)
    return Chart(start, second - start, tuple(counts[0]), tuple(counts[1]))
