"""The servers of a chaos run, and the faults that go through them."""

import contextlib
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clickhouse_driver import Client

from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.servers.fault_proxy import FaultProxy
from dev.servers.s3 import KEY, S3Server
from dev.servers.statsd import StatsdListener
from dev.servers.tcp_proxy import TcpProxy

USER = "chaos"


@dataclass(kw_only=True)
class Scene(ABC):
    """What all tools share.

    Attributes:
        folder: for everything that is written.
        database: on the way to the native protocol of the server that is connected to first.
        rows: on the way to its HTTP interface.
        s3: the object store.
        store: on the way there, of the tools and of the database.
        statsd: where metrics go.
        token: that git upstreams are asked with; they do not look at it.
        mending: what ends the faults of a step.
    """

    folder: Path
    database: TcpProxy
    rows: TcpProxy
    s3: S3Server
    store: FaultProxy
    statsd: StatsdListener
    token: str
    mending: list[Callable[[], object]] = field(default_factory=list)

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """What must be nowhere but in configurations."""
        return tuple(text.encode() for text in (self.token, KEY))

    @property
    @abstractmethod
    def readers(self) -> tuple[int, ...]:
        """The numbers of the servers that are up; there is a reader at each of them."""

    @abstractmethod
    def keys(self, database: str) -> dict[str, object]:
        """Return the keys of a configuration that say where a database is."""

    @abstractmethod
    def uri(self, database: str, *, password: str = "", writes: bool = True) -> str:
        """Return the address of a database, through the proxy."""

    @abstractmethod
    def direct_uri(self, database: str) -> str:
        """Return the address of a database on the first server, past the proxy."""

    @abstractmethod
    def client(self, database: str = "default", reader: int = 0) -> Client:
        """Return a client of a database past the proxy, as readers have it; close it."""

    @abstractmethod
    def create_database(self, name: str) -> None:
        """Create a database on all servers."""

    @abstractmethod
    def create_table(self, database: str, table: str, statement: str) -> None:
        """Create a ReplacingMergeTree on all servers, which then share its rows."""

    @abstractmethod
    def wait_for_rows(self, database: str, table: str) -> None:
        """Return when all servers have all rows of a table."""

    @abstractmethod
    def mend_database(self) -> None:
        """Start again what was killed, and end the faults that are not the proxies'."""

    def mend(self) -> None:
        """End all faults; the database is up again."""
        self.database.heal()
        self.rows.heal()
        self.store.heal()
        while self.mending:
            self.mending.pop()()
        self.mend_database()


@dataclass(kw_only=True)
class OneServer(Scene):
    """A server of its own.

    Attributes:
        clickhouse: the database.
        password: of USER there.
    """

    clickhouse: EmbeddedClickHouse
    password: str

    @classmethod
    @contextlib.contextmanager
    def running(cls, folder: Path, others: dict[str, Any]) -> Iterator["OneServer"]:
        """Start the database."""
        password = secrets.token_urlsafe(16)
        users = [f"{USER}:{password}", f"reader:{password}:readonly"]
        with (
            EmbeddedClickHouse(folder / "clickhouse", users=users) as clickhouse,
            TcpProxy(lambda: clickhouse.tcp) as database,
            TcpProxy(lambda: clickhouse.http) as rows,
        ):
            own: dict[str, Any] = {"clickhouse": clickhouse, "password": password}
            yield cls(folder=folder, database=database, rows=rows, **own, **others)

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """What must be nowhere but in configurations."""
        return (*super().secrets, self.password.encode())

    @property
    def readers(self) -> tuple[int, ...]:
        """The one, unless it was killed."""
        return (0,) if self.clickhouse.tcp else ()

    def keys(self, database: str) -> dict[str, object]:
        """Return its address."""
        return {"db_uri": self.uri(database)}

    def uri(self, database: str, *, password: str = "", writes: bool = True) -> str:
        """Return the address of a database, through the proxy."""
        login = f"{USER if writes else 'reader'}:{password or self.password}"
        return f"clickhouse://{login}@127.0.0.1:{self.database.port}/{database}"

    def direct_uri(self, database: str) -> str:
        """Return the address of a database, past the proxy."""
        return self.clickhouse.uri(user=USER, password=self.password, database=database)

    def client(self, database: str = "default", reader: int = 0) -> Client:
        """Return a client of a database past the proxy, as readers have it; close it."""
        del reader
        return Client.from_url(self.direct_uri(database))

    def create_database(self, name: str) -> None:
        """Create a database."""
        with self.client() as client:
            client.execute(f"CREATE DATABASE {name} ENGINE = Atomic")

    def create_table(self, database: str, table: str, statement: str) -> None:
        """Create a ReplacingMergeTree."""
        del table
        with self.client(database) as client:
            client.execute(statement)

    def wait_for_rows(self, database: str, table: str) -> None:
        """Return at once."""

    def mend_database(self) -> None:
        """Start it again if it was killed."""
        if not self.clickhouse.tcp:
            self.clickhouse.start()
