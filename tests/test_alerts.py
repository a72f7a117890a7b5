"""The alerts speak of metrics and identifiers that exist, and each is tested in both directions.

The rules themselves are tested by `make alerts-check`, with promtool.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.metrics_catalogue import read_scripts
from ooni_common.metrics import MetricKind

ROOT = Path(__file__).parents[1]
MONITORING = ROOT / "monitoring"
TOOLS = tomllib.loads((ROOT / "debian/tools.toml").read_text())
UNITS = {tool["identifier"]: unit for unit, tool in TOOLS.items() if "identifier" in tool}
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
RULES = [
    rule
    for name in ("alerts.yml", "site.yml")
    for group in yaml.safe_load((MONITORING / name).read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
SCRIPTS = [rule for rule in RULES if rule.get("record") == "ooni:script_period_seconds"]
INFOS = [rule["labels"] for rule in RULES if rule.get("record") == "ooni:script_info"]
EXPORTERS = {"prometheus-node-exporter"}  # whose units an alert may name
TESTS = [
    test
    for path in MONITORING.glob("alerts*_test.yml")
    for group in yaml.safe_load(path.read_text())["tests"]
    for test in group["promql_expr_test"]
]
EXPORTED = {
    name
    for metrics in read_scripts().values()
    for metric in metrics
    for ends in [("", "_sum", "_count") if metric.kind is MetricKind.TIMER else ("",)]
    for name in (*(metric.exported + end for end in ends), *metric.in_file)
}
PERIODS = {"*:0/30": 1800, "hourly": 3600, "*:10": 3600, "daily": 86400, "weekly": 604800}
UNITS_OF_TESTS = {"d": 1440, "h": 60, "m": 1}


def minutes(text: str) -> int:
    return sum(int(n) * UNITS_OF_TESTS[unit] for n, unit in re.findall(r"(\d+)([dhm])", text))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_uses_metrics_that_exist(rule: dict[str, Any]) -> None:
    names = set(re.findall(r"\booni[_:][a-z0-9_:]+", re.sub(r'"[^"]*"', "", rule["expr"])))
    assert names <= EXPORTED | RECORDED


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_it_means_and_where_to_look(name: str) -> None:
    rule = ALERTS[name]
    labels = rule["labels"]
    assert labels.keys() <= {"severity", "script"}
    assert "script" in rule["expr"] or labels.get("script", "detector") in read_scripts()
    assert labels["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert "$value" in rule["annotations"]["summary"]
    assert "\n" not in rule["annotations"]["summary"]
    description = rule["annotations"]["description"]
    assert re.search(r"^1\. .*^2\. ", description, re.DOTALL | re.MULTILINE)
    for identifier in re.findall(r"journalctl -t (\{\{.*?\}\}|\S+)", description):
        if identifier == "{{ $labels.identifier }}":
            assert "group_left (unit, identifier)" in rule["expr"]
        else:
            assert identifier in {*UNITS, "ooni-tool-failed"}
    assert set(re.findall(r"journalctl -u (\S+)", description)) <= EXPORTERS
    assert re.search("journalctl|promtool", description)


def sections_of_the_runbook() -> dict[str, str]:
    """Return the text below each heading of the third level, by the heading."""
    parts = re.split(r"^### (.*)\n", re.sub(r"(?m)^## .*", "", RUNBOOK), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_runbook_has_one_section_for_each_alert_in_the_same_order() -> None:
    assert list(sections_of_the_runbook()) == list(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_leads_to_its_section_of_the_runbook(name: str) -> None:
    (homepage,) = re.findall("(?m)^Homepage: (.*)$", (ROOT / "debian/control").read_text())
    url = ALERTS[name]["annotations"]["runbook_url"]
    assert url == f"{homepage}/blob/HEAD/docs/runbook.md#{name.lower()}"


@pytest.mark.parametrize("name", ALERTS)
def test_a_section_says_what_it_means_where_to_look_what_to_run_and_whether_it_can_wait(
    name: str,
) -> None:
    section = sections_of_the_runbook()[name]
    starts = re.findall(r"(?m)^\*\*(Means|Look|Run|Wait\?)\*\*", section)
    assert starts == ["Means", "Look", "Run", "Wait?"]
    assert "`" in section
    assert re.search(r"\*\*Wait\?\*\* (Yes|No|Until|The updaters|As for|If ClickHouse)", section)


def test_links_within_the_runbook_lead_to_its_sections() -> None:
    anchors = {name.lower() for name in sections_of_the_runbook()}
    assert set(re.findall(r"\(#(\w+)\)", RUNBOOK)) <= anchors


def test_commands_of_the_runbook_exist() -> None:
    commands = set(
        re.findall(r"\b(?:ooni-(?!tool|site|backend)[a-z-]+|detector) (?=doctor)", RUNBOOK)
    )
    assert {command.strip() for command in commands} <= TOOLS.keys()
    flags = set(re.findall(r"(?<=ooni -- UNIT )--[a-z-]+", RUNBOOK))
    assert flags <= {"--dry-run", "--rollback"}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_tested_firing_before_that_silent_and_afterwards(name: str) -> None:
    tests = [test for test in TESTS if f'alertname="{name}"' in test["expr"]]
    firing = [minutes(test["eval_time"]) for test in tests if test["exp_samples"]]
    silent = [minutes(test["eval_time"]) for test in tests if not test["exp_samples"]]
    assert firing
    assert min(silent) < min(firing)
    assert max(silent) > min(firing)


def test_the_rules_know_every_script_as_it_is_packaged() -> None:
    assert {labels["script"]: labels["unit"] for labels in INFOS} == {
        tool["metrics"]: unit for unit, tool in TOOLS.items() if "metrics" in tool
    }
    assert {labels["identifier"]: labels["unit"] for labels in INFOS} == UNITS


def test_the_file_of_a_site_has_every_script_with_the_period_of_its_timer() -> None:
    assert {rule["labels"]["script"]: rule["expr"] for rule in SCRIPTS} == {
        tool["metrics"]: f"vector({PERIODS[tool['calendar']]})"
        for tool in TOOLS.values()
        if "metrics" in tool
    }
    assert read_scripts().keys() == {rule["labels"]["script"] for rule in SCRIPTS}


def test_what_a_site_edits_is_in_a_file_of_its_own() -> None:
    """Field S12: the list of sites was edited inside the shipped file."""
    shipped, own = (
        {rule.get("record") for group in yaml.safe_load(text)["groups"] for rule in group["rules"]}
        for text in ((MONITORING / name).read_text() for name in ("alerts.yml", "site.yml"))
    )
    assert own == {"ooni:script_period_seconds", "ooni:script_rejected_rows_limit"}
    assert not shipped & own
    assert "Delete" not in (MONITORING / "alerts.yml").read_text().partition("alert:")[0]


def test_every_alert_is_in_the_readme_with_its_severity() -> None:
    readme = (MONITORING / "README.md").read_text()
    table = re.findall(r"^\| `(Ooni\w+)` \|.*\| (\w+) \|$", readme, re.MULTILINE)
    assert table == [(name, rule["labels"]["severity"]) for name, rule in ALERTS.items()]
