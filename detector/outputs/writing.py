"""Writing many files: each always whole, and together in a fraction of the time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ooni_common.errors import ConfigError
from ooni_common.files import sync_folder

TOGETHER = 500  # files that are on the disk twice for a moment


class Writer:
    """Replaces files: readers see the old content or the new one, also after a power cut.

    One file after the other costs two waits for the disk each. Here all new contents are on their
    way to the disk before the first wait, and each folder is waited for once.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Path, Path]] = []  # descriptor, temporary name, name

    def write(self, path: Path, content: bytes) -> None:
        """Write a file, which gets its name later; the order of names is that of the calls.

        Raises:
            ConfigError: a folder is in its place.
        """
        temporary = path.with_name(f".{path.name}.new")  # as of ooni_common.files
        with _named(path, temporary):
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._waiting.append((descriptor, temporary, path))
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(content)
            os.fchmod(descriptor, 0o644)
            # On Linux this starts the writing and waits for nothing, as in dpkg.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if len(self._waiting) >= TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Give all files that were written their names."""
        for descriptor, temporary, path in self._waiting:
            with _named(path, temporary):
                os.fsync(descriptor)
        for _, temporary, path in self._waiting:
            with _named(path, temporary):
                temporary.replace(path)
        for folder in sorted({path.parent for *_, path in self._waiting}):
            sync_folder(folder)
        self._close()

    def discard(self) -> None:
        """Leave nothing of the files that have no name yet."""
        for _, temporary, _ in self._waiting:
            with suppress(OSError):
                temporary.unlink()
        self._close()

    def _close(self) -> None:
        for descriptor, *_ in self._waiting:
            with suppress(OSError):
                os.close(descriptor)
        self._waiting.clear()


@contextmanager
def writing() -> Iterator[Writer]:
    """Provide a writer; at the end all files have their names, or the rest is discarded."""
    writer = Writer()
    try:
        yield writer
        writer.flush()
    finally:
        writer.discard()


@contextmanager
def _named(path: Path, temporary: Path) -> Iterator[None]:
    """Let errors say which file they are about."""
    try:
        yield
    except IsADirectoryError:
        place = path if path.is_dir() else temporary
        raise ConfigError(f"{place}: a folder is in the place of a file; remove it") from None
    except OSError as error:
        error.filename = str(path)
        raise
