"""One node: `python -m dev.cluster.node CONFIG`, started by the cluster.

Prints one line of JSON once it accepts connections, like the embedded server that it is.
"""

import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from dev.cluster.faults import Faults
from dev.cluster.interserver import Interserver
from dev.cluster.memory import UnknownEngineError, set_interserver_address
from dev.embedded_clickhouse.engine import DEFAULT_USERS, DataDirectoryError, Engine, User
from dev.embedded_clickhouse.lifetime import catch_signals, leave, wait_for_the_end
from dev.embedded_clickhouse.server import HOST, ListenError, Server

# As on OONI's servers: who may do DDL, who may only insert, who may only read.
USERS = dict(DEFAULT_USERS) | {
    "write": User("write"),
    "fastpath": User("fastpath", ddl=False),
    "guest": User("guest", readonly=2),
    "readonly": User("readonly", readonly=1),
}
# Without the first, other nodes are asked for states of aggregate functions, which an embedded
# engine can't be made to answer: each answers with whole results, and their rows are all returned.
_DEFAULTS = "distributed_group_by_no_merge = 1, prefer_localhost_replica = 1"

_CUT_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class NodeConfig:
    """Where a node is.

    Attributes:
        folder: its own, below which are `data`, `config.xml`, `faults.json`.
        tcp: port for the native protocol.
        http: port for HTTP.
        interserver: port for the parts.
    """

    folder: str
    tcp: int
    http: int
    interserver: int

    @property
    def faults(self) -> Path:
        """The file with what goes wrong."""
        return Path(self.folder) / "faults.json"

    @property
    def engine(self) -> Path:
        """The engine's own configuration."""
        return Path(self.folder) / "config.xml"

    def argument(self) -> str:
        """Return it as the command line has it."""
        return json.dumps(asdict(self))


def main() -> None:
    """Start, print the ports, wait for the end."""
    config = NodeConfig(**json.loads(sys.argv[1]))
    stop = catch_signals()
    try:
        engine = Engine(Path(config.folder), USERS, config_file=config.engine, defaults=_DEFAULTS)
        # Tables that are loaded at the start try again by themselves, once the address is there.
        set_interserver_address(engine.version, engine.data, HOST, config.interserver)
        server = Server(engine, config.tcp, config.http)
        parts = Interserver(config.interserver, engine, config.faults)
    except (DataDirectoryError, ListenError, UnknownEngineError) as error:
        print(f"dev.cluster.node: {error}", file=sys.stderr, flush=True)
        leave(1)
    engine.display_name = f"node on port {config.tcp}"
    engine.on_statement = lambda statement: Faults.load(config.faults).meet(statement)
    threading.Thread(target=parts.serve_forever, daemon=True).start()
    threading.Thread(target=_cut, args=(server, config.faults), daemon=True).start()
    server.start()
    print(json.dumps({"tcp": server.tcp, "http": server.http, "pid": os.getpid()}), flush=True)
    wait_for_the_end(stop, os.getppid())
    leave(0)


def _cut(server: Server, faults: Path) -> None:
    """Close the connections of clients for as long as that is asked for."""
    while True:
        if Faults.load(faults).cut:
            server.cut()
        time.sleep(_CUT_POLL_SECONDS)


if __name__ == "__main__":
    main()
