"""A real statsd_exporter gets each metric once, with the mapping and without, for monitoring_check.

It is a Go program, which is in no package of Debian 12: it is built below build/, once.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from dev.debian_programs import free_port
from dev.metrics_catalogue import MAPPING, ON_THE_WIRE, read_scripts
from ooni_common.metrics import MetricKind
from ooni_common.textfile import ANY

MODULE = "github.com/prometheus/statsd_exporter@v0.31.0"
PART = "fast-path_1"  # stands for the `*` of a name
TYPES = {MetricKind.GAUGE: "gauge", MetricKind.COUNTER: "counter", MetricKind.TIMER: "summary"}
UNDESCRIBED = ("detector.nonsense:1|g", "detector.status:1|c")  # dropped by the mapping
OF_OTHERS = "fastpath.rows:1|g"  # left alone
PATIENCE = 30  # seconds
SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? \S+")

Series = set[tuple[str, frozenset[str]]]  # names, and the labels as they are written


def build_statsd_exporter(folder: Path) -> Path | None:
    """Build it into a folder, unless it is there; None: there is no Go, or no module to be had."""
    program = folder / "statsd_exporter"
    if not program.exists() and shutil.which("go"):
        environment = os.environ | {"GOBIN": str(folder)}
        subprocess.run(["go", "install", MODULE], env=environment, check=False)
    return program if program.exists() else None


def problems_of_mapping(program: Path, folder: Path) -> list[str]:
    """Return what it makes wrongly of the metrics with monitoring/statsd-mapping.yml."""
    text = exported(program, folder, [f"--statsd.mapping-config={MAPPING}"])
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    samples = series_of(text)
    problems = []
    for script, metrics in read_scripts().items():
        for metric in metrics:
            labels = metric.labels_of(script, metric.name.replace(ANY, PART))
            end = "_count" if metric.kind is MetricKind.TIMER else ""
            wanted = frozenset(f'{key}="{value}"' for key, value in labels.items())
            if types.get(metric.exported) != TYPES[metric.kind]:
                problems.append(f"{metric.exported} is a {types.get(metric.exported)}")
            if (metric.exported + end, wanted) not in samples:
                problems.append(f"{script}.{metric.name} is not {metric.exported} {labels}")
    described = {metric.exported for metrics in read_scripts().values() for metric in metrics}
    ours = {
        name for name in types if not name.startswith(("go_", "process_", "statsd_", "promhttp"))
    }
    if ours - described != {"fastpath_rows"}:
        problems.append(f"beside what is described: {sorted(ours - described)}")
    return problems


def names_without_mapping(program: Path, folder: Path) -> dict[str, str]:
    """Return names and types that statsd_exporter gives by itself."""
    text = exported(program, folder, [])
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    scripts = {re.sub(r"\W", "_", script) for script in read_scripts()}
    return {name: kind for name, kind in types.items() if name.startswith(tuple(scripts))}


def series_of(text: str) -> Series:
    """Return the samples of a page of metrics, without their values."""
    return {
        (match[1], frozenset(re.findall(r'\w+="[^"]*"', match[2] or "")))
        for line in text.splitlines()
        if (match := SAMPLE.fullmatch(line))
    }


def exported(program: Path, folder: Path, options: list[str]) -> str:
    """Run it, send each metric once, and return what Prometheus would get."""
    lines = [
        f"{script}.{metric.name.replace(ANY, PART)}:1500|{ON_THE_WIRE[metric.kind]}"
        for script, metrics in read_scripts().items()
        for metric in metrics
    ]
    lines += [*UNDESCRIBED, OF_OTHERS]
    with running(program, folder, options) as (udp, page):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for line in lines:
                client.sendto(line.encode(), ("127.0.0.1", udp))
        deadline = time.monotonic() + PATIENCE
        while True:  # it takes packets in their order, and has the last one when all are in
            with urllib.request.urlopen(page, timeout=PATIENCE) as answer:  # noqa: S310 (loopback)
                text = str(answer.read().decode())
            if "\nfastpath_rows 1\n" in text or time.monotonic() > deadline:
                return text
            time.sleep(0.1)


@contextlib.contextmanager
def running(program: Path, folder: Path, options: list[str]) -> Iterator[tuple[int, str]]:
    """Run it; give its UDP port and the address of its page."""
    udp, http = free_port(socket.SOCK_DGRAM), free_port()
    command = [
        str(program),
        f"--statsd.listen-udp=127.0.0.1:{udp}",
        "--statsd.listen-tcp=",
        f"--web.listen-address=127.0.0.1:{http}",
        *options,
    ]
    page = f"http://127.0.0.1:{http}/metrics"
    with (
        (folder / "statsd_exporter.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline and process.poll() is None:
                with contextlib.suppress(OSError), urllib.request.urlopen(page, timeout=5):
                    break
                time.sleep(0.1)
            yield udp, page
        finally:
            process.terminate()
