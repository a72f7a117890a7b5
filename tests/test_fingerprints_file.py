"""The format of the fingerprints: what is a row, what is refused, and which file is broken."""

import re
from pathlib import Path

import pytest

from dev.samples.fingerprints import HEADER, to_csv
from fingerprints_file import KINDS, PATTERN_TYPES, Fingerprints, read_fingerprints, row_digest
from fingerprints_harness import GOOD

TABLES_SQL = Path(__file__).parents[1] / "analysis" / "tables.sql"
DNS, HTTP = "fingerprints_dns", "fingerprints_http"


def row(**cells: str) -> list[str]:
    """Return GOOD, but for some cells."""
    return [cells.get(name, cell) for name, cell in zip(HEADER, GOOD, strict=True)]


def read(*rows: list[str], table: str = HTTP) -> Fingerprints:
    """Read a file of some rows."""
    return read_fingerprints(f"{table}.csv", to_csv(rows), KINDS[table])


def test_a_row_has_the_cells_of_the_file_and_the_confidence_as_a_number() -> None:
    result = read(GOOD)
    assert result.rows == [(*GOOD[:6], 5, *GOOD[7:])]
    assert (result.refusals, result.refused, result.broken) == ([], set(), None)
    assert result.lines == {"made.it_1": 2}


@pytest.mark.parametrize("table", KINDS)
def test_scopes_and_pattern_types_are_those_of_the_tables(table: str) -> None:
    statement = re.search(rf"EXISTS {table}\n.*?\nENGINE", TABLES_SQL.read_text(), re.DOTALL)
    assert statement
    enums = dict(re.findall(r"`(\w+)` Enum\((.*)\)", statement[0]))
    for column, names in (("scope", KINDS[table].scopes), ("pattern_type", PATTERN_TYPES)):
        assert enums[column] == ", ".join(f"'{name}' = {number}" for name, number in names.items())
    assert re.findall(r"^    `(\w+)`", statement[0], re.MULTILINE) == list(HEADER)


SCOPES = ("nat", "isp", "prod", "inst", "vbw", "fp")
ACCEPTED = {
    HTTP: [
        *({"scope": scope} for scope in (*SCOPES, "injb", "prov")),
        *({"pattern_type": kind} for kind in ("full", "prefix", "contains", "regexp")),
        *({"confidence_no_fp": number} for number in ("0", "1", "9", "10")),
        *({"expected_countries": cell} for cell in ("", "IT", "it, fr", "ZZ", " ZZ ,,DE", "zz")),
        {"location_found": "body"},
        {"location_found": "header.server"},
        {"location_found": "header.x-a_b|1"},
        {"pattern_type": "prefix", "pattern": "four"},
        {"pattern_type": "contains", "pattern": "four"},
        {"pattern_type": "full", "pattern": "x"},
        {"pattern_type": "regexp", "pattern": "x"},
        {"pattern_type": "regexp", "pattern": "x" * 10_000},
        {"pattern_type": "contains", "pattern": "x" * 10_001},
        {"pattern_type": "full", "pattern": " \r\n "},
    ],
    DNS: [{"location_found": "dns", "scope": scope} for scope in SCOPES],
}


@pytest.mark.parametrize(
    ("table", "cells"), [(table, cells) for table, each in ACCEPTED.items() for cells in each]
)
def test_what_the_fastpath_knows_is_accepted(table: str, cells: dict[str, str]) -> None:
    result = read(row(**cells), table=table)
    assert [str(refusal) for refusal in result.refusals] == []
    (stored,) = result.rows
    assert [str(cell) for cell in stored] == [
        cell if name in ("pattern", "notes") else cell.strip()
        for name, cell in zip(HEADER, row(**cells), strict=True)
    ]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"name": ""}, "no name"),
        ({"scope": "x"}, "scope 'x' is none of nat, isp, prod, inst, vbw, fp, injb, prov"),
        ({"scope": ""}, "scope '' is none of"),
        ({"location_found": "x"}, "location_found 'x' is not body or header.NAME in lower case"),
        ({"location_found": "header.Server"}, "location_found 'header.Server' is not"),
        ({"location_found": "header."}, "location_found 'header.' is not"),
        ({"location_found": "bodyx"}, "location_found 'bodyx' is not"),
        ({"pattern_type": "x"}, "pattern type 'x' is none of full, prefix, contains, regexp"),
        ({"pattern": ""}, "an empty pattern, which everything would match"),
        ({"pattern": "abc"}, "contains 'abc' is shorter than 4 characters"),
        ({"pattern_type": "prefix", "pattern": "\u00e9\n"}, r"prefix '\xe9\n' is shorter than 4"),
        (
            {"pattern_type": "regexp", "pattern": "x" * 10_001},
            "a regular expression of more than 10,000 characters",
        ),
        ({"confidence_no_fp": "11"}, "confidence '11' is not a whole number from 0 to 10"),
        ({"confidence_no_fp": "5.0"}, "confidence '5.0' is not"),
        ({"confidence_no_fp": "-1"}, "confidence '-1' is not"),
        ({"confidence_no_fp": ""}, "confidence '' is not"),
        ({"expected_countries": "Italy"}, "countries 'Italy' are not two-letter codes"),
        ({"expected_countries": "IT;FR"}, "countries 'IT;FR' are not two-letter codes"),
        ({"expected_countries": "IT,1"}, "countries 'IT,1' are not two-letter codes"),
    ],
)  # fmt: skip
def test_a_row_is_refused_with_its_line_and_reason(cells: dict[str, str], reason: str) -> None:
    refused = row(**cells)
    result = read(row(name="first"), refused, row(name="last"))
    (refusal,) = result.refusals
    assert (refusal.file, refusal.line) == ("fingerprints_http.csv", 3)
    assert refusal.reason.startswith(reason)
    assert [stored[0] for stored in result.rows] == ["first", "last"]
    assert result.refused == {row_digest(refused)}
    assert result.causes() == {refusal.reason: 1}


def test_a_name_that_comes_twice_is_refused_with_the_line_of_the_first() -> None:
    result = read(row(name="a"), row(name="b"), row(name="a", pattern="another one"))
    assert [(one.line, one.reason) for one in result.refusals] == [
        (4, "the name is in line 2 already")
    ]
    assert [stored[0] for stored in result.rows] == ["a", "b"]


def test_what_was_read_as_good_can_be_refused_later() -> None:
    result = read(row(name="a"), row(name="b", confidence_no_fp="10"), row(name="c"))
    result.refuse_rows({"b": "it matches everything", "x": "it is not there"})
    assert [stored[0] for stored in result.rows] == ["a", "c"]
    (refusal,) = result.refusals
    assert (refusal.line, refusal.reason) == (3, "it matches everything")
    assert refusal.shown.startswith("'b,isp,,body,contains,")
    # It is known by the row as it is in the file, whichever way it was refused.
    assert result.refused == {row_digest(row(name="b", confidence_no_fp="10"))}


def test_a_refused_row_is_known_by_32_digits_and_by_its_cells() -> None:
    assert re.fullmatch("[0-9a-f]{32}", row_digest(GOOD))
    assert row_digest(["a", "b", ""]) != row_digest(["a", "", "b"])
    assert row_digest(["ab"]) != row_digest(["a", "b"])


@pytest.mark.parametrize("exact", ["other_names", "pattern", "source", "exp_url", "notes"])
def test_cells_that_nobody_looks_up_are_kept_byte_for_byte(exact: str) -> None:
    (stored,) = read(row(**{exact: " cell of text\t"})).rows
    assert stored[HEADER.index(exact)] == " cell of text\t"
    (stored,) = read(row(name=" made.it ", scope="isp ")).rows
    assert stored[:2] == ("made.it", "isp")


def test_a_file_that_can_not_be_read_is_broken_with_its_line() -> None:
    content = to_csv([GOOD]) + b'"open'
    result = read_fingerprints("f.csv", content, KINDS[HTTP])
    assert result.broken is not None
    assert str(result.broken) == "f.csv:3: unbalanced quotes"
    assert len(result.rows) == 1
