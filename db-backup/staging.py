"""The table beside the wanted one that a restore fills, until it is complete.

Its name, `<table>_restoring_<time>`, is one that nothing else ever had, and that live rows never
get: a table that is replaced keeps its rows under `<table>_replaced_<time>`. So a run can drop what
runs that were killed have left under such names, and no row is lost.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from ooni_common.database import Database, literal, quoted
from ooni_common.errors import ScriptError

STAGING = re.compile(r"_restoring_\d{8}T\d{6}Z")


@dataclass(frozen=True)
class Place:
    """A table, wherever it is."""

    database: str
    table: str

    def __str__(self) -> str:
        return f"{quoted(self.database)}.{quoted(self.table)}"

    def beside(self, suffix: str) -> "Place":
        """Return a table beside this one."""
        return Place(self.database, f"{self.table}{suffix}")

    def staging(self, started: datetime) -> "Place":
        """Return the table that a restore which started then (UTC) fills."""
        return self.beside(f"_restoring_{started:%Y%m%dT%H%M%SZ}")

    def kept(self, started: datetime) -> "Place":
        """Return the table that keeps the rows which such a restore replaces."""
        return self.beside(f"_replaced_{started:%Y%m%dT%H%M%SZ}")


def exists(database: Database, place: Place) -> bool:
    """Tell whether there is a table."""
    ((found,),) = database.query(f"EXISTS TABLE {place}")
    return bool(found)


def drop(database: Database, place: Place) -> None:
    """Drop a table, if there is one, and wait until it is gone."""
    database.query(f"DROP TABLE IF EXISTS {place}{database.on_cluster} SYNC")


def drop_leftovers(database: Database, place: Place) -> None:
    """Drop what restores into a table that were killed have left."""
    rows = database.query(
        f"SELECT name FROM system.tables WHERE database = {literal(place.database)}"
        f" AND startsWith(name, {literal(place.table)})"
    )
    for (name,) in rows:
        if STAGING.fullmatch(name.removeprefix(place.table)):
            drop(database, Place(place.database, name))


@contextlib.contextmanager
def dropped_on_failure(database: Database, stagings: Iterable[Place]) -> Iterator[None]:
    """Drop tables that a block fails to fill; what can't be dropped now, the next run drops."""
    try:
        yield
    except BaseException:
        database.close()  # it may have been interrupted while it waited for an answer
        with contextlib.suppress(ScriptError):
            for staging in stagings:
                drop(database, staging)
        raise
