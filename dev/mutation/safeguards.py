"""Switch off one safeguard after the other, and see whether a test notices: `make safeguards`.

    python -m dev.mutation.safeguards [NAME …]

What is switched off how, and the tests that have to fail then, is in safeguards.toml. It is done in
a copy of the tree in build/mutation. It ends with 1 if the tests of one pass all the same, or fail
while nothing is switched off.
"""

import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dev.mutation.__main__ import TREE, copy_tree, failing_tests
from dev.mutation.forked import ROOT

MARKS = "not compat and not production and not stores"
LIST = Path(__file__).with_name("safeguards.toml")


@dataclass(frozen=True)
class Safeguard:
    """Something that keeps harm away.

    Attributes:
        name: of it.
        module: the path of the module that has it.
        was: the text there, once.
        now: what stands there when it is off.
        tests: arguments of pytest.
    """

    name: str
    module: str
    was: str
    now: str
    tests: tuple[str, ...]

    def switched_off(self, source: str) -> str:
        """Return a module without it; raise ValueError where its text isn't there once."""
        if (count := source.count(self.was)) != 1:
            raise ValueError(f"{self.name}: {self.module} has its text {count} times")
        return source.replace(self.was, self.now)


def main(names: Sequence[str]) -> int:
    """Try those of these names, or all; return the exit status."""
    safeguards = [one for one in read_safeguards() if not names or one.name in names]
    copy_tree()
    unnoticed = [one.name for one in safeguards if not is_noticed(one)]
    print(f"{len(safeguards) - len(unnoticed)} of {len(safeguards)} are noticed when they are off")
    return 1 if unnoticed or not safeguards else 0


def read_safeguards() -> list[Safeguard]:
    """Return all that are on the list."""
    entries = tomllib.loads(LIST.read_text())["safeguard"]
    return [Safeguard(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]


def is_noticed(safeguard: Safeguard) -> bool:
    """Tell whether its tests pass with it and fail without it."""
    file = TREE / safeguard.module
    original = (ROOT / safeguard.module).read_text()
    if failing_tests([safeguard.tests], MARKS):
        print(f"{safeguard.name}: its tests fail while it is on", flush=True)
        return False
    file.write_text(safeguard.switched_off(original))
    try:
        noticed = bool(failing_tests([safeguard.tests], MARKS))
    finally:
        file.write_text(original)
    print(f"{safeguard.name}: {'noticed' if noticed else 'NOT NOTICED'}", flush=True)
    return noticed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
