"""Support: who says that a series is blocked.

At most half of the evidence that suffices may come from one kind of probe (platform, software,
version, architecture: the only thing that tells probes from each other), or from runs that nothing
controls, until there has been almost as much for hours: a person who measures one input again and
again, and an outage, are over by then. Runs whose own other inputs are fine need no such support.
Where other kinds of probes see nothing, a single one does not decide at all, as long as broken ones
last.
"""

from dataclasses import dataclass

import numpy as np

from hours import NEVER, Arrays, Flags, Floats, Hour, Indices

NONE = -1  # no source: there is no evidence


@dataclass(frozen=True)
class SupportParameters:
    """What support goes by; chosen on the seeds 11 to 14 of the realism suite.

    Attributes:
        each: the part of the evidence that suffices which one kind of probe, and all others
            together, have to give at least, to support each other.
        own: the part that runs have to give whose own other inputs are fine.
        hours: for which there has to be much evidence, else.
        much: the part of what suffices that is much: more than a run gives that has an anomaly by
            chance; less than half, which is all that evidence without support can be.
        little: with less than this part, the hours begin again.
        half: of what suffices that evidence without support can be, at most.
        against: the part of it that speaks against from where others contradict.
        against_hours: after which a contradiction counts no more.
    """

    each: float = 0.25
    own: float = 0.3
    hours: int = 8
    much: float = 0.45
    little: float = 0.35
    half: float = 0.5
    against: float = -0.1
    against_hours: int = 240


class Support:
    """The evidence for a blocking by who gives it, for each series and hypothesis.

    Args:
        series: how many.
        thresholds: the evidence that suffices, for each hypothesis, in nats.
        hours: the least number of hours that can give as much.
        parameters: what it goes by.
    """

    def __init__(
        self,
        series: int,
        thresholds: tuple[float, ...],
        hours: float,
        parameters: SupportParameters | None = None,
    ) -> None:
        self._parameters = parameters or SupportParameters()
        self._thresholds = thresholds
        self._hours = hours
        shape = (len(thresholds), series)
        self._source: Indices = np.full(series, NONE)
        self._much_since: Indices = np.full(series, NEVER)  # NEVER: there is little
        self._main: Floats = np.zeros(shape)  # of the source that gave the first evidence
        self._rest: Floats = np.zeros(shape)  # of all others; below zero: they contradict
        self._own: Floats = np.zeros(shape)  # of runs whose own other inputs are fine

    def arrays(self) -> Arrays:
        """Return what is known, by name."""
        parts = {"main": self._main, "rest": self._rest, "own": self._own}
        by_hypothesis = {
            f"{name}_{number}": array[number]
            for name, array in parts.items()
            for number in range(len(self._thresholds))
        }
        return {"source": self._source, "much_since": self._much_since, **by_hypothesis}

    def forget(self, index: Indices) -> None:
        """Start again."""
        self._source[index] = NONE
        self._much_since[index] = NEVER
        for array in (self._main, self._rest, self._own):
            array[:, index] = 0.0

    def add(self, hour: Hour, ratios: list[Floats], most_likely: Floats) -> None:
        """Add what the parts of an hour give.

        Args:
            hour: of series that are OK.
            ratios: of each hypothesis, by part.
            most_likely: the evidence for a full blocking that there is now, by series; where there
                is none, all begins again.
        """
        index, parts = hour.series, hour.parts
        begins = (self._source[index] == NONE) & (most_likely > 0)
        self._source[index] = np.where(begins, first_source(hour, ratios[-1]), self._source[index])
        some = most_likely > 0
        is_main = parts.source == self._source[index][parts.place]
        for number, ratio in enumerate(ratios):
            threshold = self._thresholds[number]
            limits = (-threshold / 1.5, threshold / self._hours)
            for array, share, least in (
                (self._main, is_main, 0.0),
                (self._rest, ~is_main, -threshold),
                (self._own, parts.own, 0.0),
            ):
                added = np.clip(hour.summed(ratio * share), *limits)
                value = np.maximum(least, array[number, index] * hour.fading + added)
                array[number, index] = np.where(some, value, 0.0)
        self._source[index[~some]] = NONE

    @property
    def half(self) -> float:
        """The part of what suffices that evidence without support can be."""
        return self._parameters.half

    def free(self, hour: Hour, which: Indices, most: Floats, since: Indices) -> Flags:
        """Tell which series have evidence that may decide.

        Args:
            hour: of series that are OK.
            which: the hypothesis that is likeliest, by series.
            most: the part of what suffices that it has.
            since: the hour of the first evidence.
        """
        parameters, index, parts = self._parameters, hour.series, hour.parts
        lower, agreed = hour.lowered.beginnings, hour.lowered.agreed
        threshold = np.array(self._thresholds)[which]
        main, rest, own = (
            array[which, index] / threshold for array in (self._main, self._rest, self._own)
        )
        runs = parts.anomalies + parts.others
        controlled = hour.summed(parts.controlled * runs) >= 0.5 * hour.summed(runs)
        anonymous = hour.summed((parts.source == 0) * runs) >= 0.5 * hour.summed(runs)
        both = np.minimum(main, rest) >= parameters.each * lower
        age = hour.number - since
        is_much = most >= parameters.much
        lasted = is_much & (hour.number - self._much_from(hour, most, is_much) >= parameters.hours)
        contradicted = (rest < parameters.against) & ~agreed & (age < parameters.against_hours)
        trusted = (both | anonymous) & controlled | agreed | lasted
        trusted |= own >= parameters.own * lower
        return np.asarray(trusted & (~contradicted | both))

    def _much_from(self, hour: Hour, most: Floats, is_much: Flags) -> Indices:
        """Note which series have much evidence; return since when there has not been little."""
        since = self._much_since[hour.series]
        since = np.where((since == NEVER) & is_much, hour.number, since)
        self._much_since[hour.series] = np.where(most >= self._parameters.little, since, NEVER)
        return since


def first_source(hour: Hour, ratio: Floats) -> Indices:
    """Return, for each series, the source whose runs speak most for a blocking."""
    best = np.full(len(hour.series), -np.inf)
    np.maximum.at(best, hour.parts.place, ratio)
    is_best = ratio >= best[hour.parts.place]
    source = np.full(len(hour.series), NONE)
    source[hour.parts.place[is_best]] = hour.parts.source[is_best]
    return source
