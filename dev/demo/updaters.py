"""The three updaters: CitizenLab test lists, fingerprints, ASN metadata."""

from dev.demo.stage import Script, Servers, expect, keys_for, title
from dev.samples.asn_map import ASNS, ROWS, write_asn_map
from dev.samples.fingerprints import SampleFingerprints
from dev.samples.test_lists import SampleTestLists
from dev.servers.git import GitServer
from dev.servers.upstream import SampleUpstream

CITIZENLAB = Script("analysis/citizenlab_test_lists_updater.py", "update-citizenlab.conf")
FINGERPRINTS = Script("analysis/fingerprints_updater.py", "update-fingerprints.conf")
ASNMETA = Script("analysis/asnmeta_updater.py", "update-asn-metadata.conf")


def show_citizenlab(servers: Servers) -> None:
    """Load sample test lists; again, with nothing new; after a commit; after a broken commit."""
    upstream = servers.folder / "upstream"
    upstream.mkdir()
    lists = SampleTestLists(upstream)
    lists.create()
    with GitServer(upstream) as git:
        config = keys_for(servers, "citizenlab") | {"git_url": git.url("test-lists")}
        title("CitizenLab test lists: the first run creates and fills the table")
        run_citizenlab(servers, config)
        title("the second run: one question for the newest commit, no clone")
        git.clear()
        log = servers.run(CITIZENLAB, config)
        expect("nothing to do" in log and git.fetches() == 0, "nothing is repeated")
        title("upstream adds 40 rows: a dry run says what would change, then they are loaded")
        lists.add_rows("it", 40)
        servers.run(CITIZENLAB, config, "--dry-run")
        log = run_citizenlab(servers, config)
        expect("(+40 -0)" in log, "40 rows are added")
        title("a commit breaks one list: it is held, the others are updated")
        lists.add_rows("fr", 2)
        lists.break_file("ru")
        log = run_citizenlab(servers, config)
        expect("(+2 -0)" in log, "2 rows are added")


def show_fingerprints(servers: Servers) -> None:
    """Load sample fingerprints; again, with nothing new; with a bad regular expression added."""
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
        title("Fingerprints: the first run fills both tables and swaps them together")
        run_fingerprints(servers, keys)
        title("the second run: upstream says that nothing was modified")
        log = servers.run(FINGERPRINTS, keys)
        expect("nothing to do" in log, "nothing is repeated")
        title("a row with a regular expression that the database can't compile is refused")
        bad = b"demo.bad,isp,,body,regexp,(?<=a)b,5,IT,demo,,\r\n"
        (folder / "fingerprints_http.csv").write_bytes(sample.with_added("http", 3).http + bad)
        log = run_fingerprints(servers, keys)
        expect("(+3 -0)" in log, "3 rows are added")


def show_asnmeta(servers: Servers) -> None:
    """Load a sample map of the ASNs; again, with nothing new."""
    folder = servers.folder / "asn-map"
    folder.mkdir()
    write_asn_map(folder / "all_as_org_map.json")
    with SampleUpstream(folder) as upstream:
        keys = keys_for(servers, "api:api") | {"url": upstream.url("all_as_org_map.json")}
        title(f"ASN metadata: {ASNS:,} ASNs, read and loaded piece by piece")
        log = run_asnmeta(servers, keys)
        expect(f"asnmeta: {ROWS:,} rows" in log, "all rows are loaded")
        title("the second run: upstream says that nothing was modified")
        log = servers.run(ASNMETA, keys)
        expect("nothing to do" in log, "nothing is repeated")


def run_citizenlab(servers: Servers, keys: dict[str, str]) -> str:
    """Run the CitizenLab updater, and show its table and metrics."""
    log = servers.run(CITIZENLAB, keys)
    servers.show_table("citizenlab", ["cc", "category_code", "domain", "url"], "cityHash64(url)")
    servers.show_metrics()
    return log


def run_fingerprints(servers: Servers, keys: dict[str, str]) -> str:
    """Run the fingerprint updater, and show its tables and metrics."""
    log = servers.run(FINGERPRINTS, keys)
    columns = ["name", "scope", "pattern_type", "expected_countries", "substring(pattern, 1, 40)"]
    for table in ("fingerprints_dns", "fingerprints_http"):
        servers.show_table(table, columns, "cityHash64(name)")
    servers.show_metrics()
    return log


def run_asnmeta(servers: Servers, keys: dict[str, str]) -> str:
    """Run the ASN metadata updater, and show its table and metrics."""
    log = servers.run(ASNMETA, keys)
    servers.show_table("asnmeta", ["asn", "cc", "changed", "org_name"], "cityHash64(asn, changed)")
    servers.show_metrics()
    return log
