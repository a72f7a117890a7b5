"""What happens in a chaos run: drawn from a seed, written down before any of it happens.

No draw depends on how a step ended. So the same seed gives the same steps on every machine, and a
failure can be replayed from the file, up to the step that failed. What a step chooses among things
that it finds when it runs (objects, bytes, the usual duration) is chosen by a fraction from 0 to 1.
"""

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

DRAWS = 8
NEWS = 0.7  # the share of steps before which upstream gets something new


class Step(msgspec.Struct, frozen=True):
    """One fault of one tool.

    Attributes:
        number: from 1 on.
        kind: the name of the fault.
        actor: the name of the tool.
        news: whether upstream gets something new before it.
        draws: fractions, for all that the fault chooses.
        stream: steps of one stream follow one another; those of others happen meanwhile.
    """

    number: int
    kind: str
    actor: str
    news: bool
    draws: tuple[float, ...]
    stream: int = 0


def drawn(
    seed: int, actors_by_kind: Mapping[str, Sequence[str]], streams: int = 1
) -> Iterator[Step]:
    """Yield steps without end: every kind once, in any order, and then again.

    Args:
        seed: the same one gives the same steps.
        actors_by_kind: name of a kind → names of the tools that it can happen to.
        streams: the steps are dealt out to so many, in turn.
    """
    source = random.Random(seed)  # noqa: S311 (not for secrets)
    kinds = sorted(actors_by_kind)
    numbers = itertools.count(1)
    while True:
        for kind in source.sample(kinds, len(kinds)):
            actor = source.choice(sorted(actors_by_kind[kind]))
            news = source.random() < NEWS
            draws = tuple(round(source.random(), 6) for _ in range(DRAWS))
            number = next(numbers)
            yield Step(number, kind, actor, news, draws, number % streams)


def write(path: Path, steps: Iterable[Step]) -> None:
    """Write steps down, one a line."""
    path.write_bytes(b"".join(msgspec.json.encode(step) + b"\n" for step in steps))


def up_to(steps: Sequence[Step], number: int) -> list[Step]:
    """Return the steps of a stream up to one of them: what it takes to replay that one."""
    (last,) = (step for step in steps if step.number == number)
    return [step for step in steps if step.number <= number and step.stream == last.stream]


def read(path: Path) -> list[Step]:
    """Read what `write` has written.

    Raises:
        ValueError: a line isn't a step.
    """
    return [msgspec.json.decode(line, type=Step) for line in path.read_bytes().splitlines()]
