"""ClickHouse's compressed frames: checksum, method, sizes, data."""

import struct
from collections.abc import Callable, Iterator

import lz4.block
import zstandard
from clickhouse_cityhash.cityhash import CityHash128

from dev.embedded_clickhouse.blocks import WireReader
from dev.embedded_clickhouse.errors import Code, ServerError

FRAME_SIZE = 1 << 20
MAX_FRAME_SIZE = 1 << 30
_METHOD_NONE, _METHOD_LZ4, _METHOD_ZSTD = 0x02, 0x82, 0x90
_HEADER_SIZE = 9


def _checksum(frame: bytes) -> bytes:
    value = CityHash128(frame)
    return struct.pack("<QQ", value >> 64, value & 0xFFFF_FFFF_FFFF_FFFF)


def _frame(method: int, compressed: bytes, plain_size: int) -> bytes:
    frame = struct.pack("<BII", method, _HEADER_SIZE + len(compressed), plain_size) + compressed
    return _checksum(frame) + frame


def _pieces(data: bytes) -> Iterator[bytes]:
    for begin in range(0, len(data), FRAME_SIZE):
        yield data[begin : begin + FRAME_SIZE]


def lz4_frames(data: bytes) -> bytes:
    """Compress with LZ4, a frame for each MiB."""
    return b"".join(
        _frame(_METHOD_LZ4, lz4.block.compress(piece, store_size=False), len(piece))
        for piece in _pieces(data)
    )


def zstd_frames(data: bytes) -> bytes:
    """Compress with zstd, a frame for each MiB."""
    compressor = zstandard.ZstdCompressor(level=1)
    return b"".join(
        _frame(_METHOD_ZSTD, compressor.compress(piece), len(piece)) for piece in _pieces(data)
    )


def frame_reader(reader: WireReader) -> Callable[[int], bytes]:
    """Return a function that reads the next frame of a stream, decompressed.

    The function raises ServerError when a frame is damaged or compressed in an unknown way.
    """

    def read(_size: int) -> bytes:
        checksum, header = reader.take(16), reader.take(_HEADER_SIZE)
        method, size, plain_size = struct.unpack("<BII", header)
        if not _HEADER_SIZE <= size <= MAX_FRAME_SIZE or plain_size > MAX_FRAME_SIZE:
            raise ServerError(Code.INCORRECT_DATA, f"Compressed frame of {size} bytes")
        compressed = reader.take(size - _HEADER_SIZE)
        if _checksum(header + compressed) != checksum:
            raise ServerError(Code.CHECKSUM_DOESNT_MATCH, "Checksum doesn't match: corrupted data")
        try:
            return _decompress(method, compressed, plain_size)
        except (lz4.block.LZ4BlockError, zstandard.ZstdError) as error:
            raise ServerError(Code.CANNOT_DECOMPRESS, str(error)) from error

    return read


def _decompress(method: int, compressed: bytes, plain_size: int) -> bytes:
    if method == _METHOD_LZ4:
        return bytes(lz4.block.decompress(compressed, uncompressed_size=plain_size))
    if method == _METHOD_ZSTD:
        return zstandard.ZstdDecompressor().decompress(compressed, max_output_size=plain_size)
    if method == _METHOD_NONE:
        return compressed
    message = f"Unknown compression method: {method:#x}"
    raise ServerError(Code.UNKNOWN_COMPRESSION_METHOD, message)
