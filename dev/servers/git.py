"""Serve bare git repositories over smart HTTP, as a forge does, and misbehave on request.

The protocol is spoken by the real `git http-backend`. What is added is what a test needs: a log
that tells a listing (`git ls-remote`) from a fetch, and faults: error statuses, answers that never
come, packs that stop or break off in the middle.

    with GitServer(folder) as server:
        subprocess.run(["git", "clone", "--depth=1", server.url("test-lists"), "copy"], check=True)
"""

import os
import signal
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http.client import parse_headers
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import IO, Any, Literal, Self

from dev.servers.loopback import LoopbackServer

CHUNK_BYTES = 64 * 1024
GZIP_WINDOW = zlib.MAX_WBITS | 16

GIT_CONFIG = {
    "safe.directory": "*",
    "http.receivepack": "false",
    "http.getanyfile": "false",
    "uploadpack.allowFilter": "true",
    "uploadpack.allowAnySHA1InWant": "true",
}


def git_environment(config: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give an environment in which git knows no configuration but the repository's and `config`.

    Args:
        config: Configuration keys and their values.

    Returns:
        This process's environment without its `GIT_*` variables, and with git's isolation in it.
    """
    settings = dict(config or {})
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    for number, (key, value) in enumerate(settings.items()):
        environment[f"GIT_CONFIG_KEY_{number}"] = key
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    return environment


@dataclass(frozen=True)
class _Fault:
    """One way to misbehave; `amount` is the HTTP status or the bytes of pack that come through."""

    kind: Literal["none", "status", "hang", "hang in pack", "cut in pack"] = "none"
    amount: int = 0
    times: int | None = None


@dataclass(frozen=True)
class _Request:
    line: str
    asks_for: Literal["listing", "pack", "other"]


class GitServer:
    """Serves the bare repositories below a folder, read-only, on 127.0.0.1.

    Args:
        root: Folder with the repositories, each named `NAME.git`.
        port: TCP port; 0 takes a free one.
    """

    def __init__(self, root: Path, *, port: int = 0) -> None:
        self._root = root.resolve()
        self._changed = threading.Condition()
        self._log: list[_Request] = []
        self._fault = _Fault()
        self._resumed = threading.Event()
        self._stopped = False
        self._children: set[subprocess.Popen[bytes]] = set()
        self._backend = _find_backend()
        self._http = LoopbackServer(partial(_Handler, self), port=port)

    def __enter__(self) -> Self:
        self._http.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        with self._changed:
            self._stopped = True
            self._resumed.set()
            for child in self._children:
                _kill(child)
        self._http.stop()

    def url(self, name: str) -> str:
        """Give the URL of the repository in the folder `NAME.git`."""
        return f"http://127.0.0.1:{self._http.server_port}/{name}.git"

    @property
    def requests(self) -> list[str]:
        """All requests so far, as "METHOD path?query", also those that got no answer."""
        with self._changed:
            return [request.line for request in self._log]

    def listings(self) -> int:
        """Count the requests for the list of refs: one for an `ls-remote`, one for a clone."""
        return self._count("listing")

    def fetches(self) -> int:
        """Count the requests for a pack: none for an `ls-remote`, one for a clone."""
        return self._count("pack")

    def wait_for_requests(self, count: int = 1, *, timeout: float = 10) -> None:
        """Wait until that many requests have come in.

        Raises:
            TimeoutError: They had not after `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._log) >= count, timeout):
                raise TimeoutError(f"{len(self._log)} of {count} requests after {timeout} s")

    def clear(self) -> None:
        """Forget the requests so far."""
        with self._changed:
            self._log.clear()

    def fail_with(self, status: int, *, times: int | None = None) -> None:
        """Answer with this HTTP status: the next `times` requests, or all until `resume`."""
        self._set_fault(_Fault("status", status, times))

    def hang(self, *, after: int | None = None) -> None:
        """Accept requests and answer none until `resume`.

        Args:
            after: Answer, but stop in the middle of a pack after this number of bytes.
        """
        self._set_fault(_Fault("hang") if after is None else _Fault("hang in pack", after))

    def cut(self, *, after: int) -> None:
        """Close the connection in the middle of a pack after this number of bytes."""
        self._set_fault(_Fault("cut in pack", after))

    def resume(self) -> None:
        """Behave again; requests that hang are answered now."""
        self._set_fault(_Fault())

    def _set_fault(self, fault: _Fault) -> None:
        with self._changed:
            self._fault = fault
            self._resumed.set()
            self._resumed = threading.Event()

    def _count(self, asks_for: str) -> int:
        with self._changed:
            return sum(request.asks_for == asks_for for request in self._log)

    def _admit(self, request: _Request) -> tuple[_Fault, threading.Event]:
        """Log a request and say how to misbehave on it, and what ends its waiting."""
        with self._changed:
            self._log.append(request)
            self._changed.notify_all()
            fault = self._fault
            if fault.times is not None:
                left = fault.times - 1
                self._fault = _Fault(fault.kind, fault.amount, left) if left > 0 else _Fault()
            return fault, self._resumed

    def _is_stopped(self) -> bool:
        with self._changed:
            return self._stopped

    def _start_backend(
        self, variables: Mapping[str, str], body: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        """Start one `git http-backend` as the leader of a process group.

        Raises:
            ConnectionAbortedError: The server is being stopped.
        """
        environment = git_environment(GIT_CONFIG) | dict(variables)
        environment |= {"GIT_PROJECT_ROOT": str(self._root), "GIT_HTTP_EXPORT_ALL": "1"}
        with self._changed:
            if self._stopped:
                raise ConnectionAbortedError("the server is being stopped")
            child = subprocess.Popen(
                [self._backend],
                env=environment,
                stdin=body,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._children.add(child)
        return child

    def _end_backend(self, child: subprocess.Popen[bytes]) -> None:
        """End the process and what it has started, unless it has ended."""
        with self._changed:
            self._children.discard(child)
            _kill(child)
        if child.stdout:
            child.stdout.close()
        child.wait()


class _Handler(BaseHTTPRequestHandler):
    """One connection of a git client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, owner: GitServer, *arguments: Any) -> None:  # noqa: ANN401 - passed through
        self._owner = owner
        super().__init__(*arguments)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - as in the base class
        """Stay silent: the requests are in `GitServer.requests`."""

    def do_GET(self) -> None:
        """Answer a request for the refs."""
        self._serve(b"")

    def do_POST(self) -> None:
        """Answer a request of the git protocol."""
        self._serve(_decoded(self._read_body(), self.headers.get("Content-Encoding", "")))

    def _serve(self, body: bytes) -> None:
        request = _Request(f"{self.command} {self.path}", self._classify(body))
        fault, resumed = self._owner._admit(request)  # noqa: SLF001 - the owner's other half
        if fault.kind == "status":
            self.send_error(fault.amount)
            return
        if fault.kind == "hang":
            resumed.wait()
        self._run_backend(body, fault if request.asks_for == "pack" else _Fault(), resumed)

    def _classify(self, body: bytes) -> Literal["listing", "pack", "other"]:
        if self.command == "GET":
            # In protocol 2 this only asks what the server can do; the refs are asked for next.
            is_listing = "/info/refs?" in self.path and not self._speaks_version_2()
            return "listing" if is_listing else "other"
        lines = [line.rstrip(b"\n") for line in _packet_lines(body)]
        if b"command=ls-refs" in lines:
            return "listing"
        wants_pack = b"done" in lines and any(line.startswith(b"want ") for line in lines)
        return "pack" if wants_pack or b"command=fetch" in lines else "other"

    def _speaks_version_2(self) -> bool:
        return "version=2" in self.headers.get("Git-Protocol", "")

    def _run_backend(self, body: bytes, fault: _Fault, resumed: threading.Event) -> None:
        # A file, not a pipe: the process may answer before it has read everything.
        with tempfile.TemporaryFile() as file:
            file.write(body)
            file.seek(0)
            child = self._owner._start_backend(self._cgi_variables(len(body)), file)  # noqa: SLF001 - its other half
        try:
            if child.stdout:
                self._send_answer(child.stdout, fault, resumed)
        finally:
            self._owner._end_backend(child)  # noqa: SLF001 - its other half

    def _cgi_variables(self, body_bytes: int) -> dict[str, str]:
        path, _, query = self.path.partition("?")
        protocol = self.headers.get("Git-Protocol", "")
        return {
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(body_bytes),
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_GIT_PROTOCOL": protocol,
            "GIT_PROTOCOL": protocol,
        }

    def _send_answer(self, answer: IO[bytes], fault: _Fault, resumed: threading.Event) -> None:
        headers = parse_headers(answer)
        status, _, reason = headers.get("Status", "200 OK").partition(" ")
        self.send_response(int(status), reason)
        for key, value in headers.items():
            if key.lower() not in {"status", "content-length"}:
                self.send_header(key, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = 0
        while data := answer.read1(CHUNK_BYTES):  # type: ignore[attr-defined]  # IO lacks it, a pipe has it
            if "in pack" in fault.kind and sent <= fault.amount < sent + len(data):
                before, data = data[: fault.amount - sent], data[fault.amount - sent :]
                self._send_chunk(before)
                if fault.kind == "cut in pack":
                    self.close_connection = True
                    return
                resumed.wait()
            self._send_chunk(data)
            sent += len(data)
        if self._owner._is_stopped():  # noqa: SLF001 - its other half
            # The answer may end here because its process was killed: do not let it look whole.
            raise ConnectionAbortedError("the server is being stopped")
        self.wfile.write(b"0\r\n\r\n")

    def _send_chunk(self, data: bytes) -> None:
        if data:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(chunks)


def _decoded(body: bytes, encoding: str) -> bytes:
    return zlib.decompress(body, GZIP_WINDOW) if encoding in {"gzip", "x-gzip"} else body


def _packet_lines(body: bytes) -> Iterator[bytes]:
    """Give the data of git's pkt-lines: four hexadecimal digits of length, then the data."""
    position = 0
    while position + 4 <= len(body):
        length = int(body[position : position + 4], 16)
        if length > 4:
            yield body[position + 4 : position + length]
        position += max(length, 4)


def _find_backend() -> str:
    answer = subprocess.run(["git", "--exec-path"], capture_output=True, check=True, text=True)
    return str(Path(answer.stdout.strip()) / "git-http-backend")


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End the process group of a child that has not been waited for: its pid is still its own."""
    if child.returncode is None:
        os.killpg(child.pid, signal.SIGKILL)
