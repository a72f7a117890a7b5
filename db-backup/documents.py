"""Manifests as JSON, which come from a bucket, so that nothing of them is believed unchecked."""

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from ooni_common import __version__
from ooni_common.errors import DataRefused

Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Digest = Annotated[str, Meta(pattern=r"^[0-9]{0,20}\Z")]  # of rows; "": there is none
AnyManifest = TypeVar("AnyManifest", bound=msgspec.Struct)

TOOL = f"ooni-db-backup {__version__}"
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
SQL = "application/sql"
LARGEST_DOCUMENT = 8 * 1024 * 1024  # bytes of a manifest, or of another object read as a whole
LARGEST_MANIFEST = 32 * 1024 * 1024  # of a table's exports: ten thousand chunks of many columns
BYTES_OF_A_VALUE = 24  # that each value counts for, at least: in memory it takes several times that


def decoded_manifest(content: bytes, kind: type[AnyManifest], where: str) -> AnyManifest:
    """Return a manifest as it was read.

    Args:
        content: of the object.
        kind: of manifest.
        where: it was, for the message.

    Raises:
        DataRefused: it is damaged.
    """
    if weight(content) > LARGEST_MANIFEST:
        raise DataRefused(f"{where} damaged: it has more values than a manifest can have")
    try:
        return msgspec.json.decode(content, type=kind)
    except RecursionError:
        raise DataRefused(f"{where} damaged: it is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataRefused(f"{where} damaged: {error}") from None


def weight(content: bytes) -> int:
    """Return how large JSON is, in bytes, or what its values count for, if that is more.

    What has many small values takes far more memory than bytes: so they are bounded, too, before
    anything is decoded. Texts may have these letters as well, which makes them heavier than they
    are. Of two documents together, the weight is at most the sum of theirs.
    """
    values = content.count(b",") + content.count(b"[") + content.count(b"{")
    return max(len(content), BYTES_OF_A_VALUE * values)


def encoded(manifest: msgspec.Struct, key: str, largest: int = LARGEST_DOCUMENT) -> bytes:
    """Return a manifest as JSON that can be read back, laid out for people if that is not too much.

    Args:
        manifest: of any kind.
        key: under which it will be written.
        largest: bytes that are read back.

    Raises:
        DataRefused: it can't, so that it must not be written.
    """
    content = msgspec.json.encode(manifest)
    laid_out = msgspec.json.format(content) + b"\n"
    content = laid_out if len(laid_out) <= LARGEST_DOCUMENT else content
    if len(content) > largest or weight(content) > LARGEST_MANIFEST:
        raise DataRefused(
            f"{key}: not written: it would have {len(content):,} bytes, more than the"
            f" {largest:,} that are read back; divide the table into fewer chunks"
        )
    try:
        same = msgspec.json.decode(content, type=type(manifest)) == manifest
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataRefused(f"{key}: not written: it could not be read back: {error}") from None
    if not same:
        raise DataRefused(f"{key}: not written: it would be read back as another one")
    return content
