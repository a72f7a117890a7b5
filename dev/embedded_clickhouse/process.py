"""Starting and stopping the server as a process of its own, for tests, demo and benchmarks."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self
from urllib.parse import quote, urlencode

from dev.embedded_clickhouse.lifetime import Startable

_ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 120
_STOP_SECONDS = 60


class StartError(Exception):
    """The server did not start; the text is what it said."""


class EmbeddedClickHouse(Startable):
    """A server process on 127.0.0.1 that ends with this one at the latest.

    Args:
        path: data directory, kept between runs.
        users: "NAME:PASSWORD", with ":readonly" or ":no-ddl" behind it for less than all rights;
            without any the project's own users.
        tcp: port for the native protocol; 0 takes a free one.
        http: port for HTTP; 0 takes a free one.
        timezone: the server's; "" for this machine's.
        options: more of its command line, for example ("--claim-version", "23.8.2.7").

    Attributes:
        tcp: the port in use, 0 when the server is not running.
        http: the port in use, 0 when the server is not running.
        pid: the process, 0 when the server is not running.
    """

    def __init__(
        self,
        path: str | Path,
        users: Sequence[str] = (),
        tcp: int = 0,
        http: int = 0,
        timezone: str = "",
        options: Sequence[str] = (),
    ) -> None:
        self._path = Path(path)
        self._timezone = timezone
        self._options = tuple(options)
        self._users = tuple(users)
        self._ports = (tcp, http)
        self._process: subprocess.Popen[bytes] | None = None
        self.tcp = self.http = self.pid = 0

    @property
    def log(self) -> Path:
        """Where the server's standard error goes."""
        return self._path / "server.log"

    def start(self) -> Self:
        """Start the process and wait until it accepts connections.

        Raises:
            StartError: it said no, or nothing.
        """
        self._path.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(), stdout=subprocess.PIPE, stderr=log, env=self._environment()
            )
        answer = self._first_line(self._process)
        if not answer:
            self._reap(self._process, signal.SIGKILL)
            raise StartError(self.log.read_text(errors="replace").strip() or "no answer")
        started = json.loads(answer)
        self.tcp, self.http, self.pid = started["tcp"], started["http"], started["pid"]
        return self

    def stop(self) -> int:
        """End the server with SIGTERM and return its exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """End the server with SIGKILL, as a power cut would, and return its exit status."""
        return self._end(signal.SIGKILL)

    def uri(
        self,
        user: str = "default",
        password: str = "",
        database: str = "default",
        **settings: object,
    ) -> str:
        """Return the address that clickhouse-driver takes."""
        query = f"?{urlencode(settings)}" if settings else ""
        return f"clickhouse://{_login(user, password)}127.0.0.1:{self.tcp}/{quote(database)}{query}"

    def http_url(self, user: str = "", password: str = "", **parameters: object) -> str:
        """Return the address of the HTTP interface, with user and parameters in its query."""
        if user:
            parameters = {"user": user, "password": password, **parameters}
        query = f"?{urlencode(parameters)}" if parameters else ""
        return f"http://127.0.0.1:{self.http}/{query}"

    def _command(self) -> list[str]:
        tcp, http = self._ports
        command = self._module_command("dev.embedded_clickhouse", str(self._path))
        command += ["--tcp", str(tcp), "--http", str(http), "--exit-with-parent"]
        command += self._options
        for user in self._users:
            command += ["--user", user]
        return command

    @staticmethod
    def _module_command(module: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", module, *arguments]

    def _environment(self) -> dict[str, str]:
        path = os.environ.get("PYTHONPATH", "")
        zone = {"TZ": self._timezone} if self._timezone else {}
        path = f"{_ROOT}{os.pathsep}{path}" if path else str(_ROOT)
        return {**os.environ, **zone, "PYTHONPATH": path}

    @staticmethod
    def _first_line(process: subprocess.Popen[bytes]) -> bytes:
        if process.stdout is None:
            return b""
        ready, _, _ = select.select([process.stdout], [], [], _START_SECONDS)
        return process.stdout.readline() if ready else b""

    def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        process, self._process = self._process, None
        self.tcp = self.http = self.pid = 0
        return self._reap(process, number)

    @staticmethod
    def _reap(process: subprocess.Popen[bytes], number: signal.Signals) -> int:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            status = process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        if process.stdout:
            process.stdout.close()
        return status


def _login(user: str, password: str) -> str:
    secret = f":{quote(password, safe='')}" if password else ""
    return f"{quote(user, safe='')}{secret}@"
