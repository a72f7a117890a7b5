"""Verifying that the exports in the bucket are what their manifests say."""

import logging
import random
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from exports.compact import DamagedFooter
from exports.comparison import Records
from exports.content import check_csv, check_parquet
from exports.manifest import Export, ExportLayout, ParquetObject, TableManifest
from exports.parquet_footer import footer_of
from exports.parquet_rows import End
from exports.read_back import LONGEST_RECORD, NotReadBack, ReadBack, TextOfCSV
from exports.stored import (
    TableManifests,
    present_exports,
    read_table_manifest,
    read_table_manifests,
)
from exports.verify_beside import check_beside
from parallel import in_parallel
from store.bucket import Bucket, Listed, NoSuchObject, ObjectHead
from throttle import Bandwidth, Progress, in_units, progress

log = logging.getLogger("ooni.db_backup")

Stored = Export | ParquetObject


@dataclass(frozen=True)
class Effort:
    """How much is done to verify exports.

    Attributes:
        quick: read no rows. Where the listing has size and ETag of an export, nothing else is
            asked; else its origin is looked at.
        sample: of how many objects the rows are read; None: of all.
        jobs: how many objects are looked at at once.
        bandwidth: at which they are read, all together.
    """

    quick: bool
    sample: int | None
    jobs: int
    bandwidth: Bandwidth


def verify(
    bucket: Bucket,
    layout: ExportLayout,
    read: TableManifests,
    tables: Collection[str],
    effort: Effort,
    read_back: ReadBack,
) -> Iterator[str]:
    """Yield what is wrong with the exports: a line each.

    Args:
        bucket: has them.
        layout: where they are in it.
        read: the manifests of all tables.
        tables: only these; empty: everything there is.
        effort: how much is done for it.
        read_back: compares Parquet with CSV, and knows whether the database has failed.
    """
    manifests, wanted = read.sound, set(tables or read.damaged)
    skipped = frozenset[str]()
    if effort.sample is not None:
        skipped = _skipped(manifests, tables, effort.sample)
    yield from (reason for table, reason in read.damaged.items() if table in wanted)
    for table in sorted(set(tables) - manifests.keys() - read.damaged.keys()):
        yield f"{table}: it has no manifest"
    checks = list(_checks(bucket, read, tables, skipped, quick=effort.quick))
    total = sum(check.bytes_to_read for check in checks)
    with progress("exports", total, "B") as shown:
        checker = _Checker(bucket, layout, effort.bandwidth, shown, read_back)
        for findings in in_parallel(checker.check, checks, effort.jobs):
            yield from findings
    if checker.unmarked:
        log.warning(
            "the store has no metadata of %d objects, by which uploads are told apart: %s",
            len(checker.unmarked),
            "size and ETag decided" if effort.quick or skipped else "their checksums decided",
        )
    if not tables and not read.damaged:  # else nobody knows what the damaged ones name
        findings = list(check_beside(bucket, layout, read))
        if findings:  # unless a run was at work meanwhile
            fresh_ones = read_table_manifests(bucket, layout, with_objects=True)
            if fresh_ones != read and not fresh_ones.damaged:
                findings = list(check_beside(bucket, layout, fresh_ones))
        yield from findings


@dataclass(frozen=True)
class _Check:
    """An export of which objects are to be looked at.

    Attributes:
        manifest: names it.
        export: itself.
        keys: of the objects.
        read: those of them whose rows are read, too. With Parquet, the CSV is among them.
    """

    manifest: TableManifest
    export: Export
    keys: frozenset[str]
    read: frozenset[str]

    @property
    def compares(self) -> bool:
        """Whether the rows of Parquet are compared with those of CSV."""
        return bool(self.export.parquet and self.export.parquet.key in self.read)

    @property
    def bytes_to_read(self) -> int:
        """How many bytes are read of its objects; Parquet is read twice."""
        return sum(
            stored.compressed_bytes * (1 if isinstance(stored, Export) else 2)
            for stored in self.export.stored
            if stored.key in self.read
        )


def _checks(
    bucket: Bucket,
    manifests: TableManifests,
    tables: Collection[str],
    skipped: Collection[str],
    *,
    quick: bool,
) -> Iterator[_Check]:
    """Yield what is to be looked at: not what the listing proves, where no rows are to be read."""
    objects = manifests.objects or {}
    for name in sorted(manifests.sound.keys() & set(tables or manifests.sound)):
        manifest = manifests.sound[name]
        for export in present_exports(bucket, manifest).values():
            stored = {one.key: one for one in export.stored}
            read = set() if quick else stored.keys() - set(skipped)
            if export.parquet and export.parquet.key in read:
                read.add(export.key)
            listed = {key for key, one in stored.items() if _is_as_listed(one, objects)}
            keys = stored.keys() - (listed - read)
            if keys:
                yield _Check(manifest, export, frozenset(keys), frozenset(read))


def _skipped(
    manifests: Mapping[str, TableManifest], tables: Collection[str], sample: int
) -> frozenset[str]:
    """Return the keys of the objects that are not in a sample of so many."""
    named = [manifest for table, manifest in manifests.items() if not tables or table in tables]
    exports = [export for manifest in named for export in manifest.exports]
    keys = sorted(stored.key for export in exports for stored in export.stored)
    chosen = random.SystemRandom().sample(keys, min(sample, len(keys)))
    return frozenset(keys) - set(chosen)


def _is_as_listed(export: Stored, objects: Mapping[str, Listed]) -> bool:
    """Tell whether a listing has the very version of an object that was uploaded."""
    listed = objects.get(export.key)
    if listed is None or listed.size != export.compressed_bytes:
        return False
    return listed.etag == export.etag != ""


def _written_since(
    bucket: Bucket, layout: ExportLayout, manifest: TableManifest, chunk: str
) -> Export | None:
    """Return the export of a chunk, if a run has been at work since a manifest was read."""
    fresh = read_table_manifest(bucket, layout, manifest.table)
    if fresh is None:
        return None
    if (fresh.generation, fresh.pending) == (manifest.generation, manifest.pending):
        return None
    return present_exports(bucket, fresh).get(chunk)


def _is_another(head: ObjectHead, export: Stored, *, quick: bool) -> bool:
    """Tell whether the store says that an object is not the one that was uploaded.

    Where it has no metadata, the name of the version can say so, and the content must.
    """
    if head.token:
        return head.token != export.token
    return quick and "" not in (head.etag, export.etag) and head.etag != export.etag


class _Checker:
    """Looks at exports, some of them at once.

    Args:
        bucket: should have them.
        layout: where.
        bandwidth: of all together.
        shown: the progress over all.
        read_back: compares Parquet with CSV.

    Attributes:
        unmarked: the keys of objects of which the store has no metadata, so that other things
            decide.
    """

    def __init__(
        self,
        bucket: Bucket,
        layout: ExportLayout,
        bandwidth: Bandwidth,
        shown: Progress,
        read_back: ReadBack,
    ) -> None:
        self._bucket = bucket
        self._layout = layout
        self._bandwidth = bandwidth
        self._shown = shown
        self._read_back = read_back
        self._done = 0
        self._lock = threading.Lock()
        self.unmarked: list[str] = []

    def check(self, check: _Check) -> list[str]:
        """Return what is wrong with an export, unless a run has replaced it meanwhile."""
        findings = list(self._check(check))
        if findings:
            again = _written_since(
                self._bucket, self._layout, check.manifest, check.export.chunk.name
            )
            if again:
                findings = list(self._check(replace(check, export=again)))
        return findings

    def _check(self, check: _Check) -> Iterator[str]:
        records = Records(LONGEST_RECORD) if check.compares else None
        is_sound = True
        for stored in check.export.stored:
            if stored.key not in check.keys:
                continue
            quick = stored.key not in check.read
            findings = list(self._look(stored, quick=quick))
            if not (findings or quick):
                findings = self._read(check, stored, records if is_sound else None)
            is_sound = is_sound and not findings
            yield from findings

    def _look(self, export: Stored, *, quick: bool) -> Iterator[str]:
        head = self._bucket.look(export.key)
        if head is None:
            yield f"{export.key}: missing"
        elif head.size != export.compressed_bytes:
            yield f"{export.key}: {head.size:,} bytes instead of {export.compressed_bytes:,}"
        elif _is_another(head, export, quick=quick):
            yield f"{export.key}: it is not the object that was uploaded"
        elif not head.token:
            self.unmarked.append(export.key)

    def _read(self, check: _Check, stored: Stored, records: Records | None) -> list[str]:
        """Read an object, and compare Parquet with the records of the CSV, if they are known."""
        try:
            if isinstance(stored, Export):
                findings = list(check_csv(self._pieces(stored), stored, records))
            else:
                findings = self._read_parquet(check, stored, records)
        except NoSuchObject:
            findings = [f"{stored.key}: missing: it was deleted while it was verified"]
        if not findings:
            log.info(
                "%s: %s rows, %s: as exported",
                stored.key,
                f"{check.export.rows:,}",
                in_units(stored.compressed_bytes),
            )
        return findings

    def _read_parquet(
        self, check: _Check, parquet: ParquetObject, records: Records | None
    ) -> list[str]:
        end, export = End(), check.export
        findings = list(check_parquet(self._pieces(parquet), parquet, export.rows, end))
        if findings or records is None:
            return findings
        csv = TextOfCSV(export.key, records, export.bytes)
        try:
            footer = footer_of(end.content)
            pieces = self._pieces(parquet)
            finding = self._read_back.compare(check.manifest, export, footer, pieces, csv)
        except DamagedFooter as error:
            finding = str(error)
        except NotReadBack as error:
            log.warning("%s: its values were not compared: %s", parquet.key, error)
            return []
        if finding:
            return [f"{parquet.key}: {finding}"]
        log.info("%s: its values are those of %s", parquet.key, export.key)
        return []

    def _pieces(self, export: Stored) -> Iterator[bytes]:
        for piece in self._bucket.stream(export.key):
            self._bandwidth.spend(len(piece))
            yield piece
            with self._lock:
                self._done += len(piece)
                self._shown.show(self._done, export.key)
