"""Whether this machine and a store agree what day it is: nothing is deleted by age otherwise."""

import time
from collections.abc import Sequence

from ooni_common.errors import ConfigError
from store.bucket import Bucket

DAY = 86_400  # seconds


def check_clocks(buckets: Sequence[Bucket]) -> None:
    """Refuse to delete by age where this machine, or the store, does not know what day it is.

    Raises:
        ConfigError: they are more than a day apart.
    """
    for bucket in buckets:
        days = (time.time() - bucket.time()) / DAY
        if abs(days) > 1:
            direction = "ahead of" if days > 0 else "behind"
            raise ConfigError(
                f"this machine is {abs(days):,.0f} days {direction} the clock of {bucket.url}:"
                " nothing is deleted by age; check its NTP"
            )
