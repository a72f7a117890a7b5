"""A query's result in any output format, as one stream of bytes with bounded memory.

chDB's own streaming returns a complete document a chunk (a CSV header each time). The engine's INTO
OUTFILE writes one document, and the file may be a named pipe.
"""

import contextlib
import fcntl
import os
import select
import threading
import uuid
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.embedded_clickhouse import sql
from dev.embedded_clickhouse.engine import Engine, Session
from dev.embedded_clickhouse.errors import ServerError

_PIPE_SIZE = 1 << 20
_KILL_SECONDS = 0.1


@dataclass
class _Outcome:
    result: Any = None
    error: Exception | None = None


class Export:
    """A running query.

    Args:
        engine: whose spool directory gets the pipe, and which can end the query.
        session: runs the query.
        output: the query without its format.
        format_name: the format to write.
        parameters: query parameters.
    """

    def __init__(
        self,
        engine: Engine,
        session: Session,
        output: sql.Output,
        format_name: str,
        parameters: Mapping[str, str],
    ) -> None:
        self._engine = engine
        self._session = session
        self._outcome = _Outcome()
        self._path = Path(engine.spool, uuid.uuid4().hex)
        target = f"INTO OUTFILE {sql.quote_string(str(self._path))} TRUNCATE COMPRESSION 'none'"
        self._query = f"{output.query} {target} FORMAT {format_name} {output.settings}"
        self._parameters = parameters

    @property
    def result(self) -> Any:  # noqa: ANN401 - chDB's results are untyped
        """The engine's account of the query, once all bytes have been read."""
        return self._outcome.result

    def stream(self) -> Generator[bytes, None, None]:
        """Run the query and yield its output as it comes.

        Raises:
            ServerError: the query failed, at the beginning or after part of the output.
        """
        os.mkfifo(self._path, 0o600)
        # For reading and writing: opening does not wait for the engine, and there is no early end.
        pipe = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
        ended, end = os.pipe()
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        thread = threading.Thread(target=self._run, args=(end,), daemon=True)
        thread.start()
        try:
            yield from _drain(pipe, ended)
            thread.join()
        finally:
            self._end(thread, pipe)
            for descriptor in (pipe, ended, end):
                os.close(descriptor)
            self._path.unlink()
        if self._outcome.error:
            raise self._outcome.error

    def _run(self, end: int) -> None:
        try:
            self._outcome.result = self._session.run(self._query, self._parameters)
        except ServerError as error:
            self._outcome.error = error
        finally:
            os.write(end, b".")

    def _end(self, thread: threading.Thread, pipe: int) -> None:
        """End a query whose reader has gone.

        The pipe must stay open until then, or the engine hangs in its open().
        """
        while thread.is_alive():
            self._engine.kill(self._session.mark)
            with contextlib.suppress(BlockingIOError):
                os.read(pipe, _PIPE_SIZE)
            thread.join(_KILL_SECONDS)


def _drain(pipe: int, ended: int) -> Iterator[bytes]:
    """Yield what comes through the pipe, until the other one says that nothing more will."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    poll.register(ended, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        if pipe in ready:
            yield os.read(pipe, _PIPE_SIZE)
        elif ended in ready:
            return
