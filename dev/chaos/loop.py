"""Running the steps of a schedule, one after the other, and telling how it went."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dev.chaos import kinds
from dev.chaos.actors import running_actors
from dev.chaos.actors.actor import Actor
from dev.chaos.kinds.kind import Kind
from dev.chaos.play import Play, Violation
from dev.chaos.scene import Scene, running_scene
from dev.chaos.schedule import Step
from dev.chaos.tool import Hung

SETUP = Step(0, "nothing", "", news=True, draws=(0.5,))


@dataclass
class Report:
    """How a chaos run went.

    Attributes:
        steps: by kind, how often it happened.
        violations: step and what was wrong.
    """

    steps: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[Step, str]] = field(default_factory=list)


def possible_kinds(actors: Iterable[str]) -> dict[str, list[str]]:
    """Return the kinds that can happen on this machine, and to whom of these.

    What this machine lacks is told.
    """
    possible = {}
    for kind in kinds.ALL:
        if lack := kind.missing():
            print(f"left out: {kind.name}: {lack}")
        elif chosen := [name for name in kind.actors if name in actors]:
            possible[kind.name] = chosen
    return possible


def run_steps(
    steps: Sequence[Step], *, seconds: float, verbose: bool = False, go_on: bool = False
) -> Report:
    """Run steps on fresh servers.

    Args:
        steps: in their order.
        seconds: no step begins later, counted from the first one.
        verbose: tell each run.
        go_on: do not stop at the first violation.
    """
    report = Report()
    by_name = {kind.name: kind for kind in kinds.ALL}
    names = {step.actor for step in steps}
    with running_scene() as scene, running_actors(scene, names) as actors:
        for actor in actors.values():
            _begin(scene, actor)
        begin = time.monotonic()
        for step in steps:
            if time.monotonic() >= begin + seconds:
                break
            report.steps[step.kind] += 1
            if violation := _violation_of(scene, actors, step, by_name[step.kind], verbose=verbose):
                report.violations.append((step, violation))
                if not go_on:
                    break
    return report


def _begin(scene: Scene, actor: Actor) -> None:
    """Run it twice without faults; note what is usual."""
    play = Play(scene, actor, SETUP)
    play.settle()
    actor.advance(0.5)
    scene.database.heal()
    begin = time.monotonic()
    play.run()
    actor.usual_seconds = time.monotonic() - begin
    actor.usual_bytes = {way: scene.database.passed(answers=way) for way in (False, True)}


def _violation_of(
    scene: Scene, actors: Mapping[str, Actor], step: Step, kind: Kind, *, verbose: bool
) -> str:
    """Run one step; return what is not as it must be, or ""."""
    actor = actors[step.actor]
    play = Play(scene, actor, step)
    print(f"{step.number:4} {actor.name}: {kind.name}", flush=True)
    violation = ""
    try:
        if step.news or kind.needs_news:
            actor.advance(step.draws[-1])
        actor.configure()
        kind.inflict(play)
        play.settle()
    except (Violation, Hung) as error:
        violation = str(error)
        play.mend()
        print("\n".join(_indented([*play.told, f"VIOLATION: {violation}"])), flush=True)
    if verbose and not violation:
        print("\n".join(_indented(play.told)), flush=True)
    return violation


def _indented(lines: Iterable[str]) -> Iterator[str]:
    for text in lines:
        yield from (f"     {line}" for line in text.splitlines())
