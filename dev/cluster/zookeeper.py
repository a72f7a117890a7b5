"""Debian's ZooKeeper as a process of its own, on 127.0.0.1, without its service."""

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from dev.embedded_clickhouse.lifetime import Startable

_JAR = Path("/usr/share/java/zookeeper.jar")
_LOGGING = "/etc/zookeeper/conf_example"
_HEAP = "-Xmx192m"
_START_SECONDS = 60
_STOP_SECONDS = 20
_POLL_SECONDS = 0.05


class ZooKeeperError(Exception):
    """It is not installed, or did not start; the text says what it said."""


def missing() -> str:
    """Return why it can't be started here, "" when it can."""
    if shutil.which("java") and _JAR.exists():
        return ""
    return "Debian's zookeeper is missing: apt install zookeeper"


class ZooKeeper(Startable):
    """One server, alone.

    Args:
        path: where it keeps its data, also over `kill` and `start`.
        port: for its clients.
    """

    def __init__(self, path: Path, port: int) -> None:
        self.port = port
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            ZooKeeperError: it is not installed, or does not start.
        """
        if reason := missing():
            raise ZooKeeperError(reason)
        self._path.mkdir(parents=True, exist_ok=True)
        configuration = self._path / "zoo.cfg"
        configuration.write_text(
            f"tickTime=500\ndataDir={self._path}\nclientPort={self.port}\n"
            "clientPortAddress=127.0.0.1\nadmin.enableServer=false\n"
            "4lw.commands.whitelist=srvr\nmaxClientCnxns=0\n"
        )
        command = ["java", _HEAP, "-cp", f"{_LOGGING}:{_JAR}"]
        command += ["org.apache.zookeeper.server.ZooKeeperServerMain", str(configuration)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._path
            )
        self._wait(self._process)
        return self

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it; doing it twice is harmless."""
        self._end(signal.SIGTERM)

    @property
    def running(self) -> bool:
        """Whether it was started and not ended since."""
        return self._process is not None

    @property
    def _log(self) -> Path:
        return self._path / "zookeeper.log"

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + _START_SECONDS
        while not self._answers():
            if process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise ZooKeeperError(self._log.read_text(errors="replace")[-2000:])
            time.sleep(_POLL_SECONDS)

    def _answers(self) -> bool:
        try:
            # "ruok" would be answered before clients are.
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                connection.sendall(b"srvr")
                return connection.recv(32).startswith(b"Zookeeper version")
        except OSError:
            return False

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
