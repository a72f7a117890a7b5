"""Reading files out of a git repository that nobody trusts.

The repository is cloned bare and never checked out: its files are listed and read as objects, so
that links, filters, hooks, submodules and odd names in it have nothing to act on. They are refused
all the same, because a repository that has them is not the one that is expected.
"""

import base64
import contextlib
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO
from urllib.parse import SplitResult

from ooni_common.errors import ConfigError, DataRefused, TryAgainLater, Unavailable
from ooni_common.proxies import proxy_of

MIB = 2**20
MAX_FILE_BYTES = 10 * MIB  # of any file in the repository; the largest list has 0.2 MB
MAX_FILES = 10_000
MAX_OUTPUT_BYTES = 64 * MIB  # of one git command
MAX_CLONE_BYTES = 256 * MIB

SYMLINK, GITLINK = "120000", "160000"  # modes of tree entries
GIT_HOOK = re.compile(
    r"(^|/)\.?(git)?hooks/(applypatch|commit|fsmonitor|post|pre|prepare|push|reference|sendemail|update)"
)

# Only what is here decides what git does: no configuration of the machine, of the user, or of a
# template; no prompts, credentials, hooks, filters or other programs.
SETTINGS = {
    "core.askPass": "true",
    "core.bigFileThreshold": "1m",  # larger objects are streamed instead of held in memory
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "core.symlinks": "false",
    "credential.helper": "",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "protocol.allow": "never",
    "protocol.file.allow": "always",
    "protocol.http.allow": "always",
    "protocol.https.allow": "always",
    "submodule.recurse": "false",
}
PASSED_ON = ("PATH", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True)
class TreeEntry:
    """A file in a commit: its mode and object as git has them, its size in bytes."""

    path: str
    mode: str
    oid: str
    size: int


class Git:
    """Runs git commands within one time limit for all of them together.

    Args:
        time_limit: seconds for all commands together; what lies between them does not count.
        ca_file: a private CA, beside those in /etc/ssl/certs that Debian's git trusts.
        token: lets into a private mirror; see `authorization`.
        proxies: variables that say which proxy leads to the repository, if any does.
        stops_deferred: holds the signals that stop the run back within its block.
    """

    def __init__(
        self,
        time_limit: float,
        *,
        ca_file: Path | None = None,
        token: str = "",
        proxies: Mapping[str, str] = MappingProxyType({}),
        stops_deferred: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._stops_deferred = stops_deferred
        self._time_limit = time_limit
        self._seconds_left = time_limit
        self._environment = _environment(os.environ, ca_file, token) | dict(proxies)

    def run(self, *arguments: str, max_bytes: int = MAX_OUTPUT_BYTES) -> bytes:
        """Run one git command, and return what it printed; for the rest see `printed_by`."""
        with self.printed_by(*arguments, max_bytes=max_bytes) as printed:
            return printed.read()

    @contextlib.contextmanager
    def printed_by(
        self, *arguments: str, stdin: bytes = b"", max_bytes: int = MAX_OUTPUT_BYTES
    ) -> Iterator[BinaryIO]:
        """Run one git command, and give what it printed as a file.

        No file that it writes may be larger than `max_bytes`. Its child processes end with it.

        Raises:
            Unavailable: it failed, or the time limit ended it.
            DataRefused: something is larger than allowed.
            TryAgainLater: the disk is full.
            ConfigError: there is no git.
        """
        with _memory_file() as given, _memory_file() as printed, _memory_file() as complaints:
            given.write(stdin)
            given.seek(0)
            status = self._wait(arguments, (given, printed, complaints), max_bytes)
            if status != 0:
                raise _failure(arguments[0], status, _text_of(complaints))
            printed.seek(0)
            yield printed

    def _wait(self, arguments: Sequence[str], streams: tuple[BinaryIO, ...], max_bytes: int) -> int:
        with contextlib.ExitStack() as ending:
            with self._stops_deferred():  # git may be at work before it is known that it is
                process = self._start(arguments, streams)
                ending.callback(_end, process)
            with contextlib.suppress(ProcessLookupError):  # it has ended already
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (max_bytes, max_bytes))
            began = time.monotonic()
            ended = _ended_within(process.pid, self._seconds_left)
            self._seconds_left -= time.monotonic() - began
            if not ended:
                raise Unavailable(
                    f"git {arguments[0]}: not done after {self._time_limit:g} s, ended it"
                )
        return process.returncode

    def _start(
        self, arguments: Sequence[str], streams: tuple[BinaryIO, ...]
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                ["git", *arguments],
                stdin=streams[0],
                stdout=streams[1],
                stderr=streams[2],
                env=self._environment,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise ConfigError("git is not installed, or not on PATH") from None


class Clone:
    """A commit of a repository, as a bare shallow clone."""

    def __init__(self, git: Git, folder: Path) -> None:
        self._git = git
        self._folder = f"--git-dir={folder}"
        self.commit = git.run(self._folder, "rev-parse", "HEAD").decode().strip()

    def entries(self) -> list[TreeEntry]:
        """Return every file of the commit.

        Raises:
            DataRefused: for a file that a repository of plain files does not have.
        """
        listing = self._git.run(self._folder, "ls-tree", "-r", "-z", "-l", "--full-tree", "HEAD")
        lines = listing.decode("utf-8", "backslashreplace").split("\0")[:-1]
        if len(lines) > MAX_FILES:
            raise DataRefused(f"the repository has {len(lines):,} files; {MAX_FILES:,} is the most")
        entries = [_entry(line) for line in lines]
        for entry in entries:
            if reason := hostile(entry):
                raise DataRefused(f"{ascii(entry.path)[1:-1]}: {reason}; nothing is loaded from it")
        self._refuse_filters(entries)
        return entries

    def read(self, entries: Sequence[TreeEntry]) -> Iterator[tuple[str, bytes]]:
        """Yield path and content, one file at a time."""
        wanted = "".join(f"{entry.oid}\n" for entry in entries).encode()
        with self._git.printed_by(self._folder, "cat-file", "--batch", stdin=wanted) as printed:
            for entry in entries:
                printed.readline()  # "<oid> blob <size>\n<content>\n"
                yield entry.path, printed.read(entry.size)
                printed.readline()

    def _refuse_filters(self, entries: Sequence[TreeEntry]) -> None:
        attributes = [entry for entry in entries if entry.path.endswith(".gitattributes")]
        for path, content in self.read(attributes) if attributes else ():
            for number, line in enumerate(content.splitlines(), start=1):
                if re.search(rb"\sfilter\b", line) and not line.startswith(b"#"):
                    raise DataRefused(f"{path}:{number}: sets a filter; nothing is loaded from it")


def head_commit(git: Git, url: str) -> str:
    """Ask the repository at `url` for the commit of its main branch.

    Raises:
        Unavailable, TryAgainLater: as `Git.run`.
        DataRefused: it has no commits.
    """
    printed = git.run("ls-remote", "--quiet", url, "HEAD")
    if not printed:
        raise DataRefused(f"{url}: the repository has no commits")
    return printed.split(None, 1)[0].decode()


@contextlib.contextmanager
def cloned(git: Git, url: str) -> Iterator[Clone]:
    """Clone the newest commit at `url` into a temporary folder, for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="ooni-citizenlab-", ignore_cleanup_errors=True) as name:
        folder = Path(name) / "clone"
        options = ("--bare", "--depth=1", "--single-branch", "--no-tags", "--template=", "--quiet")
        git.run("clone", *options, "--", url, str(folder), max_bytes=MAX_CLONE_BYTES)
        yield Clone(git, folder)


def hostile(entry: TreeEntry) -> str:
    """Say why a repository with this entry is not to be used; "" when it is fine."""
    parts = entry.path.lower().split("/")
    if entry.mode == SYMLINK:
        return "a symbolic link"
    if entry.mode == GITLINK or parts[-1] == ".gitmodules":
        return "a submodule"
    if {"", ".", "..", ".git"} & set(parts):
        return "a name that leads out of the tree"
    if GIT_HOOK.search(entry.path):
        return "a git hook"
    if entry.size > MAX_FILE_BYTES:
        return f"{entry.size:,} bytes, {MAX_FILE_BYTES:,} is the most"
    return ""


def _entry(line: str) -> TreeEntry:
    """Parse `<mode> <type> <oid> <size>` tab `<path>`; the size of what isn't a blob is `-`."""
    described, _, path = line.partition("\t")
    mode, _, oid, size = described.split()
    return TreeEntry(path, mode, oid, int(size) if size != "-" else 0)


def authorization(token: str) -> str:
    """Return the header that lets into a private repository.

    Args:
        token: a token, which forges take as the password of any user, or `user:password`.
    """
    login = token if ":" in token else f"x-access-token:{token}"
    return f"Authorization: Basic {base64.b64encode(login.encode()).decode()}"


def environment_of(address: SplitResult, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that lead a program with rules of its own, such as git, the same way."""
    proxy = proxy_of(address, environ)
    return {"all_proxy": proxy.url} if proxy else {"no_proxy": "*"}


def _environment(environ: Mapping[str, str], ca_file: Path | None, token: str) -> dict[str, str]:
    settings = {**SETTINGS, "http.sslCAInfo": str(ca_file)} if ca_file else dict(SETTINGS)
    if token:  # the environment of a process is its user's alone, its arguments are everybody's
        settings["http.extraHeader"] = authorization(token)
        settings["http.followRedirects"] = "false"  # the header would go along to any host
    environment = {name: environ[name] for name in PASSED_ON if name in environ}
    environment |= {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    for number, (key, value) in enumerate(settings.items()):
        environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return environment


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and its child processes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _ended_within(pid: int, seconds: float) -> bool:
    """Wait for a child process without polling; tell whether it ended in time."""
    descriptor = os.pidfd_open(pid)
    try:
        return bool(select.select([descriptor], [], [], max(seconds, 0))[0])
    finally:
        os.close(descriptor)


def _memory_file() -> BinaryIO:
    """Return a file that works on a full disk too, and that the limit on files bounds."""
    return os.fdopen(os.memfd_create("git"), "w+b")


def _text_of(complaints: BinaryIO, most: int = 64 * 1024) -> str:
    complaints.seek(0, os.SEEK_END)
    complaints.seek(max(complaints.tell() - most, 0))
    return complaints.read().decode("utf-8", "backslashreplace")


def _failure(command: str, status: int, complaints: str) -> Exception:
    """Type a failure by what git said of it; its first `fatal:` or `error:` line is the reason."""
    lines = [line for line in complaints.splitlines() if line.startswith(("fatal:", "error:"))]
    reason = lines[0].partition(": ")[2] if lines else f"exit status {status}"
    if "dubious ownership" in reason:
        return ConfigError(
            f"git {command}: {ascii(reason)[1:-1]}: git reads a repository of its own user alone;"
            " make the user of this run its owner, or have it served over https"
        )
    folder = tempfile.gettempdir()
    # git does not always name the cause of a failed write.
    if "No space left on device" in complaints or shutil.disk_usage(folder).free < MIB:
        return TryAgainLater(f"git {command}: no space left in {folder}")
    too_large = (f"signal {signal.SIGXFSZ.value}", "File too large")
    if status == -signal.SIGXFSZ or any(sign in complaints for sign in too_large):
        return DataRefused(f"git {command}: the repository is larger than allowed")
    return Unavailable(f"git {command}: {ascii(reason)[1:-1]}")
