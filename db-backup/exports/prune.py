"""Deleting exports that have no place any more.

The manifests forget them first: whatever interrupts this, no manifest names an object that is gone,
and the next time the rest is deleted.
"""

import re
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import msgspec

from documents import JSON, LARGEST_MANIFEST, encoded
from exports.manifest import Export, ExportLayout, RunManifest, TableManifest, as_stamp, named_keys
from exports.publication import publish
from exports.stored import TableManifests
from portal.about import About
from store.bucket import Bucket, Listed

# After the prefix: what else is there, somebody else has put there.
EXPORTED = r"(csv/[^/]+\.csv\.zstd|parquet/[^/]+\.parquet)"
UNNAMED = "no manifest names it"


@dataclass(frozen=True)
class Leftover:
    """An object that can be deleted.

    Attributes:
        key: of it.
        size: in bytes.
        reason: why.
        table: whose manifest names it; "" if none does.
        chunk: of that table.
    """

    key: str
    size: int
    reason: str
    table: str = ""
    chunk: str = ""


@dataclass(frozen=True)
class Unwanted:
    """What to delete: objects, and tables whose damaged manifests go, too."""

    leftovers: list[Leftover]
    forgotten: Collection[str] = ()


def leftovers(
    bucket: Bucket,
    layout: ExportLayout,
    manifests: TableManifests,
    is_withdrawn: Callable[[str], bool],
    older_than: timedelta,
) -> Iterator[Leftover]:
    """Yield what can be deleted.

    Args:
        bucket: has the exports.
        layout: where they are in it.
        manifests: of all tables. While one is damaged, nobody knows what it names.
        is_withdrawn: tells whether somebody has said that a table is not public any more.
        older_than: how long a chunk must have been gone from the database, and how old an object
            must be that no manifest names: a manifest that was lost may have named it.
    """
    newest = datetime.now(UTC) - older_than
    oldest = f"{newest:%Y-%m-%dT%H:%M:%SZ}"
    owners = Counter(key for manifest in manifests.sound.values() for key in named_keys([manifest]))
    for table, manifest in sorted(manifests.sound.items()):
        for export in (*manifest.exports, *manifest.pending.values()):
            if is_withdrawn(table):
                reason = f"{table} is not public any more"
            elif export.dropped and export.dropped <= oldest:
                reason = f"the database has these rows no more since {export.dropped[:10]}"
            else:
                continue
            for leftover in leftovers_of(export, table, reason):
                if owners[leftover.key] == 1:  # else another table has it, too
                    yield leftover
    yield from _unnamed(bucket, layout, manifests, is_withdrawn, newest)


def leftovers_of(export: Export, table: str, reason: str) -> list[Leftover]:
    """Return the objects of a chunk, in each format."""
    return [
        Leftover(stored.key, stored.compressed_bytes, reason, table, export.chunk.name)
        for stored in export.stored
    ]


def given_up(
    bucket: Bucket,
    layout: ExportLayout,
    manifests: TableManifests,
    is_exported: Callable[[str], bool],
    older_than: timedelta,
) -> list[Leftover]:
    """Return the objects that a run deletes by itself: old ones that no manifest names any more.

    A manifest tells when it was begun. What came later and is not in it has been given up. An older
    object stays: its rows may be known to nobody but a manifest that was lost. So do the objects of
    a table that has no manifest, or is no longer exported. And while one manifest is damaged,
    nothing is deleted: nobody knows what it names.

    Args:
        bucket: has the exports.
        layout: where they are in it.
        manifests: of all tables.
        is_exported: tells whether a table is exported now.
        older_than: how old an object must be.
    """
    if manifests.damaged:
        return []
    newest = datetime.now(UTC) - older_than

    def is_given_up(listed: Listed) -> bool:
        came = as_stamp(listed.modified.timestamp())
        owners = [
            manifest
            for table, manifest in manifests.sound.items()
            if layout.may_be_of(table, listed.key)
        ]
        return bool(owners) and all(
            is_exported(owner.table) and "" < owner.begun < came for owner in owners
        )

    return [
        Leftover(listed.key, listed.size, UNNAMED)
        for listed in _unnamed_objects(bucket, layout, manifests)
        if listed.modified <= newest and is_given_up(listed)
    ]


def _unnamed_objects(
    bucket: Bucket, layout: ExportLayout, manifests: TableManifests
) -> Iterator[Listed]:
    """Yield the objects with rows that no sound manifest names."""
    named = named_keys(manifests.sound.values())
    for listed in (one for prefix in layout.with_rows for one in bucket.listing(prefix)):
        if listed.key not in named and re.fullmatch(EXPORTED, layout.relative(listed.key)):
            yield listed


def _unnamed(
    bucket: Bucket,
    layout: ExportLayout,
    manifests: TableManifests,
    is_withdrawn: Callable[[str], bool],
    newest: datetime,
) -> Iterator[Leftover]:
    """Yield the objects that no manifest names, as far as it is known whose they are."""
    withdrawn = [table for table in sorted(manifests.damaged) if is_withdrawn(table)]
    unknown = manifests.damaged.keys() - withdrawn
    for listed in _unnamed_objects(bucket, layout, manifests):
        owners = [table for table in withdrawn if layout.may_be_of(table, listed.key)]
        if owners and not any(layout.may_be_of(table, listed.key) for table in unknown):
            reason = f"{owners[0]} is not public any more"
            yield Leftover(listed.key, listed.size, reason)
        elif not unknown and listed.modified <= newest:
            yield Leftover(listed.key, listed.size, UNNAMED)
    for table in manifests.pending.keys() - manifests.sound.keys() - manifests.damaged.keys():
        for key in manifests.pending[table]:
            yield Leftover(key, 0, "it is of a table without a manifest")


def _without(manifest: TableManifest, gone: Collection[str]) -> TableManifest:
    """Return the manifest of a table without some of its chunks."""
    chunks = {name: export for name, export in manifest.chunks.items() if name not in gone}
    pending = {name: export for name, export in manifest.pending.items() if name not in gone}
    return msgspec.structs.replace(
        manifest, chunks=chunks, pending=pending, generation=uuid.uuid4().hex
    )


def delete(
    bucket: Bucket,
    layout: ExportLayout,
    manifests: TableManifests,
    unwanted: Unwanted,
    run: RunManifest,
    about: About,
) -> None:
    """Delete leftovers.

    Args:
        bucket: has them.
        layout: where things are in it.
        manifests: of all tables.
        unwanted: what to delete.
        run: of this run; its tables and the database's version are filled in.
        about: what the operator says of the data.
    """
    bucket.delete(layout.probe)  # where nothing can be deleted, nothing is forgotten
    kept = dict(manifests.sound)
    emptied: list[str] = []
    objects, forgotten = unwanted.leftovers, unwanted.forgotten
    for table in {leftover.table for leftover in objects if leftover.table}:
        gone = {leftover.chunk for leftover in objects if leftover.table == table}
        kept[table] = _without(manifests.sound[table], gone)
        if kept[table].chunks or kept[table].pending:
            key = layout.manifest(table)
            # What is still pending is in the manifest now, too.
            bucket.put_document(key, encoded(kept[table], key, LARGEST_MANIFEST), JSON)
        else:
            del kept[table]
            emptied += [layout.manifest(table), layout.schema(table)]
        emptied += manifests.pending.get(table, ())
    server = manifests.run.server if manifests.run else ""
    damaged = {table: why for table, why in manifests.damaged.items() if table not in forgotten}
    publish(
        bucket,
        layout,
        replace(manifests, sound=kept, damaged=damaged),
        msgspec.structs.replace(run, server=server),
        about,
    )
    keys = [*emptied, *(leftover.key for leftover in objects)]
    for table in forgotten:
        keys += [layout.manifest(table), layout.schema(table), *manifests.pending.get(table, ())]
    bucket.delete_keys(keys)
