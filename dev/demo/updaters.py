"""The three updaters: CitizenLab test lists, fingerprints, ASN metadata."""

from dev.demo.stage import Script, Servers, keys_for
from dev.demo.story import expect, figure
from dev.samples.asn_map import ASNS, ROWS, write_asn_map
from dev.samples.fingerprints import SampleFingerprints
from dev.samples.test_lists import SampleTestLists
from dev.servers.git import GitServer
from dev.servers.upstream import SampleUpstream

CITIZENLAB = Script("analysis/citizenlab_test_lists_updater.py", "update-citizenlab.conf")
FINGERPRINTS = Script("analysis/fingerprints_updater.py", "update-fingerprints.conf")
ASNMETA = Script("analysis/asnmeta_updater.py", "update-asn-metadata.conf")
OF_A_FINGERPRINT = (
    ["name", "scope", "pattern_type", "expected_countries", "substring(pattern, 1, 40)"],
    "cityHash64(name)",
)
# Updater → its tables → the columns that are logged, and by what the rows are ordered.
SHOWN = {
    CITIZENLAB: {"citizenlab": (["cc", "category_code", "domain", "url"], "cityHash64(url)")},
    FINGERPRINTS: {"fingerprints_dns": OF_A_FINGERPRINT, "fingerprints_http": OF_A_FINGERPRINT},
    ASNMETA: {"asnmeta": (["asn", "cc", "changed", "org_name"], "cityHash64(asn, changed)")},
}


def show_citizenlab(servers: Servers) -> None:
    """Load sample test lists; again, with nothing new; after a commit; after a broken commit."""
    story = servers.story
    story.chapter("CitizenLab test lists", "the URLs that OONI's probes test, by country")
    upstream = servers.folder / "upstream"
    upstream.mkdir()
    lists = SampleTestLists(upstream)
    lists.create()
    with GitServer(upstream) as git:
        keys = keys_for(servers, "citizenlab") | {"git_url": git.url("test-lists")}
        rows = run_and_count(servers, CITIZENLAB, keys)
        story.tell("first run", f"{rows:,} URLs go live at once: nobody ever reads half a list")
        git.clear()
        log = servers.run(CITIZENLAB, keys)
        expect("nothing to do" in log and git.fetches() == 0, "the second run repeats nothing")
        story.tell("second run", "nothing to do: one request for the newest commit, no clone")
        lists.add_rows("it", 40)
        log = servers.run(CITIZENLAB, keys, "--dry-run")
        expect("would change: " in log and "(+40 -0)" in log, "a dry run says what would change")
        expect(run_and_count(servers, CITIZENLAB, keys) == rows + 40, "40 rows are added")
        story.tell("40 new URLs", "--dry-run shows them, the next run loads them")
        lists.add_rows("fr", 2)
        lists.break_file("ru")
        held = hold_russia(servers, keys)
        story.tell("a list breaks", f"Russia keeps its {held} live URLs, France gets 2 new ones")
        story.outcome("ooni-update-citizenlab", f"table citizenlab: {rows + 42:,} rows")


def hold_russia(servers: Servers, keys: dict[str, str]) -> str:
    """Update after a commit that has broken Russia's list; return how many rows it keeps."""
    log = servers.run(CITIZENLAB, keys)
    expect("(+2 -0)" in log, "2 rows are added, though a list is broken")
    return figure("ru is held: its ([0-9,]+) live rows stay", log)


def show_fingerprints(servers: Servers) -> None:
    """Load sample fingerprints; again, with nothing new; with a bad regular expression added."""
    story = servers.story
    story.chapter("Fingerprints", "what block pages and forged DNS answers look like")
    folder = servers.folder / "fingerprints"
    folder.mkdir()
    sample = SampleFingerprints()
    (folder / "fingerprints_dns.csv").write_bytes(sample.dns)
    (folder / "fingerprints_http.csv").write_bytes(sample.http)
    with SampleUpstream(folder) as upstream:
        keys = keys_for(servers, "api:api") | {
            "dns_url": upstream.url("fingerprints_dns.csv"),
            "http_url": upstream.url("fingerprints_http.csv"),
        }
        rows = run_and_count(servers, FINGERPRINTS, keys)
        story.tell("first run", f"{rows:,} fingerprints in two tables, which go live together")
        log = servers.run(FINGERPRINTS, keys)
        expect("nothing to do" in log, "the second run repeats nothing")
        story.tell("second run", "nothing to do: upstream says that nothing was modified")
        bad = b"demo.bad,isp,,body,regexp,(?<=a)b,5,IT,demo,,\r\n"
        (folder / "fingerprints_http.csv").write_bytes(sample.with_added("http", 3).http + bad)
        expect(run_and_count(servers, FINGERPRINTS, keys) == rows + 3, "3 of 4 rows are added")
        story.tell(
            "3 new, 1 bad", "ClickHouse can't compile one pattern: its row is refused, 3 load"
        )
        tables = "tables fingerprints_dns, fingerprints_http"
        story.outcome("ooni-update-fingerprints", f"{tables}: {rows + 3:,} rows")


def show_asnmeta(servers: Servers) -> None:
    """Load a sample map of the ASNs; again, with nothing new."""
    story = servers.story
    story.chapter("ASN metadata", "which organisation runs a network, and since when")
    folder = servers.folder / "asn-map"
    folder.mkdir()
    write_asn_map(folder / "all_as_org_map.json")
    with SampleUpstream(folder) as upstream:
        keys = keys_for(servers, "api:api") | {"url": upstream.url("all_as_org_map.json")}
        expect(run_and_count(servers, ASNMETA, keys) == ROWS, "all rows are loaded")
        story.tell("first run", f"{ASNS:,} ASNs in {ROWS:,} rows, streamed: little memory is used")
        log = servers.run(ASNMETA, keys)
        expect("nothing to do" in log, "the second run repeats nothing")
        story.tell("second run", "nothing to do: upstream says that nothing was modified")
        story.outcome("ooni-update-asn-metadata", f"table asnmeta: {ROWS:,} rows")


def run_and_count(servers: Servers, script: Script, keys: dict[str, str]) -> int:
    """Run an updater; log its tables and metrics; return how many rows these have."""
    servers.run(script, keys)
    rows = [servers.log_table(table, *shown) for table, shown in SHOWN[script].items()]
    servers.log_metrics()
    return sum(rows)
