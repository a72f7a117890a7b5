"""What `ooni-db-backup doctor` finds."""

from collections.abc import Iterator

import pytest

from db_backup_harness import CSV, BackupTool
from dev.servers.fault_proxy import (
    Condition,
    FaultProxy,
    answers,
    passed,
    s3_error,
    without,
)
from dev.servers.loopback import Request
from ooni_common.database_checks import MOST_SKEW, check_clock
from ooni_common.errors import ConfigError


@pytest.fixture
def healthy(backup_tool: BackupTool) -> BackupTool:
    """A tool that can do its work."""
    backup_tool.fill("fastpath", 10)
    backup_tool.configure(tables={"fastpath": "public", "*_tmp": "none"})
    return backup_tool


@pytest.fixture
def s3_proxy(healthy: BackupTool) -> Iterator[FaultProxy]:
    """The tool's way to the store, which can go wrong."""
    with FaultProxy(healthy.s3.endpoint) as proxy:
        healthy.configure(public_endpoint=proxy.url)
        yield proxy


def failed(printed: str) -> list[str]:
    """Return the names of the things that are not well."""
    lines = [line for line in printed.splitlines() if line.startswith("FAILED")]
    return [line[8:23].rstrip() for line in lines]


def is_(method: str, of: str = "") -> Condition:
    def condition(request: Request) -> bool:
        return request.method == method and of in request.target

    return condition


def test_all_is_well_and_nothing_is_left_behind(healthy: BackupTool) -> None:
    status, printed = healthy.run("doctor")
    assert (status, failed(printed)) == (0, [])
    lines = printed.splitlines()
    assert [line[:6].strip() for line in lines] == ["ok"] * 14
    assert all(len(line) <= 80 for line in lines if "directory" not in line)
    assert "tables           1 public" in printed
    assert healthy.objects() == {}
    assert healthy.uploads() == []


def test_tables_that_nobody_has_listed_are_named(healthy: BackupTool) -> None:
    healthy.database.execute("CREATE TABLE forgotten (a UInt8) ENGINE = Memory")
    status, printed = healthy.run("doctor")
    assert (status, failed(printed)) == (65, ["tables"])
    assert "not listed: 'forgotten'; say public, private, both or none of each" in printed


def test_a_listed_table_that_is_not_there_is_pointed_out(healthy: BackupTool) -> None:
    tables = {"fastpath": "public", "fastpaht": "public"}
    for arguments in (["doctor"], ["run"]):
        status, printed = healthy.run(*arguments, tables=tables)
        assert (status, "listed, but not there: 'fastpaht'" in printed) == (65, True), printed


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        (
            {"fastpath": {"policy": "public", "chunk_by": "month", "column": "when"}},
            "there is no column 'when'",
        ),
        (
            {"fastpath": {"policy": "public", "chunk_by": "day", "column": "input"}},
            "'input' is of type String, not a date or time",
        ),
        (
            {"fastpath": {"policy": "public", "chunk_by": "range", "key": ["page_len_ratio"]}},
            "chunk_by = 'range' is not for a key of type Float32",
        ),
        ({"fastpath": {"policy": "public", "key": ["nope"]}}, "there is no column 'nope'"),
        ({"fastpath": {"policy": "public", "version": ")"}}, "there is no column ')'"),
    ],
)
def test_a_policy_that_does_not_fit_is_explained(
    healthy: BackupTool, tables: dict[str, object], reason: str
) -> None:
    status, printed = healthy.run("doctor", tables=tables)
    assert (status, failed(printed), reason in printed) == (78, ["tables"], True)
    if "there is no column" in reason:
        status, log = healthy.run("run")
        assert (status, reason in log) == (78, True)


def test_a_database_that_is_down_does_not_hide_the_bucket(healthy: BackupTool) -> None:
    status, printed = healthy.run("doctor", clickhouse_url="clickhouse://127.0.0.1:9/default")
    assert status == 69
    assert failed(printed) == ["database", "tables"]


def test_http_can_be_missing(healthy: BackupTool) -> None:
    status, printed = healthy.run("doctor", http_url="http://127.0.0.1:9/")
    assert (status, failed(printed)) == (69, ["database, HTTP"])


def test_something_else_can_answer_over_http(healthy: BackupTool) -> None:
    with FaultProxy(healthy.config["http_url"]) as other:
        other.fail(answers(200, b"<html>"), lambda _request: True)
        status, printed = healthy.run("doctor", http_url=other.url)
    assert (status, failed(printed)) == (78, ["database, HTTP"])
    assert f"{other.url}/ is not ClickHouse; check http_url" in printed


def test_a_store_can_say_no_time(healthy: BackupTool, s3_proxy: FaultProxy) -> None:
    s3_proxy.fail(without("Date", passed), is_("GET", "list-type"))
    status, printed = healthy.run("doctor")
    assert (status, failed(printed)) == (69, ["bucket, clock"])


def test_a_named_collection_that_is_not_there(healthy: BackupTool) -> None:
    healthy.keep_private(private_named_collection="not_there")
    status, printed = healthy.run("doctor")
    assert (status, failed(printed)) == (78, ["backups, server"])
    assert printed.endswith("error: 1 check failed; a run would not succeed\n")
    status, log = healthy.run("backup", tables={"fastpath": "private"})
    assert (status, "There is no named collection `not_there`" in log) == (78, True), log


def test_of_several_failures_the_worst_gives_the_status(healthy: BackupTool) -> None:
    healthy.keep_private(private_named_collection="not_there")
    healthy.database.execute("CREATE TABLE forgotten (a UInt8) ENGINE = Memory")
    status, printed = healthy.run("doctor")
    assert (status, failed(printed)) == (78, ["tables", "backups, server"])
    assert "error: 2 checks failed" in printed


def test_a_statement_that_fails_on_the_server(healthy: BackupTool) -> None:
    with FaultProxy(healthy.config["http_url"]) as proxy:
        proxy.fail(answers(500, b"Code: 241. DB::Exception: no memory"), lambda _request: True)
        status, printed = healthy.run("doctor", http_url=proxy.url)
    assert (status, failed(printed)) == (69, ["database, HTTP"])


@pytest.mark.parametrize("name", ["not a bucket", "UPPER/case", "x" * 300])
def test_a_bucket_of_an_impossible_name(healthy: BackupTool, name: str) -> None:
    status, log = healthy.run("list", public_bucket_name=name)
    assert (status, "public_bucket_name: " in log, len(log.splitlines())) == (78, True, 1), log


@pytest.mark.parametrize("side", ["public", "private"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        ("", "Is a directory"),
        ("text", "holds no certificate in PEM format"),
    ],
)
def test_a_ca_file_that_cannot_be_used_is_named_with_its_key(
    healthy: BackupTool, side: str, content: str | None, reason: str
) -> None:
    ca_file = healthy.folder / "ca.pem"
    if content:
        ca_file.write_text(content)
    elif content is not None:
        ca_file.mkdir()
    healthy.keep_private(**{f"{side}_ca_file": str(ca_file)})
    for command in ("list", "doctor"):
        status, log = healthy.run(command)
        assert (status, f"error: {side}_ca_file {ca_file}: {reason}\n" in log) == (78, True), log


def test_a_bucket_that_is_not_there(healthy: BackupTool) -> None:
    status, printed = healthy.run("doctor", public_bucket_name="no-such-bucket")
    assert status == 78
    names = ("list", "write", "uploads", "delete", "hosts", "clock")
    assert failed(printed) == [f"bucket, {name}" for name in names]
    assert "NoSuchBucket" in printed


@pytest.mark.parametrize(
    ("condition", "expected", "note"),
    [
        (is_("PUT", "/doctor"), ["bucket, write", "bucket, uploads"], ""),
        (is_("GET", "list-type"), ["bucket, list", "bucket, clock"], ""),
        (is_("HEAD", "/doctor"), ["bucket, write", "bucket, uploads", "bucket, delete"], ""),
        (is_("POST", "?uploads"), ["bucket, uploads"], ""),
        (is_("PUT", "partNumber"), ["bucket, uploads"], ""),
        (is_("GET", "uploads"), [], "uploads  "),
        (is_("DELETE", "uploadId"), [], "uploads  "),
        (
            lambda request: request.method == "DELETE" and request.target.endswith("/doctor"),
            [],
            "delete  ",
        ),
    ],
    ids=["put", "list", "head", "multipart", "part", "list uploads", "abort", "delete"],
)
def test_each_right_is_tried(
    healthy: BackupTool,
    s3_proxy: FaultProxy,
    condition: Condition,
    expected: list[str],
    note: str,
) -> None:
    s3_proxy.fail(s3_error(403, "AccessDenied"), condition)
    status, printed = healthy.run("doctor")
    assert (status, failed(printed)) == (78 if expected else 0, expected), printed
    assert "AccessDenied" in printed or ": 403: Forbidden" in printed
    notes = [line for line in printed.splitlines() if line.startswith("note")]
    assert [f"bucket, {note}" in line and "grant it" in line for line in notes] == [True] * bool(
        note
    ), printed


def test_uploads_that_were_interrupted_are_mentioned(healthy: BackupTool) -> None:
    healthy.client.create_multipart_upload(Bucket=healthy.bucket_name, Key=f"{CSV}x")
    assert "1 of interrupted runs are left" in healthy.run("doctor")[1]


@pytest.mark.parametrize(("theirs", "text"), [(1000.0, "0 s"), (1059.0, "59 s"), (941.0, "59 s")])
def test_clocks_may_differ_a_little(theirs: float, text: str) -> None:
    assert check_clock(theirs, 1000.0, "the store's clock", MOST_SKEW).startswith(text)


@pytest.mark.parametrize(("theirs", "direction"), [(900.0, "ahead of"), (1100.0, "behind")])
def test_clocks_may_not_differ_much(theirs: float, direction: str) -> None:
    with pytest.raises(ConfigError, match=f"100 s {direction} the store's clock; check its NTP"):
        check_clock(theirs, 1000.0, "the store's clock", MOST_SKEW)
