"""Expressions in a schema: they call what is harmless, and see the columns of their own table."""

from collections.abc import Collection

from schemas.harmless import is_harmless
from schemas.tokens import END, Reader, SchemaRefused, Token

VALUES = ("NULL", "true", "false", "inf", "nan")
OPERATORS = ("AND", "OR", "LIKE", "ILIKE", "IS", "BETWEEN", "AS", "ASC", "DESC")
PREFIXES = ("NOT", "DISTINCT")
LEAVING = ("ASC", "DESC", "NOT")  # after them, something is as complete as it was: a NOT LIKE b
SETS = "IN"
BEGINS = ("(", "[")
ENDS = (")", "]", ",")
IN_SETS = ("(", ")", "[", "]", ",", "-")


def take_expression(reader: Reader, where: str, ends: Collection[str] = ()) -> None:
    """Take an expression.

    The server does not quote names like TTL or GROUP. Such a word is a name where an operand has to
    be, and where there is one already, it is an operator or the beginning of something else.

    Args:
        reader: at its beginning; after it at its end.
        where: it stands, for the message.
        ends: the words with which something else begins.

    Raises:
        SchemaRefused: it calls something that is not allowed, or is none.
    """
    complete = taken = False  # whether it could end here
    while reader.next is not END and not (complete and reader.next.is_word(*ends)):
        token = reader.next
        if token.kind == "symbol" and token.value in ENDS:
            break
        if _is_operator(token, complete=complete):
            _take_operator(reader, where)
            complete &= token.is_word(SETS, *LEAVING)
        else:
            if complete and token.kind != "symbol":
                raise reader.unexpected("an operator")
            _take_operand(reader, where)
            complete = True
        taken = True
    if not taken:
        raise reader.unexpected(f"the expression of {where}")


def _is_operator(token: Token, *, complete: bool) -> bool:
    """Tell whether a token is an operator; complete: after what could be the whole expression."""
    if token.kind == "symbol":
        return token.value not in BEGINS and (complete or token.value != "*")
    return token.is_word(*PREFIXES) or (complete and token.is_word(SETS, *OPERATORS))


def _take_operator(reader: Reader, where: str) -> None:
    if reader.next.is_word(SETS):
        _take_set(reader, where)
        return
    token = reader.take()
    if token.is_symbol(".") and reader.ahead(1).is_symbol("("):
        # To the server, it is a part of the function's name.
        raise SchemaRefused(f"{where} calls a function after a point")


def take_expressions(reader: Reader, where: str, ends: Collection[str] = ()) -> None:
    """Take expressions with commas between them."""
    take_expression(reader, where, ends)
    while reader.accepts_symbol(","):
        take_expression(reader, where, ends)


def _take_operand(reader: Reader, where: str) -> None:
    token = reader.next
    if token.kind == "symbol" and token.value in BEGINS:
        _take_parenthesis(reader, where)
    elif token.kind in ("symbol", "number", "text") or token.is_word(*VALUES):
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
