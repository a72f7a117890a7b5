"""What an upstream was refused for is remembered, so that a bad upstream costs a question a run.

A refusal is of a version of the upstream (a commit, or what its server said of its files), by a
version of the tool with its configuration, in the place of what is live. Until one of them moves,
another run would come to the same verdict: it fails with the same exit status, fetches nothing, and
logs the verdict once a day.
"""

import contextlib
import functools
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from ooni_common import __version__
from ooni_common.config import Config, DatabaseConfig
from ooni_common.errors import ConfigError, DataRefused, NotStored, RefusedBefore, Unavailable
from ooni_common.run import Job
from ooni_common.state import read_state, write_state
from ooni_common.swap.content import Content

log = logging.getLogger("ooni.refusals")

DAY = 86_400  # seconds
Moment = Annotated[float, msgspec.Meta(ge=0, le=32_503_680_000)]  # Unix time, up to the year 3000


class RefusedForNow(DataRefused):
    """What is refused will be accepted at a later time, in Unix time, though nothing changes."""

    def __init__(self, message: str, until: float) -> None:
        super().__init__(message)
        self.until = until


class Refusal(msgspec.Struct, frozen=True):
    """A refusal, as it is kept in the state directory.

    Attributes:
        source: the version of the upstream that was refused.
        judge: by what it was refused, see `judge_of`.
        verdict: why.
        since: when, in Unix time.
        logged: when the log was last told.
        until: when the same version is judged again; 0: never.
        live: table → what it would have replaced, by which its losses were measured.
    """

    source: dict[str, str] = {}
    judge: str = ""
    verdict: str = ""
    since: Moment = 0
    logged: Moment = 0
    until: Moment = 0
    live: dict[str, Content] = {}


class Refusals:
    """Remembers what a run refuses, for the next run.

    A dry run, `--force` and what else a person decides for one run (`by_person`) remember nothing,
    and look at nothing that is remembered; but what they load is refused no more.

    Args:
        job: this run.
        live: returns what is live, by table; where that is another one by now, a version that was
            refused can be the right one. Without it, that is not looked at.
        by_person: see above.
    """

    def __init__(
        self,
        job: Job[DatabaseConfig],
        live: Callable[[], dict[str, Content]] | None = None,
        *,
        by_person: bool = False,
    ) -> None:
        self._path = job.state_file.with_suffix(".refusal.json")
        self._clock = job.clock
        self._attended = job.attended
        self._dry_run = job.dry_run
        self._in_use = not (job.dry_run or job.force or by_person)
        self._judge = judge_of(job.config)
        self._live = live
        self._last = read_state(self._path, Refusal) if self._in_use else Refusal()

    @property
    def source(self) -> Mapping[str, str]:
        """The version of the upstream that would be refused again; nothing if there is none."""
        is_over = 0 < self._last.until <= self._clock()
        if is_over or self._last.judge != self._judge or not self._is_of_what_is_live:
            return {}
        return self._last.source

    @functools.cached_property
    def _is_of_what_is_live(self) -> bool:
        return self._live is None or self._last.live == self._live()

    @property
    def verdict(self) -> str:
        """Why that version is refused, and since when; "" if there is none."""
        if not self.source:
            return ""
        since = datetime.fromtimestamp(self._last.since, UTC)
        return f"{self._last.verdict} (refused since {since:%Y-%m-%d %H:%M} UTC)"

    def again(self, source: Mapping[str, str] | None = None) -> DataRefused:
        """Return what to raise for the version that was refused: to be logged once a day.

        Args:
            source: what is known of that version by now; None: nothing new.
        """
        last = msgspec.structs.replace(self._last, source=dict(source or self._last.source))
        verdict = f"{self.verdict}; upstream has nothing new, and --dry-run shows all findings"
        now = self._clock()
        is_known = not self._attended and 0 <= now - last.logged < DAY
        if not (is_known or self._attended):
            last = msgspec.structs.replace(last, logged=now)
        if last != self._last:
            self._write(last)
        return RefusedBefore(verdict) if is_known else DataRefused(verdict)

    @contextlib.contextmanager
    def remembered(self, source: Mapping[str, str]) -> Iterator[None]:
        """Remember when the block refuses `source`, and forget an earlier refusal when it does not.

        Raises:
            DataRefused: as the block does.
        """
        try:
            yield
        except DataRefused as error:
            if self._in_use and not isinstance(error, NotStored):
                self._remember(source, error)
            raise
        self.forget()

    def forget(self) -> None:
        """Forget what was refused: something newer is live, or this by a person's decision."""
        if not self._dry_run:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _remember(self, source: Mapping[str, str], error: DataRefused) -> None:
        now = self._clock()
        until = error.until if isinstance(error, RefusedForNow) else 0
        try:
            live = self._live() if self._live else {}
        except (ConfigError, Unavailable) as failure:  # the next run judges again
            log.warning("%s", failure)
            return
        self._write(Refusal(dict(source), self._judge, str(error), now, now, until, live))

    def _write(self, refusal: Refusal) -> None:
        try:
            write_state(self._path, refusal)
        except (OSError, ConfigError) as error:  # the next run judges again
            log.warning("%s", error)


def judge_of(config: Config) -> str:
    """Return what tells a judge from another: the version of the tool, and its configuration.

    Secrets aren't part of it.
    """
    keys = (f"{name}={getattr(config, name)}" for name in config.__struct_fields__)
    return hashlib.sha256("\n".join([__version__, *keys]).encode()).hexdigest()
