"""CREATE TABLE: a statement from a bucket, rebuilt from what was understood in it.

It has columns with types, expressions that call what is harmless, and an engine that keeps rows of
its own. Everything else is refused: rows that come from a SELECT, engines that read or write
elsewhere, disks and storage policies, and whatever SHOW CREATE does not write.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ooni_common.replicas import with_path
from schemas.columns import take_codecs, take_columns, take_setting
from schemas.expressions import take_expression, take_expressions
from schemas.tokens import END, Reader, SchemaRefused, Token
from tables.inventory import renamed

ENGINE = re.compile(
    r"(?P<replicated>Replicated|Shared)?"
    r"(?P<plain>(Replacing|Summing|Aggregating|(Versioned)?Collapsing|Coalescing|Graphite)?MergeTree)"
    r"|(Tiny|Stripe)?Log|Memory|Join|EmbeddedRocksDB"
)
KEYS = (("PARTITION", "BY"), ("PRIMARY", "KEY"), ("ORDER", "BY"), ("SAMPLE", "BY"))
TABLE_CLAUSES = ("PARTITION", "PRIMARY", "ORDER", "SAMPLE", "TTL", "SETTINGS", "COMMENT")
JOINS = ("ANY", "ALL", "SEMI", "ANTI", "LEFT", "RIGHT", "INNER", "FULL")

# What a table may have been made with, so that it can be made again; as `SHOW CREATE` has the
# columns that came of it, none is taken apart or completed.
SETTINGS = {
    **{f"allow_experimental_{kind}_type": "1" for kind in ("variant", "dynamic", "json", "object")},
    **{f"allow_experimental_{kind}_type": "1" for kind in ("time_time64", "qbit")},
    **{f"enable_{kind}_type": "1" for kind in ("time_time64", "qbit")},
    "allow_suspicious_low_cardinality_types": "1",
    "allow_suspicious_codecs": "1",
    "allow_suspicious_indices": "1",
    "allow_suspicious_primary_key": "1",
    "allow_suspicious_ttl_expressions": "1",
    "allow_suspicious_fixed_string_types": "1",
    "allow_suspicious_variant_types": "1",
    "allow_suspicious_types_in_order_by": "1",
    "allow_experimental_codecs": "1",
    "flatten_nested": "0",
    "data_type_default_nullable": "0",
}


@dataclass(frozen=True)
class CreateTable:
    """A CREATE TABLE statement that was understood.

    Attributes:
        columns: the names and types of all columns, in their order.
        engine: its name.
        body: columns, indices, constraints and projections, as SQL.
        arguments: of the engine, as SQL.
        clauses: keys, TTL, settings and comment, as SQL.
    """

    columns: tuple[tuple[str, str], ...]
    engine: str
    body: str
    arguments: tuple[str, ...]
    clauses: str

    def statement(self, target: str, path: str = "", replica: str = "") -> str:
        """Return the statement for another table.

        Args:
            target: what stands for it, as SQL.
            path: in ZooKeeper, which a replicated table gets, as it stands within the quotes of a
                literal; without it, it becomes a plain one: the path in the statement is that of
                the original table.
            replica: the name of the replica, as a literal; "": it stays.

        Raises:
            SchemaRefused: path or replica is more than a literal.
        """
        match = ENGINE.fullmatch(self.engine)
        engine, arguments = self.engine, self.arguments
        if match and match["replicated"]:
            if path:
                arguments = _with_path(arguments, path, replica)
            else:
                engine, arguments = match["plain"], _without_path(arguments)
        of_engine = f"({', '.join(arguments)})" if arguments else ""
        text = f"CREATE TABLE {target}\n{self.body}\nENGINE = {engine}{of_engine}"
        return f"{text}\n{self.clauses}" if self.clauses else text


def create_statement(
    schema: str, target: str, path: str = "", replica: str = "", *, trusted: bool = False
) -> str:
    """Return the statement that makes another table like one whose schema is in a bucket.

    Args:
        schema: what SHOW CREATE said.
        target: what stands for the other one, as SQL.
        path: in ZooKeeper, for a replicated one; see CreateTable.statement.
        replica: likewise.
        trusted: whether a schema that does more than a table needs is executed, too.

    Raises:
        SchemaRefused: it does; the message says what.
        ValueError: the statement can't be understood.
    """
    try:
        return create_table(schema).statement(target, path, replica)
    except SchemaRefused:
        if not trusted:
            raise
        return with_path(renamed(schema, target, path), path, replica)


def create_table(statement: str) -> CreateTable:
    """Understand a CREATE TABLE statement.

    Raises:
        SchemaRefused: it is another statement, or does something that is not harmless.
    """
    reader = Reader(statement)
    _take_table(reader)
    reader.written()
    columns, body = take_columns(reader)
    if not reader.accepts("ENGINE"):
        raise reader.unexpected("ENGINE")
    reader.take_symbol("=")
    is_null = reader.next == Token("name", "Null")  # SHOW CREATE quotes it, as it is a word of SQL
    if not is_null and not (reader.next.kind == "word" and ENGINE.fullmatch(reader.next.value)):
        raise SchemaRefused(
            f"the engine {reader.next.value!r} is not one that keeps rows of its own"
        )
    reader.written()
    reader.take()
    engine = reader.written()
    arguments = _take_engine_arguments(reader, engine)
    reader.written()
    _take_clauses(reader)
    if reader.next is not END:
        raise reader.unexpected("the end")
    return CreateTable(tuple(columns), engine, body, tuple(arguments), reader.written())


def _take_table(reader: Reader) -> None:
    if not reader.accepts("CREATE", "TABLE"):
        raise SchemaRefused("it is not a CREATE TABLE statement")
    reader.take_name()
    if reader.accepts_symbol("."):
        reader.take_name()
    if reader.accepts("UUID"):
        reader.take_kind("text")


def _take_engine_arguments(reader: Reader, engine: str) -> list[str]:
    """Take what stands in parentheses after the engine; return each argument as SQL."""
    arguments: list[str] = []
    if not reader.accepts_symbol("("):
        return arguments
    reader.written()
    while not reader.next.is_symbol(")"):
        if engine == "EmbeddedRocksDB" and reader.next.kind != "number":
            raise SchemaRefused("the engine EmbeddedRocksDB has a folder of the server")
        if engine == "Join" and reader.next.is_word(*JOINS):
            reader.take()
        else:
            take_expression(reader, f"the engine {engine}")
        arguments.append(reader.written())
        if not reader.accepts_symbol(","):
            break
        reader.written()
    reader.take_symbol(")")
    return arguments


def _has_path(arguments: Sequence[str]) -> bool:
    """Tell whether the arguments of an engine begin with those of replication."""
    return len(arguments) >= 2 and all(text.startswith("'") for text in arguments[:2])


def _without_path(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the arguments of an engine without those of replication, if it has any."""
    return tuple(arguments[2:] if _has_path(arguments) else arguments)


def _with_path(arguments: Sequence[str], path: str, replica: str) -> tuple[str, ...]:
    """Return the arguments of an engine with another path, if it has any.

    In the text of the statement the path can't be replaced: a name could look like an engine.
    """
    if not _has_path(arguments):
        return tuple(arguments)
    return (_one_literal(f"'{path}'"), _one_literal(replica or arguments[1]), *arguments[2:])


def _one_literal(text: str) -> str:
    """Return a literal, rewritten."""
    reader = Reader(text)
    reader.take_kind("text")
    if reader.next is not END:
        raise reader.unexpected("the end of a literal")
    return reader.written()


def _take_clauses(reader: Reader) -> None:
    while reader.next.is_word(*TABLE_CLAUSES):
        if reader.accepts("TTL"):
            _take_ttl(reader)
        elif reader.accepts("SETTINGS"):
            take_setting(reader)
            while reader.accepts_symbol(","):
                take_setting(reader)
        elif reader.accepts("COMMENT"):
            reader.take_kind("text")
        else:
            _take_key(reader)


def _take_key(reader: Reader) -> None:
    for words in KEYS:
        if reader.accepts(*words):
            take_expression(reader, " ".join(words), TABLE_CLAUSES)
            return
    raise reader.unexpected("the key of a table")


def _take_ttl(reader: Reader) -> None:
    """Take when rows are deleted, compressed again or put together; not when they are moved."""
    actions = ("DELETE", "RECOMPRESS", "WHERE", "GROUP", "SET", "TO")
    while True:
        take_expression(reader, "TTL", (*TABLE_CLAUSES, *actions))
        reader.accepts("DELETE")
        if reader.next.is_word("TO"):
            raise SchemaRefused("TTL moves rows to a disk or a volume")
        if reader.accepts("RECOMPRESS"):
            take_codecs(reader)
        if reader.accepts("GROUP", "BY"):
            take_expressions(reader, "TTL", (*TABLE_CLAUSES, *actions))
        if reader.accepts("SET"):
            take_expression(reader, "TTL", (*TABLE_CLAUSES, *actions))
        if reader.accepts("WHERE"):
            take_expression(reader, "TTL", (*TABLE_CLAUSES, *actions))
        if not reader.accepts_symbol(","):
            return
