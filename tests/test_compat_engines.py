"""The runner of engines of several versions: what the other compat tests rely on."""

from collections.abc import Mapping

import pytest

from dev.embedded_clickhouse.errors import ServerError
from dev.engines import Engine

pytestmark = pytest.mark.compat


def test_the_engines_are_of_three_versions_and_the_oldest_is_the_one_supported(
    engines: Mapping[str, Engine],
) -> None:
    versions = [engine.version.split(".")[:2] for engine in engines.values()]
    assert versions[:2] == [["24", "8"], ["25", "5"]]
    assert versions[2] > versions[1]


def test_a_statement_gives_the_bytes_of_a_format_or_its_own(engine: Engine) -> None:
    assert engine.execute("SELECT 'é', 1") == "é\t1\n".encode()
    assert engine.execute("SELECT 'a', 1", "RowBinary") == b"\x01a\x01"
    assert engine.execute("SELECT 'a', 1 FORMAT CSV") == b'"a",1\n'
    assert engine.execute("SELECT 1 WHERE 0") == b""
    assert engine.rows("SELECT 'a', [1, NULL]") == [["a", [1, None]]]


def test_an_error_has_its_code_and_the_engine_goes_on(engine: Engine) -> None:
    with pytest.raises(ServerError, match="column_that_is_not_there") as caught:
        engine.execute("SELECT column_that_is_not_there")
    assert caught.value.code == 47
    assert engine.rows("SELECT 1") == [[1]]


def test_a_result_has_nothing_of_a_query_that_has_failed_before(engine: Engine) -> None:
    with pytest.raises(ServerError) as caught:
        engine.execute("SELECT match(materialize(''), '(?<=é)b')", "CSVWithNames")
    assert caught.value.code == 427
    assert engine.execute("SELECT 7 AS n", "CSVWithNames") == b'"n"\n7\n'


def test_a_message_that_is_cut_off_within_a_letter_is_an_error_like_others(engine: Engine) -> None:
    for length in range(4):
        regexps = ", ".join(f"'{'x' * length}{'é' * 200}{number}'" for number in range(20))
        with pytest.raises(ServerError) as caught:
            engine.execute(
                f"SELECT arrayMap(r -> match(materialize(''), r), [{regexps}, '(?<=a)'])"
            )
        assert caught.value.code == 427


def test_tables_are_exchanged_in_the_database_of_a_test(engine: Engine) -> None:
    for name, value in (("one", 1), ("two", 2)):
        engine.execute(f"CREATE TABLE {name} (value UInt8) ENGINE = MergeTree ORDER BY value")
        engine.execute(f"INSERT INTO {name} VALUES ({value})")
    engine.execute("EXCHANGE TABLES one AND two")
    assert engine.rows("SELECT value FROM one") == [[2]]


def test_a_database_does_not_outlive_its_test(engine: Engine) -> None:
    assert engine.rows("SHOW TABLES") == []
