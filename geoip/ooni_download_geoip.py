#!/usr/bin/env python3
"""Keep the GeoIP databases current that the API looks the networks of the probes up in.

    https://download.db-ip.com/free/dbip-asn-lite-YYYY-MM.mmdb.gz      → /var/lib/ooniapi/asn.mmdb
    https://download.db-ip.com/free/dbip-country-lite-YYYY-MM.mmdb.gz  → /var/lib/ooniapi/cc.mmdb

They appear once a month. Both are unpacked while they arrive (downloads.py), read as a whole
(mmdb.py), and installed together (installation.py), or neither is. The stamp `geoipdbts` holds the
month that is installed; a file that is missing or damaged is fetched again whatever it says.

By hand: ooni_download_geoip.py --dry-run --stdout, and --check for what is installed
"""

import contextlib
import functools
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

import mmdb
from downloads import DatabaseSource, Loaded, digest_of, download
from geoip_doctor import checks_of
from installation import STAMP, Installation
from mmdb import ASN, COUNTRY, Description
from ooni_common.config import Config as CommonConfig
from ooni_common.config import SecretUrl, Share, check_url
from ooni_common.doctor import diagnose
from ooni_common.errors import DataRefused, Unavailable
from ooni_common.fetch import Fetcher, Limits, NotFound
from ooni_common.run import DOCTOR, ROLLBACK, Command, Job, Script, execute
from ooni_common.state import read_state, write_state

log = logging.getLogger("ooni.geoip")

LIMITS = Limits(max_bytes=500 * 10**6, total_time=3600)

FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
DBIP = "https://download.db-ip.com/free/dbip-{}-lite-{{year}}-{{month}}.mmdb.gz"


class Config(CommonConfig, frozen=True, kw_only=True):
    """The keys of download-geoip.conf, where each is explained."""

    state_dir: Path = Path("/var/lib/ooni-geoip")
    output_dir: Path = Path("/var/lib/ooniapi")
    asn_url: SecretUrl = SecretUrl(DBIP.format("asn"))
    cc_url: SecretUrl = SecretUrl(DBIP.format("country"))
    asn_file: FileName = "asn.mmdb"
    cc_file: FileName = "cc.mmdb"
    asn_type: str = "ASN"
    cc_type: str = "Country"
    ca_file: Path | None = None
    max_shrink: Share = 0.2
    max_size: Annotated[int, Meta(gt=0)] = 500_000_000
    max_age_days: Annotated[int, Meta(gt=0)] = 45

    def __post_init__(self) -> None:
        """Refuse URLs that can't be fetched, and names that are one file."""
        super().__post_init__()
        for key, url in (("asn_url", self.asn_url), ("cc_url", self.cc_url)):
            check_url(key, url.reveal(), ("https", "http", "file"), needs_host=False)
        names = (self.asn_file, self.cc_file, STAMP)
        if len({name.removesuffix(".previous") for name in names}) < len(names):
            raise ValueError(f"cc_file: expected another name than asn_file, and not {STAMP}")


LoadedByKind = dict[str, Loaded]  # the state: name of the kind → what is installed


@dataclass(frozen=True)
class Installed:
    """An installed database that is whole."""

    description: Description
    loaded: Loaded


@dataclass(frozen=True)
class PublishedMonth:
    """What a month has: where it came from, and whether any of it is new."""

    loaded: LoadedByKind
    new: bool


SCRIPT = Script(
    name="ooni_download_geoip",
    command="ooni-download-geoip",
    description="Keep the GeoIP databases asn.mmdb and cc.mmdb current.",
    config_type=Config,
    config_file=Path("/etc/ooni/download-geoip.conf"),
    commands=(Command("run", "install the newest databases, unless they are installed"), DOCTOR),
    flags={"check": "check what is installed, and how old it is; change nothing"} | ROLLBACK,
    looking=("check",),
)


def main(
    argv: Sequence[str] | None = None, *, now: datetime | None = None, limits: Limits = LIMITS
) -> int:
    """Run once as the command line says; return the exit status.

    Args:
        argv: the arguments after the program's name; None: those of the process.
        now: what counts as now; None: the clock's time.
        limits: of each download.
    """
    work = functools.partial(run, now=now or datetime.now(UTC), limits=limits)
    return execute(SCRIPT, work, argv)


def run(job: Job[Config], now: datetime, limits: Limits) -> None:
    """Update, check or roll back, as the flags say."""
    config = job.config
    installation = Installation(config.output_dir, (config.asn_file, config.cc_file))
    if job.command == "doctor":
        examine(job, installation, now, limits)
        return
    if "check" in job.flags:
        check_installed(config, installation, now)
        return
    try:
        if "rollback" in job.flags:
            roll_back_databases(job, installation, now)
        else:
            update(job, installation, now, limits)
    except PermissionError:
        installation.check_usable()  # it was at the start; its owner may have changed that since
        raise


def examine(job: Job[Config], installation: Installation, now: datetime, limits: Limits) -> None:
    """Print whether a run can succeed, and what to do where it can't."""
    config = job.config
    fetcher = Fetcher(job.user_agent, replace(limits, retries=0), ca_file=config.ca_file)
    sources = {
        source: months_to_try(now.date(), "", dated=source.dated) for source in sources_of(config)
    }
    diagnose(checks_of(config, installation, fetcher, sources))


def sources_of(config: Config) -> tuple[DatabaseSource, DatabaseSource]:
    """Return what has to be installed."""
    return (
        DatabaseSource(ASN, config.asn_url, config.asn_file, config.asn_type),
        DatabaseSource(COUNTRY, config.cc_url, config.cc_file, config.cc_type),
    )


def update(job: Job[Config], installation: Installation, now: datetime, limits: Limits) -> None:
    """Install the newest databases that there are, unless they are installed."""
    prepare_folder(job, installation)
    sources = sources_of(job.config)
    installed = read_installed(job, installation, sources)
    complete = len(installed) == len(sources) and not job.force
    months = months_to_try(
        now.date(),
        installation.month if complete else "",
        dated=are_dated(sources),
        moved=have_moved(installed, sources, installation.month),
    )
    published = first_published(job, installation, months, installed, limits)
    if published is None and not complete:
        raise Unavailable(f"nothing to install: {' and '.join(months)} are not published")
    if not job.dry_run:
        kept = {name: database.loaded for name, database in installed.items()}
        write_state(job.state_file, kept | (published.loaded if published else {}))
    report(job, installation, sources)
    if not (published and published.new):
        log.info("nothing to do: the newest databases are installed")
        check_for_standstill(installed, now, job.config.max_age_days)


def have_moved(
    installed: Mapping[str, Installed], sources: Sequence[DatabaseSource], month: str
) -> bool:
    """Tell whether a database of the month was loaded from another address than it has now."""
    return any(
        installed[source.kind.name].loaded.url not in ("", source.of(month).url.identity)
        for source in sources
        if source.kind.name in installed
    )


def prepare_folder(job: Job[Config], installation: Installation) -> None:
    """Check that databases can be installed, and clear up behind a run that was killed.

    Raises:
        ConfigError: they can't.
    """
    installation.check_usable()
    if not job.dry_run and installation.recover():
        log.warning("an update that was interrupted is complete now")


def months_to_try(today: date, installed: str, *, dated: bool, moved: bool = False) -> list[str]:
    """Return the months, YYYY-MM, whose databases are wanted, the best first.

    Args:
        today: decides what the newest month is.
        installed: the month whose databases are installed and whole; "" for none.
        dated: whether each month has its own address. Otherwise the server has to be asked.
        moved: whether the installed month has another address now, and is to be asked for again.
    """
    this = f"{today:%Y-%m}"
    if not dated:
        return [this]
    previous = f"{today.replace(day=1) - timedelta(days=1):%Y-%m}"
    again = [installed] if moved else []
    return [month for month in (this, previous) if month > installed or month in again]


def are_dated(sources: Sequence[DatabaseSource]) -> bool:
    """Tell whether each month has its own address, so that it can be not published yet."""
    return any(source.dated for source in sources)


def read_installed(
    job: Job[Config], installation: Installation, sources: Sequence[DatabaseSource]
) -> dict[str, Installed]:
    """Return the installed databases that are whole, by kind.

    What has the digest of the last run was checked then.
    """
    state = read_state(job.state_file, LoadedByKind)
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


def first_published(
    job: Job[Config],
    installation: Installation,
    months: Sequence[str],
    installed: Mapping[str, Installed],
    limits: Limits,
) -> PublishedMonth | None:
    """Install what the first of the months has that is published; None: none of them is."""
    for month in months:
        try:
            return install_month(job, installation, month, installed, limits)
        except NotFound as error:
            if not are_dated(sources_of(job.config)):
                raise
            log.info("%s is not published yet: %s", month, error)
    return None


def install_month(
    job: Job[Config],
    installation: Installation,
    month: str,
    installed: Mapping[str, Installed],
    limits: Limits,
) -> PublishedMonth:
    """Fetch, check and install what a month has, as far as it is new.

    Raises:
        NotFound: it is not published yet.
        DataRefused: one of them is not what it should be; nothing was changed.
    """
    with staging(job, installation) as folder:
        try:
            loaded = fetch_and_check(job, month, folder, installed, limits)
        except DataRefused:
            job.metrics.count("ooni_geoip_checkfail")
            raise
        staged = {source.kind.name: folder.staged(source.file) for source in sources_of(job.config)}
        new = [name for name, path in staged.items() if path.exists()]
        if new and job.dry_run:
            log.info("would install %s: %s", month, " and ".join(new))
        elif new:
            whole = len(installed) == len(sources_of(job.config))
            install(job, installation, month, keep_replaced=whole)
            job.metrics.count("ooni_geoip_updated")
    return PublishedMonth(loaded, new=bool(new))


@contextlib.contextmanager
def staging(job: Job[Config], installation: Installation) -> Iterator[Installation]:
    """Give the place for new databases; of a dry run, one that is not the installed ones'."""
    if not job.dry_run:
        with installation.staging():
            yield installation
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Installation(Path(folder), ())


def fetch_and_check(
    job: Job[Config],
    month: str,
    staged: Installation,
    installed: Mapping[str, Installed],
    limits: Limits,
) -> LoadedByKind:
    """Fetch what is not installed, and check it; return what there is."""
    config = job.config
    fetcher = Fetcher(job.user_agent, limits, ca_file=config.ca_file)
    loaded = {}
    for source in sources_of(config):
        path = staged.staged(source.file)
        present = installed.get(source.kind.name)
        at_hand = present.loaded if present and not job.force else Loaded()
        with job.metrics.timer("download_geoip"):
            fetched = download(fetcher, source.of(month), path, at_hand, max_size=config.max_size)
        if fetched.sha256 != at_hand.sha256:
            check_new(job, source.of(month), path, present)
        loaded[source.kind.name] = fetched
    return loaded


def check_new(
    job: Job[Config], source: DatabaseSource, path: Path, installed: Installed | None
) -> None:
    """Read a new database as a whole, and compare it with the installed one.

    Raises:
        DataRefused: it is unreadable, something else, older or much smaller.
    """
    new = mmdb.check(path, source.kind, source.wanted_type, str(source.url))
    log.info("%s: %s", source.file, new)
    if installed is None:
        return
    old = installed.description
    if new.epoch < old.epoch:
        reason = f"built {new.built:%Y-%m-%d}, before the installed one ({old.built:%Y-%m-%d})"
    elif new.nodes < old.nodes * (1 - job.config.max_shrink):
        reason = (
            f"{new.nodes:,} nodes, more than {job.config.max_shrink:.0%} fewer than the"
            f" installed one ({old.nodes:,})"
        )
    else:
        return
    if not job.force:
        raise DataRefused(f"{source.url}: {reason}; --force installs it all the same")
    log.warning("%s: %s; accepted by --force", source.url, reason)


def install(
    job: Job[Config], installation: Installation, month: str, *, keep_replaced: bool
) -> None:
    """Put the staged databases in the place of the installed ones."""
    installation.prepare(keep_replaced=keep_replaced)
    with job.signals.deferred():
        installation.commit(month)
    log.info("installed: %s", month)


def roll_back_databases(job: Job[Config], installation: Installation, now: datetime) -> None:
    """Install the databases again that were replaced last; the stamp keeps its month.

    Raises:
        DataRefused: they are missing or damaged.
    """
    prepare_folder(job, installation)
    sources = sources_of(job.config)
    for source in sources:
        path = installation.previous(source.file)
        if not path.exists():
            raise DataRefused(f"nothing to roll back to: {path} is missing")
        log.info("%s: %s", path.name, mmdb.check(path, source.kind, source.wanted_type))
    if job.dry_run:
        log.info("would put these back")
        return
    whole = len(read_installed(job, installation, sources)) == len(sources)
    with installation.staging():
        for source in sources:
            installation.stage_previous(source.file)
        month = installation.month or f"{now:%Y-%m}"
        install(job, installation, month, keep_replaced=whole)
    write_state(job.state_file, rolled_back(job, installation, sources))
    log.info("rolled back; what was replaced will not be fetched again before it changes upstream")
    report(job, installation, sources)


def rolled_back(
    job: Job[Config], installation: Installation, sources: Sequence[DatabaseSource]
) -> LoadedByKind:
    """Return the state in which what was rolled back counts as what upstream has."""
    state = read_state(job.state_file, LoadedByKind)
    return {
        source.kind.name: msgspec.structs.replace(
            state.get(source.kind.name, Loaded()),
            sha256=digest_of(installation.path(source.file)),
        )
        for source in sources
    }


def check_installed(config: Config, installation: Installation, now: datetime) -> None:
    """Read what is installed as a whole, and tell whether it is too old.

    Raises:
        DataRefused: one of them is missing, damaged or older than `max_age_days`.
    """
    failures = []
    for source in sources_of(config):
        path = installation.path(source.file)
        try:
            description = mmdb.check(path, source.kind, source.wanted_type)
            check_age(path, description, now, config.max_age_days)
        except FileNotFoundError:
            failures.append(f"{path}: missing")
        except OSError as error:
            failures.append(f"{path}: {error.strerror}")
        except DataRefused as error:
            failures.append(str(error))
    if failures:
        raise DataRefused("; ".join(failures))


def check_age(path: Path, description: Description, now: datetime, most: int) -> None:
    """Refuse a database that was built more than so many days ago."""
    age = (now - description.built).days
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


def report(job: Job[Config], installation: Installation, sources: Sequence[DatabaseSource]) -> None:
    """Send what is installed."""
    for source in sources:
        path = installation.path(source.file)
        if path.exists():
            description = mmdb.describe(path)
            job.metrics.gauge(f"geoip_{source.kind.name}_node_cnt", description.nodes)
            job.metrics.gauge(f"geoip_{source.kind.name}_epoch", description.epoch)


if __name__ == "__main__":
    sys.exit(main())
