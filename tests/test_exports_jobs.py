"""Exports with several jobs: the objects are the same, byte by byte."""

import hashlib

import pytest

from backup_config import Config
from db_backup_harness import CSV, BackupTool
from exports.chunk_rows import COMPRESSED_AT_ONCE, compressor_of

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
    assert Config().jobs_at_once >= 1
    assert Config(jobs=7).jobs_at_once == 7
