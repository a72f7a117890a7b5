"""Examining whether a run can succeed: one line for each thing, with what to do about it.

Everything is tried for real. Only objects are written whose names begin with `<prefix>/doctor`, and
they are deleted again.
"""

import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backup_config import Config
from backups.backup import not_encrypted
from backups.commands import vanished_from
from backups.manifest import BackupLayout, read_backups
from backups.plan import access, check_engine
from backups.server import ServerBackups
from exports.chunks import Reader, check_chunks
from exports.clickhouse_http import ClickHouseHTTP
from exports.manifest import ExportLayout
from exports.row_source import choose
from inventory import all_table_names, read_table, table_names
from ooni_common.database import Database
from ooni_common.database_checks import ServerFacts, check_clock, check_zone, facts_of
from ooni_common.doctor import Checks, machine_checks, skew
from ooni_common.errors import ConfigError, DataRefused, ScriptError
from ooni_common.grants import Need, check_grants
from ooni_common.nodes import Nodes
from store import Bucket
from table_replicas import database_with
from uploads import uploading


@dataclass(frozen=True)
class Doctor:
    """Examines what a run works with."""

    config: Config
    nodes: Nodes
    http: ClickHouseHTTP
    user_agent: str
    clock: Callable[[], float] = time.time

    @property
    def database(self) -> Database:
        """The connection to the first node that is up."""
        return self.nodes.first

    def checks(self) -> Checks:
        """Yield the checks; what can be tried harmlessly is tried."""
        config = self.config
        yield from machine_checks(config.state_dir, config.statsd)
        yield from checks_of_the_server(config, self.database, self.clock)
        yield "database, HTTP", self._rows
        yield "tables", self._tables
        if config.public_bucket_name or not config.private_bucket_name:
            yield from self._examinations_of_exports().items()
        if config.private_bucket_name:
            yield from self._examinations_of_backups().items()

    def _examinations_of_exports(self) -> dict[str, Callable[[], str]]:
        bucket = Bucket(self.config.store("public"), self.user_agent)
        layout = ExportLayout(self.config.public_prefix)
        probe = layout.probe

        def listed() -> str:
            return f"{bucket.url} has {len(list(bucket.listing(layout.exports)))} exports"

        return {
            "bucket, list": listed,
            "bucket, write": lambda: self._write(bucket, probe),
            "bucket, uploads": lambda: self._uploads(bucket, layout),
            "bucket, clock": lambda: skew(bucket.time(), self.clock(), "the store's clock"),
        }

    def _examinations_of_backups(self) -> dict[str, Callable[[], str]]:
        bucket = Bucket(self.config.store("private"), self.user_agent)
        layout = BackupLayout(self.config.private_prefix)
        probe = layout.probe

        def listed() -> str:
            backups = read_backups(bucket, layout, self.config.signing_key)
            good = sum(backup.state == "good" for backup in backups)
            if vanished := vanished_from(self.config, all_table_names(self.nodes), backups):
                raise vanished
            found = f"{bucket.url}: {len(backups)} backups, {good} good"
            if not self.config.signing_key:
                return f"{found}; without manifest_key they are not signed"
            signed = sum(backup.signature == "valid" for backup in backups)
            return f"{found}, {signed} signed"

        return {
            "backups, list": listed,
            "backups, write": lambda: self._write(bucket, probe),
            "backups, server": lambda: self._server_writes(bucket, f"{probe}.native"),
            "backups, access": self._access,
            "backups, clock": lambda: skew(bucket.time(), self.clock(), "the store's clock"),
        }

    def _rows(self) -> str:
        """Say which way the rows of exports come; an address that is configured has to be good."""
        note = ""
        try:
            version = self.http.version()
        except ScriptError:
            if self.config.http_url.reveal() and not self.nodes.is_cluster:
                raise
            note = "; restoring an export needs HTTP"
            ((version,),) = self.database.query("SELECT version()")
        if self.nodes.is_cluster:
            return f"rows come over the native protocol, from a node of each shard{note}"
        return choose(version, self.config, self.database, self.http).reason + note

    def _tables(self) -> str:
        """Compare the policy with the tables: names, chunks, and what nobody has listed."""
        names = all_table_names(self.nodes)
        if unlisted := self.config.unlisted(names):
            listed = ", ".join(map(repr, unlisted))
            raise DataRefused(f"not listed: {listed}; say public, private, both or none of each")
        counts: dict[str, int] = {}
        for name in names:
            policy = self.config.policy_of(name)
            if policy is None:
                continue
            counts[policy.policy] = counts.get(policy.policy, 0) + 1
            database = database_with(self.nodes, name)
            if policy.backed_up and self.config.action != "export":
                check_engine(database, name)
            if policy.exported:
                check_chunks(Reader(database, read_table(database, name), policy))
        if (missing := self.config.missing(names)) and not self.nodes.absent:
            listed = ", ".join(map(repr, missing))
            raise DataRefused(f'listed, but not there: {listed}; "gone", if that is for good')
        return ", ".join(f"{count} {policy}" for policy, count in sorted(counts.items())) or "none"

    @staticmethod
    def _write(bucket: Bucket, key: str) -> str:
        """Write, read and delete an object."""
        content = uuid.uuid4().hex.encode()
        bucket.put(key, content, "text/plain")
        if bucket.get(key) != content:
            raise DataRefused(f"{bucket.url}/{key}: it is not what was written")
        try:
            bucket.delete(key)
        except ConfigError:
            return f"{key} was written and read; it may not be deleted, which only prune needs"
        return f"{key} was written, read and deleted"

    @staticmethod
    def _uploads(bucket: Bucket, layout: ExportLayout) -> str:
        """Begin an upload of parts, and end it."""
        with (
            contextlib.suppress(Abandoned),
            uploading(bucket, layout.probe, "text/plain", "") as upload,
        ):
            upload.begin()
            raise Abandoned
        left = bucket.unfinished_uploads(layout.exports)
        note = f"; {len(left)} of interrupted runs are left, the next run ends them" if left else ""
        return f"an upload was begun and ended{note}"

    def _server_writes(self, bucket: Bucket, key: str) -> str:
        """Let the server write an object, and look for it in the bucket."""
        collection = self.config.private_named_collection
        bucket.delete(key)
        ServerBackups(self.database, self.config).write_probe(key, uuid.uuid4().hex)
        head = bucket.look(key)
        if head is None:
            raise ConfigError(
                f"the server wrote {key}, but not to {bucket.url}: check the URL of the named"
                f" collection {collection}; it has to end with the bucket and a slash"
            )
        bucket.delete(key)
        if self.config.private_sse not in ("", head.encryption):
            raise DataRefused(not_encrypted(bucket, self.config.private_sse))
        how = f", encrypted with {head.encryption}" if head.encryption else ""
        return f"it wrote {key}{how}"

    def _access(self) -> str:
        if access(self.database):
            return "users, roles and grants will be saved"
        return "without users and grants; they need GRANT SHOW ACCESS"


class Abandoned(Exception):
    """The upload was only an attempt."""


def checks_before_a_run(nodes: Nodes, clock: Callable[[], float] = time.time) -> Checks:
    """Yield the checks that a run makes before it writes: one statement a node.

    A node that fails does not take part; a missing right is a matter of its own table.
    """

    def clocks() -> str:
        answers = nodes.each(lambda node: facts_of(node.database))
        nearest = min((facts.clock for facts in answers.values()), key=lambda t: abs(t - clock()))
        return check_clock(nearest, clock())

    yield "database, clock", clocks


def checks_of_the_server(
    config: Config, database: Database, clock: Callable[[], float] = time.time
) -> Checks:
    """Yield the checks of what a server is, and lets the user do."""
    answers: list[ServerFacts] = []

    def version() -> str:
        answers.append(facts_of(database))
        return str(answers[0])

    yield "database", version
    if not answers:
        return
    (facts,) = answers
    yield "database, clock", lambda: check_clock(facts.clock, clock())
    yield "time zone", lambda: check_zone(facts)
    yield (
        "grants",
        lambda: check_grants(database, facts.database, needs_of(config, table_names(database))),
    )


def needs_of(config: Config, names: Sequence[str]) -> list[Need]:
    """Return the privileges that exports and backups need on the tables of these names."""
    needs = []
    for name in names:
        policy = config.policy_of(name)
        if policy and policy.backed_up and config.action != "export":
            needs.append(Need(name, ("SELECT", "BACKUP")))
        elif policy and policy.exported and config.action != "backup":
            needs.append(Need(name, ("SELECT",)))
    return needs
