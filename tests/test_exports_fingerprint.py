"""What tells the rows of a chunk from those that it had."""

import msgspec
import pytest

from exports.fingerprint import Fingerprint, combined, counted, of_merged

READ = Fingerprint(rows=10, version="7", hash="123", keys=9, scheme="2")


def changed(**fields: object) -> Fingerprint:
    """Return the fingerprint of the same rows, but for some fields."""
    return msgspec.structs.replace(READ, **fields)


@pytest.mark.parametrize(
    ("now", "then", "same"),
    [
        (READ, READ, True),
        (READ, changed(keys=3), True),  # an estimate
        (READ, changed(rows=11), False),
        (READ, changed(version="8"), False),
        (READ, changed(hash="124"), False),
        # All columns are compared where they were asked, and only there.
        (READ, changed(whole="5"), True),
        (changed(whole="5"), changed(whole="5"), True),
        (changed(whole="5"), changed(whole="6"), False),
        (changed(whole="5"), READ, False),
        (changed(whole="5", rows=11), changed(whole="5"), False),
        # The rows that merges leave count, not those that are stored.
        (changed(merged=8, rows=11), changed(merged=8), True),
        (changed(merged=8), changed(merged=7), False),
        (changed(merged=8), READ, False),
        (READ, changed(merged=10), False),
        (changed(merged=8, hash="124"), changed(merged=8), False),
    ],
)
def test_rows_are_the_same_by_what_was_asked_of_them(
    now: Fingerprint, then: Fingerprint, *, same: bool
) -> None:
    assert now.same_as(then) is same


def test_rows_that_were_only_counted_are_not_read() -> None:
    assert counted(5) == Fingerprint(5, None, None, None, "2")
    assert (counted(5).is_read, READ.is_read, changed(hash="").is_read) == (False, True, True)


def test_a_manifest_of_the_first_version_has_the_first_scheme() -> None:
    text = '{"rows": 1, "version": "", "hash": "1", "keys": 1}'
    old = msgspec.json.decode(text, type=Fingerprint)
    assert (old.scheme, old.whole, old.merged) == ("1", None, None)
    assert msgspec.json.encode(old) == text.replace(" ", "").encode()
    assert b'"scheme":"2"' in msgspec.json.encode(READ)


def test_rows_that_merges_leave_are_counted_beside_those_that_are_stored() -> None:
    assert of_merged(READ, 25) == changed(rows=25, merged=10)


@pytest.mark.parametrize(
    ("field", "first", "second", "both"),
    [
        ("rows", 10, 5, 15),
        ("keys", 9, 5, 14),
        ("keys", 9, None, 9),
        ("hash", "123", "877", "1000"),
        ("hash", str(2**64 - 1), "3", "2"),
        ("hash", "123", "", "123"),
        ("hash", "123", None, "123"),
        ("version", "", "", ""),
        ("version", None, "7", "7"),
        ("version", "9", "10", "10"),
        ("version", "10", "9", "10"),
        ("version", "2026-01-02", "2025-12-31", "2026-01-02"),
        ("version", "2025-12-31", "2026-01-02", "2026-01-02"),
        # A number is higher than any text, and so long ones are texts.
        ("version", "1", "x", "1"),
        ("version", "9" * 100, "1" + "0" * 100, "9" * 100),
        ("version", "9" * 100, "8", "9" * 100),
        ("whole", "5", "6", "11"),
        ("whole", "5", None, None),
        ("merged", 4, 3, 7),
        ("merged", 4, None, None),
        ("merged", None, None, None),
        ("scheme", "1", "1", "1"),
        ("scheme", "2", "2", "2"),
    ],
)
def test_the_rows_of_shards_are_those_of_each(
    field: str, first: object, second: object, both: object
) -> None:
    fingerprints = [changed(**{field: one}) for one in (first, second)]
    assert getattr(combined(fingerprints), field) == both


def test_the_rows_of_one_shard_are_all_rows() -> None:
    for one in (READ, counted(5), changed(version=None)):
        assert combined([one]) is one
    assert combined([READ, READ, READ]).rows == 30
