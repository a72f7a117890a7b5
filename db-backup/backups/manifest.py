"""The manifests of backups: what is in them, and where they and all else are in the bucket.

    <prefix>/data/<backup>/definitions/       CREATE statements, written by the server's BACKUP
    <prefix>/data/<backup>/full/              tables that are backed up as a whole each time
    <prefix>/data/<backup>/incremental/       tables of which only what is new is written
    <prefix>/data/<backup>/rows/<table>.…     tables whose rows BACKUP leaves out
    <prefix>/data/<backup>/schema.sql, access.sql   the same for people; users, roles and grants
    <prefix>/data/<backup>/manifest.hmac      the signature of the manifest (signature.py)
    <prefix>/manifest/<backup>.json           BackupManifest, written last

On a cluster of several shards each of these is in `data/<backup>/shard-<number>/`.

A backup without manifest does not exist. An incremental one needs its base, whose manifest it
names, and so on to a full one: all of them are a chain.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from backups.contents import NO_ROWS, Partition, both
from documents import Number
from store.bucket import Layout
from tables.blocks import ShardStorage
from tables.digest import FIRST_SCHEME
from tables.inventory import merges_rows

MANIFEST_FORMAT = 1
NAME_PATTERN = r"\d{8}T\d{6}Z"  # the time of its start, UTC
NAME_FORMAT = "%Y%m%dT%H%M%SZ"
A_DAY = timedelta(days=1)
SERVER_MANIFEST = ".backup"  # the server writes it last

BackupKind = Literal["full", "incremental"]
SavedAs = Literal["full", "incremental", "rows"]


class SavedTable(msgspec.Struct, frozen=True, kw_only=True):
    """A table in a backup.

    Attributes:
        method: how its rows were saved.
        engine: of the table that has the rows.
        schema: SHOW CREATE of the table.
        storage_schema: SHOW CREATE of the table that has the rows: it is the same one, unless this
            is a materialized view with rows of its own.
        columns: whose values are in the checksums, and in the object of rows.
        scheme: of the checksums (tables/digest.py).
        partitions: the rows, before the backup was begun.
        later: the partitions that had other rows when it was finished. Which of the two a backup
            has of these, or what in between, nobody knows.
        storage: the blocks that the table had, before all that; None where that is not known.
    """

    method: SavedAs
    engine: str
    schema: str
    storage_schema: str
    columns: tuple[str, ...]
    scheme: str = FIRST_SCHEME
    partitions: dict[str, Partition]
    later: dict[str, Partition] = {}
    storage: ShardStorage | None = None

    @property
    def rows(self) -> int:
        """How many rows there are, at the start of the backup."""
        return sum(partition.rows for partition in self.partitions.values())

    @property
    def has_checksums(self) -> bool:
        """Whether its rows were read; otherwise they were only counted."""
        return any(partition.checksum != "" for partition in self.partitions.values())

    @property
    def is_view(self) -> bool:
        """Whether it is a materialized view with rows of its own."""
        return self.schema != self.storage_schema

    def findings(self, restored: Mapping[str, Partition]) -> list[str]:
        """Return how restored rows differ from the ones that were saved."""
        differences = []
        names = self.partitions.keys() | self.later.keys() | restored.keys()
        for name in sorted(names):
            saved, now = self.partitions.get(name, NO_ROWS), restored.get(name, NO_ROWS)
            counts = sorted((saved.rows, self.later.get(name, saved).rows))
            where = f"partition {name}: " if name else ""
            if name in self.later:
                fits = counts[0] <= now.rows <= counts[1] or (
                    merges_rows(self.engine) and now.rows > 0
                )
            else:
                fits = now.rows == saved.rows
            if not fits:
                expected = " to ".join(f"{count:,}" for count in dict.fromkeys(counts))
                differences.append(f"{where}{now.rows:,} rows instead of {expected}")
            elif name not in self.later and not now.agrees_with(saved):
                differences.append(
                    f"{where}{now.rows:,} rows, as many as there were, but other ones"
                )
        return differences


class ServerBackup(msgspec.Struct, frozen=True, kw_only=True):
    """One of the server's own backups.

    Attributes:
        path: where it is, in the bucket.
        base: where the one is that it needs; "" for none.
        tables: which ones it has.
        bytes: that were written for it.
        total_bytes: of all that is restored from it, also what its bases have.
        sha256: of the server's own manifest; "" in those before 2.0.2.
    """

    path: str
    base: str = ""
    tables: tuple[str, ...]
    bytes: Number
    total_bytes: Number
    sha256: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")] = ""


class BackupManifest(msgspec.Struct, frozen=True, kw_only=True):
    """A backup.

    Attributes:
        name: the time of its start.
        kind: whether it needs another one.
        base: the name of the one that it needs.
        chain: the name of the full backup with which its chain begins.
        number: its place in the chain, from 1.
        database: the name of the database.
        collection: the named collection by which the server reaches the bucket; "" for none.
        tables: that have rows in it, by name.
        definitions: the CREATE statement of everything in the database, by name.
        order: the names of these, in which they can be made; empty in those before 2.0.2.
        run: how many backups there were, this one included; 0 in those before 2.0.2. So an old
            manifest can't stand for a new one.
        parts: the server's backups, by what is in them: "definitions", "full", "incremental".
        rows_bytes: of the objects with rows.
        access: the statements that create users, roles and grants; "" if they may not be seen.
        started: UTC, ISO 8601.
        finished: likewise.
        tool: name and version.
        server: the database's version.
        format: of this document.
        shards: of a cluster that has several, what was saved of each; `tables` has what they are
            together, and `parts` has nothing.
    """

    name: Annotated[str, Meta(pattern=rf"^{NAME_PATTERN}\Z")]
    kind: BackupKind
    base: str = ""
    chain: str
    number: Annotated[int, Meta(ge=1, le=10**6)]
    database: str
    collection: str
    tables: dict[str, SavedTable]
    definitions: dict[str, str]
    order: tuple[str, ...] = ()
    run: Number = 0
    parts: dict[str, ServerBackup]
    rows_bytes: Number
    access: str
    started: str
    finished: str
    tool: str
    server: str
    format: int = MANIFEST_FORMAT
    shards: "tuple[BackupManifest, ...] | UnsetType" = UNSET

    @property
    def rows(self) -> int:
        """How many rows all its tables have."""
        return sum(table.rows for table in self.tables.values())

    @property
    def bytes(self) -> int:
        """How much was written for it."""
        of_shards = sum(shard.bytes for shard in self.shards or ())
        return of_shards + self.rows_bytes + sum(part.bytes for part in self.parts.values())

    @property
    def by_shard(self) -> "tuple[BackupManifest, ...]":
        """What was saved of each shard; of a server of its own, or of a single shard, it is one."""
        return self.shards or (self,)


def of_all_shards(shards: Sequence[BackupManifest]) -> BackupManifest:
    """Return the manifest of a backup, given what was saved of each shard."""
    if len(shards) == 1:
        return shards[0]
    tables: dict[str, SavedTable] = {}
    definitions: dict[str, str] = {}
    for shard in shards:
        for name, saved in shard.tables.items():
            tables[name] = _added(tables[name], saved) if name in tables else saved
        definitions = {**shard.definitions, **definitions}
    return msgspec.structs.replace(
        shards[0],
        tables=tables,
        definitions=definitions,
        parts={},
        rows_bytes=0,
        shards=tuple(shards),
    )


def _added(first: SavedTable, second: SavedTable) -> SavedTable:
    """Return the rows of two shards as those of one table."""
    return msgspec.structs.replace(
        first,
        partitions=both(first.partitions, second.partitions),
        later=both(first.later, second.later),
        storage=None,
    )


@dataclass(frozen=True)
class BackupLayout(Layout):
    """Where things are in the bucket of the backups.

    Attributes:
        shard: whose they are; 0 where there are no several.
    """

    shard: int = 0

    def of_shard(self, number: int, count: int) -> "BackupLayout":
        """Return the layout of one of so many shards."""
        return BackupLayout(self.prefix, number if count > 1 else 0)

    @property
    def all_data(self) -> str:
        """What the keys of all that backups have start with."""
        return f"{self.prefix}/data/"

    def data(self, backup: str) -> str:
        """Return what the keys of all that a backup has start with."""
        return f"{self.all_data}{backup}/"

    def folder(self, backup: str) -> str:
        """Return what the keys of all that a backup has of the shard start with."""
        return self.data(backup) + (f"shard-{self.shard}/" if self.shard else "")

    def server_backup(self, backup: str, kind: str) -> str:
        """Return where the server puts one of its backups."""
        return f"{self.folder(backup)}{kind}/"

    def all_rows(self, backup: str) -> str:
        """Return what the keys of the objects with rows start with."""
        return f"{self.folder(backup)}rows/"

    def rows(self, backup: str, table: str) -> str:
        """Return the key of the object with the rows of a table.

        The server would read some characters of a name as a pattern, or decode them.
        """
        name = re.sub(r"\W", "_", table, flags=re.ASCII)
        if name != table:
            name += f"-{hashlib.sha256(table.encode()).hexdigest()[:12]}"
        return f"{self.all_rows(backup)}{name}.native.zst"

    def schema(self, backup: str) -> str:
        """Return the key of the CREATE statements."""
        return f"{self.folder(backup)}schema.sql"

    def access(self, backup: str) -> str:
        """Return the key of users, roles and grants."""
        return f"{self.folder(backup)}access.sql"

    def signature(self, backup: str) -> str:
        """Return the key of the signature of the manifest."""
        return f"{self.data(backup)}manifest.hmac"
