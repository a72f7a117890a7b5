"""Examining whether a run can succeed: one line for each thing, with what to do about it.

Everything is tried for real. In the bucket only one object is written, `<prefix>/doctor`, and it is
deleted again.
"""

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from backup_config import Config
from bucket import Bucket
from chunks import Reader, check_chunks
from clickhouse_http import ClickHouseHTTP
from inventory import read_table, table_names
from manifest import Layout
from ooni_common.database import Database
from ooni_common.errors import ConfigError, DataRefused, ScriptError
from ooni_common.run import make_writable

MOST_SKEW = 60  # seconds; S3 refuses requests whose clock is 15 minutes wrong
NAME_WIDTH = 15


@dataclass(frozen=True)
class Finding:
    """What was found out about one thing.

    Attributes:
        name: of the thing.
        text: how it is, or what is wrong and what to do.
        error: None, if a run can do with it.
    """

    name: str
    text: str
    error: ScriptError | None = None

    def __str__(self) -> str:
        state = "FAILED" if self.error else "ok"
        return f"{state:<6}  {self.name:<{NAME_WIDTH}}  {self.text}"


@dataclass(frozen=True)
class Doctor:
    """Examines what a run works with."""

    config: Config
    database: Database
    http: ClickHouseHTTP
    bucket: Bucket
    clock: Callable[[], float] = time.time

    def examine(self) -> Iterator[Finding]:
        """Yield a finding for each thing, whatever is wrong with those before."""
        layout = Layout(self.config.public_prefix)
        examinations: dict[str, Callable[[], str]] = {
            "state directory": lambda: self._state_dir(self.config.state_dir),
            "database": self._database,
            "database, HTTP": self._http,
            "database, clock": self._database_clock,
            "tables": self._tables,
            "bucket, list": lambda: self._list(layout),
            "bucket, write": lambda: self._write(layout),
            "bucket, uploads": lambda: self._uploads(layout),
            "bucket, clock": self._bucket_clock,
        }
        for name, examination in examinations.items():
            try:
                yield Finding(name, examination())
            except ScriptError as error:
                yield Finding(name, str(error), error)

    @staticmethod
    def _state_dir(path: Path) -> str:
        make_writable("state_dir", path)
        return f"{path} can be written"

    def _database(self) -> str:
        ((version, name),) = self.database.query("SELECT version(), currentDatabase()")
        return f"ClickHouse {version}, database {name}"

    def _http(self) -> str:
        with self.http.rows("SELECT version()") as rows:
            version = b"".join(rows).decode().split('"')[3]
        return f"ClickHouse {version} at {self.http.address}"

    def _database_clock(self) -> str:
        ((now,),) = self.database.query("SELECT toFloat64(now64(3))")
        return skew(now, self.clock(), "the database's clock")

    def _tables(self) -> str:
        """Compare the policy with the tables: names, chunks, and what nobody has listed."""
        names = table_names(self.database)
        unlisted = [name for name in names if self.config.policy_of(name) is None]
        if unlisted:
            listed = ", ".join(map(repr, unlisted))
            raise DataRefused(f"not listed: {listed}; say public, private, both or none of each")
        counts: dict[str, int] = {}
        for name in names:
            policy = self.config.policy_of(name)
            if policy is None:
                continue
            counts[policy.policy] = counts.get(policy.policy, 0) + 1
            if policy.exported:
                check_chunks(Reader(self.database, read_table(self.database, name), policy))
        missing = [name for name in self.config.tables if is_name(name) and name not in names]
        if missing:
            raise ConfigError(f"listed, but not there: {', '.join(map(repr, missing))}")
        return ", ".join(f"{count} {policy}" for policy, count in sorted(counts.items())) or "none"

    def _list(self, layout: Layout) -> str:
        objects = list(self.bucket.listing(layout.exports))
        return f"{self.bucket.url} has {len(objects)} exports"

    def _write(self, layout: Layout) -> str:
        """Write, read and delete an object."""
        key, content = f"{layout.prefix}/doctor", uuid.uuid4().hex.encode()
        self.bucket.put(key, content, "text/plain")
        if self.bucket.get(key) != content:
            raise DataRefused(f"{self.bucket.url}/{key}: it is not what was written")
        try:
            self.bucket.delete(key)
        except ConfigError:
            return f"{key} was written and read; it may not be deleted, which only prune needs"
        return f"{key} was written, read and deleted"

    def _uploads(self, layout: Layout) -> str:
        """Begin an upload of parts, and end it."""
        with (
            contextlib.suppress(Abandoned),
            self.bucket.upload(f"{layout.prefix}/doctor", "text/plain", "") as upload,
        ):
            upload.begin()
            raise Abandoned
        left = self.bucket.leftovers(layout.exports)
        note = f"; {len(left)} of interrupted runs are left, the next run ends them" if left else ""
        return f"an upload was begun and ended{note}"

    def _bucket_clock(self) -> str:
        return skew(self.bucket.time(), self.clock(), "the store's clock")


class Abandoned(Exception):
    """The upload was only an attempt."""


def skew(theirs: float, ours: float, what: str) -> str:
    """Say how much two clocks differ, given in Unix seconds.

    Raises:
        ConfigError: too much.
    """
    seconds = round(ours - theirs)
    if abs(seconds) > MOST_SKEW:
        direction = "ahead of" if seconds > 0 else "behind"
        raise ConfigError(f"this machine is {abs(seconds)} s {direction} {what}; check its NTP")
    return f"{abs(seconds)} s from this machine's"


def is_name(pattern: str) -> bool:
    """Tell whether a key of the table policy is a name, and not a pattern."""
    return not any(character in pattern for character in "*?[")
