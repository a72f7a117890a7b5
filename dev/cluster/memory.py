"""The one thing about replication that only clickhouse-server sets: its own interserver address.

Without it replicated tables are read-only (code 242). There is no setting for it in an embedded
engine, so it is written into the engine's memory, where the engine's own code looks for it.
"""

import ctypes
import struct
from collections.abc import Iterator
from pathlib import Path

# Engines whose ContextShared has been looked at. An unknown one is refused: writing to a wrong
# place would be a crash at best.
KNOWN_VERSIONS = ("26.9.",)
# What a std::string holds in itself, without a block of memory elsewhere.
LONGEST_PATH = 22

# Distances, in bytes, from the string with the data path. The layout is
#     map auxiliary_zookeepers; string host; uint16 port; string scheme; …; credentials; string path
_ZOOKEEPERS, _HOST, _PORT, _SCHEME, _CREDENTIALS = -144, -112, -88, -80, -16
_LARGEST_REGION = 600 * 2**20
_CREDENTIALS_SIZE = 256


class UnknownEngineError(Exception):
    """The engine's memory is not as expected; nothing has been written."""


def set_interserver_address(version: str, data: Path, host: str, port: int) -> None:
    """Tell the engine of this process where other replicas find its parts.

    Args:
        version: the engine's.
        data: its data path, absolute, by which the place is found.
        host: an address of at most 22 bytes.
        port: where its parts are served over plain HTTP, without a user.

    Raises:
        UnknownEngineError: another version, a path that is too long, or no such place.
    """
    path = f"{data}/".encode()
    if not version.startswith(KNOWN_VERSIONS):
        raise UnknownEngineError(
            f"ClickHouse {version}: the layout of its memory is not known, only that of "
            f"{' '.join(KNOWN_VERSIONS)}*; look at ContextShared and mend {__file__}"
        )
    if not data.is_absolute() or len(path) > LONGEST_PATH:
        raise UnknownEngineError(
            f"{data}: the data path must be absolute and have at most {LONGEST_PATH - 1} bytes"
        )
    places = [place for place in _find(_inline(path)) if _looks_right(place)]
    if not places:
        raise UnknownEngineError(f"ClickHouse {version}: no ContextShared with {data} was found")
    for place in places:
        _write(place, host.encode(), port)


def _write(place: int, host: bytes, port: int) -> None:
    ctypes.memmove(place + _HOST, _inline(host), 24)
    ctypes.memmove(place + _PORT, port.to_bytes(2, "little"), 2)
    ctypes.memmove(place + _SCHEME, _inline(b"http"), 24)
    # A shared pointer to credentials with an empty user and password, and without a count of its
    # users: it is never freed, and neither is this.
    empty = ctypes.create_string_buffer(_CREDENTIALS_SIZE)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(empty))
    ctypes.memmove(place + _CREDENTIALS, struct.pack("<QQ", ctypes.addressof(empty), 0), 16)


def _looks_right(place: int) -> bool:
    """Tell whether an empty map, an empty host, no port and an empty scheme lie before it."""
    begin, left, size = struct.unpack("<QQQ", ctypes.string_at(place + _ZOOKEEPERS, 24))
    empty_map = begin == place + _ZOOKEEPERS + 8 and not left and not size
    return empty_map and not any(ctypes.string_at(place + _HOST, 32))


def _inline(value: bytes) -> bytes:
    """Return a short std::string as it lies in memory: 23 bytes of text, one of length."""
    return value.ljust(23, b"\0") + bytes([len(value)])


def _find(pattern: bytes) -> Iterator[int]:
    with Path("/proc/self/mem").open("rb", buffering=0) as memory:
        for begin, end in list(_regions()):
            try:
                memory.seek(begin)
                content = memory.read(end - begin)
            except (OSError, OverflowError):
                continue
            at = content.find(pattern)
            while at >= 0:
                yield begin + at
                at = content.find(pattern, at + 1)


def _regions() -> Iterator[tuple[int, int]]:
    """Yield begin and end of what may be written to."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        bounds, rights = line.split()[:2]
        begin, end = (int(bound, 16) for bound in bounds.split("-"))
        if rights.startswith("rw") and "/dev" not in line and end - begin < _LARGEST_REGION:
            yield begin, end
