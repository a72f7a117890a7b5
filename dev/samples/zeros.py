"""Compressed zeros without compressing them: one block, repeated."""

import zlib
from collections.abc import Iterator

BLOCK_BYTES = 1024 * 1024
LEVEL = 9


def deflate_zeros(size: int) -> Iterator[bytes]:
    """Give a raw deflate stream, piece by piece, of that many zero bytes.

    Args:
        size: Bytes after decompression; before it they are about a thousandth.
    """
    # A full flush ends a block on a whole byte and forgets what came before, so it can be repeated.
    block = _deflate(BLOCK_BYTES, zlib.Z_FULL_FLUSH)
    for _ in range(size // BLOCK_BYTES):
        yield block
    yield _deflate(size % BLOCK_BYTES, zlib.Z_FINISH)


def zlib_zeros(size: int) -> Iterator[bytes]:
    """Give the same with the header and the checksum of the zlib format."""
    yield b"\x78\xda"
    yield from deflate_zeros(size)
    # Adler-32 of zeros: the sum of bytes stays 1, the sum of sums grows by 1 with each byte.
    yield ((size % 65521) << 16 | 1).to_bytes(4, "big")


def _deflate(size: int, flush: int) -> bytes:
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(bytes(size)) + compressor.flush(flush)
