"""Charts of incidents, which the database is asked for as long as they can change."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from checkpoints import Checkpoint
from counts import ANOMALY, HOUR, MEASURED, hour_of, tests_and_inputs, time_of
from incidents import Incident, Series
from ooni_common.database import Database
from ooni_common.state import read_state, write_state
from report import Chart

BEFORE, AFTER, LONGEST = 3 * 24, 3 * 24, 30 * 24  # hours around an incident
STEPS = {1: 80, 3: 240, 6: 480}  # hours of a step → the longest window that has such steps
LONG_STEP = 12

CHARTED = f"""\
SELECT number, intDiv(toUnixTimestamp(measurement_start_time) - begin, step) AS position,
  count(), countIf({ANOMALY})
FROM (
  SELECT toString(test_name) AS test_name, input, toString(probe_cc) AS probe_cc, probe_asn,
    measurement_start_time, anomaly, confirmed
  {MEASURED}
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
    "begin": "Int64",
    "finish": "Int64",
    "step": "Int64",
}

Key = tuple[str, str, datetime]  # Incident.key
Counts = tuple[list[int], list[int]]  # measurements and anomalies of each step


class Known(msgspec.Struct, frozen=True):
    """What is kept for the next runs: fingerprint of a window → its counts."""

    charts: dict[str, Counts] = {}


@dataclass(frozen=True)
class Window:
    """What is charted of an incident.

    Attributes:
        series: whose measurements are added up.
        start: the first hour, in hours since 1970.
        step: hours that are added up.
        steps: how many.
    """

    series: tuple[Series, ...]
    start: int
    step: int
    steps: int

    @property
    def end(self) -> int:
        """The hour after the last one."""
        return self.start + self.step * self.steps

    @property
    def fingerprint(self) -> str:
        """What tells this window from all others."""
        text = repr((self.series, self.start, self.step, self.steps))
        return hashlib.sha256(text.encode()).hexdigest()


def charted(
    database: Database, incidents: Sequence[Incident], checkpoint: Checkpoint, path: Path
) -> dict[Key, Chart]:
    """Return a chart of each incident, by its key.

    Args:
        database: has the measurements.
        incidents: which.
        checkpoint: of this run; measurements of before it are not looked at again.
        path: keeps the charts that change no more.
    """
    known = read_state(path, Known)
    windows = {incident.key: window_of(incident, checkpoint.until) for incident in incidents}
    prints = {key: window.fingerprint for key, window in windows.items()}
    asked = [key for key in windows if prints[key] not in known.charts]
    found = counts_of_windows(database, [windows[key] for key in asked])
    counts = known.charts | {prints[key]: each for key, each in zip(asked, found, strict=True)}
    settled = Known(
        {
            prints[key]: counts[prints[key]]
            for key, window in windows.items()
            if window.end <= checkpoint.hour
        }
    )
    if settled != known:
        write_state(path, settled)
    return {key: chart_of(window, counts[prints[key]]) for key, window in windows.items()}


def window_of(incident: Incident, until: int) -> Window:
    """Return what is charted: from some days before an incident to some days after it.

    Of a long one, only the beginning is.
    """
    start = hour_of(incident.start) - BEFORE
    over = until if incident.end_detected is None else hour_of(incident.end_detected) + AFTER
    end = min(until, over, start + LONGEST)
    step = next((step for step, longest in STEPS.items() if end - start <= longest), LONG_STEP)
    start -= start % step
    series = tuple(sorted({block.series for block in incident.blocks}))
    return Window(series, start, step, max(1, -((start - end) // step)))


def counts_of_windows(database: Database, windows: Sequence[Window]) -> list[Counts]:
    """Ask the database for the counts of each window, all at once."""
    if not windows:
        return []
    rows = [
        (*series, number, window.start * HOUR, window.end * HOUR, window.step * HOUR)
        for number, window in enumerate(windows)
        for series in window.series
    ]
    charted_series = {
        "name": "charted",
        "structure": list(STRUCTURE.items()),
        "data": [dict(zip(STRUCTURE, row, strict=True)) for row in rows],
    }
    start = min(window.start for window in windows) * HOUR
    end = max(window.end for window in windows) * HOUR
    targets = {series[:2] for window in windows for series in window.series}
    found = database.query(
        CHARTED.format(start=start, end=end), tests_and_inputs(targets), [charted_series]
    )
    counts: list[Counts] = [([0] * each.steps, [0] * each.steps) for each in windows]
    for number, position, measurements, anomalies in found:
        counts[number][0][position] = measurements
        counts[number][1][position] = anomalies
    return counts


def chart_of(window: Window, counts: Counts) -> Chart:
    """Return a chart for people."""
    start, second = time_of(window.start), time_of(window.start + window.step)
    return Chart(start, second - start, tuple(counts[0]), tuple(counts[1]))
