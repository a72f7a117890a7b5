"""The pages of the detector: what a newsroom can answer from them, and what never moves."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from detector_harness import outputs_of
from dev.samples.report import UNTIL, sample_report
from outputs.links import incident_page
from outputs.news import NOT_CONFIRMED, news_of
from outputs.publish import drafts_of
from outputs.report import ONGOING, Report
from outputs.wording import spoken_date
from pages import figures
from pages.data import FILES
from pages.entries import NEW, entries_of, ongoing_of
from pages.lists import FEWEST, PER_PAGE, numbers_of, pages_of
from pages.rendering import Site

ROOT = Path(__file__).parents[1]


def without(report: Report, number: int) -> Report:
    """Return a report in which an incident was never detected."""
    rest = [incident for place, incident in enumerate(report.incidents) if place != number]
    services = {incident.service for incident in report.incidents}
    return replace(report, incidents=rest, services=services)


def test_the_page_of_a_withdrawn_incident_stays_and_says_why() -> None:
    report = replace(sample_report(6, series=20), services=())
    wrong = report.incidents[2]
    path = f"{incident_page(report.guid_of(wrong))}.html"
    assert "None of it has been corrected" in dict(outputs_of(report))[path].decode()
    news = news_of(without(report, 2), news_of(report).published)
    files = dict(outputs_of(without(report, 2), news))
    page = files[path].decode()
    assert f"This alarm was withdrawn:</strong> <bdi>{NOT_CONFIRMED}" in page
    assert "Withdrawn: it is no longer held to be a blocking.</dd>" in page
    assert f"signs of blocking since {spoken_date(wrong.start)}, withdrawn." in page
    for name in ("withdrawn.html", "index.html", f"archive/{wrong.detected:%Y-%m}.html"):
        assert path.rpartition("/")[2] in files[name].decode(), name
    rows = list(csv.DictReader(io.StringIO(files["data/incidents.csv"].decode(), newline="")))
    (row,) = [row for row in rows if row["page"] == path]
    assert (row["state"], row["withdrawn"]) == ("withdrawn", NOT_CONFIRMED)


def test_what_is_in_doubt_is_said_where_it_is_told() -> None:
    report = sample_report(40, series=20)
    entries = entries_of(report, news_of(report))
    doubtful = next(entry for entry in entries if entry.data["doubts"])
    files = dict(outputs_of(report))
    assert "<dd>In doubt. " in files[f"{doubtful.page}.html"].decode()
    sure = next(entry for entry in entries if not entry.data["doubts"])
    assert "o reason for doubt is seen." in files[f"{sure.page}.html"].decode()


def test_the_most_severe_stand_first_and_what_is_in_doubt_last() -> None:
    report = sample_report(120, series=20)
    ongoing = ongoing_of(entries_of(report, news_of(report)))
    assert {entry.state for entry in ongoing} == {ONGOING}
    doubts = [bool(entry.data["doubts"]) for entry in ongoing]
    assert doubts == sorted(doubts)
    networks = [entry.extent[0] for entry in ongoing if not entry.data["doubts"]]
    assert networks == sorted(networks, reverse=True)
    assert len(set(networks)) > 2


@pytest.mark.parametrize("count", [0, 1, FEWEST + PER_PAGE - 1, FEWEST + PER_PAGE, 987])
def test_full_pages_of_a_list_never_change(count: int) -> None:
    newest_first = list(range(count))[::-1]
    pages = dict(pages_of(newest_first))
    assert [entry for page in pages.values() for entry in page] == newest_first
    more = dict(pages_of([count, *newest_first]))
    assert {n: page for n, page in pages.items() if n} == {n: more[n] for n in pages if n}
    assert len(pages[0]) < FEWEST + PER_PAGE
    assert len(numbers_of(newest_first, 0)) == len(pages) - 1


def test_many_incidents_of_a_place_are_on_several_pages_of_less_than_100_kb() -> None:
    report = sample_report(340, series=20)
    report = replace(report, events=[])  # no feeds of series
    drafts = drafts_of(report, news_of(report), Site())
    pages = {d.path: d.make() for d in drafts if d.path.startswith(("service/", "archive/"))}
    assert any(re.search(r"[.]1[.]html$", path) for path in pages)
    assert max(map(len, pages.values())) < 100_000


def test_data_have_the_columns_that_their_page_describes() -> None:
    files = dict(outputs_of(sample_report(8, series=20)))
    page = files["data.html"].decode()
    for path, (_, columns) in FILES.items():
        (header, *rows) = csv.reader(io.StringIO(files[path].decode(), newline=""))
        assert header == list(columns)
        assert {len(row) for row in rows} <= {len(columns)}
        assert all(f"<code>{column}</code>" in page for column in columns)
    incidents = msgspec.json.decode(files["data/incidents.json"])["incidents"]
    assert len(incidents) == 8
    assert len(files["data/incidents.csv"].splitlines()) == 9
    networks = sum(len(incident["networks"]) for incident in incidents)
    assert len(files["data/networks.csv"].splitlines()) == 1 + networks


def test_pages_say_who_has_the_rights_and_whom_to_ask() -> None:
    site = Site("https://news.example/", "CC0 1.0", "https://cc0.example/", "ACME", "a@b.example")
    report = sample_report(2, series=20)
    drafts = drafts_of(report, news_of(report), site)
    pages = {d.path: d.make().decode() for d in drafts if d.path.endswith(".html")}
    for path, page in pages.items():
        assert f'<link rel="canonical" href="https://news.example/{path}">' in page
        assert '© ACME, <a href="https://cc0.example/" rel="license">CC0 1.0</a>' in page
        assert '<a href="mailto:a@b.example">a@b.example</a>' in page


def test_an_incident_says_which_runs_its_counts_are_of() -> None:
    report = sample_report(6, series=20)
    incident = next(i for i in report.incidents if i.end and i.key in report.severities)
    severity = report.severities[incident.key]
    page = dict(outputs_of(report))[f"{incident_page(report.guid_of(incident))}.html"].decode()
    text = " ".join(re.sub("<[^>]*>", " ", page).split())
    assert re.search(r"[(]\d+%[)] from [\d,]+ runs?, in its networks while it lasted", text)
    day = spoken_date(incident.last_detected)
    runs = f"[0-9]+% of all {severity.runs:,} runs of these days, blocked or not, came from"
    assert re.search(f"in the 14 days before {day} ; {runs} the blocked networks", text)
    assert 'href="https://db-ip.com"' in page


@pytest.mark.parametrize(
    ("site", "asked"),
    [
        (
            Site(),
            'permission:\n<a href="https://ooni.org">Open Observatory of Network Interference</a>.',
        ),
        (Site(copyright="ACME"), "permission:\nACME."),
        (Site(contact="a@b.example"), 'permission:\n<a href="mailto:a@b.example">a@b.example</a>.'),
        (Site(licence="CC0 1.0", licence_url="https://cc0.example/"), ""),
    ],
)
def test_newsrooms_read_what_the_licence_lets_them_do(site: Site, asked: str) -> None:
    report = sample_report(1, series=20)
    drafts = {draft.path: draft for draft in drafts_of(report, news_of(report), site)}
    for path in ("data.html", "methodology.html"):
        page = drafts[path].make().decode()
        assert "Newsrooms, commercial ones too, may report what these pages say" in page
        assert asked in page
        assert ("ask for permission" in page) == bool(asked)


def test_the_front_page_leads_to_all_that_goes_on_whenever_anything_does() -> None:
    report = sample_report(6, series=20)
    ongoing = [i for i in report.incidents if report.state_of(i) == ONGOING]
    for incidents in (ongoing[-1:], ongoing):
        page = dict(outputs_of(replace(report, incidents=incidents)))["index.html"].decode()
        assert page.count('<a href="ongoing.html">') == 1
    assert ongoing[-1].detected > UNTIL - NEW, "there is a new one alone"


def test_no_doubt_seen_leads_to_what_that_means() -> None:
    files = dict(outputs_of(sample_report(40, series=20)))
    pages = [page.decode() for name, page in files.items() if name.startswith("country/")]
    assert any('<a href="../methodology.html#doubt">No doubt seen</a>' in page for page in pages)
    assert 'id="doubt"' in files["methodology.html"].decode()


def test_nothing_is_told_for_certain_where_nothing_was_measured() -> None:
    empty = replace(sample_report(1, series=20), statuses=[], incidents=[], events=[], charts={})
    files = dict(outputs_of(replace(empty, until=UNTIL)))
    assert "Nothing has been measured yet." in files["index.html"].decode()


def rows_of(heading: str) -> list[list[str]]:
    """Return the rows of the table below a heading of the detector's README."""
    text = (ROOT / "detector/README.md").read_text().partition(heading)[2]
    table = re.search(r"(?m)(?:^\|.*\n)+", text)
    assert table
    lines = table[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_has_the_figures_of_the_readme() -> None:
    totals = {row[0]: row[1].split()[0] for row in rows_of("These are the figures of the seeds")}
    assert totals["precision: changes that are events"] == str(figures.PRECISION)
    assert totals["recall: events that are found"] == str(figures.RECALL)
    assert totals["median delay"] == str(figures.MEDIAN_DELAY)
    assert totals["90 % of the delays are at most"] == str(figures.MOST_DELAY)
    assert totals["false changes per 1,000 weeks of a series"] == str(figures.FALSE_PER_1000_WEEKS)
    found = [[row[0], *row[1:5], row[7].strip("\N{EN DASH}")] for row in rows_of("### Blockings")]
    assert found == [
        [k.kind, str(k.number), k.found, k.median, k.most, k.ended] for k in figures.FOUND
    ]
    wrong = [row[:3] for row in rows_of("### False changes, per 100 series")]
    assert wrong == [[k.kind, str(k.series), k.rate] for k in figures.WRONG]
