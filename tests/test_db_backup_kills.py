"""Exports, backups and prune, killed at any time: `verify` is right about everything afterwards."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from db_backup_harness import BACKUPS, CSV, BackupTool
from dev.servers.fault_proxy import Exchange, FaultProxy, after, passed

if TYPE_CHECKING:
    import subprocess

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_backups"), pytest.mark.timeout(7200)]

KILLS = int(os.environ.get("OONI_TEST_KILLS", "5"))
FIRST_SEED = int(os.environ.get("OONI_TEST_FIRST_SEED", "0"))
AMPLE = 300  # seconds
TABLES = {"fastpath": "both", "accounts": "private"}
COMMANDS = (
    ["run"],
    ["run"],
    ["run", "--force"],
    ["backup", "--full"],
    ["prune", "--keep", "1", "--older-than", "0", "--confirm"],
)


@pytest.fixture
def store(backup_tool: BackupTool) -> Iterator[FaultProxy]:
    """The way of tool and database to the store, which sees each request."""
    with FaultProxy(backup_tool.s3.endpoint) as proxy:
        yield proxy


@pytest.fixture
def tool(backup_tool: BackupTool, store: FaultProxy) -> BackupTool:
    """The tool, with exports and a backup of some rows."""
    backup_tool.fill("fastpath", 500, days=90)
    backup_tool.database.execute(
        "CREATE TABLE accounts (id UInt64, name Nullable(String)) ENGINE = MergeTree ORDER BY id"
    )
    backup_tool.config["public_endpoint"] = store.url
    backup_tool.keep_private(private_endpoint=store.url, tables=TABLES)
    status, log = backup_tool.run()
    assert status == 0, log
    return backup_tool


def delete(tool: BackupTool, key: str) -> str:
    tool.client.delete_object(Bucket=tool.bucket_name, Key=key)
    return f"{key}: missing"


def flip(tool: BackupTool, key: str) -> str:
    content = bytearray(tool.get(key))
    content[len(content) // 2] ^= 1
    metadata = tool.client.head_object(Bucket=tool.bucket_name, Key=key)["Metadata"]
    tool.put(key, bytes(content), Metadata=metadata)
    return f"{key}: SHA-256"


def delete_of_backup(tool: BackupTool, _key: str) -> str:
    name = tool.backups()[-1].name
    key = f"{BACKUPS.data(name)}definitions/.backup"
    tool.client.delete_object(Bucket=tool.private_bucket_name, Key=key)
    return f"the backup {name} is damaged"


DAMAGES: tuple[Callable[[BackupTool, str], str], ...] = (delete, flip, delete_of_backup)


def change_rows(tool: BackupTool, dice: random.Random) -> None:
    tool.fill("fastpath", dice.randrange(1, 200), days=90)
    tool.database.execute(
        f"INSERT INTO accounts SELECT rand64(), NULL FROM numbers({dice.randrange(1, 50)})"
    )


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + KILLS))
def test_after_a_kill_verify_is_green_for_what_is_whole_and_red_for_what_is_not(
    tool: BackupTool, store: FaultProxy, seed: int
) -> None:
    dice = random.Random(seed)
    requests = len(store.requests)
    processes: list[subprocess.Popen[str]] = []

    def kill(exchange: Exchange) -> None:
        processes[-1].kill()
        passed(exchange)

    for _ in range(2):
        change_rows(tool, dice)
        store.fail(kill, after(dice.randrange(requests), lambda _request: True), times=1)
        processes.append(tool.start(*dice.choice(COMMANDS)))
        log, _ = processes[-1].communicate(timeout=AMPLE)
        assert processes[-1].returncode in (0, -signal.SIGKILL), log
        store.heal()
        status, log = verify_all(tool)
        assert status == 0, log
    key = dice.choice([f"{CSV}{name}" for name in tool.exports()])
    expected = dice.choice(DAMAGES)(tool, key)
    status, log = verify_all(tool)
    assert (status, expected in log) == (65, True), log
    status, log = tool.run("run", "--force")
    assert status == 0, log
    assert tool.run("prune", "--keep", "1", "--confirm")[0] == 0
    status, log = verify_all(tool)
    assert status == 0, log


def verify_all(tool: BackupTool) -> tuple[int, str]:
    """Verify the exports and every backup; return the worst status and all that was said."""
    exports, backups = tool.run("verify", "--from", "exports"), tool.run("verify", "--from", "all")
    return max(exports[0], backups[0]), exports[1] + backups[1]
