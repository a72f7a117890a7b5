"""The server's own manifest of a BACKUP (`.backup`), looked at before the server reads it.

It says where the older backup is that has the rest, and the server goes there. So it has to be the
one of our manifest; and where our manifest has its SHA-256, not a byte may be another one. What
somebody writes between our look and the server's is noticed afterwards: no rows go live, then.
"""

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from xml.parsers import expat

from backup_config import Config
from backups.manifest import SERVER_MANIFEST, BackupManifest, ServerBackup
from ooni_common.errors import ConfigError, DataRefused
from store.bucket import Bucket, NoSuchObject, ObjectHead

# What servers write from 24.8 on. What else one might read there could be another address.
BRANCHES = ("config", "contents", "file")
LEAVES = (
    *("version", "deduplicate_files", "timestamp", "uuid", "backup_id"),
    *("base_backup", "base_backup_uuid", "base_backup_copy_s3_credentials_from_backup"),
    *("data_file_name_generator", "data_file_name_prefix_length"),
    *("name", "size", "checksum", "use_base", "base_size", "base_checksum", "data_file"),
    "encrypted_by_disk",
)
FILES = ("name", "data_file")
LONGEST_TEXT = 8192  # characters of an element
# The address and perhaps credentials, or the name of a collection and the path.
LOCATION = re.compile(
    r"S3\((?:(?P<collection>\w+|`\w+`), ?'(?P<path>[^'\\]*)'"
    r"|'(?P<url>[^'\\]*)'(?:, ?'[^'\\]*'){0,2})\)"
)


@dataclass(frozen=True)
class Looked:
    """The server's manifests that were looked at.

    Attributes:
        bucket: has them.
        heads: what the store said of each, by key, before it was read.
    """

    bucket: Bucket
    heads: Mapping[str, ObjectHead | None]

    def check_unchanged(self) -> None:
        """Check that none was written since.

        Raises:
            DataRefused: one was, whatever it is now.
        """
        for key, head in self.heads.items():
            if self.bucket.look(key) != head:
                raise DataRefused(
                    f"{key} was written while the server restored from it; these rows are not used:"
                    " see who can write to the bucket"
                )


def check_server_manifests(
    bucket: Bucket, chain: Iterable[BackupManifest], url: str, *, trusted: bool = False
) -> Looked:
    """Check what the server will read of a backup and of those that it needs; return what it was.

    Args:
        bucket: has them.
        chain: their manifests.
        url: of the bucket, as the server reaches it, with a slash at its end.
        trusted: whether a base may be elsewhere: somebody has said so.

    Raises:
        DataRefused: one is not the one that was written, or its base is elsewhere.
    """
    heads: dict[str, ObjectHead | None] = {}
    for manifest in chain:
        for shard in manifest.by_shard:
            for kind, part in shard.parts.items():
                if kind == "definitions":  # nobody reads these
                    continue
                key = part.path + SERVER_MANIFEST
                heads[key] = bucket.look(key)
                _check(bucket, manifest.name, part, url, trusted=trusted)
    return Looked(bucket, heads)


def _check(bucket: Bucket, name: str, part: ServerBackup, url: str, *, trusted: bool) -> None:
    key = part.path + SERVER_MANIFEST
    where = f"the backup {name}: {key}"
    digest = hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        for piece in bucket.stream(key):
            digest.update(piece)
            yield piece

    reader, fault = _Reader(), ""
    try:
        rest = pieces()
        try:
            reader.read(rest)
        except _Foreign as error:
            fault = f"something that no server writes there: {error}"
        for _ in rest:  # the digest is that of all of it
            pass
    except NoSuchObject:
        raise DataRefused(f"{where} is missing") from None
    if part.sha256 and digest.hexdigest() != part.sha256:
        raise DataRefused(f"{where} is not the one that was written")
    if not trusted:
        reason = fault or _foreign_base(reader.bases, part.base, url)
        if reason:
            raise DataRefused(f"{where} has {reason}; if that is right, add --trust-definitions")


def _foreign_base(bases: Iterable[str], path: str, url: str) -> str:
    """Return what is wrong with the places of bases; "" for nothing."""
    for base in bases:
        if not _is_place(base, path, url):
            return f"its base elsewhere, at {base[:200]!r}"
    return ""


class _Foreign(Exception):
    """What a server does not write; the message says what."""


class _Reader:
    """Reads a server's manifest by the parser that the server has, so that both read the same.

    Patterns would not see an element in UTF-16, or one that is longer than they expect.

    Attributes:
        bases: what it has for the place of its base.
    """

    def __init__(self) -> None:
        self.bases: set[str] = set()
        self._path: list[str] = []
        self._text = ""
        parser = expat.ParserCreate("UTF-8")  # and no other, whatever its first bytes are
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._more
        parser.XmlDeclHandler = parser.StartDoctypeDeclHandler = self._refuse
        parser.ProcessingInstructionHandler = parser.CommentHandler = self._refuse
        parser.StartCdataSectionHandler = self._refuse
        self._parser = parser

    def read(self, pieces: Iterable[bytes]) -> None:
        """Read all of it.

        Raises:
            _Foreign: it has something that no server writes.
        """
        try:
            for piece in itertools.chain(pieces, [b""]):
                self._parser.Parse(piece, not piece)
        except expat.ExpatError as error:
            raise _Foreign(f"it is not XML: {error}") from None

    def _start(self, tag: str, attributes: object) -> None:
        if self._path:
            fits = self._path[-1] in BRANCHES and tag in (*BRANCHES[1:], *LEAVES)
        else:
            fits = tag == BRANCHES[0]
        if attributes or not fits:
            raise _Foreign(f"the element {tag[:100]!r}")
        self._path.append(tag)
        self._text = ""

    def _more(self, characters: str) -> None:
        self._text += characters
        if len(self._text) > LONGEST_TEXT:
            raise _Foreign(f"an element of more than {LONGEST_TEXT:,} characters")

    def _end(self, tag: str) -> None:
        self._path.pop()
        if tag == "base_backup":
            self.bases.add(self._text)
        elif tag in FILES and (self._text.startswith("/") or ".." in self._text.split("/")):
            raise _Foreign(f"a file outside of it, {self._text[:100]!r}")
        self._text = ""

    def _refuse(self, *_: object) -> None:
        raise _Foreign("a declaration, a comment or an instruction")


def _is_place(location: str, path: str, url: str) -> bool:
    """Tell whether a location is a path in our bucket."""
    match = LOCATION.fullmatch(location)
    if not match or not path:
        return False
    if match["collection"]:  # the server's administrator has made it
        return bool(match["path"].strip("/") == path.strip("/"))
    return bool(match["url"].rstrip("/") == (url + path).rstrip("/"))


def check_layout(config: Config, bucket: Bucket, manifest: BackupManifest) -> None:
    """Check that a backup is one that can be restored here.

    Raises:
        DataRefused: 2.0.1 has made it of several shards, by ON CLUSTER.
        ConfigError: its rows would be read by a collection that nobody here has named.
    """
    if manifest.collection not in ("", config.private_named_collection):
        raise ConfigError(
            f"the backup {manifest.name} was made by the named collection {manifest.collection!r};"
            " if that is of this bucket, set private_named_collection to it"
        )
    for part in manifest.parts.values():
        if len(list(bucket.folders(f"{part.path}shards/"))) > 1:
            raise DataRefused(
                f"the backup {manifest.name} was made by {manifest.tool} with ON CLUSTER, of"
                " several shards at once: restore it with that version"
            )
