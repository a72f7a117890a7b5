"""What the updaters of this folder have in common: fetches, findings, loads and rollbacks."""

import functools
import hashlib
import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ooni_common import __version__
from ooni_common.config import DatabaseConfig, SecretUrl
from ooni_common.doctor import Checks, diagnose, machine_checks, preflight
from ooni_common.fetch import Fetcher, Validators
from ooni_common.nodes import Nodes
from ooni_common.output import show
from ooni_common.run import Job
from ooni_common.state import read_state, write_state
from ooni_common.swap.preview import preview_tables
from ooni_common.swap.replace import replace_tables
from ooni_common.swap.state import heal_tables, is_current, roll_back
from ooni_common.swap.update import Change, Table, Update, UpdateState, next_state
from ooni_common.table_checks import RunChecks, Tables, database_checks

log = logging.getLogger("ooni.updates")

SourceVersion = Mapping[str, str]


@dataclass(frozen=True)
class Fetched:
    """What has changed upstream.

    Attributes:
        files: table → the file that it is to be loaded from; none: nothing has changed.
        source: the upstream's version, for the state file.
    """

    files: Mapping[str, Path]
    source: SourceVersion


def versioned(source: SourceVersion) -> dict[str, str]:
    """Return what the state file says of a load: another validation may load other rows."""
    return {**source, "version": __version__}


def examine_updater(job: Job[DatabaseConfig], tables: Sequence[Table], upstream: Checks) -> None:
    """Print whether a run can succeed, and what to do where it can't.

    Raises:
        Unhealthy: it can't.
    """
    config = job.config
    diagnose(
        itertools.chain(
            machine_checks(config.state_dir, config.statsd),
            database_checks(config, Tables(tables)),
            upstream,
        )
    )


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


def check_before_writing(nodes: Nodes, tables: Sequence[Table]) -> None:
    """Make the checks that need the database, before anything is written.

    Raises:
        ConfigError, Unavailable: a run would fail.
    """
    preflight(RunChecks(nodes, Tables(tables)))


def loaded_source(
    job: Job[DatabaseConfig], nodes: Nodes, tables: Sequence[Table]
) -> Mapping[str, str]:
    """Return what the live tables were loaded from; nothing if they hold something else by now."""
    state = read_state(job.state_file, UpdateState)
    if job.force or state.source.get("version") != __version__:
        return {}
    return state.source if is_current(nodes, tables, state) else {}


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
) -> Fetched | None:
    """Fetch as `fetch_changed` does, unless upstream still has what was refused; then return None.

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
        return None

    def is_new(name: str) -> bool:
        return moved.source.get(f"{name}.sha256") != loaded.get(f"{name}.sha256")

    stayed = {name: url for name, url in urls.items() if name not in moved.files and is_new(name)}
    others = fetch_changed(fetcher, stayed, {}, folder)
    files = {name: path for name, path in moved.files.items() if is_new(name)}
    return Fetched({**files, **others.files}, {**loaded, **moved.source, **others.source})


def _validators(loaded: SourceVersion, name: str, url: SecretUrl) -> Validators | None:
    if loaded.get(f"{name}.url") != url.identity:
        return None
    return Validators(loaded.get(f"{name}.etag", ""), loaded.get(f"{name}.modified", ""))


def note_unchanged(
    job: Job[DatabaseConfig], nodes: Nodes, tables: Sequence[Table], source: SourceVersion
) -> None:
    """Say that there is nothing to do, and keep what the server said of the version.

    Raises:
        Unavailable: no majority of the nodes is left.
    """
    log.info("nothing to do: upstream has nothing new")
    heal_nodes(job, nodes, tables)
    if not job.dry_run:
        write_state(job.state_file, next_state(read_state(job.state_file, UpdateState), source, []))


def heal_nodes(job: Job[DatabaseConfig], nodes: Nodes, tables: Sequence[Table]) -> None:
    """Bring nodes that hold something else to what the others have.

    Raises:
        Unavailable: no majority of the nodes is left.
    """
    if not job.dry_run:
        heal_tables(nodes, tables)
    job.metrics.gauge("absent_nodes", len(nodes.absent))


def load(
    job: Job[DatabaseConfig], nodes: Nodes, updates: Sequence[Update], source: SourceVersion
) -> list[Change]:
    """Replace the tables, and note what they were loaded from; of a dry run, print the difference.

    Raises:
        DataRefused, Unavailable, ConfigError: as `replace_tables`; nothing was changed.
    """
    if job.dry_run:
        for line in preview_tables(nodes, updates, force=job.force):
            show(line)
        return []
    changes = replace_tables(nodes, updates, force=job.force, critical=job.signals.deferred)
    job.metrics.gauge("absent_nodes", len(nodes.absent))
    write_state(
        job.state_file, next_state(read_state(job.state_file, UpdateState), source, changes)
    )
    for change in changes:
        log.info("%s", change)
    return changes


def roll_back_tables(job: Job[DatabaseConfig], nodes: Nodes, tables: Sequence[Table]) -> None:
    """Restore the content that the last update replaced. It stays until upstream changes.

    Raises:
        DataRefused: the shadow tables do not hold it.
    """
    state = read_state(job.state_file, UpdateState)
    if job.dry_run:
        for table in tables:
            log.info("would swap %s and %s", table.shadow, table.name)
        return
    changes = roll_back(nodes, tables, state, force=job.force, critical=job.signals.deferred)
    write_state(job.state_file, next_state(state, state.source, changes))
    for change in changes:
        log.info("rolled back: %s; what was replaced will not be loaded again", change)
