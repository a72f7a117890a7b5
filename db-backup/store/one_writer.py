"""One writer of a prefix at a time, also where hosts share it by mistake.

The lock in the state directory keeps the runs of one machine apart. Between machines, a small
object says who is at work, or was last. So the uploads that a run finds unfinished are its own, or
of somebody who is not at work any more, and it can end them.

    clickhouse_export/writer.json
    {"writer": "3f…", "host": "backend", "at_work": false, "digest": "9c…"}

It has no time: by the store's clock it is as old as the object. It is written again while a run is
at work, so that a run that was killed is not waited for very long. Stores that know conditions of
writing (If-None-Match, If-Match) decide between two that begin at once; with others, the one that
reads its own words back goes on, and the other one stops when it next gives a sign of life.
"""

import contextlib
import hashlib
import logging
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from documents import JSON
from ooni_common.doctor import Note
from ooni_common.errors import ScriptError, TryAgainLater
from ooni_common.run import Job
from ooni_common.state import read_state, write_state
from store.bucket import Bucket, Layout
from store.client import content_md5
from store.errors import is_refused

log = logging.getLogger("ooni.db_backup")

RENEWAL = 5 * 60  # seconds between two signs of life
SILENCE = 30 * 60  # seconds after which a writer is not at work any more
LARGEST = 10_000  # bytes
PATIENCE = 5  # seconds that a stop waits for the last sign
ADVICE = "two hosts can't share it: give each a prefix of its own, or stop the timer of one"
CONDITION_FAILED = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Who writes.

    Attributes:
        writer: the name of a state directory, made by chance.
        host: of it, for people.
        at_work: whether a run is.
        digest: of the others, so that a damaged name is nobody's, not another host's.
    """

    writer: str
    host: str
    at_work: bool
    digest: str = ""

    def with_digest(self) -> "Mark":
        """Return it with its digest."""
        said = f"{self.writer} {self.host} {self.at_work}"
        return msgspec.structs.replace(self, digest=hashlib.sha256(said.encode()).hexdigest())


class WriterState(msgspec.Struct):
    """What a state directory is called in buckets."""

    writer: str = ""


@dataclass(frozen=True)
class LastWriter:
    """What a bucket says of its last writer.

    Attributes:
        mark: who that is; None: nobody was there yet, or what is there can't be read.
        seconds: since its last sign of life.
        etag: what the store calls this sign; "" if it does not say, or there is none.
    """

    mark: Mark | None = None
    seconds: float = 0
    etag: str = ""

    def of_another(self, writer: str) -> Mark | None:
        """Return who it is, if that is somebody else."""
        return self.mark if self.mark and self.mark.writer != writer else None


def read_writer(bucket: Bucket, layout: Layout) -> LastWriter:
    """Return who has written last."""
    fetched = bucket.fetch(layout.writer, LARGEST)
    if fetched is None:
        return LastWriter()
    try:
        mark = msgspec.json.decode(fetched.content or b"", type=Mark)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return LastWriter(None, fetched.seconds, fetched.etag)
    return LastWriter(mark if mark == mark.with_digest() else None, fetched.seconds, fetched.etag)


def check_writer(bucket: Bucket, layout: Layout, state_dir: Path) -> str:
    """Say which host writes below a prefix, for doctor."""
    last = read_writer(bucket, layout)
    if other := last.of_another(read_state(state_file(state_dir), WriterState).writer):
        doing = "is at work there" if other.at_work else "was the last to write there"
        return Note(f"{other.host} {doing}; {ADVICE}")
    return "no other host writes there" if last.mark else "nobody has written there yet"


def state_file(state_dir: Path) -> Path:
    """Return the file with what a state directory is called."""
    return state_dir / "writer.json"


def name_of(state_dir: Path) -> str:
    """Return what a state directory is called in buckets; make it up, if it has no name yet."""
    path = state_file(state_dir)
    state = read_state(path, WriterState)
    if not state.writer:
        state = WriterState(uuid.uuid4().hex)
        write_state(path, state)
    return state.writer


def writing(
    job: Job[Any], bucket: Bucket, layout: Layout, *, confirmed: bool = True
) -> contextlib.AbstractContextManager[None]:
    """Keep other hosts away while a job writes below a prefix; not, where it only shows things.

    Args:
        job: has the state directory.
        bucket: in which it writes.
        layout: where.
        confirmed: whether it writes.
    """
    if job.dry_run or not confirmed:
        return contextlib.nullcontext()
    return only_writer(bucket, layout, job.config.state_dir)


@contextlib.contextmanager
def only_writer(bucket: Bucket, layout: Layout, state_dir: Path) -> Iterator[None]:
    """Keep other hosts from writing below a prefix while the block runs.

    If another one has begun all the same, nothing more is written.

    Raises:
        TryAgainLater: another host is at work there.
    """
    turn = Turn(bucket, layout, name_of(state_dir))
    turn.take()
    bucket.guard = turn.check
    try:
        yield
    finally:
        bucket.guard = nothing
        turn.end()


def nothing() -> None:
    """Let everything be written."""


class Turn:
    """The turn of one writer: it is taken, kept up by a thread, and ended."""

    def __init__(self, bucket: Bucket, layout: Layout, writer: str) -> None:
        self._bucket = bucket
        self._layout = layout
        self._writer = writer
        self._over = threading.Event()
        self._lost = ""  # the host that has taken it away
        self._thread = threading.Thread(target=self._keep, name="writer", daemon=True)

    def take(self) -> None:
        """Begin, unless another host is at work.

        Raises:
            TryAgainLater: it is.
        """
        last = read_writer(self._bucket, self._layout)
        if other := last.of_another(self._writer):
            if other.at_work and last.seconds < SILENCE:
                raise TryAgainLater(self._busy(other, last.seconds))
            log.warning(
                "%s: the last run was that of %s; if both have a timer, give each a prefix of its"
                " own",
                self._where,
                other.host,
            )
        self._write(at_work=True, last=last)
        now = read_writer(self._bucket, self._layout)
        if other := now.of_another(self._writer):
            raise TryAgainLater(self._busy(other, now.seconds))
        self._thread.start()

    def check(self) -> None:
        """Raise TryAgainLater if another host has begun meanwhile."""
        if self._lost:
            raise TryAgainLater(f"{self._where}: {self._lost} writes there now, too; {ADVICE}")

    def end(self) -> None:
        """Say that the run is over, as long as that takes no longer than a stop may wait."""
        self._over.set()
        ending = threading.Thread(target=self._leave, daemon=True)
        ending.start()
        ending.join(PATIENCE)

    @property
    def _where(self) -> str:
        return f"{self._bucket.url}/{self._layout.prefix}"

    def _busy(self, other: Mark, seconds: float) -> str:
        return (
            f"{self._where}: {other.host} is at work there, or was {seconds:,.0f} s ago; {ADVICE};"
            f" if it was switched off, a run can begin {SILENCE // 60} minutes after its last sign"
        )

    def _keep(self) -> None:
        while not self._over.wait(RENEWAL):
            with contextlib.suppress(ScriptError):  # the run itself meets it, or the next sign goes
                last = read_writer(self._bucket, self._layout)
                if other := last.of_another(self._writer):
                    self._lost = other.host
                    return
                self._write(at_work=True)

    def _leave(self) -> None:
        with contextlib.suppress(ScriptError):
            if not read_writer(self._bucket, self._layout).of_another(self._writer):
                self._write(at_work=False)

    def _write(self, *, at_work: bool, last: LastWriter | None = None) -> None:
        """Write who is at work; with `last`, only if nobody has written since.

        Raises:
            TryAgainLater: somebody has.
        """
        mark = Mark(writer=self._writer, host=socket.gethostname(), at_work=at_work)
        content = msgspec.json.encode(mark.with_digest())
        request: dict[str, Any] = {
            **self._bucket.target(self._layout.writer),
            **self._bucket.creation(JSON, ""),
            "Body": content,
            "ContentMD5": content_md5(content),
        }
        condition: dict[str, Any] = {}
        if last and (last.etag or not last.mark):
            condition = {"IfMatch": last.etag} if last.etag else {"IfNoneMatch": "*"}
        with self._bucket.errors(f"writing {self._layout.writer}"):
            try:
                self._bucket.client.put_object(**request, **condition)
            except self._bucket.client.exceptions.ClientError as error:
                if not condition or not is_refused(error):
                    raise
                if error.response["Error"].get("Code") in CONDITION_FAILED:
                    return  # by another one, or by this very request, which boto3 has repeated
                self._bucket.client.put_object(**request)  # this store knows no conditions
