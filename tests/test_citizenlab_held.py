"""Held countries and remembered refusals, through the whole updater, with a clock of its own."""

import re
from pathlib import Path

import pytest

from citizenlab_harness import DAY, ROWS, Updater, changed_row, updater_of
from conftest import Database as FreshDatabase
from dev.samples.test_lists import SampleTestLists, list_path
from dev.servers.git import GitServer
from dev.servers.statsd import StatsdListener

HOLDS = "citizenlab_test_lists_updater.holds.json"
LEGEND = "lists/00-LEGEND-new_category_codes.csv"


@pytest.fixture
def updater(
    tmp_path: Path, database: FreshDatabase, git: GitServer, capsys: pytest.CaptureFixture[str]
) -> Updater:
    """The updater, configured for the small upstream, after its first run."""
    made = updater_of(tmp_path, database, git, capsys)
    assert made.run()[0] == 0
    git.clear()
    return made


def edited(lists: SampleTestLists, cc: str, pattern: str, replacement: str) -> None:
    """Commit a list in which a regular expression is replaced."""
    text = lists.read(list_path(cc)).decode()
    changed = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    assert changed != text
    lists.commit(f"Edit {cc}", {list_path(cc): changed.encode()})


def test_a_list_whose_urls_get_another_scheme_is_loaded(
    updater: Updater, lists: SampleTestLists
) -> None:
    before = len(updater.live_of("ru"))
    edited(lists, "ru", "^https://", "http-://")
    edited(lists, "ru", "^http://", "https://")
    edited(lists, "ru", "^http-://", "http://")
    status, log = updater.run()
    assert status == 0
    assert "held" not in log
    assert 0 <= before - len(updater.live_of("ru")) < 5


def test_a_list_whose_urls_get_a_slash_is_loaded(updater: Updater, lists: SampleTestLists) -> None:
    before = len(updater.live_of("ru"))
    edited(lists, "ru", r"^(https?://[^,\"\r\n]*),", r"\1/,")
    status, log = updater.run()
    assert (status, len(updater.live_of("ru"))) == (0, before)
    assert "held" not in log


def test_a_comma_too_many_at_the_end_of_a_header_is_a_warning(
    updater: Updater, lists: SampleTestLists
) -> None:
    """L2: it refused everything, and stood upstream for 325 days."""
    edited(lists, "ru", r"^url,(.*?)(\r?)$", r"url,\1,\2")
    lists.add_rows("it", 1)
    status, log = updater.run()
    assert (status, len(updater.live())) == (0, ROWS + 1)
    assert "lists/ru.csv:1: empty extra cells at the end of the header" in log


def test_a_blank_at_the_end_of_a_url_is_a_warning(updater: Updater, lists: SampleTestLists) -> None:
    """L4: the row was refused."""
    changed_row(lists, "ru", "http://blank.example.org/ ,NEWS,d,d,s,")
    status, log = updater.run()
    assert status == 0
    assert ("blank.example.org", "http://blank.example.org/", "ru", "NEWS") in updater.live()
    assert "blanks around a cell" in log
    assert "refused" not in log


def test_a_broken_list_keeps_its_countrys_rows_and_the_others_are_updated(
    updater: Updater, lists: SampleTestLists
) -> None:
    russia = updater.live_of("ru")
    lists.add_rows("it", 3)
    lists.break_file("ru")
    status, log = updater.run()
    assert status == 0
    assert (
        f"warning: lists/ru.csv:2: a merge conflict marker; ru is held: its {len(russia)} live rows"
        " stay until upstream mends the list\n"
    ) in log
    assert updater.live_of("ru") == russia
    assert len(updater.live()) == ROWS + 3


def test_a_first_run_loads_the_lists_that_are_not_broken(
    updater: Updater, lists: SampleTestLists
) -> None:
    updater.database.execute("DROP TABLE citizenlab SYNC")
    lists.break_file("ru")
    assert updater.run()[0] == 0
    assert updater.per_cc() == {
        cc: rows for cc, rows in lists.expected.per_cc.items() if cc != "ru"
    }


def test_a_second_list_for_a_country_holds_this_country_alone(
    updater: Updater, lists: SampleTestLists
) -> None:
    russia = updater.live_of("ru")
    lists.commit("Add RU", {"lists/RU.csv": lists.read(list_path("ru"))})
    lists.add_rows("it", 1)
    status, log = updater.run()
    assert (status, len(updater.live())) == (0, ROWS + 1)
    assert "lists/ru.csv:1: a second list for ru, beside lists/RU.csv; ru is held" in log
    assert updater.live_of("ru") == russia


def test_a_list_with_too_many_refused_rows_is_held(
    updater: Updater, lists: SampleTestLists
) -> None:
    changed_row(lists, "ru", "bad\n" * 60)
    status, log = updater.run()
    assert (status, len(updater.live())) == (0, ROWS)
    assert "rows are refused, from here on; 10% is the most; mostly (60): 1 column inst" in log
    assert "ru is held" in log
    assert log.count("; row refused") == 20
    assert "warning: 60 rows refused in 1 file: 1 column instead of 6 (60)\n" in log
    assert "warning: 40 more findings are not shown\n" in log


def test_more_than_a_third_of_the_lists_refuse_the_commit(
    updater: Updater, lists: SampleTestLists
) -> None:
    lists.break_file("ru")
    lists.break_file("it")
    with updater.unchanged():
        status, log = updater.run()
    assert status == 65
    assert "error: 2 of 5 lists would be held, more than a third; the first: lists/it.csv:2:" in log
    assert "warning: lists/ru.csv:2: a merge conflict marker; it would be held\n" in log


def test_what_force_accepts_is_one_commit_and_nothing_of_it_is_remembered(
    updater: Updater, lists: SampleTestLists
) -> None:
    italy, mended = updater.live_of("it"), lists.read(list_path("it"))
    lists.empty_country("ru")
    lists.empty_country("fr")
    lists.break_file("it")
    assert updater.run()[0] == 65
    status, log = updater.run("--force")
    assert status == 0
    assert "accepted by --force: ru loses" in log
    assert updater.live_of("it") == italy
    assert (updater.live_of("ru"), updater.live_of("fr")) == ([], [])
    lists.commit("Mend it", {list_path("it"): mended})
    lists.empty_country("ae")
    assert updater.run()[0] == 0
    assert set(updater.held()) == {"ae"}


def test_a_country_that_loses_more_than_half_is_held_and_accepted_by_name(
    updater: Updater, lists: SampleTestLists, git: GitServer
) -> None:
    before = len(updater.live_of("ru"))
    lists.remove_rows("ru", before - 20)
    lists.add_rows("it", 2)
    status, log = updater.run()
    assert status == 0
    assert f"lists/ru.csv: 20 rows, where {before} are live; ru is held" in log
    assert "or now by --accept ru" in log
    assert len(updater.live()) == ROWS + 2
    git.clear()
    assert updater.run()[0] == 0
    assert git.fetches() == 0
    status, log = updater.run("--accept", "RU", max_shrink=0.5)
    assert status == 0
    assert f"accepted by --accept: ru loses {before - 20} rows" in log
    assert len(updater.live_of("ru")) == 20
    assert updater.held() == {}
    git.clear()
    assert (updater.run()[0], git.fetches()) == (0, 0)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("it", 0, "it is not held: there is nothing to accept"),
        ("global", 0, "ZZ is not held: there is nothing to accept"),
        ("ru", 65, "--accept ru: lists/ru.csv:2: a merge conflict marker; a broken list can't"),
        ("Italy", 2, "--accept 'italy': expected a country's two letters, or global"),
    ],
)
def test_what_can_not_be_accepted_is_said(
    updater: Updater, lists: SampleTestLists, name: str, status: int, said: str
) -> None:
    lists.break_file("ru")
    updater.run()
    ended, log = updater.run("--accept", name)
    assert ended == status
    assert said in log
    assert updater.run()[0] == 0


@pytest.mark.long
def test_with_nobody_there_a_loss_goes_live_after_its_days(
    updater: Updater, lists: SampleTestLists, git: GitServer
) -> None:
    updater.configure(max_shrink=0.5)
    before = len(updater.live_of("ru"))
    lists.remove_rows("ru", before - 20)
    clones = []
    for _ in range(15):
        git.clear()
        status, log = updater.run()
        assert status == 0
        clones.append(git.fetches())
        if len(clones) < 15:
            assert len(updater.live_of("ru")) == before
            assert "accepted on" in log
        updater.now += DAY
    assert clones == [1, *[0] * 13, 1]
    assert f"accepted after 14 days: ru loses {before - 20} rows" in log
    assert len(updater.live_of("ru")) == 20


@pytest.mark.long
@pytest.mark.parametrize(
    "content", ["{", '{"by_country": {"ru": {"since": 1e300}}}', '{"logged": -1}', "null"]
)
def test_a_lost_memory_of_holds_is_told_and_begins_again(
    updater: Updater, lists: SampleTestLists, content: str
) -> None:
    lists.remove_rows("ru", len(updater.live_of("ru")) - 20)
    updater.run()
    since = updater.held()["ru"]["since"]
    updater.now += 10 * DAY
    (updater.state_dir / HOLDS).write_text(content)
    status, log = updater.run()
    assert status == 0
    assert "holds.json: ignored: " in log
    assert "holds.json is lost: whatever was held is held from today on" in log
    assert updater.held()["ru"]["since"] == since + 10 * DAY


def test_a_run_that_was_stopped_before_it_kept_its_holds_is_made_good(
    updater: Updater, lists: SampleTestLists, git: GitServer
) -> None:
    before = (updater.state_dir / HOLDS).read_bytes()
    lists.remove_rows("ru", len(updater.live_of("ru")) - 20)
    updater.run()
    (updater.state_dir / HOLDS).write_bytes(before)
    git.clear()
    assert (updater.run()[0], git.fetches()) == (0, 1)
    assert set(updater.held()) == {"ru"}
    git.clear()
    assert (updater.run()[0], git.fetches()) == (0, 0)


@pytest.mark.long
def test_a_dry_run_shows_what_is_held_and_what_would_be_lost(
    updater: Updater, lists: SampleTestLists
) -> None:
    before = len(updater.live_of("ru"))
    lists.remove_rows("ru", before - 20)
    state = {path: path.read_bytes() for path in updater.state_dir.iterdir()}
    with updater.unchanged():
        status, printed = updater.run("--dry-run")
    assert status == 0
    held = f"held: ru; accepted, it would have 20 rows instead of {before}, "
    assert re.search(rf"{held}\d+ hosts would be gone: \S+", printed)
    assert {path: path.read_bytes() for path in updater.state_dir.iterdir()} == state
    updater.run()
    with updater.unchanged():
        assert held in updater.run("--dry-run")[1]
        _, printed = updater.run("--dry-run", "--accept", "ru", max_shrink=0.5)
    assert f"would change: citizenlab: {ROWS - before + 20} rows (+0 -{before - 20})" in printed


def test_what_was_rolled_back_stays_though_a_held_list_would_be_due(
    updater: Updater, lists: SampleTestLists, git: GitServer
) -> None:
    before = updater.live()
    lists.remove_rows("ru", len(updater.live_of("ru")) - 20)
    lists.add_rows("it", 3)
    updater.run(max_shrink=0.5)
    assert updater.run("--rollback")[0] == 0
    updater.now += 15 * DAY
    git.clear()
    assert (updater.run()[0], git.fetches()) == (0, 0)
    assert updater.live() == before
    lists.add_rows("it", 1)
    assert updater.run()[0] == 0
    assert updater.held()["ru"]["since"] == updater.now


@pytest.mark.long
def test_a_roll_back_after_an_accepted_loss_holds_until_the_next_commit(
    updater: Updater, lists: SampleTestLists
) -> None:
    before = updater.live_of("ru")
    lists.remove_rows("ru", len(before) - 20)
    updater.run()
    updater.run("--accept", "ru", max_shrink=0.5)
    assert updater.run("--rollback")[0] == 0
    assert updater.live_of("ru") == before
    assert updater.run()[0] == 0
    assert updater.live_of("ru") == before
    lists.add_rows("it", 1)
    status, log = updater.run()
    assert (status, updater.live_of("ru")) == (0, before)
    assert "ru is held" in log


def test_a_renamed_column_of_the_legend_names_itself_and_a_key_gets_around_it(
    updater: Updater, lists: SampleTestLists
) -> None:
    """L5: nothing got around it."""
    lists.commit("Rename", {LEGEND: lists.read(LEGEND).replace(b"New Code", b"Code")})
    with updater.unchanged():
        status, log = updater.run()
    assert status == 65
    reason = "1: the header lacks the column 'New Code': it is 'Category Description,Code,"
    assert f"error: {LEGEND}:{reason}" in log
    assert "legend_column" in log
    assert updater.run(legend_column="Code")[0] == 0
    assert len(updater.live()) == ROWS


def test_renamed_codes_name_themselves_in_the_first_line_and_a_key_accepts_them(
    updater: Updater, lists: SampleTestLists
) -> None:
    """L5: two codes were 13,938 lines in each of 48 runs a day."""
    codes = sorted({row[3] for row in updater.live()})
    lists.commit("Rename all codes", {LEGEND: b"New Code\nNEWER\n"})
    with updater.unchanged():
        status, log = updater.run()
    assert status == 65
    first, *_, last = [line for line in log.splitlines() if line.startswith(("warning", "error"))]
    assert first.startswith("warning: 400 rows refused in 5 files: category code '")
    assert "' is not in the legend (" in first
    assert "5 of 5 lists would be held" in last
    assert "extra_category_codes" in last
    assert len(log.splitlines()) < 70
    assert updater.run(extra_category_codes=codes)[0] == 0
    assert len(updater.live()) == ROWS


def test_a_renamed_legend_and_renamed_columns_are_followed_by_keys(
    updater: Updater, lists: SampleTestLists
) -> None:
    paths = [list_path(cc) for cc in lists.expected.per_cc]
    changes = {path: lists.read(path).replace(b"url,category_code", b"link,code") for path in paths}
    legend = {LEGEND: None, "lists/legend.csv": lists.read(LEGEND)}
    lists.commit("Rename all", {**changes, **legend})
    status, log = updater.run()
    assert status == 65
    assert f"error: {LEGEND}: the repository has no such file; if the legend was renamed" in log
    status, log = updater.run(legend_file="lists/legend.csv")
    assert status == 65
    assert "lists would be held, more than a third" in log
    assert "the header lacks the column 'url': it is 'link,code," in log
    assert updater.run(url_column="link", category_column="code")[0] == 0
    assert len(updater.live()) == ROWS


def test_a_refused_commit_costs_one_question_until_it_moves(
    updater: Updater, lists: SampleTestLists, git: GitServer
) -> None:
    """L6: each run cloned everything again, and logged everything again."""
    lists.commit("Drop the legend", {LEGEND: None})
    git.clear()
    with updater.unchanged():
        assert updater.run()[0] == 65
    assert (git.listings(), git.fetches()) == (2, 1)
    for _ in range(3):
        git.clear()
        with updater.unchanged():
            assert updater.run() == (65, "")
        assert (git.listings(), git.fetches()) == (1, 0)
    updater.now += DAY
    status, log = updater.run()
    assert (status, len(log.splitlines())) == (65, 1)
    assert f"error: {LEGEND}: the repository has no such file" in log
    assert "refused since 20" in log
    lists.commit("Put it back", {LEGEND: lists_legend(lists)})
    assert updater.run()[0] == 0
    assert not (updater.state_dir / "citizenlab_test_lists_updater.refusal.json").exists()


def lists_legend(lists: SampleTestLists) -> bytes:
    """Return a legend with the codes that the sample lists have."""
    codes = {
        line.split(",")[1]
        for cc in lists.expected.per_cc
        for line in re.findall(r"^[^\"\r\n]*$", lists.read(list_path(cc)).decode(), re.MULTILINE)
        if line.count(",") == 5
    }
    rows = [f"{code},{code},,\n" for code in sorted(codes - {"category_code"})]
    return "".join(["Category Description,New Code,Replaces,Description\n", *rows]).encode()


def test_a_refused_commit_is_told_each_time_to_who_reads_along(
    updater: Updater, lists: SampleTestLists
) -> None:
    lists.commit("Drop the legend", {LEGEND: None})
    updater.run()
    status, log = updater.run("--stdout")
    assert status == 65
    assert "nothing new, and --dry-run shows all findings" in log


@pytest.mark.long
@pytest.mark.parametrize("flags", [["--force"], ["--dry-run"], ["--accept", "it"]])
def test_who_decides_by_hand_has_the_commit_judged_again(
    updater: Updater, lists: SampleTestLists, git: GitServer, flags: list[str]
) -> None:
    lists.commit("Drop the legend", {LEGEND: None})
    updater.run()
    git.clear()
    status, log = updater.run(*flags)
    assert (status, git.fetches()) == (65, 1)
    assert "refused since" not in log


def test_metrics_tell_who_is_held_and_until_when(
    updater: Updater, lists: SampleTestLists, statsd: StatsdListener
) -> None:
    count = len(updater.live_of("ru"))
    lists.remove_rows("ru", count - 20)
    updater.run(statsd=statsd.address)
    updater.run()
    lists.add_rows("ru", count)
    updater.run()
    received = statsd.metrics()
    prefix = "citizenlab_test_lists_updater."
    held = [value for value, _ in received[f"{prefix}held_countries"]]
    moments = [value for value, _ in received[f"{prefix}accepted_at_ru"]]
    assert (held, moments[-1]) == ([1, 1, 0], 0)
    assert {abs(moment - updater.now - 14 * DAY) < 1 for moment in moments[:2]} == {True}


def test_the_doctor_notes_what_is_held(updater: Updater, lists: SampleTestLists) -> None:
    status, log = updater.run("doctor")
    assert (status, "no country is held" in log) == (0, True)
    assert re.search(r"ok +refusals +nothing is refused", log)
    lists.break_file("ru")
    updater.run()
    status, log = updater.run("doctor")
    assert status == 0
    assert re.search(r"note +lists +1 country is held, and keeps its live rows: ru \(since", log)
    lists.commit("Drop the legend", {LEGEND: None})
    updater.run()
    status, log = updater.run("doctor")
    assert status == 0
    assert re.search(rf"note +refusals +{LEGEND}: .* \(refused since 20", log)
