"""Silence: where nobody measures any more, though many usually do."""

from datetime import datetime, timedelta
from pathlib import Path

import feedparser
import msgspec
import pytest

from conftest import Database as FreshDatabase
from detector_harness import START, Detecting, measured, series
from outputs.silence import WEEK, Episode, Place, Watch, silences_of
from outputs.silence_items import of_silence
from series import hour_of

FIRST = hour_of(START)
LEARNED = 5 * WEEK  # hours after which all is known
DAY = 24
ITALY, FRANCE, OF_ITALY = ("IT", 0), ("FR", 0), ("IT", 1)
COUNTRIES = (ITALY, FRANCE, ("DE", 0))


def watch(until: int, silent: dict[Place, set[int]], usual: int = 12) -> Watch:
    """Follow countries, and a network of one, hour by hour; numbered from the first one."""
    watch = Watch(hour=FIRST)
    for hour in range(until):
        runs = dict.fromkeys((*COUNTRIES, OF_ITALY), usual)
        for place, hours in silent.items():
            if hour in hours:
                runs.pop(place, None)
        watch.look(FIRST + hour, runs)
    return watch


def hours(start: int, length: int) -> set[int]:
    return set(range(start, start + length))


def episode(place: Place, start: int, end: int | None) -> Episode:
    return Episode(place, FIRST + start, FIRST + start + 3, None if end is None else FIRST + end)


@pytest.mark.parametrize(("length", "found"), [(2, 0), (3, 1), (96, 1)])
def test_three_hours_without_a_run_are_a_silence(length: int, found: int) -> None:
    silent = {ITALY: hours(LEARNED, length), OF_ITALY: hours(LEARNED, length)}
    seen = watch(LEARNED + length + 1, silent)
    assert seen.episodes == [episode(ITALY, LEARNED, LEARNED + length)] * found
    assert seen.quiet == []


def test_a_network_is_silent_for_itself_and_as_a_part_of_its_country() -> None:
    alone = watch(LEARNED + 9, {OF_ITALY: hours(LEARNED, 9)})
    assert alone.episodes == [episode(OF_ITALY, LEARNED, None)]
    both = watch(LEARNED + 9, {OF_ITALY: hours(LEARNED, 9), ITALY: hours(LEARNED + 2, 7)})
    assert both.episodes == [episode(OF_ITALY, LEARNED, None), episode(ITALY, LEARNED + 2, None)]


def test_where_few_measure_or_nobody_knows_how_many_nothing_can_be_seen() -> None:
    assert watch(LEARNED + 9, {ITALY: hours(LEARNED, 9)}, usual=9).episodes == []
    assert watch(3 * WEEK - 1, {ITALY: hours(3 * WEEK - 9, 9)}).episodes == []
    assert watch(3 * WEEK + 9, {ITALY: hours(3 * WEEK, 9)}).episodes


def test_hours_that_the_table_lacks_are_no_silence_of_anybody() -> None:
    missing = {place: hours(LEARNED, 9) for place in (*COUNTRIES, OF_ITALY)}
    assert watch(LEARNED + 12, missing).episodes == []
    missing.pop(("DE", 0))
    assert watch(LEARNED + 12, missing).episodes == []


def test_the_night_before_a_silence_may_have_no_runs_either() -> None:
    nights = {hour for hour in range(LEARNED + DAY) if hour % DAY < 6}
    silent = nights | hours(LEARNED + 6, 10)
    (found,) = watch(LEARNED + DAY, {ITALY: silent, OF_ITALY: silent}).episodes
    assert (found.start, found.end) == (FIRST + LEARNED + 6, FIRST + LEARNED + 16)


def test_a_curfew_that_repeats_is_one_item_with_the_same_guid_from_the_first_night_on() -> None:
    silent = {hour for night in range(14) for hour in hours(LEARNED + night * DAY, 4)}
    seen = watch(LEARNED + 14 * DAY, {ITALY: silent, OF_ITALY: silent})
    (silence,) = silences_of(seen.episodes)
    assert len(silence.episodes) == 14
    item = of_silence(silence)
    (first,) = silences_of(seen.episodes[:1])
    assert item.guid == of_silence(first).guid
    assert item.title == "No measurements from Italy, 14 times since 5 Apr 2025, 00:00 UTC"
    assert len(item.data["silence"]["times"]) == 14
    later = [*seen.episodes, episode(ITALY, LEARNED + 20 * DAY, None)]
    assert len(silences_of(later)) == 2


def test_what_was_told_stays_true_whatever_comes() -> None:
    silent = {ITALY: hours(LEARNED, 9) | hours(LEARNED + 30, 5), OF_ITALY: hours(LEARNED, 40)}
    whole = silences_of(watch(LEARNED + 60, silent).episodes)
    told: list[str] = []
    for until in range(LEARNED, LEARNED + 60):
        guids = [of_silence(one).guid for one in silences_of(watch(until, silent).episodes)]
        assert guids[: len(told)] == told
        told = guids
    assert told == [of_silence(one).guid for one in whole]


@pytest.fixture
def detecting(
    tmp_path: Path, database: FreshDatabase, capsys: pytest.CaptureFixture[str]
) -> Detecting:
    return Detecting(tmp_path, database, capsys)


@pytest.mark.long
def test_a_shutdown_is_told_and_its_end_too(detecting: Detecting) -> None:
    begun, end = LEARNED + 10, LEARNED + 2 * DAY
    for code in ("IT", "FR", "DE"):
        detecting.measure(measured(series(code), 0, begun, count=12))
        if code != "IT":
            detecting.measure(measured(series(code), begun, end + DAY, count=12))
    detecting.detect(begun + 2)
    assert not feedparser.parse(detecting.outputs()["rss/global.xml"]).entries
    for hour in (begun + 3, begun + 8):
        detecting.detect(hour)
        (entry,) = feedparser.parse(detecting.outputs()["rss/by-country/IT.xml"]).entries
        assert entry.title == "No measurements from Italy since 5 Apr 2025, 10:00 UTC"
    assert "No measurements from Italy since" in detecting.page()
    detecting.measure(measured(series("IT"), end, end + DAY, count=12))
    detecting.detect(end + DAY)
    (after,) = feedparser.parse(detecting.outputs()["rss/global.xml"]).entries
    assert (after.id, after.title) == (entry.id, "No measurements from Italy for 1 day 14 hours")
    (item,) = msgspec.json.decode(detecting.outputs()["json/global.json"])["items"]
    (time,) = item["silence"]["times"]
    assert datetime.fromisoformat(time["end"]) - START == timedelta(hours=end)
    seen = detecting.outputs()
    detecting.begin_anew("at once")
    detecting.detect(end + DAY)
    assert detecting.outputs() == seen
    detecting.reprocess(0, end + DAY)
    assert detecting.outputs() == seen
