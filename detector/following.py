"""Following series: their states, their events and the counts behind them, hour by hour.

A checkpoint is all of that at an hour, in a file, so that no run begins at the beginning. The hour
lies some days back. Each run follows the series from there on anew, so that measurements that came
late count, and so that it does not matter how often it has run.
"""

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from counts import HourlyCounts
from hours import Arrays, Floats, Indices, States
from ooni_common.files import write_atomically
from ooni_common.state import ignored, read_local
from sequential import ALONE, Detector
from series import BLOCKED, STATE_NAMES, UNKNOWN, Event, Series, SeriesStatus, Target, time_of

HALF_LIFE = 168  # hours after which a measurement counts half in the counts behind a state
LEAST_ROOM = 1024  # series that room is made for, at least
CHECKPOINT_FORMAT = 1  # of the file, and of what its arrays mean
HEADER_ARRAY = "header"  # the name of an array that is none: JSON
LARGEST_CHECKPOINT = 256 * 1024 * 1024  # bytes; 100,000 series have 20 MB
LATEST_HOUR = 2**32 // 3600  # what the database can hold


class Header(msgspec.Struct, frozen=True):
    """What a checkpoint says beside its arrays.

    Attributes:
        kind: what it was made by; with another kind, its arrays mean something else.
        hour: the first one, in hours since 1970, that the arrays do not know of.
        until: the end of the last hour that the run which wrote it had looked at.
        series: in the order of the arrays.
        sha256: of all that; "" in those of 2.0.1.
    """

    kind: str
    hour: int
    until: int
    series: list[Series]
    sha256: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """Series, and what is known of them before an hour; see Header."""

    hour: int
    until: int
    series: Sequence[Series]
    arrays: Arrays


class Follower:
    """Follows series that turn up as it goes.

    Attributes:
        series: those that it knows, in the order in which they turned up.
    """

    def __init__(self) -> None:
        self.series: list[Series] = []
        self._numbers: dict[Series, int] = {}
        self._make_room(LEAST_ROOM)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> "Follower":
        """Return a follower that knows what the one knew that made a checkpoint.

        Raises:
            KeyError, ValueError: its arrays are of another kind.
        """
        follower = cls()
        numbers = follower._numbers_of(checkpoint.series)
        if len(numbers) != len(set(numbers.tolist())):
            raise ValueError("a series twice")
        follower._put(checkpoint.arrays)
        return follower

    def follow(self, counts: HourlyCounts) -> list[Event]:
        """Take counts of hours after all that were taken; return what has changed."""
        numbers = self._numbers_of(counts.series)
        # What is known of the series is read in its order, which is much quicker.
        order = np.argsort(numbers)
        numbers = numbers[order]
        events: list[Event] = []
        for row in range(len(counts.measurements)):
            measurements = counts.measurements[row][order]
            some = np.flatnonzero(measurements)
            anomalies, confirmed = (
                array[row][order][some] for array in (counts.anomalies, counts.confirmed)
            )
            hour = counts.start + row
            events += self._follow_hour(
                hour, numbers[some], measurements[some], anomalies, confirmed
            )
        return events

    def checkpoint(self, hour: int, until: int) -> Checkpoint:
        """Return what is known of the series before an hour, sorted by them; copies.

        Args:
            hour: the first one that has not been taken.
            until: the end of the last one that this run looks at.
        """
        order = sorted(range(len(self.series)), key=self.series.__getitem__)
        arrays = {name: array[order] for name, array in self._arrays().items()}
        return Checkpoint(hour, until, [self.series[number] for number in order], arrays)

    def statuses(
        self, services: Mapping[Target, str], until: int, stale: timedelta
    ) -> list[SeriesStatus]:
        """Return the state of each series of a service, sorted.

        Args:
            services: test and input → the name of the service.
            until: the end of the last hour that was looked at.
            stale: a series without measurements for so long is UNKNOWN.
        """
        rows = zip(
            self.series,
            [services.get(series.target) for series in self.series],
            *self._figures(until, stale),
            strict=True,
        )
        # The first value of a status is its series, and no other one has it.
        return sorted(SeriesStatus._make(row) for row in rows if row[1] is not None)

    def _follow_hour(
        self,
        hour: int,
        index: Indices,
        measurements: Indices,
        anomalies: Indices,
        confirmed: Indices,
    ) -> list[Event]:
        self._fade(index, hour)
        self._measurements[index] += measurements
        self._anomalies[index] += anomalies
        self._confirmed[index] += confirmed
        changed, old = self._detector.advance(hour, index, measurements, anomalies)
        self._old[changed] = old
        begun = self._detector.since[changed].tolist()
        return [
            Event(
                self.series[number],
                STATE_NAMES[self._detector.status[number]],
                time_of(since),
                time_of(hour + 1),
            )
            for number, state, since in zip(changed.tolist(), old.tolist(), begun, strict=True)
            if state != UNKNOWN
        ]

    def _fade(self, index: Indices, hour: int) -> None:
        last = self._detector.last[index]
        kept = np.exp2(np.where(last < 0, 0, last - hour) / HALF_LIFE)
        for array in (self._measurements, self._anomalies, self._confirmed):
            array[index] *= kept

    def _figures(self, until: int, stale: timedelta) -> list[Sequence[Any]]:
        """Return what statuses have after series and service, column by column."""
        used = slice(len(self.series))
        detector = self._detector
        last, since, old = detector.last[used], detector.since[used], self._old[used]
        status = detector.status[used]
        silent = until - last - 1 > stale / timedelta(hours=1)
        total = self._measurements[used]
        anomalies = self._anomalies[used] / total
        confirmed = np.minimum(self._confirmed[used] / total, anomalies)
        faded = total * 0.5 ** ((until - 1 - last) / HALF_LIFE)
        stability = np.where(
            status == UNKNOWN, 0.0, np.where(status == BLOCKED, anomalies, 1 - anomalies)
        )
        times = {hour: time_of(hour) for hour in {*since.tolist(), *(last + 1).tolist()}}
        return [
            [STATE_NAMES[state] for state in np.where(silent, UNKNOWN, status).tolist()],
            [STATE_NAMES[state] for state in np.where(silent, status, old).tolist()],
            [times[hour] for hour in since.tolist()],
            [times[hour] for hour in (last + 1).tolist()],
            _rounded(faded),
            _rounded(100 * confirmed),
            _rounded(100 * (anomalies - confirmed)),
            _rounded(100 * (1 - anomalies)),
            _rounded(detector.progress()[used]),
            _rounded(stability),
        ]

    def _numbers_of(self, series: Sequence[Series]) -> Indices:
        """Return the numbers of series, which get one where they have none."""
        numbers = np.array([self._numbers.get(key, -1) for key in series], dtype=np.int64)
        for place in np.flatnonzero(numbers < 0).tolist():
            numbers[place] = self._numbers.setdefault(series[place], len(self.series))
            if numbers[place] == len(self.series):
                self.series.append(series[place])
        if len(self.series) > len(self._old):
            arrays = self._arrays()
            self._make_room(2 * len(self.series))
            self._put(arrays)
        return numbers

    def _make_room(self, series: int) -> None:
        """Know nothing of so many series."""
        self._detector = Detector(series, ALONE)
        self._old: States = np.zeros(series, dtype=np.int8)
        self._measurements: Floats = np.zeros(series)
        self._anomalies: Floats = np.zeros(series)
        self._confirmed: Floats = np.zeros(series)

    def _own_arrays(self) -> Arrays:
        return {
            "old": self._old,
            "measurements": self._measurements,
            "anomalies": self._anomalies,
            "confirmed": self._confirmed,
        }

    def _arrays(self) -> Arrays:
        detector = {f"test_{name}": array for name, array in self._detector.arrays().items()}
        return self._own_arrays() | detector

    def _put(self, arrays: Arrays) -> None:
        for name, array in self._own_arrays().items():
            if arrays[name].dtype != array.dtype:
                raise ValueError(f"{name}: {arrays[name].dtype}")
            array[: len(arrays[name])] = arrays[name]
        self._detector.put({name.removeprefix("test_"): array for name, array in arrays.items()})


def _rounded(values: Floats) -> list[float]:
    rounded: list[float] = np.round(values, 2).tolist()
    return rounded


def read_checkpoint(path: Path) -> Checkpoint | None:
    """Read the file; None where there is none, or one that is damaged or of another version."""
    content = read_local(path, LARGEST_CHECKPOINT)
    if content is None:
        return None
    try:
        header, arrays = _decoded(content)
    except Exception as error:  # noqa: BLE001 (of damaged bytes, its libraries raise anything)
        ignored(path, f"{type(error).__name__}: {error}")
        return None
    if header.kind != _kind():
        ignored(path, "of another version of the test")
        return None
    checkpoint = Checkpoint(header.hour, header.until, header.series, arrays)
    if header.sha256 not in ("", _sha256(checkpoint)):
        ignored(path, "it is not what was written")
        return None
    try:
        _check(checkpoint)
        Follower.from_checkpoint(checkpoint)
    except (KeyError, ValueError) as error:
        ignored(path, error)
        return None
    return checkpoint


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the file atomically."""
    header = Header(
        _kind(),
        checkpoint.hour,
        checkpoint.until,
        list(checkpoint.series),
        _sha256(checkpoint),
    )
    encoded = np.frombuffer(msgspec.json.encode(header), dtype=np.uint8)
    content = io.BytesIO()
    arrays: Arrays = {HEADER_ARRAY: encoded, **checkpoint.arrays}
    np.savez(content, allow_pickle=False, **arrays)
    write_atomically(path, content.getvalue())


def _decoded(content: bytes) -> tuple[Header, dict[str, Any]]:
    """Return header and arrays of a file.

    Raises:
        Exception: it is no such file.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > LARGEST_CHECKPOINT:
            raise ValueError(f"its arrays have more than {LARGEST_CHECKPOINT:,} bytes")
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} is damaged")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    header = msgspec.json.decode(arrays.pop(HEADER_ARRAY).tobytes(), type=Header)
    return header, arrays


def _check(checkpoint: Checkpoint) -> None:
    """Raise ValueError for what no run writes; one of 2.0.1 has no digest that tells."""
    if not 0 < checkpoint.hour <= checkpoint.until < LATEST_HOUR:
        raise ValueError(f"hours {checkpoint.hour} to {checkpoint.until}")
    for name, array in checkpoint.arrays.items():
        if array.dtype.kind not in "if" or array.shape != (len(checkpoint.series),):
            raise ValueError(f"{name}: {array.dtype} {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: not all are numbers")
    for name in ("old", "test_status"):
        states = checkpoint.arrays[name]
        if states.size and not 0 <= states.min() <= states.max() < len(STATE_NAMES):
            raise ValueError(f"{name}: no state has such a number")


def _sha256(checkpoint: Checkpoint) -> str:
    """Return the digest of all that a checkpoint says."""
    parts = [msgspec.json.encode((checkpoint.hour, checkpoint.until, checkpoint.series))]
    for name, array in sorted(checkpoint.arrays.items()):
        parts += [f"{name} {array.dtype.str} {array.shape}".encode(), array.tobytes()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _kind() -> str:
    return f"{CHECKPOINT_FORMAT} {ALONE}"
