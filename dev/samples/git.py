"""Git without this machine's configuration, and objects without git, which refuses hostile ones."""

import hashlib
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from dev.samples.zeros import BLOCK_BYTES, zlib_zeros

TREE_MODE = "40000"
PACK_TYPE_BLOB = 3
PACK_HEADER = struct.pack(">4sII", b"PACK", 2, 1)


def git_environment(config: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give an environment in which git knows no configuration but the repository's and `config`.

    Args:
        config: Configuration keys and their values.

    Returns:
        This process's environment without its `GIT_*` variables, and with git's isolation in it.
    """
    settings = dict(config or {})
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    for number, (key, value) in enumerate(settings.items()):
        environment[f"GIT_CONFIG_KEY_{number}"] = key
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    return environment


def write_object(repository: Path, kind: str, content: bytes) -> str:
    """Write a loose object, whatever it contains.

    Args:
        repository: A bare repository.
        kind: "blob", "tree" or "commit".
        content: The object, without git's header.

    Returns:
        The object's id.
    """
    data = f"{kind} {len(content)}\0".encode() + content
    oid = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    path = repository / "objects" / oid[:2] / oid[2:]
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(zlib.compress(data, level=1))
    return oid


def write_tree(repository: Path, entries: Iterable[tuple[str, str, str]]) -> str:
    """Write tree objects for entries whose names may be anything, also `..` or `.git`.

    Args:
        repository: A bare repository.
        entries: Mode ("100644", "120000", "160000", …), path and object id; "/" parts folders.

    Returns:
        The id of the topmost tree.
    """
    names: dict[str, tuple[str, str]] = {}
    folders: dict[str, list[tuple[str, str, str]]] = {}
    for mode, path, oid in entries:
        name, separator, rest = path.partition("/")
        if separator:
            folders.setdefault(name, []).append((mode, rest, oid))
        else:
            names[name] = mode, oid
    for name, below in folders.items():
        names[name] = TREE_MODE, write_tree(repository, below)
    return write_object(repository, "tree", b"".join(_tree_lines(names)))


def write_zero_blob(repository: Path, size: int) -> str:
    """Write a blob of that many zero bytes: the cost is hashing them, the size a thousandth.

    It goes into a pack of its own, because git sends packed data on as it is, and a loose object
    it would have to compress again.

    Args:
        repository: A bare repository.
        size: Bytes.

    Returns:
        The object's id.
    """
    oid = _hash_zeros(size)
    packed = _pack_entry_header(PACK_TYPE_BLOB, size) + b"".join(zlib_zeros(size))
    pack = PACK_HEADER + packed
    checksum = _sha1(pack)
    index = _pack_index(oid, zlib.crc32(packed), checksum)
    folder = repository / "objects" / "pack"
    folder.mkdir(exist_ok=True)
    (folder / f"pack-{checksum.hex()}.pack").write_bytes(pack + checksum)
    (folder / f"pack-{checksum.hex()}.idx").write_bytes(index)
    return oid.hex()


def _tree_lines(names: dict[str, tuple[str, str]]) -> Iterable[bytes]:
    # Git's order: by the bytes of the name, a folder as if its name ended with a slash.
    def place(name: str) -> bytes:
        return os.fsencode(name + "/" if names[name][0] == TREE_MODE else name)

    for name in sorted(names, key=place):
        mode, oid = names[name]
        yield mode.encode() + b" " + os.fsencode(name) + b"\0" + bytes.fromhex(oid)


def _hash_zeros(size: int) -> bytes:
    digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    block = bytes(BLOCK_BYTES)
    for _ in range(size // BLOCK_BYTES):
        digest.update(block)
    digest.update(bytes(size % BLOCK_BYTES))
    return digest.digest()


def _pack_entry_header(kind: int, size: int) -> bytes:
    """Give type and size: four bits of size in the first byte, seven in each that follows."""
    header = bytearray([kind << 4 | size & 0b1111])
    size >>= 4
    while size:
        header[-1] |= 0b1000_0000
        header.append(size & 0b111_1111)
        size >>= 7
    return bytes(header)


def _pack_index(oid: bytes, crc: int, pack_checksum: bytes) -> bytes:
    """Give a version 2 index of a pack with one object."""
    fanout = [0] * oid[0] + [1] * (256 - oid[0])
    index = struct.pack(">4sI256I", b"\xfftOc", 2, *fanout)
    index += oid + struct.pack(">II", crc, len(PACK_HEADER)) + pack_checksum
    return index + _sha1(index)


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()
