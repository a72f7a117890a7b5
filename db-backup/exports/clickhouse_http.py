"""The database's HTTP interface: streams of rows, both ways."""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlencode, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, IncompleteRead, ProtocolError

from backup_config import Config
from exports.csv_rows import OUTPUT_SETTINGS, RowCounter, RowStream
from ooni_common.config import SecretUrl
from ooni_common.database import CONNECT_TIMEOUT, SESSION, StatementFailed, server_error
from ooni_common.errors import ConfigError, ScriptError, Unavailable
from ooni_common.fetch_errors import reason_of
from ooni_common.server_errors import in_one_line
from ooni_common.tls import tls_context

READ_SIZE = 1024 * 1024  # bytes
TAIL = 64 * 1024  # bytes at the end of a result in which an exception is looked for
PORTS = {"clickhouse": ("http", 8123), "clickhouses": ("https", 8443)}
TAG = "X-ClickHouse-Exception-Tag"  # a header: by its value, random each time, a failure is known
BARE_EXCEPTION = rb"Code: \d+\. DB::\w*Exception: "
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
    """Runs one statement at a time over HTTP.

    Args:
        config: the addresses, and the limits of a statement.
        user_agent: names the tool.
    """

    def __init__(self, config: Config, user_agent: str) -> None:
        self._login = login_of(config.db_uri, config.http_url)
        self._config = config
        self._headers = urllib3.make_headers(
            user_agent=user_agent,
            basic_auth=f"{self._login.user}:{self._login.password}",
            basic_auth_encoding="utf-8",
        )
        self._pool = urllib3.PoolManager(ssl_context=tls_context(config.ca_file))

    @property
    def address(self) -> str:
        """Where it is, without the login."""
        return self._login.address

    @contextlib.contextmanager
    def rows(
        self,
        select: str,
        names: Sequence[str] = (),
        *,
        exact: bool = False,
        settings: Mapping[str, int] | None = None,
    ) -> Iterator[RowStream]:
        """Run a query, as RowSource has it, with other settings than are usual."""
        parameters: dict[str, object] = {
            "readonly": 2,
            "cancel_http_readonly_queries_on_client_close": 1,
            **self._config.query_settings,
            **OUTPUT_SETTINGS,
            **(settings or {}),
        }
        body = f"{select} FORMAT CSVWithNames".encode()
        with self._answered(parameters, body) as response:
            counter = RowCounter(exact=exact)
            yield RowStream(counter.counting(self._pieces(response)), counter)

    def version(self) -> str:
        """Return the server's.

        Raises:
            ConfigError: something else answers there, or it does not let this user in.
            Unavailable: nothing answers.
        """
        with self.rows("SELECT version()") as rows:
            answer = b"".join(rows)
        version = re.fullmatch(rb'"version\(\)"\n"([^"]+)"\n', answer)
        if not version:
            raise ConfigError(f"{self.address} is not ClickHouse; check http_url")
        return version[1].decode()

    def insert(
        self,
        statement: str,
        rows: Iterable[bytes],
        encoding: str,
        *,
        settings: Mapping[str, str],
    ) -> int:
        """Insert rows; return how many the server has written.

        Args:
            statement: `INSERT INTO … FORMAT …`.
            rows: the body; what it raises ends the request, and nothing may be inserted.
            encoding: of the body, for example `zstd`.
            settings: `Database.insert_settings` of the same server.
        """
        parameters = {
            "query": statement,
            **settings,
            "optimize_on_insert": 0,  # rows with the same key are as many as they were
            "wait_end_of_query": 1,
            **INPUT_SETTINGS,
        }
        headers = {"Content-Encoding": encoding} if encoding else {}
        with self._answered(parameters, rows, headers) as response:
            for _ in self._pieces(response):
                pass
            written = json.loads(response.headers.get("X-ClickHouse-Summary", "{}"))
            return int(written.get("written_rows", 0))

    @contextlib.contextmanager
    def _answered(
        self,
        settings: Mapping[str, object],
        body: bytes | Iterable[bytes],
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        parameters = {"database": self._login.database} | SESSION | dict(settings)
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
            if response.status != 200:
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
