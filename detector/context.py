"""Hourly counts with their context: how many runs they are of, and how these fared otherwise.

    fastpath → for each series, hour and bucket: measurements, anomalies, runs, bad runs
             → for each network and hour: the inputs that nobody follows

A run (report_id) whose other inputs look blocked, too, says little of a service: its probe, the
test helper or the network is broken. Its bucket tells how many of them do.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from counts import ANOMALY
from ooni_common.database import Database
from series import HOUR, Target

WEB_TEST = "web_connectivity"  # the only test whose runs have other inputs
FEWEST_OTHERS = 5  # inputs of a run, in an hour, that tell how it fares
BUCKETS = (0.1, 0.3, 0.6)  # shares of anomalies among them, up to which it is in bucket 1, 2, 3
NO_CONTROL = 0  # the bucket of runs with fewer; those with more anomalies are in bucket 4

IN_HOURS = """\
FROM fastpath FINAL
WHERE measurement_start_time >= toDateTime({start}) AND measurement_start_time < toDateTime({end})
  AND msm_failure != 't' AND match(probe_cc, '^[A-Z][A-Z]$') AND probe_cc != 'ZZ' AND probe_asn > 0
"""
IS_TARGET = "((test_name, input) IN %(targets)s)"
RUN_COUNTS = f"""\
WITH
  runs AS (
    SELECT test_name, probe_cc, probe_asn,
      intDiv(toUnixTimestamp(measurement_start_time), {HOUR}) AS hour, cityHash64(report_id) AS run,
      countIf(NOT {IS_TARGET}) AS others, countIf(NOT {IS_TARGET} AND {ANOMALY}) AS bad_others,
      groupArrayIf((input, {ANOMALY}, confirmed = 't'), {IS_TARGET}) AS measured
    {IN_HOURS} AND test_name IN %(tests)s
    GROUP BY test_name, probe_cc, probe_asn, hour, run
    HAVING notEmpty(measured)
  )
SELECT toString(test_name), row.1, toString(probe_cc), probe_asn, toUInt32(hour),
  multiIf(others < {FEWEST_OTHERS}, {NO_CONTROL},
    bad_others <= {BUCKETS[0]} * others, 1, bad_others <= {BUCKETS[1]} * others, 2,
    bad_others <= {BUCKETS[2]} * others, 3, 4) AS control,
  count(), countIf(row.2), countIf(row.3), uniqExact(run), uniqExactIf(run, row.2)
FROM runs ARRAY JOIN measured AS row
GROUP BY test_name, row.1, probe_cc, probe_asn, hour, control
ORDER BY hour, test_name, row.1, probe_cc, probe_asn, control
"""
OTHER_INPUTS = f"""\
SELECT toString(probe_cc), probe_asn,
  toUInt32(intDiv(toUnixTimestamp(measurement_start_time), {HOUR})) AS hour,
  count(), countIf({ANOMALY})
{IN_HOURS} AND test_name = '{WEB_TEST}' AND NOT {IS_TARGET}
GROUP BY probe_cc, probe_asn, hour
ORDER BY hour, probe_cc, probe_asn
"""


class RunCount(NamedTuple):
    """What runs of one bucket say of a series in an hour.

    Attributes:
        test_name, input, probe_cc, probe_asn: the series.
        hour: since 1970.
        control: the bucket, 0 to 4; NO_CONTROL: the runs have too few other inputs.
        measurements: how many.
        anomalies: how many of them, confirmed ones too.
        confirmed: likewise.
        runs: that they are of.
        bad_runs: of these, with an anomaly.
    """

    test_name: str
    input: str
    probe_cc: str
    probe_asn: int
    hour: int
    control: int
    measurements: int
    anomalies: int
    confirmed: int
    runs: int
    bad_runs: int


class OthersCount(NamedTuple):
    """Measurements of the inputs that nobody follows, in a network and an hour."""

    probe_cc: str
    probe_asn: int
    hour: int
    measurements: int
    anomalies: int


def run_counts_of(
    database: Database, targets: Collection[Target], start: int, end: int
) -> Sequence[RunCount]:
    """Return the counts from an hour up to another one, without it, sorted by hour.

    What the database holds in memory grows with the runs: ask for a day at most.
    """
    tests = tuple(sorted({test for test, _ in targets}))
    sql = RUN_COUNTS.format(start=start * HOUR, end=end * HOUR)
    rows = database.query(sql, {"targets": tuple(targets), "tests": tests})
    return [RunCount._make(row) for row in rows]


def others_of(
    database: Database, targets: Collection[Target], start: int, end: int
) -> Sequence[OthersCount]:
    """Return what the web test found of other inputs, hour by hour; as run_counts_of."""
    sql = OTHER_INPUTS.format(start=start * HOUR, end=end * HOUR)
    return [OthersCount._make(row) for row in database.query(sql, {"targets": tuple(targets)})]
