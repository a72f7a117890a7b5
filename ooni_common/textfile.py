"""The metrics of a script as a file for node_exporter's textfile collector.

The format is Prometheus's text format, version 0.0.4. What a run has not sent keeps the value that
it has in the file of before.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from ooni_common.catalogue import Kind, Metric, Sent, find

SAMPLE = re.compile(r"([a-z0-9_]+(?:\{[^{}]*\})?) (-?[0-9]+(?:[.][0-9]+)?(?:e[-+]?[0-9]+)?)")


def textfile(script: str, metrics: Sequence[Metric], sent: Iterable[Sent], before: str) -> str:
    """Return the file of a script.

    Args:
        script: its name, the label `script`.
        metrics: all that it can send; what else is sent, or was in the file, is left out.
        sent: in order; of a gauge the last value counts. Counters add to the file's value. Of a
            timer the file has the sum, in seconds, and the count of these calls.
        before: the file as it is; text that is no sample is ignored.
    """
    kept = _samples(before)
    samples = {metric.exported: 0.0 for metric in metrics if metric.kind is Kind.COUNTER}
    samples |= kept
    fresh: set[str] = set()
    for kind, name, value in sent:
        if metric := find(metrics, kind, name):
            labels = _written(metric.labels_of(script, name))
            for sample, amount in _samples_of(metric, labels, value):
                adds = kind is Kind.COUNTER or (kind is Kind.TIMER and sample in fresh)
                samples[sample] = amount + (samples.get(sample, 0) if adds else 0)
                fresh.add(sample)
    return "".join(_family(name, group, samples) for name, group in _by_name(metrics).items())


def _samples(text: str) -> dict[str, float]:
    """Return the samples of a file, `name{labels}` → value."""
    found = [match for line in text.splitlines() if (match := SAMPLE.fullmatch(line))]
    samples = {match[1]: float(match[2]) for match in found}
    return {sample: value for sample, value in samples.items() if math.isfinite(value)}


def _samples_of(metric: Metric, labels: str, value: float) -> list[tuple[str, float]]:
    """Return the samples that one call makes."""
    if metric.kind is Kind.TIMER:
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
    ends = ("_sum", "_count") if metric.kind is Kind.TIMER else ("",)
    names = [name + end for end in ends]
    lines = [
        f"{sample} {_number(value)}\n"
        for sample, value in sorted(samples.items())
        if sample.partition("{")[0] in names
    ]
    head = f"# HELP {name} {metric.meaning}\n# TYPE {name} {metric.kind.value}\n"
    return head + "".join(lines) if lines else ""


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")
