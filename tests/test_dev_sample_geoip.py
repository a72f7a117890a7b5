import gzip
from pathlib import Path

import geoip2.database
import maxminddb
import pytest

from dev.samples.geoip import ASN, COUNTRY, WELL_KNOWN, write_database, write_month


def test_the_consumers_reader_finds_the_networks_that_everybody_knows(tmp_path: Path) -> None:
    write_database(tmp_path / "asn.mmdb", ASN, "2026-11", networks=100)
    write_database(tmp_path / "cc.mmdb", COUNTRY, "2026-11", networks=100)
    with (
        geoip2.database.Reader(tmp_path / "asn.mmdb") as asn,
        geoip2.database.Reader(tmp_path / "cc.mmdb") as country,
    ):
        for network, number, name, code in WELL_KNOWN:
            address = network.partition("/")[0]
            found = asn.asn(address)
            assert (found.autonomous_system_number, found.autonomous_system_organization) == (
                number,
                name,
            )
            assert country.country(address).country.iso_code == code


@pytest.mark.parametrize("networks", [1, 1000, 5000])
def test_the_tree_is_as_large_as_wanted(networks: int, tmp_path: Path) -> None:
    path = tmp_path / "asn.mmdb"
    write_database(path, ASN, "2026-11", networks=networks)
    with maxminddb.open_database(path) as reader:
        assert networks < reader.metadata().node_count < networks + 400
        invented = [network for network, _ in reader if str(network).startswith("11.")]
    assert len(invented) == networks


def test_each_month_is_another_and_always_the_same(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        write_month(tmp_path / folder, "2026-11")
        write_month(tmp_path / folder, "2026-12")
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    first, second = (
        [(tmp_path / each / name).read_bytes() for name in names] for each in ("first", "second")
    )
    assert names == [
        "dbip-asn-lite-2026-11.mmdb.gz",
        "dbip-asn-lite-2026-12.mmdb.gz",
        "dbip-country-lite-2026-11.mmdb.gz",
        "dbip-country-lite-2026-12.mmdb.gz",
    ]
    assert first == second
    assert len({gzip.decompress(content) for content in first}) == 4
