"""Exports with several jobs: the same bytes. Large objects: larger parts, or they are refused."""

import hashlib

import pytest

from db_backup_harness import CSV, BackupTool
from exports import sizes
from exports.chunk_rows import COMPRESSED_AT_ONCE, compressor_of
from exports.sizes import check_size
from ooni_common.errors import DataRefused
from parallel import jobs_at_once
from store.uploads import LARGEST_PART, MOST_PARTS, PART_SIZE, part_size
from tables.policy import ChunkBy, TablePolicy

ROWS = 200_000


@pytest.fixture
def tool(backup_tool: BackupTool) -> BackupTool:
    """A table of some text: more than two threads can take at once."""
    execute = backup_tool.database.execute
    execute("CREATE TABLE t (n UInt32, s String) ENGINE = MergeTree ORDER BY n")
    execute(
        "INSERT INTO t SELECT number, repeat(hex(sipHash64(number)), 1 + number % 11)"
        f" FROM numbers({ROWS})"
    )
    backup_tool.configure(tables={"t": "public"})
    return backup_tool


def test_the_object_is_the_same_whatever_the_number_of_jobs(tool: BackupTool) -> None:
    objects = set()
    for jobs in (1, 3):
        status, log = tool.run("export", "--force", jobs=jobs)
        assert status == 0, log
        objects.add(tool.get(f"{CSV}t.csv.zstd"))
    assert len(tool.csv("t.csv.zstd")) > 3 * COMPRESSED_AT_ONCE
    assert len(objects) == 1
    assert tool.verifies()


@pytest.mark.parametrize("size", [1000, COMPRESSED_AT_ONCE, 5 * COMPRESSED_AT_ONCE + 1])
def test_threads_and_pieces_change_no_byte(size: int) -> None:
    blocks = -(-size // 64)
    text = "".join(hashlib.sha256(bytes([n % 251])).hexdigest() for n in range(blocks))
    rows = text[:size].encode()

    def compressed(threads: int, piece: int) -> bytes:
        compressor = compressor_of(3, threads)
        pieces = [rows[start : start + piece] for start in range(0, size, piece)]
        return b"".join([*map(compressor.compress, pieces), compressor.flush()])

    alone = compressed(1, size)
    assert [compressed(threads, 100_003) == alone for threads in (1, 2, 8)] == [True] * 3


def test_by_default_there_are_as_many_jobs_as_cores() -> None:
    assert jobs_at_once(0) >= 1
    assert jobs_at_once(7) == 7


GB = 10**9


@pytest.mark.parametrize(
    ("expected", "size"),
    [
        (0, PART_SIZE),
        (60 * GB, PART_SIZE),
        (100 * GB, 12 * 1024 * 1024),
        (300 * GB, 36 * 1024 * 1024),
        (900 * GB, LARGEST_PART),
    ],
)
def test_parts_are_as_large_as_an_object_needs_them(expected: int, size: int) -> None:
    assert part_size(expected) == size
    assert size == LARGEST_PART or size * MOST_PARTS >= expected * 5 / 4


def test_what_is_too_large_says_how_to_divide_the_table(backup_tool: BackupTool) -> None:
    backup_tool.database.execute("CREATE TABLE t (d Date) ENGINE = MergeTree ORDER BY d")
    backup_tool.database.execute("INSERT INTO t VALUES ('2026-01-01')")
    assert backup_tool.run(tables={"t": "public"})[0] == 0
    manifest = backup_tool.manifest("t")
    chunk = manifest.chunks[""].chunk
    advice: dict[ChunkBy, str] = {
        "": 'chunk_by = "month"',
        "table": 'chunk_by = "month"',
        "month": 'chunk_by = "day"',
        "day": 'chunk_by = "range"',
        "range": "a smaller rows_per_chunk",
    }
    for chunk_by, text in advice.items():
        policy = TablePolicy(policy="public", chunk_by=chunk_by)
        check_size(manifest, policy, chunk, 10**9)
        with pytest.raises(DataRefused, match=text):
            check_size(manifest, policy, chunk, 10**12)


def test_a_chunk_too_large_for_one_object_is_refused_before_it_is_read(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And alone: the other chunks of its table are exported, and so are other tables."""
    add = (
        "INSERT INTO t SELECT '2026-0{}-01', hex(sipHash64(number, (SELECT count() FROM t)))"
        " FROM numbers({})"
    )
    for table in ("t", "whole"):
        backup_tool.database.execute(
            f"CREATE TABLE {table} (d Date, s String) ENGINE = MergeTree ORDER BY (d, s)"
        )
    months = {"policy": "public", "chunk_by": "month", "column": "d"}
    backup_tool.configure(tables={"t": months, "whole": "public"})
    for month in (1, 2):
        backup_tool.database.execute(add.format(month, 100))
    assert backup_tool.run()[0] == 0
    before = backup_tool.get(f"{CSV}t_202601.csv.zstd")
    monkeypatch.setattr(sizes, "LARGEST_PART", 2)  # so that 20 kB are too much
    backup_tool.database.execute(add.format(1, 5_000))
    backup_tool.database.execute(add.format(2, 1))
    backup_tool.database.execute("INSERT INTO whole VALUES ('2026-01-01', '')")
    status, log = backup_tool.run()
    assert (status, "t: 202601: not exported: its 5,100 rows" in log) == (65, True), log
    assert 'divide the table: chunk_by = "day"' in log
    assert "t_202601.csv.zstd: changed" not in log
    assert backup_tool.get(f"{CSV}t_202601.csv.zstd") == before
    assert backup_tool.manifest("t").chunks["202602"].rows == 101
    assert backup_tool.manifest("whole").chunks[""].rows == 1
    assert backup_tool.verifies()
