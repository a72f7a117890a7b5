"""Examining whether a run can succeed: one line for each thing, with what to do about it.

`diagnose` is what the command `doctor` of every tool does. `preflight` makes those of the same
checks that are cheap before a run writes anything, so that both end with the same line and status.
"""

import contextlib
import logging
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ooni_common.errors import (
    OUT_OF_SOMETHING,
    ConfigError,
    DataRefused,
    ScriptError,
    TryAgainLater,
    Unavailable,
)
from ooni_common.files import check_folder
from ooni_common.output import show

log = logging.getLogger("ooni.doctor")

CHECK_WIDTH = 15  # characters, of a check's name
# What needs a person outweighs what another run may not meet.
WORST_FIRST = [
    error.status for error in (ConfigError, ScriptError, DataRefused, Unavailable, TryAgainLater)
]

Check = Callable[[], str]  # says how something is, or raises a ScriptError
Checks = Iterable[tuple[str, Check]]  # with their names; one may depend on what is before it


class Note(str):
    """How something is that stops no run, but that somebody should look at."""

    __slots__ = ()


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check.

    Attributes:
        name: of the thing.
        text: how it is, or what is wrong and what to do.
        error: None, if a run can do with it.
    """

    name: str
    text: str
    error: ScriptError | None = None

    def __str__(self) -> str:
        state = "note" if isinstance(self.text, Note) else "ok"
        return f"{'FAILED' if self.error else state:<6}  {self.name:<{CHECK_WIDTH}}  {self.text}"


class Unhealthy(ScriptError):
    """A run would end with this status, or another one if that is mended."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def examine(checks: Checks) -> Iterator[CheckResult]:
    """Yield the result of each check, whatever is wrong with those before."""
    for name, check in checks:
        try:
            yield CheckResult(name, check())
        except ScriptError as error:
            yield CheckResult(name, str(error), error)
        except OSError as error:
            failure = _of_this_machine(error)
            yield CheckResult(name, str(failure), failure)


def _of_this_machine(error: OSError) -> ScriptError:
    where = f"{error.filename}: " if error.filename else ""
    kind = TryAgainLater if error.errno in OUT_OF_SOMETHING else ConfigError
    return kind(f"{where}{error.strerror or error}")


def diagnose(checks: Checks) -> None:
    """Print the result of each check.

    Raises:
        Unhealthy: some failed; with the status of the worst.
    """
    failures = []
    with _without_warnings():
        for result in examine(checks):
            show(str(result))
            failures += [result.error] if result.error else []
    if failures:
        count = "1 check" if len(failures) == 1 else f"{len(failures)} checks"
        raise Unhealthy(f"{count} failed; a run would not succeed", worst_of(failures).status)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep quiet what a check logs beside its line, unless each step is logged."""
    ours = logging.getLogger("ooni")
    level = ours.level
    if level != logging.DEBUG:
        ours.setLevel(logging.ERROR)
    try:
        yield
    finally:
        ours.setLevel(level)


def preflight(checks: Checks) -> None:
    """Make the checks before anything is written.

    Raises:
        ScriptError: the worst failure; the others are logged.
    """
    failures = []
    for result in examine(checks):
        if result.error:
            failures.append(result.error)
        elif isinstance(result.text, Note):
            log.warning("%s: %s", result.name, result.text)
    if failures:
        worst = worst_of(failures)
        for text in dict.fromkeys(map(str, failures)):
            if text != str(worst):
                log.error("%s", text)
        raise worst


def worst_of(failures: Sequence[ScriptError]) -> ScriptError:
    """Return the failure whose status tells the operator most; of equal ones the first."""
    return min(failures, key=lambda failure: WORST_FIRST.index(failure.status))


def machine_checks(state_dir: Path, statsd: str) -> Iterator[tuple[str, Check]]:
    """Yield the checks of what every tool has: its state directory, and where its metrics go."""
    yield "state directory", lambda: check_folder("state_dir", state_dir)
    yield "metrics", lambda: check_statsd(statsd)


def check_statsd(address: str) -> str:
    """Say where metrics are sent; nothing of that can stop a run.

    Args:
        address: `host:port`, or nothing.
    """
    if not address:
        return "none are sent to statsd"
    host, _, port = address.rpartition(":")
    try:
        addresses = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return Note(f"{host} has no address, so that all are lost: change statsd")
    return f"sent to {address} ({addresses[0][4][0]}, UDP)"
