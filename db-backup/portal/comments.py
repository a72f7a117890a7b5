"""The comments that a table and its columns have in the database, as its CREATE statement says."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from schemas.tokens import SchemaRefused, Token, tokens_of


@dataclass
class Comments:
    """The comments of a table, and those of its columns by name."""

    table: str = ""
    columns: dict[str, str] = field(default_factory=dict)


def comments_of(schema: str) -> Comments:
    """Return the comments in a CREATE TABLE statement; none if it can't be understood."""
    comments = Comments()
    try:
        tokens = tokens_of(schema)
    except SchemaRefused:
        return comments
    depth, column = 0, ""
    for before, token, after in _with_neighbours(tokens):
        if token.is_symbol("("):
            depth += 1
        elif token.is_symbol(")"):
            depth -= 1
        elif depth == 1 and token.kind == "name" and (before.value in ("(", ",")):
            column = token.value
        elif token.is_word("COMMENT") and after.kind == "text":
            if depth == 1:
                comments.columns[column] = after.value
            elif depth == 0:
                comments.table = after.value
    return comments


def _with_neighbours(tokens: list[Token]) -> Iterator[tuple[Token, Token, Token]]:
    end = Token("end", "")
    yield from zip([end, *tokens], tokens, [*tokens[1:], end], strict=False)
