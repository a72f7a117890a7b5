"""What was told and is wrong: withdrawn under its own name, listed, or not published at all."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import feedparser
import msgspec
import pytest

from conftest import Database as FreshDatabase
from detector_harness import Detecting, blocked, measured, outputs_of, series
from dev.samples.report import UNTIL, sample_report
from outputs.news import NOT_CONFIRMED, News, news_of
from outputs.published import NEAR, Item, Published, names_of
from outputs.report import WITHDRAWN, Report

HOUR = timedelta(hours=1)
REASON = "A fault of the <test> helper."


@pytest.fixture
def detecting(
    tmp_path: Path, database: FreshDatabase, capsys: pytest.CaptureFixture[str]
) -> Detecting:
    return Detecting(tmp_path, database, capsys)


def a_report(number: int = 8) -> Report:
    report = sample_report(number, series=60)
    return replace(report, services={incident.service for incident in report.incidents})


def told(report: Report) -> Published:
    """Return what a run that has told this leaves for the next one."""
    content = msgspec.json.encode(news_of(report).published)
    return msgspec.json.decode(content, type=Published)


def by_guid(news: News) -> dict[str, Item]:
    return {item.guid: item for item in news.items}


def without(report: Report, number: int) -> Report:
    """Return what is known when one of the incidents turns out to be none."""
    rest = [*report.incidents[:number], *report.incidents[number + 1 :]]
    return replace(report, incidents=rest)


def test_what_holds_is_told_again_as_it_was() -> None:
    report = a_report()
    again = news_of(report, told(report))
    assert again.items == news_of(report).items
    assert again.published == told(report)
    assert again.withdrawn == []


def test_what_is_not_confirmed_keeps_its_guid_and_says_that_it_is_withdrawn() -> None:
    report = a_report()
    wrong = report.incidents[0]
    rest = without(report, 0)
    news = news_of(rest, told(report))
    assert by_guid(news).keys() == by_guid(news_of(report)).keys()
    item = by_guid(news)[report.guid_of(wrong)]
    assert item.title.startswith(f"Withdrawn: {wrong.service} appears to be blocked in")
    assert item.description.startswith(f"<p>Withdrawn: {NOT_CONFIRMED}</p>")
    assert item in news.withdrawn
    assert news_of(rest, news.published) == news, "the next run says the same"
    assert not news_of(report, news.published).withdrawn, "it was right after all"


def test_what_lies_after_the_last_hour_or_is_followed_no_more_is_not_withdrawn() -> None:
    report = a_report()
    earlier = replace(report, incidents=[], until=min(i.detected for i in report.incidents) - HOUR)
    assert news_of(earlier, told(report)).items == ()
    assert news_of(report, news_of(earlier, told(report)).published) == news_of(report)
    others = replace(report, incidents=[], services=())
    assert news_of(others, told(report)).items == ()


def test_a_run_that_knew_nothing_refutes_nothing_that_it_could_not_see() -> None:
    report = a_report()
    later = replace(report, incidents=[], learned=UNTIL)
    news = news_of(later, told(report))
    assert by_guid(news) == by_guid(news_of(report))
    assert news.published == told(report)


def test_what_is_missing_and_not_refuted_can_be_withdrawn_by_hand() -> None:
    """All its items; what was withdrawn before keeps its reason."""
    report = a_report(60)
    wrong = next(one for one in report.incidents if report.turns_of(one))
    guid = report.guid_of(wrong)
    later = replace(report, incidents=[], learned=UNTIL, withdrawn_by_hand={guid: REASON})
    news = news_of(later, told(report))
    about = {item.guid for item in news.items if item.data.get("incident", {}).get("id") == guid}
    assert len(about) > 1
    assert {item.guid for item in news.withdrawn} == about
    assert {item.withdrawn for item in news.withdrawn} == {REASON}
    again = news_of(replace(later, withdrawn_by_hand={guid: "Another reason."}), news.published)
    assert again == news


def test_withdrawn_items_are_in_the_feeds_and_in_a_list_that_forgets_none() -> None:
    report = a_report(60)
    published = told(report)
    nothing = replace(report, incidents=[], charts={}, events=[])
    later = replace(nothing, until=UNTIL + timedelta(days=4000))
    news = news_of(later, news_of(nothing, published).published)
    assert len(news.withdrawn) == len(published.items) > 100
    files = dict(outputs_of(later, news))
    feed = feedparser.parse(files["rss/withdrawn.xml"])
    assert {entry.id for entry in feed.entries} == published.items.keys()
    assert all(entry.title.startswith("Withdrawn: ") for entry in feed.entries)
    items = msgspec.json.decode(files["json/global.json"])["items"]
    assert {item["withdrawn"] for item in items} == {NOT_CONFIRMED}
    assert NOT_CONFIRMED in files["index.html"].decode()


@pytest.mark.parametrize("moved", [-2, 1, 40])
def test_an_incident_whose_detection_moves_keeps_the_name_that_was_published(moved: int) -> None:
    report = a_report()
    incident = report.incidents[3]
    shifted = replace(
        incident,
        blockings=tuple(
            replace(
                blocking,
                detected=blocking.detected + moved * HOUR,
                start=blocking.start + moved * HOUR,
            )
            for blocking in incident.blockings
        ),
    )
    incidents = [shifted if one is incident else one for one in report.incidents]
    names = names_of(incidents, told(report), UNTIL + NEAR)
    assert names == {shifted.key: report.guid_of(incident)}
    new = replace(report, incidents=incidents, names=names, until=UNTIL + NEAR)
    news = news_of(new, told(report))
    assert by_guid(news).keys() == by_guid(news_of(report)).keys()
    assert not news.withdrawn


@pytest.mark.long
def test_one_that_was_withdrawn_by_hand_is_no_blocking_any_more(detecting: Detecting) -> None:
    detecting.measure(blocked(series("IT", 1), 200, block=100))
    detecting.measure(blocked(series("FR", 2), 200, block=100))
    detecting.detect(200)
    feed = msgspec.json.decode(detecting.outputs()["json/by-country/IT.json"])
    guid = feed["items"][0]["incident"]["id"]
    rows = detecting.events()
    log = detecting.detect(200, withdrawn={guid: REASON, "tag:none": "Unknown."})
    assert "withdrawn: tag:none is not the GUID of an incident" in log
    assert "incidents: 1 ongoing, 0 ended" in log
    assert detecting.events() == rows
    outputs = detecting.outputs()
    (item,) = msgspec.json.decode(outputs["json/by-country/IT.json"])["items"]
    assert (item["guid"], item["withdrawn"]) == (guid, REASON)
    assert item["incident"]["state"] == WITHDRAWN
    (entry,) = feedparser.parse(outputs["rss/withdrawn.xml"]).entries
    assert (entry.id, entry.title) == (guid, item["title"])
    assert "A fault of the &lt;test&gt; helper." in detecting.page()
    (summary,) = msgspec.json.decode(outputs["json/status.json"])["summary"]
    assert [place["probe_cc"] for place in summary["blocked"]] == ["FR"]
    of_series = [name for name in outputs if name.startswith("rss/by-series/IT")]
    assert all(b"<title>Withdrawn: " in outputs[name] for name in of_series)
    detecting.detect(200, withdrawn={})
    assert not feedparser.parse(detecting.outputs()["rss/withdrawn.xml"]).entries


def test_late_measurements_withdraw_an_alarm(detecting: Detecting) -> None:
    detecting.measure(blocked(series(), 112, block=100))
    detecting.detect(112)
    (before,) = feedparser.parse(detecting.outputs()["rss/global.xml"]).entries
    detecting.measure(measured(series(), 100, 112, count=40))
    detecting.database.execute("OPTIMIZE TABLE fastpath FINAL")
    detecting.detect(112)
    (after,) = feedparser.parse(detecting.outputs()["rss/global.xml"]).entries
    assert (after.id, after.title) == (before.id, f"Withdrawn: {before.title}")
    assert NOT_CONFIRMED in detecting.page()
    seen = detecting.everything()
    detecting.detect(112)
    assert detecting.everything() == seen


@pytest.mark.long
@pytest.mark.parametrize("anew", [False, True])
def test_what_was_refuted_while_nothing_was_published_is_withdrawn_afterwards(
    detecting: Detecting, *, anew: bool
) -> None:
    """But not what is missing since a run that knew nothing, which can't tell; a person can."""
    detecting.measure(blocked(series(), 112, block=100))
    detecting.detect(112)
    (before,) = feedparser.parse(detecting.outputs()["rss/global.xml"]).entries
    detecting.measure(measured(series(), 100, 112, count=40))
    detecting.measure(measured(series(), 112, 260))
    detecting.database.execute("OPTIMIZE TABLE fastpath FINAL")
    detecting.configure(publish=False)
    if anew:
        detecting.reprocess(90, 200)
    detecting.detect(200)
    assert detecting.changes() == []
    detecting.detect(260, publish=True)
    (after,) = feedparser.parse(detecting.outputs()["rss/global.xml"]).entries
    assert (after.id, after.title == f"Withdrawn: {before.title}") == (before.id, not anew)
    log = detecting.detect(260, withdrawn={before.id: REASON})
    assert "is not the GUID" not in log
    (after,) = feedparser.parse(detecting.outputs()["rss/withdrawn.xml"]).entries
    assert after.id == before.id


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("public_url", "ftp://feeds.example/"),
        ("public_url", "https://feeds.example"),
        ("public_url", "https://feeds.example/?a=<b>/"),
        ("public_contact", "a b@example.org"),
        ("public_licence_url", "javascript:alert(1)"),
        ("withdrawn", {"IR": "No GUID."}),
        ("withdrawn", {"tag:a b": "With a space."}),
        ("withdrawn", {"tag:a": ""}),
        ("withdrawn", {"tag:a": "Two\nlines."}),
        ("publish", "no"),
    ],
)
def test_what_can_not_be_meant_is_refused(detecting: Detecting, key: str, value: object) -> None:
    status, log = detecting.run(hour=10, **{key: value})
    assert (status, len(log.splitlines())) == (78, 1)
    assert key in log


@pytest.mark.long
def test_damaged_files_of_earlier_runs_end_no_run(detecting: Detecting) -> None:
    detecting.measure(blocked(series(), 200, block=100))
    detecting.detect(200)
    seen = detecting.outputs()
    quiet = [[["IT", 0], {"since": 1, "told": 7}]]
    damages = {
        "published.json": b'{"items": {"tag:x": {"guid": 7}}}',
        "silence.json": msgspec.json.encode({"hour": 10**9, "quiet": quiet}),
        "charts.json": b'{"windows": {"x": [[1], [2], [3, 4]]}}',
        "severities.json": b'{"severities": {"x": "y"}}',
    }
    for name, content in damages.items():
        (detecting.state_dir / name).write_bytes(content)
    detecting.detect(200)
    assert detecting.outputs() == seen
    hour = msgspec.json.decode((detecting.state_dir / "silence.json").read_bytes())["hour"]
    damaged = msgspec.json.encode({"hour": hour, "quiet": quiet})
    (detecting.state_dir / "silence.json").write_bytes(damaged)
    detecting.detect(200)
    assert detecting.outputs() == seen


@pytest.mark.long
def test_nothing_is_published_while_that_is_switched_off(detecting: Detecting) -> None:
    detecting.measure(measured(series(), 0, 100))
    detecting.detect(100)
    before = detecting.outputs()
    detecting.measure(measured(series(), 100, 120, anomalies=2))
    log = detecting.detect(120, publish=False)
    assert "1 ongoing, 0 ended, 0 mostly over; not published" in log
    assert len(detecting.changes()) == 1
    assert detecting.outputs() == before
    detecting.detect(120, publish=True)
    assert len(feedparser.parse(detecting.outputs()["rss/global.xml"]).entries) == 1
