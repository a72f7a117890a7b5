"""A file is fetched whole or not at all, whatever the server does; no message shows a secret."""

import errno
import io
import logging
import os
import traceback
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import asnmeta_updater
import geoip_config
from dev.servers.misbehaving import (
    Behaviour,
    Certificate,
    MisbehavingServer,
    body,
    cut,
    drip,
    gzipped,
    raw,
    redirect,
    sequence,
    short_body,
    silence,
    stall,
    status,
    undeclared_body,
    unfinished_chunks,
    zeros,
)
from ooni_common.config import SecretUrl
from ooni_common.errors import ConfigError, DataRefused, ScriptError, Unavailable
from ooni_common.fetch import Fetcher, Limits, Validators
from ooni_common.fetch_errors import NotFound

MEGABYTE = 1024 * 1024
CHANGED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CONTENT = bytes(range(256)) * 1000

RETRIES = 2
LIMITS = Limits(max_bytes=MEGABYTE, retries=RETRIES, backoff=0.001, read_timeout=30)
IMPATIENT = replace(LIMITS, read_timeout=0.2, retries=1)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as running:
        yield running


def fetcher(limits: Limits = LIMITS, *, ca_file: Path | None = None) -> Fetcher:
    return Fetcher("ooni-tool/1.0", limits, ca_file=ca_file)


def fetch(url: str, limits: Limits = LIMITS, *, ca_file: Path | None = None) -> bytes:
    """Return the body."""
    sink = io.BytesIO()
    assert fetcher(limits, ca_file=ca_file).fetch(SecretUrl(url), sink) is not None
    return sink.getvalue()


def failure(
    kind: type[ScriptError], url: str, limits: Limits = LIMITS, *, ca_file: Path | None = None
) -> str:
    """Return the message, which is one line and starts with the URL, without the URL."""
    with pytest.raises(kind) as caught:
        fetch(url, limits, ca_file=ca_file)
    address, message = str(caught.value).split(": ", 1)
    assert address == str(SecretUrl(url))
    assert len(message.splitlines()) == 1
    return message


# --- what is fetched ---


@pytest.mark.parametrize(
    ("behaviour", "content"),
    [
        (body(CONTENT), CONTENT),
        (body(b""), b""),
        (undeclared_body(CONTENT), CONTENT),
        (zeros(MEGABYTE), bytes(MEGABYTE)),
    ],
    ids=["declared", "empty", "until-the-end-of-the-connection", "as-large-as-allowed"],
)
def test_the_body_arrives_as_it_was_sent(
    server: MisbehavingServer, behaviour: Behaviour, content: bytes
) -> None:
    assert fetch(server.route("/x", behaviour)) == content


def test_a_chunked_body_arrives_without_its_framing(server: MisbehavingServer) -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n"
    )
    assert fetch(server.route("/x", raw(answer))) == b"abcde"


def test_the_request_names_the_tool_and_asks_for_no_encoding(server: MisbehavingServer) -> None:
    fetch(server.route("/x", body(b"data")) + "?a=b%20c")
    [request] = server.requests
    assert request.target == "/x?a=b%20c"
    assert request.headers["User-Agent"] == "ooni-tool/1.0"
    assert request.headers["Accept-Encoding"] == "identity"
    assert "Authorization" not in request.headers


def test_user_and_password_of_the_url_are_sent_as_basic_auth(server: MisbehavingServer) -> None:
    url = server.route("/x", body(b"data"))
    for user, encoded in (
        ("joe:s%3Acret%2F", "am9lOnM6Y3JldC8="),
        ("joe:s%C3%A9cret", "am9lOnPDqWNyZXQ="),
        ("token", "dG9rZW46"),
    ):
        server.clear()
        fetch(url.replace("://", f"://{user}@"))
        assert server.requests[0].headers["Authorization"] == f"Basic {encoded}"
        assert server.requests[0].headers["Host"] == urlsplit(url).netloc


@pytest.mark.parametrize(
    ("behaviour", "validators"),
    [
        (body(CONTENT, etag='"v1"'), Validators(etag='"v1"')),
        (
            body(CONTENT, last_modified=CHANGED),
            Validators(last_modified="Fri, 02 Jan 2026 03:04:05 GMT"),
        ),
    ],
    ids=["etag", "last-modified"],
)
def test_an_unchanged_file_is_not_fetched_again(
    server: MisbehavingServer, behaviour: Behaviour, validators: Validators
) -> None:
    url = SecretUrl(server.route("/x", behaviour))
    sink = io.BytesIO()
    assert fetcher().fetch(url, sink) == validators
    assert sink.getvalue() == CONTENT
    again = io.BytesIO()
    assert fetcher().fetch(url, again, validators) is None
    assert again.getvalue() == b""


@pytest.mark.parametrize("odd", ["a\r\nX: y", "a\n", "\u20ac", "\x00", " a", "\x7f"])
def test_a_validator_that_no_header_can_have_is_not_sent(odd: str) -> None:
    assert Validators(odd, odd).as_headers() == {}
    assert Validators('W/"\xe9 1"', odd).as_headers() == {"If-None-Match": 'W/"\xe9 1"'}


def test_a_changed_file_is_fetched_with_its_new_validators(server: MisbehavingServer) -> None:
    url = SecretUrl(server.route("/x", body(CONTENT, etag='"v2"', last_modified=CHANGED)))
    sink = io.BytesIO()
    new = fetcher().fetch(url, sink, Validators(etag='"v1"'))
    assert new == Validators('"v2"', "Fri, 02 Jan 2026 03:04:05 GMT")
    assert sink.getvalue() == CONTENT


def test_not_modified_as_an_answer_to_an_unconditional_request_is_a_failure(
    server: MisbehavingServer,
) -> None:
    assert failure(Unavailable, server.route("/x", status(304))) == "HTTP 304 Not Modified"


# --- file:// ---


def test_a_local_file_is_read_and_not_again_while_it_is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    path.write_bytes(CONTENT)
    url = SecretUrl(path.as_uri())
    sink = io.BytesIO()
    validators = fetcher().fetch(url, sink)
    assert validators
    assert sink.getvalue() == CONTENT
    assert fetcher().fetch(url, io.BytesIO(), validators) is None
    path.write_bytes(CONTENT + b"more")
    assert fetcher().fetch(url, sink, validators) not in (None, validators)


def test_a_local_file_that_cannot_be_read_is_a_clear_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    url = tmp_path.as_uri()
    assert failure(NotFound, f"{url}/missing") == "no such file"
    assert failure(Unavailable, url) == "Is a directory"
    assert failure(Unavailable, f"{url}/file/x") == "Not a directory"


@pytest.mark.parametrize("url", ["file:///dev/zero", "sparse"])
def test_a_local_file_that_is_too_large_is_refused(tmp_path: Path, url: str) -> None:
    if url == "sparse":
        with (tmp_path / "sparse").open("wb") as file:
            file.truncate(MEGABYTE + 1)
        url = (tmp_path / "sparse").as_uri()
    assert failure(DataRefused, url) == "larger than 1,048,576 bytes"


# --- failures that pass ---


@pytest.mark.parametrize(
    "bad",
    [
        status(500),
        status(502, content=b"x" * 100_000),
        status(503),
        status(504),
        status(429),
        cut(),
        cut(reset=True),
        raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
        short_body(CONTENT + b"more", declared=len(CONTENT) + 100),
        unfinished_chunks(CONTENT + b"more"),
    ],
    ids=["500", "502", "503", "504", "429", "cut", "reset", "ssh", "short", "chunks"],
)
def test_after_a_passing_failure_the_body_is_exactly_that_of_the_next_try(
    server: MisbehavingServer, bad: Behaviour
) -> None:
    url = server.route("/x", sequence(bad, bad, body(CONTENT)))
    assert fetch(url) == CONTENT
    assert len(server.requests) == 3


def test_after_a_stall_the_body_is_exactly_that_of_the_next_try(server: MisbehavingServer) -> None:
    url = server.route("/x", sequence(stall(CONTENT, after=1000), body(b"short")))
    assert fetch(url, replace(IMPATIENT, retries=20)) == b"short"


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (status(500), "HTTP 500 Internal Server Error"),
        (status(503), "HTTP 503 Service Unavailable"),
        (status(429), "HTTP 429 Too Many Requests"),
        (cut(), "the connection broke: closed without an answer"),
        (cut(reset=True), "the connection broke: Connection reset by peer"),
        (raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "the connection broke: the answer is not HTTP"),
        (short_body(b"abc", declared=10), "the connection broke: the body ended too early"),
        (short_body(b"", declared=10), "the connection broke: the body ended too early"),
        (unfinished_chunks(b"abc"), "the connection broke: the body ended too early"),
        (silence(), "the server sent nothing for too long"),
        (stall(CONTENT, after=1000), "the server sent nothing for too long"),
    ],
)
def test_a_failure_that_does_not_pass_is_reported_after_the_retries(
    server: MisbehavingServer, caplog: pytest.LogCaptureFixture, behaviour: Behaviour, message: str
) -> None:
    url = server.route("/x", behaviour)
    limits = IMPATIENT if "too long" in message else LIMITS
    assert failure(Unavailable, url, limits) == message
    assert len(caplog.records) == limits.retries


def test_each_retry_is_logged_with_its_reason(
    server: MisbehavingServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.route("/x", sequence(status(503), cut(), body(b"data")))
    fetch(url)
    assert [record.getMessage() for record in caplog.records] == [
        f"{url}: HTTP 503 Service Unavailable; trying again in 0.001 s",
        f"{url}: the connection broke: closed without an answer; trying again in 0.002 s",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


@dataclass
class Time:
    """A clock that only sleeping moves on."""

    now: float = 1000
    sleeps: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def sleeps_before_failing(url: str, limits: Limits) -> list[float]:
    time = Time()
    patient = Fetcher("ooni-tool/1.0", limits, clock=lambda: time.now, sleep=time.sleep)
    with pytest.raises(Unavailable):
        patient.fetch(SecretUrl(url), io.BytesIO())
    return time.sleeps


def test_the_time_between_tries_doubles(server: MisbehavingServer) -> None:
    url = server.route("/x", status(503))
    assert sleeps_before_failing(url, Limits(1000)) == [1, 2, 4, 8]


@pytest.mark.parametrize(
    "limits", [asnmeta_updater.LIMITS, geoip_config.LIMITS], ids=["asn", "geoip"]
)
def test_a_job_that_runs_once_a_day_outlasts_an_outage_of_two_minutes(
    server: MisbehavingServer, limits: Limits
) -> None:
    assert sum(sleeps_before_failing(server.route("/x", status(503)), limits)) > 120


def test_no_try_begins_after_the_total_time(server: MisbehavingServer) -> None:
    url = server.route("/x", status(503))
    assert sleeps_before_failing(url, Limits(1000, total_time=6)) == [1, 2]


def test_a_server_that_says_when_to_come_back_is_heeded(server: MisbehavingServer) -> None:
    limits = Limits(1000, retries=1)
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    for header, least, most in (("7", 7, 7), (date, 20, 60), ("0", 1, 1), ("soon", 1, 1)):
        url = server.route("/x", status(429, headers={"Retry-After": header}))
        [seconds] = sleeps_before_failing(url, limits)
        assert least <= seconds <= most


def test_a_server_that_wants_a_long_pause_is_left_to_the_next_run(
    server: MisbehavingServer,
) -> None:
    url = server.route("/x", status(429, headers={"Retry-After": "3600"}))
    assert failure(Unavailable, url) == "HTTP 429 Too Many Requests; it asks to wait for 3600 s"
    assert sleeps_before_failing(url, Limits(1000, total_time=10_000)) == []


# --- failures that stay ---


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (400, Unavailable, "HTTP 400 Bad Request"),
        (401, Unavailable, "HTTP 401 Unauthorized"),
        (403, Unavailable, "HTTP 403 Forbidden"),
        (404, NotFound, "HTTP 404 Not Found"),
        (410, NotFound, "HTTP 410 Gone"),
        (206, Unavailable, "HTTP 206 Partial Content"),
        (599, Unavailable, "HTTP 599"),
    ],
)
def test_a_refusal_is_reported_without_a_retry(
    server: MisbehavingServer, code: int, kind: type[Unavailable], message: str
) -> None:
    assert failure(kind, server.route("/x", status(code))) == message
    assert len(server.requests) == 1


def test_only_a_missing_file_is_not_found(server: MisbehavingServer) -> None:
    with pytest.raises(Unavailable) as caught:
        fetch(server.route("/x", status(403)))
    assert not isinstance(caught.value, NotFound)


def test_a_body_that_drips_is_ended_by_the_total_time(server: MisbehavingServer) -> None:
    url = server.route("/x", drip(CONTENT, interval=0.01))
    message = failure(Unavailable, url, replace(LIMITS, total_time=0.5))
    assert message == "took longer than 0.5 s"
    assert len(server.requests) == 1


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_too_large_is_refused_before_it_fills_the_disk(
    server: MisbehavingServer, tmp_path: Path, declared: bool
) -> None:
    url = server.route("/x", zeros(100 * MEGABYTE, declared=declared))
    with (tmp_path / "sink").open("wb") as sink, pytest.raises(DataRefused) as caught:
        fetcher().fetch(SecretUrl(url), sink)
    assert str(caught.value) == f"{url}: larger than 1,048,576 bytes"
    assert (tmp_path / "sink").stat().st_size <= (0 if declared else MEGABYTE)
    assert len(server.requests) == 1


def test_a_large_body_takes_little_memory(server: MisbehavingServer, tmp_path: Path) -> None:
    size = 32 * MEGABYTE
    url = SecretUrl(server.route("/x", zeros(size)))
    roomy = fetcher(replace(LIMITS, max_bytes=size))
    tracemalloc.start()
    try:
        with (tmp_path / "sink").open("wb") as sink:
            roomy.fetch(url, sink)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "sink").stat().st_size == size
    assert peak < 4 * MEGABYTE


def test_an_encoding_that_nobody_asked_for_is_refused(server: MisbehavingServer) -> None:
    assert failure(DataRefused, server.route("/x", gzipped(b"data"))) == (
        "sent with Content-Encoding 'gzip', which nobody asked for"
    )
    assert fetch(server.route("/x", body(b"a", headers={"Content-Encoding": "Identity"}))) == b"a"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1/x", "can't connect: Connection refused"),
        ("http://no-such-host.invalid/x", "the host's name can't be resolved"),
        ("http://127.0.0.1:99999/x?key=secret", "not a valid URL"),
        ("http://a..b/x", "not a valid URL"),
    ],
)
def test_a_server_that_cannot_be_reached_is_unavailable(url: str, message: str) -> None:
    assert failure(Unavailable, url) == message


def test_another_scheme_is_a_matter_of_the_configuration() -> None:
    assert failure(ConfigError, "ftp://h/x") == "expected https://…, http://… or file://…"


def test_a_full_disk_is_not_called_a_failure_of_the_network(server: MisbehavingServer) -> None:
    url = SecretUrl(server.route("/x", body(CONTENT)))
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError) as caught:  # noqa: PT011 (the errno is compared)
        fetcher().fetch(url, full)
    assert caught.value.errno == errno.ENOSPC
    assert len(server.requests) == 1


# --- redirects ---


def test_redirects_are_followed(server: MisbehavingServer) -> None:
    server.route("/data", body(CONTENT, etag='"v1"'))
    server.route("/b", redirect("data", code=308))
    url = server.route("/a", redirect(server.url("/b")))
    assert fetch(url) == CONTENT
    validators = Validators(etag='"v1"')
    assert fetcher().fetch(SecretUrl(url), io.BytesIO(), validators) is None


def test_redirects_cost_no_retries(server: MisbehavingServer) -> None:
    server.route("/data", sequence(status(503), status(503), body(CONTENT)))
    assert fetch(server.route("/a", redirect("/data"))) == CONTENT


def test_a_redirect_loop_is_ended(server: MisbehavingServer) -> None:
    assert (
        failure(Unavailable, server.route("/a", redirect("/a"))) == "redirected more than 5 times"
    )
    assert len(server.requests) == 6


def test_a_redirect_with_an_endless_body_is_followed_without_reading_it(
    server: MisbehavingServer,
) -> None:
    server.route("/data", body(CONTENT))
    head = b"HTTP/1.1 302 Found\r\nLocation: /data\r\nContent-Length: 999999999\r\n\r\n"
    assert fetch(server.route("/a", raw(head + b"x"))) == CONTENT


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("ftp://h/x", "redirected from http to ftp"),
        ("file:///etc/passwd", "redirected from http to file"),
        ("http://[h/x", "redirected to something that isn't a URL"),
        ("http://h:99999/?key=secret", "not a valid URL"),
    ],
)
def test_a_redirect_to_what_cannot_be_fetched_is_a_failure(
    server: MisbehavingServer, location: str, message: str
) -> None:
    assert failure(Unavailable, server.route("/a", redirect(location))) == message


def test_a_redirect_never_leads_from_https_to_http(server: MisbehavingServer) -> None:
    plain = server.route("/x", body(CONTENT))
    with MisbehavingServer(tls="private-ca") as safe:
        url = safe.route("/a", redirect(plain))
        message = failure(Unavailable, url, ca_file=safe.ca_file)
    assert message == "redirected from https to http"
    assert server.requests == []


def test_a_redirect_may_lead_from_http_to_https(server: MisbehavingServer) -> None:
    with MisbehavingServer(tls="private-ca") as safe:
        url = server.route("/a", redirect(safe.route("/x", body(CONTENT))))
        assert fetch(url, ca_file=safe.ca_file) == CONTENT


def test_a_redirect_takes_the_password_to_the_same_host_only(server: MisbehavingServer) -> None:
    with MisbehavingServer() as other:
        elsewhere = other.route("/x", redirect(server.route("/back", body(CONTENT))))
        server.route("/b", redirect(elsewhere))
        url = server.route("/a", redirect("/b")).replace("://", "://joe:secret@")
        assert fetch(url) == CONTENT
        [at_other] = other.requests
    authorized = {request.target: "Authorization" in request.headers for request in server.requests}
    assert authorized == {"/a": True, "/b": True, "/back": False}
    assert "Authorization" not in at_other.headers


# --- TLS ---


def test_a_private_ca_is_accepted_when_its_file_is_given() -> None:
    with MisbehavingServer(tls="private-ca") as server:
        url = server.route("/x", body(CONTENT))
        assert fetch(url, ca_file=server.ca_file) == CONTENT
        assert failure(Unavailable, url) == (
            "TLS: the certificate is refused: unable to get local issuer certificate"
        )
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("self-signed", "self-signed certificate"),
        ("expired", "certificate has expired"),
        (
            "wrong-host",
            "IP address mismatch, certificate is not valid for '127.0.0.1'",
        ),
    ],
)
def test_a_certificate_that_does_not_verify_is_refused_without_a_retry(
    caplog: pytest.LogCaptureFixture, kind: Certificate, message: str
) -> None:
    with MisbehavingServer(tls=kind) as server:
        url = server.route("/x", body(CONTENT))
        expected = f"TLS: the certificate is refused: {message}"
        assert failure(Unavailable, url, ca_file=server.ca_file) == expected
        assert server.requests == []
    assert caplog.records == []


def test_a_server_that_speaks_no_tls_is_unavailable(server: MisbehavingServer) -> None:
    url = server.route("/x", body(CONTENT)).replace("http:", "https:")
    assert failure(Unavailable, url) == "TLS: wrong version number"


def test_a_ca_file_that_is_none_is_a_matter_of_the_configuration(tmp_path: Path) -> None:
    no_certificate = tmp_path / "ca.pem"
    no_certificate.write_text("hello")
    for path, reason in (
        (no_certificate, "holds no certificate in PEM format"),
        (tmp_path / "missing", "No such file or directory"),
    ):
        with pytest.raises(ConfigError) as caught:
            fetcher(ca_file=path)
        assert str(caught.value) == f"ca_file {path}: {reason}"


# --- proxies ---


def test_the_proxy_of_the_environment_is_used(
    server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.route("http://data.example/x", body(CONTENT))
    for address in (server.url(""), urlsplit(server.url()).netloc):
        monkeypatch.setenv("http_proxy", address)
        assert fetch("http://data.example/x") == CONTENT


def test_the_proxy_is_told_its_own_password_and_the_server_its_own(
    server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url("").replace("://", "://pr%6Fxy:pw@"))
    server.route("http://data.example/x", body(CONTENT))
    assert fetch("http://joe:secret@data.example/x") == CONTENT
    headers = server.requests[0].headers
    assert headers["Proxy-Authorization"] == "Basic cHJveHk6cHc="
    assert headers["Authorization"] == "Basic am9lOnNlY3JldA=="


def test_hosts_in_no_proxy_are_fetched_directly_also_after_a_redirect(
    server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MisbehavingServer() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url(""))
        monkeypatch.setenv("no_proxy", "127.0.0.1,internal.example")
        direct = server.route("/x", body(CONTENT))
        assert fetch(direct) == CONTENT
        assert proxy.requests == []
        proxy.route("http://data.example/x", redirect(direct))
        assert fetch("http://data.example/x") == CONTENT
        assert [request.target for request in proxy.requests] == ["http://data.example/x"]


@pytest.mark.parametrize("variable", ["all_proxy", "ALL_PROXY", "HTTP_PROXY"])
def test_all_proxy_is_used_and_networks_in_no_proxy_are_fetched_directly(
    variable: str, server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MisbehavingServer() as proxy:
        monkeypatch.setenv(variable, proxy.url(""))
        proxy.route("http://data.example/x", body(b"via the proxy"))
        assert fetch("http://data.example/x") == b"via the proxy"
        monkeypatch.setenv("no_proxy", "10.0.0.0/8,127.0.0.0/8")
        assert fetch(server.route("/x", body(b"directly"))) == b"directly"


def test_https_goes_through_a_tunnel_of_the_proxy(
    server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", server.url(""))
    assert failure(Unavailable, "https://data.example/x") == (
        "the proxy: Tunnel connection failed: 501 Unsupported method ('CONNECT')"
    )


def test_a_proxy_that_is_down_or_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://joe:secret@127.0.0.1:1")
    assert failure(Unavailable, "http://h/x") == "the proxy: can't connect: Connection refused"
    monkeypatch.setenv("http_proxy", "socks5://joe:secret@127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"^http_proxy in the environment: expected http://host"):
        fetch("http://h/x")


# --- secrets ---


@pytest.mark.parametrize(
    "behaviour",
    [
        status(503),
        status(404),
        cut(),
        cut(reset=True),
        short_body(b"abc", declared=10),
        raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
        stall(CONTENT, after=10),
        zeros(2 * MEGABYTE),
        gzipped(b"data"),
        redirect("/x?key=hidden-key"),
        redirect("http://joe:hidden-password@h:99999/?key=hidden-key"),
        redirect("http://joe:hidden-password@127.0.0.1:1/?key=hidden-key"),
    ],
)
def test_no_message_or_log_line_shows_a_secret_of_the_url(
    server: MisbehavingServer, caplog: pytest.LogCaptureFixture, behaviour: Behaviour
) -> None:
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "ooni")
    url = (
        server.route("/x", behaviour).replace("://", "://joe:hidden-password@") + "?key=hidden-key"
    )
    with pytest.raises(ScriptError) as caught:
        fetch(url, IMPATIENT)
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "/x?key=***: " in shown
    assert "hidden" not in shown
    assert "am9lOmhpZGRlbi1wYXNzd29yZA" not in shown
