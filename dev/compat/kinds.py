"""Kinds of statements: what is left of them without literals and generated names."""

import re
from collections.abc import Iterable

from dev.embedded_clickhouse import sql
from dev.embedded_clickhouse.record import Statement

# Every session of the tools sets it, over both protocols; tests and demo do not.
_MARK_OF_THE_TOOLS = "session_timezone"
_NOT_TOLD = {_MARK_OF_THE_TOOLS, "log_comment"}
# A UUID, hexadecimal, a time.
_GENERATED = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{8,}|\d{4,}")
_LITERAL = "?"
# ?, ?, ? and (?), (?): however many there are.
_REPEATED = re.compile(r"(\? |\( \? \) |\[ \? \] )(?:, \1)+")


def is_of_a_tool(statement: Statement) -> bool:
    """Tell whether the product has sent it, not a test."""
    return _MARK_OF_THE_TOOLS in statement.settings


def kind_of(statement: Statement) -> str:
    """Return the text that all statements of a kind have in common."""
    words = "".join(f"{_normal(token)} " for token in sql.tokens(statement.text))
    shorter = ""
    while shorter != words:
        shorter, words = words, _REPEATED.sub(r"\1", words)
    settings = ", ".join(sorted(set(statement.settings) - _NOT_TOLD))
    behind = f"-- {settings}" if settings else ""
    return f"{statement.protocol}: {words}{behind}".strip()


def kinds_of(statements: Iterable[Statement]) -> set[str]:
    """Return the kinds of the statements that tools have sent."""
    return {kind_of(statement) for statement in statements if is_of_a_tool(statement)}


def _normal(token: sql.Token) -> str:
    if token.kind == "string" or token.text[0].isdigit():
        return _LITERAL
    return _GENERATED.sub("#", token.text) if token.kind in {"word", "quoted"} else token.text
