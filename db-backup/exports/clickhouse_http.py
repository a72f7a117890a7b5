"""The database's HTTP interface: streams of rows, both ways."""

import contextlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote, urlencode, urlsplit

import urllib3
import zstandard
from urllib3.exceptions import HTTPError, IncompleteRead, ProtocolError

from backup_config import Config
from exports.csv_rows import OUTPUT_SETTINGS, RowCounter, RowStream, header_of
from exports.progress_headers import PROGRESS_SETTINGS, pool_manager
from ooni_common.config import SecretUrl
from ooni_common.database import CONNECT_TIMEOUT, SESSION, StatementFailed, server_error
from ooni_common.errors import ConfigError, ScriptError, Unavailable
from ooni_common.fetch_errors import reason_of
from ooni_common.server_errors import in_one_line
from ooni_common.tls import tls_context
from parallel import MOST_JOBS

READ_SIZE = 1024 * 1024  # bytes
TAIL = 64 * 1024  # bytes at the end of a result in which an exception is looked for
PORTS = {"clickhouse": ("http", 8123), "clickhouses": ("https", 8443)}
TAG = "X-ClickHouse-Exception-Tag"  # a header: by its value, random each time, a failure is known
SUMMARY = "X-ClickHouse-Summary"
EXCEPTION_CODE = "X-ClickHouse-Exception-Code"
SHOWN = 60  # characters, of an answer in place of rows
LONGEST_STATEMENT = 200_000  # bytes; the server parses no more than 256 KiB unless it is told so
BARE_EXCEPTION = rb"Code: \d+\. DB::\w*Exception: "
NO_TAG = (
    f"a proxy keeps back the header {TAG}, by which a failure in mid-stream is known; let it pass,"
    " or leave http_url empty, so that rows come over the native protocol"
)
INPUT_SETTINGS = {
    "format_csv_delimiter": ",",
    "format_csv_null_representation": "\\N",
    "bool_true_representation": "true",
    "bool_false_representation": "false",
    "input_format_skip_unknown_fields": 0,
    "input_format_csv_deserialize_separate_columns_into_tuple": 0,
    "precise_float_parsing": 1,  # what is not is wrong in the last digit, now and then
}


@dataclass(frozen=True)
class Login:
    """Where the interface is, and who asks."""

    address: str
    user: str
    password: str
    database: str


class ClickHouseHTTP:
    """Runs statements over HTTP, in each thread one at a time.

    Args:
        config: the addresses, and the limits of a statement.
        user_agent: names the tool.
        host: of another node than the addresses have; "": as they have it.
    """

    def __init__(self, config: Config, user_agent: str, host: str = "") -> None:
        login = login_of(config.db_uri, config.http_url)
        self._login = replace(login, address=with_host(login.address, host)) if host else login
        self._config = config
        self._user_agent = user_agent
        self._headers = urllib3.make_headers(
            user_agent=user_agent,
            basic_auth=f"{self._login.user}:{self._login.password}",
            basic_auth_encoding="utf-8",
        )
        self._pool = pool_manager(ssl_context=tls_context(config.ca_file), maxsize=MOST_JOBS)

    @property
    def address(self) -> str:
        """Where it is, without the login."""
        return self._login.address

    def at(self, host: str) -> "ClickHouseHTTP":
        """Return the interface of another node, on the same port."""
        return ClickHouseHTTP(self._config, self._user_agent, host)

    def value(self, expression: str) -> str:
        """Return the text of an expression."""
        query = f"SELECT {expression} FORMAT RawBLOB"
        with self.result(query, {}) as pieces:
            return b"".join(pieces).decode(errors="replace")

    @contextlib.contextmanager
    def rows(
        self,
        select: str,
        names: Sequence[str] = (),
        *,
        exact: bool = False,
        settings: Mapping[str, int] | None = None,
    ) -> Iterator[RowStream]:
        """Run a query, as RowSource has it, with other settings than are usual.

        Without the names of its columns, nobody checks that it is rows what comes.

        Raises:
            ConfigError: a proxy keeps back the header by which a failure is known.
        """
        body = f"{select} FORMAT CSVWithNames".encode()
        with self._answered(self._reading(settings or {}, body), body) as response:
            if names and not response.headers.get(TAG):
                raise ConfigError(f"{self.address}: {NO_TAG}")
            counter = RowCounter(exact=exact)
            pieces = self._pieces(response)
            if names:
                pieces = beginning_with(header_of(names), pieces)
            yield RowStream(counter.counting(pieces), counter)

    @contextlib.contextmanager
    def result(
        self, query: str | bytes, settings: Mapping[str, object]
    ) -> Iterator[Iterator[bytes]]:
        """Run a query that names a format; give the pieces of its result.

        Whoever takes them has to see by their end whether they are all: of formats that have none,
        servers before 25.11 do not tell a failure in mid-stream for certain.
        """
        body = query.encode() if isinstance(query, str) else query
        with self._answered(self._reading(settings, body), body) as response:
            yield self._pieces(response)

    def _reading(self, settings: Mapping[str, object], query: bytes) -> dict[str, object]:
        """Return the settings of a query that reads a whole chunk, or more."""
        return {
            "readonly": 2,
            "cancel_http_readonly_queries_on_client_close": 1,
            **_room_for(query),
            **self._config.query_settings,
            **OUTPUT_SETTINGS,
            **settings,
        }

    def version(self) -> str:
        """Return the server's.

        Raises:
            ConfigError: something else answers there, or it does not let this user in.
            Unavailable: nothing answers.
        """
        return self.probed()[0]

    def probed(self) -> tuple[str, bool]:
        """Return the server's version, and whether failures are certain to be told; as above."""
        with self._answered(OUTPUT_SETTINGS, b"SELECT version() FORMAT CSVWithNames") as response:
            answer = b"".join(self._pieces(response))
            tagged = bool(response.headers.get(TAG))
        version = re.fullmatch(rb'"version\(\)"\n"([^"]+)"\n', answer)
        if not version:
            raise ConfigError(f"{self.address} is not ClickHouse; check http_url")
        return version[1].decode(), tagged

    def insert(
        self,
        statement: str,
        rows: Iterable[bytes],
        encoding: str,
        *,
        settings: Mapping[str, str],
    ) -> int | None:
        """Insert rows; return how many the server has written, None if that is not known.

        A proxy may keep it back. The statement is the beginning of the body, as the names of many
        columns are longer than proxies let an address be.

        Args:
            statement: `INSERT INTO … FORMAT …`.
            rows: the rest of the body; what it raises ends the request, and nothing may be
                inserted.
            encoding: of the rows, `zstd` or "" for none.
            settings: `Database.insert_settings` of the same server.
        """
        head = f"{statement}\n".encode()
        parameters = {
            **_room_for(head),
            **settings,
            "optimize_on_insert": 0,  # rows with the same key are as many as they were
            "wait_end_of_query": 1,
            **INPUT_SETTINGS,
        }
        headers = {"Content-Encoding": encoding} if encoding else {}
        if encoding:  # frames one after the other are one stream
            head = zstandard.ZstdCompressor().compress(head)
        with self._answered(parameters, itertools.chain([head], rows), headers) as response:
            for _ in self._pieces(response):
                pass
            return written_rows(response.headers.get(SUMMARY, ""))

    @contextlib.contextmanager
    def _answered(
        self,
        settings: Mapping[str, object],
        body: bytes | Iterable[bytes],
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        parameters = {
            "database": self._login.database,
            **SESSION,
            **PROGRESS_SETTINGS,
            **settings,
        }
        with _errors_of_http():
            response = self._pool.request(
                "POST",
                f"{self._login.address}?{urlencode(parameters)}",
                body=body,
                headers=self._headers | dict(headers or {}),
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=self._config.read_timeout),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        try:
            # An answer whose head was begun with progress has a good status in any case.
            if response.status != 200 or EXCEPTION_CODE in response.headers:
                raise _refusal(response)
            yield response
        finally:
            response.close()

    @staticmethod
    def _pieces(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        tail, tag = b"", response.headers.get(TAG, "")
        try:
            with _errors_of_http():
                for piece in response.stream(READ_SIZE, decode_content=False):
                    tail = (tail + piece[-TAIL:])[-TAIL:]
                    yield piece
        except Unavailable as error:
            raise reported_failure(tail, tag) or error from None
        if failure := reported_failure(tail, tag):
            raise failure


def _room_for(statement: bytes) -> dict[str, object]:
    """Return the setting that lets the server parse a statement with the names of many columns."""
    return {"max_query_size": 2 * len(statement)} if len(statement) > LONGEST_STATEMENT else {}


def login_of(db_uri: SecretUrl, http_url: SecretUrl) -> Login:
    """Return the login of the HTTP interface; what `http_url` leaves open is as in `db_uri`."""
    native = urlsplit(db_uri.reveal())
    scheme, port = PORTS[native.scheme]
    host = f"[{native.hostname}]" if ":" in (native.hostname or "") else native.hostname
    parts = urlsplit(http_url.reveal() or f"{scheme}://{host}:{port}/")
    login = parts if parts.username else native
    return Login(
        address=parts._replace(
            netloc=parts.netloc.rpartition("@")[2], path=parts.path or "/"
        ).geturl(),
        user=unquote(login.username or "default"),
        password=unquote(login.password or ""),
        database=unquote(native.path.strip("/")) or "default",
    )


def with_host(address: str, host: str) -> str:
    """Return an address with another host, on the same port."""
    parts = urlsplit(address)
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    port = f":{parts.port}" if parts.port else ""
    return parts._replace(netloc=f"{host}{port}").geturl()


def written_rows(summary: str) -> int | None:
    """Return how many rows the summary of an INSERT has; None if there is none."""
    try:
        return int(json.loads(summary)["written_rows"])
    except (ValueError, TypeError, KeyError):
        return None


def beginning_with(header: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the pieces of a document that begins so.

    Raises:
        Unavailable: it begins otherwise; what the document itself reports comes first.
    """
    start = b""
    for piece in pieces:
        start += piece
        if len(start) >= len(header):
            break
    if not start.startswith(header):
        for _ in pieces:
            pass
        shown = start[:SHOWN].decode(errors="replace")
        raise Unavailable(f"database over HTTP: no rows came, but {shown!r}; is it a proxy's?")
    yield start
    yield from pieces


def reported_failure(tail: bytes, tag: str) -> ScriptError | None:
    """Return the failure that a server has written at the end of a result.

    Rows are data, whatever they contain: they can't know the tag, which is made for this answer.
    A server before 25.11 sends none, and ends with the bare message and its closing bracket. No CSV
    ends so, because text is in quotes there.

    Args:
        tail: the last bytes of the result.
        tag: from the header of the same answer; "" if it has none.
    """
    if tag:
        mark = re.escape(tag.encode())
        block = rb"\r\n__exception__\r\n%b\r\n(.*?)\n\d+ %b\r\n__exception__\s*\Z" % (mark, mark)
        reported = re.search(block, tail, re.DOTALL)
        return _server_error(reported[1]) if reported else None
    text = tail.rstrip()
    starts = [match.start() for match in re.finditer(BARE_EXCEPTION, text)]
    if not starts or not text.endswith(b")"):
        return None
    error = _server_error(text[starts[-1] :])
    # If the connection broke within a value, the code can be one that a row chose.
    return error if isinstance(error, StatementFailed) else Unavailable(str(error))


def _refusal(response: urllib3.BaseHTTPResponse) -> ScriptError:
    """Return the error that an answer without a result stands for."""
    with _errors_of_http():
        text = response.read(TAIL)
    if re.search(rb"Code: \d+", text):
        return _server_error(text)
    where = "check http_url" if response.status in (301, 302, 400, 404) else "try again later"
    return Unavailable(f"database: HTTP {response.status}; {where}")


def _server_error(text: bytes) -> ScriptError:
    message = text.decode(errors="replace").strip()
    code = re.search(r"Code: (\d+)\. ?(.*)", message, re.DOTALL)
    if code:
        return server_error(int(code[1]), code[2])
    return StatementFailed(f"database: {in_one_line(message)}", 0, message)


@contextlib.contextmanager
def _errors_of_http() -> Iterator[None]:
    try:
        yield
    except (HTTPError, OSError) as error:
        cut = isinstance(error, (IncompleteRead, ProtocolError))
        reason = "the connection broke" if cut else reason_of(error)
        raise Unavailable(f"database over HTTP: {reason}") from None
