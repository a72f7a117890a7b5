"""The samples are in upstream's format, have what a loader stumbles over, and never change."""

import csv
import gzip
import io
import json
import re
import subprocess
from collections import Counter
from datetime import date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import geoip2.database
import maxminddb
import pytest

from dev.samples.asn_map import asn_map, write_asn_map
from dev.samples.fingerprints import HEADER, Protocol, SampleFingerprints, to_csv
from dev.samples.geoip import ASN, COUNTRY, WELL_KNOWN, write_database, write_month
from dev.samples.git import git_environment
from dev.samples.test_lists import LIST_HEADER, Damage, SampleTestLists, list_path

Row = tuple[str, ...]

# What only the whole of the sample has, and a test of an updater relies on.
KINDS_OF_URLS = [
    r"http://.*",
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
]
KINDS_OF_PATTERNS = [
    '"', "'", ",", r"\\", "<title>", "^ ", r"\t", "%s", r"[\u0431-\u044f]", r"\r\n$", r"^\r\n",
    "(?s).{400}",
]  # fmt: skip
KINDS_OF_NAMES = [
    rb'\\"', rb"\\\\", rb"\\/", rb"\\t", rb"\\u00f6", rb"\\ud83c\\udf10", "ö".encode(),
    "🌐".encode(), "𠮷".encode(), rb"\\u682a", rb"\\u2028", "\u2028".encode(), rb'"[^"]{300}',
]  # fmt: skip


# --- CitizenLab's test lists ---


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
    assert tuple(header) == LIST_HEADER
    assert {len(row) for row in rows} <= {len(LIST_HEADER)}
    return rows


def test_test_lists_are_like_upstreams_and_as_expected(tmp_path: Path) -> None:
    lists = SampleTestLists(tmp_path)
    lists.create()
    assert git(lists, "fsck", "--strict", "--no-dangling") == ""
    rows = {cc: rows_of(lists, cc) for cc in lists.expected.per_cc}
    assert {cc: len(of_cc) for cc, of_cc in rows.items()} == lists.expected.per_cc
    assert (lists.expected.total, len(rows) > 60) == (25_000, True)
    urls = [row[0] for of_cc in rows.values() for row in of_cc]
    assert [kind for kind in KINDS_OF_URLS if not any(re.fullmatch(kind, url) for url in urls)] == (
        []
    )
    assert all(character in "".join(row[5] for row in rows["ZZ"]) for character in ',"\né')
    assert {lists.read(list_path(cc)).split(b"\n", 1)[0][-1:] for cc in rows} == {b"\r", b"s"}
    # A list of a region is there, and a loader takes none of it.
    assert rows_of(lists, "cis")
    assert "cis" not in rows


def test_the_same_seed_gives_the_same_commits(tmp_path: Path) -> None:
    heads = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        sample = SampleTestLists(tmp_path / name)
        sample.create(rows=300, countries=["it", "fr"], seed=seed)
        sample.add_rows("it", 3)
        heads.append(sample.head())
    assert heads[0] == heads[1] != heads[2]


def test_what_is_expected_follows_the_commits(lists: SampleTestLists) -> None:
    counts = lists.expected.per_cc
    lists.add_rows("it", 5)
    lists.remove_rows("ZZ", 5)
    lists.empty_country("fr")
    lists.commit("Delete", {"lists/de.csv": None})
    assert lists.expected.per_cc == {"ZZ": counts["ZZ"] - 5, "it": counts["it"] + 5}
    for cc, count in {**lists.expected.per_cc, "fr": 0}.items():
        assert len(rows_of(lists, cc)) == count


@pytest.mark.parametrize("how", get_args(Damage))
def test_a_broken_file_differs_and_is_expected_as_before(
    lists: SampleTestLists, how: Damage
) -> None:
    expected, content = lists.expected, lists.read("lists/it.csv")
    lists.break_file("it", how)
    assert lists.read("lists/it.csv") != content
    assert lists.expected == expected


def test_a_crafted_tree_has_what_git_would_not_make_and_keeps_the_rest(
    lists: SampleTestLists,
) -> None:
    size = 5 * 1024 * 1024 + 3
    lists.commit_tree(
        [
            ("120000", "lists/it.csv", b"/etc/passwd"),
            ("160000", "lists/fr.csv", "1" * 40),
            ("100755", ".git/hooks/post-checkout", b"#!/bin/sh\n"),
            ("100644", "lists/zz.csv", lists.add_sparse_blob(size)),
        ]
    )
    listing = git(lists, "ls-tree", "-r", "master")
    modes = {line.split("\t")[1]: line.split()[0] for line in listing.splitlines()}
    assert modes["lists/it.csv"] == "120000"
    assert modes["lists/fr.csv"] == "160000"
    assert modes[".git/hooks/post-checkout"] == "100755"
    assert modes["lists/global.csv"] == "100644"
    assert lists.read("lists/zz.csv") == bytes(size)
    assert sum(file.stat().st_size for file in lists.repository.rglob("*.pack")) < size / 500
    lists.commit_tree([("100644", path, b"") for path in ("a/b", "a.c", "a0", "a-b")], keep=False)
    assert git(lists, "ls-tree", "-r", "--name-only", "master") == "a-b\na.c\na/b\na0\n"


# --- fingerprints ---


def parse(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))


def test_fingerprints_are_like_upstreams() -> None:
    sample, small = SampleFingerprints(), SampleFingerprints(dns=110, http=150)
    for data, count in ((sample.dns, 230), (sample.http, 1750)):
        header, *rows = parse(data)
        assert (tuple(header), len(rows)) == (HEADER, count)
        assert data.count(b"\n") == data.count(b"\r") == data.count(b"\r\n")
        assert len({row[0] for row in rows}) == count
        assert {row[4] for row in rows} == {"full", "prefix", "contains", "regexp"}
        assert {row[6] for row in rows} == {str(number) for number in range(11)}
        assert all(re.fullmatch(r"([A-Z]{2}(,[A-Z]{2})*)?", row[7]) for row in rows)
        assert b',"ZZ",' in data
    patterns = [row[5] for row in parse(small.http)]
    missing = [
        kind
        for kind in KINDS_OF_PATTERNS
        if not any(re.search(kind, pattern) for pattern in patterns)
    ]
    assert missing == []
    assert SampleFingerprints(2, dns=110, http=150).http != small.http
    assert SampleFingerprints(dns=110, http=150).http == small.http


@pytest.mark.parametrize("protocol", get_args(Protocol))
def test_changed_fingerprints_leave_the_rest_as_it_is(protocol: Protocol) -> None:
    sample = SampleFingerprints(dns=10, http=10)
    rows = parse(getattr(sample, protocol))
    assert parse(getattr(sample.with_added(protocol, 5), protocol))[:11] == rows
    fewer = sample.with_removed(protocol, 4)
    assert parse(getattr(fewer, protocol)) == rows[:7]
    again = parse(getattr(fewer.with_added(protocol, 4), protocol))
    assert {row[0] for row in again[7:]}.isdisjoint(row[0] for row in rows)
    assert parse(getattr(sample, protocol)) == rows


def test_the_real_fingerprints_are_written_as_they_stand_but_for_needless_quotes(
    real_fingerprints_dns: Path, real_fingerprints_http: Path
) -> None:
    for path in (real_fingerprints_dns, real_fingerprints_http):
        data = path.read_bytes()
        written = to_csv(parse(data)[1:])
        assert parse(written) == parse(data)
        assert without_needless_quotes(written) == without_needless_quotes(data)


def without_needless_quotes(data: bytes) -> bytes:
    return re.sub(rb'(?<=,)"([^",\r\n]+)"(?=,|\r\n)', rb"\1", data)


# --- the map of ASNs to organisations ---


def histories_of(data: bytes) -> list[tuple[str, list[Row]]]:
    """Give the pairs as they are in the file: a dict would hide an ASN that is there twice."""
    pairs: Any = json.loads(data.decode(), object_pairs_hook=list)
    return [(asn, [tuple(row) for row in history]) for asn, history in pairs]


@pytest.mark.parametrize(("asns", "rows"), [(1, 1), (1, 50), (3, 100), (2001, 9000)])
def test_an_asn_map_has_the_size_that_is_asked_for(tmp_path: Path, asns: int, rows: int) -> None:
    write_asn_map(tmp_path / "map.json", asns, rows)
    data = (tmp_path / "map.json").read_bytes()
    histories = histories_of(data)
    assert (len(histories), sum(len(history) for _, history in histories)) == (asns, rows)
    assert data == asn_map(asns, rows) != asn_map(asns, rows, seed=2)


def test_an_asn_map_is_like_upstreams() -> None:
    data = asn_map(asns=12_000, rows=42_000)
    assert [kind for kind in KINDS_OF_NAMES if not re.search(kind, data)] == []
    histories = histories_of(data)
    numbers = [int(asn) for asn, _ in histories]
    assert numbers == sorted(set(numbers))
    assert (numbers[0], numbers[-1]) == (1, 4_294_967_295)
    rows = [row for _, history in histories for row in history]
    assert {type(cell) for row in rows for cell in row} == {str}
    assert all(re.fullmatch(r"([A-Z]{2})?", row[1]) for row in rows)
    days = {datetime.strptime(row[2], "%Y%m%d").date() for row in rows}  # noqa: DTZ007 - a day
    assert date(1980, 1, 1) <= min(days) < max(days) <= date(2026, 12, 31)
    assert {row[4] for row in rows} == {
        "ARIN", "RIPE", "APNIC", "LACNIC", "AFRINIC", "JPNIC", "KRNIC"
    }  # fmt: skip
    for _, history in histories:
        assert [row[2] for row in history] == sorted({row[2] for row in history})
        assert all(old[:2] != new[:2] for old, new in pairwise(history))


def test_wanted_duplicates_come_on_top_of_the_rows() -> None:
    counts = [Counter(history) for _, history in histories_of(asn_map(10, 30, duplicates=13))]
    assert sum(count.total() for count in counts) == 30 + 13
    assert [(set(count)) for count in counts] == [
        set(history) for _, history in histories_of(asn_map(10, 30))
    ]


# --- GeoIP databases ---


def test_the_consumers_reader_finds_the_networks_that_everybody_knows(tmp_path: Path) -> None:
    write_database(tmp_path / "asn.mmdb", ASN, "2026-11", networks=100)
    write_database(tmp_path / "cc.mmdb", COUNTRY, "2026-11", networks=100)
    with (
        geoip2.database.Reader(tmp_path / "asn.mmdb") as asn,
        geoip2.database.Reader(tmp_path / "cc.mmdb") as country,
    ):
        for network, number, name, code in WELL_KNOWN:
            address = network.partition("/")[0]
            system = asn.asn(address)
            assert system.autonomous_system_number == number
            assert system.autonomous_system_organization == name
            assert country.country(address).country.iso_code == code


@pytest.mark.parametrize("networks", [1, 5000])
def test_the_tree_is_as_large_as_wanted(networks: int, tmp_path: Path) -> None:
    path = tmp_path / "asn.mmdb"
    write_database(path, ASN, "2026-11", networks=networks)
    with maxminddb.open_database(path) as reader:
        assert networks < reader.metadata().node_count < networks + 400
        invented = [network for network, _ in reader if str(network).startswith("11.")]
    assert len(invented) == networks


def test_each_month_is_another_and_always_the_same(tmp_path: Path) -> None:
    contents = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        write_month(folder, "2026-11")
        write_month(folder, "2026-12")
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1]
    assert sorted(contents[0]) == [
        "dbip-asn-lite-2026-11.mmdb.gz",
        "dbip-asn-lite-2026-12.mmdb.gz",
        "dbip-country-lite-2026-11.mmdb.gz",
        "dbip-country-lite-2026-12.mmdb.gz",
    ]
    assert len({gzip.decompress(content) for content in contents[0].values()}) == 4
