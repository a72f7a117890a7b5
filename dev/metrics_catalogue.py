"""Write what is made of the descriptions of the metrics, monitoring/metrics.toml.

    python -m dev.metrics_catalogue

It writes monitoring/statsd-mapping.yml and the table in monitoring/README.md.
"""

import functools
import json
import re
from pathlib import Path

from ooni_common.metrics import MetricKind
from ooni_common.textfile import ANY, PREFIX, Metric, find_metric, metrics_of, read_metrics

ROOT = Path(__file__).parents[1]
MAPPING = ROOT / "monitoring/statsd-mapping.yml"
README = ROOT / "monitoring/README.md"
TABLE = re.compile(r"(?<=<!-- metrics -->\n).*(?=<!-- end of metrics -->)", re.DOTALL)
ON_THE_WIRE = {MetricKind.GAUGE: "g", MetricKind.COUNTER: "c", MetricKind.TIMER: "ms"}
IN_EXPORTER = {
    MetricKind.GAUGE: "gauge",
    MetricKind.COUNTER: "counter",
    MetricKind.TIMER: "observer",
}
MAPPING_HEAD = """\
# How Prometheus's statsd_exporter names the metrics of OONI's backend tools:
#
#     statsd_exporter --statsd.listen-udp=:8125 --statsd.mapping-config=statsd-mapping.yml
#
# Made by `python -m dev.metrics_catalogue` of metrics.toml. It can be put into the mapping of a
# site: it names nothing that has another prefix. What has one of these prefixes and is not listed,
# or has another type, is dropped.
mappings:
"""


def main() -> None:
    """Write both files again."""
    MAPPING.write_text(mapping_of(read_scripts()))
    README.write_text(readme_of(README.read_text(), read_metrics()))


@functools.cache
def read_scripts() -> dict[str, tuple[Metric, ...]]:
    """Return the metrics of each script, by its name, which is their prefix in statsd."""
    return {script: metrics_of(script) for script in read_metrics() if script != PREFIX}


def undocumented(received: dict[str, list[tuple[float, str]]]) -> list[str]:
    """Return which of these statsd metrics (name → values and types) are not described."""
    scripts = read_scripts()
    kinds = {letter: kind for kind, letter in ON_THE_WIRE.items()}
    return [
        f"{name}|{letter}"
        for name, calls in received.items()
        for letter in dict.fromkeys(letter for _, letter in calls)
        for script, _, rest in [name.partition(".")]
        if letter not in kinds or not find_metric(scripts.get(script, ()), kinds[letter], rest)
    ]


def undocumented_samples(script: str, text: str) -> list[str]:
    """Return the samples of a script's file for node_exporter that are not described."""
    described = {
        name: {*metric.labels_of(script, metric.name)}
        for metric in read_scripts()[script]
        for name in metric.in_file
    }
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [
        line
        for line in lines
        for name, labels in [(re.split("[{ ]", line)[0], {*re.findall('([a-z]+)="', line)})]
        if described.get(name) != labels
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


def readme_of(text: str, sections: dict[str, tuple[Metric, ...]]) -> str:
    """Return the manual with the table in it."""
    return TABLE.sub(lambda _: table_of(sections), text)


def table_of(sections: dict[str, tuple[Metric, ...]]) -> str:
    """Return the table of all metrics, section by section."""
    head = (
        "| statsd | type | unit | what it says | sent | Prometheus |\n|---|---|---|---|---|---|\n"
    )
    rows = [row(prefix, metric) for prefix, metrics in sections.items() for metric in metrics]
    return head + "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def row(prefix: str, metric: Metric) -> tuple[str, ...]:
    """Return the cells of one metric."""
    labels = metric.labels_of(prefix, metric.name)
    selector = ",".join(f'{label}="{value.replace(ANY, "…")}"' for label, value in labels.items())
    return (
        f"`{prefix}.{metric.name}`",
        metric.kind.value,
        "ms" if metric.kind is MetricKind.TIMER else metric.unit,
        metric.meaning,
        metric.when,
        f"`{metric.exported}{{{selector}}}`" if selector else f"`{metric.exported}`",
    )


if __name__ == "__main__":
    main()
