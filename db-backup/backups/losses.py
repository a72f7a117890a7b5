"""Tables that have lost too many rows: what was saved of them must not be replaced by less."""

from collections.abc import Mapping, Sequence

from backups.manifest import BackupManifest, SavedTable
from backups.plan import Plan
from ooni_common.errors import DataRefused
from tables.inventory import merges_rows


def lost_tables(
    plan: Plan, good: Sequence[BackupManifest], max_shrink: float
) -> Mapping[str, DataRefused]:
    """Return the tables that have lost too many rows since they were saved last, and what is said.

    Rows with the same key can have been merged since: such a table has lost rows if it has none.

    Args:
        plan: of the next backup.
        good: the backups that can be restored, oldest first.
        max_shrink: the share of its rows (0 to 1) that a table may lose.
    """
    saved: dict[str, tuple[str, SavedTable]] = {}
    for manifest in good:
        saved |= {name: (manifest.name, table) for name, table in manifest.tables.items()}
    lost = {}
    for name, rows in _rows(plan).items():
        if name not in saved:
            continue
        backup, table = saved[name]
        least = 1 if merges_rows(table.engine) else table.rows * (1 - max_shrink)
        if table.rows and max_shrink < 1 and rows < least:
            lost[name] = DataRefused(
                f"{name!r}: {rows:,} rows, and {table.rows:,} in the backup {backup}: too many are"
                " gone (max_shrink), so it is not in a newer backup; backup --force saves what is"
                " left"
            )
    return lost


def _rows(plan: Plan) -> dict[str, int]:
    """Return how many rows the tables of a plan have, on all shards."""
    rows: dict[str, int] = {}
    for shard in plan.shards:
        for name, partitions in shard.content.items():
            count = sum(partition.rows for partition in partitions.values())
            rows[name] = rows.get(name, 0) + count
    return rows
