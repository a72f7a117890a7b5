"""The exports as a whole: from a real database to a real S3 API, and back."""

import hashlib
import json
import os
import re
import subprocess
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin

import pytest

from db_backup_harness import CSV, LAYOUT, BackupTool
from dev.servers.fault_proxy import FaultProxy, s3_error
from dev.servers.misbehaving import MisbehavingServer, body
from exports.commands import reader_of
from exports.reader import Reader
from ooni_common.errors import UsageError
from ooni_common.files import locked
from ooni_common.nodes import Node, Nodes
from store.bucket import escaped
from tables.inventory import check_names
from tables.replicas import check_presence

if TYPE_CHECKING:
    import boto3.session

MONTHS = [f"fastpath_2023{month:02}.csv.zstd" for month in range(1, 13)]
BY_MONTH = {"fastpath": "public"}
OLD_CONFIG = {  # as version 1 has it, deployed by Ansible
    "ver": 0,
    "action": "export",
    "__description": "tables can be backed up as: ignore, full, incremental, partition",
    "backup_tables": {
        "citizenlab": "ignore",
        "fastpath": "ignore",
        "jsonl": "incremental",
        "url_priorities": "full",
    },
}
HOSTILE = [
    "plain",
    'it\'s "quoted" `twice`',
    "a.b",
    "with space, comma; DROP TABLE plain",
    "../../etc/passwd",
    "100%_\\back",
    "измерения 🌍",
    "line\nbreak",
]


def quoted(name: str) -> str:
    escaped_name = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped_name}`"


# --- exports ---


def test_each_month_becomes_an_object_that_is_byte_for_byte_what_the_database_gives(
    backup_tool: BackupTool,
) -> None:
    backup_tool.fill("fastpath", 3000)
    status, log = backup_tool.run(tables=BY_MONTH)
    assert status == 0
    assert backup_tool.exports() == MONTHS
    assert "12 chunks exported" in log
    for name, export in backup_tool.manifest("fastpath").chunks.items():
        content = backup_tool.csv(f"fastpath_{name}.csv.zstd")
        assert content == backup_tool.query(f"{export.query} FORMAT CSVWithNames")
        assert content.count(b"\n") == export.rows + 1
        assert len(content) == export.bytes
    total = sum(export.rows for export in backup_tool.manifest("fastpath").exports)
    assert total == 3000
    assert backup_tool.verifies()


def test_the_configuration_of_old_works_unchanged(backup_tool: BackupTool) -> None:
    backup_tool.fill("fastpath", 100, days=31)
    backup_tool.fill("jsonl", 100, days=31)
    for table in ("citizenlab", "url_priorities"):
        backup_tool.database.execute(
            f"CREATE TABLE {table} (a String) ENGINE = MergeTree ORDER BY a"
        )
    del backup_tool.config["tables"]
    status, _ = backup_tool.run(**OLD_CONFIG)
    assert status == 0
    # What version 1 exported, and nothing that it did not.
    assert backup_tool.exports() == ["fastpath_202301.csv.zstd", "jsonl_202301.csv.zstd"]


def test_what_is_published_leads_to_everything(backup_tool: BackupTool) -> None:
    backup_tool.fill("fastpath", 1000, days=59)
    backup_tool.database.execute("CREATE TABLE small (a String) ENGINE = MergeTree ORDER BY a")
    backup_tool.run(tables=BY_MONTH | {"small": "both"})
    run = json.loads(backup_tool.get(LAYOUT.run))
    assert run["tables"].keys() == {"fastpath", "small"}
    assert run["tables"]["fastpath"]["rows"] == 1000
    assert run["tables"]["small"] | {"generation": ""} == {
        "generation": "", "chunks": 1, "rows": 0, "bytes": 4, "compressed_bytes": 17,
    }  # fmt: skip
    assert reached_from(backup_tool, LAYOUT.index) == backup_tool.objects().keys()
    assert backup_tool.get(LAYOUT.schema("small")).startswith(b"CREATE TABLE ")


def test_sha256sum_accepts_a_copy_of_the_exports(backup_tool: BackupTool) -> None:
    backup_tool.fill("fastpath", 1000, days=59)
    backup_tool.run(tables=BY_MONTH)
    for key in backup_tool.objects():
        path = backup_tool.folder / "copy" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(backup_tool.get(key))
    folder = backup_tool.folder / "copy" / LAYOUT.prefix
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert done.stdout.count(": OK") == 2


def test_an_unchanged_table_costs_only_the_questions(backup_tool: BackupTool) -> None:
    backup_tool.fill("fastpath", 1000)
    backup_tool.run(tables=BY_MONTH)
    with backup_tool.unchanged():
        status, log = backup_tool.run()
    assert (status, "nothing to do: 12 chunks unchanged" in log) == (0, True)


def test_one_new_row_in_an_old_month_exports_that_month_alone(backup_tool: BackupTool) -> None:
    backup_tool.fill("fastpath", 1000)
    backup_tool.run(tables=BY_MONTH)
    before = backup_tool.hashes()
    backup_tool.fill("fastpath", 1, start=date(2023, 4, 17), days=1)
    status, log = backup_tool.run()
    assert status == 0
    assert changed(before, backup_tool.hashes()) == ["fastpath_202304.csv.zstd"]
    assert "1 chunk exported" in log
    assert "csv/fastpath_202304.csv.zstd: changed" in log


def test_replaced_rows_export_their_month_again(backup_tool: BackupTool) -> None:
    backup_tool.fill("fastpath", 1000)
    backup_tool.run(tables=BY_MONTH)
    before = backup_tool.hashes()
    # As a reprocessing does it: the same key, a new version of the row.
    columns = "measurement_uid, report_id, input, measurement_start_time"
    backup_tool.database.execute(
        f"INSERT INTO fastpath ({columns}, anomaly) SELECT {columns}, 't'"
        " FROM fastpath WHERE toYYYYMM(measurement_start_time, 'UTC') = 202307"
    )
    backup_tool.database.execute("OPTIMIZE TABLE fastpath FINAL")
    backup_tool.run()
    assert changed(before, backup_tool.hashes()) == ["fastpath_202307.csv.zstd"]
    assert backup_tool.csv("fastpath_202307.csv.zstd").count(b'"t"') >= 84


def test_a_replaced_row_that_is_not_the_newest_is_noticed(backup_tool: BackupTool) -> None:
    backup_tool.database.execute(
        "CREATE TABLE t (k String, v UInt8, x String) ENGINE = ReplacingMergeTree(v) ORDER BY k"
    )
    backup_tool.database.execute("INSERT INTO t VALUES ('a', 1, 'old'), ('b', 9, '')")
    backup_tool.run(tables={"t": "public"})
    backup_tool.database.execute("INSERT INTO t VALUES ('a', 2, 'new')")
    backup_tool.database.execute("OPTIMIZE TABLE t FINAL")
    backup_tool.run()
    assert backup_tool.csv("t.csv.zstd") == b'"k","v","x"\n"a",2,"new"\n"b",9,""\n'


def test_only_the_valid_rows_are_exported_where_final_says_so(backup_tool: BackupTool) -> None:
    backup_tool.database.execute(
        "CREATE TABLE t (k String, v UInt8, at DateTime) ENGINE = ReplacingMergeTree(at) ORDER BY k"
    )
    backup_tool.database.execute("SYSTEM STOP MERGES t")
    for value in (1, 2):
        backup_tool.database.execute(f"INSERT INTO t VALUES ('a', {value}, now() + {value})")
    backup_tool.run(tables={"t": {"policy": "public"}})
    assert backup_tool.manifest("t").exports[0].rows == 2
    backup_tool.run(tables={"t": {"policy": "public", "final": True}}, max_shrink=1)
    assert backup_tool.csv("t.csv.zstd").startswith(b'"k","v","at"\n"a",2,')
    assert backup_tool.manifest("t").exports[0].rows == 1


def test_a_row_that_is_replaced_by_one_of_another_month_leaves_its_own(
    backup_tool: BackupTool,
) -> None:
    execute = backup_tool.database.execute
    execute("CREATE TABLE t (id UInt8, v UInt8, d Date) ENGINE = ReplacingMergeTree(v) ORDER BY id")
    execute("SYSTEM STOP MERGES t")
    execute("INSERT INTO t SELECT number, 1, '2026-01-31' FROM numbers(20)")
    execute("INSERT INTO t SELECT number, 1, '2026-02-01' FROM numbers(20, 20)")
    policy = {"policy": "public", "chunk_by": "month", "column": "d", "final": True}
    assert backup_tool.run(tables={"t": policy})[0] == 0
    execute("INSERT INTO t VALUES (7, 2, '2026-02-01')")
    assert backup_tool.run()[0] == 0
    chunks = backup_tool.manifest("t").chunks
    assert [chunks[name].rows for name in ("202601", "202602")] == [19, 21]
    assert b"\n7," not in backup_tool.csv("t_202601.csv.zstd")
    execute("INSERT INTO t VALUES (99, 1, '2026-02-01')")
    status, log = backup_tool.run()
    assert (status, "1 chunk exported" in log) == (0, True), log


def test_a_dropped_month_is_reported_and_its_object_kept(backup_tool: BackupTool) -> None:
    backup_tool.fill("fastpath", 1000, days=59)
    backup_tool.run(tables=BY_MONTH)
    drop = "ALTER TABLE fastpath DELETE WHERE toYYYYMM(measurement_start_time, 'UTC') = 202301"
    backup_tool.database.execute(drop, settings={"mutations_sync": 2})
    status, log = backup_tool.run()
    assert status == 0
    assert "fastpath_202301.csv.zstd is not among the chunks of the table any more" in log
    assert backup_tool.exports() == MONTHS[:2]
    assert backup_tool.manifest("fastpath").chunks["202301"].dropped
    assert backup_tool.verifies()
    with backup_tool.unchanged():
        assert "not among the chunks" not in backup_tool.run()[1]
    backup_tool.fill("fastpath", 1000, days=59)
    backup_tool.run()
    assert not backup_tool.manifest("fastpath").chunks["202301"].dropped


def test_a_month_that_has_lost_many_rows_is_not_exported_over_what_there_is(
    backup_tool: BackupTool,
) -> None:
    backup_tool.fill("fastpath", 1000, days=59)
    backup_tool.run(tables=BY_MONTH)
    before = exports_of(backup_tool)
    lose = "ALTER TABLE fastpath DELETE WHERE toDate(measurement_start_time, 'UTC') < '2023-01-10'"
    backup_tool.database.execute(lose, settings={"mutations_sync": 2})
    status, log = backup_tool.run()
    assert status == 65
    assert "fastpath: 202301: shrunk" in log
    assert exports_of(backup_tool) == before
    assert backup_tool.run("--force")[0] == 0
    assert backup_tool.manifest("fastpath").chunks["202301"].rows < 400


@pytest.mark.parametrize("grows", [False, True])
def test_rows_that_the_server_has_merged_are_not_lost(
    backup_tool: BackupTool, *, grows: bool
) -> None:
    """A month is reprocessed: for a while it has each row twice. Merging them changes nothing."""
    backup_tool.fill("fastpath", 1000, days=31)
    backup_tool.database.execute("SYSTEM STOP MERGES fastpath")
    backup_tool.fill("fastpath", 1000, days=31)
    backup_tool.run(tables=BY_MONTH)
    assert backup_tool.manifest("fastpath").exports[0].rows == 2000
    before = exports_of(backup_tool)
    if grows:
        backup_tool.fill("fastpath", 10, start=date(2023, 1, 2), days=1)
    backup_tool.database.execute("SYSTEM START MERGES fastpath")
    backup_tool.database.execute("OPTIMIZE TABLE fastpath FINAL")
    assert backup_tool.run()[0] == 0
    assert (exports_of(backup_tool) == before) is not grows
    assert backup_tool.manifest("fastpath").exports[0].rows == (1010 if grows else 2000)
    with backup_tool.unchanged():
        assert backup_tool.run()[0] == 0


def test_another_column_exports_everything_again(backup_tool: BackupTool) -> None:
    create_table = "CREATE TABLE t (a UInt8) ENGINE = ReplacingMergeTree(a) ORDER BY a"
    backup_tool.database.execute(create_table)
    backup_tool.database.execute("INSERT INTO t VALUES (1)")
    backup_tool.run(tables={"t": "public"})
    backup_tool.database.execute("ALTER TABLE t ADD COLUMN b String DEFAULT 'x'")
    assert "t.csv.zstd: with other columns" in backup_tool.run()[1]
    assert backup_tool.csv("t.csv.zstd") == b'"a","b"\n1,"x"\n'


def test_days_and_rows_without_a_time_are_chunks(backup_tool: BackupTool) -> None:
    backup_tool.database.execute(
        "CREATE TABLE t (d Nullable(Date), a UInt8) ENGINE = MergeTree ORDER BY a"
    )
    backup_tool.database.execute(
        "INSERT INTO t VALUES ('2024-02-29', 1), (NULL, 2), ('1970-01-01', 3)"
    )
    backup_tool.run(tables={"t": {"policy": "public", "chunk_by": "day", "column": "d"}})
    assert backup_tool.exports() == [
        "t_19700101.csv.zstd", "t_20240229.csv.zstd", "t_null.csv.zstd",
    ]  # fmt: skip
    assert backup_tool.csv("t_null.csv.zstd") == b'"d","a"\n\\N,2\n'


def test_a_chunk_that_comes_back_as_it_was_is_not_dropped_any_more(
    backup_tool: BackupTool,
) -> None:
    backup_tool.database.execute("CREATE TABLE t (d Date) ENGINE = MergeTree ORDER BY d")
    backup_tool.database.execute("INSERT INTO t VALUES ('2024-01-01'), ('2024-01-02')")
    backup_tool.run(tables={"t": {"policy": "public", "chunk_by": "day", "column": "d"}})
    drop = "ALTER TABLE t DELETE WHERE d = '2024-01-01'"
    backup_tool.database.execute(drop, settings={"mutations_sync": 2})
    backup_tool.run()
    assert backup_tool.manifest("t").chunks["20240101"].dropped
    backup_tool.database.execute("INSERT INTO t VALUES ('2024-01-01')")
    backup_tool.run()
    assert not backup_tool.manifest("t").chunks["20240101"].dropped


def test_ranges_of_the_key_have_every_row_once_and_are_split_when_they_grow(
    backup_tool: BackupTool,
) -> None:
    policy = {"jsonl": {"policy": "public", "chunk_by": "range", "rows_per_chunk": 500}}
    backup_tool.fill("jsonl", 2000, days=31)
    backup_tool.run(tables=policy)
    first = backup_tool.manifest("jsonl")
    assert len(first.chunks) == 4
    assert rows_of_exports(backup_tool, "jsonl") == rows_of_table(backup_tool, "jsonl")
    assert backup_tool.run()[1].count("unchanged") == 1
    backup_tool.fill("jsonl", 1500, days=31, start=date(2023, 2, 1))
    backup_tool.run()
    second = backup_tool.manifest("jsonl")
    assert len(second.chunks) > 4
    assert all(export.rows < 1000 for export in second.exports)
    assert rows_of_exports(backup_tool, "jsonl") == rows_of_table(backup_tool, "jsonl")
    tokens = {name: export.token for name, export in second.chunks.items()}
    untouched = [name for name, export in first.chunks.items() if export.token == tokens[name]]
    assert len(untouched) == 3
    assert backup_tool.verifies()


def test_an_unlisted_table_fails_the_run_after_the_listed_ones_are_done(
    backup_tool: BackupTool,
) -> None:
    for table in ("listed", "forgotten", "x_tmp"):
        backup_tool.database.execute(f"CREATE TABLE {table} (a UInt8) ENGINE = Memory")
    backup_tool.database.execute("CREATE VIEW a_view AS SELECT 1")
    status, log = backup_tool.run(tables={"listed": "public", "*_tmp": "none"})
    assert status == 65
    assert "'forgotten'" in log
    assert "x_tmp" not in log
    assert "a_view" not in log
    assert backup_tool.exports() == ["listed.csv.zstd"]
    assert backup_tool.run("export")[0] == 0


def test_a_failure_does_not_hide_that_a_table_is_not_listed(backup_tool: BackupTool) -> None:
    for table in ("listed", "forgotten"):
        backup_tool.database.execute(f"CREATE TABLE {table} (a UInt8) ENGINE = Memory")
    wrong = {"policy": "public", "chunk_by": "day", "column": "no_such_column"}
    status, log = backup_tool.run(tables={"listed": wrong})
    assert (status, "no_such_column" in log, "'forgotten'" in log) == (78, True, True)


def test_a_table_that_fails_does_not_keep_the_others_from_being_done(
    backup_tool: BackupTool,
) -> None:
    for table in ("a", "z"):
        backup_tool.database.execute(f"CREATE TABLE {table} (a UInt8) ENGINE = Memory")
    wrong = {"policy": "public", "chunk_by": "month", "column": "no_such_column"}
    status, log = backup_tool.run(tables={"a": wrong, "z": "public"})
    assert status == 78
    assert "tables: a: there is no column 'no_such_column'" in log
    assert backup_tool.exports() == ["z.csv.zstd"]


def test_a_table_whose_nodes_are_away_does_not_keep_the_others_from_being_done(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be one that a single shard has."""
    for table in ("a", "z"):
        backup_tool.database.execute(f"CREATE TABLE {table} (a UInt8) ENGINE = Memory")

    def reader_where_a_node_is_away(config: Any, nodes: Nodes, table: str) -> Reader:
        if table == "a":
            up = [Node("up:9000", 2, nodes.first)]
            check_presence(Nodes({1: 1, 2: 2}, up, {"away:9000": "it is down"}), table, 2)
        return reader_of(config, nodes, table)

    monkeypatch.setattr("exports.export_command.reader_of", reader_where_a_node_is_away)
    status, log = backup_tool.run(tables=dict.fromkeys("az", "public"))
    assert (status, "a: no node of shard 2 that is up has it (away:9000: it is" in log) == (
        69,
        True,
    )
    assert backup_tool.exports() == ["z.csv.zstd"]


def make_months(tool: BackupTool, months: int) -> None:
    """Make a table of so many months, and export it and another one."""
    execute = tool.database.execute
    execute("CREATE TABLE t (d Date, a UInt8) ENGINE = MergeTree ORDER BY d")
    execute(
        "INSERT INTO t SELECT toDate('2026-01-01') + INTERVAL number MONTH, 1"
        f" FROM numbers({months})"
    )
    execute("CREATE TABLE z (a UInt8) ENGINE = Memory")
    policy = {"policy": "public", "chunk_by": "month", "column": "d"}
    status, log = tool.run(tables={"t": policy, "z": "public"})
    assert status == 0, log


def break_months(tool: BackupTool, condition: str) -> None:
    """Add a column that nobody can read of some rows, as if their parts were damaged."""
    tool.database.execute(
        f"ALTER TABLE t ADD COLUMN x UInt8 DEFAULT throwIf({condition}, 'a broken part')"
    )
    tool.database.execute("INSERT INTO z VALUES (1)")


def test_a_chunk_that_can_not_be_read_holds_up_no_other_one(backup_tool: BackupTool) -> None:
    make_months(backup_tool, 4)
    before = backup_tool.get(f"{CSV}t_202601.csv.zstd")
    break_months(backup_tool, "toMonth(d) = 1")
    status, log = backup_tool.run()
    assert (status, "t: 202601: not exported: database: " in log) == (69, True), log
    assert "a broken part" in log
    assert backup_tool.get(f"{CSV}t_202601.csv.zstd") == before
    for month in (2, 3, 4):
        assert backup_tool.csv(f"t_20260{month}.csv.zstd").startswith(b'"d","a","x"\n')
    assert backup_tool.csv("z.csv.zstd") == b'"a"\n1\n'
    backup_tool.database.execute("ALTER TABLE t DROP COLUMN x")
    assert backup_tool.run()[0] == 0
    assert backup_tool.verifies()


def test_after_several_chunks_in_a_row_that_can_not_be_read_no_more_are_asked_for(
    backup_tool: BackupTool,
) -> None:
    make_months(backup_tool, 8)
    break_months(backup_tool, "toMonth(d) NOT IN (3, 7)")
    status, log = backup_tool.run(jobs=1)
    months = {month for month in range(1, 9) if f"t: 20260{month}: not exported" in log}
    assert (status, months) == (69, {1, 2, 4, 5, 6}), log
    assert backup_tool.csv("t_202603.csv.zstd").startswith(b'"d","a","x"\n')
    assert backup_tool.csv("t_202607.csv.zstd").startswith(b'"d","a"\n')
    assert backup_tool.csv("z.csv.zstd") == b'"a"\n1\n'


@pytest.mark.long
def test_names_can_not_break_out(backup_tool: BackupTool) -> None:
    for name in HOSTILE:
        backup_tool.database.execute(
            f"CREATE TABLE {quoted(name)} ({quoted(name)} String, `a b` UInt8)"
            f" ENGINE = MergeTree ORDER BY ({quoted(name)})"
        )
        backup_tool.database.execute(f"INSERT INTO {quoted(name)} VALUES ('x', 1)")
    status, log = backup_tool.run(tables=dict.fromkeys(HOSTILE, "public"))
    assert (status, log.count("1 rows")) == (0, len(HOSTILE))
    assert sorted(backup_tool.exports()) == sorted(f"{escaped(name)}.csv.zstd" for name in HOSTILE)
    assert all("/" not in name for name in backup_tool.exports())
    page = backup_tool.get(LAYOUT.index).decode()
    assert "it&#39;s &#34;quoted&#34; `twice`" in page
    assert 'href="csv/it%2527s%2520%2522quoted%2522%2520%2560twice%2560.csv.zstd"' in page
    assert backup_tool.verifies()
    for name in HOSTILE:
        assert backup_tool.run("restore", name, "--as", f"{name} again")[0] == 0
        assert backup_tool.checksum(quoted(f"{name} again")) == backup_tool.checksum(quoted(name))


def test_two_tables_can_not_write_the_same_object(backup_tool: BackupTool) -> None:
    backup_tool.fill("fastpath", 10, days=5)
    backup_tool.database.execute("CREATE TABLE fastpath_202301 (a UInt8) ENGINE = Memory")
    status, log = backup_tool.run(tables={"fastpath": "public", "fastpath_202301": "public"})
    assert status == 65
    assert "'fastpath_202301': its objects would have the names of those of 'fastpath'" in log
    assert backup_tool.csv("fastpath_202301.csv.zstd").startswith(b'"measurement_uid"')
    assert backup_tool.verifies()


def test_a_table_that_is_not_public_any_more_is_reported(backup_tool: BackupTool) -> None:
    backup_tool.database.execute("CREATE TABLE t (a UInt8) ENGINE = Memory")
    backup_tool.run(tables={"t": "public"})
    status, log = backup_tool.run(tables={"t": "none"})
    assert status == 0
    assert "t: not public any more, but its exports are still in the bucket" in log


def test_storage_class_and_encryption_are_asked_for(backup_tool: BackupTool) -> None:
    backup_tool.database.execute("CREATE TABLE t (a UInt8) ENGINE = Memory")
    backup_tool.run(tables={"t": "public"}, public_storage_class="STANDARD_IA", public_sse="AES256")
    head = backup_tool.client.head_object(Bucket=backup_tool.bucket_name, Key=f"{CSV}t.csv.zstd")
    assert (head["StorageClass"], head["ServerSideEncryption"]) == ("STANDARD_IA", "AES256")
    assert head["ContentType"] == "application/zstd"


@pytest.fixture
def anonymous(
    backup_tool: BackupTool,
    boto_session: "boto3.session.Session",
    monkeypatch: pytest.MonkeyPatch,
) -> BackupTool:
    """A tool without credentials, on a machine without any."""
    # The session of all tests remembers credentials.
    monkeypatch.setattr("boto3.session.Session", type(boto_session))
    backup_tool.database.execute("CREATE TABLE t (a UInt8) ENGINE = Memory")
    for key in ("public_aws_access_key_id", "public_aws_secret_access_key"):
        del backup_tool.config[key]
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(backup_tool.folder))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    status, log = backup_tool.run(tables={"t": "public"})
    assert (status, "no credentials are configured" in log) == (78, True)
    return backup_tool


def test_credentials_can_come_from_the_environment(
    anonymous: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-environment")
    assert anonymous.run()[0] == 0


def test_credentials_can_be_systemds(
    anonymous: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = anonymous.folder / "credentials"
    folder.mkdir()
    (folder / "public_aws_access_key_id").write_text("AKIASYSTEMD\n")
    (folder / "public_aws_secret_access_key").write_text("secret-of-systemd\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    assert anonymous.run()[0] == 0


def test_a_secret_can_be_in_a_file_of_its_own(anonymous: BackupTool) -> None:
    secret = anonymous.folder / "secret"
    secret.write_text("secret-of-the-file\n")
    secret.chmod(0o644)
    keys = {
        "public_aws_access_key_id": "AKIAFILE",
        "public_aws_secret_access_key_file": str(secret),
    }
    assert anonymous.run(**keys)[0] == 78
    secret.chmod(0o600)
    assert anonymous.run(**keys)[0] == 0


def test_credentials_can_be_those_of_the_instances_role(
    anonymous: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = {
        "Code": "Success",
        "Type": "AWS-HMAC",
        "AccessKeyId": "ASIAROLE",
        "SecretAccessKey": "secret-of-the-role",
        "Token": "token-of-the-role",
        "LastUpdated": "2026-01-01T00:00:00Z",
        "Expiration": "2999-01-01T00:00:00Z",
    }
    with MisbehavingServer() as metadata:
        path = "/latest/meta-data/iam/security-credentials/"
        metadata.route("/latest/api/token", body(b"session-token"))
        metadata.route(path, body(b"exporter"))
        metadata.route(f"{path}exporter", body(json.dumps(role).encode()))
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url())
        assert anonymous.run()[0] == 0
        assert metadata.requests


def test_a_large_export_is_uploaded_in_parts(backup_tool: BackupTool) -> None:
    backup_tool.database.execute(
        "CREATE TABLE t (a String) ENGINE = MergeTree ORDER BY tuple()"
        " AS SELECT randomPrintableASCII(1000) FROM numbers(22000)"
    )
    backup_tool.run(tables={"t": "public"})
    head = backup_tool.client.head_object(Bucket=backup_tool.bucket_name, Key=f"{CSV}t.csv.zstd")
    assert head["ETag"].endswith('-3"')
    assert backup_tool.uploads() == []
    assert backup_tool.verifies()


def test_a_dry_run_says_what_and_why_and_changes_nothing(backup_tool: BackupTool) -> None:
    backup_tool.fill("fastpath", 1000, days=59)
    with backup_tool.unchanged():
        status, log = backup_tool.run("--dry-run", tables=BY_MONTH)
    assert status == 0
    assert "fastpath: would export 202301: new, 526 rows" in log
    assert not (backup_tool.folder / "state").exists()
    backup_tool.run()
    backup_tool.fill("fastpath", 5, days=5)
    with backup_tool.unchanged():
        log = backup_tool.run("export", "fastpath", "--dry-run")[1]
    assert "would export 202301: changed, 531 rows (+5)" in log
    assert "would keep 202302: unchanged" in log
    assert "would export 1 chunk; unchanged: 1" in log


def test_only_public_tables_can_be_exported_by_name(backup_tool: BackupTool) -> None:
    for table in ("a", "b", "hidden"):
        backup_tool.database.execute(f"CREATE TABLE {table} (a UInt8) ENGINE = Memory")
    tables = {"a": "public", "b": "both", "hidden": "private"}
    assert backup_tool.run("export", "b", tables=tables)[0] == 0
    assert backup_tool.exports() == ["b.csv.zstd"]
    status, log = backup_tool.run("export", "hidden")
    assert status == 78
    assert "'hidden' is not public in the configuration; public are: a, b" in log


def test_private_backups_are_not_silently_left_out(backup_tool: BackupTool) -> None:
    backup_tool.database.execute("CREATE TABLE t (a UInt8) ENGINE = Memory")
    status, log = backup_tool.run(tables={"t": "both"}, action="")
    assert (status, "private_bucket_name is missing" in log) == (78, True)
    assert backup_tool.exports() == ["t.csv.zstd"]  # the rest is done all the same


def test_what_2_0_1_exported_from_a_cluster_is_not_exported_again(backup_tool: BackupTool) -> None:
    backup_tool.fill("fastpath", 1000, days=59)
    backup_tool.run(tables=BY_MONTH)
    manifest = json.loads(backup_tool.get(LAYOUT.manifest("fastpath")))
    for chunk in manifest["chunks"].values():
        source = "cluster('the \\'cluster\\'', currentDatabase(), `fastpath`)"
        chunk["query"] = chunk["query"].replace("`fastpath`", source)
        assert source in chunk["query"]
    backup_tool.put(LAYOUT.manifest("fastpath"), json.dumps(manifest).encode())
    status, log = backup_tool.run()
    assert (status, "nothing to do: 2 chunks unchanged" in log) == (0, True), log


# --- list and schema ---


def test_list_shows_tables_chunks_and_json(backup_tool: BackupTool) -> None:
    backup_tool.fill("fastpath", 1000, days=59)
    assert backup_tool.run("list", tables=BY_MONTH)[1].startswith("TABLE ")
    backup_tool.run()
    printed = backup_tool.run("list")[1].splitlines()
    assert re.match(r"fastpath +2 +1,000 +[\d.]+ kB  20\d\d-\d\d-\d\d \d\d:\d\d$", printed[1])
    assert all(len(line) <= 80 for line in printed)
    chunks = backup_tool.run("list", "fastpath")[1].splitlines()
    assert [line.split()[0] for line in chunks[1:]] == MONTHS[:2]
    assert all(len(line) <= 80 for line in chunks)
    listed = json.loads(backup_tool.run("list", "--json")[1])
    assert listed["backups"] == []
    assert listed["exports"]["fastpath"]["chunks"]["202301"]["rows"] == 526


def test_schema_shows_what_creates_the_tables(backup_tool: BackupTool) -> None:
    backup_tool.database.execute("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a")
    status, printed = backup_tool.run("schema", "t")
    assert status == 0
    assert re.match(r"CREATE TABLE \S+\.t\n\(\n    `a` UInt8\n\)", printed)


# --- verify ---


def flip_a_byte(tool: BackupTool, key: str) -> str:
    content = bytearray(tool.get(key))
    content[len(content) // 2] ^= 1
    rewrite(tool, key, bytes(content))
    return "SHA-256"


def truncate(tool: BackupTool, key: str) -> str:
    rewrite(tool, key, tool.get(key)[:-20])
    return "bytes instead of"


def delete(tool: BackupTool, key: str) -> str:
    tool.client.delete_object(Bucket=tool.bucket_name, Key=key)
    return "missing"


def overwrite(tool: BackupTool, key: str) -> str:
    tool.put(key, tool.get(key), Metadata={"ooni-export": "of another run"})
    return "it is not the object that was uploaded"


def add_an_object(tool: BackupTool, key: str) -> str:
    tool.put(f"{key}.copy", b"x")
    return "no manifest names it"


def miscount(tool: BackupTool, key: str) -> str:
    manifest = json.loads(tool.get(LAYOUT.manifest("fastpath")))
    manifest["chunks"]["202301"]["rows"] += 1
    tool.put(LAYOUT.manifest("fastpath"), json.dumps(manifest).encode())
    return "rows instead of"


def name_too_much(tool: BackupTool, key: str) -> str:
    manifest = json.loads(tool.get(LAYOUT.manifest("fastpath")))
    more = manifest["chunks"]["202301"] | {"key": key.replace("202301", "202399")}
    manifest["chunks"]["202399"] = more
    tool.put(LAYOUT.manifest("fastpath"), json.dumps(manifest).encode())
    return "damaged: the chunk '202399' is not in"


def name_a_table_too_much(tool: BackupTool, key: str) -> str:
    run = json.loads(tool.get(LAYOUT.run))
    run["tables"]["other"] = run["tables"]["fastpath"]
    tool.put(LAYOUT.run, json.dumps(run).encode())
    return "manifest/other.json: it is lost"


def spoil_the_checksums(tool: BackupTool, key: str) -> str:
    tool.put(LAYOUT.sums, b"0" * 64 + b"  csv/fastpath_202301.csv.zstd\n")
    return "SHA256SUMS: it differs from the manifests"


def spoil_a_manifest(tool: BackupTool, key: str) -> str:
    tool.put(LAYOUT.manifest("fastpath"), b"{")
    return "damaged"


def rewrite(tool: BackupTool, key: str, content: bytes) -> None:
    """Change an object as a failure of the store would: its metadata stays."""
    metadata = tool.client.head_object(Bucket=tool.bucket_name, Key=key)["Metadata"]
    tool.put(key, content, Metadata=metadata)


@pytest.mark.parametrize(
    "spoil",
    [
        flip_a_byte,
        delete,
        *(
            pytest.param(spoil, marks=pytest.mark.long)
            for spoil in (truncate, overwrite, add_an_object, miscount, name_too_much,
                          name_a_table_too_much, spoil_the_checksums, spoil_a_manifest)
        ),
    ],
)  # fmt: skip
def test_verify_finds_what_is_wrong(backup_tool: BackupTool, spoil: object) -> None:
    backup_tool.fill("fastpath", 600, days=59)
    backup_tool.run(tables=BY_MONTH)
    expected = spoil(backup_tool, f"{CSV}fastpath_202301.csv.zstd")  # type: ignore[operator]
    with backup_tool.unchanged():
        status, log = backup_tool.run("verify")
    assert (status, expected in log) == (65, True)


def test_a_quick_verification_reads_no_rows(backup_tool: BackupTool) -> None:
    backup_tool.fill("fastpath", 600, days=59)
    backup_tool.run(tables=BY_MONTH)
    flip_a_byte(backup_tool, f"{CSV}fastpath_202301.csv.zstd")
    assert backup_tool.run("verify", "--quick")[0] == 0
    delete(backup_tool, f"{CSV}fastpath_202301.csv.zstd")
    assert backup_tool.run("verify", "--quick")[0] == 65
    backup_tool.configure(tables=BY_MONTH | {"other": "public"})
    assert backup_tool.run("verify", "other")[0] == 65


def test_an_export_after_damage_repairs_it_by_force(backup_tool: BackupTool) -> None:
    backup_tool.fill("fastpath", 600, days=59)
    backup_tool.run(tables=BY_MONTH)
    flip_a_byte(backup_tool, f"{CSV}fastpath_202301.csv.zstd")
    assert backup_tool.run("export", "fastpath", "--force")[0] == 0
    assert backup_tool.verifies()


# --- restore ---

ALL_TYPES = """
CREATE TABLE everything
(
    id UInt32,
    text String,
    `maybe text` Nullable(String),
    low LowCardinality(String),
    `low maybe` LowCardinality(Nullable(String)),
    fixed FixedString(4),
    float Float64,
    small Float32,
    big Int256,
    decimal Decimal(38, 10),
    bool Bool,
    day Date,
    wide_day Date32,
    time DateTime,
    time_in_zone DateTime('Asia/Tokyo'),
    precise DateTime64(6, 'UTC'),
    enum Enum8('a, "b"' = 1, 'c\\'d' = -2),
    list Array(String),
    lists Array(Array(Nullable(UInt8))),
    dict Map(String, Float64),
    pair Tuple(name String, `number two` Nullable(Int64)),
    uuid UUID,
    ipv4 IPv4,
    ipv6 IPv6,
    added UInt8 DEFAULT id % 7,
    made DateTime MATERIALIZED now(),
    alias String ALIAS upper(text)
)
ENGINE = MergeTree ORDER BY id
"""
ALL_VALUES = r"""
INSERT INTO everything SELECT
    number,
    ['', ' x ', '\\N', 'NULL', '"', 'a,"b"\n\r\nc', '\0\x01\t', 'измерения 🌍', '''', unhex('FFFE')]
        [1 + number % 10],
    if(number % 3 = 0, NULL, ['', '\\N', 'a\nb', '""'][1 + number % 4]),
    ['', '\n', 'x'][1 + number % 3],
    if(number % 2 = 0, NULL, ['', '\\N'][1 + number % 2]),
    ['', 'a\0b', '",\n'][1 + number % 3],
    [0.1, nan, inf, -inf, -0.0, 1e300, 5e-324, 1/3][1 + number % 8],
    [toFloat32(0.1), toFloat32(1e-40), toFloat32(16777217)][1 + number % 3],
    number - toInt256(
        '57896044618658097711785492504343953926634992332820282019728792003956564819967'),
    toDecimal128('-1234567890123456789.0123456789', 10),
    number % 2,
    toDate('1970-01-01') + number,
    toDate32('1900-01-01') + number,
    toDateTime(number * 1000),
    toDateTime(number * 1000, 'Asia/Tokyo'),
    toDateTime64('1969-12-31 23:59:59.999999', 6, 'UTC') + toIntervalMicrosecond(number),
    if(number % 2, 'a, "b"', 'c\'d'),
    [['x''', '', 'a\nb', '"']][1 + number % 2],
    [[1, NULL], []],
    map('k"\n', number / 3, '', nan),
    tuple('a"\n,', if(number % 2, NULL, -number)),
    generateUUIDv4(number),
    toIPv4(number),
    toIPv6('2001:db8::1'),
    number % 5
FROM numbers(500)
"""


@pytest.fixture
def everything(backup_tool: BackupTool) -> BackupTool:
    """A table with all types, exported."""
    backup_tool.database.execute(ALL_TYPES)
    backup_tool.query(ALL_VALUES)
    assert backup_tool.run(tables={"everything": "public"})[0] == 0
    return backup_tool


def test_every_type_comes_back_as_it_was(everything: BackupTool) -> None:
    assert everything.csv("everything.csv.zstd").count(b"\n") > 501
    assert everything.manifest("everything").exports[0].rows == 500
    assert everything.verifies()
    status, log = everything.run("restore", "everything")
    assert (status, "restored everything as everything_restored: 500 rows" in log) == (0, True)
    assert "everything: the rows are those that were exported" in log
    assert everything.checksum("everything_restored") == everything.checksum("everything")
    fresh = (
        "SELECT count() FROM (SELECT * FROM everything EXCEPT SELECT * FROM everything_restored)"
    )
    assert everything.database.execute(fresh) == [(0,)]


def test_a_table_of_many_chunks_comes_back(backup_tool: BackupTool) -> None:
    backup_tool.fill("fastpath", 3000)
    backup_tool.run(tables=BY_MONTH)
    assert backup_tool.run("restore", "fastpath", "--as", "again")[0] == 0
    assert backup_tool.checksum("again") == backup_tool.checksum("fastpath")
    create = backup_tool.database.execute("SHOW CREATE TABLE again")[0][0]
    original = backup_tool.database.execute("SHOW CREATE TABLE fastpath")[0][0]
    assert create == original.replace(".fastpath\n", ".again\n")


def test_rows_with_the_same_key_come_back_all(backup_tool: BackupTool) -> None:
    backup_tool.database.execute(
        "CREATE TABLE t (k String, v UInt8) ENGINE = ReplacingMergeTree(v) ORDER BY k"
    )
    backup_tool.database.execute("SYSTEM STOP MERGES t")
    for value in (1, 2):
        backup_tool.database.execute(f"INSERT INTO t VALUES ('a', {value})")
    backup_tool.run(tables={"t": "public"})
    status, log = backup_tool.run("restore", "t")
    assert (status, "restored t as t_restored: 2 rows" in log) == (0, True)
    assert backup_tool.database.execute("SELECT count() FROM t_restored") == [(2,)]


def test_no_table_is_overwritten(backup_tool: BackupTool) -> None:
    backup_tool.database.execute("CREATE TABLE t (a UInt8) ENGINE = Memory")
    backup_tool.run(tables={"t": "public"})
    status, log = backup_tool.run("restore", "t", "--as", "t")
    assert (status, "there is a table t already" in log) == (78, True)


@pytest.mark.long
@pytest.mark.parametrize("spoil", [flip_a_byte, delete, truncate, miscount])
def test_of_a_damaged_export_nothing_is_restored(backup_tool: BackupTool, spoil: object) -> None:
    backup_tool.fill("fastpath", 600, days=59)
    backup_tool.run(tables=BY_MONTH)
    spoil(backup_tool, f"{CSV}fastpath_202302.csv.zstd")  # type: ignore[operator]
    status, log = backup_tool.run("restore", "fastpath")
    reason = "rows were inserted instead of" if spoil is miscount else "missing or damaged"
    assert (status, reason in log) == (65, True)
    assert backup_tool.database.execute("SHOW TABLES") == [("fastpath",)]


def test_a_restoration_can_be_rehearsed(backup_tool: BackupTool) -> None:
    backup_tool.database.execute("CREATE TABLE t (a UInt8) ENGINE = Memory")
    backup_tool.run(tables={"t": "public"})
    status, log = backup_tool.run("restore", "t", "--dry-run")
    assert (status, "would restore t as t_restored: 0 rows" in log) == (0, True)
    assert backup_tool.database.execute("SHOW TABLES") == [("t",)]


# --- names on the command line ---


WRONG_TABLES = (
    ("export", "fastpaht"),
    ("list", "fastpaht"),
    ("verify", "fastpaht"),
    ("verify", "fastpaht", "--from", "exports"),
    ("schema", "fastpaht"),
    ("restore", "fastpaht"),
    ("restore", "fastpaht", "--from", "exports"),
    ("restore", "fastpaht", "--dry-run"),
)
WRONG_BACKUPS = (
    ("verify", "fastpath", "--from", "20200101T000000Z"),
    ("restore", "fastpath", "--from", "20200101T000000Z"),
    ("restore", "--all", "--from", "20200101T000000Z"),
)


@pytest.mark.long
@pytest.mark.parametrize("private", [False, True])
def test_a_name_that_is_not_there_is_wrong_usage(backup_tool: BackupTool, *, private: bool) -> None:
    backup_tool.fill("fastpath", 10)
    backup_tool.configure(tables={"fastpath": "both"} if private else {"fastpath": "public"})
    if private:
        backup_tool.keep_private()
    assert backup_tool.run()[0] == 0
    with backup_tool.unchanged():
        for arguments in WRONG_TABLES:
            status, log = backup_tool.run(*arguments)
            assert (status, len(log.splitlines())) == (2, 1), log
            assert log.endswith("'fastpaht'; did you mean 'fastpath'?\n")
        for arguments in WRONG_BACKUPS if private else ():
            status, log = backup_tool.run(*arguments)
            assert (status, len(log.splitlines())) == (2, 1), log
            there = r"there is no backup '20200101T000000Z'; there are: \d{8}T\d{6}Z\n$"
            assert re.search(there, log)


def test_what_is_there_is_listed_where_nothing_is_like_the_name() -> None:
    with pytest.raises(UsageError, match=r"there is no table 'x'; there are: a, b$"):
        check_names(["x"], {"b", "a"})
    with pytest.raises(UsageError, match=r"there is no backup 'x'; there is none at all$"):
        check_names(["x"], [], "backup")
    with pytest.raises(UsageError, match=r"table1, .*, table26 and 10 more$"):
        check_names(["x"], [f"table{number}" for number in range(30)])
    check_names(["a", "b"], ["a", "b", "c"])


def test_what_does_not_go_together_is_wrong_usage(backup_tool: BackupTool) -> None:
    backup_tool.fill("fastpath", 10)
    assert backup_tool.run(tables=BY_MONTH)[0] == 0
    for arguments in (
        ("--all", "--as", "x"),
        ("--all", "--from", "exports"),
        ("fastpath", "--replace"),
        ("fastpath", "--skip", "fastpath"),
        ("fastpath", "--schema-only"),
        ("fastpath", "--data-only"),
    ):
        assert backup_tool.run("restore", *arguments)[0] == 2, arguments


# --- prune ---


@pytest.fixture
def overgrown(backup_tool: BackupTool) -> BackupTool:
    """A table of which a month is gone, a table that is private now, and a stray object."""
    backup_tool.fill("fastpath", 600, days=59)
    backup_tool.database.execute("CREATE TABLE t (a UInt8) ENGINE = Memory")
    backup_tool.run(tables=BY_MONTH | {"t": "public"})
    drop = "ALTER TABLE fastpath DELETE WHERE toYYYYMM(measurement_start_time, 'UTC') = 202301"
    backup_tool.database.execute(drop, settings={"mutations_sync": 2})
    backup_tool.run(tables=BY_MONTH | {"t": "private"})
    backup_tool.put(f"{CSV}jsonl_0.csv.zstd", b"by version 1")
    return backup_tool


def test_prune_shows_what_it_would_delete(overgrown: BackupTool) -> None:
    with overgrown.unchanged():
        status, log = overgrown.run("prune", "--older-than", "0")
    assert status == 0
    assert re.findall(r"would delete \S+/(\S+) \(\S+ \S+\): (.+)", log) == [
        ("fastpath_202301.csv.zstd", f"the database has these rows no more since {today()}"),
        ("t.csv.zstd", "t is not public any more"),
        ("jsonl_0.csv.zstd", "no manifest names it"),
    ]
    assert "3 objects (" in log
    with overgrown.unchanged():
        assert "fastpath" not in overgrown.run("prune")[1]
        assert overgrown.run("prune", "--confirm", "--dry-run")[0] == 0


def test_prune_deletes_when_it_is_confirmed(overgrown: BackupTool) -> None:
    status, log = overgrown.run("prune", "--confirm", "--older-than", "0")
    assert (status, "3 objects deleted" in log) == (0, True)
    assert overgrown.exports() == ["fastpath_202302.csv.zstd"]
    assert LAYOUT.manifest("t") not in overgrown.objects()
    assert LAYOUT.schema("t") not in overgrown.objects()
    status, log = overgrown.run("verify")
    assert (status, "not complete" in log) == (0, False)
    assert "nothing to do" in overgrown.run("prune", "--confirm")[1]
    assert "nothing to do" in overgrown.run()[1]


def test_prune_keeps_what_is_only_not_listed(overgrown: BackupTool) -> None:
    status, log = overgrown.run("prune", "--confirm", tables={"other": "public"})
    assert (status, "nothing to do" in log) == (0, True)
    assert len(overgrown.exports()) == 4


def test_prune_that_is_interrupted_is_completed_by_the_next(
    overgrown: BackupTool,
) -> None:
    with FaultProxy(overgrown.s3.endpoint) as proxy:
        proxy.fail(s3_error(403, "AccessDenied"), lambda request: request.method == "DELETE")
        keys = {"public_endpoint": proxy.url}
        assert overgrown.run("prune", "--confirm", "--older-than", "0", **keys)[0] == 78
    for table in ("fastpath", "t"):
        named = [export.key for export in overgrown.manifest(table).exports]
        assert set(named) <= overgrown.objects().keys()
    overgrown.run("prune", "--confirm", "--older-than", "0", public_endpoint=overgrown.s3.endpoint)
    assert overgrown.exports() == ["fastpath_202302.csv.zstd"]
    assert overgrown.verifies()


def test_prune_waits_for_no_run(overgrown: BackupTool) -> None:
    with locked(overgrown.folder / "state" / "db-backup.lock"), overgrown.unchanged():
        assert overgrown.run("prune", "--confirm")[0] == 75
        assert overgrown.run("prune")[0] == 0


# --- helpers ---


def reached_from(tool: BackupTool, key: str, *reached: str) -> set[str]:
    """Return the keys of an object and of all to which its links lead, if it is a page."""
    keys = {key, *reached}
    if key.endswith(".html"):
        for link in re.findall(r'href="([^"#]+)[^"]*"', tool.get(key).decode()):
            target = unquote(urljoin(key, link))
            if "://" not in link and target not in keys:
                keys |= reached_from(tool, target, *keys)
    return keys


def today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the names of the objects with rows that have changed."""
    return [
        key.removeprefix(CSV)
        for key in after
        if key.startswith(CSV) and after[key] != before.get(key)
    ]


def exports_of(tool: BackupTool) -> dict[str, str]:
    """Return the SHA-256 of every object with rows."""
    return {key: value for key, value in tool.hashes().items() if key.startswith(CSV)}


def rows_of_exports(tool: BackupTool, table: str) -> list[bytes]:
    """Return the sorted rows of all exports of a table without line breaks in values."""
    keys = [export.key.removeprefix(CSV) for export in tool.manifest(table).exports]
    return sorted(row for key in keys for row in tool.csv(key).splitlines()[1:])


def rows_of_table(tool: BackupTool, table: str) -> list[bytes]:
    """Return the sorted rows of a table as the database writes them."""
    return sorted(tool.query(f"SELECT * FROM {table} FORMAT CSV").splitlines())


def test_the_sums_are_of_the_objects(backup_tool: BackupTool) -> None:
    backup_tool.fill("fastpath", 10, days=5)
    backup_tool.run(tables=BY_MONTH)
    export = backup_tool.manifest("fastpath").exports[0]
    assert hashlib.sha256(backup_tool.get(export.key)).hexdigest() == export.sha256
