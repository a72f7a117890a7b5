"""Fetching the files that tables are loaded from, if they have changed."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ooni_common.config import SecretUrl
from ooni_common.fetch import Fetcher, Validators
from table_updates import Source, versioned

log = logging.getLogger("ooni.fetch")


@dataclass(frozen=True)
class Fetched:
    """What has changed upstream.

    Attributes:
        files: table → the file that it is to be loaded from; none: nothing has changed.
        source: the upstream's version, for the state file.
    """

    files: Mapping[str, Path]
    source: Source


def fetch_changed(
    fetcher: Fetcher, urls: Mapping[str, SecretUrl], known: Source, folder: Path
) -> Fetched:
    """Fetch the files that are not what the tables were loaded from.

    What a server said of a version is sent to the same URL alone: another one would take it for its
    own, and an older file for unchanged. The digest is of the bytes, wherever they come from.

    Args:
        fetcher: fetches them.
        urls: table → URL.
        known: what the tables were loaded from; an unchanged file costs one conditional request.
        folder: where to put them.

    Raises:
        Unavailable, DataRefused: as `Fetcher.fetch`.
    """
    files: dict[str, Path] = {}
    source = versioned(known)
    for name, url in urls.items():
        path = folder / name
        validators = _validators(known, name) if known.get(f"{name}.url") == url.identity else None
        with path.open("w+b") as file:
            current = fetcher.fetch(url, file, validators)
            if current is None:
                log.info("%s: not modified", url)
                continue
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest == known.get(f"{name}.sha256"):
            log.info("%s: the same bytes as before", url)
        else:
            log.info("fetched %s: %s bytes", url, f"{path.stat().st_size:,}")
            files[name] = path
        source[f"{name}.url"] = url.identity
        source[f"{name}.etag"] = current.etag
        source[f"{name}.modified"] = current.last_modified
        source[f"{name}.sha256"] = digest
    return Fetched(files, source)


def _validators(known: Source, name: str) -> Validators:
    return Validators(known.get(f"{name}.etag", ""), known.get(f"{name}.modified", ""))
