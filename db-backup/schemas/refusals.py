"""Showing a person the statement that was not executed."""

import logging

from ooni_common.errors import DataRefused

log = logging.getLogger("ooni.db_backup")


def refused_schema(name: str, schema: str, reason: object) -> DataRefused:
    """Log the statement of a table from a bucket, and return the refusal.

    Args:
        name: of the table.
        schema: its statement.
        reason: why.
    """
    show_statement(name, schema)
    return DataRefused(
        f"{name}: the schema in its manifest is not executed: {reason}; if it is right, restore it"
        " with --trust-definitions"
    )


def show_statement(name: str, statement: str) -> None:
    """Log a statement, line by line, for a person to read."""
    log.warning("%s is not made; its statement is:", name)
    for line in statement.splitlines():
        log.warning("    %s", line)
