#!/usr/bin/env python3
"""Publish the tables of the OONI database for everybody: CSV, compressed with zstd, in a bucket.

    ClickHouse, over HTTP  →  s3://<bucket>/clickhouse_export/csv/<table>_<chunk>.csv.zstd

The rows are compressed and uploaded while they are read: there is no temporary file, and the memory
does not grow with the table. A chunk (mostly a month) is only read when its fingerprint has changed
since the last run. An object is visible when it is complete, and a manifest says how to tell.

What is done with which table is in db-backup.conf (backup_config.py). exporting.py has the export,
manifest.py what is in the bucket.

By hand: ooni_db_backup.py --dry-run --stdout, and `list`, `verify`, `restore`
"""

import argparse
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from backup_config import Config
from bucket import Bucket, Store
from chunks import Reader
from clickhouse_http import ClickHouseHTTP
from doctoring import Doctor
from exporting import Exporter, Means, Step, now, owner_of_its_names, plan
from inventory import read_table, table_names
from listing import as_json, as_table, chunks_as_table
from manifest import (
    Layout,
    RunManifest,
    TableManifest,
    read_manifest,
    read_table_manifests,
)
from ooni_common import __version__
from ooni_common.database import Database, StatementFailed, connected
from ooni_common.errors import ConfigError, DataRefused, ScriptError
from ooni_common.run import Command, Job, Script, execute, locked
from progress import in_units
from pruning import delete, leftovers
from publication import publish
from restoring import restore
from throttle import Bandwidth, Throttle
from verification import refuse, verify

log = logging.getLogger("ooni.db_backup")

TOOL = f"ooni-db-backup {__version__}"


def _tables(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="only these")


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="show the chunks of these")
    parser.add_argument("--json", action="store_true", help="for scripts: all that is known")


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    _tables(parser)
    parser.add_argument(
        "--quick", action="store_true", help="look at sizes and origins; read no rows"
    )


def _restore_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", metavar="TABLE", help="whose export is restored")
    parser.add_argument(
        "--as", dest="name", metavar="NAME", help="of the new table; default: TABLE_restored"
    )


def _prune_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--older-than",
        type=int,
        default=90,
        metavar="DAYS",
        help="of rows that are gone from the database: since how long; default: 90",
    )
    parser.add_argument("--confirm", action="store_true", help="delete; without it, only show")


SCRIPT = Script(
    name="db-backup",
    command="ooni-db-backup",
    description="Export the tables of the OONI database to S3 for everybody.",
    config_type=Config,
    config_file=Path("/etc/ooni/db-backup.conf"),
    commands=(
        Command("run", "do what the configuration says of each table"),
        Command("export", "export the public tables, or only some of them", _tables),
        Command("list", "show what is exported", _list_arguments, looks_only=True),
        Command("verify", "check the exports", _verify_arguments, looks_only=True),
        Command("restore", "make a table of an export", _restore_arguments, aside=True),
        Command("schema", "show the schema of the tables", _tables, looks_only=True),
        # It looks, unless --confirm is given: then it takes the lock of the job itself.
        Command(
            "prune", "delete exports that have no place any more", _prune_arguments, looks_only=True
        ),
        Command("doctor", "examine whether a run can succeed", looks_only=True),
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command as the command line says; return the exit status."""
    commands: Mapping[str, Callable[[Job[Config]], None]] = {
        "run": run,
        "export": export,
        "list": list_exports,
        "verify": verify_exports,
        "restore": restore_export,
        "schema": show_schema,
        "prune": prune,
        "doctor": examine,
    }
    return execute(SCRIPT, lambda job: commands[job.command](job), argv)


def run(job: Job[Config]) -> None:
    """Export the public tables; then refuse the ones that nobody has listed."""
    config = job.config
    with connected(config) as database:
        names = table_names(database)
        policies = {name: config.policy_of(name) for name in names}
        private = [name for name, policy in policies.items() if policy and policy.backed_up]
        if config.action != "export" and (private or config.action == "backup"):
            raise ConfigError(
                "private backups are not in this version: say action = 'export'"
                f" (private are: {', '.join(private) or 'none'})"
            )
        unlisted = [name for name, policy in policies.items() if policy is None]
        job.metrics.gauge("unlisted_tables", len(unlisted))
        outcome = export_tables(job, database, public_among(config, names))
        if unlisted:
            refused = ", ".join(map(repr, unlisted))
            outcome.failures.append(
                DataRefused(
                    "tables that are not listed in the configuration (public, private, both or"
                    f" none): {refused}; the listed ones are done"
                )
            )
        report(job, outcome)


def export(job: Job[Config]) -> None:
    """Export the public tables, or those of them that were named."""
    config = job.config
    with connected(config) as database:
        names = table_names(database)
        public = public_among(config, names)
        for name in job.arguments.tables:
            if name not in public:
                what = "not public in the configuration" if name in names else "no table"
                raise ConfigError(f"{name!r} is {what}; public are: {', '.join(public)}")
        report(job, export_tables(job, database, job.arguments.tables or public))


def public_among(config: Config, names: Sequence[str]) -> list[str]:
    """Return the tables that are exported."""
    policies = {name: config.policy_of(name) for name in names}
    return [name for name, policy in policies.items() if policy and policy.exported]


@dataclass
class Outcome:
    """What became of the tables of a run."""

    failures: list[ScriptError]
    uploaded: int = 0
    exported: int = 0
    skipped: int = 0
    published: bool = False


def export_tables(job: Job[Config], database: Database, names: Sequence[str]) -> Outcome:
    """Export what has changed in these tables, and publish what there is then.

    A table that fails does not keep the others from being done; a database or a store that does not
    answer does. What was exported is published in any case.
    """
    config, layout = job.config, Layout(job.config.public_prefix)
    bucket = public_bucket(config, job.user_agent)
    started = now()
    with job.metrics.timer("run_export"):
        if not job.dry_run:
            abort_leftovers(bucket, layout)
        manifests = read_table_manifests(bucket, layout)
        warn_of_stale_exports(config, manifests)
        ((server,),) = database.query("SELECT version()")
        means = means_of(job, database, bucket, server)
        outcome = Outcome([])
        for name in names:
            try:
                export_table(job, means, database, name, manifests, outcome)
            except (DataRefused, ConfigError, StatementFailed) as error:
                outcome.failures.append(error)
            except ScriptError as error:
                outcome.failures.append(error)
                break
        job.metrics.gauge("uploaded_bytes_tot", outcome.uploaded)
        job.metrics.gauge("skipped_chunks", outcome.skipped)
        if not job.dry_run:
            run_manifest = RunManifest(started=started, finished=now(), tool=TOOL, server=server)
            with suppress(ScriptError) if outcome.failures else nullcontext():
                outcome.published = publish(bucket, layout, manifests, run_manifest)
    return outcome


def abort_leftovers(bucket: Bucket, layout: Layout) -> None:
    """End the uploads of runs that were interrupted: the store charges for them."""
    try:
        aborted = bucket.abort_leftovers(layout.exports)
    except ConfigError as error:
        log.warning("%s; grant s3:ListBucketMultipartUploads, or they stay for ever", error)
        return
    if aborted:
        log.warning("%d uploads of runs that were interrupted are aborted", aborted)


def export_table(
    job: Job[Config],
    means: Means,
    database: Database,
    name: str,
    manifests: dict[str, TableManifest],
    outcome: Outcome,
) -> None:
    """Export what has changed in one table; its manifest is added to the others."""
    policy = job.config.policy_of(name)
    if policy is None:
        raise ConfigError(f"{name!r} is not listed")
    manifest = manifests.get(name) or TableManifest(table=name)
    settings = ", ".join(f"{key} = {value}" for key, value in job.config.query_settings.items())
    reader = Reader(database, read_table(database, name), policy, settings)
    exporter = Exporter(means, reader, manifest)
    if not job.dry_run:
        exporter.recover()
    means.throttle.wait()
    steps = plan(reader, manifest, max_shrink=job.config.max_shrink, force=job.force)
    if owner := owner_of_its_names(name, steps, manifests, means.layout):
        raise DataRefused(f"{name!r}: its objects would have the names of those of {owner!r}")
    outcome.skipped += sum(step.reason == "unchanged" for step in steps)
    if job.dry_run:
        outcome.exported += sum(step.exports for step in steps)
        explain(name, steps)
        return
    try:
        with job.metrics.timer(f"table_{metric_name(name)}_backup_time_ms"):
            exporter.carry_out(steps)
    finally:
        outcome.exported += exporter.exported
        outcome.uploaded += exporter.uploaded
        if manifest.generation:
            manifests[name] = manifest


def metric_name(table: str) -> str:
    """Return a table's name without what statsd would misread."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", table)


def explain(name: str, steps: Sequence[Step]) -> None:
    """Log what would be done with the chunks of a table, and why."""
    for step in steps:
        log.info("%s: would %s %s", name, "export" if step.exports else "keep", step)


def report(job: Job[Config], outcome: Outcome) -> None:
    """Log what was done.

    Raises:
        ScriptError: the first failure; the others are logged.
    """
    for failure in outcome.failures[1:]:
        log.error("%s", failure)
    if job.dry_run:
        log.info("would export %d chunks; %d are unchanged", outcome.exported, outcome.skipped)
    elif outcome.exported or outcome.published:
        log.info(
            "%d chunks are exported (%s); %d are unchanged",
            outcome.exported,
            in_units(outcome.uploaded),
            outcome.skipped,
        )
    elif not outcome.failures:
        log.info("nothing to do: %d chunks are unchanged", outcome.skipped)
    if outcome.failures:
        raise outcome.failures[0]


def warn_of_stale_exports(config: Config, manifests: Mapping[str, TableManifest]) -> None:
    """Warn of exports of tables that are not public now: they can still be downloaded."""
    for name in manifests:
        policy = config.policy_of(name)
        if policy is None or not policy.exported:
            log.warning("%s: not public any more, but its exports are still in the bucket", name)


def list_exports(job: Job[Config]) -> None:
    """Print what is exported."""
    layout = Layout(job.config.public_prefix)
    bucket = public_bucket(job.config, job.user_agent)
    manifests = read_table_manifests(bucket, layout)
    chosen = {name: manifests[name] for name in known(job.arguments.tables, manifests)}
    if job.arguments.json:
        show(as_json(chosen or manifests))
    elif chosen:
        show("\n\n".join(chunks_as_table(manifest, layout) for manifest in chosen.values()))
    else:
        show(as_table(manifests))


def verify_exports(job: Job[Config]) -> None:
    """Check the exports.

    Raises:
        DataRefused: something is wrong with them.
    """
    bucket = public_bucket(job.config, job.user_agent)
    layout = Layout(job.config.public_prefix)
    arguments = job.arguments
    findings = list(verify(bucket, layout, arguments.tables, quick=arguments.quick))
    refuse(findings, f"{bucket.url}/{layout.prefix}")
    log.info("%s/%s: everything is as exported", bucket.url, layout.prefix)


def restore_export(job: Job[Config]) -> None:
    """Make a new table of an export."""
    table = job.arguments.table
    name = job.arguments.name or f"{table}_restored"
    layout = Layout(job.config.public_prefix)
    bucket = public_bucket(job.config, job.user_agent)
    manifest = read_manifest(bucket, layout.manifest(table), TableManifest)
    if manifest is None:
        raise ConfigError(f"{table!r} is not exported; see list")
    if job.dry_run:
        rows = sum(export.rows for export in manifest.exports)
        log.info("would restore %s as %s: %s rows", table, name, f"{rows:,}")
        return
    with connected(job.config) as database:
        http = ClickHouseHTTP(job.config, job.user_agent)
        rows = restore(database, http, bucket, manifest, name)
    log.info("restored %s as %s: %s rows", table, name, f"{rows:,}")


def show_schema(job: Job[Config]) -> None:
    """Print the statements that create the tables."""
    with connected(job.config) as database:
        names = table_names(database)
        for name in known(job.arguments.tables, names) or names:
            show(f"{read_table(database, name).create};\n")


def prune(job: Job[Config]) -> None:
    """Delete exports that nobody needs, or show which these are."""
    config, layout = job.config, Layout(job.config.public_prefix)
    bucket = public_bucket(config, job.user_agent)
    confirmed = job.arguments.confirm and not job.dry_run
    with locked(config.state_dir / f"{SCRIPT.name}.lock") if confirmed else nullcontext():
        manifests = read_table_manifests(bucket, layout)
        age = timedelta(days=job.arguments.older_than)

        def is_withdrawn(table: str) -> bool:
            policy = config.policy_of(table)
            return policy is not None and not policy.exported

        unwanted = list(leftovers(bucket, layout, manifests, is_withdrawn, age))
        for leftover in unwanted:
            size = in_units(leftover.size)
            verb = "deleting" if confirmed else "would delete"
            log.info("%s %s (%s): %s", verb, leftover.key, size, leftover.reason)
        if confirmed and unwanted:
            run_manifest = RunManifest(started=now(), finished=now(), tool=TOOL, server="")
            delete(bucket, layout, manifests, unwanted, run_manifest)
    total = in_units(sum(leftover.size for leftover in unwanted))
    if not unwanted:
        log.info("nothing to do: every export has its place")
    elif confirmed:
        log.info("%d objects are deleted (%s)", len(unwanted), total)
    else:
        log.info("%d objects (%s) would be deleted with --confirm", len(unwanted), total)


def examine(job: Job[Config]) -> None:
    """Print what is well and what is not.

    Raises:
        ScriptError: something is not; of the kind of the first of these.
    """
    with connected(job.config) as database:
        http = ClickHouseHTTP(job.config, job.user_agent)
        bucket = public_bucket(job.config, job.user_agent)
        failures = []
        for finding in Doctor(job.config, database, http, bucket).examine():
            show(str(finding))
            failures += [finding.error] if finding.error else []
    if failures:
        raise type(failures[0])(f"a run would fail: {len(failures)} things are not well")


def known(wanted: Sequence[str], there: Mapping[str, object] | Sequence[str]) -> Sequence[str]:
    """Return the wanted tables.

    Raises:
        ConfigError: one of them is not there.
    """
    for name in wanted:
        if name not in there:
            raise ConfigError(f"there is no table {name!r}; there are: {', '.join(there)}")
    return wanted


def public_bucket(config: Config, user_agent: str) -> Bucket:
    """Return the bucket of the exports."""
    if not config.public_bucket_name:
        raise ConfigError("public_bucket_name is missing: where do the exports go?")
    options = {
        "StorageClass": config.public_storage_class,
        "ServerSideEncryption": config.public_sse,
        "SSEKMSKeyId": config.public_sse_kms_key_id,
    }
    store = Store(
        bucket=config.public_bucket_name,
        endpoint=config.public_endpoint,
        region=config.public_region,
        key_id=config.public_aws_access_key_id,
        key=config.public_aws_secret_access_key,
        ca_file=config.public_ca_file,
        options={name: value for name, value in options.items() if value},
    )
    return Bucket(store, user_agent)


def means_of(job: Job[Config], database: Database, bucket: Bucket, server: str) -> Means:
    """Return what an export works with."""
    config = job.config
    return Means(
        http=ClickHouseHTTP(config, job.user_agent),
        bucket=bucket,
        layout=Layout(config.public_prefix),
        throttle=Throttle(database, config),
        bandwidth=Bandwidth(config.max_bandwidth),
        metrics=job.metrics,
        tool=TOOL,
        server=server,
        level=config.compression_level,
        retries=config.retries,
        retry_wait=config.retry_wait,
    )


def show(text: str) -> None:
    """Print what was asked for."""
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
