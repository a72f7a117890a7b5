"""Stores that are not AWS: the life of exports and backups with each, as the manual says it."""

import contextlib
import os
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from db_backup_harness import ROOT, BackupTool
from dev.servers.fault_proxy import Exchange, Fault, FaultProxy, passed, s3_error
from dev.servers.s3 import S3Server
from ooni_common.errors import ConfigError
from store import uploads
from store.bucket import Bucket
from store.client import Store, url_of
from store.errors import meaning_of
from store_kinds import COMMANDS, KINDS, SESSION_TOKEN, Kind, has_no_token, is_batch

PART_SIZE = 20_000  # bytes, so that small exports come in parts
TABLES = {"blobs": "both", "small": "public"}
# `small` is not public any more, and of the backups one chain stays.
ARGUMENTS = {
    "export": ["export"],
    "prune": ["prune", "--confirm", "--older-than", "0", "--keep", "1"],
}


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """A store that takes small parts, too."""
    with S3Server(least_part=1) as server:
        yield server


@pytest.fixture
def tool(backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch) -> BackupTool:
    """A tool with two tables, one of which has several parts as an object."""
    monkeypatch.setattr(uploads, "PART_SIZE", PART_SIZE)
    execute = backup_tool.database.execute
    execute("CREATE TABLE blobs (n UInt32, s String) ENGINE = MergeTree ORDER BY n")
    execute("INSERT INTO blobs SELECT number, randomPrintableASCII(100) FROM numbers(1000)")
    execute("CREATE TABLE small (n UInt32) ENGINE = MergeTree ORDER BY n")
    execute("INSERT INTO small SELECT number FROM numbers(10)")
    backup_tool.keep_private(tables=TABLES)
    return backup_tool


def keep_versions(tool: BackupTool) -> None:
    for bucket in (tool.bucket_name, tool.private_bucket_name):
        tool.client.put_bucket_versioning(
            Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
        )


def notes(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if line.startswith(("note", "FAILED"))]


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_with_each_store_a_command_works_or_says_in_one_line_why_not(
    tool: BackupTool, kind: Kind
) -> None:
    if kind.versioned:
        keep_versions(tool)
    with FaultProxy(tool.s3.endpoint) as proxy:
        for fault, condition in kind.rules:
            proxy.fail(fault, condition)
        tool.configure(public_endpoint=proxy.url, private_endpoint=proxy.url, **kind.config)
        for command in ("doctor", "export", "backup", "verify"):
            _run(tool, kind, command)
        if kind.outcome("backup")[0] == 0:
            assert tool.run("backup", "--full", "--force")[0] == 0
        tool.configure(tables=TABLES | {"small": "none"})
        _run(tool, kind, "prune")
        batches = [request.status for request in proxy.requests if is_batch(request)]
    if kind.name == "Content-MD5 is demanded":
        assert 200 in batches
    _check_the_end(tool, kind)


def _run(tool: BackupTool, kind: Kind, command: str) -> None:
    """Run a command, and check that it ends as is said of the kind."""
    wanted, text = kind.outcome(command)
    status, printed = tool.run(*ARGUMENTS.get(command, [command]))
    assert status == wanted, printed
    assert "Traceback" not in printed
    assert [line for line in printed.splitlines() if text in line], printed
    if command == "doctor" and not text:
        assert notes(printed) == []


def _check_the_end(tool: BackupTool, kind: Kind) -> None:
    """Check what is in the buckets, whatever the store has said."""
    if kind.outcome("prune")[0] == 0 and kind.outcome("export")[0] == 0:
        assert tool.exports() == ["blobs.csv.zstd"]
    if kind.outcome("prune")[0] == kind.outcome("backup")[0] == 0:
        assert len(tool.backups()) == 1
        tool.configure(public_endpoint=tool.s3.endpoint, private_endpoint=tool.s3.endpoint)
        status, log = tool.run("verify")
        assert status == 0, log


def test_the_manual_has_a_table_of_what_works_with_which_store() -> None:
    manual = (ROOT / "debian" / "man" / "ooni-db-backup.h2m").read_text().splitlines()
    assert [kind.row for kind in KINDS if kind.row not in manual] == []


# --- addresses ---


def asked(tool: BackupTool, monkeypatch: pytest.MonkeyPatch, **keys: object) -> list[str]:
    """Return the addresses that a tool asks for through a proxy, and run it there."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    hosts: list[str] = []
    with FaultProxy(tool.s3.endpoint) as proxy:
        proxy.fail(to_this_store(tool, hosts), lambda _request: True)
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        status, log = tool.run("export", tables={"small": "public"}, **keys)
        assert (status, tool.exports()) == (0, ["small.csv.zstd"]), log
    return hosts


def to_this_store(tool: BackupTool, hosts: list[str]) -> Fault:
    """Pass a request, wherever it is meant to go, to the store of the tests; note the host."""

    def fault(exchange: Exchange) -> None:
        hosts.append(exchange.request.headers["Host"])
        del exchange.request.headers["Host"]
        parts = urlsplit(exchange.request.target)
        bucket = f"/{tool.bucket_name}"
        path = parts.path if parts.path.startswith(bucket) else bucket + parts.path
        exchange.request.target = f"{path}?{parts.query}"
        passed(exchange)

    return fault


@pytest.mark.parametrize(
    ("addressing", "host"),
    [("", "s3.example"), ("path", "s3.example"), ("virtual", "{}.s3.example")],
)
def test_a_bucket_is_in_the_path_or_in_the_name_of_the_host_behind_a_proxy(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch, addressing: str, host: str
) -> None:
    endpoint = {"public_endpoint": "http://s3.example", "public_addressing": addressing}
    hosts = asked(tool, monkeypatch, **endpoint)
    assert set(hosts) == {host.format(tool.bucket_name)}


@pytest.mark.long
def test_a_bucket_can_be_at_an_address_of_ipv6(tool: BackupTool) -> None:
    with contextlib.ExitStack() as stack:
        try:
            proxy = stack.enter_context(FaultProxy(tool.s3.endpoint, host="::1"))
        except OSError as error:
            pytest.skip(f"this machine has no IPv6: {error}")
        tool.configure(public_endpoint=proxy.url, private_endpoint=proxy.url)
        for command in COMMANDS[:-1]:
            status, log = tool.run(command)
            assert status == 0, log
        assert proxy.url.startswith("http://[::1]:")


@pytest.mark.parametrize("name", ["dots.in.the.name", "plain"])
def test_a_bucket_is_found_whatever_is_in_its_name(tool: BackupTool, name: str) -> None:
    bucket = f"{name}.{tool.bucket_name}"
    tool.s3.create_bucket(bucket)
    tool.bucket_name = bucket
    status, log = tool.run("export", public_bucket_name=bucket)
    assert (status, len(tool.exports())) == (0, 2), log


@pytest.mark.parametrize(
    ("store", "url"),
    [
        (Store("b", region="cn-north-1"), "https://s3.cn-north-1.amazonaws.com.cn"),
        (Store("b", region="eu-central-1"), "https://s3.eu-central-1.amazonaws.com"),
    ],
)
def test_each_part_of_aws_has_its_own_domain(store: Store, url: str) -> None:
    assert Bucket(store, "test").client.meta.endpoint_url == url
    assert url.partition("s3")[2] in url_of(store)


# --- credentials and clocks ---


def test_a_session_token_is_sent_and_shown_nowhere(tool: BackupTool) -> None:
    with FaultProxy(tool.s3.endpoint) as proxy:
        proxy.fail(s3_error(400, "ExpiredToken"), has_no_token)
        tool.configure(public_endpoint=proxy.url, public_aws_session_token=SESSION_TOKEN)
        status, log = tool.run("export", "--verbose")
    assert (status, len(tool.exports()), SESSION_TOKEN in log) == (0, 2, False), log


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (
            {"private_aws_session_token": "x" * 9},
            "private_aws_session_token: expected with private_named_collection",
        ),
        (
            {"public_aws_session_token": "x" * 9, "public_aws_access_key_id": ""},
            "public_aws_secret_access_key: expected with public_aws_access_key_id",
        ),
    ],
)
def test_a_session_token_alone_is_refused(
    tool: BackupTool, keys: dict[str, str], reason: str
) -> None:
    status, log = tool.run("list", **keys)
    assert (status, reason in log, "x" * 9 in log) == (78, True, False), log


@pytest.mark.parametrize(
    ("code", "ahead", "text"),
    [
        ("RequestTimeTooSkewed", 1200, "this machine is 1,200 s ahead of the store's clock"),
        ("403", -7200, "this machine is 7,200 s behind the store's clock"),
        ("403", 60, "grant it to these credentials"),
        ("SignatureDoesNotMatch", 0, "check the key ID and the secret key"),
    ],
)
def test_a_clock_is_blamed_where_it_is_wrong(code: str, ahead: int, text: str) -> None:
    response = {
        "Error": {"Code": code},
        "ResponseMetadata": {"HTTPHeaders": {"date": "Thu, 01 Jan 2026 00:00:00 GMT"}},
    }
    error = meaning_of(response, "s3://b: reading", 1_767_225_600 + ahead)
    assert (isinstance(error, ConfigError), text in str(error)) == (True, True)
