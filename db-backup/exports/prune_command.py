"""Deleting exports that nobody needs, as the command says."""

import logging
from collections.abc import Collection
from datetime import timedelta

from backup_config import Config
from documents import TOOL
from exports.commands import public_bucket
from exports.manifest import RunManifest, now
from exports.prune import Unwanted, delete, given_up, leftovers
from exports.stored import read_table_manifests
from ooni_common.errors import DataRefused
from ooni_common.output import counted
from ooni_common.run import Job
from portal.about import about_of
from store.clocks import check_clocks
from store.one_writer import writing
from throttle import in_units

log = logging.getLogger("ooni.db_backup")


def prune_as_configured(job: Job[Config], coming: Collection[str] = ()) -> None:
    """Delete what the exports have given up, after a run whose exports have succeeded.

    The manifests are read while no other host writes there: what a run elsewhere has just made is
    named by one, or that run is at work, and this one ends with 75.

    Args:
        job: of the run.
        coming: the keys of what a dry run would have exported, and a manifest named.
    """
    bucket, layout = public_bucket(job)
    check_clocks([bucket])
    age = timedelta(days=job.config.prune_after_days)
    with writing(job, bucket, layout):
        manifests = read_table_manifests(bucket, layout)
        exported = job.config.is_exported
        old = given_up(bucket, layout, manifests, exported, age)
        gone = [leftover for leftover in old if leftover.key not in coming]
        verb = "would delete" if job.dry_run else "deleting"
        for leftover in gone:
            log.info("%s %s (%s): %s", verb, leftover.key, in_units(leftover.size), leftover.reason)
        if job.dry_run or not gone:
            return
        bucket.delete_keys([leftover.key for leftover in gone])
    total = in_units(sum(leftover.size for leftover in gone))
    log.info("%s deleted (prune_after_days, %s)", counted(len(gone), "object"), total)
    if versions := bucket.versions_kept():
        log.warning("%s", versions)


def prune_exports(job: Job[Config], *, confirmed: bool) -> None:
    """Delete exports that nobody needs, or show which these are."""
    bucket, layout = public_bucket(job)
    manifests = read_table_manifests(bucket, layout)
    age = timedelta(days=job.arguments.older_than)

    def is_withdrawn(table: str) -> bool:
        policy = job.config.policy_of(table)
        return policy is not None and not policy.exported and policy.policy != "gone"

    unwanted = list(leftovers(bucket, layout, manifests, is_withdrawn, age))
    forgotten = [table for table in manifests.damaged if is_withdrawn(table)]
    verb = "deleting" if confirmed else "would delete"
    for table in forgotten:
        log.info("%s the damaged manifest of %s: it is not public any more", verb, table)
    for leftover in unwanted:
        size = in_units(leftover.size)
        log.info("%s %s (%s): %s", verb, leftover.key, size, leftover.reason)
    if confirmed and (unwanted or forgotten):
        run_manifest = RunManifest(started=now(), finished=now(), tool=TOOL, server="")
        with writing(job, bucket, layout):
            chosen, about = Unwanted(unwanted, forgotten), about_of(job.config)
            delete(bucket, layout, manifests, chosen, run_manifest, about)
    if unwanted and (versions := bucket.versions_kept()):
        log.warning("%s", versions)
    total = in_units(sum(leftover.size for leftover in unwanted))
    if not unwanted:
        log.info("nothing to do: every export has its place")
    elif confirmed:
        log.info("%s deleted (%s)", counted(len(unwanted), "object"), total)
    else:
        log.info("--confirm would delete %s (%s)", counted(len(unwanted), "object"), total)
    if damaged := [why for table, why in manifests.damaged.items() if table not in forgotten]:
        raise DataRefused(
            f"{'; '.join(damaged)}; until that is mended, no object is deleted that none names"
        )
