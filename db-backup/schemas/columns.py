"""The columns of a CREATE TABLE statement, and what stands among them in its parentheses.

These are indices, constraints and projections. Codecs and settings are those of columns, and of
whole tables, too.
"""

import re
from collections.abc import Sequence

from schemas.expressions import take_expression, take_expressions
from schemas.tokens import Reader, SchemaRefused
from schemas.types import take_list, take_type

DEFAULTS = ("DEFAULT", "MATERIALIZED", "ALIAS", "EPHEMERAL")
COLUMN_CLAUSES = ("COMMENT", "CODEC", "STATISTICS", "TTL", "SETTINGS", "PRIMARY")
CODECS = (
    *(
        "NONE",
        "LZ4",
        "LZ4HC",
        "ZSTD",
        "Delta",
        "DoubleDelta",
        "GCD",
        "Gorilla",
        "FPC",
        "T64",
        "ALP",
    ),
    "Default",
)
INDICES = (
    *("minmax", "set", "bloom_filter", "ngrambf_v1", "tokenbf_v1", "sparse_grams", "text"),
    *("inverted", "full_text", "vector_similarity", "hypothesis"),
)
STATISTICS = ("tdigest", "uniq", "countmin", "minmax", "basic")
# Where rows are kept is up to whoever runs the server.
PLACES = re.compile(r"disk|storage_policy|.*_disk|.*_path|.*_directory", re.IGNORECASE)


def take_columns(reader: Reader) -> tuple[list[tuple[str, str]], str]:
    """Take what stands in parentheses; return the columns, and all of it as SQL."""
    columns: list[tuple[str, str]] = []
    taken: list[str] = []

    def take_element(reader: Reader) -> None:
        if reader.next.is_word("INDEX"):
            _take_index(reader)
        elif reader.next.is_word("CONSTRAINT"):
            _take_constraint(reader)
        elif reader.next.is_word("PROJECTION"):
            _take_projection(reader)
        elif reader.accepts("PRIMARY", "KEY"):
            take_expression(reader, "PRIMARY KEY")
        else:
            name, before = reader.take_name(), reader.written()
            kind = _take_column_type(reader)
            columns.append((name, kind))
            taken.append(f"{before} {kind}")
            _take_column_clauses(reader, f"the column {name!r}")
        taken.append(reader.written())

    take_list(reader, take_element)
    if not columns:
        raise SchemaRefused("it has no columns")
    taken.append(reader.written())
    return columns, " ".join(taken)


def _take_column_type(reader: Reader) -> str:
    """Take the type of a column, if it has one; return it as SQL."""
    if not reader.next.is_word(*DEFAULTS):
        take_type(reader)
    return reader.written()


def _take_column_clauses(reader: Reader, where: str) -> None:
    if reader.next.is_word(*DEFAULTS):
        kind = reader.take().value
        has_none = reader.next.is_symbol(",") or reader.next.is_symbol(")")
        if not (kind == "EPHEMERAL" and (has_none or reader.next.is_word(*COLUMN_CLAUSES))):
            take_expression(reader, where, COLUMN_CLAUSES)
    while True:
        if reader.accepts("COMMENT"):
            reader.take_kind("text")
        elif reader.next.is_word("CODEC"):
            take_codecs(reader)
        elif reader.accepts("STATISTICS"):
            take_list(reader, lambda reader: _take_named_of(reader, STATISTICS, "statistics"))
        elif reader.accepts("TTL"):
            take_expression(reader, where, COLUMN_CLAUSES)
        elif reader.accepts("SETTINGS"):
            take_list(reader, take_setting)
        elif not reader.accepts("PRIMARY", "KEY"):
            return


def take_codecs(reader: Reader) -> None:
    """Take how values are compressed."""
    reader.take()
    take_list(reader, lambda reader: _take_named_of(reader, CODECS, "the codec"))


def _take_named_of(reader: Reader, allowed: Sequence[str], kind: str) -> None:
    """Take one of some names, and the numbers and words that it is given."""
    reader.take_word_of(allowed, kind)
    if reader.next.is_symbol("("):
        take_list(reader, lambda reader: take_expression(reader, kind))


def _take_index(reader: Reader) -> None:
    reader.take()
    where = f"the index {reader.take_name()!r}"
    take_expression(reader, where, ("TYPE",))
    if not reader.accepts("TYPE"):
        raise reader.unexpected("TYPE")
    _take_named_of(reader, INDICES, "an index of the type")
    if reader.accepts("GRANULARITY"):
        reader.take_kind("number")


def _take_constraint(reader: Reader) -> None:
    reader.take()
    where = f"the constraint {reader.take_name()!r}"
    reader.take_word_of(("CHECK", "ASSUME"), "a constraint")
    take_expression(reader, where)


def _take_projection(reader: Reader) -> None:
    """Take a projection: a SELECT of the table itself."""
    reader.take()
    where = f"the projection {reader.take_name()!r}"
    clauses = ("GROUP", "ORDER")
    reader.take_symbol("(")
    if reader.accepts("WITH"):
        take_expressions(reader, where, ("SELECT",))
    if not reader.accepts("SELECT"):
        raise reader.unexpected("SELECT")
    take_expressions(reader, where, clauses)
    for clause in clauses:
        if reader.accepts(clause, "BY"):
            take_expressions(reader, where, clauses)
    reader.take_symbol(")")


def take_setting(reader: Reader) -> None:
    """Take one setting; not one that says where rows are kept."""
    name = reader.take_kind("word").value
    if PLACES.fullmatch(name):
        raise SchemaRefused(f"the setting {name} says where the server keeps rows")
    reader.take_symbol("=")
    reader.accepts_symbol("-")
    if reader.next.kind not in ("number", "text") and not reader.next.is_word("true", "false"):
        raise SchemaRefused(f"the setting {name} has no plain value")
    reader.take()
