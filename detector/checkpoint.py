"""The checkpoint: all that is known of the series at an hour, in a file.

It saves each run from starting at the beginning. The hour lies some days back, and each run
follows the series again from there: late measurements count, and the result is the same however
often the detector runs.
"""

import hashlib
import io
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from contextual import CONTROL, PARAMETERS
from following import PREFIX, Checkpoint, Follower
from ooni_common.files import write_atomically
from ooni_common.state import ignored, read_local
from series import HOUR, STATE_NAMES, Series, Target

log = logging.getLogger("ooni.detector")

CHECKPOINT_FORMAT = 2  # of the file, and of what its arrays mean
HEADER_ARRAY = "header"  # the name of an array that is none: JSON
LARGEST_CHECKPOINT = 256 * 1024 * 1024  # bytes; 100,000 series have 40 MB
LATEST_HOUR = 2**32 // HOUR  # what the database can hold


class Header(msgspec.Struct, frozen=True):
    """What a checkpoint says beside its arrays.

    Attributes:
        kind: what it was made by; with another kind, its arrays mean something else.
        hour: the first one, in hours since 1970, that the arrays do not know of.
        until: the end of the last hour that the run which wrote it had looked at.
        series: in the order of the arrays.
        sha256: of all that; those of 2.0.1 have none.
    """

    kind: str
    hour: int
    until: int
    series: list[Series]
    sha256: str = ""


def read_checkpoint(
    path: Path, services: Mapping[Target, str]
) -> tuple[Checkpoint, Follower] | None:
    """Read the file; return what it says, and a follower that knows it.

    Args:
        path: of the file.
        services: see Follower.

    Returns:
        None if the file is missing, damaged or of another version.
    """
    content = read_local(path, LARGEST_CHECKPOINT)
    if content is None:
        return None
    try:
        header, arrays = _decoded(content)
    except Exception as error:  # noqa: BLE001 (of damaged bytes, its libraries raise anything)
        ignored(path, f"{type(error).__name__}: {error}")
        return None
    if header.kind != _kind():
        ignored(path, "of another version of the test")
        return None
    checkpoint = Checkpoint(header.hour, header.until, header.series, arrays)
    if header.sha256 != digest_of(checkpoint):
        ignored(path, "it is not what was written")
        return None
    try:
        _check(checkpoint)
        return checkpoint, Follower.from_checkpoint(checkpoint, services)
    except (LookupError, ValueError) as error:
        ignored(path, error)
        return None


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the file atomically, unless it is larger than what the next run reads.

    That one goes on from what is there, then: it takes longer, and finds the same.
    """
    header = Header(
        _kind(),
        checkpoint.hour,
        checkpoint.until,
        list(checkpoint.series),
        digest_of(checkpoint),
    )
    encoded = np.frombuffer(msgspec.json.encode(header), dtype=np.uint8)
    content = io.BytesIO()
    arrays = {HEADER_ARRAY: encoded, **checkpoint.arrays}
    np.savez(content, allow_pickle=False, **arrays)
    size = content.tell()
    if size > LARGEST_CHECKPOINT:
        log.warning(
            "%s: not written: %s series have %s bytes, and no run reads more than %s; until fewer"
            " services are followed, each run starts from the one before, or at the beginning",
            path,
            f"{len(header.series):,}",
            f"{size:,}",
            f"{LARGEST_CHECKPOINT:,}",
        )
        return
    write_atomically(path, content.getvalue())


def _decoded(content: bytes) -> tuple[Header, dict[str, Any]]:
    """Return header and arrays of a file.

    Raises:
        Exception: the file is damaged, or something else.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > LARGEST_CHECKPOINT:
            raise ValueError(f"its arrays have more than {LARGEST_CHECKPOINT:,} bytes")
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} is damaged")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    header = msgspec.json.decode(arrays.pop(HEADER_ARRAY).tobytes(), type=Header)
    return header, arrays


def _check(checkpoint: Checkpoint) -> None:
    """Raise ValueError for what no run writes, and only a person can have."""
    if not 0 < checkpoint.hour <= checkpoint.until < LATEST_HOUR:
        raise ValueError(f"hours {checkpoint.hour} to {checkpoint.until}")
    for name, array in checkpoint.arrays.items():
        is_table = name.startswith(PREFIX + CONTROL) and array.ndim == 1
        if array.dtype.kind not in "if" or not (
            is_table or array.shape == (len(checkpoint.series),)
        ):
            raise ValueError(f"{name}: {array.dtype} {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: not all are numbers")
    for name in ("old", "test_status"):
        states = checkpoint.arrays[name]
        if states.size and not 0 <= states.min() <= states.max() < len(STATE_NAMES):
            raise ValueError(f"{name}: no state has such a number")


def digest_of(checkpoint: Checkpoint) -> str:
    """Return the digest of all that a checkpoint says."""
    parts = [msgspec.json.encode((checkpoint.hour, checkpoint.until, checkpoint.series))]
    for name, array in sorted(checkpoint.arrays.items()):
        parts += [f"{name} {array.dtype.str} {array.shape}".encode(), array.tobytes()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _kind() -> str:
    return f"{CHECKPOINT_FORMAT} {PARAMETERS}"
