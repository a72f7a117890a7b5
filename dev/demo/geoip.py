"""The GeoIP downloader."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import geoip2.database

from dev.demo.stage import Script, Servers, expect, title
from dev.samples.geoip import write_month
from dev.servers.upstream import SampleUpstream

GEOIP = Script("geoip/ooni_download_geoip.py", "download-geoip.conf")


def show_geoip(servers: Servers) -> None:
    """Install the GeoIP databases of last month, then this month's; again; after damage."""
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
        title("GeoIP: this month's databases are not published yet; last month's are installed")
        run_geoip(servers, keys)
        title("they are published: both are checked as a whole and installed together")
        write_month(folder, f"{today:%Y-%m}", networks=100_000)
        run_geoip(servers, keys)
        title("the next run: no request at all")
        upstream.clear()
        log = servers.run(GEOIP, keys)
        expect("nothing to do" in log and not upstream.requests, "nothing is repeated")
        title("an installed file is damaged: it alone is fetched again")
        os.truncate(servers.folder / "ooniapi" / "cc.mmdb", 50_000)
        log = servers.run(GEOIP, keys)
        expect("asn-lite-" in log and "not modified" in log, "the other one is not fetched")
        servers.run(GEOIP, keys, "--check")


def geoip_keys(servers: Servers) -> dict[str, str]:
    """Return the keys that say where the databases are installed."""
    folder = servers.folder / "ooniapi"
    folder.mkdir(exist_ok=True)
    return {
        "output_dir": str(folder),
        "state_dir": str(servers.folder / "ooni-geoip"),
        "statsd": servers.statsd.address,
    }


def run_geoip(servers: Servers, keys: dict[str, str]) -> None:
    """Run the GeoIP downloader; show its files, an address looked up in them, and its metrics."""
    servers.run(GEOIP, keys)
    folder = Path(keys["output_dir"])
    print(f"\nfiles in {folder.name}:")
    for path in sorted(folder.iterdir()):
        print(f"    {path.stat().st_size:>9,}  {path.name}")
    with (
        geoip2.database.Reader(folder / "asn.mmdb") as asn,
        geoip2.database.Reader(folder / "cc.mmdb") as country,
    ):
        for address in ("8.8.8.8", "2620:fe::fe"):
            network = asn.asn(address)
            number, name = network.autonomous_system_number, network.autonomous_system_organization
            code = country.country(address).country.iso_code
            print(f"    {address}: AS{number} {name}, {code}")
    servers.show_metrics()
