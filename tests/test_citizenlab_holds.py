"""Which lists are held, for how long, and what is accepted: decided on figures alone."""

from collections.abc import Sequence

import pytest

from citizenlab.holds import DAY, Holds, Live, Plan, Rules, plan_of
from citizenlab.lists import Rows, TestList
from csv_source import Finding

RULES = Rules(country_share=0.5, share=0.1, days=14)
START = 1_767_225_600.0  # 2026-01-01
OTHERS = 6000  # rows of the countries that are well
WELL = ("aa", "bb", "cc", "dd")


def rows_of(hosts: Sequence[str], pages: int = 1, scheme: str = "https") -> list[tuple[str, ...]]:
    return [(host, f"{scheme}://{host}/{page}", "NEWS") for host in hosts for page in range(pages)]


def hosts(count: int, name: str = "host") -> list[str]:
    return [f"{name}{number}.example" for number in range(count)]


def a_list(cc: str, rows: Sequence[tuple[str, ...]], *, broken: bool = False) -> TestList:
    result = TestList(f"lists/{cc}.csv", cc)
    result.rows = Rows(cc, [(row[0], row[1], row[2]) for row in rows])
    if broken:
        result.rows = Rows(cc)
        result.broken = Finding(result.file, 7, "a merge conflict marker")
    return result


def live_of(rows: Sequence[tuple[str, ...]]) -> Live:
    return Live(len(rows), frozenset(row[0].removeprefix("www.") for row in rows))


class Upstream:
    """Lists from commit to commit: some countries that are well, and those of a test."""

    def __init__(self, **live: Sequence[tuple[str, ...]]) -> None:
        well = {cc: rows_of(hosts(OTHERS // len(WELL), cc)) for cc in WELL}
        self.well = [a_list(cc, rows) for cc, rows in well.items()]
        self.live = {cc: live_of(rows) for cc, rows in (well | live).items()}
        self.holds = Holds()
        self.now = START

    def commit(self, *lists: TestList, rules: Rules = RULES, after: float = 0) -> Plan:
        """Return what becomes of a commit so many days after the last one, and go on from there."""
        self.now += after * DAY
        plan = plan_of([*self.well, *lists], self.live, self.holds, rules, self.now)
        self.holds = plan.holds
        for one in plan.accepted:
            accepted = {test_list.cc: test_list for test_list in lists}.get(one.cc)
            rows = accepted.rows if accepted else Rows(one.cc)
            self.live[one.cc] = Live(rows.count, rows.hosts())
        return plan


def ccs(sick: Sequence[object]) -> list[str]:
    return [one.cc for one in sick]  # type: ignore[attr-defined]


REWORKS = {
    "another scheme": rows_of(hosts(100), 2, scheme="http"),
    "with www.": rows_of([f"www.{host}" for host in hosts(100)], 2),
    "other pages of the same hosts": [
        (host, f"https://{host}/new/{page}", "NEWS") for host in hosts(100) for page in range(3)
    ],
    "a grown list of other hosts, some of them kept": rows_of(
        [*hosts(15), *hosts(600, "other")], 1
    ),
    "half of it": rows_of(hosts(50), 2),
    "a hundred pages more": rows_of(hosts(100), 3),
}


@pytest.mark.parametrize("rows", REWORKS.values(), ids=REWORKS)
def test_a_list_that_is_reworked_loses_nothing(rows: list[tuple[str, ...]]) -> None:
    upstream = Upstream(it=rows_of(hosts(100), 2))
    plan = upstream.commit(a_list("it", rows))
    assert (plan.held, plan.accepted) == ([], [])
    assert plan.rows == OTHERS + len(rows)


@pytest.mark.parametrize(
    ("live", "rows", "held"),
    [
        (200, 99, True),
        (200, 100, False),
        (40, 19, True),
        (40, 20, False),
        (41, 20, True),
        (20, 0, False),
        (21, 0, True),
        (2560, 1056, True),
        (0, 50, False),
    ],
)
def test_more_than_half_and_more_than_twenty_rows_fewer_is_held(
    live: int, rows: int, *, held: bool
) -> None:
    upstream = Upstream(it=rows_of(hosts(live)))
    plan = upstream.commit(a_list("it", rows_of(hosts(rows))))
    assert ccs(plan.held) == ["it"] * held
    assert plan.rows == OTHERS + (live if held else rows)


@pytest.mark.parametrize(
    ("kept", "held"), [(9, True), (10, False)], ids=["91 % of hosts", "90 % of hosts"]
)
def test_more_than_nine_tenths_of_the_hosts_gone_is_held(kept: int, *, held: bool) -> None:
    upstream = Upstream(it=rows_of(hosts(100)))
    plan = upstream.commit(a_list("it", rows_of([*hosts(kept), *hosts(200, "spam")])))
    assert ccs(plan.held) == ["it"] * held
    if held:
        assert plan.held[0].reason == "lists/it.csv: 91 of 100 live hosts are gone"
        assert len(plan.held[0].gone) == 91


def test_a_list_that_is_gone_is_held_and_a_small_one_is_not() -> None:
    upstream = Upstream(it=rows_of(hosts(100)), sm=rows_of(hosts(20)))
    plan = upstream.commit()
    assert ccs(plan.held) == ["it"]
    assert plan.held[0].reason == "lists/it.csv: no such list, where 100 rows are live"
    assert plan.rows == OTHERS + 100


def test_a_broken_list_is_held_for_as_long_as_it_is_broken() -> None:
    upstream = Upstream(it=rows_of(hosts(100)))
    for _ in range(40):
        plan = upstream.commit(a_list("it", [], broken=True), after=1)
        assert ccs(plan.held) == ["it"]
        assert plan.held[0].reason == "lists/it.csv:7: a merge conflict marker"
    assert upstream.holds.by_country["it"].since == START + DAY
    plan = upstream.commit(a_list("it", rows_of(hosts(101))), after=1)
    assert (plan.held, plan.released, plan.holds.by_country) == ([], ["it"], {})


def test_a_loss_is_accepted_after_the_days_if_upstream_still_wants_it() -> None:
    upstream = Upstream(it=rows_of(hosts(100)))
    for day in range(14):
        assert ccs(upstream.commit(a_list("it", rows_of(hosts(30))), after=day > 0).held) == ["it"]
    plan = upstream.commit(a_list("it", rows_of(hosts(30))), after=1)
    assert (ccs(plan.held), ccs(plan.accepted)) == ([], ["it"])
    assert plan.rows == OTHERS + 30


def test_a_loss_that_is_taken_back_begins_anew_when_it_comes_again() -> None:
    upstream = Upstream(it=rows_of(hosts(100)))
    upstream.commit(a_list("it", rows_of(hosts(30))))
    upstream.commit(a_list("it", rows_of(hosts(100))), after=13)
    plan = upstream.commit(a_list("it", rows_of(hosts(30))), after=1)
    assert ccs(plan.held) == ["it"]
    assert ccs(upstream.commit(a_list("it", rows_of(hosts(30))), after=13.9).held) == ["it"]
    assert ccs(upstream.commit(a_list("it", rows_of(hosts(30))), after=0.2).accepted) == ["it"]


WORSE = {
    "fewer rows": a_list("it", rows_of(hosts(80))),
    "the hosts, too": a_list("it", rows_of(hosts(200, "spam"))),
    "nothing": a_list("it", []),
}


@pytest.mark.parametrize("worse", WORSE.values(), ids=WORSE)
def test_what_is_worse_than_what_was_told_waits_anew(worse: TestList) -> None:
    upstream = Upstream(it=rows_of(hosts(500)))
    upstream.commit(a_list("it", rows_of(hosts(200))))
    upstream.commit(worse, after=13)
    assert ccs(upstream.commit(worse, after=2).held) == ["it"]
    assert ccs(upstream.commit(worse, after=12.5).accepted) == ["it"]


def test_small_changes_to_a_held_list_do_not_delay_it() -> None:
    upstream = Upstream(it=rows_of(hosts(500)))
    for day in range(15):
        plan = upstream.commit(a_list("it", rows_of(hosts(200 - 3 * day))), after=day > 0)
    assert ccs(plan.accepted) == ["it"]


def test_a_broken_list_waits_anew_when_it_is_whole_again() -> None:
    upstream = Upstream(it=rows_of(hosts(100)))
    upstream.commit(a_list("it", rows_of(hosts(30))))
    upstream.commit(a_list("it", [], broken=True), after=10)
    assert ccs(upstream.commit(a_list("it", rows_of(hosts(30))), after=5).held) == ["it"]
    assert upstream.holds.by_country["it"].since == START
    assert ccs(upstream.commit(a_list("it", rows_of(hosts(30))), after=14).accepted) == ["it"]


def test_the_smallest_losses_are_accepted_first_and_only_within_the_tenth() -> None:
    live = {cc: rows_of(hosts(count, cc)) for cc, count in (("it", 420), ("fr", 220), ("de", 400))}
    upstream = Upstream(**live)  # 7,040 rows: 704 may be lost at once
    small = [a_list(cc, []) for cc in live]
    assert ccs(upstream.commit(*small).held) == ["de", "fr", "it"]
    plan = upstream.commit(*small, after=14)
    assert (ccs(plan.accepted), ccs(plan.held)) == (["fr", "de"], ["it"])
    plan = upstream.commit(*small, after=0.5)
    assert (ccs(plan.accepted), ccs(plan.held)) == ([], ["it"])
    assert ccs(upstream.commit(*small, after=0.5).accepted) == ["it"]


def test_a_person_accepts_at_once_and_never_what_is_broken() -> None:
    upstream = Upstream(it=rows_of(hosts(100)), fr=rows_of(hosts(100)))
    lists = a_list("it", rows_of(hosts(3))), a_list("fr", [], broken=True)
    rules = Rules(0.5, 0.1, 14, accepted=frozenset({"it", "fr"}))
    plan = upstream.commit(*lists, rules=rules)
    assert (ccs(plan.accepted), ccs(plan.held)) == (["it"], ["fr"])
    upstream = Upstream(it=rows_of(hosts(100)), fr=rows_of(hosts(100)))
    plan = upstream.commit(*lists, rules=Rules(0.5, 0.1, 14, all_accepted=True))
    assert (ccs(plan.accepted), ccs(plan.held)) == (["it"], ["fr"])


@pytest.mark.parametrize(("sick", "too_many"), [(3, False), (4, True)])
def test_more_than_a_third_of_the_lists_is_too_many(sick: int, *, too_many: bool) -> None:
    names = ["it", "fr", "de", "es", "pt"]
    upstream = Upstream(**{cc: rows_of(hosts(100)) for cc in names})
    broken = [a_list(cc, [], broken=True) for cc in names[:sick]]
    fine = [a_list(cc, rows_of(hosts(100))) for cc in names[sick:]]
    plan = upstream.commit(*broken, *fine)
    assert (len(plan.held), plan.lists, plan.too_many) == (sick, 9, too_many)


@pytest.mark.parametrize("years", [-30, 70])
def test_a_clock_that_was_wrong_delays_nothing_for_ever(years: int) -> None:
    upstream = Upstream(it=rows_of(hosts(100)))
    upstream.now += years * 365 * DAY
    upstream.commit(a_list("it", rows_of(hosts(30))))
    upstream.now = START
    if years > 0:
        upstream.commit(a_list("it", rows_of(hosts(30))), after=0)
    plan = upstream.commit(a_list("it", rows_of(hosts(30))), after=14)
    assert ccs(plan.accepted) == ["it"]


def test_a_clock_that_was_wrong_while_a_list_got_well_delays_nothing_for_ever() -> None:
    upstream = Upstream(it=rows_of(hosts(100)))
    upstream.commit(a_list("it", [], broken=True))
    upstream.now += 70 * 365 * DAY
    upstream.commit(a_list("it", rows_of(hosts(30))))
    upstream.now = START
    upstream.commit(a_list("it", rows_of(hosts(30))))
    assert ccs(upstream.commit(a_list("it", rows_of(hosts(30))), after=14).accepted) == ["it"]
