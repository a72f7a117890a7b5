"""Signals at any moment, and two runs at once."""

import signal
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from typing import TYPE_CHECKING

from dev.chaos.kinds.kind import EVERYBODY, OVER_HTTP, WITH_DATABASE, Kind
from dev.chaos.play import HANG_SECONDS, Play, Violation
from dev.servers.fault_proxy import Exchange, after, passed
from dev.servers.tcp_proxy import calling

if TYPE_CHECKING:
    from dev.chaos.tool import Tool

MOST_REQUESTS = 8
STOPPED = {0, 75, -SIGTERM}  # -SIGTERM: before Python had got as far as the handler
KILLED = {0, -SIGKILL}
COMMANDS = (
    ("verify",),
    ("backup", "--full"),
    ("prune", "--keep", "1", "--older-than", "0", "--confirm"),
)


def _signalled(play: Play, number: signal.Signals, allowed: set[int]) -> None:
    tool = play.start()
    tool.pause(play.between(0, 1.1) * play.actor.usual_seconds)
    tool.send(number)
    play.end(tool, allowed)


def killed(play: Play) -> None:
    """Kill it after some time."""
    _signalled(play, SIGKILL, KILLED)


def terminated(play: Play) -> None:
    """Ask it to stop after some time."""
    _signalled(play, SIGTERM, STOPPED)


def terminated_twice(play: Play) -> None:
    """Ask it to stop, and once more before it has."""
    tool = play.start()
    tool.pause(play.between(0, 1.1) * play.actor.usual_seconds)
    tool.send(SIGTERM)
    tool.pause(play.between(0, 0.2))
    tool.send(SIGTERM)
    play.end(tool, STOPPED)


def paused(play: Play) -> None:
    """Stop it for a moment, as a machine that is suspended."""
    tool = play.start()
    tool.pause(play.between(0, 1) * play.actor.usual_seconds)
    tool.send(SIGSTOP)
    tool.pause(play.between(0, 1))
    tool.send(SIGCONT)
    play.end(tool, {0})


def started_twice(play: Play) -> None:
    """Start it a second time while it runs: one of them does the work."""
    tools = [play.start()]
    tools[0].pause(play.between(0, 0.5) * play.actor.usual_seconds)
    tools.append(play.start())
    for tool in tools:
        tool.pause(HANG_SECONDS)  # readers are asked when both have ended
    statuses = [play.end(tool, {0, 75}).status for tool in tools]
    if 0 not in statuses:
        raise Violation("neither of the two has done the work")


def _signalled_at_a_byte(play: Play, number: signal.Signals, allowed: set[int]) -> None:
    answers = play.draw() < 0.5
    position = int(play.draw() * play.actor.usual_bytes[answers])
    running: list[Tool] = []

    def signal_it() -> None:
        for tool in running:
            tool.send(number)

    play.scene.database.fail(calling(signal_it), after=position, answers=answers)
    running.append(play.start())
    play.end(running[0], allowed)


def killed_at_a_byte(play: Play) -> None:
    """Kill it when so much has gone to the database, or come from there."""
    _signalled_at_a_byte(play, SIGKILL, KILLED)


def terminated_at_a_byte(play: Play) -> None:
    """Ask it to stop at such a moment."""
    _signalled_at_a_byte(play, SIGTERM, STOPPED)


def killed_at_a_request(play: Play) -> None:
    """Kill it when it asks its upstream, or the store, for something."""
    running: list[Tool] = []

    def kill(exchange: Exchange) -> None:
        for tool in running:
            tool.send(SIGKILL)
        passed(exchange)

    first = int(play.draw() * MOST_REQUESTS)
    play.actor.upstream.fail(kill, after(first, lambda _request: True), times=1)
    running.append(play.start())
    play.end(running[0], KILLED)


def command_killed(play: Play) -> None:
    """End a command that makes, reads or removes backups; `verify` clears up behind it."""
    tool = play.start(*play.choose(COMMANDS))
    tool.pause(play.between(0, 2) * play.actor.usual_seconds)
    tool.send(play.choose((SIGKILL, SIGTERM)))
    play.end(tool, KILLED | STOPPED, looks=True)
    play.run("verify", looks=True)


KINDS = (
    Kind("killed", EVERYBODY, killed),
    Kind("killed at a byte of the database", WITH_DATABASE, killed_at_a_byte),
    Kind("killed at a request", OVER_HTTP, killed_at_a_request),
    Kind("terminated", EVERYBODY, terminated),
    Kind("terminated at a byte of the database", WITH_DATABASE, terminated_at_a_byte),
    Kind("terminated twice", EVERYBODY, terminated_twice),
    Kind("command killed", ("backup",), command_killed),
    Kind("paused", EVERYBODY, paused),
    Kind("started twice", EVERYBODY, started_twice),
)
