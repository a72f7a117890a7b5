"""Running a part of a test as a user without privileges."""

import codecs
import importlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def without_privileges(*own: Path) -> Iterator[None]:
    """Let root's tests run into permissions as anybody would; `own` are then the user's own."""
    root = os.getuid() == 0
    # The interpreter's files may be root's alone, so what comes late comes before.
    for encoding in ("ascii", "idna", "utf-8-sig"):
        codecs.lookup(encoding)
    importlib.import_module("prometheus_client")
    if root:
        for path in own:
            _make_reachable(path)
            os.chown(path, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)


def _make_reachable(path: Path) -> None:
    for folder in (path if path.is_dir() else path.parent, *path.parents):
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
