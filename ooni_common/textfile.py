"""The metrics of a script as a file for node_exporter's textfile collector.

The format is Prometheus's text format, version 0.0.4. What a run has not sent keeps the value that
it has in the previous file. Which metrics a script has, and what Prometheus calls them, is in
monitoring/metrics.toml.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from ooni_common.metrics import MetricKind, Sent

METRICS_FILE = Path(__file__).with_name("metrics.toml")  # in the checkout a link into monitoring/
PREFIX = "PREFIX"  # the section of what every script sends; in a label: the script's name
ANY = "*"  # in a name: the part that differs; in a label: that part
ANY_PART = "([A-Za-z0-9_-]+)"  # the letters of such a part
SAMPLE = re.compile(r"([a-z0-9_]+(?:\{[^{}]*\})?) (-?[0-9]+(?:[.][0-9]+)?(?:e[-+]?[0-9]+)?)")


class Metric(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One metric, as the head of monitoring/metrics.toml explains it."""

    name: str
    kind: MetricKind
    unit: str = "number"
    meaning: str
    when: str
    exported: str
    labels: dict[str, str] = {}

    @property
    def pattern(self) -> str:
        """A regular expression for the whole name."""
        return re.escape(self.name).replace(re.escape(ANY), ANY_PART)

    @property
    def exported_type(self) -> str:
        """What Prometheus calls the type."""
        return "summary" if self.kind is MetricKind.TIMER else self.kind.value

    def labels_of(self, script: str, name: str) -> dict[str, str]:
        """Return the labels that it has in Prometheus when a script sends it under this name."""
        match = re.fullmatch(self.pattern, name)
        values = {PREFIX: script, ANY: match[1] if match and ANY in self.name else ANY}
        return {label: values.get(value, value) for label, value in self.labels.items()}


def read_metrics(file: Path = METRICS_FILE) -> dict[str, tuple[Metric, ...]]:
    """Return the sections of a file: the metrics of each script, and under `PREFIX` of every one.

    Raises:
        OSError, ValueError: it can't be read.
    """
    return msgspec.toml.decode(file.read_bytes(), type=dict[str, tuple[Metric, ...]])


def metrics_of(script: str, file: Path = METRICS_FILE) -> tuple[Metric, ...]:
    """Return all metrics of a script; raise what `read_metrics` raises."""
    sections = read_metrics(file)
    return (*sections.get(PREFIX, ()), *sections.get(script, ()))


def find_metric(metrics: Iterable[Metric], kind: MetricKind, name: str) -> Metric | None:
    """Return the metric that is sent under this name; None where there is none of this kind."""
    candidates = (metric for metric in metrics if metric.kind is kind)
    return next((metric for metric in candidates if re.fullmatch(metric.pattern, name)), None)


def textfile(script: str, metrics: Sequence[Metric], sent: Iterable[Sent], previous: str) -> str:
    """Return the file of a script.

    Args:
        script: its name, the label `script`.
        metrics: all that it can send; what else is sent, or was in the file, is left out.
        sent: in order; of a gauge the last value counts. Counters add to the file's value. Of a
            timer the file has the sum, in seconds, and the count of these calls.
        previous: the file as it is; text that is no sample is ignored.
    """
    kept = _samples(previous)
    samples = {metric.exported: 0.0 for metric in metrics if metric.kind is MetricKind.COUNTER}
    samples |= kept
    fresh: set[str] = set()
    for kind, name, value in sent:
        if metric := find_metric(metrics, kind, name):
            labels = _written(metric.labels_of(script, name))
            for sample, amount in _samples_of(metric, labels, value):
                adds = kind is MetricKind.COUNTER or (kind is MetricKind.TIMER and sample in fresh)
                samples[sample] = amount + (samples.get(sample, 0) if adds else 0)
                fresh.add(sample)
    return "".join(_family(name, group, samples) for name, group in _by_name(metrics).items())


def _samples(text: str) -> dict[str, float]:
    """Return the samples of a file, `name{labels}` → value."""
    matches = [match for line in text.splitlines() if (match := SAMPLE.fullmatch(line))]
    samples = {match[1]: float(match[2]) for match in matches}
    return {sample: value for sample, value in samples.items() if math.isfinite(value)}


def _samples_of(metric: Metric, labels: str, value: float) -> list[tuple[str, float]]:
    """Return the samples that one call makes."""
    if metric.kind is MetricKind.TIMER:
        seconds = round(value / 1000, 6)
        return [
            (f"{metric.exported}_sum{labels}", seconds),
            (f"{metric.exported}_count{labels}", 1),
        ]
    return [(metric.exported + labels, value)]


def _written(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _by_name(metrics: Iterable[Metric]) -> dict[str, Metric]:
    return {metric.exported: metric for metric in metrics}


def _family(name: str, metric: Metric, samples: Mapping[str, float]) -> str:
    """Return the lines of all samples of one name; nothing if there are none."""
    ends = ("_sum", "_count") if metric.kind is MetricKind.TIMER else ("",)
    names = [name + end for end in ends]
    lines = [
        f"{sample} {_number(value)}\n"
        for sample, value in sorted(samples.items())
        if sample.partition("{")[0] in names
    ]
    head = f"# HELP {name} {metric.meaning}\n# TYPE {name} {metric.exported_type}\n"
    return head + "".join(lines) if lines else ""


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")
