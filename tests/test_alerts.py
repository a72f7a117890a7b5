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
RULES = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
SCRIPTS = [rule for rule in RULES if rule.get("record") == "ooni:script_period_seconds"]
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
    assert rule["annotations"].keys() == {"summary", "description"}
    assert "$value" in rule["annotations"]["summary"]
    assert "\n" not in rule["annotations"]["summary"]
    description = rule["annotations"]["description"]
    assert re.search(r"^1\. .*^2\. ", description, re.DOTALL | re.MULTILINE)
    identifiers = re.findall(r"journalctl -t (\{\{.*?\}\}|\S+)", description)
    assert identifiers
    for identifier in identifiers:
        if identifier == "{{ $labels.identifier }}":
            assert "group_left (unit, identifier)" in rule["expr"] or "NeverSucceeded" in name
        else:
            assert identifier in UNITS


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_tested_firing_before_that_silent_and_afterwards(name: str) -> None:
    tests = [test for test in TESTS if f'alertname="{name}"' in test["expr"]]
    firing = [minutes(test["eval_time"]) for test in tests if test["exp_samples"]]
    silent = [minutes(test["eval_time"]) for test in tests if not test["exp_samples"]]
    assert firing
    assert min(silent) < min(firing)
    assert max(silent) > min(firing)


def test_the_rules_know_every_script_as_it_is_packaged() -> None:
    periods = {
        rule["labels"]["identifier"]: (rule["labels"]["unit"], rule["expr"]) for rule in SCRIPTS
    }
    assert periods == {
        identifier: (unit, f"vector({PERIODS[TOOLS[unit]['calendar']]})")
        for identifier, unit in UNITS.items()
    }
    assert {rule["labels"]["script"] for rule in SCRIPTS} == read_scripts().keys()


def test_every_alert_is_in_the_readme_with_its_severity() -> None:
    readme = (MONITORING / "README.md").read_text()
    table = re.findall(r"^\| `(Ooni\w+)` \|.*\| (\w+) \|$", readme, re.MULTILINE)
    assert table == [(name, rule["labels"]["severity"]) for name, rule in ALERTS.items()]
