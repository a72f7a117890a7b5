"""The table beside the wanted one that a restore fills, until it is complete.

Its name, `ooni_restoring_<hash of the table's name>_<time>`, is one that nobody else makes, and
that live rows never get: a table that is replaced keeps its rows under `<table>_replaced_<time>`.
So a run can drop what runs that were killed have left under such names, and no row is lost.
"""

import contextlib
import hashlib
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from ooni_common.database import Database, literal, quoted
from ooni_common.errors import ScriptError

log = logging.getLogger("ooni.db_backup")

TIME = r"\d{8}T\d{6}Z"
STAGING = re.compile(rf"ooni_restoring_[0-9a-f]{{12}}_{TIME}(_replicated)?")
KEPT = re.compile(rf".*_replaced_{TIME}", re.DOTALL)


@dataclass(frozen=True)
class Place:
    """A table, wherever it is."""

    database: str
    table: str

    def __str__(self) -> str:
        return f"{quoted(self.database)}.{quoted(self.table)}"

    @property
    def _staging_prefix(self) -> str:
        """What the names of all tables begin with that restores into this one have filled."""
        return f"ooni_restoring_{hashlib.sha256(self.table.encode()).hexdigest()[:12]}_"

    def staging(self, started: datetime) -> "Place":
        """Return the table that a restore which started then (UTC) fills."""
        return Place(self.database, f"{self._staging_prefix}{started:%Y%m%dT%H%M%SZ}")

    def replicated(self, started: datetime) -> "Place":
        """Return the replicated table that gets the rows from that one, on each node."""
        return Place(self.database, f"{self.staging(started).table}_replicated")

    def is_staging(self, name: str) -> bool:
        """Tell whether a restore into this table has made one of this name."""
        return name.startswith(self._staging_prefix) and bool(STAGING.fullmatch(name))

    def kept(self, started: datetime) -> "Place":
        """Return the table that keeps the rows which such a restore replaces."""
        return Place(self.database, f"{self.table}_replaced_{started:%Y%m%dT%H%M%SZ}")

    def is_kept(self, name: str) -> bool:
        """Tell whether a restore into this table has given one this name."""
        return bool(re.fullmatch(rf"{re.escape(self.table)}_replaced_{TIME}", name))


def is_of_a_restore(name: str) -> bool:
    """Tell whether a table has the rows of another one, as a restore has left them."""
    return bool(STAGING.fullmatch(name) or KEPT.fullmatch(name))


def exists(database: Database, place: Place) -> bool:
    """Tell whether there is a table."""
    ((answer,),) = database.query(f"EXISTS TABLE {place}")
    return bool(answer)


def drop(database: Database, place: Place) -> None:
    """Drop a table, if there is one, and wait until it is gone."""
    database.query(f"DROP TABLE IF EXISTS {place} SYNC")


def drop_leftovers(database: Database, place: Place) -> None:
    """Drop what restores into a table that were killed have left."""
    rows = database.query(
        f"SELECT name FROM system.tables WHERE database = {literal(place.database)}"
        " AND startsWith(name, 'ooni_restoring_')"
    )
    for (name,) in rows:
        if place.is_staging(name):
            log.info("%s: dropping %s, which an interrupted restore has left", place, name)
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
