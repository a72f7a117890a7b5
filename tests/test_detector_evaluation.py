"""The evaluation: how detections are compared with what happened; the figures of a sample."""

import gzip
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from dev.samples.observations import RATES, SCENARIOS, samples, write
from evaluation.evaluate import Coverage, Label, Truth, evaluate_files, read_labels, score_of, shown
from evaluation.observations import read_observations
from ooni_common.errors import DataRefused
from series import hour_of

START = datetime(2025, 1, 1, tzinfo=UTC)
FIRST = hour_of(START)
HEADER = "series,t,cnt,anomaly_cnt\n"


def truth(*events: tuple[int, str]) -> Truth:
    """Return what is known of a series; hours count from START."""
    labels = [Label(START + timedelta(hours=hour), cast("Any", state)) for hour, state in events]
    return Truth("some", 1.0, tuple(labels))


EVERY_HOUR = Coverage(np.arange(FIRST, FIRST + 2000), np.ones(2000, dtype=np.int64))


@pytest.mark.parametrize(
    ("changes", "found", "false", "missed"),
    [
        ([], 0, 0, 2),
        ([(105, "BLOCKED"), (310, "OK")], 2, 0, 0),
        ([(100, "BLOCKED")], 1, 0, 1),
        ([(99, "BLOCKED")], 0, 1, 2),
        ([(299, "BLOCKED")], 1, 0, 1),
        ([(300, "BLOCKED")], 0, 1, 2),
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
    assert replace(score, weeks=2.0).figures() == {
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


HOUR_0 = "a,2025-01-01T00:00:00"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ":1: expected the columns series,t,cnt,anomaly_cnt"),
        (HEADER + "a,2025-01-01T00:30:00,1,0\n", ":2: t is '2025-01-01T00:30:00': expected a full"),
        (
            HEADER + "a,yesterday,1,0\n",
            ":2: t is 'yesterday': expected a full hour, as 2025-01-31T",
        ),
        (HEADER + "a,1925-01-01T00:00:00,1,0\n", ":2: t is '1925-01-01T00:00:00': expected a full"),
        (HEADER + HOUR_0 + ",1,2\n", ":2: more anomalies than measurements: expected anomaly_cnt"),
        (HEADER + HOUR_0 + ",-1,0\n", ":2: '-1' is no count: expected a whole number"),
        (HEADER + HOUR_0 + ",1,0.5\n", ":2: '0.5' is no count"),
        (HEADER + HOUR_0 + ",99999999999999999999,0\n", ":2: '99999999999999999999' is no count"),
        (HEADER + HOUR_0 + "\n", ":2: 2 columns: expected 4 or more"),
        (HEADER + HOUR_0 + ",1,0\n\n", ":3: 0 columns: expected 4 or more"),
        (HEADER + HOUR_0 + ',1,0\n"b', ":3: unexpected end of data: expected CSV"),
        (HEADER + 2 * (HOUR_0 + ",1,0\n"), ":3: a second row of 'a' for 2025-01-01T00:00:00"),
        (HEADER + '"a\nb",2025-01-01T00:00:00,1,0\n' + HOUR_0 + ",x,0\n", ":4: 'x' is no count"),
        (HEADER[:-1] + ",failure_cnt\n" + HOUR_0 + ",2,0,3\n", ":2: more failures than measure"),
    ],
)
def test_observations_that_are_none_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "o.csv"
    path.write_text(text)
    with pytest.raises(DataRefused) as refused:
        read_observations(path)
    assert reason in str(refused.value)
    assert str(refused.value).count("\n") == 0


def test_the_first_wrong_row_of_a_large_file_is_reported(tmp_path: Path) -> None:
    rows = [f"series {number},2025-01-01T00:00:00,1,0\n" for number in range(25_000)]
    path = tmp_path / "o.csv"
    for wrong in (9_998, 10_000, 24_999):
        path.write_text("".join([HEADER, *rows[:wrong], HOUR_0 + ",1\n", *rows[wrong + 1 :]]))
        with pytest.raises(DataRefused, match=f"o.csv:{wrong + 2}: 3 columns"):
            read_observations(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x1f\x8b\x08\x00", "o.csv: Compressed file ended"),
        (gzip.compress(HEADER.encode())[:-4], "o.csv: Compressed file ended"),
        (HEADER.encode() + b"\xff,2025-01-01T00:00:00,1,0\n", "o.csv:2: '\\udcff': expected UTF-8"),
        (None, "No such file"),
    ],
    ids=["empty", "cut-off", "not-utf-8", "missing"],
)
def test_files_that_cannot_be_read_are_refused(
    tmp_path: Path, data: bytes | None, reason: str
) -> None:
    path = tmp_path / "o.csv"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataRefused) as refused:
        read_observations(path)
    assert reason in str(refused.value)


@pytest.mark.parametrize("name", ["o.csv", "o.csv.gz"])
def test_observations_may_be_compressed_and_have_more_columns(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    text = (
        b"\xef\xbb\xbfseries,t,cnt,anomaly_cnt,confirmed_cnt\r\nb,2025-01-01T02:00:00,3,1,0\r\n"
        b"a,2025-01-01T01:00:00Z,2,2,0\r\na,2025-01-01T00:00:00,0,0,0"
    )
    for data in (text, gzip.compress(text)):
        path.write_bytes(data)
        observations = read_observations(path)
        assert observations.series == ["b", "a"]
        assert observations.hour.tolist() == [FIRST + 1, FIRST + 2]
        assert observations.index.tolist() == [1, 0]
        assert observations.measurements.tolist() == [2, 3]
        assert observations.anomalies.tolist() == [2, 1]


def test_measurements_that_failed_are_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_text(
        "series,t,cnt,anomaly_cnt,confirmed_cnt,failure_cnt\n"
        "a,2025-01-01T00:00:00,5,1,0,2\n"
        "a,2025-01-01T01:00:00,5,4,0,2\n"
        "a,2025-01-01T02:00:00,5,0,0,5\n"
    )
    observations = read_observations(path)
    assert observations.hour.tolist() == [FIRST, FIRST + 1]
    assert observations.measurements.tolist() == [3, 4]


def test_labels_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "l.json"
    path.write_text('{"a": {"scenario": "s", "rate_per_h": 1, "events": [{"t": 3, "to": "X"}]}}')
    with pytest.raises(DataRefused, match=r"l.json: .*\$\[\.\.\.\]\.events"):
        read_labels(path)


def test_events_of_a_series_without_measurements_are_missed(tmp_path: Path) -> None:
    (tmp_path / "o.csv").write_text(HEADER + HOUR_0 + ",1,0\n")
    events = [{"t": "2025-01-31T00:00:00", "to": "BLOCKED"}]
    labels = {
        "a": {"scenario": "quiet", "rate_per_h": 1, "events": []},
        "b": {"scenario": "block", "rate_per_h": 0.05, "events": events},
    }
    (tmp_path / "l.json").write_text(json.dumps(labels))
    results = evaluate_files(tmp_path / "o.csv", tmp_path / "l.json")
    for figures in results.values():
        assert (figures["tp"], figures["fn"], figures["recall"]) == (0, 1, 0.0)
        assert figures["by_scenario"]["block"]["fn"] == 1
        assert figures["by_scenario"]["block"]["false_per_1000_series_weeks"] is None
        assert figures["by_rate"]["1"]["false_per_1000_series_weeks"] == 0
    del labels["a"]
    (tmp_path / "l.json").write_text(json.dumps(labels))
    with pytest.raises(DataRefused, match="no labels of the series 'a': expected"):
        evaluate_files(tmp_path / "o.csv", tmp_path / "l.json")


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
    write(tmp_path, seeds=[1, 2], series=8)
    results = evaluate_files(tmp_path / "observations.csv.gz", tmp_path / "labels.json")
    assert list(results) == ["sequential", "cusum", "weighted_mean"]
    ours, cusum, mean = results.values()
    assert ours["precision"] >= 0.98
    assert ours["recall_of_clear_events"] >= 0.97
    assert ours["false_per_1000_series_weeks"] <= 2
    assert ours["median_delay_h"] <= 0.6 * cusum["median_delay_h"]
    assert mean["recall"] < 0.5
    assert set(ours["by_scenario"]) == set(SCENARIOS)
    assert list(ours["by_rate"]) == [f"{rate:g}" for rate in RATES]
    for part in ("by_scenario", "by_rate"):
        assert sum(figures["tp"] for figures in ours[part].values()) == ours["tp"]
    for scenario, figures in ours["by_scenario"].items():
        if figures["tp"]:
            assert figures["median_delay_h"] <= cusum["by_scenario"][scenario]["median_delay_h"]
    table = shown(results)
    assert max(len(line) for line in table.splitlines()) <= 80
    assert all(name in table for name in (*results, "partial block", "median delay, hours"))


def test_names_of_scenarios_are_shown_without_what_is_in_them_for_terminals(tmp_path: Path) -> None:
    (tmp_path / "o.csv").write_text(HEADER + HOUR_0 + ",1,0\n")
    labels = {"a": {"scenario": "\x1b[31m" + "é" * 2000, "rate_per_h": 1, "events": []}}
    (tmp_path / "l.json").write_text(json.dumps(labels))
    table = shown(evaluate_files(tmp_path / "o.csv", tmp_path / "l.json"))
    assert "\x1b" not in table
    assert max(len(line) for line in table.splitlines()) <= 80
