"""Expressions in a schema: they call what is harmless, and see the columns of their own table."""

from collections.abc import Collection

from schemas.harmless import is_harmless
from schemas.tokens import END, Reader, SchemaRefused, Token

VALUES = ("NULL", "true", "false", "inf", "nan")
OPERATORS = ("AND", "OR", "NOT", "LIKE", "ILIKE", "IS", "BETWEEN", "AS", "ASC", "DESC", "DISTINCT")
SETS = "IN"
BEGINS = ("(", "[")
ENDS = (")", "]", ",")
IN_SETS = ("(", ")", "[", "]", ",", "-")


def take_expression(reader: Reader, where: str, ends: Collection[str] = ()) -> None:
    """Take an expression.

    Args:
        reader: at its beginning; after it at its end.
        where: it stands, for the message.
        ends: the words with which something else begins.

    Raises:
        SchemaRefused: it calls something that is not allowed, or is none.
    """
    was_value = taken = False
    while reader.next is not END and not reader.next.is_word(*ends):
        if reader.next.kind == "symbol" and reader.next.value in ENDS:
            break
        is_value = _is_value(reader.next)
        if is_value and was_value:
            raise reader.unexpected("an operator")
        _take_operand(reader, where)
        was_value, taken = is_value, True
    if not taken:
        raise reader.unexpected(f"the expression of {where}")


def _is_value(token: Token) -> bool:
    """Tell whether a token begins something that can't follow a value at once."""
    return token.kind != "symbol" and not token.is_word(SETS, *OPERATORS)


def take_expressions(reader: Reader, where: str, ends: Collection[str] = ()) -> None:
    """Take expressions with commas between them."""
    take_expression(reader, where, ends)
    while reader.accepts_symbol(","):
        take_expression(reader, where, ends)


def _take_operand(reader: Reader, where: str) -> None:
    token = reader.next
    if token.kind == "symbol":
        if token.value in BEGINS:
            _take_parenthesis(reader, where)
            return
        reader.take()
        if token.value == "." and reader.ahead(1).is_symbol("("):
            # To the server, it is a part of the function's name.
            raise SchemaRefused(f"{where} calls a function after a point")
    elif token.kind in ("number", "text"):
        reader.take()
    elif token.is_word(SETS):
        _take_set(reader, where)
    elif token.is_word(*VALUES, *OPERATORS):
        reader.take()
    elif reader.ahead(1).is_symbol("("):
        _take_call(reader, where)
    else:
        reader.take_name()


def _take_parenthesis(reader: Reader, where: str) -> None:
    begin = reader.next.value
    reader.take_symbol(begin)
    end = ENDS[BEGINS.index(begin)]
    if not reader.next.is_symbol(end):
        take_expressions(reader, where)
    reader.take_symbol(end)


def _take_call(reader: Reader, where: str) -> None:
    """Take a function and what it is given; an aggregate one has its parameters before that."""
    name = reader.next.value
    if reader.next.kind != "word" or not is_harmless(name):
        raise SchemaRefused(
            f"{where} calls the function {name!r}, which is not one that is allowed"
        )
    reader.take()
    while reader.next.is_symbol("("):
        _take_parenthesis(reader, where)


def _take_set(reader: Reader, where: str) -> None:
    """Take IN and values: a name there would be that of a table, which is read."""
    reader.take()
    depth = 0
    while True:
        token = reader.next
        is_value = token.kind in ("number", "text") or token.is_word(*VALUES)
        if token.is_word("tuple", "array") and reader.ahead(1).is_symbol("("):
            reader.take()
            continue
        if not is_value and not (token.kind == "symbol" and token.value in IN_SETS):
            raise SchemaRefused(f"{where} has {token.value!r} after IN: only values may be there")
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(token.value, 0) if not is_value else 0
        if token.kind == "symbol":
            reader.take_symbol(token.value)
        else:
            reader.take()
        if depth <= 0 and not token.is_symbol("-"):
            return
