"""The Parquet object of a chunk, sent by a thread of its own beside the CSV.

Both queries begin at the same instant, so that they see the same rows of a table that grows.
"""

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from exports.chunk_rows import RowsDiffer
from exports.clickhouse_http import ClickHouseHTTP
from exports.manifest import Export, ParquetObject, now
from exports.parquet_rows import PARQUET, ParquetRows
from exports.reader import Chunk
from ooni_common.database import ServerError
from ooni_common.errors import ScriptError
from store.bucket import Bucket
from store.upload_parts import ABORT_TIME, Background
from store.uploads import Upload, uploading


class ParquetUpload:
    """A chunk's Parquet object on its way.

    Args:
        rows: sends them.
        http: has them.
        chunk: which rows.
        upload: of the object.
        token: of the upload.

    Attributes:
        upload: of the object.
    """

    def __init__(
        self, rows: ParquetRows, http: ClickHouseHTTP, chunk: Chunk, upload: Upload, token: str
    ) -> None:
        self._source = rows
        self._http = http
        self._chunk = chunk
        self.upload = upload
        self._token = token
        self._started = now()
        self._rows = 0
        self._sending = Background(self._send)

    def start(self) -> None:
        """Begin."""
        self._sending.start()

    def end(self) -> None:
        """Let nothing come of it."""
        self.upload.end()
        with contextlib.suppress(Exception):  # what led here counts
            self._sending.wait(ABORT_TIME)

    def _send(self) -> None:
        self._rows = self._source.send(self._chunk, self.upload, self._http)

    def finish(self, rows: int) -> ParquetObject:
        """Wait until all parts are there. Nobody sees an object yet.

        Args:
            rows: that it must have.

        Raises:
            RowsDiffer: it has others, as some have come or gone between two queries.
            DataRefused: texts are not UTF-8, or it is too large.
            Unavailable: the database or the store has failed.
        """
        try:
            self._sending.wait()
        except ServerError as error:
            raise self._source.explained(error, self._chunk) from None
        if self._rows != rows:
            raise RowsDiffer(
                f"{self.upload.key}: {self._rows:,} rows came, and of the CSV {rows:,}"
            )
        written = self.upload.finish()
        return ParquetObject(
            key=self.upload.key,
            compressed_bytes=written.size,
            sha256=written.sha256,
            token=self._token,
            started=self._started,
            finished=now(),
            binary_columns=self._source.binary_columns,
        )

    def publish(self, parquet: ParquetObject) -> ParquetObject:
        """Make the object visible; return what is known of it then."""
        return msgspec.structs.replace(parquet, etag=self.upload.publish())


class RowsChanged(RowsDiffer):
    """A chunk has not the rows any more that its export has.

    Attributes:
        rows: that it has.
        few: whether too many are gone for the export to be replaced without a new plan.
    """

    def __init__(self, export: Export, rows: int, *, few: bool) -> None:
        super().__init__(
            f"{export.key}: it has {export.rows:,} rows, and the database counts {rows:,} now"
        )
        self.rows = rows
        self.few = few


@dataclass(frozen=True)
class Beside:
    """The Parquet object of a chunk, which may fail alone.

    Attributes:
        upload: of it; None: there is to be none, or it can't begin.
        failure: why it can't.
    """

    upload: ParquetUpload | None
    failure: ScriptError | None = None

    def finished(self, rows: int) -> tuple[ParquetObject | None, ScriptError | None]:
        """Wait until all parts of so many rows are there; return the object, or why not."""
        if not self.upload:
            return None, self.failure
        try:
            return self.upload.finish(rows), None
        except ScriptError as error:
            self.upload.end()
            return None, error

    def published(self, parquet: ParquetObject) -> tuple[ParquetObject | None, ScriptError | None]:
        """Make the object visible; return it, or why not."""
        if not self.upload:
            return None, None
        try:
            return self.upload.publish(parquet), None
        except ScriptError as error:
            self.upload.end()
            return None, error


@contextlib.contextmanager
def uploading_parquet(
    bucket: Bucket,
    key: str,
    rows: ParquetRows,
    http: ClickHouseHTTP,
    chunk: Chunk,
    expected: int,
) -> Iterator[ParquetUpload]:
    """Give a chunk's Parquet object on its way; unless it is published, nothing is left of it.

    Args:
        bucket: gets the object.
        key: of it.
        rows: sends them.
        http: has them.
        chunk: which rows.
        expected: how many bytes it will have, about.
    """
    token = uuid.uuid4().hex
    with uploading(bucket, key, PARQUET, token, expected) as upload:
        beside = ParquetUpload(rows, http, chunk, upload, token)
        beside.start()
        try:
            yield beside
        except BaseException:
            beside.end()
            raise
