"""Checking the exports, as the command says."""

import logging
from collections.abc import Sequence

from backup_config import Config
from exports.commands import LOCK, public_bucket
from exports.stored import read_table_manifests
from exports.verify import verify
from ooni_common.run import Job

log = logging.getLogger("ooni.db_backup")


def verify_exports(job: Job[Config], tables: Sequence[str]) -> list[str]:
    """Check the exports of these tables, or of all; return what is wrong with them."""
    bucket, layout = public_bucket(job)
    read = read_table_manifests(bucket, layout, with_objects=True)
    quick, sample = job.arguments.quick, job.arguments.sample
    findings = list(verify(bucket, layout, read, tables, quick=quick, sample=sample))
    where = f"{bucket.url}/{layout.prefix}"
    if not (tables or findings or read.sound) and job.config.exports_any:
        if not (job.config.state_dir / LOCK).exists():
            log.warning("%s: nothing was exported yet", where)
            return []
        return [f"{where}: it has no export at all, though tables are public"]
    if not findings:
        log.info("%s: everything is as exported", where)
    return findings
