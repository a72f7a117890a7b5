"""Checking the exports, as the command says."""

import logging
from collections.abc import Sequence

from backup_config import Config
from exports.clickhouse_http import ClickHouseHTTP
from exports.commands import LOCK, public_bucket
from exports.read_back import ReadBack
from exports.stored import read_table_manifests
from exports.verify import Effort, verify
from ooni_common.run import Job
from parallel import jobs_at_once
from throttle import Bandwidth

log = logging.getLogger("ooni.db_backup")


def verify_exports(job: Job[Config], tables: Sequence[str]) -> list[str]:
    """Check the exports of these tables, or of all; return what is wrong with them.

    Raises:
        ScriptError: the database has failed, which reads Parquet; all else was looked at.
    """
    bucket, layout = public_bucket(job)
    read = read_table_manifests(bucket, layout, with_objects=True)
    effort = Effort(
        quick=job.arguments.quick,
        sample=job.arguments.sample,
        jobs=jobs_at_once(job.config.jobs),
        bandwidth=Bandwidth(job.config.max_bandwidth),
    )
    read_back = ReadBack(ClickHouseHTTP(job.config, job.user_agent))
    findings = list(verify(bucket, layout, read, tables, effort, read_back))
    if read_back.failure:
        for finding in findings:
            log.error("%s", finding)
        raise read_back.failure
    where = f"{bucket.url}/{layout.prefix}"
    if not (tables or findings or read.sound) and job.config.exports_any:
        if not (job.config.state_dir / LOCK).exists():
            log.warning("%s: nothing was exported yet", where)
            return []
        return [f"{where}: it has no export at all, though tables are public"]
    if not findings:
        log.info("%s: everything is as exported", where)
    return findings
