"""Hourly counts of measurements, as the database adds them up.

    fastpath → for each series and hour: measurements, anomalies, confirmed

A measurement that failed tells nothing and is not counted. `fastpath` replaces rows: FINAL counts
a measurement that was processed again once, whether the server has merged its rows or not.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from ooni_common.database import Database
from ooni_common.errors import ConfigError
from series import HOUR, Series, Target, hour_of

Grid = NDArray[np.int64]  # a row for each hour, a column for each series

FASTPATH_COLUMNS = (
    "measurement_uid",
    "report_id",
    "measurement_start_time",
    "test_name",
    "input",
    "probe_cc",
    "probe_asn",
    "anomaly",
    "confirmed",
    "msm_failure",
)
CHUNK = 24  # hours that one question is about: what is in memory at once

MEASURED = """\
FROM fastpath FINAL
WHERE measurement_start_time >= toDateTime({start}) AND measurement_start_time < toDateTime({end})
  AND test_name IN %(tests)s AND input IN %(inputs)s AND msm_failure != 't'
"""
ANOMALY = "(anomaly = 't' OR confirmed = 't')"
# The combinator Resample counts for each hour: an array of as many numbers as there are hours. As
# text, it reaches numpy in a tenth of the time that the driver needs for arrays. What a series must
# be is looked at once for each, not for each measurement.
COUNTS = f"""\
WITH toUInt32(intDiv(toUnixTimestamp(measurement_start_time) - {{start}}, {HOUR})) AS hour
SELECT toString(test_name), input, toString(probe_cc), probe_asn,
  arrayStringConcat(countResample(0, {{hours}}, 1)(hour), ','),
  arrayStringConcat(countIfResample(0, {{hours}}, 1)({ANOMALY}, hour), ','),
  arrayStringConcat(countIfResample(0, {{hours}}, 1)(confirmed = 't', hour), ',')
{MEASURED}
GROUP BY test_name, input, probe_cc, probe_asn
HAVING (test_name, input) IN %(targets)s
  AND match(probe_cc, '^[A-Z][A-Z]$') AND probe_cc != 'ZZ' AND probe_asn > 0
"""
MEASURED_HOURS = """\
SELECT count(), toUnixTimestamp(min(measurement_start_time)),
  toUnixTimestamp(max(measurement_start_time))
FROM fastpath
WHERE measurement_start_time >= toDateTime({start}) AND measurement_start_time < toDateTime({end})
"""
# The server makes a measurement's uid when it receives it, and begins it with its own time.
RECEIVED = """\
SELECT max(substring(measurement_uid, 1, 14))
FROM fastpath
WHERE measurement_start_time >= toDateTime({start}) AND measurement_start_time < toDateTime({end})
  AND match(measurement_uid, '^20[0-9]{{12}}[.]')
"""
RECENT = 24  # hours before the last measurement in which the last one received is looked for


@dataclass(frozen=True)
class HourlyCounts:
    """Hourly counts.

    Attributes:
        series: those that have any; the columns.
        start: the first hour, in hours since 1970.
        measurements: how many.
        anomalies: how many of them.
        confirmed: how many of them show a known block page.
    """

    series: Sequence[Series]
    start: int
    measurements: Grid
    anomalies: Grid
    confirmed: Grid


def measured_hours(database: Database, start: int, end: int) -> tuple[int, int] | None:
    """Return the first hour with a measurement of anything, and the end of the last one.

    The last one is no later than when the server received something: a probe whose clock is fast
    must not hide that nothing comes any more.

    Args:
        database: has `fastpath`.
        start: looked at from this hour on (in hours since 1970, as all).
        end: up to this one, without it.

    Returns:
        None where there is no measurement.

    Raises:
        ConfigError: the database has no `fastpath`, which only others make.
    """
    if not database.exists("fastpath"):
        raise ConfigError("fastpath: no such table; name the database of OONI in db_uri")
    sql = MEASURED_HOURS.format(start=start * HOUR, end=end * HOUR)
    ((count, oldest, newest),) = database.query(sql)
    if not count:
        return None
    first, last = oldest // HOUR, newest // HOUR
    received = _received(database, max(start, last - RECENT), last + 1)
    return first, max(first, last if received is None else min(last, received)) + 1


def _received(database: Database, start: int, end: int) -> int | None:
    """Return the hour in which the server received the last measurement of some hours.

    None where the uids don't tell, as those that the server did not make.
    """
    ((text,),) = database.query(RECEIVED.format(start=start * HOUR, end=end * HOUR))
    try:
        return hour_of(datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC))
    except ValueError:
        return None


def counts_ahead(
    database: Database,
    targets: Collection[Target],
    hours: tuple[int, int],
    timed: Callable[[], AbstractContextManager[None]],
) -> Iterator[HourlyCounts]:
    """Yield the counts from an hour up to another one, without it, a part at a time.

    While one is looked at, the database counts the next: nobody else may use it meanwhile.

    Args:
        database: has `fastpath`.
        targets: tests and inputs that are counted.
        hours: the first one, and the one after the last.
        timed: wraps each question.
    """

    def answers() -> Iterator[HourlyCounts]:
        for start in range(*hours, CHUNK):
            with timed():
                counts = counts_of(database, targets, start, min(start + CHUNK, hours[1]))
            yield counts

    remaining = answers()
    with ThreadPoolExecutor(1) as thread:
        try:
            answer = thread.submit(next, remaining, None)
            while (counts := answer.result()) is not None:
                answer = thread.submit(next, remaining, None)
                yield counts
        except BaseException:
            database.close()  # or else an answer that nobody needs would be waited for
            raise


def counts_of(
    database: Database, targets: Collection[Target], start: int, end: int
) -> HourlyCounts:
    """Return the counts from an hour up to another one, without it.

    What is in memory grows with the hours: ask for `CHUNK` at once.
    """
    hours = end - start
    sql = COUNTS.format(start=start * HOUR, end=end * HOUR, hours=hours)
    rows = database.query(sql, {**tests_and_inputs(targets), "targets": tuple(targets)})
    measurements, anomalies, confirmed = (
        _by_hour([row[column] for row in rows], hours) for column in (4, 5, 6)
    )
    series = [Series._make(row[:4]) for row in rows]
    return HourlyCounts(series, start, measurements, anomalies, confirmed)


def tests_and_inputs(targets: Collection[Target]) -> dict[str, tuple[str, ...]]:
    """Return the parameters of MEASURED, whose rows may be of other pairs of these, too."""
    tests, inputs = zip(*targets, strict=True)
    return {"tests": tuple(set(tests)), "inputs": tuple(set(inputs))}


def _by_hour(texts: Sequence[str], hours: int) -> Grid:
    """Return a row for each hour, with the number of each series, of "1,0,…" for each series."""
    flat = np.fromstring(",".join(texts), dtype=np.int64, sep=",")
    return np.ascontiguousarray(flat.reshape(len(texts), hours).T)
