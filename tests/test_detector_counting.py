"""Counting measurements and runs step by step, at once or as the hours go by."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Any
from urllib.parse import urlsplit

import pytest

from conftest import Database as FreshDatabase
from counts import counts_ahead
from detector_config import Config
from detector_harness import FACEBOOK, START
from dev.samples.measurements import create
from dev.servers.tcp_proxy import TcpProxy, stall
from ooni_common.config import SecretUrl
from ooni_common.database import Database, connected
from outputs.counting import Counting, Window
from series import Series, hour_of, time_of

FIRST = hour_of(START)
DAY = 24
INPUTS = (FACEBOOK[1], "https://web.facebook.com/robots.txt")
SERIES = tuple(Series(FACEBOOK[0], url, "IT", 1) for url in INPUTS)
# Run, input, hours after START, anomaly; a run goes on over midnight, and one pauses for two days.
MEASURED = [
    ("a", 0, 3.0, True),
    ("a", 1, 3.1, False),
    ("b", 0, 23.9, True),
    ("b", 1, 24.1, True),
    ("b", 0, 25.0, False),
    ("c", 0, 30.0, True),
    ("c", 0, 80.0, True),
    ("d", 1, 47.9, False),
    ("d", 1, 72.5, True),
]


@pytest.fixture
def measurements(database: FreshDatabase) -> Iterator[Database]:
    client = database.client()
    create(client, "fastpath")
    rows = [
        (
            f"{number:030}",
            run,
            INPUTS[url],
            time_of(FIRST).timestamp() + hour * 3600,
            "t" if bad else "f",
        )
        for number, (run, url, hour, bad) in enumerate(MEASURED)
    ]
    for uid, run, url, time, bad in rows:
        client.execute(
            "INSERT INTO fastpath (measurement_uid, report_id, input, probe_cc, probe_asn,"
            " test_name, measurement_start_time, anomaly, confirmed, msm_failure) VALUES"
            f" ('{uid}', '{run}', '{url}', 'IT', 1, '{FACEBOOK[0]}',"
            f" toDateTime({int(time)}), '{bad}', 'f', 'f')"
        )
    with connected(Config(db_uri=SecretUrl(database.uri))) as opened:
        yield opened


class ShutDownSlowly:
    """A client's socket whose end another thread has dealt with before this one goes on."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._socket = connection.socket
        self._thread = threading.current_thread()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def shutdown(self, how: int) -> None:
        self._socket.shutdown(how)
        while self._thread is threading.current_thread() and self._connection.socket:
            sleep(0.01)


@pytest.mark.parametrize("after", [0, 1], ids=["ping", "answer"])
def test_a_run_that_is_stopped_interrupts_the_count_that_it_waits_for(
    database: FreshDatabase, after: int
) -> None:
    port = urlsplit(database.uri).port or 0
    asked = threading.Event()

    def counts_of(start: int, _end: int) -> Any:
        if start:
            proxy.fail(stall, after=after, answers=True)
            asked.set()
        return through.query("SELECT 1")

    with TcpProxy(lambda: port) as proxy:
        uri = SecretUrl(database.uri.replace(f":{port}", f":{proxy.port}"))
        with connected(Config(db_uri=uri)) as through:
            ahead: Any = counts_ahead(through, counts_of, (0, 9), 1, contextlib.nullcontext)
            assert next(ahead) == [(1,)]
            assert asked.wait(60)
            connection: Any = vars(through)["_client"].connection
            connection.socket = ShutDownSlowly(connection)
            ahead.close()
            assert connection.socket is None


def window(end: int, start: int = 0) -> Window:
    return Window(SERIES, FIRST + start, DAY, FIRST + end, grows=True)


def test_a_run_counts_in_the_step_in_which_it_is_first_seen(
    measurements: Database, tmp_path: Path
) -> None:
    counting = Counting(
        measurements, (FIRST, FIRST + 96), tmp_path / "charts.json", reprocess=False
    )
    whole, later, one = counting.count([window(96), window(96, 24), window(24)])
    assert whole == ([3, 4, 0, 2], [2, 2, 0, 2], [2, 2, 0, 2])
    assert later == ([4, 0, 2], [2, 0, 2], [3, 0, 2])
    assert one == ([3], [2], [2])


def test_counting_as_the_hours_go_by_is_counting_at_once(
    measurements: Database, tmp_path: Path
) -> None:
    hours = (FIRST, FIRST + 96)
    at_once = Counting(measurements, hours, tmp_path / "once.json", reprocess=False)
    expected = at_once.count([window(96)])
    path = tmp_path / "charts.json"
    for end in range(12, 97, 12):
        unsettled = (FIRST + max(0, end - 30), FIRST + end)
        counting = Counting(measurements, unsettled, path, reprocess=False)
        seen = counting.count([window(end)])
        counting.keep()
    assert seen == expected
    assert '"windows"' in path.read_text()


@pytest.mark.parametrize("view", [False, True], ids=["table", "view"])
def test_a_measurement_that_was_processed_again_counts_as_it_was_found_last(
    measurements: Database, database: FreshDatabase, tmp_path: Path, *, view: bool
) -> None:
    database.execute(
        "INSERT INTO fastpath (measurement_uid, report_id, input, probe_cc, probe_asn, test_name,"
        " test_start_time, measurement_start_time, anomaly, confirmed, msm_failure)"
        " SELECT measurement_uid, report_id, input, probe_cc, probe_asn, test_name,"
        " test_start_time, measurement_start_time, 'f', 'f', if(report_id = 'b', 't', 'f')"
        " FROM fastpath"
    )
    if view:
        database.execute("RENAME TABLE fastpath TO kept")
        database.execute("CREATE VIEW fastpath AS SELECT * FROM kept FINAL")
    counting = Counting(
        measurements, (FIRST, FIRST + 96), tmp_path / "charts.json", reprocess=False
    )
    assert counting.count([window(96)]) == [([2, 2, 0, 2], [0, 0, 0, 0], [1, 2, 0, 2])]


def test_only_the_series_of_a_window_are_counted_in_it(
    measurements: Database, tmp_path: Path
) -> None:
    counting = Counting(
        measurements, (FIRST, FIRST + 96), tmp_path / "charts.json", reprocess=False
    )
    hours = (FIRST, DAY, FIRST + 24)
    windows = [
        *(Window((one,), *hours, grows=True) for one in SERIES),
        *(
            Window((SERIES[0]._replace(**other),), *hours, grows=True)
            for other in ({"probe_cc": "FR"}, {"probe_asn": 2}, {"test_name": "signal"})
        ),
    ]
    nothing = ([0], [0], [0])
    expected = [([2], [2], [2]), ([1], [0], [1]), nothing, nothing, nothing]
    assert counting.count(windows) == expected
