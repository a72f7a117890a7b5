"""What a CREATE statement names of its own database, and the statement for another database.

This reads statements that are trusted, and views with whatever the server understands: it passes
over what it does not know.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType

from ooni_common.database import literal, quoted

# What never ends goes up to the end: else each quote in it would be a beginning to try.
TEXT = r"'(?:[^'\\]|\\.|'')*(?:'|\\?\Z)"
QUOTED_NAME = r"`(?:[^`\\]|\\.|``)*(?:`|\\?\Z)"
NAME = rf"{QUOTED_NAME}|\b[A-Za-z_]\w*"
# Texts come first: what is in them isn't a name, but it may name a table, as for dictGet.
REFERENCE = re.compile(
    rf"(?P<text>{TEXT})|(?P<database>(?<!\.){NAME})\.(?P<table>{NAME})|{QUOTED_NAME}",
    re.DOTALL,
)
IN_SOURCE = re.compile(r"\b(?P<key>DB|TABLE)\s+(?P<text>'(?:[^'\\]|\\.|'')*')", re.DOTALL)


def references(statement: str, database: str, names: Collection[str]) -> set[str]:
    """Return which objects of a database a statement names, itself among them.

    Args:
        statement: from SHOW CREATE, so that tables are named with their database.
        database: the name of the database.
        names: all that is in the database.
    """
    named: set[str] = set()

    def note(table: str) -> str:
        named.add(table)
        return table

    _visited(statement, database, names, note)
    if re.match(r"CREATE DICTIONARY\b", statement):
        texts = {match["key"]: plain(match["text"]) for match in IN_SOURCE.finditer(statement)}
        if texts.get("DB", database) == database and texts.get("TABLE") in names:
            named.add(texts["TABLE"])
    return named


def moved(statement: str, database: str, target: str, names: Collection[str]) -> str:
    """Return a statement in which what it names of one database is that of another one.

    Args:
        statement: from SHOW CREATE.
        database: the name of the one.
        target: the name of the other one.
        names: all that is in the database.
    """
    if database == target:
        return statement
    text = _visited(statement, database, names, lambda table: table, target)
    if not re.match(r"CREATE DICTIONARY\b", text):
        return text

    def with_database(match: re.Match[str]) -> str:
        if match["key"] == "DB" and plain(match["text"]) == database:
            return f"DB {literal(target)}"
        return match[0]

    return IN_SOURCE.sub(with_database, text)


def in_order(
    definitions: Mapping[str, str],
    database: str,
    needed: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> list[str]:
    """Return the names of what can be made one after the other: what is named comes first.

    Args:
        definitions: the CREATE statements by name.
        database: in which they all are.
        needed: what the server knows to be needed for them, by name.
    """
    ordered: list[str] = []
    begun: dict[str, Iterator[str]] = {}  # name → what it needs and was not looked at yet

    def begin(name: str) -> str:
        named = references(definitions[name], database, definitions.keys())
        begun[name] = iter(sorted(named.union(needed.get(name, ())) & definitions.keys()))
        return name

    for name in sorted(definitions):
        path = [begin(name)] if name not in begun else []
        while path:  # no recursion: how many need each other is up to the bucket
            # Where two name each other, one of them has to be first.
            first = next((one for one in begun[path[-1]] if one not in begun), None)
            if first is None:
                ordered.append(path.pop())
            else:
                path.append(begin(first))
    return ordered


def plain(name: str) -> str:
    """Return a name or a text without its quotes."""
    if name[:1] not in "`'":
        return name
    inner = name[1:-1].replace(name[0] * 2, name[0])
    return re.sub(r"\\(.)", r"\1", inner, flags=re.DOTALL)


def _visited(
    statement: str,
    database: str,
    names: Collection[str],
    visit: Callable[[str], str],
    target: str = "",
) -> str:
    """Show each reference to an object of a database; return the statement with another one."""
    target = target or database

    def replaced(match: re.Match[str]) -> str:
        if match["text"]:
            of, point, table = plain(match["text"]).partition(".")
            if not (point and of == database and table in names):
                return match[0]
            return literal(f"{target}.{visit(table)}")
        if match["database"] and plain(match["database"]) == database:
            table = plain(match["table"])
            if table in names:
                visit(table)
                return f"{quoted(target)}.{match['table']}"
        return match[0]

    return REFERENCE.sub(replaced, statement)
