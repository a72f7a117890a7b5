"""The evaluation: how detections are compared with what happened; the figures of a sample."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from dev.samples.observations import RATES, SCENARIOS, samples, write
from evaluation.evaluate import Suite, evaluate_files, read_labels
from evaluation.figures import figures_of, simple_figures
from evaluation.observations import Details, read_observations
from evaluation.outcomes import Coverage, EventOutcome, Label, Outcome, Truth, compared, coverage_of
from evaluation.tables import shown
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
    events, wrong = compared(detected, truth((100, "BLOCKED"), (300, "OK")), EVERY_HOUR)
    delays = [event.delay for event in events]
    assert (2 - delays.count(None), len(wrong), delays.count(None)) == (found, false, missed)


def outcome(
    *events: EventOutcome,
    false: tuple[str, ...] = (),
    weeks: float = 2.0,
    happened: Truth | None = None,
    group: str = "",
    details: Details | None = None,
) -> Outcome:
    """Return what became of a series."""
    return Outcome(happened or truth(), events, false, weeks, details or Details(), group)


def test_the_delay_is_until_the_end_of_the_hour_that_caused_the_detection() -> None:
    events, false = compared([(FIRST + 105, "BLOCKED")], truth((100, "BLOCKED")), EVERY_HOUR)
    assert events == (EventOutcome("BLOCKED", 5, clear=True),)
    assert false == ()


def test_the_end_of_what_nobody_could_find_is_not_a_clear_event() -> None:
    events, _ = compared([], truth((100, "BLOCKED"), (105, "OK")), EVERY_HOUR)
    assert [(event.delay, event.clear) for event in events] == [(None, False), (None, False)]
    events, _ = compared([], truth((100, "OK")), EVERY_HOUR)
    assert events[0].clear


def test_every_false_change_counts_those_back_to_ok_too() -> None:
    detected = [(FIRST + hour, state) for hour, state in [(50, "BLOCKED"), (60, "OK")]]
    _, false = compared(detected, truth(), EVERY_HOUR)
    assert false == ("BLOCKED", "OK")
    figures = simple_figures([outcome(false=false), outcome()])
    assert (figures["fp"], figures["false_ends"], figures["series_with_false"]) == (2, 1, 1)
    assert figures["false_per_100_series"] == 100


def test_percentiles_are_delays_that_occurred() -> None:
    found = [EventOutcome("BLOCKED", delay, clear=True) for delay in (1, 2, 3, 50)]
    ended = [EventOutcome("OK", delay, clear=True) for delay in (7, None)]
    figures = simple_figures([outcome(*found), outcome(*ended)])
    assert (figures["median_delay_h"], figures["p90_delay_h"]) == (3, 50)
    assert (figures["beginnings_median_delay_h"], figures["beginnings_recall"]) == (2, 1.0)
    assert (figures["ends_median_delay_h"], figures["ends_p95_delay_h"]) == (7, 7)
    assert (figures["ends_recall"], figures["ends_within_96_h"]) == (0.5, 0.5)
    assert simple_figures([outcome()])["median_delay_h"] is None


def test_the_weeks_of_a_series_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "o.csv").write_text(
        HEADER
        + "a,2025-01-01T00:00:00,1,0\na,2025-01-14T23:00:00,1,0\n"
        + "b,2025-01-03T05:00:00,1,0\nb,2025-01-03T06:00:00,1,0\n"
    )
    coverage = coverage_of(read_observations(tmp_path / "o.csv"))
    assert [of_one.weeks for of_one in coverage] == [2.0, 2 / 168]
    figures = simple_figures([outcome(false=("OK",), weeks=of_one.weeks) for of_one in coverage])
    assert figures["false_per_1000_series_weeks"] == pytest.approx(1000 * 2 / (2 + 2 / 168))


def test_what_is_not_judged_is_reported_and_in_no_total() -> None:
    happened = Truth("curfews", 1.0, (), judged=False)
    outcomes = [outcome(), outcome(false=("BLOCKED",), happened=happened)]
    figures = figures_of([outcomes])
    assert (figures["series"], figures["fp"]) == (1, 0)
    assert figures["by_scenario"]["curfews"]["fp"] == 1
    assert not figures["by_scenario"]["curfews"]["judged"]
    assert figures["by_scenario"]["some"]["judged"]


def test_figures_of_seeds_have_a_spread() -> None:
    delays = (4, 10, 7)
    suites = [[outcome(EventOutcome("BLOCKED", delay, clear=True))] for delay in delays]
    figures = figures_of(suites)
    spread = figures["seeds"]["median_delay_h"]
    assert spread == {"mean": 7, "standard_deviation": 3, "least": 4, "most": 10}
    assert figures["by_scenario"]["some"]["seeds"]["recall"]["least"] == 1.0
    assert "seeds" not in figures_of(suites[:1])
    table = shown(dict.fromkeys(("sequential", "cusum"), figures))
    assert "3 series of 3 seeds" in table
    assert re.search(
        r"median delay, hours +7 +7\n +seeds: mean +7 +7\n.*: least to most +4-10", table
    )


def test_an_incident_is_over_with_the_last_of_its_networks() -> None:
    def ended(asn: int, delay: int | None, service: str = "X") -> Outcome:
        happened = Truth("national", 1.0, (), group="IT")
        end = EventOutcome("OK", delay, clear=True)
        details = Details(probe_asn=str(asn), service=service)
        return outcome(end, happened=happened, group="0 IT", details=details)

    outcomes = [ended(1, 5), ended(2, 9), ended(3, 200), ended(1, 6)]
    few = [ended(1, 5, "Y"), ended(2, 5, "Y")]
    assert figures_of([outcomes + few])["incidents_by_scenario"]["national"] == {
        "incidents": 1,
        "half_back_median_h": 9,
        "all_back_median_h": 200,
        "not_all_back_in_a_week": 1.0,
    }
    never = [ended(1, 5), ended(2, 9), ended(3, None)]
    assert figures_of([never])["incidents_by_scenario"]["national"]["all_back_median_h"] is None


HOUR_0 = "a,2025-01-01T00:00:00"


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
    results = evaluate_files([Suite(tmp_path / "o.csv", tmp_path / "l.json")])
    for figures in results.values():
        assert (figures["tp"], figures["fn"], figures["recall"]) == (0, 1, 0.0)
        assert figures["by_scenario"]["block"]["fn"] == 1
        assert figures["by_scenario"]["block"]["false_per_1000_series_weeks"] is None
        assert figures["by_rate"]["1"]["false_per_1000_series_weeks"] == 0
    del labels["a"]
    (tmp_path / "l.json").write_text(json.dumps(labels))
    with pytest.raises(DataRefused, match="no labels of the series 'a': expected"):
        evaluate_files([Suite(tmp_path / "o.csv", tmp_path / "l.json")])


def test_the_sample_is_what_its_labels_say() -> None:
    made = list(samples(3, 5))
    assert {sample.scenario for sample in made} == set(SCENARIOS)
    assert [sample.name for sample in samples(3, 5)] == [sample.name for sample in made]
    for sample in made:
        assert (sample.anomalies <= sample.measurements).all()
        times = [hour for hour, _ in sample.events]
        assert times == sorted(times)
    national = [sample.events for sample in made if sample.scenario == "national blocking"]
    assert len({tuple(events) for events in national}) == 1


@pytest.mark.long
def test_it_is_better_than_the_detectors_that_it_is_compared_with(tmp_path: Path) -> None:
    write(tmp_path, seeds=[1, 2], series=8)
    results = evaluate_files([Suite(tmp_path / "observations.csv.gz", tmp_path / "labels.json")])
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
    assert all(name in table for name in (*results, "partial blocking", "median delay, hours"))


def test_names_of_scenarios_are_shown_without_what_is_in_them_for_terminals(tmp_path: Path) -> None:
    (tmp_path / "o.csv").write_text(HEADER + HOUR_0 + ",1,0\n")
    labels = {"a": {"scenario": "\x1b[31m" + "é" * 2000, "rate_per_h": 1, "events": []}}
    (tmp_path / "l.json").write_text(json.dumps(labels))
    table = shown(evaluate_files([Suite(tmp_path / "o.csv", tmp_path / "l.json")]))
    assert "\x1b" not in table
    assert max(len(line) for line in table.splitlines()) <= 80
