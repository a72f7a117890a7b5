"""The embedded server, with answers of the test's choosing to some statements."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.cluster.faults import Faults, StatementFault
from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.embedded_clickhouse.engine import Engine
from dev.embedded_clickhouse.lifetime import catch_signals, leave, wait_for_the_end
from dev.embedded_clickhouse.server import Server


class FailingClickHouse(EmbeddedClickHouse):
    """A server process whose statements can be made to fail."""

    @contextmanager
    def failing(self, pattern: str, code: int, message: str) -> Iterator[None]:
        """Answer statements in which the pattern is found with this code, within the block."""
        faults = self._path / "faults.json"
        Faults(statements=[StatementFault(pattern, code, message)]).save(faults)
        try:
            yield
        finally:
            faults.unlink()

    def _command(self) -> list[str]:
        return [sys.executable, __file__, str(self._path)]


def main() -> None:
    """Start, print the ports, wait for the end."""
    path = Path(sys.argv[1])
    stop = catch_signals()
    engine = Engine(path)
    engine.on_statement = lambda statement: Faults.load(path / "faults.json").meet(statement)
    server = Server(engine)
    server.start()
    started = {"tcp": server.tcp, "http": server.http, "pid": os.getpid()}
    sys.stdout.write(f"{json.dumps(started)}\n")
    sys.stdout.flush()
    wait_for_the_end(stop, os.getppid())
    leave(0)


if __name__ == "__main__":
    main()
