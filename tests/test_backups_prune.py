"""Which backups are deleted, and that whatever is kept can be restored."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backups import commands
from backups.manifest import NAME_FORMAT, BackupManifest
from backups.prune import Kept, newest_chains, unwanted
from backups.stored import Backup, BackupState
from db_backup_harness import BACKUPS, LAYOUT, BackupTool

pytestmark = pytest.mark.long

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=400)


def name_of(number: int) -> str:
    """Return the name of the n-th backup; there is one a week."""
    return f"{START + timedelta(days=7 * number):{NAME_FORMAT}}"


def made(number: int, base: int | None, state: BackupState) -> Backup:
    """Return a backup; a manifest with the two fields that count."""
    fields = SimpleNamespace(tables={}, base="" if base is None else name_of(base))
    manifest = None if state in ("unfinished", "in progress") else cast("BackupManifest", fields)
    return Backup(name_of(number), state, "", manifest)


@st.composite
def sets_of_backups(draw: st.DrawFn) -> list[Backup]:
    """Return backups as they can come to be: a base is older, and a good one has a good base."""
    backups: list[Backup] = []
    for number in range(draw(st.integers(0, 30))):
        kind = draw(st.sampled_from(["good", "good", "good", "damaged", "unfinished", "progress"]))
        if kind in ("unfinished", "progress"):
            backups.append(made(number, None, "unfinished" if kind[0] == "u" else "in progress"))
            continue
        bases = [index for index, each in enumerate(backups) if each.manifest]
        base = draw(st.none() | st.sampled_from(bases)) if bases else None
        is_good = kind == "good" and (base is None or backups[base].state == "good")
        backups.append(made(number, base, "good" if is_good else "damaged"))
    return backups


def young(backups: Sequence[Backup], keep: int, keep_days: float = 0) -> Kept:
    """Return the newest chains."""
    return newest_chains(backups, keep, NOW - timedelta(days=keep_days))


def delete_one_by_one(backups: Sequence[Backup], names: Sequence[str]) -> Iterator[list[Backup]]:
    """Yield what is left after each deletion."""
    left = list(backups)
    for name in names:
        left = [backup for backup in left if backup.name != name]
        yield left


def can_be_restored(backup: Backup, left: Mapping[str, Backup]) -> bool:
    """Tell whether a backup and all that it needs are there, and good."""
    while backup.state == "good":
        if not backup.base:
            return True
        if backup.base not in left:
            return False
        backup = left[backup.base]
    return False


@given(sets_of_backups(), st.integers(1, 5), st.sampled_from([0, 30, 300]))
def test_what_is_kept_can_be_restored_whenever_the_deleting_is_interrupted(
    backups: list[Backup], keep: int, keep_days: float
) -> None:
    gone = unwanted(backups, young(backups, keep, keep_days))
    names = [each.backup.name for each in gone]
    for left in delete_one_by_one(backups, names):
        by_name = {backup.name: backup for backup in left}
        assert all(can_be_restored(each, by_name) for each in left if each.state == "good")


def root(backup: Backup, by_name: Mapping[str, Backup]) -> str:
    """Return the first backup of a chain."""
    while backup.base:
        backup = by_name[backup.base]
    return backup.name


def bases_of(backup: Backup, by_name: Mapping[str, Backup]) -> Iterator[str]:
    """Yield the names of all that a backup needs."""
    while backup.base:
        yield backup.base
        backup = by_name[backup.base]


@given(sets_of_backups(), st.integers(1, 5), st.sampled_from([0, 30, 300]))
def test_exactly_the_newest_chains_are_kept(
    backups: list[Backup], keep: int, keep_days: float
) -> None:
    by_name = {backup.name: backup for backup in backups}
    gone = {each.backup.name for each in unwanted(backups, young(backups, keep, keep_days))}
    good = [backup for backup in backups if backup.state == "good"]
    chains: dict[str, list[Backup]] = {}
    for backup in good:
        chains.setdefault(root(backup, by_name), []).append(backup)
    newest = sorted(chains.values(), key=lambda chain: chain[-1].name)
    oldest = NOW - timedelta(days=keep_days)
    kept = {backup.name for backup in backups if backup.state == "in progress"}
    for place, chain in enumerate(reversed(newest)):
        if place < keep or chain[-1].started > oldest:
            kept |= {backup.name for backup in chain}
    for backup in backups:
        # Nothing else has what these have, even if nobody knows yet how to get at it.
        if backup.state == "damaged" and (not good or backup.name > good[-1].name):
            kept |= {backup.name, *bases_of(backup, by_name)}
    assert gone == by_name.keys() - kept


def test_six_chains_with_a_damaged_and_a_running_one() -> None:
    backups = []
    for chain in range(6):
        for place in range(5):
            number = 5 * chain + place
            state: BackupState = "damaged" if chain == 4 and place >= 3 else "good"
            backups.append(made(number, number - 1 if place else None, state))
    backups[-1] = made(29, None, "in progress")
    gone = [each.backup.name for each in unwanted(backups, young(backups, 2))]
    expected = [*range(20), 23, 24]
    assert gone == [name_of(number) for number in reversed(expected)]


@pytest.mark.parametrize("bases", [[1, 0], [0], [2, 0, 1], [1, 2, 1]])
def test_bases_in_a_circle_do_not_make_prune_endless(bases: list[int]) -> None:
    backups = [made(number, base, "damaged") for number, base in enumerate(bases)]
    backups.append(made(9, None, "good"))
    gone = [each.backup.name for each in unwanted(backups, young(backups, 1))]
    assert gone == [name_of(number) for number in reversed(range(len(bases)))]


# --- with real backups ---


@pytest.fixture
def chains(backup_tool: BackupTool) -> BackupTool:
    """Three chains of two backups each."""
    return with_backups(backup_tool, 6)


@pytest.fixture
def two_chains(backup_tool: BackupTool) -> BackupTool:
    """Two chains of two backups each."""
    return with_backups(backup_tool, 4)


@pytest.fixture
def one_backup(backup_tool: BackupTool) -> BackupTool:
    """A single one: each has a second of its own, which takes its time."""
    return with_backups(backup_tool, 1)


def with_backups(tool: BackupTool, number: int) -> BackupTool:
    """Make so many backups, two of them in a chain."""
    tool.keep_private(tables={"*": "private"}, action="backup", full_every=2)
    tool.database.execute("CREATE TABLE t (a UInt32) ENGINE = MergeTree ORDER BY a")
    for value in range(number):
        tool.database.execute(f"INSERT INTO t VALUES ({value})")
        assert tool.run("backup")[0] == 0
    return tool


def names(tool: BackupTool) -> list[str]:
    """Return the names of all that has objects."""
    keys = [key.removeprefix(BACKUPS.all_data) for key in tool.kept() if "/data/" in key]
    return sorted({key.partition("/")[0] for key in keys})


def test_prune_only_shows_unless_it_is_confirmed(two_chains: BackupTool) -> None:
    before = two_chains.kept()
    for arguments in (("--keep", "1"), ("--keep", "1", "--confirm", "--dry-run")):
        status, log = two_chains.run("prune", *arguments)
        assert (status, log.count("would delete the backup")) == (0, 2)
        assert two_chains.kept() == before


@pytest.mark.long
def test_what_prune_leaves_can_be_restored(
    chains: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = names(chains)
    assert chains.run("prune", "--keep", "2", "--confirm")[0] == 0
    assert names(chains) == made[2:]
    status, log = chains.run("verify", "--from", "all")
    assert (status, log.count("can be restored")) == (0, 4)
    # One without manifest stays while something is added to it.
    chains.client.delete_object(Bucket=chains.private_bucket_name, Key=BACKUPS.manifest(made[-1]))
    assert chains.run("prune", "--keep", "1", "--confirm")[0] == 0
    assert names(chains) == made[4:]
    monkeypatch.setattr(commands, "SILENCE", timedelta())
    assert "unfinished: it has no manifest" in chains.run("prune", "--keep", "1", "--confirm")[1]
    assert names(chains) == made[4:5]
    assert chains.run("verify")[0] == 0
    assert "nothing to do; kept: 1 backup" in chains.run("prune", "--confirm")[1]


def test_backups_go_though_a_manifest_of_the_exports_is_damaged(two_chains: BackupTool) -> None:
    two_chains.put(LAYOUT.manifest("u"), b"{")
    made = names(two_chains)
    tables = {"u": "public", "*": "private"}
    status, log = two_chains.run("prune", "--keep", "1", "--confirm", tables=tables)
    assert (status, "u.json: damaged" in log) == (65, True), log
    assert names(two_chains) == made[2:]


def test_manifests_that_name_each_other_as_base_are_damaged_and_can_be_pruned(
    two_chains: BackupTool,
) -> None:
    first, second, *others = two_chains.backups()
    changed = msgspec.structs.replace(first, base=second.name)
    two_chains.client.put_object(
        Bucket=two_chains.private_bucket_name,
        Key=BACKUPS.manifest(first.name),
        Body=msgspec.json.encode(changed),
    )
    status, log = two_chains.run("list")
    assert (status, f"its base {second.name} is not older than it is" in log) == (0, True)
    assert two_chains.run("restore", "t", "--from", second.name)[0] == 65
    status, log = two_chains.run("prune", "--confirm")
    assert (status, "2 backups deleted; kept: 2" in log) == (0, True)
    assert names(two_chains) == [each.name for each in others]


def test_what_only_looks_like_a_time_is_no_backup(one_backup: BackupTool) -> None:
    before = len(one_backup.backups())
    for name in ("99999999T999999Z", "\u0662\u0660260101T000000Z"):
        one_backup.client.put_object(
            Bucket=one_backup.private_bucket_name, Key=BACKUPS.manifest(name), Body=b"{}"
        )
    assert len(json.loads(one_backup.run("list", "--json")[1])["backups"]) == before


def test_prune_makes_its_state_directory(one_backup: BackupTool) -> None:
    shutil.rmtree(one_backup.folder / "state")
    assert one_backup.run("prune", "--confirm")[0] == 0
    shutil.rmtree(one_backup.folder / "state")
    (one_backup.folder / "state").touch()
    status, log = one_backup.run("prune", "--confirm")
    assert (status, "state_dir" in log) == (78, True)


@pytest.mark.long
def test_while_the_database_is_down_nothing_without_manifest_is_deleted(
    chains: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "SILENCE", timedelta())
    newest = names(chains)[-1]
    key = BACKUPS.manifest(newest)
    chains.client.delete_object(Bucket=chains.private_bucket_name, Key=key)
    there = chains.config["clickhouse_url"]
    gone = "clickhouse://127.0.0.1:9/x?connect_timeout=1"
    status, log = chains.run("prune", "--keep", "1", "--confirm", clickhouse_url=gone)
    assert (status, "it is not known whether backups are in progress" in log) == (0, True)
    assert newest in names(chains)
    listed = json.loads(chains.run("list", "--json", clickhouse_url=there)[1])["backups"]
    assert listed[-1]["state"] == "unfinished"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--keep", "0"),
        ("--keep-days", "-1"),
        ("--keep-days", "nan"),
        ("--keep-days", "1e12"),
        ("--older-than", "-1"),
        ("--older-than", "inf"),
    ],
)
def test_an_age_that_no_backup_can_have_is_wrong_usage(
    backup_tool: BackupTool, arguments: tuple[str, ...]
) -> None:
    """Nor can no chain at all be kept."""
    with pytest.raises(SystemExit) as stopped:
        backup_tool.run("prune", *arguments)
    assert cast("Any", stopped.value).code == 2
