"""Whether a chunk has lost more rows than an export may."""

from exports.fingerprint import Fingerprint
from exports.reader import Chunk, Reader


def has_shrunk(
    reader: Reader, chunk: Chunk, rows: int, before: Fingerprint, max_shrink: float
) -> bool:
    """Tell whether more than a share of a chunk's rows is gone; the merged ones are not.

    Args:
        reader: of the table.
        chunk: which rows.
        rows: that it has now.
        before: of those that it had.
        max_shrink: the share (0 to 1).
    """
    if rows >= before.rows:
        return False
    if not reader.merges:
        return rows < before.rows * (1 - max_shrink)
    keys = before.rows if before.keys is None else before.keys
    return (reader.fingerprint(chunk.condition).keys or 0) < keys * (1 - max_shrink)
