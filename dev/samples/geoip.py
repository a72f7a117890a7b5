"""Sample GeoIP databases: real MMDB files, with the types and the records of the DB-IP lite files.

    write_month(folder, "2026-11")  # dbip-asn-lite-2026-11.mmdb.gz and dbip-country-lite-…

The networks that everybody knows are in them; around these, invented networks fill one block of
addresses, so that the tree is as large as wanted.
"""

import calendar
import gzip
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmdb_writer import MmdbU32, MMDBWriter, SearchTreeLeaf, SearchTreeNode
from netaddr import IPSet

from dev.samples.vocabulary import COUNTRIES, SYLLABLES

NETWORKS = 2000
FILLED_BLOCK = 11  # the first byte of the IPv4 addresses that invented networks fill
OPERATORS = 80_000  # that there are at most

# Network, ASN, its organisation, country.
WELL_KNOWN = (
    ("8.8.8.0/24", 15169, "Google LLC", "US"),
    ("1.1.1.0/24", 13335, "Cloudflare, Inc.", "AU"),
    ("9.9.9.0/24", 19281, "Quad9", "CH"),
    ("2001:4860:4860::/48", 15169, "Google LLC", "US"),
    ("2606:4700:4700::/48", 13335, "Cloudflare, Inc.", "US"),
    ("2620:fe::/48", 19281, "Quad9", "CH"),
)

Record = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of database: its type, the file's name, and the record of a network."""

    database_type: str
    file: str
    record: Callable[[int, str, str], Record]


ASN = Kind(
    "DBIP-ASN-Lite (compat=GeoLite2-ASN)",
    "dbip-asn-lite-{}.mmdb",
    lambda asn, name, _country: {
        "autonomous_system_number": MmdbU32(asn),
        "autonomous_system_organization": name,
    },
)
COUNTRY = Kind(
    "DBIP-Country-Lite (compat=GeoLite2-Country)",
    "dbip-country-lite-{}.mmdb",
    lambda _asn, _name, country: {"country": {"iso_code": country, "names": {"en": country}}},
)
# As ooni/historical-geoip builds it: the networks, merged into a database of countries.
MERGED = Kind(
    COUNTRY.database_type,
    "{}-ip2country_as.mmdb",
    lambda asn, name, country: {
        **COUNTRY.record(asn, name, country),
        **ASN.record(asn, name, country),
        "autonomous_system_country": country,
        "autonomous_system_name": name.upper(),
    },
)


class _Writer(MMDBWriter):
    """A writer of databases that were built in a month of choice."""

    def __init__(self, epoch: int, ip_version: int, **options: Any) -> None:  # noqa: ANN401 - passed through
        super().__init__(ip_version, ipv4_compatible=ip_version == 6, **options)
        self._epoch = epoch

    def _build_meta(self) -> dict[str, Any]:
        return super()._build_meta() | {"build_epoch": self._epoch}


def write_month(folder: Path, month: str, *, networks: int = NETWORKS, padding: int = 0) -> None:
    """Write both files of a month as the upstream has them, compressed."""
    for kind in (ASN, COUNTRY):
        path = folder / kind.file.format(month)
        write_database(path, kind, month, networks=networks, padding=padding)
        compressed = gzip.compress(path.read_bytes(), compresslevel=1, mtime=0)
        path.with_name(f"{path.name}.gz").write_bytes(compressed)
        path.unlink()


def write_database(
    path: Path,
    kind: Kind,
    month: str,
    *,
    networks: int = NETWORKS,
    padding: int = 0,
    ip_version: int = 6,
) -> None:
    """Write one database.

    Args:
        path: Where to.
        kind: What is in it.
        month: When it was built, YYYY-MM; another month has other operators.
        networks: How many invented networks are in it; about as many nodes has its tree.
        padding: By how many bytes the name of each operator is longer than needed.
        ip_version: 4 leaves the IPv6 networks out.
    """
    year, _, number = month.partition("-")
    epoch = calendar.timegm((int(year), int(number), 1, 3, 0, 0))
    writer = _Writer(
        epoch,
        ip_version,
        database_type=kind.database_type,
        languages=["en"],
        description=f"invented networks, {datetime.fromtimestamp(epoch, UTC):%B %Y}",
    )
    choose = random.Random(month)  # noqa: S311 (not for secrets)
    records = [
        _invented(choose, kind, padding) for _ in range(min(OPERATORS, max(networks // 4, 1)))
    ]
    leaves = [SearchTreeLeaf(record) for record in records]
    if networks:
        _fill_block(writer, [choose.choice(leaves) for _ in range(networks)])
    for network, asn, name, country in WELL_KNOWN if networks else ():
        if ip_version == 6 or ":" not in network:
            writer.insert_network(IPSet([network]), kind.record(asn, name, country))
    writer.to_db_file(str(path))


def _invented(choose: random.Random, kind: Kind, padding: int) -> Record:
    name = "".join(choose.choices(SYLLABLES, k=4)).capitalize()
    country = choose.choice(COUNTRIES)[0].upper()
    return kind.record(choose.randrange(1000, 400_000), f"{name} Télécom{' ' * padding}", country)


def _fill_block(writer: MMDBWriter, leaves: list[SearchTreeLeaf]) -> None:
    """Put the leaves into a tree of their own, and that below the block's address.

    The writer takes a millisecond to insert a network, which for a million is too long.
    """
    below = _tree_of(leaves)
    prefix = f"{0:096b}{FILLED_BLOCK:08b}"[-104 if writer.ip_version == 6 else -8 :]
    for bit in reversed(prefix):
        below = SearchTreeNode(None, below) if bit == "1" else SearchTreeNode(below, None)
    if not isinstance(below, SearchTreeNode):
        raise TypeError
    writer.tree = below


def _tree_of(leaves: list[SearchTreeLeaf]) -> SearchTreeNode | SearchTreeLeaf:
    if len(leaves) == 1:
        return leaves[0]
    middle = len(leaves) // 2
    return SearchTreeNode(_tree_of(leaves[:middle]), _tree_of(leaves[middle:]))
