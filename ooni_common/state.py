"""What a run leaves for the next one: a file in the state directory."""

import logging
from pathlib import Path
from typing import TypeVar

import msgspec

from ooni_common.run import write_atomically

S = TypeVar("S")

log = logging.getLogger("ooni.state")


def read_state(path: Path, kind: type[S]) -> S:
    """Read a state file.

    Args:
        path: the file.
        kind: what is in it. Where there is no file, or a damaged one, an empty one is returned:
            that costs one full run.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return kind()
    except (msgspec.DecodeError, UnicodeDecodeError, PermissionError) as error:
        log.warning("%s: ignored: %s", path, error)
        return kind()


def write_state(path: Path, state: object) -> None:
    """Write a state file atomically."""
    write_atomically(path, msgspec.json.format(msgspec.json.encode(state, order="sorted")) + b"\n")
