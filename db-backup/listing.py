"""Showing what is exported: tables, or the chunks of one table, for people or as JSON."""

from collections.abc import Mapping

import msgspec

from manifest import Export, Layout, TableManifest, summary
from progress import in_units

NAME_WIDTH = 26  # so that a line has 80 columns


def as_json(manifests: Mapping[str, TableManifest]) -> str:
    """Return the manifests, by table."""
    return msgspec.json.format(msgspec.json.encode(dict(sorted(manifests.items())))).decode()


def as_table(manifests: Mapping[str, TableManifest]) -> str:
    """Return one line for each table."""
    rows = [_row("TABLE", "CHUNKS", "ROWS", "SIZE", "NEWEST EXPORT (UTC)")]
    for name, manifest in sorted(manifests.items()):
        figures = summary(manifest)
        newest = max((export.finished for export in manifest.exports), default="")
        state = " interrupted" if manifest.pending else ""
        rows.append(
            _row(
                name,
                f"{figures.chunks}",
                f"{figures.rows:,}",
                in_units(figures.compressed_bytes),
                _time(newest) + state,
            )
        )
    return "\n".join(rows)


def chunks_as_table(manifest: TableManifest, layout: Layout) -> str:
    """Return one line for each chunk of a table."""
    rows = [_row("OBJECT", "", "ROWS", "SIZE", "EXPORTED (UTC)")]
    rows += [_chunk_row(export, layout) for export in manifest.exports]
    return "\n".join(rows)


def _chunk_row(export: Export, layout: Layout) -> str:
    dropped = " gone" if export.dropped else ""
    name = layout.relative(export.key).removeprefix("csv/")
    return _row(
        name,
        "",
        f"{export.rows:,}",
        in_units(export.compressed_bytes),
        _time(export.finished) + dropped,
    )


def _time(stamp: str) -> str:
    return stamp[:16].replace("T", " ")


def _row(*cells: str) -> str:
    name, chunks, rows, size, time = cells
    return f"{name:<{NAME_WIDTH}} {chunks:>6} {rows:>14} {size:>8}  {time}".rstrip()
