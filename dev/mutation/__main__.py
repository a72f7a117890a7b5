"""Make small faults in the pure modules, one at a time, and see whether a test notices each.

    python -m dev.mutation --seed 1 --sample 40 [TARGET …]

For every target (dev/mutation/targets.py) a sample of all faults is drawn, in a copy of the tree in
build/mutation. What no test notices is a survivor: it is printed, and belongs in a test, or, where
it changes nothing that anybody could see, in explained.toml. It ends with 1 if fewer than 90 % of
the others of a target were noticed.
"""

import argparse
import itertools
import random
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dev.mutation.forked import ROOT, status_of_tests
from dev.mutation.mutants import Mutant, mutants_of
from dev.mutation.targets import FAST, TARGETS, Target, Tests

TREE = ROOT / "build/mutation"
LEAST = 0.9  # of a target's faults that tests notice
SECONDS = 600  # for the tests of one fault; one that hangs is noticed

Explained = tuple[str, str, str, str]  # module, line without blanks, code, what is there instead


@dataclass(frozen=True)
class Trial:
    """A fault in a module of a target, and what became of it."""

    module: str
    mutant: Mutant
    outcome: str  # killed, explained or survived


def main() -> int:
    """Try a sample for each target; return the exit status."""
    arguments = _arguments()
    explained = read_explained(Path(__file__).with_name("explained.toml"))
    copy_tree()
    good = True
    for name in arguments.target or TARGETS:
        drawn = sample(TARGETS[name], arguments.seed, arguments.sample)
        print(f"{name}: {len(drawn)} faults, seed {arguments.seed}", flush=True)
        tests = {TARGETS[name].tests_of(module) for module, _ in drawn}
        if failed := failing_tests(list(dict.fromkeys(itertools.chain(*tests)))):
            print(f"  without any fault a test fails: {failed}")
            good = False
            continue
        trials = [attempt(TARGETS[name], module, mutant, explained) for module, mutant in drawn]
        good &= report(trials)
    return 0 if good else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev.mutation")
    parser.add_argument("target", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sample", type=int, default=40, help="faults for a target; 0: all")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.target) - TARGETS.keys()):
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    return arguments


def read_explained(path: Path) -> set[Explained]:
    """Return the faults that nobody could see."""
    entries = tomllib.loads(path.read_text())["fault"]
    return {(entry["module"], entry["within"], entry["was"], entry["now"]) for entry in entries}


def described(module: str, mutant: Mutant) -> Explained:
    """Return how explained.toml names a fault: its line may move, and be there twice."""
    line = (ROOT / module).read_text().splitlines()[mutant.line - 1].strip()
    return module, line, mutant.keyword + mutant.was, mutant.now


def copy_tree() -> None:
    """Copy what git knows of the checkout, and what is new in it, to build/mutation."""
    shutil.rmtree(TREE, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (TREE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, TREE / name, follow_symlinks=False)


def sample(target: Target, seed: int, number: int) -> list[tuple[str, Mutant]]:
    """Return so many faults of a target, drawn with a seed; all of them if number is 0."""
    every = [
        (module, mutant)
        for module in target.modules
        for mutant in mutants_of((ROOT / module).read_text())
    ]
    if not number or number >= len(every):
        return every
    places = random.Random(seed).sample(range(len(every)), number)  # noqa: S311 (no secret)
    return [every[place] for place in sorted(places)]


def attempt(target: Target, module: str, mutant: Mutant, explained: set[Explained]) -> Trial:
    """Run the tests with one fault."""
    if described(module, mutant) in explained:
        return Trial(module, mutant, "explained")
    file = TREE / module
    original = file.read_text()
    file.write_text(mutant.applied(original))
    try:
        outcome = "killed" if failing_tests(target.tests_of(module)) else "survived"
    finally:
        file.write_text(original)
    if outcome == "survived":
        print(f"  survived: {module}:{mutant}", flush=True)
    return Trial(module, mutant, outcome)


def failing_tests(tests: Iterable[Tests], marks: str = FAST) -> str:
    """Return the tests that fail in the copy, or that do not end; empty: all pass.

    Args:
        tests: those to run, one after the other.
        marks: which of them, as an expression of pytest.
    """
    options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=first fault"]
    for arguments in tests:
        if status_of_tests(TREE, [*options, "-m", marks, *arguments], SECONDS) != 0:
            return " ".join(arguments)
    return ""


def report(trials: list[Trial]) -> bool:
    """Print how many faults were noticed; tell whether it is enough."""
    numbers = dict.fromkeys(("killed", "explained", "survived"), 0)
    for trial in trials:
        numbers[trial.outcome] += 1
    counted = numbers["killed"] + numbers["survived"]
    share = numbers["killed"] / counted if counted else 1
    print(f"  {', '.join(f'{number} {name}' for name, number in numbers.items())}: {share:.0%}")
    return share >= LEAST


if __name__ == "__main__":
    sys.exit(main())
