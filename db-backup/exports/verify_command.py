"""Checking the exports, as the command says."""

import logging
from collections.abc import Iterator, Sequence

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


def verify_exports(job: Job[Config], tables: Sequence[str]) -> Iterator[str]:
    """Check the exports of these tables, or of all; yield what is wrong with them.

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
    count = 0
    for finding in verify(bucket, layout, read, tables, effort, read_back):
        count += 1
        yield finding
    if read_back.failure:
        raise read_back.failure
    where = f"{bucket.url}/{layout.prefix}"
    if not (tables or count or read.sound) and job.config.exports_any:
        if (job.config.state_dir / LOCK).exists():
            yield f"{where}: it has no export at all, though tables are public"
        else:
            log.warning("%s: nothing was exported yet", where)
    elif not count:
        log.info("%s: everything is as exported", where)
