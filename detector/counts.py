"""Hourly counts of measurements, as the database adds them up.

    fastpath → for each series and hour: measurements, anomalies, confirmed

A measurement that failed tells nothing and is not counted. `fastpath` replaces rows: FINAL counts
a measurement that was processed again once, whether the server has merged its rows or not.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from detector_config import Target
from incidents import Series
from ooni_common.database import Database
from sequential import Indices

HOUR = 3600  # seconds
CHUNK = 24  # hours that one question is about: what is in memory at once

MEASURED = """\
FROM fastpath FINAL
WHERE measurement_start_time >= toDateTime({start}) AND measurement_start_time < toDateTime({end})
  AND (test_name, input) IN %(targets)s
  AND match(probe_cc, '^[A-Z][A-Z]$') AND probe_cc != 'ZZ' AND probe_asn > 0
  AND msm_failure != 't'
"""
ANOMALY = "(anomaly = 't' OR confirmed = 't')"
COUNTS = f"""\
SELECT test_name, input, probe_cc, probe_asn,
  groupArray(hour), groupArray(measurements), groupArray(anomalies), groupArray(confirmed_ones)
FROM (
  SELECT toString(test_name) AS test_name, input, toString(probe_cc) AS probe_cc, probe_asn,
    intDiv(toUnixTimestamp(measurement_start_time) - {{start}}, {HOUR}) AS hour,
    count() AS measurements,
    countIf({ANOMALY}) AS anomalies,
    countIf(confirmed = 't') AS confirmed_ones
  {MEASURED}
  GROUP BY test_name, input, probe_cc, probe_asn, hour
)
GROUP BY test_name, input, probe_cc, probe_asn
ORDER BY test_name, input, probe_cc, probe_asn
"""
MEASURED_HOURS = """\
SELECT count(), min(measurement_start_time), max(measurement_start_time) FROM fastpath
WHERE measurement_start_time >= toDateTime({start}) AND measurement_start_time < toDateTime({end})
"""


@dataclass(frozen=True)
class Counts:
    """Hourly counts, sorted by hour.

    Attributes:
        series: those that have any.
        hour: of each count, in hours since 1970.
        index: its series.
        measurements: how many, from 1.
        anomalies: how many of them.
        confirmed: how many of them show a known block page.
    """

    series: Sequence[Series]
    hour: Indices
    index: Indices
    measurements: Indices
    anomalies: Indices
    confirmed: Indices

    def hours(self) -> Iterator[tuple[int, slice]]:
        """Yield each hour that has counts, and where they are."""
        hours, starts = np.unique(self.hour, return_index=True)
        bounds = [*starts.tolist(), len(self.hour)]
        for hour, (start, end) in zip(hours.tolist(), itertools.pairwise(bounds), strict=True):
            yield hour, slice(start, end)


def measured_hours(database: Database, start: int, end: int) -> tuple[int, int] | None:
    """Return the first hour with a measurement of anything, and the end of the last one.

    Args:
        database: has `fastpath`.
        start: looked at from this hour on (in hours since 1970, as all).
        end: up to this one, without it.

    Returns:
        None where there is no measurement.
    """
    sql = MEASURED_HOURS.format(start=start * HOUR, end=end * HOUR)
    ((count, oldest, newest),) = database.query(sql)
    return (hour_of(oldest), hour_of(newest) + 1) if count else None


def counts_of(database: Database, targets: Collection[Target], start: int, end: int) -> Counts:
    """Return the counts from an hour up to another one, without it.

    What is in memory grows with the hours: ask for `CHUNK` at once.
    """
    sql = COUNTS.format(start=start * HOUR, end=end * HOUR)
    return _sorted_by_hour(database.query(sql, {"targets": tuple(targets)}), start)


def _sorted_by_hour(rows: Sequence[tuple[Any, ...]], first: int) -> Counts:
    lengths = [len(row[4]) for row in rows]
    index = np.repeat(np.arange(len(rows)), lengths)
    columns = [_flat((row[column] for row in rows), sum(lengths)) for column in range(4, 8)]
    order = np.argsort(columns[0], kind="stable")
    hour, measurements, anomalies, confirmed = (column[order] for column in columns)
    series = [Series(*row[:4]) for row in rows]
    return Counts(series, hour + first, index[order], measurements, anomalies, confirmed)


def _flat(lists: Iterable[Sequence[int]], total: int) -> Indices:
    return np.fromiter(itertools.chain.from_iterable(lists), dtype=np.int64, count=total)


def hour_of(time: datetime) -> int:
    """Return the hour of a time, in hours since 1970; a time without zone is UTC."""
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()) // HOUR


def time_of(hour: int) -> datetime:
    """Return when an hour begins."""
    return datetime.fromtimestamp(hour * HOUR, tz=UTC)
