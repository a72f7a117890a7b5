"""Two other detectors, to compare with: a weighted mean, and a CUSUM with fixed means.

Both take the share of anomalies of each hour, however many measurements it has.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hours import Floats, Indices
from series import BLOCKED, OK, UNKNOWN


@dataclass(frozen=True)
class CusumParameters:
    """A CUSUM for both directions.

    Attributes:
        ok_share: the share of anomalies where nothing is blocked.
        blocked_share: where all is.
        threshold: the sum at which the state changes.
        half_life: hours of silence after which half of the sums is left.
    """

    ok_share: float = 0.0
    blocked_share: float = 0.7
    threshold: float = 3.5
    half_life: int = 48


class Cusum:
    """Adds up how far the share of each hour is from the middle of two fixed means."""

    def __init__(self, series: int, parameters: CusumParameters | None = None) -> None:
        self._parameters = parameters or CusumParameters()
        self.status: NDArray[np.int8] = np.zeros(series, dtype=np.int8)
        self._up: Floats = np.zeros(series)
        self._down: Floats = np.zeros(series)
        self._last: Indices = np.full(series, -1)

    def advance(
        self, hour: int, index: Indices, measurements: Indices, anomalies: Indices
    ) -> tuple[Indices, NDArray[np.int8]]:
        """Take the counts of one hour, as Detector.advance does."""
        parameters = self._parameters
        last = self._last[index]
        silent = np.where(last < 0, 0, hour - last - 1)
        fading = 0.5 ** (silent // parameters.half_life)
        self._last[index] = hour
        away = anomalies / measurements - (parameters.ok_share + parameters.blocked_share) / 2
        self._up[index] = np.maximum(0.0, self._up[index] * fading + away)
        self._down[index] = np.maximum(0.0, self._down[index] * fading - away)
        up = index[self._up[index] > parameters.threshold]
        down = index[self._down[index] > parameters.threshold]
        self._up[up] = 0.0
        self._down[down] = 0.0
        return _changed(self.status, up, down)


class WeightedMean:
    """The detector that was replaced: a moving mean of the hours' shares, and two limits.

    Args:
        series: how many.
        weight: of the newest hour.
        blocked: from this mean on, a series is BLOCKED.
        ok: up to this mean, it is OK.
    """

    def __init__(
        self, series: int, weight: float = 0.01, blocked: float = 0.9, ok: float = 0.4
    ) -> None:
        self.status: NDArray[np.int8] = np.zeros(series, dtype=np.int8)
        self._mean: Floats = np.full(series, np.nan)
        self._weight = weight
        self._blocked = blocked
        self._ok = ok

    def advance(
        self, _hour: int, index: Indices, measurements: Indices, anomalies: Indices
    ) -> tuple[Indices, NDArray[np.int8]]:
        """Take the counts of one hour, as Detector.advance does."""
        share = anomalies / measurements
        mean = self._mean[index]
        mean = np.where(np.isnan(mean), share, mean + self._weight * (share - mean))
        self._mean[index] = mean
        return _changed(self.status, index[mean >= self._blocked], index[mean <= self._ok])


def _changed(
    status: NDArray[np.int8], to_blocked: Indices, to_ok: Indices
) -> tuple[Indices, NDArray[np.int8]]:
    """Set the states; return the series that had another one, and which."""
    to_blocked = to_blocked[status[to_blocked] != BLOCKED]
    to_ok = to_ok[status[to_ok] != OK]
    changed = np.concatenate([to_blocked, to_ok])
    old = status[changed]
    status[to_blocked], status[to_ok] = BLOCKED, OK
    return changed, np.where(old == UNKNOWN, UNKNOWN, old).astype(np.int8)
