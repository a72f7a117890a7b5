"""Measuring whole processes, side by side."""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Contender:
    """One of the commands that are compared.

    Attributes:
        command: what to run.
        prepare: called before each run, not measured.
        statuses: the exit statuses that are fine.
    """

    command: Sequence[str]
    prepare: Callable[[], object] = lambda: None
    statuses: Sequence[int] = (0,)


@dataclass(frozen=True)
class Figures:
    """What one process took: seconds of wall clock, of processor, and MiB of memory at its peak.

    Child processes count as far as the process waited for them; of the memory, the largest one.
    """

    wall: float
    cpu: float
    peak: float


# A process inherits the peak memory of the one that starts it, so this small one does. It takes the
# command's arguments, and prints exit status, seconds and KiB.
MEASURER = """
import os, sys, time
nothing = os.open(os.devnull, os.O_RDWR)
quiet = [(os.POSIX_SPAWN_DUP2, nothing, number) for number in (0, 1, 2)]
started = time.perf_counter()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, usage = os.wait4(pid, 0)
wall = time.perf_counter() - started
cpu = usage.ru_utime + usage.ru_stime
print([os.waitstatus_to_exitcode(status), wall, cpu, usage.ru_maxrss])
"""


def run(contender: Contender, environment: Mapping[str, str]) -> Figures:
    """Run a command once.

    Raises:
        subprocess.CalledProcessError: its exit status is not among the fine ones.
    """
    contender.prepare()
    measurer = [sys.executable, "-I", "-S", "-c", MEASURER, *contender.command]
    printed = subprocess.run(measurer, env=environment, stdout=subprocess.PIPE, check=True).stdout
    status, wall, cpu, peak = json.loads(printed)
    if status not in contender.statuses:
        raise subprocess.CalledProcessError(status, contender.command)
    return Figures(wall, cpu, peak / 1024)


def peak_of_own_memory(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Run a command; return the most memory, in MiB, that was its own: mapped files do not count.

    The kernel keeps no peak of that, so it is looked at every few milliseconds.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    peak = 0
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            resident = re.search(r"RssAnon:\s*(\d+) kB", status.read_text())
            peak = max(peak, int(resident[1]) if resident else 0)
            time.sleep(0.003)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return peak / 1024


def forget_peak_of(pid: int) -> None:
    """Let the most memory that a running process has had be what it has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # as proc(5) has it


def peak_of(pid: int) -> float:
    """Return the most memory that a running process has had, in MiB."""
    peak = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(peak[1]) / 1024 if peak else 0.0


def seconds_of(pid: int) -> float:
    """Return how long a running process has had a processor, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # as proc(5) has it
    user, system = fields[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def compare(
    contenders: Mapping[str, Contender], environment: Mapping[str, str], rounds: int = 7
) -> dict[str, Figures]:
    """Run all contenders in turn, after one round to warm up; print and return the medians.

    In turn, because other work on the machine then slows all of them alike.
    """
    measured: dict[str, list[Figures]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            figures = run(contender, environment)
            if number:
                measured[name].append(figures)
    return show_medians(measured, rounds)


def show_medians(measured: Mapping[str, Sequence[Figures]], rounds: int) -> dict[str, Figures]:
    """Print and return the medians of what was measured in some rounds."""
    medians = {name: _medians(figures) for name, figures in measured.items()}
    print(f"{'median of ' + str(rounds):<44} {'wall':>17}  {'cpu':>7} {'peak memory':>12}")
    for name, median in medians.items():
        walls = [figures.wall for figures in measured[name]]
        spread = f"({min(walls):.2f}-{max(walls):.2f})"
        print(
            f"{name:<44} {median.wall:6.2f} s {spread:>11}"
            f" {median.cpu:6.2f} s {median.peak:8.0f} MiB"
        )
    return medians


def show_processors(
    contender: Contender, environment: Mapping[str, str], servers: Mapping[str, int]
) -> None:
    """Run a command; print what it and its servers took of the processors, and what that allows.

    In production the servers are other machines. Here all share the cores.
    """
    before = {name: seconds_of(pid) for name, pid in servers.items()}
    figures = run(contender, environment)
    taken = {"command": figures.cpu} | {
        name: seconds_of(pid) - before[name] for name, pid in servers.items()
    }
    cores = len(os.sched_getaffinity(0))
    print(
        f"{figures.wall:.2f} s with {cores} cores; at least {sum(taken.values()) / cores:.2f} s, by"
        f" the processors: {', '.join(f'{name} {spent:.1f} s' for name, spent in taken.items())}"
    )


def ratio(medians: Mapping[str, Figures], dividend: str, divisor: str, goal: str) -> None:
    """Print how many times as long as the divisor the dividend takes."""
    quotient = medians[dividend].wall / medians[divisor].wall
    print(f"{dividend} / {divisor}: {quotient:.2f} (goal: {goal})")


def _medians(figures: Sequence[Figures]) -> Figures:
    return Figures(
        statistics.median(figure.wall for figure in figures),
        statistics.median(figure.cpu for figure in figures),
        statistics.median(figure.peak for figure in figures),
    )
