"""Which hours of a series have controls: other inputs that tell whether its runs fare as usual."""

from collections.abc import Hashable, Iterable

import numpy as np
from numpy.typing import NDArray

from evaluation.observations import Observations, Others

Keys = NDArray[np.int64]

HOURS = 10_000_000  # more than there are, since 1970
LATE = 1  # hours for which those of the country are good


def controlled(observations: Observations, others: Others | None) -> list[float | None]:
    """Return the share of the measured hours of each series that have controls.

    They are the other inputs of its own runs, else those of the network or of the country, in that
    hour or the one before. None where the files don't tell.

    Args:
        observations: with a row for each bucket.
        others: the inputs that nobody follows, if there are any.
    """
    if observations.control is None and others is None:
        return [None] * len(observations.series)
    has = np.zeros(len(observations.hour), dtype=bool)
    if observations.control is not None:
        has |= observations.control > 0
    if others is not None:
        # A network is in its country: who looks at all of it looks at the network, too.
        numbers: dict[Hashable, int] = {}
        measured = _numbered(numbers, (network[:2] for network in others.networks))
        followed = _numbered(numbers, ((d.world, d.probe_cc) for d in observations.details))
        hours = measured[others.index] * HOURS + others.hour
        wanted = followed[observations.index] * HOURS + observations.hour
        for late in range(LATE + 1):
            has |= np.isin(wanted - late, hours)
    count = len(observations.series)
    # An hour counts once, however many buckets its runs are in.
    keys, places = np.unique(observations.index * HOURS + observations.hour, return_inverse=True)
    of_hours = np.bincount(places, has, len(keys)) > 0
    index = keys // HOURS
    total = np.bincount(index, minlength=count)
    shares = np.bincount(index, of_hours, count) / np.maximum(1, total)
    return [float(share) if some else None for share, some in zip(shares, total, strict=True)]


def _numbered(numbers: dict[Hashable, int], names: Iterable[Hashable]) -> Keys:
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
