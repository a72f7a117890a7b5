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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from control import ASN_BITS, SOURCE_BITS, network_key
from counts import ANOMALY
from hours import Indices
from numbered import TARGET, TEST, Numbered
from ooni_common.database import Database
from packed import LETTERS, Packed, asked
from series import HOUR, WEB_TEST, Series, Target

Table = NDArray[np.int64]  # a row for each count, a column for each number

BUCKETS = (0.1, 0.3, 0.6)  # shares of anomalies among them, up to which it is in bucket 1, 2, 3
NO_CONTROL = 0  # the bucket of runs without others; those with more anomalies are in bucket 4
CHUNK = 12  # hours that one question is about: the server holds all of their runs in memory

OTHERS = 0  # the target of all inputs that nobody follows
NETWORK_BITS = ASN_BITS + 10  # of the key of a network: its country is one of 26 * 26
THE_HOUR = f"intDiv(toUnixTimestamp(measurement_start_time), {HOUR})"
SOURCE = f"""\
if(platform = '' AND software_name = '' AND software_version = '', 0, 1 + modulo(
    cityHash64(platform, software_name, software_version, architecture), {2**SOURCE_BITS - 1}))"""
ANSWER = Packed(
    target="UInt32",
    country="UInt16",
    probe_asn="UInt32",
    hour="UInt32",
    source="UInt32",
    control="UInt8",
    measurements="UInt32",
    anomalies="UInt32",
    confirmed="UInt32",
    runs="UInt32",
    bad_runs="UInt32",
)
# One scan for runs and others, with keys that are numbers: two with texts take twice as long. In a
# run of several sources, others count for that of their row, targets for the least one.
COUNTS = f"""\
WITH
  measured AS (
    SELECT {TEST} AS test, {TARGET} AS pair, if(pair IN %(targets)s, pair, {OTHERS}) AS target,
      {LETTERS} AS country, probe_asn, {THE_HOUR} AS hour,
      if(report_id = '', cityHash64(measurement_uid), cityHash64(report_id)) AS run,
      {SOURCE} AS source, toUnixTimestamp(test_start_time) AS begins,
      {ANOMALY} AS is_bad, confirmed = 't' AS is_sure
    FROM fastpath FINAL
    WHERE measurement_start_time >= toDateTime({{start}})
      AND measurement_start_time < toDateTime({{end}})
      AND test_name IN %(tests)s AND msm_failure != 't'
      AND match(probe_cc, '^[A-Z][A-Z]$') AND probe_cc != 'ZZ' AND probe_asn > 0
  ),
  inputs AS (
    SELECT test, country, probe_asn, hour, run, target, if(target = {OTHERS}, source, 0) AS kind,
      min(source) AS least, min(begins) AS begun,
      count() AS cnt, countIf(is_bad) AS bad, countIf(is_sure) AS sure
    FROM measured
    GROUP BY test, country, probe_asn, hour, run, target, kind
  ),
  runs AS (
    SELECT test, country, probe_asn, hour, min(least) AS of_run,
      min(begun) < hour * {HOUR} AS goes_on, sumIf(cnt, target = {OTHERS}) AS others,
      sumIf(bad, target = {OTHERS}) AS bad_others, groupArray(target) AS targets,
      groupArray(kind) AS kinds, groupArray(cnt) AS cnts, groupArray(bad) AS bads,
      groupArray(sure) AS sures
    FROM inputs
    GROUP BY test, country, probe_asn, hour, run
  )
SELECT {ANSWER.sql}
FROM (
  SELECT target, country, probe_asn, hour, if(target = {OTHERS}, kind, of_run) AS source,
    multiIf(target = {OTHERS} OR others = 0, {NO_CONTROL},
      bad_others <= {BUCKETS[0]} * others, 1, bad_others <= {BUCKETS[1]} * others, 2,
      bad_others <= {BUCKETS[2]} * others, 3, 4) AS control,
    sum(cnt) AS measurements, sum(bad) AS anomalies, sum(sure) AS confirmed,
    countIf(NOT (goes_on AND cnt > 1)) AS runs,
    countIf(NOT (goes_on AND cnt > 1) AND bad > 0 AND 2 * bad >= cnt) AS bad_runs
  FROM runs
  ARRAY JOIN targets AS target, kinds AS kind, cnts AS cnt, bads AS bad, sures AS sure
  WHERE target != {OTHERS} OR test = %(web)s
  GROUP BY target, country, probe_asn, hour, source, control
)
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
        others: by network: its key, and what OthersCount has from `hour` on.
    """

    start: int
    end: int
    series: Sequence[Series]
    runs: Table
    others: Table


def context_of(
    database: Database, targets: Collection[Target], start: int, end: int
) -> ContextCounts:
    """Return the counts from an hour up to another one, without it.

    What the database holds in memory grows with the runs: ask for `CHUNK` at once.
    """
    numbered = Numbered(targets, tests=[WEB_TEST])
    numbers = tuple(numbered.of_targets.values())
    parameters = {"targets": numbers, "web": numbered.of_tests[WEB_TEST], **numbered.parameters}
    sql = COUNTS.format(start=start * HOUR, end=end * HOUR)
    rows = asked(database, sql, parameters, ANSWER)
    of_targets = rows["target"] != OTHERS
    runs, others = rows[of_targets], rows[~of_targets]
    places = np.searchsorted(np.array(numbers), runs["target"])
    keys, run_places = np.unique(places << NETWORK_BITS | _networks(runs), return_inverse=True)
    return ContextCounts(
        start,
        end,
        _series_of(keys, numbered.targets),
        _table(run_places, runs, RunCount._fields[4:]),
        _table(_networks(others), others, OthersCount._fields[2:]),
    )


def counts_by_hour(
    database: Database, targets: Collection[Target], start: int, end: int
) -> tuple[list[RunCount], list[OthersCount]]:
    """Return the counts from an hour up to another one, without it, sorted by hour."""
    counts = context_of(database, targets, start, end)
    runs = (RunCount(*counts.series[place], *rest) for place, *rest in counts.runs.tolist())
    others = (OthersCount(*_network(key), *rest) for key, *rest in counts.others.tolist())
    return (
        sorted(runs, key=lambda row: (row.hour, row)),
        sorted(others, key=lambda row: (row.hour, row)),
    )


def _networks(rows: NDArray[Any]) -> Indices:
    """Return the keys of networks, which are in the order of their countries' codes."""
    first, second = (letter - ord("A") for letter in np.divmod(rows["country"], 256)[::-1])
    return network_key(26 * first.astype(np.int64) + second, rows["probe_asn"].astype(np.int64))


def _series_of(keys: Indices, targets: Sequence[Target]) -> list[Series]:
    """Return the series of keys: the place of a target, and a network."""
    networks, places = np.unique(keys & (1 << NETWORK_BITS) - 1, return_inverse=True)
    names = [_network(key) for key in networks.tolist()]
    return [
        Series._make(targets[target] + names[place])
        for target, place in zip((keys >> NETWORK_BITS).tolist(), places.tolist(), strict=True)
    ]


def _network(key: int) -> tuple[str, int]:
    """Return the code of the country and the ASN of a network's key."""
    first, second = divmod(key >> ASN_BITS, 26)
    return chr(ord("A") + first) + chr(ord("A") + second), key & (1 << ASN_BITS) - 1


def _table(first: Indices, rows: NDArray[Any], names: Sequence[str]) -> Table:
    """Return a column, and others by name, as numbers of one kind."""
    return np.column_stack([first, *(rows[name].astype(np.int64) for name in names)])
