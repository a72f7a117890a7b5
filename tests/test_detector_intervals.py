"""Intervals of figures, where series depend on each other."""

import numpy as np
import pytest

from evaluation.intervals import (
    Sums,
    percentile,
    percentile_interval,
    rate_interval,
    share_interval,
)


def sums(*groups: tuple[float, float]) -> Sums:
    parts, wholes = zip(*groups, strict=True)
    return Sums(np.array(parts, dtype=float), np.array(wholes, dtype=float))


def test_independent_trials_give_the_interval_of_wilson() -> None:
    # 8 of 10: the example of most text books.
    assert share_interval(sums(*8 * [(1, 1)], *2 * [(0, 1)])) == pytest.approx(
        (0.46, 0.92), abs=0.03
    )


def test_series_that_fare_alike_count_once() -> None:
    alone = share_interval(sums(*50 * [(1, 1)], *50 * [(0, 1)]))
    alike = share_interval(sums(*5 * [(10, 10)], *5 * [(0, 10)]))
    assert alone is not None
    assert alike is not None
    assert alike[1] - alike[0] > 2.5 * (alone[1] - alone[0])


def test_where_none_differs_the_groups_are_counted() -> None:
    found = share_interval(sums(*15 * [(10, 10)]))
    assert found == pytest.approx((0.796, 1.0), abs=0.001)
    # Of 15 stories none had a false change: it may still be one of four or five.
    false = rate_interval(sums(*15 * [(0, 8)]))
    assert false == pytest.approx((0.0, 3.69 / 15), abs=0.01)


def test_counts_have_the_interval_of_byar() -> None:
    interval = rate_interval(sums(*10 * [(1, 1)], *90 * [(0, 1)]))
    assert interval == pytest.approx((0.048, 0.184), abs=0.002)  # of Poisson, 10 of 100


def test_one_group_tells_no_interval() -> None:
    assert share_interval(sums((3, 5))) is None
    assert rate_interval(sums((3, 5))) is None
    assert percentile_interval(np.zeros(3, dtype=np.int64), np.array([1.0, 2, 3]), 50) is None


def test_percentiles_are_values() -> None:
    values = np.array([30.0, 10, 20, 40])
    assert [percentile(values, percent) for percent in (1, 25, 50, 75, 90, 100)] == [
        10,
        10,
        20,
        30,
        40,
        40,
    ]
    assert percentile(np.array([]), 50) is None
    groups = np.arange(100)
    interval = percentile_interval(groups, np.arange(100.0), 50)
    assert interval == pytest.approx((39, 59), abs=1)


def test_groups_without_trials_are_left_out() -> None:
    groups = np.array([7, 7, 9, 3])
    summed = Sums.by_group(groups, np.array([1.0, 0, 0, 0]), np.array([1.0, 1, 0, 2]))
    assert summed.parts.tolist() == [0, 1]
    assert summed.wholes.tolist() == [2, 2]
