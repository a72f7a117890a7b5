"""The updater of the ASN metadata as a whole, and the format that it reads."""

import io
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

import asn_map_file
import asnmeta_updater
from asn_map_file import AsnMap
from conftest import Database as FreshDatabase
from dev.samples.asn_map import asn_map as sample_map
from dev.servers.misbehaving import MisbehavingServer, body, short_body, unfinished_chunks
from dev.servers.statsd import StatsdListener
from dev.servers.upstream import SampleUpstream
from ooni_common import __version__
from ooni_common.errors import DataRefused
from updater_harness import Harness, check_shipped_configuration

GOOD = ["Level 3", "US", "20040604", "LVLT-1", "ARIN"]
GOOD_ROW = (1, "Level 3", "US", date(2004, 6, 4), "LVLT-1", "ARIN")


class Updater(Harness):
    """The updater of the ASN metadata."""

    module: ClassVar[ModuleType] = asnmeta_updater
    tables = ("asnmeta",)


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[SampleUpstream]:
    folder = tmp_path / "upstream"
    folder.mkdir()
    (folder / "map.json").write_bytes(sample_map(300, 1000, 1))
    with SampleUpstream(folder) as server:
        yield server


@pytest.fixture
def updater(
    tmp_path: Path,
    database: FreshDatabase,
    upstream: SampleUpstream,
    capsys: pytest.CaptureFixture[str],
) -> Updater:
    made = Updater(tmp_path, database, capsys)
    made.configure(url=upstream.url("map.json"), min_rows=100)
    return made


def write(updater: Updater, content: bytes) -> None:
    """Replace the upstream's file."""
    (updater.folder / "upstream" / "map.json").write_bytes(content)


def expected_rows(document: bytes) -> list[tuple[Any, ...]]:
    """Return what a correct loader gets, computed plainly."""
    rows = {
        (int(asn), org, cc, date.fromisoformat(f"{day[:4]}-{day[4:6]}-{day[6:]}"), aut, source)
        for asn, history in json.loads(document).items()
        for org, cc, day, aut, source in history
    }
    return sorted(rows)


def read(document: bytes) -> tuple[list[tuple[Any, ...]], AsnMap]:
    """Read a document; return its rows and the reader with its findings."""
    reader = AsnMap("map.json", io.BytesIO(document))
    rows = [row for block in reader.blocks() for row in zip(*block.columns, strict=True)]
    return rows, reader


def read_with(asn: str, history: object) -> tuple[list[tuple[Any, ...]], list[str]]:
    """Read one member among enough good ones; return its rows and the findings."""
    document = {asn: history} | {str(number): [GOOD] for number in range(1000, 2000)}
    rows, reader = read(json.dumps(document).encode())
    return [row for row in rows if not 1000 <= row[0] < 2000], reader.refusals


def test_the_first_run_stores_what_was_sent(updater: Updater, upstream: SampleUpstream) -> None:
    status, log = updater.run()
    assert status == 0
    document = (updater.folder / "upstream" / "map.json").read_bytes()
    assert updater.rows_of("asnmeta") == expected_rows(document)
    assert "asnmeta: 1,000 rows (+1,000 -0)" in log


def test_an_unchanged_upstream_costs_one_conditional_request(
    updater: Updater, upstream: SampleUpstream
) -> None:
    updater.run()
    upstream.clear()
    with updater.unchanged():
        status, log = updater.run()
    assert status == 0
    assert [request.status for request in upstream.requests] == [304]
    assert "nothing to do: upstream has nothing new" in log


def test_another_url_is_asked_for_the_whole_map(updater: Updater) -> None:
    """A mirror whose map is older would answer that it is not modified."""
    newer, older = datetime(2026, 8, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)
    with MisbehavingServer() as server:
        document = json.dumps(json.loads(sample_map(300, 1000, 1)) | {"77": [GOOD]})
        first = body(document.encode(), last_modified=newer)
        updater.run(url=server.route("/map.json", first))
        mirror = body(sample_map(300, 1000, 1), last_modified=older)
        assert updater.run(url=server.route("/mirror.json", mirror))[0] == 0
        assert len(updater.rows_of("asnmeta")) == 1000


def test_a_new_document_is_loaded_and_can_be_rolled_back(updater: Updater) -> None:
    updater.run()
    before = updater.rows_of("asnmeta")
    document = json.loads(sample_map(300, 1000, 1)) | {"77": [GOOD]}
    write(updater, json.dumps(document).encode())
    assert updater.run()[0] == 0
    assert len(updater.rows_of("asnmeta")) == 1001
    assert updater.run("--rollback")[0] == 0
    assert updater.rows_of("asnmeta") == before
    with updater.unchanged():
        assert updater.run()[0] == 0


@pytest.mark.parametrize("again", ["--force", "after an upgrade"])
def test_the_same_map_read_once_more_keeps_what_can_be_rolled_back_to(
    updater: Updater, again: str
) -> None:
    updater.run()
    before = updater.rows_of("asnmeta")
    members = json.loads(sample_map(300, 1000, 1)) | {"77": [GOOD], "no number": [GOOD]}
    write(updater, json.dumps(members).encode())
    assert updater.run()[0] == 0
    if again == "--force":
        status, log = updater.run("--force")
    else:
        path = updater.state_dir / "asnmeta_updater.json"
        path.write_text(path.read_text().replace(f'"{__version__}"', '"1.0"'))
        status, log = updater.run()
    assert status == 0
    assert "asnmeta: 1,001 rows, unchanged" in log
    assert "row refused" in log
    assert updater.run("--rollback")[0] == 0
    assert updater.rows_of("asnmeta") == before


def test_the_same_rows_in_another_document_are_said_to_end_the_rollback(updater: Updater) -> None:
    updater.run()
    write(updater, json.dumps(json.loads(sample_map(300, 1000, 1)), indent=1).encode())
    status, log = updater.run()
    assert status == 0
    assert "asnmeta: has the same rows already; asnmeta_tmp has them, too, now: nothing is" in log


def test_a_dry_run_prints_the_difference_and_writes_nothing(updater: Updater) -> None:
    updater.run()
    document = json.loads(sample_map(300, 1000, 1)) | {"77": [GOOD]}
    write(updater, json.dumps(document).encode())
    with updater.unchanged():
        status, printed = updater.run("--dry-run")
    assert status == 0
    assert "+ 77 | Level 3 | US | 2004-06-04 | LVLT-1 | ARIN" in printed


def test_a_document_of_many_pieces_is_read_completely(monkeypatch: pytest.MonkeyPatch) -> None:
    document = sample_map(500, 2000, 3, duplicates=20)
    for size in (1000, 4097, 50_000, 10**6):
        monkeypatch.setattr(asn_map_file, "READ_AT_ONCE", size)
        rows, reader = read(document)
        assert sorted(rows) == expected_rows(document)
        assert (len(rows), reader.refused_rows, reader.read) == (2000, 0, 2020)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n", "\t: ")])
def test_any_white_space_will_do(indent: int | None, separators: tuple[str, str]) -> None:
    document = json.loads(sample_map(50, 200, 1))
    rows, _ = read(f" {json.dumps(document, indent=indent, separators=separators)}\n".encode())
    assert sorted(rows) == expected_rows(json.dumps(document).encode())


@pytest.mark.parametrize("text", ['], "1": [', '"]], "2": [["', "\\", '":', '5":', "}", "]]}"])
def test_texts_that_look_like_the_document_are_texts(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = {str(asn): [[text, "US", "20040604", f"{text}{asn}", text]] for asn in range(500)}
    for size in (100, 1000, 10**6):
        monkeypatch.setattr(asn_map_file, "READ_AT_ONCE", size)
        rows, reader = read(json.dumps(document).encode())
        assert sorted(rows) == expected_rows(json.dumps(document).encode())
        assert reader.refusals == []


@pytest.mark.parametrize(
    ("day", "stored"),
    [
        ("19700101", date(1970, 1, 1)),
        ("21490606", date(2149, 6, 6)),
        ("20240229", date(2024, 2, 29)),
    ],
)
def test_every_date_that_the_database_can_hold_is_loaded(day: str, stored: date) -> None:
    rows, findings = read_with("1", [["org", "US", day, "aut", "ARIN"]])
    assert rows == [(1, "org", "US", stored, "aut", "ARIN")]
    assert findings == []


@pytest.mark.parametrize(
    ("day", "reason"),
    [
        ("19691231", "'19691231' is not from 1970-01-01 to 2149-06-06"),
        ("21490607", "'21490607' is not from 1970-01-01 to 2149-06-06"),
        ("00000000", "'00000000' is not a date like 20040604"),
        ("20210230", "'20210230' is not a date like 20040604"),
        ("2021-02-03", "'2021-02-03' is not a date like 20040604"),
        ("latest", "'latest' is not a date like 20040604"),
        ("", "'' is not a date like 20040604"),
        ("\uff12\uff10\uff12\uff11\uff10\uff12\uff10\uff13", "is not a date like 20040604"),
        (20210203, "field 3 is not text"),
        (None, "field 3 is not text"),
    ],
)
def test_what_is_no_date_is_refused(day: object, reason: str) -> None:
    rows, findings = read_with("1", [GOOD, ["org", "US", day, "aut", "ARIN"]])
    assert rows == [GOOD_ROW]
    (finding,) = findings
    assert finding.startswith("map.json: ASN 1, row 2: ")
    assert reason in finding
    assert finding.isprintable()


@pytest.mark.parametrize("asn", ["0", "1", "4294967295"])
def test_every_asn_is_loaded(asn: str) -> None:
    rows, findings = read_with(asn, [GOOD])
    assert rows == [(int(asn), *GOOD_ROW[1:])]
    assert findings == []


@pytest.mark.parametrize(
    "asn", ["-1", "4294967296", "AS123", " 77 ", "1_000", "+5", "007", "", "1.0", "\u0661", "1e3"]
)
def test_what_is_no_plain_number_is_refused_with_its_history(asn: str) -> None:
    rows, findings = read_with(asn, [GOOD])
    assert rows == []
    assert findings == [f"map.json: ASN {asn!a}: not a plain number from 0 to 4294967295"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (GOOD[:4], "4 fields instead of 5 fields"),
        ([*GOOD, "x"], "6 fields instead of 5 fields"),
        ([], "0 fields instead of 5 fields"),
        (None, "NoneType instead of 5 fields"),
        ("abcde", "str instead of 5 fields"),
        ({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}, "field 1 is not text"),
        ([None, *GOOD[1:]], "field 1 is not text"),
        ([*GOOD[:4], 5], "field 5 is not text"),
        ([["x"], *GOOD[1:]], "field 1 is not text"),
        (["a\0b", *GOOD[1:]], "field 1 has a NUL byte"),
        ([*GOOD[:3], "\0", GOOD[4]], "field 4 has a NUL byte"),
        (["\ud800", *GOOD[1:]], "field 1 has a lone surrogate"),
        ([*GOOD[:4], "\udfff"], "field 5 has a lone surrogate"),
    ],
)
def test_a_row_is_refused_with_asn_row_and_reason(row: object, reason: str) -> None:
    rows, findings = read_with("1", [GOOD, row])
    assert rows == [GOOD_ROW]
    (finding,) = findings
    assert finding.startswith(f"map.json: ASN 1, row 2: {reason}")
    assert finding.isprintable()
    assert len(finding) < 300


@pytest.mark.parametrize("history", [None, 1, "text", {}, True])
def test_a_history_that_is_no_list_is_refused(history: object) -> None:
    rows, findings = read_with("1", history)
    assert rows == []
    assert len(findings) == (0 if history == {} else 1)


def test_bytes_that_are_not_utf_8_are_refused_in_their_row() -> None:
    good = ", ".join(f'"{asn}": [["o", "US", "20040604", "a", "s"]]' for asn in range(2, 500))
    document = b'{"1": [["\xff\xfe", "US", "20040604", "a", "s"]], ' + good.encode() + b"}"
    rows, reader = read(document)
    assert len(rows) == 498
    assert reader.refusals[0].startswith("map.json: ASN 1, row 1: field 1 has a lone surrogate")


def test_a_long_name_an_empty_history_and_names_of_any_language_are_loaded() -> None:
    long = "x" * 70_000
    rows, findings = read_with("1", [[long, "", "20040604", "日本🗾", "é"]])
    assert rows == [(1, long, "", date(2004, 6, 4), "日本🗾", "é")]
    assert read_with("1", []) == ([], [])
    assert findings == []


def test_exact_duplicates_collapse_and_near_ones_stay() -> None:
    by_ripe = [*GOOD[:4], "RIPE"]
    rows, findings = read_with("1", [GOOD, by_ripe, GOOD, GOOD])
    assert rows == [GOOD_ROW, (*GOOD_ROW[:5], "RIPE")]
    assert findings == []


@pytest.mark.parametrize("space", ["", " ", "\n\t"])
def test_an_asn_that_comes_twice_is_refused_the_second_time(
    monkeypatch: pytest.MonkeyPatch, space: str
) -> None:
    members = [f'"{asn}": [["o", "US", "20040604", "a", "s"]]' for asn in range(500)]
    again = members[7].replace(":", space + ":", 1)
    document = ("{" + ", ".join([*members, again]) + "}").encode()
    for size in (200, 10**6):
        monkeypatch.setattr(asn_map_file, "READ_AT_ONCE", size)
        rows, reader = read(document)
        assert len(rows) == 500
        assert reader.refusals == ["map.json: ASN '7': here for the second time"]


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"   ",
        b"[]",
        b"null",
        b"<!DOCTYPE html><html></html>",
        b"{",
        b'{"1": ',
        b'{"1": [["o", "US", "20040604", "a", "s"]]',
        b'{"1": [["o", "US", "20040604", "a", "s"]], ',
        b'{"1": [["o", "US", "20040604", "a", "s"]], "2": [["o", "U',
        b'{"1": [["o", "US", "20040604", "a", "s"]]} trailing',
        b'{"1" [["o"]]}',
        b'{"1": ' + b"[" * 100_000,
        b'{"1": 1' + b"0" * 10_000 + b"}",
    ],
    ids=range(14),
)
@pytest.mark.parametrize("size", [64, 10**6])
def test_what_is_no_whole_document_is_refused(
    document: bytes, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asn_map_file, "READ_AT_ONCE", size)
    with pytest.raises(DataRefused, match=r"^map\.json: "):
        read(document)


def test_an_endless_history_is_refused_before_it_fills_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asn_map_file, "READ_AT_ONCE", 10_000)
    monkeypatch.setattr(asn_map_file, "LONGEST_PIECE", 100_000)
    with pytest.raises(DataRefused, match="no end of an ASN's history"):
        read(b'{"1": [' + b'["o", "US", "20040604", "a", "s"], ' * 10_000)


def test_more_than_one_percent_of_refused_rows_is_refused() -> None:
    def document(bad: int) -> bytes:
        histories = {str(asn): [GOOD] for asn in range(1000 - bad)}
        return json.dumps(histories | {f"x{asn}": [GOOD] for asn in range(bad)}).encode()

    assert len(read(document(10))[0]) == 990
    with pytest.raises(DataRefused, match=r"11 of 1,000 rows are refused, more than 1%"):
        read(document(11))


FIELD = st.text(max_size=6) | st.none() | st.integers() | st.just("20040604")
HISTORY = st.lists(st.lists(FIELD, min_size=4, max_size=6), max_size=4)


@given(st.dictionaries(st.integers(0, 99).map(str) | st.text(max_size=3), HISTORY), st.booleans())
def test_a_piece_read_as_a_whole_gives_what_row_by_row_gives(
    document: dict[str, Any],
    escaped: bool,
) -> None:
    data = json.dumps(document, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    reader, plain = AsnMap("m", io.BytesIO(data)), AsnMap("m", io.BytesIO(data))
    expected = [row for name, history in document.items() for row in plain._rows(name, history)]
    try:
        rows = [row for block in reader.blocks() for row in zip(*block.columns, strict=True)]
    except DataRefused:
        rows = expected
    assert rows == expected
    assert (reader.read, reader.refused_rows, reader.refusals) == (
        plain.read,
        plain.refused_rows,
        plain.refusals,
    )


def test_refused_rows_are_logged_and_the_others_loaded(updater: Updater) -> None:
    document = json.loads(sample_map(300, 1000, 1)) | {"AS5": [GOOD], "5": [[*GOOD, "x"], GOOD]}
    write(updater, json.dumps(document).encode())
    status, log = updater.run()
    assert status == 0
    assert "warning: all_as_org_map.json: ASN 'AS5': not a plain number" in log
    assert "warning: all_as_org_map.json: ASN 5, row 1: 6 fields instead of 5 fields" in log


@pytest.mark.long
@pytest.mark.parametrize("damage", ["cut", "html", "too many refused", "too few", "shrunk"])
def test_a_refused_document_changes_nothing(updater: Updater, damage: str) -> None:
    updater.run()
    document = sample_map(300, 1000, 1)
    changed = {
        "cut": document[: len(document) // 2],
        "html": b"<html>Item not available</html>",
        "too many refused": document.replace(b'["', b'["x", "', 50),
        "too few": sample_map(20, 90, 1),
        "shrunk": sample_map(200, 700, 1),
    }
    write(updater, changed[damage])
    with updater.unchanged():
        status, log = updater.run()
    assert status == 65
    assert "Traceback" not in log


def test_a_download_that_is_cut_off_changes_nothing(
    updater: Updater, monkeypatch: pytest.MonkeyPatch
) -> None:
    updater.run()
    monkeypatch.setattr(
        asnmeta_updater, "LIMITS", asnmeta_updater.LIMITS.__class__(10**8, retries=1, backoff=0.01)
    )
    document = sample_map(310, 1100, 1)
    for behaviour in (
        short_body(document[:20_000], declared=len(document)),
        unfinished_chunks(document[:20_000]),
    ):
        with MisbehavingServer() as server, updater.unchanged():
            status, log = updater.run(url=server.route("/map.json", behaviour))
        assert status == 69
        assert "the body ended too early" in log.splitlines()[-1]


def test_metrics_tell_what_was_done(updater: Updater, statsd: StatsdListener) -> None:
    assert updater.run(statsd=statsd.address)[0] == 0
    received = {
        name.removeprefix("asnmeta_updater."): values for name, values in statsd.metrics().items()
    }
    assert received.keys() == {
        "absent_nodes",
        "asnmeta_tmp_len",
        "asnmeta_update_progress",
        "fetch_data",
        "last_success",
        "rejected_rows",
        "run",
        "exit_status",
        "status",
    }
    assert received["asnmeta_tmp_len"] == [(1000, "g")]
    assert received["rejected_rows"] == [(0, "g")]
    assert [value for value, _ in received["asnmeta_update_progress"]] == [0, 50, 100]


def test_the_shipped_configuration_holds_every_key_with_its_default() -> None:
    check_shipped_configuration(asnmeta_updater, "update-asn-metadata.conf")
