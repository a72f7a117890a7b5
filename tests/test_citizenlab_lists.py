"""The format of the test lists: what is a row, what is refused, and which file is broken."""

import itertools
import json
import re
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citizenlab.lists import Format, TestList, country_of, read_categories, read_list, read_lists
from citizenlab.urls import HOST, PLAIN_URL, domain_of
from csv_source import BrokenFileError

HEADER = "url,category_code,category_description,date_added,source,notes\n"
GOOD = "https://example.org/,NEWS,News Media,2024-01-01,citizenlab,\n"
CODES = "New Code"
HOW = Format("url", "category_code", frozenset({"NEWS", "HUMR"}))


def read(content: str | bytes) -> TestList:
    data = content.encode() if isinstance(content, str) else content
    return read_list("lists/it.csv", "it", data, HOW)


def rows_of(result: TestList) -> list[tuple[str, ...]]:
    return list(zip(*result.rows.block().columns, strict=True)) if result.rows.count else []


def read_row(row: str) -> TestList:
    return read(HEADER + GOOD + row + "\n")


def test_a_row_has_the_domain_the_url_as_it_stands_the_country_and_the_category() -> None:
    result = read(HEADER + "https://WWW.Example.org.:8080/Path?q=1#x,HUMR,d,d,s,n\n")
    assert rows_of(result) == [
        ("www.example.org", "https://WWW.Example.org.:8080/Path?q=1#x", "it", "HUMR")
    ]
    assert (result.refusals, result.warnings, result.broken) == ([], [], None)


def test_columns_are_found_by_name_and_others_are_ignored() -> None:
    result = read("category_code,extra,url\nNEWS,x,https://example.org/\n")
    assert rows_of(result) == [("example.org", "https://example.org/", "it", "NEWS")]


def test_quoted_cells_may_hold_commas_quotes_and_two_line_breaks() -> None:
    result = read_row('https://two.org/,NEWS,d,d,s,"a ""quoted"", note\nof three\r\nlines"')
    assert [row[0] for row in rows_of(result)] == ["example.org", "two.org"]
    assert not result.broken


LONG_HOST = ".".join(["a" * 63] * 3 + ["a" * 61])  # the longest


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_any_line_end_will_do_and_empty_lines_are_nothing(line_end: str) -> None:
    result = read((HEADER + "\n" + GOOD + "\n\n").replace("\n", line_end))
    assert result.rows.count == 1
    assert (result.refusals, result.broken) == ([], None)


@pytest.mark.parametrize(
    ("url", "domain"),
    [
        ("http://example.org", "example.org"),
        ("HTTPS://EXAMPLE.ORG/", "example.org"),
        ("http://example.org./", "example.org"),
        ("http://example.org:8080", "example.org"),
        ("http://example.org?query", "example.org"),
        ("http://example.org#fragment", "example.org"),
        ("http://my_site.example.org/", "my_site.example.org"),
        ("http://_dmarc.example.org/", "_dmarc.example.org"),
        ("http://192.0.2.1/", "192.0.2.1"),
        ("http://192.0.2.1:8080/", "192.0.2.1"),
        ("http://[2001:DB8::1]/", "2001:db8::1"),
        ("http://[2001:db8::1]:8080/", "2001:db8::1"),
        ("http://bücher.example/", "xn--bcher-kva.example"),
        ("http://BÜCHER.example/", "xn--bcher-kva.example"),
        ("http://пример.рф/", "xn--e1afmkfd.xn--p1ai"),
        ("http://例え。テスト/", "xn--r8jz45g.xn--zckzah"),
        ("http://a_b.пример.рф/", "a_b.xn--e1afmkfd.xn--p1ai"),
        ("http://xn--e1afmkfd.xn--p1ai/", "xn--e1afmkfd.xn--p1ai"),
        ("http://example.org/пример?ü", "example.org"),
        ("http://example.org/@user", "example.org"),
        ("http://example.org/a|b^c", "example.org"),
        (f"http://{'a' * 63}.org/", f"{'a' * 63}.org"),
        ("HTTP://a.org:1/", "a.org"),
        ("http://a.org:65535/", "a.org"),
        (f"http://{LONG_HOST}", LONG_HOST),
        (f"HTTP://{LONG_HOST}", LONG_HOST),
    ],
)
def test_the_domain_is_lower_case_punycode_without_final_dot_and_port(
    url: str, domain: str
) -> None:
    assert domain_of(url) == domain


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("ftp://a.org/,NEWS,d,d,s,", "the URL does not start with http:// or https://"),
        ("a.org,NEWS,d,d,s,", "the URL does not start with http:// or https://"),
        (",NEWS,d,d,s,", "the URL does not start with http:// or https://"),
        ("//a.org/,NEWS,d,d,s,", "the URL does not start with http:// or https://"),
        ("://a.org/,NEWS,d,d,s,", "the URL does not start with http:// or https://"),
        ("javascript:http://a.org/,NEWS,d,d,s,", "the URL does not start with http://"),
        ("http://a.org/a b,NEWS,d,d,s,", "the URL has a space or a control character"),
        ("http://a.org/\x07,NEWS,d,d,s,", "the URL has a space or a control character"),
        ("http://a.org/\x7f,NEWS,d,d,s,", "the URL has a space or a control character"),
        ("http://a.org/\u00a0x,NEWS,d,d,s,", "the URL has a space or a control character"),
        ("http://a.org/\u202egro,NEWS,d,d,s,", "the URL has a space or a control character"),
        ('"http://a.org/\nx",NEWS,d,d,s,', "the URL has a space or a control character"),
        ("http://a.org\\x,NEWS,d,d,s,", "the URL has a backslash"),
        ("http://a.org/\\x,NEWS,d,d,s,", "the URL has a backslash"),
        ("http://user@a.org/,NEWS,d,d,s,", "the URL has user information before its host"),
        ("http://user:pw@a.org/,NEWS,d,d,s,", "the URL has user information before its host"),
        ("http://a.org:0/,NEWS,d,d,s,", "bad port '0'"),
        ("http://a.org:65536/,NEWS,d,d,s,", "bad port '65536'"),
        ("http://a.org:http/,NEWS,d,d,s,", "bad port 'http'"),
        ("http://a.org:/,NEWS,d,d,s,", "bad port ''"),
        ("http://a.org:80:80/,NEWS,d,d,s,", "bad port '80:80'"),
        ("http://a.org:٨٠/,NEWS,d,d,s,", "bad port"),
        ("http://[::1]:99999/,NEWS,d,d,s,", "bad port '99999'"),
        ("http:///path,NEWS,d,d,s,", "bad host '': it has only one label"),
        (f"http://{LONG_HOST}a,NEWS,d,d,s,", "bad host"),
        (f"HTTP://{LONG_HOST}a,NEWS,d,d,s,", "bad host"),
        ("http://localhost/,NEWS,d,d,s,", "bad host 'localhost': it has only one label"),
        ("http://localhost./,NEWS,d,d,s,", "bad host 'localhost.': it has only one label"),
        ("http://999.999.999.999/,NEWS,d,d,s,", "not an IPv4 address"),
        ("http://1.2.3/,NEWS,d,d,s,", "not an IPv4 address"),
        ("http://2130706433/,NEWS,d,d,s,", "not an IPv4 address"),
        ("http://1.2.3.4.5/,NEWS,d,d,s,", "not an IPv4 address"),
        ("http://a.0x7f/,NEWS,d,d,s,", "not an IPv4 address"),
        ("http://[2001:db8::zz]/,NEWS,d,d,s,", "not an IPv6 address"),
        ("http://[192.0.2.1]/,NEWS,d,d,s,", "not an IPv6 address"),
        ("http://[fe80::1%eth0]/,NEWS,d,d,s,", "not an IPv6 address"),
        ("http://[::1/,NEWS,d,d,s,", "bad port"),
        ("http://a..org/,NEWS,d,d,s,", "bad host 'a..org'"),
        ("http://.a.org/,NEWS,d,d,s,", "bad host '.a.org'"),
        ("http://a.org../,NEWS,d,d,s,", "bad host 'a.org..'"),
        ("http://-a.org/,NEWS,d,d,s,", "bad host '-a.org'"),
        ("http://a!b.org/,NEWS,d,d,s,", "bad host 'a!b.org'"),
        ("http://a%2eb.org/,NEWS,d,d,s,", "bad host 'a%2eb.org'"),
        ("http://a\u2100b.org/,NEWS,d,d,s,", "bad host"),
        (f"http://{'a' * 64}.org/,NEWS,d,d,s,", "bad host"),
        (f"http://{'a.' * 127}org/,NEWS,d,d,s,", "bad host"),
        ("http://a.org/,NONE,d,d,s,", "category code 'NONE' is not in the legend"),
        ("http://a.org/,news,d,d,s,", "category code 'news' is not in the legend"),
        ("http://a.org/,,d,d,s,", "category code '' is not in the legend"),
        ("http://a.org/,NEWS,d,d,s", "5 columns instead of 6"),
        ("http://a.org/", "1 column instead of 6"),
        ("http://a.org/,NEWS,d,d,s,,x", "7 columns instead of 6"),
        (HEADER.strip(), "the header again"),
        (GOOD.strip(), "the URL is in line 2 already"),
    ],
)
def test_a_row_is_refused_with_file_line_and_reason(row: str, reason: str) -> None:
    result = read_row(row)
    (finding,) = result.refusals
    assert (finding.file, finding.line) == ("lists/it.csv", 3)
    assert finding.reason.startswith(reason) or reason in finding.reason
    assert str(finding).startswith("lists/it.csv:3: ")
    assert str(finding).isprintable()
    assert result.rows.count == 1
    assert result.broken is None


def test_empty_extra_cells_at_the_end_are_only_a_warning() -> None:
    result = read_row("http://a.org/,NEWS,d,d,s,,,")
    assert result.rows.count == 2
    assert [str(warning) for warning in result.warnings] == [
        "lists/it.csv:3: empty extra cells at the end"
    ]


def test_a_byte_order_mark_is_only_a_warning() -> None:
    result = read("\ufeff" + HEADER + GOOD)
    assert result.rows.count == 1
    assert [warning.reason for warning in result.warnings] == ["starts with a byte order mark"]


def test_the_line_of_a_finding_is_the_first_of_its_record() -> None:
    result = read_row('http://b.org/,NEWS,d,d,s,"two\nlines"\nhttp://bad/,NEWS,d,d,s,"x\ny"')
    assert [finding.line for finding in result.refusals] == [5]


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (HEADER + GOOD + "http://caf\u00e9.org/", 3, "not UTF-8"),
        (HEADER + GOOD + "http://a.org/\0,NEWS,d,d,s,\n", 3, "a NUL byte"),
        ("domain,category_code\n", 1, "the header lacks the column 'url'"),
        ("url,code\n", 1, "the header lacks the column 'category_code'"),
        ("url,category_code,url\n", 1, "the header repeats the column 'url'"),
        (HEADER + "<<<<<<< HEAD\n" + GOOD, 2, "a merge conflict marker"),
        (HEADER + GOOD + "=======\n", 3, "a merge conflict marker"),
        (HEADER + GOOD + ">>>>>>> branch\r\n", 3, "a merge conflict marker"),
        ("<<<<<<< HEAD\n" + HEADER, 1, "a merge conflict marker"),
        (HEADER + GOOD + 'http://a.org/,NEWS,"d,d,s,\n', 3, "unbalanced quotes"),
        (HEADER + 'http://a.org/,NEWS,"d"d,d,s,\n', 2, "unbalanced quotes"),
        (HEADER + 'http://a.org/,NEWS,d,d,s,"1\n2\n3\n4"\n', 2, "more than 2 line breaks"),
        (HEADER + GOOD + f"http://a.org/{'x' * 200_000},NEWS,d,d,s,\n", 3, "field larger"),
        ("<!DOCTYPE html>\n<html></html>", 1, "HTML instead of CSV"),
        ("\n  <html>\n", 1, "HTML instead of CSV"),
        ("version https://git-lfs.github.com/spec/v1\n", 1, "a Git LFS pointer"),
        ("", 1, "no header"),
        ("\n\n", 1, "no header"),
        (GOOD, 1, "no header"),
        (HEADER + GOOD + "bad\n" * 6, 3, "6 of 7 rows are refused, from here on"),
    ],
)
def test_a_file_is_broken_with_line_and_reason(content: str, line: int, reason: str) -> None:
    encoding = "latin-1" if "\u00e9" in content else "utf-8"
    result = read(content.encode(encoding))
    assert result.broken is not None
    assert result.broken.file == "lists/it.csv"
    assert result.broken.line == line
    assert reason in result.broken.reason


def test_up_to_five_refused_rows_and_up_to_a_tenth_do_not_break_a_file() -> None:
    assert not read(HEADER + "bad\n" * 5).broken
    good = "".join(f"https://{number}.org/,NEWS,d,d,s,\n" for number in range(90))
    assert not read(HEADER + good + "bad\n" * 10).broken
    assert read(HEADER + good + "bad\n" * 11).broken


@pytest.mark.parametrize(
    ("file", "cc"),
    [
        ("lists/it.csv", "it"),
        ("lists/IT.csv", "it"),
        ("lists/global.csv", "ZZ"),
        ("lists/cis.csv", None),
        ("lists/00-LEGEND-country_codes.csv", None),
        ("lists/i1.csv", None),
        ("lists/ит.csv", None),
    ],
)
def test_the_country_is_the_files_stem(file: str, cc: str | None) -> None:
    assert country_of(file) == cc


def test_categories_are_the_new_codes_of_the_legend() -> None:
    legend = b'Category Description,New Code,Replaces\nNews,NEWS,"A, B"\nRights,HUMR,X\n'
    assert read_categories(legend, CODES) == {"NEWS", "HUMR"}


@pytest.mark.parametrize("legend", [b"", b"a,b\n", b"Category Description,New Code\n", b"\xff\n"])
def test_a_legend_without_codes_is_broken(legend: bytes) -> None:
    with pytest.raises(BrokenFileError):
        read_categories(legend, CODES)


@given(st.binary(max_size=200))
def test_whatever_a_file_holds_it_is_rows_and_findings_and_no_crash(junk: bytes) -> None:
    for content in (junk, HEADER.encode() + GOOD.encode() + junk):
        result = read(content)
        for row in rows_of(result):
            assert all(cell.isprintable() and cell for cell in row)


@given(st.text(max_size=40))
def test_a_domain_is_lower_case_ascii_or_the_url_is_refused(rest: str) -> None:
    try:
        domain = domain_of(f"http://{rest}")
    except ValueError:
        return
    assert domain.isascii()
    assert domain == domain.lower()
    assert not set(domain) & set("/?#@ \\")


LABELS = ["a", "-a", "a-", "_a_", "a-9", "a--b", "A", "", "a" * 63, "a" * 64, f"{'a' * 62}-"]


@pytest.mark.parametrize("end", ["org", "x", "o9"])
def test_the_quick_look_at_a_url_takes_the_hosts_that_the_careful_one_does(end: str) -> None:
    for labels in [*itertools.product(LABELS), *itertools.product(LABELS, LABELS)]:
        host = ".".join([*labels, end])
        plain = PLAIN_URL.fullmatch(f"https://{host}/")
        is_plain = HOST.fullmatch(host) and re.fullmatch("[a-z]{2,63}", end)
        assert (plain[1] if plain else "") == (host if is_plain else "")


def test_the_real_lists_load_completely(real_test_lists: Path, real_test_list_counts: Path) -> None:
    expected = json.loads(real_test_list_counts.read_text())
    with tarfile.open(real_test_lists) as archive:
        files = {
            member.name.partition("/")[2]: archive.extractfile(member)
            for member in archive
            if member.name.endswith(".csv")
        }
        contents = {name: file.read() for name, file in files.items() if file}
    categories = read_categories(contents["lists/00-LEGEND-new_category_codes.csv"], CODES)
    how = Format("url", "category_code", categories)
    lists = read_lists(contents.items(), how)
    assert {test_list.cc: test_list.rows.count for test_list in lists} == expected["per_cc"]
    assert sum(test_list.rows.count for test_list in lists) == expected["rows"] == 38_867
    assert not any(test_list.refusals or test_list.broken for test_list in lists)
    assert len(lists) == expected["files_loaded"]
