"""Receive the metrics of the demo with real programs, and compare them with their descriptions.

    make monitoring-check

A statsd daemon (the npm package `statsd`, installed below build/) receives what all scripts of the
demo send; node_exporter (unpacked below build/, unless it is installed) reads the files that they
write. statsd_exporter (built below build/) gets each metric once, with the mapping and without. It
ends with an error if a metric is missing, is not described, or has another type. What can't be done
on this machine is named: NOT RUN.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from dev.debian_programs import find_programs, free_port
from dev.metrics_catalogue import read_scripts
from dev.statsd_exporter import build_statsd_exporter, names_without_mapping, problems_of_mapping
from ooni_common.metrics import MetricKind
from ooni_common.textfile import find_metric

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build/monitoring"
TEXTFILES = ROOT / "build/demo/textfiles"
NODE_EXPORTER = "prometheus-node-exporter"
START_SECONDS = 30
HOURS = 3_600_000  # ms; the daemon keeps everything until it is asked
# What the demo has no reason to send: nothing fails, and it verifies one backup by its name.
WITHOUT_FAULTS = {"ooni_download_geoip.ooni_geoip_checkfail", "db-backup.last_verified"}
NEVER_VERIFIED = "ooni_db_backup_last_verified_timestamp_seconds"


def main() -> None:
    """Run the demo and look what has arrived."""
    BUILD.mkdir(parents=True, exist_ok=True)
    if program := build_statsd_exporter(BUILD):
        check_statsd_exporter(program)
    else:
        print("NOT RUN: a real statsd_exporter (it can't be built here: no Go, or not its source)")
    if daemon := installed_statsd():
        with running_statsd(daemon) as (port, management):
            run_demo(f"127.0.0.1:{port}")
            check_statsd(received(management))
    else:
        print("NOT RUN: a real statsd daemon (npm or its package `statsd` can't be had here)")
        run_demo("")
    if programs := find_programs(NODE_EXPORTER, NODE_EXPORTER):
        with running_node_exporter(programs[0]) as port:
            check_node_exporter(scraped(port))
    else:
        print(f"NOT RUN: the files read by node_exporter ({NODE_EXPORTER} can't be had here)")


def installed_statsd() -> Path | None:
    """Install the daemon below build/; return its folder, or None where that can't be done."""
    folder = BUILD / "node_modules/statsd"
    if not (folder / "stats.js").exists() and shutil.which("npm"):
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--omit=optional"]
        subprocess.run([*command, "--prefix", str(BUILD), "statsd@0.9.0"], check=False)
    return folder if (folder / "stats.js").exists() and shutil.which("node") else None


@contextlib.contextmanager
def running_statsd(folder: Path) -> Iterator[tuple[int, int]]:
    """Run the daemon; give its UDP port, and the TCP port of its management interface."""
    port, management = free_port(socket.SOCK_DGRAM), free_port()
    config = BUILD / "statsd.json"
    keys = {
        "address": "127.0.0.1",
        "port": port,
        "mgmt_address": "127.0.0.1",
        "mgmt_port": management,
        "flushInterval": 10 * HOURS,
        "backends": [],
    }
    config.write_text(json.dumps(keys))
    with running(["node", str(folder / "stats.js"), str(config)], management):
        yield port, management


@contextlib.contextmanager
def running_node_exporter(program: str) -> Iterator[int]:
    """Run node_exporter with nothing but its textfile collector; give its port."""
    port = free_port()
    options = ["--collector.disable-defaults", "--collector.textfile"]
    options += [f"--collector.textfile.directory={TEXTFILES}"]
    options += [f"--web.listen-address=127.0.0.1:{port}"]
    with running([program, *options], port):
        yield port


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """Run a program that listens on a TCP port of this machine."""
    with (
        (BUILD / f"{Path(command[0]).name}.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            wait_for(port)
            yield
        finally:
            process.terminate()


def wait_for(port: int) -> None:
    """Wait until somebody listens.

    Raises:
        SystemExit: nobody does.
    """
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    sys.exit(f"nobody listens on port {port} after {START_SECONDS} s")


def check_statsd_exporter(program: Path) -> None:
    """Let it have each metric: with the mapping as described, without it under other names."""
    described = {metric.exported for metrics in read_scripts().values() for metric in metrics}
    plain = names_without_mapping(program, BUILD)
    print(f"    without the mapping: {', '.join(sorted(plain)[:5])}, …")
    wrong = [f"{name} without the mapping" for name in sorted(described & plain.keys())]
    conclude("statsd_exporter", len(described), wrong + problems_of_mapping(program, BUILD))


def run_demo(statsd: str) -> None:
    """Run the whole demo; its scripts send to this address."""
    with (BUILD / "demo.log").open("w") as log:
        subprocess.run(
            [sys.executable, "-m", "dev.demo"],
            cwd=ROOT,
            env=os.environ | {"OONI_STATSD": statsd},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )


def received(management: int) -> dict[MetricKind, dict[str, list[float]]]:
    """Ask the daemon for all that it has; its own metrics are left out."""
    commands = {
        MetricKind.COUNTER: "counters",
        MetricKind.GAUGE: "gauges",
        MetricKind.TIMER: "timers",
    }
    return {kind: asked(management, command) for kind, command in commands.items()}


def asked(management: int, command: str) -> dict[str, list[float]]:
    """Return the values of one type; it prints them as JavaScript, not all of a long list."""
    with socket.create_connection(("127.0.0.1", management), START_SECONDS) as connection:
        connection.sendall(f"{command}\n".encode())
        text = ""
        while "END\n\n" not in text:
            text += connection.recv(65_536).decode()
    lines = re.findall(r"""^\s*'?([\w.-]+)'?: (\[[^]]*\]|[-+.e\d]+)""", text, re.MULTILINE)
    values = {
        name: [float(number) for number in re.findall(r"[-+.e\d]*\d", value)]
        for name, value in lines
    }
    return {name: value for name, value in values.items() if not name.startswith("statsd.")}


def check_statsd(by_kind: dict[MetricKind, dict[str, list[float]]]) -> None:
    """Compare what the daemon has received with what is described, both ways."""
    scripts = read_scripts()
    wrong, seen = [], set[str]()
    for kind, metrics in by_kind.items():
        for name, values in sorted(metrics.items()):
            script, _, rest = name.partition(".")
            metric = find_metric(scripts.get(script, ()), kind, rest)
            print(
                f"    {kind.name.lower():8} {name} = {', '.join(f'{v:.15g}' for v in values[:5])}"
            )
            if metric:
                seen.add(f"{script}.{metric.name}")
            else:
                wrong.append(f"{name} ({kind.name.lower()}) is not described")
    for script, metrics_of_script in scripts.items():
        for metric in metrics_of_script:
            name = f"{script}.{metric.name}"
            if name not in seen and name not in WITHOUT_FAULTS:
                wrong.append(f"{name} has not arrived as a {metric.kind.name.lower()}")
    conclude("statsd", len(seen), wrong)


def scraped(port: int) -> str:
    """Return what Prometheus would get."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=START_SECONDS) as page:
        return str(page.read().decode())


def check_node_exporter(text: str) -> None:
    """Compare what node_exporter has read with what is described, both ways."""
    types = dict(re.findall(r"^# TYPE (ooni_\w+) (\w+)$", text, re.MULTILINE))
    expected = {
        name: metric.type_in_file
        for metrics in read_scripts().values()
        for metric in metrics
        for name in metric.in_file
    }
    wrong = [f"{name}: {kind}" for name, kind in types.items() if expected.get(name) != kind]
    missing = expected.keys() - types.keys() - {NEVER_VERIFIED}
    wrong += [f"{name} is missing" for name in sorted(missing)]
    if "node_textfile_scrape_error 0" not in text:
        wrong.append("node_exporter can't read a file; see build/monitoring")
    conclude(NODE_EXPORTER, len(types), wrong)


def conclude(program: str, number: int, wrong: list[str]) -> None:
    """Print the outcome.

    Raises:
        SystemExit: something is wrong.
    """
    if wrong:
        sys.exit(f"{program}: " + "; ".join(wrong))
    print(f"{program}: {number} metrics are as documented, names and types")


if __name__ == "__main__":
    main()
