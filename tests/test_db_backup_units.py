"""The parts of the backup tool that need no server: configuration, names, SQL, counting, units."""

import csv
import io
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import ooni_db_backup
from backup_config import Config
from commands.listing import exports_as_table
from exports.clickhouse_http import login_of
from exports.csv_rows import RowCounter
from exports.manifest import ExportLayout, TableManifest
from ooni_common.config import Secret, SecretUrl
from store.bucket import escaped
from tables.inventory import first_column, renamed, version_column
from tables.policy import TablePolicy
from throttle import in_units, progress

SHIPPED = Path(str(ooni_db_backup.__file__)).with_name("db-backup.conf")


# --- configuration ---


def checked(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Check a configuration file; return the exit status and what was printed."""
    path = tmp_path / "db-backup.conf"
    path.write_text(text)
    path.chmod(0o600)
    status = ooni_db_backup.main(["--config", str(path), "--check-config"])
    return status, capsys.readouterr().err


def test_the_shipped_configuration_is_valid_and_shows_every_default() -> None:
    assert ooni_db_backup.main(["--config", str(SHIPPED), "--check-config"]) == 0
    before, _, after = SHIPPED.read_text().partition("\n[tables]\n")
    lines = [line.removeprefix("#") for line in before.splitlines()]
    shown = tomllib.loads("\n".join(line for line in lines if not line.startswith(" ")))
    assert shown.keys() | {"tables"} == set(Config.__struct_fields__)
    default = Config()
    for key in shown.keys() - {"ca_file", "public_ca_file", "private_ca_file", "state_dir"}:
        value = getattr(default, key)
        value = list(value) if isinstance(value, tuple) else value
        assert shown[key] == (value.reveal() if isinstance(value, Secret) else value)
    tables = tomllib.loads(after.replace("#", ""))
    assert {name: default.policy_of(name) for name in tables} == {
        name: Config(tables={name: policy}).policy_of(name) for name, policy in tables.items()
    }


def test_names_go_before_patterns_and_the_first_pattern_counts() -> None:
    config = Config(tables={"a*": "none", "*": "private", "abc": "public"})
    policies = {name: config.policy_of(name) for name in ("abc", "ab", "x")}
    assert [policy and policy.policy for policy in policies.values()] == [
        "public",
        "none",
        "private",
    ]
    assert Config(tables={"a": "none"}).policy_of("x") is None


def test_the_large_tables_are_exported_by_month() -> None:
    policy = TablePolicy(policy="both", chunk_by="month", column="measurement_start_time")
    assert Config(tables={"fastpath": "both"}).policy_of("fastpath") == policy
    whole = TablePolicy(policy="public", chunk_by="table")
    assert Config(tables={"fastpath": whole}).policy_of("fastpath") == whole


@pytest.mark.parametrize(
    ("table", "expected"),
    [("fastpath", "public"), ("jsonl", "both"), ("a", "private"), ("b", "none"), ("c", None)],
)
def test_a_file_of_old_keeps_its_meaning(table: str, expected: str | None) -> None:
    config = Config(
        backup_tables={"fastpath": "ignore", "jsonl": "full", "a": "partition", "b": "ignore"}
    )
    policy = config.policy_of(table)
    assert (policy.policy if policy else None) == expected


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"public_bucket": "x"}, "unknown key 'public_bucket'"),
        (
            {"clickhouse_url": "clickhouse://a", "db_uri": "clickhouse://b"},
            "both clickhouse_url and db_uri are there; keep one of them",
        ),
        ({"clickhouse_url": "http://a"}, "db_uri: expected clickhouse://"),
        ({"http_url": "clickhouse://a"}, "http_url: expected https://"),
        ({"public_endpoint": "s3.example.org"}, "public_endpoint: expected https://"),
        ({"public_aws_access_key_id": "x"}, "expected with public_aws_access_key_id, or neither"),
        ({"tables": {"a": "secret"}}, "tables"),
        ({"tables": {"a": {"policy": "public", "chunk_by": "month"}}}, "needs a column"),
        ({"tables": {"a": {"policy": "public", "column": "c"}}}, "column is for chunk_by"),
        ({"tables": {"a": {"policy": "public", "colunm": "c"}}}, "colunm"),
        ({"backup_tables": {"a": "sometimes"}}, "backup_tables"),
        ({"public_prefix": "../x"}, "public_prefix"),
        ({"compression_level": 40}, "compression_level"),
        ({"read_timeout": 1e300}, "read_timeout"),
        ({"retry_wait": 1e300}, "retry_wait"),
        ({"keep_days": 1e12}, "keep_days"),
        ({"ver": 1}, "ver"),
    ],
)
def test_a_wrong_key_is_named(
    tmp_path: Path, keys: dict[str, object], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, log = checked(tmp_path, json.dumps(keys), capsys)
    assert (status, reason in log) == (78, True), log
    assert len(log.splitlines()) == 1


def test_no_secret_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = {
        "public_aws_access_key_id": "AKIAIOSFODNN7EXAMPLE",
        "public_aws_secret_access_key": "wJalrXUtnFEMI",
        "clickhouse_url": "clickhouse://user:pa55word@db/default",
        "__description": "a comment",
    }
    status, log = checked(tmp_path, json.dumps(keys), capsys)
    assert status == 0
    assert not any(secret in log for secret in ("AKIAIOSF", "wJalr", "pa55word"))


@pytest.mark.parametrize(
    ("db_uri", "http_url", "expected"),
    [
        ("clickhouse://localhost", "", ("http://localhost:8123/", "default", "", "default")),
        ("clickhouse://a:p%40@db:9001/ooni?x=1", "", ("http://db:8123/", "a", "p@", "ooni")),
        ("clickhouses://a@[::1]/x", "", ("https://[::1]:8443/", "a", "", "x")),
        ("clickhouse://a:b@db/x", "https://p/ch", ("https://p/ch", "a", "b", "x")),
        ("clickhouse://a:b@db/x", "http://c:d@p:1", ("http://p:1/", "c", "d", "x")),
    ],
)
def test_the_http_interface_is_where_the_database_is(
    db_uri: str, http_url: str, expected: Sequence[str]
) -> None:
    login = login_of(SecretUrl(db_uri), SecretUrl(http_url))
    assert (login.address, login.user, login.password, login.database) == expected


@pytest.mark.parametrize("arguments", [["dump"], ["restore"], ["list", "--as", "x"], ["run", "x"]])
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        ooni_db_backup.main(arguments)
    assert stop.value.code == 2


# --- names and SQL ---


@given(st.lists(st.text(min_size=1), min_size=2, max_size=2, unique=True))
def test_no_two_tables_share_a_name_and_none_leaves_its_folder(tables: list[str]) -> None:
    names = [escaped(table) for table in tables]
    assert names[0] != names[1]
    assert all("/" not in name and name.isascii() and name.isprintable() for name in names)


def test_objects_have_the_names_of_old() -> None:
    layout = ExportLayout("clickhouse_export")
    key = "clickhouse_export/csv/fastpath_202301.csv.zstd"
    assert layout.export("fastpath", "202301") == key
    assert layout.relative(key) == "csv/fastpath_202301.csv.zstd"


@pytest.mark.parametrize(
    ("engine", "version"),
    [
        (
            "ReplacingMergeTree(update_time) ORDER BY a SETTINGS index_granularity = 8192",
            "update_time",
        ),
        ("ReplacingMergeTree(`a b`, is_deleted) ORDER BY a", "`a b`"),
        ("ReplicatedReplacingMergeTree('/clickhouse/{shard}/(x)', '{replica}', v) ORDER BY a", "v"),
        ("ReplicatedReplacingMergeTree('/path', '{replica}') ORDER BY a", ""),
        ("ReplacingMergeTree ORDER BY a", ""),
        ("ReplacingMergeTree() ORDER BY a", ""),
        ("MergeTree ORDER BY (a, b)", ""),
        ("EmbeddedRocksDB PRIMARY KEY name", ""),
    ],
)
def test_the_version_column_is_in_the_engine(engine: str, version: str) -> None:
    assert version_column(engine) == version


@pytest.mark.parametrize(
    ("key", "column"),
    [("a, b", "a"), ("a", "a"), ("`a, b`, c", "a, b"), ("`a\\`b`", "a`b"), ("toDate(a), b", "")],
)
def test_the_first_column_of_a_key(key: str, column: str) -> None:
    assert first_column(key) == column


@pytest.mark.parametrize("name", ["default.a", "`a.b`.`c \\`d`", "a"])
@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("MergeTree", "MergeTree"),
        ("Memory", "Memory"),
        ("ReplicatedMergeTree", "MergeTree"),
        ("ReplicatedMergeTree('/path', '{replica}')", "MergeTree"),
        (
            "ReplicatedReplacingMergeTree('/ch/{shard}/it\\'s', '{replica}', x)",
            "ReplacingMergeTree(x)",
        ),
    ],
)
def test_a_table_is_created_under_another_name(name: str, engine: str, expected: str) -> None:
    columns = "\n(\n    `x` UInt8\n)\nENGINE = "
    statement = renamed(f"CREATE TABLE {name}{columns}{engine}\nORDER BY x", "`new`.`name`")
    assert statement == f"CREATE TABLE `new`.`name`{columns}{expected}\nORDER BY x"


def test_what_creates_no_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no CREATE TABLE"):
        renamed("DROP TABLE a", "b")


# --- counting rows ---


@given(
    rows=st.lists(
        st.lists(st.text('ab,"\n\r', max_size=5), min_size=2, max_size=2), min_size=1, max_size=20
    ),
    piece=st.integers(1, 30),
)
@example(rows=[['"', "\n"], ["", '""\n']], piece=1)
def test_rows_are_counted_whatever_is_in_them(rows: list[list[str]], piece: int) -> None:
    document = io.StringIO()
    csv.writer(document, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    content = document.getvalue().encode()
    exact, by_lines = RowCounter(exact=True), RowCounter(exact=False)
    for start in range(0, len(content), piece):
        exact.add(content[start : start + piece])
        by_lines.add(content[start : start + piece])
    assert (exact.rows, exact.complete) == (len(rows) - 1, True)
    has_line_breaks = any("\n" in value for row in rows for value in row)
    assert exact.line_breaks == has_line_breaks
    assert (by_lines.rows > exact.rows) == has_line_breaks


@pytest.mark.parametrize("content", [b"", b'"a"\n1', b'"a"\n"b', b'"a"\n"b\n'])
def test_a_document_that_was_cut_off_is_not_complete(content: bytes) -> None:
    counter = RowCounter(exact=True)
    counter.add(content)
    assert not counter.complete


# --- people ---


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (12_345, "12.3 kB"), (999_499, "999 kB"),
        (999_999, "1.00 MB"), (123_456_789, "123 MB"), (5e15, "5.00 PB"), (5e18, "5000 PB"),
    ],
)  # fmt: skip
def test_sizes_have_three_digits(size: float, text: str) -> None:
    assert in_units(size) == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_rows_bytes_rate_and_the_time_left() -> None:
    terminal = Terminal()
    with progress("fastpath_202301", 2_000_000, "rows", terminal) as shown:
        for rows in range(0, 2_000_001, 500_000):
            shown.show(rows, f"{rows} bytes")
    with progress("fastpath_202302", 2_000_000, "B", terminal) as shown:
        shown.show(1_000_000)
    assert "fastpath_202301:   0 % of 2.00M rows, ? rows/s, ? left" in terminal.getvalue()
    assert "fastpath_202302:   0 % of 2.00MB, ?B/s, ? left" in terminal.getvalue()
    for unseen in (io.StringIO(), None):
        with progress("x", 10, "rows", unseen) as shown:
            shown.show(1)


def test_an_empty_list_is_a_heading() -> None:
    assert exports_as_table({}, {}).split()[:2] == ["TABLE", "CHUNKS"]
    assert "interrupted" not in exports_as_table({"t": TableManifest(table="t")}, {})
