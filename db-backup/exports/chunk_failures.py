"""Which failures are a matter of one chunk, so that the others go on, and which end a table."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from exports.chunk_rows import RowsDiffer
from exports.reader import Chunk
from ooni_common.database import ServerError, StatementFailed
from ooni_common.errors import DataRefused, ScriptError

log = logging.getLogger("ooni.db_backup")

FAILURES_OF_THE_SERVER = 3  # so many chunks that fail one after another are hardly to blame


@dataclass
class ChunkFailures:
    """What has failed of a table's chunks so far.

    Attributes:
        sick: failures that are a matter of their chunks alone.
        fatal: failures after which no chunk is begun.
    """

    sick: list[ScriptError] = field(default_factory=list)
    fatal: list[ScriptError] = field(default_factory=list)
    _in_a_row: int = 0

    def add(self, error: ScriptError | None) -> None:
        """Take what a chunk has ended with; None: with success."""
        if isinstance(error, DataRefused):
            self.sick.append(error)
            return
        self._in_a_row = self._in_a_row + 1 if error else 0
        if isinstance(error, StatementFailed | RowsDiffer):
            many = self._in_a_row >= FAILURES_OF_THE_SERVER
            (self.fatal if many else self.sick).append(error)
        elif error:
            self.fatal.append(error)

    def raise_fatal(self) -> None:
        """Raise the first fatal failure, if there is one; log all others."""
        if not self.fatal:
            return
        for error in (*self.sick, *self.fatal[1:]):
            log.error("%s", error)
        raise self.fatal[0]


def with_chunk(error: ServerError, table: str, chunk: Chunk, what: str) -> ServerError:
    """Return a failure whose message says at which chunk, and what is not done therefore."""
    name = chunk.name or "the whole table"
    error.args = (f"{table}: {name}: {what}: {error}", *error.args[1:])
    return error


def summed_up(sick: Sequence[ScriptError]) -> list[ScriptError]:
    """Return failures of chunks, those of the database first, and all refusals as one."""
    failures = [error for error in sick if not isinstance(error, DataRefused)]
    if refused := [str(error) for error in sick if isinstance(error, DataRefused)]:
        failures.append(DataRefused("; ".join(refused)))
    return failures
