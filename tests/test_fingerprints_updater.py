"""The updater of the fingerprints as a whole: a real HTTP server and a real ClickHouse engine."""

import csv
import io
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import fingerprints_updater
from conftest import Database as FreshDatabase
from dev.samples.fingerprints import HEADER, to_csv
from dev.servers.misbehaving import (
    MisbehavingServer,
    body,
    cut,
    drip,
    gzip_bomb,
    redirect,
    short_body,
    stall,
    unfinished_chunks,
    zeros,
)
from dev.servers.misbehaving import (
    status as answer,
)
from dev.servers.statsd import StatsdListener
from fingerprints_harness import GOOD, Updater, Upstream, served_upstream, updater_of
from ooni_common.database import Database
from ooni_common.fetch import Limits
from pattern_faults import wrong_regexps
from updater_harness import check_shipped_configuration


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


def test_the_first_run_creates_and_fills_both_tables(updater: Updater, upstream: Upstream) -> None:
    status, log = updater.run()
    assert status == 0
    assert updater.rows_of("fingerprints_dns") == upstream.rows("dns")
    assert updater.rows_of("fingerprints_http") == upstream.rows("http")
    assert "fingerprints_dns: 110 rows (+110 -0)" in log
    assert "refused" not in log


def test_a_first_run_with_files_without_rows_is_refused(
    updater: Updater, upstream: Upstream
) -> None:
    header = upstream.sample.http.partition(b"\n")[0] + b"\n"
    upstream.write(dns=header, http=header)
    status, log = updater.run()
    assert status == 65, log
    assert "fingerprints_dns: 0 rows; between" in log


def test_the_real_files_load_completely_and_byte_for_byte(
    updater: Updater, real_fingerprints_dns: Path, real_fingerprints_http: Path
) -> None:
    urls = {"dns_url": real_fingerprints_dns.as_uri(), "http_url": real_fingerprints_http.as_uri()}
    assert updater.run(**urls)[0] == 0
    for kind, path, count in (
        ("dns", real_fingerprints_dns, 226),
        ("http", real_fingerprints_http, 1729),
    ):
        text = path.read_bytes().decode()
        upstream = list(csv.reader(io.StringIO(text, newline="")))[1:]
        patterns = {row[0]: row[5] for row in upstream}
        rows = updater.rows_of(f"fingerprints_{kind}")
        assert len(rows) == len(upstream) == count
        assert {row[0]: row[5] for row in rows} == patterns
        assert sum("\r\n" in row[5] for row in rows) == (6 if kind == "http" else 0)


def test_an_unchanged_upstream_costs_two_conditional_requests(
    updater: Updater, upstream: Upstream
) -> None:
    updater.run()
    upstream.server.clear()
    with updater.unchanged():
        status, log = updater.run()
    assert status == 0
    assert [request.status for request in upstream.server.requests] == [304, 304]
    assert "nothing to do: upstream has nothing new" in log


def test_the_same_bytes_under_a_new_version_are_not_written(
    updater: Updater, upstream: Upstream
) -> None:
    with MisbehavingServer() as server:
        for etag in ('"1"', '"2"'):
            urls = {
                "dns_url": server.route("/dns", body(upstream.sample.dns, etag=etag)),
                "http_url": server.route("/http", body(upstream.sample.http, etag=etag)),
            }
            before = updater.rows_of("fingerprints_dns_tmp")
            status, log = updater.run(**urls)
            assert status == 0
        assert "the same bytes as before" in log
        assert updater.rows_of("fingerprints_dns_tmp") == before
        server.clear()
        updater.run()
        assert [dict(request.headers).get("If-None-Match") for request in server.requests] == [
            '"2"',
            '"2"',
        ]


@pytest.mark.parametrize("key", ["dns_url", "http_url"])
def test_another_url_is_not_asked_for_what_is_newer_than_the_file_of_the_first(
    updater: Updater, upstream: Upstream, key: str
) -> None:
    """A mirror whose file is older would answer that it is not modified."""
    kind = key.removesuffix("_url")
    table = f"fingerprints_{kind}"
    content = {"dns": upstream.sample.dns, "http": upstream.sample.http}[kind]
    newer, older = datetime(2026, 8, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)
    with MisbehavingServer() as server:
        updater.run(**{key: server.route("/file", body(content, last_modified=newer))})
        before = updater.rows_of(table)
        fewer = content[: content.rindex(b"\r\n", 0, -2)]
        mirror = server.route("/mirror", body(fewer, last_modified=older))
        assert updater.run(**{key: mirror})[0] == 0
        assert len(updater.rows_of(table)) == len(before) - 1
        server.clear()
        with updater.unchanged():
            assert updater.run()[0] == 0
        assert [request.headers.get("If-Modified-Since") for request in server.requests] == [
            "Wed, 01 Jul 2026 00:00:00 GMT"
        ]


def test_the_same_bytes_under_another_url_change_nothing_and_are_asked_for_there(
    updater: Updater, upstream: Upstream
) -> None:
    updater.run()
    shadow = updater.rows_of("fingerprints_http_tmp")
    with MisbehavingServer() as server:
        mirror = server.route("/mirror", body(upstream.sample.http, etag='"of-the-mirror"'))
        for asked_with in (None, '"of-the-mirror"'):
            server.clear()
            status, log = updater.run(http_url=mirror)
            assert (status, "nothing to do" in log) == (0, True)
            assert [request.headers.get("If-None-Match") for request in server.requests] == [
                asked_with
            ]
    assert updater.rows_of("fingerprints_http") == upstream.rows("http")
    assert updater.rows_of("fingerprints_http_tmp") == shadow


def test_no_secret_of_a_url_is_in_a_log_or_an_error(
    updater: Updater, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happens to the file behind it."""
    monkeypatch.setattr(fingerprints_updater, "LIMITS", LIMITS)
    ends = {
        "fine": body(upstream.with_row()),
        "404": answer(404),
        "redirected": redirect("/elsewhere?token=hidden-token"),
        "cut": cut(),
        "html": body(b"<html>"),
        "encoded": gzip_bomb(1),
        "large": zeros(60 * 2**20),
        "refused": body(b"name,scope"),
    }
    updater.configure()
    updater.config_file.chmod(0o600)
    with MisbehavingServer() as server:
        for name, end in ends.items():
            url = server.route(f"/{name}", end).replace("//", "//hidden-user:hidden-word@")
            _, log = updater.run("-v", http_url=f"{url}?token=hidden-token&x=hid")
            assert f"/{name}" in log
            assert "hidden-word" not in log
            assert "hidden-token" not in log
            assert "x=hid" not in log
        assert "token=hidden-token" in server.requests[0].target


def test_a_state_that_does_not_say_the_urls_costs_one_full_fetch(
    updater: Updater, upstream: Upstream
) -> None:
    updater.run()
    path = updater.state_dir / "fingerprints_updater.json"
    state = json.loads(path.read_text())
    for table in ("fingerprints_dns", "fingerprints_http"):
        del state["source"][f"{table}.url"]
    path.write_text(json.dumps(state))
    for statuses in ([200, 200], [304, 304]):
        upstream.server.clear()
        status, log = updater.run()
        assert (status, "nothing to do: upstream has nothing new" in log) == (0, True)
        assert [request.status for request in upstream.server.requests] == statuses


def test_no_secret_of_a_url_is_in_the_state_file(updater: Updater, upstream: Upstream) -> None:
    url = upstream.server.url("fingerprints_http.csv").replace("//", "//someone:hidden-word@")
    updater.config_file.chmod(0o600)
    assert updater.run(http_url=f"{url}?token=hidden-token")[0] == 0
    for state in updater.state_dir.glob("*.json"):
        assert "hidden" not in state.read_text()
        assert "someone" not in state.read_text()


@pytest.mark.parametrize("damage", ["DROP TABLE {} SYNC", "TRUNCATE TABLE {}"])
def test_a_table_that_somebody_changed_is_loaded_again(
    updater: Updater, upstream: Upstream, damage: str
) -> None:
    updater.run()
    updater.database.execute(damage.format("fingerprints_http"))
    assert updater.run()[0] == 0
    assert updater.rows_of("fingerprints_http") == upstream.rows("http")


def test_a_change_of_one_file_is_loaded_and_can_be_rolled_back(
    updater: Updater, upstream: Upstream, statsd: StatsdListener
) -> None:
    updater.run()
    before = updater.rows_of("fingerprints_http")
    upstream.write(http=upstream.with_row())
    upstream.server.clear()
    status, log = updater.run()
    assert status == 0
    assert "fingerprints_http: 151 rows (+1 -0)" in log
    assert sorted(request.status for request in upstream.server.requests) == [200, 304]
    assert (
        "made.it_1",
        "isp",
        "",
        "body",
        "contains",
        "<h1>Gate closed</h1>",
        5,
        *GOOD[7:],
    ) in updater.rows_of("fingerprints_http")
    assert updater.run("--rollback", statsd=statsd.address)[0] == 0
    assert updater.rows_of("fingerprints_http") == before
    assert statsd.metrics()["fingerprints_updater.fingerprints_http_tmp_len"] == [(150, "g")]
    with updater.unchanged():
        assert updater.run()[0] == 0
        upgrade(updater)
        assert updater.run()[0] == 0


def test_a_file_that_was_rolled_back_stays_away_though_the_other_one_changes(
    updater: Updater, upstream: Upstream
) -> None:
    """Until upstream changes this very file; also after an upgrade, which reads the other again."""
    updater.run()
    before = updater.rows_of("fingerprints_http")
    upstream.write(http=upstream.with_row())
    updater.run()
    assert updater.run("--rollback")[0] == 0
    dns = [*GOOD[:1], "nat", "", "dns", "full", "192.0.2.77", *GOOD[6:]]
    upstream.write(dns=upstream.with_own_rows("dns", [dns]))
    assert updater.run()[0] == 0
    upgrade(updater)
    upstream.server.clear()
    assert updater.run()[0] == 0
    assert sorted(request.status for request in upstream.server.requests) == [200, 304]
    assert updater.rows_of("fingerprints_http") == before
    assert len(updater.rows_of("fingerprints_dns")) == 111
    upstream.write(http=upstream.with_rows({}, {"name": "made.it_2"}))
    assert updater.run()[0] == 0
    assert len(updater.rows_of("fingerprints_http")) == 152


def test_a_dry_rollback_says_what_would_be_swapped_or_ends_as_the_real_one(
    updater: Updater, upstream: Upstream
) -> None:
    updater.run()
    empty = "fingerprints_dns was empty before its last update"
    for flags in (["--dry-run"], []):
        status, printed = updater.run("--rollback", *flags)
        assert (status, empty in printed) == (65, True)
    upstream.write(http=upstream.with_row())
    updater.run()
    with updater.unchanged():
        status, printed = updater.run("--rollback", "--dry-run", "--force")
    assert status == 0
    assert re.findall("would swap (.*)", printed) == ["fingerprints_http_tmp and fingerprints_http"]


def upgrade(updater: Updater) -> None:
    """Let another version of the package have loaded what is there."""
    state = json.loads((path := updater.state_dir / "fingerprints_updater.json").read_text())
    state["source"]["version"] = "1.0"
    path.write_text(json.dumps(state))


def test_a_dry_run_prints_the_difference_and_writes_nothing(
    updater: Updater, upstream: Upstream
) -> None:
    updater.run()
    upstream.write(http=upstream.with_row())
    with updater.unchanged():
        status, printed = updater.run("--dry-run")
    assert status == 0
    assert "would change: fingerprints_http: 151 rows (+1 -0)" in printed
    assert "+ made.it_1 | isp |  | body | contains | <h1>Gate closed</h1> | 5 | IT,FR" in printed


ROW_FINDINGS = {
    "no name": {"name": ""},
    "scope 'city' is none of nat, isp": {"scope": "city"},
    "scope '' is none of": {"scope": ""},
    "pattern type 'glob' is none of full, prefix, contains, regexp": {"pattern_type": "glob"},
    "an empty pattern, which everything would match": {"pattern": ""},
    "confidence '11' is not a whole number from 0 to 10": {"confidence_no_fp": "11"},
    "confidence '-1' is not a whole": {"confidence_no_fp": "-1"},
    "confidence '5.0' is not a whole": {"confidence_no_fp": "5.0"},
    "confidence '' is not a whole": {"confidence_no_fp": ""},
    "confidence '\u0665' is not a whole": {"confidence_no_fp": "\u0665"},
    "countries 'ITA' are not two-letter codes": {"expected_countries": "ITA"},
    "countries 'IT;FR' are not": {"expected_countries": "IT;FR"},
    "countries 'I T' are not": {"expected_countries": "I T"},
    "location_found 'bdoy' is not body or header.NAME in lower": {"location_found": "bdoy"},
    "location_found 'dns' is not body or": {"location_found": "dns"},
    "location_found '' is not body or": {"location_found": ""},
    "location_found 'header.Server' is not": {"location_found": "header.Server"},
    "location_found 'header.' is not": {"location_found": "header."},
    "contains 'abc' is shorter than 4 characters": {"pattern": "abc"},
    "prefix ' ' is shorter than 4": {"pattern_type": "prefix", "pattern": " "},
    "a regular expression of more than 10,000": {"pattern_type": "regexp", "pattern": "a" * 10_001},
    "invalid perl operator: (?<=": {"pattern_type": "regexp", "pattern": "(?<=a)b"},
    "missing ): (a": {"pattern_type": "regexp", "pattern": "(a"},
    "invalid escape sequence: \\2": {"pattern_type": "regexp", "pattern": "(a)\\2"},
}


def test_refused_rows_are_logged_with_file_line_and_reason(
    updater: Updater, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("findings.MOST_OF_A_FILE", len(ROW_FINDINGS))
    updater.run()
    changes = [
        {"name": f"made.it_{number}"} | cells
        for number, cells in enumerate(ROW_FINDINGS.values(), start=1)
    ]
    rows, count = upstream.with_rows(*changes), len(changes)
    upstream.write(http=rows)
    with updater.unchanged():
        status, log = updater.run(max_rejected_rows=count - 1)
    assert status == 65
    *lines, last = log.splitlines()
    day = re.findall("20[0-9-]+", last)[-1]
    assert last == (
        f"error: {count} rows that upstream has added are refused,"
        f" more than max_rejected_rows = {count - 1}; the others are loaded on {day}, or by --force"
    )
    for number, reason in enumerate(ROW_FINDINGS, start=upstream.line_of_next_row()):
        (line,) = (line for line in lines if f"fingerprints_http.csv:{number}: " in line)
        assert line.startswith("warning: ")
        assert reason in line
        assert line.endswith("; row refused")
    assert len([line for line in lines if line.endswith("; row refused")]) == count
    upstream.write(http=rows + b"made.x,isp,,body,full,Gate,5,,,,\r\n")
    assert updater.run(max_rejected_rows=count)[0] == 0
    assert len(updater.rows_of("fingerprints_http")) == 151


def test_what_the_fastpath_reads_well_is_loaded_as_it_stands(
    updater: Updater, upstream: Upstream
) -> None:
    """Blanks and empty countries, as upstream's documentation has them, and a cell too many."""
    countries = ["US, CA", ",ZZ", "ZZ", "it", " IT ,, FR ", ""]
    rows = [
        ",".join([f"made.{number}", *GOOD[1:7], f'"{cell}"', "ooni", "", "a note", ""])
        for number, cell in enumerate(countries)
    ]
    upstream.write(http=upstream.with_raw_row("\r\n".join([*rows, ""]).encode()))
    status, log = updater.run(max_rejected_rows=0)
    assert (status, "refused" in log) == (0, False)
    assert "empty extra cells at the end (and 5 more lines)" in log
    live = {row[0]: row[7] for row in updater.rows_of("fingerprints_http")}
    assert [live[f"made.{n}"].strip() for n in range(6)] == [cell.strip() for cell in countries]


@pytest.mark.parametrize("columns", [10, 12])
def test_a_row_with_another_number_of_columns_is_refused(
    updater: Updater, upstream: Upstream, columns: int
) -> None:
    row = ",".join([*GOOD[:8], "x", "x", "x", "x"][:columns]).encode() + b"\r\n"
    upstream.write(http=upstream.with_raw_row(row.replace(b"IT,FR", b"IT")))
    status, log = updater.run(max_rejected_rows=0)
    assert status == 65
    assert f"{columns} columns instead of 11" in log


def test_a_name_that_comes_twice_and_a_scope_of_the_other_table_are_refused(
    updater: Updater, upstream: Upstream
) -> None:
    row = to_csv([upstream.sample.rows("http")[0]], header=[]).removeprefix(b"\r\n")
    upstream.write(http=upstream.with_raw_row(row))
    assert "the name is in line 2 already" in updater.run(max_rejected_rows=0)[1]
    dns = [*GOOD[:1], "injb", *GOOD[2:]]
    upstream.write(http=upstream.with_row(scope="injb"))
    upstream.write(dns=upstream.sample.dns + to_csv([dns], header=[]).removeprefix(b"\r\n"))
    status, log = updater.run(max_rejected_rows=0)
    assert status == 65
    assert log.count("; row refused") == 1
    assert "fingerprints_dns.csv:112: scope 'injb' is none of nat, isp, prod, inst, vbw, fp" in log


def bad_rows(first: int, count: int) -> bytes:
    """Return rows that are refused: numbered ones, without a pattern."""
    return b"".join(
        b"made.%d,isp,,body,full,,5,,,,\r\n" % number for number in range(first, first + count)
    )


def test_more_refused_rows_than_allowed_in_both_files_together_refuse_both(
    updater: Updater, upstream: Upstream
) -> None:
    updater.run()
    dns, http = upstream.sample.dns, upstream.sample.http
    upstream.write(dns=dns + bad_rows(0, 6), http=http + bad_rows(0, 5))
    with updater.unchanged():
        status, log = updater.run()
    assert status == 65
    assert "11 rows that upstream has added are refused, more than max_rejected_rows = 10" in log
    upstream.write(dns=dns + bad_rows(0, 6), http=http + bad_rows(0, 4))
    assert updater.run()[0] == 0


def test_rows_that_were_refused_before_keep_no_others_out(
    updater: Updater, upstream: Upstream
) -> None:
    """Also after an upgrade, which trusts nothing of the state but this."""
    http = upstream.sample.http
    upstream.write(http=http + bad_rows(0, 10))
    assert updater.run()[0] == 0
    upstream.write(http=http + bad_rows(0, 20))
    assert updater.run()[0] == 0
    upgrade(updater)
    upstream.write(http=http + bad_rows(0, 30))
    assert updater.run()[0] == 0
    more = to_csv([GOOD], header=[]).removeprefix(b"\r\n")
    upstream.write(http=http + bad_rows(0, 30) + more)
    status, log = updater.run()
    assert status == 0
    assert log.count("; row refused") == 20
    assert "30 rows refused in 1 file: " in log
    assert len(updater.rows_of("fingerprints_http")) == 151
    upstream.write(http=http + bad_rows(11, 30) + more)
    assert updater.run()[0] == 65
    assert updater.run("--force")[0] == 0
    assert updater.run()[0] == 0


def test_a_file_that_upstream_has_mended_keeps_the_other_one_out_no_more(
    updater: Updater, upstream: Upstream
) -> None:
    dns, http = upstream.sample.dns, upstream.sample.http
    updater.run()
    upstream.write(dns=dns + bad_rows(0, 11), http=http)
    assert updater.run()[0] == 65
    upstream.write(dns=dns, http=upstream.sample.with_added("http", 2).http)
    status, log = updater.run()
    assert status == 0, log
    assert len(updater.rows_of("fingerprints_http")) == 152


def test_live_rows_that_this_version_refuses_keep_no_others_out(
    updater: Updater, upstream: Upstream
) -> None:
    """A version that is stricter finds faults in what is live."""
    vague = [{"name": f"made.{number}", "pattern": "script"} for number in range(20)]
    rows = upstream.with_rows(*vague)
    columns = [(*GOOD[:6], 5, *GOOD[7:])]
    updater.run()
    updater.database.execute(
        "INSERT INTO fingerprints_http VALUES",
        [(cells["name"], *columns[0][1:5], "script", *columns[0][6:]) for cells in vague],
    )
    upstream.write(http=rows + to_csv([GOOD], header=[]).removeprefix(b"\r\n"))
    status, log = updater.run(max_shrink=0.5)
    assert status == 0
    assert log.count("; row refused") == 20
    assert len(updater.rows_of("fingerprints_http")) == 151


BROKEN = {
    "header": (b"name,scope\r\n", "the header lacks the column 'other_names': it is 'name,scope'"),
    "twice": (",".join([*HEADER, "name"]).encode() + b"\r\n", "repeats the column 'name'"),
    "empty": (b"", "no header"),
    "html": (b"<!DOCTYPE html>\n<html><body>404</body></html>\n", "HTML instead of CSV"),
    "json": (b'{"message": "rate limited"}\n', "the header lacks the column 'name'"),
    "nul": (",".join(HEADER).encode() + b"\r\na\0", "a NUL byte"),
    "encoding": (",".join(HEADER).encode() + b"\r\n\xff\xfe", "not UTF-8"),
    "quotes": (",".join(HEADER).encode() + b'\r\n"a', "unbalanced quotes"),
    "conflict": (b"<<<<<<< HEAD\r\n" + ",".join(HEADER).encode(), "a merge conflict marker"),
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "damage"), [("dns", "conflict"), *(("http", damage) for damage in BROKEN)]
)
def test_a_broken_file_refuses_both_tables(
    updater: Updater, upstream: Upstream, kind: str, damage: str
) -> None:
    updater.run()
    changed = {"dns": upstream.sample.with_added("dns", 1).dns, "http": upstream.with_row()}
    content, reason = BROKEN[damage]
    upstream.write(**changed | {kind: content})
    with updater.unchanged():
        status, log = updater.run()
    assert status == 65
    assert f"fingerprints_{kind}.csv:" in log
    assert reason in log.splitlines()[-1]


def test_a_second_table_that_is_refused_keeps_the_first_from_being_swapped(
    updater: Updater, upstream: Upstream
) -> None:
    updater.run()
    upstream.write(
        dns=upstream.sample.with_added("dns", 5).dns,
        http=upstream.sample.with_removed("http", 45).http,
    )
    with updater.unchanged():
        status, log = updater.run()
    assert status == 65
    assert "fingerprints_http: 45 of 150 rows would disappear, more than 20%" in log
    assert updater.run("--force")[0] == 0
    assert len(updater.rows_of("fingerprints_dns")) == 115
    assert len(updater.rows_of("fingerprints_http")) == 105


@pytest.mark.parametrize("bounds", [{"min_rows": 110}, {"max_rows": 150}])
def test_totals_outside_the_bounds_are_refused(updater: Updater, bounds: dict[str, int]) -> None:
    status, log = updater.run(**bounds)
    assert status == 65
    assert "rows; between" in log
    assert not any(updater.rows_of(table) for table in updater.tables)


LIMITS = Limits(50 * 2**20, retries=1, backoff=0.01)
STALLED = replace(LIMITS, read_timeout=0.5)
BAD_ANSWERS = {
    "an error page": (answer(503, content=b"<html>busy</html>"), 69, "HTTP 503"),
    "not found": (answer(404), 69, "HTTP 404"),
    "half a download": (short_body(b"name,scope", declared=5000), 69, "the body ended too early"),
    "chunks without an end": (unfinished_chunks(b"name,scope"), 69, "the body ended too early"),
    "a gzip bomb": (gzip_bomb(100), 65, "Content-Encoding 'gzip', which nobody asked for"),
    "too large": (zeros(60 * 2**20), 65, "larger than 50,000,000 bytes"),
    "a connection that is cut": (cut(), 69, "the connection broke"),
    "a stall": (stall(b"name,scope" * 10, after=20), 69, "the server sent nothing for too long"),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", BAD_ANSWERS)
def test_a_bad_answer_changes_nothing(
    updater: Updater, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    updater.run()
    upstream.write(dns=upstream.sample.with_added("dns", 5).dns)
    behaviour, expected, reason = BAD_ANSWERS[kind]
    monkeypatch.setattr(fingerprints_updater, "LIMITS", STALLED if kind == "a stall" else LIMITS)
    with MisbehavingServer() as server, updater.unchanged():
        status, log = updater.run(http_url=server.route("/http", behaviour))
    assert status == expected
    assert log.splitlines()[-1].startswith("error: http://127.0.0.1:")
    assert reason in log.splitlines()[-1]


def test_the_time_and_the_bytes_of_a_fetch_are_keys(updater: Updater, upstream: Upstream) -> None:
    status, log = updater.run(max_bytes=len(upstream.sample.http) - 1)
    assert status == 65
    assert f"larger than {len(upstream.sample.http) - 1:,} bytes" in log
    with MisbehavingServer() as server:
        url = server.route("/http", drip(upstream.sample.http, interval=0.01))
        status, log = updater.run(http_url=url, total_time=0.5, max_bytes=10**6)
    assert status == 69
    assert "took longer than 0.5 s" in log
    assert updater.run(total_time=0)[0] == 78


def test_a_redirect_loop_changes_nothing(updater: Updater) -> None:
    updater.run()
    with MisbehavingServer() as server, updater.unchanged():
        url = server.route("/http", redirect("/http"))
        status, log = updater.run(http_url=url)
    assert status == 69
    assert "redirected more than 5 times" in log


def test_a_certificate_that_does_not_verify_changes_nothing(
    updater: Updater, upstream: Upstream
) -> None:
    updater.run()
    with MisbehavingServer(tls="private-ca") as server:
        url = server.route("/http", body(upstream.with_row()))
        with updater.unchanged():
            status, log = updater.run(http_url=url)
        assert status == 69
        assert "TLS: the certificate is refused" in log
        assert updater.run(http_url=url, ca_file=str(server.ca_file))[0] == 0
    assert len(updater.rows_of("fingerprints_http")) == 151


def test_a_database_that_is_down_is_unavailable(updater: Updater) -> None:
    status, log = updater.run("--db-uri", "clickhouse://127.0.0.1:1/default")
    assert status == 69
    assert log.splitlines()[-1].startswith("error: database: ")


def test_many_wrong_regexps_are_told_apart(database: FreshDatabase) -> None:
    db = Database(database.client())
    regexps = [f"({number}" if number % 7 == 0 else f"a{number}+" for number in range(100)]
    wrong = wrong_regexps(db, regexps)
    assert set(wrong) == {regexp for regexp in regexps if regexp.startswith("(")}
    assert wrong["(7"] == "missing ): (7"
    assert wrong_regexps(db, []) == {}


def test_metrics_tell_what_was_done(
    updater: Updater, upstream: Upstream, statsd: StatsdListener
) -> None:
    upstream.write(http=upstream.with_row(pattern=""))
    assert updater.run(statsd=statsd.address)[0] == 0
    received = {
        name.removeprefix("fingerprints_updater."): values
        for name, values in statsd.metrics().items()
    }
    assert received.keys() == {
        "fetch_csv",
        "fingerprints_dns_tmp_len",
        "fingerprints_http_tmp_len",
        "fingerprints_update_progress",
        "absent_nodes",
        "last_success",
        "rejected_rows",
        "run",
        "exit_status",
        "status",
    }
    assert received["status"] == [(1, "g"), (0, "g")]
    assert received["rejected_rows"] == [(1, "g")]
    assert received["fingerprints_dns_tmp_len"] == [(110, "g")]
    assert received["fingerprints_http_tmp_len"] == [(150, "g")]
    assert [value for value, _ in received["fingerprints_update_progress"]] == [0, 30, 60, 100]
    assert received["fetch_csv"][0][1] == "ms"
    assert abs(received["last_success"][0][0] - time.time()) < 600


def test_the_shipped_configuration_holds_every_key_with_its_default() -> None:
    check_shipped_configuration(fingerprints_updater, "update-fingerprints.conf")


def test_a_pair_of_which_a_killed_run_swapped_one_table_is_repaired_by_the_next(
    updater: Updater, upstream: Upstream
) -> None:
    updater.run()
    upstream.write(dns=upstream.sample.with_added("dns", 5).dns, http=upstream.with_row())
    assert updater.run()[0] == 0
    complete = [updater.rows_of(table) for table in updater.tables]
    updater.database.execute("EXCHANGE TABLES fingerprints_http_tmp AND fingerprints_http")
    assert [updater.rows_of(table) for table in updater.tables] != complete
    assert updater.run()[0] == 0
    assert [updater.rows_of(table) for table in updater.tables] == complete
