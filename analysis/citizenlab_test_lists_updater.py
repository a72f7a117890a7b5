#!/usr/bin/env python3
"""Load the CitizenLab test lists into the table `citizenlab`.

    https://github.com/citizenlab/test-lists, lists/*.csv
        → citizenlab (domain, url, cc, category_code)

The lists say which URLs OONI's probes test in which country. Anybody can propose a change to them,
so nothing that comes from there is trusted: the repository is read as data (citizenlab/git.py),
every row is validated (citizenlab/lists.py), a list that is broken or that lost much is held
(citizenlab/holds.py), and the table is replaced as a whole or not at all.

By hand: citizenlab_test_lists_updater.py --dry-run --stdout
"""

import argparse
import logging
import os
import re
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta, field

from citizenlab.git import Git, TreeEntry, cloned, environment_of, head_commit
from citizenlab.held import HeldLists, asked_for
from citizenlab.holds import Holds, Plan, Rules, plan_of
from citizenlab.lists import Rows, TestList, format_of, is_list, read_lists
from citizenlab.table import TABLE, live_countries, rows_to_load, update_of
from findings import causes_of, report_findings
from ooni_common.command_line import DOCTOR, Command, Lock, Script, rollback_argument
from ooni_common.config import (
    Count,
    DatabaseConfig,
    Seconds,
    Secret,
    SecretUrl,
    Share,
    check_url,
)
from ooni_common.doctor import Note
from ooni_common.errors import DataRefused, UsageError
from ooni_common.nodes import Nodes, connected_nodes
from ooni_common.output import show
from ooni_common.run import Clock, Job, execute
from ooni_common.swap.update import Change
from ooni_common.tls import load_certificates
from refusals import Refusals
from table_updates import (
    check_before_writing,
    database_to_read,
    examine_updater,
    heal_nodes,
    load,
    loaded_source,
    roll_back_tables,
    versioned,
)
from update_state import live_contents

log = logging.getLogger("ooni.citizenlab")

SHOWN_LISTS = 10  # of those that would be held, if there are too many


class Config(DatabaseConfig, frozen=True, kw_only=True):
    """The keys of update-citizenlab.conf, where each is explained."""

    state_dir: Path = Path("/var/lib/analysis")
    db_uri: SecretUrl = SecretUrl("clickhouse://citizenlab@localhost/default")
    git_url: str = "https://github.com/citizenlab/test-lists.git"
    git_token: Secret = Secret("")
    ca_file: Path | None = None
    git_time_limit: Seconds = 300
    legend_file: str = "lists/00-LEGEND-new_category_codes.csv"
    legend_column: str = "New Code"
    url_column: str = "url"
    category_column: str = "category_code"
    extra_category_codes: list[str] = field(default_factory=list)
    on_broken_file: Literal["hold", "refuse", "keep-previous"] = "hold"
    hold_days: Annotated[int, Meta(ge=1, le=3650)] = 14
    max_rejected_rows: Count = 200
    max_shrink: Share = 0.10
    max_country_shrink: Share = 0.50
    min_rows: Count = 20_000
    max_rows: Count = 1_000_000

    def __post_init__(self) -> None:
        """Refuse an address that can hold a secret: git would show it in the process list."""
        super().__post_init__()
        check_url("git_url", self.git_url, ("https", "http", "file"), needs_host=False)
        if re.search("[@?#]", self.git_url):
            raise ValueError(
                "git_url: leave user, password and ?query out: everybody can see them in the"
                " process list; a token belongs in git_token_file"
            )
        if re.search(r"[\s\0]", self.git_token.reveal()):
            raise ValueError("git_token: expected one word, or user:password")


SCRIPT = Script(
    name="citizenlab_test_lists_updater",
    command="ooni-update-citizenlab",
    description="Load the CitizenLab test lists into the table `citizenlab`.",
    config_type=Config,
    config_file=Path("/etc/ooni/update-citizenlab.conf"),
)


def main(argv: Sequence[str] | None = None, clock: Clock = time.time) -> int:
    """Run once as the command line says; return the exit status."""
    commands = {
        "run": Command(
            update, "load the lists, unless the table has them already", run_arguments, Lock.RUN
        ),
        "doctor": Command(examine, DOCTOR),
    }
    return execute(SCRIPT, commands, argv, clock)


def run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a run."""
    rollback_argument(parser)
    parser.add_argument(
        "--accept",
        metavar="CC",
        action="append",
        help="load the held list of this country (several: CC,CC)",
    )


def examine(job: Job[Config]) -> None:
    """Print whether a run can succeed, and what the last one has held."""
    config = job.config

    def upstream() -> str:
        return f"{config.git_url} is at {head_commit(git_of(job), config.git_url)[:12]}"

    def lists() -> str:
        held = HeldLists(job, config.hold_days)
        return Note(held.summary()) if held.holds.by_country else "no country is held"

    def refusals() -> str:
        verdict = Refusals(job).verdict
        return Note(verdict) if verdict else "nothing is refused"

    checks = [("upstream", upstream), ("lists", lists), ("refusals", refusals)]
    examine_updater(job, [TABLE], checks)


def update(job: Job[Config]) -> None:
    """Load the lists of the newest commit, unless the table has them already."""
    accepted = accepted_countries(job)
    held = HeldLists(job, job.config.hold_days)
    with connected_nodes(job.config) as nodes:
        check_before_writing(nodes, [TABLE])
        if job.arguments.rollback:
            report_rows(job, roll_back_tables(job, nodes, [TABLE]))
            held.forget()
            return
        git = git_of(job)
        refusals = Refusals(job, lambda: live_contents(nodes, [TABLE]), by_person=bool(accepted))
        source = source_of(job.config, head_commit(git, job.config.git_url))
        if refusals.source.items() >= source.items():
            heal_nodes(job, nodes, [TABLE])
            raise refusals.again()
        loaded = loaded_source(job, nodes, [TABLE]).items() >= source.items()
        # A run that was stopped just before its end has not kept what it holds.
        loaded = loaded and held.holds.commit == source["commit"]
        if loaded and not accepted and not held.to_be_judged():
            held.tell_nothing_new(f"{TABLE.name} holds commit {source['commit']}")
            heal_nodes(job, nodes, [TABLE])
            return
        with refusals.remembered(source):
            load_lists(job, nodes, git, held, told=loaded and not (job.attended or job.dry_run))


def accepted_countries(job: Job[Config]) -> frozenset[str]:
    """Return the countries that --accept names.

    Raises:
        UsageError: one of them isn't a country.
    """
    accepted = asked_for(job)
    for cc in sorted(accepted):
        if not re.fullmatch("[a-z]{2}|ZZ", cc):
            raise UsageError(f"--accept {cc!a}: expected a country's two letters, or global")
    return accepted


def git_of(job: Job[Config]) -> Git:
    """Return git as this run uses it.

    Raises:
        ConfigError: `ca_file` can't be used.
    """
    config = job.config
    if config.ca_file:  # git would say no more than that the repository can't be read
        load_certificates(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "ca_file", config.ca_file)
    return Git(
        config.git_time_limit,
        ca_file=config.ca_file,
        token=config.git_token.reveal(),
        proxies=environment_of(urlsplit(config.git_url), os.environ),
        stops_deferred=job.signals.deferred,
    )


def source_of(config: Config, commit: str) -> dict[str, str]:
    """Return what the state file says of a load: a commit is one of its repository."""
    return {"commit": commit, "git_url": SecretUrl(config.git_url).identity}


def load_lists(job: Job[Config], nodes: Nodes, git: Git, held: HeldLists, *, told: bool) -> None:
    """Replace the table by the lists of the newest commit, but for those that are held.

    Args:
        job: this run.
        nodes: where the table is.
        git: to clone with.
        held: what the run before has held.
        told: the log has the findings of this commit already.
    """
    with job.metrics.timer("fetch_citizen_lab_lists"):
        commit, lists = fetch_lists(git, job.config)
    report_findings(lists, in_full=not told)
    job.metrics.gauge("rejected_rows", sum(len(test_list.refusals) for test_list in lists))
    job.metrics.gauge("broken_files", sum(1 for test_list in lists if test_list.broken))
    database = database_to_read(job, nodes, TABLE)
    live = live_countries(database, lists)
    plan = plan_of(lists, live, held_before(job, held), rules_of(job), held.now)
    check_plan(job, lists, plan)
    held.tell(plan)
    with job.metrics.timer("update_citizenlab_table"):
        rows = rows_to_load(database, lists, [one.cc for one in plan.held])
        load_rows(job, nodes, rows, versioned(source_of(job.config, commit)))
    if job.dry_run:
        for line in held.preview(plan):
            show(line)
    else:
        held.keep(plan, commit)


def fetch_lists(git: Git, config: Config) -> tuple[str, list[TestList]]:
    """Clone the repository; return its commit and its lists, parsed and validated.

    Raises:
        DataRefused: not a test-lists repository, or a hostile one.
        Unavailable, TryAgainLater: it can't be cloned now.
    """
    with cloned(git, config.git_url) as clone:
        log.info("cloned %s at commit %s", config.git_url, clone.commit)
        entries = clone.entries()
        legend = [entry for entry in entries if entry.path == config.legend_file]
        if not legend:
            raise DataRefused(
                f"{config.legend_file}: the repository has no such file; if the legend was renamed,"
                " legend_file says where it is"
            )
        lists = [entry for entry in list_entries(entries) if entry not in legend]
        files = clone.read([*legend, *lists])
        _, content = next(files)
        return clone.commit, read_lists(files, format_of(content, config))


def list_entries(entries: Sequence[TreeEntry]) -> list[TreeEntry]:
    """Return the files that can be lists; those in folders below theirs are not."""
    below = [
        ascii(entry.path)[1:-1]
        for entry in entries
        if entry.path.startswith("lists/")
        and entry.path.endswith(".csv")
        and not is_list(entry.path)
    ]
    if below:
        others = f" and {len(below) - 1} more" if len(below) > 1 else ""
        log.info("in a folder below lists/, not loaded: %s%s", below[0], others)
    return [entry for entry in entries if is_list(entry.path)]


def held_before(job: Job[Config], held: HeldLists) -> Holds:
    """Return what was held, and waits to be accepted: nothing waits where all or none is loaded."""
    return Holds() if job.config.on_broken_file == "refuse" else held.holds


def rules_of(job: Job[Config]) -> Rules:
    """Return when this run holds a list."""
    config = job.config
    return Rules(
        country_share=config.max_country_shrink,
        share=config.max_shrink,
        days=config.hold_days,
        accepted=asked_for(job),
        all_accepted=job.force,
    )


def check_plan(job: Job[Config], lists: Sequence[TestList], plan: Plan) -> None:
    """Raise DataRefused when nothing is to be loaded of a commit."""
    for one in plan.held:
        if one.cc in asked_for(job):
            raise DataRefused(f"--accept {one.cc}: {one.reason}; a broken list can't be loaded")
    if job.force:
        return
    first = plan.held[0].reason if plan.held else ""
    if job.config.on_broken_file == "refuse":
        check_all_are_well(job.config, lists, plan)
    if plan.too_many:
        for one in plan.held[:SHOWN_LISTS]:
            log.warning("%s; it would be held", one.reason)
        raise DataRefused(
            f"{len(plan.held)} of {plan.lists} lists would be held, more than a third; the first:"
            f" {first}; if upstream has renamed columns or codes, url_column, category_column,"
            " legend_column and extra_category_codes follow it"
        )


def check_all_are_well(config: Config, lists: Sequence[TestList], plan: Plan) -> None:
    """Raise DataRefused where one list is sick: all are loaded, or none."""
    if plan.held:
        number = "1 list is" if len(plan.held) == 1 else f"{len(plan.held)} lists are"
        raise DataRefused(
            f"{number} refused, and so are all others, first {plan.held[0].reason};"
            ' on_broken_file = "hold" would load these'
        )
    refused = sum(len(test_list.refusals) for test_list in lists)
    if refused > config.max_rejected_rows:
        most = config.max_rejected_rows
        raise DataRefused(f"{causes_of(lists)}; more than max_rejected_rows = {most}")


def load_rows(
    job: Job[Config], nodes: Nodes, rows: Sequence[Rows], source: Mapping[str, str]
) -> None:
    """Replace the table, or print what that would change."""
    config = job.config
    new_content = update_of(rows, (config.min_rows, config.max_rows), config.max_shrink)
    report_rows(job, load(job, nodes, [new_content], source))


def report_rows(job: Job[Config], changes: Sequence[Change]) -> None:
    """Tell how many rows the live table has now."""
    for change in changes:
        job.metrics.gauge("citizenlab_test_list_len", change.live.rows)


if __name__ == "__main__":
    sys.exit(main())
