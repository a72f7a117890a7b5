"""Faults that dev.mutation makes in a module, one at a time."""

import ast
from pathlib import Path

import pytest

from dev.mutation.__main__ import described, read_explained
from dev.mutation.mutants import mutants_of
from dev.mutation.safeguards import read_safeguards
from dev.mutation.targets import TARGETS

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("code", "faults"),
    [
        ("x = a < b", ["a < b -> a <= b", "a < b -> a >= b"]),
        ("x = a in b", ["a in b -> a not in b"]),
        ("x = a and not b", ["a and (not b) -> a or not b", "not b -> b"]),
        ("x = a + b", ["a + b -> a - b"]),
        ("x = a if b else c", ["a if b else c -> a if not b else c"]),
        ("x = True", ["True -> False"]),
        ("x = 'text'", ["'text' -> ''"]),
        ("x = f'{a}'", ["f'{a}' -> ''"]),
        ("x = a[b:]", ["b: -> :"]),
        ("x = f(a, b=c)", ["f(a, b=c) -> f(a)"]),
        ("f(a)", ["f(a) -> pass"]),
        ("class A(a=True): pass", ["a=True -> False"]),
        ("x += a", ["x += a -> pass"]),
        ("def f():\n    return a", ["return a -> return None"]),
        ("if a:\n    b", ["if a: b -> if not a: b"]),
        ("x = [a for a in b if c]", [" for a in b if c ->  for a in b"]),
        ("raise Error('text')", ["raise Error('text') -> pass"]),
        ("C = TypeVar('C', bound='Config')", []),
        ('"""Docstring."""\nx: dict["str", 1]', []),
        ("@decorated(1)\ndef f(a: 'A') -> 'B':\n    return None", []),
    ],
)
def test_a_fault_is_what_somebody_could_have_written(code: str, faults: list[str]) -> None:
    mutants = mutants_of(code)
    assert [str(mutant).partition(": ")[2] for mutant in mutants] == [
        " ".join(fault.split()) for fault in faults
    ]


def test_a_mutant_differs_in_one_place_and_can_be_compiled() -> None:
    source = (ROOT / "db-backup/backups/retention.py").read_text()
    plain = ast.unparse(ast.parse(source)) + "\n"
    mutants = {mutant.applied(source) for mutant in mutants_of(source)}
    assert len(mutants) == len(mutants_of(source)) > 15
    assert plain not in mutants
    for mutant in mutants:
        compile(mutant, "mutant", "exec")


def test_what_is_explained_is_a_fault_of_today() -> None:
    explained = read_explained(ROOT / "dev/mutation/explained.toml")
    modules = {module for target in TARGETS.values() for module in target.modules}
    faults = {
        described(module, mutant)
        for module in modules
        for mutant in mutants_of((ROOT / module).read_text())
    }
    assert explained - faults == set()


def test_each_safeguard_stands_where_it_is_switched_off() -> None:
    names = [safeguard.name for safeguard in read_safeguards()]
    assert len(set(names)) == len(names) >= 20
    for safeguard in read_safeguards():
        source = (ROOT / safeguard.module).read_text()
        compile(safeguard.switched_off(source), safeguard.module, "exec")
