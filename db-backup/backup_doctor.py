"""What `ooni-db-backup doctor` examines, and what a run examines of the servers before it writes.

Everything is tried for real. Only objects are written whose names begin with `<prefix>/doctor`, and
they are deleted again.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from backup_config import Config
from backups.backup import not_encrypted
from backups.commands import vanished_from
from backups.manifest import BackupLayout
from backups.plan import access
from backups.saving import check_engine
from backups.server import ServerBackups
from backups.stored import read_backups
from databases import OtherConfig, advise
from exports.chunks import check_chunks, lossy_columns
from exports.clickhouse_http import NO_TAG, ClickHouseHTTP
from exports.manifest import ExportLayout
from exports.parquet_rows import parquet_format
from exports.reader import Reader
from exports.row_source import choose, tags_failures
from ooni_common.database import Database
from ooni_common.database_checks import MOST_SKEW, ServerFacts, check_clock, check_zone, facts_of
from ooni_common.doctor import Check, Checks, Note, machine_checks
from ooni_common.errors import ConfigError, DataRefused, ScriptError
from ooni_common.grants import Need, check_grants, written
from ooni_common.node_checks import attendance, check_clocks, on_all
from ooni_common.nodes import Node, Nodes, connected_nodes
from store.bucket import Bucket
from store.doctor import StoreChecks
from store.one_writer import check_writer
from tables.inventory import all_names, all_table_names, read_table, table_names
from tables.policy import has_parquet
from tables.replicas import TableReplicas, database_with


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
        if self.nodes.is_cluster:
            yield "cluster", lambda: attendance(self.nodes, config)
        yield from ServerChecks(config, self.nodes, self.clock)
        yield "database, HTTP", self._rows
        yield "tables", self.check_tables
        if config.public_bucket_name or not config.private_bucket_name:
            yield from self._examinations_of_exports().items()
        if config.private_bucket_name:
            yield from self._examinations_of_backups().items()

    def _examinations_of_exports(self) -> dict[str, Callable[[], str]]:
        bucket = Bucket(self.config.store("public"), self.user_agent)
        layout = ExportLayout(self.config.public_prefix)

        def listed() -> str:
            return f"{bucket.url} has {len(list(bucket.listing(layout.exports)))} exports"

        checks = StoreChecks(bucket, layout.probe, for_backups=False, uploads_below=layout.exports)
        return {
            "bucket, list": listed,
            **_named("bucket", checks),
            "bucket, hosts": lambda: check_writer(bucket, layout, self.config.state_dir),
            "bucket, clock": lambda: self._check_clock(bucket),
        }

    def _examinations_of_backups(self) -> dict[str, Callable[[], str]]:
        bucket = Bucket(self.config.store("private"), self.user_agent)
        layout = BackupLayout(self.config.private_prefix)
        probe = layout.probe

        return {
            "backups, list": self.check_backups,
            **_named("backups", StoreChecks(bucket, probe, for_backups=True)),
            "backups, hosts": lambda: check_writer(bucket, layout, self.config.state_dir),
            "backups, server": lambda: self._servers_write(bucket, f"{probe}.native"),
            "backups, access": lambda: on_all(self.nodes, self.nodes.up, _access),
            "backups, clock": lambda: self._check_clock(bucket),
        }

    def _check_clock(self, bucket: Bucket) -> str:
        return check_clock(bucket.time(), self.clock(), "the store's clock", MOST_SKEW)

    def check_backups(self) -> str:
        """Say how many backups there are; no table that they have may be missing."""
        bucket = Bucket(self.config.store("private"), self.user_agent)
        layout = BackupLayout(self.config.private_prefix)
        backups = read_backups(bucket, layout, self.config.signing_key)
        good = sum(backup.state == "good" for backup in backups)
        if vanished := vanished_from(self.config, all_table_names(self.nodes), backups):
            raise vanished
        found = f"{bucket.url}: {len(backups)} backups, {good} good"
        if not self.config.signing_key:
            return f"{found}; without manifest_key they are not signed"
        signed = sum(backup.signature == "valid" for backup in backups)
        return f"{found}, {signed} signed"

    def _rows(self) -> str:
        """Say which way the rows of exports come; an address that is configured has to be good."""
        note = ""
        try:
            version, tagged = self.http.probed()
            if not tagged and self.config.http_url.reveal() and tags_failures(version):
                raise ConfigError(f"{self.http.address}: {NO_TAG}")
        except ScriptError:
            if self.config.http_url.reveal() and not self.nodes.is_cluster:
                raise
            note = "; restoring an export needs HTTP"
            ((version,),) = self.database.query("SELECT version()")
        if self.nodes.is_cluster:
            return f"rows come over the native protocol, from a node of each shard{note}"
        return choose(version, self.config, self.database, self.http).reason + note

    def check_grants(self) -> str:
        """Say whether the user has all rights that a run needs, on each node."""
        return ServerChecks(self.config, self.nodes, self.clock).check_grants()

    def check_tables(self) -> str:
        """Compare the policy with the tables: names, chunks, and what nobody has listed."""
        absent = set(self.nodes.absent)
        names = all_table_names(self.nodes)
        if unlisted := self.config.unlisted(names):
            listed = self.config.listed(unlisted)
            raise DataRefused(f"not listed: {listed}; say public, private, both or none of each")
        counts: dict[str, int] = {}
        lossy: list[str] = []
        for name in names:
            policy = self.config.policy_of(name)
            if policy is None:
                continue
            counts[policy.policy] = counts.get(policy.policy, 0) + 1
            database = database_with(self.nodes, name)
            if policy.backed_up and self.config.action != "export":
                check_engine(database, name)
            if policy.exported:
                table = read_table(database, name)
                reader = Reader(database, table, policy)
                check_chunks(reader)
                self._check_parquet(name, reader)
                lossy += [f"{name}.{column}" for column in lossy_columns(table)]
        if (missing := self.config.missing(names)) and not self.nodes.absent:
            listed = self.config.listed(missing)
            raise DataRefused(f'listed, but not there: {listed}; "gone", if that is for good')
        text = ", ".join(f"{count} {policy}" for policy, count in sorted(counts.items())) or "none"
        lost = [f"{node}: {why}" for node, why in self.nodes.absent.items() if node not in absent]
        if lossy:
            lost.append(f"CSV can't carry the types of {', '.join(lossy)}")
        return Note("; ".join([text, *lost])) if lost else text

    def _check_parquet(self, name: str, reader: Reader) -> None:
        """Try whether a table can be written as Parquet, if it is to be."""
        if not has_parquet(reader.policy, self.config.formats):
            return
        if self.nodes.is_cluster:
            reader = replace(reader, replicas=TableReplicas(self.nodes, name))
        parquet_format(self.http, reader).check(reader)

    def _servers_write(self, bucket: Bucket, key: str) -> str:
        """Let each server write an object, and look for it in the bucket."""
        return on_all(
            self.nodes,
            self.nodes.up,
            lambda node: self._server_writes(node.database, bucket, key),
        )

    def _server_writes(self, database: Database, bucket: Bucket, key: str) -> str:
        collection = self.config.private_named_collection
        bucket.delete(key)
        ServerBackups(database, self.config).write_probe(key, uuid.uuid4().hex)
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


def checks_of_another(config: OtherConfig, user_agent: str) -> Checks:
    """Yield the checks of a database beside that of db_uri: what can be different there."""

    def of_it(check: Callable[[Doctor], str]) -> Check:
        def connected_check() -> str:
            try:
                with connected_nodes(config, one_suffices=True) as nodes:
                    http = ClickHouseHTTP(config, user_agent)
                    return check(Doctor(config, nodes, http, user_agent))
            except ScriptError as error:
                advise(error)
                raise

        return connected_check

    yield f"{config.other}, tables", of_it(Doctor.check_tables)
    yield f"{config.other}, grants", of_it(Doctor.check_grants)
    if config.private_bucket_name and config.backs_up_any:
        yield f"{config.other}, backups", of_it(Doctor.check_backups)


def _access(node: Node) -> str:
    if access(node.database):
        return "users, roles and grants will be saved"
    return "without users and grants; they need GRANT SHOW ACCESS"


def _named(what: str, checks: StoreChecks) -> dict[str, Check]:
    return {f"{what}, {name}": check for name, check in checks}


def checks_before_a_run(nodes: Nodes) -> Checks:
    """Yield the checks that a run makes before it writes: one statement a node.

    A node that fails does not take part; a missing right is a matter of its own table.
    """

    def clocks() -> str:
        ahead = nodes.each(lambda node: time.time() - facts_of(node.database).clock)
        return check_clock(0, min(ahead.values(), key=abs))

    yield "database, clock", clocks


@dataclass
class ServerChecks:
    """The checks of what the servers are, and let the user do.

    Attributes:
        config: says what is done with which table.
        nodes: of the cluster, or the one server.
        clock: this machine's.
        facts: of the nodes that have answered.
        ahead: how many seconds this machine was ahead of each when it answered.
        names: of the tables that hold data, on any of them.
    """

    config: Config
    nodes: Nodes
    clock: Callable[[], float] = time.time
    facts: dict[Node, ServerFacts] = field(default_factory=dict)
    ahead: dict[Node, float] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def __iter__(self) -> Iterator[tuple[str, Check]]:
        """Yield them; those that depend on an answer only where there is one."""
        yield "database", lambda: on_all(self.nodes, self.nodes.up, self._database)
        if not self.facts:
            return
        answered = list(self.facts)
        yield "database, clock", lambda: check_clocks(self.nodes, self.ahead)
        yield "time zone", lambda: on_all(self.nodes, answered, self._zone)
        yield "grants", lambda: on_all(self.nodes, answered, self._grants)

    def check_grants(self) -> str:
        """Say whether the user has all rights that a run needs, without the checks before it."""
        on_all(self.nodes, self.nodes.up, self._database)
        return on_all(self.nodes, list(self.facts), self._grants)

    def _database(self, node: Node) -> str:
        self.facts[node] = facts_of(node.database)
        self.ahead[node] = self.clock() - self.facts[node].clock
        self.names |= set(table_names(node.database))
        return str(self.facts[node])

    def _zone(self, node: Node) -> str:
        return check_zone(self.facts[node])

    def _grants(self, node: Node) -> str:
        name = self.facts[node].database
        needs = needs_of(self.config, sorted(self.names))
        text = check_grants(node.database, name, needs)
        if any("BACKUP" in need.privileges for need in needs):
            self._check_definitions(node, name)
        return text

    @staticmethod
    def _check_definitions(node: Node, name: str) -> None:
        """Check that the user may back up the definition of everything, as each backup does."""
        needs = [Need(one, ("BACKUP",)) for one in all_names(node.database)]
        try:
            check_grants(node.database, name, needs)
        except ConfigError:
            ((user,),) = node.database.query("SELECT currentUser()")
            raise ConfigError(
                "each backup has the definitions of all tables and views, and the user of db_uri"
                f" may not back up all; run: GRANT BACKUP ON {written(name)}.* TO {written(user)}"
            ) from None


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
