"""The installed databases: replaced together, or not at all, whenever the process ends.

New files are complete, and safe on the disk, under names of their own (`.asn.mmdb.new`) before the
stamp's is written beside them. That decides it: from then on only renames are left, and a run that
is killed between them is completed by the next one. Without it, what lies there is removed.

The folder belongs to the API. Nothing here changes an owner or a mode: whoever may do that is told
the command.
"""

import contextlib
import errno
import hashlib
import io
import os
import pwd
import re
import shlex
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from ooni_common.errors import OUT_OF_SOMETHING, ConfigError, DataRefused
from ooni_common.files import sync_folder, write_atomically

STAMP = "geoipdbts"
MONTH = re.compile("[0-9]{4}-(0[1-9]|1[0-2])")
MODE = 0o644
SERVICE = "ooni-download-geoip"
SERVICE_USER = "ooni"


class Installation:
    """A folder with the databases, those that they replaced, and the stamp that names the month."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder = folder
        self._names = names

    def path(self, name: str) -> Path:
        """Return where a database is."""
        return self._folder / name

    def previous(self, name: str) -> Path:
        """Return where the database is that it replaced."""
        return self._folder / f"{name}.previous"

    def staged(self, name: str) -> Path:
        """Return where a new database has to be put."""
        return _staged(self.path(name))

    @property
    def month(self) -> str:
        """The month that is installed, YYYY-MM; "" if the stamp is missing or damaged."""
        return _read_month(self._folder / STAMP)

    def check_usable(self) -> None:
        """Check that the folder lets this process install databases.

        Raises:
            ConfigError: it does not; the message has the command that allows it.
        """
        files = [*self._databases(), self._folder / STAMP]
        _check_usable(self._folder, [*files, *map(_staged, files)])

    @contextlib.contextmanager
    def staging(self) -> Iterator[None]:
        """Remove at the end what was staged and not committed."""
        try:
            yield
        finally:
            self.recover()

    def recover(self) -> bool:
        """Complete what a killed run had decided, or remove what it left; return whether it had."""
        if not self._folder.is_dir():
            return False
        decided = bool(_read_month(_staged(self._folder / STAMP)))
        if decided:
            self._rename_all()
        for path in (*self._databases(), self._folder / STAMP):
            _staged(path).unlink(missing_ok=True)
            _staged(_staged(path)).unlink(missing_ok=True)
        return decided

    def stage_previous(self, name: str, digest: str) -> None:
        """Stage what a database has replaced, to be installed again.

        Raises:
            DataRefused: it does not have the digest any more, with which it was checked.
        """
        _copy(self.previous(name), self.staged(name), digest)

    def prepare(self, kept: Mapping[str, str]) -> None:
        """Make the staged databases safe on the disk, and stage copies of those they replace.

        Args:
            kept: what is kept of those, with the digests with which they were checked.

        Raises:
            DataRefused: one does not have its digest any more.
        """
        for name, digest in kept.items():
            _copy(self.path(name), _staged(self.previous(name)), digest)
        for path in map(_staged, self._databases()):
            if path.exists():
                _finish(path)

    def commit(self, month: str) -> None:
        """Install what is staged and prepared; not to be interrupted by signals."""
        write_atomically(_staged(self._folder / STAMP), f"{month}\n".encode(), MODE)
        self._rename_all()

    def _databases(self) -> list[Path]:
        """Return the paths in the order of the renames."""
        return [*map(self.previous, self._names), *map(self.path, self._names)]

    def _rename_all(self) -> None:
        for path in (*self._databases(), self._folder / STAMP):
            with contextlib.suppress(FileNotFoundError):
                _staged(path).replace(path)
        sync_folder(self._folder)


def _staged(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _read_month(path: Path) -> str:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""  # then the upstream is asked whether it has something newer
    return text if MONTH.fullmatch(text) else ""


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        DataRefused: a symbolic link is there.
    """
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _opened(path: Path) -> io.BufferedReader:
    """Open a file; not what a link leads to that the folder's owner may have put there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise DataRefused(f"{path.name}: a symbolic link") from None
    return os.fdopen(descriptor, "rb")


def _copy(path: Path, to: Path, digest: str) -> None:
    """Copy the file with a digest, readable for this user alone: another one may be there by now.

    Raises:
        DataRefused: another one is.
    """
    with _opened(path) as source:
        descriptor = os.open(to, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w+b") as target:
            shutil.copyfileobj(source, target)
            target.seek(0)
            copied = hashlib.file_digest(target, "sha256").hexdigest()
    if copied != digest:
        raise DataRefused(f"{path.name}: changed since it was checked")


def _finish(path: Path) -> None:
    """Make a staged file readable for everybody, and safe on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fchmod(descriptor, MODE)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_usable(folder: Path, files: Collection[Path]) -> None:
    """Check that files can be created in `folder`, and that those of `files` can be replaced.

    Raises:
        ConfigError: they can't; it names the command that allows it.
        OSError: the disk is full, or something else ran out.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            os.close(os.open(folder, os.O_RDONLY))  # it is opened to be synced
    except OSError as error:
        if error.errno in OUT_OF_SOMETHING:
            raise
        raise ConfigError(f"output_dir {folder}: {_remedy(folder, error)}") from None
    for path in files:
        if _is_in_the_way(path):
            raise ConfigError(
                f"output_dir: {path} is not a file; run: rm -r {shlex.quote(str(path))}"
            )
    if kept := _kept_by_sticky_bit(folder, files):
        names = shlex.join(map(str, kept))
        raise ConfigError(
            f"output_dir {folder}: sticky, so that only their owner can replace the databases;"
            f" run: chown -h {_user()} {names}"
        )


def _is_in_the_way(path: Path) -> bool:
    """Tell whether something other than a file or a link stands where a file of the tool goes."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISLNK(mode))


def _remedy(folder: Path, error: OSError) -> str:
    """Return what is wrong, and the command that mends it."""
    path = shlex.quote(str(folder))
    match error.errno:
        case errno.ENOENT:
            return f"missing; unless the API's installation makes it, run: {_making(path)}"
        case errno.EROFS:
            return f"read-only; allow it: systemctl edit {SERVICE}, ReadWritePaths={folder}"
        case errno.EACCES | errno.EPERM:
            return f"{_user()} can't write there; {_allowing(folder, path)}"
    return str(error.strerror)


def _making(path: str) -> str:
    return f"install -d -o {_user()} {path}"


def _allowing(folder: Path, path: str) -> str:
    """Return the command that lets this user write in a folder."""
    try:
        owner = folder.stat().st_uid
    except PermissionError:
        return f"it may not pass one of the folders above: namei -l {path}"
    if owner == os.geteuid():  # for whom an entry in the access control list does not count
        return f"run: chmod u+rwx {path}"
    return (
        f"run: setfacl -m u:{_user()}:rwx {path}"
        f" (or let the service run as its owner: systemctl edit {SERVICE}, User=)"
    )


def _kept_by_sticky_bit(folder: Path, files: Collection[Path]) -> list[Path]:
    """Return the files of others, if the folder is one where only these may replace them."""
    status, user = folder.stat(), os.geteuid()
    if not status.st_mode & stat.S_ISVTX or user in (0, status.st_uid):
        return []
    return [path for path in files if os.path.lexists(path) and path.lstat().st_uid != user]


def _user() -> str:
    """Return the name of the user who has to be let in: this one, or the service's for root."""
    user = os.geteuid()
    try:
        return pwd.getpwuid(user).pw_name if user else SERVICE_USER
    except KeyError:
        return str(user)
