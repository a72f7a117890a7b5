"""What is installed: whether it is whole, where it came from, how old it is."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

import mmdb
from downloads import DatabaseSource, Loaded
from installation import Installation, digest_of
from mmdb import Description
from ooni_common.errors import DataRefused, Unavailable
from ooni_common.metrics import Metrics
from ooni_common.state import read_state

log = logging.getLogger("ooni.geoip")

LoadedByKind = dict[str, Loaded]  # the state: name of the kind → what is installed

CLOCKS_DIFFER = timedelta(days=1)  # a database may be so much younger than this machine's clock


@dataclass(frozen=True)
class Installed:
    """An installed database that is whole."""

    description: Description
    loaded: Loaded


def read_installed(
    state_file: Path, installation: Installation, sources: Sequence[DatabaseSource]
) -> dict[str, Installed]:
    """Return the installed databases that are whole, by kind.

    What has the digest of the last run was checked then.
    """
    state = read_state(state_file, LoadedByKind)
    installed = {}
    for source in sources:
        path = installation.path(source.file)
        if not path.exists():
            continue
        loaded = state.get(source.kind.name, Loaded())
        try:
            digest = digest_of(path)
            if digest == loaded.sha256:
                description = mmdb.describe(path)
            else:
                description = mmdb.check(path, source.kind, source.wanted_type)
                loaded = Loaded(sha256=digest)
            installed[source.kind.name] = Installed(description, loaded)
        except DataRefused as error:
            log.warning("installed: %s; it will be fetched again", error)
        except PermissionError as error:  # installed by another user, for itself alone
            log.warning("installed: %s: %s; it will be fetched again", path, error.strerror)
    return installed


def whole_pair(
    installed: Mapping[str, Installed], sources: Sequence[DatabaseSource]
) -> dict[str, str]:
    """Return the digests of the installed files; none where one is not whole: they are a pair."""
    if len(installed) < len(sources):
        return {}
    return {source.file: installed[source.kind.name].loaded.sha256 for source in sources}


def rolled_back(
    state_file: Path,
    sources: Sequence[DatabaseSource],
    replaced: Mapping[str, Installed],
    restored: Mapping[str, str],
) -> LoadedByKind:
    """Return the state in which what was replaced counts as what upstream has.

    Args:
        state_file: holds the state of the last run.
        sources: the databases.
        replaced: what was installed and whole, by kind.
        restored: the SHA-256 of what is installed again, by file.
    """
    state = read_state(state_file, LoadedByKind)
    loaded = {}
    for source in sources:
        kind, digest = source.kind.name, restored[source.file]
        last = state.get(kind, Loaded())
        away = replaced[kind].loaded.sha256 if kind in replaced else last.sha256
        if digest == last.put_away:  # a second rollback undoes the first
            away = ""
        elif digest == away:  # only the other one of the pair has changed
            away = last.put_away
        loaded[kind] = msgspec.structs.replace(last, sha256=digest, put_away=away)
    return loaded


def have_moved(
    installed: Mapping[str, Installed], sources: Sequence[DatabaseSource], month: str
) -> bool:
    """Tell whether a database of the month was loaded from another address than it has now."""
    return any(
        installed[source.kind.name].loaded.url not in ("", source.of(month).url.identity)
        for source in sources
        if source.kind.name in installed
    )


def reason_to_refuse(
    new: Description, installed: Installed | None, now: datetime, max_shrink: float
) -> str:
    """Return why a database that can be read is not installed; "" if it is."""
    if is_of_the_future(new, now):
        return f"built {new.built:%Y-%m-%d}, in the future (today is {now:%Y-%m-%d})"
    if installed is None:
        return ""
    old = installed.description
    if is_of_the_future(old, now):
        log.warning("the installed one says that it was built %s", f"{old.built:%Y-%m-%d}")
    elif new.epoch < old.epoch:
        return f"built {new.built:%Y-%m-%d}, before the installed one ({old.built:%Y-%m-%d})"
    if new.nodes < old.nodes * (1 - max_shrink):
        return (
            f"{new.nodes:,} nodes, more than {max_shrink:.0%} fewer than the installed one"
            f" ({old.nodes:,})"
        )
    return ""


def check_installed(
    installation: Installation, sources: Sequence[DatabaseSource], now: datetime, max_age_days: int
) -> None:
    """Read what is installed as a whole, and tell whether it is too old.

    Raises:
        DataRefused: one of them is missing, damaged, older than `max_age_days`, or of the future.
    """
    failures = []
    for source in sources:
        path = installation.path(source.file)
        try:
            description = mmdb.check(path, source.kind, source.wanted_type)
            _check_age(path, description, now, max_age_days)
        except FileNotFoundError:
            failures.append(f"{path}: missing")
        except OSError as error:
            failures.append(f"{path}: {error.strerror}")
        except DataRefused as error:
            failures.append(str(error))
    if failures:
        raise DataRefused("; ".join(failures))


def is_of_the_future(description: Description, now: datetime) -> bool:
    """Tell whether a database says that it was built after today."""
    return description.built > now + CLOCKS_DIFFER


def _check_age(path: Path, description: Description, now: datetime, most: int) -> None:
    age = (now - description.built).days
    if is_of_the_future(description, now):
        raise DataRefused(f"{path.name}: built {description.built:%Y-%m-%d}, in the future")
    if age > most:
        raise DataRefused(f"{path.name}: built {age} days ago, more than {most} are too old")
    log.info("%s: %s, %d days ago", path.name, description, age)


def check_for_standstill(installed: Mapping[str, Installed], now: datetime, most: int) -> None:
    """Raise Unavailable if nothing new was published for so many days that something is wrong."""
    for database in installed.values():
        if (now - database.description.built).days > most:
            raise Unavailable(
                f"nothing new upstream, and what is installed is old: {database.description};"
                " look whether the address has changed"
            )


def report(metrics: Metrics, installation: Installation, sources: Sequence[DatabaseSource]) -> None:
    """Send what is installed."""
    for source in sources:
        path = installation.path(source.file)
        if path.exists():
            description = mmdb.describe(path)
            for name in source.kind.measured_as:
                metrics.gauge(f"geoip_{name}_node_cnt", description.nodes)
                metrics.gauge(f"geoip_{name}_epoch", description.epoch)
