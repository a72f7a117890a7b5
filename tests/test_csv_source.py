"""CSV of upstreams: what is repaired, what is refused, and which file is broken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csv_source import MOST_REFUSALS, BrokenFileError, Layout, ParsedFile, read_rows

LAYOUT = Layout(["url", "code"], most_line_breaks=2)
EXACT = Layout(["name", "pattern"], exact=frozenset({"pattern"}))

Rows = list[tuple[int, list[str]]]


def read(text: str, layout: Layout = LAYOUT) -> tuple[Rows, ParsedFile]:
    result = ParsedFile("a.csv")
    return list(read_rows(result, text.encode(), layout)), result


def warnings_of(result: ParsedFile) -> list[str]:
    return [str(warning).removeprefix("a.csv:") for warning in result.warnings]


UNTIDY = {
    "a byte order mark": ("\ufeffurl,code,note\na,N,\n", "1: starts with a byte order mark"),
    "blanks in the header": ("url , code,note\na,N,\n", "1: blanks around the name of a column"),
    "a comma at the header's end": (
        "url,code,note,\na,N,\n",
        "1: empty extra cells at the end of the header",
    ),
    "commas and blanks at the header's end": (
        "url,code,note, ,,\na,N,\n",
        "1: empty extra cells at the end of the header",
    ),
    "a comma at the end of a row": ("url,code,note\na,N,,\n", "2: empty extra cells at the end"),
    "blanks and commas at the end": (
        "url,code,note\na,N,, ,\t,\n",
        "2: empty extra cells at the end",
    ),
    "a blank at the end of a cell": ("url,code,note\na ,N,\n", "2: blanks around a cell"),
    "a blank before a cell": ("url,code,note\n a,N,\n", "2: blanks around a cell"),
    "a blank after a comma": ("url,code,note\na, N,\n", "2: blanks around a cell"),
    "a tab and a no-break space": ("url,code,note\n\ta\u00a0,N,\n", "2: blanks around a cell"),
    "a line end in a quoted cell": ('url,code,note\n"a\n",N,\n', "2: blanks around a cell"),
    "a row of commas": ("url,code,note\n,,\na,N,\n", "2: an empty row"),
    "a row of blanks": ("url,code,note\n   \na,N,\n", "2: an empty row"),
    "a row of more commas": ("url,code,note\na,N,\n,,,,,\n", "3: an empty row"),
}


@pytest.mark.parametrize(("text", "warning"), UNTIDY.values(), ids=UNTIDY)
def test_what_is_only_untidy_is_repaired_and_is_a_warning(text: str, warning: str) -> None:
    rows, result = read(text)
    assert [cells for _, cells in rows] == [["a", "N"]]
    assert warning in warnings_of(result)
    assert (result.refusals, result.broken) == ([], None)


def test_a_header_with_a_comma_too_many_fits_rows_with_and_without_it() -> None:
    rows, result = read("url,code,\na,N\nb,N,\nc,N,,\nd,N,x\n")
    assert [cells[0] for _, cells in rows] == ["a", "b", "c", "d"]
    assert result.refusals == []
    assert warnings_of(result) == [
        "1: empty extra cells at the end of the header",
        "4: empty extra cells at the end",
    ]


def test_a_kind_of_warning_is_one_with_the_number_of_its_lines() -> None:
    rows, result = read("url,code\n" + "a ,N\n" * 650)
    assert len(rows) == 650
    assert warnings_of(result) == ["2: blanks around a cell (and 649 more lines)"]


def test_a_quoted_cell_may_come_after_a_blank() -> None:
    rows, result = read('url,code\na, "N, or M"\n "b", N\n')
    assert rows == [(2, ["a", "N, or M"]), (3, ["b", "N"])]
    assert result.refusals == []


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        (' "url",code\na,N\n', True),
        ('url,code\n "a",N\n', True),
        ('url,code\na,    "N"\n', True),
        ('url,code\nsay "hi",b\na, "N"\n', True),
        ('url,code\n"say ""hi ""x",b\na, "N"\n', True),
        ('url,code\nsay "hi", N\n', False),
        ('url,code\nsay ""hi "", N\n', False),
    ],
)
def test_a_cell_is_quoted_after_blanks_where_it_begins_there(text: str, *, quoted: bool) -> None:
    rows, result = read(text)
    assert rows[-1][1][1] == "N"
    assert (result.refusals, [w.reason for w in result.warnings]) == (
        [],
        [] if quoted else ["blanks around a cell"],
    )


def test_columns_are_found_by_name_in_any_order_and_others_are_ignored() -> None:
    rows, _ = read("code,more,url\nN,x,a\n")
    assert rows == [(2, ["a", "N"])]


@pytest.mark.parametrize("pattern", [" a", "a ", "\ta", "a\r\n", "\ufeffa", "a, b", 'a, "b', " "])
def test_exact_cells_are_kept_byte_for_byte_and_others_are_stripped(pattern: str) -> None:
    quoted = pattern.replace('"', '""')
    rows, result = read(f'name,pattern\r\n x ,"{quoted}"\r\n', EXACT)
    assert rows == [(2, ["x", pattern])]
    assert warnings_of(result) == ["2: blanks around a cell"]


def test_an_exact_cell_keeps_the_blank_before_it_without_quotes() -> None:
    rows, _ = read('name,pattern\nx, y\nz, "quoted"\n', EXACT)
    assert rows == [(2, ["x", " y"]), (3, ["z", ' "quoted"'])]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a", "1 column instead of 3"),
        ("a,N", "2 columns instead of 3"),
        ("a,N,,x", "4 columns instead of 3"),
        ("url,code,note", "the header again"),
        (" url, code,note", "the header again"),
    ],
)
def test_a_row_that_cannot_be_read_is_refused_and_the_others_are_kept(
    row: str, reason: str
) -> None:
    rows, result = read(f"url,code,note\na,N,\n{row}\nb,N,\n")
    assert [line for line, _ in rows] == [2, 4]
    (refusal,) = result.refusals
    assert (refusal.line, refusal.reason) == (3, reason)
    assert str(refusal) == f"a.csv:3: {reason}: {row!r}"
    assert result.causes() == {reason: 1}


def test_of_a_refused_row_a_hundred_characters_are_shown() -> None:
    _, result = read(f"url,code\n{'x' * 100}\n{'x' * 101}\nd,\u00e9\u202e,\u00e9\n")
    assert [refusal.shown for refusal in result.refusals] == [
        f"'{'x' * 100}'",
        f"'{'x' * 100}\\u2026'",
        r"'d,\xe9\u202e,\xe9'",
    ]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("link,code\n", 1, "the header lacks the column 'url': it is 'link,code'"),
        ("url,code,url\n", 1, "the header repeats the column 'url': it is 'url,code,url'"),
        ("http://a.org/,N\n", 1, "no header"),
        ("", 1, "no header"),
        (",,\n", 1, "no header"),
        ("url,code\n<<<<<<< HEAD\n", 2, "a merge conflict marker"),
        ('url,code\na,N\n"b,N\n', 3, "unbalanced quotes"),
        ('url,code\na,"1\n2\n3\n4"\n', 2, "unbalanced quotes: a cell has more than 2 line breaks"),
        ("url,code\na,\0\n", 2, "a NUL byte"),
        ("\nurl,code\na,\0\n", 3, "a NUL byte"),
        ("\nurl,code\n|||||||\n", 3, "a merge conflict marker"),
        ("url,code\r\na,N\r\n=======\r\n", 3, "a merge conflict marker"),
        ("url,code\na,N\n>>>>>>> branch", 3, "a merge conflict marker"),
        ("code\n", 1, "the header lacks the column 'url': it is 'code'"),
        ("url,code,http://a.org/\n", 1, "no header"),
        ("url,code\n" + "x\n" * (MOST_REFUSALS + 2), MOST_REFUSALS + 3, "more than 10,000 rows"),
    ],
)
def test_a_file_is_broken_with_line_and_reason(text: str, line: int, reason: str) -> None:
    with pytest.raises(BrokenFileError) as caught:
        read(text)
    assert caught.value.line == line
    assert caught.value.reason.startswith(reason)


@pytest.mark.parametrize("cell", ["=======", "a >>>>>>> b", "<<<<<<<<", "=========", "=======x"])
def test_what_looks_like_a_conflict_marker_within_a_row_is_text(cell: str) -> None:
    rows, result = read(f"url,code\n{cell},N\n")
    assert rows == [(2, [cell, "N"])]
    assert result.refusals == []


def test_two_line_breaks_in_each_of_several_cells_are_no_open_quote() -> None:
    rows, _ = read('url,code\n"1\n2\r\n3","4\r5\n6"\nb,N\n')
    assert rows == [(2, ["1\n2\r\n3", "4\r5\n6"]), (7, ["b", "N"])]


def test_a_ragged_row_has_a_thousand_cells_at_most() -> None:
    layout = Layout(["code"], ragged=True)
    for cells, refusals in ((1000, 0), (1001, 1)):
        _, result = read("code,more\n" + ",".join(["N"] * cells) + "\n", layout)
        assert len(result.refusals) == refusals


def test_ragged_rows_are_read_as_far_as_they_have_what_is_needed() -> None:
    layout = Layout(["code"], ragged=True)
    rows, result = read("name,code,text\na,N\nb,M,x,y\nc\n", layout)
    assert [cells for _, cells in rows] == [["N"], ["M"]]
    assert [refusal.line for refusal in result.refusals] == [4]


@given(st.text(max_size=200))
def test_whatever_a_file_holds_it_is_rows_and_findings_and_no_crash(junk: str) -> None:
    for layout, header in ((LAYOUT, "url,code\n"), (EXACT, "name,pattern\n")):
        result = ParsedFile("a.csv")
        try:
            for _, cells in read_rows(result, (header + junk).encode(errors="replace"), layout):
                assert len(cells) == 2
        except BrokenFileError:
            continue
        assert all(str(finding) for finding in result.refusals + result.warnings)
