"""What people and programs read: standard output and the log, also when they stop reading."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

BIDIRECTIONAL = [0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
# What a terminal would obey, and what would make a line of its own in a log.
_CONTROLS = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *BIDIRECTIONAL]
_IN_JSON = {
    code: f"\\u{code:04x}" for code in _CONTROLS if code >= 0x7F
}  # others are escaped there
_VISIBLE = {code: chr(code).encode("unicode_escape").decode() for code in _CONTROLS}


def printable(text: str) -> str:
    """Return a text in one line without control characters: names come from anywhere."""
    return text.translate(_VISIBLE)


def printable_json(text: str) -> str:
    """Return JSON of the same value that has no control characters but for line breaks."""
    return text.translate(_IN_JSON)


def counted(number: int, noun: str) -> str:
    """Return a number of things, whose name has a regular plural: "1 chunk", "1,200 chunks"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def show(text: str) -> None:
    """Print what was asked for."""
    if sys.stdout is None:  # closed by whoever started the script
        return
    with readers_may_leave(sys.stdout):
        sys.stdout.write(f"{text}\n")


@contextlib.contextmanager
def readers_may_leave(stream: TextIO) -> Iterator[None]:
    """Write within the block; a closed pipe (`| head`) isn't a failure.

    The work goes on without a reader, and its exit status is the one that counts.
    """
    try:
        yield
    except BrokenPipeError:
        write_nowhere(stream)


@contextlib.contextmanager
def all_written() -> Iterator[None]:
    """Write what is held back when the block ends; at the interpreter's end a closed pipe fails.

    A full disk is left to the interpreter, which reports it and fails.
    """
    try:
        yield
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with contextlib.suppress(OSError, ValueError), readers_may_leave(stream):
                stream.flush()


def write_nowhere(stream: TextIO) -> None:
    """Let what is written to a stream from now on go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
