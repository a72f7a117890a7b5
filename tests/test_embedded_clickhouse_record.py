"""The record of what clients send: enough to run it again."""

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from clickhouse_driver import Client

from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.embedded_clickhouse.record import ExternalTable, Statement


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedClickHouse]:
    monkeypatch.setenv("OONI_RECORD_STATEMENTS", str(tmp_path / "record"))
    with EmbeddedClickHouse(tmp_path / "db") as server:
        yield server


def recorded(folder: Path) -> list[Statement]:
    (file,) = (folder / "record").glob("*.jsonl")
    decoder = msgspec.json.Decoder(Statement)
    return [decoder.decode(line) for line in file.read_bytes().splitlines()]


def test_statements_are_in_their_order_with_settings_and_the_end_of_their_session(
    recording: EmbeddedClickHouse, tmp_path: Path
) -> None:
    with Client.from_url(recording.uri()) as client:
        client.execute("CREATE TABLE t (n UInt8) ENGINE = Memory")
        client.execute("SELECT count() FROM t", settings={"max_threads": 1})
    recording.stop()
    first, second, third = recorded(tmp_path)
    assert first.time < second.time < third.time
    assert first.text == "CREATE TABLE t (n UInt8) ENGINE = Memory"
    assert (first.protocol, first.database, first.settings) == ("native", "default", {})
    assert (second.text, second.settings) == ("SELECT count() FROM t", {"max_threads": "1"})
    assert first.session == second.session == third.session
    assert third.ended


def test_rows_are_in_files_the_same_ones_only_once(
    recording: EmbeddedClickHouse, tmp_path: Path
) -> None:
    with Client.from_url(recording.uri()) as client:
        client.execute("CREATE TABLE t (n UInt8) ENGINE = Memory")
        for _ in range(2):
            client.execute("INSERT INTO t VALUES", [[7]])
        table = {"name": "days", "structure": [("day", "UInt16")], "data": [(1,)]}
        client.execute("INSERT INTO t SELECT day FROM days", external_tables=[table])
    url = recording.http_url(query="INSERT INTO t FORMAT CSV", max_threads=1)
    with urllib.request.urlopen(url, b"8\n9\n"):
        pass
    recording.stop()
    # Two sessions: which of them is told to have ended first is left to the machine.
    statements = [statement for statement in recorded(tmp_path) if not statement.ended]
    _, first, again, external, http = statements
    files = {path.name: path.read_bytes() for path in (tmp_path / "record").iterdir()}
    assert files[first.rows] == b"\x01\x01\x01n\x05UInt8\x07"
    assert (first.rows, first.text) == (again.rows, again.text)
    (days,) = external.tables
    assert days == ExternalTable("days", (("day", "UInt16"),), days.rows)
    assert [files[name] for name in days.rows] == [b"\x01\x01\x03day\x06UInt16\x01\x00"]
    assert (http.protocol, http.text) == ("http", "INSERT INTO t FORMAT CSV\n")
    assert (files[http.rows], http.settings) == (b"8\n9\n", {"max_threads": "1"})
    assert len(files) == 4


def test_a_server_that_is_started_again_goes_on_with_its_record(tmp_path: Path) -> None:
    folder = tmp_path / "record"
    server = EmbeddedClickHouse(tmp_path / "db")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OONI_RECORD_STATEMENTS", str(folder))
        for statement in ("SELECT 1", "SELECT 2"):
            with server, Client.from_url(server.uri()) as client:
                client.execute(statement)
    assert [statement.text for statement in recorded(tmp_path) if statement.text] == [
        "SELECT 1",
        "SELECT 2",
    ]


def test_what_is_refused_is_not_recorded(recording: EmbeddedClickHouse, tmp_path: Path) -> None:
    with (
        Client.from_url(recording.uri()) as client,
        pytest.raises(Exception, match="readonly"),
    ):
        client.execute("DROP TABLE t", settings={"readonly": 1})
    recording.stop()
    assert [statement.ended for statement in recorded(tmp_path)] == [True]
