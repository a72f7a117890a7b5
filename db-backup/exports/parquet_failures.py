"""Which chunks have got no Parquet object, and why."""

import logging
from contextlib import suppress

from exports.chunk_rows import RowsDiffer
from exports.manifest_file import ManifestFile
from exports.parquet_upload import RowsChanged
from exports.steps import Step
from ooni_common.database import ServerError
from ooni_common.errors import ScriptError, TryAgainLater, Unavailable
from store.bucket import Bucket

log = logging.getLogger("ooni.db_backup")


class ParquetFailures:
    """The failures of a table's Parquet objects, while its CSV goes on; for several threads.

    Args:
        bucket: has the objects.
        file: of the manifest.

    Attributes:
        by_chunk: why chunks have got none, by name.
        ended: why none is made any more in this run: the database or the store does not answer.
    """

    def __init__(self, bucket: Bucket, file: ManifestFile) -> None:
        self._bucket = bucket
        self._file = file
        self.by_chunk: dict[str, ScriptError] = {}
        self.ended: ScriptError | None = None

    def may_pass(self, failure: ScriptError) -> bool:
        """Tell whether another attempt in this run could do better.

        Raises:
            TryAgainLater: another host writes there now.
        """
        if isinstance(failure, TryAgainLater):
            raise failure
        if isinstance(failure, RowsChanged):
            return False
        return isinstance(failure, Unavailable) and failure is not self.ended

    def note(self, step: Step, failure: ScriptError) -> None:
        """Note why a chunk gets none now, and delete its old one, whose rows have changed."""
        manifest, name = self._file.manifest, step.chunk.name
        with self._file.lock:
            if failure is self.ended:
                return
            log.warning("%s", failure)
            self.by_chunk[name] = failure
            if is_down(failure):
                log.warning("%s: no Parquet any more in this run", manifest.table)
                self.ended = failure
            export = manifest.chunks.get(name)
        if step.last and step.last.parquet and export and not export.parquet:
            with suppress(ScriptError):  # no manifest names it: prune deletes it in the end
                self._bucket.delete(step.last.parquet.key)


def is_down(failure: ScriptError) -> bool:
    """Tell whether a failure is one of the database or the store, and not of one chunk."""
    return isinstance(failure, Unavailable) and not isinstance(failure, ServerError | RowsDiffer)
