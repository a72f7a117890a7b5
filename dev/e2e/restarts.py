"""How often systemd starts a service, and whom it tells, by the exit status of the tool."""

import time
from collections.abc import Callable
from pathlib import Path

from dev.e2e.container import Container
from dev.e2e.steps import expect, title

SELDOM = ("ooni-update-asn-metadata", "ooni-download-geoip", "ooni-db-backup")
OFTEN = ("ooni-update-citizenlab", "ooni-update-fingerprints", "detector")
STARTS = 6  # of a service that runs daily or weekly, in 12 hours
MANY = 100
DROP_IN = "stand.conf"
PATIENCE = 120  # seconds

# Counts its starts, and ends as the file says.
COUNTING = "/bin/sh -c 'echo >> /var/lib/{state}/starts; exit $(cat /var/lib/{state}/status)'"
EVERY_INSTANT = """\
[Timer]
OnCalendar=
OnActiveSec=1ms
OnUnitInactiveSec=1ms
RandomizedDelaySec=0
AccuracySec=1ms
"""


class Stand:
    """A service whose tool is replaced by what only counts, and ends with a status of choice."""

    def __init__(self, container: Container, command: str) -> None:
        self._container = container
        self.command = command
        state = container.output(f"systemctl show -P StateDirectory {command}").strip()
        self._state = container.root / "var/lib" / state
        self._units = container.root / "etc/systemd/system"
        exec_start = COUNTING.format(state=state).replace("$", "$$")
        self._drop_in(
            "service", f"[Service]\nExecStart=\nExecStart={exec_start}\nRestartSec=100ms\n"
        )

    def end_with(self, status: int) -> None:
        """Let the tool end so, and count from none."""
        (self._state / "starts").write_text("")
        (self._state / "starts").chmod(0o666)
        (self._state / "status").write_text(f"{status}\n")
        self._forget()

    def next_ends_with(self, status: int) -> None:
        """Let the tool end so, and forget nothing."""
        (self._state / "status").write_text(f"{status}\n")

    def stop_its_timer(self) -> None:
        """Let nobody else start it, and end the run that it has begun."""
        self._container.run(f"systemctl stop {self.command}.timer")
        self._container.run(f"systemctl stop {self.command}")

    def fire_at_every_instant(self) -> None:
        """Let its timer do so."""
        self._drop_in("timer", EVERY_INSTANT)
        self._container.run(f"systemctl restart {self.command}.timer")

    def start(self) -> None:
        """Start it once, as its timer does."""
        self._container.run(f"systemctl start {self.command}", check=False)

    def starts(self) -> int:
        """Return how often it was started."""
        return (self._state / "starts").read_text().count("\n")

    def is_over(self) -> bool:
        """Tell whether it has failed for good, or is done."""
        query = f"systemctl show -P ActiveState {self.command}"
        return self._container.output(query).strip() in ("failed", "inactive")

    def told(self) -> int:
        """Return how often somebody was told that it has failed."""
        told = self._container.journal("ooni-tool-failed", "-o cat")
        return told.count(f"{self.command} has failed")

    def is_forgotten(self) -> bool:
        """Tell whether its next failure will be told."""
        query = f"systemctl show -P ActiveState ooni-tool-failed@{self.command}"
        return self._container.output(query).strip() == "inactive"

    def remove(self) -> None:
        """Put the tool back."""
        for kind in ("service", "timer"):
            (self._folder(kind) / DROP_IN).unlink(missing_ok=True)  # others may lie beside it
        for name in ("starts", "status"):
            (self._state / name).unlink()
        self._container.run("systemctl daemon-reload")
        self._container.run(f"systemctl restart {self.command}.timer")
        self._forget()

    def _forget(self) -> None:
        """Forget that it has failed, which is told once until it succeeds."""
        failed = f"ooni-tool-failed@{self.command}"
        self._container.run(f"systemctl stop {self.command} {failed} 2> /dev/null", check=False)
        self._container.run(f"systemctl reset-failed {self.command}", check=False)

    def _folder(self, kind: str) -> Path:
        return self._units / f"{self.command}.{kind}.d"

    def _drop_in(self, kind: str, text: str) -> None:
        self._folder(kind).mkdir(parents=True, exist_ok=True)
        (self._folder(kind) / DROP_IN).write_text(text)
        self._container.run("systemctl daemon-reload")


def restart_and_tell(container: Container) -> None:
    """Services that run seldom are tried again, but not for what no other run mends."""
    title("services that fail are started again, or not, and somebody is told once")
    for command in SELDOM:
        stand = Stand(container, command)
        for status, starts in ((69, STARTS), (75, STARTS), (65, 1), (70, 1), (78, 1)):
            expect_starts(stand, status, starts)
        stand.remove()
    for command in OFTEN:
        stand = Stand(container, command)
        expect_no_failure(stand)
        expect_told_once(stand)
        stand.remove()


def expect_starts(stand: Stand, status: int, starts: int) -> None:
    """Start a service whose tool ends so; it is started so many times, and told once."""
    stand.end_with(status)
    told = stand.told()
    stand.start()
    wait_until(lambda: stand.told() > told and stand.is_over())
    expect(
        (stand.starts(), stand.told() - told) == (starts, 1),
        f"{stand.command}, exit status {status}: {stand.starts()} of {starts} starts, told once",
    )


def expect_no_failure(stand: Stand) -> None:
    """Let the timer of a service fire very often."""
    stand.end_with(0)
    told = stand.told()
    stand.fire_at_every_instant()
    wait_until(lambda: stand.starts() >= MANY)
    expect(
        stand.starts() >= MANY and stand.told() == told,
        f"{stand.command}: {stand.starts()} starts by its timer are allowed",
    )


def expect_told_once(stand: Stand) -> None:
    """Let a service fail again and again, as where upstream is bad for a month, and twice so."""
    stand.stop_its_timer()
    stand.end_with(65)
    told = stand.told()
    for streak in (1, 2):
        stand.next_ends_with(65)
        for _ in range(10):
            stand.start()
            wait_until(stand.is_over)
        wait_until(lambda: stand.told() == told + streak)  # noqa: B023 (called at once)
        stand.next_ends_with(0)
        stand.start()
        wait_until(stand.is_forgotten)
    expect(stand.told() - told == 2, f"{stand.command}: ten failures are told once, ten more again")


def wait_until(reached: Callable[[], bool]) -> None:
    """Wait for something; what is not reached in time is for the caller to see."""
    deadline = time.monotonic() + PATIENCE
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.2)
