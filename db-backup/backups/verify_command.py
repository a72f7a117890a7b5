"""Verifying backups, as the command says."""

import logging
import time
from collections.abc import Collection, Generator, Iterator, Sequence

from backup_config import Config
from backups.commands import (
    connected_to_servers,
    private_bucket,
    proven_state,
    stored_backups,
)
from backups.manifest import BackupManifest
from backups.server_manifest import check_layout, check_server_manifests
from backups.shards import check_shards, server_of
from backups.stored import (
    Backup,
    chain_of,
    check_newest,
    chosen,
    good_backups,
    good_ones,
)
from backups.verify import drop_scratches, verify_backup
from databases import raise_first
from ooni_common.errors import ConfigError, DataRefused, ScriptError
from ooni_common.files import locked, make_writable
from ooni_common.nodes import Nodes
from ooni_common.run import Job
from store.client import url_of
from tables.inventory import check_names

log = logging.getLogger("ooni.db_backup")

ALL = "all"  # with --from, in the place of a backup's name


def verify_backups(
    job: Job[Config], tables: Sequence[str], required: Collection[str] = ()
) -> Iterator[str]:
    """Check backups by restoring them into a database that is dropped again.

    Args:
        job: `--from` says which of them; `--quick`: only look whether all objects are there.
        tables: only these; empty: all.
        required: those of them that have to be there.

    Yields:
        What is wrong with them.

    Raises:
        ScriptError: one can't be verified with this configuration; all others were.
    """
    backups = stored_backups(job)
    name = job.arguments.source
    if name in ("", ALL):
        for backup in backups:
            if backup.state == "damaged":
                yield f"the backup {backup.name} is damaged: {backup.reason}"
    wanted = to_verify(job.config, backups, name, tables)
    oddities = [] if name else _oddities_of_newest(job.config, backups)
    yield from oddities
    if job.arguments.quick:
        return
    for table in required:
        if not any(table in present for _, present in wanted):
            yield f"{table}: in no good backup"
    found = yield from _verify_each(job, backups, wanted)
    if not (found or name or tables or oddities):
        job.metrics.gauge("last_verified", int(time.time()))


def _verify_each(
    job: Job[Config],
    backups: Sequence[Backup],
    wanted: Sequence[tuple[BackupManifest, Sequence[str]]],
) -> Generator[str, None, bool]:
    """Restore from each of these backups; yield what is wrong, and return whether anything is.

    Raises:
        ScriptError: one can't be verified with this configuration; all others were.
    """
    signed = {backup.name for backup in backups if backup.signature == "valid"}
    failures: list[ScriptError] = []
    found = False
    make_writable("state_dir", job.config.state_dir)
    with (
        locked(job.config.state_dir / "db-backup.verify.lock"),
        connected_to_servers(job.config) as nodes,
    ):
        for manifest, present in wanted:
            trusted = manifest.name in signed or job.arguments.trusted
            chain = chain_of(manifest, backups)
            try:
                damages = verify_on_shards(job, nodes, chain, present, trusted=trusted)
            except (ConfigError, DataRefused) as error:
                failures.append(error)
                continue
            if present and not damages:
                log.info("the backup %s can be restored", manifest.name)
            yield from damages
            found = found or bool(damages)
    raise_first(failures)
    return found


def _oddities_of_newest(config: Config, backups: Sequence[Backup]) -> list[str]:
    """Return why the newest good backup can't be the last one that was made here."""
    state = proven_state(config)
    try:
        check_newest(good_ones(backups)[-1], state.runs, signed=state.signed)
    except DataRefused as error:
        return [str(error)]
    return []


def to_verify(
    config: Config, backups: Sequence[Backup], name: str, tables: Sequence[str]
) -> list[tuple[BackupManifest, list[str]]]:
    """Return the backups to verify, and what of them.

    Without a name, that is the newest one, and the last one of each table that it has not: of a
    table that is gone from the database, this is the only copy.

    Args:
        config: says of which tables the last copy stays.
        backups: what there is.
        name: of a backup, or "all"; "": see above.
        tables: only these; empty: all.

    Raises:
        UsageError: no such backup exists, or it lacks the table.
        DataRefused: it can't be restored, or there is no good one.
    """
    ones = good_ones(backups) if name == ALL else [chosen(backups, name)]
    good = [one.manifest for one in ones]
    if name not in ("", ALL):
        check_names(tables, good[0].tables, f"table in the backup {name}:")
    wanted = [
        (one, [table for table in tables or one.tables if table in one.tables]) for one in good
    ]
    if name:
        return wanted
    newest = good[0]
    last_of = {table: one for one in good_backups(backups) for table in one.tables}
    wanted += [
        (last_of[table], [table])
        for table in sorted(last_of.keys() - newest.tables.keys())
        if table in tables or (not tables and config.keeps_last(table))
    ]
    return wanted


def verify_on_shards(
    job: Job[Config],
    nodes: Nodes,
    chain: Sequence[BackupManifest],
    tables: Sequence[str],
    *,
    trusted: bool,
) -> list[str]:
    """Verify a backup, what it has of each shard on one node.

    Args:
        job: of the command.
        nodes: of the cluster.
        chain: the backup, and those that it needs.
        tables: whose rows are verified.
        trusted: whether definitions are executed that do more than a table needs.

    Returns:
        What is wrong with it.
    """
    (bucket, _), manifest = private_bucket(job), chain[0]
    check_layout(job.config, bucket, manifest)
    url = url_of(job.config.store("private"))
    try:
        looked = check_server_manifests(bucket, chain, url, trusted=job.arguments.trusted)
    except DataRefused as error:
        return [str(error)]
    check_shards(nodes, manifest)
    if nodes.is_cluster:  # one that was killed may have used another node
        nodes.each(lambda node: drop_scratches(node.database))
    findings = []
    for shard, saved in zip(nodes.shards, manifest.by_shard, strict=True):
        server = server_of(nodes, nodes.of_shard(shard)[0], job.config, manifest.collection)
        present = [name for name in tables if name in saved.tables]
        findings += verify_backup(server, saved, present, trusted=trusted, looked=looked)
    return findings
