"""The log: plain lines for people, lines with priorities for the journal, no secrets."""

import io
import logging
import os
import sys
from collections.abc import Mapping
from typing import TextIO

from ooni_common.output import printable, write_nowhere

LONGEST_ARGUMENT = 4000  # characters, of what a message is about


class LogHandler(logging.StreamHandler[TextIO]):
    """Writes the log to a stream, as long as somebody reads it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (as the library calls it)
        """Go on without a reader, or on a full disk; what else fails is told by the library."""
        error = sys.exc_info()[1]
        if isinstance(error, BrokenPipeError):
            write_nowhere(self.stream)
        elif not isinstance(error, OSError):
            super().handleError(record)


class LogFormatter(logging.Formatter):
    """Plain lines for people, lines with sd-daemon's `<N>` prefixes for the journal; no secrets."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal
        self.secrets: list[str] = []

    def format(self, record: logging.LogRecord) -> str:
        """Return the message, prefixed on every line: a traceback keeps its priority.

        What a message is about has no line breaks of its own: a name could pretend to be a message.
        """
        if isinstance(record.args, tuple):
            record.args = tuple(map(self._harmless, record.args))
        elif isinstance(record.args, Mapping):
            record.args = {
                printable(str(key)): self._harmless(value) for key, value in record.args.items()
            }
        text = super().format(record)
        for secret in self.secrets:
            text = text.replace(secret, "***")
        if self._journal:
            prefix = f"<{_syslog_priority(record.levelno)}>"
        else:
            prefix = f"{record.levelname.lower()}: " if record.levelno != logging.INFO else ""
        return "\n".join(prefix + line for line in text.splitlines() or [""])

    def _harmless(self, argument: object) -> object:
        """Return an argument without what it may have of secrets, control characters and length."""
        if isinstance(argument, int | float):
            return argument
        text = str(argument)
        shown = text
        for secret in self.secrets:  # before the characters are written in another way
            shown = shown.replace(secret, "***")
        shown = printable(shown)
        if len(shown) > LONGEST_ARGUMENT:
            shown = f"{shown[:LONGEST_ARGUMENT]}… ({len(shown):,} characters)"
        return argument if shown == text else shown


def set_up_logging(*, to_stdout: bool, verbose: bool) -> LogFormatter:
    """Log to standard error or output; ours only, as libraries log URLs with their secrets."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # whatever the locale, no line is lost
    stream = sys.stdout if to_stdout else sys.stderr
    formatter = LogFormatter(journal=not to_stdout and is_journal(stream, os.environ))
    handler = LogHandler(stream)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.CRITICAL, handlers=[handler], force=True)
    logging.getLogger("ooni").setLevel(logging.DEBUG if verbose else logging.INFO)
    return formatter


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Tell whether systemd connected `stream` to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):  # without a file behind it, as in tests; closed
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _syslog_priority(level: int) -> int:
    steps = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
    return next((priority for limit, priority in steps if level >= limit), 7)
