"""Backing up and restoring on a cluster.

No cluster runs here. A scripted server answers what a node would; the syntax of every statement
that it was sent is checked by the real parser, and their order by the tests.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from clickhouse_driver.errors import ServerException

from backup_config import Config
from backups.backup import back_up, plan_backup
from backups.manifest import SERVER_MANIFEST, BackupManifest, chosen, read_backups
from backups.restore import Wanted, restore_tables, verify_backup
from backups.server import ServerBackups
from conftest import Database as FreshDatabase
from db_backup_harness import BACKUPS, BackupTool
from dev.servers.s3 import KEY, KEY_ID
from ooni_common.config import Secret
from ooni_common.database import Database
from ooni_common.errors import Unavailable
from staging import Place
from store import Bucket

CREATE = (
    "CREATE TABLE default.{}\n(\n    `a` UInt8\n)\n"
    "ENGINE = ReplicatedMergeTree('/clickhouse/{{shard}}/{}', '{{replica}}')\nORDER BY a"
)
PLAIN = "CREATE TABLE default.{}\n(\n    `a` UInt8\n)\nENGINE = MergeTree\nORDER BY a"
ENGINES = {"replicated": "ReplicatedMergeTree", "plain": "MergeTree"}
TIMEOUT = ServerException("Distributed DDL task: 1 of 2 hosts did not finish", 159)

KEPT = "_replaced_20260101T000000Z"


class ScriptedNode:
    """One node of a cluster with a replicated table and a plain one.

    Attributes:
        statements: what it was sent.
        status: of what runs in the background, as system.backups has it.
        failing: what a statement begins with that another node does not carry out.
        there: the tables that EXISTS finds.
    """

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.status = ""
        self.failing = "nothing"
        self.there: set[str] = set()

    def execute(self, query: str, params: Any = None, **_options: Any) -> Any:
        self.statements.append(query)
        if query.startswith(self.failing):
            raise TIMEOUT
        return list(self._answer(query, params or {}))

    def disconnect(self) -> None:
        pass

    def changes(self) -> list[str]:
        """Return the statements that ask for nothing."""
        questions = ("SELECT", "SHOW", "EXISTS", "DESCRIBE")
        return [each for each in self.statements if not each.startswith(questions)]

    def _answer(self, query: str, params: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
        if query.startswith(("BACKUP", "RESTORE")):
            self.status = self.status or "BACKUP_CREATED"
            if query.startswith("RESTORE"):
                self.status = "RESTORED"
        elif "total_size" in query:
            yield (self.status, "Code: 1. DB::Exception: replica b is gone", 100, 50)
        elif query.startswith("SHOW CREATE"):
            name = re.findall(r"`(\w+)`", query)[0]
            yield ((CREATE if name == "replicated" else PLAIN).format(name, name),)
        elif "sorting_key" in query:
            engine = ENGINES[params["table"]]
            yield (engine, f"{engine} ORDER BY a", "a", "a")
        elif "default_kind" in query:
            yield ("a", "UInt8")
        elif query.startswith("SELECT name FROM system.tables") and "startsWith" not in query:
            yield from ((name,) for name in ENGINES)
        elif "cityHash64" in query:
            yield ("all", 3, "12345")
        elif query.startswith("EXISTS"):
            yield (int(re.findall(r"`(\w+)`", query)[-1] in self.there),)
        else:
            yield from self._small_answer(query)

    @staticmethod
    def _small_answer(query: str) -> Iterator[tuple[Any, ...]]:
        if query.startswith("DESCRIBE"):
            yield ("", "UInt8")
        elif "engine FROM system.databases" in query:
            yield ("Atomic",)
        elif "version()" in query:
            yield ("25.8",)
        elif "currentDatabase()" in query and "system" not in query:
            yield ("default",)
        elif "count()" in query or "total_bytes" in query:
            yield (0,)


@pytest.fixture
def node() -> ScriptedNode:
    """A node."""
    return ScriptedNode()


@pytest.fixture
def server(backup_tool: BackupTool, node: ScriptedNode) -> ServerBackups:
    """A server that is a node of a cluster; its bucket is a real one."""
    backup_tool.keep_private()
    config = Config(
        cluster="oonidata",
        tables={"*": "private"},
        private_bucket_name=backup_tool.private_bucket_name,
        private_endpoint=backup_tool.s3.endpoint,
        private_aws_access_key_id=Secret(KEY_ID),
        private_aws_secret_access_key=Secret(KEY),
    )
    database = Database(node, config.cluster, sleep=lambda _seconds: None)
    return ServerBackups(
        database,
        config,
        clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        sleep=lambda _seconds: None,
    )


@pytest.fixture
def bucket(server: ServerBackups) -> Bucket:
    """The bucket of the backups."""
    return Bucket(server.config.store("private"), "test")


def make(server: ServerBackups, bucket: Bucket) -> BackupManifest:
    """Make a backup of both tables."""
    for part in ("definitions", "incremental"):  # which the scripted server does not write
        key = BACKUPS.server_backup("20260101T000000Z", part) + SERVER_MANIFEST
        bucket.put(key, b"", "text/plain")
    plan = plan_backup(server, list(ENGINES), [])
    return back_up(server, bucket, plan, [])


@pytest.fixture
def parsed(node: ScriptedNode, database: FreshDatabase) -> Iterator[None]:
    """At the end of the test, all statements are sent to the real parser."""
    yield
    for statement in node.statements:
        text = statement.replace("%(", "").replace(")s", "")
        if statement != text:
            continue  # it has parameters
        database.execute("SELECT formatQuery(%(statement)s)", {"statement": statement})


@pytest.mark.usefixtures("parsed")
def test_every_node_backs_up_its_shard(
    server: ServerBackups, bucket: Bucket, node: ScriptedNode
) -> None:
    manifest = make(server, bucket)
    assert chosen(read_backups(bucket, BACKUPS), "") == manifest
    assert [each.split(" TO S3(")[0] for each in node.changes()] == 2 * [
        "BACKUP TABLE `default`.`replicated`, TABLE `default`.`plain` ON CLUSTER `oonidata`"
    ]
    structure = ["structure_only = true" in each for each in node.changes()]
    assert structure == [True, False]
    checksums = [each for each in node.statements if "cityHash64" in each]
    assert checksums
    assert all("cluster('oonidata', 'default', " in each for each in checksums)


@pytest.mark.usefixtures("parsed")
def test_a_node_that_fails_makes_no_backup(
    server: ServerBackups, bucket: Bucket, node: ScriptedNode
) -> None:
    node.status = "BACKUP_FAILED"
    with pytest.raises(Unavailable, match="replica b is gone"):
        make(server, bucket)
    assert node.changes()[-1].startswith("KILL QUERY ON CLUSTER `oonidata` WHERE")
    assert read_backups(bucket, BACKUPS) == []
    assert list(bucket.listing("")) == []


@pytest.mark.usefixtures("parsed")
def test_tables_are_restored_on_every_node(
    server: ServerBackups, bucket: Bucket, node: ScriptedNode
) -> None:
    manifest = make(server, bucket)
    node.statements.clear()
    places = {name: Place("default", f"{name}_restored") for name in ENGINES}
    restore_tables(server, Wanted(manifest, places, "default"))
    assert [first_words(each) for each in node.changes()] == [
        "CREATE DATABASE IF NOT EXISTS `default`",
        *filled("replicated_restored"),
        *filled("plain_restored"),
        renamed(staging("replicated_restored"), "replicated_restored"),
        renamed(staging("plain_restored"), "plain_restored"),
    ]
    assert all(" ON CLUSTER `oonidata`" in each for each in node.changes())
    made = [each for each in node.changes() if each.startswith("CREATE TABLE")]
    assert all("Replicated" not in each for each in made)  # the path in Keeper is the live table's


@pytest.mark.usefixtures("parsed")
def test_after_a_disaster_replicated_tables_are_replicated_again(
    server: ServerBackups, bucket: Bucket, node: ScriptedNode
) -> None:
    manifest = make(server, bucket)
    node.statements.clear()
    places = {name: Place("default", name) for name in ENGINES}
    restore_tables(server, Wanted(manifest, places, "default", everything=True))
    changes = [first_words(each) for each in node.changes()]
    both = [f"`default`.`{name}`" for name in ENGINES]
    assert changes[9:] == [
        renamed(staging("plain"), "plain"),
        f"RESTORE {', '.join(f'TABLE {each} AS {each}' for each in both)}",
        "ALTER TABLE `default`.`replicated`",
        f"DROP TABLE IF EXISTS `default`.`{staging('replicated')}`",
    ]
    assert f"ATTACH PARTITION ALL FROM `default`.`{staging('replicated')}`" in node.changes()[-2]


@pytest.mark.usefixtures("parsed")
def test_a_live_table_is_exchanged_on_every_node(
    server: ServerBackups, bucket: Bucket, node: ScriptedNode
) -> None:
    manifest = make(server, bucket)
    node.statements.clear()
    node.there = {"plain"}
    wanted = Wanted(manifest, {"plain": Place("default", "plain")}, "default", replace=True)
    restore_tables(server, wanted)
    assert [first_words(each) for each in node.changes()[-2:]] == [
        renamed(staging("plain"), f"plain{KEPT}"),
        f"EXCHANGE TABLES `default`.`plain{KEPT}` AND `default`.`plain`",
    ]


@pytest.mark.usefixtures("parsed")
def test_what_a_node_has_not_renamed_is_not_dropped(
    server: ServerBackups, bucket: Bucket, node: ScriptedNode
) -> None:
    manifest = make(server, bucket)
    node.statements.clear()
    node.failing = "RENAME"
    wanted = Wanted(manifest, {"plain": Place("default", "new")}, "default")
    with pytest.raises(Unavailable, match="1 of 2 hosts did not finish"):
        restore_tables(server, wanted)
    assert node.changes()[-1].startswith("RENAME")


@pytest.mark.usefixtures("parsed")
def test_a_backup_is_verified_on_every_node(
    server: ServerBackups, bucket: Bucket, node: ScriptedNode
) -> None:
    manifest = make(server, bucket)
    node.statements.clear()
    assert verify_backup(server, manifest, list(ENGINES)) == []
    changes = node.changes()
    assert all(" ON CLUSTER `oonidata`" in each for each in changes)
    assert first_words(changes[0]).startswith("CREATE DATABASE `ooni_verify_")
    assert sum(each.startswith("RESTORE") for each in changes) == 2


def staging(table: str) -> str:
    """Return the name of the table that a restore into another one fills."""
    return Place("default", table).staging(datetime(2026, 1, 1, tzinfo=UTC)).table


def filled(table: str) -> list[str]:
    """Return the statements that fill a table before it gets its name."""
    name = table.partition("_")[0]
    return [
        f"CREATE TABLE `default`.`{staging(table)}`",
        "SYSTEM STOP MERGES",
        f"RESTORE TABLE `default`.`{name}` AS `default`.`{staging(table)}`",
        "SYSTEM START MERGES",
    ]


def renamed(before: str, after: str) -> str:
    """Return the statement that renames a table."""
    return f"RENAME TABLE `default`.`{before}` TO `default`.`{after}`"


def first_words(statement: str) -> str:
    """Return a statement up to the name of the cluster."""
    return statement.partition(" ON CLUSTER")[0]
