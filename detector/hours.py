"""What counts of an hour, of the series that have measurements in it, and by kind of probe."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]
States = NDArray[np.int8]
Arrays = dict[str, NDArray[Any]]

LEAST_CONTRAST = 0.3  # by which a blocking raises the share of anomalies, at least
MOST_CONTRAST = 0.93  # no such share is higher

NEVER = -(10**6)  # an hour before all that are measured


class Rows(NamedTuple):
    """What counts of an hour: a row for each series, kind of probe (source) and bucket.

    Attributes:
        series: which.
        source: which; 0 where that is not known.
        bad: runs with an anomaly.
        good: the others.
        excess: how much higher the share of anomalies is than usual, whatever is measured.
        controlled: something tells how these runs fare otherwise: they fare as usual.
        own: their own other inputs tell it.
    """

    series: Indices
    source: Indices
    bad: Floats
    good: Floats
    excess: Floats
    controlled: Flags
    own: Flags

    def where(self, mask: Flags) -> "Rows":
        """Return only some of the rows."""
        return self if mask.all() else Rows._make(column[mask] for column in self)


class Lowered(NamedTuple):
    """By the other networks of the country, for some series: parts of the thresholds that suffice.

    Attributes:
        beginnings: for a change to BLOCKED.
        ends: for one back to OK.
        agreed: the country agrees that it is blocked.
    """

    beginnings: Floats
    ends: Floats
    agreed: Flags

    @classmethod
    def nothing(cls, series: int) -> "Lowered":
        """Return what lowers nothing, for so many series."""
        return cls(np.ones(series), np.ones(series), np.zeros(series, dtype=bool))


class Hour(NamedTuple):
    """What is counted in an hour, of some series, and by source.

    Attributes:
        number: of the hour.
        series: which.
        anomalies: how many, with their weight.
        others: measurements, likewise.
        fading: the part of earlier evidence that is left.
        parts: likewise by source; `parts.place` says whose.
        lowered: by other networks.
    """

    number: int
    series: Indices
    anomalies: Floats
    others: Floats
    fading: Floats
    parts: "Parts"
    lowered: Lowered

    def where(self, mask: Flags) -> "Hour":
        """Return only some of the series."""
        if mask.all():  # the usual case, and worth it
            return self
        rest = (self.series[mask], self.anomalies[mask], self.others[mask], self.fading[mask])
        lowered = Lowered._make(column[mask] for column in self.lowered)
        return Hour(self.number, *rest, self.parts.where(mask), lowered)

    def ratio(self, share: Floats | float, instead_of: Floats | float) -> Floats:
        """Return how much better one share of anomalies explains the counts than another one.

        Args:
            share: above 0, below 1.
            instead_of: likewise.

        Returns:
            The logarithm of the likelihood ratio, in nats.
        """
        return log_ratio(self.anomalies, self.others, share, instead_of)

    def ratios(self, share: float, usual: Floats, most: float) -> Floats:
        """Return, for each part, how much better a blocking explains its counts.

        Args:
            share: of anomalies, in a blocking.
            usual: of each series of the hour.
            most: an excess raises that up to this share.
        """
        parts = self.parts
        raised = np.maximum(usual[parts.place], np.minimum(usual[parts.place] + parts.excess, most))
        blocked = np.maximum(share, np.minimum(MOST_CONTRAST, raised + LEAST_CONTRAST))
        return log_ratio(parts.anomalies, parts.others, blocked, raised)

    def summed(self, ratios: Floats) -> Floats:
        """Return the sums of the parts' values, for each series."""
        return sums_of(self.parts.place, ratios, len(self.series))


class Parts(NamedTuple):
    """The counts of an hour by series and source, sorted by both.

    Attributes:
        place: of the series in the hour's.
        source: which.
        anomalies, others: with their weight.
        excess: see Rows.
        controlled: at least half of the runs are.
        own: the part of the runs whose own other inputs tell that they fare as usual.
    """

    place: Indices
    source: Indices
    anomalies: Floats
    others: Floats
    excess: Floats
    controlled: Flags
    own: Floats

    def where(self, mask: Flags) -> "Parts":
        """Return those of some of the series."""
        kept = mask[self.place]
        place = (np.cumsum(mask) - 1)[self.place[kept]]
        return Parts._make([place, *(column[kept] for column in self[1:])])


def distinct(values: Indices) -> Indices:
    """Return values, each once, sorted; np.unique hashes them first, which takes much longer."""
    ordered = np.sort(values)
    first = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


def sums_of(places: Indices, values: Floats, count: int = 0) -> Floats:
    """Return the sum of the values of each place, of so many places at least."""
    return np.asarray(np.bincount(places, values, count), dtype=np.float64)


def log_ratio(
    anomalies: Floats, others: Floats, share: Floats | float, instead_of: Floats | float
) -> Floats:
    """Return the logarithm of the likelihood ratio of two shares of anomalies, in nats."""
    by_anomaly = np.log(share / instead_of)
    by_other = np.log((1 - share) / (1 - instead_of))
    ratio: Floats = anomalies * by_anomaly + others * by_other
    return ratio


def parts_of(rows: Rows, series: Indices, counted: float, of_source: float) -> Parts:
    """Add rows up by series and source, and give the runs their weight.

    Args:
        rows: of an hour.
        series: those of the rows, sorted.
        counted: runs of a series that count, at most.
        of_source: likewise, of one source.
    """
    place = np.searchsorted(series, rows.series)
    order = np.lexsort((rows.source, place))
    place, source = place[order], rows.source[order]
    begins = np.ones(len(place), dtype=bool)
    begins[1:] = (np.diff(place) != 0) | (np.diff(source) != 0)
    first = np.flatnonzero(begins)
    runs = (rows.bad + rows.good)[order]
    bad, good, total = (
        np.add.reduceat(a, first) for a in (rows.bad[order], rows.good[order], runs)
    )
    excess, controlled, own = (
        np.add.reduceat(column[order] * runs, first) / total
        for column in (rows.excess, rows.controlled, rows.own)
    )
    place, source = place[first], source[first]
    weight = np.where(source == 0, 1.0, np.minimum(1.0, of_source / total))
    of_series = np.bincount(place, total * weight, len(series))[place]
    weight = weight * np.minimum(1.0, counted / of_series)
    return Parts(place, source, bad * weight, good * weight, excess, controlled >= 0.5, own)
