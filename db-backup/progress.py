"""Progress on a terminal: rows, bytes, rate and the time left."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Protocol, TextIO

FORMAT = "{desc}: {percentage:3.0f} % of {total_fmt} rows{postfix}, {rate_fmt}, {remaining} left"
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


class Progress(Protocol):
    """The progress of one chunk."""

    def show(self, rows: int, size: int) -> None:
        """Show how many rows and bytes there are by now."""


class Unseen:
    """Progress that nobody looks at."""

    def show(self, rows: int, size: int) -> None:
        """Show nothing."""


@contextlib.contextmanager
def progress(name: str, rows: int, stream: TextIO = sys.stderr) -> Iterator[Progress]:
    """Show the progress of a chunk while the block runs, if somebody sits there.

    Args:
        name: of the chunk.
        rows: that it will have.
        stream: shows it, if it is a terminal.
    """
    if not stream.isatty():
        yield Unseen()
        return
    from tqdm import tqdm  # noqa: PLC0415 (a service has no use for it)
    from tqdm.contrib.logging import logging_redirect_tqdm  # noqa: PLC0415

    tqdm.set_lock(threading.RLock())  # its own is for processes, and needs a file in /dev/shm
    with (
        logging_redirect_tqdm(),
        tqdm(
            desc=name,
            total=rows,
            file=stream,
            leave=False,
            unit=" rows",
            unit_scale=True,
            bar_format=FORMAT,
            dynamic_ncols=True,
        ) as bar,
    ):

        class Bar:
            def show(self, rows: int, size: int) -> None:
                bar.set_postfix_str(in_units(size), refresh=False)
                bar.update(rows - bar.n)

        yield Bar()


def in_units(size: float) -> str:
    """Return a number of bytes for people: three digits and a unit."""
    for unit in UNITS:
        if size < 999.5 or unit == UNITS[-1]:
            break
        size /= 1000
    digits = 0 if unit == UNITS[0] or size >= 99.95 else 1 if size >= 9.995 else 2
    return f"{size:.{digits}f} {unit}"
