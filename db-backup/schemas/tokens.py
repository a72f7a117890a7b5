"""The tokens of a CREATE statement, and a reader that rewrites each of them.

Nothing of a statement from a bucket reaches the server as it stands there. What is a name is
quoted, what is a text is a literal: the server reads the tokens that were checked, and no others.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from ooni_common.database import literal, quoted

Kind = Literal["word", "name", "text", "number", "symbol", "end"]

LONGEST = 2**20  # characters of a statement
DEEPEST = 100  # parentheses within each other
SYMBOLS = ("->", "<=", ">=", "!=", "<>", "==", "||", "::", *"()[],.=<>+-*/%")
# SHOW CREATE writes no comments; to the server they are white space, and to us nothing at all.
COMMENTS = ("--", "/*", "#")
TOKEN = re.compile(
    r"(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<name>`(?:[^`\\]|\\.|``)*`|\"(?:[^\"\\]|\\.|\"\")*\")"
    r"|(?P<text>'(?:[^'\\]|\\.|'')*')"
    r"|(?P<number>0[xX][0-9a-fA-F]+|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)(?![A-Za-z0-9_])"
    rf"|(?P<symbol>{'|'.join(map(re.escape, SYMBOLS))})",
    re.DOTALL,
)
ELEMENT = re.compile(r"\d+(?![A-Za-z0-9_])")  # of a tuple, after a point
WHITE_SPACE = re.compile(r"[ \t\n]*")
ESCAPES = {"b": "\b", "f": "\f", "r": "\r", "n": "\n", "t": "\t", "0": "\0", "a": "\a", "v": "\v"}


class SchemaRefused(ValueError):
    """A statement from a bucket that is not executed; the message says what of it."""


@dataclass(frozen=True)
class Token:
    """A token.

    Attributes:
        kind: a "word" stands without quotes, a "name" with its own, a "text" with those of texts.
        value: without quotes and escapes.
        is_spaced: whether white space stands before it.
    """

    kind: Kind
    value: str
    is_spaced: bool = True

    @property
    def sql(self) -> str:
        """The token as SQL."""
        if self.kind == "name":
            return quoted(self.value)
        return literal(self.value) if self.kind == "text" else self.value

    def is_word(self, *words: str) -> bool:
        """Tell whether it is one of these words; the server writes its own in capitals."""
        return self.kind == "word" and self.value in words

    def is_symbol(self, symbol: str) -> bool:
        """Tell whether it is this symbol."""
        return self.kind == "symbol" and self.value == symbol


END = Token("end", "the end")


def tokens_of(statement: str) -> list[Token]:
    """Return the tokens of a statement.

    Raises:
        SchemaRefused: it has something that SHOW CREATE does not write.
    """
    if len(statement) > LONGEST:
        raise SchemaRefused(f"it is longer than {LONGEST:,} characters")
    tokens: list[Token] = []
    position = 0
    while True:
        begin = _end_of(WHITE_SPACE, statement, position)
        if begin == len(statement):
            return tokens
        if statement.startswith(COMMENTS, begin):
            raise SchemaRefused(f"it has a comment: {_excerpt(statement, begin)}")
        after_point = bool(tokens) and tokens[-1].is_symbol(".")
        match = (after_point and ELEMENT.match(statement, begin)) or TOKEN.match(statement, begin)
        if match is None:
            raise SchemaRefused(
                f"it can't be understood from here on: {_excerpt(statement, begin)}"
            )
        tokens.append(_token(match, is_spaced=begin > position))
        position = match.end()


def _end_of(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position


def _excerpt(statement: str, begin: int) -> str:
    return repr(statement[begin : begin + 30])


def _token(match: re.Match[str], *, is_spaced: bool) -> Token:
    match match.lastgroup:
        case "name" | "text" as kind:
            return Token(kind, _unquoted(match[0]), is_spaced)
        case "word" | "symbol" as kind:
            return Token(kind, match[0], is_spaced)
    return Token("number", match[0], is_spaced)  # of an ELEMENT, too, which has no group


def _unquoted(text: str) -> str:
    """Return what stands in quotes; an escape that is none of the server's is refused."""
    quote, inner = text[0], text[1:-1]

    def plain(match: re.Match[str]) -> str:
        if match[0] == quote * 2:
            return quote
        escaped = match[1]
        if escaped in ESCAPES:
            return ESCAPES[escaped]
        if escaped in "\\'`\"":
            return escaped
        if escaped == "x":
            return chr(int(match[2], 16)) if match[2] else refused(match[0])
        return refused(match[0])

    def refused(escape: str) -> str:
        raise SchemaRefused(f"it has an escape that is not known: {escape!r}")

    return re.sub(rf"{quote}{quote}|\\(.)((?<=x)[0-7][0-9a-fA-F])?", plain, inner, flags=re.DOTALL)


class Reader:
    """Goes through tokens, and keeps as SQL what was taken."""

    def __init__(self, statement: str) -> None:
        """Read a statement from its beginning.

        Raises:
            SchemaRefused: it has something that SHOW CREATE does not write.
        """
        self._tokens = tokens_of(statement)
        self._position = 0
        self._written: list[str] = []
        self._depth = 0

    @property
    def next(self) -> Token:
        """The token that comes."""
        return self.ahead(0)

    def ahead(self, count: int) -> Token:
        """Return a token that comes later."""
        index = self._position + count
        return self._tokens[index] if index < len(self._tokens) else END

    def written(self) -> str:
        """Return what was taken since the last call, as SQL."""
        text = "".join(self._written).strip()
        self._written.clear()
        return text

    def skip(self) -> Token:
        """Go past a token, which is left out."""
        token = self.next
        self._position += 1
        return token

    def take(self) -> Token:
        """Take the next token as it is."""
        token = self.skip()
        self._write(token, token.sql)
        return token

    def take_name(self) -> str:
        """Take a name, which is quoted from now on.

        Raises:
            SchemaRefused: there is none.
        """
        if self.next.kind not in ("word", "name"):
            raise self.unexpected("a name")
        token = self.skip()
        self._write(token, quoted(token.value))
        return token.value

    def take_symbol(self, symbol: str) -> None:
        """Take a symbol.

        Raises:
            SchemaRefused: another token comes, or too many parentheses are open.
        """
        if not self.next.is_symbol(symbol):
            raise self.unexpected(repr(symbol))
        self._depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(symbol, 0)
        if self._depth > DEEPEST:
            raise SchemaRefused(f"it has more than {DEEPEST} parentheses within each other")
        self.take()

    def take_kind(self, kind: Kind) -> Token:
        """Take a token of a kind.

        Raises:
            SchemaRefused: another one comes.
        """
        if self.next.kind != kind:
            raise self.unexpected(f"a {kind}")
        return self.take()

    def accepts(self, *words: str) -> bool:
        """Take words if they all come."""
        if not all(self.ahead(count).is_word(word) for count, word in enumerate(words)):
            return False
        for _ in words:
            self.take()
        return True

    def accepts_symbol(self, symbol: str) -> bool:
        """Take a symbol if it comes."""
        if not self.next.is_symbol(symbol):
            return False
        self.take_symbol(symbol)
        return True

    def take_word_of(self, allowed: Collection[str], kind: str) -> str:
        """Take one of some words.

        Args:
            allowed: the words.
            kind: what they are, for the message.

        Raises:
            SchemaRefused: another token comes.
        """
        if not self.next.is_word(*allowed):
            raise SchemaRefused(f"{kind} {self.next.value!r} is not one that is allowed")
        return self.take().value

    def unexpected(self, wanted: str) -> SchemaRefused:
        """Return the refusal of the token that comes."""
        return SchemaRefused(f"{self.next.value!r} stands where {wanted} is expected")

    def _write(self, token: Token, sql: str) -> None:
        self._written.append(f" {sql}" if token.is_spaced else sql)
