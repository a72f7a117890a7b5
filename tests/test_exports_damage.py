"""What is damaged, lost or hostile in the bucket of the exports: a finding of its own table."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from db_backup_harness import CSV, LAYOUT, ROOT, BackupTool
from documents import LARGEST_MANIFEST
from exports.clickhouse_http import ClickHouseHTTP

TABLES = {"one": "public", "two": "public"}
MANIFEST = LAYOUT.manifest("one")
OBJECT = f"{CSV}one.csv.zstd"
MOST_MEMORY = 300_000  # kB
# Of this process alone: what wait4 says has that of its parent in it.
PRINT_PEAK = """
import atexit, re, runpy, sys
def show():
    print("peak:", re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
atexit.register(show)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
BOMB = 4 * 1024**3  # bytes


@pytest.fixture
def tool(backup_tool: BackupTool) -> BackupTool:
    """The tool, and two tables that are exported."""
    for table in TABLES:
        backup_tool.database.execute(
            f"CREATE TABLE {table} (id UInt32, text String) ENGINE = MergeTree ORDER BY id"
        )
        backup_tool.database.execute(f"INSERT INTO {table} SELECT number, 'text' FROM numbers(100)")
    status, log = backup_tool.run(tables=TABLES)
    assert status == 0, log
    return backup_tool


def changed(tool: BackupTool, change: Callable[[dict[str, Any]], object]) -> bytes:
    manifest = json.loads(tool.get(MANIFEST))
    change(manifest)
    return json.dumps(manifest).encode()


def export_with(**fields: object) -> Callable[[BackupTool], bytes]:
    def content(tool: BackupTool) -> bytes:
        return changed(tool, lambda manifest: manifest["chunks"][""].update(fields))

    return content


def chunk_called(name: str) -> Callable[[BackupTool], bytes]:
    """Let the manifest have a chunk of this name, as its own key says."""

    def change(manifest: dict[str, Any]) -> None:
        export = manifest["chunks"].pop("")
        export |= {"key": LAYOUT.export("one", name), "chunk": export["chunk"] | {"name": name}}
        manifest["chunks"][name] = export

    return lambda tool: changed(tool, change)


def huge_numbers(manifest: dict[str, Any]) -> None:
    """Let each of two chunks have as many rows as a number can say."""
    for name in ("202501", "202502"):
        export = manifest["chunks"][""]
        manifest["chunks"][name] = export | {
            "key": LAYOUT.export("one", name),
            "chunk": export["chunk"] | {"name": name},
            "rows": 2**63 - 1,
        }


def renamed_chunk(manifest: dict[str, Any]) -> None:
    manifest["chunks"]["../two"] = manifest["chunks"].pop("")


DAMAGES: dict[str, Callable[[BackupTool], bytes]] = {
    "nothing": lambda _: b"",
    "half of it": lambda tool: tool.get(MANIFEST)[:200],
    "zeros": lambda _: bytes(1000),
    "no UTF-8": lambda tool: tool.get(MANIFEST).replace(b"text", b"\xff\xfe\xfa\xfb"),
    "a list": lambda _: b"[]",
    "deep arrays": lambda _: b"[" * 200_000,
    "deep objects": lambda _: b'{"more":' * 200_000,
    "deep where nobody looks": lambda _: b'{"table": "one", "more": ' + b"[" * 200_000,
    "too large": lambda _: b'{"table": "one", "schema": "' + b"x" * LARGEST_MANIFEST + b'"}',
    "another table's": lambda tool: tool.get(LAYOUT.manifest("two")),
    "no table's": lambda tool: changed(tool, lambda manifest: manifest.pop("table")),
    "a large number": export_with(rows=10**30),
    "a negative number": export_with(compressed_bytes=-1),
    "a fraction": export_with(bytes=1.5),
    "no checksum": export_with(sha256="../etc/passwd"),
    "somebody else's object": export_with(key="raw/somebody-elses.gz"),
    "an object beside": export_with(key=f"{CSV}two.csv.zstd"),
    "another chunk": lambda tool: changed(tool, renamed_chunk),
    "a chunk of another table": chunk_called("two"),
    "a chunk of no known kind": chunk_called("5"),
    "numbers that can't be added": lambda tool: changed(tool, huge_numbers),
    "a huge fingerprint": export_with(
        fingerprint={"rows": 1, "version": "", "hash": "", "keys": 10**400}
    ),
    "a control character": export_with(key="\x1b[2Jgone\n<3>error: all is lost"),
}


@pytest.mark.long
def test_a_damaged_manifest_is_a_finding_of_its_own_table(tool: BackupTool) -> None:
    sound = tool.get(MANIFEST)
    for number, (name, damage) in enumerate(DAMAGES.items()):
        tool.put(MANIFEST, sound)
        tool.put(MANIFEST, damage(tool))
        tool.database.execute(f"INSERT INTO two VALUES ({1000 + number}, 'more')")
        status, log = tool.run("run")
        assert (status, "export --force one" in log) == (65, True), (name, log)
        assert f"two.csv.zstd: changed: {101 + number} rows" in log, name
        assert "\x1b" not in log, name
        assert not any(line.startswith(("<3>", "Traceback")) for line in log.splitlines()), name
        status, log = tool.run("verify", "--quick")
        assert (status, MANIFEST in log, "Traceback" in log) == (65, True, False), (name, log)


@pytest.mark.long
@pytest.mark.parametrize("name", ["deep arrays", "somebody else's object", "a control character"])
def test_a_damaged_manifest_loses_nothing_and_is_mended_by_force(
    tool: BackupTool, name: str
) -> None:
    tool.put(MANIFEST, DAMAGES[name](tool))
    tool.put("raw/somebody-elses.gz", b"precious")
    for arguments in (("list",), ("list", "--json"), ("list", "one")):
        status, printed = tool.run(*arguments)
        assert (status, "damaged" in printed, "\x1b" in printed) == (0, True, False), printed
    assert tool.run("verify", "two")[0] == 0
    before = tool.objects()
    assert tool.run("prune", "--confirm")[0] == 65
    assert tool.objects() == before
    assert tool.run("restore", "one")[0] == 65
    status, log = tool.run("export", "--force", "one")
    assert status == 0, log
    assert tool.run("run")[0] == 0
    tool.client.delete_object(Bucket=tool.bucket_name, Key="raw/somebody-elses.gz")
    assert tool.verifies()


@pytest.mark.long
def test_a_damaged_manifest_of_all_is_written_anew(tool: BackupTool) -> None:
    for content in (b"[" * 200_000, b"{", b"null", b'{"tables": {"one": {"rows": -1}}}'):
        tool.put(LAYOUT.run, content)
        status, log = tool.run("verify")
        assert (status, f"{LAYOUT.run}: damaged" in log) == (65, True), log
        status, log = tool.run("run")
        assert (status, "writing it again" in log) == (0, True), log
        assert tool.verifies()


@pytest.mark.long
@pytest.mark.parametrize("policy", ["public", "gone"])
def test_a_lost_manifest_is_found_and_what_it_named_stays(tool: BackupTool, policy: str) -> None:
    if policy == "gone":
        tool.database.execute("DROP TABLE one SYNC")
    tool.configure(tables=TABLES | {"one": policy})
    tool.client.delete_object(Bucket=tool.bucket_name, Key=MANIFEST)
    tool.database.execute("INSERT INTO two VALUES (1000, 'more')")
    for _ in range(2):
        status, log = tool.run("run")
        assert (status, f"{MANIFEST}: it is lost" in log) == (65, True), log
    assert tool.run("verify")[0] == 65
    assert tool.run("prune", "--older-than", "0", "--confirm")[0] == 65
    assert OBJECT in tool.objects()
    if policy == "public":
        assert tool.run("export", "--force", "one")[0] == 0
        assert tool.verifies()


def test_one_bucket_needs_two_places(tool: BackupTool) -> None:
    same = {"private_bucket_name": tool.bucket_name, "private_endpoint": tool.s3.endpoint}
    for prefix in ("clickhouse_export", "clickhouse_export/csv", "clickhouse_export/x/y"):
        status, log = tool.run("run", private_prefix=prefix, **same)
        assert (status, "neither of public_prefix and private_prefix" in log) == (78, True), log


def test_rows_that_are_merged_while_they_are_read_stop_nothing(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come before the rows are read, and are gone when they are counted again."""
    execute = tool.database.execute
    execute("CREATE TABLE merging (id UInt32, v UInt32) ENGINE = ReplacingMergeTree(v) ORDER BY id")
    execute("SYSTEM STOP MERGES merging")
    add = "INSERT INTO merging SELECT number, 1 FROM numbers({})"
    execute(add.format(100))
    rows_of = ClickHouseHTTP.rows

    @contextlib.contextmanager
    def late(source: ClickHouseHTTP, select: str, *arguments: Any, **options: Any) -> Any:
        if "merging" in select:
            execute(add.format(50))
        with rows_of(source, select, *arguments, **options) as stream:
            yield stream
        if "merging" in select:
            execute("SYSTEM START MERGES merging")
            execute("OPTIMIZE TABLE merging FINAL")

    monkeypatch.setattr(ClickHouseHTTP, "rows", late)
    status, log = tool.run("run", tables=TABLES | {"merging": "public"})
    assert status == 0, log


def zeros(size: int) -> bytes:
    """Return so many zeros, compressed."""
    compressor = zstandard.ZstdCompressor(level=3).compressobj(size=size)
    piece = bytes(2**24)
    return b"".join([compressor.compress(piece) for _ in range(size // len(piece))]) + (
        compressor.flush()
    )


@pytest.mark.long
def test_an_object_that_would_fill_the_memory_is_found_out(tool: BackupTool) -> None:
    bomb = zeros(BOMB)
    assert len(bomb) < 500_000
    sized = export_with(compressed_bytes=len(bomb))
    metadata = tool.client.head_object(Bucket=tool.bucket_name, Key=OBJECT)["Metadata"]
    tool.put(OBJECT, bomb, Metadata=metadata)
    tool.put(MANIFEST, sized(tool))
    script = ROOT / "db-backup" / "ooni_db_backup.py"
    process = subprocess.run(
        [sys.executable, "-c", PRINT_PEAK, str(script), "--config", tool.config_file, "verify"],
        env=dict(os.environ) | {"PYTHONPATH": f"{ROOT}:{script.parent}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, "more than the" in process.stderr) == (65, True), process.stderr
    assert int(process.stdout.rpartition("peak:")[2]) < MOST_MEMORY


@pytest.mark.parametrize("size", [None, 10])
def test_a_lost_object_is_exported_again(tool: BackupTool, size: int | None) -> None:
    content = tool.get(OBJECT)
    if size is None:
        tool.client.delete_object(Bucket=tool.bucket_name, Key=OBJECT)
    else:
        tool.put(OBJECT, content[:size])
    status, log = tool.run("run", "--dry-run")
    assert (status, "would export the whole table: lost from the bucket" in log) == (0, True), log
    status, log = tool.run("run")
    assert (status, f"{OBJECT}: gone, or not the object that was exported" in log) == (0, True), log
    assert tool.get(OBJECT) == content
    assert tool.verifies()
    status, log = tool.run("run")
    assert (status, "nothing to do" in log) == (0, True)


@pytest.mark.long
def test_a_growing_table_is_read_once(tool: BackupTool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come all the time; the object has what one query saw."""
    reads: list[str] = []
    rows_of = ClickHouseHTTP.rows

    def counted(source: ClickHouseHTTP, select: str, *arguments: Any, **options: Any) -> Any:
        reads.append(select)
        return rows_of(source, select, *arguments, **options)

    monkeypatch.setattr(ClickHouseHTTP, "rows", counted)
    database = tool.database
    database.execute("CREATE TABLE growing (id UInt64, text String) ENGINE = MergeTree ORDER BY id")
    grow = "INSERT INTO growing SELECT number + {}, randomPrintableASCII(90) FROM numbers({})"
    database.execute(grow.format(0, 300_000))
    stop = threading.Event()
    begun = threading.Event()

    def insert() -> None:
        first = 300_000
        with database.client() as client:
            while not stop.is_set():
                client.execute(grow.format(first, 100))
                first += 100
                begun.set()

    writer = threading.Thread(target=insert)
    writer.start()
    try:
        assert begun.wait(60)
        status, log = tool.run(tables=TABLES | {"growing": "public"}, max_bandwidth=40_000_000)
    finally:
        stop.set()
        writer.join()
    assert status == 0, log
    assert len(reads) == 1
    rows = json.loads(tool.get(LAYOUT.manifest("growing")))["chunks"][""]["rows"]
    assert tool.csv("growing.csv.zstd").count(b"\n") == rows + 1
    assert tool.run("verify", "growing")[0] == 0


def test_prune_does_not_trust_a_clock_that_is_days_off(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool.put(f"{CSV}stray.csv.zstd", b"x")
    now = time.time()
    for days, direction in ((400, "ahead of"), (-2, "behind")):
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda days=days: now + days * 86_400)
            status, log = tool.run("prune", "--confirm")
        assert status == 78
        assert f"{abs(days)} days {direction} the clock of s3://" in log
        assert "stray.csv.zstd" in tool.exports()
    assert tool.run("prune", "--confirm")[0] == 0
    assert "stray.csv.zstd" in tool.exports()  # a manifest that was lost may have named it
    assert tool.run("prune", "--older-than", "0", "--confirm")[0] == 0
    assert "stray.csv.zstd" not in tool.exports()


@pytest.mark.long
def test_of_a_manifest_as_large_as_one_can_be_chunks_are_pruned(tool: BackupTool) -> None:
    manifest = tool.manifest("one")
    export = manifest.chunks[""]
    old = msgspec.structs.replace(
        export,
        chunk=msgspec.structs.replace(export.chunk, name="202001"),
        key=f"{CSV}one_202001.csv.zstd",
        dropped="2020-01-01T00:00:00Z",
    )
    chunks = {"": msgspec.structs.replace(export, query="x" * 9_000_000), "202001": old}
    large = msgspec.structs.replace(manifest, chunks=chunks)
    tool.put(MANIFEST, msgspec.json.encode(large))
    tool.put(old.key, b"rows")
    status, log = tool.run("prune", "--confirm")
    assert status == 0, log
    assert old.key not in tool.objects()
    assert list(tool.manifest("one").chunks) == [""]


def test_a_listed_table_that_is_gone_fails_each_run_until_it_is_said_to_be(
    tool: BackupTool,
) -> None:
    tool.database.execute("DROP TABLE one SYNC")
    for _ in range(2):
        status, log = tool.run("run")
        assert (status, "listed, but not there: 'one'" in log) == (65, True), log
        assert OBJECT in tool.objects()
    status, log = tool.run("run", tables=TABLES | {"one": "none"})
    assert status == 0, log
    assert Path(OBJECT).name in tool.exports()


@pytest.mark.parametrize(
    "kind", ["AggregateFunction(uniq, String)", "Tuple(a AggregateFunction(sum, UInt64))"]
)
def test_states_of_aggregates_are_refused_by_name(tool: BackupTool, kind: str) -> None:
    tool.database.execute(
        f"CREATE TABLE states (id UInt8, `state (x)` {kind}) ENGINE = MergeTree ORDER BY id"
    )
    for arguments in (["run"], ["doctor"]):
        status, log = tool.run(*arguments, tables=TABLES | {"states": "public"})
        assert (status, "column state (x) is " in log) == (65, True), log
    assert tool.run("run", tables=TABLES | {"states": "none"})[0] == 0
