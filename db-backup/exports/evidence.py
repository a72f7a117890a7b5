"""What the parts of a table tell of its chunks: the levels of change, from free to cheap.

0. Is it the same table, with the same columns? Does a run say of its blocks that no chunk was
   missing then? Without that, all rows are counted.
1. Are there blocks that were not there, are some missing, has a mutation written others? If not,
   nothing has changed, and no row is read.
2. Which chunks have rows in the parts with new blocks? Only these parts are read, and the rows of
   these chunks counted.
3. Where a mutation has written blocks that were there, the digest of all columns decides (plan.py).
"""

from exports.chunks import Kept, grown_chunks, made_again, rows_may_move
from exports.manifest import Export, TableManifest
from exports.reader import Chunk, Reader
from tables.blocks import Changes, Snapshot


class Evidence:
    """What the parts of a table tell of the rows that were exported.

    Args:
        reader: of the table.
        manifest: of its last export.
        snapshot: of the parts; None where they don't tell.

    Attributes:
        chunks: that the table has now.
    """

    def __init__(self, reader: Reader, manifest: TableManifest, snapshot: Snapshot | None) -> None:
        self._reader = reader
        self._manifest = manifest
        self.snapshot = snapshot
        self.chunks: list[Chunk] = []
        self._changes: dict[str, Changes | None] = {}
        self._grown: dict[str, set[str]] = {}

    @property
    def storage(self) -> str:
        """The name of the blocks that the table has; "" if not known."""
        return self.snapshot.storage.name if self.snapshot else ""

    @property
    def surveyed(self) -> str:
        """The name of blocks of which no chunk is missing, once all is exported; "" if not known.

        It stays what it was where nothing has changed, as the manifest does.
        """
        name = self._manifest.surveyed
        changes = self._since(name)
        return name if changes and (changes.same_parts or changes.behind) else self.storage

    def changes(self, export: Export) -> Changes | None:
        """Return what has changed in the table since an export; None: it is not known."""
        return self._since(export.storage)

    def may_have_other_cells(self, export: Export) -> bool:
        """Tell whether columns may differ in rows whose key and version are what they were.

        A mutation changes them, and another table of the name can have others. Where it is not
        known of which blocks an export is, the digest of all columns tells, if there is one.
        """
        if changes := self.changes(export):
            return changes.mutated
        if self.snapshot is None:
            return False
        return export.storage in self._manifest.storages or export.fingerprint.whole is not None

    def has_new_rows(self, export: Export) -> bool:
        """Tell whether a chunk has rows in the parts that were not as they are."""
        return export.chunk.name in self._grown_since(export.storage)

    def kept(self) -> Kept | None:
        """Return what is known of the chunks without counting all rows; None for nothing.

        Rows can only have come, or have been merged with others of the same key. So a chunk that
        has none in the new parts is as it was, unless these have rows that replace some of it.
        """
        exports = [export for export in self._manifest.exports if not export.dropped]
        names = {self._manifest.surveyed, *(export.storage for export in exports)}
        changes = [self._since(name) for name in names]
        if not all(since and since.keeps_rows and since.adds_up for since in changes):
            return None
        if rows_may_move(self._reader) and any(since and since.any_parts for since in changes):
            return None
        chunks = made_again(self._reader, [export.chunk for export in exports])
        if chunks is None:
            return None
        self.chunks = chunks
        grown = set().union(*map(self._grown_since, names))
        return Kept(
            chunks={chunk.name: chunk for chunk in chunks},
            rows={
                export.chunk.name: export.fingerprint.rows
                for export in exports
                if export.chunk.name not in grown
            },
            grown=grown,
        )

    def _since(self, name: str) -> Changes | None:
        if name not in self._changes:
            earlier = self._manifest.storages.get(name)
            self._changes[name] = self.snapshot.changes(earlier) if self.snapshot else None
        return self._changes[name]

    def _grown_since(self, name: str) -> set[str]:
        if name not in self._grown:
            changes = self._since(name)
            grown = grown_chunks(self._reader, self.chunks, changes) if changes else set()
            self._grown[name] = grown
        return self._grown[name]
