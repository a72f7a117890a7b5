"""The sequential test: what it makes of counts, hour by hour."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sequential import ALONE, Detector
from series import BLOCKED, OK, STATE_NAMES, UNKNOWN
from support import SupportParameters

Hours = Sequence[tuple[int, int, int]]  # hour, measurements, anomalies


def alone(series: int = 1) -> Detector:
    """Return a detector for counts of which nothing else is known."""
    return Detector(series, ALONE)


def follow(hours: Hours, detector: Detector | None = None) -> list[tuple[int, str]]:
    """Return the changes of one series: the hour that caused each, and the state since then."""
    detector = detector or alone()
    changes = []
    for hour, measurements, anomalies in hours:
        changed, before = detector.advance(
            hour, np.array([0]), np.array([measurements]), np.array([anomalies])
        )
        if len(changed):
            assert before[0] != detector.status[0]
            changes.append((hour, STATE_NAMES[detector.status[0]]))
    return changes


def hours(start: int, end: int, measurements: int, anomalies: int, step: int = 1) -> Hours:
    """Return the same counts for each of some hours."""
    return [(hour, measurements, anomalies) for hour in range(start, end, step)]


QUIET = hours(0, 200, 2, 0)


def test_a_series_gets_its_first_state_after_some_hours() -> None:
    assert follow(hours(0, 20, 1, 0))[0][1] == "OK"
    assert follow(hours(0, 20, 1, 1))[0][1] == "BLOCKED"
    assert follow(hours(0, 2, 50, 50)) == []
    assert follow(hours(0, 2, 50, 0)) == []


def test_a_blocking_is_found_within_hours_and_its_end_too() -> None:
    changes = follow([*QUIET, *hours(200, 300, 2, 2), *hours(300, 400, 2, 0)])
    assert [state for _, state in changes] == ["OK", "BLOCKED", "OK"]
    assert changes[1][0] - 200 < 6
    assert changes[2][0] - 300 < 6


def test_an_outage_of_three_hours_is_no_block() -> None:
    assert len(follow([*QUIET, *hours(200, 203, 20, 20), *hours(203, 300, 20, 0)])) == 1


def test_one_probe_in_a_loop_decides_nothing() -> None:
    assert len(follow([*QUIET, (200, 500, 500), *hours(201, 300, 2, 0)])) == 1


def test_a_partial_blocking_does_not_flap() -> None:
    partial = [(hour, 2, 1) for hour in range(200, 700)]
    changes = follow([*QUIET, *partial, *hours(700, 900, 2, 0)])
    assert [state for _, state in changes] == ["OK", "BLOCKED", "OK"]
    assert changes[2][0] >= 700


def test_a_series_that_always_has_anomalies_is_not_blocked() -> None:
    assert [state for _, state in follow([(hour, 4, 1) for hour in range(1000)])] == ["OK"]


def test_a_few_measurements_with_days_between_them_suffice() -> None:
    changes = follow([*hours(0, 1000, 1, 0, step=20), *hours(1000, 1400, 1, 1, step=20)])
    assert [state for _, state in changes] == ["OK", "BLOCKED"]
    assert changes[1][0] - 1000 <= 6 * 20


def test_a_state_began_when_the_first_evidence_for_it_was_seen() -> None:
    detector = alone()
    (changed,) = follow(hours(50, 60, 2, 0), detector)
    assert (changed[1], detector.since[0]) == ("OK", 50)
    follow(hours(60, 200, 2, 0), detector)
    (changed,) = follow(hours(200, 300, 2, 2), detector)
    assert (changed[1], detector.since[0]) == ("BLOCKED", 200)
    (changed,) = follow(hours(300, 400, 2, 0), detector)
    assert (changed[1], detector.since[0]) == ("OK", 300)


def test_two_good_hours_are_as_much_as_ends_a_blocking() -> None:
    blocked = [*QUIET, *hours(200, 240, 3, 3)]
    with_context = Detector(1)
    assert [state for _, state in follow(blocked, with_context)] == ["OK", "BLOCKED"]
    assert follow(hours(240, 260, 50, 0), with_context) == [(241, "OK")]


NAMES = """
status since last begins ends held_since first partial ok_anomalies ok_others blocked_anomalies
blocked_others for_ok_0_value for_ok_0_since for_ok_1_value for_ok_1_since for_blocked_0_value
for_blocked_0_since for_blocked_1_value for_blocked_1_since support_source support_much_since
support_main_0 support_main_1 support_rest_0 support_rest_1 support_own_0 support_own_1
"""


def test_what_is_known_has_the_names_and_types_that_checkpoints_have() -> None:
    arrays = Detector(3, support=SupportParameters()).arrays()
    assert arrays.keys() == set(NAMES.split())
    assert {len(array) for array in arrays.values()} == {3}
    assert arrays["status"].dtype == np.int8
    without = {name for name in NAMES.split() if not name.startswith("support")}
    assert alone(3).arrays().keys() == without


def test_before_the_first_measurement_nothing_is_known() -> None:
    detector = Detector(2)
    assert detector.status.tolist() == [UNKNOWN, UNKNOWN]
    for name in ("since", "last", "held_since"):
        assert getattr(detector, name).tolist() == [-1, -1]
    assert detector.progress().tolist() == [0.0, 0.0]


def test_series_of_which_nothing_is_put_stay_as_they_are() -> None:
    first, second = alone(2), alone(3)
    index, counts = np.array([0, 1]), np.array([2, 2])
    for hour in range(9):
        first.advance(hour, index, counts, np.array([0, 2]))
    second.put(first.arrays())
    assert second.status.tolist() == [OK, BLOCKED, UNKNOWN]
    assert second.last.tolist() == [8, 8, -1]
    same = alone(2)
    same.put(first.arrays())
    assert same.status.tolist() == [OK, BLOCKED]


def test_what_is_not_known_of_such_series_is_not_put() -> None:
    arrays = alone(2).arrays()
    with pytest.raises(ValueError, match="status"):
        alone(1).put(arrays)
    with pytest.raises(ValueError, match="since"):
        alone(2).put(arrays | {"since": arrays["since"].astype(float)})
    del arrays["ends"]
    with pytest.raises(KeyError, match="ends"):
        alone(2).put(arrays)


@pytest.mark.long
def test_a_detector_goes_on_where_another_one_ended() -> None:
    counts = [*QUIET, *hours(200, 240, 1, 1), *hours(240, 300, 3, 0)]
    for end in range(190, 300, 3):
        first, second = alone(), alone(2)
        before = follow(counts[:end], first)
        second.put(first.arrays())
        assert [*before, *follow(counts[end:], second)] == follow(counts)


def test_evidence_fades_in_silence() -> None:
    some = [*QUIET, *hours(200, 203, 1, 1)]
    assert len(follow([*some, *hours(203, 206, 1, 1)])) == 2
    assert len(follow([*some, *hours(1203, 1205, 1, 1)])) == 1


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30)), min_size=1, max_size=80),
    st.integers(1, 5),
)
def test_series_do_not_know_of_each_other(counts: list[tuple[int, int]], series: int) -> None:
    by_itself = follow([(hour, n, min(n, a)) for hour, (n, a) in enumerate(counts)])
    together = alone(series)
    changes = []
    for hour, (measurements, anomalies) in enumerate(counts):
        index = np.arange(series)
        seen = np.full(series, measurements)
        bad = np.where(index == series - 1, min(measurements, anomalies), 0)
        changed, _ = together.advance(hour, index, seen, bad)
        if series - 1 in changed:
            changes.append((hour, STATE_NAMES[together.status[series - 1]]))
    assert changes == by_itself


@pytest.mark.parametrize("status", [UNKNOWN, OK, BLOCKED])
def test_an_hour_without_measurements_changes_nothing(status: int) -> None:
    detector = alone(3)
    detector.status[:] = status
    nothing = np.array([], dtype=np.int64)
    changed, before = detector.advance(0, nothing, nothing, nothing)
    assert (len(changed), len(before)) == (0, 0)
    assert set(detector.status) == {status}


def test_the_thresholds_are_parameters() -> None:
    blocked = [*QUIET, *hours(200, 230, 2, 2)]
    patient = Detector(1, replace(ALONE, blocked_thresholds=(50.0, 50.0)))
    assert follow(blocked, patient)[1][0] > follow(blocked)[1][0]
