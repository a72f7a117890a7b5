"""The suite that is like life: its mixture, its rows of fastpath, and what is made of them."""

import csv
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from conftest import Database as FreshDatabase
from context import counts_by_hour
from detector_config import Config
from dev.samples.measurements import create
from dev.samples.realism import mixture
from dev.samples.realism.files import fill, labels_of, write
from dev.samples.realism.mixture import HOURS
from dev.samples.realism.network import WEB
from dev.samples.realism.table import START
from dev.samples.realism.worlds import World, generator, worlds_of
from evaluation.evaluate import Suite, evaluate_files
from ooni_common.config import SecretUrl
from ooni_common.database import connected
from series import HOUR, hour_of

ROOT = Path(__file__).parents[1]
SERVICES = Config().service_of
FIRST = hour_of(START)
OF_A_TEST_HELPER = 20  # a world of 13 networks


def few_of(seed: int, number: int, rates: Sequence[float], scenarios: str = "") -> World:
    """Return a world with only those of its networks that have some rates, or classes."""
    (world,) = worlds_of(seed, [number])
    networks = [network for network in world.networks if network.rate in rates]
    return World(number, [n for n in networks if re.match(scenarios, n.scenarios[0])])


def test_the_mixture_stays_as_it_was_first() -> None:
    fixed = [
        getattr(mixture, name)
        for name in ("HOURS", "RATES", "SPARSE_RATES", "PAIRS", "COUNTRIES", "WORLDS")
    ]
    digest = hashlib.sha256(json.dumps(fixed).encode()).hexdigest()
    assert digest[:16] == "58771eca1407d4f9", "another mixture is another suite: add one"


@pytest.mark.parametrize("seed", [1, 7])
def test_the_mixture_has_enough_of_everything(seed: int) -> None:
    labels = labels_of([network for world in worlds_of(seed) for network in world.networks])
    series = list(labels.values())
    assert len(series) >= 3000
    judged = [label for label in series if label["judged"]]
    assert sum(len(label["events"]) for label in judged) >= 1000
    eventful = sum(bool(label["events"]) for label in judged)
    assert 0.45 <= eventful / len(judged) <= 0.5
    by_class = Counter(label["scenario"] for label in series)
    assert {part.scenario for part in (*mixture.COUNTRIES, *mixture.WORLDS)} <= set(by_class)
    assert min(by_class.values()) >= 100
    rates = [label["rate_per_h"] for label in series]
    assert (min(rates), max(rates)) == (0.05, 10.0)


def test_events_alternate_and_lie_inside() -> None:
    networks = [network for world in worlds_of(3) for network in world.networks]
    for events in (events for network in networks for events in network.events):
        assert all(0 < hour < HOURS for hour, _ in events)
        assert [hour for hour, _ in events] == sorted({hour for hour, _ in events})
        assert [state for state, _ in groupby(state for _, state in events)] == [
            ("BLOCKED", "OK")[place % 2] for place in range(len(events))
        ]


@pytest.mark.long
def test_the_same_seed_gives_the_same_bytes_in_another_process(
    tmp_path: Path, database: FreshDatabase
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    write(here, database.uri, 5, list(worlds_of(5, [OF_A_TEST_HELPER])))
    arguments = ["--seeds", "5", "--worlds", str(OF_A_TEST_HELPER)]
    subprocess.run(
        [sys.executable, "-m", "dev.samples.realism", str(elsewhere), *arguments],
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT)},
        check=True,
    )
    names = ["labels.json", "observations.csv.gz", "others.csv.gz"]
    assert sorted(path.name for path in here.iterdir()) == names
    for name in names:
        assert (here / name).read_bytes() == (elsewhere / "seed-5" / name).read_bytes()


def test_observations_are_what_the_job_counts(database: FreshDatabase) -> None:
    world = few_of(2, 3, (0.5,))
    client = database.client(use_numpy=True)
    create(client, "fastpath")
    fill(client, list(SERVICES), [world], 2)
    with connected(Config(db_uri=SecretUrl(database.uri))) as measurements:
        start, end = FIRST + 480, FIRST + 504
        runs, others = counts_by_hour(measurements, SERVICES, start, end)
    expected_runs, expected_others = counted_by_hand(database, start, end)
    assert {tuple(count) for count in runs} == expected_runs
    assert {tuple(count) for count in others} == expected_others
    assert {count.control for count in runs} >= {0, 1, 4}


def counted_by_hand(
    database: FreshDatabase, start: int, end: int
) -> tuple[set[tuple[Any, ...]], set[tuple[Any, ...]]]:
    """Return what the two queries should say, from the rows of fastpath themselves."""
    rows = database.execute(
        "SELECT test_name, input, probe_cc, probe_asn,"
        " intDiv(toUnixTimestamp(measurement_start_time), 3600) AS hour, report_id,"
        " anomaly = 't' OR confirmed = 't', confirmed = 't',"
        " modulo(cityHash64(platform, software_name, software_version, architecture), 1048575) + 1,"
        " toUnixTimestamp(test_start_time) < hour * 3600 FROM fastpath"
        f" WHERE msm_failure = 'f' AND hour >= {start} AND hour < {end}"
    )
    by_run = defaultdict(list)
    others: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0])
    for test, url, cc, asn, hour, report, bad, confirmed, source, goes_on in rows:
        by_run[test, cc, asn, hour, report, source, goes_on].append((url, bad, confirmed))
        if test == WEB and (test, url) not in SERVICES:
            others[cc, asn, hour, source][0] += 1
            others[cc, asn, hour, source][1] += bad
    counts: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * 5)
    for (test, cc, asn, hour, _, source, goes_on), measured in by_run.items():
        beside = [bad for url, bad, _ in measured if (test, url) not in SERVICES]
        share = sum(beside) / len(beside) if beside else None
        limits = (0.1, 0.3, 0.6)
        control = 0 if share is None else 1 + sum(share > limit + 1e-9 for limit in limits)
        for url in {url for url, _, _ in measured if (test, url) in SERVICES}:
            of_url = [(bad, confirmed) for other, bad, confirmed in measured if other == url]
            bad = sum(bad for bad, _ in of_url)
            counts_now = not (goes_on and len(of_url) > 1)
            sure = sum(confirmed for _, confirmed in of_url)
            is_bad = counts_now and bad > 0 and 2 * bad >= len(of_url)
            numbers = (len(of_url), bad, sure, int(counts_now), int(is_bad))
            key = (test, url, cc, asn, hour, source, control)
            counts[key] = [a + b for a, b in zip(counts[key], numbers, strict=True)]
    return (
        {(*key, *numbers) for key, numbers in counts.items()},
        {(*key, *numbers) for key, numbers in others.items()},
    )


def test_rows_are_like_those_of_probes(database: FreshDatabase) -> None:
    world = few_of(2, 0, (0.25, 0.5, 1.0))
    client = database.client(use_numpy=True)
    create(client, "fastpath")
    runs = fill(client, list(SERVICES), [world], 2)
    query = database.execute
    (row,) = query("SELECT count(), uniqExact(measurement_uid) FROM fastpath")
    assert row[0] == row[1] > runs
    (sizes,) = query(
        "SELECT min(n), max(n), countIf(n = 1) / count() FROM (SELECT count() AS n FROM fastpath"
        f" WHERE test_name = '{WEB}' GROUP BY report_id HAVING uniqExact(input) = n)"
    )
    assert sizes[0] == 1
    assert 35 <= sizes[1] <= 46
    assert 0.05 < sizes[2] < 0.5
    # Lists of blocked pages, clocks that are wrong, versions, failures, and apps in runs of one.
    (links,) = query(
        "SELECT uniqExact(ooni_run_link_id), avg(anomaly = 't') FROM fastpath"
        " WHERE ooni_run_link_id > 0 AND input LIKE '%list%'"
    )
    assert links[0] > 50
    assert links[1] > 0.8
    (clocks,) = query(
        "SELECT countIf(abs(away) > 1000), max(abs(away)) FROM (SELECT measurement_start_time"
        " - parseDateTime(substring(measurement_uid, 1, 14), '%Y%m%d%H%i%S', 'UTC') AS away"
        " FROM fastpath)"
    )
    assert clocks[0] > 0
    assert clocks[1] >= HOUR - 60
    (many,) = query(
        "SELECT uniqExact(software_version), uniqExact(platform), avg(msm_failure = 't'),"
        " uniqExactIf(report_id, test_name = 'signal') = countIf(test_name = 'signal')"
        " FROM fastpath"
    )
    assert many[:2] == (3, 5)
    assert 0.01 < many[2] < 0.03
    assert many[3]


@pytest.mark.long
def test_a_few_series_of_the_suite_show_what_it_shows(
    tmp_path: Path, database: FreshDatabase
) -> None:
    worlds = [few_of(4, 4, (0.25, 0.5), "permanent|blocking of 10|appears|broken|enthusiast, one")]
    counts = write(tmp_path, database.uri, 4, worlds)
    assert counts["series"] == len(json.loads((tmp_path / "labels.json").read_text()))
    paths = [tmp_path / f"{name}.csv.gz" for name in ("observations", "others")]
    for path, rows in zip(paths, (counts["observations"], counts["others"]), strict=True):
        with gzip.open(path, "rt") as file:
            assert len(list(csv.reader(file))) == rows + 1
    results = evaluate_files([Suite(paths[0], tmp_path / "labels.json", paths[1])])
    ours, cusum = results["sequential"], results["cusum"]
    assert ours["tp"] > 10
    assert ours["median_delay_h"] < cusum["median_delay_h"]
    of_class = ours["by_scenario"]
    assert of_class["blocking of 10 days"]["recall"] == 1
    assert of_class["appears with blocking"]["beginnings_recall"] == 0  # nobody was OK
    assert of_class["enthusiast, one run"]["false_per_100_series"] == 0  # D3


def test_generators_are_always_the_same() -> None:
    assert generator(1, 2).integers(0, 1000, 5).tolist() == [643, 448, 938, 430, 87]
