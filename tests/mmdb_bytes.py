"""MMDB files, byte by byte, so that they can be what no writer would write."""

import struct
from collections.abc import Mapping, Sequence

Record = int | None
Node = tuple[Record, Record]

MARKER = b"\xab\xcd\xefMaxMind.com"
LONG = 29  # from this length on, it stands in bytes of its own
RECORD_SIZE = 32  # bits
SEPARATOR = bytes(16)
IPV4_AT = 96  # bits, which are 0, before an IPv4 address


def _header(kind: int, length: int) -> bytes:
    """Return what stands before a value of a kind: 1 to 15, as the format counts them."""
    short = min(length, LONG if length < LONG + 256 else LONG + 1)
    more = b""
    if short == LONG:
        more = bytes([length - LONG])
    elif short > LONG:
        more = struct.pack(">H", length - LONG - 256)
    extended = bytes([kind - 7]) if kind > 7 else b""
    return bytes([(kind << 5 if kind <= 7 else 0) | short]) + extended + more


def text(value: str) -> bytes:
    return _header(2, len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return _header(6, 4) + struct.pack(">I", value)


def mapping(pairs: Mapping[str, bytes]) -> bytes:
    return _header(7, len(pairs)) + b"".join(text(key) + value for key, value in pairs.items())


def array(values: Sequence[bytes]) -> bytes:
    return _header(11, len(values)) + b"".join(values)


def pointer(offset: int) -> bytes:
    """Return what stands for the value at an offset of the data."""
    return bytes([0b001_11_000]) + struct.pack(">I", offset)


def database(nodes: Sequence[Node], data: bytes, build_epoch: int = 1_767_225_600) -> bytes:
    """Return a database of ASNs.

    Args:
        nodes: two records of each: the number of a node, or -1 minus the offset of data, or None.
        data: the data.
        build_epoch: when it says that it was built, in Unix time.
    """

    def record(value: int | None) -> int:
        if value is None:
            return len(nodes)
        return value if value >= 0 else len(nodes) + len(SEPARATOR) + -1 - value

    tree = b"".join(struct.pack(">II", record(left), record(right)) for left, right in nodes)
    metadata = mapping(
        {
            "binary_format_major_version": _header(5, 2) + struct.pack(">H", 2),
            "binary_format_minor_version": _header(5, 2) + struct.pack(">H", 0),
            "build_epoch": _header(9, 8) + struct.pack(">Q", build_epoch),
            "database_type": text("DBIP-ASN-Lite (compat=GeoLite2-ASN)"),
            "description": mapping({"en": text("made up")}),
            "ip_version": _header(5, 2) + struct.pack(">H", 6),
            "languages": array([]),
            "node_count": number(len(nodes)),
            "record_size": _header(5, 2) + struct.pack(">H", RECORD_SIZE),
        }
    )
    return tree + SEPARATOR + data + MARKER + metadata


def with_ipv4(nodes: Sequence[Node], others: Record) -> list[Node]:
    """Return a tree in which a tree has the IPv4 addresses, and a record all others."""

    def moved(record: Record) -> Record:
        return record if record is None or record < 0 else record + IPV4_AT

    above = [(node + 1, others) for node in range(IPV4_AT)]
    return [*above, *((moved(left), moved(right)) for left, right in nodes)]
