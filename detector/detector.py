#!/usr/bin/env python3
"""Detect when social media and messengers are blocked, and when no longer.

    fastpath → hourly counts of each series (a test, an input, a country, a network)
        → a sequential test → blocking_status, blocking_events
        → incidents → RSS, JSON and a page in output_dir

Each run looks at the last days once more, from what was known before them (the checkpoint): so
measurements that came late count, hours that were missed are caught up with, and running it twice
changes nothing.

By hand: detector.py --dry-run --stdout
         detector.py --reprocess --start-date 2025-01-01
         detector.py evaluate --observations observations.csv.gz --labels labels.json
"""

import argparse
import dataclasses
import functools
import logging
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from beginning import CHECKPOINT, Beginning, beginning_of, remembered_by
from blocking_tables import EVENTS, TABLES, read_events, updates_of
from checkpoint import write_checkpoint
from context import CHUNK, context_of
from counts import FASTPATH_COLUMNS, counts_ahead, least_lagging, measured_hours
from dates import date_argument
from detector_config import Config
from evaluation.evaluate import declare_arguments, evaluate
from following import Checkpoint, Follower
from ooni_common.command_line import DOCTOR, Command, Lock, Script
from ooni_common.database import Database, connected
from ooni_common.doctor import Checks, Note, diagnose, machine_checks, preflight
from ooni_common.errors import DataRefused, UsageError
from ooni_common.files import check_folder, make_writable
from ooni_common.garbage import without_garbage_collection
from ooni_common.nodes import Nodes, connected_nodes
from ooni_common.output import show
from ooni_common.run import Job, execute
from ooni_common.swap.agreement import agreed_database
from ooni_common.swap.preview import preview_tables
from ooni_common.swap.replace import replace_tables
from ooni_common.swap.update import Update
from ooni_common.table_checks import RunChecks, Tables, database_checks
from outputs.counting import Counting
from outputs.news import news_of
from outputs.publish import LEDGER, drafts_of, publish
from outputs.published import Published, read_published, write_published
from outputs.report import CHARTS, ENDED, ONGOING, Report, report_of
from outputs.timeline import MOSTLY_OVER
from outputs.wording import spoken
from pages.rendering import Site
from series import Event, hour_of, time_of

log = logging.getLogger("ooni.detector")

MOST_LAG = 24  # hours that `fastpath` may lag behind without a word of the doctor
LEARNING = 7 * 24  # hours after which what a run finds refutes what was told, if it knew nothing
CHUNKS_PER_NOTE = 10  # a line in the log after so many


SCRIPT = Script(
    name="detector",
    command="detector",
    description="Detect blocking of social media and messengers in the measurements of OONI.",
    config_type=Config,
    config_file=Path("/etc/ooni/detector.conf"),
)
USED = Tables(TABLES, read={"fastpath": FASTPATH_COLUMNS})


def main(argv: Sequence[str] | None = None, *, now: datetime | None = None) -> int:
    """Run once as the command line says; return the exit status.

    Args:
        argv: the arguments after the program's name; None: those of the process.
        now: what counts as now; None: the clock's time.
    """
    at = now or datetime.now(UTC)
    commands: Mapping[str, Command[Job[Config]]] = {
        "run": Command(
            lambda job: run(job, at), "look at the new measurements", run_arguments, Lock.RUN
        ),
        "evaluate": Command(
            lambda job: evaluate(job.arguments),
            "tell how good the detector is on labelled observations",
            declare_arguments,
        ),
        "doctor": Command(lambda job: diagnose(checks_of(job.config, at)), DOCTOR),
    }
    return execute(SCRIPT, commands, argv)


def run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a run."""
    add = parser.add_argument
    add(
        "--reprocess",
        action="store_true",
        help="recompute everything from --start-date on, and replace the tables",
    )
    add(
        "--start-date",
        type=date_argument,
        metavar="DATE",
        help="with --reprocess: from this day or hour on, UTC (2025-01-31T12:00)",
    )
    add(
        "--end-date",
        type=date_argument,
        metavar="DATE",
        help="with --reprocess: up to this one, without it (default: now)",
    )


def run(job: Job[Config], now: datetime) -> None:
    """Follow the measurements; with --reprocess, once more from a day on."""
    check_dates(job, now)
    with without_garbage_collection():
        detect(job, now)


def checks_of(config: Config, now: datetime) -> Checks:
    """Yield what `doctor` checks."""
    yield from machine_checks(config.state_dir, config.statsd)
    yield "outputs", lambda: check_folder("output_dir", config.output_dir)
    yield from database_checks(config, USED)
    yield "measurements", lambda: check_measurements(config, now)


def check_measurements(config: Config, now: datetime) -> str:
    """Say how far `fastpath` has come; a run works with what there is.

    Raises:
        ConfigError, Unavailable: it can't be asked.
    """
    end = hour_of(now) + 1
    with connected(config) as database:
        hours = measured_hours(database, end - config.history_days * 24, end)
    if hours is None:
        return Note(f"fastpath has none of the last {config.history_days} days")
    age = hour_of(now) - hours[1]
    text = f"fastpath has some up to {spoken(time_of(hours[1]))}"
    return Note(f"{text}, {age} h ago: see what fills it") if age > MOST_LAG else text


def check_dates(job: Job[Config], now: datetime) -> None:
    """Refuse dates without --reprocess, and the other way round.

    Raises:
        UsageError: they don't go together.
    """
    start, end = job.arguments.start_date, job.arguments.end_date
    if job.arguments.reprocess:
        if start is None:
            raise UsageError("--reprocess needs --start-date: from when on everything is replaced")
        if start >= (end or now):
            until = f"--end-date {end:%Y-%m-%dT%H:%M}" if end else "now"
            raise UsageError(f"--start-date {start:%Y-%m-%dT%H:%M} is not before {until}")
    elif start is not None or end is not None:
        option = "--end-date" if start is None else "--start-date"
        raise UsageError(
            f"{option} needs --reprocess, which replaces the events of these days; without it, a"
            " run goes on where the last one ended"
        )


def detect(job: Job[Config], now: datetime) -> None:
    """Follow the series up to the last hour with measurements, and tell what has been found."""
    config = job.config
    with ThreadPoolExecutor(1) as thread, connected_nodes(config) as nodes:
        # Meanwhile, for the checks wait for the server most of their time.
        remembered = thread.submit(remembered_by, job)
        preflight(RunChecks(nodes, USED))
        database = agreed_database(nodes, EVENTS)
        prepare(job)
        measurements = least_lagging(nodes, "fastpath")
        beginning = beginning_of(job, remembered.result(), now)
        hours = hours_to_follow(job, measurements, beginning, now)
        follower, until = beginning.follower, hours[1]
        published = read_published(config.state_dir)
        learned = learned_from(beginning, hours[0], published)
        checkpoint, news = follow(job, measurements, follower, hours)
        events = read_events(database, config.service_of, beginning.hour) + news
        statuses = follower.statuses(config.service_of, until, timedelta(days=config.stale_days))
        replace(job, nodes, updates_of(statuses, events, until, config.max_shrink))
        if job.dry_run:
            return
        # If this run comes to tell nothing, the next one refutes what it has refuted.
        published = msgspec.structs.replace(published, learned=learned)
        write_published(config.state_dir, published)
        write_checkpoint(config.state_dir / CHECKPOINT, checkpoint)
        counting = Counting(
            measurements,
            (checkpoint.hour, until),
            config.state_dir / CHARTS,
            reprocess=job.arguments.reprocess,
        )
        report = report_of(config, counting, statuses, events, published, (beginning.hour, learned))
        report = dataclasses.replace(report, in_doubt=follower.in_doubt(config.service_of, until))
    if config.publish:
        with job.metrics.timer("write_feed"):
            told = news_of(report, published)
            published = msgspec.structs.replace(told.published, learned=checkpoint.hour)
            write_published(config.state_dir, published)
            drafts = drafts_of(report, told, Site.of(config))
            publish(drafts, config.output_dir, config.state_dir / LEDGER)
    tell(job, report, now)


def prepare(job: Job[Config]) -> None:
    """Make the folder of the outputs, so that one that can't be ends the run at its beginning."""
    if job.dry_run:
        return
    folder = job.config.output_dir
    missing = not folder.exists()
    make_writable("output_dir", folder)
    if missing:
        folder.chmod(0o755)  # whatever the umask: a web server reads it


def hours_to_follow(
    job: Job[Config], database: Database, beginning: Beginning, now: datetime
) -> tuple[int, int]:
    """Return the first hour that has measurements of anything, and the end of the last one.

    While `fastpath` gets nothing new, time stands still: what it gets later counts as new.

    Raises:
        DataRefused: the last one lies before what a run has seen.
    """
    end = hour_of(job.arguments.end_date or now)
    hours = measured_hours(database, beginning.hour, end)
    if hours is None:
        log.warning("fastpath has no measurements since %s", spoken(time_of(beginning.hour)))
        hours = (beginning.hour, beginning.hour)
    if hours[1] < beginning.looked_at:
        raise DataRefused(
            f"fastpath has no measurements since {spoken(time_of(hours[1]))}, but it had some up to"
            f" {spoken(time_of(beginning.looked_at))}; look at the table, or accept it with --force"
        )
    return hours


def learned_from(beginning: Beginning, start: int, published: Published) -> int:
    """Return the hour from which on this run knows enough to refute what was told.

    Args:
        beginning: from where it follows the series.
        start: the first hour that it looks at.
        published: what was told. Runs that published nothing may have refuted some of it.
    """
    if not beginning.follower.series:
        return start + LEARNING
    learned = published.learned
    return beginning.hour if learned is None else min(beginning.hour, learned)


def follow(
    job: Job[Config], database: Database, follower: Follower, hours: tuple[int, int]
) -> tuple[Checkpoint, list[Event]]:
    """Follow the series; return what is known some days before the end, and all events."""
    start, until = hours
    kept = max(start, until - job.config.late_days * 24)
    events = events_between(job, database, follower, (start, kept))
    checkpoint = follower.checkpoint(kept, until)
    events += events_between(job, database, follower, (kept, until))
    return checkpoint, events


def events_between(
    job: Job[Config], database: Database, follower: Follower, hours: tuple[int, int]
) -> list[Event]:
    """Follow the series from an hour up to another one, without it; return what has changed."""
    events: list[Event] = []
    timed = functools.partial(job.metrics.timer, "query")
    counts_of = functools.partial(context_of, database, job.config.service_of)
    counted = counts_ahead(database, counts_of, hours, CHUNK, timed)
    for number, counts in enumerate(counted, start=1):
        events += follower.follow(counts)
        if number % CHUNKS_PER_NOTE == 0:
            end = min(hours[0] + number * CHUNK, hours[1])
            log.info("followed up to %s: %d events", spoken(time_of(end)), len(events))
    return events


def replace(job: Job[Config], nodes: Nodes, updates: Sequence[Update]) -> None:
    """Replace both tables, or print what that would change.

    Raises:
        DataRefused, Unavailable, ConfigError: neither was replaced.
    """
    force = job.force or job.arguments.reprocess
    if job.dry_run:
        for line in preview_tables(nodes, updates, force=force):
            show(line)
        return
    for change in replace_tables(nodes, updates, force=force, critical=job.signals.deferred):
        log.info("%s", change)
        job.metrics.gauge(f"{change.table.name}_tblsize", change.live.rows)
    job.metrics.gauge("absent_nodes", len(nodes.absent))


def tell(job: Job[Config], report: Report, now: datetime) -> None:
    """Say what there is to see, and send it."""
    states = [report.state_of(incident) for incident in report.incidents]
    lag = int((now - report.until) / timedelta(hours=1))
    job.metrics.gauge("open_incidents", states.count(ONGOING))
    job.metrics.gauge("lag_hours", lag)
    held = report.in_doubt.held
    oldest = (report.until - held[0]) // timedelta(hours=1) if held else 0
    job.metrics.gauge("held_alarms", len(held))
    job.metrics.gauge("held_alarms_oldest_hours", oldest)
    where = f"see {job.config.output_dir}" if job.config.publish else "not published"
    log.info(
        "up to %s; incidents: %d ongoing, %d ended, %d mostly over; %s",
        spoken(report.until),
        states.count(ONGOING),
        states.count(ENDED),
        states.count(MOSTLY_OVER),
        where,
    )


if __name__ == "__main__":
    sys.exit(main())
