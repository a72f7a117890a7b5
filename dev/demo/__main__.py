"""The demo: every script run once for real against servers on this machine, and then again.

    make demo                 sample upstreams, generated here
    make demo SOURCES=live    the real upstreams

It tells a story of two screens; what the scripts print, and their metrics, are in
build/demo/log.txt. It ends with an error, whose reason is the last line, if a script does anything
else than it should.
"""

import argparse

from dev.demo.backup import show_backup
from dev.demo.detector import show_detector, show_evaluation
from dev.demo.geoip import geoip_keys, run_geoip, show_geoip
from dev.demo.stage import KEPT, ROOT, Servers, indented, keep, keys_for, running_servers
from dev.demo.story import expect
from dev.demo.updaters import (
    ASNMETA,
    CITIZENLAB,
    FINGERPRINTS,
    run_and_count,
    show_asnmeta,
    show_citizenlab,
    show_fingerprints,
)
from dev.metrics_catalogue import read_scripts, undocumented_samples

LOG = KEPT.relative_to(ROOT) / "log.txt"


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--sources", choices=["sample", "live"], default="sample")
    sources = parser.parse_args().sources
    with running_servers() as servers:
        story = servers.story
        story.say("Each tool runs for real against servers on this machine, and then runs again.")
        story.say(f"The details are in {LOG}.")
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
        log_textfiles(servers)
        story.page(str(LOG), "all that the tools printed and sent")
        story.sum_up()


def show_live_sources(servers: Servers) -> None:
    """Load everything from the real upstreams, twice."""
    for attempt in ("first", "second"):
        servers.story.chapter("The real upstreams", f"{attempt} run")
        rows = run_and_count(servers, CITIZENLAB, keys_for(servers, "citizenlab"))
        servers.story.tell("citizenlab", f"{rows:,} rows")
        rows = run_and_count(servers, FINGERPRINTS, keys_for(servers, "api:api"))
        servers.story.tell("fingerprints", f"{rows:,} rows in two tables")
        rows = run_and_count(servers, ASNMETA, keys_for(servers, "api:api"))
        servers.story.tell("asnmeta", f"{rows:,} rows")
        servers.story.tell("GeoIP", run_geoip(servers, geoip_keys(servers)))


def log_textfiles(servers: Servers) -> None:
    """Log what the last run of each script wrote for node_exporter, and keep the files."""
    folder = servers.textfiles
    servers.story.step("All metrics once more, in files for sites without statsd")
    kept = keep(folder, "textfiles")
    for script in [name for name in read_scripts() if (folder / f"ooni_{name}.prom").exists()]:
        text = (folder / f"ooni_{script}.prom").read_text()
        servers.story.note(f"\nooni_{script}.prom:")
        samples = "\n".join(line for line in text.splitlines() if line[0] != "#")
        servers.story.note(indented(samples))
        unknown = undocumented_samples(script, text)
        expect(not unknown, f"metrics are in monitoring/README.md: {', '.join(unknown)}")
    servers.story.page(f"{kept}/", "metrics, as node_exporter reads them")


if __name__ == "__main__":
    main()
