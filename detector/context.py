"""Hourly counts with their context: how many runs they are of, and how these fared otherwise.

    fastpath → of each series, hour, kind of probe and bucket: measurements, anomalies, runs
             → of each network, hour and kind of probe: the inputs that nobody follows

A run (report_id) whose other inputs look blocked, too, says little of a service: its probe, the
test helper or the network is broken. Its bucket tells how many of them do. A run that goes on from
an earlier hour and measures an input again and again counted when it began. Nothing tells probes
from each other but their kind: platform, software, version and architecture.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from control import SOURCE_BITS
from counts import ANOMALY
from ooni_common.database import Database
from series import HOUR, WEB_TEST, Series, Target

Table = NDArray[np.int64]  # a row for each count, a column for each number

BUCKETS = (0.1, 0.3, 0.6)  # shares of anomalies among them, up to which it is in bucket 1, 2, 3
NO_CONTROL = 0  # the bucket of runs without others; those with more anomalies are in bucket 4
CHUNK = 12  # hours that one question is about: the server holds all of their runs in memory

IN_HOURS = """\
FROM fastpath FINAL
WHERE measurement_start_time >= toDateTime({start}) AND measurement_start_time < toDateTime({end})
  AND msm_failure != 't' AND match(probe_cc, '^[A-Z][A-Z]$') AND probe_cc != 'ZZ' AND probe_asn > 0
"""
IS_TARGET = "({is_target})"
THE_HOUR = f"intDiv(toUnixTimestamp(measurement_start_time), {HOUR})"
SOURCE = f"""\
if(platform = '' AND software_name = '' AND software_version = '', 0, 1 + modulo(
    cityHash64(platform, software_name, software_version, architecture), {2**SOURCE_BITS - 1}))"""
# Numbers as text reach numpy in a tenth of the time that the driver needs for rows.
RUN_COUNTS = f"""\
WITH
  runs AS (
    SELECT test_name, probe_cc, probe_asn, {THE_HOUR} AS hour,
      cityHash64(if(report_id = '', measurement_uid, report_id)) AS run, min({SOURCE}) AS source,
      min(toUnixTimestamp(test_start_time)) < hour * {HOUR} AS goes_on,
      countIf(NOT {IS_TARGET}) AS others, countIf(NOT {IS_TARGET} AND {ANOMALY}) AS bad_others,
      groupArrayIf((input, {ANOMALY}, confirmed = 't'), {IS_TARGET}) AS measured
    {IN_HOURS} AND test_name IN %(tests)s
    GROUP BY test_name, probe_cc, probe_asn, hour, run
    HAVING notEmpty(measured)
  ),
  of_inputs AS (
    SELECT test_name, row.1 AS input, probe_cc, probe_asn, hour, run, any(source) AS source,
      any(multiIf(others = 0, {NO_CONTROL},
        bad_others <= {BUCKETS[0]} * others, 1, bad_others <= {BUCKETS[1]} * others, 2,
        bad_others <= {BUCKETS[2]} * others, 3, 4)) AS control,
      count() AS cnt, countIf(row.2) AS bad, countIf(row.3) AS sure,
      any(goes_on) AND cnt > 1 AS again
    FROM runs ARRAY JOIN measured AS row
    GROUP BY test_name, input, probe_cc, probe_asn, hour, run
  ),
  counts AS (
    SELECT test_name, input, probe_cc, probe_asn,
      concat(toString(hour), ' ', toString(source), ' ', toString(control), ' ',
        toString(sum(cnt)), ' ', toString(sum(bad)), ' ', toString(sum(sure)), ' ',
        toString(countIf(NOT again)), ' ',
        toString(countIf(NOT again AND bad > 0 AND 2 * bad >= cnt))) AS numbers
    FROM of_inputs
    GROUP BY test_name, input, probe_cc, probe_asn, hour, source, control
  )
SELECT toString(test_name), input, toString(probe_cc), probe_asn,
  arrayStringConcat(arraySort(groupArray(numbers)), ' ')
FROM counts
GROUP BY test_name, input, probe_cc, probe_asn
ORDER BY test_name, input, probe_cc, probe_asn
"""
OTHER_INPUTS = f"""\
SELECT toString(probe_cc), probe_asn, arrayStringConcat(arraySort(groupArray(numbers)), ' ')
FROM (
  SELECT probe_cc, probe_asn,
    concat(toString({THE_HOUR} AS hour), ' ', toString({SOURCE} AS source), ' ',
      toString(count()), ' ', toString(countIf({ANOMALY}))) AS numbers
  {IN_HOURS} AND test_name = '{WEB_TEST}' AND NOT {IS_TARGET}
  GROUP BY probe_cc, probe_asn, hour, source
)
GROUP BY probe_cc, probe_asn
ORDER BY probe_cc, probe_asn
"""


class RunCount(NamedTuple):
    """What runs of one kind of probe and one bucket say of a series in an hour.

    Attributes:
        test_name, input, probe_cc, probe_asn: the series.
        hour: since 1970.
        source: the kind of probe, from 1; 0 where the table doesn't tell.
        control: the bucket, 0 to 4; NO_CONTROL: the runs have no other inputs.
        measurements: how many.
        anomalies: how many of them, confirmed ones too.
        confirmed: likewise.
        runs: that they are of; those that count.
        bad_runs: of these, with anomalies in half of their measurements.
    """

    test_name: str
    input: str
    probe_cc: str
    probe_asn: int
    hour: int
    source: int
    control: int
    measurements: int
    anomalies: int
    confirmed: int
    runs: int
    bad_runs: int


class OthersCount(NamedTuple):
    """Measurements of the inputs that nobody follows, of a kind of probe, a network and an hour."""

    probe_cc: str
    probe_asn: int
    hour: int
    source: int
    measurements: int
    anomalies: int


@dataclass(frozen=True)
class ContextCounts:
    """What some hours say.

    Attributes:
        start: the first hour, in hours since 1970.
        end: the one after the last.
        series: those that are measured.
        runs: by series: its place, and what RunCount has from `hour` on.
        networks: those in which anything else is.
        others: likewise: its place, and what OthersCount has from `hour` on.
    """

    start: int
    end: int
    series: Sequence[Series]
    runs: Table
    networks: Sequence[tuple[str, int]]
    others: Table


def context_of(
    database: Database, targets: Collection[Target], start: int, end: int
) -> ContextCounts:
    """Return the counts from an hour up to another one, without it.

    What the database holds in memory grows with the runs: ask for `CHUNK` at once.
    """
    runs = _runs_of(database, targets, start, end)
    return ContextCounts(start, end, *runs, *_others_of(database, targets, start, end))


def run_counts_of(
    database: Database, targets: Collection[Target], start: int, end: int
) -> Sequence[RunCount]:
    """Return the counts from an hour up to another one, without it, sorted by hour."""
    series, table = _runs_of(database, targets, start, end)
    rows = (RunCount(*series[place], *rest) for place, *rest in table.tolist())
    return sorted(rows, key=lambda row: (row.hour, row))


def others_of(
    database: Database, targets: Collection[Target], start: int, end: int
) -> Sequence[OthersCount]:
    """Return what the web test found of other inputs, hour by hour; as run_counts_of."""
    networks, table = _others_of(database, targets, start, end)
    rows = (OthersCount(*networks[place], *rest) for place, *rest in table.tolist())
    return sorted(rows, key=lambda row: (row.hour, row))


def _runs_of(
    database: Database, targets: Collection[Target], start: int, end: int
) -> tuple[list[Series], Table]:
    tests = tuple(sorted({test for test, _ in targets}))
    is_target, parameters = _is_target(targets)
    sql = RUN_COUNTS.format(start=start * HOUR, end=end * HOUR, is_target=is_target)
    rows = database.query(sql, {**parameters, "tests": tests})
    table = _table([row[4] for row in rows], len(RunCount._fields) - len(Series._fields))
    return [Series._make(row[:4]) for row in rows], table


def _others_of(
    database: Database, targets: Collection[Target], start: int, end: int
) -> tuple[list[tuple[str, int]], Table]:
    is_target, parameters = _is_target(targets)
    sql = OTHER_INPUTS.format(start=start * HOUR, end=end * HOUR, is_target=is_target)
    rows = database.query(sql, parameters)
    table = _table([row[2] for row in rows], len(OthersCount._fields) - 2)
    return [(row[0], row[1]) for row in rows], table


def _is_target(targets: Collection[Target]) -> tuple[str, dict[str, tuple[str, ...]]]:
    """Return the condition that a row is of a target, and its parameters.

    Test by test: the server needs three times as long to look up pairs of test and input.
    """
    inputs: dict[str, list[str]] = {}
    for test, url in sorted(targets):
        inputs.setdefault(test, []).append(url)
    tests: dict[tuple[str, ...], list[str]] = {}
    for test, of_test in inputs.items():
        tests.setdefault(tuple(of_test), []).append(test)
    parts: list[str] = []
    parameters: dict[str, tuple[str, ...]] = {}
    for number, (urls, of_tests) in enumerate(tests.items()):
        parts.append(f"test_name IN %(tests_{number})s AND input IN %(inputs_{number})s")
        parameters |= {f"tests_{number}": tuple(of_tests), f"inputs_{number}": urls}
    return " OR ".join(parts), parameters


def _table(texts: Sequence[str], columns: int) -> Table:
    """Return the rows of "1 2 …" for each text, with the place of the text before them."""
    if not texts:
        return np.empty((0, columns + 1), dtype=np.int64)
    flat = np.fromstring(" ".join(texts), dtype=np.int64, sep=" ").reshape(-1, columns)
    counts = [(text.count(" ") + 1) // columns for text in texts]
    places = np.repeat(np.arange(len(texts)), counts)
    return np.concatenate([places[:, np.newaxis], flat], axis=1)
