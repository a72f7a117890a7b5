"""What the cluster stands on and needs no ZooKeeper for."""

import re
from pathlib import Path

import pytest

from dev.cluster.cityhash import chained, with_seed
from dev.cluster.configuration import server_configuration
from dev.cluster.memory import UnknownEngineError, set_interserver_address

# Length, low and high half: from Google's city.cc 1.0.2.
HASHES = [
    (0, 0x9EBB7EE3E6EA4E12, 0xCBDED7890886F686),
    (1, 0xC42FA6402B28478F, 0xC55DD674B67B213B),
    (3, 0xBDA5351CC5B6B509, 0x9790F14B798F2E91),
    (4, 0x3F06F3A83BAE7DB1, 0xBE3831ADB5DE8BAF),
    (8, 0xCF798F19248BEF34, 0x4A4EF151FFC48727),
    (9, 0xFE2FB1ADD51BD51A, 0x9C6FAC6587F97A17),
    (16, 0x238331497EDB71DF, 0xEA4CAF0B6CB5838B),
    (17, 0x0DF2EC3855B4D82E, 0x9304C2FD85F53594),
    (63, 0x9188A80BB723B686, 0x2CD663FF0FFAD4F9),
    (64, 0x2A84BCE2CEED322D, 0x6EE6BAA8891696A0),
    (127, 0x61DBD7773EEF4EB3, 0xDA275DE23B501F47),
    (128, 0xD1572DCE6D90CF42, 0xE2DA730725F49D35),
    (129, 0xC16322F94DCF8945, 0xE524C4103140533D),
    (255, 0xB9359CB3B7721CFF, 0x4346565C92C82D78),
    (256, 0xB2744E2030544538, 0x8D7BB37D13978524),
    (299, 0xD19A9706F0C1002A, 0xCBB83F94826264B3),
    (2047, 0xB7A45871C8E0AFF6, 0x9AA2E3B6E7C9CF45),
    (2048, 0x17819043369834FF, 0x54BCCC40BE960A5C),
]


@pytest.mark.parametrize(("length", "low", "high"), HASHES)
def test_the_hash_is_that_of_the_original(length: int, low: int, high: int) -> None:
    data = bytes((i * 131 + length * 7 + (i >> 3) * 17) & 255 for i in range(length))
    seed = (0x123456789ABCDEF0 ^ length, 0xFEDCBA9876543210 + length)
    assert with_seed(data, *seed) == (low, high)


def test_the_seed_of_each_piece_is_the_hash_before_it() -> None:
    first = with_seed(b"a" * 2048, 0, 0)
    low, high = with_seed(b"b", *first)
    checksum = chained([b"a" * 2048, b"b"])
    assert checksum == low.to_bytes(8, "little") + high.to_bytes(8, "little")


def test_an_engine_of_another_version_is_refused() -> None:
    with pytest.raises(UnknownEngineError, match="layout of its memory is not known"):
        set_interserver_address("27.1.1.1", Path("/tmp/x/0/data"), "127.0.0.1", 1)


@pytest.mark.parametrize("path", ["/tmp/a_path_that_is_too_long/data", "data"])
def test_a_data_path_that_cannot_be_found_in_memory_is_refused(path: str) -> None:
    with pytest.raises(UnknownEngineError, match="at most 21 bytes"):
        set_interserver_address("26.9.2.1", Path(path), "127.0.0.1", 1)


def test_a_process_without_that_engine_is_refused() -> None:
    with pytest.raises(UnknownEngineError, match="no ContextShared"):
        set_interserver_address("26.9.2.1", Path("/tmp/none/0/data"), "127.0.0.1", 1)


def test_each_server_knows_its_place_in_the_cluster() -> None:
    xml = server_configuration(2181, [[9001, 9002], [9003, 9004]], 2)
    assert re.findall(r"<(shard|replica)>(\d+)</", xml) == [("shard", "02"), ("replica", "01")]
    assert "<tcp_port>9003</tcp_port>" in xml
    assert xml.count("<shard><internal_replication>") == 2
