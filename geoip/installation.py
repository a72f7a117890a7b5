"""The installed databases: replaced together, or not at all, whenever the process ends.

New files are complete, and safe on the disk, under names of their own (`.asn.mmdb.new`) before the
stamp's is written beside them. That decides it: from then on only renames are left, and a run that
is killed between them is completed by the next one. Without it, what lies there is removed.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ooni_common.run import write_atomically
from output_folder import check_usable

STAMP = "geoipdbts"
MONTH = re.compile("[0-9]{4}-(0[1-9]|1[0-2])")
MODE = 0o644


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
        check_usable(self._folder, [*files, *map(_staged, files)])

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

    def stage_previous(self, name: str) -> None:
        """Stage what a database has replaced, to be installed again."""
        _copy(self.previous(name), self.staged(name))

    def prepare(self, *, keep_replaced: bool) -> None:
        """Make the staged databases safe on the disk, and stage copies of those they replace.

        What is replaced is kept only where both databases are whole: they are a pair.
        """
        for name in self._names if keep_replaced else ():
            _copy(self.path(name), _staged(self.previous(name)))
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
        _sync(self._folder)


def _staged(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _read_month(path: Path) -> str:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""  # then the upstream is asked whether it has something newer
    return text if MONTH.fullmatch(text) else ""


def _copy(path: Path, to: Path) -> None:
    """Copy a file; not through a link that the folder's owner may have put at `to`."""
    with path.open("rb") as source, to.open("xb") as target:
        shutil.copyfileobj(source, target)


def _finish(path: Path) -> None:
    """Make a staged file readable for everybody, and safe on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fchmod(descriptor, MODE)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
