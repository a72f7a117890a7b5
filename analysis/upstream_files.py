"""Files of an upstream: which of them have changed, fetched into a folder.

The test lists come by git, 48 times a day: their updater loads no HTTP client, which would take a
quarter of the time that it needs to start.
"""

import functools
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ooni_common.config import DatabaseConfig, SecretUrl
from ooni_common.doctor import Checks
from ooni_common.fetch import Fetcher, Validators
from ooni_common.run import Job
from ooni_common.state import read_state, write_state
from table_updates import SourceVersion, versioned
from update_state import UpdateState

log = logging.getLogger("ooni.updates")


@dataclass(frozen=True)
class Fetched:
    """What has changed upstream.

    Attributes:
        files: table → the file that it is to be loaded from; none: nothing has changed.
        source: the upstream's version, for the state file.
        refused: whether that is what an earlier run has refused.
    """

    files: Mapping[str, Path]
    source: SourceVersion
    refused: bool = False

    @property
    def unproven_source(self) -> SourceVersion:
        """The version without what servers said of the files, so that they are fetched once more.

        What is refused can be damage on the way, which upstream does not have.
        """
        said = {f"{name}.{key}" for name in self.files for key in ("etag", "modified")}
        return {key: value for key, value in self.source.items() if key not in said}


def upstream_checks(fetcher: Fetcher, urls: Mapping[str, SecretUrl]) -> Checks:
    """Yield for each file whether its server sends it.

    Args:
        fetcher: asks for it.
        urls: name → URL.
    """

    def reach(url: SecretUrl) -> str:
        fetcher.reach(url)
        return f"{url} answers"

    for name, url in urls.items():
        yield name, functools.partial(reach, url)


def fetch_changed(
    fetcher: Fetcher, urls: Mapping[str, SecretUrl], loaded: SourceVersion, folder: Path
) -> Fetched:
    """Fetch the files that are not what the tables were loaded from.

    What a server said of a version is sent to the same URL alone: another one would take it for its
    own, and an older file for unchanged. The digest is of the bytes, wherever they come from.

    Args:
        fetcher: fetches them.
        urls: table → URL.
        loaded: what the tables were loaded from; an unchanged file costs one conditional request.
        folder: where to put them.

    Raises:
        Unavailable, DataRefused: as `Fetcher.fetch`.
    """
    files: dict[str, Path] = {}
    source = versioned(loaded)
    for name, url in urls.items():
        path = folder / name
        validators = _validators(loaded, name, url)
        with path.open("w+b") as file:
            current = fetcher.fetch(url, file, validators)
            if current is None:
                log.info("%s: not modified", url)
                continue
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest == loaded.get(f"{name}.sha256"):
            log.info("%s: the same bytes as before", url)
        else:
            log.info("fetched %s: %s bytes", url, f"{path.stat().st_size:,}")
            files[name] = path
        source[f"{name}.url"] = url.identity
        source[f"{name}.etag"] = current.etag
        source[f"{name}.modified"] = current.last_modified
        source[f"{name}.sha256"] = digest
    return Fetched(files, source)


def fetch_unless_refused(
    fetcher: Fetcher,
    urls: Mapping[str, SecretUrl],
    loaded: SourceVersion,
    refused: SourceVersion,
    folder: Path,
) -> Fetched:
    """Fetch as `fetch_changed` does, unless upstream still has what was refused.

    Args:
        fetcher: fetches the files.
        urls: table → URL.
        loaded: what the tables were loaded from.
        refused: what an earlier run has refused; nothing if it has not.
        folder: where to put the files.

    Raises:
        Unavailable, DataRefused: as `Fetcher.fetch`.
    """
    if not refused:
        return fetch_changed(fetcher, urls, loaded, folder)
    moved = fetch_changed(fetcher, urls, refused, folder)
    if not moved.files:
        return Fetched({}, moved.source, refused=True)

    def is_new(name: str) -> bool:
        return moved.source.get(f"{name}.sha256") != loaded.get(f"{name}.sha256")

    stayed = {name: url for name, url in urls.items() if name not in moved.files and is_new(name)}
    others = fetch_changed(fetcher, stayed, {}, folder)
    files = {name: path for name, path in moved.files.items() if is_new(name)}
    return Fetched({**files, **others.files}, {**loaded, **moved.source, **others.source})


def prove_next_time(job: Job[DatabaseConfig], fetched: Fetched) -> None:
    """Let the next run fetch once more what was loaded, as rows were refused."""
    state = read_state(job.state_file, UpdateState)
    if not job.dry_run:
        source = dict(fetched.unproven_source)
        write_state(job.state_file, msgspec.structs.replace(state, source=source))


def _validators(loaded: SourceVersion, name: str, url: SecretUrl) -> Validators | None:
    if loaded.get(f"{name}.url") != url.identity:
        return None
    return Validators(loaded.get(f"{name}.etag", ""), loaded.get(f"{name}.modified", ""))
