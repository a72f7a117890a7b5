"""What is added up of each series: evidence, and the shares of anomalies that it shows."""

import numpy as np

from hours import Arrays, Floats, Hour, Indices


class Evidence:
    """Sums of log-likelihood ratios, one for each series, that never fall below zero.

    Attributes:
        value: in nats.
        since: the hour of the first evidence that counts; -1 where there is none.
    """

    def __init__(self, series: int, threshold: float, hours: float) -> None:
        self.value: Floats = np.zeros(series)
        self.since: Indices = np.full(series, -1)
        self._threshold = threshold
        self._most = threshold / hours
        self._least = -threshold / 1.5

    def add(self, hour: Hour, ratio: Floats) -> Floats:
        """Add what an hour gives, after what came before has faded.

        Returns:
            How much of the threshold there is, for each series of the hour; 1 suffices.
        """
        index = hour.series
        limited = np.minimum(np.maximum(ratio, self._least), self._most)
        value = np.maximum(0.0, self.value[index] * hour.fading + limited)
        since = self.since[index]
        self.value[index] = value
        self.since[index] = np.where(value <= 0, -1, np.where(since < 0, hour.number, since))
        part: Floats = value / self._threshold
        return part

    def arrays(self) -> Arrays:
        """Return what is known, by name."""
        return {"value": self.value, "since": self.since}

    def part(self) -> Floats:
        """Return how much of the threshold there is: 1 suffices."""
        return self.value / self._threshold

    def limit(self, index: Indices, part: float) -> None:
        """Let there be at most a part of the threshold."""
        self.value[index] = np.minimum(self.value[index], part * self._threshold)

    def forget(self, index: Indices) -> None:
        """Start again."""
        self.value[index] = 0.0
        self.since[index] = -1


class Shares:
    """The share of anomalies that each series is known to have, as counts that fade.

    Args:
        series: how many.
        prior: anomalies and other measurements, as if seen before.
        memory: measurements that count.
    """

    def __init__(self, series: int, prior: tuple[float, float], memory: float) -> None:
        self.anomalies: Floats = np.full(series, prior[0])
        self.others: Floats = np.full(series, prior[1])
        self._memory = memory

    def arrays(self) -> Arrays:
        """Return what is known, by name."""
        return {"anomalies": self.anomalies, "others": self.others}

    def of(self, index: Indices) -> Floats:
        """Return the shares, from 0 to 1."""
        anomalies = self.anomalies[index]
        share: Floats = anomalies / (anomalies + self.others[index])
        return share

    def learn(self, hour: Hour) -> None:
        """Add the measurements of an hour."""
        index = hour.series
        total = self.anomalies[index] + self.others[index]
        kept = np.minimum(1.0, self._memory / total)
        self.anomalies[index] = self.anomalies[index] * kept + hour.anomalies
        self.others[index] = self.others[index] * kept + hour.others

    def start(self, index: Indices, share: Floats, weight: float) -> None:
        """Know nothing but a share, as if from so many measurements."""
        self.anomalies[index] = share * weight
        self.others[index] = (1 - share) * weight
