"""The detector with context: each of its rules, on hours that are made up for it."""

from collections.abc import Iterable

import numpy as np
import pytest

from contextual import ContextDetector
from control import UNKNOWN_SOURCE
from detector_context_harness import (
    ALL_BAD,
    APP,
    NO_OTHERS,
    QUIET,
    WEB,
    A,
    B,
    C,
    Following,
    Run,
    bad,
    changes,
    others,
    quiet,
)

# --- how runs fare otherwise ---


def test_runs_whose_other_inputs_are_fine_are_believed_soon() -> None:
    ((hour, state),) = changes([*quiet(1), *bad(1, QUIET, QUIET + 30)])[1]
    assert state == "BLOCKED"
    assert hour - QUIET < 6


def test_runs_whose_other_inputs_fail_count_for_nothing() -> None:
    broken = bad(1, QUIET, QUIET + 30, bucket=ALL_BAD)
    assert changes([*quiet(1), *broken]) == {}


def test_what_always_fails_in_a_network_is_no_sign_of_a_broken_run() -> None:
    always = others(1, 0, QUIET + 30, bad=7, good=3)
    blocked = bad(1, QUIET, QUIET + 30, bucket=ALL_BAD)
    ((_, state),) = changes([*quiet(1, bucket=ALL_BAD), *blocked], always)[1]
    assert state == "BLOCKED"


APP_RUNS = [
    *quiet(1, target=APP, bucket=NO_OTHERS),
    *(
        run
        for source in (A, B)
        for run in bad(1, QUIET, QUIET + 30, target=APP, bucket=NO_OTHERS, source=source)
    ),
]


@pytest.mark.parametrize("asn", [1, 2])
def test_an_app_is_not_believed_while_the_network_or_the_country_fails(asn: int) -> None:
    fine = others(asn, 0, QUIET, bad=0, good=6, source=C)
    assert (
        changes(APP_RUNS, [*fine, *others(asn, QUIET, QUIET + 30, bad=6, good=0, source=C)]) == {}
    )
    ((hour, _),) = changes(APP_RUNS, others(asn, 0, QUIET + 30, bad=0, good=6, source=C))[1]
    assert hour - QUIET < 6


def test_an_app_is_not_believed_while_its_network_fails_and_the_country_does_not() -> None:
    fine = others(1, 0, QUIET, bad=0, good=6, source=C)
    failing = others(1, QUIET, QUIET + 30, bad=6, good=0, source=C)
    country = others(2, 0, QUIET + 30, bad=0, good=60, source=C)
    assert changes(APP_RUNS, [*fine, *failing, *country]) == {}


def test_an_app_that_nothing_controls_has_to_wait() -> None:
    ((hour, state),) = changes(APP_RUNS)[1]
    assert state == "BLOCKED"
    assert 8 <= hour - QUIET <= 10


def test_what_failed_hours_ago_says_nothing_of_now() -> None:
    failed = others(1, QUIET - 6, QUIET - 3, bad=6, good=0)
    country = others(2, 0, QUIET + 30, bad=0, good=6, source=C)
    ((hour, _),) = changes(APP_RUNS, [*failed, *country])[1]
    assert hour - QUIET < 6


# --- who says it ---


def test_one_kind_of_probe_has_to_last_unless_its_own_inputs_are_fine() -> None:
    country = others(2, 0, QUIET + 20, bad=0, good=6, source=C)
    for sources, waits in (((A,), True), ((A, B), False), ((UNKNOWN_SOURCE,), False)):
        blocked = [
            run
            for source in sources
            for run in bad(1, QUIET, QUIET + 20, source=source, bucket=NO_OTHERS)
        ]
        ((hour, _),) = changes([*quiet(1, bucket=NO_OTHERS), *blocked], country)[1]
        assert (hour - QUIET >= 8) == waits
    seven = bad(1, QUIET, QUIET + 7, bucket=NO_OTHERS)
    after = quiet(1, start=QUIET + 7, end=QUIET + 60, bucket=NO_OTHERS)
    assert changes([*quiet(1, bucket=NO_OTHERS), *seven, *after], country) == {}


COUNTRY = others(2, 0, QUIET + 60, bad=0, good=6, source=C)


def test_an_anomaly_by_chance_hours_before_is_no_evidence_that_lasts() -> None:
    """The eight hours of one kind of probe count from the first hour in which there is much."""
    usual = quiet(1, bucket=NO_OTHERS)
    chance, blocked = QUIET + 1, QUIET + 9
    runs = [Run(chance, 1, 1, bucket=NO_OTHERS), *bad(1, blocked, QUIET + 30, bucket=NO_OTHERS)]
    ((hour, _),) = changes([*usual, *runs], COUNTRY)[1]
    assert hour == blocked + 9
    ((hour, _),) = changes([*usual, *runs[1:]], COUNTRY)[1]
    assert hour == blocked + 10  # there is much with the second one


@pytest.mark.parametrize(("every", "hours"), [(6, 24), (5, 28)])
def test_much_takes_more_anomalies_where_more_are_usual(every: int, hours: int) -> None:
    usual = [
        Run(h, 1, int(h % every == 0), int(h % every > 0), bucket=NO_OTHERS) for h in range(QUIET)
    ]
    runs = bad(1, QUIET, QUIET + 50, step=4, bucket=NO_OTHERS)
    ((hour, _),) = changes([*usual, *runs], COUNTRY)[1]
    assert hour == QUIET + hours


def test_evidence_that_was_gone_has_to_last_once_more() -> None:
    runs = [*quiet(1, bucket=NO_OTHERS), *bad(1, QUIET, QUIET + 3, bucket=NO_OTHERS)]
    runs += quiet(1, start=QUIET + 3, end=QUIET + 20, bucket=NO_OTHERS)
    runs += bad(1, QUIET + 20, QUIET + 40, bucket=NO_OTHERS)
    ((hour, _),) = changes(runs, COUNTRY)[1]
    assert hour == QUIET + 20 + 10


@pytest.mark.parametrize(("more", "told"), [(1, False), (2, True)])
def test_one_kind_of_probe_gives_at_most_half_of_what_suffices(more: int, told: bool) -> None:
    six = bad(1, QUIET, QUIET + 6, bucket=NO_OTHERS)
    second = bad(1, QUIET + 6, QUIET + 6 + more, source=B, bucket=NO_OTHERS)
    country = others(2, 0, QUIET + 8, bad=0, good=6, source=C)
    assert bool(changes([*quiet(1, bucket=NO_OTHERS), *six, *second], country)) == told


@pytest.mark.parametrize(
    ("good", "blocked", "told"),
    [
        pytest.param(1, 2, False, id="a fifth of what suffices"),
        pytest.param(0, 1, True, id="a third"),
        pytest.param(2, 5, False, id="almost a quarter"),
    ],
)
def test_a_second_kind_of_probe_supports_with_a_quarter_of_what_suffices(
    good: int, blocked: int, told: bool
) -> None:
    assert _told_with(Run(QUIET + 1, 1, blocked, good, B, NO_OTHERS)) == told


def test_a_second_kind_of_probe_needs_less_where_a_network_of_the_country_is_blocked() -> None:
    second = Run(QUIET + 1, 1, 5, 2, B, NO_OTHERS)
    country = [run for asn in range(3, 10) for run in quiet(asn, end=QUIET + 8)]
    blocked = [*quiet(2, end=QUIET - 12), *bad(2, QUIET - 12, QUIET + 8)]
    assert not _told_with(second, *country, *quiet(2, end=QUIET + 8))
    assert _told_with(second, *country, *blocked)


def _told_with(*more: Run) -> bool:
    """Tell whether a blocking that one kind of probe sees is told within seven hours."""
    first = bad(1, QUIET, QUIET + 7, bucket=NO_OTHERS)
    fine = others(20, 0, QUIET + 7, bad=0, good=6, source=C)
    return 1 in changes([*quiet(1, bucket=NO_OTHERS), *first, *more], fine, end=QUIET + 7)


@pytest.mark.parametrize("runs", [1, 100])
def test_one_kind_of_probe_decides_nothing_for_ten_days_while_others_see_nothing(runs: int) -> None:
    end = QUIET + 250
    good = quiet(1, end=end, source=B, step=2, bucket=NO_OTHERS)
    blocked = [Run(hour, 1, runs, bucket=NO_OTHERS) for hour in range(QUIET, end)]
    ((hour, _),) = changes([*quiet(1, bucket=NO_OTHERS), *good, *blocked])[1]
    assert hour - QUIET >= 240


@pytest.mark.parametrize("contradicted", [False, True])
def test_where_the_country_agrees_one_kind_of_probe_is_enough(contradicted: bool) -> None:
    end = QUIET + 8
    country = [run for asn in (2, 3, 4) for run in [*quiet(asn), *bad(asn, QUIET, end)]]
    good = quiet(1, end=end, source=B, step=2, bucket=NO_OTHERS) if contradicted else []
    runs = [*quiet(1, bucket=NO_OTHERS), *good, *bad(1, QUIET, end, bucket=NO_OTHERS)]
    assert 1 not in changes(runs)
    assert [state for _, state in changes([*runs, *country])[1]] == ["BLOCKED"]


@pytest.mark.parametrize(
    ("more", "fine", "told"),
    [
        pytest.param(range(5), (), False, id="everywhere"),
        pytest.param(range(1, 5), (), False, id="elsewhere"),
        pytest.param((0,), range(1, 5), False, id="here"),
        pytest.param((), range(5), True, id="nowhere"),
    ],
)
def test_a_kind_of_probe_that_finds_more_than_usual_shifts_what_is_usual(
    more: Iterable[int], fine: Iterable[int], told: bool
) -> None:
    end = QUIET + 200
    released = [
        Run(hour, 0, int(hour % 3 == 0), int(hour % 3 > 0), C, country=0)
        for hour in range(QUIET, end)
    ]
    beside = [
        o for asn in range(5) for o in others(asn, 0, end, bad=0, good=6, source=B, country=asn)
    ]
    for networks, share in ((more, (2, 4)), (fine, (0, 6))):
        for asn in networks:
            beside += others(asn, QUIET, end, bad=share[0], good=share[1], source=C, country=asn)
    runs = [*quiet(0, source=B, country=0), *released]
    assert bool(changes(runs, beside)) == told


def test_hundreds_of_runs_in_an_hour_say_no_more_than_a_few() -> None:
    many = Run(QUIET, 1, 200, 800, source=UNKNOWN_SOURCE)
    blocked = bad(1, QUIET + 1, QUIET + 20)
    assert changes([*quiet(1), many, *blocked]) == changes([*quiet(1), *blocked])


# --- what happens elsewhere ---


def everywhere(failing: int, countries: int) -> dict[int, list[tuple[int, str]]]:
    """Return the changes where a service fails in some countries from an hour on."""
    runs = [run for asn in range(countries) for run in quiet(asn, country=asn)]
    for asn in range(countries):
        some = (
            bad if asn < failing else lambda asn, start, end, **_: quiet(asn, start=start, end=end)
        )
        runs += [
            Run(run.hour, asn, run.bad, run.good, country=asn)
            for run in some(asn, QUIET, QUIET + 12)
        ]
    return changes(runs)


def test_what_fails_in_four_countries_at_once_is_no_blocking() -> None:
    assert everywhere(5, 6) == {}
    assert set(everywhere(3, 6)) == {0, 1, 2}


def test_four_countries_of_many_are_no_failure_of_the_service() -> None:
    assert set(everywhere(4, 20)) == {0, 1, 2, 3}


def test_countries_in_which_it_is_blocked_already_do_not_count() -> None:
    runs = [run for asn in range(4) for run in bad(asn, 0, QUIET + 12, country=asn)]
    runs += [run for asn in range(4, 8) for run in quiet(asn, country=asn)]
    runs += quiet(7, start=QUIET, end=QUIET + 12, country=7)
    runs += [run for asn in (4, 5, 6) for run in bad(asn, QUIET, QUIET + 12, country=asn)]
    assert set(changes(runs)) == {4, 5, 6}


def test_what_is_blocked_in_one_country_after_another_does_not_shut_the_gate() -> None:
    end = QUIET + 6 * 12
    runs = [run for asn in range(6) for run in quiet(asn, end=QUIET + asn * 12, country=asn)]
    runs += [run for asn in range(6) for run in bad(asn, QUIET + asn * 12, end, country=asn)]
    assert set(changes(runs)) == set(range(6))


def nation(networks: int, *, end: int, sparse: int = 99, target: str = WEB) -> list[Run]:
    """Return runs in which a country is blocked for five days, and one network hardly measured."""
    runs = []
    for asn in range(networks):
        runs += quiet(asn, end=end)
        runs += quiet(asn, start=end + 120, end=end + 240)
        runs += bad(asn, end, end + 120)
    runs += quiet(sparse, end=end, step=12, target=target)
    runs += bad(sparse, end, end + 120, step=12, target=target)
    return runs + quiet(sparse, start=end + 120, end=end + 240, step=12, target=target)


@pytest.mark.parametrize("target", [WEB, APP])
def test_networks_of_a_country_help_each_other_at_beginnings_and_ends(target: str) -> None:
    runs = nation(4, end=QUIET, target=target)
    alone = changes(run for run in runs if run.asn == 99)[99]
    together = changes(runs)[99]
    assert [state for _, state in alone] == [state for _, state in together] == ["BLOCKED", "OK"]
    for (later, _), (sooner, _) in zip(alone, together, strict=True):
        assert sooner <= later - 12


def test_networks_that_only_begin_to_look_blocked_help_each_other() -> None:
    runs = [
        run
        for asn in range(5)
        for run in [*quiet(asn, step=12), *bad(asn, QUIET, QUIET + 60, step=12)]
    ]
    ((alone, _),) = changes(run for run in runs if run.asn == 0)[0]
    assert {hour for some in changes(runs).values() for hour, _ in some} == {alone - 12}


@pytest.mark.parametrize(
    ("begun", "last", "waits"),
    [
        pytest.param(20, -60, 0, id="blocked lately"),
        pytest.param(300, -60, 24, id="blocked for long"),
        pytest.param(120, 100, 36, id="not measured for days"),
    ],
)
def test_networks_help_most_that_were_blocked_lately(begun: int, last: int, waits: int) -> None:
    start = QUIET + 300
    runs = [*quiet(99, end=start, step=12), *bad(99, start, start + 60, step=12)]
    for asn in range(3):
        runs += [*quiet(asn, end=start - begun), *bad(asn, start - begun, start - last)]
    ((hour, _),) = changes(runs)[99]
    assert hour - start == waits


def test_a_country_in_which_nobody_else_sees_it_does_not_help() -> None:
    runs = [run for run in nation(8, end=QUIET) if run.asn in (0, 99)]
    fine = [run for asn in range(1, 8) for run in quiet(asn, end=QUIET + 240)]
    alone = changes(run for run in runs if run.asn == 99)[99]
    assert changes([*runs, *fine])[99][0][0] >= alone[0][0] - 12


@pytest.mark.parametrize(("blocked", "waits"), [(3, 1), (4, 0)])
def test_one_anomaly_is_enough_where_nearly_half_of_the_networks_are_blocked(
    blocked: int, waits: int
) -> None:
    runs = [*quiet(99), *bad(99, QUIET, QUIET + 12)]
    for asn in range(8):
        runs += quiet(asn, end=QUIET - 24)
        some = bad(asn, QUIET - 24, QUIET + 12)
        runs += some if asn < blocked else [Run(run.hour, asn, 0, 1) for run in some]
    ((hour, _),) = changes(runs)[99]
    assert hour - QUIET == waits


def test_one_good_run_does_not_end_a_blocking_where_all_others_have_ended() -> None:
    """Less is asked of a beginning than of an end."""
    over = QUIET + 120
    runs = [run for run in nation(4, end=QUIET) if run.asn != 99]
    runs += [*quiet(99, step=12), *bad(99, QUIET, over, step=12)]
    runs += quiet(99, start=over + 6, end=over + 60, step=12)
    (_, (hour, state)) = changes(runs)[99]
    assert (hour - over, state) == (18, "OK")


@pytest.mark.parametrize(
    ("again", "anomaly", "told"),
    [
        pytest.param(20, 26, True, id="soon"),
        pytest.param(20, 75, False, id="for long by then"),
        pytest.param(2, 9, False, id="not yet over for long"),
        pytest.param(2, 16, True, id="over for long enough"),
    ],
)
def test_networks_that_are_blocked_anew_hint_at_another_blocking(
    again: int, anomaly: int, told: bool
) -> None:
    over = QUIET + 48
    end = over + 90
    runs = []
    for asn in range(6):
        runs += [*quiet(asn), *bad(asn, QUIET, over), *quiet(asn, start=over, end=over + again)]
        runs += bad(asn, over + again, end)
    runs += [*quiet(99), *bad(99, QUIET, over)]
    runs += [
        Run(h, 99, int(h == over + anomaly), int(h != over + anomaly)) for h in range(over, end)
    ]
    states = [state for _, state in changes(runs)[99]]
    assert states[:2] == ["BLOCKED", "OK"]
    assert (states[2:3] == ["BLOCKED"]) == told


def test_networks_that_are_still_blocked_lower_nothing_where_it_is_over() -> None:
    runs = [run for asn in range(6) for run in quiet(asn, step=2)]
    runs += [run for asn in range(6) for run in bad(asn, QUIET, QUIET + 96, step=2)]
    over = QUIET + 96
    runs += [run for asn in range(1, 6) for run in bad(asn, over, over + 60, step=2)]
    runs += [
        Run(hour, 0, int(hour in (over + 30, over + 32)), int(hour not in (over + 30, over + 32)))
        for hour in range(over, over + 60, 2)
    ]
    assert [state for _, state in changes(runs)[0]] == ["BLOCKED", "OK"]


def test_a_first_state_is_news_where_the_country_has_just_changed() -> None:
    news = bad(50, QUIET + 20, QUIET + 60)
    assert changes([*quiet(1), *bad(1, QUIET, QUIET + 60), *news])[50][0][1] == "BLOCKED"
    # None where all were blocked already, or where nobody has changed for long.
    assert changes([*bad(1, 0, QUIET + 60), *news]) == {}
    late = bad(50, QUIET + 140, QUIET + 180)
    assert 50 not in changes([*quiet(1), *bad(1, QUIET, QUIET + 180), *late])


# --- while it is blocked ---


def test_the_end_of_a_full_blocking_is_told_however_sparse_the_network() -> None:
    runs = [*quiet(1, step=8), *bad(1, QUIET, 2 * QUIET, step=8)]
    back = [Run(hour, 1, int(hour % 64 == 0), int(hour % 64 > 0)) for hour in range(480, 720, 8)]
    (_, begun), (hour, over) = changes([*runs, *back])[1]
    assert (begun, over) == ("BLOCKED", "OK")
    assert hour - 2 * QUIET <= 7 * 8


@pytest.mark.parametrize("passes", [0, 3])  # good runs in five hours, of fifteen
def test_a_blocking_that_lets_a_run_in_five_pass_ends_as_soon_as_a_full_one(passes: int) -> None:
    usual = [Run(hour, 1, 1, 2, source=UNKNOWN_SOURCE) for hour in range(QUIET)]
    over = QUIET + 40
    passing = {hour: int(hour % 5 < passes) for hour in range(QUIET, over)}
    blocked = [Run(hour, 1, 3 - good, good, UNKNOWN_SOURCE) for hour, good in passing.items()]
    back = [Run(hour, 1, 0, 3, source=UNKNOWN_SOURCE) for hour in range(over, over + 10)]
    assert changes([*usual, *blocked, *back])[1][1:] == [(over + 1, "OK")]


@pytest.mark.parametrize("turn", [2, 6])
def test_a_half_blocking_does_not_flap(turn: int) -> None:
    half = [
        Run(hour, 1, int(hour % (2 * turn) < turn), int(hour % (2 * turn) >= turn))
        for hour in range(QUIET, 600)
    ]
    assert [state for _, state in changes([*quiet(1), *half])[1]] == ["BLOCKED"]


# --- its state ---


@pytest.mark.long
def test_it_goes_on_where_another_one_ended() -> None:
    beside = others(1, 0, 2 * QUIET, bad=1, good=9, source=C)
    runs = nation(3, end=QUIET)
    whole_way = Following(runs, beside)
    first = whole_way.follow(ContextDetector(4), 0, 480)
    for split in (QUIET + 3, QUIET + 9, QUIET + 126):
        in_two = Following(runs, beside)
        half = in_two.follow(ContextDetector(4), 0, split)
        rest = ContextDetector(4)
        rest.put(half.arrays())
        second = in_two.follow(rest, split, 480)
        assert in_two.changes == whole_way.changes
        arrays = first.arrays()
        assert all(np.array_equal(arrays[name], array) for name, array in second.arrays().items())


def test_the_order_of_rows_changes_nothing() -> None:
    runs = nation(3, end=QUIET)
    one, another = Following(runs), Following(runs[::-1])
    arrays = one.follow(ContextDetector(4), 0, 480).arrays()
    turned = another.follow(ContextDetector(4), 0, 480).arrays()
    assert one.changes == another.changes
    assert all(np.array_equal(arrays[name], array) for name, array in turned.items())
