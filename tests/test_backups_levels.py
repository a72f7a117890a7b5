"""What makes a new backup: rows that have come or gone, or were changed, and never a merge."""

import re

import pytest

from db_backup_harness import BackupTool
from tables.blocks import ShardParts
from test_exports_levels import NOW

pytestmark = pytest.mark.long

ENGINES = {
    "plain": "MergeTree PARTITION BY toYYYYMM(t) ORDER BY id",
    "replacing": "ReplacingMergeTree(v) PARTITION BY toYYYYMM(t) ORDER BY id",
}
FILL = "INSERT INTO {} SELECT toDateTime('2024-0{}-05'), number, {}, 'x' FROM numbers(100)"


def make(tool: BackupTool, engine: str, *, checksum: bool = True) -> None:
    """Make a table of two months whose rows are there twice, and another one; back them up."""
    execute = tool.database.execute
    execute(
        f"CREATE TABLE m (t DateTime, id UInt32, v UInt32, text String) ENGINE = {ENGINES[engine]}"
        " SETTINGS max_bytes_to_merge_at_max_space_in_pool = 1"
    )
    execute("CREATE TABLE n AS m")
    for month in (1, 2):
        for version in (1, 2):
            execute(FILL.format("m", month, version))
    policy = {"policy": "private", "checksum": checksum}
    tool.keep_private(tables={"m": policy, "n": policy}, action="backup")
    status, log = tool.run("backup")
    assert status == 0, log


def changes_seen(tool: BackupTool) -> str:
    """Return why the next run makes a backup; "" if it makes none."""
    count = len(tool.backups())
    status, log = tool.run("backup")
    assert status == 0, log
    if "nothing to do" in log:
        assert len(tool.backups()) == count
        return ""
    assert len(tool.backups()) == count + 1
    (reason,) = re.findall(r"tables?, \d+ rows?: (.*)", log)
    return str(reason)


@pytest.mark.parametrize("checksum", [True, False], ids=["", "only counted"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_merge_makes_no_backup(backup_tool: BackupTool, engine: str, *, checksum: bool) -> None:
    make(backup_tool, engine, checksum=checksum)
    execute = backup_tool.database.execute
    execute("OPTIMIZE TABLE m FINAL")
    rows = 200 if engine == "replacing" else 400
    assert execute("SELECT count() FROM m") == [(rows,)]
    assert changes_seen(backup_tool) == ""
    # What is saved with the next one is what there is now.
    execute(FILL.format("n", 1, 1))
    assert changes_seen(backup_tool) == "changed: n"
    assert backup_tool.backups()[-1].tables["m"].rows == rows
    assert backup_tool.run("verify")[0] == 0
    assert changes_seen(backup_tool) == ""


CHANGES = {
    "new rows": ["INSERT INTO m VALUES ('2024-02-05', 5000, 2, 'x')"],
    "late rows": ["INSERT INTO m VALUES ('2024-01-05', 5000, 2, 'x')"],
    "a row that a merge will drop": ["INSERT INTO m VALUES ('2024-01-05', 1, 1, 'x')",
                                     "OPTIMIZE TABLE m FINAL"],
    "a changed cell": ["ALTER TABLE m UPDATE text = 'y' WHERE id = 5"],
    "a row, deleted lightly": ["DELETE FROM m WHERE id = 6"],
    "rows of another table": ["INSERT INTO n VALUES ('2024-02-05', 6000, 2, 'x')",
                              "ALTER TABLE m ATTACH PARTITION 202402 FROM n"],
    "a merge, and a changed cell": ["OPTIMIZE TABLE m FINAL",
                                    "ALTER TABLE m UPDATE text = 'z' WHERE id = 5"],
    "a dropped part": ["ALTER TABLE m DROP PART '{part}'"],
    "a dropped partition": ["ALTER TABLE m DROP PARTITION 202401"],
    "new rows again": [FILL.format("m", 1, 1), FILL.format("m", 2, 1)],
    "another table": ["TRUNCATE TABLE n", "INSERT INTO n SELECT t, id, v, 'u' FROM m",
                      "EXCHANGE TABLES m AND n"],
}  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
def test_a_change_makes_a_backup(backup_tool: BackupTool, engine: str) -> None:
    make(backup_tool, engine)
    backup_tool.configure(max_shrink=1)
    execute = backup_tool.database.execute
    for change, statements in CHANGES.items():
        for statement in statements:
            ((part,),) = execute(
                "SELECT max(name) FROM system.parts WHERE active AND table = 'm'"
                " AND database = currentDatabase()"
            )
            execute(statement.format(part=part), settings=NOW)
        assert "m" in changes_seen(backup_tool).removeprefix("changed: "), change
        assert changes_seen(backup_tool) == "", change
    assert backup_tool.run("verify")[0] == 0


def test_a_manifest_without_blocks_is_compared_as_before(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("backups.coverage.read_snapshot", lambda *_: None)
        make(backup_tool, "plain")
    assert backup_tool.backups()[-1].tables["m"].storage is None
    backup_tool.database.execute("OPTIMIZE TABLE m FINAL")
    assert changes_seen(backup_tool) == ""
    backup_tool.database.execute("INSERT INTO m VALUES ('2024-02-05', 5000, 2, 'x')")
    assert changes_seen(backup_tool) == "changed: m"
    assert backup_tool.backups()[-1].tables["m"].storage is not None


def newest_part(tool: BackupTool) -> str:
    """Return the name of the part of `m` with the highest number."""
    ((part,),) = tool.database.execute(
        "SELECT argMax(name, max_block_number) FROM system.parts WHERE active AND table = 'm'"
        " AND database = currentDatabase()"
    )
    return str(part)


def drop_newest_part(tool: BackupTool) -> None:
    """Drop it, and load the table again, as a server does that is started again."""
    tool.database.execute(f"ALTER TABLE m DROP PART '{newest_part(tool)}'")
    for statement in ("DETACH TABLE m", "ATTACH TABLE m", "SELECT sleep(1.1)"):
        tool.database.execute(statement)


def test_another_part_with_the_number_of_a_dropped_one_is_new(backup_tool: BackupTool) -> None:
    """A server that is started again counts from the highest number that it has."""
    make(backup_tool, "plain")
    execute = backup_tool.database.execute
    execute("INSERT INTO m VALUES ('2024-02-05', 5000, 2, 'x')")
    assert changes_seen(backup_tool) == "changed: m"
    part = newest_part(backup_tool)
    drop_newest_part(backup_tool)
    execute("INSERT INTO m VALUES ('2024-02-05', 5000, 2, 'y')")
    assert newest_part(backup_tool) == part
    assert changes_seen(backup_tool) == "changed: m"


def test_a_number_is_seen_to_be_used_again_where_rows_merge(backup_tool: BackupTool) -> None:
    """The server merges the rows of an insert, and its part has the level of a merged one."""
    tool, insert = backup_tool, "INSERT INTO m VALUES ('2024-02-05', 5000, 2, '{}')"
    make(tool, "replacing")
    tool.database.execute(insert.format("x"))
    assert changes_seen(tool) == "changed: m"
    part = newest_part(tool)
    drop_newest_part(tool)
    tool.database.execute(insert.format("y"))
    assert newest_part(tool) == part
    assert changes_seen(tool) == "changed: m"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_number_is_seen_to_be_used_again_by_an_attached_part(
    backup_tool: BackupTool, engine: str
) -> None:
    tool, execute = backup_tool, backup_tool.database.execute
    make(tool, engine)
    execute(FILL.format("m", 2, 3))
    execute(FILL.format("n", 2, 3).replace("'x'", "'y'"))
    execute("OPTIMIZE TABLE n FINAL")
    assert changes_seen(tool) == "changed: m, n"
    drop_newest_part(tool)
    execute("ALTER TABLE m ATTACH PARTITION 202402 FROM n")
    assert changes_seen(tool) == "changed: m"


def use_numbers_again(tool: BackupTool) -> None:
    """Make other rows of the same number, in merged parts with the blocks of before."""
    execute = tool.database.execute
    execute("OPTIMIZE TABLE m FINAL")
    assert changes_seen(tool) == ""
    for statement in ("TRUNCATE TABLE m", "DETACH TABLE m", "ATTACH TABLE m"):
        execute(statement)
    for month in (1, 2):
        for version in (1, 2):
            execute(FILL.format("m", month, version).replace("'x'", "'y'"))
    execute("OPTIMIZE TABLE m FINAL")


@pytest.mark.parametrize("engine", ENGINES)
def test_blocks_are_not_trusted_that_are_older_than_the_server(
    backup_tool: BackupTool, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(backup_tool, engine)
    backup_tool.configure(max_shrink=1)
    use_numbers_again(backup_tool)
    monkeypatch.setattr(  # as if it had been started after the backup
        "tables.parts.ShardParts", lambda **kept: ShardParts(**kept | {"started": 2**40})
    )
    assert changes_seen(backup_tool) == "changed: m"


@pytest.mark.parametrize("engine", ENGINES)
def test_what_blocks_miss_is_in_the_next_backup(backup_tool: BackupTool, engine: str) -> None:
    """A table that is loaded again, with new parts that are merged by then, tells nothing."""
    make(backup_tool, engine)
    backup_tool.configure(max_shrink=1)
    use_numbers_again(backup_tool)
    assert changes_seen(backup_tool) == ""
    backup_tool.database.execute(FILL.format("n", 1, 1))
    assert changes_seen(backup_tool) == "changed: n"
    for command in ("verify",), ("restore", "m"):
        status, log = backup_tool.run(*command)
        assert status == 0, log
