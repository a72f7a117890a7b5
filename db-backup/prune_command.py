"""Deleting what nobody needs any more: `prune`."""

import time
from contextlib import nullcontext

from backup_command_line import SCRIPT
from backup_config import Config
from backups.commands import private_bucket, prune_backups
from exports.commands import prune_exports, public_bucket
from ooni_common.errors import ConfigError
from ooni_common.files import locked, make_writable
from ooni_common.run import Job
from stored_commands import has_bucket

DAY = 86_400  # seconds


def prune(job: Job[Config]) -> None:
    """Delete exports and backups that nobody needs, or show which these are."""
    config = job.config
    confirmed = job.arguments.confirm and not job.dry_run
    if confirmed:
        make_writable("state_dir", config.state_dir)
    with locked(config.state_dir / f"{SCRIPT.name}.lock") if confirmed else nullcontext():
        if confirmed:
            check_clocks(job)
        if has_bucket(config, "public"):
            prune_exports(job, confirmed=confirmed)
        if has_bucket(config, "private"):
            prune_backups(job, confirmed=confirmed)


def check_clocks(job: Job[Config]) -> None:
    """Refuse to delete by age where this machine, or the store, does not know what day it is.

    Raises:
        ConfigError: they are more than a day apart.
    """
    buckets = [public_bucket(job)[0]] if has_bucket(job.config, "public") else []
    buckets += [private_bucket(job)[0]] if has_bucket(job.config, "private") else []
    for bucket in buckets:
        days = (time.time() - bucket.time()) / DAY
        if abs(days) > 1:
            direction = "ahead of" if days > 0 else "behind"
            raise ConfigError(
                f"this machine is {abs(days):,.0f} days {direction} the clock of {bucket.url}:"
                " nothing is deleted by age; check its NTP"
            )
