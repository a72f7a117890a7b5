"""The demo: every script run once for real against servers on this machine, and then again.

    make demo                 sample upstreams, generated here
    make demo SOURCES=live    the real upstreams

It ends with an error if a script does anything else than it should.
"""

import argparse
import shutil
from pathlib import Path

from dev.demo.backup import show_backup
from dev.demo.detector import show_detector, show_evaluation
from dev.demo.geoip import geoip_keys, run_geoip, show_geoip
from dev.demo.stage import ROOT, Servers, expect, indented, keys_for, running_servers, title
from dev.demo.updaters import (
    run_asnmeta,
    run_citizenlab,
    run_fingerprints,
    show_asnmeta,
    show_citizenlab,
    show_fingerprints,
)
from dev.metrics_catalogue import read_scripts, undocumented_samples


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--sources", choices=["sample", "live"], default="sample")
    sources = parser.parse_args().sources
    with running_servers() as servers:
        if sources == "live":
            show_live_sources(servers)
        else:
            show_citizenlab(servers)
            show_fingerprints(servers)
            show_asnmeta(servers)
            show_geoip(servers)
            show_backup(servers)
            show_detector(servers)
            show_evaluation(servers)
        show_textfiles(servers.textfiles)
    print("\nThe demo is done; everything that it started has ended.")


def show_live_sources(servers: Servers) -> None:
    """Load everything from the real upstreams, twice."""
    for attempt in ("first", "second"):
        title(f"The real upstreams, {attempt} run")
        run_citizenlab(servers, keys_for(servers, "citizenlab"))
        run_fingerprints(servers, keys_for(servers, "api:api"))
        run_asnmeta(servers, keys_for(servers, "api:api"))
        run_geoip(servers, geoip_keys(servers))


def show_textfiles(folder: Path) -> None:
    """Show the metrics of the last run of each script as node_exporter reads them."""
    title("All metrics once more, in files for sites without statsd")
    scripts = [script for script in read_scripts() if (folder / f"ooni_{script}.prom").exists()]
    kept = ROOT / "build" / "demo" / "textfiles"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept)
    for script in scripts:
        text = (folder / f"ooni_{script}.prom").read_text()
        print(f"\nooni_{script}.prom:")
        print(indented("\n".join(line for line in text.splitlines() if line[0] != "#")))
        unknown = undocumented_samples(script, text)
        expect(not unknown, f"metrics are in monitoring/README.md: {', '.join(unknown)}")


if __name__ == "__main__":
    main()
