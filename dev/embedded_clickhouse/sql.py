"""Just enough reading of SQL to tell an INSERT's head from its data and to find a FORMAT clause.

Everything else about a statement is the engine's business.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from dev.embedded_clickhouse.errors import Code, ServerError

_TOKEN = re.compile(
    r"""
    (?P<skip>\s+|--[^\n]*|\#[ !][^\n]*|/\*.*?\*/)
    |(?P<string>'(?:[^'\\]++|\\.|'')*+'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
    |(?P<quoted>`(?:[^`\\]|\\.|``)*`|"(?:[^"\\]|\\.|"")*")
    |(?P<word>\w+)
    |(?P<sign>.)
    """,
    re.DOTALL | re.VERBOSE,
)
_ESCAPES = {  # by the quotes around it
    "`": re.compile(r"\\(.)|``", re.DOTALL),
    '"': re.compile(r'\\(.)|""', re.DOTALL),
}
# A server takes the data from the line after the format, else from the first visible character.
_DATA_PREFIX = re.compile(r";?[ \t\f]*\r?\n?")
_DATA_WORDS = frozenset({"VALUES", "FORMAT"})
# What queries that can be streamed begin with; "" is a parenthesis.
SELECTS = frozenset({"SELECT", "WITH", "FROM", ""})
_ORDERS = frozenset({"ASC", "DESC"})
_QUERY_WORDS = frozenset({"SELECT", "WITH", "WATCH", "FROM"})


@dataclass(frozen=True)
class Token:
    """A piece of SQL that means something.

    Attributes:
        kind: "word", "quoted" (an identifier), "string" or "sign".
        text: as it stands in the statement.
        begin: index of its first character.
        end: index behind its last one.
        depth: how many parentheses are open around it; a parenthesis counts as inside itself.
    """

    kind: str
    text: str
    begin: int
    end: int
    depth: int

    @property
    def keyword(self) -> str:
        """The word in capitals; empty for anything else."""
        return self.text.upper() if self.kind == "word" else ""


def tokens(sql: str, position: int = 0) -> Iterator[Token]:
    """Yield the tokens of a statement, without blanks and comments."""
    depth = 0
    while match := _TOKEN.match(sql, position):
        position = match.end()
        kind = match.lastgroup or ""
        if kind == "tag":
            kind = "string"
        if kind == "skip":
            continue
        depth += match[0] == "("
        yield Token(kind, match[0], match.start(), match.end(), depth)
        depth -= match[0] == ")"


def quote(identifier: str) -> str:
    """Return the identifier in back-quotes."""
    return "`" + identifier.replace("\\", "\\\\").replace("`", "\\`") + "`"


def quote_string(value: str) -> str:
    """Return the string as a SQL literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def escape_parameter(value: str) -> str:
    """Return the text in the escaped form in which query parameters are passed."""
    return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


def _unquote(token: Token) -> str:
    if token.kind != "quoted":
        return token.text
    escape = _ESCAPES[token.text[0]]
    return escape.sub(lambda match: match[1] or match[0][0], token.text[1:-1])


@dataclass(frozen=True)
class Insert:
    """An INSERT that takes its rows from the client.

    Attributes:
        target: the table or table function, as `DESCRIBE TABLE` takes it.
        head: the statement from INSERT to the column list.
        columns: the names in the column list; none without one, or when it holds an expression.
        column_list: the column list as it stands, without its parentheses.
        settings: the SETTINGS clause, or "".
        format_name: the input format that the statement names.
        data: what stands behind the format: rows in the statement itself.
        structure: what `input(…)` says of the rows, as SQL, if they go through a SELECT; else "".
        rest: in that case, the statement behind `input(…)`, up to the format; `head` is all before.
    """

    target: str
    head: str
    columns: tuple[str, ...]
    column_list: str
    settings: str
    format_name: str
    data: str
    structure: str = ""
    rest: str = ""

    def from_file(self, path: str, format_name: str) -> str:
        """Return the statement that reads the rows from a file instead."""
        if self.structure:
            source = f"file({quote_string(path)}, {quote_string(format_name)}, {self.structure})"
            return f"{self.head}{source}{self.rest}"
        source = f"FROM INFILE {quote_string(path)} COMPRESSION 'none'"
        return f"{self.head} {source} {self.settings} FORMAT {format_name}"


class _InsertParser:
    def __init__(self, sql: str) -> None:
        self._sql = sql
        self._tokens = tokens(sql)
        self._end = Token("", "", len(sql), len(sql), 0)
        self._consumed = 0
        self.token = self._end
        self.advance()

    def advance(self) -> Token:
        """Step to the next token and return the one before it."""
        token = self.token
        self._consumed = token.end
        self.token = next(self._tokens, self._end)
        return token

    def skip_group(self) -> str:
        """Step over a parenthesised group and return what is in it."""
        opening = self.advance()
        while self.token.kind and not (
            self.token.text == ")" and self.token.depth == opening.depth
        ):
            self.advance()
        return self._sql[opening.end : self.advance().begin]

    def parse(self) -> Insert | None:
        begin = self.token.begin
        if self.advance().keyword != "INSERT":
            return None
        for word in ("INTO", "TABLE"):
            if self.token.keyword == word:
                self.advance()
        target = self._target()
        column_list = self._column_list()
        if column_list is None:
            return None
        self._skip_until(_DATA_WORDS | _QUERY_WORDS | {"SETTINGS"})
        head = self._sql[begin : self.token.begin]
        settings = self._settings()
        if self.token.keyword not in _DATA_WORDS:
            self._refuse_files()
            return self._through_select(begin, target, column_list)
        if self.advance().keyword == "VALUES":
            format_name = "Values"
        else:
            format_name = self.advance().text
            if self.token.keyword == "SETTINGS" and not settings:
                settings = self._settings(follows_format=True)
        columns = _plain_columns(column_list)
        data = _DATA_PREFIX.sub("", self._sql[self._consumed :], count=1)
        return Insert(target, head, columns, column_list, settings, format_name, data)

    def _target(self) -> str:
        if self.token.keyword == "FUNCTION":
            self.advance()
            begin = self.token.begin
            while self.token.kind and self.token.text != "(":
                self.advance()
            self.skip_group()
        else:
            begin = self.advance().begin
            while self.token.text == ".":
                self.advance()
                self.advance()
        return self._sql[begin : self._consumed]

    def _column_list(self) -> str | None:
        """Return the column list, "" without one, None when the parenthesis is a SELECT's."""
        if self.token.text != "(":
            return ""
        columns = self.skip_group()
        first = next(tokens(columns), self._end)
        return None if first.keyword in {"SELECT", "WITH"} or first.text == "(" else columns

    def _skip_until(self, words: frozenset[str] | set[str]) -> None:
        while self.token.kind and not (self.token.keyword in words and not self.token.depth):
            self.advance()

    def _settings(self, *, follows_format: bool = False) -> str:
        if self.token.keyword != "SETTINGS":
            return ""
        begin = self.token.begin
        if not follows_format:
            self._skip_until(_DATA_WORDS | _QUERY_WORDS)
            return self._sql[begin : self.token.begin]
        comma = True
        while comma:
            self.advance()
            self.advance()  # name
            self.advance()  # =
            self.advance()  # value
            comma = self.token.text == ","
        return self._sql[begin : self._consumed]

    def _refuse_files(self) -> None:
        if self.token.keyword == "FROM":
            self.advance()
            if self.token.keyword == "INFILE":
                message = (
                    "INSERT ... FROM INFILE is a feature of clickhouse-client, not of a server"
                )
                raise ServerError(Code.NOT_IMPLEMENTED, message)

    def _through_select(self, begin: int, target: str, column_list: str) -> Insert | None:
        """Parse the rest of INSERT … SELECT … FROM input(…) … FORMAT …; None for another SELECT."""
        last = self.advance()
        while self.token.kind and not (last.keyword == "INPUT" and self.token.text == "("):
            last = self.advance()
        if not self.token.kind:
            return None
        head, structure = self._sql[begin : last.begin], self.skip_group()
        behind = self._consumed
        self._skip_until({"FORMAT"})
        rest = self._sql[behind : self.token.begin]
        self.advance()
        name = self.advance().text
        data = _DATA_PREFIX.sub("", self._sql[self._consumed :], count=1)
        columns = _plain_columns(column_list)
        return Insert(target, head, columns, column_list, "", name, data, structure, rest)


def _plain_columns(column_list: str) -> tuple[str, ...]:
    names, name = [], ""
    for token in tokens(column_list):
        if token.text == ",":
            names.append(name)
            name = ""
        elif token.text == "." or (token.kind in {"word", "quoted"} and name[-1:] in {"", "."}):
            name += _unquote(token)
        else:
            return ()
    return (*names, name) if name else tuple(names)


def parse_insert(sql: str) -> Insert | None:
    """Take an INSERT with rows from the client apart; None for any other statement.

    Raises:
        ServerError: for INSERT … FROM INFILE, which would read the server's own files.
    """
    return _InsertParser(sql).parse()


@dataclass(frozen=True)
class Output:
    """A query without its FORMAT clause.

    Attributes:
        query: everything in front of it.
        format_name: the output format, "" when the query names none.
        settings: a SETTINGS clause behind it, or "".
    """

    query: str
    format_name: str
    settings: str


def split_output(formatted: str) -> Output:
    """Take the FORMAT clause off a query.

    Args:
        formatted: one query, as `formatQuerySingleLine` writes it: keywords in capitals, SETTINGS
            at the end, no comments.

    Raises:
        ServerError: for INTO OUTFILE, which would write the server's own files.
    """
    outer = [token for token in tokens(formatted) if not token.depth]
    for first, second in itertools.pairwise(outer):
        if (first.text, second.text) == ("INTO", "OUTFILE"):
            message = "INTO OUTFILE is a feature of clickhouse-client, not of a server"
            raise ServerError(Code.NOT_IMPLEMENTED, message)
    for index in range(len(outer) - 2, -1, -1):
        keyword, name = outer[index], outer[index + 1]
        last = index + 2 == len(outer) or outer[index + 2].text == "SETTINGS"
        if keyword.text == "FORMAT" and last and name.kind == "word" and name.text not in _ORDERS:
            return Output(formatted[: keyword.begin], name.text, formatted[name.end :])
    return Output(formatted, "", "")


def first_word(query: str) -> str:
    """Return the keyword that a statement begins with, in capitals; "" for a parenthesis."""
    token = next(tokens(query), None)
    return token.keyword if token else ""
