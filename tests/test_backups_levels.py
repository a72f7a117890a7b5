"""What makes a new backup: rows that have come or gone, or were changed, and never a merge."""

import re

import pytest

from db_backup_harness import BackupTool
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


def test_another_part_with_the_number_of_a_dropped_one_is_new(backup_tool: BackupTool) -> None:
    """A server that is started again counts from the highest number that it has."""
    make(backup_tool, "plain")
    execute = backup_tool.database.execute
    execute("INSERT INTO m VALUES ('2024-02-05', 5000, 2, 'x')")
    assert changes_seen(backup_tool) == "changed: m"
    ((part,),) = execute(
        "SELECT argMax(name, max_block_number) FROM system.parts WHERE active AND table = 'm'"
        " AND database = currentDatabase()"
    )
    execute(f"ALTER TABLE m DROP PART '{part}'")
    execute("DETACH TABLE m")
    execute("ATTACH TABLE m")
    execute("SELECT sleep(1.1)")
    execute("INSERT INTO m VALUES ('2024-02-05', 5000, 2, 'y')")
    assert [(part,)] == execute(
        "SELECT argMax(name, max_block_number) FROM system.parts WHERE active AND table = 'm'"
        " AND database = currentDatabase()"
    )
    assert changes_seen(backup_tool) == "changed: m"
