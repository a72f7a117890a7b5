"""The panels of a dashboard: from what dashboards.toml says of one to what Grafana stores."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
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


def of_instances(expression: str) -> str:
    """Let a query ask for the chosen hosts only."""
    return METRIC.sub(
        lambda match: f"{match[1]}{{{', '.join(filter(None, [match[2], INSTANCE]))}}}", expression
    )
