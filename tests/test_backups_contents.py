"""What tells two contents apart, and what is read to find it out."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from backups.contents import (
    ContentSource,
    Partition,
    Partitions,
    columns_of,
    differences,
    read_content,
)
from backups.manifest import SavedTable
from backups.server import _failure
from backups.table_restore import fill
from commands.listing import age_of
from conftest import Database as FreshDatabase
from ooni_common.database import Database, server_error
from ooni_common.errors import ConfigError, DataRefused, ScriptError, Unavailable
from store.client import Store, url_of
from tables.digest import digest
from tables.staging import Place


class Watched:
    """A connection that remembers what it was asked."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.queries: list[str] = []

    def execute(self, query: str, params: Any = None, **options: Any) -> Any:
        self.queries.append(query)
        return self._client.execute(query, params, **options)

    def disconnect(self) -> None:
        self._client.disconnect()

    def conditions(self) -> list[str]:
        """Return the conditions under which rows were read, and forget them."""
        read = [query for query in self.queries if "cityHash64" in query]
        self.queries.clear()
        return [query.partition(" WHERE ")[2].partition(" GROUP BY ")[0] for query in read]


@pytest.fixture
def watched(database: FreshDatabase) -> Watched:
    """A table of two partitions, and a connection to it."""
    database.execute(
        "CREATE TABLE t (p UInt8, a UInt32, q UInt8) ENGINE = MergeTree PARTITION BY p ORDER BY a"
        " SETTINGS enable_block_number_column = 1, enable_block_offset_column = 1"
    )
    database.execute("INSERT INTO t SELECT number % 2, number, 0 FROM numbers(10)")
    return Watched(database.client())


def content(
    watched: Watched, database: FreshDatabase, known: Partitions | None = None
) -> Partitions:
    connection = Database(watched)
    columns = columns_of(connection, database.name, "t", ("p", "a", "q"))
    source = ContentSource(database.name, "t", "MergeTree", digest(columns))
    return read_content(connection, source, known)


def test_only_partitions_with_other_parts_are_read_again(
    watched: Watched, database: FreshDatabase
) -> None:
    first = content(watched, database)
    assert watched.conditions() == [""]
    assert content(watched, database, first) == first
    assert watched.conditions() == []
    database.execute("INSERT INTO t VALUES (1, 99, 0)")
    second = content(watched, database, first)
    assert watched.conditions() == ["_partition_id NOT IN ('0')"]
    assert differences(first, second).keys() == {"1"}
    assert second == content(watched, database)


def test_a_merge_is_no_difference(watched: Watched, database: FreshDatabase) -> None:
    database.execute("INSERT INTO t VALUES (1, 99, 0)")
    before = content(watched, database)
    database.execute("OPTIMIZE TABLE t FINAL")
    after = content(watched, database, before)
    assert before["1"].parts != after["1"].parts
    assert differences(before, after) == {}


def test_a_lightweight_update_is_seen(watched: Watched, database: FreshDatabase) -> None:
    before = content(watched, database)
    client = database.client()
    client.execute("SET enable_lightweight_update = 1, allow_experimental_lightweight_update = 1")
    client.execute("UPDATE t SET q = 1 WHERE a = 4")
    assert differences(before, content(watched, database, before)).keys() == {"0"}


def test_dropped_partitions_are_a_difference(watched: Watched, database: FreshDatabase) -> None:
    before = content(watched, database)
    database.execute("ALTER TABLE t DROP PARTITION 0")
    after = content(watched, database, before)
    assert after.keys() == {"1"}
    assert differences(before, after) == {"0": Partition(0, "0")}


def saved(**fields: Any) -> SavedTable:
    """Return a table of two partitions."""
    partitions = {"0": Partition(5, "50"), "1": Partition(6, "60")}
    values = {"method": "incremental", "engine": "MergeTree", "schema": "", "storage_schema": "",
              "columns": ("a",), "partitions": partitions}  # fmt: skip
    return SavedTable(**(values | fields))


@pytest.mark.parametrize(
    ("later", "restored", "findings"),
    [
        ({}, {"0": (5, "50"), "1": (6, "60")}, []),
        ({}, {"0": (5, "50")}, ["partition 1: 0 rows instead of 6"]),
        ({}, {"0": (5, "50"), "1": (6, "61")},
         ["partition 1: 6 rows, as many as there were, but other ones"]),
        ({}, {"0": (5, "50"), "1": (6, "60"), "2": (1, "1")},
         ["partition 2: 1 rows instead of 0"]),
        ({"1": Partition(9, "90")}, {"0": (5, "50"), "1": (8, "80")}, []),
        ({"1": Partition(9, "90")}, {"0": (5, "50"), "1": (10, "99")},
         ["partition 1: 10 rows instead of 6 to 9"]),
    ],
)  # fmt: skip
def test_restored_rows_are_compared_partition_by_partition(
    later: Partitions, restored: dict[str, tuple[int, str]], findings: list[str]
) -> None:
    table = saved(later=later)
    found = {name: Partition(*each) for name, each in restored.items()}
    assert table.findings(found) == findings


def test_rows_that_may_have_been_merged_meanwhile_are_not_counted() -> None:
    table = saved(engine="ReplacingMergeTree", later={"1": Partition(4, "40")})
    assert table.findings({"0": Partition(5, "50"), "1": Partition(7, "70")}) == []
    assert table.findings({"0": Partition(5, "50")}) == ["partition 1: 0 rows instead of 4 to 6"]


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(seconds=-3), "0 s"),
        (timedelta(seconds=119), "119 s"),
        (timedelta(minutes=2), "2 min"),
        (timedelta(hours=30), "30 h"),
        (timedelta(days=400), "400 d"),
    ],
)
def test_ages_have_one_unit(duration: timedelta, text: str) -> None:
    assert age_of(duration) == text


@pytest.mark.parametrize(
    ("store", "url"),
    [
        (Store("b"), "https://b.s3.amazonaws.com/"),
        (Store("b", region="eu-central-1"), "https://b.s3.eu-central-1.amazonaws.com/"),
        (Store("a.b", region="eu-central-1"), "https://s3.eu-central-1.amazonaws.com/a.b/"),
        (Store("b", region="cn-north-1"), "https://b.s3.cn-north-1.amazonaws.com.cn/"),
        (Store("b", addressing="path"), "https://s3.amazonaws.com/b/"),
        (Store("b", endpoint="http://h:9/"), "http://h:9/b/"),
        (Store("b", endpoint="http://[::1]:9"), "http://[::1]:9/b/"),
        (Store("b", endpoint="https://h", addressing="virtual"), "https://b.h/"),
    ],
)
def test_the_server_reaches_the_bucket_that_the_tool_does(store: Store, url: str) -> None:
    assert url_of(store) == url


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Code: 499. DB::Exception: error type: ACCESS_DENIED., Stack trace", ConfigError),
        ("Code: 499. DB::Exception: Message: ExpiredToken", ConfigError),
        ("Code: 499. DB::Exception: error type: NETWORK_CONNECTION. (S3_ERROR)", Unavailable),
        (f"Code: 499. DB::Exception: {'far ' * 99} Message: ExpiredToken", ConfigError),
        ("Code: 497. DB::Exception: a: Not enough privileges. (ACCESS_DENIED)", ConfigError),
        ("Code: 243. DB::Exception: not enough space. (NOT_ENOUGH_SPACE)", Unavailable),
        ("", Unavailable),
    ],
)  # fmt: skip
def test_what_the_server_reports_is_sorted_by_what_the_operator_does(
    text: str, kind: type[ScriptError]
) -> None:
    assert isinstance(_failure("BACKUP_FAILED", text), kind)


@pytest.mark.parametrize(
    ("code", "said", "kind"),
    [
        (499, f"{'far ' * 99} HTTP response code: 404", DataRefused),
        (48, "Table engine X is not implemented", DataRefused),
        (60, "Table a.b does not exist", DataRefused),
        (432, "Unknown codec", DataRefused),
        (242, "Table is in readonly mode", Unavailable),
        (243, "Cannot reserve 1 MiB, not enough space", Unavailable),
        (499, "Slow Down", Unavailable),
        (164, "Cannot execute query in readonly mode", ConfigError),
        (253, "Replica /a/replicas/b already exists", ConfigError),
    ],
)
def test_a_restore_blames_the_backup_for_what_is_in_it_alone(
    monkeypatch: pytest.MonkeyPatch, code: int, said: str, kind: type[ScriptError]
) -> None:
    """What a store and other machines lack can't be had here."""

    def failing(*_: object, **__: object) -> None:
        raise server_error(code, said)

    monkeypatch.setattr("backups.table_restore._filled", failing)
    manifest: Any = SimpleNamespace(name="20260101T000000Z", tables={"t": None})
    server: Any = None
    with pytest.raises(kind):
        fill(server, manifest, "t", Place("a", "t"))
