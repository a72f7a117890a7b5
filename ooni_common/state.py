"""What a run leaves for the next one: files in the state directory.

Whatever is in the place of such a file, it costs one full run at most.
"""

import errno
import logging
import os
import stat
from pathlib import Path
from typing import TypeVar

import msgspec

from ooni_common.errors import DataRefused
from ooni_common.files import write_atomically

S = TypeVar("S")

log = logging.getLogger("ooni.state")

LARGEST = 64 * 1024 * 1024  # bytes; the largest one that is written has some megabytes
INDENTED = 1024 * 1024  # bytes, up to which a file is written for people to read, too


def read_local(path: Path, largest: int = LARGEST) -> bytes | None:
    """Return what is in a file that an earlier run has left; None where it can't be used.

    Args:
        path: the file. A link, a folder, a pipe, or what can't be read, is ignored with a warning.
        largest: bytes; a larger one is ignored, too.
    """
    try:
        # A link could lead anywhere, and a pipe would make the run wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb", closefd=True) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                ignored(path, "it is not a regular file")
                return None
            content = file.read(largest + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        is_link = error.errno == errno.ELOOP
        ignored(path, "it is a symbolic link" if is_link else error.strerror)
        return None
    if len(content) > largest:
        ignored(path, f"it has more than {largest:,} bytes")
        return None
    return content


def ignored(path: Path, reason: object) -> None:
    """Say why a file is not used."""
    log.warning("%s: ignored: %s", path, reason)


def read_state(path: Path, kind: type[S]) -> S:
    """Read a state file.

    Args:
        path: the file.
        kind: what is in it. Where there is no file, or a damaged one, an empty one is returned.
    """
    content = read_local(path)
    if content is None:
        return kind()
    try:
        return msgspec.json.decode(content, type=kind)
    except RecursionError:
        ignored(path, "it is nested too deeply")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        ignored(path, error)
    return kind()


def write_state(path: Path, state: object) -> None:
    """Write a state file atomically.

    Raises:
        ConfigError: a folder is in its place.
        DataRefused: it is larger than what the next run reads; the one before stays.
    """
    content = msgspec.json.encode(state, order="sorted")
    if len(content) <= INDENTED:
        content = msgspec.json.format(content)
    if len(content) >= LARGEST:
        raise DataRefused(
            f"{path}: not written, as no run reads more than {LARGEST:,} bytes; what is there"
            " stays; move it away to do without what it keeps"
        )
    write_atomically(path, content + b"\n")
