"""The backups in a bucket: which there are, and which of them are good.

A backup without manifest does not exist. One that needs another is good as long as that is.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from backups.manifest import (
    A_DAY,
    NAME_FORMAT,
    NAME_PATTERN,
    SERVER_MANIFEST,
    BackupLayout,
    BackupManifest,
)
from backups.signature import LONGEST as LONGEST_SIGNATURE
from backups.signature import SignatureState, state_of
from documents import decoded_manifest
from ooni_common.errors import DataRefused
from store.bucket import Bucket
from tables.inventory import check_names

BackupState = Literal["good", "damaged", "unfinished", "in progress"]


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


def chosen(backups: Sequence[Backup], name: str, runs: int = 0, *, signed: bool = False) -> Chosen:
    """Return the backup of a name; the newest good one if none is given.

    Args:
        backups: what there is, oldest first.
        name: of a backup; "" for none.
        runs: the number of the last backup that was made here, where there is a key.
        signed: whether that was signed, so that the newest one has to be.

    Raises:
        UsageError: no such backup exists.
        DataRefused: it can't be restored, there is no good one, or it is not the last one.
    """
    if not name:
        good = good_ones(backups)
        if not good:
            raise DataRefused("no good backup exists; see list")
        check_newest(good[-1], runs, signed=signed)
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


def check_newest(newest: Chosen, runs: int, *, signed: bool) -> None:
    """Check that the newest good backup is the last one that was made.

    Raises:
        DataRefused: it is an older one; or it is not signed, so that its number says nothing.
    """
    manifest = newest.manifest
    if signed and not newest.is_signed:
        raise DataRefused(
            f"the newest good backup, {manifest.name}, is not signed; the last one that was made"
            " here is: somebody else may have written it; see list, and name the one to restore"
            " with --from"
        )
    if manifest.run < runs:
        raise DataRefused(
            f"the newest good backup, {manifest.name}, is number {manifest.run}; the last one that"
            f" was made here is number {runs}: it is damaged, gone, or replaced by an older one;"
            " see list, and name the one to restore with --from"
        )
