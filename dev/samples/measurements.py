"""Sample tables of measurements, `fastpath` and `jsonl`, made by the engine itself.

They have the columns, the engine and the keys of OONI's own tables, and values like theirs; a
million rows take a second or two. The same numbers always give the same rows.

    python -m dev.samples.measurements clickhouse://localhost/default --rows 1000000
"""

import argparse
import re
from datetime import date

from clickhouse_driver import Client

FASTPATH = """\
CREATE TABLE {table}
(
    `measurement_uid` String,
    `report_id` String,
    `input` String,
    `probe_cc` LowCardinality(String),
    `probe_asn` Int32,
    `test_name` LowCardinality(String),
    `test_start_time` DateTime,
    `measurement_start_time` DateTime,
    `filename` String,
    `scores` String,
    `platform` String,
    `anomaly` String,
    `confirmed` String,
    `msm_failure` String,
    `domain` String,
    `software_name` String,
    `software_version` String,
    `control_failure` String,
    `blocking_general` Float32,
    `is_ssl_expected` Int8,
    `page_len` Int32,
    `page_len_ratio` Float32,
    `server_cc` String,
    `server_asn` Int8,
    `server_as_name` String,
    `update_time` DateTime64(3) MATERIALIZED now64(),
    `test_version` String,
    `architecture` String,
    `engine_name` LowCardinality(String),
    `engine_version` String,
    `test_runtime` Float32,
    `blocking_type` String,
    `test_helper_address` LowCardinality(String),
    `test_helper_type` LowCardinality(String),
    `ooni_run_link_id` Nullable(UInt64),
    INDEX fastpath_rid_idx report_id TYPE minmax GRANULARITY 1,
    INDEX measurement_uid_idx measurement_uid TYPE minmax GRANULARITY 8
)
ENGINE = ReplacingMergeTree(update_time)
ORDER BY (measurement_start_time, report_id, input, measurement_uid)
SETTINGS index_granularity = 8192
"""
JSONL = """\
CREATE TABLE {table}
(
    `report_id` String,
    `input` String,
    `s3path` String,
    `linenum` Int32,
    `measurement_uid` String,
    `date` Date,
    `source` String,
    `update_time` DateTime64(3) MATERIALIZED now64()
)
ENGINE = ReplacingMergeTree(update_time)
ORDER BY (report_id, input, measurement_uid)
SETTINGS index_granularity = 8192
"""
# A measurement is a function of its number `n`; `at` is its time. Twenty of them are one report, by
# one probe; four of five reports are of websites.
MEASUREMENT = """\
WITH
    intHash64(n) AS h,
    intHash64(intDiv(n, 20)) AS r,
    (shift, count) -> bitShiftRight(h, shift) % count AS pick,
    (shift, count) -> bitShiftRight(r, shift) % count AS pick_once,
    ['IT','IR','RU','BR','US','DE','IN','MM','VE','EG','TR','CN','ZA','GB','FR','ID'] AS ccs,
    ['facebook.com','twitter.com','www.youtube.com','web.whatsapp.com','www.bbc.com','signal.org',
     'telegram.org','www.torproject.org','en.wikipedia.org','www.hrw.org','example.org'] AS domains,
    ['linux','android','ios','windows','macos'] AS platforms,
    ['whatsapp','telegram','signal','ndt','dash'] AS tests,
    toDateTime('{start} 00:00:00', 'UTC') AS start,
    start + toUInt32(n * {seconds} / {rows}) AS at,
    formatDateTime(at, '%Y%m%d%H%i%S', 'UTC') AS stamp,
    start + toUInt32(intDiv(n, 20) * 20 * {seconds} / {rows}) AS begun,
    ccs[1 + pick_once(0, 16)] AS cc,
    1 + pick_once(8, 65000) AS asn,
    pick_once(24, 5) > 0 AS web,
    domains[1 + pick(28, 11)] AS host,
    multiIf(pick(32, 100) < 3, 'dns', pick(32, 100) < 5, 'tcp_ip', '') AS blocking,
    if(web, 'web_connectivity', tests[1 + pick_once(36, 5)]) AS name,
    replaceAll(name, '_', '') AS test, -- as identifiers have it
    if(web, concat('https://', host, '/', if(pick(4, 7) = 0, '?q="a,b"', '')), '') AS url,
    concat(formatDateTime(begun, '%Y%m%dT%H%i%SZ', 'UTC'), '_', test, '_', cc, '_', toString(asn),
           '_n1_', substring(base64Encode(hex(r)), 1, 16)) AS report,
    concat(stamp, '.', leftPad(toString(pick(40, 1000000)), 6, '0'), '_', cc, '_', test, '_',
           substring(lower(hex(h)), 1, 16)) AS uid
"""
FASTPATH_ROWS = """\
SELECT uid AS measurement_uid, report AS report_id, url AS input, cc AS probe_cc,
    asn AS probe_asn, name AS test_name, at AS test_start_time, at AS measurement_start_time,
    '' AS filename,
    if(blocking = '', '{{}}', '{{"blocking_general":1.0,"analysis":{{"blocking_type":"dns"}}}}')
        AS scores,
    platforms[1 + pick(2, 5)] AS platform, if(blocking = '', 'f', 't') AS anomaly,
    'f' AS confirmed, 'f' AS msm_failure, if(web, host, '') AS domain,
    'ooniprobe-cli' AS software_name,
    concat('3.', toString(pick(44, 19)), '.', toString(pick(50, 3))) AS software_version,
    '' AS control_failure, if(blocking = '', 0, 1) AS blocking_general, 0 AS is_ssl_expected,
    toInt32(pick(12, 100000)) AS page_len, toFloat32(pick(16, 1000) / 1000) AS page_len_ratio,
    '' AS server_cc, 0 AS server_asn, '' AS server_as_name, '0.4.3' AS test_version,
    if(pick(51, 4) = 0, 'arm64', 'amd64') AS architecture, '' AS engine_name,
    '' AS engine_version, toFloat32(pick(20, 60000) / 1000) AS test_runtime,
    blocking AS blocking_type, '' AS test_helper_address, '' AS test_helper_type,
    if(pick(52, 50) = 0, 10000 + pick(53, 500), NULL) AS ooni_run_link_id
FROM (SELECT number AS n FROM numbers({count}))
"""
JSONL_ROWS = """\
SELECT report AS report_id, url AS input,
    concat('raw/', formatDateTime(at, '%Y%m%d/%H', 'UTC'), '/', cc, '/', test, '/', stamp, '_', cc,
           '_', test, '.n1.0.jsonl.gz') AS s3path,
    toInt32(n % 20) AS linenum, uid AS measurement_uid, toDate(at, 'UTC') AS date,
    'fastpath' AS source
FROM (SELECT number AS n FROM numbers({count}))
"""
COLUMNS = {"fastpath": FASTPATH, "jsonl": JSONL}
ROWS = {"fastpath": FASTPATH_ROWS, "jsonl": JSONL_ROWS}


def create(client: Client, kind: str, table: str = "") -> None:
    """Create an empty table like `fastpath` or `jsonl`."""
    client.execute(COLUMNS[kind].format(table=table or kind))


def fill(
    client: Client,
    kind: str,
    rows: int,
    *,
    table: str = "",
    start: date = date(2023, 1, 1),
    days: int = 365,
) -> None:
    """Add measurements to a table.

    Args:
        client: runs the statement.
        kind: `fastpath` or `jsonl`.
        rows: how many, spread evenly over the days.
        table: the table's name in SQL, if it is not the kind's.
        start: the first day.
        days: how many.
    """
    columns = re.findall(r"^    `(\w+)`", COLUMNS[kind], re.MULTILINE)
    columns.remove("update_time")
    select = (MEASUREMENT + ROWS[kind]).format(
        start=start, seconds=days * 86400, rows=rows, count=rows
    )
    client.execute(f"INSERT INTO {table or kind} ({', '.join(columns)}) {select}")


def main() -> None:
    """Fill both tables of a server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("uri", help="clickhouse://…")
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with Client.from_url(arguments.uri) as client:
        for kind in COLUMNS:
            create(client, kind)
            fill(client, kind, arguments.rows)


if __name__ == "__main__":
    main()
