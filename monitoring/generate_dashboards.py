#!/usr/bin/env python3
"""Write the Grafana dashboards of dashboards.toml as dashboards/*.json.

    .venv/bin/python monitoring/generate_dashboards.py

They are for Grafana 10 or later, which asks for their data source with the variable `datasource`.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monitoring.panels import DATASOURCE, GREEN, RED, of_instances, panels

HERE = Path(__file__).parent
DESCRIPTION = HERE / "dashboards.toml"
DASHBOARDS = HERE / "dashboards"
TAG = "ooni-backend-tools"
SCHEMA_VERSION = 39  # of Grafana 10.3; newer ones migrate it


def main() -> None:
    """Write all dashboards, and delete those that are no longer described."""
    texts = dashboards()
    DASHBOARDS.mkdir(exist_ok=True)
    for path in DASHBOARDS.glob("*.json"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (DASHBOARDS / name).write_text(text)


def dashboards() -> dict[str, str]:
    """Return the files: name → JSON."""
    described = tomllib.loads(DESCRIPTION.read_text())["dashboard"]
    return {
        f"{keys['uid']}.json": json.dumps(dashboard(keys), indent=1, ensure_ascii=False) + "\n"
        for keys in described
    }


def dashboard(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return one dashboard as Grafana stores it."""
    described_panels = [*(common_panels(described) if "script" in described else ())]
    described_panels += described["panel"]
    return {
        "uid": described["uid"],
        "title": described["title"],
        "description": described["description"],
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # one cursor on all panels
        "time": {"from": "now-7d", "to": "now"},
        "timezone": "utc",
        "refresh": "5m",
        "annotations": {"list": list(annotations(described.get("script", "")))},
        "links": [other_dashboards()],
        "templating": {"list": [datasource_variable(), instance_variable()]},
        "panels": list(panels(described_panels)),
    }


def common_panels(script: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Describe what every script has: when did it succeed, is it failing, how long does it take."""
    selector = f'{{script="{script["script"]}"}}'
    period, unit = script["period"], script["unit"]
    yield {
        "title": "Last success",
        "kind": "stat",
        "unit": "s",
        "width": 6,
        "warn": 1.5 * period,
        "bad": 3 * period,
        "help": f"How long ago. Look at: systemctl status {unit}; journalctl -u {unit}",
        "queries": {"{{instance}}": f"time() - ooni_last_success_timestamp_seconds{selector}"},
    }
    for title, metric, values in (
        ("Status", "ooni_status", "status"),
        ("How the last run ended", "ooni_exit_status", "exit status"),
    ):
        yield {
            "title": title,
            "kind": "stat",
            "width": 6,
            "values": values,
            "queries": {"{{instance}}": metric + selector},
        }
    yield {
        "title": "Alerts",
        "kind": "stat",
        "width": 6,
        "bad": 1,
        "help": "That fire for this script. What they mean is in their descriptions (alerts.yml).",
        "queries": {
            "firing": f'count (ALERTS{{script="{script["script"]}", alertstate="firing"}})'
            " or vector(0)"
        },
    }
    yield {
        "title": "Duration of a run",
        "unit": "s",
        "width": 12,
        "means": {"{{instance}}": f"ooni_run_seconds{selector}"},
    }
    yield {
        "title": "Status over time",
        "kind": "state-timeline",
        "width": 12,
        "values": "status",
        "queries": {"{{instance}}": f"ooni_status{selector}"},
    }


def datasource_variable() -> dict[str, Any]:
    """Let the reader choose one of the Prometheus servers that Grafana knows."""
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "regex": "",
        "options": [],
        "current": {},
    }


def instance_variable() -> dict[str, Any]:
    """Let the reader choose hosts: all of them at first."""
    query = "label_values(ooni_status, instance)"
    return {
        "name": "instance",
        "label": "Host",
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "instance"},
        "refresh": 2,  # with the time range: a host that is gone has been there
        "sort": 1,
        "hide": 0,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "regex": "",
        "options": [],
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def rendered(text: str, chosen: Mapping[str, str]) -> str:
    """Return a query as Grafana sends it when these values of the variables are chosen."""
    return re.sub(r"\$(\w+)|\$\{(\w+)\}", lambda match: chosen[match[1] or match[2]], text)


def queries_of(dashboard: Mapping[str, Any]) -> list[str]:
    """Return all that a dashboard asks for: of its panels, and of its marks."""
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return panels + [mark["expr"] for mark in dashboard["annotations"]["list"]]


def annotations(script: str) -> Iterator[dict[str, Any]]:
    """Mark the runs on all panels: when one succeeded, and for how long the last one had failed.

    The overview, of all scripts, has the failures alone.
    """
    selector = f'{{script="{script}"}}' if script else ""
    if script:
        success = f"ooni_last_success_timestamp_seconds{selector} * 1000"
        yield annotation("Successful runs", success, GREEN, at_value=True)
    yield annotation("Failed runs", f"ooni_status{selector} == 2", RED, at_value=False)


def annotation(name: str, expression: str, color: str, *, at_value: bool) -> dict[str, Any]:
    """Return one kind of marks; `at_value`: the value is when, in milliseconds."""
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": color,
        "expr": of_instances(expression),
        "step": "5m",
        "titleFormat": f"{{{{script}}}}: {name.lower()}",
        "textFormat": "{{instance}}",
        "tagKeys": "script",
        "useValueForTime": "on" if at_value else False,
    }


def other_dashboards() -> dict[str, Any]:
    """Link to all that have the same tag."""
    return {
        "type": "dashboards",
        "title": "OONI backend tools",
        "tags": [TAG],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }


if __name__ == "__main__":
    main()
