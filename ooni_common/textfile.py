"""The metrics of a script as a file for node_exporter's textfile collector.

What a run has not sent keeps the value that it has in the previous file. Which metrics a script
has, and what Prometheus calls them, is in monitoring/metrics.toml.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ooni_common.metrics import MetricKind, Sent

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

METRICS_FILE = Path(__file__).with_name("metrics.toml")  # in the checkout a link into monitoring/
PREFIX = "PREFIX"  # the section of what every script sends; in a label: the script's name
ANY = "*"  # in a name: the part that differs; in a label: that part
ANY_PART = "([A-Za-z0-9_-]+)"  # the letters of such a part
LONGEST_LINE = 2000  # characters of a sample in the previous file

Labels = tuple[tuple[str, str], ...]  # sorted pairs of name and value
Samples = dict[tuple[str, Labels], float]  # by the sample's name and labels


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
    def in_file(self) -> dict[str, str]:
        """The names that it has in a file, and what these say: a timer is two gauges there.

        A summary of statsd_exporter grows with each run. A file has one run, whose sums and counts
        would stand still: `rate()` and `increase()` of them would be 0 for ever.
        """
        if self.kind is not MetricKind.TIMER:
            return {self.exported: self.meaning}
        base = self.exported.removesuffix("_seconds")
        return {
            f"{base}_last_seconds": f"{self.meaning} Seconds of the last run, all calls together.",
            f"{base}_last_calls": f"{self.meaning} Calls of the last run.",
        }

    @property
    def type_in_file(self) -> str:
        """What Prometheus calls the type of these."""
        return "counter" if self.kind is MetricKind.COUNTER else "gauge"

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


def textfile(script: str, metrics: Sequence[Metric], sent: Iterable[Sent], previous: str) -> bytes:
    """Return the file of a script.

    Args:
        script: its name, the label `script`.
        metrics: all that it can send; what else is sent, or was in the file, is left out.
        sent: in order; of a gauge the last value counts. Counters add to the file's value. Of a
            timer the file has the seconds and the number of these calls.
        previous: the file as it is; text that isn't a sample is ignored.
    """
    # It takes as long as all other imports of a small tool together; most runs write no file.
    from prometheus_client import generate_latest  # noqa: PLC0415
    from prometheus_client.registry import Collector  # noqa: PLC0415

    counters = [metric.exported for metric in metrics if metric.kind is MetricKind.COUNTER]
    samples: Samples = {(name, ()): 0 for name in counters}
    samples |= _samples(previous)
    _add(samples, script, metrics, sent)

    class File(Collector):
        def collect(self) -> Iterator["Family"]:
            return _families(metrics, samples)

    return generate_latest(File())


def _samples(text: str) -> Samples:
    """Return the samples of a file that may be damaged, or another version's."""
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415

    samples: Samples = {}
    for line in text.splitlines():
        if line.startswith("#") or len(line) > LONGEST_LINE:
            continue
        try:
            read = [
                sample
                for family in text_string_to_metric_families(line)
                for sample in family.samples
            ]
        except (ValueError, LookupError, TypeError):  # the parser says so: it isn't a sample
            continue
        samples |= {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for sample in read
            if math.isfinite(sample.value)
        }
    return samples


def _add(samples: Samples, script: str, metrics: Sequence[Metric], sent: Iterable[Sent]) -> None:
    """Take in what a run has sent."""
    fresh: set[tuple[str, Labels]] = set()
    for kind, name, value in sent:
        if metric := find_metric(metrics, kind, name):
            labels = tuple(sorted(metric.labels_of(script, name).items()))
            for exported, amount in _amounts(metric, value):
                sample = (exported, labels)
                adds = kind is MetricKind.COUNTER or (kind is MetricKind.TIMER and sample in fresh)
                samples[sample] = amount + (samples.get(sample, 0) if adds else 0)
                fresh.add(sample)


def _amounts(metric: Metric, value: float) -> Iterator[tuple[str, float]]:
    """Give the names and amounts that one call has in the file."""
    amounts = (round(value / 1000, 6), 1) if metric.kind is MetricKind.TIMER else (value,)
    return zip(metric.in_file, amounts, strict=True)


def _families(metrics: Sequence[Metric], samples: Samples) -> Iterator["Family"]:
    """Give what the file has of each name; the samples of other names, or labels, are left out."""
    from prometheus_client import Metric as Family  # noqa: PLC0415

    for name, (metric, meaning) in _by_name(metrics).items():
        kind = metric.type_in_file
        family = Family(name.removesuffix("_total"), meaning, kind)
        for (exported, labels), value in sorted(samples.items()):
            if exported == name and {label for label, _ in labels} == metric.labels.keys():
                family.add_sample(exported, dict(labels), value)
        if family.samples:
            yield family


def _by_name(metrics: Iterable[Metric]) -> dict[str, tuple[Metric, str]]:
    return {
        name: (metric, meaning) for metric in metrics for name, meaning in metric.in_file.items()
    }
