"""Check monitoring/alerts.yml with promtool, and in a real Prometheus with a real Alertmanager.

    python -m dev.alerts_check                 everything
    python -m dev.alerts_check OoniGeoipOld    only promtool's tests that name these alerts

They are taken from PATH, else from Debian's packages `prometheus` and `prometheus-alertmanager`,
which are unpacked in build/ and not installed, so that no service is started. The real Prometheus
scrapes a site where everything is wrong, whose past is given to it: each alert has to be pending or
firing there, with readable annotations, and those that fire reach the receivers of their severity.
Then it scrapes what the demo has written for node_exporter: there the alerts have to be silent, and
each query of a dashboard, rendered as Grafana does, has an answer.
"""

import contextlib
import functools
import http.server
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from dev.alertmanager import find_alertmanager, problems_of_routes, running_alertmanager
from dev.debian_programs import find_programs, free_port
from monitoring.generate_dashboards import queries_of, rendered

ROOT = Path(__file__).parents[1]
MONITORING = ROOT / "monitoring"
TEXTFILES = ROOT / "build/demo/textfiles"
RULES = ("site.yml", "alerts.yml")
RECEIVED = {"OoniTableShrank": "pager", "OoniUnlistedTables": "mail"}  # they fire at once
CHOSEN = {"instance": ".*", "datasource": "prometheus"}  # of the variables of the dashboards
# One of its sample lists is broken, and it verifies one backup by its name.
ALERTS_OF_DEMO = {"OoniTestListsHeld", "OoniBackupNeverProven"}
# The only weekly script makes the backups, and has made one here; of these, none was ever proven:
# promtool tests the other cases.
SILENT_HERE = {"OoniWeeklyScriptNeverSucceeded", "OoniBackupUnproven"}
HOUR, DAY = 3600, 86400
PATIENCE = 60  # seconds until Prometheus has scraped and evaluated everything
CONFIG = """\
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [RULES]
scrape_configs:
  - job_name: ooni
    static_configs: [{targets: ["TARGET"], labels: {instance: host}}]
"""
DEAD_EXPORTER = """\
  - job_name: dead
    static_configs: [{targets: ["127.0.0.1:1"], labels: {instance: dead}}]
"""
ALERTING = """\
alerting: {alertmanagers: [{static_configs: [{targets: ["ALERTMANAGER"]}]}]}
"""
SCRIPT_OF_NOBODY = """\
      - {record: "ooni:script_period_seconds", expr: vector(60), labels: {script: nobody}}
"""


def main(names: Sequence[str]) -> int:
    """Run all checks, or the tests of some alerts; return the exit status."""
    if unknown := sorted(set(names) - alert_names()):
        print(f"{', '.join(unknown)}: no such alert in {MONITORING / 'alerts.yml'}")
        return 2
    programs = find_programs("prometheus", "promtool", "prometheus")
    if not programs:
        print("NOT RUN: the alert rules: there is no promtool here (Debian: package prometheus)")
        return 0
    promtool, prometheus = programs
    if names:
        return test_some(promtool, names)
    subprocess.run([promtool, "check", "rules", *RULES], cwd=MONITORING, check=True)
    tests = sorted(path.name for path in MONITORING.glob("alerts*_test.yml"))
    subprocess.run([promtool, "test", "rules", *tests], cwd=MONITORING, check=True)
    problems: list[str] = []
    alertmanager = find_alertmanager()
    if alertmanager:
        problems += problems_of_routes(alertmanager)
    else:
        print("NOT RUN: the routes of alerts (Debian: package prometheus-alertmanager)")
    with tempfile.TemporaryDirectory() as folder:
        problems += examine_wrong_site(promtool, prometheus, alertmanager, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        problems += examine_demo(prometheus, Path(folder))
    for problem in problems:
        print(problem)
    print(f"alerts in a real Prometheus: {'wrong' if problems else 'all as they should be'}")
    return 1 if problems else 0


def test_some(promtool: str, names: Sequence[str]) -> int:
    """Run promtool's tests that name some alerts; return the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for path in sorted(MONITORING.glob("alerts*_test.yml")):
            document = yaml.safe_load(path.read_text())
            document["rule_files"] = [str(MONITORING / name) for name in document["rule_files"]]
            document["tests"] = [
                test
                for test in document["tests"]
                if any(name in json.dumps(test) for name in names)
            ]
            files.append(Path(folder, path.name))
            files[-1].write_text(yaml.safe_dump(document))
        return subprocess.run([promtool, "test", "rules", *files], check=False).returncode


def examine_wrong_site(
    promtool: str, prometheus: str, alertmanager: list[str] | None, folder: Path
) -> list[str]:
    """Return the alerts that are silent, or reach nobody, at a site where everything is wrong."""
    now = int(time.time())
    past = folder / "past.om"
    past.write_text(openmetrics(past_of(now), now - 8 * DAY) + "# EOF\n")
    create = ["tsdb", "create-blocks-from", "openmetrics", str(past), str(folder / "data")]
    subprocess.run([promtool, *create], check=True, stdout=subprocess.DEVNULL)
    site = folder / "site.yml"
    site.write_text((MONITORING / "site.yml").read_text() + SCRIPT_OF_NOBODY)
    received: dict[str, set[str]] = {}
    with contextlib.ExitStack() as stack:
        config = CONFIG + DEAD_EXPORTER
        if alertmanager:
            listens, received = stack.enter_context(running_alertmanager(alertmanager, folder))
            config += ALERTING.replace("ALERTMANAGER", listens)
        target = stack.enter_context(served(openmetrics(present_of(now))))
        api = stack.enter_context(running(prometheus, folder, target, config, site))
        wait_until(lambda: active_alerts(api) >= alert_names() - SILENT_HERE)
        silent = sorted(alert_names() - SILENT_HERE - active_alerts(api))
        unseen = "neither pending nor firing: is what it needs in present_of?"
        problems = [f"{name}: {unseen}" for name in silent] + problems_of(api)
        return problems + (not_received(received) if alertmanager else [])


def not_received(received: Mapping[str, set[str]]) -> list[str]:
    """Return the alerts that Alertmanager has not sent to the receiver of their severity alone."""
    wait_until(lambda: received.keys() >= RECEIVED.keys())
    for name, receivers in sorted(received.items()):
        print(f"Alertmanager has sent {name} to: {', '.join(sorted(receivers))}")
    return [
        f"{name}: Alertmanager has sent it to {received.get(name, 'nobody')}, not to {receiver}"
        for name, receiver in RECEIVED.items()
        if received.get(name) != {receiver}
    ]


def examine_demo(prometheus: str, folder: Path) -> list[str]:
    """Return what a Prometheus says wrongly of the demo, and the panels that are empty there."""
    files = sorted(TEXTFILES.glob("*.prom"))
    if not files or time.time() - files[0].stat().st_mtime > HOUR:
        print("NOT RUN: alerts and dashboards of the demo: there was none in the last hour")
        return []
    text = "".join(path.read_text() for path in files)
    with served(without_comments(text)) as target, running(prometheus, folder, target) as api:
        expressions = panel_queries()
        wait_until(lambda: bool(active_alerts(api)) and not empty_queries(api, expressions))
        active = active_alerts(api)
        empty = empty_queries(api, expressions)
        print(f"the demo: {', '.join(active)}; {len(expressions)} queries of dashboards")
        unexpected = sorted(active ^ ALERTS_OF_DEMO)
        return [
            *(f"{name}: wrong about the demo" for name in unexpected),
            *(f"nothing is answered to {expression}" for expression in empty),
            *problems_of(api),
        ]


def without_comments(text: str) -> str:
    """Return the samples of several files, as each of these has the same types and help texts."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))


def panel_queries() -> list[str]:
    """Return the queries of all dashboards that the demo has data for."""
    parsed = [json.loads(path.read_text()) for path in (MONITORING / "dashboards").glob("*.json")]
    queries = [rendered(query, CHOSEN) for dashboard in parsed for query in queries_of(dashboard)]
    # A past, what has failed, and what was proven.
    without_data = ("offset 1w", "ALERTS{alertname", "== 2", "last_verified")
    return [query for query in queries if not any(part in query for part in without_data)]


def empty_queries(api: str, expressions: list[str]) -> list[str]:
    """Return the queries that Prometheus has no answer to."""
    return [
        expression
        for expression in expressions
        for data in [ask(f"{api}/query?{urllib.parse.urlencode({'query': expression})}")]
        if not data or not data["result"]
    ]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until it holds, but not forever: what does not hold then is found afterwards."""
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(1)


def past_of(now: int) -> dict[str, float]:
    """Return what was there eight days ago; OoniScriptStale finds the updater of then."""
    return {
        'ooni_table_rows{script="fingerprints_updater",table="fingerprints_dns"}': 1000,
        'ooni_table_rows{script="detector",table="blocking_status"}': 1000,
        'ooni_last_success_timestamp_seconds{script="fingerprints_updater"}': now - 9 * DAY,
        'ooni_status{script="detector",instance="dead",job="dead"}': 0,
    }


def present_of(now: int) -> dict[str, float]:
    """Return what is scraped now. Of two scripts there is no success at all."""
    return {
        'ooni_last_success_timestamp_seconds{script="citizenlab_test_lists_updater"}': now - DAY,
        'ooni_last_success_timestamp_seconds{script="db-backup"}': now - 11 * DAY,
        'ooni_status{script="detector"}': 2,
        'ooni_exit_status{script="detector"}': 69,
        'ooni_exit_status{script="fingerprints_updater"}': 65,
        'ooni_exit_status{script="db-backup"}': 78,
        'ooni_rejected_rows{script="fingerprints_updater"}': 9,
        'ooni_table_rows{script="fingerprints_updater",table="fingerprints_dns"}': 700,
        'ooni_table_rows{script="detector",table="blocking_status"}': 300,
        "ooni_citizenlab_held_countries": 2,
        'ooni_citizenlab_acceptance_timestamp_seconds{country="it"}': now + 2 * DAY,
        "ooni_db_backup_unlisted_tables": 1,
        'ooni_geoip_build_timestamp_seconds{database="asn"}': now - 50 * DAY,
        "ooni_geoip_checkfail_total": 1,
        "ooni_db_backup_backups": 1,
        "ooni_db_backup_verify_findings": 2,
        "ooni_detector_lag_hours": 30,
        "ooni_detector_held_alarms_oldest_hours": 30,
        'ooni_absent_nodes{script="citizenlab_test_lists_updater"}': 1,
        "node_textfile_scrape_error": 1,
        'node_textfile_mtime_seconds{file="/var/lib/prometheus/node-exporter/ooni_x.prom"}': now,
    }


def openmetrics(samples: Mapping[str, float], until: int | None = None) -> str:
    """Return the samples as text; with `until`, as those of the hour before it, of one host."""
    if until is None:
        return "".join(f"{series} {value}\n" for series, value in samples.items())
    labels = 'instance="host",job="ooni"'
    names = [
        f"{name}{{{given.rstrip('}')}{',' if given else ''}{labels}}}"
        if "instance=" not in given
        else f"{name}{{{given}"
        for name, _, given in (series.partition("{") for series in samples)
    ]
    return "".join(
        f"{name} {value} {at}\n"
        for name, value in zip(names, samples.values(), strict=True)
        for at in range(until - HOUR, until, 60)
    )


@contextmanager
def served(text: str) -> Iterator[str]:
    """Serve `text` as an exporter does; give its host and port."""

    class Exporter(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exporter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def running(
    prometheus: str,
    folder: Path,
    target: str,
    given: str = CONFIG,
    site: Path = MONITORING / "site.yml",
) -> Iterator[str]:
    """Run Prometheus with the rules and those of a site; give the URL of its API."""
    config = folder / "prometheus.yml"
    rules = f"{site}, {MONITORING / 'alerts.yml'}"
    config.write_text(given.replace("RULES", rules).replace("TARGET", target))
    port = free_port()
    command = [
        prometheus,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=35d",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with subprocess.Popen(command) as process:
        try:
            yield f"http://127.0.0.1:{port}/api/v1"
        finally:
            process.terminate()


def ask(url: str) -> Any:  # noqa: ANN401 (JSON)
    """Return the data of an answer; None: nobody answers yet."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 (a loopback address)
            return json.load(answer)["data"]
    except OSError:
        return None


def rules_of(api: str) -> list[dict[str, Any]]:
    """Return all rules with their state."""
    groups = (ask(f"{api}/rules") or {"groups": []})["groups"]
    return [rule for group in groups for rule in group["rules"]]


@functools.cache
def alert_names() -> frozenset[str]:
    """Return the names of all alerts."""
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return frozenset(
        rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule
    )


def active_alerts(api: str) -> set[str]:
    """Return the alerts that are pending or firing."""
    return {rule["name"] for rule in rules_of(api) if rule.get("alerts")}


def problems_of(api: str) -> list[str]:
    """Return rules with an error, and annotations that were not filled in; show the summaries."""
    problems = []
    for rule in rules_of(api):
        if rule["health"] != "ok":
            problems.append(f"{rule['name']}: {rule['health']} {rule.get('lastError', '')}")
        for alert in rule.get("alerts", []):
            texts = alert["annotations"]
            print(f"{rule['name']} ({alert['state']}): {texts['summary']}")
            problems += [
                f"{rule['name']}: {text}"
                for text in texts.values()
                if re.search(r"{{|<no value>|<error|journalctl -t +-", text)
            ]
    return problems


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
