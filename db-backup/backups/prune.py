"""Which backups are deleted, and deleting them.

A chain stays or goes as a whole: of two backups of which one needs the other, none is of use alone.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from backups.manifest import BackupLayout
from backups.stored import Backup
from store import Bucket, end_interrupted_uploads


@dataclass(frozen=True)
class Unwanted:
    """A backup that can be deleted, and why."""

    backup: Backup
    reason: str


def unwanted(
    backups: Sequence[Backup],
    *,
    keep: int,
    keep_days: float,
    now: datetime,
    keeps_last: Callable[[str], bool] = lambda _table: True,
    damaged: bool = False,
) -> list[Unwanted]:
    """Return the backups that can be deleted, in the order in which to delete them.

    What stays: the good backups of the newest chains and of the younger ones; those in progress;
    damaged ones that are newer than every good one, or may have the last rows of a table; the last
    good one of each table; and what any of these needs.

    Args:
        backups: what there is, oldest first.
        keep: how many chains with a good backup stay.
        keep_days: chains whose newest good backup is younger stay, too.
        now: UTC.
        keeps_last: tells of a table whether its last backup stays, whatever its age.
        damaged: give up what only damaged ones may have.
    """
    good = [backup for backup in backups if backup.state == "good"]
    newest_good = good[-1].name if good else ""
    kept_chains = _kept_chains(backups, keep, now - timedelta(days=keep_days))

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
    roots = {backup.name: _root(backup, backups) for backup in backups}
    kept = [
        backup
        for backup in backups
        if (backup.state == "good" and roots[backup.name] in kept_chains)
        or backup.name in last_copies
        or (backup.state == "damaged" and backup.name > newest_good and not backup.in_future)
        or (backup.state == "damaged" and not damaged and may_have_the_last(backup))
        or backup.state == "in progress"
    ]
    needed = _with_bases(kept, backups)
    return [
        Unwanted(backup, _reason(backup, keep))
        for backup in reversed(backups)  # none is ever there without what it needs
        if backup.name not in needed
    ]


def _kept_chains(backups: Sequence[Backup], keep: int, oldest: datetime) -> set[str]:
    """Return the chains that stay, by the name of the backup that they begin with."""
    newest_of = {_root(backup, backups): backup for backup in backups if backup.state == "good"}
    by_age = sorted(newest_of, key=lambda root: newest_of[root].name)
    young = {root for root, newest in newest_of.items() if newest.started > oldest}
    return {*by_age[-keep:], *young}


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


def _reason(backup: Backup, keep: int) -> str:
    if backup.state == "good":
        return f"its chain is older than the newest {keep}"
    return f"{backup.state}: {backup.reason}"


def delete_backup(bucket: Bucket, layout: BackupLayout, name: str) -> None:
    """Delete a backup; its manifest first, so that it is none any more at once.

    Also the uploads that a server has not finished which was killed: no listing shows them, and the
    store charges for them.
    """
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
