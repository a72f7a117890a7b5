"""The modules of the product stay small, and arrows between them run one way."""

import ast
import io
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("ooni_common", "analysis", "db-backup", "detector", "geoip", "monitoring", "debian")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MOST_LINES = 250  # of code
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


@pytest.mark.parametrize("folder", ["geoip", "db-backup"])
def test_what_replaces_no_table_imports_nothing_of_the_swap(folder: str) -> None:
    modules = sorted((ROOT / folder).rglob("*.py"))
    assert modules
    assert [path for path in modules if "ooni_common.swap" in path.read_text()] == []
