"""Deleting backups: those that are too old, or one that is named."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from backup_config import Config
from backups.commands import bases_among, private_bucket, stored_backups, with_progress
from backups.prune import Unwanted, delete_backup, needing, newest_chains, of_schedule, unwanted
from backups.stored import Backup, good_backups
from ooni_common.errors import DataRefused, UsageError
from ooni_common.output import counted
from ooni_common.run import Job
from store.clocks import check_clocks
from store.one_writer import writing
from tables.inventory import check_names

log = logging.getLogger("ooni.db_backup")


def prune_backups(job: Job[Config], *, confirmed: bool) -> None:
    """Delete the backups that are too old, or show which these are."""
    config, arguments = job.config, job.arguments
    backups = present_backups(job)
    if config.schedule and arguments.keep is None and arguments.keep_days is None:
        young = of_schedule(backups, bases_among(config, backups), config.schedule)
    else:
        keep = config.keep_chains if arguments.keep is None else arguments.keep
        days = config.keep_days if arguments.keep_days is None else arguments.keep_days
        young = newest_chains(backups, keep, datetime.now(UTC) - timedelta(days=days))
    gone = unwanted(backups, young, keeps_last=config.keeps_last, damaged=arguments.damaged)
    delete_unwanted(job, gone, confirmed=confirmed)
    kept = len(backups) - len(gone)
    if not gone:
        log.info("nothing to do; kept: %s", counted(kept, "backup"))
    elif confirmed:
        log.info("%s deleted; kept: %d", counted(len(gone), "backup"), kept)
    else:
        log.info("--confirm would delete %s; kept: %d", counted(len(gone), "backup"), kept)


def keep_as_scheduled(job: Job[Config]) -> None:
    """Delete the backups that the schedule of the configuration does not keep, after a good one."""
    backups, config = present_backups(job), job.config
    ours = bases_among(config, backups)
    if not good_backups(ours):
        return
    check_clocks([private_bucket(job)[0]])
    young = of_schedule(backups, ours, config.schedule)
    gone = unwanted(backups, young, keeps_last=config.keeps_last)
    delete_unwanted(job, gone, confirmed=not job.dry_run)
    if gone and not job.dry_run:
        kept = len(backups) - len(gone)
        log.info("%s deleted (keep); kept: %d", counted(len(gone), "backup"), kept)


def present_backups(job: Job[Config]) -> list[Backup]:
    """Return what there is in the bucket of the backups, also what is in progress."""
    bucket, layout = private_bucket(job)
    return with_progress(job, bucket, layout, stored_backups(job))


def delete_unwanted(job: Job[Config], gone: Sequence[Unwanted], *, confirmed: bool) -> None:
    """Delete backups, in this order, or show which these are."""
    bucket, layout = private_bucket(job)
    verb = "deleting" if confirmed else "would delete"
    with writing(job, bucket, layout, confirmed=confirmed and bool(gone)):
        for deletion in gone:
            log.info("%s the backup %s: %s", verb, deletion.backup.name, deletion.reason)
            if confirmed:
                delete_backup(bucket, layout, deletion.backup.name)
    if gone and (versions := bucket.versions_kept()):
        log.warning("%s", versions)


def delete_named(job: Job[Config], names: Sequence[str], *, confirmed: bool) -> None:
    """Delete these backups, or show what that means.

    Raises:
        UsageError: no such backup exists, or a later one depends on it.
        DataRefused: it is in progress; or the only good one that has a table, without --force.
    """
    backups = present_backups(job)
    check_names(names, [backup.name for backup in backups], "backup")
    chosen = [backup for backup in reversed(backups) if backup.name in names]
    left = [backup for backup in backups if backup.name not in names]
    if running := [backup.name for backup in chosen if backup.state == "in progress"]:
        raise DataRefused(f"the backup {running[0]} may be in progress; nothing is deleted")
    if needed := needing(names, left):
        raise UsageError(
            f"{', '.join(backup.name for backup in needed)}: of no use without what is to be"
            " deleted; name them, too, or make a new chain before (backup --full)"
        )
    lost = _only_in(job.config, chosen, left)
    if lost and not job.force:
        raise DataRefused(
            f"no other good backup has {', '.join(map(repr, lost))}; --force deletes it all the"
            " same"
        )
    delete_unwanted(job, [Unwanted(one, "it was named") for one in chosen], confirmed=confirmed)
    count = counted(len(chosen), "backup")
    done = f"{count} deleted" if confirmed else f"--confirm would delete {count}"
    log.info("%s; kept: %d", done, len(left))


def _only_in(config: Config, chosen: Sequence[Backup], left: Sequence[Backup]) -> list[str]:
    """Return the tables that good backups have, and none of those that are left."""
    kept = {table for manifest in good_backups(left) for table in manifest.tables}
    tables = {table for manifest in good_backups(chosen) for table in manifest.tables}
    return sorted(table for table in tables - kept if config.keeps_last(table))
