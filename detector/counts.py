"""What of `fastpath` the detector reads, how far it has come, and asking for it hour by hour.

A measurement that failed tells nothing and is not counted. `fastpath` replaces rows: FINAL counts
a measurement that was processed again once, whether the server has merged its rows or not.
"""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TypeVar

from ooni_common.database import Database
from ooni_common.errors import ConfigError
from ooni_common.nodes import Node, Nodes
from ooni_common.replicas import lag_of
from series import HOUR, hour_of

log = logging.getLogger("ooni.detector")

Counts = TypeVar("Counts")

FASTPATH_COLUMNS = (
    "measurement_uid",
    "report_id",
    "test_start_time",
    "measurement_start_time",
    "test_name",
    "input",
    "probe_cc",
    "probe_asn",
    "anomaly",
    "confirmed",
    "msm_failure",
    "platform",
    "software_name",
    "software_version",
    "architecture",
)
MEASURED = """\
FROM fastpath FINAL
WHERE input IN %(inputs)s
  AND measurement_start_time >= toDateTime({start}) AND measurement_start_time < toDateTime({end})
  AND test_name IN %(tests)s AND msm_failure != 't'
"""
ANOMALY = "(anomaly = 't' OR confirmed = 't')"
MEASURED_HOURS = """\
SELECT count(), toUnixTimestamp(min(measurement_start_time)),
  toUnixTimestamp(max(measurement_start_time))
FROM fastpath
WHERE measurement_start_time >= toDateTime({start}) AND measurement_start_time < toDateTime({end})
"""
# The server makes a measurement's uid when it receives it, and begins it with its own time.
RECEIVED = """\
SELECT max(substring(measurement_uid, 1, 14))
FROM fastpath
WHERE measurement_start_time >= toDateTime({start}) AND measurement_start_time < toDateTime({end})
  AND match(measurement_uid, '^20[0-9]{{12}}[.]')
"""
RECENT = 24  # hours before the last measurement in which the last one received is looked for


def measured_hours(database: Database, start: int, end: int) -> tuple[int, int] | None:
    """Return the first hour with a measurement of anything, and the end of the last one.

    The last one is no later than when the server received something: a probe whose clock is fast
    must not hide that nothing comes any more.

    Args:
        database: has `fastpath`.
        start: looked at from this hour on (in hours since 1970, as all).
        end: up to this one, without it.

    Returns:
        None where there is no measurement.

    Raises:
        ConfigError: the database has no `fastpath`, which only others make.
    """
    if not database.exists("fastpath"):
        raise ConfigError("fastpath: no such table; name the database of OONI in db_uri")
    sql = MEASURED_HOURS.format(start=start * HOUR, end=end * HOUR)
    ((count, oldest, newest),) = database.query(sql)
    if not count:
        return None
    first, last = oldest // HOUR, newest // HOUR
    received = _received(database, max(start, last - RECENT), last + 1)
    return first, max(first, last if received is None else min(last, received)) + 1


def _received(database: Database, start: int, end: int) -> int | None:
    """Return the hour in which the server received the last measurement of some hours.

    None where the uids don't tell, as those that the server did not make.
    """
    ((text,),) = database.query(RECEIVED.format(start=start * HOUR, end=end * HOUR))
    try:
        return hour_of(datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC))
    except ValueError:
        return None


def least_lagging(nodes: Nodes, table: str) -> Database:
    """Return the connection to the node that lacks least of a table: one may be back just now.

    Raises:
        Unavailable, ConfigError: too few nodes are left.
    """
    if not nodes.is_cluster:
        return nodes.first

    def lag(node: Node) -> int | None:
        if not node.database.exists(table):
            return None
        ((database,),) = node.database.query("SELECT currentDatabase()")
        return lag_of(node.database, database, table)

    lags = {node: lag for node, lag in nodes.each(lag).items() if lag is not None}
    best = min(lags, key=lambda node: lags[node], default=nodes.up[0])
    if lags.get(best):
        log.warning("%s: %s, the best replica that is up, lacks rows", table, best)
    return best.database


def counts_ahead(
    database: Database,
    counts_of: Callable[[int, int], Counts],
    hours: tuple[int, int],
    step: int,
    timed: Callable[[], AbstractContextManager[None]],
) -> Iterator[Counts]:
    """Yield the counts from an hour up to another one, without it, some hours at a time.

    While some are looked at, the database counts the next: nobody else may use it meanwhile.

    Args:
        database: has `fastpath`.
        counts_of: asks it for what is counted from an hour up to another one, without it.
        hours: the first one, and the one after the last.
        step: hours that are asked for at once.
        timed: wraps each question.
    """

    def answers() -> Iterator[Counts]:
        for start in range(*hours, step):
            with timed():
                counts = counts_of(start, min(start + step, hours[1]))
            yield counts

    remaining = answers()
    with ThreadPoolExecutor(1) as thread:
        try:
            answer = thread.submit(next, remaining, None)
            while (counts := answer.result()) is not None:
                answer = thread.submit(next, remaining, None)
                yield counts
        except BaseException:
            database.interrupt()  # or else an answer that nobody needs would be waited for
            raise
