"""The server's own manifest of a BACKUP (`.backup`), looked at before the server reads it.

It says where the older backup is that has the rest, and the server goes there. So it has to be the
one of our manifest; and where our manifest has its SHA-256, not a byte may be another one.
"""

import hashlib
import re
from collections.abc import Iterable

from backups.manifest import SERVER_MANIFEST, BackupManifest, ServerBackup
from ooni_common.errors import DataRefused
from store import Bucket, NoSuchObject

BASE = re.compile(rb"<base_backup\b[^>]*>(.{0,4096}?)</base_backup\s*>", re.DOTALL)
LONGEST_BASE = 8192  # bytes of the element
# What a server does not write, and by which the element could be written otherwise.
FOREIGN = re.compile(rb"<[!?]|&#|<base_backup\s")
# The address and perhaps credentials, or the name of a collection and the path.
LOCATION = re.compile(r"S3\((?:`?(?P<collection>\w+)`?, ?)?'(?P<place>[^'\\]*)'")


def check_server_manifests(
    bucket: Bucket, chain: Iterable[BackupManifest], url: str, *, trusted: bool = False
) -> None:
    """Check what the server will read of a backup and of those that it needs.

    Args:
        bucket: has them.
        chain: their manifests.
        url: of the bucket, as the server reaches it, with a slash at its end.
        trusted: whether a base may be elsewhere: somebody has said so.

    Raises:
        DataRefused: one is not the one that was written, or its base is elsewhere.
    """
    for manifest in chain:
        for shard in manifest.by_shard:
            for kind, part in shard.parts.items():
                if kind != "definitions":  # nobody reads these
                    _check(bucket, manifest.name, part, url, trusted=trusted)


def _check(bucket: Bucket, name: str, part: ServerBackup, url: str, *, trusted: bool) -> None:
    key = part.path + SERVER_MANIFEST
    digest, bases, foreign = hashlib.sha256(), set(), False
    rest = b""
    try:
        for piece in bucket.stream(key):
            digest.update(piece)
            text = rest + piece
            bases.update(BASE.findall(text))
            foreign = foreign or bool(FOREIGN.search(text))
            rest = text[-LONGEST_BASE:]
    except NoSuchObject:
        raise DataRefused(f"the backup {name}: {key} is missing") from None
    if part.sha256 and digest.hexdigest() != part.sha256:
        raise DataRefused(f"the backup {name}: {key} is not the one that was written")
    if trusted:
        return
    if foreign:
        raise DataRefused(f"the backup {name}: {key} has something that no server writes there")
    for base in bases:
        if not _is_place(base.decode("utf-8", "replace"), part.base, url):
            raise DataRefused(
                f"the backup {name}: {key} has its base elsewhere, at {base[:200]!r}; if that is"
                " right, add --trust-definitions"
            )


def _is_place(location: str, path: str, url: str) -> bool:
    """Tell whether a location is a path in our bucket."""
    match = LOCATION.match(location)
    if not match or not path:
        return False
    place = match["place"]
    if match["collection"]:  # the server's administrator has made it
        return place.strip("/") == path.strip("/")
    return place.rstrip("/") == (url + path).rstrip("/")
