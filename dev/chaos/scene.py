"""The servers of a chaos run, and the faults that go through them."""

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clickhouse_driver import Client

from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.servers.fault_proxy import FaultProxy
from dev.servers.s3 import KEY, S3Server
from dev.servers.statsd import StatsdListener
from dev.servers.tcp_proxy import TcpProxy

USER = "chaos"


@dataclass
class Scene:
    """What all tools share.

    Attributes:
        folder: for everything that is written.
        clickhouse: the database.
        database: on the way to its native protocol.
        rows: on the way to its HTTP interface.
        s3: the object store.
        store: on the way there, of the tools and of the database.
        statsd: where metrics go.
        password: of USER of the database.
        token: that git upstreams are asked with; they do not look at it.
        mending: what ends the faults of a step.
    """

    folder: Path
    clickhouse: EmbeddedClickHouse
    database: TcpProxy
    rows: TcpProxy
    s3: S3Server
    store: FaultProxy
    statsd: StatsdListener
    password: str
    token: str
    mending: list[Callable[[], object]] = field(default_factory=list)

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """What must be nowhere but in configurations."""
        return tuple(text.encode() for text in (self.password, self.token, KEY))

    def uri(self, database: str, *, user: str = USER, password: str = "") -> str:
        """Return the address of a database, through the proxy."""
        login = f"{user}:{password or self.password}"
        return f"clickhouse://{login}@127.0.0.1:{self.database.port}/{database}"

    @contextlib.contextmanager
    def client(self, database: str = "default") -> Iterator[Client]:
        """Connect to a database past the proxy, as readers do."""
        uri = self.clickhouse.uri(user=USER, password=self.password, database=database)
        with Client.from_url(uri) as client:
            yield client

    def mend(self) -> None:
        """End all faults; the database is up again."""
        self.database.heal()
        self.rows.heal()
        self.store.heal()
        while self.mending:
            self.mending.pop()()
        if not self.clickhouse.tcp:
            self.clickhouse.start()


@contextlib.contextmanager
def running_scene() -> Iterator[Scene]:
    """Start the servers; end them and remove their files afterwards."""
    password = secrets.token_urlsafe(16)
    folder = Path(tempfile.mkdtemp(prefix="ooni-chaos-"))
    users = [f"{USER}:{password}", f"reader:{password}:readonly"]
    clickhouse = EmbeddedClickHouse(folder / "clickhouse", users=users)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(clickhouse)
        database = stack.enter_context(TcpProxy(lambda: clickhouse.tcp))
        rows = stack.enter_context(TcpProxy(lambda: clickhouse.http))
        s3 = stack.enter_context(S3Server())
        store = stack.enter_context(FaultProxy(s3.endpoint))
        statsd = stack.enter_context(StatsdListener())
        token = secrets.token_hex(16)
        scene = Scene(folder, clickhouse, database, rows, s3, store, statsd, password, token)
        stack.callback(scene.mend)
        yield scene
