"""Showing what there is of exports and backups, in 80 columns for people or as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from backups.manifest import SavedTable
from backups.stored import Backup
from exports.manifest import Export, ParquetObject, TableManifest, summary
from exports.stored import TableManifests
from ooni_common.output import printable, printable_json
from throttle import in_units

NAME_WIDTH = 26  # so that a line has 80 columns
BACKUP_WIDTH = 16  # of a name without a database
BACKUP_COLUMNS = ("BACKUP", "CHAIN", "AGE", "TABLES", "ROWS", "WRITTEN", "STATE")


@dataclass(frozen=True)
class Stored:
    """What there is, by the names that commands take: those of another database begin with it.

    Attributes:
        exports: the manifests, by table.
        damaged: the tables whose manifests can't be used, with the reason.
        backups: by name.
    """

    exports: dict[str, TableManifest] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    backups: dict[str, Backup] = field(default_factory=dict)

    def add(self, qualifier: str, exports: TableManifests, backups: Sequence[Backup]) -> None:
        """Add what a database has."""
        self.exports.update({qualifier + name: one for name, one in exports.sound.items()})
        self.damaged.update({qualifier + name: why for name, why in exports.damaged.items()})
        self.backups.update({qualifier + backup.name: backup for backup in backups})


def stored_as_json(
    manifests: Mapping[str, TableManifest],
    damaged: Mapping[str, str],
    backups: Mapping[str, Backup],
) -> str:
    """Return all that is known: the manifests of exports, by table, and the backups, by name.

    `damaged` has those that can't be used, by table, with the reason.
    """
    stored = {
        "exports": {
            name: msgspec.structs.replace(manifest, storages={})  # only of use to the next run
            for name, manifest in sorted(manifests.items())
        },
        "damaged_exports": dict(sorted(damaged.items())),
        "backups": [
            {
                "name": name,
                "state": backup.state,
                "reason": backup.reason,
                "signature": backup.signature,
                "bytes": backup.manifest.bytes if backup.manifest else None,
                "rows": backup.manifest.rows if backup.manifest else None,
                "manifest": backup.manifest,
            }
            for name, backup in backups.items()
        ],
    }
    return printable_json(msgspec.json.format(msgspec.json.encode(stored)).decode())


def backups_as_table(backups: Mapping[str, Backup], now: datetime) -> str:
    """Return one line for each backup, by name, and below it why it is not good."""
    width = max([BACKUP_WIDTH, *map(len, backups)])
    rows = [_backup_row(width, *BACKUP_COLUMNS)]
    for name, backup in backups.items():
        rows.append(_backup_row(width, name, *_backup_cells(backup, now)))
        if backup.state in ("damaged", "unfinished"):
            rows.append(f"    {printable(backup.reason)}")
    return "\n".join(rows)


def backup_as_table(name: str, backup: Backup, now: datetime) -> str:
    """Return a line for a backup and one for each of its tables."""
    rows = [backups_as_table({name: backup}, now), ""]
    if backup.manifest:
        rows.append(_saved_row("TABLE", "ROWS", "SAVED", "VERIFIED BY"))
        tables = sorted(backup.manifest.tables.items())
        rows += [_saved_line(table, saved) for table, saved in tables]
    return "\n".join(rows)


def age_of(duration: timedelta) -> str:
    """Return a duration for people: one number and one unit."""
    seconds = max(0, int(duration.total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _backup_cells(backup: Backup, now: datetime) -> tuple[str, ...]:
    age, manifest = age_of(now - backup.started), backup.manifest
    if manifest is None:
        return ("", age, "", "", "", backup.state)
    return (
        "full" if manifest.kind == "full" else f"+{manifest.number - 1}",
        age,
        f"{len(manifest.tables)}",
        f"{manifest.rows:,}",
        in_units(manifest.bytes),
        backup.state,
    )


def _backup_row(width: int, *cells: str) -> str:
    name, chain, age, tables, rows, size, state = cells
    return (
        f"{name:<{width}}  {chain:<5} {age:>6} {tables:>7} {rows:>16} {size:>8}  {state}".rstrip()
    )


def _saved_line(name: str, saved: SavedTable) -> str:
    checked = any(partition.checksum for partition in saved.partitions.values())
    how = "checksum" if checked and not saved.later else "rows"
    if checked and saved.later:
        how = f"checksum, and {len(saved.later)} of {len(saved.partitions)} partitions by rows"
    method = "as rows" if saved.method == "rows" else saved.method
    return _saved_row(printable(name), f"{saved.rows:,}", method, how)


def _saved_row(*cells: str) -> str:
    name, rows, method, how = cells
    return f"{name:<{NAME_WIDTH}} {rows:>16}  {method:<12} {how}".rstrip()


def exports_as_table(manifests: Mapping[str, TableManifest], damaged: Mapping[str, str]) -> str:
    """Return one line for each table, and below a damaged one why it can't be used."""
    rows = [_row("TABLE", "CHUNKS", "ROWS", "SIZE", "NEWEST EXPORT (UTC)")]
    for name, manifest in sorted(manifests.items()):
        figures = summary(manifest)
        newest = max((export.finished for export in manifest.exports), default="")
        state = " interrupted" if manifest.pending else ""
        rows.append(
            _row(
                name,
                f"{figures.chunks}",
                f"{figures.rows:,}",
                in_units(figures.compressed_bytes + figures.parquet_bytes),
                _time(newest) + state,
            )
        )
    for name, reason in sorted(damaged.items()):
        rows += [_row(name, "", "", "", "damaged"), f"    {printable(reason)}"]
    return "\n".join(rows)


def chunks_as_table(manifest: TableManifest) -> str:
    """Return one line for each object of a table."""
    rows = [_row("OBJECT", "", "ROWS", "SIZE", "EXPORTED (UTC)")]
    rows += [_object_row(export, one) for export in manifest.exports for one in export.stored]
    return "\n".join(rows)


def _object_row(export: Export, stored: Export | ParquetObject) -> str:
    dropped = " gone" if export.dropped else ""
    return _row(
        stored.key.rpartition("/")[2],
        "",
        f"{export.rows:,}",
        in_units(stored.compressed_bytes),
        _time(stored.finished) + dropped,
    )


def _time(stamp: str) -> str:
    return stamp[:16].replace("T", " ")


def _row(*cells: str) -> str:
    name, chunks, rows, size, time = map(printable, cells)
    return f"{name:<{NAME_WIDTH}} {chunks:>6} {rows:>14} {size:>8}  {time}".rstrip()
