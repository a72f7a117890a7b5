"""The sample fingerprints are in upstream's format, keep the rules of a loader, never change."""

import csv
import io
import re
from pathlib import Path
from typing import cast, get_args

import clickhouse_driver
import pytest

from conftest import ClickHouseServer
from dev.samples.fingerprints import HEADER, Kind, SampleFingerprints, to_csv

KINDS = get_args(Kind)
SCOPES = {
    "dns": {"nat", "isp", "prod", "inst", "vbw", "fp"},
    "http": {"nat", "isp", "prod", "inst", "vbw", "fp", "injb", "prov"},
}
PATTERN_TYPES = {"full", "prefix", "contains", "regexp"}
NAME, SCOPE, OTHER_NAMES, LOCATION, PATTERN_TYPE, PATTERN, CONFIDENCE, COUNTRIES = range(8)
OPTIONAL = ("other_names", "expected_countries", "source", "exp_url", "notes")


@pytest.fixture(scope="module")
def sample() -> SampleFingerprints:
    """The default files."""
    return SampleFingerprints()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return cast("Kind", request.param)


def file_of(sample: SampleFingerprints, kind: Kind) -> bytes:
    return sample.dns if kind == "dns" else sample.http


def parse(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))


# --- the files ---


def test_the_files_parse_back_to_the_exact_rows(sample: SampleFingerprints, kind: Kind) -> None:
    header, *rows = parse(file_of(sample, kind))
    assert ",".join(header) == (
        "name,scope,other_names,location_found,pattern_type,pattern,"
        "confidence_no_fp,expected_countries,source,exp_url,notes"
    )
    assert rows == sample.rows(kind)


def test_there_are_about_as_many_rows_as_upstream_has(sample: SampleFingerprints) -> None:
    assert (len(sample.rows("dns")), len(sample.rows("http"))) == (230, 1750)
    assert len(sample.dns) > 25_000
    assert len(sample.http) > 200_000


def test_all_lines_end_in_crlf(sample: SampleFingerprints, kind: Kind) -> None:
    data = file_of(sample, kind)
    assert data.endswith(b"\r\n")
    assert data.count(b"\n") == data.count(b"\r") == data.count(b"\r\n")


def test_the_same_seed_gives_the_same_bytes_and_another_others() -> None:
    first, same, other = (SampleFingerprints(seed, dns=20, http=20) for seed in (1, 1, 2))
    assert (first.dns, first.http) == (same.dns, same.http)
    assert first.dns != other.dns
    assert first.http != other.http


@pytest.mark.parametrize("count", [0, 1, 7])
def test_the_number_of_rows_is_adjustable(count: int) -> None:
    sample = SampleFingerprints(dns=count, http=count + 1)
    assert len(parse(sample.dns)) == count + 1
    assert len(parse(sample.http)) == count + 2


# --- the rules of a row ---


def test_every_row_has_the_right_number_of_cells_and_its_own_name(
    sample: SampleFingerprints,
) -> None:
    rows = sample.rows("dns") + sample.rows("http")
    assert {len(row) for row in rows} == {11}
    assert len({row[NAME] for row in rows}) == len(rows)
    assert all(re.fullmatch(r"[a-z]+\.[a-z0-9_]+", row[NAME]) for row in rows)


def test_all_scopes_of_a_table_occur_and_no_other(sample: SampleFingerprints, kind: Kind) -> None:
    assert {row[SCOPE] for row in sample.rows(kind)} == SCOPES[kind]


def test_all_pattern_types_occur_and_no_other(sample: SampleFingerprints, kind: Kind) -> None:
    assert {row[PATTERN_TYPE] for row in sample.rows(kind)} == PATTERN_TYPES


def test_confidences_are_all_the_integers_from_0_to_10(
    sample: SampleFingerprints, kind: Kind
) -> None:
    assert {row[CONFIDENCE] for row in sample.rows(kind)} == {str(value) for value in range(11)}


def test_countries_are_none_one_or_several_two_letter_codes(
    sample: SampleFingerprints, kind: Kind
) -> None:
    cells = [row[COUNTRIES] for row in sample.rows(kind)]
    assert all(re.fullmatch(r"([A-Z]{2}(,[A-Z]{2})*)?", cell) for cell in cells)
    assert {0, 2, 5} <= {len(cell) for cell in cells}


def test_no_pattern_is_empty(sample: SampleFingerprints, kind: Kind) -> None:
    assert all(row[PATTERN] for row in sample.rows(kind))


def test_every_regexp_compiles_in_python_and_in_the_database(
    sample: SampleFingerprints, clickhouse_server: ClickHouseServer
) -> None:
    rows = sample.rows("dns") + sample.rows("http")
    patterns = sorted({row[PATTERN] for row in rows if row[PATTERN_TYPE] == "regexp"})
    assert len(patterns) > 50
    assert all(re.compile(pattern) for pattern in patterns)
    with clickhouse_driver.Client.from_url(clickhouse_server.uri()) as client:
        query = "SELECT countIf(match(materialize(''), pattern)) FROM values('pattern String', {})"
        literals = ", ".join(f"unhex('{pattern.encode().hex()}')" for pattern in patterns)
        assert client.execute(query.format(literals)) == [(0,)]


def test_dns_patterns_are_only_looked_for_in_dns(sample: SampleFingerprints) -> None:
    assert {row[LOCATION] for row in sample.rows("dns")} == {"dns"}
    locations = {row[LOCATION] for row in sample.rows("http")}
    assert {"body", "header.location", "header.server", "header.via"} == locations


def test_optional_cells_are_sometimes_empty_and_sometimes_not(
    sample: SampleFingerprints, kind: Kind
) -> None:
    for column in OPTIONAL:
        filled = [bool(row[HEADER.index(column)]) for row in sample.rows(kind)]
        assert set(filled) == {True, False}, column


def test_patterns_are_about_no_host_that_exists(sample: SampleFingerprints) -> None:
    text = (sample.dns + sample.http).decode()
    hosts = re.findall(r"https?:[\\/]+([\w.-]*\w)", text)
    assert hosts
    assert all(host.endswith(".example") for host in hosts)


# --- what a loader stumbles over ---


@pytest.mark.parametrize("rows", [150, 1750])
def test_at_least_six_http_patterns_contain_crlf(rows: int) -> None:
    patterns = [row[PATTERN] for row in SampleFingerprints(http=rows).rows("http")]
    assert sum("\r\n" in pattern for pattern in patterns) >= 6


@pytest.mark.parametrize(
    "part",
    [
        '"',
        "'",
        ",",
        r"\\",
        "<title>",
        "^ ",
        r"\t",
        "%s",
        r"[\u0431-\u044f]",
        r"[\u0621-\u064a]",
        "[一-龥]",
        "[가-힣]",
        r"\r\n$",
        r"^\r\n",
        "(?s).{400}",
    ],
)
def test_small_files_have_the_unusual_patterns_as_well(part: str) -> None:
    patterns = [row[PATTERN] for row in SampleFingerprints(http=300).rows("http")]
    assert any(re.search(part, pattern) for pattern in patterns)


def test_some_cells_have_quotes_that_they_do_not_need(sample: SampleFingerprints) -> None:
    assert b',"ZZ",' in sample.dns
    assert b',"ZZ",' in sample.http


def test_cells_are_quoted_only_where_upstream_does() -> None:
    row = [" space", 'a"b', "a,b", "a\r\nb", "a\nb", "", "ZZ", "a\\b", "ж"]
    written = to_csv([row], header=["x"])
    assert written == ('x\r\n space,"a""b","a,b","a\r\nb","a\nb",,"ZZ",a\\b,ж\r\n'.encode())


# --- changed copies ---


def test_added_rows_come_at_the_end_and_the_original_stays(kind: Kind) -> None:
    sample = SampleFingerprints(dns=10, http=10)
    before = file_of(sample, kind)
    added = sample.with_added(kind, 5)
    assert file_of(sample, kind) == before
    assert len(added.rows(kind)) == 15
    assert file_of(added, kind).startswith(before)
    assert added.rows(kind) == SampleFingerprints(dns=15, http=15).rows(kind)


def test_a_change_of_one_file_leaves_the_other(kind: Kind) -> None:
    sample = SampleFingerprints(dns=10, http=10)
    other: Kind = "http" if kind == "dns" else "dns"
    assert file_of(sample.with_added(kind, 1), other) == file_of(sample, other)


def test_removed_rows_are_the_last_and_their_names_never_come_back(kind: Kind) -> None:
    sample = SampleFingerprints(dns=10, http=10)
    removed = sample.with_removed(kind, 4)
    assert removed.rows(kind) == sample.rows(kind)[:6]
    names = {row[NAME] for row in sample.rows(kind)}
    assert names.isdisjoint(row[NAME] for row in removed.with_added(kind, 4).rows(kind)[6:])


def test_more_rows_than_there_are_cannot_be_removed(kind: Kind) -> None:
    assert SampleFingerprints(dns=3, http=3).with_removed(kind, 9).rows(kind) == []


def test_any_rows_can_stand_in_for_the_generated_ones(kind: Kind) -> None:
    sample = SampleFingerprints(dns=3, http=3).with_rows(kind, [["too", "short"]])
    assert file_of(sample, kind) == to_csv([["too", "short"]])


def test_changing_the_rows_that_were_given_out_changes_no_sample(kind: Kind) -> None:
    sample = SampleFingerprints(dns=3, http=3)
    before = file_of(sample, kind)
    rows = sample.rows(kind)
    copy = sample.with_rows(kind, rows)
    rows[0][NAME] = "changed"
    rows.clear()
    assert file_of(sample, kind) == file_of(copy, kind) == before


# --- against upstream's own files ---


def test_the_real_files_have_the_same_header_and_line_ends(
    real_fingerprints_dns: Path, real_fingerprints_http: Path
) -> None:
    ours = to_csv([])
    for path in (real_fingerprints_dns, real_fingerprints_http):
        data = path.read_bytes()
        assert data.startswith(ours)
        assert data.count(b"\n") == data.count(b"\r\n")


def test_the_real_rows_are_written_as_they_stand_but_for_needless_quotes(
    real_fingerprints_dns: Path, real_fingerprints_http: Path
) -> None:
    for path in (real_fingerprints_dns, real_fingerprints_http):
        data = path.read_bytes()
        written = to_csv(parse(data)[1:])
        assert parse(written) == parse(data)
        assert without_needless_quotes(written) == without_needless_quotes(data)


def without_needless_quotes(data: bytes) -> bytes:
    return re.sub(rb'(?<=,)"([^",\r\n]+)"(?=,|\r\n)', rb"\1", data)
