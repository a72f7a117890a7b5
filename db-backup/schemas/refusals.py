"""Refusing what a bucket says; a person is shown the statement that was not executed."""

import contextlib
import logging
from collections.abc import Iterator

from ooni_common.database import server_error
from ooni_common.errors import DataRefused

MOST_SHOWN = 500  # lines of a statement
LONGEST_SHOWN = 50_000  # characters

log = logging.getLogger("ooni.db_backup")


class NotUnderstood(DataRefused):
    """The server does not understand what a bucket says of a table."""


@contextlib.contextmanager
def blamed_on(where: str) -> Iterator[None]:
    """Refuse what a bucket says, where the server does not understand a statement made of it.

    Of our own statements, that would be a bug: a column or a function that is not there.

    Args:
        where: it is said, for the message.

    Raises:
        NotUnderstood: the server does not.
    """
    from clickhouse_driver.errors import ServerException  # noqa: PLC0415 (--help must not wait)

    try:
        yield
    except ServerException as error:
        raise NotUnderstood(f"{where}: {server_error(error.code, error.message)}") from None


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
    lines = statement[:LONGEST_SHOWN].splitlines()
    for line in lines[:MOST_SHOWN]:
        log.warning("    %s", line)
    if len(lines) > MOST_SHOWN or len(statement) > LONGEST_SHOWN:
        log.warning("    … and more; see the manifest in the bucket")
