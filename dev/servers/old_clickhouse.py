"""Debian's clickhouse-server, version 18.16, as a process of its own on 127.0.0.1.

A real server of ClickHouse with ports, users and a handshake, far too old for the tools.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from dev.debian_programs import free_port
from dev.embedded_clickhouse.lifetime import Startable

VERSION = "18.16.1"
_PROGRAM = "clickhouse-server"
_START_SECONDS = 60
_STOP_SECONDS = 20
_POLL_SECONDS = 0.05
_CONFIG = """<?xml version="1.0"?>
<yandex>
  <logger><level>warning</level><log>{folder}/server.log</log></logger>
  <tcp_port>{tcp}</tcp_port>
  <http_port>{http}</http_port>
  <listen_host>127.0.0.1</listen_host>
  <path>{folder}/data/</path>
  <tmp_path>{folder}/tmp/</tmp_path>
  <users_config>users.xml</users_config>
  <default_profile>default</default_profile>
  <default_database>default</default_database>
  <mark_cache_size>50000000</mark_cache_size>
  <timezone>UTC</timezone>
  <mlock_executable>false</mlock_executable>
</yandex>
"""
_USERS = """<?xml version="1.0"?>
<yandex>
  <profiles>
    <default><max_memory_usage>1000000000</max_memory_usage></default>
    <readonly><readonly>1</readonly></readonly>
  </profiles>
  <users>
    {users}
  </users>
  <quotas><default></default></quotas>
</yandex>
"""
_USER = """<{name}>
      <password>{password}</password>
      <networks><ip>127.0.0.1</ip></networks>
      <profile>{profile}</profile>
      <quota>default</quota>
    </{name}>"""
# As the installation of the tools makes them, and one that may only read.
_NAMES = (
    ("default", "", "default"),
    ("citizenlab", "", "default"),
    ("api", "api", "default"),
    ("detector", "detector", "default"),
    ("reader", "secret", "readonly"),
)


class StartError(Exception):
    """The server did not start; the text is what it said."""


def missing() -> str:
    """Return why it can't be started here, "" when it can."""
    found = shutil.which(_PROGRAM, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return "" if found else "Debian's clickhouse-server is missing: apt install clickhouse-server"


class OldClickHouse(Startable):
    """The server, with users in a users.xml.

    Args:
        folder: for its configuration, data and log.

    Attributes:
        tcp: the port of the native protocol.
        http: the port of the HTTP interface.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.tcp, self.http = free_port(), free_port()

    def start(self) -> Self:
        """Start it and wait until it accepts connections.

        Raises:
            StartError: it did not.
        """
        config, users = self._folder / "config.xml", self._folder / "users.xml"
        config.write_text(_CONFIG.format(folder=self._folder, tcp=self.tcp, http=self.http))
        listed = [
            _USER.format(name=name, password=password, profile=profile)
            for name, password, profile in _NAMES
        ]
        users.write_text(_USERS.format(users="\n    ".join(listed)))
        path = shutil.which(_PROGRAM, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        with (self._folder / "output.log").open("wb") as output:
            self._process = subprocess.Popen(
                [path or _PROGRAM, f"--config-file={config}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
            )
        self._wait(self._process)
        return self

    def stop(self) -> None:
        """End it; doing it twice is harmless."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + _START_SECONDS
        while not self._accepts():
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                process.wait()
                raise StartError((self._folder / "output.log").read_text(errors="replace"))
            time.sleep(_POLL_SECONDS)

    def _accepts(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.tcp), 5):
                return True
        except OSError:
            return False
