"""Files to be published, which are made only if that can change anything."""

import functools
import hashlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import msgspec

ROOT = Path(__file__).parents[1]


class Draft(NamedTuple):
    """A file to be published.

    Attributes:
        path: below output_dir.
        make: returns the content.
        seed: of what it is made: while it is the same, so is the content. "": nobody knows before.
    """

    path: str
    make: Callable[[], bytes]
    seed: str = ""


def ready(path: str, content: bytes) -> Draft:
    """Return a file whose content is there already."""
    return Draft(path, lambda: content)


def seed_of(*parts: object) -> str:
    """Return what tells these parts, and the program, from all others.

    Args:
        parts: what msgspec can encode.
    """
    digest = hashlib.sha256(_program())
    digest.update(msgspec.json.encode(parts, enc_hook=repr))
    return digest.hexdigest()[:32]


@functools.cache
def _program() -> bytes:
    """Return a digest of the modules and templates."""
    import babel  # noqa: PLC0415 (most commands need neither)
    import jinja2  # noqa: PLC0415

    versions = (babel.__version__, jinja2.__version__, version("feedgenerator"))
    digest = hashlib.sha256(" ".join(versions).encode())
    for folder in ("outputs", "pages"):
        for pattern in ("*.py", "*.jinja"):
            for path in sorted((ROOT / folder).glob(pattern)):
                digest.update(path.read_bytes())
    return digest.digest()
