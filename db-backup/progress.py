"""Progress on a terminal: how much of it, rate and the time left; and sizes for people."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Protocol, TextIO

FORMAT = "{desc}: {percentage:3.0f} % of {total_fmt}{unit}{postfix}, {rate_fmt}, {remaining} left"
FORMAT_WITHOUT_TOTAL = "{desc}: {n_fmt}{unit}{postfix}, {rate_fmt}"
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


class Progress(Protocol):
    """The progress of one chunk."""

    def show(self, done: int, note: str = "") -> None:
        """Show how much is done by now."""


class Unseen:
    """Progress that nobody looks at."""

    def show(self, done: int, note: str = "") -> None:
        """Show nothing."""


@contextlib.contextmanager
def progress(
    name: str, total: int, unit: str, stream: TextIO | None = sys.stderr
) -> Iterator[Progress]:
    """Show the progress of a chunk while the block runs, if somebody sits there.

    Args:
        name: of the chunk.
        total: what will be done; 0: nobody knows.
        unit: of that: "rows" or "B".
        stream: shows it, if it is a terminal; None: it was closed.
    """
    if stream is None or not stream.isatty():
        yield Unseen()
        return
    from tqdm import tqdm  # noqa: PLC0415 (a service has no use for it)
    from tqdm.contrib.logging import logging_redirect_tqdm  # noqa: PLC0415

    tqdm.set_lock(threading.RLock())  # its own is for processes, and needs a file in /dev/shm
    with (
        logging_redirect_tqdm(),
        tqdm(
            desc=name,
            total=total or None,
            file=stream,
            leave=False,
            unit=unit if unit == "B" else f" {unit}",
            unit_scale=True,
            bar_format=FORMAT if total else FORMAT_WITHOUT_TOTAL,
            dynamic_ncols=True,
        ) as bar,
    ):

        class Bar:
            def show(self, done: int, note: str = "") -> None:
                bar.set_postfix_str(note, refresh=False)
                bar.update(done - bar.n)

        yield Bar()


def in_units(size: float) -> str:
    """Return a number of bytes for people: three digits and a unit."""
    for unit in UNITS:
        if size < 999.5 or unit == UNITS[-1]:
            break
        size /= 1000
    digits = 0 if unit == UNITS[0] or size >= 99.95 else 1 if size >= 9.995 else 2
    return f"{size:.{digits}f} {unit}"
