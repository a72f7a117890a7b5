"""Restoring from a backup, as the command says."""

import logging
from collections.abc import Mapping
from dataclasses import replace

from backup_config import Config
from backups.cluster_restore import restore_on_cluster
from backups.commands import (
    connected_to_servers,
    private_bucket,
    proven_state,
    stored_backups,
)
from backups.comparison import is_empty
from backups.manifest import BackupManifest
from backups.partitions import id_by_value, replacements, with_partitions
from backups.restore import Restored, Wanted, report, restore_tables
from backups.server_manifest import check_layout, check_server_manifests
from backups.shards import check_shards, server_of
from backups.stored import (
    Chosen,
    chain_of,
    check_newest,
    chosen,
    good_backups,
    good_ones,
)
from ooni_common.errors import DataRefused, ScriptError
from ooni_common.nodes import Nodes
from ooni_common.run import Job
from store.client import url_of
from tables.inventory import check_names
from tables.staging import Place, exists

log = logging.getLogger("ooni.db_backup")


def backup_with(job: Job[Config], table: str) -> Chosen | None:
    """Return the backup that a table can be restored from; None: there is none with this table.

    `table` is "" for all of them.

    Raises:
        UsageError: one was named, and there is none of this name.
        DataRefused: it can't be restored.
    """
    backups = stored_backups(job)
    state = proven_state(job.config)
    if job.arguments.source or not table:
        return chosen(backups, job.arguments.source, state.runs, signed=state.signed)
    good = good_ones(backups)
    if good:
        check_newest(good[-1], state.runs, signed=state.signed)
    return next((backup for backup in reversed(good) if table in backup.manifest.tables), None)


def restore_backup(job: Job[Config], backup: Chosen, table: str) -> None:
    """Restore one table of a backup, or with "" all of them."""
    wanted = _wanted(job, backup, table)
    if job.config.signing_key and not backup.is_signed:
        log.warning(
            "the backup %s is not signed: whoever can write to the bucket may have made it",
            backup.manifest.name,
        )
    elsewhere = {} if table or job.arguments.source else _last_elsewhere(job, backup.manifest)
    if wanted.rows:  # an empty table would look like a restored one
        wanted = replace(wanted, skipped=wanted.skipped | elsewhere.keys())
    if job.dry_run:
        explain_restore(wanted)
        for refusal in _left_out(job, wanted, elsewhere):
            log.warning("%s", refusal)
        return
    restored = Restored()
    try:
        _restore(job, wanted, restored, elsewhere)
    except ScriptError as error:  # what was done by then is told, too
        restored.failures.append(error)
    report(restored)
    if not restored.lines:
        log.info("nothing to do: all is as in the backup %s", backup.manifest.name)
    if wanted.partitions:
        live = Place(job.config.database, table)
        log.info(
            "other partitions are not in it; to replace those of the live table: %s",
            replacements(live, wanted.place(table), wanted.partitions),
        )


def _last_elsewhere(job: Job[Config], newest: BackupManifest) -> dict[str, str]:
    """Return the tables whose rows the newest backup has not, and which backup has the last ones.

    They could not be read when it was made, or had lost too many rows. A table that is in none of
    its definitions is another matter: it was dropped before.
    """
    last = {
        name: one.name
        for one in good_backups(stored_backups(job))
        for name, saved in one.tables.items()
        if saved.rows
    }
    lacking = newest.definitions.keys() - newest.tables.keys() - {*job.arguments.skip}
    return {
        name: last[name] for name in sorted(lacking & last.keys()) if job.config.keeps_last(name)
    }


def _left_out(job: Job[Config], wanted: Wanted, elsewhere: Mapping[str, str]) -> list[DataRefused]:
    """Return the refusals of tables whose rows only older backups have."""
    newest, target = wanted.manifest.name, job.arguments.to_database
    return [
        DataRefused(
            f"{wanted.place(name)}: left out, as its rows are not in the backup {newest}; the last"
            f" ones are in {backup}: restore {name}"
            f" {f'--to-database {target}' if target else f'--as {name}'}, and then --all again"
        )
        for name, backup in elsewhere.items()
    ]


def _wanted(job: Job[Config], backup: Chosen, table: str) -> Wanted:
    """Return what the command line wants of a backup.

    Raises:
        UsageError: the backup does not have it.
    """
    arguments, manifest = job.arguments, backup.manifest
    if table:
        check_names([table], manifest.tables, f"table in the backup {manifest.name}:")
    target = arguments.to_database or job.config.database
    partitions: tuple[str, ...] = ()
    if arguments.partitions:
        manifest, partitions = with_partitions(
            manifest, table, arguments.partitions, lambda value: _partition_of(job, value)
        )
    if table:
        beside = not (arguments.to_database or arguments.replace)
        name = arguments.name or (f"{table}_restored" if beside else table)
        places = {table: Place(target, name)}
    else:
        check_names(arguments.skip, {*manifest.tables, *manifest.definitions}, "table")
        places = {
            source: Place(target, source)
            for source in manifest.tables
            if source not in arguments.skip
        }
    return Wanted(
        manifest,
        places,
        target,
        replace=arguments.replace,
        everything=not table,
        trusted=backup.is_signed or arguments.trusted,
        skipped=frozenset(arguments.skip),
        rows=not arguments.schema_only,
        structure=not arguments.data_only,
        partitions=partitions,
    )


def _restore(
    job: Job[Config], wanted: Wanted, restored: Restored, elsewhere: Mapping[str, str]
) -> None:
    """Restore what is wanted, after a look at what the server will read of the bucket.

    Args:
        job: of the command.
        wanted: of one backup.
        restored: is told what has become of the tables.
        elsewhere: tables whose rows it has not → the backup that has them.
    """
    manifest = wanted.manifest
    bucket, _ = private_bucket(job)
    check_layout(job.config, bucket, manifest)
    looked = check_server_manifests(
        bucket,
        chain_of(manifest, stored_backups(job)),
        url_of(job.config.store("private")),
        trusted=job.arguments.trusted,
    )
    wanted = replace(wanted, looked=looked)
    with connected_to_servers(job.config) as nodes:
        if nodes.is_cluster:
            restore_on_cluster(nodes, job.config, wanted, restored)
        else:
            check_shards(nodes, manifest)
            server = server_of(nodes, nodes.up[0], job.config, manifest.collection)
            restore_tables(server, wanted, restored)
        left = {name: one for name, one in elsewhere.items() if not _is_there(nodes, wanted, name)}
        restored.failures += _left_out(job, wanted, left)


def _is_there(nodes: Nodes, wanted: Wanted, name: str) -> bool:
    """Tell whether a table is there with rows."""
    place = wanted.place(name)
    return exists(nodes.first, place) and not is_empty(nodes.first, place)


def _partition_of(job: Job[Config], value: str) -> str:
    """Return the ID of the partition that has a text as its value: the server has to be asked."""
    with connected_to_servers(job.config) as nodes:
        return id_by_value(nodes.first, value)


def explain_restore(wanted: Wanted) -> None:
    """Log what would be restored."""
    manifest = wanted.manifest
    for name in wanted.names:
        place, saved = wanted.place(name), manifest.tables.get(name)
        what = f"{saved.rows:,} rows" if saved and wanted.rows else "its definition"
        log.info("would restore %s of %s as %s: %s", name, manifest.name, place, what)
