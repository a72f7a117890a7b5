"""The pages, lists and feed beside the exports: what they say, and what they cost."""

import json
import re
from pathlib import Path
from typing import Any

import feedparser
import jsonschema
import msgspec
import pytest

from db_backup_harness import LAYOUT, ROOT, BackupTool
from dev.samples.measurements import FASTPATH, JSONL
from dev.servers.fault_proxy import FaultProxy
from exports.fingerprint import Fingerprint
from exports.manifest import Export, RunManifest, TableManifest, summary
from exports.reader import Chunk
from portal.about import About
from portal.catalogue import Catalogue, Sources, catalogue_of
from portal.comments import comments_of
from portal.dictionary import SHARED, TABLES, meaning
from portal.pages import Page, Pages
from portal.pages_config import OWNER
from portal.places import Places
from portal.schema_changes import History, SchemaChange, TableHistory

PLACES = Places(LAYOUT)
NOW = "2026-11-27T05:12:00Z"
ABOUT = About(licence="CC0", licence_url="https://example.org/cc0", owner="Somebody")
LIMIT = 100_000  # bytes of a page
MONTHS = {"policy": "public", "chunk_by": "month", "column": "d"}
HOSTILE = ("<script>alert(1)</script>", "a' onload=\"x", "..", "\x1b[31m\u202e", "x" * 200)
COLUMN = re.compile(r"^    `(\w+)` \S+,?$", re.MULTILINE)
ELEMENTS = """
a bdi body code dd details div dl doctype dt em footer h1 h2 h3 head header html li link main meta
nav p pre samp section small style summary table tbody td th thead time title tr ul
"""
SCHEMA = ROOT / "docs/exports-index.schema.json"


@pytest.fixture
def tool(backup_tool: BackupTool) -> BackupTool:
    """A table of two months, exported."""
    backup_tool.database.execute(
        "CREATE TABLE t (d Date COMMENT 'the day', probe_cc String) ENGINE = MergeTree ORDER BY d"
        " COMMENT 'What was seen.'"
    )
    add(backup_tool, "2026-01-20", 20)
    assert backup_tool.run("export", tables={"t": MONTHS})[0] == 0
    return backup_tool


def add(tool: BackupTool, day: str, rows: int = 1) -> None:
    """Add rows of the days from one on."""
    tool.database.execute(
        f"INSERT INTO t SELECT toDate('{day}') + number, 'IT' FROM numbers({rows})"
    )


def text(tool: BackupTool, key: str) -> str:
    return tool.get(key).decode()


def catalogue(tool: BackupTool) -> dict[str, Any]:
    """Return index.json, which has to be as its schema says."""
    content: dict[str, Any] = json.loads(tool.get(PLACES.catalogue))
    jsonschema.validate(content, json.loads(SCHEMA.read_text()))
    return content


# --- what it says ---


def test_the_first_page_has_range_licence_and_citation(tool: BackupTool) -> None:
    page = text(tool, LAYOUT.index)
    assert "Jan 2026 \N{EN DASH} Feb 2026" in page
    assert "https://creativecommons.org/licenses/by-nc-sa/4.0/" in page
    assert "https://db-ip.com" in page
    assert "citizenlab/test-lists" not in page
    snapshot = catalogue(tool)["snapshots"][0]
    assert f"Files and checksums: {snapshot}." in page
    assert tool.get(f"{LAYOUT.prefix}/{snapshot}") == tool.get(LAYOUT.sums)


def test_a_table_has_the_comments_of_the_database(tool: BackupTool) -> None:
    page = text(tool, PLACES.page("t"))
    assert "What was seen." in page
    assert "<td>the day</td>" in page
    assert meaning("t", "probe_cc") in page
    (table,) = catalogue(tool)["tables"]
    assert [column["meaning"] for column in table["columns"]] == [
        "the day",
        meaning("", "probe_cc"),
    ]


def test_what_the_operator_configures_is_on_the_pages_of_the_next_run(tool: BackupTool) -> None:
    keys = {
        "public_base_url": "https://data.example.org/exports/",
        "public_licence": "CC0 <1.0>",
        "public_licence_url": "https://example.org/cc0",
        "public_owner": "Someone & Co",
        "public_contact": "data@example.org",
    }
    status, log = tool.run("export", **keys)
    assert (status, "gone, or not what was written" in log) == (0, False), log
    page = text(tool, LAYOUT.index)
    assert "CC0 &lt;1.0&gt;" in page
    assert "Someone &amp; Co" in page
    assert 'href="mailto:data@example.org"' in page
    assert "BASE/" not in page
    url = "https://data.example.org/exports/csv/t_202601.csv.zstd"
    assert url in text(tool, PLACES.page("t"))
    assert text(tool, PLACES.urls).splitlines()[0] == url
    with tool.unchanged():
        assert "nothing to do" in tool.run("export")[1]


@pytest.mark.parametrize(
    "url", ["data.example.org", "https://x/$(id)", "https://x/'", "https://x/ y"]
)
def test_an_address_that_can_not_stand_in_a_command_is_refused(
    backup_tool: BackupTool, url: str
) -> None:
    status, log = backup_tool.run("export", tables={"t": MONTHS}, public_base_url=url)
    assert (status, "public_base_url: expected https://" in log) == (78, True), log


def test_what_has_changed_is_in_the_feed_and_in_the_index(tool: BackupTool) -> None:
    before = {file["path"]: file for file in catalogue(tool)["tables"][0]["files"]}
    entries = {entry.id for entry in feedparser.parse(tool.get(PLACES.feed)).entries}
    add(tool, "2026-02-09")
    assert tool.run("export")[0] == 0
    after = {file["path"]: file for file in catalogue(tool)["tables"][0]["files"]}
    changed = [path for path in after if after[path] != before[path]]
    assert changed == ["csv/t_202602.csv.zstd"]
    feed = feedparser.parse(tool.get(PLACES.feed))
    assert not feed.bozo
    (entry,) = [entry for entry in feed.entries if entry.id not in entries]
    assert entry.title.startswith("t_202602.csv.zstd: 9 rows")
    assert len(entries) == len(feed.entries) == 2


def test_changes_of_columns_are_kept(tool: BackupTool) -> None:
    tool.database.execute("ALTER TABLE t ADD COLUMN n UInt8, MODIFY COLUMN probe_cc FixedString(2)")
    assert tool.run("export")[0] == 0
    tool.database.execute("ALTER TABLE t DROP COLUMN n")
    assert tool.run("export")[0] == 0
    removed, added = catalogue(tool)["tables"][0]["column_changes"]
    assert removed["removed"] == [["n", "UInt8"]]
    assert added["added"] == [["n", "UInt8"]]
    assert added["retyped"] == [["probe_cc", "String", "FixedString(2)"]]
    page = text(tool, PLACES.page("t"))
    assert "added n UInt8; probe_cc was String, is FixedString(2)" in page


@pytest.mark.parametrize("content", [b"{", b"[" * 200_000, b'{"tables": {"t": {"since": "<b>"}}}'])
def test_a_damaged_changelog_begins_again(tool: BackupTool, content: bytes) -> None:
    tool.put(PLACES.schema_changes, content)
    add(tool, "2026-02-09")
    status, log = tool.run("export")
    assert (status, "begins again" in log) == (0, True), log
    assert catalogue(tool)["tables"][0]["column_changes"] == []


# --- what it costs, and what is left ---


def test_where_nothing_has_changed_nothing_is_written(
    tool: BackupTool, s3_proxy: FaultProxy
) -> None:
    assert tool.run("export")[0] == 0
    assert len(s3_proxy.requests) <= 10
    written = [one.target for one in s3_proxy.requests if one.method == "PUT"]
    assert [target for target in written if LAYOUT.writer not in target] == []


def test_of_the_tables_only_the_pages_of_those_that_changed_are_written(
    tool: BackupTool, s3_proxy: FaultProxy
) -> None:
    tool.database.execute("CREATE TABLE other (a String) ENGINE = MergeTree ORDER BY a")
    assert tool.run("export", tables={"t": MONTHS, "other": "public"})[0] == 0
    page = tool.get(PLACES.page("other"))
    add(tool, "2026-02-09")
    s3_proxy.heal()
    assert tool.run("export")[0] == 0
    written = [
        request.target.partition(f"{LAYOUT.prefix}/")[2].partition("?")[0]
        for request in s3_proxy.requests
        if request.method == "PUT"
    ]
    portal = [
        key for key in written if not key.startswith(("csv/", "manifest", "pending/", "writer"))
    ]
    snapshot = catalogue(tool)["snapshots"][0]
    assert sorted(portal) == sorted(
        [
            snapshot,
            "pages/t.1.html",
            "urls.txt",
            "changes.xml",
            "index.json",
            "SHA256SUMS",
            "index.html",
        ]
    )
    assert tool.get(PLACES.page("other")) == page


@pytest.mark.parametrize(
    "key", [*PLACES.always, PLACES.page("t")], ids=lambda key: key.rpartition("/")[2]
)
def test_what_is_lost_is_written_again(tool: BackupTool, key: str) -> None:
    content = tool.get(key)
    tool.client.delete_object(Bucket=tool.bucket_name, Key=key)
    status, log = tool.run("export")
    assert (status, f"{key}: gone" in log) == (0, True), log
    assert len(tool.get(key)) == len(content)
    with tool.unchanged():
        assert "nothing to do" in tool.run("export")[1]


def test_what_version_2_0_leaves_is_written_again(tool: BackupTool) -> None:
    """It knows no portal: it writes a page of its own, and a manifest without an edition."""
    add(tool, "2026-02-09")
    assert tool.run("export")[0] == 0
    run = json.loads(tool.get(LAYOUT.run))
    del run["edition"]
    tool.put(LAYOUT.run, json.dumps(run).encode())
    tool.put(LAYOUT.index, b"<title>of 2.0</title>")
    tool.put(PLACES.page("t"), b"of before")
    status, log = tool.run("export")
    assert (status, "gone" in log) == (0, False), log
    assert "of 2.0" not in text(tool, LAYOUT.index)
    assert "t_202602" in text(tool, PLACES.page("t"))


def test_of_a_withdrawn_table_no_page_is_left(tool: BackupTool) -> None:
    assert PLACES.page("t") in tool.objects()
    assert tool.run("prune", "--confirm", tables={"t": "none"})[0] == 0
    assert PLACES.page("t") not in tool.objects()
    assert catalogue(tool)["tables"] == []
    assert "t_2026" not in text(tool, PLACES.urls)


# --- many tables, files and columns; names that are hostile ---


def manifest(
    name: str, chunks: list[str], columns: list[tuple[str, str]] | None = None
) -> TableManifest:
    """Return the manifest of a table with chunks that have an object each."""
    exports = {
        chunk: Export(
            chunk=Chunk(chunk, ""), key=LAYOUT.export(name, chunk), query="", rows=10**9,
            bytes=10**12, compressed_bytes=10**11, sha256=64 * "a", token="",
            fingerprint=Fingerprint(1, "", None, None), started=NOW, finished=NOW,
        )
        for chunk in chunks
    }  # fmt: skip
    return TableManifest(table=name, columns=columns or [("a", "String")], chunks=exports)


def made(
    manifests: list[TableManifest], history: History | None = None, about: About = ABOUT
) -> tuple[Catalogue, list[Page]]:
    """Return index.json and all pages of tables."""
    tables = {one.table: one for one in manifests}
    figures = {name: summary(one) for name, one in tables.items()}
    run = RunManifest(started=NOW, finished=NOW, tool="ooni-db-backup 2", server="", tables=figures)
    snapshots = [
        PLACES.snapshot(f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z")
        for number in range(500)
    ]
    sources = Sources(run, tables, PLACES, about, history or History(), snapshots)
    catalogue = catalogue_of(sources)
    pages = Pages(catalogue, about, PLACES)
    index = pages.index(has_changes=True)
    return catalogue, index + [page for table in catalogue.tables for page in pages.table(table)]


def check(pages: list[Page]) -> None:
    """Check that no page is large, and that all links between pages lead to one."""
    keys = {page.key for page in pages}
    for page in pages:
        assert len(page.content) < LIMIT, page.key
        content = page.content.decode()
        assert content.count("<!doctype html>") == 1
        script = content[content.index("<script>") :]
        elements = set(re.findall(r"<[^a-z]?([^ >]*)", content.removesuffix(script)))
        assert elements <= set(ELEMENTS.split()), page.key
        assert script.count("<") == 5, page.key  # a comparison, its ends, and those of the page
    assert len(keys) == len(pages)


def test_a_thousand_files_are_on_pages_that_are_not_large() -> None:
    days = [f"2025{month:02}{day:02}" for month in range(1, 13) for day in range(1, 29)]
    _, pages = made([manifest("days", [*days, *(f"{number:05}" for number in range(664))])])
    check(pages)
    of_table = [page for page in pages if page.key.startswith(PLACES.pages)]
    assert 3 < len(of_table) < 10
    listed = [
        name for page in of_table for name in re.findall(r"download>(\S+?)<", page.content.decode())
    ]
    assert len(listed) == len(set(listed)) == 1000
    assert 'href="../pages/days.2.html" rel="next"' in of_table[0].content.decode()


def test_five_hundred_tables_are_on_pages_that_are_not_large() -> None:
    _, pages = made([manifest(f"table_{number:03}", ["202601"]) for number in range(500)])
    check(pages)
    lists = [page for page in pages if not page.key.startswith(PLACES.pages)]
    assert [page.key for page in lists[:2]] == [LAYOUT.index, PLACES.table_list(2)]
    names = [
        name for page in lists for name in re.findall(r"<bdi>(table_\d+)<", page.content.decode())
    ]
    assert len(names) == len(set(names)) == 500
    assert '<a href="../pages/table_499.1.html">' in lists[-1].content.decode()


def test_on_a_phone_no_column_of_a_table_is_cut_and_none_is_without_its_name() -> None:
    """A narrow screen has a row below the other, with the name of each figure from the style."""
    _, pages = made([manifest("t", ["202601"])])
    for page in pages:
        content = page.content.decode()
        (style,) = re.findall(r"(?s)<style>.*?</style>", content)
        for table in re.findall(r'(?s)<table class="names (\w+).*?</thead>', content):
            assert f".{table} td:nth-child(" in style
        assert "tbody tr:not([hidden])" in style  # or the filter would hide nothing


def test_hostile_names_and_comments_stay_texts() -> None:
    columns = [
        (f"{name}{number}", f"Enum8('{name}' = 1)") for number in range(900) for name in HOSTILE
    ]
    change = SchemaChange(at=NOW, added=columns, removed=columns)
    history = TableHistory(since=NOW, columns=columns, changes=[change] * 50)
    manifests = [manifest(name, ["202601", ""], columns[:2000]) for name in HOSTILE]
    catalogue, pages = made(manifests, History(tables=dict.fromkeys(HOSTILE, history)))
    check(pages)
    assert "\x1b" not in "".join(page.content.decode() for page in pages)
    assert all("/../" not in page.key for page in pages)
    assert len(catalogue.tables) == len(HOSTILE)


def test_a_table_that_is_not_split_by_time_says_so() -> None:
    _, pages = made([manifest("jsonl", [""]), manifest("months", ["202601"])])
    index, whole, months = (page.content.decode() for page in pages)
    assert index.count("<td>not split by time</td>") == 1
    assert "<dd>not split by time</dd>" in whole
    assert "<dd>Jan 2026</dd>" in months


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ({}, '<a href="https://ooni.org">Open Observatory of Network Interference</a>.'),
        ({"owner": "Somebody"}, "Somebody."),
        ({"contact": "a@b.example"}, '<a href="mailto:a@b.example">a@b.example</a>.'),
        ({"licence_url": "https://cc0.example/"}, ""),
    ],
)
def test_the_first_page_says_whom_to_ask_before_copies_are_sold(
    said: dict[str, Any], asked: str
) -> None:
    licence_url = "https://creativecommons.org/licenses/by-nc-sa/4.0/"
    all_said = {"licence": "L", "licence_url": licence_url, "owner": OWNER} | said
    about = About(**all_said)
    index = made([manifest("t", ["202601"])], about=about)[1][0].content.decode()
    assert ("ask for permission" in index) == bool(asked)
    assert f"ask for permission:\n{asked}" in index or not asked


def test_who_exports_the_test_lists_names_their_authors() -> None:
    _, pages = made([manifest("citizenlab", [""])])
    page = pages[0].content.decode()
    assert "https://github.com/citizenlab/test-lists" in page
    assert "CAIDA" not in page


def test_who_exports_the_names_of_networks_names_their_source() -> None:
    _, pages = made([manifest("asnmeta", [""])])
    assert "CAIDA UCSD AS to Organization Mapping Dataset" in pages[0].content.decode()


def test_without_tables_there_is_a_page_that_says_so() -> None:
    catalogue, pages = made([])
    check(pages)
    assert "There are none yet." in pages[0].content.decode()
    assert catalogue.tables == []


def test_comments_are_those_of_columns_and_of_the_table() -> None:
    comments = comments_of(
        "CREATE TABLE d.t\n(\n"
        "    `a` Enum8('x' = 1, 'COMMENT' = 2) DEFAULT 'x' COMMENT 'it\\'s a',\n"
        "    `b c` Tuple(`p` String, `q` UInt8) COMMENT 'b',\n    `d` DateTime,\n"
        "    INDEX i d TYPE minmax GRANULARITY 1\n"
        ")\nENGINE = MergeTree\nORDER BY a\nCOMMENT 'of all'"
    )
    assert comments.columns == {"a": "it's a", "b c": "b"}
    assert comments.table == "of all"
    assert comments_of("CREATE TABLE /* ? */ x").columns == {}


# --- documentation ---


@pytest.mark.parametrize(("table", "schema"), [("fastpath", FASTPATH), ("jsonl", JSONL)])
def test_the_dictionary_has_every_column_of_the_tables_that_are_exported(
    table: str, schema: str
) -> None:
    columns = COLUMN.findall(schema)
    assert len(columns) > 5
    assert [column for column in columns if not meaning(table, column)] == []


def test_the_documentation_has_the_same_meanings() -> None:
    text = Path(ROOT / "docs/data.md").read_text()
    for columns in (SHARED, *TABLES.values()):
        for column, means in columns.items():
            assert f"| `{column}` | {means} |" in text


def test_the_schema_of_the_index_is_that_of_the_code() -> None:
    schema = msgspec.json.format(msgspec.json.encode(msgspec.json.schema(Catalogue)), indent=1)
    assert SCHEMA.read_bytes() == schema + b"\n"
