"""What is known of all series at an hour: a file, so that no run begins at the beginning.

The hour lies some days back. Each run follows the series from there on anew, so that measurements
that came late count, and so that it does not matter how often it has run.
"""

import io
import logging
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from ooni_common.run import write_atomically
from sequential import Arrays, Parameters
from series import Series

log = logging.getLogger("ooni.detector")

FORMAT = 1  # of the file, and of what its arrays mean
HEADER = "header"  # the name of an array that is none: JSON


class Header(msgspec.Struct, frozen=True):
    """What a checkpoint says beside its arrays.

    Attributes:
        kind: what it was made by; with another kind, its arrays mean something else.
        hour: the first one, in hours since 1970, that the arrays do not know of.
        until: the end of the last hour that the run which wrote it had looked at.
        series: in the order of the arrays.
    """

    kind: str
    hour: int
    until: int
    series: list[Series]


@dataclass(frozen=True)
class Checkpoint:
    """Series, and what is known of them before an hour; see Header."""

    hour: int
    until: int
    series: Sequence[Series]
    arrays: Arrays


def read_checkpoint(path: Path) -> Checkpoint | None:
    """Read the file; None where there is none, or one that is damaged or of another version."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = msgspec.json.decode(arrays.pop(HEADER).tobytes(), type=Header)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s: ignored: %s", path, error)
        return None
    if header.kind != _kind():
        log.warning("%s: ignored: of another version of the test", path)
        return None
    return Checkpoint(header.hour, header.until, header.series, arrays)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the file atomically."""
    header = Header(_kind(), checkpoint.hour, checkpoint.until, list(checkpoint.series))
    encoded = np.frombuffer(msgspec.json.encode(header), dtype=np.uint8)
    content = io.BytesIO()
    arrays: Arrays = {HEADER: encoded, **checkpoint.arrays}
    np.savez(content, allow_pickle=False, **arrays)
    write_atomically(path, content.getvalue())


def _kind() -> str:
    return f"{FORMAT} {Parameters()}"
