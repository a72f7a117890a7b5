"""What `detector evaluate` reads: hourly counts of series, and of what nobody follows."""

import csv
import gzip
import io
import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from hours import Indices
from ooni_common.errors import DataRefused
from series import hour_of, time_of

COLUMNS = ("series", "t", "cnt", "anomaly_cnt")
DETAILS = ("world", "service", "probe_cc", "probe_asn", "input")  # of a series; may be missing
CONTEXT = ("control", "source", "runs", "bad_runs")  # of a row; may be missing
FAILURES = "failure_cnt"  # likewise
OTHERS = ("world", "probe_cc", "probe_asn", "t", "cnt", "anomaly_cnt")
SOURCE = "source"  # of a row of others; may be missing
MOST_CONTROL = 4
ROWS = 10_000  # that are parsed at once

Rows = Sequence[Sequence[str]]
Counts = Mapping[str, NDArray[np.int64]]


class Details(NamedTuple):
    """What a file says of a series beside its name; "" where it says nothing."""

    world: str = ""
    service: str = ""
    probe_cc: str = ""
    probe_asn: str = ""
    input: str = ""


@dataclass(frozen=True)
class Observations:
    """Hourly counts of many series, sorted by hour.

    Attributes:
        series: their names.
        hour: of each count, in hours since 1970.
        index: its series.
        measurements: how many, from 1.
        anomalies: how many of them.
        details: of each series.
        control: the bucket of the runs that a row counts, 0 to 4; a series has a row for each, and
            each source, in an hour. None where the file doesn't tell, as below.
        source: the kind of probe, from 1; 0 where it is not known.
        runs: how many of them count.
        bad_runs: how many of these had anomalies.
    """

    series: Sequence[str]
    hour: Indices
    index: Indices
    measurements: Indices
    anomalies: Indices
    details: Sequence[Details]
    control: Indices | None = None
    source: Indices | None = None
    runs: Indices | None = None
    bad_runs: Indices | None = None

    def hours(self) -> Iterator[tuple[int, slice]]:
        """Yield each hour that has counts, and where they are."""
        hours, starts = np.unique(self.hour, return_index=True)
        ends = [*starts[1:].tolist(), len(self.hour)]
        for hour, start, end in zip(hours.tolist(), starts.tolist(), ends, strict=True):
            yield hour, slice(start, end)

    def summed(self) -> "Observations":
        """Return one count for a series and an hour, whatever the buckets of the runs."""
        if not len(self.hour):
            return self
        begins = np.flatnonzero((np.diff(self.hour) != 0) | (np.diff(self.index) != 0)) + 1
        first = np.concatenate([[0], begins])
        return Observations(
            self.series,
            self.hour[first],
            self.index[first],
            np.add.reduceat(self.measurements, first),
            np.add.reduceat(self.anomalies, first),
            self.details,
        )


@dataclass(frozen=True)
class Others:
    """Hourly counts of the inputs that nobody follows, by network.

    Attributes:
        networks: of which world and country, and its ASN.
        hour: of each count, in hours since 1970.
        index: its network.
        measurements: how many, from 1.
        anomalies: how many of them.
        source: the kind of probe; a network has a row for each in an hour. None where the file
            doesn't tell.
    """

    networks: Sequence[tuple[str, ...]]
    hour: Indices
    index: Indices
    measurements: Indices
    anomalies: Indices
    source: Indices | None = None

    def hours(self, hours: Sequence[int]) -> Iterator[slice]:
        """Yield where the counts of each hour are; hours ascend."""
        starts = np.searchsorted(self.hour, hours)
        ends = np.searchsorted(self.hour, hours, side="right")
        yield from map(slice, starts.tolist(), ends.tolist())


def read_observations(path: Path) -> Observations:
    """Read a CSV file, compressed by gzip or not, with the columns COLUMNS and any others.

    Measurements that failed (the column failure_cnt, if there is one) tell nothing of a blocking,
    and are not counted. An hour in which no others are left is as if it were not there.

    Raises:
        DataRefused: it isn't such a file; file, line, reason, and what is expected.
    """
    header = _header(path, COLUMNS)
    details = [name for name in DETAILS if name in header]
    context = [name for name in (*CONTEXT, FAILURES) if name in header]
    names, table = _read(
        path, _Layout(("series", *details), (*COLUMNS[2:], *context)), ("control", SOURCE)
    )
    by_series: dict[str, Details] = {}
    for name, *values in names:
        new = Details(**dict(zip(details, values, strict=True)))
        if by_series.setdefault(name, new) != new:
            raise DataRefused(
                f"{path}: {name!r} has several values of {', '.join(details)}: expected one of each"
            )
    return Observations(
        list(by_series),
        table["hour"],
        table["index"],
        table["cnt"],
        table["anomaly_cnt"],
        list(by_series.values()),
        *(table.get(name) for name in CONTEXT),
    )


def read_others(path: Path) -> Others:
    """Read a CSV file, compressed by gzip or not, with the columns OTHERS.

    Raises:
        DataRefused: it isn't such a file; file, line, reason, and what is expected.
    """
    source = [SOURCE] if SOURCE in _header(path, OTHERS) else []
    networks, table = _read(path, _Layout(OTHERS[:3], (*OTHERS[4:], *source)), (SOURCE,))
    hour, index, counts, anomalies = (table[n] for n in ("hour", "index", "cnt", "anomaly_cnt"))
    return Others(list(networks), hour, index, counts, anomalies, table.get(SOURCE))


class _Layout(NamedTuple):
    """The columns that are read beside t: those whose texts name a thing, and the counts."""

    names: Sequence[str]
    counts: Sequence[str]


def _header(path: Path, expected: Sequence[str]) -> list[str]:
    with _refusing(path), _opened(path) as file:
        try:
            header = next(csv.reader(file, strict=True), [])
        except csv.Error as error:
            raise DataRefused(f"{path}:1: {error}: expected CSV") from None
    if not set(expected) <= set(header):
        raise DataRefused(f"{path}:1: expected the columns {','.join(expected)}")
    return header


def _read(
    path: Path, layout: _Layout, parts: Sequence[str] = ()
) -> tuple[Sequence[tuple[str, ...]], dict[str, NDArray[np.int64]]]:
    """Read a file; return what its counts are of, and these by column, sorted by hour.

    Args:
        path: of the file.
        layout: what is read.
        parts: the columns by which a thing can have several rows of an hour, if they are there.
    """
    texts = _Texts()
    with _refusing(path), _opened(path) as file:
        read = list(_parts(path, file, layout, texts))
    columns = ("hour", "index", *layout.counts, "line")
    table = np.concatenate([np.empty((len(columns), 0), dtype=np.int64), *read], axis=1)
    by_name = dict(zip(columns, table, strict=True))
    keys = [by_name[name] for name in (*parts, "index", "hour") if name in by_name]
    order = np.lexsort(keys)
    same = np.logical_and.reduce([np.diff(key[order]) == 0 for key in keys])
    if same.any():
        place = order[np.flatnonzero(same)[0] + 1]
        name = list(texts.names)[by_name["index"][place]]
        time = time_of(int(by_name["hour"][place]))
        reason = (
            f"a second row of {name[0] if len(layout.names) != 3 else ' '.join(name)!r}"
            f" for {time:%Y-%m-%dT%H:%M:%S}: expected one for an hour"
        )
        raise DataRefused(f"{path}:{by_name['line'][place]}: {reason}")
    kept = order[by_name["cnt"][order] > 0]
    del by_name["line"]
    return list(texts.names), {name: values[kept] for name, values in by_name.items()}


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Refuse a file that can't be read."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise DataRefused(f"{path}: {getattr(error, 'strerror', None) or error}") from None


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Open a file that is compressed, whatever it is called, or not."""
    with path.open("rb") as file:
        compressed = file.peek(2)[:2] == b"\x1f\x8b"
        data = gzip.GzipFile(fileobj=file) if compressed else file
        # A byte that isn't UTF-8 passes, to be reported with its line.
        with io.TextIOWrapper(data, "utf-8-sig", errors="surrogateescape", newline="") as text:
            yield text


def _parts(
    path: Path, file: TextIO, layout: _Layout, texts: "_Texts"
) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of a file, some at once: what _parsed returns, and their lines."""
    reader = csv.reader(file, strict=True)
    try:
        header = next(reader, [])
        columns = _Columns(
            [header.index(name) for name in layout.names],
            header.index("t"),
            {name: header.index(name) for name in layout.counts},
        )
        last = reader.line_num
        while rows := list(itertools.islice(reader, ROWS)):
            lines = np.arange(last + 1, last + len(rows) + 1)
            if reader.line_num - last != len(rows):  # there are line feeds in quotes
                lines = last + np.cumsum([1 + "".join(row).count("\n") for row in rows])
            last = reader.line_num
            try:
                parsed = _parsed(rows, columns, texts)
            except (ValueError, IndexError, OverflowError):
                for line, row in zip(lines.tolist(), rows, strict=True):
                    _check(f"{path}:{line}", row, columns, texts)
                raise
            yield np.concatenate([parsed, lines[np.newaxis]])
    except csv.Error as error:
        raise DataRefused(f"{path}:{reader.line_num}: {error}: expected CSV") from None


class _Columns(NamedTuple):
    """The places of columns in a row."""

    names: Sequence[int]
    time: int
    counts: Mapping[str, int]


def _parsed(rows: Rows, places: _Columns, texts: "_Texts") -> NDArray[np.int64]:
    """Return hour, index and counts of rows, each as a row of an array.

    By column this is several times faster than by row; which row is wrong, only _check tells.
    """
    columns = list(zip(*rows, strict=False))
    count = len(rows)
    names = zip(*(columns[place] for place in places.names), strict=True)
    index = np.fromiter(map(texts.names.__getitem__, names), np.int64, count)
    hour = np.fromiter(map(texts.hours.__getitem__, columns[places.time]), np.int64, count)
    counts = {
        name: np.fromiter(map(texts.counts.__getitem__, columns[place]), np.int64, count)
        for name, place in places.counts.items()
    }
    _check_counts(counts)
    if FAILURES in counts:
        counts["cnt"] = np.maximum(counts["cnt"] - counts[FAILURES], counts["anomaly_cnt"])
    return np.stack([hour, index, *counts.values()])


def _check_counts(counts: Counts) -> None:
    """Refuse counts that can't be true together."""
    limits = (
        ("anomaly_cnt", "cnt", "more anomalies than measurements"),
        (FAILURES, "cnt", "more failures than measurements"),
        ("runs", "cnt", "more runs than measurements"),
        ("bad_runs", "runs", "more bad runs than runs"),
        ("bad_runs", "anomaly_cnt", "more bad runs than anomalies"),
    )
    for name, limit, reason in limits:
        if name in counts and limit in counts and (counts[name] > counts[limit]).any():
            raise ValueError(f"{reason}: expected {name} from 0 to {limit}")
    if "control" in counts and (counts["control"] > MOST_CONTROL).any():
        raise ValueError(f"expected control from 0 to {MOST_CONTROL}")


def _check(where: str, row: Sequence[str], places: _Columns, texts: "_Texts") -> None:
    """Refuse a row that is wrong."""
    expected = 1 + max(*places.names, places.time, *places.counts.values())
    if len(row) < expected:
        raise DataRefused(f"{where}: {len(row)} columns: expected {expected} or more")
    try:
        _parsed([row], places, texts)
    except (ValueError, OverflowError) as error:
        raise DataRefused(f"{where}: {error}") from None


class _Names(dict[tuple[str, ...], int]):
    """Numbers the names that it is asked for, from zero."""

    def __missing__(self, names: tuple[str, ...]) -> int:
        for name in names:
            if not name.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in name):
                raise ValueError(f"{name!r}: expected UTF-8")
        return self.setdefault(names, len(self))


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
            raise ValueError(f"{text!r} is not a count: expected a whole number")
        return self.setdefault(text, int(text))


@dataclass(frozen=True)
class _Texts:
    """What the texts of a file mean; they repeat, and each is parsed once."""

    names: _Names = field(default_factory=_Names)
    hours: _Hours = field(default_factory=_Hours)
    counts: _Numbers = field(default_factory=_Numbers)
