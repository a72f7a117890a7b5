"""How large an object will be, about: before its rows are read, and from what was exported."""

from exports.manifest import TableManifest
from exports.reader import Chunk
from ooni_common.errors import DataRefused
from store.uploads import LARGEST_PART, MOST_PARTS
from tables.policy import TablePolicy
from throttle import in_units

ENOUGH = 100  # chunks of a table, which tell how large its rows are
ROW_SIZE = 200  # bytes of a compressed row, where none of the table was exported yet


def expected_size(manifest: TableManifest, chunk: Chunk, rows: int) -> int:
    """Return how many bytes the object of a chunk will have, about.

    Its rows are taken to be as large as those that it had, or else as those of the other chunks.

    Args:
        manifest: of what was exported.
        chunk: of the table.
        rows: that it has now.
    """
    last = manifest.chunks.get(chunk.name)
    exports = [last] if last and last.rows else list(manifest.chunks.values())[-ENOUGH:]
    if exported := sum(export.rows for export in exports):
        return rows * sum(export.compressed_bytes for export in exports) // exported
    return rows * ROW_SIZE


def check_size(manifest: TableManifest, policy: TablePolicy, chunk: Chunk, rows: int) -> None:
    """Raise DataRefused for a chunk that is too large for one object, as those before it show.

    Nothing is refused where no rows of the table were exported yet: then nobody knows.
    """
    expected, limit = expected_size(manifest, chunk, rows), LARGEST_PART * MOST_PARTS
    if expected <= limit or not any(export.rows for export in list(manifest.chunks.values())):
        return
    raise DataRefused(
        f"{manifest.table}: {chunk.name or 'the whole table'}: not exported: its {rows:,} rows"
        f" would be about {in_units(expected)}, and an object can have {in_units(limit)} in"
        f" {MOST_PARTS:,} parts; divide the table: {_smaller(policy)} (tables in the configuration)"
    )


def _smaller(policy: TablePolicy) -> str:
    """Return what makes the chunks of a table smaller."""
    match policy.chunk_by:
        case "month":
            return 'chunk_by = "day"'
        case "day":
            return 'chunk_by = "range"'
        case "range":
            return "a smaller rows_per_chunk"
    return 'chunk_by = "month", with the column of its time, or "range"'
