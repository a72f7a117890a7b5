"""Fingerprints that match what every site sends are refused; those of block pages are not."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import ordinary_answers
from conftest import Database as FreshDatabase
from fingerprints_file import KINDS, LOCATION, PATTERN, PATTERN_TYPE, SCOPE, read_fingerprints
from fingerprints_harness import Updater, Upstream, served_upstream, updater_of
from ooni_common.database import Database
from ordinary_answers import (
    REGEXPS_AT_ONCE,
    Answer,
    Pattern,
    batches,
    matched_by_regexps,
    read_ordinary_answers,
)
from pattern_faults import wrong_regexps_of

SHIPPED = Path(ordinary_answers.__file__).with_name("ordinary")

# (location_found, pattern type, pattern, what it matches)
HARMFUL = [
    ("body", "regexp", ".*", "the empty text"),
    ("body", "regexp", ".?", "the empty text"),
    ("body", "regexp", "x?", "the empty text"),
    ("body", "regexp", r"\s*", "the empty text"),
    ("body", "regexp", "(?i)", "the empty text"),
    ("body", "regexp", "blocked page|", "the empty text"),
    ("body", "regexp", "|blocked page", "the empty text"),
    ("body", "regexp", "(blocked page)?", "the empty text"),
    ("body", "regexp", "()", "the empty text"),
    ("body", "regexp", "^", "the empty text"),
    ("body", "regexp", "$", "the empty text"),
    ("body", "regexp", r"\A.*\z", "the empty text"),
    ("body", "regexp", "(?s)^.*$", "the empty text"),
    ("body", "regexp", "a{0,3}", "the empty text"),
    ("body", "regexp", r"\B", "the empty text"),
    ("header.server", "regexp", "[a-z]*", "the empty text"),
    ("header.x-never-seen", "regexp", ".*", "the empty text"),
    ("dns", "regexp", r"(\d+\.)*", "the empty text"),
    ("body", "full", " ", "a blank"),
    ("body", "regexp", ".", "a blank"),
    ("body", "regexp", r"\s", "a blank"),
    ("body", "regexp", "[^<]", "a blank"),
    ("body", "regexp", " ", "a blank"),
    ("body", "regexp", r"\p{Zs}", "a blank"),
    ("body", "regexp", "e", "pages/"),
    ("body", "regexp", r"\S", "pages/"),
    ("body", "regexp", r"\w+", "pages/"),
    ("body", "regexp", "<", "pages/"),
    ("body", "regexp", r"\d{2}", "pages/"),
    ("body", "regexp", "(?i)html", "pages/"),
    ("body", "regexp", r"<title>.*</title>", "pages/"),
    ("body", "regexp", r"\pL", "pages/"),
    ("body", "regexp", r"\p{Cyrillic}", "pages/"),
    ("body", "regexp", r"\p{Arabic}", "pages/"),
    ("body", "regexp", r"\p{Han}", "pages/"),
    ("body", "regexp", r"[^\x00-\x7F]", "pages/"),
    ("body", "contains", "html", "pages/"),
    ("body", "contains", "HTTP", "pages/old-frameset.html"),
    ("body", "contains", "<html", "pages/"),
    ("body", "contains", "</title>", "pages/"),
    ("body", "contains", "    ", "pages/"),
    ("body", "contains", "script", "pages/"),
    ("body", "contains", "javascript", "pages/"),
    ("body", "contains", "blocked", "pages/news-english.html"),
    ("body", "contains", "суда", "pages/news-russian.html"),
    ("body", "contains", "الموقع", "pages/news-arabic.html"),
    ("body", "contains", "网站", "shorter than 4 characters"),
    ("body", "contains", "您访问的页面", "pages/news-chinese.html"),
    ("body", "contains", "e", "shorter than 4 characters"),
    ("body", "contains", " ", "shorter than 4 characters"),
    ("body", "prefix", "<!DOCTYPE html>", "pages/"),
    ("body", "prefix", "<", "shorter than 4 characters"),
    ("body", "prefix", '{"status":', "pages/api.json"),
    ("body", "full", "OK\n", "pages/short-answer.txt"),
    ("body", "contains", "404 Not Found", "pages/errors/nginx-404.html"),
    ("body", "contains", "502 Bad Gateway", "pages/errors/nginx-502.html"),
    ("body", "contains", "Ray ID:", "pages/errors/cdn-522.html"),
    ("body", "contains", "<Code>AccessDenied</Code>", "pages/errors/store-denied.xml"),
    ("header.server", "prefix", "nginx", "headers/nginx.txt, server"),
    ("header.server", "contains", "Apache", "headers/apache.txt, server"),
    ("header.server", "full", "cloudflare", "headers/cdn.txt, server"),
    ("header.server", "regexp", "(?i)iis", "headers/windows.txt, server"),
    ("header.content-type", "prefix", "text/html", "headers/"),
    ("header.connection", "full", "keep-alive", "headers/"),
    ("header.location", "prefix", "http", "headers/"),
    ("header.location", "regexp", "^https?://", "headers/"),
    ("header.via", "prefix", "1.1 ", "headers/"),
    ("header.x-never-seen", "regexp", "[a-z]", "headers/"),
    ("dns", "prefix", "1", "shorter than 4 characters"),
    ("dns", "prefix", "104.", "answers/ordinary.txt, 104.16.132.229"),
    ("dns", "contains", ".com", "answers/"),
    ("dns", "regexp", r"^\d+\.\d+\.\d+\.\d+$", "answers/"),
    ("dns", "regexp", "[0-9a-f:]{4}", "answers/"),
    ("dns", "regexp", r"\.", "answers/"),
    ("dns", "full", "142.250.185.78", "answers/"),
]  # fmt: skip

# What the real files have, with invented words.
GOOD_ONES = [
    ("body", "contains", "<title>Harbour Telecom: access withheld</title>"),
    ("body", "contains", "<h1>This page has been put away</h1>"),
    ("body", "contains", '<iframe src="http://gate.example/stop?id=7"'),
    ("body", "contains", '<iframe src="http://10.20.30.40/'),
    ("body", "contains", "http://gate.example/court-orders/"),
    ("body", "contains", "webmaster@gate.example"),
    ("body", "contains", "gate.jpg"),
    ("body", "contains", "urlgate"),
    ("body", "contains", "BUSY"),
    ("body", "contains", "非法阻断"),
    ("body", "contains", "禁止访问"),
    ("body", "contains", "Доступ к ресурсу ограничен"),  # noqa: RUF001
    ("body", "contains", "<title>Страница заблокирована</title>"),
    ("body", "contains", "ДАННЫЙ РЕСУРС ЗАБЛОКИРОВАН"),  # noqa: RUF001
    ("body", "contains", "<title>محتوى محظور</title>"),
    ("body", "contains", "این تارنما مسدود است"),
    ("body", "contains", "बन्देज लगाएको सामग्रीहरु"),
    ("body", "contains", "ตามคำสั่งศาล ปิดกั้น"),
    ("body", "contains", "Situs Terlarang"),
    ("body", "contains", "SITO OSCURATO PER ORDINE"),
    ("body", "contains", "Bu siteye erişim engellenmiştir"),
    ("body", "contains", "</head>\r\n<body>Gate\r\n"),
    ("body", "contains", " <title>Warning! Gate</title>"),
    ("body", "contains", "<!-- GATE PAGE -->"),
    ("body", "contains", "window.GATE"),
    ("body", "prefix", "\r\n\r\n<!DOCTYPE html><!-- gate -->"),
    ("body", "full", "closed"),
    ("body", "full", "<html><body>Gate</body></html>"),
    ("body", "regexp", "URL .* Sp.*er Harbour"),
    ("body", "regexp", "<p>Sorry, but the URL you.* requesting is put away!</p>"),
    ("body", "regexp", r"The page is put away please.*http://www\.gate\.example"),
    ("body", "regexp", '{"gate":.*"id":'),
    ("body", "regexp", "(?i)your (school|office)'s gate"),
    ("header.location", "prefix", "http://gate.example"),
    ("header.location", "prefix", "https://192.168.88.1/gate.php"),
    ("header.location", "prefix", "/blocked"),
    ("header.location", "full", "http://gate.example/help/lock"),
    ("header.location", "contains", "?dpid="),
    ("header.location", "contains", "gate.example:8099"),
    ("header.location", "contains", "/access?"),
    ("header.location", "regexp", r"^https?://[^/]*gate\.example(:\d+)?/"),
    ("header.server", "prefix", "Gate by Harbour"),
    ("header.server", "full", "SonicGATE"),
    ("header.via", "full", "1.1 gate.harbour.example (http_scan_byf/3.5.16)"),
    ("header.x-app-url", "full", "https://gate.example"),
    ("dns", "full", "10.10.34.34"),
    ("dns", "full", "127.0.0.1"),
    ("dns", "full", "0.0.0.0"),
    ("dns", "full", "d0::11"),
    ("dns", "full", "gate.harbour.example"),
    ("dns", "prefix", "10.10.34."),
    ("dns", "contains", ".gate.example"),
    ("dns", "regexp", r"^10\.10\.34\.3[4-6]$"),
]  # fmt: skip


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    with served_upstream(tmp_path / "upstream") as served:
        yield served


@pytest.fixture
def updater(
    tmp_path: Path,
    database: FreshDatabase,
    upstream: Upstream,
    capsys: pytest.CaptureFixture[str],
) -> Updater:
    return updater_of(upstream, tmp_path, database, capsys)


def added(upstream: Upstream, fingerprints: Mapping[str, tuple[str, ...]]) -> None:
    """Let upstream have more fingerprints: name → where, how and what."""
    for kind in ("dns", "http"):
        rows = [
            [name, "nat", "", where, how, pattern, "5", "", "", "", ""]
            for name, (where, how, pattern, *_) in fingerprints.items()
            if (where == "dns") == (kind == "dns")
        ]
        upstream.write(**{kind: upstream.with_own_rows(kind, rows)})


def test_harmful_fingerprints_are_refused_with_what_they_match(
    updater: Updater, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("findings.MOST_OF_A_FILE", len(HARMFUL))
    monkeypatch.setattr("findings.MOST_IN_ALL", len(HARMFUL))
    harmful = {f"bad.{number}": cells for number, cells in enumerate(HARMFUL)}
    added(upstream, harmful)
    status, log = updater.run(max_rejected_rows=len(harmful))
    assert status == 0
    assert updater.rows_of("fingerprints_dns") == upstream.rows("dns")
    assert updater.rows_of("fingerprints_http") == upstream.rows("http")
    for name, (_, how, _, reason) in harmful.items():
        (line,) = (line for line in log.splitlines() if f"'{name}," in line)
        assert re.search(
            rf"{how} '.*' (matches ordinary answers: |is ){re.escape(reason)}", line
        ), line


def test_fingerprints_of_block_pages_are_loaded(updater: Updater, upstream: Upstream) -> None:
    good = {f"good.{number}": cells for number, cells in enumerate(GOOD_ONES)}
    added(upstream, good)
    status, log = updater.run(max_rejected_rows=0)
    assert (status, "refused" in log) == (0, False)
    tables = ("fingerprints_dns", "fingerprints_http")
    live = {row[0]: (row[3], row[4], row[5]) for table in tables for row in updater.rows_of(table)}
    assert {name: live.get(name) for name in good} == good


def test_what_upstream_itself_calls_vague_may_match_error_pages_but_no_others(
    updater: Updater, upstream: Upstream
) -> None:
    rows = [
        {"name": f"made.{scope}_{number}", "scope": scope, "pattern": pattern}
        for scope in ("fp", "vbw", "nat")
        for number, pattern in enumerate(["404 Not Found", "script"])
    ]
    upstream.write(http=upstream.with_rows(*rows))
    assert updater.run()[0] == 0
    names = {row[0] for row in updater.rows_of("fingerprints_http") if row[0].startswith("made.")}
    assert {"made.fp_0", "made.vbw_0"} == names & {row["name"] for row in rows}


def test_none_of_the_real_fingerprints_matches_an_ordinary_answer(
    database: FreshDatabase, real_fingerprints_dns: Path, real_fingerprints_http: Path
) -> None:
    ordinary = read_ordinary_answers(None)
    for path in (real_fingerprints_dns, real_fingerprints_http):
        file = read_fingerprints(path.name, path.read_bytes(), KINDS[path.stem])
        patterns = [
            Pattern(row[LOCATION], row[SCOPE], row[PATTERN_TYPE], row[PATTERN]) for row in file.rows
        ]
        assert ordinary.matched_by(Database(database.client()), patterns) == {}


def test_a_site_adds_answers_of_its_own(
    updater: Updater, upstream: Upstream, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    for kind, name, text in (
        ("pages", "intranet.html", "<h1>Gate closed</h1>"),
        ("headers", "proxy.txt", "# our proxy\nVia: 1.1 gate.example\n"),
        ("answers", "ours.txt", "10.10.34.34\n"),
    ):
        (own / kind).mkdir(parents=True)
        (own / kind / name).write_text(text)
    fingerprints = {
        "own.page": ("body", "contains", "Gate closed"),
        "own.header": ("header.via", "regexp", r"gate\.example"),
        "own.answer": ("dns", "full", "10.10.34.34"),
    }
    added(upstream, fingerprints)
    assert updater.run()[0] == 0
    assert len(updater.rows_of("fingerprints_http")) == 152
    status, log = updater.run("--force", ordinary_dir=str(own))
    assert status == 0
    assert len(updater.rows_of("fingerprints_http")) == 150
    assert len(updater.rows_of("fingerprints_dns")) == 110
    assert f"ordinary answers: {own}/pages/intranet.html" in log
    assert f"ordinary answers: {own}/headers/proxy.txt, via" in log
    assert f"ordinary answers: {own}/answers/ours.txt, 10.10.34.34" in log


def test_an_own_folder_that_cannot_be_used_is_named(updater: Updater, tmp_path: Path) -> None:
    own = tmp_path / "own"
    status, log = updater.run(ordinary_dir=str(own))
    assert status == 78
    assert f"ordinary_dir {own}: expected a folder with pages, headers or answers in it" in log
    (own / "headers").mkdir(parents=True)
    (own / "headers/a.txt").write_text("Server nginx\n")
    status, log = updater.run()
    assert status == 78
    assert f"{own}/headers/a.txt: expected Name: value, got 'Server nginx'" in log
    (own / "headers/a.txt").unlink()
    (own / "headers/a.txt").symlink_to("/dev/zero")
    status, log = updater.run()
    assert status == 78
    assert f"{own}/headers/a.txt can't be used" in log
    status, log = updater.run("doctor")
    assert status == 78
    assert re.search("FAILED +answers .*a.txt can't be used", log)
    (own / "headers/a.txt").unlink()
    assert re.search("ok +answers +1[0-9]{2} are tried", updater.run("doctor")[1])


def test_the_shipped_answers_are_in_the_languages_and_kinds_that_they_should_be() -> None:
    texts = {path.name: path.read_bytes().decode() for path in SHIPPED.glob("pages/**/*.*")}
    assert len(texts) >= 30
    for script in (r"\u0431", "[\u0600-\u06ff]", "[\u4e00-\u9fff]", "[ก-๙]", "[가-힣]", "[ऀ-ॿ]"):
        assert any(re.search(script, text) for text in texts.values()), script
    assert (SHIPPED / "README.md").exists()


def test_batches_hold_so_many_items_and_so_much() -> None:
    assert list(batches([3, 3, 3, 9, 1, 1, 1, 1], 3, 6, int)) == [[3, 3], [3], [9], [1, 1, 1], [1]]
    assert list(batches([], 3, 6, int)) == []


@pytest.mark.parametrize(("letters", "count"), [(3_275, 20), (1, 40_000)])
def test_regular_expressions_do_not_make_a_query_too_long(
    database: FreshDatabase, letters: int, count: int
) -> None:
    """Neither by letters of four bytes, nor by quotes and commas."""
    db = Database(database.client())
    regexps = ["\U0001f6ab" * letters] * count
    rows = [(f"made.{regexp}", "nat", "", "body", "regexp", regexp) for regexp in regexps]
    assert wrong_regexps_of(db, rows) == {}
    some = regexps[:REGEXPS_AT_ONCE]
    assert matched_by_regexps(db, some, [Answer("a page", "x")]) == {}
