"""The HTTP interface: what curl, urllib3 and clickhouse-connect speak on port 8123."""

import base64
import binascii
import contextlib
import json
import secrets
import socket
import string
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import IO, Any
from urllib.parse import parse_qsl, urlsplit

from dev.embedded_clickhouse import bodies, sql
from dev.embedded_clickhouse.blocks import WireReader
from dev.embedded_clickhouse.engine import Engine, Session, User
from dev.embedded_clickhouse.errors import Code, ConnectionLost, ServerError
from dev.embedded_clickhouse.export import Export
from dev.embedded_clickhouse.frames import frame_reader, lz4_frames
from dev.embedded_clickhouse.watch import Watcher

# As a real server: so much of a result is held back, so that an early failure still has a status.
_HELD_BACK = 1 << 20
_MAX_QUERY = 256 * 1024
_MAX_DISCARD = 16 << 20
_MAX_EXCEPTION = 16 * 1024
_NOT_SETTINGS = frozenset(
    {
        "buffer_size", "compress", "database", "decompress", "default_format", "password", "query",
        "query_id", "quota_key", "session_check", "session_id", "session_timeout", "stacktrace",
        "user", "wait_end_of_query",
    }
)  # fmt: skip
_STATUSES: tuple[tuple[HTTPStatus, frozenset[int]], ...] = (
    (HTTPStatus.FORBIDDEN, frozenset({192, 193, 497, 516})),
    (
        HTTPStatus.BAD_REQUEST,
        frozenset(
            {6, 15, 16, 25, 26, 27, 36, 38, 41, 44, 53, 62, 72, 117, 167, 168, 171, 376, 427}
        ),
    ),
    (HTTPStatus.NOT_FOUND, frozenset({46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 336, 511})),
    (HTTPStatus.NOT_IMPLEMENTED, frozenset({48})),
    (HTTPStatus.REQUEST_TIMEOUT, frozenset({159})),
    (HTTPStatus.SERVICE_UNAVAILABLE, frozenset({76, 209, 439})),
)


@dataclass
class _KeptSession:
    session: Session
    until: float
    lock: threading.Lock = field(default_factory=threading.Lock)


class HTTPSessions:
    """Sessions that outlive a request: `session_id`, with its temporary tables and settings.

    Args:
        engine: opens them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._guard = threading.Lock()
        self._kept: dict[tuple[str, str], _KeptSession] = {}

    @contextlib.contextmanager
    def borrow(self, name: str, user: User, parameters: Mapping[str, str]) -> Iterator[Session]:
        """Use a session for one request; a new one without a `session_id` among the parameters.

        Raises:
            ServerError: another request uses it, or it should exist and does not.
        """
        database = parameters.get("database", "")
        if not parameters.get("session_id"):
            session = self._engine.open_session(user, database)
            try:
                yield session
            finally:
                session.close()
            return
        kept = self._kept_session((name, parameters["session_id"]), user, parameters)
        try:
            if database:
                kept.session.run(f"USE {sql.quote(database)}")
            yield kept.session
        finally:
            kept.until = time.monotonic() + _number(parameters, "session_timeout", 60)
            kept.lock.release()

    def _kept_session(
        self, key: tuple[str, str], user: User, parameters: Mapping[str, str]
    ) -> _KeptSession:
        with self._guard:
            self._close_expired()
            if key not in self._kept:
                if parameters.get("session_check") == "1":
                    raise ServerError(Code.SESSION_NOT_FOUND, f"Session {key[1]} not found")
                session = self._engine.open_session(user)
                self._kept[key] = _KeptSession(session, time.monotonic())
            kept = self._kept[key]
            if not kept.lock.acquire(blocking=False):
                message = f"Session {key[1]} is locked by a concurrent client"
                raise ServerError(Code.SESSION_IS_LOCKED, message)
            return kept

    def _close_expired(self) -> None:
        now = time.monotonic()
        for key, kept in list(self._kept.items()):
            if kept.until < now and not kept.lock.locked():
                kept.session.close()
                del self._kept[key]


@dataclass(frozen=True)
class Context:
    """What all requests share."""

    engine: Engine
    watcher: Watcher
    sessions: HTTPSessions


def serve_http(connection: socket.socket, context: Context) -> None:
    """Answer the requests of one connection until the client leaves."""
    _Handler(connection, context)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "ClickHouse"
    sys_version = ""

    def __init__(self, connection: socket.socket, context: Context) -> None:
        self._context = context
        super().__init__(connection, connection.getpeername(), None)  # type: ignore[arg-type]

    def log_message(self, *_: object) -> None:
        """Requests are not logged."""

    def do_GET(self) -> None:
        """Answer a query that must not write, or a health check."""
        self._serve()

    def do_POST(self) -> None:
        """Answer a query."""
        self._serve()

    def do_HEAD(self) -> None:
        """Answer a health check without a body."""
        self._serve()

    def _serve(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isascii() or not length.isdigit():
            self.close_connection = True
            self._answer_simply(HTTPStatus.BAD_REQUEST, b"Content-Length is not a number\n")
            return
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "").lower()
        body = bodies.RequestBody(self.rfile, None if chunked else int(length))
        target = urlsplit(self.path)
        parameters = dict(parse_qsl(target.query, keep_blank_values=True))
        if target.path in {"/ping", "/replicas_status"} or (
            target.path == "/" and self.command != "POST" and "query" not in parameters
        ):
            self._answer_simply(HTTPStatus.OK, b"Ok.\n")
        elif target.path not in {"/", "/query"}:
            self._answer_simply(HTTPStatus.NOT_FOUND, f"There is no handle {self.path}\n".encode())
        else:
            _Request(self, self._context, parameters, body).serve()
        self._discard(body)

    def _answer_simply(self, status: HTTPStatus, text: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=UTF-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _discard(self, body: bodies.RequestBody) -> None:
        """Read what is left of the request, so that the next one can follow; or end here."""
        size = 0
        while not body.exhausted and not self.close_connection:
            size += len(body.read())
            self.close_connection = size > _MAX_DISCARD


@dataclass
class _Statement:
    """A query, with the rows for an INSERT in a file.

    Attributes:
        text: the query as the client sent it, without the rows.
        insert: its parts, when it takes rows.
    """

    text: str
    insert: sql.Insert | None


class _Request:
    """One query over HTTP, from its parameters to the last byte of the answer."""

    def __init__(
        self,
        handler: BaseHTTPRequestHandler,
        context: Context,
        parameters: dict[str, str],
        body: bodies.RequestBody,
    ) -> None:
        self._handler = handler
        self._context = context
        self._parameters = parameters
        self._body = body
        self._response = _Response(handler, context.engine, parameters)

    def serve(self) -> None:
        try:
            name, password = self._credentials()
            user = self._context.engine.authenticate(name, password)
            self._add_headers()
            with self._context.sessions.borrow(name, user, self._parameters) as session:
                self._run(session)
        except ServerError as error:
            self._response.fail(error)

    def _credentials(self) -> tuple[str, str]:
        headers = self._handler.headers
        if "X-ClickHouse-User" in headers or "X-ClickHouse-Key" in headers:
            return headers.get("X-ClickHouse-User", "default"), headers.get("X-ClickHouse-Key", "")
        scheme, _, secret = headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                name, _, password = base64.b64decode(secret, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError) as error:
                message = "Invalid authentication: malformed Basic credentials"
                raise ServerError(Code.AUTHENTICATION_FAILED, message) from error
            return name, password
        return self._parameters.get("user", "default"), self._parameters.get("password", "")

    def _add_headers(self) -> None:
        """Take the parameters that may also come as headers."""
        names = {"X-ClickHouse-Database": "database", "X-ClickHouse-Format": "default_format"}
        for header, name in names.items():
            if header in self._handler.headers:
                self._parameters.setdefault(name, self._handler.headers[header])

    def _settings(self) -> dict[str, str]:
        settings = {
            name: value
            for name, value in self._parameters.items()
            if name not in _NOT_SETTINGS and not name.startswith("param_")
        }
        if self._parameters.get("query_id"):
            settings.setdefault("log_comment", self._parameters["query_id"])
        return settings

    def _query_parameters(self) -> dict[str, str]:
        return {
            name.removeprefix("param_"): value
            for name, value in self._parameters.items()
            if name.startswith("param_")
        }

    def _run(self, session: Session) -> None:
        with self._context.engine.spool_file() as spool:
            statement = self._read_statement(spool)
            settings = self._settings()
            readonly = settings.pop("readonly", "0") not in {"", "0"}
            self._check(session, statement.text, readonly=readonly)
            self._record(session, statement, settings, spool)
            if sql.first_word(statement.text) == "SET":
                session.run_set(statement.text)
                self._response.finish(None)
                return
            session.apply_settings(settings, ignore_unknown=False)
            watch = self._context.watcher.watch(self._handler.connection, session.mark)
            with watch:
                if statement.insert:
                    self._insert(session, statement.insert, spool)
                else:
                    self._select(session, statement.text)

    def _record(
        self,
        session: Session,
        statement: _Statement,
        settings: Mapping[str, str],
        spool: IO[bytes],
    ) -> None:
        recorder = self._context.engine.recorder
        record = session.recorded("http", statement.text, settings)
        record.parameters = self._query_parameters()
        if statement.insert:
            record.rows = recorder.keep(spool.name)
        recorder.write(record)

    def _check(self, session: Session, query: str, *, readonly: bool) -> None:
        if not query.strip():
            raise ServerError(Code.SYNTAX_ERROR, "Syntax error: Empty query")
        session.check_statement(query, readonly=readonly)
        if self._handler.command == "GET":
            try:
                session.check_statement(query, readonly=True)
            except ServerError as error:
                message = (
                    f"{error.text} For queries over HTTP, method GET implies readonly. "
                    "You should use method POST for modifying queries."
                )
                raise ServerError(error.code, message) from error

    def _read_statement(self, spool: IO[bytes]) -> _Statement:
        """Take the query from the URL and the body; an INSERT's rows go to the file."""
        content = self._content()
        head = self._parameters.get("query", "").encode()
        if head:
            head += b"\n"
        for part in content:
            head += part
            if len(head) >= _MAX_QUERY:
                break
        # Rows need not be text; what is not comes out of the query as it went in.
        text = head.decode(errors="surrogateescape")
        insert = sql.parse_insert(text)
        if insert is None:
            rest = b"".join(content)
            return _Statement((head + rest).decode(errors="replace").strip(), None)
        rows = insert.data.encode(errors="surrogateescape")
        spool.write(rows)
        for part in content:
            spool.write(part)
        spool.flush()
        return _Statement(text.removesuffix(insert.data), insert)

    def _content(self) -> Iterator[bytes]:
        encoding = self._handler.headers.get("Content-Encoding", "").lower()
        parts = bodies.decoded(self._body, encoding)
        if self._parameters.get("decompress") == "1":
            return _native_frames(parts)
        return parts

    def _insert(self, session: Session, insert: sql.Insert, spool: IO[bytes]) -> None:
        if not spool.tell():
            session.insert_columns(insert)
            self._response.finish(None)
            return
        result = session.run(insert.from_file(spool.name, insert.format_name))
        self._response.finish(result)

    def _select(self, session: Session, query: str) -> None:
        default = self._parameters.get("default_format", "TabSeparated")
        output = sql.split_output(session.format_query(query))
        format_name = output.format_name or default
        self._response.format_name = format_name
        parameters = self._query_parameters()
        if sql.first_word(output.query.lstrip("( ")) not in sql.SELECTS:
            result = session.run(query, parameters, format_name)
            self._response.write(result.bytes())
            self._response.finish(result)
            return
        export = Export(self._context.engine, session, output, format_name, parameters)
        with contextlib.closing(export.stream()) as stream:
            for part in stream:
                self._response.write(part)
        self._response.finish(export.result)


def _number(parameters: Mapping[str, str], name: str, default: int) -> int:
    """Return a parameter that is a whole number; the default for anything else."""
    value = parameters.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else default


def _native_frames(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the content of ClickHouse's own compressed frames."""
    reader = WireReader(lambda _size: next(filter(None, parts), b""))
    read = frame_reader(reader)
    while True:
        try:
            if not reader.buffered:
                reader.fill()
        except ConnectionLost:
            return
        yield read(0)


class _Response:
    """The answer: held back until it is large or complete, then in chunks.

    Attributes:
        format_name: the output format.
    """

    def __init__(
        self, handler: BaseHTTPRequestHandler, engine: Engine, parameters: Mapping[str, str]
    ) -> None:
        self._handler = handler
        self._engine = engine
        self._begun = False
        self._tag = "".join(secrets.choice(string.ascii_lowercase) for _ in range(16))
        self._query_id = parameters.get("query_id") or str(uuid.uuid4())
        self._started = time.monotonic_ns()
        self._frames = parameters.get("compress") == "1"
        self._encoding = ""
        if parameters.get("enable_http_compression") == "1" and not self._frames:
            self._encoding = bodies.choose_encoding(handler.headers.get("Accept-Encoding", ""))
        level = _number(parameters, "http_zlib_compression_level", 3)
        self._encoder = bodies.encoder(self._encoding, min(max(level, 1), 9))
        whole = parameters.get("wait_end_of_query") == "1"
        self._held_limit = 1 << 62 if whole else _number(parameters, "buffer_size", _HELD_BACK)
        directory = str(engine.spool)
        self._held = tempfile.SpooledTemporaryFile(_HELD_BACK, dir=directory)  # noqa: SIM115 - kept
        self.format_name = parameters.get("default_format", "TabSeparated")

    def write(self, data: bytes) -> None:
        """Add to the body."""
        if self._begun:
            self._send(self._compress(data))
            return
        self._held.write(data)
        if self._held.tell() > self._held_limit:
            self._begin(None)

    def finish(self, result: Any) -> None:  # noqa: ANN401 - chDB's results are untyped
        """Send what is held back and the end of the body."""
        if not self._begun:
            self._begin(result)
        self._send(self._encoder.flush())
        self._raw(b"0\r\n\r\n" if self._chunked else b"")
        self._held.close()

    def fail(self, error: ServerError) -> None:
        """Tell of a failure: by the status, or in the body when that has begun."""
        message = error.full_text(self._engine.version)
        if self._begun:
            self._send(self._compress(self._exception_block(message)) + self._encoder.flush())
            self._handler.close_connection = True
            return
        self._held.close()
        text = message.encode() + b"\n"
        status = next(
            (status for status, codes in _STATUSES if error.code in codes),
            HTTPStatus.INTERNAL_SERVER_ERROR,
        )
        self._head(status, {"X-ClickHouse-Exception-Code": str(error.code)}, None)
        self._handler.send_header("Content-Length", str(len(text)))
        self._handler.end_headers()
        if self._handler.command != "HEAD":
            self._raw(text)

    @property
    def _chunked(self) -> bool:
        return self._handler.request_version != "HTTP/1.0"

    def _begin(self, result: Any) -> None:  # noqa: ANN401 - chDB's results are untyped
        self._begun = True
        headers = {"X-ClickHouse-Format": self.format_name}
        if self._encoding:
            headers["Content-Encoding"] = self._encoding
        self._head(HTTPStatus.OK, headers, result)
        if self._chunked:
            self._handler.send_header("Transfer-Encoding", "chunked")
        else:
            self._handler.close_connection = True
        self._handler.end_headers()
        self._held.seek(0)
        while part := self._held.read(_HELD_BACK):
            self._send(self._compress(part))

    def _head(
        self,
        status: HTTPStatus,
        headers: Mapping[str, str],
        result: Any,  # noqa: ANN401 - chDB's results are untyped
    ) -> None:
        handler = self._handler
        handler.send_response(status)
        handler.send_header("Content-Type", _content_type(self.format_name))
        handler.send_header("X-ClickHouse-Server-Display-Name", socket.gethostname())
        handler.send_header("X-ClickHouse-Query-Id", self._query_id)
        handler.send_header("X-ClickHouse-Timezone", self._engine.timezone)
        handler.send_header("X-ClickHouse-Exception-Tag", self._tag)
        handler.send_header("X-ClickHouse-Summary", json.dumps(self._summary(result)))
        for name, value in headers.items():
            handler.send_header(name, value)

    def _summary(self, result: Any) -> dict[str, str]:  # noqa: ANN401 - chDB's results are untyped
        # An empty result of chDB's is false.
        has_result = result is not None
        numbers = {
            "read_rows": result.storage_rows_read() if has_result else 0,
            "read_bytes": result.storage_bytes_read() if has_result else 0,
            "written_rows": result.rows_written() if has_result else 0,
            "written_bytes": result.bytes_written() if has_result else 0,
            "total_rows_to_read": result.storage_rows_read() if has_result else 0,
            "result_rows": result.rows_read() if has_result else 0,
            "result_bytes": 0,
            "elapsed_ns": time.monotonic_ns() - self._started,
        }
        return {name: str(number) for name, number in numbers.items()}

    def _exception_block(self, message: str) -> bytes:
        text = message.encode()[:_MAX_EXCEPTION]
        marker, tag = b"__exception__\r\n", self._tag.encode()
        length = str(len(text)).encode()
        return (
            b"\r\n" + marker + tag + b"\r\n" + text + b"\n" + length + b" " + tag + b"\r\n" + marker
        )

    def _compress(self, data: bytes) -> bytes:
        return lz4_frames(data) if self._frames else self._encoder.compress(data)

    def _send(self, data: bytes) -> None:
        if not data or self._handler.command == "HEAD":
            return
        self._raw(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def _raw(self, data: bytes) -> None:
        try:
            self._handler.wfile.write(data)
        except OSError as error:
            self._handler.close_connection = True
            raise ConnectionLost from error


def _content_type(format_name: str) -> str:
    if format_name.startswith(("CSV", "CustomSeparated")):
        header = "; header=present" if "With" in format_name else "; header=absent"
        return f"text/csv; charset=UTF-8{header}"
    if format_name.startswith(("TabSeparated", "TSV")):
        return "text/tab-separated-values; charset=UTF-8"
    if format_name.startswith("JSON"):
        rows = "EachRow" in format_name
        return "application/x-ndjson; charset=UTF-8" if rows else "application/json; charset=UTF-8"
    if format_name in {"Native", "RowBinary", "Parquet", "Arrow", "ORC"}:
        return "application/octet-stream"
    return "text/plain; charset=UTF-8"
