"""What tells the rows of a chunk from those that it had."""

from collections.abc import Sequence

import msgspec

from documents import Digest, Number
from tables.digest import FIRST_SCHEME, SCHEME, sum_of_digests

LONGEST_NUMBER = 100  # digits of a version; no type has more than 78


class Fingerprint(msgspec.Struct, frozen=True, omit_defaults=True):
    """What tells whether the rows of a chunk are the same as before.

    Attributes:
        rows: how many.
        version: the highest value of the version column, as text; "" without one.
        hash: the digest of each row's key and version, or of all of it (tables/digest.py).
        keys: how many rows there are when those with the same key have become one, about; it says
            how many are lost, and nothing of whether they are the same.
        scheme: of the digest. In the first one, `version`, `hash` and `keys` can be None, where
            each row has a NULL. In today's they are None where the rows were only counted.
        whole: the digest of all columns, where `hash` is of key and version, and cells of rows were
            changed; None: it was not asked for.
        merged: how many rows merges will leave, where the digests are of these (FINAL); None: they
            are of all rows that are stored, as they always are where no merge drops any.
    """

    rows: Number
    version: str | None
    hash: Digest | None
    keys: Number | None
    scheme: str = FIRST_SCHEME
    whole: Digest | None = None
    merged: Number | None = None

    @property
    def is_read(self) -> bool:
        """Whether it is more than the number of rows."""
        return self.hash is not None

    def same_as(self, other: "Fingerprint") -> bool:
        """Tell whether the rows are the same; all columns, if these were asked."""
        if self.whole is not None and self.whole != other.whole:
            return False
        if self.merged != other.merged or (self.merged is None and self.rows != other.rows):
            return False
        return (self.version, self.hash) == (other.version, other.hash)


def counted(rows: int) -> Fingerprint:
    """Return the fingerprint of rows that were not read."""
    return Fingerprint(rows, None, None, None, SCHEME)


def combined(fingerprints: Sequence[Fingerprint]) -> Fingerprint:
    """Return the fingerprint of the rows of several shards, at least one."""
    if len(fingerprints) == 1:
        return fingerprints[0]
    versions = sorted({one.version or "" for one in fingerprints} - {""}, key=_as_version)
    wholes = [one.whole for one in fingerprints]
    merged = [one.merged for one in fingerprints if one.merged is not None]
    return Fingerprint(
        rows=sum(one.rows for one in fingerprints),
        version=versions[-1] if versions else "",
        hash=sum_of_digests(one.hash for one in fingerprints),
        keys=sum(one.keys or 0 for one in fingerprints),
        scheme=fingerprints[0].scheme,
        whole=None if None in wholes else sum_of_digests(wholes),
        merged=sum(merged) if len(merged) == len(fingerprints) else None,
    )


def of_merged(read: Fingerprint, rows: int) -> Fingerprint:
    """Return a fingerprint of the rows that merges will leave, of so many that are stored."""
    return msgspec.structs.replace(read, rows=rows, merged=read.rows)


def _as_version(text: str) -> tuple[int, str]:
    """Return what sorts versions: numbers by their value, times as they are written."""
    is_number = text.isdecimal() and len(text) <= LONGEST_NUMBER
    return (int(text), "") if is_number else (0, text)
