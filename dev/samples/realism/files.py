"""The files of a seed, for `detector evaluate`: observations, others, labels.

The first two come from `fastpath` by the detector's own SQL. The same seed gives the same bytes.
"""

import csv
import functools
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

from clickhouse_driver import Client

from context import CHUNK, OthersCount, RunCount, counts_by_hour
from detector_config import Config
from dev.samples.measurements import create
from dev.samples.realism.mixture import HOURS, NOT_JUDGED
from dev.samples.realism.network import Network, Target
from dev.samples.realism.runs import runs_of
from dev.samples.realism.table import START, FastpathOfRuns
from dev.samples.realism.worlds import World, generator
from ooni_common.config import SecretUrl
from ooni_common.database import Database, connected
from series import hour_of

OBSERVATIONS = (
    "series,t,cnt,anomaly_cnt,world,service,probe_cc,probe_asn,input,control,source,runs,bad_runs"
)
OTHERS = "world,probe_cc,probe_asn,t,source,cnt,anomaly_cnt"
RUNS = 1_000_000  # sets the random numbers of the runs apart from those of the stories
NETWORKS = 70  # whose runs are in memory at once
ALL_OF_A_DAY = 1000  # networks that are asked for a day at once; fewer of them for more


def write(folder: Path, uri: str, seed: int, worlds: Sequence[World]) -> dict[str, int]:
    """Write observations.csv.gz, others.csv.gz and, last, labels.json; return how much is in them.

    Args:
        folder: made if it is not there.
        uri: a database without tables, in which `fastpath` is left.
        seed: of all that is random.
        worlds: of that seed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    services = Config().service_of
    targets = list(services)
    networks = [network for world in worlds for network in world.networks]
    with Client.from_url(f"{uri}?use_numpy=1&send_receive_timeout=3600") as client:
        create(client, "fastpath")
        runs = fill(client, targets, worlds, seed)
        client.execute("DROP TABLE realism_runs")
    world_of = {n.asn: world.number for world in worlds for n in world.networks}
    with connected(Config(db_uri=SecretUrl(uri))) as database:
        rows, others = write_observations(folder, database, services, world_of)
    labels = labels_of(networks)
    (folder / "labels.json").write_text(json.dumps(labels, indent=1) + "\n")
    return {"series": len(labels), "runs": runs, "observations": rows, "others": others}


def fill(client: Client, targets: Sequence[Target], worlds: Iterable[World], seed: int) -> int:
    """Add the measurements of worlds to `fastpath`; return how many runs they are of."""
    codes = sorted({network.cc for world in worlds for network in world.networks})
    table = FastpathOfRuns(client, targets, codes)
    count = 0
    for world in worlds:
        for start in range(0, len(world.networks), NETWORKS):
            parts = [
                runs_of(
                    network,
                    codes.index(network.cc),
                    [targets.index(target) for target in network.targets],
                    generator(seed, network.asn, RUNS),
                )
                for network in world.networks[start : start + NETWORKS]
            ]
            count += table.add(parts)
    return count


def labels_of(networks: Iterable[Network]) -> dict[str, dict[str, Any]]:
    """Return what is known of each series, by its name."""
    labels = {}
    for network in networks:
        for target, scenario, events in zip(
            network.targets, network.scenarios, network.events, strict=True
        ):
            labels[series_name(*target, network.cc, network.asn)] = {
                "scenario": scenario,
                "rate_per_h": network.rate,
                "events": [{"t": time(hour), "to": state} for hour, state in events],
                "group": network.group,
                "fault_hours": network.fault_hours,
                "judged": scenario not in NOT_JUDGED,
            }
    return labels


def write_observations(
    folder: Path, database: Database, services: Mapping[Target, str], worlds: Mapping[int, int]
) -> tuple[int, int]:
    """Write what `fastpath` says as observations.csv.gz and others.csv.gz; return their rows.

    Args:
        folder: where to.
        database: has `fastpath`.
        services: what is followed.
        worlds: the world of each network.
    """
    first = hour_of(START)
    rows = others = 0
    with (
        compressed(folder / "observations.csv.gz") as observations_file,
        compressed(folder / "others.csv.gz") as others_file,
    ):
        observations_file.write(OBSERVATIONS + "\n")
        others_file.write(OTHERS + "\n")
        days = max(1, ALL_OF_A_DAY // len(worlds))
        for start in range(first, first + HOURS, days * CHUNK):
            hours = (start, min(start + days * CHUNK, first + HOURS))
            of_series, of_networks = counts_by_hour(database, services, *hours)
            _write_run_counts(observations_file, of_series, services, worlds)
            _write_others(others_file, of_networks, worlds)
            rows += len(of_series)
            others += len(of_networks)
    return rows, others


def _write_run_counts(
    file: TextIO,
    counts: Iterable[RunCount],
    services: Mapping[Target, str],
    worlds: Mapping[int, int],
) -> None:
    csv.writer(file, lineterminator="\n").writerows(
        (
            series_name(*count[:4]),
            time(count.hour - hour_of(START)),
            count.measurements,
            count.anomalies,
            worlds[count.probe_asn],
            services[count.test_name, count.input],
            *count[2:4],
            count.input,
            count.control,
            count.source,
            count.runs,
            count.bad_runs,
        )
        for count in counts
    )


def _write_others(file: TextIO, counts: Iterable[OthersCount], worlds: Mapping[int, int]) -> None:
    csv.writer(file, lineterminator="\n").writerows(
        (worlds[count.probe_asn], *count[:2], time(count.hour - hour_of(START)), *count[3:])
        for count in counts
    )


@functools.cache
def series_name(test_name: str, url: str, cc: str, asn: int) -> str:
    """Return the name of a series in the files."""
    return f"{cc} AS{asn} {test_name} {url}".rstrip()


@functools.cache
def time(hour: int) -> str:
    """Return an hour, counted from the first one of the suite, as the files have it."""
    return f"{START + timedelta(hours=hour):%Y-%m-%dT%H:%M:%S}"


@contextmanager
def compressed(path: Path) -> Iterator[TextIO]:
    """Open a file to be compressed, with nothing in it of its name and time."""
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=4, fileobj=file, mtime=0) as data,
        io.TextIOWrapper(data, "utf-8", newline="") as text,
    ):
        yield text
