"""What the server says, as exit status and in one line with what to do about it."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import asnmeta_updater
import detector
from backup_config import Config
from conftest import Database as FreshDatabase
from conftest import fresh_database
from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.samples.asn_map import asn_map
from dev.samples.measurements import create
from exports.clickhouse_http import ClickHouseHTTP
from failing_clickhouse import FailingClickHouse
from ooni_common.config import DatabaseConfig, SecretUrl
from ooni_common.database import Database, StatementFailed, StatementRefused, connected
from ooni_common.errors import ConfigError
from ooni_common.server_errors import (
    BETWEEN_NODES,
    LACKS,
    MOST_CHARACTERS,
    REFUSALS,
    VANISHED,
    in_one_line,
    meaning_of,
)

VERSION = " (version 24.8.4.13 (official build))"
STACK = (
    ". Stack trace:\n\n0. DB::Exception::Exception(String) @ 0x000000000d4d3f1b\n1. start_thread"
)
REFUSED_CONNECTION = (
    f"Code: 210. DB::NetException: Connection refused (b:9000). (NETWORK_ERROR){VERSION}"
)
TRIES = (
    f"All connection tries failed. Log: \n\n{REFUSED_CONNECTION}\n{REFUSED_CONNECTION}\n"
    f"Code: 198. DB::NetException: Not found address of host: c. (DNS_ERROR){VERSION}\n\n"
    ": While executing Remote"
)
UUID_MACRO = (
    "Macro 'uuid' and empty arguments of ReplicatedMergeTree are supported only for ON CLUSTER"
    " queries with Atomic database engine"
)
REPLICA = "Replica /clickhouse/tables/01/x/replicas/r1 already exists"
REPLICA_OF_A_NODE = (
    f"There was an error on [b:9000]: Code: 253. DB::Exception: {REPLICA}."
    f" (REPLICA_ALREADY_EXISTS){VERSION}"
)
DROP_REPLICA = (
    "if no node has that table any more: SYSTEM DROP REPLICA 'r1' FROM ZKPATH"
    " '/clickhouse/tables/01/x'; otherwise create the table with another replica path"
)
PRIVILEGES = (
    "ooni: Not enough privileges. To execute this query, it's necessary to have the grant"
    " SELECT(probe_cc, probe_asn, test_name, input) ON ooni.fastpath"
)
UNKNOWN_STATUS = (
    "Unknown status, client must retry. Reason: Code: 999. Coordination::Exception: Session"
    f" expired. (KEEPER_EXCEPTION){VERSION}"
)
SHARDS = (
    "All attempts to get table structure failed. Log: \n\nCode: 279. DB::NetException:"
    f" {TRIES}. (ALL_CONNECTION_TRIES_FAILED){VERSION}\n\n"
)
# What servers have said: code → its text, and the line's beginning and end, as far as it matters.
SAID: Mapping[int, tuple[str, str, str]] = {
    36: (UUID_MACRO, "Macro 'uuid'", "a replica path without {uuid} or with ON CLUSTER"),
    48: ("Tables can be exchanged only in Atomic databases.", "Tables", "tables there"),
    56: ("Unknown table engine EmbeddedRocksDB.", "Unknown table engine", "such a table"),
    80: ("Table UUID specified, but engine of database a is not Atomic", "Table", "tables there"),
    81: ("Database ooni does not exist.", "Database ooni does not exist (", "in db_uri"),
    115: ("Unknown setting 'nonsense'", "Unknown setting 'nonsense' (", "upgrade the server"),
    122: ("Table columns structure in ZooKeeper is different", "Table", "with another one"),
    139: ("No macro 'shard' in config", "No macro", "configuration of the server"),
    164: ("Cannot execute query in readonly mode.", "Cannot", "with readonly = 0"),
    170: ("Requested cluster 'a' not found", "Requested", "FROM system.clusters"),
    181: ("Storage Memory doesn't support FINAL", "Storage Memory", "to replace others"),
    192: ("Unknown user ooni", "Unknown user ooni (", "in db_uri"),
    193: ("Wrong password for user ooni", "Wrong password", "in db_uri"),
    194: ("Password required for user ooni", "Password required", "in db_uri"),
    195: ("User ooni is not allowed to connect from address", "User", "from this host"),
    253: (REPLICA_OF_A_NODE, f"There was an error on [b:9000]: {REPLICA} (", DROP_REPLICA),
    291: ("Access denied to database ooni", "Access", "grant it to the user of db_uri"),
    342: ("Existing table metadata in ZooKeeper differs", "Existing", "with another one"),
    344: ("Experimental feature is not enabled", "Experimental", "of the user of db_uri"),
    359: ("Table or Partition in a.b was not dropped.\nReason:\n1. Size", "Table", "the limit"),
    392: ("ooni: Cannot execute query. DDL queries are prohibited", "ooni: ", "allow_ddl = 1"),
    452: ("Setting max_threads shouldn't be greater than 8", "Setting", "of the user of db_uri"),
    497: (
        PRIVILEGES,
        "ooni: Not enough",
        "(code 497 ACCESS_DENIED); grant it to the user of db_uri",
    ),
    516: ("ooni: Authentication failed", "ooni: ", "check user and password in db_uri"),
    669: ("There is no named collection `a`", "There is", "name another one"),
    701: ("Requested cluster 'a' not found", "Requested", "FROM system.clusters"),
    60: ("Table ooni.fastpath doesn't exist", "Table", "begins again"),
    159: ("Timeout exceeded: elapsed 10 seconds, maximum: 10", "Timeout", "too short"),
    201: ("Quota for user `ooni` for 3600s has been exceeded", "Quota", "is used up"),
    202: ("Too many simultaneous queries. Maximum: 100", "Too many", "PROCESSLIST"),
    203: ("No free connections available", "No free", "PROCESSLIST"),
    209: ("Timeout exceeded while reading from socket (b:9000)", "Timeout", "another one"),
    210: ("Connection refused (b:9000)", "Connection refused (b:9000) (code", "another one"),
    224: ("Replica /x/replicas/a appears to be already active", "Replica", "have one name"),
    225: ("Can't create replicated table without ZooKeeper", "Can't", "and its log"),
    241: ("Memory limit (total) exceeded: would use 9.00 GiB", "Memory limit", "is low"),
    242: ("Table is in readonly mode (replica path: /a)", "Table", "and its log"),
    243: ("Cannot reserve 1.00 MiB, not enough space", "Cannot reserve", "free space there"),
    252: ("Too many parts (3000 with average size of 1 KiB)", "Too many", "system.merges"),
    279: (
        TRIES,
        "Connection refused (b:9000); Not found address of host: c (code 279",
        "the server could not reach another one",
    ),
    285: ("Number of alive replicas (1) is less than requested quorum", "Number", "each node"),
    286: ("Quorum for previous write has not been satisfied yet", "Quorum", "each node"),
    319: (
        UNKNOWN_STATUS,
        "Unknown status, client must retry. Reason: Session expired (code 319",
        "the next run sees to it",
    ),
    394: ("Query was cancelled", "Query was cancelled (", "is stopping"),
    499: ("Slow Down: reduce your request rate", "Slow Down", "(code 499 S3_ERROR)"),
    519: (
        SHARDS,
        "Connection refused (b:9000); Not found address of host: c (code 519",
        "the server could not reach another one",
    ),
    999: ("Coordination::Exception: Session expired", "Session expired (", "and its log"),
}
NAMES = {rule.code: rule.name for rule in (*REFUSALS, *LACKS, VANISHED)}
CODES_FOR_A_PERSON = {rule.code for rule in REFUSALS}


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FailingClickHouse]:
    with FailingClickHouse(tmp_path_factory.mktemp("failing")) as server:
        yield server


@pytest.fixture
def measured(failing: FailingClickHouse) -> Iterator[FreshDatabase]:
    with fresh_database(failing) as database:
        create(database.client(), "fastpath")
        yield database


def run_detector(
    folder: Path, uri: str, capsys: pytest.CaptureFixture[str], *flags: str
) -> tuple[int, str]:
    """Run it as a whole; return its exit status and the only error that it printed."""
    config = folder / "detector.conf"
    config.write_text(
        f'db_uri = "{uri}"\nstatsd = ""\nstate_dir = "{folder}"\noutput_dir = "{folder}"\n'
    )
    config.chmod(0o600)
    status = detector.main(["--config", str(config), *flags])
    printed = capsys.readouterr().err
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    return status, line


def test_every_code_with_a_rule_is_tested() -> None:
    assert SAID.keys() == NAMES.keys()


@pytest.mark.parametrize("code", SAID)
def test_a_tool_ends_with_one_line_and_a_status_that_says_who_mends_it(
    failing: FailingClickHouse,
    measured: FreshDatabase,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    code: int,
) -> None:
    said, beginning, end = SAID[code]
    with failing.failing("fastpath", code, f"{said}{STACK}"):
        status, line = run_detector(tmp_path, measured.uri, capsys)
    assert status == (78 if code in CODES_FOR_A_PERSON else 69)
    assert line.startswith(f"error: database: {beginning}")
    assert f"(code {code} {NAMES[code]})" in line
    assert line.endswith(end)
    for noise in ("Stack trace", "version", "::", "Log:"):
        assert noise not in line
    assert len(line) <= 400


def test_with_verbose_there_is_all_that_the_server_said(
    failing: FailingClickHouse,
    measured: FreshDatabase,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tmp_path / "detector.conf"
    config.write_text(f'db_uri = "{measured.uri}"\nstatsd = ""\nstate_dir = "{tmp_path}"\n')
    with failing.failing("fastpath", 242, f"Table is in readonly mode{STACK}"):
        assert detector.main(["--config", str(config), "--verbose", "--dry-run"]) == 69
    assert "start_thread" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("code", SAID)
def test_over_http_it_is_the_same(failing: FailingClickHouse, engine: Database, code: int) -> None:
    config = Config(
        db_uri=SecretUrl(failing.uri()), http_url=SecretUrl(failing.http_url()), tables={}
    )
    http = ClickHouseHTTP(config, "test")
    with failing.failing("'nothing'", code, SAID[code][0]):
        with pytest.raises((StatementFailed, StatementRefused)) as native:
            engine.query("SELECT 'nothing'")
        with (
            pytest.raises((StatementFailed, StatementRefused)) as over_http,
            http.rows("SELECT 'nothing'"),
        ):
            pass
    assert str(over_http.value) == str(native.value)
    assert over_http.value.status == native.value.status


# --- what the engine itself says ---


@contextmanager
def database_of(server: EmbeddedClickHouse, name: str = "default") -> Iterator[Database]:
    uri = server.uri(database=name)
    config = DatabaseConfig(state_dir=Path("/nowhere"), db_uri=SecretUrl(uri))
    with connected(config) as database:
        yield database


REPLICATED = "CREATE TABLE r (n UInt8) ENGINE = ReplicatedMergeTree('{}', 'r') ORDER BY n"
ENGINE_REFUSES = {
    "CREATE TABLE r ON CLUSTER nodes (n UInt8) ENGINE = Memory": (701, "system.clusters"),
    REPLICATED.format("/a/{uuid}"): (36, "without {uuid}"),
    REPLICATED.format("/a/{nonsense}"): (139, "configuration of the server"),
    "CREATE TABLE r (n UInt8) ENGINE = Nonsense": (56, "can't have such a table"),
    "SELECT 1 FROM nowhere.t": (81, "db_uri"),
    "EXCHANGE TABLES old.a AND old.b": (48, "ENGINE = Atomic"),
    "SELECT 1 SETTINGS nonsense = 1": (115, "remove it"),
    "SELECT 1 FROM old.a FINAL": (181, "to replace others"),
}
ENGINE_FAILS = {
    "SELECT 1 FROM nothing": (60, "somebody has dropped it"),
    REPLICATED.format("/a/b"): (225, "ZooKeeper"),
    "SELECT sleepEachRow(0.05) FROM numbers(9) SETTINGS max_block_size = 1,"
    " max_execution_time = 0.1": (159, "max_execution_time"),
    "SELECT number FROM numbers(1e6) GROUP BY 1 SETTINGS max_memory_usage = 1": (241, "memory"),
    "SELECT 1 FROM remote('127.0.0.1:1', system.one)": (1002, "Connection refused (127.0.0.1:1)"),
}


@pytest.fixture(scope="module")
def engine(failing: FailingClickHouse) -> Iterator[Database]:
    with database_of(failing) as database:
        database.query("SET allow_deprecated_database_ordinary = 1")
        database.query("CREATE DATABASE old ENGINE = Ordinary")
        for name in ("a", "b"):
            database.query(f"CREATE TABLE old.{name} (n UInt8) ENGINE = MergeTree ORDER BY n")
        yield database


@pytest.mark.parametrize("statement", ENGINE_REFUSES)
def test_what_the_engine_refuses_is_for_a_person(engine: Database, statement: str) -> None:
    code, advice = ENGINE_REFUSES[statement]
    with pytest.raises(StatementRefused) as caught:
        engine.query(statement)
    assert (caught.value.code, caught.value.status) == (code, 78)
    assert f"(code {code} {NAMES[code]}); " in str(caught.value)
    assert advice in str(caught.value)


@pytest.mark.parametrize("statement", ENGINE_FAILS)
def test_what_the_engine_fails_at_may_pass(engine: Database, statement: str) -> None:
    code, advice = ENGINE_FAILS[statement]
    with pytest.raises(StatementFailed) as caught:
        engine.query(statement)
    assert (caught.value.code, caught.value.status) == (code, 69)
    assert advice in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_readonly_profile_ends_a_tool_with_78(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    users = ("default:", "ooni:x:readonly")
    with (
        EmbeddedClickHouse(tmp_path / "server", users=users) as server,
        fresh_database(server) as database,
    ):
        create(database.client(), "fastpath")
        uri = server.uri("ooni", "x", database.name)
        status, line = run_detector(tmp_path, uri, capsys)
    assert status == 78
    assert line == (
        "error: the user of db_uri has readonly = 2 and cannot write; give the user of db_uri a"
        " settings profile with readonly = 0"
    )


def test_an_ordinary_database_ends_an_updater_with_78(
    engine: Database, failing: FailingClickHouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, config = tmp_path / "map.json", tmp_path / "updater.conf"
    source.write_bytes(asn_map(300, 1000))
    config.write_text(
        f'db_uri = "{failing.uri(database="old")}"\nstatsd = ""\nstate_dir = "{tmp_path}"\n'
        f'url = "{source.as_uri()}"\nmin_rows = 1\n'
    )
    assert asnmeta_updater.main(["--config", str(config)]) == 78
    assert "Atomic" in capsys.readouterr().err.splitlines()[-1]


def test_a_database_without_measurements_is_not_the_one(
    failing: FailingClickHouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fresh_database(failing) as database:
        status, line = run_detector(tmp_path, database.uri, capsys)
    assert (status, line) == (
        78,
        "error: fastpath: no such table; name the database of OONI in db_uri",
    )


def test_a_table_that_vanishes_during_a_run_may_be_there_in_the_next(
    failing: FailingClickHouse,
    measured: FreshDatabase,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with failing.failing("FROM fastpath", 60, "Table ooni.fastpath doesn't exist"):
        status, line = run_detector(tmp_path, measured.uri, capsys)
    assert (status, "somebody has dropped it" in line) == (69, True)


# --- the line ---


def test_a_refusal_that_a_server_had_from_another_is_for_a_person() -> None:
    said = f"Received from b:9000. DB::Exception: a: Authentication failed{VERSION}"
    reason = f"Code: 516. DB::Exception: {said}"
    meaning = meaning_of(279, f"All connection tries failed. Log: \n\n{reason}\n{reason}\n\n")
    assert (meaning.code, meaning.refused) == (516, True)
    assert meaning.line == (
        "database: Received from b:9000. a: Authentication failed (code 516 AUTHENTICATION_FAILED);"
        f" {BETWEEN_NODES}"
    )


def test_what_a_row_says_of_codes_changes_nothing() -> None:
    meaning = meaning_of(27, "Cannot parse input: expected 'eof' before: 'Code: 516. DB'")
    assert (meaning.code, meaning.refused) == (27, False)


@given(st.text())
@example("x" * 1000)
@example("word " * 200)
@example(f"{TRIES}{STACK}")
def test_a_line_is_one_line_and_short(said: str) -> None:
    line = in_one_line(said)
    assert line.splitlines() in ([line], [])
    assert len(line) <= MOST_CHARACTERS + 1
    assert in_one_line(line) == line or "…" in line


@given(st.text(alphabet=st.characters(codec="ascii", exclude_characters="(),.:\n"), max_size=100))
def test_short_words_are_kept_as_they_are(said: str) -> None:
    words = " ".join(said.split())
    assert in_one_line(f"DB::Exception: {words}{STACK}") == words


@given(st.integers(0, 1100), st.text())
def test_every_code_and_every_text_has_a_meaning(code: int, said: str) -> None:
    meaning = meaning_of(code, said)
    assert re.search(rf"\(code {meaning.code}( [A-Z0-9_]+)?\)", meaning.line)


def test_a_refusal_is_an_error_of_configuration() -> None:
    assert issubclass(StatementRefused, ConfigError)
