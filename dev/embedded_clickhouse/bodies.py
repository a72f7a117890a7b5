"""Bodies of HTTP requests and responses: chunks and content encodings."""

import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

import lz4.frame
import zstandard

from dev.embedded_clickhouse.errors import Code, ConnectionLost, ServerError

_READ_SIZE = 256 * 1024
_GZIP = 16 + zlib.MAX_WBITS
# In ClickHouse's order of preference.
ENCODINGS = ("zstd", "lz4", "gzip", "deflate")


class Readable(Protocol):
    """A stream of bytes, such as a socket's file."""

    def read(self, size: int, /) -> bytes:
        """Return up to that many bytes."""

    def readline(self, size: int, /) -> bytes:
        """Return a line of up to that many bytes."""


class Decoder(Protocol):
    """What zlib, zstandard and lz4 have in common for reading."""

    @property
    def eof(self) -> bool:
        """The frame has ended."""

    @property
    def unused_data(self) -> bytes | None:
        """What came behind the end of the frame."""

    def decompress(self, data: bytes) -> bytes:
        """Return what these bytes add."""


class Encoder(Protocol):
    """What zlib and zstandard have in common for writing."""

    def compress(self, data: bytes) -> bytes:
        """Return what is ready."""

    def flush(self) -> bytes:
        """Return the rest."""


class RequestBody:
    """The body of a request as it is on the wire.

    Args:
        stream: the connection behind the request's head.
        length: what Content-Length says; None for chunked transfer.
    """

    def __init__(self, stream: Readable, length: int | None) -> None:
        self._stream = stream
        self._chunked = length is None
        self._left = length or 0
        self.exhausted = length == 0

    def read(self) -> bytes:
        """Return the next part, empty at the end.

        Raises:
            ConnectionLost: the client went away in the middle.
        """
        if self._chunked and not self._left and not self.exhausted:
            self._left = self._next_chunk()
        if not self._left:
            self.exhausted = True
            return b""
        data = self._stream.read(min(self._left, _READ_SIZE))
        if not data:
            raise ConnectionLost
        self._left -= len(data)
        if not self._left:
            self._end_of_chunk()
        return data

    def _next_chunk(self) -> int:
        line = self._stream.readline(1024)
        if not line.endswith(b"\n"):
            raise ConnectionLost
        try:
            size = int(line.split(b";")[0], 16)
        except ValueError as error:
            raise ConnectionLost from error
        if not size:
            while self._stream.readline(65536).strip():
                pass  # trailers
        return size

    def _end_of_chunk(self) -> None:
        if self._chunked:
            self._stream.readline(1024)
        else:
            self.exhausted = True


def decoded(body: RequestBody, encoding: str) -> Iterator[bytes]:
    """Yield a body's content.

    Raises:
        ServerError: an unknown encoding, or data that is not in it.
    """
    if encoding in {"", "identity"}:
        while part := body.read():
            yield part
        return
    new_decoder = _decoder(encoding)
    decoder = new_decoder()
    fed = False
    while data := body.read():
        while data:
            if decoder.eof:
                decoder = new_decoder()
            fed = True
            try:
                yield decoder.decompress(data)
            except (zlib.error, zstandard.ZstdError, RuntimeError) as error:
                raise ServerError(Code.CANNOT_DECOMPRESS, f"{encoding}: {error}") from error
            data = decoder.unused_data or b""
    if fed and not decoder.eof:
        raise ServerError(Code.CANNOT_DECOMPRESS, f"{encoding}: the data ends too early")


def _decoder(encoding: str) -> Callable[[], Decoder]:
    decoders: dict[str, Callable[[], Decoder]] = {
        "gzip": lambda: zlib.decompressobj(_GZIP),
        "x-gzip": lambda: zlib.decompressobj(_GZIP),
        "deflate": lambda: zlib.decompressobj(zlib.MAX_WBITS),
        "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
        "lz4": lz4.frame.LZ4FrameDecompressor,
    }
    if encoding not in decoders:
        message = f"Unknown compression method: {encoding}"
        raise ServerError(Code.UNKNOWN_COMPRESSION_METHOD, message)
    return decoders[encoding]


def choose_encoding(accepted: str) -> str:
    """Return the encoding for a response, "" for none, given the Accept-Encoding header."""
    wanted = {part.split(";")[0].strip().lower() for part in accepted.split(",")}
    return next((encoding for encoding in ENCODINGS if encoding in wanted), "")


class _Lz4Encoder:
    def __init__(self) -> None:
        self._compressor = lz4.frame.LZ4FrameCompressor()
        self._begun = False

    def compress(self, data: bytes) -> bytes:
        head = b"" if self._begun else self._compressor.begin()
        self._begun = True
        return bytes(head + self._compressor.compress(data))

    def flush(self) -> bytes:
        return bytes(self._compressor.flush())


class _Plain:
    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def encoder(encoding: str, level: int = 3) -> Encoder:
    """Return the encoder for a response."""
    if encoding == "zstd":
        return zstandard.ZstdCompressor(level=level).compressobj()
    if encoding == "lz4":
        return _Lz4Encoder()
    if encoding == "gzip":
        return zlib.compressobj(level, wbits=_GZIP)
    if encoding == "deflate":
        return zlib.compressobj(level)
    return _Plain()
