"""The private backups, as the commands need them."""

import contextlib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from backup_config import Config
from backups.backup import back_up
from backups.losses import lost_tables
from backups.manifest import BackupLayout, BackupManifest
from backups.plan import Plan, plan_backup
from backups.prune import in_progress
from backups.server import ServerBackups
from backups.server_manifest import check_server_manifests
from backups.shards import servers_of
from backups.stored import (
    Backup,
    chain_of,
    good_backups,
    read_backups,
)
from ooni_common.config import SecretUrl
from ooni_common.errors import ConfigError, DataRefused, ScriptError, Unavailable
from ooni_common.nodes import Nodes, connected_nodes
from ooni_common.output import counted
from ooni_common.run import Job
from ooni_common.state import read_state, write_state
from store.bucket import Bucket
from store.client import url_of
from store.one_writer import writing
from tables.inventory import is_replicated
from throttle import in_units

log = logging.getLogger("ooni.db_backup")

SILENCE = timedelta(hours=1)  # a backup to which nothing was added for so long is at its end


def private_bucket(job: Job[Config]) -> tuple[Bucket, BackupLayout]:
    """Return the bucket of the backups, and where they are in it."""
    bucket = Bucket(job.config.store("private"), job.user_agent)
    return bucket, BackupLayout(job.config.private_prefix)


class RunState(msgspec.Struct):
    """What this machine knows of its own backups.

    Attributes:
        runs: the number of the last one. A bucket whose newest backup has a lower one has lost
            some, or somebody has put old ones in the place of new ones.
        signed: whether that one was signed, so that the newest one has to be.
    """

    runs: int = 0
    signed: bool = False


def run_state_file(config: Config) -> Path:
    """Return the file with the RunState; each database has runs of its own."""
    return config.state_dir / f"{config.qualifier}backups.json"


def proven_state(config: Config) -> RunState:
    """Return what this machine knows of its own backups, as far as signatures can prove it."""
    # Of unsigned ones, nobody knows whether the number is the right one.
    return read_state(run_state_file(config), RunState) if config.signing_key else RunState()


def stored_backups(job: Job[Config]) -> list[Backup]:
    """Return what there is in the bucket of the backups, oldest first."""
    bucket, layout = private_bucket(job)
    return read_backups(bucket, layout, job.config.signing_key)


def back_up_tables(
    job: Job[Config], nodes: Nodes, names: Sequence[str], *, full: bool = False
) -> Sequence[ScriptError]:
    """Make a backup of these tables, if anything has changed since the last one.

    Returns:
        What can't be backed up; all else is.

    Raises:
        ScriptError: it failed; there is no backup then.
    """
    if not names:
        raise ConfigError("no table is private in the configuration: there is nothing to back up")
    bucket, layout = private_bucket(job)
    with job.metrics.timer("run_backup"), writing(job, bucket, layout):
        if not job.dry_run:
            nodes.each(lambda node: ServerBackups(node.database, job.config).end_abandoned())
        backups = stored_backups(job)
        warn_of_bad_backups(backups)
        plan, refused = planned(job, nodes, names, bucket, backups, full=full)
        if plan is None:
            return refused
        carry_out(job, plan, bucket, layout, backups)
    return [
        *refused,
        *missing_tables(job.config, nodes, names, plan.base),
        *vanished_tables(job, nodes, names, backups),
        *(
            DataRefused(
                f"the backup {backup.name}: {backup.reason}; no run has made it:"
                " prune --damaged --confirm deletes it"
            )
            for backup in backups
            if backup.in_future
        ),
    ]


def planned(
    job: Job[Config],
    nodes: Nodes,
    names: Sequence[str],
    bucket: Bucket,
    backups: Sequence[Backup],
    *,
    full: bool,
) -> tuple[Plan | None, Sequence[ScriptError]]:
    """Return what is to be saved, and what is refused; None: all of it is, as too much is lost."""
    timely = bases_among(job.config, backups)
    servers = servers_of(nodes, job.config, names)
    plan = plan_backup(servers, names, timely, full=full, force=job.force)
    refused = refused_base(job, bucket, plan, backups)
    if refused:
        log.warning("%s; so a full backup is made", refused)
        plan = plan_backup(servers, names, timely, full=True)
    lost: Mapping[str, DataRefused] = {}
    if not job.force:
        lost = lost_tables(plan, good_backups(timely), job.config.max_shrink)
    if lost:
        left = [name for name in names if name not in lost]
        if not left:
            return None, list(lost.values())
        plan = plan_backup(servers, left, timely, full=full or bool(refused))
    return plan, [*([refused] if refused else []), *plan.refused, *lost.values()]


def carry_out(
    job: Job[Config], plan: Plan, bucket: Bucket, layout: BackupLayout, backups: Sequence[Backup]
) -> None:
    """Make the backup that is planned, if there is anything to save; log what came of it."""
    if job.dry_run:
        explain(plan)
        return
    if not plan.reason:
        log.info("nothing to do: all is as in the backup %s", plan.base.name if plan.base else "")
        return
    log.info("%s: %s", plan, plan.reason)
    state, key = run_state_file(job.config), job.config.signing_key
    manifest = back_up(
        bucket, layout, plan, backups, runs=read_state(state, RunState).runs, key=key
    )
    write_state(state, RunState(manifest.run, signed=bool(key)))
    job.metrics.gauge("backup_bytes", manifest.bytes)
    log.info(
        "the backup %s is complete: %s in %s, %s written",
        manifest.name,
        counted(manifest.rows, "row"),
        counted(len(manifest.tables), "table"),
        in_units(manifest.bytes),
    )


def bases_among(config: Config, backups: Sequence[Backup]) -> list[Backup]:
    """Return the backups on which another one may stand: none that somebody else has written."""
    signed = proven_state(config).signed
    return [
        backup
        for backup in backups
        if not backup.in_future and (backup.signature == "valid" or not signed)
    ]


def refused_base(
    job: Job[Config], bucket: Bucket, plan: Plan, backups: Sequence[Backup]
) -> DataRefused | None:
    """Return why a planned backup can't stand on another one; None if it can.

    The server reads its own manifests of the older backup, and goes where these say. What they say
    it has is not written again.
    """
    if not plan.reason or plan.base is None or plan.kind == "full":
        return None
    url = url_of(job.config.store("private"))
    try:
        check_server_manifests(bucket, chain_of(plan.base, backups), url)
    except DataRefused as error:
        return error
    return None


def vanished_tables(
    job: Job[Config], nodes: Nodes, names: Sequence[str], backups: Sequence[Backup] | None = None
) -> list[ScriptError]:
    """Return a failure if tables that backups have are not there any more, and nobody said so.

    Args:
        job: of the run.
        nodes: of the cluster; of one that is absent it is not known what it has.
        names: the private tables that were seen.
        backups: what there is; None: it is looked up.
    """
    if nodes.absent:
        return []
    if backups is None:
        backups = stored_backups(job)
    # Without a command's own look at all that is listed, nothing is left out.
    reported = job.config.missing(names) if job.command == "run" else ()
    vanished = vanished_from(job.config, names, backups, reported)
    return [vanished] if vanished else []


def vanished_from(
    config: Config,
    names: Collection[str],
    backups: Sequence[Backup],
    reported: Collection[str] = (),
) -> DataRefused | None:
    """Return what is said of tables that backups have, and the database has not.

    Args:
        config: says of a table that it is gone.
        names: the tables that were seen.
        backups: good ones, and damaged ones whose manifests can be read.
        reported: tables of which it is said already that they are missing.
    """
    saved = {name for backup in backups if backup.manifest for name in backup.manifest.tables}
    safe = {name for manifest in good_backups(backups) for name in manifest.tables}
    absent = sorted(saved - set(names) - set(reported))
    lost = [name for name in absent if config.is_gone(name) and name not in safe]
    if lost:
        return DataRefused(
            f"only a damaged backup has these tables, which are listed as gone:"
            f" {', '.join(map(repr, lost))}; see list"
        )
    vanished = [name for name in absent if config.is_backed_up(name)]
    if not vanished:
        return None
    return DataRefused(
        f"tables that backups have, but the database has not: {', '.join(map(repr, vanished))};"
        ' if they are gone for good, list them as "gone": the last backup of each stays'
    )


def missing_tables(
    config: Config, nodes: Nodes, names: Sequence[str], last: BackupManifest | None
) -> list[ScriptError]:
    """Return failures for the tables that may be on absent nodes only.

    Args:
        config: names tables.
        nodes: of the cluster.
        names: the private tables that were seen.
        last: a backup from before; a replicated table that it has is gone, if nobody has it.
    """
    if not nodes.absent:
        return []
    saved = last.tables if last else {}
    expected = {name for name in config.named_tables if config.is_backed_up(name)}
    expected |= {name for name, table in saved.items() if not is_replicated(table.engine)}
    return [
        Unavailable(
            f"{name}: not in the backup: no node that is up has it; absent are"
            f" {', '.join(nodes.absent)}"
        )
        for name in sorted(expected - set(names))
    ]


def explain(plan: Plan) -> None:
    """Log what would be done."""
    if not plan.reason:
        log.info(
            "would do nothing: all is as in the backup %s", plan.base.name if plan.base else ""
        )
        return
    log.info("would be made: %s: %s", plan, plan.reason)
    for shard in plan.shards:
        for saving in shard.savings:
            rows = sum(partition.rows for partition in shard.content[saving.name].values())
            log.info("%s: would be saved (%s): %s rows", saving.name, saving.method, f"{rows:,}")


def warn_of_bad_backups(backups: Sequence[Backup]) -> None:
    """Warn of what looks like a backup and is none."""
    for backup in backups:
        if backup.state != "good":
            log.warning("the backup %s is %s: %s", backup.name, backup.state, backup.reason)


@contextlib.contextmanager
def connected_to_servers(config: Config) -> Iterator[Nodes]:
    """Connect to the database `system`: the one of the configuration may be gone."""
    parts = urlsplit(config.db_uri.reveal())
    uri = SecretUrl(parts._replace(path="/system").geturl())
    config = msgspec.structs.replace(config, db_uri=uri)
    with connected_nodes(config, one_suffices=True) as nodes:
        yield nodes


def with_progress(
    job: Job[Config], bucket: Bucket, layout: BackupLayout, backups: Sequence[Backup]
) -> list[Backup]:
    """Return the backups, where unfinished ones may be in progress.

    Without the database nobody knows: then they all are.
    """
    if all(backup.state != "unfinished" for backup in backups):
        return list(backups)
    try:
        with connected_to_servers(job.config) as nodes:
            servers = [ServerBackups(node.database, job.config) for node in nodes.up]
            running = [backup_id for server in servers for backup_id in server.running()]
    except ScriptError as error:
        log.warning("%s; so it is not known whether backups are in progress", error)
        running = [f"-{backup.name}-" for backup in backups]
    youngest = datetime.now(UTC) - SILENCE
    return [
        Backup(backup.name, "in progress", "it has no manifest yet")
        if backup.state == "unfinished"
        and in_progress(bucket, layout, backup.name, running, youngest)
        else backup
        for backup in backups
    ]
