"""Hourly counts of many series, as read from a file for detector/evaluation/."""

import csv
import gzip
import io
import itertools
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from ooni_common.errors import DataRefused
from sequential import Indices
from series import hour_of, time_of

COLUMNS = ("series", "t", "cnt", "anomaly_cnt")
FAILURES = "failure_cnt"  # may be missing
ROWS = 10_000  # that are parsed at once
WEEK = 7 * 24  # hours

Rows = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Observations:
    """Hourly counts of many series, sorted by hour.

    Attributes:
        series: their names.
        hour: of each count, in hours since 1970.
        index: its series.
        measurements: how many, from 1.
        anomalies: how many of them.
    """

    series: Sequence[str]
    hour: Indices
    index: Indices
    measurements: Indices
    anomalies: Indices

    @property
    def weeks(self) -> float:
        """For how long each of the series was observed: from the first hour of all to the last."""
        return (int(self.hour[-1] - self.hour[0]) + 1) / WEEK if len(self.hour) else 0.0

    def hours(self) -> Iterator[tuple[int, slice]]:
        """Yield each hour that has counts, and where they are."""
        hours, starts = np.unique(self.hour, return_index=True)
        ends = [*starts[1:].tolist(), len(self.hour)]
        for hour, start, end in zip(hours.tolist(), starts.tolist(), ends, strict=True):
            yield hour, slice(start, end)


def read_observations(path: Path) -> Observations:
    """Read a CSV file, compressed by gzip or not, with the columns COLUMNS and any others.

    Measurements that failed (the column failure_cnt, if there is one) tell nothing of a blocking,
    and are not counted. An hour in which no others are left is as if it were not there.

    Raises:
        DataRefused: it is no such file; file, line, reason, and what is expected.
    """
    texts = _Texts()
    try:
        with _opened(path) as file:
            parts = list(_parts(path, file, texts))
    except (OSError, EOFError, zlib.error) as error:
        raise DataRefused(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    table = np.concatenate([np.empty((5, 0), dtype=np.int64), *parts], axis=1)
    hour, index, measurements, anomalies, line = table
    order = np.argsort(hour * max(1, len(texts.names)) + index, kind="stable")
    hour, index = hour[order], index[order]
    again = np.flatnonzero((hour[1:] == hour[:-1]) & (index[1:] == index[:-1])) + 1
    if len(again):
        place = again[0]
        name, time = list(texts.names)[index[place]], time_of(int(hour[place]))
        reason = f"a second row of {name!r} for {time:%Y-%m-%dT%H:%M:%S}: expected one for an hour"
        raise DataRefused(f"{path}:{line[order[place]]}: {reason}")
    some = measurements[order] > 0
    kept = order[some]
    return Observations(
        list(texts.names), hour[some], index[some], measurements[kept], anomalies[kept]
    )


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Open a file that is compressed, whatever it is called, or not."""
    with path.open("rb") as file:
        compressed = file.peek(2)[:2] == b"\x1f\x8b"
        data = gzip.GzipFile(fileobj=file) if compressed else file
        # A byte that is no UTF-8 passes, to be reported with the line that it is in.
        with io.TextIOWrapper(data, "utf-8-sig", errors="surrogateescape", newline="") as text:
            yield text


def _parts(path: Path, file: TextIO, texts: "_Texts") -> Iterator[NDArray[np.int64]]:
    """Yield the rows of a file, some at once: what _parsed returns, and their lines."""
    reader = csv.reader(file, strict=True)
    try:
        header = next(reader, [])
        if not set(COLUMNS) <= set(header):
            raise DataRefused(f"{path}:1: expected the columns {','.join(COLUMNS)}")
        wanted = [*COLUMNS, FAILURES] if FAILURES in header else COLUMNS
        places = [header.index(name) for name in wanted]
        last = reader.line_num
        while rows := list(itertools.islice(reader, ROWS)):
            lines = np.arange(last + 1, last + len(rows) + 1)
            if reader.line_num - last != len(rows):  # there are line feeds in quotes
                lines = last + np.cumsum([1 + "".join(row).count("\n") for row in rows])
            last = reader.line_num
            try:
                parsed = _parsed(rows, places, texts)
            except (ValueError, IndexError, OverflowError):
                for line, row in zip(lines.tolist(), rows, strict=True):
                    _check(f"{path}:{line}", row, places, texts)
                raise
            yield np.concatenate([parsed, lines[np.newaxis]])
    except csv.Error as error:
        raise DataRefused(f"{path}:{reader.line_num}: {error}: expected CSV") from None


def _parsed(rows: Rows, places: Sequence[int], texts: "_Texts") -> NDArray[np.int64]:
    """Return hour, series, measurements and anomalies of rows, each as a row of an array.

    By column this is several times faster than by row; which row is wrong, only _check tells.
    """
    columns = list(zip(*rows, strict=False))

    def parsed(place: int, meanings: dict[str, int]) -> NDArray[np.int64]:
        return np.fromiter(map(meanings.__getitem__, columns[place]), np.int64, len(rows))

    index, hour = parsed(places[0], texts.names), parsed(places[1], texts.hours)
    measurements, anomalies = (parsed(place, texts.counts) for place in places[2:4])
    if (anomalies > measurements).any():
        raise ValueError("more anomalies than measurements: expected anomaly_cnt from 0 to cnt")
    if len(places) > len(COLUMNS):
        failures = parsed(places[4], texts.counts)
        if (failures > measurements).any():
            raise ValueError("more failures than measurements: expected failure_cnt from 0 to cnt")
        measurements = np.maximum(measurements - failures, anomalies)
    return np.stack([hour, index, measurements, anomalies])


def _check(where: str, row: Sequence[str], places: Sequence[int], texts: "_Texts") -> None:
    """Refuse a row that is wrong."""
    if len(row) <= max(places):
        raise DataRefused(f"{where}: {len(row)} columns: expected {max(places) + 1} or more")
    try:
        _parsed([row], places, texts)
    except (ValueError, OverflowError) as error:
        raise DataRefused(f"{where}: {error}") from None


class _Names(dict[str, int]):
    """Numbers the names that it is asked for, from zero."""

    def __missing__(self, name: str) -> int:
        if not name.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in name):
            raise ValueError(f"{name!r}: expected UTF-8")
        return self.setdefault(name, len(self))


class _Hours(dict[str, int]):
    """The numbers of full hours, since 1970, by what the file calls them."""

    def __missing__(self, text: str) -> int:
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            time = time_of(-1)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        hour = hour_of(time)
        if time != time_of(hour) or hour < 0:
            raise ValueError(f"t is {text!r}: expected a full hour, as 2025-01-31T23:00:00")
        return self.setdefault(text, hour)


class _Numbers(dict[str, int]):
    """Whole numbers, by what the file calls them."""

    def __missing__(self, text: str) -> int:
        if not text.isascii() or not text.isdecimal() or len(text) > 15:
            raise ValueError(f"{text!r} is no count: expected a whole number")
        return self.setdefault(text, int(text))


@dataclass(frozen=True)
class _Texts:
    """What the texts of a file mean; they repeat, and each is parsed once."""

    names: _Names = field(default_factory=_Names)
    hours: _Hours = field(default_factory=_Hours)
    counts: _Numbers = field(default_factory=_Numbers)
