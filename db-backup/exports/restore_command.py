"""Restoring from an export, as the command says."""

import logging

from backup_config import Config
from exports.clickhouse_http import ClickHouseHTTP
from exports.commands import public_bucket, with_chunks
from exports.restore import NewTable, restore
from exports.row_source import reachable
from exports.stored import read_table_manifest
from ooni_common.database import connected
from ooni_common.errors import UsageError
from ooni_common.run import Job
from tables.policy import TablePolicy

log = logging.getLogger("ooni.db_backup")


def restore_export(job: Job[Config], table: str) -> None:
    """Make a new table of an export."""
    name = job.arguments.name or f"{table}_restored"
    bucket, layout = public_bucket(job)
    manifest = read_table_manifest(bucket, layout, table)
    if manifest is None:
        raise UsageError(f"{table!r} has no export; see list")
    if chunks := job.arguments.chunks:
        manifest = with_chunks(manifest, chunks)
    if job.dry_run:
        rows = sum(export.rows for export in manifest.exports)
        log.info("would restore %s as %s: %s rows", table, name, f"{rows:,}")
        return
    with connected(job.config) as database:
        http = reachable(ClickHouseHTTP(job.config, job.user_agent))
        policy = job.config.policy_of(table) or TablePolicy(policy="public")
        target = NewTable(name, policy, job.arguments.trusted)
        rows = restore(database, http, bucket, manifest, target)
    log.info("restored %s as %s: %s rows, from its export", table, name, f"{rows:,}")
