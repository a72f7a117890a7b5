"""The services under systemd: their jobs, their sandbox, a timer, and a database that is down."""

import shutil
import time

from dev.e2e.container import Container
from dev.e2e.restarts import OFTEN, wait_until
from dev.e2e.steps import expect, title
from dev.e2e.tools import Tool
from dev.embedded_clickhouse import EmbeddedClickHouse

PROBE = """\
#!/bin/sh
try() { if "$@" 2> /dev/null; then echo "allowed: $*"; else echo "denied: $*"; fi; }
try touch /etc/probe
try touch /usr/probe
try touch /var/lib/probe
try touch /var/lib/ooniapi/probe
try ls /home/somebody
try ls /root
try chmod u+s /var/lib/analysis
try mknod /tmp/device c 1 3
try unshare -U true
try cat /proc/1/environ
try touch /var/lib/analysis/probe
touch /tmp/left-in-private-tmp
"""


def run_services(container: Container, tools: list[Tool]) -> None:
    """Start each service: it does its job under its sandbox, and the journal has its lines."""
    for tool in tools:
        title(f"{tool.command} does its job")
        container.run(f"systemctl start {tool.command}")
        tool.effect(container)
        print(container.journal(tool.identifier, "-o short-iso --no-hostname"))
        container.run(f"systemctl start {tool.command}")
        log = container.journal(tool.identifier, "-p info -o cat")
        expect(tool.again in log, f"a second run says: {tool.again}")
        errors = container.journal(tool.identifier, "-p err -o cat")
        expect(errors == "", f"no errors are logged: {errors}")
    container.run("runuser -u ooni -- ooni-download-geoip --textfile /tmp", check=False)
    textfile = container.output("cat /tmp/ooni_ooni_download_geoip.prom")
    expect("# HELP ooni_exit_status" in textfile, "the descriptions of metrics are installed")


def probe_sandbox(container: Container) -> None:
    """Run a probe in the place of a tool: only its state directory can be written."""
    title("the sandbox of a service")
    container.run("mkdir -p /home/somebody")
    probe = container.root / "usr/local/bin/probe"
    probe.write_text(PROBE)
    probe.chmod(0o755)
    drop_in = container.root / "etc/systemd/system/ooni-update-citizenlab.service.d/probe.conf"
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text(
        "[Service]\nExecStart=\nExecStart=/usr/local/bin/probe\nSyslogIdentifier=probe\n"
    )
    container.run("systemctl daemon-reload; systemctl start ooni-update-citizenlab")
    log = container.journal("probe", "-o cat")
    print(log)
    expect("allowed: touch /var/lib/analysis/probe" in log, "the state directory can be written")
    expect(log.count("allowed:") == 1, "nothing else is allowed")
    expect(not (container.root / "tmp/left-in-private-tmp").exists(), "temporary files are private")
    drop_in.unlink()
    container.run("rm /var/lib/analysis/probe; systemctl daemon-reload")


def let_timer_fire(container: Container) -> None:
    """Let a timer fire in a second."""
    title("a timer fires")
    folder = container.root / "etc/systemd/system/ooni-update-fingerprints.timer.d"
    folder.mkdir(parents=True)
    (folder / "soon.conf").write_text(
        "[Timer]\nOnCalendar=\nOnActiveSec=1s\nRandomizedDelaySec=0\nAccuracySec=100ms\n"
    )
    container.run("systemctl daemon-reload")

    def runs() -> int:
        return container.journal("analysis.fingerprints_updater", "-o cat").count("nothing to do")

    past_runs = runs()
    container.run("systemctl restart ooni-update-fingerprints.timer")
    deadline = time.monotonic() + 30
    while runs() == past_runs and time.monotonic() < deadline:
        time.sleep(0.5)
    expect(runs() == past_runs + 1, "its service has run once")
    shutil.rmtree(folder)
    container.run("systemctl daemon-reload; systemctl restart ooni-update-fingerprints.timer")


def stop_database(container: Container, tools: list[Tool], clickhouse: EmbeddedClickHouse) -> None:
    """Without the database a service fails with its documented status, and somebody is told."""
    title("the database is down")
    timers = " ".join(f"{tool.command}.timer" for tool in tools)
    container.run(f"systemctl stop {timers}")  # at a full hour they would fail beside these runs
    clickhouse.stop()
    told_before = container.journal("ooni-tool-failed", "-p err -o cat")
    container.run("systemctl stop 'ooni-tool-failed@*'; systemctl reset-failed")
    for tool in tools:
        if not tool.uses_database:
            continue
        # In Debian 13, a start that is to be repeated would be waited for.
        container.run(f"systemctl start --no-block {tool.command}")
        failed = "failed" if tool.command in OFTEN else "auto-restart"
        wait_until(lambda: state_of(container, tool) == failed)  # noqa: B023 (called at once)
        expect(state_of(container, tool) == failed, f"{tool.command}: {failed}")
        status = container.output(f"systemctl show -P ExecMainStatus {tool.command}").strip()
        expect(status == "69", f"{tool.command} ends with 69: {status}")
        container.run(f"systemctl stop {tool.command}")  # or it is started again after a while
        errors = container.journal(tool.identifier, "-p err -o cat").strip()
        expect(len(errors.splitlines()) == 1, f"one line says why: {errors}")
        print(container.run(f"systemctl status --no-pager {tool.command}", check=False).stdout)
    told = container.journal("ooni-tool-failed", "-p err -o cat").removeprefix(told_before)
    print(told)
    for tool in tools:
        tells = tool.uses_database and tool.command in OFTEN  # others are to be started again
        expect((f"{tool.command} has failed" in told) == tells, f"told: {tool.command}")
    container.run("systemctl reset-failed")
    container.run(f"systemctl start {timers}")


def state_of(container: Container, tool: Tool) -> str:
    """Return what systemd says of its service."""
    return container.output(f"systemctl show -P SubState {tool.command}").strip()
