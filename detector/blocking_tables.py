"""The tables `blocking_status` and `blocking_events`."""

import functools
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from ooni_common.database import Database
from ooni_common.swap.update import LossLimit, Table, Update
from series import Event, Series, SeriesStatus, Target, time_of

SERIES = {"test_name": "String", "input": "String", "probe_cc": "String", "probe_asn": "Int32"}
KEY = ", ".join(SERIES)
STATUS = Table(
    name="blocking_status",
    shadow="blocking_status_tmp",
    columns={
        **SERIES,
        "confirmed_perc": "Float32",
        "pure_anomaly_perc": "Float32",
        "accessible_perc": "Float32",
        "cnt": "Float32",
        "status": "String",
        "old_status": "String",
        "change": "Float32",
        "stability": "Float32",
        "update_time": "DateTime64(0)",
        "service": "String",
        "since": "DateTime('UTC')",
        "last_measurement": "DateTime('UTC')",
    },
    engine=f"ENGINE = ReplacingMergeTree ORDER BY ({KEY})",
    identity=tuple(SERIES),
)
EVENTS = Table(
    name="blocking_events",
    shadow="blocking_events_tmp",
    columns={
        **SERIES,
        "status": "String",
        "time": "DateTime64(3)",
        "detection_time": "DateTime64(0)",
    },
    engine=f"ENGINE = ReplacingMergeTree ORDER BY ({KEY}, time)",
    identity=(*SERIES, "status"),
)
TABLES = (STATUS, EVENTS)
ANY_NUMBER = (-1, 10**9)
FEW = 20  # rows whose loss is never refused


def read_events(database: Database, targets: Collection[Target], until: int) -> list[Event]:
    """Return the events that a run does not find again.

    Args:
        database: may have the table, or not.
        targets: what is followed; events of others are of an earlier configuration, and stay.
        until: events that were detected no later than this hour's beginning stay.
    """
    if not database.exists(EVENTS.name):
        return []
    rows = database.query(
        f"SELECT {KEY}, status, toUnixTimestamp(time), toUnixTimestamp(detection_time)"
        f" FROM {EVENTS.name} FINAL ORDER BY ALL"
    )
    events = [Event(Series(*row[:4]), row[4], _time(row[5]), _time(row[6])) for row in rows]
    latest = time_of(until)
    return [
        event
        for event in events
        if event.detection_time <= latest or event.series.target not in targets
    ]


def updates_of(
    statuses: Sequence[SeriesStatus], events: Sequence[Event], until: int, max_shrink: float
) -> list[Update]:
    """Return what the tables are to hold.

    Args:
        statuses: of all series.
        events: of all times.
        until: the end of the last hour that was looked at.
        max_shrink: the share of the rows that may disappear.
    """
    limits = (LossLimit(max_shrink, rows=FEW),)
    now = time_of(until)
    seconds = functools.cache(lambda time: int(time.timestamp()))  # the driver is slow with times
    status_rows = [
        (
            *status.series,
            status.confirmed_perc,
            status.pure_anomaly_perc,
            status.accessible_perc,
            status.cnt,
            status.status,
            status.old_status,
            status.change,
            status.stability,
            now,
            status.service,
            seconds(status.since),
            seconds(status.last),
        )
        for status in statuses
    ]
    event_rows = [
        (*event.series, event.status, event.time, event.detection_time) for event in events
    ]
    return [
        Update.of_rows(STATUS, status_rows, ANY_NUMBER, limits),
        Update.of_rows(EVENTS, event_rows, ANY_NUMBER, limits),
    ]


def _time(timestamp: int) -> datetime:
    return datetime.fromtimestamp(timestamp, tz=UTC)
