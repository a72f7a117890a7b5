"""Memory that is freed goes back to the system."""

import contextlib
import ctypes

MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of mallopt(3)
MAPPED_FROM = 4 * 1024 * 1024  # bytes; parts of uploads are larger, pieces of rows smaller


def map_large_blocks() -> None:
    """Let each block of a part's size be mapped by itself, and unmapped when it is freed.

    By default glibc does so only until the first of them is freed. Later ones come from the arenas
    of the threads, which keep what they had: two jobs took 430 MiB where they need 150.
    """
    with contextlib.suppress(AttributeError):  # a libc that has no such arenas
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, MAPPED_FROM)
