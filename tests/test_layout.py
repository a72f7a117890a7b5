"""The modules of the product stay small, and arrows between them run one way."""

import ast
import graphlib
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("ooni_common", "analysis", "db-backup", "detector", "geoip", "monitoring", "debian")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MOST_LINES = 250  # of code
LONGEST_FUNCTION = 50  # lines without the docstring: a screen
BLANK = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENDMARKER,
}  # fmt: skip


def lines_of_code(source: str) -> int:
    """Count lines that are neither blank nor a comment nor part of a docstring."""
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in BLANK
        for line in range(token.start[0], token.end[0] + 1)
    }
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            lines -= set(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
    return len(lines)


def test_lines_of_code_are_counted_without_docstrings_comments_and_blanks() -> None:
    source = '''"""Module

of two lines."""

# why
def f():
    """Docstring."""
    return """

"""
'''
    assert lines_of_code(source) == 4


def test_no_module_is_large() -> None:
    assert MODULES
    larger = [path for path in MODULES if lines_of_code(path.read_text()) > MOST_LINES]
    assert larger == []


def test_a_function_fits_a_screen() -> None:
    longer = [
        f"{path}: {node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and length(node) > LONGEST_FUNCTION
    ]
    assert longer == []


def length(function: ast.FunctionDef) -> int:
    """Count the lines of a function without its docstring."""
    documented = ast.get_docstring(function) is not None
    first = function.body[0]
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def imports_in(folder: str) -> dict[str, set[str]]:
    """Return which of a folder's modules each of them imports."""
    root = ROOT if folder == "ooni_common" else ROOT / folder
    paths = {
        ".".join(path.relative_to(root).with_suffix("").parts): path
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.name != "__init__.py"
    }
    return {name: set(imported(path)) & paths.keys() for name, path in paths.items()}


def imported(path: Path) -> Iterator[str]:
    """Yield what a module imports; of `from a import b`, both a and a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", ["ooni_common", "analysis", "db-backup", "detector", "geoip"])
def test_imports_go_in_no_circle(folder: str) -> None:
    imports = imports_in(folder)
    assert any(imports.values())
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize(("one", "other"), [("exports", "backups"), ("backups", "exports")])
def test_exports_and_backups_know_nothing_of_each_other(one: str, other: str) -> None:
    imports = imports_in("db-backup")
    ours = {name: names for name, names in imports.items() if name.startswith(f"{one}.")}
    assert ours
    assert [
        name for name, names in ours.items() if any(n.startswith(f"{other}.") for n in names)
    ] == []


@pytest.mark.parametrize("folder", ["geoip", "db-backup"])
def test_what_replaces_no_table_imports_nothing_of_the_swap(folder: str) -> None:
    modules = sorted((ROOT / folder).rglob("*.py"))
    assert modules
    assert [path for path in modules if "ooni_common.swap" in path.read_text()] == []
