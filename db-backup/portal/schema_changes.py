"""The changelog of columns: what came, went and got another type, and when a run saw it.

Manifests have the columns of today. So a small object beside the schemas keeps the columns of the
last time, and what was different since. It comes from the bucket, as manifests do: nothing of it is
believed unchecked, and whoever spoils it loses the changelog alone.
"""

import logging
from collections.abc import Collection, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from documents import JSON, decoded_manifest, encoded
from exports.manifest import MOST_COLUMNS, TableManifest
from ooni_common.errors import DataRefused
from portal.places import Places
from store.bucket import Bucket

log = logging.getLogger("ooni.db_backup")

MOST_CHANGES = 100  # of a table; the oldest go
Stamp = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")]
Columns = Annotated[list[tuple[str, str]], Meta(max_length=MOST_COLUMNS)]


class SchemaChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a table's columns.

    Attributes:
        at: when a run has seen it; UTC.
        added: names and types.
        removed: names and types.
        retyped: names, types before and after.
    """

    at: Stamp
    added: Columns = []
    removed: Columns = []
    retyped: Annotated[list[tuple[str, str, str]], Meta(max_length=MOST_COLUMNS)] = []


class TableHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a table, since when their changes are kept, and these, the newest first."""

    since: Stamp
    columns: Columns
    changes: Annotated[list[SchemaChange], Meta(max_length=MOST_CHANGES)] = []


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The changelog of all tables, by name."""

    tables: dict[str, TableHistory] = {}
    format: int = 1


def read_history(bucket: Bucket, places: Places) -> History:
    """Return the changelog; an empty one where it is lost or damaged."""
    try:
        content = bucket.get(places.schema_changes)
        where = f"{bucket.url}/{places.schema_changes}:"
        return History() if content is None else decoded_manifest(content, History, where)
    except DataRefused as error:
        log.warning("%s; the changelog of columns begins again", error)
        return History()


def write_history(bucket: Bucket, places: Places, history: History) -> None:
    """Write the changelog; one that is too large to be read back stays as it is."""
    try:
        content = encoded(history, places.schema_changes)
    except DataRefused as error:
        log.warning("%s; the changelog of columns stays as it is", error)
        return
    bucket.put(places.schema_changes, content, JSON)


def brought_up_to_date(
    history: History, manifests: Mapping[str, TableManifest], unknown: Collection[str], at: str
) -> History:
    """Return the changelog with what is different now.

    Args:
        history: as the last run has left it.
        manifests: of the tables whose columns are known.
        unknown: tables whose changes stay as they are, for their manifests are damaged.
        at: when this run has seen it.
    """
    kept = {name: one for name, one in history.tables.items() if name in unknown}
    now = {
        name: _of_table(history.tables.get(name), list(manifest.columns), at)
        for name, manifest in manifests.items()
    }
    return History(tables=dict(sorted((kept | now).items())))


def _of_table(before: TableHistory | None, columns: list[tuple[str, str]], at: str) -> TableHistory:
    if before is None:
        return TableHistory(since=at, columns=columns)
    old, new = dict(before.columns), dict(columns)
    change = SchemaChange(
        at=at,
        added=[(name, kind) for name, kind in columns if name not in old],
        removed=[(name, kind) for name, kind in before.columns if name not in new],
        retyped=[(name, old[name], kind) for name, kind in columns if old.get(name, kind) != kind],
    )
    differs = change.added or change.removed or change.retyped
    changes = [change, *before.changes][:MOST_CHANGES] if differs else before.changes
    return TableHistory(since=before.since, columns=columns, changes=changes)
