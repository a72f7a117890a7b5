"""The sample test lists are in upstream's format, as `expected` says, every time the same."""

import csv
import io
import re
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

import pytest

from dev.samples.git import git_environment
from dev.samples.test_lists import HEADER, Damage, SampleTestLists, list_path
from dev.servers.git import GitServer

GIGABYTE = 10**9


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> SampleTestLists:
    """The default lists; not to be changed."""
    lists = SampleTestLists(tmp_path_factory.mktemp("full"))
    lists.create()
    return lists


@pytest.fixture
def lists(tmp_path: Path) -> SampleTestLists:
    """Small lists of a few countries."""
    sample = SampleTestLists(tmp_path)
    sample.create(rows=300, countries=["it", "fr", "de"])
    return sample


def git(lists: SampleTestLists, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments],
        cwd=lists.repository,
        env=git_environment(),
        capture_output=True,
        check=True,
        text=True,
    ).stdout


def rows_of(lists: SampleTestLists, cc: str) -> list[list[str]]:
    text = lists.read(list_path(cc)).decode()
    header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert tuple(header) == HEADER
    assert all(len(row) == len(HEADER) for row in rows)
    return rows


@pytest.fixture(scope="module")
def urls(full: SampleTestLists) -> list[str]:
    return [row[0] for cc in full.expected.per_cc for row in rows_of(full, cc)]


# --- the lists ---


def test_there_are_as_many_rows_as_expected(full: SampleTestLists) -> None:
    counted = {cc: len(rows_of(full, cc)) for cc in full.expected.per_cc}
    assert counted == full.expected.per_cc
    assert full.expected.total == 25_000


@pytest.mark.parametrize("rows", [4, 57, 40_000])
def test_the_number_of_rows_is_adjustable(tmp_path: Path, rows: int) -> None:
    sample = SampleTestLists(tmp_path)
    sample.create(rows=rows, countries=["it", "fr", "de"])
    assert sum(len(rows_of(sample, cc)) for cc in ("ZZ", "it", "fr", "de")) == rows
    assert sample.expected.total == rows


def test_fewer_rows_than_lists_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 rows are too few for 4 lists"):
        SampleTestLists(tmp_path).create(rows=3, countries=["it", "fr", "de"])


def test_the_files_are_those_that_upstream_has(full: SampleTestLists) -> None:
    paths = set(git(full, "ls-tree", "-r", "--name-only", "master").split())
    assert {
        "README.md",
        "lists/global.csv",
        "lists/cis.csv",
        "lists/it.csv",
        "lists/00-LEGEND-category_codes.csv",
        "lists/00-LEGEND-country_codes.csv",
        "lists/00-LEGEND-new_category_codes.csv",
    } <= paths
    assert len([path for path in paths if re.fullmatch(r"lists/[a-z]{2}\.csv", path)]) >= 60


def test_a_stem_that_is_no_country_is_not_expected(full: SampleTestLists) -> None:
    assert rows_of(full, "cis")
    assert "cis" not in full.expected.per_cc


def test_every_category_is_in_the_legend_and_every_legend_code_is_used(
    full: SampleTestLists,
) -> None:
    text = full.read("lists/00-LEGEND-new_category_codes.csv").decode()
    legend = {row[1]: row[0] for row in list(csv.reader(io.StringIO(text)))[1:]}
    used = {(row[1], row[2]) for cc in full.expected.per_cc for row in rows_of(full, cc)}
    assert used == set(legend.items())
    assert len(legend) == 31


def test_a_url_is_once_in_a_list_and_sometimes_in_several(
    full: SampleTestLists, urls: list[str]
) -> None:
    for cc in full.expected.per_cc:
        assert max(Counter(row[0] for row in rows_of(full, cc)).values()) == 1
    assert max(Counter(urls).values()) > 1


@pytest.mark.parametrize(
    "pattern",
    [
        r"http://.*",
        r"https://.*",
        r"https?://[^/]*[A-Z].*",
        r"https?://[^/]*[a-z]\./.*",
        r"https?://[\d.]+/.*",
        r"https?://\[[\da-f:]+\]/.*",
        r"https?://[^/\[]*:\d+/.*",
        r"https?://[^/]*[^\x00-\x7f].*",
        r"https?://xn--.*",
        r"https?://[^/]*_.*",
        r"https?://[^/]*/.*[^\x00-\x7f].*",
        r"https?://.*\?.{200,}",
        r"https?://[^/]*",
    ],
    ids=[
        "http",
        "https",
        "upper-case host",
        "trailing dot",
        "IPv4",
        "IPv6",
        "port",
        "IDN",
        "punycode",
        "underscore",
        "path beyond ASCII",
        "long query",
        "no path",
    ],
)
def test_urls_of_every_kind_are_there(urls: list[str], pattern: str) -> None:
    assert any(re.fullmatch(pattern, url) for url in urls)


def test_no_url_is_of_a_site_that_exists(urls: list[str]) -> None:
    for host in {urlsplit(url).hostname or "" for url in urls}:
        assert host.rstrip(".").endswith(".example") or host.startswith(("192.0.2.", "2001:db8::"))


def test_notes_have_commas_quotes_and_line_breaks(full: SampleTestLists) -> None:
    notes = "".join(row[5] for row in rows_of(full, "ZZ"))
    assert all(character in notes for character in ',"\né')


def test_some_lists_have_windows_line_ends(full: SampleTestLists) -> None:
    first_lines = [
        full.read(list_path(cc)).splitlines(keepends=True)[0] for cc in full.expected.per_cc
    ]
    windows = [line.endswith(b"\r\n") for line in first_lines]
    assert 5 < sum(windows) < len(windows) / 2


def test_the_same_seed_gives_the_same_commits(tmp_path: Path) -> None:
    heads = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        sample = SampleTestLists(tmp_path / name)
        sample.create(rows=300, countries=["it", "fr"], seed=seed)
        sample.add_rows("it", 3)
        heads.append(sample.head())
    assert heads[0] == heads[1] != heads[2]


def test_creating_the_repository_is_quick(tmp_path: Path) -> None:
    start = time.process_time()
    SampleTestLists(tmp_path).create()
    assert time.process_time() - start < 3  # seconds; it takes half a second on a laptop


def test_an_existing_repository_is_not_overwritten(lists: SampleTestLists) -> None:
    head = lists.head()
    with pytest.raises(FileExistsError):
        SampleTestLists(lists.repository.parent).create()
    assert lists.head() == head


def test_the_repository_is_sound(lists: SampleTestLists) -> None:
    lists.add_rows("it", 1)
    assert git(lists, "fsck", "--strict", "--no-dangling") == ""
    assert git(lists, "symbolic-ref", "HEAD") == "refs/heads/master\n"


# --- commits ---


def test_a_commit_is_on_top_of_the_one_before(lists: SampleTestLists) -> None:
    first = lists.head()
    second = lists.commit("Change", {"a/b.txt": b"text", "README.md": None})
    assert second == lists.head()
    assert git(lists, "rev-list", "master").split() == [second, first]
    assert lists.read("a/b.txt") == b"text"
    assert "README.md" not in git(lists, "ls-tree", "--name-only", "master").split()


def test_added_rows_are_expected(lists: SampleTestLists) -> None:
    before = lists.expected
    lists.add_rows("it", 5)
    assert lists.expected.per_cc == before.per_cc | {"it": before.per_cc["it"] + 5}
    assert len(rows_of(lists, "it")) == lists.expected.per_cc["it"]


def test_removed_rows_are_not_expected(lists: SampleTestLists) -> None:
    before = lists.expected
    rows = rows_of(lists, "ZZ")
    lists.remove_rows("ZZ", 5)
    assert lists.expected.total == before.total - 5
    assert rows_of(lists, "ZZ") == rows[:-5]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("at_end", ["", "\n"])
def test_added_rows_keep_the_line_ends(lists: SampleTestLists, line_end: str, at_end: str) -> None:
    text = f"{','.join(HEADER)}\nhttp://a.example/,NEWS,News Media,2024-01-01,,{at_end}"
    lists.commit("Convert", {"lists/it.csv": text.replace("\n", line_end).encode()})
    lists.add_rows("it", 1)
    content = lists.read("lists/it.csv").decode()
    assert content.startswith(text.rstrip("\n").replace("\n", line_end) + line_end + "http")
    assert len(rows_of(lists, "it")) == 2


def test_an_empty_country_has_a_header_and_is_not_expected(lists: SampleTestLists) -> None:
    lists.empty_country("it")
    assert rows_of(lists, "it") == []
    assert set(lists.expected.per_cc) == {"ZZ", "fr", "de"}


def test_a_deleted_list_is_not_expected(lists: SampleTestLists) -> None:
    lists.commit("Delete", {"lists/it.csv": None})
    assert set(lists.expected.per_cc) == {"ZZ", "fr", "de"}


@pytest.mark.parametrize("how", get_args(Damage))
def test_a_broken_file_differs_and_is_expected_as_before(
    lists: SampleTestLists, how: Damage
) -> None:
    before, content = lists.expected, lists.read("lists/it.csv")
    lists.break_file("it", how)
    assert lists.read("lists/it.csv") != content
    assert lists.expected == before


def test_a_broken_file_can_be_repaired(lists: SampleTestLists) -> None:
    before, content = lists.expected, lists.read("lists/it.csv")
    lists.break_file("it", "quote")
    lists.commit("Repair", {"lists/it.csv": content})
    assert lists.expected == before
    assert rows_of(lists, "it")


# --- trees that git would not make ---


def test_a_crafted_tree_keeps_what_it_does_not_replace(lists: SampleTestLists) -> None:
    lists.commit_tree(
        [
            ("120000", "lists/it.csv", b"/etc/passwd"),
            ("160000", "lists/fr.csv", "1" * 40),
            ("100755", "lists/de.csv/below", b"#!/bin/sh\n"),
        ]
    )
    listing = git(lists, "ls-tree", "-r", "master")
    modes = {line.split("\t")[1]: line.split()[0] for line in listing.splitlines()}
    assert modes["lists/it.csv"] == "120000"
    assert modes["lists/fr.csv"] == "160000"
    assert modes["lists/de.csv/below"] == "100755"
    assert modes["lists/global.csv"] == "100644"
    assert "lists/de.csv" not in modes


def test_a_crafted_tree_can_stand_alone(lists: SampleTestLists) -> None:
    lists.commit_tree([("100644", "only", b"text")], keep=False)
    assert git(lists, "ls-tree", "-r", "--name-only", "master") == "only\n"


@pytest.mark.parametrize(
    "path", ["../escaped", ".git/hooks/post-checkout", "lists/../escaped", "lists/.GIT/config"]
)
def test_git_refuses_to_check_out_hostile_names(
    lists: SampleTestLists, tmp_path: Path, path: str
) -> None:
    lists.commit_tree([("100755", path, b"#!/bin/sh\n")])
    assert path in git(lists, "ls-tree", "-r", "--name-only", "master").split("\n")
    cloned = clone(lists, tmp_path / "copy")
    assert cloned.returncode != 0
    assert "invalid path" in cloned.stderr


def test_trees_are_in_gits_order(lists: SampleTestLists) -> None:
    lists.commit_tree([("100644", path, b"") for path in ("a/b", "a.c", "a0", "a-b")], keep=False)
    assert git(lists, "fsck", "--strict", "--no-dangling") == ""


def test_lists_go_on_after_a_crafted_tree(lists: SampleTestLists) -> None:
    lists.commit_tree([("120000", "lists/it.csv", b"/etc/passwd")])
    lists.add_rows("fr", 1)
    assert git(lists, "ls-tree", "master", "lists/it.csv").startswith("120000")


# --- large files ---


@pytest.mark.parametrize("size", [0, 1, 1024 * 1024, 5 * 1024 * 1024 + 3])
def test_a_sparse_blob_has_its_size_and_is_sound(lists: SampleTestLists, size: int) -> None:
    lists.commit_tree([("100644", "lists/zz.csv", lists.add_sparse_blob(size))])
    assert lists.read("lists/zz.csv") == bytes(size)
    assert git(lists, "fsck", "--strict", "--no-dangling") == ""


def test_two_sparse_blobs_go_together(lists: SampleTestLists, tmp_path: Path) -> None:
    sizes = {"a": 1_000_000, "b": 2_000_000}
    lists.commit_tree(
        [("100644", name, lists.add_sparse_blob(size)) for name, size in sizes.items()]
    )
    assert clone(lists, tmp_path / "copy").returncode == 0
    assert {name: (tmp_path / "copy" / name).stat().st_size for name in sizes} == sizes


def test_two_gigabytes_take_two_megabytes_here_and_seconds_to_make(lists: SampleTestLists) -> None:
    start = time.process_time()
    oid = lists.add_sparse_blob(2 * GIGABYTE)
    assert time.process_time() - start < 20  # seconds; it takes about 1.3
    assert git(lists, "cat-file", "-s", oid) == f"{2 * GIGABYTE}\n"
    files = lists.repository.rglob("*")
    assert sum(file.stat().st_size for file in files) < 5_000_000


def clone(lists: SampleTestLists, to: Path) -> subprocess.CompletedProcess[str]:
    with GitServer(lists.repository.parent) as server:
        return subprocess.run(
            ["git", "clone", "--quiet", "--depth=1", server.url("test-lists"), str(to)],
            env=git_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
