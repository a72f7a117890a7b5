"""Reading the manifests of the exports, and what is pending beside them, from the bucket."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import unquote

import msgspec

from documents import LARGEST_MANIFEST, decoded_manifest, weight
from exports.manifest import (
    WHOLE,
    Export,
    ExportLayout,
    PendingExport,
    RunManifest,
    TableManifest,
    TableSummary,
    summary,
)
from exports.reader import CHUNK_NAME
from ooni_common.errors import DataRefused
from parallel import in_parallel
from store.bucket import Bucket, Listed

T = TypeVar("T")
R = TypeVar("R")

PENDING_NAME = re.compile(rf"({WHOLE}|{CHUNK_NAME})\.json")  # others are somebody else's
AT_ONCE = 8  # small objects that are asked for, since the way to the store takes the time


@dataclass(frozen=True)
class TableManifests:
    """The manifests of all tables.

    Attributes:
        sound: by the name of the table.
        damaged: table → why its manifest can't be used.
        run: the manifest of all; None if there is none, or a damaged one.
        run_damage: why that can't be used; "" if it can, or there is none.
        pending: table → the keys of its pending exports; also of tables without a manifest.
        objects: all that lies below the prefix, by key, listed before the manifests were read;
            None: not listed.
    """

    sound: dict[str, TableManifest]
    damaged: dict[str, str]
    run: RunManifest | None = None
    run_damage: str = ""
    pending: Mapping[str, Collection[str]] = field(default_factory=dict)
    objects: Mapping[str, Listed] | None = field(default=None, compare=False)


def read_run_manifest(bucket: Bucket, layout: ExportLayout) -> RunManifest | None:
    """Read the manifest of all tables; None if there is none.

    Raises:
        DataRefused: it is damaged.
    """
    content = bucket.get(layout.run)
    where = f"{bucket.url}/{layout.run}:"
    return None if content is None else decoded_manifest(content, RunManifest, where)


def read_table_manifest(
    bucket: Bucket, layout: ExportLayout, table: str, pending: Iterable[str] | None = None
) -> TableManifest | None:
    """Read the manifest of a table, with what is pending; None if there is none.

    What is pending has to be listed first: it goes when the manifest has taken it.

    Args:
        bucket: has it.
        layout: where it is.
        table: its name.
        pending: the keys of its pending exports; None: they are listed now.

    Raises:
        DataRefused: it is damaged, or names objects that are not this table's.
    """
    if pending is None:
        listing = bucket.listing(layout.pending_of(table))
        pending = pending_by_table(layout, (listed.key for listed in listing)).get(table, ())
    exports = _read_pending(bucket, layout, table, pending)
    key = layout.manifest(table)
    where = f"{bucket.url}/{key}:"
    content = bucket.get(key, LARGEST_MANIFEST)
    if content is None:
        return None
    manifest = decoded_manifest(content, TableManifest, where)
    if manifest.table != table:
        raise DataRefused(f"{where} damaged: it is of the table {manifest.table!r}")
    for stored in (manifest.chunks, manifest.pending):
        for name, export in stored.items():
            if export.chunk.name != name:
                raise DataRefused(f"{where} damaged: the chunk {name!r} is not in {export.key!r}")
            _check_keys(layout, table, export, where)
    for export in exports:
        _add_pending(manifest, export)
    try:
        msgspec.convert(msgspec.to_builtins(summary(manifest)), TableSummary)
    except msgspec.ValidationError as error:
        raise DataRefused(f"{where} damaged: all its chunks together: {error}") from None
    # What it lacks is added when it is written.
    if weight(msgspec.json.encode(manifest)) > LARGEST_MANIFEST:
        raise DataRefused(f"{where} damaged: it would be too large to be written")
    return manifest


def _read_pending(
    bucket: Bucket, layout: ExportLayout, table: str, keys: Iterable[str]
) -> list[Export]:
    """Return the pending exports of a table.

    Raises:
        DataRefused: one is damaged, or they are more than a manifest can have.
    """
    exports, size, keys = [], 0, list(keys)
    for key, content in zip(keys, _asked(bucket.get, keys), strict=True):
        if content is None:  # the manifest has taken it meanwhile
            continue
        where = f"{bucket.url}/{key}:"
        size += weight(content)
        if size > LARGEST_MANIFEST:
            raise DataRefused(f"{where} damaged: with the others it is too large for a manifest")
        pending = decoded_manifest(content, PendingExport, where)
        export, name = pending.export, pending.export.chunk.name
        if pending.table != table or key != layout.pending_export(table, name):
            raise DataRefused(f"{where} damaged: it is of {pending.table!r}, chunk {name!r}")
        _check_keys(layout, table, export, where)
        exports.append(export)
    return exports


def _check_keys(layout: ExportLayout, table: str, export: Export, where: str) -> None:
    """Raise DataRefused unless an export names the objects of its own chunk."""
    name, parquet = export.chunk.name, export.parquet
    if export.key != layout.export(table, name):
        raise DataRefused(f"{where} damaged: the chunk {name!r} is not in {export.key!r}")
    if parquet and parquet.key != layout.parquet(table, name):
        raise DataRefused(f"{where} damaged: the chunk {name!r} is not in {parquet.key!r}")


def _add_pending(manifest: TableManifest, export: Export) -> None:
    """Add a pending export to a manifest, unless it has been taken, or 2.0.1 has a later one."""
    name = export.chunk.name
    taken, other = manifest.chunks.get(name), manifest.pending.get(name)
    if taken and _tokens(taken) == _tokens(export):
        return
    if other is None or other.finished <= export.finished:
        manifest.pending[name] = export


def _tokens(export: Export) -> list[str]:
    """Return what tells the uploads of an export from others."""
    return [stored.token for stored in export.stored]


def read_table_manifests(
    bucket: Bucket, layout: ExportLayout, *, with_objects: bool = False
) -> TableManifests:
    """Read the manifests of all tables; a damaged one is a finding of its own table.

    Args:
        bucket: has them.
        layout: where they are.
        with_objects: list everything below the prefix, and not only these.
    """
    try:  # first: of what it names nothing may come later
        run, run_damage = read_run_manifest(bucket, layout), ""
    except DataRefused as error:
        run, run_damage = None, str(error)
    prefixes = [f"{layout.prefix}/"] if with_objects else [layout.pending, layout.manifests]
    objects = {listed.key: listed for prefix in prefixes for listed in bucket.listing(prefix)}
    pending = pending_by_table(layout, objects)
    sound, damaged = {}, {}
    for table in sorted(
        layout.table_of(key) for key in objects if key.startswith(layout.manifests)
    ):
        try:
            manifest = read_table_manifest(bucket, layout, table, pending.get(table, ()))
        except DataRefused as error:
            damaged[table] = str(error)
            continue
        if manifest:
            sound[table] = manifest
    for table in set(run.tables if run else ()) - sound.keys():
        damaged.setdefault(table, f"{bucket.url}/{layout.manifest(table)}: it is lost")
    return TableManifests(
        sound, damaged, run, run_damage, pending, objects if with_objects else None
    )


def pending_by_table(layout: ExportLayout, keys: Iterable[str]) -> dict[str, list[str]]:
    """Return those of some keys that are of pending exports, by table."""
    pending: dict[str, list[str]] = {}
    for key in keys:
        folder, _, name = key.removeprefix(layout.pending).partition("/")
        table = unquote(folder)
        if key.startswith(layout.pending_of(table)) and PENDING_NAME.fullmatch(name):
            pending.setdefault(table, []).append(key)
    return pending


def exported_tables(bucket: Bucket, layout: ExportLayout) -> set[str]:
    """Return the names of the tables that have a manifest, damaged or not."""
    return {layout.table_of(listed.key) for listed in bucket.listing(layout.manifests)}


def present_exports(bucket: Bucket, manifest: TableManifest) -> dict[str, Export]:
    """Return the exports of a table by chunk, as they are when a run was interrupted, too."""
    return dict(sorted((manifest.chunks | published(bucket, manifest)).items()))


def published(bucket: Bucket, manifest: TableManifest) -> dict[str, Export]:
    """Return the pending exports of a table, by chunk, whose objects have come.

    One whose Parquet has not come is one without: it is made again.
    """

    def has_come(item: tuple[str, Export]) -> Export | None:
        export, parquet = item[1], item[1].parquet
        if not bucket.is_from(export.key, export.origin):
            return None
        if parquet and not bucket.is_from(parquet.key, parquet.origin):
            return msgspec.structs.replace(export, parquet=None)
        return export

    pending = list(manifest.pending.items())
    came = _asked(has_come, pending)
    return {name: export for (name, _), export in zip(pending, came, strict=True) if export}


def _asked(ask: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Yield what the store says of many small objects, in their order."""
    return in_parallel(ask, items, max(1, min(len(items), AT_ONCE)))
