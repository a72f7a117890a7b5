"""The engine of several ClickHouse versions, to run one statement on all of them.

Each is a release of chdb in a virtual environment of its own (`make compat` builds them), and runs
in a process of its own. They have no ports, users or cluster: for those there is
`dev.embedded_clickhouse`, with the pinned version alone.

    with Engine(python_of("24.8"), path) as engine:
        engine.execute("SELECT version()", "RawBLOB")  # b"24.8.4.1"
"""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from dev.embedded_clickhouse.errors import ServerError
from dev.embedded_clickhouse.lifetime import Startable

_ROOT = Path(__file__).resolve().parents[2]
_STOP_SECONDS = 60
PINNED = "pinned"
VERSIONS = ("24.8", "25.5", PINNED)  # the oldest that is supported first


def python_of(version: str) -> Path:
    """Return the interpreter that has the engine of one of VERSIONS."""
    if version == PINNED:
        return Path(sys.executable)
    return _ROOT / "build" / f"engine-{version}" / "bin" / "python"


class Engine(Startable):
    """One engine in a process of its own, which ends with this one at the latest.

    The older versions differ from a server of theirs in two ways: the database `default` is an
    Overlay, in which EXCHANGE fails (make an Atomic one and USE it), and DROP … SYNC never returns,
    because the task that it waits for does not run.

    Args:
        python: an interpreter that has chdb, see `python_of`.
        path: data directory; one process at a time may use it.
        config_file: a server's configuration; None for none.

    Attributes:
        version: the engine's own, once it runs.
    """

    def __init__(self, python: Path, path: Path, config_file: Path | None = None) -> None:
        address = f"{path}?config-file={config_file}" if config_file else str(path)
        self._command = [str(python), "-m", "dev.engines.runner", address]
        self._process: subprocess.Popen[bytes] | None = None
        self.version = ""

    def start(self) -> Self:
        """Start the process; what it prints beside its answers goes to standard error."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
        )
        self.version = self.execute("SELECT version()").decode().strip()
        return self

    def stop(self) -> None:
        """End the process; doing it twice is harmless."""
        if self._process is None:
            return
        process, self._process = self._process, None
        try:
            process.communicate(timeout=_STOP_SECONDS)  # it ends with its input
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    @property
    def pid(self) -> int:
        """The process's; 0 while there is none."""
        return self._process.pid if self._process else 0

    def execute(self, sql: str, format_name: str = "TabSeparated") -> bytes:
        """Run one statement and return its result in this format, or its own FORMAT.

        Settings, the current database and temporary tables last until the engine stops.

        Raises:
            ServerError: what the engine says about it, with ClickHouse's `code`.
            EOFError: the process has ended.
        """
        answer = self._ask({"sql": sql, "format": format_name})
        if "error" in answer:
            raise ServerError.from_engine(RuntimeError(answer["error"]))
        return base64.b64decode(answer["result"])

    def rows(self, sql: str) -> list[list[Any]]:
        """Run one query and return its rows, each value as JSON has it.

        Raises:
            ServerError, EOFError: as `execute`.
        """
        return [json.loads(line) for line in self.execute(sql, "JSONCompactEachRow").splitlines()]

    def _ask(self, question: dict[str, str]) -> dict[str, str]:
        if self._process is None or not self._process.stdin or not self._process.stdout:
            raise EOFError("the engine is not running")
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise EOFError(f"the engine {self.version} has ended")
        decoded: dict[str, str] = json.loads(answer)
        return decoded
