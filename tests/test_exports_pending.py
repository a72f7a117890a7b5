"""Exports of many chunks: what is pending has small objects, and the manifest is written rarely."""

import json
import os
import random
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest

from db_backup_harness import CSV, LAYOUT, BackupTool
from dev.servers.fault_proxy import Exchange, FaultProxy, after, passed, s3_error
from dev.servers.loopback import Request
from exports import manifest_file

if TYPE_CHECKING:
    import subprocess

DAYS = {"policy": "public", "chunk_by": "day", "column": "day"}
FEW = 12
MANY = int(os.environ.get("OONI_TEST_CHUNKS", "1000"))
KILLS = int(os.environ.get("OONI_TEST_KILLS", "5"))
AMPLE = 300  # seconds
REQUESTS_OF_A_RUN = 50  # whatever the number of chunks; a version of the manifest is three
PER_OBJECT = 2.2  # requests of one that fits one PUT
PER_FINAL_BYTE = 5  # bytes of manifests, and of what is pending
UNCHANGED = 10  # requests of a run that has nothing to do, for a thousand objects
OF_A_PAGE = 1000  # objects that a store lists with one request
PENDING = LAYOUT.pending_of("events")


@pytest.fixture(autouse=True)
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No minute passes while a run is at work in this process, however long it takes."""
    monkeypatch.setattr(manifest_file, "INTERVAL", 10**9)


@pytest.fixture
def tool(backup_tool: BackupTool) -> BackupTool:
    """A table of days, without rows."""
    backup_tool.database.execute(
        "CREATE TABLE events (day Date, id UInt64) ENGINE = MergeTree ORDER BY (day, id)"
    )
    backup_tool.configure(tables={"events": DAYS})
    return backup_tool


def add_days(tool: BackupTool, count: int, rows: int = 1) -> None:
    """Add rows of so many days."""
    tool.database.execute(
        f"INSERT INTO events SELECT toDate('2020-01-01') + number % {count},"
        f" sipHash64(number, (SELECT count() FROM events)) FROM numbers({count * rows})"
    )


def is_put_of(request: Request, prefix: str) -> bool:
    """Tell whether a request writes an object whose key begins so."""
    return request.method == "PUT" and f"/{prefix}" in request.target.partition("?")[0]


def is_export(request: Request) -> bool:
    return is_put_of(request, CSV)


def is_manifest(request: Request) -> bool:
    return is_put_of(request, LAYOUT.manifests)


def is_pending(request: Request) -> bool:
    return is_put_of(request, LAYOUT.pending)


def is_deletion(request: Request) -> bool:
    return request.method == "DELETE" or (request.method == "POST" and "?delete" in request.target)


def written(s3_proxy: FaultProxy, *prefixes: str) -> int:
    """Return the bytes that were written below prefixes."""
    return sum(
        int(
            request.headers.get("X-Amz-Decoded-Content-Length") or request.headers["Content-Length"]
        )
        for request in s3_proxy.requests
        if any(is_put_of(request, prefix) for prefix in prefixes)
    )


def puts(s3_proxy: FaultProxy) -> list[str]:
    """Return the names of the objects with rows that were written."""
    return [
        re.sub(r".*/csv/|\?.*", "", request.target)
        for request in s3_proxy.requests
        if is_export(request)
    ]


def pending(tool: BackupTool) -> list[str]:
    """Return the keys of what is pending."""
    return [key for key in tool.objects() if key.startswith(LAYOUT.pending)]


def killed_at(tool: BackupTool, s3_proxy: FaultProxy, number: int, *arguments: str) -> None:
    """Run a command, and kill it when the store has taken an object with rows."""
    processes: list[subprocess.Popen[str]] = []

    def kill(exchange: Exchange) -> None:
        with exchange.forwarded():
            processes[-1].kill()

    s3_proxy.fail(kill, after(number, is_export), times=1)
    processes.append(tool.start(*arguments))
    log, _ = processes[-1].communicate(timeout=AMPLE)
    assert processes[-1].returncode == -signal.SIGKILL, log
    s3_proxy.heal()


def check_few(s3_proxy: FaultProxy) -> None:
    """Check how many requests a command has made that had nothing to do."""
    made = [(request.method, request.target) for request in s3_proxy.requests]
    assert len(made) <= UNCHANGED, made


def check_costs(tool: BackupTool, s3_proxy: FaultProxy, count: int) -> None:
    """Export so many chunks; check what that costs, and what a run costs that has nothing to do."""
    add_days(tool, count)
    status, log = tool.run()
    assert status == 0, log
    assert len(tool.manifest("events").chunks) == count
    assert pending(tool) == []
    assert len(s3_proxy.requests) <= PER_OBJECT * count + REQUESTS_OF_A_RUN
    final = len(tool.get(LAYOUT.manifest("events")))
    assert written(s3_proxy, LAYOUT.manifests, LAYOUT.pending) <= PER_FINAL_BYTE * final
    s3_proxy.heal()
    status, log = tool.run()
    assert (status, "nothing to do" in log) == (0, True), log
    assert len(s3_proxy.requests) <= UNCHANGED + count // OF_A_PAGE, [
        (one.method, one.target) for one in s3_proxy.requests
    ]
    s3_proxy.heal()
    assert tool.run("verify", "--quick")[0] == 0
    assert len(s3_proxy.requests) <= UNCHANGED + count // OF_A_PAGE, [
        (one.method, one.target) for one in s3_proxy.requests
    ]


def test_the_manifest_is_written_first_and_last_within_a_minute(
    tool: BackupTool, s3_proxy: FaultProxy
) -> None:
    check_costs(tool, s3_proxy, FEW)
    s3_proxy.heal()
    add_days(tool, FEW)
    assert tool.run()[0] == 0
    assert len([one for one in s3_proxy.requests if is_manifest(one)]) == 2
    assert len([one for one in s3_proxy.requests if is_pending(one)]) == FEW
    assert tool.verifies()


@pytest.mark.long
def test_a_manifest_doubles_at_least_before_it_is_written_again(
    tool: BackupTool, s3_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_file, "INTERVAL", 0)
    check_costs(tool, s3_proxy, 4 * FEW)
    assert tool.verifies()


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_chunks_cost_what_is_said(
    tool: BackupTool, s3_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a minute passed between any two of them, so as often as can be."""
    monkeypatch.setattr(manifest_file, "INTERVAL", 0)
    check_costs(tool, s3_proxy, MANY)


def test_a_run_after_a_kill_repeats_no_finished_chunk(
    tool: BackupTool, s3_proxy: FaultProxy
) -> None:
    add_days(tool, FEW)
    killed_at(tool, s3_proxy, 7)
    kept = len(tool.manifest("events").chunks)  # none, unless all that has taken a minute
    assert kept + len(pending(tool)) == 8
    assert tool.verifies()
    status, log = tool.run("list", "events")
    assert status == 0, log
    s3_proxy.heal()
    status, log = tool.run()
    assert (status, log.count("taken over from a run that was")) == (0, 8 - kept), log
    assert len(puts(s3_proxy)) == FEW - 8
    assert pending(tool) == []
    assert len(tool.manifest("events").chunks) == FEW
    assert tool.verifies()


def test_after_two_kills_no_finished_chunk_is_repeated_either(
    tool: BackupTool, s3_proxy: FaultProxy
) -> None:
    """The second run takes over what came, and is killed before it has done the rest."""
    add_days(tool, FEW)
    killed_at(tool, s3_proxy, 4)
    killed_at(tool, s3_proxy, 3)
    s3_proxy.heal()
    assert tool.run()[0] == 0
    assert len(puts(s3_proxy)) == FEW - 5 - 4
    assert (pending(tool), tool.verifies()) == ([], True)


def test_what_was_replaced_before_a_kill_is_restored_as_it_is(
    tool: BackupTool, s3_proxy: FaultProxy
) -> None:
    add_days(tool, 2)
    assert tool.run()[0] == 0
    add_days(tool, 2)
    killed_at(tool, s3_proxy, 1)
    status, log = tool.run("restore", "events", "--as", "again")
    assert (status, "4 rows" in log) == (0, True), log
    assert tool.checksum("again") == tool.checksum("events")


def test_a_kill_between_what_is_pending_and_its_object_changes_nothing(
    tool: BackupTool, s3_proxy: FaultProxy
) -> None:
    add_days(tool, 3)
    assert tool.run()[0] == 0
    before = {name: tool.get(f"{CSV}{name}") for name in tool.exports()}
    add_days(tool, 3)
    processes: list[subprocess.Popen[str]] = []

    def kill(exchange: Exchange) -> None:
        processes[-1].kill()

    s3_proxy.fail(kill, is_export, times=1)
    processes.append(tool.start())
    processes[-1].communicate(timeout=AMPLE)
    s3_proxy.heal()
    assert len(pending(tool)) == 1
    assert {name: tool.get(f"{CSV}{name}") for name in tool.exports()} == before
    assert tool.verifies()
    assert tool.run()[0] == 0
    assert sorted(puts(s3_proxy)) == sorted(before)
    assert (pending(tool), tool.verifies()) == ([], True)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("jobs", "in_flight"), [(1, 1), (2, 8)])
def test_kills_at_any_time_repeat_nothing_but_what_was_in_flight(
    tool: BackupTool, s3_proxy: FaultProxy, jobs: int, in_flight: int
) -> None:
    """With several jobs, four chunks of each can be on their way."""
    tool.configure(jobs=jobs)
    dice = random.Random(25)
    count = 2 * FEW
    add_days(tool, count)
    sent: list[str] = []
    requests = 2 * count + REQUESTS_OF_A_RUN
    processes: list[subprocess.Popen[str]] = []

    def kill(exchange: Exchange) -> None:
        processes[-1].kill()
        passed(exchange)

    kills = 0
    for _ in range(KILLS):
        s3_proxy.fail(kill, after(dice.randrange(requests), lambda _request: True), times=1)
        processes.append(tool.start())
        log, _ = processes[-1].communicate(timeout=AMPLE)
        assert processes[-1].returncode in (0, -signal.SIGKILL), log
        kills += processes[-1].returncode != 0
        sent += puts(s3_proxy)
        s3_proxy.heal()
        assert tool.verifies()
        if processes[-1].returncode == 0:  # the next ones have something to do, too
            assert len(sent) <= count + kills * in_flight
            assert pending(tool) == []
            sent, kills = [], 0
            add_days(tool, count)
    s3_proxy.heal()
    assert tool.run()[0] == 0
    sent += puts(s3_proxy)
    assert len(sent) <= count + kills * in_flight
    assert tool.verifies()


def test_what_is_damaged_stops_its_table_alone_and_force_loses_nothing(tool: BackupTool) -> None:
    tool.database.execute("CREATE TABLE others (id UInt64) ENGINE = MergeTree ORDER BY id")
    add_days(tool, 3)
    assert tool.run(tables={"events": DAYS, "others": "public"})[0] == 0
    tool.database.execute("INSERT INTO others VALUES (1)")
    tool.database.execute(
        "ALTER TABLE events DELETE WHERE day = '2020-01-03' SETTINGS mutations_sync = 2"
    )
    add_days(tool, 2)
    key = f"{PENDING}20200101.json"
    tool.put(key, b"{")
    status, log = tool.run()
    assert (status, f"{key}: damaged" in log) == (65, True), log
    assert tool.manifest("others").chunks[""].rows == 1
    assert tool.run("verify")[0] == 65
    status, log = tool.run("export", "--force")
    assert status == 0, log
    chunks = tool.manifest("events").chunks
    assert {name: chunk.rows for name, chunk in chunks.items()} == {
        "20200101": 2,
        "20200102": 2,
        "20200103": 1,
    }
    assert chunks["20200103"].dropped
    assert (pending(tool), tool.verifies()) == ([], True)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document | {"table": "others"},
        lambda document: document["export"].update(key=f"{CSV}others.csv.zstd") or document,
        lambda document: document["export"]["chunk"].update(name="20200102") or document,
    ],
    ids=["table", "object", "chunk"],
)
def test_what_is_pending_names_no_object_but_its_own(tool: BackupTool, change: Any) -> None:
    add_days(tool, 2)
    assert tool.run()[0] == 0
    export = json.loads(tool.get(LAYOUT.manifest("events")))["chunks"]["20200101"]
    document = change({"table": "events", "export": export, "format": 1})
    tool.put(f"{PENDING}20200101.json", json.dumps(document).encode())
    status, log = tool.run()
    assert (status, "20200101.json: damaged" in log) == (65, True), log


def test_without_the_right_to_delete_runs_go_on(tool: BackupTool, s3_proxy: FaultProxy) -> None:
    add_days(tool, 3)
    s3_proxy.fail(s3_error(403, "AccessDenied"), is_deletion)
    status, log = tool.run()
    assert (status, "3 objects of pending exports stay" in log) == (0, True), log
    assert tool.verifies()
    status, log = tool.run()
    assert (status, "nothing to do" in log) == (0, True), log
    s3_proxy.heal()
    assert tool.run()[0] == 0
    assert (pending(tool), tool.verifies()) == ([], True)


def test_what_is_pending_goes_with_its_table(tool: BackupTool, s3_proxy: FaultProxy) -> None:
    add_days(tool, 3)
    killed_at(tool, s3_proxy, 1)
    assert pending(tool)
    status, log = tool.run("prune", "--older-than", "0", "--confirm", tables={"events": "none"})
    assert status == 0, log
    assert [key for key in tool.objects() if "events" in key] == []


def test_what_is_pending_of_no_table_is_pruned(tool: BackupTool) -> None:
    add_days(tool, 1)
    assert tool.run()[0] == 0
    tool.put(f"{LAYOUT.pending_of('gone')}whole.json", b"{}")
    tool.put(f"{LAYOUT.pending}readme.txt", b"of somebody else")
    assert tool.run("prune", "--confirm")[0] == 0
    assert pending(tool) == [f"{LAYOUT.pending}readme.txt"]


def test_what_2_0_has_left_pending_is_taken_over(tool: BackupTool) -> None:
    """It had the pending exports in the manifest."""
    add_days(tool, 2)
    assert tool.run()[0] == 0
    key = LAYOUT.manifest("events")
    manifest = json.loads(tool.get(key))
    manifest["pending"] = {"20200101": manifest["chunks"].pop("20200101")}
    manifest["generation"] = "interrupted"
    tool.put(key, json.dumps(manifest).encode())
    assert tool.verifies()
    status, log = tool.run()
    assert (status, log.count("taken over")) == (0, 1), log
    assert tool.manifest("events").pending == {}
    assert tool.verifies()


def test_a_dry_run_says_what_it_would_take_over(tool: BackupTool) -> None:
    add_days(tool, 2)
    assert tool.run()[0] == 0
    key = LAYOUT.manifest("events")
    manifest = json.loads(tool.get(key))
    (name, export), *_ = manifest["chunks"].items()
    del manifest["chunks"][name]
    tool.put(key, json.dumps(manifest).encode())
    coming = {"table": "events", "export": export}
    tool.put(LAYOUT.pending_export("events", name), json.dumps(coming).encode())
    with tool.unchanged():
        status, log = tool.run("export", "--dry-run")
    assert status == 0, log
    assert f"{export['key']}: would be taken over from a run that was interrupted" in log
    assert ("would export 0 chunks" in log, "unchanged: 2" in log) == (True, True), log
