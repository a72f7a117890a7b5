"""What the parts of a table tell of its rows, without a server."""

import re
from dataclasses import replace

import msgspec
import pytest

from tables.blocks import Changes, Part, ShardParts, ShardStorage, Snapshot, Storage


def parts(
    *blocks: tuple[int, int, int],
    path: str = "/path",
    table: str = "uuid",
    taken: int = 100,
    modified: int = 90,
    lag: int = 0,
) -> Snapshot:
    """Return a table of one partition with parts of these blocks and versions."""
    listed = [
        Part("all", f"all_{first}_{last}_{version}", first, last, version, modified)
        for first, last, version in blocks
    ]
    return Snapshot((ShardParts(table, path, taken, "columns", listed, lag),))


def test_neighbouring_blocks_are_one_span() -> None:
    storage = parts((0, 0, 0), (1, 5, 1), (6, 6, 6), (8, 8, 8)).storage
    assert storage.shards[0].partitions == {"all": ((0, 6, 0), (8, 8, 8))}
    mutated = parts((0, 3, 9), (4, 5, 9), (10, 10, 10)).storage
    assert mutated.shards[0].partitions == {"all": ((0, 5, 9), (10, 10, 10))}


def judged(before: Snapshot, after: Snapshot) -> tuple[int, bool, bool]:
    """Return how many parts are new, whether none is missing, whether rows were changed."""
    changes = after.changes(before.storage)
    assert changes is not None
    return len(changes.parts[0]), changes.complete, changes.mutated


def test_merges_are_no_changes() -> None:
    before = parts((0, 0, 0), (1, 1, 1), (2, 2, 2))
    assert judged(before, before) == (0, True, False)
    assert judged(before, parts((0, 1, 0), (2, 2, 2))) == (0, True, False)
    assert judged(before, parts((0, 2, 0))) == (0, True, False)
    assert judged(before, parts((0, 2, 0), (3, 3, 3))) == (1, True, False)
    assert judged(before, parts((0, 3, 0))) == (1, True, False)


def test_dropped_blocks_and_mutations_are_changes() -> None:
    before = parts((0, 0, 0), (1, 1, 1), (2, 2, 2))
    assert judged(before, parts((0, 0, 0), (2, 2, 2))) == (0, False, False)
    assert judged(before, parts()) == (0, False, False)
    assert judged(before, parts((0, 0, 3), (1, 1, 3), (2, 2, 3))) == (3, True, True)


def test_blocks_are_not_gone_that_a_replica_has_yet_to_fetch() -> None:
    before = parts((0, 0, 0), (1, 1, 1))
    for lag, behind in ((0, False), (2, True)):
        changes = parts((0, 0, 0), lag=lag).changes(before.storage)
        assert changes is not None
        assert (changes.complete, changes.behind) == (False, behind)
    ahead = parts((0, 0, 0), (1, 1, 1), (2, 2, 2), lag=2).changes(before.storage)
    assert ahead is not None
    assert not ahead.behind


def with_rows(*blocks: tuple[int, int, int], path: str = "") -> Snapshot:
    """Return a table that merges no rows, with parts of these first and last blocks, and rows."""
    listed = [Part("all", f"{first}_{last}", first, last, first, 90, rows)
              for first, last, rows in blocks]  # fmt: skip
    return Snapshot((ShardParts("uuid", path, 100, "columns", listed),))


def test_a_merge_hides_no_dropped_part() -> None:
    before = with_rows((0, 0, 5), (1, 1, 5), (2, 2, 5))
    for after, adds_up in (
        (with_rows((0, 2, 15)), True),
        (with_rows((0, 2, 10)), False),
        (with_rows((0, 2, 15), (3, 3, 4)), True),
        (with_rows((0, 3, 19)), False),  # so that rows are counted
    ):
        changes = after.changes(before.storage)
        assert changes is not None
        assert (changes.complete, changes.adds_up) == (True, adds_up)


@pytest.mark.parametrize("merges_rows", [False, True])
def test_a_number_that_is_used_again_hides_no_dropped_block(*, merges_rows: bool) -> None:
    """Of engines that merge rows, inserts have parts of level 1; OPTIMIZE FINAL makes the next."""

    def at(level: int, modified: int, path: str) -> Snapshot:
        listed = [Part("all", f"all_0_0_{level}", 0, 0, 0, modified)]
        shard = ShardParts("uuid", path, 100, "columns", listed, merges_rows=merges_rows)
        return Snapshot((shard,))

    insert = int(merges_rows)
    before = at(insert, 90, "")
    assert judged(before, at(insert, 90, "")) == (0, True, False)
    assert judged(before, at(insert, 101, "")) == (1, False, False)
    assert judged(before, at(insert + 1, 101, "")) == (0, True, False)
    assert judged(at(insert, 90, "/path"), at(insert, 101, "/path")) == (0, True, False)


def test_blocks_do_not_tell_of_partitions_across_a_start_of_the_server() -> None:
    (before,) = parts((0, 0, 0), path="").shards
    for started, unchanged in ((100, ["all"]), (101, [])):
        now = replace(before, started=started)
        assert now.unchanged_partitions(before.storage) == unchanged
    (replicated,) = parts((0, 0, 0)).shards
    now = replace(replicated, started=101)
    assert now.unchanged_partitions(replicated.storage) == ["all"]


def test_a_mutation_that_was_half_done_is_seen_later() -> None:
    before = parts((0, 0, 2), (1, 1, 1))  # the mutation 2 has not reached the second part
    assert judged(before, parts((0, 0, 2), (1, 1, 2))) == (1, True, True)
    done = parts((0, 0, 2), (1, 1, 2), (3, 3, 3))
    assert judged(done, parts((0, 3, 2))) == (0, True, False)


def test_a_block_that_came_late_to_a_replica_is_seen_also_when_it_is_merged() -> None:
    before = parts((0, 0, 0), (2, 2, 2))
    assert judged(before, parts((0, 0, 0), (1, 1, 1), (2, 2, 2))) == (1, True, False)
    assert judged(before, parts((0, 2, 0))) == (1, True, False)
    # Without replicas blocks get their numbers one after the other, also those of other partitions.
    one_server = parts((0, 0, 0), (2, 2, 2), path="")
    assert judged(one_server, parts((0, 2, 0), path="")) == (0, True, False)


def test_another_table_can_not_be_compared() -> None:
    before = parts((0, 0, 0), path="")
    assert before.changes(None) is None
    assert before.changes(Storage(())) is None
    assert before.changes(parts((0, 0, 0), path="", table="another").storage) is None


def test_replicas_have_the_same_table_until_it_is_made_anew() -> None:
    before = parts((0, 0, 0), (1, 1, 1))
    replica = parts((0, 0, 0), (1, 2, 1), table="another", taken=200)
    assert judged(before, replica) == (1, True, False)
    anew = parts((0, 2, 0), table="another", taken=200, modified=150)
    assert anew.changes(before.storage) is None
    elsewhere = parts((0, 0, 0), (1, 1, 1), table="another", path="/elsewhere")
    assert elsewhere.changes(before.storage) is None


@pytest.mark.parametrize(("modified", "comparable"), [(99, True), (100, True), (101, False)])
def test_a_replica_has_parts_that_were_there_when_the_blocks_were_noted(
    modified: int, *, comparable: bool
) -> None:
    before = parts((0, 0, 0), taken=100).storage
    replica = parts((0, 0, 0), table="another", modified=modified)
    assert (replica.changes(before) is not None) == comparable
    assert parts((7, 7, 7), table="another", modified=modified).changes(before) is None


def test_a_table_with_other_columns_can_not_be_compared() -> None:
    before = parts((0, 0, 0))
    (shard,) = before.shards
    assert Snapshot((replace(shard, columns="others"),)).changes(before.storage) is None


def test_the_blocks_of_a_table_have_a_name_of_16_digits() -> None:
    storages = [parts((0, 0, 0)).storage, parts((0, 1, 0)).storage, parts().storage]
    assert len({storage.name for storage in storages}) == 3
    for storage in storages:
        assert re.fullmatch("[0-9a-f]{16}", storage.name)
        assert msgspec.json.decode(msgspec.json.encode(storage), type=Storage) == storage


@pytest.mark.parametrize(("spans", "accepted"), [(10_000, True), (10_001, False)])
def test_a_manifest_can_not_name_any_number_of_blocks(spans: int, *, accepted: bool) -> None:
    (shard,) = msgspec.to_builtins(parts((0, 0, 0)).storage)["shards"]
    text = msgspec.json.encode({"shards": [shard | {"partitions": {"all": [(0, 0, 0)] * spans}}]})
    if accepted:
        assert msgspec.json.decode(text, type=Storage).shards[0].table == "uuid"
    else:
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(text, type=Storage)


def test_what_was_noted_before_rows_were_is_read() -> None:
    (shard,) = msgspec.to_builtins(parts((0, 0, 0)).storage)["shards"]
    del shard["rows"]
    assert msgspec.convert(shard, ShardStorage).rows == {}


@pytest.mark.parametrize(
    ("changes", "same_parts", "keeps_rows"),
    [
        (Changes(((),), complete=True, mutated=False), True, True),
        (Changes(((), ("a",)), complete=True, mutated=False), False, True),
        (Changes(((),), complete=False, mutated=False), False, False),
        (Changes((("a",),), complete=True, mutated=True), False, False),
        (Changes(((),), complete=True, mutated=False, adds_up=False), False, True),
        (Changes(((),), complete=True, mutated=False, expires=True), True, False),
    ],
)
def test_what_follows_from_changes(changes: Changes, *, same_parts: bool, keeps_rows: bool) -> None:
    assert (changes.same_parts, changes.keeps_rows) == (same_parts, keeps_rows)
    assert not changes.behind


def test_of_a_table_with_a_ttl_rows_may_be_gone() -> None:
    before = parts((0, 0, 0))
    for expires in (False, True):
        changes = Snapshot(before.shards, expires=expires).changes(before.storage)
        assert changes is not None
        assert changes.expires == expires


def of_two(first: Snapshot, second: Snapshot) -> Snapshot:
    """Return a table on two shards."""
    return Snapshot((*first.shards, *second.shards))


def test_each_shard_is_compared_with_itself() -> None:
    one, other = parts((0, 0, 0)), parts((0, 0, 0), (1, 1, 1), table="uuid2", path="/path2")
    before = of_two(one, other)
    same = before.changes(before.storage)
    assert same is not None
    assert (same.parts, same.complete, same.mutated, same.behind) == (((), ()), True, False, False)
    grown = of_two(one, parts((0, 0, 0), (1, 1, 1), (2, 2, 2), table="uuid2", path="/path2"))
    changes = grown.changes(before.storage)
    assert changes is not None
    assert changes.parts == ((), ("all_2_2_2",))
    mutated = of_two(one, parts((0, 0, 3), (1, 1, 3), table="uuid2", path="/path2"))
    changes = mutated.changes(before.storage)
    assert changes is not None
    assert (changes.mutated, [len(names) for names in changes.parts]) == (True, [0, 2])
    assert one.changes(before.storage) is None
    assert of_two(other, one).changes(before.storage) is None


@pytest.mark.parametrize(("lags", "behind"), [((0, 2), True), ((2, 0), False), ((0, 0), False)])
def test_a_shard_is_behind_by_its_own_lag(lags: tuple[int, int], *, behind: bool) -> None:
    one, other = parts((0, 0, 0)), parts((0, 0, 0), (1, 1, 1), table="uuid2", path="/path2")
    now = of_two(
        parts((0, 0, 0), lag=lags[0]),
        parts((0, 0, 0), table="uuid2", path="/path2", lag=lags[1]),
    )
    changes = now.changes(of_two(one, other).storage)
    assert changes is not None
    assert (changes.complete, changes.behind) == (False, behind)


def test_a_shard_whose_rows_do_not_add_up_is_seen() -> None:
    whole, without = with_rows((0, 0, 5), (1, 1, 5), (2, 2, 5)), with_rows((0, 2, 10))
    changes = of_two(whole, without).changes(of_two(whole, whole).storage)
    assert changes is not None
    assert (changes.complete, changes.adds_up) == (True, False)


def test_a_partition_that_was_dropped_is_seen_beside_others() -> None:
    """Also where the table has other rows instead: each partition is counted by itself."""
    listed = [Part(name, f"{name}_0_0_0", 0, 0, 0, 90, 5) for name in ("a", "b")]
    before = Snapshot((ShardParts("uuid", "/path", 100, "columns", listed),))
    after = Snapshot((ShardParts("uuid", "/path", 100, "columns", listed[:1]),))
    changes = after.changes(before.storage)
    assert changes is not None
    assert (changes.complete, changes.adds_up) == (False, False)
    (shard,) = after.shards
    assert shard.unchanged_partitions(before.shards[0].storage) == ["a"]


@pytest.mark.parametrize(("modified", "unchanged"), [(100, ["all"]), (101, [])])
def test_a_block_that_was_attached_since_is_another_one(
    modified: int, unchanged: list[str]
) -> None:
    """Attached parts can have any level, and without replicas the number of a dropped one."""

    def at(modified: int) -> ShardParts:
        listed = [Part("all", "all_3_3_7", 3, 3, 3, modified, 5)]
        return ShardParts("uuid", "", 100, "columns", listed)

    assert at(modified).unchanged_partitions(at(90).storage) == unchanged


def test_where_rows_were_not_noted_a_partition_is_not_said_to_be_unchanged() -> None:
    (shard,) = with_rows((0, 0, 1)).shards
    noted = shard.storage
    assert shard.unchanged_partitions(noted) == ["all"]
    assert shard.unchanged_partitions(msgspec.structs.replace(noted, rows={})) == []
