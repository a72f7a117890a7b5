"""Runs as rows of `fastpath`, made by the engine."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from clickhouse_driver import Client

from dev.samples.realism.network import OTHER_INPUTS, Target
from dev.samples.realism.runs import COLUMNS, SOFTWARE, STEP, Runs

START = datetime(2025, 1, 1, tzinfo=UTC)
PAUSE = 20  # seconds from one measurement of a run to the next
KINDS = ("linux", "android", "ios", "windows", "macos", "android")
NAMES = ("ooniprobe-cli", "ooniprobe-android", "ooniprobe-ios", "miniooni", "ooniprobe-cli")
FAILED = 50  # one of so many measurements fails

RUNS = "CREATE TABLE realism_runs ({columns}) ENGINE = Memory"
# `target` 0 is the web test, whose inputs are the bits of `targets` and then `others`, from `first`
# on; else it is the place of an app's test. A row's time is the probe's, its uid has the server's.
ROWS = """\
INSERT INTO fastpath (measurement_uid, report_id, input, probe_cc, probe_asn, test_name,
    test_start_time, measurement_start_time, platform, anomaly, confirmed, msm_failure, domain,
    software_name, software_version, architecture, ooni_run_link_id)
WITH
    formatDateTime(toDateTime({start} + begun, 'UTC'), '%Y%m%dT%H%i%SZ', 'UTC') AS stamp,
    arrayConcat(
        arrayMap(
            i -> ({inputs}[i + 1], bitTest(bad, i), bitTest(confirmed, i)),
            arrayFilter(i -> bitTest(targets, i), range({targets}))),
        arrayMap(
            i -> (
                concat('https://', if(link > 0, concat('list', toString(link), '-'), 'site'),
                       toString((first + {step} * i) % {other_inputs}), '.example/'),
                bitTest(bad_others, i), 0),
            range(others))
    ) AS measured
SELECT
    concat(
        formatDateTime(
            toDateTime({start} + received + {pause} * k, 'UTC'), '%Y%m%d%H%i%S', 'UTC'),
        '.', leftPad(toString(k), 6, '0'), '_', cc, '_', test, '_',
        lower(hex(cityHash64(run, start, k)))) AS uid,
    concat(stamp, '_', replaceAll(test, '_', ''), '_', cc, '_', toString(asn), '_n1_', hex(run)),
    row.1, {codes}[country + 1] AS cc, asn, {tests}[target + 1] AS test,
    toDateTime({start} + begun, 'UTC'), toDateTime({start} + start + {pause} * k, 'UTC'),
    {kinds}[software % {software} + 1], if(row.2, 't', 'f'), if(row.3, 't', 'f'),
    if(cityHash64(start, run, k) % {failed} = 0, 't', 'f'), domain(row.1),
    {names}[software % 5 + 1],
    concat('3.', toString(if(software >= {software}, 24, 18 + software % 3)), '.0'),
    if(software % 2 = 0, 'amd64', 'arm64'), if(link > 0, link, NULL)
FROM realism_runs ARRAY JOIN measured AS row, range(length(measured)) AS k
"""


class FastpathOfRuns:
    """Fills `fastpath`.

    Args:
        client: of a database that has the table, and not yet `realism_runs`.
        targets: all that are measured; their places are their numbers.
        codes: of the countries, likewise.
    """

    def __init__(self, client: Client, targets: Sequence[Target], codes: Sequence[str]) -> None:
        self._client = client
        columns = [
            f"{name} {kind.__name__.replace('ui', 'UI').replace('int', 'Int')}"
            for name, kind in COLUMNS.items()
        ]
        client.execute(RUNS.format(columns=", ".join(columns)))
        self._rows = ROWS.format(
            start=int(START.timestamp()),
            inputs=[url for _, url in targets],
            tests=[test for test, _ in targets],
            targets=len(targets),
            codes=list(codes),
            kinds=list(KINDS),
            names=list(NAMES),
            software=SOFTWARE,
            step=STEP,
            other_inputs=OTHER_INPUTS,
            pause=PAUSE,
            failed=FAILED,
        )

    def add(self, runs: Sequence[Runs]) -> int:
        """Add the measurements of runs; return how many runs these are."""
        columns = [np.concatenate([part[name] for part in runs]) for name in COLUMNS]
        self._client.execute("TRUNCATE TABLE realism_runs")
        self._client.execute("INSERT INTO realism_runs VALUES", columns, columnar=True)
        self._client.execute(self._rows)
        return len(columns[0])
