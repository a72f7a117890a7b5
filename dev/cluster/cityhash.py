"""CityHash128 of version 1.0.2, chained as ClickHouse's HashingWriteBuffer chains it.

A port of Google's `city.cc` (MIT licence). The PyPI package of this name ignores the seed of
CityHash128WithSeed, and the chain is nothing but seeds.
"""

from collections.abc import Iterable

# DBMS_DEFAULT_HASHING_BLOCK_SIZE
PIECE = 2048

_K0 = 0xC3A5C85C97CB3127
_K1 = 0xB492B66FBE98F273
_K2 = 0x9AE16A3B2F90404F
_K3 = 0xC949D7C7509E6557
_MUL = 0x9DDFEA08EB382D69
_MASK = 0xFFFFFFFFFFFFFFFF


def chained(pieces: Iterable[bytes]) -> bytes:
    """Return the checksum of a file's content, as it stands behind it in a part exchange.

    Args:
        pieces: the content, in pieces of PIECE bytes; only the last may be shorter.

    Returns:
        16 bytes: low and high half, little-endian.
    """
    low = high = 0
    for piece in pieces:
        low, high = with_seed(piece, low, high)
    return low.to_bytes(8, "little") + high.to_bytes(8, "little")


def with_seed(data: bytes, low: int, high: int) -> tuple[int, int]:
    """Return CityHash128WithSeed as its low and high half."""
    if len(data) < 128:
        return _murmur(data, low, high)
    x, y, z = low, high, len(data) * _K1 & _MASK
    v0 = (_rotate(y ^ _K1, 49) * _K1 + _u64(data, 0)) & _MASK
    v1 = (_rotate(v0, 42) * _K1 + _u64(data, 8)) & _MASK
    w0 = (_rotate((y + z) & _MASK, 35) * _K1 + x) & _MASK
    w1 = _rotate((x + _u64(data, 88)) & _MASK, 53) * _K1 & _MASK
    rest = len(data) % 128
    for s in range(0, len(data) - rest, 64):
        x = _rotate((x + y + v0 + _u64(data, s + 16)) & _MASK, 37) * _K1 & _MASK
        y = _rotate((y + v1 + _u64(data, s + 48)) & _MASK, 42) * _K1 & _MASK
        x ^= w1
        y ^= v0
        z = _rotate(z ^ w0, 33)
        v0, v1 = _weak(data, s, v1 * _K1, x + w0)
        w0, w1 = _weak(data, s + 32, z + w1, y)
        z, x = x, z
    y = (y + _rotate(w0, 37) * _K0 + z) & _MASK
    x = (x + _rotate((v0 + z) & _MASK, 49) * _K0) & _MASK
    for done in range(32, rest + 32, 32):
        s = len(data) - done
        y = (_rotate((y - x) & _MASK, 42) * _K0 + v1) & _MASK
        w0 = (w0 + _u64(data, s + 16)) & _MASK
        x = (_rotate(x, 49) * _K0 + w0) & _MASK
        w0 = (w0 + v0) & _MASK
        v0, v1 = _weak(data, s, v0, v1)
    x, y = _hash16(x, v0), _hash16(y, w0)
    return (_hash16(x + v1, w1) + y) & _MASK, _hash16(x + w1, y + v1)


def _murmur(data: bytes, a: int, b: int) -> tuple[int, int]:
    size = len(data)
    if size <= 16:
        a = _shift_mix(a * _K1 & _MASK) * _K1 & _MASK
        c = (b * _K1 + _hash0to16(data)) & _MASK
        d = _shift_mix((a + (_u64(data, 0) if size >= 8 else c)) & _MASK)
    else:
        c = _hash16(_u64(data, size - 8) + _K1, a)
        d = _hash16(b + size, c + _u64(data, size - 16))
        a = (a + d) & _MASK
        for s in range(0, size - 16, 16):
            a = (a ^ _shift_mix(_u64(data, s) * _K1 & _MASK) * _K1) * _K1 & _MASK
            b ^= a
            c = (c ^ _shift_mix(_u64(data, s + 8) * _K1 & _MASK) * _K1) * _K1 & _MASK
            d ^= c
    a, b = _hash16(a, c), _hash16(d, b)
    return a ^ b, _hash16(b, a)


def _hash0to16(data: bytes) -> int:
    size = len(data)
    if size > 8:
        a, b = _u64(data, 0), _u64(data, size - 8)
        return _hash16(a, _rotate((b + size) & _MASK, size)) ^ b
    if size >= 4:
        return _hash16(size + (_u32(data, 0) << 3), _u32(data, size - 4))
    if size:
        y = data[0] + (data[size >> 1] << 8)
        z = size + (data[-1] << 2)
        return _shift_mix((y * _K2 ^ z * _K3) & _MASK) * _K2 & _MASK
    return _K2


def _weak(data: bytes, s: int, a: int, b: int) -> tuple[int, int]:
    w, x, y, z = (_u64(data, s + offset) for offset in (0, 8, 16, 24))
    a = (a + w) & _MASK
    b = _rotate((b + a + z) & _MASK, 21)
    c = a
    a = (a + x + y) & _MASK
    b += _rotate(a, 44)
    return (a + z) & _MASK, (b + c) & _MASK


def _hash16(u: int, v: int) -> int:
    u, v = u & _MASK, v & _MASK
    a = (u ^ v) * _MUL & _MASK
    b = (v ^ a ^ a >> 47) * _MUL & _MASK
    return (b ^ b >> 47) * _MUL & _MASK


def _rotate(value: int, shift: int) -> int:
    return (value >> shift | value << 64 - shift) & _MASK


def _shift_mix(value: int) -> int:
    return value ^ value >> 47


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")
