"""Python's search for reference cycles, which costs much among many objects."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Let Python look for no reference cycles: among a million objects that takes half of the time.

    For work that makes next to none: all other objects are freed as soon as they are of no use.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
