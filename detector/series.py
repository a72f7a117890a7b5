"""What the detector follows: series, their states, and events; hours as numbers.

An hour is a number here: hours since 1970, UTC.
"""

from datetime import UTC, datetime
from typing import NamedTuple

HOUR = 3600  # seconds

UNKNOWN, OK, BLOCKED = 0, 1, 2
STATE_NAMES = ("UNKNOWN", "OK", "BLOCKED")

WEB_TEST = "web_connectivity"  # its inputs are URLs, and its runs alone have several

Target = tuple[str, str]  # a test, and its input: a URL, or "" where a test has none


class Series(NamedTuple):
    """What is followed: one test of one input (URL, or "") in one network of a country."""

    test_name: str
    input: str
    probe_cc: str
    probe_asn: int

    @property
    def target(self) -> Target:
        """What is tested."""
        return self.test_name, self.input


class Event(NamedTuple):
    """A change of a series.

    Attributes:
        series: which.
        status: BLOCKED or OK, since then.
        time: when it began, as far as the measurements tell; UTC, as all times.
        detection_time: the end of the hour whose measurements made it sure.
    """

    series: Series
    status: str
    time: datetime
    detection_time: datetime


class SeriesStatus(NamedTuple):
    """The state of a series, and the counts behind it, in which older ones fade.

    Attributes:
        series: which.
        service: what it is a part of.
        status: OK, BLOCKED or UNKNOWN: too few measurements, or none for long.
        old_status: the one before; UNKNOWN where there was none.
        since: when it began, as far as the measurements tell.
        last: the end of the last hour that has measurements.
        cnt: measurements, without failures; a week old ones count half.
        confirmed_perc: of them, with a known block page; 0 to 100.
        pure_anomaly_perc: with anomalies, but not confirmed.
        accessible_perc: without anomalies.
        change: how much of the evidence for another status there is, 0 to 1.
        stability: the share of the measurements that speak for the status, 0 to 1.
    """

    series: Series
    service: str
    status: str
    old_status: str
    since: datetime
    last: datetime
    cnt: float
    confirmed_perc: float
    pure_anomaly_perc: float
    accessible_perc: float
    change: float
    stability: float


class InDoubt(NamedTuple):
    """What is not believed at a time.

    Attributes:
        failing: services that fail in several countries at once, and since when; sorted.
        countries: likewise, countries in which everything fails: their codes.
        held: since when series look blocked without enough to support it, in order.
    """

    failing: tuple[tuple[str, datetime], ...] = ()
    countries: tuple[tuple[str, datetime], ...] = ()
    held: tuple[datetime, ...] = ()


def hour_of(time: datetime) -> int:
    """Return the hour of a time; a time without zone is UTC."""
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()) // HOUR


def time_of(hour: int) -> datetime:
    """Return when an hour begins."""
    return datetime.fromtimestamp(hour * HOUR, tz=UTC)
