"""The dashboards are what is described, and ask for metrics that exist.

Grafana's schema is in no package that is light enough for these tests: what they check is what
makes Grafana refuse a dashboard, or show it empty.
"""

import json
import re
from pathlib import Path

import pytest
import yaml

from dev.metrics_catalogue import read_scripts
from monitoring.generate_dashboards import (
    DASHBOARDS,
    dashboards,
    queries_of,
    rendered,
)
from monitoring.panels import DATASOURCE, INSTANCE, WIDTH, of_instances
from test_alerts import EXPORTED, RECORDED, SCRIPTS

FILES = {path.name: path.read_text() for path in DASHBOARDS.glob("*.json")}
PARSED = {name: json.loads(text) for name, text in FILES.items()}
TITLES = {
    "Fingerprint updater",
    "ASN metadata updater",
    "CitizenLab updater",
    "GeoIP MMDB database",
    "Database backup",
    "Event detector",
    "OONI backend tools: overview",
}
UNITS = {"s", "h", "short", "percent", "percentunit", "bytes"}
WITHOUT_LABELS = re.compile(r'"[^"]*"|\b(?:on|by|group_left) *\([^)]*\)')


def test_the_committed_dashboards_are_the_generated_ones() -> None:
    assert dashboards() == FILES, "run monitoring/generate_dashboards.py"


def test_there_is_a_dashboard_of_everything() -> None:
    assert {dashboard["title"] for dashboard in PARSED.values()} == TITLES
    uids = {name: dashboard["uid"] for name, dashboard in PARSED.items()}
    assert len({*uids.values()}) == len(uids)
    assert {f"{uid}.json" for uid in uids.values()} == uids.keys()
    assert all(len(uid) <= 40 for uid in uids.values())


@pytest.mark.parametrize("name", PARSED)
def test_a_query_names_metrics_and_scripts_that_exist(name: str) -> None:
    for expression in queries_of(PARSED[name]):
        names = set(re.findall(r"\booni[_:][a-z0-9_:]+", WITHOUT_LABELS.sub("", expression)))
        assert names <= EXPORTED | RECORDED
        assert names or "ALERTS" in expression
        assert {*re.findall(r'script="([^"]*)"', expression)} <= read_scripts().keys()


@pytest.mark.parametrize("name", PARSED)
def test_a_dashboard_asks_for_its_data_source(name: str) -> None:
    dashboard = PARSED[name]
    variable, _ = dashboard["templating"]["list"]
    assert (variable["type"], variable["name"]) == ("datasource", "datasource")
    parts = [part for panel in dashboard["panels"] for part in (panel, *panel["targets"])]
    parts += [*dashboard["annotations"]["list"], dashboard["templating"]["list"][1]]
    assert all(part["datasource"] == DATASOURCE for part in parts)


@pytest.mark.parametrize("name", PARSED)
def test_a_dashboard_lets_one_choose_hosts_and_every_query_keeps_to_them(name: str) -> None:
    _, variable = PARSED[name]["templating"]["list"]
    assert (variable["name"], variable["multi"], variable["allValue"]) == ("instance", True, ".*")
    assert variable["query"]["query"] == "label_values(ooni_status, instance)"
    for expression in queries_of(PARSED[name]):
        metrics = re.findall(r"(?<![\w:])ooni_\w+", re.sub(r'"[^"]*"', '""', expression))
        assert expression.count(INSTANCE) == len(metrics)


@pytest.mark.parametrize("name", PARSED)
def test_every_query_is_rendered_with_the_variables_of_its_dashboard(name: str) -> None:
    """A real Prometheus is asked for them by `make alerts-check`."""
    variables = [variable["name"] for variable in PARSED[name]["templating"]["list"]]
    chosen = dict.fromkeys(variables, "a|b")
    for expression in queries_of(PARSED[name]):
        query = rendered(expression, chosen)
        assert "$" not in query
        without_texts = re.sub(r'"[^"]*"', "", query)
        assert '"' not in without_texts
        for opening, closing in ("()", "{}", "[]"):
            assert without_texts.count(opening) == without_texts.count(closing)
        assert len(re.findall('instance=~"a|b"', query)) >= ("ooni_" in without_texts)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("ooni_status", 'ooni_status{instance=~"$instance"}'),
        ('ooni_status{script="a"} == 2', 'ooni_status{script="a", instance=~"$instance"} == 2'),
        ("ooni:script_info", "ooni:script_info"),
        ('ALERTS{script="ooni_download_geoip"}', 'ALERTS{script="ooni_download_geoip"}'),
        ("increase(ooni_x[1d])", 'increase(ooni_x{instance=~"$instance"}[1d])'),
    ],
)
def test_only_metrics_of_the_scripts_get_the_chosen_hosts(given: str, asked: str) -> None:
    assert of_instances(given) == asked


@pytest.mark.parametrize("name", PARSED)
def test_runs_are_marked_and_the_status_is_a_timeline(name: str) -> None:
    dashboard = PARSED[name]
    marks = {mark["name"]: mark for mark in dashboard["annotations"]["list"]}
    assert "== 2" in marks["Failed runs"]["expr"]
    if name != "ooni-overview.json":
        assert marks["Successful runs"]["useValueForTime"] == "on"
        assert marks["Successful runs"]["expr"].endswith("* 1000")  # Grafana's times are in ms
    (timeline,) = [panel for panel in dashboard["panels"] if panel["type"] == "state-timeline"]
    assert timeline["fieldConfig"]["defaults"]["mappings"]
    assert all(target["range"] for target in timeline["targets"])


@pytest.mark.parametrize("name", PARSED)
def test_panels_are_complete_and_do_not_overlap(name: str) -> None:
    panels = PARSED[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["type"] in {"stat", "table", "timeseries", "state-timeline"}
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        letters = [target["refId"] for target in panel["targets"]]
        assert letters
        assert len({*letters}) == len(letters)
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= WIDTH
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken
        taken |= cells


@pytest.mark.parametrize("name", PARSED)
def test_thresholds_rise_from_none(name: str) -> None:
    for panel in PARSED[name]["panels"]:
        first, *others = [
            step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        ]
        assert first is None
        assert others == sorted(others)


@pytest.mark.parametrize("script", [rule["labels"]["script"] for rule in SCRIPTS])
def test_a_script_says_when_it_succeeded_and_whether_in_time(script: str) -> None:
    ((panel, period),) = [
        (panel, rule["expr"])
        for dashboard in PARSED.values()
        for panel in dashboard["panels"]
        for rule in SCRIPTS
        if panel["title"] == "Last success"
        and rule["labels"]["script"] == script
        and f'script="{script}"' in panel["targets"][0]["expr"]
    ]
    red = panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"]
    assert f"vector({red // 3})" == period


def test_every_metric_is_on_a_dashboard() -> None:
    shown = {
        name
        for dashboard in PARSED.values()
        for expression in queries_of(dashboard)
        for name in re.findall(r"\booni_[a-z0-9_]+", expression)
    }
    summaries = {name.removesuffix("_sum") for name in EXPORTED if name.endswith("_sum")}
    assert {name for name in EXPORTED if name not in summaries} <= shown


def test_the_provisioning_example_loads_them_by_file() -> None:
    path = Path(DASHBOARDS).parent / "provisioning/dashboards.yml"
    provisioning = yaml.safe_load(path.read_text())
    assert provisioning["apiVersion"] == 1
    (provider,) = provisioning["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"] in (Path(DASHBOARDS).parent / "README.md").read_text()
