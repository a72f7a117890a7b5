"""Months of an upstream that is as careless as the real one, with nobody there to help."""

import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from citizenlab_harness import DAY, Updater, updater_of
from conftest import Database as FreshDatabase
from dev.bench.measure import Contender, run
from dev.samples.test_lists import SampleTestLists, list_path
from dev.servers.git import GitServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

COUNTRIES = [f"{first}{second}" for first in "abcdef" for second in "mnopq"]
COMMITS = int(os.environ.get("OONI_TEST_COMMITS", "100"))  # of each seed
EVERY = DAY / 2  # one commit, and one run after it
RUNS_A_DAY = 48
DAYS = int(os.environ.get("OONI_TEST_DAYS", "7"))  # that an upstream is refused for
WEEK = 7  # days
LEGEND = "lists/00-LEGEND-new_category_codes.csv"
CODES = ["NEWS", "HUMR", "LGBT", "POLR", "REL", "CULTR"]
HEADER = "url,category_code,category_description,date_added,source,notes"
HOLD_DAYS = 14
LARGE_ENOUGH = 60  # rows, so that losing most of them is to be held

Row = tuple[str, str]  # URL, category code
Rows = list[Row]


def legend(codes: Sequence[str]) -> bytes:
    rows = [f"{code},{code},,\n" for code in codes]
    return "".join(["Category Description,New Code,Replaces,Description\n", *rows]).encode()


def csv_of(rows: Rows) -> str:
    return "".join([HEADER + "\n", *(f"{url},{code},d,2026-01-01,s,\n" for url, code in rows)])


@dataclass
class Country:
    """What upstream has of a country, and what should be live of it.

    Attributes:
        rows: that a correct loader gets of its list.
        live: those that should be live.
        text: of its list.
        sick_since: when its list became one that is to be held.
        broken: it can't be accepted.
        mended_at: when upstream mends it by itself.
        numbers: for new hosts.
    """

    cc: str
    rows: Rows
    live: Rows = field(default_factory=list)
    text: str = ""
    sick_since: float | None = None
    broken: bool = False
    mended_at: float | None = None
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(10**6)))

    def host(self) -> str:
        return f"site{next(self.numbers)}.{self.cc}.example"


class Upstream:
    """Thirty lists and a careless crowd."""

    def __init__(self, lists: SampleTestLists, seed: int) -> None:
        self.lists = lists
        self.random = random.Random(seed)
        self.countries = {cc: Country(cc, []) for cc in COUNTRIES}
        for country in self.countries.values():
            country.rows = self.new_rows(country, 80)
            country.live, country.text = country.rows, csv_of(country.rows)
        self.legend_since: float | None = None
        files = {list_path(country.cc): country.text.encode() for country in self.well()}
        self.lists.commit("Begin", {LEGEND: legend(CODES), **files})

    def well(self) -> list[Country]:
        return [country for country in self.countries.values() if country.sick_since is None]

    def new_rows(self, country: Country, count: int) -> Rows:
        scheme = self.random.choice(["http", "https"])
        return [(f"{scheme}://{country.host()}/", self.random.choice(CODES)) for _ in range(count)]

    def commit(self, now: float) -> str:
        """Commit one change, and whatever is mended by now; return its kind."""
        changes: dict[str, bytes | None] = {}
        if self.legend_since and now - self.legend_since >= 3 * DAY:
            self.legend_since = None
            changes[LEGEND] = legend(CODES)
        for country in self.countries.values():
            if country.mended_at and now >= country.mended_at:
                country.mended_at = country.sick_since = None
                country.broken = False
                country.text = csv_of(country.rows)
                changes[list_path(country.cc)] = country.text.encode()
        kind, change = self.random.choice(KINDS)
        if kind == "legend" or self.legend_since:
            change = add
        country = self.random.choice(self.well())
        if kind == "legend" and not self.legend_since:
            self.legend_since = now
            changes[LEGEND] = legend(["NEWZ", *CODES[2:]])
        crowded = len(self.well()) <= len(self.countries) - 6
        if crowded or min(len(country.live), len(country.rows)) < LARGE_ENOUGH:
            change = add
        change(self, country, now)
        content = country.text.encode() if country.text else None
        self.lists.commit(kind, {**changes, list_path(country.cc): content})
        return kind


def loaded(country: Country, rows: Rows, text: str = "") -> None:
    country.rows = rows
    country.text = text or csv_of(rows)


def add(upstream: Upstream, country: Country, _now: float) -> None:
    loaded(country, country.rows + upstream.new_rows(country, 15))


def rework_scheme(_upstream: Upstream, country: Country, _now: float) -> None:
    swapped = {"http": "https", "https": "http"}
    split = [(*url.partition("://"), code) for url, code in country.rows]
    loaded(country, [(f"{swapped[scheme]}://{rest}", code) for scheme, _, rest, code in split])


def rework_slash(_upstream: Upstream, country: Country, _now: float) -> None:
    loaded(
        country,
        [(url[:-1] if url.endswith("/") else f"{url}/", code) for url, code in country.rows],
    )


def rework_www(_upstream: Upstream, country: Country, _now: float) -> None:
    rows = [
        (url.replace("://www.", "://") if "://www." in url else url.replace("://", "://www."), code)
        for url, code in country.rows
    ]
    loaded(country, rows)


def grow_sevenfold(upstream: Upstream, country: Country, _now: float) -> None:
    if len(country.rows) > 300:
        loaded(country, country.rows[: len(country.rows) * 2 // 3])
    else:
        rows = [(f"{url}page/", code) for url, code in country.rows]
        loaded(country, rows + upstream.new_rows(country, 100))


def split(upstream: Upstream, country: Country, _now: float) -> None:
    """Move nearly half of the hosts to where others are."""
    loaded(country, country.rows[: len(country.rows) * 11 // 20] + upstream.new_rows(country, 2))


def header_comma(_upstream: Upstream, country: Country, _now: float) -> None:
    loaded(country, country.rows, csv_of(country.rows).replace(HEADER, f"{HEADER},", 1))


def blank_cells(upstream: Upstream, country: Country, _now: float) -> None:
    text = csv_of(country.rows).replace(",d,", " , d ,").replace("https://", " https://")
    extra = upstream.new_rows(country, 1)
    row = f"{extra[0][0]} ,\t{extra[0][1]},d,2026-01-01,s,,,\n,,,,,\n"
    loaded(country, country.rows + extra, f"\ufeff{text}{row}")


def bad_rows(upstream: Upstream, country: Country, _now: float) -> None:
    bad = "".join(
        upstream.random.sample(
            [
                "ftp://a.example/,NEWS,d,2026-01-01,s,\n",
                "http://localhost/,NEWS,d,2026-01-01,s,\n",
                "http://a b.example/,NEWS,d,2026-01-01,s,\n",
                "http://a.example/,NONE,d,2026-01-01,s,\n",
                "http://user:pw@a.example/,NEWS,d,2026-01-01,s,\n",
                f"{HEADER}\n",
                "half\n",
            ],
            4,
        )
    )
    loaded(country, country.rows, csv_of(country.rows) + bad)


def prune(upstream: Upstream, country: Country, now: float) -> None:
    country.sick_since = now
    country.rows = country.rows[: len(country.rows) // 4] + upstream.new_rows(country, 1)
    country.text = csv_of(country.rows)


def other_hosts(upstream: Upstream, country: Country, now: float) -> None:
    country.sick_since = now
    country.rows = upstream.new_rows(country, len(country.rows) + 10)
    country.text = csv_of(country.rows)


def remove(_upstream: Upstream, country: Country, now: float) -> None:
    country.sick_since = now
    country.rows, country.text = [], ""


def broken(text_of: Callable[[Country], str], days: float) -> Callable[..., None]:
    def change(_upstream: Upstream, country: Country, now: float) -> None:
        country.sick_since, country.broken, country.mended_at = now, True, now + days * DAY
        country.text = text_of(country)

    return change


def with_conflict(country: Country) -> str:
    head, _, rest = csv_of(country.rows).partition("\n")
    return f"{head}\n<<<<<<< HEAD\n=======\n>>>>>>> other\n{rest}"


KINDS: list[tuple[str, Callable[..., None]]] = [
    ("add", add),
    ("rework: scheme", rework_scheme),
    ("rework: slash", rework_slash),
    ("rework: www", rework_www),
    ("grow", grow_sevenfold),
    ("split", split),
    ("header comma", header_comma),
    ("blank cells", blank_cells),
    ("bad rows", bad_rows),
    ("prune", prune),
    ("other hosts", other_hosts),
    ("remove", remove),
    ("conflict", broken(with_conflict, 2)),
    ("lost header", broken(lambda country: csv_of(country.rows).partition("\n")[2], 31)),
    ("quote", broken(lambda country: csv_of(country.rows) + '"http://x.example/\n\n\n\n', 5)),
    ("html", broken(lambda _country: "<!DOCTYPE html>\n<html></html>\n", 1)),
    ("legend", add),
]


@pytest.fixture
def lists(tmp_path: Path) -> SampleTestLists:
    """A repository with one commit, which the crowd's first one replaces."""
    folder = tmp_path / "upstream"
    folder.mkdir()
    sample = SampleTestLists(folder)
    sample.create(rows=2, countries=("zz",))
    sample.commit("Clear", {list_path("ZZ"): None, list_path("zz"): None, list_path("cis"): None})
    return sample


@pytest.fixture
def updater(
    tmp_path: Path, database: FreshDatabase, git: GitServer, capsys: pytest.CaptureFixture[str]
) -> Updater:
    """The updater, whose clock a test moves."""
    return updater_of(tmp_path, database, git, capsys)


def live_urls(updater: Updater) -> dict[str, list[Row]]:
    urls: dict[str, list[Row]] = {}
    for _, url, cc, code in updater.live():
        urls.setdefault(cc, []).append((url, code))
    return urls


def settle(country: Country, live: list[Row], now: float) -> None:
    """Note that a list that lost much is live, which must not be early, nor late."""
    if country.sick_since is None or country.broken:
        return
    age = (now - country.sick_since) / DAY
    if sorted(country.rows) == live:
        assert age >= HOLD_DAYS, f"{country.cc} is live after {age} days"
        country.live, country.sick_since = country.rows, None
    else:
        assert age <= HOLD_DAYS + 2, f"{country.cc} is held for {age} days"


@pytest.mark.parametrize("seed", [20, 21])
def test_with_nobody_there_each_commit_has_its_right_outcome(
    updater: Updater, lists: SampleTestLists, seed: int
) -> None:
    upstream = Upstream(lists, seed)
    assert updater.run()[0] == 0
    kinds: list[str] = []
    days_without_updates = 0.0
    for _ in range(COMMITS):
        updater.now += EVERY
        kinds.append(upstream.commit(updater.now))
        status, log = updater.run()
        if upstream.legend_since:
            assert status == 65, log
            days_without_updates += EVERY / DAY
            assert days_without_updates < HOLD_DAYS
            continue
        assert status == 0, f"{kinds[-1]}: {log}"
        days_without_updates = 0
        live = live_urls(updater)
        for country in upstream.countries.values():
            if country.sick_since is None:
                country.live = country.rows
            rows = sorted(live.get(country.cc, []))
            settle(country, rows, updater.now)
            assert rows == sorted(country.live), f"{country.cc} after {kinds}: {log}"
        held = {country.cc for country in upstream.countries.values() if country.sick_since}
        assert set(updater.held()) == held
    assert set(kinds) == {kind for kind, _ in KINDS}


class Unattended:
    """Days of runs, 48 a day, of an updater that nobody looks at."""

    def __init__(self, updater: Updater, git: GitServer, days: int) -> None:
        git.clear()
        runs = []
        for _ in range(days * RUNS_A_DAY):
            runs.append(updater.run())
            updater.now += DAY / RUNS_A_DAY
        self.statuses = [status for status, _ in runs]
        self.lines = [line for _, log in runs for line in log.splitlines()]
        self.clones, self.listings = git.fetches(), git.listings()


def test_an_upstream_that_is_refused_for_long_is_one_clone_one_status_and_few_lines(
    updater: Updater, lists: SampleTestLists, git: GitServer
) -> None:
    """One status is one alert: its rule is tested in monitoring/alerts_days_test.yml."""
    upstream = Upstream(lists, seed=1)
    assert updater.run()[0] == 0
    before = live_urls(updater)
    lists.commit("Rename codes", {LEGEND: legend(["NEWZ", "HUMX"])})
    days = Unattended(updater, git, DAYS)
    assert set(days.statuses) == {65}
    assert (days.clones, days.listings) == (1, DAYS * RUNS_A_DAY + 1)
    assert len(days.lines) <= 100
    errors = [line for line in days.lines if line.startswith("error: ")]
    assert len(errors) == DAYS
    assert "extra_category_codes" in errors[0]
    assert len([line for line in errors if "refused since" in line]) == DAYS - 1
    assert live_urls(updater) == before == live_of(upstream)


def live_of(upstream: Upstream) -> dict[str, list[Row]]:
    return {country.cc: sorted(country.live) for country in upstream.countries.values()}


def test_a_list_that_is_broken_for_a_week_is_one_clone_and_few_lines(
    updater: Updater, lists: SampleTestLists, git: GitServer
) -> None:
    Upstream(lists, seed=1)
    assert updater.run()[0] == 0
    lists.commit("Break one", {list_path("am"): b"<html></html>\n"})
    week = Unattended(updater, git, WEEK)
    assert set(week.statuses) == {0}
    assert (week.clones, week.listings) == (1, WEEK * RUNS_A_DAY + 1)
    assert len(week.lines) <= 25
    held = [line for line in week.lines if line.startswith("warning: 1 country is held")]
    assert len(held) in (WEEK - 1, WEEK)


def test_ten_times_the_lists_are_loaded_in_150_mib(tmp_path: Path, database: FreshDatabase) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    SampleTestLists(folder).create(rows=388_670)
    config = tmp_path / "many.conf"
    with GitServer(folder) as server:
        config.write_text(
            f'git_url = "{server.url("test-lists")}"\ndb_uri = "{database.uri}"\n'
            f'state_dir = "{tmp_path / "state"}"\nstatsd = ""\n'
        )
        script = str(Updater.module.__file__)
        command = [sys.executable, script, "--config", str(config)]
        root = str(Path(script).parents[1])
        figures = run(Contender(command), {**os.environ, "PYTHONPATH": root})
    assert database.execute("SELECT count() FROM citizenlab") == [(388_670,)]
    assert figures.peak <= 150
