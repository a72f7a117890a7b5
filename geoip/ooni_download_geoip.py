#!/usr/bin/env python3
"""Keep the GeoIP databases that the API uses up to date.

    https://download.db-ip.com/free/dbip-asn-lite-YYYY-MM.mmdb.gz      → /var/lib/ooniapi/asn.mmdb
    https://download.db-ip.com/free/dbip-country-lite-YYYY-MM.mmdb.gz  → /var/lib/ooniapi/cc.mmdb

They appear once a month. With `asn_cc_url`, one database that has both is installed in place of
these two, as asn_cc.mmdb. All are unpacked while they arrive (downloads.py), read as a whole
(mmdb.py), and installed together (installation.py), or none is. The stamp `geoipdbts` holds the
month that is installed; a file that is missing or damaged is fetched again whatever it says.

By hand: ooni_download_geoip.py --dry-run --stdout, and --check for what is installed
"""

import argparse
import contextlib
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import mmdb
from downloads import DatabaseSource, Loaded, download
from geoip_config import LIMITS, Config, sources_of
from geoip_doctor import checks_of
from installation import Installation, digest_of
from installed import (
    Installed,
    LoadedByKind,
    check_for_standstill,
    check_installed,
    have_moved,
    read_installed,
    reason_to_refuse,
    report,
    rolled_back,
    whole_pair,
)
from months import are_dated, may_change, months_to_try
from ooni_common.command_line import DOCTOR, Command, Lock, Script, rollback_argument
from ooni_common.doctor import diagnose
from ooni_common.errors import DataRefused, Unavailable
from ooni_common.fetch import Limits, configured_fetcher
from ooni_common.fetch_errors import Forbidden, NotFound
from ooni_common.run import Job, execute
from ooni_common.state import write_state

log = logging.getLogger("ooni.geoip")


@dataclass(frozen=True)
class PublishedMonth:
    """What a month has: where it came from, and whether any of it is new."""

    loaded: LoadedByKind
    new: bool


SCRIPT = Script(
    name="ooni_download_geoip",
    command="ooni-download-geoip",
    description="Keep the GeoIP databases that the API uses up to date.",
    config_type=Config,
    config_file=Path("/etc/ooni/download-geoip.conf"),
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
    at = now or datetime.now(UTC)
    commands: Mapping[str, Command[Job[Config]]] = {
        "run": Command(
            lambda job: run(job, at, limits),
            "install the newest databases, unless they are installed",
            run_arguments,
            Lock.RUN,
        ),
        "doctor": Command(lambda job: examine(job, at, limits), DOCTOR),
    }
    return execute(SCRIPT, commands, argv)


def run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a run."""
    parser.add_argument(
        "--check",
        action="store_true",
        help="check what is installed, and how old it is; change nothing",
    )
    rollback_argument(parser)


def run(job: Job[Config], now: datetime, limits: Limits) -> None:
    """Update, check or roll back, as the flags say."""
    installation = installation_of(job.config)
    if job.arguments.check:
        check_installed(installation, sources_of(job.config), now, job.config.max_age_days)
        return
    try:
        if job.arguments.rollback:
            roll_back_databases(job, installation, now)
        else:
            update(job, installation, now, limits)
    except PermissionError:
        installation.check_usable()  # it was at the start; its owner may have changed that since
        raise


def installation_of(config: Config) -> Installation:
    """Return where the databases are installed."""
    return Installation(config.output_dir, [source.file for source in sources_of(config)])


def examine(job: Job[Config], now: datetime, limits: Limits) -> None:
    """Print whether a run can succeed, and what to do where it can't."""
    config = job.config
    fetcher = configured_fetcher(job.user_agent, config, replace(limits, retries=0))
    sources = sources_of(config)
    months = months_to_try(now.date(), "", dated=are_dated(sources))
    diagnose(checks_of(config, installation_of(config), fetcher, sources, months))


def update(job: Job[Config], installation: Installation, now: datetime, limits: Limits) -> None:
    """Install the newest databases that there are, unless they are installed."""
    prepare_folder(job, installation)
    sources = sources_of(job.config)
    installed = read_installed(job.state_file, installation, sources)
    complete = len(installed) == len(sources) and not job.force
    months = months_to_try(
        now.date(),
        installation.month if complete else "",
        dated=are_dated(sources),
        again=have_moved(installed, sources, installation.month) or may_change(sources),
    )
    published = first_published(job, installation, months, installed, now, limits)
    if published is None and not complete:
        raise Unavailable(f"nothing to install: {' and '.join(months)} are not published")
    if not job.dry_run:
        kept = {name: database.loaded for name, database in installed.items()}
        write_state(job.state_file, kept | (published.loaded if published else {}))
        report(job.metrics, installation, sources)
    if not (published and published.new):
        log.info("nothing to do: the newest databases are installed")
        check_for_standstill(installed, now, job.config.max_age_days)


def prepare_folder(job: Job[Config], installation: Installation) -> None:
    """Check that databases can be installed, and clear up behind a run that was killed.

    Raises:
        ConfigError: they can't.
    """
    installation.check_usable()
    if not job.dry_run and installation.recover():
        log.warning("an update that was interrupted is complete now")


def first_published(
    job: Job[Config],
    installation: Installation,
    months: Sequence[str],
    installed: Mapping[str, Installed],
    now: datetime,
    limits: Limits,
) -> PublishedMonth | None:
    """Install what the first of the months has that is published; None: none of them is.

    Raises:
        Forbidden: this client may not have any.
    """
    forbidden: Forbidden | None = None
    for month in months:
        try:
            return install_month(job, installation, month, installed, now, limits)
        except (NotFound, Forbidden) as error:
            if not are_dated(sources_of(job.config)):
                raise
            log.info("%s is not published yet: %s", month, error)
            forbidden = error if isinstance(error, Forbidden) else forbidden
    if forbidden and not can_be_fetched(job, installation.month, limits):
        raise forbidden
    return None


def can_be_fetched(job: Job[Config], month: str, limits: Limits) -> bool:
    """Tell whether the server lets this client have a month that was published.

    Then it is one that answers 403 for files that it does not have, as a bucket does.
    """
    fetcher = configured_fetcher(job.user_agent, job.config, limits)
    try:
        for source in sources_of(job.config) if month else ():
            fetcher.reach(source.of(month).url)
    except (NotFound, Forbidden):
        return False
    return bool(month)


def install_month(
    job: Job[Config],
    installation: Installation,
    month: str,
    installed: Mapping[str, Installed],
    now: datetime,
    limits: Limits,
) -> PublishedMonth:
    """Fetch, check and install what a month has, as far as it is new.

    Raises:
        NotFound, Forbidden: it is not published yet.
        DataRefused: one of them is not what it should be; nothing was changed.
    """
    sources = [source.of(month) for source in sources_of(job.config)]
    with staging(job, installation) as folder:
        try:
            loaded = fetch(job, sources, folder, installed, limits)
            staged = {source: folder.staged(source.file) for source in sources}
            new = {source: path for source, path in staged.items() if path.exists()}
            for source, path in new.items():
                check_new(job, source, path, installed.get(source.kind.name), now)
        except DataRefused:
            job.metrics.count("ooni_geoip_checkfail")
            raise
        if new and job.dry_run:
            names = " and ".join(source.kind.name for source in new)
            log.info("would install %s: %s", month, names)
        elif new:
            install(job, installation, month, whole_pair(installed, sources))
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


def fetch(
    job: Job[Config],
    sources: Sequence[DatabaseSource],
    staged: Installation,
    installed: Mapping[str, Installed],
    limits: Limits,
) -> LoadedByKind:
    """Fetch what is not installed; return what there is."""
    config = job.config
    fetcher = configured_fetcher(job.user_agent, config, limits)
    loaded = {}
    for source in sources:
        present = installed.get(source.kind.name)
        at_hand = present.loaded if present and not job.force else Loaded()
        with job.metrics.timer("download_geoip"):
            loaded[source.kind.name] = download(
                fetcher, source, staged.staged(source.file), at_hand, max_size=config.max_size
            )
    return loaded


def check_new(
    job: Job[Config],
    source: DatabaseSource,
    path: Path,
    installed: Installed | None,
    now: datetime,
) -> None:
    """Read a new database as a whole, and compare it with the installed one.

    Raises:
        DataRefused: it is unreadable, something else, of the future, older or much smaller.
    """
    new = mmdb.check(path, source.kind, source.wanted_type, str(source.url))
    log.info("%s: %s", source.file, new)
    reason = reason_to_refuse(new, installed, now, job.config.max_shrink)
    if reason and not job.force:
        raise DataRefused(f"{source.url}: {reason}; --force installs it all the same")
    if reason:
        log.warning("%s: %s; accepted by --force", source.url, reason)


def install(
    job: Job[Config], installation: Installation, month: str, replaced: Mapping[str, str]
) -> None:
    """Put the staged databases in the place of the installed ones, and keep the replaced ones.

    Raises:
        DataRefused: one of these is not the file that was checked; nothing was changed.
    """
    installation.prepare(replaced)
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
    checked: dict[str, str] = {}
    for source in sources:
        path = installation.previous(source.file)
        if not path.exists():
            raise DataRefused(f"nothing to roll back to: {path} is missing")
        checked[source.file] = digest_of(path)
        log.info("%s: %s", path.name, mmdb.check(path, source.kind, source.wanted_type))
    if job.dry_run:
        log.info("would put these back")
        return
    installed = read_installed(job.state_file, installation, sources)
    with installation.staging():
        for name, digest in checked.items():
            installation.stage_previous(name, digest)
        month = installation.month or f"{now:%Y-%m}"
        install(job, installation, month, whole_pair(installed, sources))
    write_state(job.state_file, rolled_back(job.state_file, sources, installed, checked))
    log.info("rolled back; what was replaced will not be installed again before upstream changes")
    report(job.metrics, installation, sources)


if __name__ == "__main__":
    sys.exit(main())
