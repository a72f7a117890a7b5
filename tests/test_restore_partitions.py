"""Some partitions of a table in a private backup, such as one month, restored alone."""

import json
from typing import Any

import msgspec
import pytest

from backups.contents import Partition
from backups.manifest import BackupManifest, SavedTable
from backups.partitions import replacements, with_partitions
from db_backup_harness import BACKUPS, BackupTool
from ooni_common.errors import DataRefused, UsageError
from tables.staging import Place


def saved(*partitions: str, method: Any = "incremental") -> SavedTable:
    """Return a table with these partitions, of which some were changed meanwhile."""
    content = {name: Partition(3, "1") for name in partitions}
    return SavedTable(
        method=method, engine="MergeTree", schema="s", storage_schema="s", columns=("a",),
        partitions=content, later=content,
    )  # fmt: skip


def manifest_of(table: SavedTable) -> BackupManifest:
    """Return the manifest of a backup of a table."""
    return BackupManifest(
        name="20260101T000000Z", kind="full", chain="20260101T000000Z", number=1, database="d",
        collection="", tables={"t": table, "u": saved("1")}, definitions={}, parts={},
        rows_bytes=0, access="", started="", finished="", tool="", server="",
    )  # fmt: skip


def no_id(_value: str) -> str:
    """Be a server that knows no such partition."""
    return "0" * 32


def test_a_manifest_is_reduced_to_the_partitions_on_each_shard() -> None:
    whole = manifest_of(saved("202601", "202602"))
    shards = (whole, manifest_of(saved("202602")))
    manifest = msgspec.structs.replace(whole, shards=shards)
    reduced, chosen = with_partitions(manifest, "t", ["202601", "202601"], no_id)
    assert chosen == ("202601",)
    assert list(reduced.tables["t"].partitions) == list(reduced.tables["t"].later) == ["202601"]
    assert [list(shard.tables["t"].partitions) for shard in reduced.by_shard] == [["202601"], []]
    assert reduced.tables["u"] == whole.tables["u"]


def test_a_text_is_a_partition_whose_id_the_server_tells() -> None:
    partition = "28efb8351fc29d2a20f1b1edf0612abd"
    _, chosen = with_partitions(
        manifest_of(saved(partition)), "t", ["x"], {"x": partition}.__getitem__
    )
    assert chosen == (partition,)


@pytest.mark.parametrize("name", ["", "a b", "1' OR '1", "../x", "a" * 201, "é", "1\n"])
def test_a_partition_that_no_server_makes_is_refused(name: str) -> None:
    manifest = manifest_of(saved("202601", name))
    with pytest.raises(DataRefused, match="no server makes"):
        with_partitions(manifest, "t", ["202601"], no_id)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (saved("all"), "has no partitions: restore it as a whole"),
        (saved(""), "has no partitions: restore it as a whole"),
        (saved(), "has no partitions: restore it as a whole"),
        (saved("1", "2", method="rows"), "saved as rows"),
        (saved("202602"), "there is no partition of t .*'202601'; there are: 202602"),
    ],
)
def test_what_can_not_be_restored_in_part(table: SavedTable, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        with_partitions(manifest_of(table), "t", ["202601"], no_id)


def test_the_statement_that_replaces_them() -> None:
    assert replacements(Place("d", "t"), Place("d", "t_restored"), ("1", "2")) == (
        "ALTER TABLE `d`.`t` REPLACE PARTITION ID '1' FROM `d`.`t_restored`,"
        " REPLACE PARTITION ID '2' FROM `d`.`t_restored`"
    )


# --- with real backups ---


@pytest.fixture
def tool(backup_tool: BackupTool) -> BackupTool:
    """The tool with a chain of two backups of tables by month, by text, and without partitions."""
    execute = backup_tool.database.execute
    columns = "(d Date, a UInt32) ENGINE = MergeTree ORDER BY a"
    execute(f"CREATE TABLE m {columns} PARTITION BY toYYYYMM(d)")
    execute(f"CREATE TABLE s {columns} PARTITION BY substring(toString(d), 1, 7)")
    execute(f"CREATE TABLE whole {columns}")
    backup_tool.keep_private(tables={"*": "private"}, action="backup")
    for start in ("2023-05-20", "2023-07-01"):  # 12 + 30 + 8 days, and 50 more
        for name in ("m", "s", "whole"):
            execute(
                f"INSERT INTO {name} SELECT toDate('{start}') + number, number FROM numbers(50)"
            )
        assert backup_tool.run("run")[0] == 0
    return backup_tool


def days_of(tool: BackupTool, table: str) -> list[tuple[Any, ...]]:
    """Return the months that a table has, with their rows."""
    sql = f"SELECT toYYYYMM(d) AS month, count() FROM {table} GROUP BY month ORDER BY month"
    rows: list[tuple[Any, ...]] = tool.database.execute(sql)
    return rows


@pytest.mark.long
def test_one_month_is_restored_alone_and_can_replace_the_live_one(tool: BackupTool) -> None:
    before = days_of(tool, "m")
    tool.database.execute("ALTER TABLE m DROP PARTITION 202306")
    tool.database.execute("INSERT INTO m VALUES ('2023-05-20', 77), ('2023-06-01', 99)")
    status, log = tool.run("restore", "m", "--partition", "202306")
    assert status == 0, log
    assert days_of(tool, "m_restored") == [(202306, 30)]
    assert days_of(tool, "m")[:2] == [(202305, 13), (202306, 1)]  # the live rows are as they were
    (statement,) = [line for line in log.splitlines() if "REPLACE PARTITION" in line]
    tool.database.execute(statement[statement.index("ALTER TABLE") :])
    assert days_of(tool, "m") == [(202305, 13), *before[1:]]


@pytest.mark.long
def test_partitions_of_several_backups_of_a_chain(tool: BackupTool) -> None:
    """July is half in the full backup, and half in the incremental one."""
    arguments = ("--partition", "202307", "--partition", "202305", "--as", "again")
    status, log = tool.run("restore", "m", *arguments)
    assert status == 0, log
    assert days_of(tool, "again") == [(202305, 12), (202307, 8 + 31)]
    first = tool.backups()[0].name
    assert tool.run("restore", "m", "--partition", "202307", "--from", first)[0] == 0
    assert days_of(tool, "m_restored") == [(202307, 8)]
    assert tool.run("restore", "s", "--partition", "2023-06")[0] == 0  # its ID is a hash
    assert days_of(tool, "s_restored") == [(202306, 30)]
    dry = tool.run("restore", "m", "--partition", "202305", "--dry-run")
    assert (dry[0], ": 12 rows" in dry[1]) == (0, True)


@pytest.mark.long
def test_what_makes_no_sense_is_said(tool: BackupTool) -> None:
    for arguments, reason in (
        (["m", "--partition", "202399"], "there is no partition of m in 2"),
        (["m", "--partition", "1' OR '1"], "there is no partition of m in 2"),
        (["whole", "--partition", "202306"], "has no partitions: restore it as a whole"),
        (["m", "--partition", "202306", "--replace"], "--partition restores beside the live table"),
        (["--all", "--partition", "202306"], "--partition is for one table of a backup"),
        (["m", "--partition", "1", "--from", "exports"], "for its export: --chunk"),
        (["m", "--partition", "1", "--chunk", "1"], "for its export: --chunk"),
        (["s", "--partition", "\udcff"], "is not UTF-8"),
        (["s", "--partition", "a" * 300_000], "--partition: it has 300,000 characters"),
        (["s", "--partition", "2023-06", "--as", "\udcff"], "is not UTF-8"),
        (["s", "--partition", "2023-06", "--to-database", "\udcff"], "is not UTF-8"),
        (["x", "--partition", "1"], "there is no export or backup of a table 'x'"),
    ):
        status, log = tool.run("restore", *arguments)
        assert (status, reason in log) == (2, True), log
    assert tool.database.execute("SHOW TABLES LIKE '%restor%'") == []
    status, log = tool.run("restore", "m", "--partition", "202306", "--as", "whole")
    assert (status, log.strip().endswith("use --as or --to-database")) == (78, True), log


@pytest.mark.long
def test_a_partition_with_other_rows_than_were_saved_is_refused(tool: BackupTool) -> None:
    """Whoever can write to the bucket changes the checksum of a partition, or its name."""
    key = BACKUPS.manifest(tool.backups()[-1].name)
    manifest = json.loads(tool.get_private(key))
    partitions = manifest["tables"]["m"]["partitions"]
    partitions["202306"]["checksum"] = "1"
    put(tool, key, manifest)
    status, log = tool.run("restore", "m", "--partition", "202306")
    assert (status, "as many as there were, but other ones" in log) == (65, True)
    assert tool.run("restore", "m", "--partition", "202305")[0] == 0
    partitions["x' OR '1"] = partitions["202305"]
    put(tool, key, manifest)
    status, log = tool.run("restore", "m", "--partition", "202305", "--as", "b")
    assert (status, "a partition that no server makes" in log) == (65, True)


def put(tool: BackupTool, key: str, manifest: dict[str, Any]) -> None:
    """Write a manifest."""
    content = json.dumps(manifest).encode()
    tool.client.put_object(Bucket=tool.private_bucket_name, Key=key, Body=content)
