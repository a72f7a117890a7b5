"""A real Alertmanager with the routes of monitoring/alertmanager.yml, for dev.alerts_check."""

import contextlib
import http.server
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from dev.debian_programs import UNPACKED, find_programs, free_port

CONFIG = Path(__file__).parents[1] / "monitoring/alertmanager.yml"
# Debian's Alertmanager reads its templates in /usr/share. Those of a package that is only unpacked
# are laid over it, in a mount namespace that ends with the program.
OVERLAID = 'mount -t overlay overlay -o lowerdir="$0":/usr/share /usr/share && exec "$@"'
RECEIVERS = {"critical": "pager", "warning": "mail"}


def find_alertmanager() -> list[str] | None:
    """Return the paths of alertmanager and amtool; None: they can't be had here."""
    package = "prometheus-alertmanager"
    return find_programs(package, package, "amtool")


def problems_of_routes(programs: list[str]) -> list[str]:
    """Return what amtool says against the routes."""
    _, amtool = programs
    subprocess.run([amtool, "check-config", str(CONFIG)], check=True, stdout=subprocess.DEVNULL)
    problems = []
    for severity, receiver in RECEIVERS.items():
        command = [amtool, "config", "routes", "test", f"--config.file={CONFIG}"]
        done = subprocess.run(
            [*command, f"severity={severity}"], check=True, capture_output=True, text=True
        )
        if done.stdout.strip() != receiver:
            problems.append(f"severity {severity} goes to {done.stdout.strip()}, not {receiver}")
    return problems


def with_templates(program: str) -> list[str]:
    """Return the command that runs Debian's Alertmanager where it may be unpacked only."""
    if not Path(program).is_relative_to(UNPACKED):
        return [program]
    share = Path(program).parents[1] / "share"
    return ["unshare", "--mount", "--map-root-user", "sh", "-c", OVERLAID, str(share), program]


@contextlib.contextmanager
def running_alertmanager(
    programs: list[str], folder: Path
) -> Iterator[tuple[str, dict[str, set[str]]]]:
    """Run Alertmanager; give its address, and what reaches its receivers: alert → their names."""
    received: dict[str, set[str]] = {}

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            for alert in message["alerts"]:
                received.setdefault(alert["labels"]["alertname"], set()).add(self.path.strip("/"))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = folder / "alertmanager.yml"
        text = CONFIG.read_text().replace("127.0.0.1:9095", f"127.0.0.1:{server.server_port}")
        config.write_text(re.sub("group_wait: .*", "group_wait: 1s", text))
        address = f"127.0.0.1:{free_port()}"
        command = [
            *with_templates(programs[0]),
            f"--config.file={config}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address={address}",
            "--cluster.listen-address=",
            "--log.level=error",
        ]
        with subprocess.Popen(command) as process:
            try:
                yield address, received
            finally:
                process.terminate()
        server.shutdown()
