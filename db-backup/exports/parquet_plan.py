"""Which chunks get a Parquet object though nothing else of them has changed."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from exports.manifest import Export, ParquetObject
from exports.reader import Reader
from exports.steps import Step


def with_parquet(
    steps: Sequence[Step],
    is_lost: Callable[[ParquetObject], bool],
    binary_columns: tuple[str, ...],
    *,
    makes: bool,
    keeps: bool,
) -> list[Step]:
    """Return steps by which each chunk has a Parquet object, or none is named.

    Args:
        steps: that were planned for the CSV.
        is_lost: tells whether an object is gone, or another one.
        binary_columns: the columns whose texts are to be bytes, sorted. An object with others is
            made again, so that the files of a table have the same types.
        makes: whether there are to be objects now.
        keeps: whether those that are there stay. Where the configuration wants none any more, no
            manifest names them, and prune deletes them as what is left over.
    """
    return [
        _with_parquet(step, is_lost, binary_columns, makes=makes, keeps=keeps) for step in steps
    ]


def _with_parquet(
    step: Step,
    is_lost: Callable[[ParquetObject], bool],
    binary_columns: tuple[str, ...],
    *,
    makes: bool,
    keeps: bool,
) -> Step:
    if step.last is None:
        return step
    last = step.last
    if last.parquet and (not keeps or is_lost(last.parquet)):
        last = _without(last)
    is_there = last.parquet is not None and last.parquet.binary_columns == binary_columns
    lacks = makes and step.reason == "unchanged" and not is_there
    return replace(step, last=last, reason="lacks Parquet" if lacks else step.reason)


def _without(export: Export) -> Export:
    return msgspec.structs.replace(export, parquet=None)


def merged_since(steps: Sequence[Step], reader: Reader) -> list[Step]:
    """Return steps in which chunks that the server has merged since their CSV get both objects.

    The plan rightly takes a merge for no change, but both objects must have the same rows.

    Args:
        steps: with those that make Parquet objects.
        reader: of the table.
    """
    if not reader.merges:
        return list(steps)

    def of_today(step: Step) -> Step:
        if step.reason != "lacks Parquet" or not step.last:
            return step
        rows = reader.count(step.chunk.condition)
        if rows == step.last.rows:
            return step
        fingerprint = msgspec.structs.replace(step.fingerprint, rows=rows)
        return replace(step, reason="changed", fingerprint=fingerprint)

    return [of_today(step) for step in steps]
