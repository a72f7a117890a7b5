"""A record of the clients' statements and of the rows with them, to run them again elsewhere."""

import hashlib
import shutil
import threading
import time
from pathlib import Path

import msgspec

Columns = tuple[tuple[str, str], ...]


class ExternalTable(msgspec.Struct):
    """A table that exists for one statement alone.

    Attributes:
        columns: name and type.
        rows: files in Native format.
    """

    name: str
    columns: Columns
    rows: list[str]


class Statement(msgspec.Struct, omit_defaults=True):
    """A statement as a client sent it, once the server is about to run it.

    Attributes:
        session: the same for all statements of a connection.
        protocol: "native" or "http".
        database: the session's at its beginning.
        text: without the rows.
        settings: those that came with it.
        parameters: values of `{name:Type}`.
        rows: the file with an INSERT's rows, in the format that its text names; over the native
            protocol in Native format; "" for none.
        ended: no statement: the session is over.
        time: of the beginning, in nanoseconds since 1970.
    """

    session: str
    protocol: str = ""
    database: str = ""
    text: str = ""
    settings: dict[str, str] = {}
    parameters: dict[str, str] = {}
    tables: list[ExternalTable] = []
    rows: str = ""
    ended: bool = False
    time: int = 0


class Recorder:
    """Appends statements to a file of its own in a folder, in the order in which they begin.

    Args:
        folder: where; several servers may share it. None records nothing.
        data: the server's data directory: the next server with the same one goes on.
    """

    def __init__(self, folder: Path | None, data: Path) -> None:
        self._folder = folder
        self._guard = threading.Lock()
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            name = hashlib.sha256(bytes(data)).hexdigest()[:20]
            self._path = folder / f"{name}.jsonl"

    def keep(self, path: str) -> str:
        """Copy a file with rows; return its name in the folder, the same for the same bytes."""
        if not self._folder:
            return ""
        with Path(path).open("rb") as file:
            name = hashlib.file_digest(file, "sha256").hexdigest()[:20]
        if not (self._folder / name).exists():
            copy = self._folder / f"{name}.{threading.get_ident()}"
            shutil.copyfile(path, copy)
            copy.rename(self._folder / name)
        return name

    def write(self, statement: Statement) -> None:
        """Add a statement."""
        if self._folder:
            statement.time = time.time_ns()
            line = msgspec.json.encode(statement) + b"\n"
            with self._guard, self._path.open("ab") as file:
                file.write(line)
