"""What is to be done with one chunk of a table, and why."""

from dataclasses import dataclass
from typing import Literal, get_args

from exports.fingerprint import Fingerprint
from exports.manifest import Export
from exports.reader import Chunk
from ooni_common.database import ServerError

ReasonToExport = Literal[
    "new",
    "changed",
    "with other columns",
    "again, by --force",
    "with an older digest",
    "lost from the bucket",
    "lacks Parquet",
    "found by rotation",
]
Reason = ReasonToExport | Literal["unchanged", "shrunk", "dropped", "behind", "undecided", "unread"]


@dataclass(frozen=True)
class Step:
    """What is to be done with one chunk, and why.

    Attributes:
        chunk: which rows.
        fingerprint: of them.
        reason: of what is done.
        last: its previous export.
        storage: the name of the blocks that the table had before; "" if not known.
        looked: whether it has had its turn in the rotation, which has seen no change.
        failure: why it is "unread": nobody knows whether it has changed, and its export stays.
    """

    chunk: Chunk
    fingerprint: Fingerprint
    reason: Reason
    last: Export | None
    storage: str = ""
    looked: bool = False
    failure: ServerError | None = None

    @property
    def exports(self) -> bool:
        """Whether its rows are read."""
        return self.reason in get_args(ReasonToExport)

    @property
    def has_other_bounds(self) -> bool:
        """Whether its object is of other bounds, and may have rows of new chunks."""
        return self.last is not None and self.last.chunk != self.chunk

    def __str__(self) -> str:
        rows = f"{self.fingerprint.rows:,} rows"
        if self.last and self.last.rows != self.fingerprint.rows:
            rows += f" ({self.fingerprint.rows - self.last.rows:+,})"
        name = self.chunk.name or "the whole table"
        return f"{name}: {self.reason}, {rows}"
