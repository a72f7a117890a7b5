"""Which backups are deleted, and deleting them.

A backup is never deleted before those that need it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from backup_config import Period
from backups.manifest import BackupLayout
from backups.retention import scheduled
from backups.stored import Backup
from store.bucket import Bucket
from store.uploads import end_interrupted_uploads


@dataclass(frozen=True)
class Unwanted:
    """A backup that can be deleted, and why."""

    backup: Backup
    reason: str


@dataclass(frozen=True)
class Kept:
    """The good backups that stay for their age, by name, and why others don't."""

    names: Collection[str]
    reason: str


def newest_chains(backups: Sequence[Backup], keep: int, oldest: datetime) -> Kept:
    """Keep the newest chains, and those that have a younger backup.

    Args:
        backups: what there is, oldest first.
        keep: how many chains with a good backup stay.
        oldest: UTC; a chain stays, too, if its newest good backup is younger.
    """
    roots = {backup.name: _root(backup, backups) for backup in backups if backup.state == "good"}
    newest_of = {roots[backup.name]: backup for backup in backups if backup.name in roots}
    by_age = sorted(newest_of, key=lambda root: newest_of[root].name)
    young = {root for root, newest in newest_of.items() if newest.started > oldest}
    kept = {*by_age[-keep:], *young}
    names = {name for name, root in roots.items() if root in kept}
    return Kept(names, f"its chain is older than the newest {keep}")


def of_schedule(
    backups: Sequence[Backup], ours: Sequence[Backup], schedule: Mapping[Period, int]
) -> Kept:
    """Keep what a schedule wants.

    Args:
        backups: what there is, oldest first.
        ours: those that were made here. One that somebody else may have put there takes the place
            of none of them.
        schedule: how many backups of which periods stay.
    """
    groups = [[one for one in group if one.state == "good"] for group in (backups, ours)]
    names = {name for group in groups for name in scheduled(group, schedule)}
    return Kept(names, "newer ones stand for its day, week, month and year (keep)")


def unwanted(
    backups: Sequence[Backup],
    young: Kept,
    *,
    keeps_last: Callable[[str], bool] = lambda _table: True,
    damaged: bool = False,
) -> list[Unwanted]:
    """Return the backups that can be deleted, in the order in which to delete them.

    What stays: the good ones that are young enough; those in progress; damaged ones that are newer
    than every good one, or may have the last rows of a table; the last good one of each table; and
    what any of these needs.

    Args:
        backups: what there is, oldest first.
        young: those that stay for their age.
        keeps_last: tells of a table whether its last backup stays, whatever its age.
        damaged: give up what only damaged ones may have.
    """
    good = [backup for backup in backups if backup.state == "good"]
    newest_good = good[-1].name if good else ""

    def may_have_the_last(backup: Backup) -> bool:
        tables = backup.manifest.tables if backup.manifest else None
        return tables is None or any(keeps_last(table) and table not in last_of for table in tables)

    last_of = {
        table: backup.name
        for backup in good
        if backup.manifest
        for table in backup.manifest.tables
        if keeps_last(table)
    }
    last_copies = set(last_of.values())
    kept = [
        backup
        for backup in backups
        if backup.name in young.names
        or backup.name in last_copies
        or (backup.state == "damaged" and backup.name > newest_good and not backup.in_future)
        or (backup.state == "damaged" and not damaged and may_have_the_last(backup))
        or backup.state == "in progress"
    ]
    needed = _with_bases(kept, backups)
    return [
        Unwanted(backup, young.reason if backup.state == "good" else _damage(backup))
        for backup in reversed(backups)  # none is ever there without what it needs
        if backup.name not in needed
    ]


def _damage(backup: Backup) -> str:
    return f"{backup.state}: {backup.reason}"


def _root(backup: Backup, backups: Sequence[Backup]) -> str:
    """Return the name of the backup with which a chain begins."""
    by_name = {member.name: member for member in backups}
    while backup.base and backup.base in by_name:
        backup = by_name[backup.base]
    return backup.name


def _with_bases(kept: Iterable[Backup], backups: Sequence[Backup]) -> set[str]:
    by_name = {member.name: member for member in backups}
    needed: set[str] = set()
    for backup in kept:
        name = backup.name
        while name in by_name and name not in needed:
            needed.add(name)
            name = by_name[name].base
    return needed


def needing(names: Collection[str], backups: Iterable[Backup]) -> list[Backup]:
    """Return those of the backups that can't be restored without ones of these names.

    Args:
        names: of other backups.
        backups: oldest first.
    """
    lost = set(names)
    needed = []
    for backup in backups:
        if backup.base in lost:
            lost.add(backup.name)
            needed.append(backup)
    return needed


def delete_backup(bucket: Bucket, layout: BackupLayout, name: str) -> None:
    """Delete a backup; its manifest first, so that it is none any more at once.

    Also the uploads that a server has not finished which was killed: no listing shows them, and the
    store charges for them.
    """
    bucket.delete(layout.probe)  # where nothing can be deleted, the backup stays one
    bucket.delete(layout.manifest(name))
    end_interrupted_uploads(bucket, layout.data(name))
    bucket.delete_all(layout.data(name))


def in_progress(
    bucket: Bucket, layout: BackupLayout, name: str, ids: Collection[str], youngest: datetime
) -> bool:
    """Tell whether a backup without manifest may still be written.

    Args:
        bucket: has it.
        layout: where it is in it.
        name: of the backup.
        ids: of what the server is at.
        youngest: UTC; an object that was written after this is a sign of it.
    """
    if any(f"-{name}-" in backup_id for backup_id in ids):
        return True
    return any(listed.modified > youngest for listed in bucket.listing(layout.data(name)))
