"""Measurements counted for the outputs: a chart around an incident, the tally of a period."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from outputs.counting import Counting, Steps, Window
from outputs.incidents import Incident, Key
from outputs.timeline import MEASURED, Silent, Turn, doubtful_of, turns_of
from series import Event, Series, hour_of, time_of

BEFORE, AFTER, LONGEST = 3 * 24, 3 * 24, 30 * 24  # hours around an incident
STEPS = {1: 80, 3: 240, 6: 480}  # hours of a step → the longest window that has such steps
LONG_STEP = 12
DAY = 24  # hours; the shortest step of a period
MOST_STEPS = 240  # of a period
NO_SILENT: Mapping[Key, Collection[Silent]] = {}


class Tally(NamedTuple):
    """Measurements without failures, how many of them had anomalies, and of how many runs."""

    measurements: int
    anomalies: int
    runs: int


@dataclass(frozen=True)
class Chart:
    """Measurements around an incident, of its series together, step by step.

    Attributes:
        start: of the first step.
        step: how long each one is.
        measurements: of each step, without failures; 0 where there are none.
        anomalies: of these.
        runs: that these are of, in the step in which each is first seen.
    """

    start: datetime
    step: timedelta
    measurements: tuple[int, ...]
    anomalies: tuple[int, ...]
    runs: tuple[int, ...]

    @property
    def end(self) -> datetime:
        """When the last step ends."""
        return self.start + self.step * len(self.measurements)

    def tally_within(self, start: datetime, end: datetime | None) -> Tally | None:
        """Add up the steps that lie wholly in a time; None: there are no measurements.

        Args:
            start: of the time; one of the steps begins when the incident does.
            end: of the time; None: that of the chart.
        """
        first = max(0, -((self.start - start) // self.step))
        stop = None if end is None else max(0, (end - self.start) // self.step)
        sums = [sum(c[first:stop]) for c in (self.measurements, self.anomalies, self.runs)]
        return Tally(*sums) if sums[0] else None


class Period(NamedTuple):
    """Whole hours in which the measurements of some series are counted.

    Attributes:
        series: whose, sorted.
        start: of the first hour.
        end: of the last one.
    """

    series: tuple[Series, ...]
    start: datetime
    end: datetime


def until_detected(incident: Incident) -> Period:
    """Return from when to when an incident was found."""
    return Period(incident.series, incident.start, incident.detected)


def until_turn(incident: Incident, turn: Turn) -> Period:
    """Return from when to when an incident lasted that is over, or mostly."""
    return Period(_series_at(incident, turn.detected), incident.start, turn.end)


def since_turn(incident: Incident, turn: Turn) -> Period:
    """Return from when to when it was found that most of it is over, where it is."""
    series = _series_at(incident, turn.detected)
    over = tuple(one for one in series if one.probe_asn in turn.over)
    return Period(over, turn.end, turn.detected)


def so_far(incident: Incident, until: datetime) -> Period:
    """Return from when to when an incident has lasted."""
    return Period(incident.series, incident.start, incident.end or until)


def until_sure(event: Event) -> Period:
    """Return from when to when a change of a series was found."""
    return Period((event.series,), event.time, event.detection_time)


def periods_of(
    incidents: Iterable[Incident],
    events: Iterable[Event],
    unmeasured: Mapping[Key, Collection[Silent]] = NO_SILENT,
) -> Iterator[Period]:
    """Yield the periods whose measurements the feeds tell of."""
    for incident in incidents:
        yield until_detected(incident)
        for turn in turns_of(incident, unmeasured.get(incident.key, ())):
            yield until_turn(incident, turn)
            yield since_turn(incident, turn)
    yield from map(until_sure, events)


def unmeasured_of(
    counting: Counting, incidents: Iterable[Incident]
) -> dict[Key, Collection[Silent]]:
    """Return the networks of incidents, and hours, before which nobody had measured them for long.

    See timeline.doubtful_of.
    """
    asked = [
        (incident.key, (asn, time), _before(incident, asn, time))
        for incident in incidents
        for asn, time in doubtful_of(incident)
    ]
    tallies = tallies_of(counting, [period for *_, period in asked])
    unmeasured: dict[Key, set[Silent]] = {}
    for key, silent, period in asked:
        if period not in tallies:
            unmeasured.setdefault(key, set()).add(silent)
    return dict(unmeasured)


def _before(incident: Incident, asn: int, time: datetime) -> Period:
    series = tuple(one for one in incident.series if one.probe_asn == asn)
    return Period(series, time - MEASURED, time)


def _series_at(incident: Incident, time: datetime) -> tuple[Series, ...]:
    return tuple(sorted({b.series for b in incident.blockings if b.detected <= time}))


def charts_and_tallies(
    counting: Counting, charted: Sequence[Incident], periods: Sequence[Period]
) -> tuple[dict[Key, Chart], dict[Period, Tally]]:
    """Return charts of incidents, by key, and the tallies of periods and of how they have lasted.

    All of it is counted at once: the database looks at the same hours for all.

    Args:
        counting: does it.
        charted: the incidents that are not over have a tally, too, see so_far.
        periods: which; those without any measurements have no tally.
    """
    until = time_of(counting.until)
    lasting = [so_far(incident, until) for incident in charted if incident.end is None]
    charts = [window_of(incident, counting.until) for incident in charted]
    ended = [_as_window(period, grows=False) for period in periods]
    growing = [_as_window(period, grows=True) for period in lasting]
    counts = counting.count([*charts, *ended, *growing])
    of_charts, of_periods = counts[: len(charts)], counts[len(charts) :]
    charts_by_key = {
        incident.key: chart_of(window, steps)
        for incident, window, steps in zip(charted, charts, of_charts, strict=True)
    }
    return charts_by_key, _measured([*periods, *lasting], of_periods)


def tallies_of(counting: Counting, periods: Sequence[Period]) -> dict[Period, Tally]:
    """Return the tally of each period that has any measurements."""
    counts = counting.count([_as_window(period, grows=False) for period in periods])
    return _measured(periods, counts)


def _measured(periods: Sequence[Period], counts: Sequence[Steps]) -> dict[Period, Tally]:
    tallies = {
        period: Tally(*map(sum, steps)) for period, steps in zip(periods, counts, strict=True)
    }
    return {period: tally for period, tally in tallies.items() if tally.measurements}


def window_of(incident: Incident, until: int) -> Window:
    """Return what is charted: from some days before an incident to some days after it.

    Of a long one, only the beginning is. One of the steps begins when the incident does, so that
    what was measured before it and since then can be told apart.
    """
    begun = hour_of(incident.start)
    start = begun - BEFORE
    over = until if incident.end_detected is None else hour_of(incident.end_detected) + AFTER
    end = min(until, over, start + LONGEST)
    step = next((step for step, longest in STEPS.items() if end - start <= longest), LONG_STEP)
    start -= (start - begun) % step
    whole_steps = start - (start - end) // step * step
    return Window(incident.series, start, step, min(until, whole_steps), grows=True)


def _as_window(period: Period, *, grows: bool) -> Window:
    """Return a window with steps, so that the end of a long period costs no question about all."""
    start, end = hour_of(period.start), hour_of(period.end)
    step = DAY * max(1, -((start - end) // (DAY * MOST_STEPS)))
    return Window(period.series, start, step, end, grows=grows)


def chart_of(window: Window, counts: Steps) -> Chart:
    """Return a chart for people."""
    start, second = time_of(window.start), time_of(window.start + window.step)
    return Chart(start, second - start, *map(tuple, counts))
