"""The GeoIP downloader."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import geoip2.database

from dev.demo.stage import Script, Servers
from dev.demo.story import expect
from dev.samples.geoip import write_month
from dev.servers.upstream import SampleUpstream

GEOIP = Script("geoip/ooni_download_geoip.py", "download-geoip.conf")


def show_geoip(servers: Servers) -> None:
    """Install the GeoIP databases of last month, then this month's; again; after damage."""
    story = servers.story
    story.chapter("GeoIP", "which network and country an address belongs to")
    folder = servers.folder / "geoip"
    folder.mkdir()
    today = datetime.now(UTC).date()
    last_month = today.replace(day=1) - timedelta(days=1)
    write_month(folder, f"{last_month:%Y-%m}", networks=100_000)
    with SampleUpstream(folder) as upstream:
        keys = geoip_keys(servers) | {
            "asn_url": upstream.url() + "dbip-asn-lite-{year}-{month}.mmdb.gz",
            "cc_url": upstream.url() + "dbip-country-lite-{year}-{month}.mmdb.gz",
        }
        address = run_geoip(servers, keys)
        old, new = f"{last_month:%Y-%m}", f"{today:%Y-%m}"
        story.tell("first run", f"{new} is not published yet: {old} is installed; {address}")
        write_month(folder, new, networks=100_000)
        run_geoip(servers, keys)
        story.tell("it is published", f"{new} is read as a whole, then replaces both files")
        upstream.clear()
        log = servers.run(GEOIP, keys)
        expect("nothing to do" in log and not upstream.requests, "the second run repeats nothing")
        story.tell("second run", "nothing to do, and no request at all")
        os.truncate(servers.folder / "ooniapi" / "cc.mmdb", 50_000)
        log = servers.run(GEOIP, keys)
        expect("asn-lite-" in log and "not modified" in log, "only the damaged file is fetched")
        servers.run(GEOIP, keys, "--check")
        story.tell("a file breaks", "it is noticed, and fetched again; the other one is not")
        story.outcome("ooni-download-geoip", f"asn.mmdb and cc.mmdb of {new}")


def geoip_keys(servers: Servers) -> dict[str, str]:
    """Return the keys that say where the databases are installed."""
    folder = servers.folder / "ooniapi"
    folder.mkdir(exist_ok=True)
    return {
        "output_dir": str(folder),
        "state_dir": str(servers.folder / "ooni-geoip"),
        "statsd": servers.statsd.address,
    }


def run_geoip(servers: Servers, keys: dict[str, str]) -> str:
    """Run the GeoIP downloader; log its files and metrics; return what they say of an address."""
    servers.run(GEOIP, keys)
    folder = Path(keys["output_dir"])
    servers.story.note(f"\nfiles in {folder.name}:")
    for path in sorted(folder.iterdir()):
        servers.story.note(f"    {path.stat().st_size:>9,}  {path.name}")
    answers = []
    with (
        geoip2.database.Reader(folder / "asn.mmdb") as asn,
        geoip2.database.Reader(folder / "cc.mmdb") as country,
    ):
        for address in ("8.8.8.8", "2620:fe::fe"):
            network = asn.asn(address)
            number, name = network.autonomous_system_number, network.autonomous_system_organization
            code = country.country(address).country.iso_code
            servers.story.note(f"    {address}: AS{number} {name}, {code}")
            answers.append(f"{address}: AS{number}")
    servers.log_metrics()
    return answers[0]
