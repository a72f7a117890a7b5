"""What a table has, partition by partition, so that it can be compared with another one's.

The rows of a partition are only read where its parts are not those of before: a table that gets new
rows every hour costs its newest partition.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from documents import Digest, Number
from ooni_common.database import Database, literal, quoted
from tables.digest import Expression, expressions, sum_of_digests

NO_PARTS = ""  # what the server does not say of
PARTITION = "_partition_id"  # the server's own column with the ID of a row's partition
ALIASES_OF_2_0_0 = ("id", "rows")  # in its queries; columns of these names were not hashed


class Partition(msgspec.Struct, frozen=True):
    """The content of one partition; a table of another engine than MergeTree is one.

    Attributes:
        rows: how many.
        checksum: the digest of the rows (tables/digest.py); "" if it was not computed; None: 2.0.0
            could not compute it, as each row has a NULL.
        parts: a hash of the parts' names and checksums; "" where the server does not say.
    """

    rows: Number
    checksum: Digest | None
    parts: str = NO_PARTS

    def agrees_with(self, other: "Partition") -> bool:
        """Tell whether the checksums are the same, where both are there."""
        return not (self.checksum and other.checksum) or self.checksum == other.checksum

    def has_same_rows(self, other: "Partition") -> bool:
        """Tell whether the rows are the same."""
        if self.checksum and other.checksum:
            return (self.rows, self.checksum) == (other.rows, other.checksum)
        return self.rows == other.rows and self.parts == other.parts


NO_ROWS = Partition(0, "0")
Partitions = dict[str, Partition]


@dataclass(frozen=True)
class ContentSource:
    """A table whose content is wanted.

    Attributes:
        database: of the table.
        table: its name.
        engine: its name.
        digest: of its rows, as SQL; "" if they are only counted.
    """

    database: str
    table: str
    engine: str
    digest: str


def read_content(
    database: Database,
    source: ContentSource,
    earlier: Mapping[str, Partition] | None = None,
    settings: str = "",
    covered: Collection[str] = (),
) -> Partitions:
    """Return the content of a table, by the ID of the partition.

    Args:
        database: the connection.
        source: the table.
        earlier: its content of before; partitions whose parts are the same are not read again.
        settings: of the query, as SQL; "" for none.
        covered: the partitions that have the rows of before, whatever their parts are.
    """
    has_partitions = source.engine.endswith("MergeTree")
    parts = _parts(database, source) if has_partitions else {}
    same = {
        name: msgspec.structs.replace(partition, parts=parts[name])
        for name, partition in (earlier or {}).items()
        if name in parts and (name in covered or partition.parts == parts[name] != NO_PARTS)
    }
    if parts and parts.keys() == same.keys():
        return same
    # No alias: it would stand for a column of the same name wherever that is hashed.
    partition, group = (PARTITION, f" GROUP BY {PARTITION}") if has_partitions else ("''", "")
    condition = ""
    if same:
        condition = f" WHERE {PARTITION} NOT IN ({', '.join(map(literal, same))})"
    rows = database.query(
        f"SELECT {partition}, count(), {source.digest or literal('')}"
        f" FROM {quoted(source.database)}.{quoted(source.table)}"
        f"{condition}{group} HAVING count() > 0" + (f" SETTINGS {settings}" if settings else "")
    )
    read = {name: Partition(count, sums, parts.get(name, "")) for name, count, sums in rows}
    return dict(sorted((same | read).items()))


def differences(before: Mapping[str, Partition], after: Mapping[str, Partition]) -> Partitions:
    """Return the partitions of `after` that have other rows than before; those without any, too."""
    return {
        name: after.get(name, NO_ROWS)
        for name in sorted(before.keys() | after.keys())
        if not before.get(name, NO_ROWS).has_same_rows(after.get(name, NO_ROWS))
    }


def both(first: Mapping[str, Partition], second: Mapping[str, Partition]) -> Partitions:
    """Return the partitions that two shards have together."""
    return {
        name: _sum([shard[name] for shard in (first, second) if name in shard])
        for name in sorted(first.keys() | second.keys())
    }


def _sum(partitions: Sequence[Partition]) -> Partition:
    if len(partitions) == 1:
        return Partition(partitions[0].rows, partitions[0].checksum)
    sums = [partition.checksum for partition in partitions]
    checksum = sum_of_digests(sums) if all(sums) else ""
    return Partition(sum(partition.rows for partition in partitions), checksum)


def columns_of(database: Database, of: str, table: str, names: Sequence[str]) -> list[Expression]:
    """Return columns of a table, which is in the database `of`, with their types."""
    return expressions(database, list(map(quoted, names)), f"{quoted(of)}.{quoted(table)}")


def _parts(database: Database, source: ContentSource) -> dict[str, str]:
    """Return a hash of the parts of each partition; nothing if that does not tell the content."""
    rows = database.query(
        "SELECT partition_id, toString(groupBitXor(sipHash64(name, hash_of_all_files))),"
        # Those of a lightweight UPDATE change rows of other parts.
        " countIf(startsWith(name, 'patch-')) FROM system.parts"
        " WHERE active AND database = %(database)s AND table = %(table)s GROUP BY partition_id",
        {"database": source.database, "table": source.table},
    )
    if any(patches for _, _, patches in rows):
        return {}
    return {partition: digest for partition, digest, _ in rows}
