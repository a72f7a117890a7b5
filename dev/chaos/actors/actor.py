"""What the kinds of faults need of a tool, whichever it is."""

import contextlib
import itertools
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from clickhouse_driver import errors

from dev.chaos.scene import Scene
from dev.chaos.tool import Outcome, Tool
from dev.chaos.versions import Versions
from dev.servers.fault_proxy import FaultProxy

FILLING = "filling"  # the file that takes the room of a full disk
UNKNOWN_IDENTIFIER, UNKNOWN_TABLE = 47, 60
SCRATCH = "ooni_verify_"  # how the names of databases begin in which backups are verified


class Run(Protocol):
    """Runs the tool to its end, and checks how it ended."""

    def __call__(
        self, *arguments: str, allowed: Collection[int] = (0,), looks: bool = False
    ) -> Outcome:
        """Run it with these arguments."""


class Actor(ABC):
    """A tool with a configuration, folders and, where it uses one, a database of its own.

    Attributes:
        name: in schedules.
        script: its path below the checkout.
        has_database: whether it uses one.
        tables: live table → shadow table.
        upstream: on the way to where its data comes from.
        usual_seconds: what a run with something new takes.
        usual_bytes: that such a run sends to the database, and gets from it.
        usual_row_bytes: that such a run gets from the database over HTTP.
    """

    name: ClassVar[str]
    script: ClassVar[str]
    has_database: ClassVar[bool] = True
    tables: ClassVar[Mapping[str, str]] = {}

    def __init__(self, scene: Scene, upstream: FaultProxy) -> None:
        self.scene = scene
        self.upstream = upstream
        self.folder = scene.folder / self.name
        self.state_dir = self.folder / "state"
        self.temporary = self.folder / "tmp"
        self.usual_seconds = 1.0
        self.usual_bytes = {False: 0, True: 0}
        self.usual_row_bytes = 0
        self._runs = itertools.count()
        for folder in (self.state_dir, self.temporary):
            folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    @abstractmethod
    def running(cls, scene: Scene) -> contextlib.AbstractContextManager[Self]:
        """Start its upstream and fill its tables; end it afterwards."""

    @abstractmethod
    def keys(self) -> dict[str, object]:
        """Return the keys of its configuration, but for those of all tools."""

    @abstractmethod
    def advance(self, draw: float) -> None:
        """Let upstream have something new."""

    @abstractmethod
    def violations(self, *, current: bool, reader: int) -> Iterator[str]:
        """Yield what a reader sees and must not; "" for nothing.

        Args:
            current: whether a run has just ended well: the newest version is to be seen, then.
            reader: the number of the server that is read from.
        """

    @abstractmethod
    def versions_seen(self) -> Sequence[Versions[Any]]:
        """Return the versions of everything that it keeps up to date."""

    @property
    def database(self) -> str:
        """The name of its database."""
        return f"chaos_{self.name}"

    @property
    def config_file(self) -> Path:
        """Its configuration."""
        return self.folder / f"{self.name}.conf"

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The folders that it writes into, besides its state."""
        return ()

    def configure(self, **keys: object) -> None:
        """Write the configuration, with some keys that are other ones."""
        common: dict[str, object] = {
            "state_dir": str(self.state_dir),
            "statsd": self.scene.statsd.address,
        }
        if self.has_database:
            common |= self.scene.keys(self.database)
        self.config_file.write_text(json.dumps({**common, **self.keys(), **keys}))
        self.config_file.chmod(0o600)

    def start(self, *arguments: str, **environment: str) -> Tool:
        """Start it."""
        return Tool(
            self.script,
            ["--config", str(self.config_file), *arguments],
            {"TMPDIR": str(self.temporary), **environment},
            self.folder / f"{next(self._runs) % 10}.log",
        )

    def written(self) -> dict[str, bytes]:
        """Return everything that it has written outside of the database, by name."""
        files: dict[str, bytes] = {}
        for folder in (self.state_dir, self.temporary, *self.outputs):
            for path in folder.rglob("*"):
                if path.is_file() and not path.is_symlink():
                    files[str(path)] = path.read_bytes()
        return files

    def left_behind(self) -> Iterator[str]:
        """Yield what no run that ended well leaves: temporary files and tables."""
        yield from (str(path) for path in self.temporary.iterdir())
        for folder in (self.state_dir, *self.outputs):
            for path in folder.rglob("*"):
                if path.name.startswith(".") or "tmp" in path.name:
                    yield str(path)
        if self.has_database:
            expected = self.tables.keys() | set(self.tables.values()) | self.own_tables()
            for reader in self.scene.readers:
                with self.scene.client(self.database, reader) as client:
                    tables = {name for (name,) in client.execute("SHOW TABLES")}
                    databases = {name for (name,) in client.execute("SHOW DATABASES")}
                yield from (f"table {name}" for name in tables - expected)
                yield from (f"database {name}" for name in databases if name.startswith(SCRATCH))

    def own_tables(self) -> set[str]:
        """Return the tables that the stage has made."""
        return set()

    def prove(self, run: "Run") -> None:
        """Let the tool itself say that all is well, where it has a command for that."""
        del run

    def forget_seen(self) -> None:
        """Let readers see any version next: somebody has changed what they see."""
        for versions in self.versions_seen():
            versions.forget_seen()

    def roll_back(self) -> None:
        """Want what the last update replaced, until upstream has something new."""
        for versions in self.versions_seen():
            versions.roll_back()

    def loosen_rollback(self) -> None:
        """Want the newest version as well as one that was rolled back to.

        For what may end a rollback: a new commit, a lost state file, a table that somebody changed.
        """
        for versions in self.versions_seen():
            versions.loosen_rollback()

    def go_back(self) -> None:
        """Let upstream have again what it had before the newest.

        Raises:
            LookupError: the tool follows no upstream of which that can be said.
        """
        raise LookupError(f"{self.name} has no upstream that can go back")

    def clear_temporary(self) -> None:
        """Empty the folder of temporary files, as systemd does after each run of a service."""
        for path in sorted(self.temporary.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                os.unlink(path)  # noqa: PTH108 (also a dangling link)


class Updater(Actor):
    """A tool that loads tables from upstream."""

    def rows_of(self, table: str, columns: str, reader: int) -> list[tuple[object, ...]] | None:
        """Return what a reader sees in a table, in order; None without it or one of its columns."""
        with self.scene.client(self.database, reader) as client:
            try:
                rows: list[tuple[object, ...]] = client.execute(f"SELECT {columns} FROM {table}")
            except errors.ServerException as error:
                if error.code not in {UNKNOWN_TABLE, UNKNOWN_IDENTIFIER}:
                    raise
                return None
        return sorted(rows, key=repr)
