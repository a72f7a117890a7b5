"""Tables of more databases than that of db_uri: in the policy, both jobs, and every command."""

import json
from argparse import Namespace
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from backup_config import Config
from backups.manifest import BackupManifest
from databases import (
    JointMetrics,
    by_names,
    by_source,
    of_each_database,
    of_table,
    other_configs,
    without_backup,
)
from db_backup_harness import BackupTool
from ooni_common.config import SecretUrl
from ooni_common.errors import UsageError
from ooni_common.metrics import MetricKind, Metrics
from ooni_common.run import Job

CREATE = "CREATE TABLE {} (a UInt32) ENGINE = MergeTree ORDER BY a PARTITION BY a % 2"


def configured(**tables: str) -> Config:
    """Return a configuration of three databases."""
    named = {name.replace("__", "."): policy for name, policy in tables.items()}
    return Config(
        db_uri=SecretUrl("clickhouse://u:p@h/main"),
        databases=["other", "third"],
        tables=cast("Any", named),
    )


# --- the policy ---


def test_a_name_with_a_database_is_of_that_one_alone() -> None:
    config = configured(t="private", other__t="public", third__t="none", fourth__t="private")
    other, third = other_configs(config)
    policies = [one.policy_of("t") for one in (config, other, third)]
    assert [one and one.policy for one in policies] == ["private", "public", "none"]
    assert config.named_tables == ["t", "fourth.t"]  # a table of the database of db_uri
    assert (other.db_uri.reveal(), other.database) == ("clickhouse://u:p@h/other", "other")


def test_without_other_databases_a_dot_is_a_part_of_the_name() -> None:
    config = Config(tables={"other.t": "private", "default.t": "none"})
    assert config.is_backed_up("other.t")
    assert config.missing([]) == ["other.t"]


def test_in_another_database_nothing_is_public_that_is_not_listed() -> None:
    (other, _) = other_configs(Config(db_uri=SecretUrl("clickhouse://h/m"), databases=["o", "x"]))
    names = ["fastpath", "jsonl", "t_tmp", "t_restored", "x"]
    assert other.unlisted(names) == ["fastpath", "jsonl", "x"]
    assert not other.exports_any
    everything = configured(**{"*": "public", "other__*": "private"})
    other, third = other_configs(everything)
    assert (other.is_backed_up("fastpath"), other.is_exported("fastpath")) == (True, False)
    assert third.policy_of("t") is None


def test_months_of_large_tables_hold_in_another_database_too() -> None:
    (other, _) = other_configs(configured(other__fastpath="public"))
    policy = other.policy_of("fastpath")
    assert policy
    assert policy.chunk_by == "month"


@pytest.mark.parametrize(
    ("databases", "tables", "reason"),
    [
        (["main"], {}, "'main' is that of db_uri"),
        (["other", "other"], {}, "there twice"),
        (["other"], {"main.t": "none"}, "listed without it"),
    ],
)
def test_what_can_not_be_meant_is_refused(
    databases: list[str], tables: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        Config(db_uri=SecretUrl("clickhouse://h/main"), databases=databases, tables=tables)


@pytest.mark.parametrize("name", ["../x", "a/b", "", "a b", "a.b", "a\n", "é"])
def test_a_database_whose_name_could_not_be_in_a_key_is_refused(
    backup_tool: BackupTool, name: str
) -> None:
    status, log = backup_tool.run("print-config", databases=[name])
    assert (status, "databases" in log) == (78, True)


def test_print_config_has_the_tables_of_all(backup_tool: BackupTool) -> None:
    tables = {"t": "none", "other.t": "private"}
    status, text = backup_tool.run("print-config", databases=["other"], tables=tables)
    assert status == 0
    assert '"other.t" = { policy = "private" }' in text


# --- the command line ---


def job_of(config: Config, **arguments: object) -> Job[Config]:
    """Return a job of a command with such arguments."""
    metrics = Metrics("test", "")
    job = SimpleNamespace(config=config, metrics=metrics, arguments=Namespace(**arguments))
    return Job(
        config, job.metrics, cast("Any", None), "", config.state_dir, arguments=job.arguments
    )


def test_names_go_to_their_databases() -> None:
    jobs = by_names(job_of(configured(), tables=["a", "third.b", "other.c.d"], source=""), "tables")
    assert [(one.config.database, one.arguments.tables) for one in jobs] == [
        ("main", ["a"]),
        ("other", ["c.d"]),
        ("third", ["b"]),
    ]
    assert len(by_names(job_of(configured(), tables=[]), "tables")) == 3


@pytest.mark.parametrize("name", ["", "other."])
def test_a_name_without_a_rest_is_none(name: str) -> None:
    """Else it would mean all that the database has."""
    job = job_of(configured(), tables=["t", name], table=name, source="")
    with pytest.raises(UsageError, match="is missing"):
        by_names(job, "tables")
    with pytest.raises(UsageError, match="is missing"):
        of_table(job)


@pytest.mark.parametrize(
    ("tables", "source", "chosen"),
    [
        ([], "", ["main", "other", "third"]),
        ([], "exports", ["main", "other", "third"]),
        ([], "20260101T000000Z", ["main"]),
        ([], "other.20260101T000000Z", ["other"]),
        (["other.t"], "20260101T000000Z", ["other"]),
        (["other.t", "t"], "other.20260101T000000Z", ["other"]),
        (["other.t"], "third.20260101T000000Z", None),
    ],
)
def test_the_backup_that_is_named_chooses_the_database(
    tables: list[str], source: str, chosen: list[str] | None
) -> None:
    config = configured()
    jobs = by_names(job_of(config, tables=tables, source=source), "tables")
    if chosen is None:
        with pytest.raises(UsageError, match="the database of these tables has no such backup"):
            by_source(jobs, config)
    else:
        assert [one.config.database for one in by_source(jobs, config)] == chosen


def test_a_gauge_is_the_sum_and_what_is_proven_is_the_worst() -> None:
    metrics = Metrics("test", "")
    joint = JointMetrics(metrics, 2)
    for backups, skipped in ((7, 3), (2, 5)):
        joint.gauge("backups", backups)
        joint.gauge("skipped_chunks", skipped)
    joint.gauge("last_verified", 99)  # the other database was not proven
    gauges = {name: value for kind, name, value in metrics.sent if kind is MetricKind.GAUGE}
    assert gauges == {"backups": 2, "skipped_chunks": 8}


@pytest.mark.parametrize("first", [True, False])
def test_a_database_without_private_tables_now_keeps_no_gauge_of_the_others_back(
    *, first: bool
) -> None:
    config = configured(t="private", **{"other__x*": "private"})
    main, other, third = of_each_database(job_of(config))
    if first:
        without_backup(other)
    without_backup(third)  # it has none in the configuration either
    main.metrics.gauge("backups", 7)
    if not first:
        assert not main.metrics.sent
        without_backup(other)
    assert main.metrics.sent == [(MetricKind.GAUGE, "backups", 7)]


# --- with real databases ---


@pytest.fixture
def tool(backup_tool: BackupTool) -> Iterator[BackupTool]:
    """The tool with a second database, and a table of the same names in both, of other rows."""
    tool = backup_tool
    other = f"{tool.database.name}_other"
    tool.database.execute(f"CREATE DATABASE {other}")
    for place, rows in (("", 3), (f"{other}.", 5)):
        for name in ("shown", "kept"):
            tool.database.execute(CREATE.format(place + name))
            tool.database.execute(f"INSERT INTO {place}{name} SELECT number FROM numbers({rows})")
    tool.keep_private(
        databases=[other],
        tables={
            "shown": "public",
            "kept": "private",
            f"{other}.shown": "public",
            f"{other}.kept": "private",
        },
    )
    yield tool
    tool.database.execute(f"DROP DATABASE IF EXISTS {other} SYNC")


def other_of(tool: BackupTool) -> str:
    """Return the name of the second database."""
    return f"{tool.database.name}_other"


def rows_of(tool: BackupTool, table: str) -> int:
    """Return how many rows a table has."""
    return int(tool.database.execute(f"SELECT count() FROM {table}")[0][0])


def names_of_backups(tool: BackupTool) -> list[str]:
    """Return the names of the backups, as `list` has them."""
    return [one["name"] for one in json.loads(tool.run("list", "--json")[1])["backups"]]


@pytest.mark.long
def test_a_run_does_both_and_tables_of_one_name_do_not_meet(tool: BackupTool) -> None:
    other = other_of(tool)
    status, log = tool.run("run")
    assert status == 0, log
    assert tool.csv("shown.csv.zstd").count(b"\n") == 3 + 1  # where it was before
    below = f"clickhouse_export/databases/{other}"
    assert {f"{below}/csv/shown.csv.zstd", f"{below}/index.html", f"{below}/SHA256SUMS"} <= set(
        tool.objects()
    )
    manifests = f"clickhouse_backup/databases/{other}/manifest/"
    key = next(key for key in tool.kept() if key.startswith(manifests))
    manifest = msgspec.json.decode(tool.get_private(key), type=BackupManifest)
    assert (manifest.database, manifest.tables["kept"].rows) == (other, 5)
    assert [one.tables["kept"].rows for one in tool.backups()] == [3]
    assert (
        f'<a href="databases/{other}/index.html">'
        in tool.get("clickhouse_export/index.html").decode()
    )
    before = tool.hashes()
    assert tool.run("run")[0] == 0
    assert tool.hashes() == before
    tool.database.execute(f"INSERT INTO {other}.kept VALUES (9)")
    assert tool.run("run")[0] == 0
    assert [name.partition(".")[0] for name in names_of_backups(tool)][1:] == [other, other]


@pytest.mark.long
def test_list_verify_prune_and_doctor_look_at_both(tool: BackupTool) -> None:
    other = other_of(tool)
    assert tool.run("run")[0] == 0
    status, text = tool.run("list")
    assert (status, f"{other}.shown" in text, f"\n{other}.20" in text) == (0, True, True)
    assert tool.run("list", f"{other}.shown", names_of_backups(tool)[1])[0] == 0
    assert tool.run("verify")[0] == 0
    status, text = tool.run("doctor")
    assert f"ok      {other}, tables" in text
    assert f"ok      {other}, grants" in text
    key = f"clickhouse_export/databases/{other}/csv/shown.csv.zstd"
    tool.client.delete_object(Bucket=tool.bucket_name, Key=key)
    status, log = tool.run("verify")
    assert (status, f"database {other}: " in log, key in log) == (65, True, True)
    assert tool.run("verify", "shown", "kept")[0] == 0
    assert tool.run("verify", f"{other}.shown")[0] == 65
    assert tool.run("export", f"{other}.shown")[0] == 0
    assert tool.run("verify")[0] == 0
    status, log = tool.run("prune", "--keep", "1", "--confirm")
    assert (status, log.count("every export has its place")) == (0, 2)
    assert tool.run("schema", f"{other}.kept")[0] == 0


@pytest.mark.long
def test_one_table_comes_back_into_its_own_database(tool: BackupTool) -> None:
    other = other_of(tool)
    assert tool.run("run")[0] == 0
    assert tool.run("restore", f"{other}.kept")[0] == 0
    assert tool.run("restore", f"{other}.shown")[0] == 0
    assert tool.run("restore", "kept")[0] == 0
    counts = [rows_of(tool, f"{place}kept_restored") for place in ("", f"{other}.")]
    assert (counts, rows_of(tool, f"{other}.shown_restored")) == ([3, 5], 5)
    assert tool.run("run")[0] == 0  # what was restored needs no line
    names = names_of_backups(tool)
    main, others = names[0], names[-1]
    assert tool.run("restore", f"{other}.kept", "--from", others, "--as", "again")[0] == 0
    assert rows_of(tool, f"{other}.again") == 5
    assert tool.run("restore", f"{other}.kept", "--from", f"x.{main}")[0] == 2
    assert tool.run("restore", f"{other}.kept", "--as", f"{other}.b")[0] == 2
    assert tool.run("restore", "--all", "--to-database", "x")[0] == 2


@pytest.mark.long
def test_after_a_disaster_both_come_back(tool: BackupTool) -> None:
    other = other_of(tool)
    assert tool.run("run")[0] == 0
    tool.database.execute(f"DROP DATABASE {other} SYNC")
    tool.database.execute("DROP TABLE kept SYNC")
    status, log = tool.run("run")
    assert (status != 0, f"database {other}: " in log) == (True, True)
    assert tool.run("restore", "--all")[0] == 0
    assert (rows_of(tool, "kept"), rows_of(tool, f"{other}.kept")) == (3, 5)


@pytest.mark.long
def test_what_nobody_has_listed_in_another_database_fails_the_run(tool: BackupTool) -> None:
    other = other_of(tool)
    tool.database.execute(CREATE.format(f"{other}.fastpath"))
    tool.database.execute(f"DROP TABLE {other}.shown SYNC")
    status, log = tool.run("run")
    assert status == 65
    assert f"not listed in the configuration (public, private, both or none): '{other}.fastp" in log
    assert f"listed, but not there: '{other}.shown'" in log
    assert "fastpath" not in "".join(tool.objects())
    status, text = tool.run("doctor")
    assert (status, f"FAILED  {other}, tables" in text) == (65, True)
    assert f"not listed: '{other}.fastpath'" in text


@pytest.mark.long
def test_backups_and_rows_of_another_database_are_deleted_by_their_names(tool: BackupTool) -> None:
    other = other_of(tool)
    assert tool.run("run")[0] == 0
    tool.database.execute(f"INSERT INTO {other}.kept VALUES (9)")
    assert tool.run("backup", "--full")[0] == 0
    first = next(name for name in names_of_backups(tool) if name.startswith(other))
    assert tool.run("delete", first, "--confirm")[0] == 0
    assert first not in names_of_backups(tool)
    assert len(tool.backups()) == 2
    tool.database.execute(
        f"ALTER TABLE {other}.shown DELETE WHERE a = 1 SETTINGS mutations_sync = 2"
    )
    status, log = tool.run("forget", f"{other}.shown", "--chunk", "", "--confirm")
    assert status == 0, log
    assert f"clickhouse_export/databases/{other}/CHANGES.txt" in tool.objects()


def test_of_a_database_without_public_tables_the_bucket_of_exports_does_not_say(
    tool: BackupTool,
) -> None:
    other = other_of(tool)
    tables = {"*": "none", f"{other}.*": "private"}
    status, log = tool.run("run", tables=tables)
    assert status == 0, log
    everything = tool.client.list_objects_v2(Bucket=tool.bucket_name).get("Contents", [])
    assert not [one["Key"] for one in everything if other in one["Key"]]


@pytest.mark.long
def test_no_command_takes_a_database_for_a_table_or_a_backup(tool: BackupTool) -> None:
    other = other_of(tool)
    reason = f"'{other}.': the name of a table or backup of the database {other} is missing"
    for arguments in (
        ["restore", f"{other}.", "--replace"],
        ["restore", f"{other}.", "--partition", "0"],
        ["restore", "--all", "--from", f"{other}."],
        ["restore", "--all", "--skip", f"{other}."],
        ["verify", f"{other}."],
        ["export", f"{other}."],
        ["schema", f"{other}."],
        ["delete", f"{other}."],
        ["forget", f"{other}.", "--chunk", "x"],
    ):
        status, log = tool.run(*arguments)
        assert (status, reason in log) == (2, True), log


@pytest.mark.long
def test_a_missing_database_is_named_and_keeps_no_other_schema_back(tool: BackupTool) -> None:
    other = other_of(tool)
    tool.configure(databases=[f"{other}_gone", other])
    status, log = tool.run("schema")
    assert (status, log.count("CREATE TABLE")) == (78, 4), log
    assert "does not exist" in log
    for text in (log, tool.run("doctor")[1]):
        assert "create it, or correct its name in databases" in text
        assert "db_uri" not in text


def test_a_run_that_only_backs_up_wants_private_tables_of_one_database(tool: BackupTool) -> None:
    other = other_of(tool)
    tables = {"shown": "none", "kept": "none", f"{other}.shown": "public", f"{other}.kept": "none"}
    nothing = "no table is private in the configuration"
    status, log = tool.run("run", action="backup", tables=tables)
    assert (status, nothing in log) == (78, True), log
    for name in ("kept", f"{other}.kept"):
        status, log = tool.run("run", tables=tables | {name: "private"})
        assert (status, nothing in log) == (0, False), log
