"""Write what is made of the scripts' own description of their metrics (ooni_common/catalogue.py).

    python -m dev.metrics_catalogue

It writes monitoring/statsd-mapping.yml and the table in monitoring/README.md.
"""

import functools
import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from ooni_common.catalogue import ANY, Kind, Metric, find, of_script

ROOT = Path(__file__).parents[1]
MODULES = {  # module of a script → its folder
    "citizenlab_test_lists_updater": "analysis",
    "fingerprints_updater": "analysis",
    "asnmeta_updater": "analysis",
    "ooni_download_geoip": "geoip",
    "ooni_db_backup": "db-backup",
    "detector": "detector",
}
MAPPING = ROOT / "monitoring/statsd-mapping.yml"
README = ROOT / "monitoring/README.md"
TABLE = re.compile(r"(?<=<!-- metrics -->\n).*(?=<!-- end of metrics -->)", re.DOTALL)
IN_STATSD = {Kind.GAUGE: "gauge", Kind.COUNTER: "counter", Kind.TIMER: "timer"}
ON_THE_WIRE = {Kind.GAUGE: "g", Kind.COUNTER: "c", Kind.TIMER: "ms"}
IN_EXPORTER = {Kind.GAUGE: "gauge", Kind.COUNTER: "counter", Kind.TIMER: "observer"}
MAPPING_HEAD = """\
# How Prometheus's statsd_exporter names the metrics of OONI's backend tools:
#
#     statsd_exporter --statsd.listen-udp=:8125 --statsd.mapping-config=statsd-mapping.yml
#
# Made by `python -m dev.metrics_catalogue` of what the scripts say of their metrics. It can be put
# into the mapping of a site: it names nothing that has another prefix. What has one of these
# prefixes and is not listed, or has another type, is dropped.
mappings:
"""


def main() -> None:
    """Write both files anew."""
    scripts = read_scripts()
    MAPPING.write_text(mapping_of(scripts))
    README.write_text(readme_of(README.read_text(), scripts))


@functools.cache
def read_scripts() -> dict[str, tuple[Metric, ...]]:
    """Return the metrics of each script, by its name, which is their prefix in statsd."""
    sys.path += [str(ROOT / folder) for folder in dict.fromkeys(MODULES.values())]
    modules = [importlib.import_module(module) for module in MODULES]
    return {module.SCRIPT.name: of_script(module.SCRIPT.metrics) for module in modules}


def undocumented(received: dict[str, list[tuple[float, str]]]) -> list[str]:
    """Return what of these statsd metrics (name → values and types) is in no script's catalogue."""
    scripts = read_scripts()
    kinds = {letter: kind for kind, letter in ON_THE_WIRE.items()}
    return [
        f"{name}|{letter}"
        for name, calls in received.items()
        for letter in dict.fromkeys(letter for _, letter in calls)
        for script, _, rest in [name.partition(".")]
        if letter not in kinds or not find(scripts.get(script, ()), kinds[letter], rest)
    ]


def undocumented_samples(script: str, text: str) -> list[str]:
    """Return the samples of a file for node_exporter that the script's catalogue does not have."""
    known = {
        metric.exported + end: {*metric.labels_of(script, metric.name)}
        for metric in read_scripts()[script]
        for end in (("_sum", "_count") if metric.kind is Kind.TIMER else ("",))
    }
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [
        line
        for line in lines
        for name, labels in [(re.split("[{ ]", line)[0], {*re.findall('([a-z]+)="', line)})]
        if known.get(name) != labels
    ]


def mapping_of(scripts: dict[str, tuple[Metric, ...]]) -> str:
    """Return the mapping for statsd_exporter."""
    rules = [
        rule(script, metric, script) for script, metrics in scripts.items() for metric in metrics
    ]
    prefixes = "|".join(map(re.escape, scripts))
    return MAPPING_HEAD + "".join(rules) + last_rule(f"^({prefixes})[.]")


def rule(script: str, metric: Metric, prefix: str) -> str:
    """Return the rule for one metric; YAML takes the texts as JSON has them."""
    match = f"{prefix}.{metric.name}"
    lines = [f"- match: {match}"]
    if ANY in metric.name:  # as a glob, `*` is all that stands between two dots
        regex = "^" + re.escape(f"{prefix}.") + metric.pattern + "$"
        lines = [f"- match: {json.dumps(regex)}", "  match_type: regex"]
    lines += [
        f"  match_metric_type: {IN_EXPORTER[metric.kind]}",
        f"  name: {metric.exported}",
        f"  help: {json.dumps(metric.meaning)}",
    ]
    if labels := metric.labels_of(script, metric.name):
        lines.append("  labels:")
        lines += [
            f"    {label}: {json.dumps(value.replace(ANY, '$1'))}"
            for label, value in labels.items()
        ]
    return "\n".join(lines) + "\n"


def last_rule(regex: str) -> str:
    """Return the rule for all that has no other one."""
    return f"- match: {json.dumps(regex)}\n  match_type: regex\n  action: drop\n  name: dropped\n"


def readme_of(text: str, scripts: dict[str, tuple[Metric, ...]]) -> str:
    """Return the manual with the table in it."""
    return TABLE.sub(lambda _: table_of(scripts), text)


def table_of(scripts: dict[str, tuple[Metric, ...]]) -> str:
    """Return the table of all metrics: those of every script first."""
    head = (
        "| statsd | type | unit | what it says | sent | Prometheus |\n|---|---|---|---|---|---|\n"
    )
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows_of(scripts))


def rows_of(scripts: dict[str, tuple[Metric, ...]]) -> Iterator[tuple[str, ...]]:
    """Return the cells of each row."""
    for metric in of_script(()):
        yield row("PREFIX", metric)
    for script, metrics in scripts.items():
        for metric in metrics:
            if metric not in of_script(()):
                yield row(script, metric)


def row(prefix: str, metric: Metric) -> tuple[str, ...]:
    """Return the cells of one metric."""
    labels = metric.labels_of(prefix, metric.name)
    selector = ",".join(f'{label}="{value.replace(ANY, "…")}"' for label, value in labels.items())
    return (
        f"`{prefix}.{metric.name}`",
        IN_STATSD[metric.kind],
        metric.unit or "number",
        metric.meaning,
        metric.when,
        f"`{metric.exported}{{{selector}}}`" if selector else f"`{metric.exported}`",
    )


if __name__ == "__main__":
    main()
