"""One step: runs of one tool, and what holds after each of them."""

import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import TypeVar

from dev.chaos.actors.actor import Actor
from dev.chaos.replicas import Replicas
from dev.chaos.scene import OneServer, Scene
from dev.chaos.schedule import Step
from dev.chaos.tool import Outcome, Tool

T = TypeVar("T")

HANG_SECONDS = 600  # for a machine under load
BUG = 70
PROVEN = 0.3  # the share of steps after which the tool itself says whether all is well


class Violation(Exception):
    """Something is not as it must be; the text says what."""


class Play:
    """What a kind of fault has: the scene, the tool, and draws.

    Attributes:
        scene: the servers.
        actor: the tool.
        reader: the number of a server, for what happens to one of several.
        told: what has happened, for a person.
        disturbed: whether the kind itself has changed what readers see; until a run ends well.
    """

    def __init__(self, scene: Scene, actor: Actor, step: Step) -> None:
        self.scene = scene
        self.actor = actor
        self.told: list[str] = []
        self.disturbed = False
        self.reader = int(step.draws[-2] * len(scene.readers))
        self._proves = step.draws[-1] < PROVEN
        self._draws = itertools.cycle(step.draws)

    @property
    def server(self) -> OneServer:
        """The scene, where it is one server."""
        if not isinstance(self.scene, OneServer):
            raise TypeError(self.scene)
        return self.scene

    @property
    def replicas(self) -> Replicas:
        """The scene, where it is a cluster."""
        if not isinstance(self.scene, Replicas):
            raise TypeError(self.scene)
        return self.scene

    def draw(self) -> float:
        """Return the next fraction of the step."""
        return next(self._draws)

    def between(self, low: float, high: float) -> float:
        """Return a number in between."""
        return low + (high - low) * self.draw()

    def choose(self, options: Sequence[T]) -> T:
        """Return one of them."""
        return options[int(self.draw() * len(options))]

    def start(self, *arguments: str, **environment: str) -> Tool:
        """Start the tool, as it is configured."""
        self.told.append(" ".join(["start", *arguments]))
        return self.actor.start(*arguments, **environment)

    def run(
        self,
        *arguments: str,
        allowed: Collection[int] = (0,),
        looks: bool = False,
        late: Collection[int] = (),
        **environment: str,
    ) -> Outcome:
        """Run the tool to its end; see `end`."""
        return self.end(self.start(*arguments, **environment), allowed, looks=looks, late=late)

    def end(
        self,
        tool: Tool,
        allowed: Collection[int],
        *,
        looks: bool = False,
        late: Collection[int] = (),
    ) -> Outcome:
        """Wait for the end of a run.

        Args:
            tool: the run.
            allowed: exit statuses; a signal's is negative.
            looks: it changes nothing, so that its success says nothing of what readers see.
            late: readers of servers that a run need not reach.

        Raises:
            Violation: an invariant does not hold.
            Hung: it did not end.
        """
        outcome = tool.end(HANG_SECONDS)
        self.told.append(f"status {outcome.status}, {outcome.seconds:.1f} s: {outcome.last_line}")
        violations = [*violations_of(outcome, allowed), *self._secrets(outcome)]
        self.disturbed = self.disturbed and (outcome.status != 0 or looks)
        for reader in () if self.disturbed else self.scene.readers:
            current = outcome.status == 0 and not looks and reader not in late
            violations += filter(None, self.actor.violations(current=current, reader=reader))
        if violations:
            raise Violation("\n".join([*violations, outcome.output]))
        return outcome

    def mend(self) -> None:
        """End all faults."""
        self.actor.upstream.heal()
        self.scene.mend()

    def settle(self) -> None:
        """End all faults; a run must succeed now, and leave nothing behind.

        Raises:
            Violation: an invariant does not hold.
            Hung: it did not end.
        """
        self.mend()
        self.actor.configure()
        self.actor.clear_temporary()
        self.run()
        if leftovers := list(self.actor.left_behind()):
            raise Violation(f"left behind: {', '.join(leftovers)}")
        if self._proves:
            self.actor.prove(self.run)

    def _secrets(self, outcome: Outcome) -> Iterator[str]:
        places = {"the output": outcome.output.encode()}
        places |= {f"the arguments {line!r}": line for line in outcome.arguments}
        places |= self.actor.written()
        for place, content in places.items():
            if any(secret in content for secret in self.scene.secrets):
                yield f"a secret is in {place}"


def violations_of(outcome: Outcome, allowed: Collection[int]) -> Iterator[str]:
    """Yield what is wrong with how a run ended."""
    if outcome.status not in allowed:
        yield f"exit status {outcome.status}, not one of {sorted(allowed)}"
    if outcome.status == BUG or "Traceback" in outcome.output:
        yield "a bug"
    if outcome.status > 0 and not outcome.last_line.strip():
        yield "it does not say why it failed"
