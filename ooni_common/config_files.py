"""Reading files of the configuration: which may be root's alone, and must not be everybody's."""

import grp
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from ooni_common.errors import ConfigError


def copy_from_systemd(path: Path, environ: Mapping[str, str]) -> Path | None:
    """Return the copy of a file that this user may not read, where systemd has made one.

    A unit asks for it by LoadCredential=<name of the file>:<path>. Whoever may read the file reads
    the file: it is newer than the copy, and it is what messages name.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY")
    try:
        path.open("rb").close()
    except PermissionError:
        copy = Path(folder, path.name) if folder else None
        return copy if copy and os.path.exists(copy) else None  # noqa: PTH110 (never an error)
    except OSError:  # whoever reads it says so
        return None
    return None


def read_text(path: Path, *, required: bool, copy: Path | None = None) -> str:
    """Return the text of a file, or of its copy, whose faults are said of the file.

    Raises:
        ConfigError: it can't be read, or is missing and `required`.
    """
    try:
        return (copy or path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        if required:
            raise ConfigError(f"{path}: no such file") from None
        return ""
    except PermissionError:
        raise ConfigError(f"{path}: Permission denied; {_way_in(path)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: {reason}") from None


def read_secret(path: Path) -> str:
    """Return what a file holds that others must not be able to read, without the line's end.

    Raises:
        ConfigError: it can't be read, or others can.
    """
    text = read_text(path, required=True).rstrip("\r\n")
    refuse_readable_by_others(path, "a secret")
    return text


def refuse_readable_by_others(path: Path, content: str) -> None:
    """Raise ConfigError where everybody may read a file that holds `content`."""
    try:
        mode = path.stat().st_mode
    except OSError:  # in a folder that root alone may enter, of which systemd has made a copy
        return
    if mode & stat.S_IROTH:
        raise ConfigError(f"{path}: holds {content} and others may read it; run: chmod o= {path}")


def _way_in(path: Path) -> str:
    """Say what lets this user read a file; a folder on the way may be closed, as root's home is."""
    for folder in reversed(path.absolute().parents):
        if not os.access(folder, os.X_OK, effective_ids=True):
            return f"run as root, or move it: this user may not enter {folder}"
    return f"run as root, or: chgrp {_own_group()} {path}; chmod g+r {path}"


def _own_group() -> str:
    try:
        return grp.getgrgid(os.getegid()).gr_name
    except KeyError:  # a number without a name
        return str(os.getegid())
