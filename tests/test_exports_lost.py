"""What is lost from the bucket of the exports, or replaced there, is found and made again."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from db_backup_harness import CSV, LAYOUT, ROOT, BackupTool, bucket_of
from documents import BYTES_OF_A_VALUE, LARGEST_DOCUMENT, LARGEST_MANIFEST, encoded, weight
from exports.manifest import TableManifest
from exports.stored import read_table_manifest
from store.bucket import Bucket
from tables.blocks import ShardStorage, Span, Storage
from test_exports_damage import MOST_MEMORY, PRINT_PEAK

pytestmark = pytest.mark.long

POLICY = {"m": {"policy": "public", "chunk_by": "month", "column": "t"}}
OBJECT = f"{CSV}m_202401.csv.zstd"


@pytest.fixture
def tool(backup_tool: BackupTool) -> BackupTool:
    """A table of two months, exported."""
    execute = backup_tool.database.execute
    execute(
        "CREATE TABLE m (t DateTime, id UInt32) ENGINE = MergeTree PARTITION BY toYYYYMM(t)"
        " ORDER BY id"
    )
    for month in (1, 2):
        execute(f"INSERT INTO m SELECT '2024-0{month}-05', number FROM numbers(100)")
    status, log = backup_tool.run(tables=POLICY)
    assert status == 0, log
    assert "writing it again" not in log
    return backup_tool


def delete(tool: BackupTool, key: str) -> None:
    tool.client.delete_object(Bucket=tool.bucket_name, Key=key)


def mended(tool: BackupTool, message: str) -> None:
    """Check that the next run says so and mends it, and that the one after it has nothing to do."""
    assert not tool.verifies()
    status, log = tool.run()
    assert (status, message in log) == (0, True), log
    assert tool.verifies()
    with tool.unchanged():
        status, log = tool.run()
    assert (status, "nothing to do" in log, "warning" in log) == (0, True, False), log


@pytest.mark.parametrize(
    ("key", "size"),
    [
        (LAYOUT.sums, None),
        (LAYOUT.sums, 7),
        (LAYOUT.index, None),
        (LAYOUT.schema("m"), None),
        (LAYOUT.schema("m"), 7),
    ],
)
def test_what_is_beside_the_rows_is_written_again(
    tool: BackupTool, key: str, size: int | None
) -> None:
    content = tool.get(key)
    if size is None:
        delete(tool, key)
    else:
        tool.put(key, content[:size])
    mended(tool, f"{key}: gone, or not what was written")
    if key != LAYOUT.index:
        assert tool.get(key) == content


@pytest.mark.parametrize("parts", [False, True])
def test_an_object_of_the_same_size_is_not_the_one_that_was_exported(
    tool: BackupTool, *, parts: bool
) -> None:
    if parts:  # an ETag of an upload in parts isn't a checksum of the object
        tool.database.execute("INSERT INTO m SELECT '2024-01-05', rand() FROM numbers(4000000)")
        assert tool.run(compression_level=1)[0] == 0
        assert tool.objects()[OBJECT] > 8 * 1024 * 1024
    content = tool.get(OBJECT)
    tool.put(OBJECT, content[:-1] + bytes([content[-1] ^ 1]))
    mended(tool, f"{OBJECT}: gone, or not the object that was exported")
    assert tool.get(OBJECT) == content


def test_a_copy_of_an_object_is_what_was_exported(tool: BackupTool) -> None:
    """As when a bucket is moved: the store may call it another version, its origin is the same."""
    metadata = tool.client.head_object(Bucket=tool.bucket_name, Key=OBJECT)["Metadata"]
    upload: dict[str, Any] = {"Bucket": tool.bucket_name, "Key": OBJECT}
    content = tool.get(OBJECT)
    started = tool.client.create_multipart_upload(**upload, Metadata=metadata)["UploadId"]
    part = tool.client.upload_part(**upload, UploadId=started, PartNumber=1, Body=content)
    tool.client.complete_multipart_upload(
        **upload,
        UploadId=started,
        MultipartUpload={"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]},
    )
    token = tool.manifest("m").chunks["202401"].token
    for _ in range(2):
        status, log = tool.run()
        assert (status, "0 chunks" in log or "nothing to do" in log) == (0, True), log
    assert tool.manifest("m").chunks["202401"].token == token
    assert tool.verifies()


def test_a_lost_object_of_rows_that_are_gone_fails_until_it_is_forgotten(tool: BackupTool) -> None:
    tool.database.execute("ALTER TABLE m DROP PARTITION 202401")
    assert tool.run()[0] == 0
    delete(tool, OBJECT)
    assert not tool.verifies()
    for _ in range(2):
        status, log = tool.run()
        assert (status, OBJECT in log, "export --force m" in log) == (65, True, True), log
    edited(tool, lambda manifest: manifest.update(begun="2020-01-01T00:00:00Z"))
    status, log = tool.run("export", "--force", "m")
    assert status == 0, log
    # What was forgotten may have a Parquet object, which no run deletes then.
    assert tool.manifest("m").begun > "2026"
    assert tool.run()[0] == 0
    assert tool.verifies()


def test_since_when_rows_are_gone_is_told_by_the_clock_of_the_store(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host whose clock was a year behind must not let prune delete what is gone since today."""
    tool.database.execute("ALTER TABLE m DROP PARTITION 202401")
    wrong = datetime.now(UTC) - timedelta(days=366)
    with monkeypatch.context() as patched:
        patched.setattr("exports.chunk_export.now", lambda: f"{wrong:%Y-%m-%dT%H:%M:%SZ}")
        assert tool.run()[0] == 0
    dropped = datetime.fromisoformat(tool.manifest("m").chunks["202401"].dropped)
    assert abs(dropped.timestamp() - time.time()) < 3600
    assert tool.run("prune", "--confirm")[0] == 0
    assert OBJECT in tool.objects()


# --- tables that are gone, or withdrawn ---


def test_an_empty_bucket_is_not_as_exported(tool: BackupTool) -> None:
    for key in tool.objects():
        delete(tool, key)
    for arguments in (["verify"], ["verify", "--quick"]):
        status, log = tool.run(*arguments)
        assert (status, "it has no export at all" in log) == (65, True), log
    assert tool.run()[0] == 0
    assert tool.verifies()


def test_where_nothing_was_exported_yet_nothing_is_missing(backup_tool: BackupTool) -> None:
    status, log = backup_tool.run("verify", tables=POLICY)
    assert (status, "nothing was exported yet" in log) == (0, True), log
    assert backup_tool.run("verify", tables={"m": "none"})[0] == 0


def test_a_public_table_of_a_pattern_that_vanishes_is_told(tool: BackupTool) -> None:
    execute = tool.database.execute
    execute("CREATE TABLE stays (id UInt8) ENGINE = MergeTree ORDER BY id")
    execute("CREATE TABLE goes (id UInt8) ENGINE = MergeTree ORDER BY id")
    assert tool.run(tables=POLICY | {"*": "public"})[0] == 0
    execute("DROP TABLE goes SYNC")
    for command in ("run", "export", "run"):
        status, log = tool.run(command)
        assert (status, "'goes'" in log, '"gone"' in log) == (65, True, True), log
    assert tool.run("export", "stays")[0] == 0
    assert tool.run(tables=POLICY | {"goes": "gone", "*": "public"})[0] == 0
    assert "goes.csv.zstd" in tool.exports()


@pytest.mark.parametrize("content", [b"{", None])
def test_what_a_withdrawn_table_had_is_deleted_though_its_manifest_is_damaged(
    tool: BackupTool, content: bytes | None
) -> None:
    execute = tool.database.execute
    for name in ("m_202401x", "one", "one_202401"):
        execute(f"CREATE TABLE {name} (id UInt8) ENGINE = MergeTree ORDER BY id")
    tables: dict[str, object] = {**POLICY, "m_202401x": "public", "one*": "public"}
    assert tool.run(tables=tables)[0] == 0
    for name in ("m", "one"):
        if content is None:
            delete(tool, LAYOUT.manifest(name))
        else:
            tool.put(LAYOUT.manifest(name), content)
    tables |= {"m": "none"}
    status, log = tool.run(tables=tables)
    assert (status, "prune --confirm deletes" in log) == (65, True), log
    with tool.unchanged():
        assert "would delete" in tool.run("prune")[1]
    status, log = tool.run("prune", "--confirm")
    assert (status, "export --force" in log) == (65, False), log  # the other one is damaged
    left = tool.objects()
    assert tool.exports() == ["m_202401x.csv.zstd", "one.csv.zstd", "one_202401.csv.zstd"]
    assert LAYOUT.manifest("m") not in left
    assert LAYOUT.schema("m") not in left
    assert tool.run("export", "--force", "one")[0] == 0
    assert tool.run()[0] == 0
    assert tool.run("prune", "--confirm")[0] == 0
    assert tool.verifies()


def test_manifests_are_read_once(tool: BackupTool, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    get = Bucket.get

    def counted(bucket: Bucket, key: str, *arguments: Any) -> bytes | None:
        read.append(key)
        return get(bucket, key, *arguments)

    monkeypatch.setattr(Bucket, "get", counted)
    for arguments in (["run"], ["verify"], ["list"], ["prune"]):
        read.clear()
        assert tool.run(*arguments)[0] == 0
        manifests = [key for key in read if key.endswith(".json") and key != LAYOUT.writer]
        assert sorted(manifests) == [LAYOUT.run, LAYOUT.manifest("m")], arguments


# --- manifests that can't be used, and can't be written ---


def edited(tool: BackupTool, change: Callable[[dict[str, Any]], object]) -> None:
    key = LAYOUT.manifest("m")
    manifest = json.loads(tool.get(key))
    change(manifest)
    tool.put(key, json.dumps(manifest, separators=(",", ":")).encode())


RANGES: dict[str, list[tuple[str, list[str | None]]]] = {
    "no numbers": [("00000", [None, "x"]), ("00001", ["x", None])],
    "another way to write it": [("00000", [None, "0x5"]), ("00001", ["05", None])],
    "a number too large": [("00000", [None, "5"]), ("00001", ["99999999999999999999", None])],
    "twice the same number": [("00001", [None, "5"]), ("000001", ["5", None])],
    "a long text": [("00000", [None, "5"]), ("00001", ["5" * 400_000, None])],
    "SQL": [("00000", [None, "5"]), ("00001", ["5') OR sleep(3) --", None])],
}


@pytest.mark.parametrize("name", RANGES)
def test_bounds_that_are_no_values_are_damage_that_force_mends(
    backup_tool: BackupTool, name: str
) -> None:
    execute = backup_tool.database.execute
    for table in ("m", "other"):
        execute(f"CREATE TABLE {table} (id UInt32) ENGINE = MergeTree ORDER BY id")
        execute(f"INSERT INTO {table} SELECT number FROM numbers(10)")
    tables = {
        "m": {"policy": "public", "chunk_by": "range", "rows_per_chunk": 8},
        "other": "public",
    }
    assert backup_tool.run(tables=tables)[0] == 0

    def change(manifest: dict[str, Any]) -> None:
        export = manifest["chunks"]["00000"]
        manifest["chunks"] = {
            number: export
            | {"key": LAYOUT.export("m", number)}
            | {"chunk": {"name": number, "condition": "", "bounds": bounds}}
            for number, bounds in RANGES[name]
        }

    edited(backup_tool, change)
    execute("INSERT INTO other VALUES (100)")
    for _ in range(2):
        status, log = backup_tool.run()
        assert (status, "export --force" in log) == (65, True), log
    assert backup_tool.manifest("other").exports[0].rows == 11
    status, log = backup_tool.run("export", "--force", "m")
    assert status in (0, 65), log  # chunks of the damaged manifest may have no object
    assert backup_tool.run("export", "--force", "m")[0] == 0
    assert backup_tool.run()[0] == 0
    live = [export for export in backup_tool.manifest("m").exports if not export.dropped]
    assert sum(export.rows for export in live) == 10


def test_a_manifest_that_would_be_too_large_is_refused_before_its_rows_are_read(
    tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = weight(tool.get(LAYOUT.manifest("m")))
    for module in ("documents", "exports.manifest_file", "exports.stored"):
        monkeypatch.setattr(f"{module}.LARGEST_MANIFEST", size + 1000)
    before = exports_of(tool)
    tool.database.execute("INSERT INTO m VALUES ('2024-03-05', 1)")
    status, log = tool.run()
    assert (status, "not exported: its manifest" in log, "of CSV" in log) == (65, True, False), log
    assert exports_of(tool) == before
    assert tool.run("verify", "--quick")[0] == 0


def many_partitions(count: int) -> dict[str, Storage]:
    """Return the blocks of a table, as a manifest has them."""
    partitions: dict[str, tuple[Span, ...]]
    partitions = {f"{number}": ((300, 301, 300),) for number in range(count)}
    return {"x": Storage((ShardStorage("", "", 0, "", partitions),))}


def test_a_manifest_that_is_too_large_for_people_is_written_without_line_breaks() -> None:
    manifest = TableManifest(table="m", storages=many_partitions(100_000))
    assert len(msgspec.json.format(msgspec.json.encode(manifest))) > LARGEST_DOCUMENT
    assert msgspec.json.decode(encoded(manifest, "m.json"), type=TableManifest) == manifest


def test_a_manifest_of_many_small_values_is_damaged_before_it_is_decoded(tool: BackupTool) -> None:
    """What is small in bytes can be large in memory."""
    columns = b'["",""],' * (LARGEST_MANIFEST // BYTES_OF_A_VALUE // 3 + 1)
    assert len(columns) < LARGEST_MANIFEST / 2 < weight(columns)
    tool.put(LAYOUT.manifest("m"), b'{"table": "m", "columns": [' + columns + b'["","", 0]]}')
    status, log = tool.run()
    assert (status, "m.json: damaged: it has more values than" in log) == (65, True), log


def test_ten_thousand_chunks_as_wide_as_fastpath_fit_in_a_manifest(tool: BackupTool) -> None:
    """A production table's columns and types; texts as long as they are there."""
    export = tool.manifest("m").exports[0]
    columns = [(f"a_column_name_{number}", "LowCardinality(String)") for number in range(40)]
    wide = msgspec.structs.replace(
        export,
        query=f"SELECT {', '.join(f'`{name}`' for name, _ in columns)} FROM m {'x' * 500}",
        types=tuple(kind for _, kind in columns),
    )
    manifest = TableManifest(table="m", columns=columns)
    for number in range(10_000):
        chunk = msgspec.structs.replace(export.chunk, name=f"2{number:07}")
        key = LAYOUT.export("m", chunk.name)
        manifest.chunks[chunk.name] = msgspec.structs.replace(wide, chunk=chunk, key=key)
    content = encoded(manifest, "m.json", LARGEST_MANIFEST)
    bucket = bucket_of(tool)
    bucket.put_document(LAYOUT.manifest("m"), content, "application/json")
    assert read_table_manifest(bucket, LAYOUT, "m") == manifest


SIZE = LARGEST_MANIFEST * 19 // 20


def filled(manifest: dict[str, Any], name: str) -> None:
    """Let a manifest have as much of something small as it can."""
    if name == "columns":
        manifest["columns"] = [["", ""]] * (SIZE // BYTES_OF_A_VALUE // 3)
    elif name == "types":
        manifest["chunks"]["202401"]["types"] = [""] * (SIZE // BYTES_OF_A_VALUE)
    elif name == "partitions":
        manifest["storages"] = msgspec.to_builtins(many_partitions(SIZE // BYTES_OF_A_VALUE // 5))
    elif name == "text":
        manifest["chunks"]["202401"]["query"] = "x" * SIZE
    else:
        spans = [[300, 301, 300]] * 9000
        storage = msgspec.to_builtins(many_partitions(0))
        count = SIZE // weight(json.dumps(spans, separators=(",", ":")).encode())
        storage["x"]["shards"][0]["partitions"] = {str(one): spans for one in range(count - 1)}
        manifest["storages"] = storage


@pytest.mark.long
@pytest.mark.parametrize("name", ["columns", "types", "partitions", "spans", "text"])
def test_the_largest_manifest_takes_a_bounded_memory(tool: BackupTool, name: str) -> None:
    edited(tool, lambda manifest: filled(manifest, name))
    assert weight(tool.get(LAYOUT.manifest("m"))) > LARGEST_MANIFEST * 0.8
    script = ROOT / "db-backup" / "ooni_db_backup.py"
    for arguments in (["list"], ["list", "--json"], ["run", "--dry-run"], ["verify", "--quick"]):
        process = subprocess.run(
            [sys.executable, "-c", PRINT_PEAK, script, "--config", tool.config_file, *arguments],
            env=dict(os.environ) | {"PYTHONPATH": f"{ROOT}:{script.parent}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode in (0, 65), process.stderr
        assert int(process.stdout.rpartition("peak:")[2]) < MOST_MEMORY, arguments


def exports_of(tool: BackupTool) -> dict[str, str]:
    return {key: value for key, value in tool.hashes().items() if key.startswith(CSV)}


def test_what_a_bucket_says_writes_to_no_terminal(tool: BackupTool) -> None:
    odd = "\x1b[2J\x9b2J\u202egone\u2028\x7f"
    edited(tool, lambda manifest: manifest["chunks"]["202401"].update(finished=odd, started=odd))
    tool.put(LAYOUT.manifest(odd), b"{")
    for arguments in (["list"], ["list", "m"], ["list", "--json"], ["run"], ["verify", "--quick"]):
        _, log = tool.run(*arguments)
        assert not [character for character in odd if character in log and not character.isascii()]
        assert "\x1b" not in log
        assert "\x7f" not in log
    listed = json.loads(tool.run("list", "--json")[1])
    assert listed["exports"]["m"]["chunks"]["202401"]["finished"] == odd
    assert odd in listed["damaged_exports"]
