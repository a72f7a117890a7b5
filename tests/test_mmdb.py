"""What an MMDB file may cost who reads it: an accepted one can be iterated, whoever made it."""

import time
from collections.abc import Sequence
from pathlib import Path

import maxminddb
import pytest

import mmdb
from mmdb_bytes import IPV4_AT, Node, array, database, mapping, number, pointer, text, with_ipv4
from mmdb_tree import MOST_WAYS
from ooni_common.errors import DataRefused

ASN = mapping({"autonomous_system_number": number(15169)})
MIB = 2**20


def check(path: Path, content: bytes) -> None:
    """Check a file; where it is accepted, iterate it with the reader in C."""
    path.write_bytes(content)
    mmdb.check(path, mmdb.ASN, "ASN")
    with maxminddb.open_database(path, maxminddb.MODE_MMAP_EXT) as reader:
        networks = sum(1 for _ in reader)
        assert networks <= MOST_WAYS * (reader.metadata().node_count + 1)
        for address in mmdb.WELL_KNOWN:
            assert reader.get(address)


def reason(path: Path, content: bytes) -> str:
    """Return why a file is refused, after at most two seconds for each of its megabytes."""
    begun = time.process_time()
    with pytest.raises(DataRefused) as caught:
        check(path, content)
    assert time.process_time() - begun < max(2.0, 2 * len(content) / MIB)
    return str(caught.value)


def test_addresses_may_lead_to_the_node_of_others(tmp_path: Path) -> None:
    """As 6to4, Teredo and mapped addresses do, to the IPv4 ones."""
    nodes = with_ipv4([(1, 2), (-1, None), (None, -1)], others=-1)
    for alias in (5, 16, 50, 80, 95):
        nodes[alias] = (nodes[alias][0], IPV4_AT)
    check(tmp_path / "x", database(nodes, ASN))


@pytest.mark.parametrize(("bits", "accepted"), [(8, False), (95, False), (96, True)])
def test_no_network_has_ipv4_addresses_and_others(
    tmp_path: Path, bits: int, *, accepted: bool
) -> None:
    """The reader in C can't iterate them."""
    nodes = with_ipv4([(-1, -1)], others=-1)[:bits]
    nodes[-1] = (-1, -1)
    if accepted:
        check(tmp_path / "x", database(nodes, ASN))
    else:
        said = reason(tmp_path / "x", database(nodes, ASN))
        assert said == "x: an unreadable database (a network has IPv4 addresses and others)"
    nodes[-1] = (None, None)
    assert "no ASN for" in reason(tmp_path / "x", database(nodes, ASN))


@pytest.mark.parametrize("depth", [20, 100, 128])
def test_a_tree_with_too_many_ways_is_refused(tmp_path: Path, depth: int) -> None:
    ladder = [(node + 1, node + 1) for node in range(depth - 1)]
    said = reason(tmp_path / "x", database([*ladder, (-1, -1)], ASN))
    assert said.endswith(f"more than {16 * (depth + 1):,} networks in a tree of {depth:,} nodes)")


def test_no_way_is_longer_than_an_address_whichever_is_taken_first(tmp_path: Path) -> None:
    """The longer way joins one that was gone to its end before."""
    short = [(node + 1, None) for node in range(1, 100)]
    long = [(node + 1, None) for node in range(101, 140)]
    nodes = [(101, 1), *short, (-1, -1), *long, (1, None)]
    assert "longer than an address" in reason(tmp_path / "x", database(nodes, ASN))


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        pytest.param([(1, -1), (0, -1)], "a path in the tree is a loop", id="loop"),
        pytest.param([(-1, -10_000)], "leads to 10,016, where nothing is", id="nowhere"),
        pytest.param(
            [(node + 1, None) for node in range(128)] + [(None, -1)],
            "a path in the tree is longer than an address",
            id="deep",
        ),
    ],
)
def test_a_tree_that_no_writer_writes_is_refused(
    tmp_path: Path, nodes: Sequence[Node], said: str
) -> None:
    assert said in reason(tmp_path / "x", database(nodes, ASN))


def test_a_tree_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    content = database([(None, -1)], ASN)
    count = b"node_count" + number(1)
    assert "no MMDB database, or one without its end" in reason(
        tmp_path / "x", content.replace(count, b"node_count" + number(10**6))
    )


def fan_out(levels: int, wide: int) -> tuple[bytes, int]:
    """Return data with an array of arrays of … the same value, and where it is."""
    data, last = number(1), 0
    for _ in range(levels):
        place = len(data)
        data += array([pointer(last)] * wide)
        last = place
    return data, last


def tree_of(records: Sequence[int]) -> list[Node]:
    """Return a tree that leads to some records, a power of two, each node once."""
    inner = len(records) - 1
    nodes: list[Node] = []
    for node in range(inner):
        sides = [
            side if side < inner else -1 - records[side - inner]
            for side in (2 * node + 1, 2 * node + 2)
        ]
        nodes.append((sides[0], sides[1]))
    return nodes


def many(count: int, record: bytes, data: bytes = b"") -> bytes:
    """Return a database with so many records, which are the same, after other data."""
    places = [len(data) + number * len(record) for number in range(count)]
    return database(with_ipv4(tree_of(places), -1 - places[0]), data + record * count)


@pytest.mark.parametrize("levels", [9, 13, 15, 30])
def test_a_record_of_many_values_is_refused(tmp_path: Path, levels: int) -> None:
    data, place = fan_out(levels, 2)
    record = mapping({"autonomous_system_number": number(1), "x": pointer(place)})
    said = reason(tmp_path / "x", database([(-1 - len(data),) * 2], data + record))
    assert "values" in said


def test_a_record_of_much_text_is_refused(tmp_path: Path) -> None:
    data = text("x" * 9000)
    few, more = (mapping({str(n): pointer(0) for n in range(count)}) for count in (7, 8))
    nodes = with_ipv4([(-1 - len(data),) * 2], -1 - len(data))
    assert "17 values, 72,008 characters" in reason(tmp_path / "x", database(nodes, data + more))
    # Seven of them are read, and have no ASN.
    assert "no ASN for" in reason(tmp_path / "x", database(nodes, data + few))


def test_records_that_are_many_times_larger_than_the_file_are_refused(tmp_path: Path) -> None:
    data, place = fan_out(8, 2)
    record = mapping({"autonomous_system_number": number(1), "x": pointer(place)})
    check(tmp_path / "x", many(128, record, data))
    said = reason(tmp_path / "x", many(1024, record, data))
    assert "the records are many times larger than the file" in said
    data = text("x" * 60_000)
    record = mapping({"autonomous_system_number": number(1), "x": pointer(0)})
    check(tmp_path / "x", many(16, record, data))
    said = reason(tmp_path / "x", many(256, record, data))
    assert "the records are many times larger than the file" in said


def test_a_record_that_is_no_map_is_refused(tmp_path: Path) -> None:
    said = reason(tmp_path / "x", database([(-1, -1)], array([ASN])))
    assert said == "x: an unreadable database (the record at 24 is not a map)"


@pytest.mark.parametrize("epoch", [2**40, 2**63, 2**64 - 1])
def test_a_database_that_no_calendar_has_the_day_of_is_refused(tmp_path: Path, epoch: int) -> None:
    said = reason(tmp_path / "x", database(with_ipv4([(-1, -1)], others=-1), ASN, epoch))
    assert said == f"x: a database with an impossible build_epoch, {epoch}"
