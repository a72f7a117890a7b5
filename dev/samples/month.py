"""A month of runs in sixteen countries, with six national blockings and a fault of six hours.

What is in there is known by construction: `TRUTH`. Each run measures three services and other
inputs. In the six countries all twelve networks block one of the services for some days. In the
hours of the fault every web measurement has an anomaly, wherever it is made.

    python -m dev.samples.month clickhouse://localhost/default
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from clickhouse_driver import Client

from dev.samples.measurements import create

START = datetime(2025, 3, 1, tzinfo=UTC)
HOURS = 30 * 24
FAULT = (12 * 24 + 9, 12 * 24 + 15)  # hours after START
WEB = "web_connectivity"
SERVICES = {
    "Facebook": "https://www.facebook.com/",
    "Instagram": "https://www.instagram.com/",
    "Twitter": "https://twitter.com/",
}
OTHERS = [f"https://{number}.example/" for number in range(6)]
USUAL = 0.03  # the share of anomalies where nothing is blocked
SPARSE, BUSY = 4 / 24, 2.0  # runs an hour: of most networks, and of one in each country
NETWORKS = 12
BLOCKING, QUIET = ("IR", "RU", "VN", "TR", "ET", "PK"), ("IT", "FR", "DE", "BR", "US")
COUNTRIES = (*BLOCKING, *QUIET, "IN", "ID", "NG", "MX", "CA")
COLUMNS = (
    "measurement_uid, report_id, input, probe_cc, probe_asn, test_name, test_start_time,"
    " measurement_start_time, anomaly, confirmed, msm_failure, domain"
)


@dataclass(frozen=True)
class National:
    """A national blocking; its hours are counted from START."""

    service: str
    probe_cc: str
    begin: int
    end: int


TRUTH = (
    National("Facebook", "IR", 120, 300),
    National("Instagram", "RU", 150, 400),
    National("Twitter", "VN", 200, 330),
    National("Facebook", "TR", 370, 500),
    National("Twitter", "ET", 430, 580),
    National("Instagram", "PK", 450, 620),
)


def networks_of(code: str) -> list[int]:
    """Return the networks of a country; the first one has the most runs."""
    first = 64500 + NETWORKS * COUNTRIES.index(code)
    return list(range(first, first + NETWORKS))


def rows(*, fault: bool = True, seed: int = 1) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of `fastpath`, of COLUMNS.

    Args:
        fault: whether the web test fails in the hours of the fault.
        seed: of all that is random.
    """
    random = np.random.default_rng(seed)
    for code in COUNTRIES:
        for number, asn in enumerate(networks_of(code)):
            rate = SPARSE if number else BUSY
            times = np.sort(random.uniform(0, HOURS, random.poisson(rate * HOURS)))
            for run, time in enumerate(times.tolist()):
                yield from _of_run(random, code, asn, f"{code}_{asn}_{run:05}", time, fault=fault)


def _of_run(
    random: np.random.Generator, code: str, asn: int, run: str, time: float, *, fault: bool
) -> Iterator[tuple[Any, ...]]:
    blocked = {
        SERVICES[nation.service]
        for nation in TRUTH
        if nation.probe_cc == code and nation.begin <= time < nation.end
    }
    broken = fault and FAULT[0] <= time < FAULT[1]
    start = START + timedelta(seconds=int(time * 3600))
    for place, url in enumerate((*SERVICES.values(), *OTHERS)):
        at = start + timedelta(seconds=5 * place)
        share = 1.0 if broken else 0.97 if url in blocked else USUAL
        anomaly = "t" if random.random() < share else "f"
        uid = f"{at:%Y%m%d%H%M%S}.{place:06}_{run}"
        domain = url.split("/")[2]
        yield (uid, f"report_{run}", url, code, asn, WEB, start, at, anomaly, "f", "f", domain)


def fill(client: Client, *, fault: bool = True, seed: int = 1) -> None:
    """Add the month to `fastpath`."""
    client.execute(f"INSERT INTO fastpath ({COLUMNS}) VALUES", list(rows(fault=fault, seed=seed)))


def main() -> None:
    """Make the table, and fill it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("uri", help="clickhouse://…")
    with Client.from_url(parser.parse_args().uri) as client:
        create(client, "fastpath")
        fill(client)


if __name__ == "__main__":
    main()
