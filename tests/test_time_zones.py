"""A server whose time zone is not UTC: the same tables, feeds and exports as anywhere."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clickhouse_driver
import pytest

import detector
import times_table
from conftest import Database as FreshDatabase
from conftest import fresh_database
from db_backup_harness import BackupTool
from detector_harness import Detecting, at, blocked, measured, series
from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.servers.s3 import S3Server
from dev.servers.statsd import StatsdListener
from ooni_common.config import DatabaseConfig, SecretUrl
from ooni_common.database import connected
from ooni_common.errors import ConfigError
from tables.inventory import with_utc, without_zones
from times_table import TURN_OF_THE_YEAR, ZONES

USERS = ["default:", "fixed:x:readonly=1", "reader:x:readonly"]
MONTHS = {"policy": "public", "chunk_by": "month", "column": "at"}


@pytest.fixture(scope="module", params=ZONES)
def zoned_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedClickHouse]:
    folder = tmp_path_factory.mktemp("zoned")
    with EmbeddedClickHouse(folder, USERS, timezone=request.param) as server:
        yield server


@pytest.fixture
def zoned(zoned_server: EmbeddedClickHouse) -> Iterator[FreshDatabase]:
    """A fresh database on a server in another zone."""
    with fresh_database(zoned_server) as database:
        yield database


@pytest.fixture
def zoned_tool(
    tmp_path: Path,
    zoned: FreshDatabase,
    s3: S3Server,
    capsys: pytest.CaptureFixture[str],
    quick_backups: None,
) -> BackupTool:
    return tool_of(zoned, tmp_path, s3, capsys)


def tool_of(
    database: FreshDatabase, folder: Path, s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> BackupTool:
    bucket = f"test-{uuid.uuid4().hex[:16]}"
    s3.create_bucket(bucket)
    return BackupTool(folder, database, s3, bucket, capsys)


def fill_times(database: FreshDatabase, partition: str = "") -> None:
    database.execute(times_table.create("times", partition))
    database.execute(times_table.fill("times"))


# --- the detector ---


@pytest.mark.long
def test_the_detector_finds_the_same_in_all_zones(
    tmp_path: Path,
    database: FreshDatabase,
    zoned: FreshDatabase,
    capsys: pytest.CaptureFixture[str],
    statsd: StatsdListener,
) -> None:
    results: list[Any] = []
    for name, where in (("utc", database), ("zoned", zoned)):
        detecting = Detecting(tmp_path / name, where, capsys)
        detecting.folder.mkdir()
        detecting.measure(blocked(series(), 200, block=100, unblock=150))
        detecting.measure(blocked(series("IR", 7), 200, block=120))
        statsd.clear()
        log = detecting.detect(200, statsd=statsd.address)
        assert f"up to {at(200):%-d %b %Y, %H:%M} UTC" in log
        assert "(+" not in detecting.detect(200)
        lag = [line for line in statsd.received() if "lag_hours" in line]
        status = where.execute(
            "SELECT * EXCEPT (update_time, since, last_measurement),"
            " toUnixTimestamp(update_time), toUnixTimestamp(since),"
            " toUnixTimestamp(last_measurement) FROM blocking_status ORDER BY ALL"
        )
        results.append((status, detecting.events(), detecting.outputs(), lag))
    assert results[0] == results[1]
    assert results[0][3] == ["detector.lag_hours:0|g"] * 2


def test_a_run_of_the_detector_gets_no_time_without_a_zone(
    tmp_path: Path,
    zoned: FreshDatabase,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[Any] = []
    execute = clickhouse_driver.Client.execute

    def remembered(*arguments: Any, **options: Any) -> Any:
        answer = execute(*arguments, **options)
        answers.append(answer)
        return answer

    detecting = Detecting(tmp_path, zoned, capsys)
    detecting.measure(measured(series(), 0, 50))
    with monkeypatch.context() as patch:
        patch.setattr(clickhouse_driver.Client, "execute", remembered)
        detecting.detect(50)
    rows = [row for answer in answers if isinstance(answer, list) for row in answer]
    assert rows
    assert not [value for row in rows for value in row if getattr(value, "tzinfo", 1) is None]


# --- the exports ---


@pytest.mark.long
@pytest.mark.parametrize("partition", ["", "PARTITION BY toYYYYMM(at)"])
def test_chunks_and_their_bytes_are_the_same_in_all_zones(
    zoned_tool: BackupTool, partition: str
) -> None:
    fill_times(zoned_tool.database, partition)
    assert zoned_tool.run(tables={"times": MONTHS})[0] == 0
    assert zoned_tool.exports() == ["times_202412.csv.zstd", "times_202501.csv.zstd"]
    for month, year in (("202412", 2024), ("202501", 2025)):
        content = zoned_tool.csv(f"times_{month}.csv.zstd").decode()
        assert content == times_table.exported(year)
    with zoned_tool.unchanged():
        assert "nothing to do" in zoned_tool.run()[1]


@pytest.mark.long
def test_days_and_ranges_are_the_same_in_all_zones(zoned_tool: BackupTool) -> None:
    fill_times(zoned_tool.database)
    days = MONTHS | {"chunk_by": "day"}
    assert zoned_tool.run(tables={"times": days})[0] == 0
    assert zoned_tool.exports() == [
        "times_20241230.csv.zstd", "times_20241231.csv.zstd",
        "times_20250101.csv.zstd", "times_20250102.csv.zstd",
    ]  # fmt: skip
    ranges = {"policy": "public", "chunk_by": "range", "rows_per_chunk": 3}
    assert zoned_tool.run(tables={"times": ranges})[0] == 0
    exports = zoned_tool.manifest("times").exports
    assert {export.chunk.bounds for export in exports if not export.dropped} == {
        (None, "2024-12-31 23:00:00"),
        ("2024-12-31 23:00:00", "2025-01-01 05:00:00"),
        ("2025-01-01 05:00:00", None),
    }


@pytest.mark.long
def test_fastpath_is_exported_the_same_in_all_zones(
    backup_tool: BackupTool,
    tmp_path: Path,
    zoned: FreshDatabase,
    s3: S3Server,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "zoned").mkdir()
    exported = []
    for tool in (backup_tool, tool_of(zoned, tmp_path / "zoned", s3, capsys)):
        tool.fill("fastpath", 2000, days=90)
        policy = MONTHS | {"column": "measurement_start_time"}
        assert tool.run(tables={"fastpath": policy})[0] == 0
        exported.append({name: tool.csv(name) for name in tool.exports()})
    assert list(exported[0]) == [f"fastpath_20230{month}.csv.zstd" for month in (1, 2, 3)]
    assert exported[0] == exported[1]


@pytest.mark.long
@pytest.mark.parametrize("partition", ["", "PARTITION BY toYYYYMM(at)"])
def test_an_export_restores_the_same_rows_in_all_zones(
    zoned_tool: BackupTool, partition: str
) -> None:
    fill_times(zoned_tool.database, partition)
    zoned_tool.run(tables={"times": MONTHS})
    assert zoned_tool.run("restore", "times", "--from", "exports", "--as", "back")[0] == 0
    assert zoned_tool.checksum("back") == zoned_tool.checksum("times")
    parts = "SELECT partition, sum(rows) FROM system.parts WHERE active AND table = '{}' GROUP BY 1"
    execute = zoned_tool.database.execute
    assert sorted(execute(parts.format("back"))) == sorted(execute(parts.format("times")))


@pytest.mark.long
def test_private_backups_restore_the_same_rows_in_all_zones(zoned_tool: BackupTool) -> None:
    zoned_tool.keep_private(tables={"times": "private", "ranks": "private"})
    fill_times(zoned_tool.database, "PARTITION BY toYYYYMM(at)")
    zoned_tool.database.execute(
        "CREATE TABLE ranks (at DateTime, n UInt8) ENGINE = EmbeddedRocksDB PRIMARY KEY (n)"
    )
    zoned_tool.database.execute("INSERT INTO ranks SELECT at, n + 100 FROM times")
    assert zoned_tool.run("backup")[0] == 0
    assert zoned_tool.run("verify")[0] == 0
    for table in ("times", "ranks"):
        assert zoned_tool.run("restore", table, "--as", f"{table}_back")[0] == 0
        assert zoned_tool.checksum(f"{table}_back") == zoned_tool.checksum(table)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("DateTime", "DateTime('UTC')"),
        ("DateTime64(3)", "DateTime64(3, 'UTC')"),
        ("DateTime('Asia/Tokyo')", "DateTime('Asia/Tokyo')"),
        ("DateTime64(6, 'UTC')", "DateTime64(6, 'UTC')"),
        ("Array(LowCardinality(Nullable(DateTime)))", "Array(Nullable(DateTime('UTC')))"),
        ("LowCardinality(String)", "LowCardinality(String)"),
        ("Tuple(DateTime DateTime, b Date)", "Tuple(DateTime DateTime('UTC'), b Date)"),
        ("Tuple(`DateTime` DateTime)", "Tuple(`DateTime` DateTime('UTC'))"),
        ("Tuple(DateTime, DateTime64(0))", "Tuple(DateTime('UTC'), DateTime64(0, 'UTC'))"),
        ("Enum8('DateTime' = 1, 'a,DateTime)' = 2)", "Enum8('DateTime' = 1, 'a,DateTime)' = 2)"),
        ("AggregateFunction(max, DateTime)", "AggregateFunction(max, DateTime)"),
        ("SimpleAggregateFunction(max, DateTime)", "SimpleAggregateFunction(max, DateTime('UTC'))"),
    ],
)  # fmt: skip
def test_types_get_the_zone_that_they_lack(kind: str, expected: str) -> None:
    assert with_utc(kind) == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("DateTime", "DateTime"),
        ("DateTime('Asia/Tokyo')", "DateTime('UTC')"),
        ("DateTime('Etc/UTC')", "DateTime('Etc/UTC')"),
        ("DateTime64(6, 'Europe/Rome')", "DateTime64(6, 'UTC')"),
        ("Nullable(DateTime('Europe/Rome'))", "Nullable(DateTime('UTC'))"),
        ("LowCardinality(Nullable(DateTime('Asia/Tokyo')))", "Nullable(DateTime('UTC'))"),
        ("Array(Tuple(a DateTime('Asia/Tokyo')))", "Array(Tuple(a DateTime('UTC')))"),
        ("Map(DateTime('Asia/Tokyo'), String)", "Map(DateTime('UTC'), String)"),
        (r"Enum8('DateTime(\'Asia/Tokyo\')' = 1)", r"Enum8('DateTime(\'Asia/Tokyo\')' = 1)"),
        ("Tuple(`DateTime('Asia/Tokyo')` Date)", "Tuple(`DateTime('Asia/Tokyo')` Date)"),
        ("Variant(DateTime('Asia/Tokyo'), String)", "Variant(DateTime('Asia/Tokyo'), String)"),
    ],
)
def test_types_lose_the_zone_that_is_not_utc(kind: str, expected: str) -> None:
    assert without_zones(kind) == expected


# --- the sessions ---


def config_of(database: FreshDatabase, user: str, **settings: str) -> DatabaseConfig:
    password = "" if user == "default" else "x"
    uri = database.server.uri(user, password, database.name, **settings)
    return DatabaseConfig(db_uri=SecretUrl(uri), state_dir=Path("/nowhere"))


@pytest.mark.parametrize("user", ["default", "reader"])
def test_a_session_is_in_utc_whatever_the_uri_says(zoned: FreshDatabase, user: str) -> None:
    with connected(config_of(zoned, user, session_timezone="Asia/Tokyo")) as database:
        sql = "SELECT toString(toDateTime(0)), toUnixTimestamp(toDateTime('1970-01-02 00:00:00'))"
        assert database.query(sql) == [("1970-01-01 00:00:00", 86400)]


def test_a_table_that_is_made_has_the_zone_of_the_server(zoned: FreshDatabase) -> None:
    """With that of the session, its partitions would be others after the server's next start."""
    with connected(config_of(zoned, "default")) as database:
        for name in ("ours", "theirs"):
            create = f"CREATE TABLE {name} (at DateTime) ENGINE = MergeTree ORDER BY at"
            (database.query if name == "ours" else zoned.execute)(create)
            zoned.execute(
                f"INSERT INTO {name} VALUES", [(int(TURN_OF_THE_YEAR.timestamp()) - 3600,)]
            )
        text = "SELECT toString(at) FROM {}"
        assert zoned.execute(text.format("ours")) == zoned.execute(text.format("theirs"))


def test_a_profile_that_fixes_the_settings_is_named_in_one_line(
    tmp_path: Path, zoned: FreshDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        connected(config_of(zoned, "fixed")) as database,
        pytest.raises(ConfigError, match="profile with readonly = 0"),
    ):
        database.query("SELECT 1")
    config = tmp_path / "detector.conf"
    uri = zoned.server.uri("fixed", "x", zoned.name)
    config.write_text(f'db_uri = "{uri}"\nstate_dir = "{tmp_path}"\noutput_dir = "{tmp_path}"')
    config.chmod(0o600)
    assert detector.main(["--config", str(config)]) == 78
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert [("session_timezone" in line) for line in lines] == [True], said


def test_over_http_such_a_profile_is_named_too(zoned_tool: BackupTool) -> None:
    fill_times(zoned_tool.database)
    url = zoned_tool.database.server.http_url().partition("?")[0]
    http = url.replace("http://", "http://fixed:x@")
    status, log = zoned_tool.run(tables={"times": MONTHS}, http_url=http)
    assert (status, "profile with readonly = 0" in log) == (78, True), log
