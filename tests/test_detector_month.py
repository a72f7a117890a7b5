"""A month through the whole job, from the database to the feeds: what is true is told, once."""

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import feedparser
import msgspec
import pytest

from conftest import Database as FreshDatabase
from detector_harness import Detecting, at
from dev.samples import month
from dev.samples.month import FAULT, HOURS, TRUTH, National
from outputs.timeline import MOSTLY_OVER

DAY = timedelta(days=1)
EVERY_HOUR = os.environ.get("OONI_TEST_EVERY_HOUR")  # 720 runs instead of 90


@pytest.fixture
def detecting(
    tmp_path: Path, database: FreshDatabase, capsys: pytest.CaptureFixture[str]
) -> Detecting:
    detecting = Detecting(tmp_path, database, capsys)
    services = {name: [url] for name, url in month.SERVICES.items()}
    detecting.configure(services=services, page_days=60)
    return detecting


def items_of(detecting: Detecting) -> list[dict[str, Any]]:
    """Return what the feeds of all countries tell."""
    return [
        item
        for name, content in detecting.outputs().items()
        if name.startswith("json/by-country/")
        for item in msgspec.json.decode(content)["items"]
    ]


def told_of(nation: National, items: list[dict[str, Any]], status: str) -> list[dict[str, Any]]:
    """Return the items of a status about a service in a country."""
    place = (nation.service, nation.probe_cc)
    return [
        item
        for item in items
        if item["status"] == status
        and (item["incident"]["service"], item["incident"]["probe_cc"]) == place
    ]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_six_national_blockings_are_six_incidents(detecting: Detecting) -> None:
    month.fill(detecting.database.client())
    detecting.detect(HOURS)
    items = items_of(detecting)
    for nation in TRUTH:
        check(detecting, nation, items)
    assert len({item["incident"]["id"] for item in items}) == len(TRUTH)  # no seventh
    assert not any("worldwide" in item["incident"]["doubts"] for item in items)

    guid = told_of(TRUTH[0], items, "BLOCKED")[0]["incident"]["id"]
    detecting.detect(HOURS, withdrawn={guid: "On purpose."})
    feed = feedparser.parse(detecting.outputs()["rss/withdrawn.xml"])
    assert guid in {entry.id for entry in feed.entries}
    assert all(entry.id.startswith(guid) for entry in feed.entries)
    assert [item["guid"] for item in items_of(detecting)] == [item["guid"] for item in items]
    assert "On purpose." in detecting.page()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_while_the_test_fails_everywhere_it_is_said_that_something_is_wrong(
    detecting: Detecting,
) -> None:
    month.fill(detecting.database.client())
    wrong = "Something is wrong with the measurements"
    for hour, fails in ((FAULT[0], False), (FAULT[0] + 3, True), (FAULT[1] + 12, False)):
        detecting.detect(hour)
        status = msgspec.json.decode(detecting.outputs()["json/status.json"])
        in_doubt = status["in_doubt"]
        assert [one["service"] for one in in_doubt["failing"]] == sorted(month.SERVICES) * fails
        assert (f"{wrong}: Facebook, Instagram and Twitter have" in detecting.page()) == fails
        times = [time_of(one["since"]) for one in in_doubt["failing"]]
        assert all(at(FAULT[0]) <= time <= at(FAULT[0] + 1) for time in times)


def check(detecting: Detecting, nation: National, items: list[dict[str, Any]]) -> None:
    """Check all that is told of a national blocking."""
    (begun,) = told_of(nation, items, "BLOCKED")
    incident = begun["incident"]
    networks = [network["probe_asn"] for network in incident["networks"]]
    assert networks == month.networks_of(nation.probe_cc)
    assert at(nation.begin) - DAY <= time_of(incident["start"]) <= at(nation.begin) + DAY
    assert time_of(incident["detected"]) <= at(nation.begin) + DAY
    over = told_of(nation, items, "MOSTLY_OK")[0]
    assert at(nation.end) < time_of(over["time"]) <= at(nation.end) + 3 * DAY
    assert incident["state"] in (MOSTLY_OVER, "ended")
    url = month.SERVICES[nation.service]
    times = incident["start"], incident["detected"]
    assert begun["counts"] == detecting.counted(nation.probe_cc, networks, *times, url=url)
    severity = incident["severity"]
    assert severity["networks_measured"] == month.NETWORKS
    assert severity["networks_blocked"] >= month.NETWORKS / 2
    assert 0 < severity["runs_blocked"] <= severity["runs"]


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text)


def hours_of_the_runs() -> list[int]:
    """Return when to run: each hour in which much happens, else once a day; or at every hour."""
    if EVERY_HOUR:
        return list(range(1, HOURS + 1))
    busy = {*range(118, 128), *range(294, 318), *range(330, 350), *range(372, 384)}
    return sorted({*busy, *range(12, HOURS, 24), HOURS})


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_month_hour_by_hour_at_once_and_reprocessed_is_the_same(detecting: Detecting) -> None:
    month.fill(detecting.database.client())
    detecting.detect(HOURS)
    at_once = detecting.everything()
    detecting.begin_anew("hour by hour")
    for hour in hours_of_the_runs():
        detecting.detect(hour)
    assert detecting.everything() == at_once
    detecting.reprocess(0, HOURS)
    assert detecting.everything() == at_once
    detecting.begin_anew("reprocessed")
    detecting.reprocess(0, HOURS)
    assert detecting.everything() == at_once
