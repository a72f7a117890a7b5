"""Tables and rows that the tests of the table replacement use."""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

from ooni_common.database import Database
from ooni_common.swap.content import Content, blocks_of
from ooni_common.swap.update import Table

COLUMNS = {
    "name": "String",
    "cc": "FixedString(32)",
    "number": "UInt32",
    "kind": "Enum('nat' = 1, 'isp' = 2)",
    "changed": "Date",
}
FIRST = Table("first", "first_tmp", COLUMNS, "ENGINE = MergeTree ORDER BY name", ("name",))
SECOND = Table(
    "second", "second_tmp", COLUMNS, "ENGINE = EmbeddedRocksDB PRIMARY KEY(name)", ("name",)
)
PAIR = (FIRST, SECOND)

Row = tuple[Any, ...]


def row(name: str, cc: str = "it", number: int = 1) -> Row:
    """Return one row for either table."""
    return (name, cc, number, "nat", date(2025, 1, 31))


def old_rows(count: int = 100) -> list[Row]:
    """Return rows that were loaded before."""
    return [row(f"name {number}", number=number) for number in range(count)]


def new_rows(count: int = 110) -> list[Row]:
    """Return the same names with other values, as many as wanted."""
    return [row(f"name {number}", cc="ZZ", number=number + 1) for number in range(count)]


def content_of_rows(rows: Iterable[Sequence[Any]]) -> Content:
    """Return what the rows add up to."""
    return sum((block.content for block in blocks_of(rows)), start=Content())


def structure_of(database: Database, table: str) -> tuple[list[Row], Row]:
    """Return what makes two tables interchangeable: columns; engine, its clauses and keys."""
    columns = database.query(
        "SELECT name, type, default_kind, default_expression FROM system.columns"
        " WHERE database = currentDatabase() AND table = %(table)s ORDER BY position",
        {"table": table},
    )
    (engine,) = database.query(
        "SELECT engine, engine_full, sorting_key, primary_key FROM system.tables"
        " WHERE database = currentDatabase() AND name = %(table)s",
        {"table": table},
    )
    return columns, engine
