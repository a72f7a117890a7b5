"""Signed backups: a manifest that somebody else has written, or an old one, is not restored."""

import time
from pathlib import Path
from typing import Any

import clickhouse_driver
import pytest

from backups.manifest import SERVER_MANIFEST
from backups.server import ServerBackups
from backups.signature import signature_of
from db_backup_harness import BACKUPS, BackupTool
from dev.embedded_clickhouse import EmbeddedClickHouse

KEY = "k" * 32


@pytest.fixture
def signing_tool(backup_tool: BackupTool) -> BackupTool:
    """A tool with a key, and a table with a row."""
    backup_tool.database.execute("CREATE TABLE a (x UInt64) ENGINE = MergeTree ORDER BY x")
    backup_tool.database.execute("INSERT INTO a VALUES (1)")
    backup_tool.keep_private(tables={"a": "private", "*": "none"}, manifest_key=KEY)
    return backup_tool


def back_up(tool: BackupTool) -> str:
    """Make a backup of another row; return its name."""
    tool.database.execute("INSERT INTO a VALUES (2)")
    status, printed = tool.run("backup")
    assert status == 0, printed
    return tool.backups()[-1].name


def put(tool: BackupTool, key: str, content: bytes) -> None:
    tool.client.put_object(Bucket=tool.private_bucket_name, Key=key, Body=content)


def copy(tool: BackupTool, source: str, target: str) -> None:
    put(tool, target, tool.get_private(source))


def delete(tool: BackupTool, key: str) -> None:
    tool.client.delete_object(Bucket=tool.private_bucket_name, Key=key)


def test_what_is_signed_is_known_by_its_key(signing_tool: BackupTool) -> None:
    first = back_up(signing_tool)
    manifest = signing_tool.get_private(BACKUPS.manifest(first))
    signature = signing_tool.get_private(BACKUPS.signature(first))
    assert signature == signature_of(KEY.encode(), manifest)
    assert KEY not in manifest.decode()
    assert signing_tool.run("doctor")[1].count("1 backups, 1 good, 1 signed") == 1
    assert signing_tool.run("verify")[0] == 0


@pytest.mark.long
def test_a_changed_byte_makes_a_backup_a_damaged_one(signing_tool: BackupTool) -> None:
    first, name = back_up(signing_tool), back_up(signing_tool)
    key = BACKUPS.manifest(name)
    put(signing_tool, key, signing_tool.get_private(key).replace(b"ORDER BY x", b"ORDER BY  x"))
    for command in (["verify"], ["restore", "a", "--from", name]):
        status, printed = signing_tool.run(*command)
        assert status == 65, printed
        assert "the signature of its manifest is wrong" in printed
    assert signing_tool.run("backup")[0] == 0
    assert signing_tool.backups()[-1].base == first  # and not the one that is damaged


@pytest.mark.long
def test_the_manifest_of_another_backup_is_refused(signing_tool: BackupTool) -> None:
    first, second = back_up(signing_tool), back_up(signing_tool)
    copy(signing_tool, BACKUPS.manifest(first), BACKUPS.manifest(second))
    copy(signing_tool, BACKUPS.signature(first), BACKUPS.signature(second))
    status, printed = signing_tool.run("restore", "a", "--from", second)
    assert status == 65
    assert f"its manifest is that of {first}" in printed


@pytest.mark.long
def test_an_old_backup_is_not_taken_for_the_last_one(signing_tool: BackupTool) -> None:
    first, second = back_up(signing_tool), back_up(signing_tool)
    delete(signing_tool, BACKUPS.manifest(second))
    for command in (["restore", "a"], ["restore", "--all"]):
        status, printed = signing_tool.run(*command)
        assert status == 65
        assert "number 1" in printed
        assert "number 2" in printed
        assert "--from" in printed
    status, printed = signing_tool.run("restore", "a", "--from", first)
    assert status == 0, printed
    back_up(signing_tool)
    assert [manifest.run for manifest in signing_tool.backups()] == [1, 3]


def test_without_its_signature_a_backup_is_not_trusted(signing_tool: BackupTool) -> None:
    name = back_up(signing_tool)
    delete(signing_tool, BACKUPS.signature(name))
    assert "1 good, 0 signed" in signing_tool.run("doctor")[1]
    for command in (["restore", "a"], ["verify"]):
        status, printed = signing_tool.run(*command)
        assert status == 65, printed
        assert f"{name}, is not signed" in printed
    status, printed = signing_tool.run("restore", "a", "--from", name)
    assert status == 0, printed
    assert f"{name} is not signed: whoever can write" in printed


@pytest.mark.long
def test_a_higher_number_without_a_signature_is_no_newer_backup(signing_tool: BackupTool) -> None:
    first, name = back_up(signing_tool), back_up(signing_tool)
    delete(signing_tool, BACKUPS.signature(name))
    key = BACKUPS.manifest(name)
    content = signing_tool.get_private(key)
    assert content.count(b'"run": 2') == 1
    put(signing_tool, key, content.replace(b'"run": 2', b'"run": 99'))
    for command in (["restore", "a"], ["restore", "--all"], ["verify"]):
        status, printed = signing_tool.run(*command)
        assert status == 65, printed
        assert f"{name}, is not signed" in printed
    back_up(signing_tool)
    assert signing_tool.backups()[-1].base == first


@pytest.mark.long
@pytest.mark.parametrize("command", [["restore", "a", "--replace"], ["verify"]])
def test_what_is_changed_while_the_server_reads_it_does_not_go_live(
    signing_tool: BackupTool, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    back_up(signing_tool)
    parts = signing_tool.backups()[-1].parts
    (part,) = (part for kind, part in parts.items() if kind != "definitions")
    key = f"{part.path}{SERVER_MANIFEST}"
    content = signing_tool.get_private(key)
    changed = content.replace(b"</config>", b"\n</config>")
    assert changed != content
    rows = signing_tool.database.execute("SELECT x FROM a ORDER BY x")
    restore = ServerBackups.restore

    def restore_another(*arguments: Any, **options: Any) -> None:
        put(signing_tool, key, changed)
        restore(*arguments, **options)
        time.sleep(1)  # times of objects are seconds
        put(signing_tool, key, content)

    monkeypatch.setattr(ServerBackups, "restore", restore_another)
    status, printed = signing_tool.run(*command)
    assert (status, f"{key} was written while the server" in printed) == (65, True), printed
    assert signing_tool.database.execute("SHOW TABLES") == [("a",)]
    assert signing_tool.database.execute("SELECT x FROM a ORDER BY x") == rows
    monkeypatch.undo()
    assert signing_tool.run(*command)[0] == 0


def test_a_short_key_is_refused(signing_tool: BackupTool) -> None:
    status, printed = signing_tool.run("--check-config", manifest_key="secret")
    assert status == 78
    assert "manifest_key: expected at least 32 characters" in printed
    assert "secret" not in printed.replace("openssl", "")


@pytest.mark.long
def test_another_user_restores_and_verifies(signing_tool: BackupTool, tmp_path: Path) -> None:
    back_up(signing_tool)
    with EmbeddedClickHouse(tmp_path / "db", users=["restoring:y?@/z"]) as server:
        name = signing_tool.database.name
        signing_tool.configure(
            clickhouse_url=server.uri("saving", "x", name),
            restore_user="restoring",
            restore_password="y?@/z",
        )
        for command in (["verify", "--from", "all"], ["restore", "--all"]):
            status, printed = signing_tool.run(*command)
            assert status == 0, printed
            assert "y?@/z" not in printed
        with clickhouse_driver.Client.from_url(server.uri("restoring", "y?@/z", name)) as client:
            assert client.execute("SELECT count() FROM a") == [(2,)]
        assert signing_tool.run("backup")[0] == 78  # as the user of db_uri, who is not there
