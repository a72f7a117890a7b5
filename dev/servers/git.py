"""Serve bare git repositories over smart HTTP, as a forge does, and misbehave on request.

The protocol is spoken by the real `git http-backend`. What is added is what a test needs: counts
that tell a listing (`git ls-remote`) from a fetch, and faults: error statuses, answers that never
come, packs that stop or break off in the middle.

    with GitServer(folder) as server:
        subprocess.run(["git", "clone", "--depth=1", server.url("test-lists"), "copy"], check=True)
"""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import parse_headers
from pathlib import Path
from typing import Any, Literal

from dev.samples.git import git_environment
from dev.servers.loopback import HOST, PIECE_BYTES, Exchange, LoopbackServer, Request

GZIP_WINDOW = zlib.MAX_WBITS | 16
GIT_CONFIG = {"safe.directory": "*", "http.getanyfile": "false"}


@dataclass(frozen=True)
class _Fault:
    """One way to misbehave.

    Attributes:
        amount: The HTTP status, or the bytes of pack that come through.
        over: Is set when the server behaves again.
    """

    kind: Literal["none", "status", "hang", "hang in pack", "cut in pack"] = "none"
    amount: int = 0
    over: threading.Event = field(default_factory=threading.Event)


class GitServer(LoopbackServer):
    """Serves the bare repositories below a folder, read-only, on 127.0.0.1.

    Args:
        root: Folder with the repositories, each named `NAME.git`.
    """

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root.resolve()
        self._backend = _find_backend()
        self._lock = threading.Lock()
        self._fault = _Fault()
        self._counts: Counter[str] = Counter()
        self._children: set[subprocess.Popen[bytes]] = set()

    def __exit__(self, *exception: object) -> None:
        """End the server, and what it has started."""
        with self._lock:
            self.stopped.set()
            self._fault.over.set()
            for child in self._children:
                _kill(child)
        super().__exit__(*exception)

    def url(self, name: str) -> str:
        """Give the URL of the repository in the folder `NAME.git`."""
        return f"{self.address}/{name}.git"

    def listings(self) -> int:
        """Count the requests for the list of refs: one for an `ls-remote`, one for a clone."""
        return self._counts["listing"]

    def fetches(self) -> int:
        """Count the requests for a pack: none for an `ls-remote`, one for a clone."""
        return self._counts["pack"]

    def clear(self) -> None:
        """Forget the requests so far."""
        super().clear()
        self._counts.clear()

    def fail_with(self, status: int) -> None:
        """Answer with this HTTP status until `resume`."""
        self._set_fault(_Fault("status", status))

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

    def answer(self, exchange: Exchange) -> None:
        """Let git answer, as well as the fault allows."""
        request, body = exchange.request, b"".join(exchange.body())
        if request.headers.get("Content-Encoding") in {"gzip", "x-gzip"}:
            body = zlib.decompress(body, GZIP_WINDOW)
        asked_for = _asked_for(request, body)
        fault = self._admit(asked_for)
        if fault.kind == "status":
            exchange.answer(fault.amount)
            return
        if fault.kind == "hang":
            fault.over.wait()
        with self._git(request, body) as output:
            _pass(output, exchange, fault if asked_for == "pack" else _Fault())

    def _set_fault(self, fault: _Fault) -> None:
        with self._lock:
            self._fault.over.set()
            self._fault = fault

    def _admit(self, asked_for: str) -> _Fault:
        """Count a request; return the fault for it."""
        with self._lock:
            self._counts[asked_for] += 1
            return self._fault

    @contextlib.contextmanager
    def _git(self, request: Request, body: bytes) -> Iterator[Any]:
        """Run one `git http-backend` as the leader of a process group; give its output."""
        path, _, query = request.target.partition("?")
        protocol = request.headers.get("Git-Protocol", "")
        variables = {
            "GIT_PROJECT_ROOT": str(self._root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": request.method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_ADDR": HOST,
            "HTTP_GIT_PROTOCOL": protocol,
            "GIT_PROTOCOL": protocol,
        }
        # A file, not a pipe: the process may answer before it has read everything.
        with tempfile.TemporaryFile() as file:
            file.write(body)
            file.seek(0)
            with self._lock:
                if self.stopped.is_set():
                    raise ConnectionAbortedError("the server is being stopped")
                child = subprocess.Popen(
                    [self._backend],
                    env=git_environment(GIT_CONFIG) | variables,
                    stdin=file,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
                self._children.add(child)
        with child:
            try:
                yield child.stdout
            finally:
                with self._lock:
                    self._children.discard(child)
                    _kill(child)


def _asked_for(request: Request, body: bytes) -> Literal["listing", "pack", "other"]:
    if request.method == "GET":
        # In protocol 2 this only asks what the server can do; the refs are asked for next.
        version_2 = "version=2" in request.headers.get("Git-Protocol", "")
        return "listing" if "/info/refs?" in request.target and not version_2 else "other"
    lines = [line.rstrip(b"\n") for line in _packet_lines(body)]
    if b"command=ls-refs" in lines:
        return "listing"
    wants_pack = b"done" in lines and any(line.startswith(b"want ") for line in lines)
    return "pack" if wants_pack or b"command=fetch" in lines else "other"


def _packet_lines(body: bytes) -> Iterator[bytes]:
    """Give the data of git's pkt-lines: four hexadecimal digits of length, then the data."""
    position = 0
    while position + 4 <= len(body):
        length = int(body[position : position + 4], 16)
        if length > 4:
            yield body[position + 4 : position + length]
        position += max(length, 4)


def _pass(output: Any, exchange: Exchange, fault: _Fault) -> None:  # noqa: ANN401 (a pipe)
    """Pass the answer on as it comes, but for the fault."""
    headers = dict(parse_headers(output).items())
    headers.pop("Content-Length", None)
    status, _, reason = headers.pop("Status", "200 OK").partition(" ")
    exchange.send_head(int(status), headers | {"Transfer-Encoding": "chunked"}, reason)
    while data := output.read1(PIECE_BYTES):
        left = fault.amount - exchange.request.sent
        if "in pack" in fault.kind and 0 <= left < len(data):
            exchange.send(data[:left])
            if fault.kind == "cut in pack":
                exchange.close()
                return
            fault.over.wait()
            data = data[left:]
        exchange.send(data)
    if exchange.stopped.is_set():
        # The answer may end here because its process was killed: do not let it look whole.
        raise ConnectionAbortedError("the server is being stopped")
    exchange.end()


def _find_backend() -> str:
    answer = subprocess.run(["git", "--exec-path"], capture_output=True, check=True, text=True)
    return str(Path(answer.stdout.strip()) / "git-http-backend")


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End the process group of a child that has not been waited for: its pid is still its own."""
    if child.returncode is None:
        os.killpg(child.pid, signal.SIGKILL)
