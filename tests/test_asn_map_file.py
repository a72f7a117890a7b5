"""The format of the ASN map: what is a row, what is refused, and which document is none."""

import io
import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import asn_map_file
from asn_map_file import AsnMap
from asn_map_harness import GOOD, expected_rows
from dev.samples.asn_map import asn_map as sample_map
from ooni_common.errors import DataRefused

GOOD_ROW = (1, "Level 3", "US", date(2004, 6, 4), "LVLT-1", "ARIN")


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


def test_a_document_of_many_pieces_is_read_completely(monkeypatch: pytest.MonkeyPatch) -> None:
    document = sample_map(500, 2000, 3, duplicates=20)
    for size in (1000, 4097, 50_000, 10**6):
        monkeypatch.setattr(asn_map_file, "READ_AT_ONCE", size)
        rows, reader = read(document)
        assert sorted(rows) == expected_rows(document)
        assert (len(rows), reader.refused_rows, reader.read) == (2000, 0, 2020)


def test_a_document_without_faults_is_not_gone_through_row_by_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That would take several times as long."""
    monkeypatch.setattr(AsnMap, "_rows", lambda *_: pytest.fail("row by row"))
    document = {str(asn): [GOOD, [*GOOD[:4], "RIPE"]] for asn in (0, 7, 2**32 - 1)}
    rows, reader = read(json.dumps(document).encode())
    assert sorted(rows) == expected_rows(json.dumps(document).encode())
    assert reader.read == 6


def test_a_document_can_be_read_again() -> None:
    reader = AsnMap("map.json", io.BytesIO(json.dumps({"1": [GOOD], "x": [GOOD]}).encode()))
    for _ in range(2):
        blocks = reader.blocks()
        assert [tuple(column) for column in next(blocks).columns] == [(x,) for x in GOOD_ROW]
        with pytest.raises(DataRefused, match="1 of 2 rows are refused, more than 1%"):
            next(blocks)
        assert (reader.read, reader.refused_rows, len(reader.refusals)) == (2, 1, 1)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n", "\t: ")])
@pytest.mark.parametrize("size", [16, 10**6])
def test_any_white_space_will_do(
    indent: int | None, separators: tuple[str, str], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asn_map_file, "READ_AT_ONCE", size)
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


def test_of_a_long_row_the_beginning_is_shown() -> None:
    _, (finding,) = read_with("1", [["x" * 1000]])
    shown = "['" + "x" * 98
    assert finding == f"map.json: ASN 1, row 1: 1 fields instead of 5 fields: {shown}"


def test_the_first_refusals_are_told_and_all_are_counted() -> None:
    document = {str(asn): [GOOD] for asn in range(3000)} | {"1": [GOOD, *[[]] * 25]}
    rows, reader = read(json.dumps(document).encode())
    assert (len(rows), reader.read, reader.refused_rows) == (3000, 3025, 25)
    assert len(reader.refusals) == 20
    assert reader.refusals[-1].startswith("map.json: ASN 1, row 21: 0 fields")


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
    reasons = r"no JSON object|cut off, or no JSON, after \d ASNs"
    with pytest.raises(DataRefused, match=rf"^map\.json: ({reasons})$"):
        read(document)


def test_an_endless_history_is_refused_before_it_fills_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asn_map_file, "READ_AT_ONCE", 10_000)
    monkeypatch.setattr(asn_map_file, "LONGEST_PIECE", 100_000)
    with pytest.raises(DataRefused, match="no end of an ASN's history"):
        read(b'{"1": [' + b'["o", "US", "20040604", "a", "s"], ' * 10_000)


def test_a_history_may_be_long_and_not_endless() -> None:
    rows, _ = read(b'{"1": [' + b" " * 2**20 + json.dumps(GOOD).encode() + b"]}")
    assert rows == [GOOD_ROW]
    with pytest.raises(DataRefused, match="no end of an ASN's history, after 0 ASNs"):
        read(b'{"1": [' + b" " * (32 * 2**20 + 2**19))


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
