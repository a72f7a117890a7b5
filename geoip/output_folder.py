"""Whether the folder of the databases, which belongs to the API, can be used as it is.

Nothing here changes an owner or a mode: whoever may do that is told the command.
"""

import errno
import os
import pwd
import shlex
import stat
import tempfile
from collections.abc import Collection
from pathlib import Path

from ooni_common.errors import ConfigError
from ooni_common.run import OUT_OF_SOMETHING

SERVICE = "ooni-download-geoip"
SERVICE_USER = "ooni"


def check_usable(folder: Path, files: Collection[Path]) -> None:
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
