"""The detector's checkpoint: it is read as it was written, or not at all."""

import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest

from checkpoint import (
    HEADER_ARRAY,
    LARGEST_CHECKPOINT,
    Header,
    digest_of,
    read_checkpoint,
    write_checkpoint,
)
from context import ContextCounts
from following import Checkpoint, Follower
from series import Series

HOUR = 480_000
DAMAGES = 400


def some_checkpoint() -> Checkpoint:
    """Return what is known of three series after a day."""
    series = [Series("signal", "", "IT", network) for network in (1, 2, 3)]
    follower = Follower({})
    hours = range(HOUR, HOUR + 24)
    runs = [(place, hour, 7, 1, 5, 0, 0, 5, 0) for place in range(3) for hour in hours]
    others = [(1, hour, 7, 9, 1) for hour in hours]
    counts = ContextCounts(HOUR, HOUR + 24, series, np.array(runs), np.array(others))
    follower.follow(counts)
    return follower.checkpoint(HOUR + 24, HOUR + 48)


def read(path: Path) -> Checkpoint | None:
    remembered = read_checkpoint(path, {})
    return None if remembered is None else remembered[0]


def same(one: Checkpoint, another: Checkpoint) -> bool:
    return (
        (one.hour, one.until, list(one.series)) == (another.hour, another.until, another.series)
        and one.arrays.keys() == another.arrays.keys()
        and all(np.array_equal(array, another.arrays[name]) for name, array in one.arrays.items())
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.npz"
    write_checkpoint(path, some_checkpoint())
    return path


def test_it_is_read_as_it_was_written(path: Path) -> None:
    checkpoint = read(path)
    assert checkpoint is not None
    assert same(checkpoint, some_checkpoint())


@pytest.mark.parametrize("seed", range(4))
def test_a_damage_is_noticed_wherever_it_is(path: Path, seed: int) -> None:
    random, content, written = Random(seed), path.read_bytes(), some_checkpoint()
    for _ in range(DAMAGES // 4):
        path.write_bytes(damaged(content, random))
        checkpoint = read(path)
        assert checkpoint is None or same(checkpoint, written)


def damaged(content: bytes, random: Random) -> bytes:
    """Return it with bits turned, bytes lost, doubled or zeroed, or with its end cut off."""
    place, size = random.randrange(len(content)), random.randrange(1, 100)
    before, after = content[:place], content[place:]
    match random.randrange(5):
        case 0:
            return before + bytes([after[0] ^ 1 << random.randrange(8)]) + after[1:]
        case 1:
            return before + after[size:]
        case 2:
            return before + after[:size] + after
        case 3:
            return before + bytes(len(after[:size])) + after[size:]
    return before


def rewritten(path: Path, *, keep_digest: bool = False, **changes: Any) -> None:
    """Rewrite it with other things in it, and with the digest of these."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    header = msgspec.json.decode(arrays.pop(HEADER_ARRAY).tobytes(), type=Header)
    said = changes.keys() & set(Header.__struct_fields__)
    header = msgspec.structs.replace(header, **{name: changes.pop(name) for name in said})
    arrays |= changes
    arrays = {name: array for name, array in arrays.items() if array is not None}
    if not keep_digest:
        digest = digest_of(Checkpoint(header.hour, header.until, header.series, arrays))
        header = msgspec.structs.replace(header, sha256=digest)
    arrays[HEADER_ARRAY] = np.frombuffer(msgspec.json.encode(header), dtype=np.uint8)
    np.savez(path, **arrays)


def test_what_has_its_digest_is_read(path: Path) -> None:
    rewritten(path)
    checkpoint = read(path)
    assert checkpoint is not None
    assert same(checkpoint, some_checkpoint())


@pytest.mark.parametrize("kind", ["1 Parameters(blocked_shares=(0.55, 0.9))", "3 ", ""])
def test_one_of_another_version_is_a_warning(
    path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    rewritten(path, kind=kind, sha256="", keep_digest=True)
    assert read(path) is None
    assert caplog.messages == [f"{path}: ignored: of another version of the test"]
    assert caplog.records[0].levelname == "WARNING"


TWICE = [Series("signal", "", "IT", 1)] * 3
FOREIGN: dict[str, dict[str, Any]] = {
    "an hour before 1970": {"hour": -5},
    "an hour in the far future": {"until": 10**9},
    "an end before the beginning": {"until": HOUR},
    "a series twice": {"series": TWICE},
    "fewer series": {"series": TWICE[:1]},
    "a missing array": {"old": None},
    "a short array": {"old": np.zeros(2, dtype=np.int8)},
    "another shape": {"measurements": np.zeros((3, 2))},
    "another type": {"test_status": np.zeros(3)},
    "text": {"measurements": np.array(["a", "b", "c"])},
    "keys out of order": {"test_control_sources_keys": np.array([2, 1])},
    "a table with columns of other lengths": {"test_control_drift_total": np.zeros(3)},
    "no number": {"measurements": np.array([1.0, np.nan, 1.0])},
    "changed, with its former digest": {
        "keep_digest": True,
        "measurements": np.ones(3),
    },
    "another hour, with the former digest": {"keep_digest": True, "hour": HOUR},
}


@pytest.mark.parametrize("changes", FOREIGN.values(), ids=FOREIGN.keys())
def test_what_no_run_writes_is_ignored(
    path: Path, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    rewritten(path, **changes)
    assert read(path) is None
    (line,) = caplog.messages
    assert line.startswith(f"{path}: ignored: ")


def bomb(path: Path) -> None:
    """Put a small file there that would be larger than the memory."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("header.npy", "w") as member,
    ):
        for _ in range(LARGEST_CHECKPOINT // 2**24 + 1):
            member.write(bytes(2**24))


def objects(path: Path) -> None:
    np.savez(path, allow_pickle=True, header=np.array([print, {}], dtype=object))


def unknown_compression(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in (content.find(b"PK\3\4") + 8, content.find(b"PK\1\2") + 10):
        content[place] = 99
    path.write_bytes(content)


def linked(path: Path) -> None:
    path.rename(path.with_name("another.npz"))
    path.symlink_to("another.npz")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


PLACES: dict[str, Callable[[Path], object]] = {
    "a bomb": bomb,
    "objects": objects,
    "unknown compression": unknown_compression,
    "a link": linked,
    "a folder": folder,
    "a pipe": pipe,
    "an archive of nothing": lambda path: zipfile.ZipFile(path, "w").close(),
    "deep JSON": lambda path: np.savez(path, header=np.frombuffer(b"[" * 10**6, np.uint8)),
    "no archive": lambda path: path.write_bytes(b"x" * 999),
}


@pytest.mark.parametrize("put", PLACES.values(), ids=PLACES.keys())
def test_whatever_is_in_its_place_is_ignored(
    path: Path, put: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    put(path)
    assert read(path) is None
    (line,) = caplog.messages
    assert line.startswith(f"{path}: ignored: ")


def test_one_that_no_run_would_read_is_not_written(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    size = path.stat().st_size
    later = replace(some_checkpoint(), until=HOUR + 72)
    with monkeypatch.context() as patched:
        patched.setattr("checkpoint.LARGEST_CHECKPOINT", size - 1)
        write_checkpoint(path, later)
    (line,) = caplog.messages
    assert line.startswith(f"{path}: not written: 3 series have {size:,} bytes")
    assert (kept := read(path)) is not None
    assert kept.until == HOUR + 48
    monkeypatch.setattr("checkpoint.LARGEST_CHECKPOINT", size)
    write_checkpoint(path, later)
    assert (written := read(path)) is not None
    assert written.until == HOUR + 72
