"""The detector as a whole, on a real database: from measurements to tables and outputs."""

import itertools
import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import feedparser
import pytest

import checkpoint
import detector
from conftest import Database as FreshDatabase
from detector_config import Config
from detector_harness import FACEBOOK, WHATSAPP, Detecting, at, blocked, measured, series
from dev.samples.blocking import Hour
from dev.servers.statsd import StatsdListener
from ooni_common.errors import Stopped

KILLS = int(os.environ.get("OONI_TEST_KILLS", "3"))
USAGE, DATA_REFUSED, UNAVAILABLE, TRY_AGAIN_LATER, CONFIG = 2, 65, 69, 75, 78
DAY = 24


@pytest.fixture
def detecting(
    tmp_path: Path, database: FreshDatabase, capsys: pytest.CaptureFixture[str]
) -> Detecting:
    return Detecting(tmp_path, database, capsys)


def some_history() -> Iterator[Hour]:
    """Yield eight days in which one network is blocked and unblocked, and a nation is blocked."""
    end = 8 * DAY
    yield from blocked(series("IT", 1), end, block=70, unblock=120)
    yield from blocked(series("IT", 1, WHATSAPP), end, block=80)
    yield from measured(series("FR", 7), 0, end)
    yield from measured(series("FR", 8), 0, end, count=3, anomalies=1, step=5)
    for asn in range(100, 130):
        yield from blocked(series("IR", asn), end, block=5 * DAY + asn % 4)


# --- what is found ---


def test_a_blocking_and_its_end_are_events(detecting: Detecting) -> None:
    detecting.measure(blocked(series(), 200, block=100, unblock=150))
    log = detecting.detect(200)
    changes = detecting.changes()
    assert [(status, begun) for _, status, begun, _ in changes] == [
        ("BLOCKED", 100),
        ("OK", 150),
    ]
    assert all(0 < detected - begun < 12 for _, _, begun, detected in changes)
    assert detecting.statuses() == {series(): "OK"}
    assert "incidents: 0 ongoing, 1 ended" in log


def test_the_status_has_the_counts_behind_it(detecting: Detecting) -> None:
    first = measured(series(), 0, 1)[0].hour
    detecting.measure(
        Hour(*series(), hour=first + hour, measurements=4, anomalies=2, confirmed=1, failures=3)
        for hour in range(100)
    )
    detecting.detect(101)
    ((*figures, update, since, last),) = detecting.database.execute(
        "SELECT confirmed_perc, pure_anomaly_perc, accessible_perc, cnt, status, service,"
        " toString(update_time, 'UTC'), since, last_measurement FROM blocking_status"
    )
    confirmed, anomalies, accessible, count, status, service = figures
    assert (confirmed, anomalies, accessible) == (25, 25, 50)
    assert 320 < count < 400
    assert (status, service) == ("BLOCKED", "Facebook")
    assert update == f"{at(100):%Y-%m-%d %H:%M:%S}"
    assert (since, last) == (at(0), at(100))


def test_what_failed_or_is_of_no_known_network_does_not_count(detecting: Detecting) -> None:
    first = measured(series(), 0, 1)[0].hour
    detecting.measure(
        Hour(*series(), hour=first + hour, measurements=0, anomalies=0, failures=2)
        for hour in range(50)
    )
    detecting.measure(measured(series("ZZ", 1), 0, 50))
    detecting.measure(measured(series("IT", 0), 0, 50))
    detecting.measure(measured(series("it", 1), 0, 50))
    for target in (("web_connectivity", "https://else/"), ("whatsapp", FACEBOOK[1])):
        detecting.measure(blocked(series("IT", 1, target), 50, block=30))
    detecting.detect(50)
    assert (detecting.statuses(), detecting.changes()) == ({}, [])


@pytest.mark.long
def test_a_measurement_that_was_processed_twice_counts_once(detecting: Detecting) -> None:
    detecting.measure(blocked(series(), 200, block=100))
    detecting.detect(200)
    before = detecting.everything()
    detecting.database.execute("SYSTEM STOP MERGES fastpath")
    detecting.measure(blocked(series(), 200, block=100))
    detecting.begin_anew("second")
    detecting.detect(200)
    assert detecting.everything() == before


def test_a_national_blocking_is_one_incident_of_thirty_networks(detecting: Detecting) -> None:
    nation = [series("IR", asn) for asn in range(100, 130)]
    for_three_days = [blocked(of, 8 * DAY, block=5 * DAY) for of in (*nation, series("FR", 7))]
    detecting.measure(itertools.chain.from_iterable(for_three_days))
    detecting.detect(8 * DAY)
    assert len(detecting.changes()) == 31
    feed = feedparser.parse(detecting.outputs()["rss/by-country/IR.xml"])
    (entry,) = feed.entries
    assert "Facebook" in entry.title
    assert "Iran" in entry.title
    assert "30 networks" in entry.title
    assert "AS129" in entry.summary
    (item,) = json.loads(detecting.outputs()["json/by-country/IR.json"])["items"]
    assert len(item["incident"]["networks"]) == 30


# --- running it again, late, at once ---


@pytest.mark.long
def test_it_does_not_matter_how_often_it_has_run(detecting: Detecting) -> None:
    detecting.measure(some_history())
    detecting.detect(8 * DAY)
    at_once = detecting.everything()
    assert len(detecting.changes()) == 33

    detecting.detect(8 * DAY)
    assert detecting.everything() == at_once  # twice

    detecting.begin_anew("after some days")
    for day in (2, 5, 6, 8):
        detecting.detect(day * DAY)
    assert detecting.everything() == at_once

    detecting.begin_anew("hour by hour, with an outage of three days")
    detecting.configure(late_days=1)
    for hour in (60, *range(69, 76), *range(80, 84), 83 + 3 * DAY, 8 * DAY):
        detecting.detect(hour + 0.2)
    assert detecting.everything() == at_once

    detecting.reprocess(0, 8 * DAY)
    assert detecting.everything() == at_once

    detecting.begin_anew("reprocessed")
    detecting.reprocess(0, 8 * DAY)
    assert detecting.everything() == at_once


@pytest.mark.long
@pytest.mark.timeout(600)
def test_every_hour_for_days_gives_what_one_run_gives(detecting: Detecting) -> None:
    detecting.measure(some_history())
    detecting.detect(8 * DAY)
    at_once = detecting.everything()
    detecting.begin_anew("hour by hour")
    for hour in range(8 * DAY + 1):
        detecting.detect(hour)
    assert detecting.everything() == at_once


@pytest.mark.long
def test_reprocessing_keeps_what_was_before_it(detecting: Detecting) -> None:
    detecting.measure(blocked(series(), 20 * DAY, block=100, unblock=150))
    detecting.measure(blocked(series("FR", 2), 20 * DAY, block=400))
    detecting.detect(20 * DAY)
    before = detecting.changes()
    detecting.reprocess(10 * DAY, 20 * DAY)
    assert detecting.changes() == before
    assert detecting.statuses() == {series(): "OK", series("FR", 2): "BLOCKED"}


@pytest.mark.long
def test_the_next_run_goes_on_where_a_reprocessing_ended(detecting: Detecting) -> None:
    detecting.measure(some_history())
    detecting.detect(8 * DAY)
    expected = detecting.everything()
    detecting.reprocess(0, 4 * DAY)
    assert [change[:2] for change in detecting.changes()] == [(1, "BLOCKED"), (1, "BLOCKED")]
    detecting.detect(8 * DAY)
    assert detecting.everything() == expected


def test_measurements_that_come_late_count(detecting: Detecting) -> None:
    late = measured(series(), 100, 160, anomalies=2)
    detecting.measure([*measured(series(), 0, 100), *measured(series("FR", 2), 0, 160)])
    detecting.detect(160)
    assert detecting.changes() == []
    detecting.measure(late)
    detecting.detect(160)
    ((asn, status, begun, _detected),) = detecting.changes()
    assert (asn, status, begun) == (1, "BLOCKED", 100)


@pytest.mark.long
def test_measurements_that_come_too_late_wait_for_a_reprocessing(detecting: Detecting) -> None:
    detecting.measure([*measured(series(), 0, 100), *measured(series("FR", 2), 0, 300)])
    detecting.detect(300)
    detecting.measure(measured(series(), 100, 160, anomalies=2))
    detecting.detect(300)
    assert detecting.changes() == []
    detecting.reprocess(0, 300)
    assert len(detecting.changes()) == 1


def test_an_event_disappears_when_late_measurements_speak_against_it(detecting: Detecting) -> None:
    detecting.measure(blocked(series(), 112, block=100))
    detecting.detect(112)
    assert len(detecting.changes()) == 1
    names = set(detecting.outputs())
    detecting.measure(measured(series(), 100, 112, count=40))
    detecting.database.execute("OPTIMIZE TABLE fastpath FINAL")
    detecting.detect(112)
    assert detecting.changes() == []
    assert any("by-series" in name for name in names)
    assert not any("by-series" in name for name in detecting.outputs())


@pytest.mark.long
def test_the_hour_that_has_not_ended_is_not_looked_at(detecting: Detecting) -> None:
    detecting.measure(blocked(series(), 200, block=100))
    for hour in range(106, 115):
        detecting.detect(hour + 0.99)
        if detecting.changes():
            break
    ((_, _, _, detected),) = detecting.changes()
    assert detected == hour


@pytest.mark.long
def test_time_stands_still_while_fastpath_gets_nothing(detecting: Detecting) -> None:
    detecting.measure(blocked(series(), 104, block=100))
    detecting.detect(104)
    before = detecting.everything()
    detecting.detect(104 + 10 * DAY)
    assert detecting.everything() == before
    detecting.measure(measured(series(), 102, 114, anomalies=2))  # fastpath was down
    detecting.detect(104 + 10 * DAY)
    assert len(detecting.changes()) == 1


@pytest.mark.long
def test_a_series_that_is_measured_no_more_becomes_unknown(detecting: Detecting) -> None:
    detecting.measure(blocked(series(), 200, block=100))
    detecting.measure(measured(series("FR", 2), 0, 50 * DAY, step=6))
    detecting.detect(50 * DAY)
    assert detecting.statuses() == {series(): "UNKNOWN", series("FR", 2): "OK"}
    assert detecting.changes()[-1][1] == "BLOCKED"


@pytest.mark.long
def test_a_service_that_is_followed_no_more_disappears_but_for_its_events(
    detecting: Detecting,
) -> None:
    detecting.measure(some_history())
    detecting.detect(8 * DAY)
    events = detecting.events()
    detecting.detect(8 * DAY, "--force", services={"WhatsApp": ["whatsapp"]})
    assert detecting.events() == events
    assert {key.test_name for key in detecting.statuses()} == {"whatsapp"}
    assert "Facebook" not in detecting.page()


# --- killed, cut off, refused ---


@pytest.mark.long
def test_killed_at_any_moment_it_leaves_nothing_half_done(detecting: Detecting) -> None:
    detecting.measure(some_history())
    detecting.reprocess(0, 8 * DAY)
    expected = detecting.everything()
    chance = random.Random(8)
    arguments = ["--reprocess", "--start-date", f"{at(0):%Y-%m-%d}", "--end-date"]
    arguments.append(f"{at(8 * DAY):%Y-%m-%d}")
    started = time.monotonic()
    detecting.start(*arguments).communicate()
    lasts = time.monotonic() - started
    for number in range(KILLS):
        detecting.begin_anew(f"killed {number}")
        process = detecting.start(*arguments)
        time.sleep(lasts * chance.uniform(0.3, 1.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for name, content in (detecting.outputs() if detecting.output_dir.exists() else {}).items():
            if "/." not in f"/{name}":
                assert content == expected[2][name]  # type: ignore[index]
        detecting.reprocess(0, 8 * DAY)
        assert detecting.everything() == expected


@pytest.mark.long
def test_an_hourly_run_that_ends_before_any_step_is_made_good_by_the_next_one(
    detecting: Detecting,
) -> None:
    detecting.measure(some_history())
    detecting.detect(8 * DAY)
    expected = detecting.everything()

    def interrupted(*_: object, **_options: object) -> None:
        raise Stopped("SIGTERM")

    for step in ("replace", "write_checkpoint", "report_of", "publish", "tell"):
        detecting.begin_anew(f"interrupted before {step}")
        detecting.detect(5 * DAY)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(detector, step, interrupted)
            assert detecting.run(hour=8 * DAY)[0] == TRY_AGAIN_LATER, step
        detecting.detect(8 * DAY)
        assert detecting.everything() == expected, step


@pytest.mark.long
def test_readers_see_the_old_tables_or_the_new_ones(detecting: Detecting) -> None:
    detecting.measure(some_history())
    detecting.detect(5 * DAY)
    old = detecting.events()
    seen: list[list[tuple[object, ...]]] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.append(detecting.events())

    reader = threading.Thread(target=look)
    reader.start()
    detecting.detect(8 * DAY)
    over.set()
    reader.join()
    new = detecting.events()
    assert old != new
    assert all(row in (old, new) for row in seen)


def test_a_dry_run_says_what_would_change_and_changes_nothing(detecting: Detecting) -> None:
    detecting.measure(some_history())
    detecting.detect(4 * DAY)
    before = detecting.everything()
    log = detecting.detect(8 * DAY, "--dry-run")
    assert "would change: blocking_events: 33 rows (+31 -0)" in log
    assert detecting.everything() == before


def test_an_empty_fastpath_is_no_reason_to_forget(detecting: Detecting) -> None:
    detecting.measure(blocked(series(), 8 * DAY, block=7 * DAY))
    detecting.detect(8 * DAY)
    before = detecting.everything()
    detecting.database.execute("TRUNCATE TABLE fastpath")
    status, log = detecting.run(hour=8 * DAY + 1)
    assert status == DATA_REFUSED
    assert "since 6 Mar 2025, 00:00 UTC, but it had some up to 9 Mar 2025, 00:00 UTC" in log
    assert detecting.everything() == before


def test_many_lost_series_are_refused(detecting: Detecting) -> None:
    detecting.measure(hour for asn in range(1, 61) for hour in measured(series("IT", asn), 0, 50))
    detecting.detect(50)
    (detecting.state_dir / "checkpoint.npz").unlink()
    detecting.database.execute(
        "ALTER TABLE fastpath DELETE WHERE probe_asn > 20 SETTINGS mutations_sync = 1"
    )
    status, log = detecting.run(hour=50)
    assert status == DATA_REFUSED
    assert "40 of 60 rows would disappear" in log
    assert len(detecting.statuses()) == 60
    detecting.detect(50, "--force")
    assert len(detecting.statuses()) == 20


@pytest.mark.long
def test_a_damaged_checkpoint_costs_a_longer_run(detecting: Detecting) -> None:
    detecting.measure(some_history())
    detecting.detect(8 * DAY)
    before = detecting.everything()
    path = detecting.state_dir / "checkpoint.npz"
    path.write_bytes(path.read_bytes()[:-100])
    log = detecting.detect(8 * DAY)
    assert "checkpoint.npz: ignored" in log
    assert detecting.everything() == before


@pytest.mark.long
def test_a_checkpoint_of_another_version_of_the_test_is_not_gone_on_from(
    detecting: Detecting, monkeypatch: pytest.MonkeyPatch
) -> None:
    detecting.measure(some_history())
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "CHECKPOINT_FORMAT", 0)
        detecting.detect(8 * DAY)
    before = detecting.everything()
    log = detecting.detect(8 * DAY)
    assert "checkpoint.npz: ignored: of another version of the test" in log
    assert detecting.everything() == before


def test_a_clock_that_is_wrong_is_noticed(detecting: Detecting) -> None:
    detecting.measure(some_history())
    detecting.detect(8 * DAY)
    status, log = detecting.run(hour=10)
    assert status == TRY_AGAIN_LATER
    assert "the clock says 1 Mar 2025, 10:00 UTC" in log


def test_a_table_with_computed_columns_is_a_matter_of_the_configuration(
    detecting: Detecting,
) -> None:
    detecting.database.execute(
        "CREATE TABLE blocking_events (test_name String, input String, probe_cc String,"
        " probe_asn Int32, status String, time DateTime64(3),"
        " detection_time DateTime64(0) MATERIALIZED now64()) ENGINE = ReplacingMergeTree"
        " ORDER BY (test_name, input, probe_cc, probe_asn, time)"
    )
    status, log = detecting.run(hour=10)
    assert (status, len(log.splitlines())) == (CONFIG, 1)
    assert "column detection_time is MATERIALIZED" in log


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--reprocess"], "--reprocess needs --start-date"),
        (["--start-date", "2025-01-01"], "--start-date needs --reprocess"),
        (["--end-date", "2025-01-01"], "--end-date needs --reprocess"),
        (
            ["--start-date", "2025-01-01", "--end-date", "2025-01-02"],
            "--start-date needs --reprocess",
        ),
        (
            ["--reprocess", "--start-date", "2025-01-02", "--end-date", "2025-01-01"],
            "--start-date 2025-01-02T00:00 is not before --end-date 2025-01-01T00:00",
        ),
    ],
)
def test_flags_that_do_not_go_together_are_wrong_usage(
    detecting: Detecting, arguments: list[str], reason: str
) -> None:
    status, log = detecting.run(*arguments)
    assert (status, len(log.splitlines())) == (USAGE, 1)
    assert log.startswith(f"error: {reason}")


@pytest.mark.parametrize("option", ["observations", "labels", "others"])
@pytest.mark.parametrize("name", ["missing", "."])
def test_a_file_that_cannot_be_opened_is_wrong_usage(
    detecting: Detecting, option: str, name: str
) -> None:
    readable = detecting.folder / "other"
    readable.touch()
    path = detecting.folder / name
    files = {"observations": readable, "labels": readable, option: path}
    arguments = [text for name, file in files.items() for text in (f"--{name}", str(file))]
    status, log = detecting.run("evaluate", *arguments)
    assert (status, log.count("\n"), log.count(str(path))) == (USAGE, 1, 1)
    assert log.startswith(f"error: --{option} {path}: ")


@pytest.mark.parametrize("option", ["labels", "others"])
def test_each_file_of_observations_has_its_own_of_the_rest(
    detecting: Detecting, option: str
) -> None:
    path = detecting.folder / "some"
    path.touch()
    files = {name: [str(path)] for name in ("observations", "labels", "others")}
    files[option].append(str(path))
    arguments = [text for name, paths in files.items() for text in (f"--{name}", *paths)]
    status, log = detecting.run("evaluate", *arguments)
    assert (status, log.count("\n")) == (USAGE, 1)
    assert log.startswith(f"error: 1 file of --observations and 2 of --{option}: ")


@pytest.mark.parametrize(
    "date",
    [
        "yesterday",
        "2025-13-01",
        "2025-01-01T10:30",
        "",
        "0001-01-01T00:00+05:00",
        "9999-12-31T23:00-05:00",
    ],
)
def test_what_is_no_date_is_wrong_usage(detecting: Detecting, date: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        detecting.run("--reprocess", "--start-date", date)
    assert exit_.value.code == USAGE


def test_a_database_that_is_down_is_unavailable(detecting: Detecting) -> None:
    status, log = detecting.run(hour=10, db_uri="clickhouse://127.0.0.1:9/default")
    assert (status, len(log.splitlines())) == (UNAVAILABLE, 1)


def test_an_output_folder_that_cannot_be_written_is_noticed_first(detecting: Detecting) -> None:
    (detecting.folder / "file").write_text("")
    detecting.measure(some_history())
    status, log = detecting.run(hour=10, output_dir=str(detecting.folder / "file" / "output"))
    assert (status, len(log.splitlines())) == (CONFIG, 1)
    assert detecting.database.execute("EXISTS TABLE blocking_status") == [(0,)]


@pytest.mark.parametrize(
    ("services", "reason"),
    [
        ({}, "at least one"),
        ({"Facebook": []}, "at least one"),
        ({"A": ["https://a/"], "B": ["https://a/"]}, "https://a/ is in 'A' and in 'B'"),
        ({"A": ["https://a/\n"]}, "services"),
        ({"": ["https://a/"]}, "services"),
    ],
)
def test_services_that_cannot_be_told_apart_are_refused(
    detecting: Detecting, services: dict[str, list[str]], reason: str
) -> None:
    status, log = detecting.run(hour=10, services=services)
    assert (status, len(log.splitlines())) == (CONFIG, 1)
    assert reason in log


def test_a_web_server_can_read_the_outputs_whatever_the_umask(detecting: Detecting) -> None:
    detecting.measure(some_history())
    before = os.umask(0o077)
    try:
        detecting.detect(8 * DAY)
    finally:
        os.umask(before)
    for path in (detecting.output_dir, *detecting.output_dir.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


HOSTILE = [
    "https://example.org/?q=\"quotes\"&'single'",
    "https://example.org/<script>alert(1)</script>",
    "https://example.org/../../../etc/passwd",
    "https://example.org/" + "x" * 2000,
    "https://example.org/%s%(targets)s{}\\",
    "https://пример.рф/\N{RIGHT-TO-LEFT OVERRIDE}\N{PILE OF POO}",
]


def test_hostile_inputs_break_nothing(detecting: Detecting) -> None:
    for number, url in enumerate(HOSTILE, start=1):
        detecting.measure(blocked(series("IT", number, ("web_connectivity", url)), 200, block=100))
    detecting.detect(200, services={"<b>\"Bad\"</b> & 'worse'": HOSTILE})
    assert len(detecting.changes()) == len(HOSTILE)
    outputs = detecting.outputs()
    assert "<script>alert" not in detecting.pages()
    assert "<b>" not in detecting.pages()
    for name, content in outputs.items():
        if name.endswith(".xml"):
            assert not feedparser.parse(content).bozo
        elif name.endswith(".json"):
            json.loads(content)
    assert sorted(path.name for path in detecting.folder.iterdir()) == ["detector.conf", "first"]
    assert max(len(Path(name).name) for name in outputs) < 120


# --- what else a run tells ---


def test_metrics_are_sent(detecting: Detecting, statsd: StatsdListener) -> None:
    detecting.measure(some_history())
    detecting.detect(8 * DAY + 5, statsd=statsd.address)
    metrics = statsd.metrics()
    assert metrics["detector.blocking_events_tblsize"] == [(33, "g")]
    assert metrics["detector.blocking_status_tblsize"] == [(34, "g")]
    assert metrics["detector.open_incidents"] == [(2, "g")]
    assert metrics["detector.lag_hours"] == [(5, "g")]
    assert metrics["detector.held_alarms"] == [(0, "g")]
    assert metrics["detector.held_alarms_oldest_hours"] == [(0, "g")]
    for timer in ("run", "query", "write_feed"):
        assert metrics[f"detector.{timer}"][0][1] == "ms"


def test_held_alarms_are_counted_and_the_oldest_has_its_age(
    detecting: Detecting, statsd: StatsdListener
) -> None:
    detecting.measure(measured(series("FR", 7), 0, 106))
    detecting.measure(blocked(series("IT", 1), 106, block=98))
    detecting.measure(blocked(series("IT", 2), 106, block=102))
    detecting.detect(106, statsd=statsd.address)
    metrics = statsd.metrics()
    held = json.loads(detecting.outputs()["json/status.json"])["in_doubt"]["held"]
    assert metrics["detector.held_alarms"] == [(held["series"], "g")] == [(2, "g")]
    age = (at(106) - datetime.fromisoformat(held["since"])) // timedelta(hours=1)
    assert metrics["detector.held_alarms_oldest_hours"] == [(age, "g")]
    assert 4 < age <= 8
    assert detecting.events() == []


@pytest.mark.long
def test_a_probe_with_a_fast_clock_does_not_hide_that_nothing_comes_any_more(
    detecting: Detecting, statsd: StatsdListener
) -> None:
    detecting.measure(some_history())
    end = 8 * DAY
    quiet = detecting.detect(end + 71)
    outputs = detecting.everything()
    # It was received when the others were, and says that it is of three days later.
    received, measured = at(end - 0.5), at(end + 70.5)
    detecting.database.execute(
        "INSERT INTO fastpath (measurement_uid, report_id, input, probe_cc, probe_asn, test_name,"
        " measurement_start_time, anomaly, confirmed, msm_failure) VALUES"
        f" ('{received:%Y%m%d%H%M%S}.123456_IT_signal_0123456789abcdef', 'r', '', 'IT', 1,"
        f" 'signal', toDateTime({int(measured.timestamp())}), 'f', 'f', 'f')"
    )
    log = detecting.detect(end + 71, statsd=statsd.address)
    assert statsd.metrics()["detector.lag_hours"] == [(71, "g")]
    assert "up to 9 Mar 2025, 00:00 UTC;" in quiet
    assert "up to 9 Mar 2025, 00:00 UTC;" in log
    assert detecting.everything() == outputs
    _, said = detecting.run("doctor", hour=end + 71)
    assert "fastpath has some up to 9 Mar 2025, 00:00 UTC, 71 h ago" in said


@pytest.mark.long
def test_fastpath_is_read_for_charts_only_while_they_change(detecting: Detecting) -> None:
    detecting.measure(blocked(series(), 20 * DAY, block=100, unblock=150))
    detecting.measure(blocked(series("FR", 2), 20 * DAY, block=15 * DAY))
    detecting.detect(20 * DAY)
    pages = detecting.pages("incident/FR")
    detecting.database.execute(
        "ALTER TABLE fastpath DELETE WHERE measurement_start_time < toDateTime('2025-03-14')"
        " SETTINGS mutations_sync = 1"
    )
    detecting.detect(20 * DAY)
    assert detecting.pages("incident/FR") == pages
    detecting.reprocess(0, 20 * DAY)
    without_charts_of_before = detecting.pages("incident/FR")
    assert json.loads(detecting.outputs()["json/withdrawn.json"])["items"] == []
    assert len(json.loads(detecting.outputs()["json/by-country/IT.json"])["items"]) == 2, "told"
    detecting.begin_anew("anew")
    detecting.reprocess(0, 20 * DAY)
    assert detecting.pages("incident/FR") == without_charts_of_before != pages


@pytest.mark.long
def test_a_long_incident_that_ended_lately_is_not_counted_from_its_beginning_on_each_hour(
    detecting: Detecting,
) -> None:
    detecting.measure(blocked(series(), 30 * DAY, block=100, unblock=28 * DAY + 1))
    detecting.detect(30 * DAY)
    feed = detecting.outputs()["json/global.json"]
    (ended,) = [item for item in json.loads(feed)["items"] if item["status"] == "OK"]
    assert ended["counts"]["measurements"] > 1000
    detecting.database.execute(
        "ALTER TABLE fastpath DELETE WHERE measurement_start_time < toDateTime('2025-03-20', 'UTC')"
        " SETTINGS mutations_sync = 1"
    )
    detecting.detect(30 * DAY)
    assert detecting.outputs()["json/global.json"] == feed


@pytest.mark.long
def test_every_item_has_the_counts_of_exactly_the_time_that_it_names(detecting: Detecting) -> None:
    end = 40 * DAY
    detecting.measure(blocked(series("IT", 1), end, block=100, unblock=121))  # long over
    detecting.measure(blocked(series("IR", 7), end, block=30 * DAY + 1))  # a chart of long steps
    detecting.measure(blocked(series("IR", 8), end, block=30 * DAY + 2, unblock=36 * DAY + 1))
    detecting.measure(blocked(series("FR", 5), end, block=38 * DAY + 2, unblock=39 * DAY + 1))
    detecting.detect(end, page_days=3, late_days=4)
    items = [
        (feed, item)
        for name, content in detecting.outputs().items()
        if name.startswith(("json/by-country/", "json/by-series/"))
        for feed in [json.loads(content)]
        for item in feed["items"]
    ]
    assert len(items) == 5 + 7  # of incidents, of series
    for feed, item in items:
        if incident := item.get("incident"):
            over = item["status"] == "OK"
            times = incident["start"], incident["end" if over else "detected"]
            networks = [network["probe_asn"] for network in incident["networks"]]
        else:
            times, networks = (item["since"], item["time"]), [feed["probe_asn"]]
        assert item["counts"] == detecting.counted(feed["probe_cc"], networks, *times)
        counts = item["counts"]
        said = f"{counts['anomalies']:,} of {counts['measurements']:,} measurements, from"
        assert said in detecting.description_of(item["guid"])


@pytest.mark.long
def test_what_is_counted_ends_with_the_last_hour_that_is_over(detecting: Detecting) -> None:
    detecting.measure(blocked(series(), 200, block=100))
    detecting.detect(200)
    before = detecting.pages()
    detecting.measure(measured(series(), 200, 201, count=9, anomalies=9))  # it is not over
    detecting.begin_anew("second")
    detecting.detect(200.5)
    assert detecting.pages() == before


@pytest.mark.long
def test_an_incident_has_one_beginning_everywhere(detecting: Detecting) -> None:
    end = 12 * DAY
    for asn in range(100, 112):
        detecting.measure(blocked(series("IR", asn), end, block=5 * DAY + asn - 100))
    detecting.detect(end)
    outputs = detecting.outputs()
    (item,) = json.loads(outputs["json/by-country/IR.json"])["items"]
    begun = item["incident"]["start"]
    first = min(network["start"] for network in item["incident"]["networks"])
    assert first < begun
    (service,) = [
        part for part in json.loads(outputs["json/status.json"])["summary"] if part["blocked"]
    ]
    assert service["blocked"][0]["since"] == begun
    overview, details = detecting.page(), detecting.pages("incident/")
    shown = re.findall(r'<time datetime="([^"]+)">', overview + details)
    # Once there, and twice here; the first network's, once, as what is earlier and does not count.
    assert (shown.count(begun), shown.count(first)) == (3, 1)
    assert "earlier on" in details
    assert "earlier on" not in overview


@pytest.mark.long
def test_charts_go_on_and_have_what_came_late(detecting: Detecting) -> None:
    detecting.measure(blocked(series(), 205, block=100))
    detecting.detect(200)
    detecting.measure(measured(series(), 190, 195, count=7, anomalies=7))
    detecting.detect(205)
    pages = detecting.pages()
    detecting.begin_anew("anew")
    detecting.detect(205)
    assert detecting.pages() == pages


def test_facebook_is_followed_by_default() -> None:
    assert Config().service_of[FACEBOOK] == "Facebook"
