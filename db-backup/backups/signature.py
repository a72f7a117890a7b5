"""The signature of a backup's manifest: what is signed was written by somebody who has the key.

The key (`manifest_key_file`) is in no bucket. Whoever can write to the bucket can delete a backup,
or replace it by an older one; but can't make one whose definitions are executed.

    <prefix>/data/<backup>/manifest.hmac    HMAC-SHA-256 of the bytes of the manifest, hexadecimal

The manifest has the backup's name, kind, run number, and the SHA-256 of what the server's own
manifests (`.backup`) are; so all of that is signed.
"""

import hashlib
import hmac
import re
from typing import Literal

from ooni_common.errors import ConfigError

SHORTEST = 32  # bytes of a key
SIGNATURE = re.compile(rb"[0-9a-f]{64}")
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


def check_key(key: bytes) -> bytes:
    """Return a key from a file, without the line's end.

    Raises:
        ConfigError: it is too short to be one.
    """
    key = key.strip()
    if len(key) < SHORTEST:
        raise ConfigError(
            f"manifest_key_file: a key has at least {SHORTEST} characters; make one with"
            " `openssl rand -hex 32`"
        )
    return key
