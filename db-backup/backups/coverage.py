"""Which partitions have the rows of the last backup, as the parts of their table tell.

A merge makes other parts of the same blocks, and leaves fewer rows where it drops those that were
replaced. Neither is a change: what has come, was deleted, or was written by a mutation is.
"""

from collections.abc import Collection
from dataclasses import dataclass

from backups.manifest import SavedTable
from ooni_common.database import Database
from tables.blocks import ShardStorage
from tables.inventory import SourceTable
from tables.parts import read_snapshot


@dataclass(frozen=True)
class Coverage:
    """What the parts of a table tell.

    Attributes:
        storage: the blocks that it has; None where they tell nothing.
        unchanged: the IDs of the partitions whose rows are as they were, but for merges.
    """

    storage: ShardStorage | None = None
    unchanged: Collection[str] = frozenset()


def read_coverage(database: Database, table: SourceTable, saved: SavedTable | None) -> Coverage:
    """Return what the parts of a table tell.

    Args:
        database: the connection.
        table: that has the rows.
        saved: what the last backup has of it.
    """
    snapshot = read_snapshot([database], table)
    if snapshot is None or snapshot.expires:
        return Coverage()
    (parts,) = snapshot.shards
    unchanged: Collection[str] = ()
    if saved and saved.storage and parts.is_of(saved.storage):
        unchanged = parts.unchanged_partitions(saved.storage)
    return Coverage(parts.storage, frozenset(unchanged))
