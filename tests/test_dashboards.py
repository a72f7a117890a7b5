"""The dashboards are what is described, and ask for metrics that exist.

Grafana's schema is in no package that is light enough for these tests: what they check is what
makes Grafana refuse a dashboard, or show it empty.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.metrics_catalogue import read_scripts
from monitoring.generate_dashboards import DASHBOARDS, DATASOURCE, WIDTH, dashboards
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


def queries(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


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
    for expression in queries(PARSED[name]):
        names = set(re.findall(r"\booni[_:][a-z0-9_:]+", WITHOUT_LABELS.sub("", expression)))
        assert names <= EXPORTED | RECORDED
        assert names or "ALERTS" in expression
        assert {*re.findall(r'script="([^"]*)"', expression)} <= read_scripts().keys()


@pytest.mark.parametrize("name", PARSED)
def test_a_dashboard_asks_for_its_data_source(name: str) -> None:
    dashboard = PARSED[name]
    (variable,) = dashboard["templating"]["list"]
    assert (variable["type"], variable["name"]) == ("datasource", "datasource")
    parts = [part for panel in dashboard["panels"] for part in (panel, *panel["targets"])]
    assert all(part["datasource"] == DATASOURCE for part in parts)


@pytest.mark.parametrize("name", PARSED)
def test_panels_are_complete_and_do_not_overlap(name: str) -> None:
    panels = PARSED[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["type"] in {"stat", "table", "timeseries"}
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
        for expression in queries(dashboard)
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
