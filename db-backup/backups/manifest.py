"""The backups: what their manifests say, and which of them are good.

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
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from backups.contents import NO_ROWS, Partition, both
from backups.signature import LONGEST as LONGEST_SIGNATURE
from backups.signature import SignatureState, state_of
from digest import FIRST_SCHEME
from inventory import check_names, merges_rows
from ooni_common.errors import DataRefused
from store import Bucket, Layout, Number, decoded_manifest

MANIFEST_FORMAT = 1
NAME_PATTERN = r"\d{8}T\d{6}Z"  # the time of its start, UTC
NAME_FORMAT = "%Y%m%dT%H%M%SZ"
A_DAY = timedelta(days=1)
SERVER_MANIFEST = ".backup"  # the server writes it last

BackupKind = Literal["full", "incremental"]
SavedAs = Literal["full", "incremental", "rows"]
BackupState = Literal["good", "damaged", "unfinished", "in progress"]


class SavedTable(msgspec.Struct, frozen=True, kw_only=True):
    """A table in a backup.

    Attributes:
        method: how its rows were saved.
        engine: of the table that has the rows.
        schema: SHOW CREATE of the table.
        storage_schema: SHOW CREATE of the table that has the rows: it is the same one, unless this
            is a materialized view with rows of its own.
        columns: whose values are in the checksums, and in the object of rows.
        scheme: of the checksums (digest.py).
        partitions: the rows, before the backup was begun.
        later: the partitions that had other rows when it was finished. Which of the two a backup
            has of these, or what in between, nobody knows.
    """

    method: SavedAs
    engine: str
    schema: str
    storage_schema: str
    columns: tuple[str, ...]
    scheme: str = FIRST_SCHEME
    partitions: dict[str, Partition]
    later: dict[str, Partition] = {}

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


@dataclass(frozen=True)
class Backup:
    """A backup, or what is left of one.

    Attributes:
        name: the time of its start.
        state: "good" if it can be restored.
        reason: why it can't.
        manifest: None if there is none, or a damaged one.
        signature: of the manifest; where it is valid, its definitions may be executed.
        in_future: whether its name is a time that has not come, by the clock of the store.
    """

    name: str
    state: BackupState
    reason: str = ""
    manifest: BackupManifest | None = None
    signature: SignatureState = "unchecked"
    in_future: bool = False

    @property
    def base(self) -> str:
        """The name of the older backup that it needs; "" for none."""
        base = self.manifest.base if self.manifest else ""
        return base if base < self.name else ""

    @property
    def started(self) -> datetime:
        """When it was begun, UTC."""
        return start_of(self.name)


def start_of(name: str) -> datetime:
    """Return when a backup was begun, UTC."""
    return datetime.strptime(name, NAME_FORMAT).replace(tzinfo=UTC)


def read_backups(bucket: Bucket, layout: BackupLayout, key: bytes = b"") -> list[Backup]:
    """Return what there is in a bucket, oldest first; good is what has all that it needs.

    Args:
        bucket: has them.
        layout: where they are in it.
        key: by which manifests are signed; empty: signatures are not checked.
    """
    backups: dict[str, Backup] = {}
    for name in sorted(_names(bucket, layout)):
        backups[name] = _examined(bucket, layout, name, backups, key)
    return _without_prophecies(bucket, list(backups.values()))


def _without_prophecies(bucket: Bucket, backups: Sequence[Backup]) -> list[Backup]:
    """Return the backups; those with a time that has not come are not good ones."""
    tomorrow = datetime.now(UTC) + A_DAY
    if all(backup.started <= tomorrow for backup in backups):
        return list(backups)
    tomorrow = datetime.fromtimestamp(bucket.time(), UTC) + A_DAY  # this machine may be behind
    reason = "its name is a time in the future"
    return [
        backup
        if backup.started <= tomorrow
        else Backup(
            backup.name,
            "damaged" if backup.state == "good" else backup.state,
            reason if backup.state == "good" else f"{reason}; {backup.reason}",
            backup.manifest,
            backup.signature,
            in_future=True,
        )
        for backup in backups
    ]


def good_backups(backups: Sequence[Backup]) -> list[BackupManifest]:
    """Return the manifests of those that can be restored, oldest first."""
    return [backup.manifest for backup in backups if backup.manifest and backup.state == "good"]


def _names(bucket: Bucket, layout: BackupLayout) -> set[str]:
    """Return the names of all that looks like a backup, with or without manifest."""
    keys = (listed.key for listed in bucket.listing(layout.manifests))
    names = {key.removeprefix(layout.manifests).removesuffix(".json") for key in keys}
    names |= {folder.removeprefix(layout.all_data) for folder in bucket.folders(layout.all_data)}
    return {name for name in names if _is_time(name)}


def _is_time(name: str) -> bool:
    try:
        start_of(name)
    except ValueError:
        return False
    return re.fullmatch(NAME_PATTERN, name, re.ASCII) is not None


def _examined(
    bucket: Bucket, layout: BackupLayout, name: str, earlier: Mapping[str, Backup], key: bytes
) -> Backup:
    try:
        content = bucket.get(layout.manifest(name))
        if content is None:
            return Backup(name, "unfinished", "it has no manifest")
        manifest = decoded_manifest(content, BackupManifest, "its manifest is")
        signed = bucket.get(layout.signature(name), LONGEST_SIGNATURE) if key else None
    except DataRefused as error:
        return Backup(name, "damaged", str(error))
    signature = state_of(key, content, signed)
    reason = _wrong_in(layout, name, manifest)
    if signature == "wrong":
        reason = "the signature of its manifest is wrong: somebody else wrote one of them"
    if not reason and (missing := _missing(bucket, layout, manifest)):
        reason = f"its {missing.removeprefix(layout.data(name))} is missing"
    reason = reason or _wrong_with_base(manifest, earlier)
    return Backup(name, "damaged" if reason else "good", reason, manifest, signature)


def _wrong_in(layout: BackupLayout, name: str, manifest: BackupManifest) -> str:
    """Return what is wrong in a manifest itself; "" for nothing."""
    if manifest.name != name:
        return f"its manifest is that of {manifest.name}"
    if any(shard.shards or shard.name != name for shard in manifest.shards or ()):
        return "its manifest has shards that are not its own"
    if foreign := _foreign_path(layout, manifest):
        return f"its manifest names {foreign!r}, which is not its own"
    if any(_is_incomplete(shard) for shard in (manifest, *manifest.by_shard)):
        return "its manifest has something without a name or columns"
    if unsaved := _unsaved_table(manifest):
        return f"its manifest does not say where the rows of {unsaved!r} are"
    return ""


def _is_incomplete(manifest: BackupManifest) -> bool:
    """Tell whether a manifest has an empty name, or a table without columns."""
    names = {manifest.database, *manifest.tables, *manifest.definitions}
    return "" in names or not all(table.columns for table in manifest.tables.values())


def _wrong_with_base(manifest: BackupManifest, earlier: Mapping[str, Backup]) -> str:
    """Return what is wrong with the backup that another one needs; "" for nothing."""
    base = manifest.base
    if base >= manifest.name:  # so no walk over bases can be endless
        return f"its base {base} is not older than it is"
    if base and base not in earlier:
        return f"its base {base} is missing"
    if base and earlier[base].state != "good":
        return f"its base {base} is {earlier[base].state}"
    return ""


def _foreign_path(layout: BackupLayout, manifest: BackupManifest) -> str:
    """Return the first path in a manifest that is not where backups are; "" for none."""
    for number, shard in enumerate(manifest.by_shard, 1):
        own = layout.of_shard(number, len(manifest.by_shard))
        for kind, part in shard.parts.items():
            if part.path != own.server_backup(manifest.name, kind):
                return part.path
            if part.base and part.base != own.server_backup(manifest.base, kind):
                return part.base
    return ""


def _unsaved_table(manifest: BackupManifest) -> str:
    """Return the first table whose rows are said to be saved, and are in no part; "" for none."""
    for shard in manifest.by_shard:
        for name, table in shard.tables.items():
            part = shard.parts.get(table.method)
            if table.method != "rows" and name not in (part.tables if part else ()):
                return name
    return ""


def needed_objects(layout: BackupLayout, manifest: BackupManifest) -> list[str]:
    """Return the keys of objects without which nothing can be restored."""
    if manifest.shards:
        count = len(manifest.shards)
        return [
            key
            for number, shard in enumerate(manifest.shards, 1)
            for key in needed_objects(layout.of_shard(number, count), shard)
        ]
    needed = [part.path + SERVER_MANIFEST for part in manifest.parts.values()]
    return needed + [
        layout.rows(manifest.name, name)
        for name, table in manifest.tables.items()
        if table.method == "rows" and table.rows
    ]


def _missing(bucket: Bucket, layout: BackupLayout, manifest: BackupManifest) -> str:
    """Return the first of the needed objects that is not there; "" if they all are."""
    needed = needed_objects(layout, manifest)
    return next((key for key in needed if bucket.look(key) is None), "")


@dataclass(frozen=True)
class Chosen:
    """A good backup that is to be restored or verified.

    Attributes:
        manifest: of the backup.
        is_signed: whether whoever wrote it had our key, so that its definitions may be executed.
    """

    manifest: BackupManifest
    is_signed: bool = False


def good_ones(backups: Sequence[Backup]) -> list[Chosen]:
    """Return those that can be restored, oldest first, with what their signatures are worth."""
    return [
        Chosen(backup.manifest, backup.signature == "valid")
        for backup in backups
        if backup.manifest and backup.state == "good"
    ]


def chosen(backups: Sequence[Backup], name: str, runs: int = 0) -> Chosen:
    """Return the backup of a name; the newest good one if none is given.

    Args:
        backups: what there is, oldest first.
        name: of a backup; "" for none.
        runs: the number of the last backup that was made here, if its manifest was signed.

    Raises:
        UsageError: there is no such backup.
        DataRefused: it can't be restored, there is no good one, or it is not the last one.
    """
    if not name:
        good = good_ones(backups)
        if not good:
            raise DataRefused("there is no good backup; see list")
        check_newest(good[-1].manifest, runs)
        return good[-1]
    check_names([name], [backup.name for backup in backups], "backup")
    backup = next(backup for backup in backups if backup.name == name)
    if backup.state != "good":
        raise DataRefused(f"the backup {name} is {backup.state}: {backup.reason}")
    return good_ones([backup])[0]


def chain_of(manifest: BackupManifest, backups: Sequence[Backup]) -> list[BackupManifest]:
    """Return a backup that is good, and those that it needs, oldest last."""
    manifests = {backup.name: backup.manifest for backup in backups if backup.manifest}
    chain = [manifest]
    while base := manifests.get(chain[-1].base):  # each is older than the one before
        chain.append(base)
    return chain


def check_newest(manifest: BackupManifest, runs: int) -> None:
    """Check that the newest good backup is the last one that was made.

    Raises:
        DataRefused: it is an older one.
    """
    if manifest.run < runs:
        raise DataRefused(
            f"the newest good backup, {manifest.name}, is number {manifest.run}; the last one that"
            f" was made here is number {runs}: it is damaged, gone, or replaced by an older one;"
            " see list, and name the one to restore with --from"
        )
