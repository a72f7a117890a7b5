"""Deleting what nobody needs any more: `prune`, `delete` and `forget`."""

from backup_config import Config, Side
from backup_doctor import checks_before_a_run
from backups.commands import private_bucket
from backups.prune_command import delete_named, prune_backups
from commands.stored import has_bucket
from databases import by_names, each_in_turn, of_each_database, of_table
from exports.commands import public_bucket
from exports.forget import Removal, forget_rows
from exports.prune_command import prune_exports
from ooni_common.doctor import preflight
from ooni_common.errors import ScriptError
from ooni_common.nodes import connected_nodes
from ooni_common.run import Job
from store.clocks import check_clocks


def prune(job: Job[Config]) -> None:
    """Delete exports and backups that nobody needs, or show which these are."""
    confirmed = is_confirmed(job)
    if confirmed:
        buckets = [public_bucket(job)[0]] if has_bucket(job.config, "public") else []
        buckets += [private_bucket(job)[0]] if has_bucket(job.config, "private") else []
        check_clocks(buckets)
    each_in_turn(of_each_database(job), lambda one: _prune_database(one, confirmed=confirmed))


def _prune_database(job: Job[Config], *, confirmed: bool) -> list[ScriptError]:
    """Prune exports and backups; return what has failed, which keeps neither from the other."""
    failures: list[ScriptError] = []
    sides: tuple[Side, ...] = ("public", "private")
    for side, prune_side in zip(sides, (prune_exports, prune_backups), strict=True):
        try:
            if has_bucket(job.config, side):
                prune_side(job, confirmed=confirmed)
        except ScriptError as error:
            failures.append(error)
    return failures


def delete(job: Job[Config]) -> None:
    """Delete the backups that were named, or show what that means."""
    confirmed = is_confirmed(job)
    each_in_turn(
        by_names(job, "names"),
        lambda one: delete_named(one, one.arguments.names, confirmed=confirmed),
    )


def forget(job: Job[Config]) -> None:
    """Export chunks again whose rows had to be deleted, and leave nothing of the old objects."""
    job = of_table(job)
    arguments = job.arguments
    removal = Removal(arguments.table, arguments.chunks, arguments.note)
    with connected_nodes(job.config, one_suffices=True) as nodes:
        preflight(checks_before_a_run(nodes))
        forget_rows(job, nodes, removal, confirmed=is_confirmed(job))


def is_confirmed(job: Job[Config]) -> bool:
    """Tell whether things are to be deleted, not only shown."""
    return job.arguments.confirm and not job.dry_run
