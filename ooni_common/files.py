"""Files and folders of a run: replaced as a whole, locked, writable."""

import contextlib
import errno
import fcntl
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from ooni_common.errors import OUT_OF_SOMETHING, ConfigError, TryAgainLater


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace a file: readers see the old content or the new one, also after a power cut.

    Raises:
        ConfigError: a folder is in its place.
    """
    temporary = path.with_name(f".{path.name}.new")  # one name, so that a kill leaves one file
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, IsADirectoryError):
            place = path if path.is_dir() else temporary
            raise ConfigError(f"{place}: a folder is in the place of a file; remove it") from None
        if isinstance(error, OSError):
            error.filename = str(path)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Let what was done in a folder outlast a power cut: files made, renamed or removed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on `path`; the kernel releases it when the process dies.

    Raises:
        TryAgainLater: another process holds it.
        ConfigError: it can't be opened.
    """
    safe = os.O_NOFOLLOW | os.O_NONBLOCK  # a link could lead to a file that must not be emptied
    try:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | safe, 0o644)
        except PermissionError:  # made by root, by hand: it can be locked; the pid stays unwritten
            descriptor = os.open(path, os.O_RDONLY | safe)
    except OSError as error:
        if error.errno in OUT_OF_SOMETHING:
            raise
        if error.errno == errno.ELOOP:
            raise ConfigError(f"{path}: the lock file is a symbolic link; remove it") from None
        raise ConfigError(f"{path}: {error.strerror}; the lock of a run has to be there") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise ConfigError(f"{path}: the lock has to be a regular file of its own; remove it")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
            raise TryAgainLater(f"another run (pid {pid}) holds {path}") from None
        with contextlib.suppress(OSError):
            os.truncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def make_writable(key: str, path: Path) -> None:
    """Make a folder if it is missing.

    Raises:
        ConfigError: files can't be written there; `key` is where the configuration names it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte
        if isinstance(error, OSError) and error.errno in OUT_OF_SOMETHING:
            raise
        check_folder(key, path)  # it may know why
        raise ConfigError(cannot_write(key, path)) from None
    check_folder(key, path)


def check_folder(key: str, path: Path) -> str:
    """Say that files can be written in a folder, or that a run makes it; change nothing.

    Raises:
        ConfigError: neither; `key` is where the configuration names it.
    """
    try:
        _refuse_planted_link(key, path)
        if not path.exists():
            return _would_be_made(key, path)
        usable = path.is_dir() and os.access(path, os.W_OK | os.X_OK)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte
        if isinstance(error, OSError) and error.errno in OUT_OF_SOMETHING:
            raise
        usable = False
    if not usable:
        raise ConfigError(cannot_write(key, path))
    leads = f", which is {path.resolve()}," if path.is_symlink() else ""
    return f"{path}{leads} can be written"


def cannot_write(key: str, path: Path) -> str:
    """Return what is said of a folder that can't be used."""
    if os.path.isdir(path):  # noqa: PTH112 (a path with a NUL byte is none)
        user = _user_name(os.geteuid())
        here = f"{user} cannot write there; run as the service's user"
        return f"{key} {path}: {here}, or as root: chown {user} {path}"
    return f"{key} {path}: cannot write there; name another folder, or run as the service's user"


def _refuse_planted_link(key: str, path: Path) -> None:
    """Refuse a symbolic link that neither root nor this user has made."""
    if path.is_symlink() and (owner := path.lstat().st_uid) not in (0, os.geteuid()):
        raise ConfigError(
            f"{key} {path}: a symbolic link of the user {_user_name(owner)}; remove it, or name the"
            f' folder itself: {key} = "{path.resolve()}"'
        )


def _would_be_made(key: str, path: Path) -> str:
    parent = next(parent for parent in path.parents if parent.exists())
    if path.is_symlink() or not parent.is_dir():
        raise ConfigError(cannot_write(key, path))
    if os.access(parent, os.W_OK | os.X_OK):
        return f"{path} is not there yet; a run makes it"
    user = _user_name(os.geteuid())
    raise ConfigError(
        f"{key} {path}: no such folder, and {user} cannot make it; run as the service's user, or"
        f" make it as root: install -d -o {user} {path}"
    )


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
