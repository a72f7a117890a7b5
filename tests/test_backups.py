"""The private backups: made, verified and restored with the engine's own BACKUP and a real S3."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backups.plan import Plan
from db_backup_harness import BACKUPS, BackupTool
from dev.servers.s3 import KEY, KEY_ID
from ooni_common.database import Database
from tables.inventory import all_names

TABLES = ("measurements", "rocks", "joined")
MERGING = ("replacing", "hourly", "counters")  # how many rows they have is up to the server
POLICY = {"*_restored": "none", "*": "private"}


TABLES_SQL = """
CREATE TABLE measurements (id UInt64, country LowCardinality(String), text String,
    upper_text String MATERIALIZED upper(text), at DateTime('UTC'))
    ENGINE = MergeTree PARTITION BY toYYYYMM(at) ORDER BY (country, id);
CREATE TABLE replacing (k UInt32, v UInt32) ENGINE = ReplacingMergeTree(v) ORDER BY k;
CREATE TABLE rocks (name String, pattern String) ENGINE = EmbeddedRocksDB PRIMARY KEY name;
CREATE TABLE joined (asn UInt32, name String) ENGINE = Join(ANY, LEFT, asn);
CREATE TABLE hourly (hour DateTime('UTC'), countries AggregateFunction(uniq, String))
    ENGINE = AggregatingMergeTree ORDER BY hour;
CREATE MATERIALIZED VIEW to_hourly TO hourly AS
    SELECT toStartOfHour(at) AS hour, uniqState(country) AS countries
    FROM measurements GROUP BY hour;
CREATE MATERIALIZED VIEW counters ENGINE = SummingMergeTree ORDER BY country AS
    SELECT country, count() AS cnt FROM measurements GROUP BY country;
CREATE VIEW recent AS SELECT * FROM measurements WHERE id > 1000
"""
ROWS_SQL = """
INSERT INTO measurements SELECT number, ['IT', 'IR', 'DE'][number % 3 + 1], toString(number),
    toDateTime('2026-01-01', 'UTC') + number * 60 FROM numbers({first}, 1000);
INSERT INTO replacing SELECT number % 700, number FROM numbers({first}, 1000);
INSERT INTO rocks SELECT toString(number), 'x' FROM numbers({first}, 1000);
INSERT INTO joined SELECT number, 'AS' || toString(number) FROM numbers({first}, 1000)
"""


def make_tables(tool: BackupTool) -> None:
    """Create tables of each kind, a view and two materialized views."""
    for statement in TABLES_SQL.split(";"):
        tool.database.execute(statement)


def add_rows(tool: BackupTool, number: int) -> None:
    """Add rows to every table."""
    for statement in ROWS_SQL.format(first=number * 1000).split(";"):
        tool.database.execute(statement)


@pytest.fixture
def private_tool(backup_tool: BackupTool) -> BackupTool:
    """A tool that backs up a database with tables of each kind."""
    make_tables(backup_tool)
    add_rows(backup_tool, 0)
    backup_tool.keep_private(tables=POLICY, action="backup", manifest_key="k" * 32)
    return backup_tool


def content(tool: BackupTool, database: str = "") -> dict[str, object]:
    """Return a checksum of the content of each table."""
    database = database or tool.database.name
    return {
        name: tool.database.execute(
            "SELECT count(), sum(cityHash64(formatRow('RowBinary', *)))"
            f" FROM {database}.{name}{' FINAL' if name in MERGING else ''}"
        )
        for name in TABLES + MERGING
    }


def schemas(tool: BackupTool, database: str = "") -> dict[str, str]:
    """Return what creates each table and view, without the name of the database."""
    database = database or tool.database.name
    names = tool.database.execute(
        "SELECT name FROM system.tables WHERE database = %(database)s"
        " AND name NOT LIKE '.inner%%' ORDER BY name",
        {"database": database},
    )
    return {
        name: tool.database.execute(f"SHOW CREATE TABLE {database}.{name}")[0][0].replace(
            f"{database}.", ""
        )
        for (name,) in names
    }


def drop_everything(tool: BackupTool) -> None:
    """Drop every table and view."""
    for name in ("to_hourly", "counters", "recent", "measurements", "replacing", "rocks",
                 "joined", "hourly"):  # fmt: skip
        tool.database.execute(f"DROP TABLE {name} SYNC")


@contextmanager
def another_database(tool: BackupTool) -> Iterator[str]:
    """Give the name of a database that does not exist, and drop what comes to have it."""
    name = f"{tool.database.name}_two"
    try:
        yield name
    finally:
        tool.database.execute(f"DROP DATABASE IF EXISTS {name} SYNC")


@pytest.fixture
def chain(private_tool: BackupTool) -> BackupTool:
    """A full backup and three incremental ones."""
    for number in range(1, 5):
        status, log = private_tool.run("run")
        assert status == 0, log
        if number < 4:
            add_rows(private_tool, number)
    assert [backup.kind for backup in private_tool.backups()] == ["full"] + 3 * ["incremental"]
    return private_tool


@pytest.mark.long
def test_everything_comes_back(chain: BackupTool) -> None:
    before, created = content(chain), schemas(chain)
    status, log = chain.run("verify", "--from", "all")
    assert (status, log.count("can be restored")) == (0, 4), log
    assert chain.database.execute("SHOW DATABASES LIKE 'ooni\\_verify\\_%'") == []
    with another_database(chain) as database:
        status, log = chain.run("restore", "--all", "--to-database", database)
        assert status == 0, log
        assert content(chain, database) == before
        assert schemas(chain, database) == created
    drop_everything(chain)
    status, log = chain.run("restore", "--all")
    assert status == 0, log
    assert content(chain) == before
    assert schemas(chain) == created
    chain.database.execute(
        "INSERT INTO measurements SELECT 9999, 'FR', '', toDateTime('2026-06-01', 'UTC')"
    )
    assert chain.database.execute("SELECT cnt FROM counters WHERE country = 'FR'") == [(1,)]


def test_nothing_is_written_when_nothing_has_changed(private_tool: BackupTool) -> None:
    assert private_tool.run("backup")[0] == 0
    before = private_tool.kept()
    status, log = private_tool.run()
    assert (status, "nothing to do: all is as in the backup" in log) == (0, True)
    assert private_tool.kept() == before
    assert private_tool.run("backup", "--force")[0] == 0
    assert len(private_tool.backups()) == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("INSERT INTO replacing VALUES (1, 1)", "changed: replacing"),
        ("INSERT INTO rocks VALUES ('0', 'other')", "changed: rocks"),
        ("ALTER TABLE measurements DELETE WHERE id = 5 SETTINGS mutations_sync = 1",
         "changed: measurements"),
        ("CREATE TABLE another (a UInt8) ENGINE = Memory", "new tables: another"),
        ("DROP TABLE joined SYNC", "tables are gone: joined"),
        ("CREATE VIEW another AS SELECT 1", "changed definitions"),
    ],
)  # fmt: skip
def test_any_change_makes_an_incremental_backup(
    private_tool: BackupTool, change: str, reason: str
) -> None:
    private_tool.run("backup")
    private_tool.database.execute(change)
    status, log = private_tool.run("backup")
    # One that is gone fails the run until somebody says so; the backup is made all the same.
    expected = 65 if "DROP" in change else 0
    assert (status, reason in log) == (expected, True), log
    first, second = private_tool.backups()
    assert (second.kind, second.base) == ("incremental", first.name)
    assert second.parts["incremental"].bytes < first.parts["incremental"].bytes
    assert private_tool.run("verify")[0] == 0


@pytest.mark.long
def test_a_chain_ends_and_a_new_one_begins(private_tool: BackupTool) -> None:
    private_tool.configure(full_every=2)
    for _ in range(4):
        private_tool.run("backup", "--force")
    private_tool.run("backup", "--full")
    numbers = [(backup.kind, backup.number) for backup in private_tool.backups()]
    chain = [("full", 1), ("incremental", 2)]
    assert numbers == [*chain, *chain, ("full", 1)]


def test_a_dry_run_says_what_would_be_saved(private_tool: BackupTool) -> None:
    status, log = private_tool.run("backup", "--dry-run")
    assert status == 0
    assert "would be made: full backup: 6 tables" in log
    assert "rocks: would be saved (rows): 1,000 rows" in log
    assert private_tool.kept() == {}


@pytest.mark.long
def test_tables_can_be_saved_as_a_whole_each_time(private_tool: BackupTool) -> None:
    policy = {"replacing": {"policy": "private", "method": "full"}} | POLICY
    private_tool.configure(tables=policy)
    for _ in range(2):
        private_tool.run("backup", "--force")
    first, second = private_tool.backups()
    assert second.tables["replacing"].method == "full"
    assert second.parts["full"].bytes == first.parts["full"].bytes > 1000
    assert private_tool.run("verify", "--from", "all")[0] == 0


def test_a_table_whose_rows_cannot_be_saved_is_refused_after_the_others(
    private_tool: BackupTool,
) -> None:
    private_tool.database.execute("CREATE TABLE members (a UInt8) ENGINE = Set")
    status, log = private_tool.run("backup")
    assert (status, "nobody can read the rows of the engine Set" in log) == (65, True)
    (backup,) = private_tool.backups()
    assert set(backup.tables) == {*TABLES, *MERGING}


SICK = "ALTER TABLE measurements ADD COLUMN x UInt8 DEFAULT throwIf(id >= 0, 'a broken part')"


def test_a_table_whose_rows_cannot_be_read_keeps_no_other_from_being_saved(
    private_tool: BackupTool,
) -> None:
    database, healthy = private_tool.database, {*TABLES, *MERGING}
    database.execute(SICK)
    status, log = private_tool.run("backup")
    assert (status, "'measurements': not in this backup: database: " in log) == (69, True), log
    (backup,) = private_tool.backups()
    assert set(backup.tables) == healthy - {"measurements"}
    assert private_tool.run("backup")[0] == 69  # reported on every run, without another backup
    assert len(private_tool.backups()) == 1
    database.execute("ALTER TABLE measurements DROP COLUMN x")
    assert private_tool.run("backup")[0] == 0
    assert set(private_tool.backups()[-1].tables) == healthy
    assert private_tool.run("verify")[0] == 0


@pytest.mark.long
def test_a_table_that_the_newest_backup_lacks_is_not_restored_without_its_rows(
    private_tool: BackupTool,
) -> None:
    assert private_tool.run("backup")[0] == 0
    rows = private_tool.database.execute("SELECT count() FROM measurements")
    private_tool.database.execute(SICK)
    assert private_tool.run("backup")[0] == 69
    with another_database(private_tool) as database:
        to = ("--to-database", database)
        advice = f"restore measurements --to-database {database}, and then --all again"
        for arguments in (("--dry-run",), ()):
            status, log = private_tool.run("restore", "--all", *to, *arguments)
            assert (status, advice in log) == (0 if arguments else 65, True), log
        there = {name for (name,) in private_tool.database.execute(f"SHOW TABLES FROM {database}")}
        assert "measurements" not in there
        assert {*TABLES} - {"measurements"} < there
        assert private_tool.run("restore", "measurements", *to)[0] == 0
        assert private_tool.run("restore", "--all", *to)[0] == 0
        count = private_tool.database.execute(f"SELECT count() FROM {database}.measurements")
        assert count == rows


def test_where_several_tables_in_a_row_cannot_be_read_there_is_no_backup(
    private_tool: BackupTool,
) -> None:
    database = private_tool.database
    for name in ("a", "b", "c"):
        database.execute(f"CREATE TABLE {name} (id UInt64) ENGINE = MergeTree ORDER BY id")
        database.execute(f"INSERT INTO {name} VALUES (1)")
        database.execute(SICK.replace("measurements", name))
    status, log = private_tool.run("backup")
    assert (status, "a broken part" in log, private_tool.backups()) == (69, True, [])


def test_where_no_table_can_be_read_there_is_no_backup(private_tool: BackupTool) -> None:
    private_tool.database.execute(SICK)
    only = {"measurements": "private", "*": "none"}
    status, log = private_tool.run("backup", tables=only)
    assert (status, "a broken part" in log, private_tool.backups()) == (69, True, [])


def drop_before_the_backup(monkeypatch: pytest.MonkeyPatch, tool: BackupTool, name: str) -> None:
    """Drop a table when the tool has planned a backup, and waits until the server is less busy."""

    def drop(_plan: Plan) -> None:
        tool.database.execute(f"DROP TABLE {name} SYNC")

    monkeypatch.setattr("backups.backup._check_room", drop)


def test_a_table_of_no_interest_that_is_dropped_meanwhile_spoils_no_backup(
    private_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    private_tool.database.execute("CREATE TABLE scratch (a UInt8) ENGINE = Memory")
    tables = private_tool.config["tables"] | {"scratch": "none"}
    drop_before_the_backup(monkeypatch, private_tool, "scratch")
    status, log = private_tool.run("backup", tables=tables)
    assert (status, "scratch was dropped meanwhile" in log) == (0, True), log
    (backup,) = private_tool.backups()
    assert "scratch" not in {
        *backup.definitions,
        *backup.order,
        *backup.parts["definitions"].tables,
    }
    assert set(backup.tables) == {*TABLES, *MERGING}
    assert private_tool.run("verify", "--quick")[0] == 0


def test_a_table_that_is_dropped_while_definitions_are_read_spoils_no_backup(
    private_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = ["dropped"]

    def names_of_before(database: Database) -> list[str]:
        return ([dropped.pop()] if dropped else []) + all_names(database)

    monkeypatch.setattr("tables.inventory.all_names", names_of_before)
    status, log = private_tool.run("backup")
    assert status == 0, log
    assert "dropped" not in private_tool.backups()[0].definitions


@pytest.mark.parametrize("policy", ["private", "both"])
def test_a_private_table_that_is_dropped_meanwhile_is_no_backup(
    private_tool: BackupTool, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    drop_before_the_backup(monkeypatch, private_tool, "replacing")
    status, log = private_tool.run("backup", tables=POLICY | {"replacing": policy})
    assert (status, private_tool.backups()) == (69, []), log
    assert "replacing" in log
    assert "dropped meanwhile" not in log


@pytest.mark.long
def test_a_view_that_computes_its_rows_anew_comes_back_and_does_so(
    private_tool: BackupTool,
) -> None:
    private_tool.database.execute(
        "CREATE MATERIALIZED VIEW daily REFRESH EVERY 1 HOUR ENGINE = MergeTree ORDER BY id AS"
        " SELECT id FROM measurements WHERE id < 10"
    )
    status, log = private_tool.run("backup")
    assert status == 0, log
    with another_database(private_tool) as database:
        status, log = private_tool.run("restore", "--all", "--to-database", database)
        assert status == 0, log
        private_tool.database.execute(f"SYSTEM WAIT VIEW {database}.daily")
        rows = private_tool.database.execute(f"SELECT count() FROM {database}.daily")
        assert rows == [(10,)]


@pytest.mark.long
def test_names_that_need_quotes_are_saved_and_restored(backup_tool: BackupTool) -> None:
    names = ['we"ird', "ti`ck", "do.t", "../up", "a;b", "br\neak", "таблица", "per%cent", "it's"]
    backup_tool.keep_private(tables={"*": "private"})
    for name in names:
        engine = "Join(ANY, LEFT, a)" if name in ("ti`ck", "../up") else "MergeTree ORDER BY a"
        quoted = "`" + name.replace("`", "\\`").replace("'", "\\'") + "`"
        backup_tool.database.execute(f"CREATE TABLE {quoted} (a String) ENGINE = {engine}")
        backup_tool.database.execute(f"INSERT INTO {quoted} SELECT 'x'")
    assert backup_tool.run("backup")[0] == 0
    assert set(backup_tool.backups()[0].tables) == set(names)
    with another_database(backup_tool) as database:
        status, log = backup_tool.run("restore", "--all", "--to-database", database)
        assert status == 0, log
        restored = backup_tool.database.execute(f"SHOW TABLES FROM {database}")
        assert {name for (name,) in restored} == set(names)


# --- restore ---


@pytest.fixture
def saved(private_tool: BackupTool) -> BackupTool:
    """A tool with one backup."""
    assert private_tool.run("backup")[0] == 0
    return private_tool


def test_one_table_is_restored_beside_the_live_one(saved: BackupTool) -> None:
    add_rows(saved, 1)
    assert saved.run("backup")[0] == 0
    status, log = saved.run("restore", "rocks", "--from", saved.backups()[0].name)
    assert status == 0, log
    assert saved.checksum("rocks_restored")[0][0] == 1000
    assert saved.checksum("rocks")[0][0] == 2000
    assert saved.run("restore", "rocks")[0] == 78  # there is one of this name
    assert saved.run("restore", "counters", "--as", "copy")[0] == 0
    assert saved.checksum("copy FINAL") == saved.checksum("counters FINAL")
    assert "restoring" not in str(saved.database.execute("SHOW TABLES"))


def test_a_live_table_is_replaced_and_its_content_is_kept(saved: BackupTool) -> None:
    before = saved.checksum("measurements")
    saved.database.execute("TRUNCATE TABLE measurements")
    saved.database.execute("INSERT INTO measurements (id) VALUES (1)")
    status, log = saved.run("restore", "measurements", "--replace")
    assert status == 0, log
    assert saved.checksum("measurements") == before
    ((kept,),) = saved.database.execute("SHOW TABLES LIKE 'measurements\\_replaced\\_%%'")
    assert saved.checksum(kept)[0][0] == 1
    assert saved.run("restore", "counters", "--replace")[0] == 78  # a view's rows are its own


def test_what_is_there_already_is_not_restored_again(saved: BackupTool) -> None:
    before = content(saved)
    saved.database.execute("DROP TABLE joined SYNC")
    saved.database.execute("DROP VIEW counters SYNC")
    status, log = saved.run("restore", "--all")
    assert status == 0, log
    assert log.count("is there already") == 4
    status, log = saved.run("restore", "--all")
    assert (status, log.count("is there already")) == (0, 6), log
    assert content(saved) == before
    saved.database.execute("INSERT INTO joined SELECT 99999, ''")
    status, log = saved.run("restore", "--all")
    assert (status, "there already: " in log) == (78, True)


@pytest.mark.long
def test_missing_rows_are_told_from_rows_that_merges_have_made_one(saved: BackupTool) -> None:
    execute = saved.database.execute
    execute("SYSTEM STOP MERGES replacing")
    execute("INSERT INTO replacing SELECT k, v + 1 FROM replacing")
    assert saved.run("backup")[0] == 0
    execute("SYSTEM START MERGES replacing")
    execute("OPTIMIZE TABLE replacing FINAL")
    status, log = saved.run("restore", "--all")
    assert (status, "with the rows of the backup, of which those" in log) == (0, True), log
    execute("DELETE FROM replacing WHERE k = 3")
    execute("DROP TABLE joined SYNC")
    status, log = saved.run("restore", "--all")
    assert (status, "`replacing` is not as in the backup: rows are missing" in log) == (65, True)
    assert execute("SELECT count() > 0 FROM joined") == [(1,)]
    assert "restoring" not in str(execute("SHOW TABLES"))


def test_a_table_that_lacks_a_column_is_another_one(saved: BackupTool) -> None:
    saved.database.execute("DROP TABLE replacing SYNC")
    saved.database.execute("CREATE TABLE replacing (id UInt32) ENGINE = MergeTree ORDER BY id")
    status, log = saved.run("restore", "--all")
    assert (status, "there already: " in log) == (78, True), log


def test_with_replace_no_table_with_other_rows_is_taken_for_the_one_of_the_backup(
    saved: BackupTool,
) -> None:
    before = content(saved)["replacing"]
    saved.database.execute("TRUNCATE TABLE replacing")
    saved.database.execute("INSERT INTO replacing VALUES (1, 1)")
    saved.database.execute("DROP VIEW counters SYNC")  # which can't be replaced
    status, log = saved.run("restore", "--all", "--replace")
    assert status == 0, log
    assert content(saved)["replacing"] == before
    ((kept,),) = saved.database.execute("SHOW TABLES LIKE 'replacing\\_replaced\\_%%'")
    assert saved.checksum(kept)[0][0] == 1


def test_a_view_that_an_interrupted_run_has_left_empty_is_filled(saved: BackupTool) -> None:
    before = content(saved)
    ((inner,),) = saved.database.execute("SHOW TABLES LIKE '.inner%'")
    saved.database.execute(f"TRUNCATE TABLE `{inner}`")
    status, log = saved.run("restore", "--all")
    assert status == 0, log
    assert content(saved) == before


def damage(tool: BackupTool, part: str) -> str:
    """Flip a byte in the largest object of a part of the newest backup; return its key."""
    prefix = BACKUPS.data(tool.backups()[-1].name) + part
    kept = {key: size for key, size in tool.kept().items() if key.startswith(prefix)}
    key = max((key for key in kept if key.endswith((".bin", ".zst"))), key=lambda key: kept[key])
    content = bytearray(tool.get_private(key))
    content[len(content) // 2] ^= 0xFF
    tool.client.put_object(Bucket=tool.private_bucket_name, Key=key, Body=bytes(content))
    return key


@pytest.mark.long
@pytest.mark.parametrize(("part", "table"), [("incremental/", "measurements"), ("rows/", "joined")])
def test_a_damaged_backup_is_found_and_never_restored(
    private_tool: BackupTool, part: str, table: str
) -> None:
    private_tool.run("backup")
    damage(private_tool, part)
    status, log = private_tool.run("verify")
    assert status == 65, log
    before = content(private_tool)
    assert private_tool.run("restore", table, "--replace")[0] in (65, 69)
    assert content(private_tool) == before
    assert private_tool.run("restore", table)[0] in (65, 69)
    tables = str(private_tool.database.execute("SHOW TABLES"))
    assert "restor" not in tables


@pytest.mark.long
def test_rows_of_another_backup_are_not_taken_for_those_of_this_one(saved: BackupTool) -> None:
    add_rows(saved, 1)
    assert saved.run("backup")[0] == 0
    first, second = (BACKUPS.rows(backup.name, "joined") for backup in saved.backups())
    bucket = saved.private_bucket_name
    saved.client.put_object(Bucket=bucket, Key=second, Body=saved.get_private(first))
    status, log = saved.run("verify", "joined")
    assert (status, "joined: 1,000 rows instead of 2,000" in log) == (65, True), log
    before = saved.checksum("joined")
    assert saved.run("restore", "joined", "--replace")[0] == 65
    assert saved.checksum("joined") == before


def test_a_table_that_a_backup_does_not_have_is_not_verified_silently(saved: BackupTool) -> None:
    saved.database.execute("CREATE TABLE newer (a UInt8) ENGINE = MergeTree ORDER BY a")
    saved.configure(tables=POLICY | {"newer": "private"})
    status, log = saved.run("verify", "newer")
    name = saved.backups()[0].name
    assert (status, "newer: in no good backup" in log) == (65, True), log
    assert saved.run("verify", "newer", "--from", name)[0] == 2
    assert saved.run("restore", "newer", "--from", name)[0] == 2


@pytest.mark.long
def test_a_backup_without_all_that_it_needs_is_damaged(chain: BackupTool) -> None:
    second = chain.backups()[1]
    key = second.parts["incremental"].path + ".backup"
    chain.client.delete_object(Bucket=chain.private_bucket_name, Key=key)
    states = {each["name"]: each["state"] for each in listed(chain)}
    assert list(states.values()) == ["good", "damaged", "damaged", "damaged"]
    assert chain.run("verify", "--quick")[0] == 65
    status, log = chain.run("restore", "rocks", "--from", second.name)
    assert (status, "is damaged" in log) == (65, True)
    add_rows(chain, 9)
    assert chain.run("backup")[0] == 0
    assert chain.backups()[-1].base == chain.backups()[0].name  # the last good one
    assert chain.run("verify", "measurements")[1].count("can be restored") == 1


def test_a_damaged_manifest_is_no_backup(private_tool: BackupTool) -> None:
    private_tool.run("backup")
    key = BACKUPS.manifest(private_tool.backups()[0].name)
    private_tool.client.put_object(Bucket=private_tool.private_bucket_name, Key=key, Body=b"{")
    (backup,) = listed(private_tool)
    assert (backup["state"], "damaged" in backup["reason"]) == ("damaged", True)
    assert private_tool.run("backup")[0] == 0
    assert [each["state"] for each in listed(private_tool)] == ["damaged", "good"]


def listed(tool: BackupTool) -> list[dict[str, Any]]:
    """Return the backups as `list --json` shows them."""
    backups: list[dict[str, Any]] = json.loads(tool.run("list", "--json")[1])["backups"]
    return backups


# --- credentials ---


@pytest.mark.long
def test_a_server_with_a_named_collection_needs_no_credentials(private_tool: BackupTool) -> None:
    collection = make_collection(private_tool, private_tool.private_bucket_name)
    private_tool.run("backup")
    private_tool.configure(private_named_collection=collection)
    assert private_tool.run("doctor")[0] == 0
    for number in (1, 2):
        add_rows(private_tool, number)
        assert private_tool.run("backup")[0] == 0
    kinds = [(backup.kind, backup.collection) for backup in private_tool.backups()]
    assert kinds == [("full", ""), ("full", collection), ("incremental", collection)]
    status, log = private_tool.run("verify", "--from", "all")
    assert (status, log.count("can be restored")) == (0, 3), log


def test_a_named_collection_of_another_bucket_is_noticed(private_tool: BackupTool) -> None:
    collection = make_collection(private_tool, private_tool.bucket_name)
    private_tool.configure(private_named_collection=collection)
    status, log = private_tool.run("doctor")
    assert (status, "check the URL of the named collection" in log) == (78, True)
    status, log = private_tool.run("backup")
    assert (status, "the server has not written it there" in log) == (78, True)
    assert listed(private_tool) == []


def test_definitions_alone_come_back_too(backup_tool: BackupTool) -> None:
    backup_tool.keep_private(tables={"*": "private"})
    backup_tool.database.execute("CREATE TABLE nothing (a UInt8) ENGINE = Null")
    backup_tool.database.execute("CREATE VIEW ones AS SELECT 1 AS one")
    assert backup_tool.run("backup")[0] == 0
    with another_database(backup_tool) as database:
        everything = ("restore", "--all", "--to-database", database)
        status, log = backup_tool.run(*everything)
        assert (status, "ones (its definition is not signed) is not made" in log) == (0, True), log
        assert backup_tool.database.execute(f"SHOW TABLES FROM {database}") == [("nothing",)]
        status, log = backup_tool.run(*everything, "--trust-definitions")
        assert status == 0, log
        tables = backup_tool.database.execute(f"SHOW TABLES FROM {database}")
        assert sorted(tables) == [("nothing",), ("ones",)]


@pytest.mark.long
@pytest.mark.parametrize("with_collection", [False, True])
def test_no_secret_is_in_anything_that_a_run_leaves_or_prints(
    private_tool: BackupTool, *, with_collection: bool
) -> None:
    if with_collection:
        name = make_collection(private_tool, private_tool.private_bucket_name)
        private_tool.configure(private_named_collection=name)
    seen: list[str] = []
    commands = (
        ("doctor", "-v"),
        ("backup", "-v"),
        ("backup", "-v", "--force"),
        ("list", "-v", "--json"),
        ("verify", "-v"),
        ("restore", "rocks", "-v"),
        ("prune", "-v"),
        ("--check-config",),
    )
    for command in commands:
        seen += watched(private_tool, *command)
    private_tool.configure(private_bucket_name="no-such-bucket")
    seen += watched(private_tool, "backup", "-v")
    private_tool.configure(private_endpoint="http://127.0.0.1:9", private_bucket_name="x-y-z")
    seen += watched(private_tool, "backup", "-v")
    seen += [str(row) for row in private_tool.database.execute("SELECT * FROM system.backups")]
    seen += [private_tool.get_private(key).decode("latin-1") for key in private_tool.kept()]
    seen += [path.read_text() for path in (private_tool.folder / "state").iterdir()]
    assert any("BACKUP" in text for text in seen)
    assert [text for text in seen if KEY in text] == []


def watched(tool: BackupTool, *command: str) -> list[str]:
    """Run a command as a process; return all that could be seen of it."""
    process = tool.start(*command)
    seen = [Path(f"/proc/{process.pid}/cmdline").read_text()]
    with ThreadPoolExecutor() as pool:
        output = pool.submit(process.communicate)
        while not output.done():
            queries = tool.database.execute("SELECT query FROM system.processes")
            seen += [query for (query,) in queries if "system.processes" not in query]
            wait([output], timeout=0.02)
    return [*dict.fromkeys(seen), output.result()[0]]


def make_collection(tool: BackupTool, bucket: str) -> str:
    """Create a named collection for a bucket; return its name."""
    name = f"nc_{tool.database.name}"
    tool.database.execute(
        f"CREATE NAMED COLLECTION {name} AS url = '{tool.s3.endpoint}/{bucket}/',"
        f" access_key_id = '{KEY_ID}', secret_access_key = '{KEY}'"
    )
    return name


# --- encryption ---


def encrypt_by_default(tool: BackupTool) -> None:
    """Let the bucket encrypt what is put there."""
    rule: Any = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    tool.client.put_bucket_encryption(
        Bucket=tool.private_bucket_name,
        ServerSideEncryptionConfiguration={"Rules": [rule]},
    )


@pytest.mark.long
def test_a_bucket_that_does_not_encrypt_gets_no_backup(private_tool: BackupTool) -> None:
    private_tool.configure(private_sse="AES256")
    for command in ("doctor", "backup"):
        status, log = private_tool.run(command)
        assert (status, "set the default encryption of the bucket" in log) == (65, True)
    assert private_tool.kept() == {}
    encrypt_by_default(private_tool)
    assert "encrypted with AES256" in private_tool.run("doctor")[1]
    assert private_tool.run("backup")[0] == 0
    for key in private_tool.kept():
        found = private_tool.client.head_object(Bucket=private_tool.private_bucket_name, Key=key)
        assert found["ServerSideEncryption"] == "AES256"


def test_the_storage_class_is_that_of_all_that_backup_writes(private_tool: BackupTool) -> None:
    assert private_tool.run("backup", private_storage_class="STANDARD_IA")[0] == 0
    for key in (key for key in private_tool.kept() if "/rows/" not in key):
        found = private_tool.client.head_object(Bucket=private_tool.private_bucket_name, Key=key)
        assert found["StorageClass"] == "STANDARD_IA", key


# --- what people see ---


@pytest.mark.long
def test_what_is_printed_fits_into_80_columns(saved: BackupTool) -> None:
    for number in (1, 2):
        add_rows(saved, number)
        assert saved.run("backup")[0] == 0
    damaged = BACKUPS.manifest(saved.backups()[-1].name)
    saved.client.delete_object(Bucket=saved.private_bucket_name, Key=damaged)
    for command in (("list",), ("list", saved.backups()[1].name), ("doctor",)):
        printed = saved.run(*command)[1]
        lines = [
            line for line in printed.splitlines() if "directory" not in line and "s3://" not in line
        ]
        assert [line for line in lines if len(line) > 80] == []
    lines = saved.run("list")[1].splitlines()
    cells = [line.split() for line in lines if line.startswith("20")]
    assert [cell[1] for cell in cells[:2]] == ["full", "+1"]
    assert [cell[-1] for cell in cells] == ["good", "good", "progress"]


@pytest.mark.parametrize(
    ("change", "name", "reason"),
    [
        ({"private_bucket_name": "no-such-bucket"}, "backups, list", "NoSuchBucket"),
        ({"private_endpoint": "http://127.0.0.1:9"}, "backups, write", "EndpointConnectionError"),
        ({"tables": {"*": "private"}}, "tables", "nobody can read the rows of the engine Set"),
    ],
)
def test_doctor_says_what_keeps_backups_from_being_made(
    private_tool: BackupTool, change: dict[str, object], name: str, reason: str
) -> None:
    private_tool.database.execute("CREATE TABLE members (a UInt8) ENGINE = Set")
    tables = {"members": "none", "*": "private"}
    status, printed = private_tool.run("doctor", **({"tables": tables} | change))
    assert status != 0
    (line,) = (line for line in printed.splitlines() if line.startswith(f"FAILED  {name} "))
    assert reason in line
