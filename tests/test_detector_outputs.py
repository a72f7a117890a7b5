"""What a report becomes: feeds, JSON, the page."""

import csv
import io
import posixpath
import re
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree as ET

import feedparser
import msgspec
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from detector_harness import outputs_of
from dev.samples.report import HOUR, STALE, UNTIL, sample_report
from outputs.incidents import Incident, blockings_of, incidents_of
from outputs.links import LONGEST, country_path, search_link, series_path, service_page
from outputs.report import ENDED, ONGOING, SILENT, Report
from outputs.silence import Episode, silences_of
from outputs.tallies import Chart, Period, Tally, periods_of, so_far
from outputs.wording import clean, country, spoken, spoken_duration, within
from pages.incident import MOST_GROWTH
from series import Event, InDoubt, Series, SeriesStatus

ROOT = Path(__file__).parents[1]
FACEBOOK = ("web_connectivity", "https://www.facebook.com/")
SERVICES = {FACEBOOK: "Facebook", ("telegram", ""): "Telegram"}
START = UNTIL - 100 * HOUR


def block(
    asn: int,
    *,
    start: int = 0,
    end: int | None = None,
    code: str = "IR",
    target: tuple[str, str] = FACEBOOK,
) -> list[Event]:
    """Return the changes of a series; hours after START."""
    series = Series(*target, code, asn)
    times = [("BLOCKED", start)] + ([("OK", end)] if end is not None else [])
    return [
        Event(series, status, START + hour * HOUR, START + (hour + 4) * HOUR)
        for status, hour in times
    ]


def status(series: Series, name: str = "OK", *, last: int = 0) -> SeriesStatus:
    """Return a status; `last` hours ago there was a measurement."""
    service = SERVICES.get(series[:2], "Other")
    time = UNTIL - last * HOUR
    return SeriesStatus(series, service, name, "OK", START, time, 9.0, 0.0, 90.0, 10.0, 0.0, 1.0)


def report_of(events: list[Event], *, last: int = 0) -> Report:
    """Return a report of these changes, with 2 measurements an hour."""
    events = sorted(events, key=lambda event: (event.detection_time, event.series))
    incidents = incidents_of(blockings_of(events), SERVICES, timedelta(days=1))
    latest = {event.series: event.status for event in events}
    statuses = [status(series, name, last=last) for series, name in sorted(latest.items())]
    charts = {incident.key: chart_of(incident) for incident in incidents}
    periods = [*periods_of(incidents, events), *(so_far(one, UNTIL) for one in incidents)]
    tallies = {period: tally_of(period) for period in periods}
    return Report(UNTIL, statuses, events, incidents, charts, STALE, tallies)


def tally_of(period: Period) -> Tally:
    """Return a run an hour, with 2 measurements, all with anomalies."""
    hours = (period.end - period.start) // HOUR
    return Tally(2 * hours, 2 * hours, hours)


def chart_of(incident: Incident) -> Chart:
    """Return 2 measurements of each hour; both have anomalies while something is blocked."""
    hours = [START + number * HOUR for number in range(-50, 100)]
    blocked = [incident.start <= hour < (incident.end or UNTIL) for hour in hours]
    ones = (1,) * len(hours)
    return Chart(hours[0], HOUR, (2,) * len(hours), tuple(2 * flag for flag in blocked), ones)


def files_of(report: Report) -> dict[str, bytes]:
    """Return all outputs."""
    return dict(outputs_of(report))


def rss(content: bytes) -> Any:
    """Read a feed as its readers do."""
    feed = feedparser.parse(content)
    assert not feed.bozo, feed.bozo_exception
    return feed


def titles(content: bytes) -> list[str]:
    """Return the titles of a feed."""
    return [entry.title for entry in rss(content).entries]


class Page(HTMLParser):
    """The elements and texts of a page, which must be nested well."""

    VOID = ("meta", "link", "path")

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(content.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(attrs) == len(dict(attrs))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag == "path"
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.texts))


def test_a_blocking_over_thirty_networks_is_one_item_and_thirty_series_have_a_feed_each() -> None:
    events = [event for asn in range(1, 31) for event in block(asn)]
    files = files_of(report_of(events))
    assert titles(files["rss/global.xml"]) == [
        "Facebook appears to be blocked in Iran: 30 networks"
    ]
    assert files["rss/by-country/IR.xml"].count(b"<item>") == 1
    feeds = [name for name in files if name.startswith("rss/by-series/")]
    assert len(feeds) == 30
    assert titles(files[of_path(events[6].series)]) == [
        "Facebook appears to be blocked on AS7 in Iran"
    ]


def test_what_is_told_of_a_time_is_what_was_known_then() -> None:
    first, *others = ([*block(asn, start=asn - 7, end=60)] for asn in (7, 8, 9, 12))
    (incident,) = report_of(first).incidents
    files = files_of(report_of([*first, *(event for events in others for event in events)]))
    end, begin = rss(files["rss/global.xml"]).entries
    assert begin.id == report_of(first).guid_of(incident)
    title = "Facebook appears to be blocked in Iran: AS7"
    assert titles(files_of(report_of(first[:1]))["rss/global.xml"]) == [title]
    assert begin.title == f"{title}; 4 networks by 28 Jan 2026, 20:00 UTC"
    assert (
        "on 4 networks: began about 28 Jan 2026, 11:00 UTC, detected 28 Jan 2026, 15:00 UTC on 1"
        " of them, on all by 28 Jan 2026, 20:00 UTC." in begin.description
    )
    assert end.title == "Facebook appears to be reachable again in Iran: 4 networks"
    text = page_of_the_only_incident(files).text
    history = text.partition("What was reported, and when")[2].partition("In the feeds")[0].strip()
    assert re.split(r" (?=\d+ Jan 2026)", history) == [
        f"28 Jan 2026, 15:00 UTC: {title}",
        "28 Jan 2026, 16:00 UTC: Grown to 2 networks",
        "28 Jan 2026, 17:00 UTC: Grown to 3 networks",
        "28 Jan 2026, 20:00 UTC: Grown to 4 networks",
        "31 Jan 2026, 03:00 UTC: Facebook appears to be reachable again in Iran: 4 networks",
    ]


def test_the_end_of_an_incident_counts_the_networks_that_were_known_then() -> None:
    late = Series(*FACEBOOK, "IR", 9)
    times = ((2, "BLOCKED", 50), (30, "OK", 52))
    later = [Event(late, name, START + n * HOUR, START + known * HOUR) for n, name, known in times]
    files = files_of(report_of([*block(7, end=40), *later]))
    end, begin = rss(files["rss/global.xml"]).entries
    assert end.title == "Facebook appears to be reachable again in Iran: AS7"
    assert "AS9" not in end.description
    assert "AS9" in begin.description


def test_a_page_says_how_many_networks_began_before_the_incident() -> None:
    events = [
        event for asn in range(1, 31) for event in block(asn, start=10 if asn > 2 else 7 + asn)
    ]
    text = page_of_the_only_incident(files_of(report_of(events))).text
    assert (
        "Began28 Jan 2026, 21:00 UTCearlier on 2 of 30 networks, the first 28 Jan 2026, 19:00 UTC"
        in text
    )
    same = page_of_the_only_incident(files_of(report_of(block(7))))
    assert "earlier on" not in same.text


def test_the_history_of_an_incident_that_grew_for_weeks_is_short() -> None:
    events = [event for asn in range(1, 61) for event in block(asn, start=asn)]
    text = page_of_the_only_incident(files_of(report_of(events))).text
    assert text.count("Grown to ") == MOST_GROWTH
    assert "Grown to 60 networks" in text


def of_path(series: Series) -> str:
    return f"rss/{series_path(series)}.xml"


def test_the_end_of_an_incident_is_an_item_of_its_own_and_the_newest_stands_first() -> None:
    files = files_of(report_of([*block(7, end=40), *block(8, end=50, code="NL")]))
    assert titles(files["rss/global.xml"]) == [
        "Facebook appears to be reachable again in the Netherlands: AS8",
        "Facebook appears to be reachable again in Iran: AS7",
        "Facebook appears to be blocked in the Netherlands: AS8",
        "Facebook appears to be blocked in Iran: AS7",
    ]
    end, begin = rss(files["rss/by-country/IR.xml"]).entries
    assert begin.published == "Wed, 28 Jan 2026 15:00:00 +0000"
    assert begin.id == "tag:ooni.org,2025:detector/IR/Facebook/2026-01-28T15:00:00Z"
    assert end.id == f"{begin.id}/ended/2026-01-30T03:00:00Z"
    assert not begin.guidislink
    assert "8 of 8 measurements, from 4 runs, showed anomalies" in begin.description
    assert "80 of 80 measurements, from 40 runs, showed anomalies" in end.description
    assert "blocked since about 28 Jan 2026, 11:00 UTC, for 1 day 16 hours" in end.description


def test_what_has_been_published_is_the_same_until_something_happens() -> None:
    events = block(7)
    before = files_of(report_of(events))
    later = files_of(replace(report_of(events), until=UNTIL + HOUR))
    changed = {name for name in before if before[name] != later[name]}
    (incident,) = (name for name in before if name.startswith("incident/"))
    of_now = {"country/IR.html", f"{service_page('Facebook')}.html", incident, "ongoing.html"}
    assert changed == {"index.html", "index.json", "json/status.json"} | of_now
    after = files_of(report_of([*events, *block(8, start=2), *block(7, end=80)[1:]]))
    guids = [entry.id for entry in rss(before["rss/global.xml"]).entries]
    new = [entry.id for entry in rss(after["rss/global.xml"]).entries]
    assert new == guids, "it has not ended everywhere"


def test_all_guids_differ_even_of_incidents_that_were_detected_at_once() -> None:
    series = Series(*FACEBOOK, "IR", 9)
    late = Event(series, "BLOCKED", START - 80 * HOUR, START + 4 * HOUR)
    report = report_of([late, *block(7), *block(8, target=("telegram", "")), *block(7, code="RU")])
    report = replace(report, incidents=[*report.incidents, *sample_report(90).incidents])
    guids = [entry.id for entry in rss(files_of(report)["rss/global.xml"]).entries]
    assert len(guids) == 100
    assert len(set(guids)) == 100


def test_a_feed_has_the_newest_hundred_items() -> None:
    events = [
        Event(Series(*FACEBOOK, "IR", 7), name, START + hour * HOUR, START + hour * HOUR)
        for hour, name in enumerate(["BLOCKED", "OK"] * 60)
    ]
    files = files_of(report_of(events))
    entries = rss(files[of_path(events[0].series)]).entries
    assert len(entries) == 100
    assert entries[0].published_parsed[:4] == (2026, 2, 2, 10)


def test_the_same_report_gives_the_same_files_in_the_same_order() -> None:
    assert list(outputs_of(sample_report(30))) == list(outputs_of(sample_report(30)))


def test_nothing_has_happened_yet() -> None:
    empty = Report(UNTIL, [], [], [], {}, STALE, {})
    files = files_of(empty)
    assert list(files) == [
        "rss/global.xml",
        "json/global.json",
        "rss/withdrawn.xml",
        "json/withdrawn.json",
        "json/status.json",
        "data/incidents.json",
        "data/incidents.csv",
        "data/networks.csv",
        "data/status.csv",
        "data/silences.csv",
        "schema.json",
        "archive.html",
        "ongoing.html",
        "withdrawn.html",
        "methodology.html",
        "data.html",
        "index.json",
        "index.html",
    ]
    assert rss(files["rss/global.xml"]).entries == []
    assert files["rss/global.xml"] == files_of(replace(empty, until=UNTIL + HOUR))["rss/global.xml"]
    assert "No incident has been detected lately." in Page(files["index.html"]).text


def test_programs_get_the_same_as_people() -> None:
    files = files_of(report_of([*block(7, end=40), *block(8, start=1, end=41)]))
    feed = msgspec.json.decode(files["json/by-country/IR.json"])
    entries = rss(files["rss/by-country/IR.xml"]).entries
    assert [item["guid"] for item in feed["items"]] == [entry.id for entry in entries]
    assert [item["title"] for item in feed["items"]] == [entry.title for entry in entries]
    assert [item["link"] for item in feed["items"]] == [entry.link for entry in entries]
    incident = feed["items"][0]["incident"]
    assert incident["state"] == ENDED
    assert incident["start"] == "2026-01-28T11:00:00Z"
    assert incident["targets"] == [{"test_name": FACEBOOK[0], "input": FACEBOOK[1]}]
    assert incident["networks"][1] == {
        "probe_asn": 8,
        "start": "2026-01-28T12:00:00Z",
        "detected": "2026-01-28T16:00:00Z",
        "end": "2026-01-30T04:00:00Z",
    }
    assert feed["items"][0]["counts"] == {"measurements": 82, "anomalies": 82, "runs": 41}


SCHEMA = msgspec.json.decode((ROOT / "detector/outputs.schema.json").read_bytes())


def checked(name: str, content: bytes) -> str:
    """Check a JSON file against the schema; return what is wrong."""
    kinds = {
        "index.json": "index",
        "json/status.json": "statuses",
        "data/incidents.json": "incidents",
    }
    schema = {**SCHEMA, "anyOf": [{"$ref": f"#/$defs/{kinds.get(name, 'feed')}"}]}
    error = best_match(Draft202012Validator(schema).iter_errors(msgspec.json.decode(content)))
    return "" if error is None else f"{name}: {error.json_path}: {error.message[:200]}"


@pytest.mark.parametrize("hostile", [False, True])
def test_every_json_file_is_as_its_schema_says(hostile: bool) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    report = sample_report(12, series=100, hostile=hostile)
    held = replace(report, withdrawn={report.incidents[3].key: "Wrong <script>."})
    episodes = (Episode(("IR", 7), 480_000, 480_003, 480_009), Episode(("IR", 0), 480_100, 480_103))
    files = files_of(replace(held, silences=silences_of(episodes)))
    names = [name for name in files if name.endswith(".json") and name != "schema.json"]
    wrong = [checked(name, files[name]) for name in names]
    assert set(wrong) == {""}
    items = msgspec.json.decode(files["json/global.json"])["items"]
    assert {item["status"] for item in items} == {"BLOCKED", "OK", "MOSTLY_OK", "SILENT"}
    undocumented = {**msgspec.json.decode(files["index.json"]), "more": 1}
    assert checked("index.json", msgspec.json.encode(undocumented))


FAILING = (("Facebook", UNTIL - 3 * HOUR), ("<b>X</b>", UNTIL - 2 * HOUR))
PLACES = (("IR", UNTIL - 2 * HOUR), ("NL", UNTIL - HOUR))
HELD = (UNTIL - 30 * HOUR, UNTIL - 2 * HOUR)


@pytest.mark.parametrize(
    ("in_doubt", "said"),
    [
        (InDoubt(), ""),
        (
            InDoubt(FAILING, PLACES, HELD),
            (
                "Something is wrong with the measurements: Facebook and <b>X</b> have failed in"
                " many countries at once since 1 Feb 2026, 12:00 UTC, and 2 series look blocked,"
                " with too little to support it; later ones decide."
            ),
        ),
        (
            InDoubt((), (), HELD[:1]),
            (
                "Something is wrong with the measurements: 1 series looks blocked, with too little"
                " to support it; later ones decide."
            ),
        ),
        (
            InDoubt((), PLACES),
            (
                "Something is wrong with the measurements: in Iran and the Netherlands most inputs"
                " have failed since 1 Feb 2026, 13:00 UTC; later ones decide."
            ),
        ),
        (
            InDoubt(FAILING[:1]),
            (
                "Something is wrong with the measurements: Facebook has failed in many countries at"
                " once since 1 Feb 2026, 12:00 UTC; later ones decide."
            ),
        ),
    ],
)
def test_what_is_in_doubt_is_said_in_one_sentence(in_doubt: InDoubt, said: str) -> None:
    files = files_of(replace(report_of(block(7)), in_doubt=in_doubt))
    page = Page(files["index.html"])
    assert ("Something is wrong" in page.text) == bool(said)
    assert said in page.text
    status = msgspec.json.decode(files["json/status.json"])["in_doubt"]
    assert status["sentence"] == said
    assert [one["service"] for one in status["failing"]] == [name for name, _ in in_doubt.failing]
    assert [one["probe_cc"] for one in status["countries"]] == [
        code for code, _ in in_doubt.countries
    ]
    assert status["held"]["series"] == len(in_doubt.held)
    assert not checked("json/status.json", files["json/status.json"])


def test_feeds_name_their_own_address_where_it_is_configured() -> None:
    report = report_of(block(7))
    files = dict(outputs_of(report, None, "https://feeds.example/detector/"))
    for name in ("rss/global.xml", "rss/by-country/IR.xml", of_path(report.events[0].series)):
        (link,) = [link for link in rss(files[name]).feed.links if link.rel == "self"]
        assert link.href == f"https://feeds.example/detector/{name}"
        other = name.replace("rss/", "json/").replace(".xml", ".json")
        assert (
            msgspec.json.decode(files[other])["self"] == f"https://feeds.example/detector/{other}"
        )
    assert b'rel="self"' not in files_of(report)["rss/global.xml"]


def test_the_index_names_all_other_files() -> None:
    files = files_of(sample_report(10))
    index = msgspec.json.decode(files["index.json"])
    kinds = ("by_country", "by_service", "by_series")
    listed = [
        index["global"],
        index["withdrawn"],
        *(feed for kind in kinds for feed in index[kind]),
    ]
    names = {feed[kind] for feed in listed for kind in ("rss", "json")}
    names |= {index["page"], index["status"], index["schema"], "index.json"}
    names |= {*index["data"], *index["pages"]}
    incidents = msgspec.json.decode(files["data/incidents.json"])["incidents"]
    assert names | {incident["page"] for incident in incidents} == set(files)
    assert index["until"] == "2026-02-01T15:00:00Z"


def test_the_statuses_say_which_networks_block_what() -> None:
    events = [*block(7), *block(8), *block(9, end=20)]
    report = report_of(events)
    others = [
        status(Series("telegram", "", "NL", 1)),
        status(Series("telegram", "", "RU", 1), "UNKNOWN"),
    ]
    statuses = msgspec.json.decode(
        files_of(replace(report, statuses=[*report.statuses, *others]))["json/status.json"]
    )
    facebook, telegram = statuses["summary"]
    assert facebook["blocked"] == [
        {
            "probe_cc": "IR",
            "country": "Iran",
            "networks_blocked": [7, 8],
            "networks_known": 3,
            "since": "2026-01-28T11:00:00Z",
            "seen_begin": True,
        }
    ]
    assert (telegram["not_blocked"], telegram["unknown"]) == (["NL"], ["RU"])
    rows = [dict(zip(statuses["columns"], row, strict=True)) for row in statuses["series"]]
    assert len(rows) == 5
    assert statuses["targets"][rows[0]["target"]]["input"] == FACEBOOK[1]
    assert (rows[0]["probe_asn"], rows[0]["status"]) == (7, "BLOCKED")


@pytest.mark.parametrize(
    ("end", "last", "state"),
    [(None, 0, ONGOING), (40, 9999, ENDED), (None, 24 * 30 + 1, SILENT)],
)
def test_an_incident_without_recent_measurements_is_neither_over_nor_ongoing(
    end: int | None, last: int, state: str
) -> None:
    report = report_of(block(7, end=end), last=last)
    assert report.state_of(report.incidents[0]) == state
    text = page_of_the_only_incident(files_of(report)).text
    assert f"Facebook in Iran {state.capitalize()}" in text
    assert ("so far" in text) == (state == ONGOING)


def page_of_the_only_incident(files: dict[str, bytes]) -> Page:
    (name,) = (name for name in files if name.startswith("incident/"))
    return Page(files[name])


def test_the_page_of_an_incident_shows_what_stands_behind_it() -> None:
    events = [event for asn in range(1, 31) for event in block(asn, end=40)]
    page = page_of_the_only_incident(files_of(report_of(events)))
    assert "Facebook in Iran Ended" in page.text
    assert "80 of 80 measurements (100%) from 40 runs, in its networks while" in page.text
    assert "0 of 100 measurements (0%) from 50 runs, in the 3 days before" in page.text
    assert "Duration1 day 16 hours" in page.text
    assert "It is over since about 30 Jan 2026, 03:00 UTC" in page.text
    links = [attrs.get("href") or "" for tag, attrs in page.elements if tag in ("a", "link")]
    assert sum("probe_asn=AS" in link for link in links) == 30
    assert "../rss/by-country/IR.xml" in links
    (svg,) = [attrs for tag, attrs in page.elements if tag == "svg"]
    assert svg["role"] == "img"
    assert "anomalies in 100% of 80 measurements" in (svg["aria-label"] or "")


def test_old_incidents_keep_their_page_without_a_chart() -> None:
    report = replace(report_of(block(7, end=40)), charts={})
    files = files_of(report)
    page = page_of_the_only_incident(files)
    assert "svg" not in {tag for tag, _ in page.elements}
    assert "It is over" in page.text
    assert len(titles(files["rss/global.xml"])) == 2


def some_pages(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the pages of some countries and incidents, and all others."""
    kept: dict[str, bytes] = {}
    kinds = Counter[str]()
    for name, content in files.items():
        kind = name.partition("/")[0] if "/" in name else name
        kinds[kind] += 1
        if name.endswith(".html") and kinds[kind] <= 5:
            kept[name] = content
    return kept


@pytest.mark.parametrize("hostile", [False, True])
def test_pages_are_small_need_nothing_from_elsewhere_and_lead_somewhere(hostile: bool) -> None:
    files = files_of(sample_report(20, series=100, hostile=hostile))
    pages = some_pages(files)
    assert {"index.html", "data.html", "methodology.html", "archive.html"} < pages.keys()
    for name, content in pages.items():
        assert len(content) < 100_000, name
        check_page(name, Page(content), files)


def check_page(name: str, page: Page, files: dict[str, bytes]) -> None:
    tags = [tag for tag, _ in page.elements]
    assert not {"script", "img", "iframe", "object", "base", "form"}.intersection(tags)
    assert all("style" not in attrs for _, attrs in page.elements)
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in page.elements:
        link = attrs.get("href") or ""
        assert tag != "link" or attrs["rel"] == "alternate"
        if tag == "a" and "://" not in link:
            path, _, anchor = link.partition("#")
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
            assert (target if path else name) in files, link
            assert not anchor or f'id="{anchor}"'.encode() in files[target if path else name]


EXPLORED = 'a href="https://explorer[.]ooni[.]org/search[?][A-Za-z0-9_.~%&;=+-]*"'
LINK_OR_TEXT = re.compile(f"<(?!/?(?:p|bdi)>|/a>|{EXPLORED}>)")


@pytest.mark.parametrize("seed", range(3))
def test_hostile_inputs_break_nothing(seed: int) -> None:
    files = files_of(sample_report(12, series=400, hostile=True, seed=seed))
    for name, content in files.items():
        assert re.fullmatch("(?:[a-z-]+/)*[A-Za-z0-9.-]+", name), name
        assert ".." not in name
        assert len(name) < 150
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe]", content.decode())
        if name.endswith(".xml"):
            for entry in rss(content).entries:
                assert not LINK_OR_TEXT.search(raw_description(content, entry.id))
        elif name.endswith(".json"):
            msgspec.json.decode(content)
    for content in some_pages(files).values():
        page = Page(content)
        assert "script" not in {tag for tag, _ in page.elements}
        assert all(not key.startswith("on") for _, attrs in page.elements for key in attrs)
    assert "<script>alert(1)</script> in" in Page(files["index.html"]).text
    for row in csv.reader(io.StringIO(files["data/incidents.csv"].decode(), newline="")):
        assert len(row) == 17
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row)


def raw_description(content: bytes, guid: str) -> str:
    """Return the HTML of an item, before the reader of feeds makes it harmless."""
    items = ET.fromstring(content).iter("item")
    return next(
        item.findtext("description") or "" for item in items if item.findtext("guid") == guid
    )


def test_a_text_that_no_output_can_hold_is_replaced() -> None:
    assert clean("a\x00\x1f\ud800\ufffeb\t\u05d0🔒") == "a\ufffd\ufffd\ufffd\ufffdb\t\u05d0🔒"
    target = ("web_connectivity", "https://a.example/\ud800\x0b")
    files = files_of(report_of(block(7, code="\ud800/", target=target)))
    assert all(re.fullmatch("(?:[a-z-]+/)*[A-Za-z0-9.-]+", name) for name in files)
    for content in some_pages(files).values():
        Page(content)


@pytest.mark.parametrize(
    "input_", ["", ".", "../..", "/", "a" * 2000, "\ud800", "é🔒\u202e", "a\nb"]
)
def test_names_of_files_are_safe_and_tell_series_apart(input_: str) -> None:
    name = series_path(Series("web_connectivity", input_, "IR", 7))
    assert re.fullmatch(r"by-series/IR\.AS7\.web-connectivity[A-Za-z0-9.-]*-[0-9a-f]{16}", name)
    assert len(name) < 120
    others = [("web_connectivity", input_ + "/"), ("web-connectivity", input_)]
    assert name not in [series_path(Series(*target, "IR", 7)) for target in others]


@pytest.mark.parametrize("code", ["../x", "", "ir", "I", "IRN", "I\n", "ÄÖ", "."])
def test_only_two_capitals_are_a_country(code: str) -> None:
    assert country_path("IR") == "by-country/IR"
    assert re.fullmatch("by-country/[A-Za-z0-9.-]*[0-9a-f]{16}", country_path(code))
    assert country(code) == code


def test_countries_have_english_names() -> None:
    assert [country(code) for code in ("IR", "TR", "MM", "XX")] == [
        "Iran",
        "Türkiye",
        "Myanmar (Burma)",
        "XX",
    ]
    assert [within(code) for code in ("IR", "GB", "SB")] == [
        "Iran",
        "the United Kingdom",
        "the Solomon Islands",
    ]


def test_a_link_leads_to_the_measurements_in_the_explorer() -> None:
    series = Series("web_connectivity", "https://a.example/?b=c&d=é", "IR", 7)
    link = urlsplit(search_link(series.target, "IR", 7, START, UNTIL))
    assert (link.scheme, link.netloc, link.path) == ("https", "explorer.ooni.org", "/search")
    assert parse_qs(link.query) == {
        "test_name": ["web_connectivity"],
        "input": ["https://a.example/?b=c&d=é"],
        "probe_cc": ["IR"],
        "probe_asn": ["AS7"],
        "since": ["2026-01-28"],
        "until": ["2026-02-02"],
        "failure": ["false"],
    }
    assert "probe_asn" not in search_link(series.target, "IR", None, START, UNTIL)
    assert "input" not in search_link(("signal", ""), "IR", 7, START, UNTIL)
    long = ("web_connectivity", "https://a.example/" + "é" * LONGEST)
    assert "input" not in search_link(long, "IR", 7, START, UNTIL), "servers refuse such a link"


def test_counts_are_those_of_the_steps_that_lie_wholly_in_a_time() -> None:
    chart = Chart(START, 3 * HOUR, (1, 2, 4, 8), (0, 2, 3, 8), (1, 1, 2, 0))
    inside = chart.tally_within(START + 2 * HOUR, START + 10 * HOUR)
    assert inside is not None
    assert inside == Tally(measurements=6, anomalies=5, runs=3)
    assert chart.tally_within(START + 4 * HOUR, START + 6 * HOUR) is None
    assert chart.tally_within(START - 9 * HOUR, START) is None


def test_times_and_durations_read_well() -> None:
    assert spoken(UNTIL) == "1 Feb 2026, 15:00 UTC"
    hours = [0, 1, 25, 48, 24 * 20 + 3]
    assert [spoken_duration(timedelta(hours=hour)) for hour in hours] == [
        "less than an hour",
        "1 hour",
        "1 day 1 hour",
        "2 days",
        "20 days",
    ]
