"""A sample of `fastpath` in which social media are blocked in two countries.

Measurements of 30 days up to now, of made-up networks; what is in there is known by construction:

- in IR, Instagram and WhatsApp are blocked on 30 networks since 6 days ago;
- in RU, Twitter was blocked on 8 networks for 5 days, partly on some;
- in ET, one network had an outage of three hours, which isn't blocking;
- elsewhere there are anomalies now and then, as there always are.

    python -m dev.samples.blocking clickhouse://localhost/default
"""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from clickhouse_driver import Client

from dev.samples.measurements import create

DAYS = 30
WEB = "web_connectivity"
TARGETS = (
    (WEB, "https://www.facebook.com/"),
    (WEB, "https://www.instagram.com/"),
    (WEB, "https://twitter.com/"),
    (WEB, "https://www.youtube.com/"),
    (WEB, "https://www.whatsapp.com/"),
    ("whatsapp", ""),
    ("telegram", ""),
    ("signal", ""),
)
URLS = [url for _, url in TARGETS[:5]]
URLS += ["https://x.com/", "https://signal.org/", "https://www.tiktok.com/"]
# Country → how many networks are measured there.
NETWORKS = {"IR": 30, "RU": 12, "ET": 4, "BR": 8, "DE": 8, "IN": 10, "ID": 6, "US": 10, "TR": 6}

FILL = """\
INSERT INTO {table} (measurement_uid, report_id, input, probe_cc, probe_asn, test_name,
    test_start_time, measurement_start_time, anomaly, confirmed, msm_failure, domain)
SELECT
    concat(formatDateTime(at, '%Y%m%d%H%i%S', 'UTC'), '.', leftPad(toString(k), 6, '0'), '_', cc,
           '_', test, '_', lower(hex(cityHash64(test, url, cc, asn, hour, k)))) AS uid,
    concat('report_', uid), url, cc, asn, test, at, at,
    if(k < anomalies, 't', 'f'), if(k < confirmed, 't', 'f'),
    if(k >= measurements, 't', 'f'), domain(url)
FROM (
    SELECT *, arrayJoin(range(measurements + failures)) AS k,
        toDateTime(hour * 3600 + intDiv(k * 3600, measurements + failures)) AS at
    FROM hourly
)
"""
# Measurements of each series every so many hours; one of a hundred is blocked from an hour on.
FILL_EVENLY = """\
INSERT INTO fastpath (measurement_uid, report_id, input, probe_cc, probe_asn, test_name,
    measurement_start_time, anomaly, confirmed, msm_failure)
SELECT
    hex(n) AS uid, uid, {urls}[1 + series % 8],
    ['IT','IR','RU','BR','US','DE','IN','MM'][1 + intDiv(series, 8) % 8],
    64500 + intDiv(series, 64), 'web_connectivity', toDateTime(hour * 3600 + series % 3600),
    if((series % 100 = 0 AND hour >= {block}) OR intHash64(n) % 100 < 4, 't', 'f'), 'f', 'f'
FROM (
    SELECT number % {series} AS series, {start} + intDiv(number, {series}) AS hour,
        hour * {series} + series AS n
    FROM numbers({series} * {hours})
    WHERE (series + hour) % {every} = 0
)
"""
# Runs of 1 to 40 inputs, 15 % of them the services', in 12,500 networks, some of which have most of
# the runs. One of a hundred networks is blocked from an hour on.
FILL_RUNS = """\
INSERT INTO fastpath (measurement_uid, report_id, input, probe_cc, probe_asn, test_name,
    test_start_time, measurement_start_time, anomaly, confirmed, msm_failure, platform,
    software_name, software_version, architecture)
WITH {urls} AS urls,
    ['IT','IR','RU','BR','US','DE','IN','MM','VE','EG','TR','CN','ZA','GB','FR','ID'] AS ccs
SELECT
    concat(formatDateTime(at, '%Y%m%d%H%i%S', 'UTC'), '.', lower(hex(h))),
    concat('report_', hex(r)), if(follows, urls[1 + (place + r) % length(urls)],
        concat('https://', toString(intHash32(h) % 2000), '.example/')),
    ccs[1 + network % 16], 60000 + network, 'web_connectivity', begun, at,
    if((follows AND network % 100 = 0 AND hour >= {block}) OR intHash32(h) % 100 < 4, 't', 'f'),
    'f', 'f', ['android','ios','linux'][1 + r % 3], 'ooniprobe', ['3.19.0','3.20.1'][1 + r % 2], ''
FROM (
    SELECT hour, r, begun, network, place, intHash64(r + place) AS h, h % 100 < 15 AS follows,
        begun + toUInt32(place) AS at
    FROM (
        SELECT {start} + intDiv(number, {runs}) AS hour, intHash64({start} * {runs} + number) AS r,
            toDateTime(hour * 3600 + intDiv(number % {runs} * 3500, {runs})) AS begun,
            toUInt32(12500 * pow(r % 1000003 / 1000003, 1.3)) AS network,
            range(1 + bitShiftRight(r, 20) % 40) AS places
        FROM numbers({runs} * {hours})
    ) ARRAY JOIN places AS place
)
"""
HOURLY = [
    ("test", "String"),
    ("url", "String"),
    ("cc", "String"),
    ("asn", "Int32"),
    ("hour", "UInt32"),
    ("measurements", "UInt32"),
    ("anomalies", "UInt32"),
    ("confirmed", "UInt32"),
    ("failures", "UInt32"),
]


@dataclass(frozen=True)
class Hour:
    """Measurements of a series in one hour.

    Attributes:
        test: its name.
        url: its input, or "".
        cc: the country.
        asn: the network.
        hour: in hours since 1970.
        measurements: that did not fail.
        anomalies: of these, as confirmed ones.
        confirmed: of these.
        failures: on top.
    """

    test: str
    url: str
    cc: str
    asn: int
    hour: int
    measurements: int
    anomalies: int
    confirmed: int = 0
    failures: int = 0


def fill(client: Client, hours: Iterable[Hour], table: str = "fastpath") -> None:
    """Add the measurements of some hours to a table like `fastpath`."""
    data = [vars(hour) for hour in hours]
    hourly = {"name": "hourly", "structure": HOURLY, "data": data}
    if data:
        client.execute(FILL.format(table=table), external_tables=[hourly])


def fill_evenly(client: Client, series: int, start: int, end: int, every: int = 1) -> None:
    """Add measurements of many series, to see how long following them takes.

    Args:
        client: runs the statements.
        series: how many.
        start: the first hour, in hours since 1970.
        end: the hour after the last one.
        every: hours from one measurement of a series to the next.
    """
    for hour in range(start, end, 24):
        client.execute(
            FILL_EVENLY.format(
                urls=URLS,
                block=(start + end) // 2,
                series=series,
                every=every,
                start=hour,
                hours=min(24, end - hour),
            )
        )


def fill_runs(client: Client, start: int, end: int, rows: int) -> None:
    """Add runs as they come in on all of the world: see FILL_RUNS.

    Args:
        client: runs the statements.
        start: the first hour, in hours since 1970.
        end: the hour after the last one.
        rows: of an hour, on average.
    """
    runs = 2 * rows // 41
    for hour in range(start, end, 6):
        sql = FILL_RUNS.format(
            urls=URLS, block=(start + end) // 2, runs=runs, start=hour, hours=min(6, end - hour)
        )
        client.execute(sql)


def sample(until: datetime, seed: int = 1) -> Iterator[Hour]:
    """Yield the hours of the sample, up to a time."""
    random = np.random.default_rng(seed)
    end = int(until.timestamp()) // 3600
    start = end - DAYS * 24
    asn = 64500
    for cc, networks in NETWORKS.items():
        for number in range(networks):
            asn += 1
            for test, url in TARGETS:
                rate = random.choice((0.3, 0.8, 2.0))
                day = 1 + 0.6 * np.sin(2 * np.pi * np.arange(end - start) / 24)
                measurements = random.poisson(rate * day)
                share = np.full(end - start, random.uniform(0.01, 0.06))
                confirmed = _block(share, cc, number, test, url)
                anomalies = random.binomial(measurements, share)
                failures = random.binomial(measurements, 0.02)
                for offset in np.flatnonzero(measurements).tolist():
                    yield Hour(
                        test,
                        url,
                        cc,
                        asn,
                        start + offset,
                        int(measurements[offset]),
                        int(anomalies[offset]),
                        int(anomalies[offset]) if confirmed else 0,
                        int(failures[offset]),
                    )


def _block(share: "np.ndarray", cc: str, number: int, test: str, url: str) -> bool:
    """Set the shares of anomalies where something is blocked; tell whether it has a block page."""
    hours = len(share)
    if cc == "IR" and ("instagram" in url or "whatsapp" in url + test):
        share[hours - 6 * 24 :] = 0.97
        return bool(url)
    if cc == "RU" and "twitter" in url and number < 8:
        share[hours - 12 * 24 : hours - 7 * 24] = 0.95 if number % 3 else 0.6
    if cc == "ET" and number == 0:
        share[hours - 10 * 24 : hours - 10 * 24 + 3] = 1.0
    return False


def main() -> None:
    """Make the table, and fill it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("uri", help="clickhouse://…")
    arguments = parser.parse_args()
    with Client.from_url(arguments.uri) as client:
        create(client, "fastpath")
        fill(client, sample(datetime.now(UTC)))


if __name__ == "__main__":
    main()
