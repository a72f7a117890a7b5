"""The signature of a backup's manifest: what is signed was written by somebody who has the key.

The key (`manifest_key`) is in no bucket. Whoever can write to the bucket can delete a backup,
or replace it by an older one; but can't make one whose definitions are executed.

    <prefix>/data/<backup>/manifest.hmac    HMAC-SHA-256 of the bytes of the manifest, hexadecimal

The manifest has the backup's name, kind, run number, and the SHA-256 of what the server's own
manifests (`.backup`) are; so all of that is signed.
"""

import hashlib
import hmac
from typing import Literal

LONGEST = 1000  # bytes of the object
PURPOSE = b"ooni-db-backup manifest 1\n"  # so that a signature is one of nothing else

SignatureState = Literal["valid", "missing", "wrong", "unchecked"]


def signature_of(key: bytes, content: bytes) -> bytes:
    """Return the signature of a manifest.

    Args:
        key: the secret one.
        content: the bytes of the manifest.
    """
    return hmac.new(key, PURPOSE + content, hashlib.sha256).hexdigest().encode()


def state_of(key: bytes, content: bytes, signature: bytes | None) -> SignatureState:
    """Tell what a signature is worth.

    Args:
        key: the secret one; empty: nothing can be checked.
        content: the bytes of the manifest.
        signature: None if there is none.
    """
    if not key:
        return "unchecked"
    if signature is None:
        return "missing"
    wanted = signature_of(key, content)
    return "valid" if hmac.compare_digest(wanted, signature.strip()) else "wrong"
