"""Downloading the databases: from where, unpacked into which file, and which version it is."""

import hashlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from mmdb import Kind
from ooni_common.config import SecretUrl
from ooni_common.fetch import Fetcher, Limits, Validators
from unpacking import Unpacker

log = logging.getLogger("ooni.geoip")


class Loaded(msgspec.Struct, frozen=True):
    """Where an installed database came from, kept in the state directory.

    Attributes:
        url: what it is known by, see `SecretUrl.identity`.
        sha256: of the installed file.
        validators: what the server said of it.
    """

    url: str = ""
    sha256: str = ""
    validators: Validators = Validators()


@dataclass(frozen=True)
class Source:
    """One of the two databases: what it is, where it comes from, and what file it becomes."""

    kind: Kind
    url: SecretUrl
    file: str
    wanted_type: str

    @property
    def dated(self) -> bool:
        """Whether each month has an address of its own."""
        return "{month}" in self.url.reveal()

    def of(self, month: str) -> "Source":
        """Return the source of a month, YYYY-MM."""
        year, _, number = month.partition("-")
        url = self.url.reveal().replace("{year}", year).replace("{month}", number)
        return replace(self, url=SecretUrl(url))


class Downloader:
    """Downloads databases."""

    def __init__(
        self, user_agent: str, limits: Limits, *, ca_file: Path | None, max_size: int
    ) -> None:
        """Take `limits` for each download, and `max_size` in bytes for what was packed in it."""
        self._fetcher = Fetcher(user_agent, limits, ca_file=ca_file)
        self._max_size = max_size

    def download(self, source: Source, path: Path, known: Loaded) -> Loaded:
        """Download and unpack a database unless it is what the caller has.

        Args:
            source: which.
            path: where to put it; nothing may be there.
            known: what the caller has.

        Returns:
            What there is now. Where its digest is that of `known`, `path` is no file.

        Raises:
            NotFound, Unavailable, DataRefused: as `Fetcher.fetch`; also: it can't be unpacked.
        """
        validators = known.validators if known.url == source.url.identity else None
        current = self._unpacked(source, path, validators)
        digest = digest_of(path)
        if current is None:
            log.info("%s: not modified", source.url)
            path.unlink()
            return known
        if digest == known.sha256:
            log.info("%s: the same bytes as before", source.url)
            path.unlink()
        else:
            log.info("fetched %s: %s bytes unpacked", source.url, f"{path.stat().st_size:,}")
        return Loaded(source.url.identity, digest, current)

    def _unpacked(
        self, source: Source, path: Path, validators: Validators | None
    ) -> Validators | None:
        with path.open("xb") as file:
            unpacker = Unpacker(file, source.url, self._max_size)
            current = self._fetcher.fetch(source.url, unpacker, validators)
            if current is not None:
                unpacker.finish()
        return current


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
