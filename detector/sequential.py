"""The sequential test: from hourly counts to the hours in which blocking began or ended.

Each series (a test, an input, a country, a network) is in one of two states. Of each hour's counts
the logarithm of the likelihood ratio is added up: how much better does the other state explain
them? The sum starts again at zero, as in Page's CUSUM; where it reaches the threshold, the state
changes. What a series looks like while nothing is blocked is learned from itself.

Four things keep a single probe, or a short outage, from deciding: of an hour only a few runs count,
and fewer of one kind of probe; one hour can't give more than a part of the threshold, so that it
takes several; what only one kind of probe says, or what nothing controls, has to last (support.py);
and evidence fades while there is silence. What other networks of the country show lowers the
threshold (pooling.py).

All of it is arithmetic on numpy arrays, for all series that have measurements in an hour at once.
"""

from dataclasses import dataclass

import numpy as np

from hours import (
    Arrays,
    Flags,
    Floats,
    Hour,
    Indices,
    Lowered,
    Rows,
    States,
    distinct,
    parts_of,
    sums_of,
)
from series import BLOCKED, OK, UNKNOWN
from sums import Evidence, Shares
from support import Support, SupportParameters

FIRST_SHARES = 0.8, 0.15  # of anomalies, in a series that begins blocked or not
BLOCKED_SHARES = 0.4, 0.97  # no series is believed to have fewer or more while BLOCKED
LEAST_STEP = 0.2  # by which the share of anomalies falls when a blocking ends
START_PARTIAL = 2.0, -2.5  # nats for a partial blocking, when one of blocked_shares has found it
MOST_WEIGHT = 1.5  # that one hour gives


@dataclass(frozen=True)
class Parameters:
    """What the test goes by; chosen on simulated series, see detector/README.md.

    Attributes:
        blocked_shares: of anomalies, where some or nearly all of the measurements are blocked.
        blocked_thresholds: evidence for each of them that suffices for a change to BLOCKED, in nats
            (natural logarithms of odds).
        ok_threshold: evidence for a change to OK, in nats.
        first_threshold: evidence for the first state that a series gets, in nats.
        blocked_hours: the least number of hours that can give as much as that threshold.
        ok_hours: likewise, for a change to OK.
        counted: runs of one hour that count, at most; more of them have less weight each.
        counted_of_source: likewise, of one kind of probe, where that is known.
        half_life: hours of silence after which half of the evidence is left.
        prior: anomalies and other measurements, as if seen before the first one, while OK.
        start_shares: of anomalies in a blocking that one of blocked_shares has just found. The
            higher one is lower than that: a partial blocking may have begun with anomalies only.
        start_weight: measurements, as if seen with that share.
        memory: measurements from which the share while OK is known; older ones fade.
        blocked_memory: likewise, while BLOCKED.
        learning: the part of the threshold up to which a series is believed to be as it was, so
            that its share is learned, while OK.
        blocked_learning: likewise, while BLOCKED; a partial blocking has to become known soon.
        least_share: no series is believed to have fewer anomalies, while OK.
        most_share: nor more.
        most_excess: what runs find more than usual raises what is usual up to this share.
        full_share: of anomalies, at least, while everything is believed to be blocked.
        full_evidence: that a blocking is full rather than partial, in nats, from which on its end
            is told by the full share, not by what was learned.
        most_full_evidence: the limit of that evidence.
    """

    blocked_shares: tuple[float, ...] = (0.55, 0.9)
    blocked_thresholds: tuple[float, ...] = (10.5, 8.8)
    ok_threshold: float = 8.4
    first_threshold: float = 6.0
    blocked_hours: float = 2.5
    ok_hours: float = 2.0
    counted: float = 3.0
    counted_of_source: float = 1.5
    half_life: float = 720.0
    prior: tuple[float, float] = (1.0, 9.0)
    start_shares: tuple[float, ...] = (0.55, 0.82)
    start_weight: float = 5.0
    memory: float = 140.0
    blocked_memory: float = 60.0
    learning: float = 0.4
    blocked_learning: float = 0.6
    least_share: float = 0.055
    most_share: float = 0.25
    most_excess: float = 0.6
    full_share: float = 0.85
    full_evidence: float = 4.0
    most_full_evidence: float = 6.0


# For counts of which nothing else is known: neither runs nor what these measured beside. Nothing
# but time tells an outage from a blocking then: one of three hours must not suffice.
ALONE = Parameters(
    blocked_thresholds=(11.5, 10.0),
    ok_threshold=9.2,
    blocked_hours=3.7,
    ok_hours=2.5,
    full_evidence=np.inf,
)


class Detector:
    """Follows the states of many series, hour by hour.

    Args:
        series: how many.
        parameters: what the test goes by; None: those for counts with their context.
        support: what support goes by; None: all evidence may decide.

    Attributes:
        status: UNKNOWN, OK or BLOCKED, for each series.
        since: the hour in which that began, as far as the measurements tell; -1 before the first.
        last: the last hour that has measurements; -1 before the first.
        begins: how much of the evidence for a beginning each has that is OK, from 0; what has no
            support counts for nothing.
        ends: likewise for the end of a blocking.
        held_since: since when what speaks for a blocking is not believed, for want of support; -1:
            it is, or nothing does.
    """

    def __init__(
        self,
        series: int,
        parameters: Parameters | None = None,
        support: SupportParameters | None = None,
    ) -> None:
        parameters = parameters or Parameters()
        self._parameters = parameters
        self.status: States = np.zeros(series, dtype=np.int8)
        self.since: Indices = np.full(series, -1)
        self.last: Indices = np.full(series, -1)
        self.begins: Floats = np.zeros(series)
        self.ends: Floats = np.zeros(series)
        self.held_since: Indices = np.full(series, -1)
        self._ok = Shares(series, parameters.prior, parameters.memory)
        highest, weight = parameters.start_shares[-1], parameters.start_weight
        prior = (highest * weight, (1 - highest) * weight)
        self._blocked = Shares(series, prior, parameters.blocked_memory)
        thresholds, hours = parameters.blocked_thresholds, parameters.blocked_hours
        self._for_blocked = [Evidence(series, threshold, hours) for threshold in thresholds]
        self._support = None if support is None else Support(series, thresholds, hours, support)
        # While BLOCKED: against the share that was learned, and against that of a full blocking.
        self._for_ok = [
            Evidence(series, parameters.ok_threshold, parameters.ok_hours) for _ in range(2)
        ]
        self._partial: Floats = np.zeros(series)  # above zero: partial rather than full
        self._first: Floats = np.zeros(series)  # above zero: for BLOCKED

    def arrays(self) -> Arrays:
        """Return all that is known of the series, by name; `put` takes it back."""
        parts: dict[str, Shares | Evidence | Support] = {"ok": self._ok, "blocked": self._blocked}
        parts |= {f"for_ok_{n}": evidence for n, evidence in enumerate(self._for_ok)}
        parts |= {f"for_blocked_{n}": evidence for n, evidence in enumerate(self._for_blocked)}
        if self._support is not None:
            parts["support"] = self._support
        nested = {
            f"{part}_{name}": array
            for part, held in parts.items()
            for name, array in held.arrays().items()
        }
        own: Arrays = {"status": self.status, "since": self.since, "last": self.last}
        own |= {"begins": self.begins, "ends": self.ends, "held_since": self.held_since}
        return own | {"first": self._first, "partial": self._partial} | nested

    def put(self, arrays: Arrays) -> None:
        """Know of the first series what `arrays` of another detector says.

        Raises:
            KeyError: there is none of a name.
            ValueError: it has another type, or more series than this detector.
        """
        for name, array in self.arrays().items():
            given = arrays[name]
            if given.dtype != array.dtype or len(given) > len(array):
                raise ValueError(name)
            array[: len(given)] = given

    def progress(self) -> Floats:
        """Return how much of the evidence for another state each series has, from 0 to 1."""
        shares = (
            np.abs(self._first) / self._parameters.first_threshold,
            np.max([evidence.part() for evidence in self._for_blocked], axis=0),
            self.ends,
        )
        share: Floats = np.choose(self.status, shares)
        return np.minimum(1.0, share)

    def usual(self, index: Indices) -> Floats:
        """Return the share of anomalies of series while they are OK, as it is believed to be."""
        parameters = self._parameters
        usual: Floats = np.clip(self._ok.of(index), parameters.least_share, parameters.most_share)
        return usual

    def advance(
        self, hour: int, index: Indices, measurements: Indices, anomalies: Indices
    ) -> tuple[Indices, States]:
        """Take counts of one hour of which nothing else is known; return as `follow` does.

        Args:
            hour: its number; each one is higher than those before.
            index: the series that have measurements in this hour, each once.
            measurements: how many, from 1.
            anomalies: how many of them.
        """
        bad, good = anomalies.astype(float), (measurements - anomalies).astype(float)
        nothing, no = np.zeros(len(index)), np.zeros(len(index), dtype=bool)
        rows = Rows(index, np.zeros(len(index), np.int64), bad, good, nothing, no, no)
        seen = self.see(hour, np.sort(index))
        return self.follow(hour, rows, seen, Lowered.nothing(len(index)))

    def see(self, hour: int, index: Indices) -> tuple[Indices, Indices]:
        """Note that series are measured in an hour; return them, and their last hour before it.

        Args:
            hour: its number; each one is higher than those before.
            index: the series, sorted, each once.
        """
        last = self.last[index]
        self.since[index[last < 0]] = hour
        self.last[index] = hour
        return index, last

    def follow(
        self, hour: int, rows: Rows, seen: tuple[Indices, Indices], lowered: Lowered
    ) -> tuple[Indices, States]:
        """Take what counts of an hour; return the series whose state has changed, and from which.

        Args:
            hour: its number.
            rows: what counts.
            seen: all that are measured, with what `see` returned.
            lowered: by other networks, for the series of the rows, sorted.

        Returns:
            The series, and their state before: UNKNOWN where it is their first one.
        """
        counted = self._counted(hour, rows, seen, lowered)
        status = self.status[counted.series]
        unknown, ok, blocked = (counted.where(status == state) for state in (UNKNOWN, OK, BLOCKED))
        groups = [self._follow_unknown(unknown), self._follow_ok(ok), self._follow_blocked(blocked)]
        changed = np.concatenate(groups)
        old = np.repeat(np.array([UNKNOWN, OK, BLOCKED], np.int8), [len(group) for group in groups])
        order = np.argsort(changed)
        return changed[order], old[order]

    def _counted(
        self, hour: int, rows: Rows, seen: tuple[Indices, Indices], lowered: Lowered
    ) -> Hour:
        """Give runs their weight."""
        parameters = self._parameters
        series = distinct(rows.series)
        parts = parts_of(rows, series, parameters.counted, parameters.counted_of_source)
        measured, before = seen
        last = before[np.searchsorted(measured, series)]
        # Where there were no measurements before, there is no evidence that could fade.
        fading: Floats = np.exp2((hour - last - 1) / -parameters.half_life)
        bad, good = (
            sums_of(parts.place, column, len(series)) for column in (parts.anomalies, parts.others)
        )
        return Hour(hour, series, bad, good, fading, parts, lowered)

    def _follow_unknown(self, hour: Hour) -> Indices:
        """Add up the evidence for the first state; return the series that have one now."""
        parameters, index = self._parameters, hour.series
        most = parameters.first_threshold / 2
        ratio = np.clip(hour.ratio(*FIRST_SHARES), -most, most)
        value = self._first[index] * hour.fading + ratio
        self._first[index] = value
        blocked, ok = (
            index[value > parameters.first_threshold * hour.lowered.beginnings],
            index[value < -parameters.first_threshold],
        )
        self.status[blocked], self.status[ok] = BLOCKED, OK
        return np.concatenate([blocked, ok])

    def _follow_ok(self, hour: Hour) -> Indices:
        """Add up the evidence for a blocking; return the series that are blocked now."""
        parameters, index = self._parameters, hour.series
        usual = self.usual(index)
        ratios = [
            hour.ratios(share, usual, parameters.most_excess) for share in parameters.blocked_shares
        ]
        parts = np.stack(
            [
                evidence.add(hour, hour.summed(ratio))
                for ratio, evidence in zip(ratios, self._for_blocked, strict=True)
            ]
        )
        which, most = parts.argmax(axis=0), parts.max(axis=0)
        since = np.choose(which, [evidence.since[index] for evidence in self._for_blocked])
        free, limit = self._free(hour, ratios, (which, most, since))
        held = ~free & (most >= limit)
        since_held = np.where(self.held_since[index] < 0, hour.number, self.held_since[index])
        self.held_since[index] = np.where(held, since_held, -1)
        for evidence in self._for_blocked:
            evidence.limit(index[~free], limit)
        most = np.where(free, most, np.minimum(most, limit))
        self.begins[index] = np.where(free, most, 0.0)
        enough = free & (most >= hour.lowered.beginnings)
        self._ok.learn(hour.where(most < parameters.learning))
        self._begin(hour.where(enough), which[enough], since[enough])
        return np.asarray(index[enough])

    def _free(
        self, hour: Hour, ratios: list[Floats], likeliest: tuple[Indices, Floats, Indices]
    ) -> tuple[Flags, float]:
        """Tell which evidence may decide, and how much of the threshold the rest can be."""
        if self._support is None:
            return np.ones(len(hour.series), dtype=bool), 1.0
        self._support.add(hour, ratios, self._for_blocked[-1].value[hour.series])
        return self._support.free(hour, *likeliest), self._support.half

    def _begin(self, hour: Hour, which: Indices, since: Indices) -> None:
        """Let blockings begin that one of the hypotheses has found."""
        parameters, index = self._parameters, hour.series
        self.since[index] = since
        self.status[index] = BLOCKED
        self.ends[index] = 0.0
        self._blocked.start(
            index, np.array(parameters.start_shares)[which], parameters.start_weight
        )
        self._blocked.learn(hour)
        self._partial[index] = np.array(START_PARTIAL)[which]
        for evidence in (*self._for_blocked, *self._for_ok):
            evidence.forget(index)
        if self._support is not None:
            self._support.forget(index)

    def _follow_blocked(self, hour: Hour) -> Indices:
        """Add up the evidence for the end of a blocking; return the series that are OK now.

        Where all was blocked, a few good runs are enough, however many came since: what is learned
        of the blocking must not make a partial one of its end.
        """
        parameters, index = self._parameters, hour.series
        usual = self.usual(index)
        blocked = np.clip(self._blocked.of(index), *BLOCKED_SHARES)
        back = np.maximum(np.minimum(usual, blocked - LEAST_STEP), parameters.least_share)
        full = np.maximum(blocked, parameters.full_share)
        parts = [
            evidence.add(hour, hour.ratio(back, share))
            for share, evidence in zip((blocked, full), self._for_ok, strict=True)
        ]
        which = (self._partial[index] <= -parameters.full_evidence).astype(np.int64)
        part = np.choose(which, parts)
        self.ends[index] = part
        enough = part >= hour.lowered.ends
        learns = part < parameters.blocked_learning
        self._blocked.learn(hour.where(learns))
        self._weigh(hour.where(learns | (hour.anomalies > hour.others)))
        self._ok.learn(hour.where(enough))
        changed = index[enough]
        since = np.choose(which[enough], [evidence.since[changed] for evidence in self._for_ok])
        self.since[changed] = since
        self.status[changed] = OK
        self.begins[changed] = 0.0
        for evidence in self._for_ok:
            evidence.forget(changed)
        return changed

    def _weigh(self, hour: Hour) -> None:
        """Weigh whether blockings are partial or full."""
        partial, full = self._parameters.blocked_shares
        most, index = self._parameters.most_full_evidence, hour.series
        ratio = np.clip(hour.ratio(partial, full), -MOST_WEIGHT, MOST_WEIGHT)
        self._partial[index] = np.clip(self._partial[index] + ratio, -most, most)
