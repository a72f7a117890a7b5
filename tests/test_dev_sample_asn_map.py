"""The sample ASN map is in upstream's format, keeps the rules of a loader, as large as asked."""

import json
import re
from collections import Counter
from datetime import date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dev.samples.asn_map import Expected, asn_map, write_asn_map

Row = tuple[str, ...]

MEGABYTE = 10**6


@pytest.fixture(scope="module")
def data() -> bytes:
    """A map of a tenth of the default size."""
    return asn_map(asns=12_000, rows=42_000)


@pytest.fixture(scope="module")
def histories(data: bytes) -> list[tuple[str, list[Row]]]:
    return parse(data)


@pytest.fixture(scope="module")
def rows(histories: list[tuple[str, list[Row]]]) -> list[Row]:
    return [row for _, history in histories for row in history]


def parse(data: bytes) -> list[tuple[str, list[Row]]]:
    """Give the pairs as they are in the file: a dict would hide an ASN that is there twice."""
    pairs: Any = json.loads(data.decode(), object_pairs_hook=list)
    return [(asn, [tuple(row) for row in history]) for asn, history in pairs]


# --- the whole ---


@pytest.mark.long
def test_the_default_size_is_that_of_upstream(tmp_path: Path) -> None:
    path = tmp_path / "all_as_org_map.json"
    expected = write_asn_map(path)
    assert expected == Expected(asns=120_000, rows=420_000)
    assert 28 * MEGABYTE < path.stat().st_size < 34 * MEGABYTE
    found = json.loads(path.read_bytes())
    lengths = [len(history) for history in found.values()]
    assert (len(lengths), sum(lengths)) == (120_000, 420_000)
    assert 80 < max(lengths) < 130


def test_the_file_has_the_bytes_of_the_small_form(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_bytes(b"old content")
    assert write_asn_map(path, asns=2500, rows=6000, seed=3) == Expected(2500, 6000)
    assert path.read_bytes() == asn_map(2500, 6000, seed=3)


def test_the_map_is_one_object_on_one_line(data: bytes) -> None:
    assert re.match(rb'\{"\d+": \[\["', data)
    assert data.endswith(b'"]]}')
    assert not re.search(rb"[\x00-\x1f\x7f]", data)


def test_the_same_seed_gives_the_same_bytes_and_another_others() -> None:
    assert asn_map(20, 60) == asn_map(20, 60)
    assert asn_map(20, 60) != asn_map(20, 60, seed=2)


@pytest.mark.parametrize(
    ("asns", "rows"), [(1, 1), (1, 50), (2, 2), (3, 100), (1999, 1999), (2000, 2001), (2001, 9000)]
)
def test_the_size_is_adjustable(asns: int, rows: int) -> None:
    histories = parse(asn_map(asns, rows))
    assert len({asn for asn, _ in histories}) == len(histories) == asns
    assert sum(len(history) for _, history in histories) == rows


@pytest.mark.parametrize(("asns", "rows"), [(0, 0), (0, 5), (6, 5)])
def test_impossible_sizes_are_refused(asns: int, rows: int) -> None:
    with pytest.raises(ValueError, match=f"{rows} rows can't be shared out among {asns} ASNs"):
        asn_map(asns, rows)


# --- the rules of a row ---


def test_asns_are_plain_numbers_of_two_and_four_bytes_in_ascending_order(
    histories: list[tuple[str, list[Row]]],
) -> None:
    assert all(re.fullmatch(r"[1-9]\d*", asn) for asn, _ in histories)
    numbers = [int(asn) for asn, _ in histories]
    assert numbers == sorted(set(numbers))
    assert (numbers[0], numbers[-1]) == (1, 4_294_967_295)
    assert sum(number < 65_536 for number in numbers) > 3000
    assert sum(number >= 65_536 for number in numbers) > 3000


def test_every_row_is_five_strings(rows: list[Row]) -> None:
    assert {len(row) for row in rows} == {5}
    assert {type(cell) for row in rows for cell in row} == {str}


def test_countries_are_two_letters_or_seldom_none(rows: list[Row]) -> None:
    assert all(re.fullmatch(r"([A-Z]{2})?", row[1]) for row in rows)
    assert 0 < sum(not row[1] for row in rows) < len(rows) // 200


def test_dates_are_real_ones_from_1980_to_2026(rows: list[Row]) -> None:
    texts = {row[2] for row in rows}
    assert all(re.fullmatch(r"\d{8}", text) for text in texts)
    days = {datetime.strptime(text, "%Y%m%d").date() for text in texts}  # noqa: DTZ007 - a day
    assert date(1980, 1, 1) <= min(days) < date(1981, 1, 1)
    assert date(2026, 1, 1) <= max(days) <= date(2026, 12, 31)


def test_the_source_is_a_registry(rows: list[Row]) -> None:
    known = {"ARIN", "RIPE", "APNIC", "LACNIC", "AFRINIC", "JPNIC", "KRNIC"}
    assert {row[4] for row in rows} == known


def test_no_name_has_a_nul_byte_or_a_lone_surrogate(rows: list[Row]) -> None:
    text = "".join(row[0] + row[3] for row in rows)
    assert "\0" not in text
    assert text.encode("utf-8", "strict")


def test_every_organisation_has_a_name(rows: list[Row]) -> None:
    assert all(row[0] for row in rows)


def test_no_row_is_there_twice(histories: list[tuple[str, list[Row]]]) -> None:
    assert all(len(set(history)) == len(history) for _, history in histories)


def test_a_history_is_in_order_and_each_change_is_one(
    histories: list[tuple[str, list[Row]]],
) -> None:
    for _, history in histories:
        days = [row[2] for row in history]
        assert days == sorted(set(days))
        assert all(old[:2] != new[:2] for old, new in pairwise(history))


def test_most_histories_are_short_and_some_are_long(
    histories: list[tuple[str, list[Row]]],
) -> None:
    lengths = [len(history) for _, history in histories]
    assert sorted(lengths)[len(lengths) // 2] <= 2
    assert max(lengths) > 60


def test_wanted_duplicates_come_on_top_of_the_rows() -> None:
    histories = parse(asn_map(asns=10, rows=30, duplicates=13))
    counts = [Counter(history) for _, history in histories]
    assert sum(count.total() for count in counts) == 30 + 13
    assert sum(len(count) for count in counts) == 30
    plain = parse(asn_map(asns=10, rows=30))
    assert [(asn, set(history)) for asn, history in histories] == [
        (asn, set(history)) for asn, history in plain
    ]


# --- what a parser stumbles over ---


@pytest.mark.parametrize(
    "part",
    [
        rb'\\"',
        rb"\\\\",
        rb"\\/",
        rb"\\t",
        rb"\\u00f6",
        rb"\\ud83c\\udf10",
        "ö".encode(),
        "🌐".encode(),
        "𠮷".encode(),
        "株".encode(),
        rb"\\u682a",
        rb"\\u2028",
        "\u2028".encode(),
        rb'"[^"]{300}',
    ],
    ids=[
        "quote",
        "backslash",
        "escaped slash",
        "tab",
        "escaped two-byte",
        "escaped surrogate pair",
        "raw two-byte",
        "raw four-byte",
        "raw four-byte ideograph",
        "raw three-byte",
        "escaped three-byte",
        "escaped line separator",
        "raw line separator",
        "long name",
    ],
)
def test_names_are_encoded_in_every_way_there_is(data: bytes, part: bytes) -> None:
    assert re.search(part, data)
