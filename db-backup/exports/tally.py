"""What exports come to: how many chunks and bytes, and what the log says of each."""

import logging
from dataclasses import dataclass

from exports.manifest import Export, ExportLayout
from exports.steps import Step
from throttle import in_units

log = logging.getLogger("ooni.db_backup")


@dataclass
class Tally:
    """How many chunks were exported, the bytes of their objects, and those of their rows as CSV."""

    exported: int = 0
    uploaded: int = 0
    read: int = 0

    def add(self, step: Step, export: Export) -> None:
        """Count an export whose objects are there."""
        self.exported += 1
        if step.reason != "lacks Parquet":
            self.uploaded += export.compressed_bytes
            self.read += export.bytes
        if export.parquet:
            self.uploaded += export.parquet.compressed_bytes


def tell_of_export(step: Step, export: Export, layout: ExportLayout, seconds: float) -> None:
    """Log what the objects of a chunk are, and how fast its rows came."""
    if export.parquet:
        size = in_units(export.parquet.compressed_bytes)
        where = layout.relative(export.parquet.key)
        log.info("%s: %s rows as Parquet, %s", where, f"{export.rows:,}", size)
    if step.reason == "lacks Parquet":
        return
    seconds = max(seconds, 0.001)
    log.info(
        "%s: %s: %s rows, %s of CSV as %s, in %.1f s (%s/s)",
        layout.relative(export.key),
        step.reason,
        f"{export.rows:,}",
        in_units(export.bytes),
        in_units(export.compressed_bytes),
        seconds,
        in_units(export.bytes / seconds),
    )
