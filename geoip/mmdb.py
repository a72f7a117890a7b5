"""The MMDB format: what a file says of itself, and whether the whole of it can be read.

Source of the format: https://maxmind.github.io/MaxMind-DB/. A search tree, whose records lead to
other nodes, to nothing or to data; 16 zero bytes; the data; and the metadata.

Addresses are looked up as the API does it: with geoip2, and with maxminddb in a database that has
both networks and countries, whose type geoip2 refuses for one of them. To read a whole file there
is nothing: maxminddb can iterate, but a tree with a loop has 2**128 networks for it. Here every
node is read once (mmdb_tree.py), and every data record once (mmdb_records.py), whatever is wrong
with them.
"""

import contextlib
import logging
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import maxminddb
from geoip2.database import Reader
from geoip2.errors import AddressNotFoundError

from mmdb_records import Records
from mmdb_tree import SEPARATOR_SIZE, Tree
from ooni_common.errors import DataRefused

log = logging.getLogger("ooni.geoip")

# Anycast resolvers: every database has them, and they are where a probe would ask.
WELL_KNOWN = (
    "8.8.8.8",
    "1.1.1.1",
    "9.9.9.9",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2620:fe::fe",
)
MOST_MISSING = 1  # of these, before a database is refused

# What the readers raise for a file that they can't read, besides their own error.
READER_ERRORS = (
    maxminddb.InvalidDatabaseError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True)
class LookUp:
    """What an address is looked up for.

    Attributes:
        sought: what it is, for people.
        find: gives the value that an address has in an open database; None where it has none.
        is_valid: tells whether that is one.
    """

    sought: str
    find: Callable[[Any, str], object]
    is_valid: Callable[[object], bool]


@dataclass(frozen=True)
class DatabaseKind:
    """A kind of database.

    Attributes:
        name: for the state file.
        measured_as: the names that its metrics have.
        open: opens a file of it.
        look_ups: what it has of an address.
    """

    name: str
    measured_as: tuple[str, ...]
    open: Callable[[Path], AbstractContextManager[Any]]
    look_ups: tuple[LookUp, ...]


def _is_asn(value: object) -> bool:
    return isinstance(value, int) and 0 < value < 2**32


def _is_country(value: object) -> bool:
    return isinstance(value, str) and len(value) == 2 and value.isalpha() and value.isupper()


def _asn_of(reader: Reader, address: str) -> object:
    return reader.asn(address).autonomous_system_number


def _country_of(reader: Reader, address: str) -> object:
    return reader.country(address).country.iso_code


def _merged_asn_of(reader: maxminddb.Reader, address: str) -> object:
    return _record_of(reader, address).get("autonomous_system_number")


def _merged_country_of(reader: maxminddb.Reader, address: str) -> object:
    country = _record_of(reader, address).get("country")
    return country.get("iso_code") if isinstance(country, dict) else country


def _record_of(reader: maxminddb.Reader, address: str) -> Mapping[str, object]:
    record = reader.get(address)
    return record if isinstance(record, dict) else {}


ASN = DatabaseKind("asn", ("asn",), Reader, (LookUp("ASN", _asn_of, _is_asn),))
COUNTRY = DatabaseKind("cc", ("cc",), Reader, (LookUp("country", _country_of, _is_country),))
# As ooni/historical-geoip builds them: a database of countries, with the networks merged into it.
MERGED = DatabaseKind(
    "asn_cc",
    ("asn", "cc"),
    maxminddb.open_database,
    (
        LookUp("ASN", _merged_asn_of, _is_asn),
        LookUp("country", _merged_country_of, _is_country),
    ),
)


@dataclass(frozen=True)
class Description:
    """What a database says of itself.

    Attributes:
        kind: the text that names its kind and source.
        epoch: when it was built, in Unix time.
        nodes: how many nodes its tree has.
    """

    kind: str
    epoch: int
    nodes: int

    def __str__(self) -> str:
        return f"{self.kind}, built {self.built:%Y-%m-%d}, {self.nodes:,} nodes"

    @property
    def built(self) -> datetime:
        """When it was built."""
        return datetime.fromtimestamp(self.epoch, UTC)


def check(path: Path, kind: DatabaseKind, wanted_type: str, label: str = "") -> Description:
    """Read a whole database, and look some addresses up in it.

    Args:
        path: the file; nobody may be writing to it.
        kind: what it has to be a database of.
        wanted_type: a text that its type has to contain.
        label: what to call it in a message; its name otherwise.

    Raises:
        DataRefused: it is something else, or can't be read.
        OSError: it can't be read.
    """
    try:
        description = describe(path)
        _check_description(description, wanted_type)
        _check_whole(path)
        _check_lookups(path, kind, label or path.name)
    except DataRefused as error:
        raise DataRefused(f"{label or path.name}: {error}") from None
    return description


def describe(path: Path) -> Description:
    """Return what a database says of itself.

    Raises:
        DataRefused: it isn't an MMDB file, or no calendar has the time when it was built.
        OSError: it can't be read.
    """
    if path.stat().st_size == 0:
        raise DataRefused("an empty file")
    try:
        with maxminddb.open_database(path) as reader:
            metadata = reader.metadata()
    except READER_ERRORS:
        raise DataRefused("no MMDB database, or one without its end") from None
    epoch = metadata.build_epoch
    try:
        datetime.fromtimestamp(epoch, UTC)
    except (OSError, OverflowError, ValueError):
        raise DataRefused(f"a database with an impossible build_epoch, {epoch}") from None
    return Description(metadata.database_type, epoch, metadata.node_count)


@contextlib.contextmanager
def _unreadable_refused() -> Iterator[None]:
    try:
        yield
    except READER_ERRORS as error:
        raise DataRefused(f"an unreadable database ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _check_description(description: Description, wanted_type: str) -> None:
    if wanted_type not in description.kind:
        raise DataRefused(f"a database of type {description.kind!a}, not {wanted_type!a}")


def _check_whole(path: Path) -> None:
    """Read every node and every data record."""
    with maxminddb.open_database(path) as reader:
        metadata = reader.metadata()
    if metadata.ip_version != 6:
        raise DataRefused("a database without IPv6 networks")
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        _unreadable_refused(),
    ):
        tree = Tree(content, metadata.node_count, metadata.record_size)
        records = Records(content, tree.size + SEPARATOR_SIZE)
        for offset in tree.data_offsets():
            records.read(offset)


def _check_lookups(path: Path, kind: DatabaseKind, label: str) -> None:
    """Look up some addresses; geoip2 also refuses a type of database that is for something else.

    One of them may be missing: upstream's sources have such gaps for a month.
    """
    with kind.open(path) as reader:
        for look_up in kind.look_ups:
            missing = []
            for address in WELL_KNOWN:
                value = _found(reader, look_up, address)
                if value is None:
                    missing.append(address)
                elif not look_up.is_valid(value):
                    raise DataRefused(f"no {look_up.sought} for {address}: {ascii(value)[:100]}")
            if len(missing) > MOST_MISSING:
                raise DataRefused(f"no {look_up.sought} for {', '.join(missing)}")
            for address in missing:
                log.warning("%s: no %s for %s", label, look_up.sought, address)


def _found(reader: object, look_up: LookUp, address: str) -> object:
    try:
        return look_up.find(reader, address)
    except AddressNotFoundError:
        return None
    except READER_ERRORS as error:
        raise DataRefused(f"geoip2 can't read it ({_first_line(error)})") from None
