"""A tool as a process of its own: what it was started with, what it said, how it ended."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOOK_SECONDS = 0.02
KILL_SECONDS = 30


class Hung(Exception):
    """A tool did not end in time."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: the exit status; negative for a signal.
        output: everything that it printed.
        arguments: of it and of the processes that it started.
        seconds: from its start to its end.
    """

    status: int
    output: str
    arguments: frozenset[bytes]
    seconds: float

    @property
    def last_line(self) -> str:
        """The last line that it printed."""
        return self.output.rstrip("\n").rpartition("\n")[2]


class Tool:
    """A running tool; what it started ends with it, as in a service of systemd.

    Args:
        script: path of the script, below the checkout.
        arguments: for it.
        environment: on top of this process's.
        log: a file for what it prints.
    """

    def __init__(
        self, script: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self._log = log
        self._started = time.monotonic()
        self._arguments: set[bytes] = set()
        self._others: dict[int, int] = {}  # pid → a descriptor, which is of no later process
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / script), *arguments],
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; one that has ended gets none."""
        if self.has_ended:
            return
        if number == signal.SIGKILL:
            self._process.send_signal(signal.SIGSTOP)  # it starts nothing more while we look
            self._look()
        self._process.send_signal(number)

    def pause(self, seconds: float) -> None:
        """Let it run for a while, or to its end."""
        self._watch(seconds)

    def end(self, seconds: float) -> Outcome:
        """Wait for its end.

        Raises:
            Hung: it was still at work after this time; it is killed.
        """
        in_time = self._watch(seconds)
        self.send(signal.SIGKILL)
        self._process.wait()
        self._end_others()
        if not in_time:
            raise Hung(f"still at work after {seconds:.0f} s: {self._said()}")
        taken = time.monotonic() - self._started
        return Outcome(self._process.returncode, self._said(), frozenset(self._arguments), taken)

    def _watch(self, seconds: float) -> bool:
        """Note the arguments of its processes until it ends; return whether it did in time."""
        end = time.monotonic() + seconds
        while not self.has_ended:
            self._look()
            if time.monotonic() >= end:
                return False
            time.sleep(LOOK_SECONDS)
        return True

    def _look(self) -> None:
        """Note its processes and their arguments."""
        processes = _command_lines_of(self._process.pid)
        self._arguments.update(processes.values())
        for pid in processes.keys() - self._others.keys() - {self._process.pid}:
            with contextlib.suppress(ProcessLookupError):
                self._others[pid] = os.pidfd_open(pid)

    def _end_others(self) -> None:
        """End what it started and did not end: git, in a session of its own."""
        while self._others:
            pid, descriptor = self._others.popitem()
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            ended, _, _ = select.select([descriptor], [], [], KILL_SECONDS)
            os.close(descriptor)
            if not ended:
                raise Hung(f"process {pid} was killed, and is still there")

    def _said(self) -> str:
        return self._log.read_text(errors="replace")


def _command_lines_of(pid: int) -> dict[int, bytes]:
    """Return the command lines of a process and of all below it, as everybody can read them."""
    folder = Path("/proc") / str(pid)
    try:
        children = (folder / "task" / str(pid) / "children").read_text().split()
        lines = {pid: (folder / "cmdline").read_bytes()}
    except (FileNotFoundError, ProcessLookupError):
        return {}
    for child in children:
        lines |= _command_lines_of(int(child))
    return lines
