"""Making exports and backups: `run`, `export` and `backup`."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from backup_config import Config
from backup_doctor import checks_before_a_run
from backups.commands import back_up_tables, stored_backups, vanished_tables
from backups.prune_command import keep_as_scheduled
from backups.stored import good_backups
from databases import by_names, each_in_turn, of_each_database, to_back_up, without_backup
from exports.export_command import export_tables
from exports.prune_command import prune_as_configured
from heartbeat import tell_success
from ooni_common.doctor import preflight
from ooni_common.errors import ConfigError, DataRefused, ScriptError
from ooni_common.nodes import Nodes, connected_nodes
from ooni_common.run import Job
from tables.inventory import all_table_names, check_names
from tables.policy import TablePolicy


def run(job: Job[Config]) -> None:
    """Export the public tables, back up the private ones, and refuse those that nobody has listed.

    One that fails does not keep the others from being done, in whichever database.
    """
    jobs = of_each_database(job)
    demanding = to_back_up(jobs) if job.config.action == "backup" else []
    each_in_turn(jobs, lambda one: run_database(one, demands_private=one in demanding))
    if not job.dry_run:
        tell_success(job.config.heartbeat_url, job.user_agent)


def run_database(job: Job[Config], *, demands_private: bool) -> Sequence[ScriptError]:
    """Do what the configuration says of the tables of one database; return what has failed.

    `demands_private` makes it a failure that no table is private.
    """
    config = job.config
    with connected_nodes(config, one_suffices=True) as nodes:
        preflight(checks_before_a_run(nodes))
        names = all_table_names(nodes)
        unlisted = config.unlisted(names)
        job.metrics.gauge("unlisted_tables", len(unlisted))
        public = _among(config, names, lambda policy: policy.exported)
        private = _among(config, names, lambda policy: policy.backed_up)
        failures: list[ScriptError] = []
        if _exports(config) and (public or _may_have_exports(config, private)):
            existing = None if nodes.absent else names
            failures += _failures(lambda: export_and_prune(job, nodes, public, existing))
        if _backs_up(config) and (private or demands_private):
            failures += _failures(lambda: back_up_as_scheduled(job, nodes, private))
        else:
            without_backup(job)
            if _backs_up(config) and config.private_bucket_name:
                failures += _failures(lambda: vanished_tables(job, nodes, private))
        if unlisted:
            failures.append(
                DataRefused(
                    "tables that are not listed in the configuration (public, private, both or"
                    f" none): {config.listed(unlisted)}; the listed ones are done"
                )
            )
        if (missing := config.missing(names)) and not nodes.absent:
            failures.append(
                DataRefused(
                    f"tables that are listed, but not there: {config.listed(missing)}; if"
                    ' they are gone for good, list them as "gone": what was saved of them stays'
                )
            )
    return failures


def export_and_prune(
    job: Job[Config], nodes: Nodes, names: Sequence[str], existing: Collection[str] | None
) -> Sequence[ScriptError]:
    """Export the public tables; where all are, delete what they have given up long ago."""
    outcome = export_tables(job, nodes, names, existing)
    if job.config.prune_after_days and not outcome.failures:
        prune_as_configured(job, outcome.coming)
    return outcome.failures


def back_up_as_scheduled(
    job: Job[Config], nodes: Nodes, names: Sequence[str]
) -> Sequence[ScriptError]:
    """Back up the private tables; where all of them are saved, delete what `keep` does not want."""
    failures = back_up_tables(job, nodes, names)
    if job.config.schedule and not failures:
        keep_as_scheduled(job)
    if not job.dry_run:
        with suppress(ScriptError):  # a run doesn't fail because nobody can count them now
            job.metrics.gauge("backups", len(good_backups(stored_backups(job))))
    return failures


def _may_have_exports(config: Config, private: Sequence[str]) -> bool:
    """Tell whether a database without public tables may have exports, or has to be told so.

    Of another database than that of db_uri not even the name is published, unless a table is.
    """
    if config.qualifier:
        return config.exports_any
    return bool(config.public_bucket_name or not (private or config.databases))


def _exports(config: Config) -> bool:
    return config.action != "backup"


def _backs_up(config: Config) -> bool:
    return config.action != "export"


def _failures(work: Callable[[], Sequence[ScriptError]]) -> Sequence[ScriptError]:
    """Do a part of a run; return what has failed."""
    try:
        return work()
    except ScriptError as error:
        return (error,)


def export(job: Job[Config]) -> None:
    """Export the public tables, or those of them that were named."""
    jobs = by_names(job, "tables")
    if not job.arguments.tables:
        jobs = [one for one in jobs if not one.config.qualifier or one.config.exports_any]
    each_in_turn(jobs, _export_database)


def _export_database(job: Job[Config]) -> Sequence[ScriptError]:
    config = job.config
    with connected_nodes(config, one_suffices=True) as nodes:
        preflight(checks_before_a_run(nodes))
        names = all_table_names(nodes)
        public = _among(config, names, lambda policy: policy.exported)
        check_names(job.arguments.tables, names)
        for name in job.arguments.tables:
            if name not in public:
                raise ConfigError(
                    f"{name!r} is not public in the configuration; public are: {', '.join(public)}"
                )
        existing = None if job.arguments.tables or nodes.absent else names
        return export_tables(job, nodes, job.arguments.tables or public, existing).failures


def backup(job: Job[Config]) -> None:
    """Back up the private tables, all of a database at once."""
    each_in_turn(to_back_up(of_each_database(job)), _back_up_database)


def _back_up_database(job: Job[Config]) -> Sequence[ScriptError]:
    with connected_nodes(job.config, one_suffices=True) as nodes:
        preflight(checks_before_a_run(nodes))
        private = _among(job.config, all_table_names(nodes), lambda policy: policy.backed_up)
        return back_up_tables(job, nodes, private, full=job.arguments.full)


def _among(config: Config, names: Sequence[str], has: Callable[[TablePolicy], bool]) -> list[str]:
    """Return the tables whose policy has something."""
    policies = {name: config.policy_of(name) for name in names}
    return [name for name, policy in policies.items() if policy and has(policy)]
