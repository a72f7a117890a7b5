"""Running the steps of a schedule, and telling how it went."""

import contextlib
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from dev.chaos import kinds
from dev.chaos.actors import running_actors
from dev.chaos.actors.actor import Actor
from dev.chaos.beds import running_scene
from dev.chaos.kinds.kind import Kind
from dev.chaos.play import Play, Violation
from dev.chaos.scene import Scene
from dev.chaos.schedule import Step
from dev.chaos.tool import Hung

SETUP = Step(0, "nothing", "", news=True, draws=(0.5, 0.5))


@dataclass
class Report:
    """How a chaos run went.

    Attributes:
        steps: by kind, how often it happened.
        seconds: by tool, how long its steps took.
        violations: step and what was wrong.
    """

    steps: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    violations: list[tuple[Step, str]] = field(default_factory=list)

    def note(self, step: Step, seconds: float, violation: str) -> None:
        """Note how a step went; "" for no violation."""
        self.steps[step.kind] += 1
        self.seconds.setdefault(step.actor, []).append(seconds)
        if violation:
            self.violations.append((step, violation))

    def add(self, other: "Report") -> None:
        """Add what another one has."""
        self.steps += other.steps
        self.violations += other.violations
        for actor, seconds in other.seconds.items():
            self.seconds.setdefault(actor, []).extend(seconds)


def possible_kinds(bed: str, actors: Iterable[str]) -> dict[str, list[str]]:
    """Return the kinds that can happen on a bed and on this machine, and to whom of these.

    What this machine lacks is told.
    """
    possible = {}
    for kind in kinds.BEDS[bed]:
        if lack := kind.missing():
            print(f"left out: {kind.name}: {lack}")
        elif chosen := [name for name in kind.actors if name in actors]:
            possible[kind.name] = chosen
    return possible


def run_steps(
    steps: Sequence[Step],
    *,
    seconds: float,
    bed: str = "server",
    verbose: bool = False,
    go_on: bool = False,
) -> Report:
    """Run steps, those of each stream on fresh servers of its own.

    Args:
        steps: in their order.
        seconds: no step begins later, counted from the first one of its stream.
        bed: the kind of servers.
        verbose: tell each run.
        go_on: do not stop at the first violation.
    """
    report = Report()
    stop = threading.Event()
    stream = _Stream(bed, seconds, stop, verbose, go_on)
    numbers = sorted({step.stream for step in steps})
    with ThreadPoolExecutor(len(numbers)) as pool:
        dealt = [[step for step in steps if step.stream == number] for number in numbers]
        running = [pool.submit(stream.run, own) for own in dealt]
        try:
            for ended in running:
                report.add(ended.result())
        finally:
            stop.set()
    return report


@dataclass(frozen=True)
class _Stream:
    """Runs the steps of a stream, one after the other; see `run_steps`."""

    bed: str
    seconds: float
    stop: threading.Event
    verbose: bool
    go_on: bool

    def run(self, steps: Sequence[Step]) -> Report:
        """Run steps until time is up, or until there is a violation here or elsewhere."""
        try:
            return self._run(steps)
        except BaseException:
            self.stop.set()
            raise

    def _run(self, steps: Sequence[Step]) -> Report:
        report = Report()
        by_name = {kind.name: kind for kind in kinds.BEDS[self.bed]}
        names = {step.actor for step in steps}
        with running_scene(self.bed) as scene, running_actors(scene, names) as actors:
            for actor in actors.values():
                _begin(scene, actor)
            end = time.monotonic() + self.seconds
            for step in steps:
                begin = time.monotonic()
                if begin >= end or self.stop.is_set():
                    break
                play = Play(scene, actors[step.actor], step)
                violation = self._violation_of(play, step, by_name[step.kind])
                report.note(step, time.monotonic() - begin, violation)
                if violation and not self.go_on:
                    self.stop.set()
        return report

    def _violation_of(self, play: Play, step: Step, kind: Kind) -> str:
        """Run one step; return what is not as it must be, or ""."""
        violation = ""
        try:
            if step.news or kind.needs_news:
                play.actor.advance(step.draws[-1])
            play.actor.configure()
            kind.inflict(play)
            play.settle()
        except (Violation, Hung) as error:
            violation = str(error)
        except Exception:  # noqa: BLE001 (a server's, or a mistake here; the next step may go well)
            violation = traceback.format_exc()
        told = [f"{step.number:4} {step.actor}: {kind.name}"]
        if self.verbose or violation:
            told += _indented(play.told)
        if violation:
            told += _indented([f"VIOLATION: {violation}"])
            _recover(play)
        sys.stdout.write("\n".join(told) + "\n")  # at once: other streams tell theirs
        sys.stdout.flush()
        return violation


def _begin(scene: Scene, actor: Actor) -> None:
    """Run it twice without faults; note what is usual."""
    play = Play(scene, actor, SETUP)
    play.settle()
    actor.advance(0.5)
    scene.database.heal()
    scene.rows.heal()
    begin = time.monotonic()
    play.run()
    actor.usual_seconds = time.monotonic() - begin
    actor.usual_bytes = {way: scene.database.passed(answers=way) for way in (False, True)}
    actor.usual_row_bytes = scene.rows.passed(answers=True)


def _recover(play: Play) -> None:
    """Let the tool end well, so that the next step has nothing of this one."""
    play.mend()
    play.disturbed = True
    with contextlib.suppress(Violation, Hung):
        play.settle()


def _indented(lines: Iterable[str]) -> Iterator[str]:
    for text in lines:
        yield from (f"     {line}" for line in text.splitlines())
