"""What is in doubt: it is told as such while it lasts, and not as blocking."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from context import ContextCounts
from detector_config import Config
from detector_harness import FACEBOOK, at, series
from following import Follower
from series import Event, InDoubt, Series, hour_of

SERVICES = Config().service_of
FIRST = hour_of(at(0))
QUIET = 240  # hours in which nothing happens
FINE, NO_OTHERS, ALL_BAD = 1, 0, 4  # buckets
ONE_KIND = 7
CODES = ("BR", "DE", "FR", "IN", "IT", "MX", "NG", "US")

Bad = Mapping[Series, tuple[int, int, int]]  # from an hour up to another one, in a bucket


def counts_of(of: Iterable[Series], bad: Bad, end: int, bucket: int = FINE) -> ContextCounts:
    """Return a run of each series in each hour; `end`: hours after START."""
    of = list(of)
    rows = []
    for place, one in enumerate(of):
        begin, over, bad_bucket = bad.get(one, (0, 0, FINE))
        for hour in range(end):
            is_bad = begin <= hour < over
            control = bad_bucket if is_bad else bucket
            rows.append((place, FIRST + hour, ONE_KIND, control, 1, is_bad, 0, 1, is_bad))
    nothing = np.empty((0, 5), dtype=np.int64)
    return ContextCounts(FIRST, FIRST + end, of, np.array(rows, np.int64), nothing)


def followed(
    of: Iterable[Series], bad: Bad, end: int, bucket: int = FINE
) -> tuple[InDoubt, list[Event]]:
    """Return what is in doubt at an hour, and what was told."""
    follower = Follower(SERVICES)
    events = follower.follow(counts_of(of, bad, end, bucket))
    return follower.in_doubt(SERVICES, FIRST + end), events


def world(countries: int, networks: int = 1) -> list[Series]:
    return [series(code, asn) for code in CODES[:countries] for asn in range(1, 1 + networks)]


def failing(of: Iterable[Series], hours: int, bucket: int) -> Bad:
    return dict.fromkeys(of, (QUIET, QUIET + hours, bucket))


def test_a_service_that_fails_in_four_countries_is_in_doubt_and_no_news() -> None:
    of = world(8)
    # One bad hour of three is not enough for the gate; what the runs' other inputs show is.
    for bucket, since in ((FINE, QUIET + 1), (ALL_BAD, QUIET)):
        doubt, events = followed(of, failing(of[:4], 9, bucket), QUIET + 9)
        assert doubt.failing == (("Facebook", at(since)),)
        assert events == []
    assert followed(of, failing(of[:3], 9, ALL_BAD), QUIET + 9)[0].failing == ()
    few = [*of, *(series(code) for code in ("CA", "CH"))]
    assert followed(few, failing(few[:4], 9, ALL_BAD), QUIET + 9)[0].failing == ()


def test_it_is_in_doubt_until_the_measurements_are_fine_again() -> None:
    of = world(5)
    bad = failing(of, 6, ALL_BAD)
    assert followed(of, bad, QUIET)[0] == InDoubt()
    assert followed(of, bad, QUIET + 6)[0].failing == (("Facebook", at(QUIET)),)
    assert followed(of, bad, QUIET + 7)[0] == InDoubt()


@pytest.mark.parametrize("goes_on", [False, True])
def test_without_further_runs_it_is_in_doubt_for_three_hours(goes_on: bool) -> None:
    of = world(5)
    counts = counts_of(of, failing(of, 9, ALL_BAD), QUIET + 9)
    later = counts.runs[:, 1] >= FIRST + QUIET + 6
    counts.runs[later, 7:] = 0  # of runs that have begun before
    follower = Follower(SERVICES)
    follower.follow(counts if goes_on else replace(counts, runs=counts.runs[~later]))
    assert follower.in_doubt(SERVICES, FIRST + QUIET + 8).failing
    assert not follower.in_doubt(SERVICES, FIRST + QUIET + 9).failing


def test_a_country_in_which_three_networks_fail_in_everything_is_in_doubt() -> None:
    of = world(2, networks=6)
    doubt, events = followed(of, failing(of[:3], 5, ALL_BAD), QUIET + 5)
    assert (doubt.failing, doubt.countries, events) == ((), (("BR", at(QUIET)),), [])
    assert followed(of, failing(of[:2], 5, ALL_BAD), QUIET + 5)[0].countries == ()
    large = world(2, networks=7)
    assert followed(large, failing(large[:3], 5, ALL_BAD), QUIET + 5)[0].countries == ()
    small = world(2, networks=2)
    assert followed(small, failing(small[:2], 5, ALL_BAD), QUIET + 5)[0].countries == ()


def test_what_has_too_little_support_is_held_for_eight_hours() -> None:
    of = [series("IT", 1)]
    bad = failing(of, 40, NO_OTHERS)
    held, events = followed(of, bad, QUIET + 5, NO_OTHERS)
    assert (len(held.held), events) == (1, [])
    assert at(QUIET) < held.held[0] < at(QUIET + 4)
    assert followed(of, bad, QUIET + 1, NO_OTHERS)[0].held == ()
    held, events = followed(of, bad, QUIET + 12, NO_OTHERS)
    assert (held.held, [event.status for event in events]) == ((), ["BLOCKED"])
    believed = followed(of, failing(of, 40, FINE), QUIET + 3)
    assert believed[0].held == ()


def test_a_series_that_is_not_measured_any_more_is_not_held() -> None:
    follower = Follower(SERVICES)
    of = [series("IT", 1)]
    follower.follow(counts_of(of, failing(of, 40, NO_OTHERS), QUIET + 5, NO_OTHERS))
    assert follower.in_doubt(SERVICES, FIRST + QUIET + 28).held
    assert not follower.in_doubt(SERVICES, FIRST + QUIET + 29).held


def test_what_is_in_doubt_survives_a_checkpoint() -> None:
    of = world(5)
    follower = Follower(SERVICES)
    counts = counts_of(of, failing(of, 9, ALL_BAD), QUIET + 5)
    follower.follow(counts)
    checkpoint = follower.checkpoint(counts.end, counts.end)
    another = Follower.from_checkpoint(checkpoint, SERVICES)
    expected = follower.in_doubt(SERVICES, counts.end)
    assert another.in_doubt(SERVICES, counts.end) == expected != InDoubt()


def test_services_that_are_not_followed_are_left_out() -> None:
    of = world(5)
    follower = Follower(SERVICES)
    follower.follow(counts_of(of, failing(of, 9, ALL_BAD), QUIET + 5))
    assert SERVICES[FACEBOOK] == "Facebook"
    assert follower.in_doubt({}, FIRST + QUIET + 5).failing == ()
