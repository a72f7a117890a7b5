"""monitoring/metrics.toml has what the scripts send, and the files beside it are made of it."""

import ast
import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.metrics_catalogue import (
    IN_EXPORTER,
    MAPPING,
    README,
    mapping_of,
    read_scripts,
    readme_of,
    undocumented,
)
from ooni_common.metrics import MetricKind
from ooni_common.textfile import ANY, PREFIX, Metric, read_metrics

ROOT = Path(__file__).parents[1]
SCRIPTS = read_scripts()
TOOLS = tomllib.loads((ROOT / "debian/tools.toml").read_text()).values()
SOURCES = {tool["metrics"]: ROOT / tool["script"] for tool in TOOLS if "metrics" in tool}
CALLS = {"gauge": MetricKind.GAUGE, "count": MetricKind.COUNTER, "timer": MetricKind.TIMER}
EXPORTED = {  # what alerts and dashboards rely on
    "ooni_status",
    "ooni_exit_status",
    "ooni_last_success_timestamp_seconds",
    "ooni_run_seconds",
    "ooni_absent_nodes",
    "ooni_rejected_rows",
    "ooni_table_rows",
    "ooni_update_progress_percent",
    "ooni_citizenlab_broken_files",
    "ooni_citizenlab_held_countries",
    "ooni_citizenlab_acceptance_timestamp_seconds",
    "ooni_citizenlab_fetch_seconds",
    "ooni_citizenlab_update_table_seconds",
    "ooni_fingerprints_fetch_seconds",
    "ooni_asnmeta_fetch_seconds",
    "ooni_geoip_build_timestamp_seconds",
    "ooni_geoip_nodes",
    "ooni_geoip_checkfail_total",
    "ooni_geoip_updated_total",
    "ooni_geoip_download_seconds",
    "ooni_db_backup_table_seconds",
    "ooni_db_backup_uploaded_bytes",
    "ooni_db_backup_skipped_chunks",
    "ooni_db_backup_bytes_to_decide",
    "ooni_db_backup_bytes_of_rotation",
    "ooni_db_backup_bytes_to_export",
    "ooni_db_backup_backup_bytes",
    "ooni_db_backup_unlisted_tables",
    "ooni_db_backup_backups",
    "ooni_db_backup_last_verified_timestamp_seconds",
    "ooni_db_backup_verify_findings",
    "ooni_db_backup_upload_to_s3_seconds",
    "ooni_db_backup_run_export_seconds",
    "ooni_db_backup_run_backup_seconds",
    "ooni_detector_open_incidents",
    "ooni_detector_lag_hours",
    "ooni_detector_held_alarms",
    "ooni_detector_held_alarms_oldest_hours",
    "ooni_detector_query_seconds",
    "ooni_detector_write_feed_seconds",
}


# --- what the code sends ---


@functools.cache
def parts_of(source: Path) -> set[Path]:
    """Return a script and what it imports of its folder and of ooni_common, directly or not."""
    parts, waiting = set[Path](), [source]
    while waiting:
        part = waiting.pop()
        if part not in parts:
            parts.add(part)
            waiting += [
                path
                for name in imports_of(part)
                for folder in (source.parent, ROOT)
                for path in [folder / f"{name.replace('.', '/')}.py"]
                if path.exists()
            ]
    return parts


@functools.cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def imports_of(path: Path) -> Iterator[str]:
    """Give the names of the modules that a module may import, also those that are none."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"  # it would not be followed
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sent_by(path: Path) -> Iterator[tuple[MetricKind, str]]:
    """Give the kind of each metric that a module sends, and a regular expression for its name."""
    for node in nodes_of(path):
        if isinstance(node, ast.Call):
            partial = ast.unparse(node.func).endswith("partial")
            function, *arguments = node.args if partial else [node.func, *node.args]
            if (
                isinstance(function, ast.Attribute)
                and function.attr in CALLS
                and ast.unparse(function.value).endswith("metrics")
            ):
                yield CALLS[function.attr], pattern_of(arguments[0])


def pattern_of(name: ast.expr) -> str:
    parts = name.values if isinstance(name, ast.JoinedStr) else [name]
    return "".join(
        re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".+" for part in parts
    )


@functools.cache
def calls_of(source: Path) -> set[tuple[MetricKind, str]]:
    return {call for part in parts_of(source) for call in sent_by(part)}


def fits(metric: Metric, call: tuple[MetricKind, str]) -> bool:
    return metric.kind is call[0] and bool(re.fullmatch(call[1], metric.name))


def test_the_calls_are_seen() -> None:
    calls = {script: calls_of(source) for script, source in SOURCES.items()}
    assert (MetricKind.GAUGE, "rejected_rows") in calls["fingerprints_updater"]
    assert (MetricKind.TIMER, "table_.+_backup_time_ms") in calls["db-backup"]
    assert (MetricKind.COUNTER, "ooni_geoip_updated") in calls["ooni_download_geoip"]
    assert (MetricKind.TIMER, "query") in calls["detector"]  # functools.partial(….timer, "query")


def test_the_sections_are_those_of_the_scripts() -> None:
    assert read_metrics().keys() == {PREFIX, *SOURCES}


@pytest.mark.parametrize("script", SOURCES)
def test_every_metric_that_a_script_sends_is_described(script: str) -> None:
    metrics, calls = SCRIPTS[script], calls_of(SOURCES[script])
    assert [call for call in calls if not any(fits(metric, call) for metric in metrics)] == []


@pytest.mark.parametrize("script", SOURCES)
def test_every_metric_that_is_described_is_sent_by_its_script(script: str) -> None:
    metrics, calls = SCRIPTS[script], calls_of(SOURCES[script])
    assert [metric for metric in metrics if not any(fits(metric, call) for call in calls)] == []


def test_no_module_sends_metrics_that_no_script_has() -> None:
    sending = {path for source in SOURCES.values() for path in source.parent.rglob("*.py")}
    reached = {part for source in SOURCES.values() for part in parts_of(source)}
    assert [path for path in sending - reached if list(sent_by(path))] == []


# --- what is described ---


def test_the_names_in_prometheus_are_those_that_alerts_and_dashboards_rely_on() -> None:
    assert {metric.exported for metrics in SCRIPTS.values() for metric in metrics} == EXPORTED


def test_what_has_one_name_in_prometheus_has_one_kind_meaning_and_set_of_labels() -> None:
    described: dict[str, set[tuple[Any, ...]]] = {}
    for metrics in SCRIPTS.values():
        for metric in metrics:
            facts = (metric.kind, metric.meaning, tuple(metric.labels))
            described.setdefault(metric.exported, set()).add(facts)
    assert {name: facts for name, facts in described.items() if len(facts) > 1} == {}


def test_what_is_not_described_is_told() -> None:
    received = {
        "detector.status": [(1.0, "g"), (1.0, "c")],
        "db-backup.table_fast-path_1_backup_time_ms": [(1.0, "ms")],
        "detector.nonsense": [(1.0, "g")],
        "other.status": [(1.0, "g")],
        "detector": [(1.0, "g")],
        "detector.lag_hours": [(1.0, "s")],
    }
    assert undocumented(received) == [
        "detector.status|c",
        "detector.nonsense|g",
        "other.status|g",
        "detector|g",
        "detector.lag_hours|s",
    ]


# --- what is made of it ---


def test_the_mapping_and_the_table_are_made_of_the_file() -> None:
    hint = "run: python -m dev.metrics_catalogue"
    assert MAPPING.read_text() == mapping_of(SCRIPTS), hint
    assert README.read_text() == readme_of(README.read_text(), read_metrics()), hint
    assert "| `PREFIX.exit_status` |" in README.read_text()


@functools.cache
def rules_of_the_mapping() -> list[dict[str, Any]]:
    """Return statsd_exporter's rules in the order in which it takes them: first all globs."""
    rules = yaml.safe_load(MAPPING.read_text())["mappings"]
    return sorted(rules, key=lambda rule: rule.get("match_type", "glob"))


def mapped(name: str, kind: str) -> tuple[str, dict[str, str]] | None:
    """Return name and labels that statsd_exporter's rules (its README) give; None: it is dropped.

    A rule of another type of metric doesn't match.
    """
    for rule in rules_of_the_mapping():
        regex = rule["match"]
        if rule.get("match_type") != "regex":
            regex = "^" + re.escape(regex).replace(r"\*", "([^.]*)") + "$"
        match = re.search(regex, name)
        if match and rule.get("match_metric_type", kind) == kind:
            if rule.get("action") == "drop":
                return None
            parts = {f"${number}": part for number, part in enumerate(match.groups(), start=1)}
            labels = rule.get("labels", {})
            return rule["name"], {key: parts.get(value, value) for key, value in labels.items()}
    return name, {}


def test_the_mapping_gives_each_metric_its_name_and_labels() -> None:
    for script, metrics in SCRIPTS.items():
        for metric in metrics:
            name = metric.name.replace(ANY, "fast-path_1")
            expected = (metric.exported, metric.labels_of(script, name))
            assert mapped(f"{script}.{name}", IN_EXPORTER[metric.kind]) == expected


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("detector.nonsense", "gauge"),
        ("detector.status", "counter"),
        ("db-backup.table_x_backup_time_ms.y", "observer"),
        ("asnmeta_updater.a.b", "gauge"),
    ],
)
def test_the_mapping_drops_what_is_not_described(name: str, kind: str) -> None:
    assert mapped(name, kind) is None


def test_the_mapping_leaves_the_metrics_of_others_alone() -> None:
    assert mapped("fastpath.detector.status", "gauge") == ("fastpath.detector.status", {})
    assert mapped("detectors.status", "gauge") == ("detectors.status", {})
