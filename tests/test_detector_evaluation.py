"""The evaluation: how detections are compared with what happened; the figures of a sample."""

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from baselines import Cusum, WeightedMean
from dev.sample_observations import SCENARIOS, samples, write
from evaluation import (
    Counts,
    Label,
    Truth,
    evaluate,
    hour_of,
    read_labels,
    read_observations,
    score_of,
)
from ooni_common.errors import DataRefused
from sequential import Detector

START = datetime(2025, 1, 1, tzinfo=UTC)
FIRST = hour_of(START)
HEADER = "series,t,cnt,anomaly_cnt\n"


def truth(*events: tuple[int, str]) -> Truth:
    """Return what is known of a series; hours count from START."""
    labels = [Label(START + timedelta(hours=hour), cast("Any", state)) for hour, state in events]
    return Truth("some", 1.0, tuple(labels))


EVERY_HOUR = Counts(np.arange(FIRST, FIRST + 2000), np.ones(2000, dtype=np.int64))


@pytest.mark.parametrize(
    ("changes", "found", "false", "missed"),
    [
        ([], 0, 0, 2),
        ([(105, "BLOCKED"), (310, "OK")], 2, 0, 0),
        ([(100, "BLOCKED")], 1, 0, 1),
        ([(99, "BLOCKED")], 0, 1, 2),
        ([(301, "BLOCKED"), (310, "OK")], 1, 1, 1),
        ([(105, "BLOCKED"), (150, "OK"), (170, "BLOCKED"), (310, "OK")], 2, 2, 0),
        ([(105, "BLOCKED"), (300 + 20 * 24 + 1, "OK")], 1, 1, 1),
    ],
)
def test_changes_are_compared_with_events(
    changes: list[tuple[int, str]], found: int, false: int, missed: int
) -> None:
    detected = [(FIRST + hour, state) for hour, state in changes]
    score = score_of(detected, truth((100, "BLOCKED"), (300, "OK")), EVERY_HOUR)
    assert (score.found, score.false, score.missed) == (found, false, missed)


def test_the_delay_is_until_the_end_of_the_hour_that_caused_the_detection() -> None:
    score = score_of([(FIRST + 105, "BLOCKED")], truth((100, "BLOCKED")), EVERY_HOUR)
    assert score.delays == [5]
    assert score.figures(weeks=2.0) == {
        "tp": 1,
        "fp": 0,
        "fn": 0,
        "precision": 1.0,
        "recall": 1.0,
        "recall_of_clear_events": 1.0,
        "median_delay_h": 5.0,
        "p90_delay_h": 5.0,
        "false_per_1000_series_weeks": 0.0,
    }


def test_the_end_of_what_nobody_could_find_is_not_a_clear_event() -> None:
    score = score_of([], truth((100, "BLOCKED"), (105, "OK")), EVERY_HOUR)
    assert (score.missed, score.clear) == (2, 0)
    assert score_of([], truth((100, "OK")), EVERY_HOUR).clear == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ":1: expected the columns series,t,cnt,anomaly_cnt"),
        (HEADER + "a,2025-01-01T00:30:00,1,0\n", ":2: 2025-01-01T00:30:00 is no full hour"),
        (HEADER + "a,2025-01-01T00:00:00,1,2\n", ":2: 2 anomalies of 1 measurements"),
        (HEADER + "a,2025-01-01T00:00:00,0,0\n", ":2: 0 anomalies of 0 measurements"),
        (HEADER + "a,yesterday,1,0\n", ":2: Invalid isoformat string: 'yesterday'"),
        (HEADER + "a,2025-01-01T00:00:00\n", ":2: list index out of range"),
        (HEADER + 2 * "a,2025-01-01T00:00:00,1,0\n", "two rows of 'a' for 2025-01-01"),
    ],
)
def test_observations_that_are_none_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "o.csv"
    path.write_text(text)
    with pytest.raises(DataRefused) as refused:
        read_observations(path)
    assert reason in str(refused.value)


def test_observations_may_be_compressed_and_have_more_columns(tmp_path: Path) -> None:
    path = tmp_path / "o.csv.gz"
    path.write_bytes(
        gzip.compress(
            b"series,t,cnt,anomaly_cnt,confirmed_cnt\nb,2025-01-01T02:00:00,3,1,0\n"
            b"a,2025-01-01T01:00:00Z,2,2,0\n"
        )
    )
    observations = read_observations(path)
    assert observations.series == ["b", "a"]
    assert observations.hour.tolist() == [FIRST + 1, FIRST + 2]
    assert observations.index.tolist() == [1, 0]
    assert observations.measurements.tolist() == [2, 3]


def test_the_sample_is_what_its_labels_say() -> None:
    made = list(samples(3, 5))
    assert {sample.scenario for sample in made} == set(SCENARIOS)
    assert [sample.name for sample in samples(3, 5)] == [sample.name for sample in made]
    for sample in made:
        assert (sample.anomalies <= sample.measurements).all()
        times = [hour for hour, _ in sample.events]
        assert times == sorted(times)
    national = [sample.events for sample in made if sample.scenario == "national block"]
    assert len({tuple(events) for events in national}) == 1


def test_it_is_better_than_the_detectors_that_it_is_compared_with(tmp_path: Path) -> None:
    write(tmp_path, seed=5, series=12)
    observations = read_observations(tmp_path / "observations.csv.gz")
    labels = read_labels(tmp_path / "labels.json")
    count = len(observations.series)
    results: Any = evaluate(
        {"sequential": Detector(count), "cusum": Cusum(count), "mean": WeightedMean(count)},
        observations,
        labels,
    )
    ours, cusum, mean = results["sequential"], results["cusum"], results["mean"]
    assert ours["precision"] > 0.95
    assert ours["recall_of_clear_events"] > 0.9
    assert ours["median_delay_h"] <= 0.6 * cusum["median_delay_h"]
    assert mean["recall"] < 0.5
    assert set(ours["by_scenario"]) == set(SCENARIOS)
    assert sum(each["tp"] for each in ours["by_rate"].values()) == ours["tp"]
    with pytest.raises(DataRefused, match="no labels of the series"):
        evaluate({"sequential": Detector(count)}, observations, {})
