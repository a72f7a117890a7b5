"""From where a run follows the series: from the last checkpoint, or from a day on."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from checkpoint import read_checkpoint
from detector_config import Config
from following import Checkpoint, Follower
from ooni_common.errors import TryAgainLater
from ooni_common.run import Job
from outputs.wording import spoken
from series import hour_of, time_of

log = logging.getLogger("ooni.detector")

CHECKPOINT = "checkpoint.npz"  # in state_dir


@dataclass(frozen=True)
class Beginning:
    """From where the series are followed.

    Attributes:
        hour: the first one, in hours since 1970.
        follower: knows the series before it.
        looked_at: up to here (without it) the last run has looked; it must not be less now.
    """

    hour: int
    follower: Follower
    looked_at: int


def remembered_by(job: Job[Config]) -> tuple[Checkpoint, Follower] | None:
    """Return what the last run has left, if this one is to go on from it."""
    if job.arguments.reprocess:
        return None
    return read_checkpoint(job.config.state_dir / CHECKPOINT, job.config.service_of)


def beginning_of(
    job: Job[Config], remembered: tuple[Checkpoint, Follower] | None, now: datetime
) -> Beginning:
    """Return the last checkpoint; without one, some weeks ago, knowing nothing.

    Raises:
        TryAgainLater: it lies in the future.
    """
    services = job.config.service_of
    if job.arguments.reprocess:
        return Beginning(hour_of(job.arguments.start_date), Follower(services), 0)
    if remembered is None:
        hour = hour_of(now - timedelta(days=job.config.history_days))
        log.info("no checkpoint yet: following the series from %s on", spoken(time_of(hour)))
        return Beginning(hour, Follower(services), 0)
    checkpoint, follower = remembered
    if checkpoint.hour > hour_of(now):
        raise TryAgainLater(
            f"measurements up to {spoken(time_of(checkpoint.hour))} were looked at before, but the"
            f" clock says {spoken(now)}: set it right, or use --reprocess"
        )
    looked_at = 0 if job.force else checkpoint.until
    return Beginning(checkpoint.hour, follower, looked_at)
