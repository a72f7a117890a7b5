"""Some partitions of a table in a backup, such as one month, to be restored alone."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from backups.manifest import BackupManifest, SavedTable
from ooni_common.database import Database
from ooni_common.errors import DataRefused, UsageError
from tables.inventory import check_names, check_text
from tables.staging import Place

UNDIVIDED = {"", "all"}  # what the one partition of a table is called that has no partitions
# As the server makes them; others somebody else has written.
ID = re.compile(r"[A-Za-z0-9_-]{1,200}")


def with_partitions(
    manifest: BackupManifest, table: str, names: Sequence[str], id_of: Callable[[str], str]
) -> tuple[BackupManifest, tuple[str, ...]]:
    """Return the manifest of a backup with some partitions of a table, and their IDs.

    Args:
        manifest: of the backup.
        table: which is in it.
        names: the IDs; or values, where the partitions are those of a text.
        id_of: returns the ID of the partition with such a value.

    Raises:
        UsageError: it has no such partition, or none at all.
        DataRefused: the manifest has partitions that no server makes.
    """
    saved = manifest.tables[table]
    where = f"{manifest.name}: {table}"
    if saved.partitions.keys() <= UNDIVIDED:
        raise UsageError(
            f"{where} has no partitions: restore it as a whole, without --partition, and copy the"
            " rows from there"
        )
    if any(one.tables[table].method == "rows" for one in _shards_with(manifest, table)):
        raise UsageError(f"{where} was saved as rows: restore it as a whole, without --partition")
    if odd := [name for name in saved.partitions if not ID.fullmatch(name)]:
        raise DataRefused(f"{where}: its manifest has a partition that no server makes: {odd[0]!r}")
    ids = [name if name in saved.partitions else id_of(name) for name in names]
    for name, partition in zip(names, ids, strict=True):
        if partition not in saved.partitions:
            check_names([name], saved.partitions, f"partition of {table} in {manifest.name}:")
    chosen = tuple(dict.fromkeys(ids))
    return _reduced(manifest, table, chosen), chosen


def id_by_value(database: Database, value: str) -> str:
    """Return the ID of the partition that has a text as its value.

    Raises:
        UsageError: no server can be asked for such a text.
    """
    check_text("--partition", value)
    ((partition,),) = database.query("SELECT partitionId(%(value)s)", {"value": value})
    return str(partition)


def replacements(live: Place, restored: Place, partitions: Iterable[str]) -> str:
    """Return the statement by which partitions of a live table are replaced with restored ones."""
    changes = (f"REPLACE PARTITION ID '{one}' FROM {restored}" for one in partitions)
    return f"ALTER TABLE {live} {', '.join(changes)}"


def _shards_with(manifest: BackupManifest, table: str) -> list[BackupManifest]:
    return [shard for shard in manifest.by_shard if table in shard.tables]


def _reduced(manifest: BackupManifest, table: str, chosen: Collection[str]) -> BackupManifest:
    """Return a manifest in which a table has the chosen partitions alone, on each shard."""
    shards = manifest.shards and tuple(_reduced(shard, table, chosen) for shard in manifest.shards)
    if table not in manifest.tables:
        return manifest
    tables = manifest.tables | {table: _reduced_table(manifest.tables[table], chosen)}
    return msgspec.structs.replace(manifest, tables=tables, shards=shards)


def _reduced_table(saved: SavedTable, chosen: Collection[str]) -> SavedTable:
    return msgspec.structs.replace(
        saved,
        partitions={name: one for name, one in saved.partitions.items() if name in chosen},
        later={name: one for name, one in saved.later.items() if name in chosen},
    )
