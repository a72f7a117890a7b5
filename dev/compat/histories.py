"""Histories: the statements of a record that belong together, because they share databases."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from dev.compat.kinds import kinds_of
from dev.embedded_clickhouse.record import Statement

# Of a test, and of the backup tool's `verify`.
_GENERATED = re.compile(r"test_[0-9a-f]{16}|ooni_verify_[0-9a-f]+")
_MAKES_DATABASE_OF_A_TEST = re.compile(r"CREATE DATABASE test_")
# What it costs to begin with an empty engine, in statements.
_BEGINNING = 10


class ServersStatement(Statement):
    """A statement, and which of the servers of the record has got it."""

    server: str = ""


class History(msgspec.Struct):
    """Statements in their order, from the creation of their databases on.

    Attributes:
        name: of the test, or of the server's record where it has no other.
    """

    name: str
    statements: list[ServersStatement]


def read_record(folder: Path) -> list[History]:
    """Return the histories of a record."""
    decoder = msgspec.json.Decoder(ServersStatement)
    statements = []
    for file in folder.glob("*.jsonl"):
        for line in file.read_bytes().splitlines():
            statement = decoder.decode(line)
            statement.server = file.stem
            statements.append(statement)
    return _divided(sorted(statements, key=lambda statement: statement.time))


def _divided(statements: Sequence[ServersStatement]) -> list[History]:
    """Put the statements together that name the same databases, be it through others."""
    joined: dict[str, str] = {}  # database, session or server → another that it belongs to

    def root(name: str) -> str:
        while joined.setdefault(name, name) != name:
            name = joined[name]
        return name

    names = [_GENERATED.findall(f"{one.database} {one.text}") for one in statements]
    shared = {one.server for one in statements if _MAKES_DATABASE_OF_A_TEST.match(one.text)}
    for statement, named in zip(statements, names, strict=True):
        # A session goes with what it names; a server of its own is a test's as a whole.
        named.append(f"{statement.server} {statement.session}")
        if statement.server not in shared:
            named.append(statement.server)
        for name in named[1:]:
            joined[root(name)] = root(named[0])
    histories: dict[str, History] = {}
    for statement, (first, *_) in zip(statements, names, strict=True):
        history = histories.setdefault(root(first), History(root(first), []))
        history.statements.append(statement)
        if _MAKES_DATABASE_OF_A_TEST.match(statement.text):
            history.name = statement.settings.get("log_comment", history.name)
    return list(histories.values())


def fewest(histories: Iterable[History]) -> list[History]:
    """Choose histories that have statements of all kinds, the cheapest for a new kind first."""
    left = [(history, kinds_of(history.statements)) for history in histories]
    chosen: list[History] = []
    while True:
        left = [(history, kinds) for history, kinds in left if kinds]
        if not left:
            return chosen
        best, gained = max(
            left, key=lambda pair: len(pair[1]) / (_BEGINNING + len(pair[0].statements))
        )
        chosen.append(best)
        left = [(history, kinds - gained) for history, kinds in left]
