"""What the metrics of a script are: their names in statsd and in Prometheus, and what they say.

Each script describes those that only it sends, with its own `METRICS`; those of every script are in
`EVERY_SCRIPT`. The mapping for statsd_exporter and the table in monitoring/README.md are made of
both.
"""

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

ANY = "*"  # in a name: the part that differs; in a label: that part
PART = "([A-Za-z0-9_-]+)"  # what such a part is made of


class Kind(enum.Enum):
    """A type of metric, and what Prometheus calls it."""

    GAUGE = "gauge"
    COUNTER = "counter"
    TIMER = "summary"


Sent = tuple[Kind, str, float]  # one call: the name without prefix; a timer's value is in ms


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: in statsd, after the prefix, which is the script's name; can have one `*`.
        kind: a timer is in milliseconds in statsd, and in seconds in Prometheus.
        unit: of its value in statsd; empty: a number of things.
        meaning: the same for all that have one name in Prometheus: it is the help text there.
        when: it is sent.
        exported: its name in Prometheus.
        labels: in Prometheus; the value `*` is what stands for the `*` of the name.
        by_script: the script is one more label.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    when: str
    exported: str
    labels: Mapping[str, str] = field(default_factory=dict)
    by_script: bool = False

    @property
    def pattern(self) -> str:
        """A regular expression for the whole name."""
        return re.escape(self.name).replace(re.escape(ANY), PART)

    def labels_of(self, script: str, name: str) -> dict[str, str]:
        """Return the labels that it has in Prometheus when a script sends it under this name."""
        found = re.fullmatch(self.pattern, name)
        part = found[1] if found and ANY in self.name else ANY
        labels = {label: part if value == ANY else value for label, value in self.labels.items()}
        return ({"script": script} if self.by_script else {}) | labels


def timer(name: str, meaning: str, when: str, exported: str) -> Metric:
    """Return a timer without labels."""
    return Metric(name, Kind.TIMER, "ms", meaning, when, exported)


def table_rows(name: str, table: str) -> Metric:
    """Return the gauge of a table's size."""
    meaning = "Rows of the live table."
    labels = {"table": table}
    when = "when the table was replaced, or found to be the same"
    return Metric(name, Kind.GAUGE, "", meaning, when, "ooni_table_rows", labels, by_script=True)


def rejected_rows(when: str) -> Metric:
    """Return the gauge of the rows that were refused."""
    meaning = "Rows of the upstream that were refused, each with a line in the journal."
    name, exported = "rejected_rows", "ooni_rejected_rows"
    return Metric(name, Kind.GAUGE, "", meaning, when, exported, by_script=True)


def update_progress(name: str) -> Metric:
    """Return the gauge of how far a run has come."""
    meaning = "How far the run has come; where it failed, if it is below 100."
    exported = "ooni_update_progress_percent"
    return Metric(name, Kind.GAUGE, "%", meaning, "at each step", exported, by_script=True)


EVERY_SCRIPT = (
    Metric(
        name="status",
        kind=Kind.GAUGE,
        unit="",
        meaning="1: a run is at work; 0: the last one is done; 2: it has failed.",
        when="at the beginning and at the end",
        exported="ooni_status",
        by_script=True,
    ),
    Metric(
        name="exit_status",
        kind=Kind.GAUGE,
        unit="",
        meaning="Exit status of the last run: 0 done, 2 wrong usage, 65 data refused, 69"
        " something else is unavailable, 70 a bug, 75 try again later, 78 wrong configuration.",
        when="at the end",
        exported="ooni_exit_status",
        by_script=True,
    ),
    Metric(
        name="last_success",
        kind=Kind.GAUGE,
        unit="s",
        meaning="When a run was last done, or had nothing to do (Unix time).",
        when="at the end, unless it has failed",
        exported="ooni_last_success_timestamp_seconds",
        by_script=True,
    ),
    Metric(
        name="run",
        kind=Kind.TIMER,
        unit="ms",
        meaning="How long a run took.",
        when="at the end",
        exported="ooni_run_seconds",
        by_script=True,
    ),
)


def find(metrics: Iterable[Metric], kind: Kind, name: str) -> Metric | None:
    """Return the metric that is sent under this name; None where there is none of this kind."""
    matching = (each for each in metrics if each.kind is kind)
    return next((each for each in matching if re.fullmatch(each.pattern, name)), None)


def of_script(own: Sequence[Metric]) -> tuple[Metric, ...]:
    """Return all metrics of a script that has these of its own."""
    return (*EVERY_SCRIPT, *own)
