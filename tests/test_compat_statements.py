"""Every kind of statement that the tools send, on each version of the engine.

The statements are those of a record, which `make compat` makes of tests and demo, and CI of all
tests; `python -m dev.compat FOLDER` tells more of what differs.
"""

import os
from pathlib import Path

import pytest

from dev.compat.comparison import Comparison, Entry, Listed, Volatile
from dev.compat.histories import History, ServersStatement, fewest, read_record
from dev.compat.kinds import is_of_a_tool, kind_of
from dev.compat.replay import Outcome
from dev.compat.run import compare_versions
from dev.embedded_clickhouse.record import Recorder, Statement
from dev.engines import VERSIONS

RECORD = Path(os.environ.get("OONI_TEST_RECORD", "build/statements"))
FEWEST_KINDS = 430


@pytest.fixture(scope="module")
def comparison(engines_are_installed: None) -> Comparison:
    if not RECORD.is_dir():
        pytest.skip(f"no record of statements in {RECORD}: `make compat` makes one")
    return compare_versions(RECORD)


@pytest.mark.compat
@pytest.mark.timeout(900)
def test_what_differs_between_versions_is_listed_with_its_reason(comparison: Comparison) -> None:
    unlisted = [f"{one.version}: {one.outcome}: {one.kind}" for one in comparison.unlisted()]
    assert not unlisted, "\n".join(unlisted)


@pytest.mark.compat
@pytest.mark.timeout(900)
def test_nothing_is_listed_that_is_not_seen(comparison: Comparison) -> None:
    assert comparison.superfluous() == []


@pytest.mark.compat
@pytest.mark.timeout(900)
def test_the_record_has_what_the_tools_send(comparison: Comparison) -> None:
    assert len(comparison.kinds) >= FEWEST_KINDS


def sent(text: str) -> ServersStatement:
    """Return a statement of a tool."""
    settings = {"session_timezone": "UTC"}
    return ServersStatement("1", "native", "default", text, settings)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("SELECT 1, 'a'", "SELECT 22, 'it''s'"),
        ("SELECT * FROM t WHERE a IN ('a', 'b')", "SELECT * FROM t WHERE a IN ('a', 'b', 'c')"),
        ("SELECT * FROM t VALUES (1, 2)", "SELECT * FROM t VALUES (1, 2), (3, 4)"),
        ("DROP TABLE `test_0123456789abcdef`.`t`", "DROP  TABLE `test_fedcba9876543210`.`t`"),
    ],
)
def test_a_kind_is_what_is_left_without_literals_and_generated_names(text: str, other: str) -> None:
    assert kind_of(sent(text)) == kind_of(sent(other))


def test_statements_are_of_other_kinds_by_their_names_settings_and_protocol() -> None:
    texts = [sent("SELECT a FROM t"), sent("SELECT b FROM t"), sent("SELECT a FROM u")]
    http = Statement("1", "http", "default", "SELECT a FROM t", {"session_timezone": "UTC"})
    other = Statement("1", "native", "default", "SELECT a FROM t", {"max_threads": "1"})
    assert len({*map(kind_of, texts), kind_of(http), kind_of(other)}) == 5
    assert is_of_a_tool(http)
    assert not is_of_a_tool(other)


def test_what_names_the_same_databases_is_one_history_in_its_order(tmp_path: Path) -> None:
    one, two = "test_0000000000000001", "test_0000000000000002"
    recorder = Recorder(tmp_path, Path("server"))
    for session, database, text in (
        ("1", "default", f"CREATE DATABASE {one}"),
        ("2", "default", f"CREATE DATABASE {two}"),
        ("3", one, "CREATE TABLE t"),
        ("4", "system", "CREATE DATABASE scratch"),
        ("4", "system", f"RESTORE TABLE {one}.t AS scratch.t"),
        ("5", two, "SELECT 1"),
    ):
        recorder.write(Statement(session, "native", database, text))
    histories = read_record(tmp_path)
    assert sorted([sent.text for sent in history.statements] for history in histories) == [
        [
            f"CREATE DATABASE {one}",
            "CREATE TABLE t",
            "CREATE DATABASE scratch",
            f"RESTORE TABLE {one}.t AS scratch.t",
        ],
        [f"CREATE DATABASE {two}", "SELECT 1"],
    ]


def test_the_fewest_histories_have_all_kinds() -> None:
    some = History("some", [sent("SELECT a"), sent("SELECT b")])
    others = History("others", [sent("SELECT b"), sent("SELECT c")])
    again = History("again", [sent("SELECT b"), sent("SELECT b")])
    assert {history.name for history in fewest([again, some, others])} == {"some", "others"}


def compared(listed: Listed, *outcomes: Outcome, text: str = "SELECT a FROM t") -> Comparison:
    comparison = Comparison(listed)
    by_version = {name: [one] for name, one in zip(VERSIONS, outcomes, strict=True)}
    comparison.add(History("h", [sent(text)]), by_version)
    return comparison


SAME, OTHER, FAILED = Outcome(lines=(b"1",)), Outcome(lines=(b"2",)), Outcome(60, "no table")
NOTHING = Listed([], [])


def test_other_rows_other_errors_and_what_never_works_deviate() -> None:
    assert compared(NOTHING, SAME, SAME, SAME).unlisted() == []
    seen = [
        (one.version, one.outcome)
        for outcomes in ([OTHER, SAME, SAME], [SAME, FAILED, SAME], [FAILED, FAILED, FAILED])
        for one in compared(NOTHING, *outcomes).unlisted()
    ]
    assert seen == [("24.8", "rows"), ("25.5", "error 60"), ("pinned", "error 60")]


def test_what_is_listed_is_expected_on_each_of_its_versions() -> None:
    entry = Entry(["SELECT a"], ["24.8", "25.5"], "rows", "because")
    assert compared(Listed([entry], []), OTHER, OTHER, SAME).unlisted() == []
    assert compared(Listed([entry], []), OTHER, OTHER, SAME).superfluous() == []
    assert compared(Listed([entry], []), OTHER, SAME, SAME).superfluous() != []
    rare = Entry(["SELECT b"], ["24.8"], "rows", "because", rare=True)
    assert compared(Listed([rare], []), SAME, SAME, SAME).superfluous() == []
    volatile = Volatile(["SELECT a"], "because")
    assert compared(Listed([], [volatile]), OTHER, OTHER, SAME).unlisted() == []
    assert compared(Listed([], [volatile]), FAILED, SAME, SAME).unlisted() != []
    assert compared(Listed([], [Volatile(["SELECT b"], "")]), SAME, SAME, SAME).superfluous() != []
