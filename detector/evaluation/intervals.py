"""Intervals in which a figure lies with 95 % confidence, where series depend on each other.

All networks that one story is about are one group. The variance between groups tells how many
independent trials there are in effect; where it tells nothing, as no trial differs from the others,
each group counts once.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Z = 1.96  # standard deviations
Values = NDArray[np.float64]
Groups = NDArray[np.int64]
Interval = tuple[float, float]


class Sums(NamedTuple):
    """What is counted, and of how much, by group."""

    parts: Values
    wholes: Values

    @classmethod
    def by_group(cls, groups: Groups, parts: Values, wholes: Values) -> "Sums":
        """Add up by group, without those that have nothing."""
        numbers, places = np.unique(groups, return_inverse=True)
        part, whole = (
            np.bincount(places, values, len(numbers)).astype(float) for values in (parts, wholes)
        )
        return cls(part[whole > 0], whole[whole > 0])

    def variance(self) -> float:
        """Return the variance of the ratio, as far as the groups tell; they are two or more."""
        groups, whole = len(self.wholes), self.wholes.sum()
        away = self.parts - self.parts.sum() / whole * self.wholes
        return float(groups / (groups - 1) * (away**2).sum() / whole**2)


def share_interval(sums: Sums) -> Interval | None:
    """Return Wilson's interval of a share; None where there are fewer than two groups."""
    if len(sums.wholes) < 2:
        return None
    share = float(sums.parts.sum() / sums.wholes.sum())
    return _wilson(share, _trials(sums, share))


def rate_interval(sums: Sums) -> Interval | None:
    """Return Byar's interval of counts per whole; None where there are fewer than two groups."""
    if len(sums.wholes) < 2:
        return None
    count, whole = float(sums.parts.sum()), float(sums.wholes.sum())
    if count == 0:
        effect = whole / len(sums.wholes)
        return 0.0, _most(0.0) * effect / whole
    effect = max(1.0, sums.variance() * whole**2 / count)
    return _least(count / effect) * effect / whole, _most(count / effect) * effect / whole


def percentile(values: Values, percent: float) -> float | None:
    """Return the smallest value that so many per cent are not above; None where there are none."""
    return float(np.sort(values)[_rank(len(values), percent / 100)]) if len(values) else None


def percentile_interval(groups: Groups, values: Values, percent: float) -> Interval | None:
    """Return two of the values between which a percentile is; None with fewer than two groups."""
    middle = percentile(values, percent)
    if middle is None:
        return None
    sums = Sums.by_group(groups, (values <= middle).astype(float), np.ones(len(values)))
    if len(sums.wholes) < 2:
        return None
    share = percent / 100
    away = Z * math.sqrt(share * (1 - share) / _trials(sums, float(np.mean(values <= middle))))
    ranked = np.sort(values)
    least, most = (_rank(len(values), min(1.0, max(0.0, share + d))) for d in (-away, away))
    return float(ranked[least]), float(ranked[most])


def _rank(count: int, share: float) -> int:
    return min(count - 1, max(0, math.ceil(round(share * count, 9)) - 1))


def _trials(sums: Sums, share: float) -> float:
    """Return how many independent trials tell as much as these."""
    count = float(sums.wholes.sum())
    independent = share * (1 - share) / count
    if independent == 0:
        return float(len(sums.wholes))
    return count / max(1.0, sums.variance() / independent)


def _wilson(share: float, trials: float) -> Interval:
    middle = share + Z**2 / (2 * trials)
    away = Z * math.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
    least, most = ((middle + d) / (1 + Z**2 / trials) for d in (-away, away))
    return max(0.0, least), min(1.0, most)


def _least(count: float) -> float:
    return float(count * max(0.0, 1 - 1 / (9 * count) - Z / (3 * math.sqrt(count))) ** 3)


def _most(count: float) -> float:
    more = count + 1
    return float(more * (1 - 1 / (9 * more) + Z / (3 * math.sqrt(more))) ** 3)
