#!/usr/bin/env python3
"""Write the Grafana dashboards of dashboards.toml as dashboards/*.json.

    monitoring/generate_dashboards.py

They are for Grafana 10 or later, which asks for their data source with the variable `datasource`.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DESCRIPTION = HERE / "dashboards.toml"
DASHBOARDS = HERE / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
TAG = "ooni-backend-tools"
SCHEMA_VERSION = 39  # of Grafana 10.3; newer ones migrate it
WIDTH, HEIGHT, STAT_HEIGHT = 24, 8, 5
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"
# The metrics of the scripts, with or without labels; what the rules record has no instance.
METRIC = re.compile(r'(?<![\w:"])(ooni_\w+)(?:\{([^}]*)\})?')
INSTANCE = 'instance=~"$instance"'
LASTING = {"timeseries", "state-timeline"}  # kinds that show a time, and not an instant
VALUES = {  # what numbers mean
    "status": {"0": ("done", GREEN), "1": ("running", BLUE), "2": ("failed", RED)},
    "exit status": {
        "0": ("done", GREEN),
        "65": ("data refused", RED),
        "69": ("unavailable", YELLOW),
        "70": ("bug", RED),
        "75": ("try again later", YELLOW),
        "78": ("wrong configuration", RED),
    },
}


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


def panels(described: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Make the panels, from left to right and from top to bottom."""
    x = y = row_height = 0
    for number, keys in enumerate(described, 1):
        width = keys.get("width", 8)
        height = STAT_HEIGHT if keys.get("kind") in {"stat", "table"} else HEIGHT
        if x + width > WIDTH:
            x, y, row_height = 0, y + row_height, 0
        yield panel(number, keys) | {"gridPos": {"x": x, "y": y, "w": width, "h": height}}
        x, row_height = x + width, max(row_height, height)


def panel(number: int, described: Mapping[str, Any]) -> dict[str, Any]:
    """Make one panel, without its place."""
    kind = described.get("kind", "timeseries")
    queries = described.get("queries") or {
        legend: mean(timer) for legend, timer in described["means"].items()
    }
    defaults: dict[str, Any] = {
        "unit": described.get("unit", "short"),
        "mappings": mappings(described.get("values", "")),
        "thresholds": thresholds(described),
        "color": {"mode": "palette-classic" if kind == "timeseries" else "thresholds"},
    }
    if "decimals" in described:
        defaults["decimals"] = described["decimals"]
    if kind == "state-timeline":
        defaults["custom"] = {"fillOpacity": 70, "lineWidth": 0, "spanNulls": True}
    if kind == "timeseries":
        # A script sends now and then: what lies between two values is a line, and zero is in sight.
        style = "dashed" if "warn" in described or "bad" in described else "off"
        defaults |= {
            "custom": {"spanNulls": True, "thresholdsStyle": {"mode": style}},
            "min": 0,
        }
    return {
        "id": number,
        "type": kind,
        "title": described["title"],
        "description": described.get("help", ""),
        "datasource": DATASOURCE,
        "targets": [
            target(chr(ord("A") + index), legend, expression, instant=kind not in LASTING)
            for index, (legend, expression) in enumerate(queries.items())
        ],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options(kind),
        "transformations": transformations(kind),
    }


def mean(timer: str) -> str:
    """Return how long it took on average: of a day, else of all that statsd_exporter has seen.

    A file for node_exporter has gauges of the last run instead.
    """
    name, brace, selector = timer.partition("{")
    selector = brace + selector
    total, number = f"{name}_sum{selector}", f"{name}_count{selector}"
    of_a_day = f"increase({total}[1d]) / (increase({number}[1d]) > 0)"
    base = name.removesuffix("_seconds")
    of_last_run = f"{base}_last_seconds{selector} / ({base}_last_calls{selector} > 0)"
    return f"{of_a_day} or {total} / ({number} > 0) or {of_last_run}"


def target(letter: str, legend: str, expression: str, *, instant: bool) -> dict[str, Any]:
    """Make one query."""
    return {
        "refId": letter,
        "datasource": DATASOURCE,
        "expr": of_instances(expression),
        "legendFormat": legend,
        "instant": instant,
        "range": not instant,
        "format": "table" if not legend else "time_series",
    }


def mappings(values: str) -> list[dict[str, Any]]:
    """Give numbers their names and colours."""
    options = {
        number: {"text": text, "color": color, "index": index}
        for index, (number, (text, color)) in enumerate(VALUES.get(values, {}).items())
    }
    return [{"type": "value", "options": options}] if options else []


def thresholds(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return from where on it is yellow and red."""
    steps: list[dict[str, Any]] = [{"value": None, "color": GREEN}]
    steps += [
        {"value": described[key], "color": color}
        for key, color in (("warn", YELLOW), ("bad", RED))
        if key in described
    ]
    return {"mode": "absolute", "steps": steps}


def options(kind: str) -> dict[str, Any]:
    """Return what a kind of panel needs."""
    if kind == "stat":
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "background",
            "graphMode": "none",
            "justifyMode": "auto",
            "textMode": "auto",
            "orientation": "auto",
        }
    if kind == "table":
        return {"showHeader": True, "cellHeight": "sm"}
    if kind == "state-timeline":
        return {
            "mergeValues": True,
            "showValue": "never",
            "alignValue": "left",
            "rowHeight": 0.9,
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "single", "sort": "none"},
        }
    return {
        "legend": {
            "displayMode": "list",
            "placement": "bottom",
            "showLegend": True,
            "calcs": ["lastNotNull"],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def transformations(kind: str) -> list[dict[str, Any]]:
    """Leave out of a table of alerts what says nothing."""
    if kind != "table":
        return []
    hidden = ("Time", "Value", "__name__", "alertstate", "identifier", "job")
    excluded = dict.fromkeys(hidden, True)
    return [{"id": "organize", "options": {"excludeByName": excluded}}]


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


def of_instances(expression: str) -> str:
    """Let a query ask for the chosen hosts only."""
    return METRIC.sub(
        lambda match: f"{match[1]}{{{', '.join(filter(None, [match[2], INSTANCE]))}}}", expression
    )


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
