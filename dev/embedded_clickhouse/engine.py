"""chDB as a server's engine: one per data directory, a session for each client."""

import contextlib
import fcntl
import functools
import itertools
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.embedded_clickhouse import sql
from dev.embedded_clickhouse.blocks import Columns
from dev.embedded_clickhouse.compiled import compiled_module
from dev.embedded_clickhouse.errors import ENGINE_ERRORS, Code, ServerError
from dev.embedded_clickhouse.record import Recorder, Statement

# A string setting without any effect here (there are no logs to send), by which KILL QUERY tells
# the sessions apart; `log_comment` is the clients' own.
_MARK_SETTING = "send_logs_source_regexp"
_NOT_STREAMABLE = "Streaming query is not supported"
# What clickhouse-local sets differently from a server; and JSON as text in Native blocks, which
# needs no newer revision of the protocol.
_SERVER_DEFAULTS = (
    "SET implicit_select = 0, allow_introspection_functions = 0, "
    "output_format_native_write_json_as_string = 1"
)


_SHOW_GRANTS = re.compile(r"\s*SHOW\s+GRANTS\s*", re.IGNORECASE)


@dataclass(frozen=True)
class User:
    """Who may connect.

    Attributes:
        password: what they must give; None accepts anything.
        readonly: what the setting of this name is for them: 0, they may do everything; 1, they may
            only read; 2, they may change settings, too.
        ddl: whether they may do more than read and insert.
    """

    password: str = ""
    readonly: int = 0
    ddl: bool = True


DEFAULT_USERS: Mapping[str, User] = {
    "default": User(),
    "citizenlab": User(),
    "api": User("api"),
    "detector": User("detector"),
}


@dataclass(frozen=True)
class Chunk:
    """A part of a result in Native format.

    Attributes:
        data: whole blocks.
        rows: how many rows they hold.
        rows_read: how many rows have been read from tables for it.
        bytes_read: how many bytes of their columns.
    """

    data: bytes
    rows: int
    rows_read: int
    bytes_read: int


def _chunk(result: Any) -> Chunk:  # noqa: ANN401 - chDB's results are untyped
    """Return what chDB gives of a result."""
    return Chunk(
        result.bytes(),
        result.rows_read(),
        result.storage_rows_read(),
        result.storage_bytes_read(),
    )


class DataDirectoryError(Exception):
    """The data directory cannot be used; the text says why in one line."""


class Engine:
    """The engine of one data directory.

    Args:
        path: the directory, created when it is missing; one process at a time may use it.
        users: name → user; DEFAULT_USERS without it.
        claimed_version: what clients are told instead of the real one, to test how they take it.
        config_file: a server's configuration (ZooKeeper, macros, clusters); None for none.
        defaults: further assignments for the SET that begins each session.
        record: a folder for a record of the clients' statements; None for none.

    Attributes:
        data: where the engine keeps its tables.
        display_name: what it calls itself in a greeting.
        on_statement: is called with each statement of a client before it runs, and may refuse it
            with ServerError.
        recorder: takes down the statements.

    Raises:
        DataDirectoryError: another process uses the directory, or it cannot be written.
    """

    def __init__(
        self,
        path: Path,
        users: Mapping[str, User] | None = None,
        claimed_version: str = "",
        *,
        config_file: Path | None = None,
        defaults: str = "",
        record: Path | None = None,
    ) -> None:
        self._users = users or DEFAULT_USERS
        self.display_name = socket.gethostname()
        self.on_statement: Callable[[str], None] = lambda _: None
        self.session_defaults = f"{_SERVER_DEFAULTS}, {defaults}" if defaults else _SERVER_DEFAULTS
        path = path.absolute()
        if "?" in str(path):
            raise DataDirectoryError(f"{path}: a question mark in the path is not possible")
        self._lock_file = _lock(path)
        self.backups = _fresh(path / "backups", keep=True)
        self.spool = _fresh(path / "spool", keep=False)
        self.data = path / "data"
        # With memory_worker_use_cgroup it looks for control groups, which a chroot need not have.
        self._address = (
            f"{self.data}?backups.allowed_path={self.backups}/&memory_worker_use_cgroup=0"
        )
        if config_file:
            self._address += f"&config-file={config_file.absolute()}&log-level=information"
        self._numbers = itertools.count(1)
        self.recorder = Recorder(record, path)
        self._sessions: set[Session] = set()
        self._guard = threading.Lock()
        _disable_signal_handlers()
        try:
            self._control = _connect(self._address)
        except RuntimeError as error:
            raise DataDirectoryError(f"{path}: {error}") from error
        version, self.timezone = self.ask("SELECT version(), timezone()")[0]
        self.version: str = claimed_version or version

    def authenticate(self, name: str, password: str) -> User:
        """Return the user.

        Raises:
            ServerError: with code 516, as a real server has it for both mistakes.
        """
        user = self._users.get(name or "default")
        if user is None or user.password != password:
            message = (
                f"{name}: Authentication failed: password is incorrect, "
                "or there is no user with such name."
            )
            raise ServerError(Code.AUTHENTICATION_FAILED, message)
        return user

    def open_session(self, user: User, database: str = "") -> "Session":
        """Return a session with its own settings, current database and temporary tables.

        Raises:
            ServerError: there is no such database.
        """
        mark = f"session {next(self._numbers)}"
        session = Session(self, _connect(self._address), mark, database)
        try:
            session.prepare(user)
        except ServerError:
            session.close()
            raise
        with self._guard:
            self._sessions.add(session)
        return session

    def forget(self, session: "Session") -> None:
        """Take note that a session is closed."""
        with self._guard:
            self._sessions.discard(session)

    def kill(self, mark: str) -> None:
        """End the query that the session with this mark is running, if it runs one."""
        with self._guard, contextlib.suppress(RuntimeError):
            where = f"Settings['{_MARK_SETTING}'] = {sql.quote_string(mark)}"
            self._control.query(f"KILL QUERY WHERE {where} ASYNC", "Null")

    def spool_file(self) -> Any:  # noqa: ANN401 - tempfile's wrapper type has no public name
        """Return a new file for data on its way into a table; it is gone when it is closed."""
        return tempfile.NamedTemporaryFile(dir=self.spool)

    def close(self) -> None:
        """End every session and let go of the directory."""
        with self._guard:
            sessions = list(self._sessions)
        for session in sessions:
            self.kill(session.mark)
        for session in sessions:
            session.close()
        self._control.close()
        shutil.rmtree(self.spool, ignore_errors=True)
        self._lock_file.close()

    def ask(self, query: str) -> list[list[Any]]:
        """Return the rows of a small result, for the server itself."""
        return _json_rows(self._control.query(query, "JSONCompactEachRow"))


class Session:
    """One client's connection to the engine; use it from one thread at a time.

    Attributes:
        mark: by which `Engine.kill` finds its query.
    """

    def __init__(self, engine: Engine, connection: Any, mark: str, database: str) -> None:  # noqa: ANN401 - untyped
        self._engine = engine
        self._database = database
        self._connection = connection
        self._settings: dict[str, str] = {}
        self._before: dict[str, str] = {}
        self._user_has_set = False
        self._user = User()
        self._lock = threading.RLock()
        self._closed = False
        self.mark = mark

    def prepare(self, user: User) -> None:
        """Set up what the user and the database ask for."""
        self._user = user
        self.run(
            f"{self._engine.session_defaults}, {_MARK_SETTING} = {sql.quote_string(self.mark)}"
        )
        if self._database:
            self.run(f"USE {sql.quote(self._database)}")
        if user.readonly:
            self.run(f"SET readonly = {user.readonly:d}")

    def run(
        self, query: str, parameters: Mapping[str, str] | None = None, format_name: str = "Native"
    ) -> Any:  # noqa: ANN401 - chDB's results are untyped
        """Run a statement to its end and return chDB's result, in this format or its own FORMAT.

        Raises:
            ServerError: what the engine says about it.
        """
        try:
            return self._connection.query(query, format_name, params=dict(parameters or {}))
        except ENGINE_ERRORS as error:
            raise ServerError.from_engine(error) from error

    def rows(self, query: str, parameters: Mapping[str, str] | None = None) -> list[list[Any]]:
        """Return the rows of a small result."""
        return _json_rows(self.run(f"{query} FORMAT JSONCompactEachRow", parameters))

    def stream(self, query: str) -> Generator[Chunk, None, None]:
        """Run a statement and yield its result in Native blocks, as they come.

        Nothing else may run in the session until the stream has ended or is closed.

        Raises:
            ServerError: at once or between chunks.
        """
        try:
            result = self._connection.send_query(query, "Native")
        except ENGINE_ERRORS as error:
            if _NOT_STREAMABLE not in str(error):
                raise ServerError.from_engine(error) from error
            whole = self.run(query)
            yield _chunk(whole)
            return
        ended = False
        try:
            while True:
                part = self._fetch(result)
                if not part.rows_read():
                    ended = True
                    return
                yield _chunk(part)
        except ServerError:
            ended = True
            raise
        finally:
            if not ended:
                with contextlib.suppress(RuntimeError):
                    self._connection.streaming_cancel_query(result)

    def _fetch(self, result: Any) -> Any:  # noqa: ANN401 - chDB's results are untyped
        try:
            return self._connection.streaming_fetch_result(result)
        except ENGINE_ERRORS as error:
            raise ServerError.from_engine(error) from error

    def has_table(self, database: str, table: str) -> bool:
        """Tell whether there is such a table."""
        return bool(self.rows(f"EXISTS TABLE {sql.quote(database)}.{sql.quote(table)}")[0][0])

    def format_query(self, query: str) -> str:
        """Return a query as the engine's own parser writes it, in one line.

        Raises:
            ServerError: it is not valid SQL.
        """
        parameters = {"query": sql.escape_parameter(query)}
        return str(self.rows("SELECT formatQuerySingleLine({query:String})", parameters)[0][0])

    def check_statement(self, query: str, *, readonly: bool = False) -> None:
        """Refuse what a server does not run.

        Raises:
            ServerError: more than one statement; a write, where `readonly` allows none; DDL of a
                user without the right; what the engine's `on_statement` says.
        """
        self._engine.on_statement(query)
        facts = self._connection.classify_query(query)
        if facts["statement_count"] > 1:
            message = "Syntax error (Multi-statements are not allowed)"
            raise ServerError(Code.SYNTAX_ERROR, message)
        kind = facts["query_class"].name
        if readonly and kind not in {"READ_ONLY", "UNKNOWN"}:
            raise ServerError(Code.READONLY, "Cannot execute query in readonly mode.")
        word = sql.first_word(query)
        if not self._user.ddl and kind.startswith("MUTATING") and word != "INSERT":
            message = f"Not enough privileges. It's necessary to have the grant {word}"
            raise ServerError(Code.ACCESS_DENIED, message)

    def with_grants(self, query: str) -> str:
        """Return a statement, SHOW GRANTS as one that tells what `check_statement` allows."""
        if self._user.ddl or not _SHOW_GRANTS.fullmatch(query):
            return query
        return "SELECT 'GRANT SELECT, INSERT ON *.* TO ' || currentUser() AS GRANTS"

    def recorded(self, protocol: str, text: str, settings: Mapping[str, str]) -> Statement:
        """Return what the recorder takes down of a statement without rows."""
        return Statement(self.mark, protocol, self._database, text, dict(settings))

    def insert_columns(self, insert: sql.Insert) -> Columns:
        """Return name and type of the columns that an INSERT takes.

        Raises:
            ServerError: no such table or column; a column that cannot be written.
        """
        if insert.column_list and not insert.columns:
            # The client's own words, run with the client's own rights.
            query = f"SELECT {insert.column_list} FROM {insert.target}"  # noqa: S608 - theirs
            return self._described(query)
        described = self.rows(f"DESCRIBE TABLE {insert.target}")
        if not insert.columns:
            usual = {"", "DEFAULT"}
            return tuple((row[0], row[1]) for row in described if row[2] in usual)
        columns = {row[0]: row for row in described}
        for name in insert.columns:
            if name not in columns:
                message = f"No such column {name} in table {insert.target.strip()}"
                raise ServerError(Code.NO_SUCH_COLUMN_IN_TABLE, message)
            if columns[name][2] in {"MATERIALIZED", "ALIAS"}:
                message = f"Cannot insert column {name}, because it is {columns[name][2]} column"
                raise ServerError(Code.ILLEGAL_COLUMN, message)
        return tuple((name, columns[name][1]) for name in insert.columns)

    def describe_result(self, query: str) -> Columns:
        """Return name and type of a SELECT's columns without running it; none if it is wrong."""
        try:
            return self._described(query)
        except ServerError as error:
            if error.code != Code.SYNTAX_ERROR:
                return ()
        try:
            # Without the semicolon or the comment that it may end with.
            return self._described(self.format_query(query))
        except ServerError:
            return ()

    def _described(self, query: str) -> Columns:
        return tuple((row[0], row[1]) for row in self.rows(f"DESCRIBE (\n{query}\n)"))

    def apply_settings(self, settings: Mapping[str, str], *, ignore_unknown: bool) -> None:
        """Make these the settings of the next statements, in place of the ones applied before.

        Raises:
            ServerError: a setting is unknown (unless they are ignored) or its value is wrong.
        """
        wanted = dict(settings)
        if wanted == self._settings:
            return
        self._restore_settings()
        if not wanted:
            return
        self._remember(wanted)
        self._settings = wanted
        try:
            self.run("SET " + _assignments(wanted))
        except ServerError as error:
            if error.code != Code.UNKNOWN_SETTING or not ignore_unknown:
                self._restore_settings()
                raise
            self._apply_known(wanted)

    def _apply_known(self, wanted: Mapping[str, str]) -> None:
        for name, value in wanted.items():
            try:
                self.run("SET " + _assignments({name: value}))
            except ServerError as error:
                if error.code != Code.UNKNOWN_SETTING:
                    self._restore_settings()
                    raise

    def _remember(self, names: Mapping[str, str]) -> None:
        """Note the values to come back to: those of the client's own SET, else the default."""
        self._before = dict.fromkeys(names, "DEFAULT")
        if self._user_has_set:
            listed = ", ".join(map(sql.quote_string, names))
            table = f"system.settings WHERE changed AND name IN ({listed})"
            changed = "SELECT name, value FROM " + table  # noqa: S608 - quoted
            for name, value in self.rows(changed):
                self._before[name] = sql.quote_string(value)

    def _restore_settings(self) -> None:
        for name, value in self._before.items():
            with contextlib.suppress(ServerError):
                self.run(f"SET {_setting_name(name)} = {value}")
        self._settings, self._before = {}, {}

    def run_set(self, statement: str) -> None:
        """Run a client's own SET, which holds for the rest of the session."""
        self._restore_settings()
        self._user_has_set = True
        self.run(statement)

    def close(self) -> None:
        """End the session; doing it twice is harmless."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._connection.close()
                self._engine.forget(self)
                self._engine.recorder.write(Statement(self.mark, ended=True))


def _disable_signal_handlers() -> None:
    """Keep chDB's handlers away, before it connects: signals are the program's business."""
    _chdb().set_signal_handlers_enabled(0)


@functools.cache
def _chdb() -> Any:  # noqa: ANN401 - compiled, untyped
    """Load the module as its package does: it takes its own symbols, not the interpreter's."""
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_DEEPBIND)
    try:
        return compiled_module()
    finally:
        sys.setdlopenflags(flags)


def _connect(address: str) -> Any:  # noqa: ANN401 - chDB's connections are untyped
    return _chdb().connect(address)


def _setting_name(name: str) -> str:
    if not re.fullmatch(r"\w+", name):
        raise ServerError(Code.UNKNOWN_SETTING, f"Unknown setting '{name}'")
    return name


def _assignments(settings: Mapping[str, str]) -> str:
    return ", ".join(
        f"{_setting_name(name)} = {sql.quote_string(value)}" for name, value in settings.items()
    )


def _json_rows(result: Any) -> list[list[Any]]:  # noqa: ANN401 - chDB's results are untyped
    return [json.loads(line) for line in result.bytes().splitlines()]


def _lock(path: Path) -> Any:  # noqa: ANN401 - an open file, kept for its lock
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = (path / "lock").open("w")
    except OSError as error:
        raise DataDirectoryError(f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise DataDirectoryError(f"{path}: another process uses this data directory") from error
    return file


def _fresh(path: Path, *, keep: bool) -> Path:
    if not keep:
        shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700, exist_ok=True)
    return path
