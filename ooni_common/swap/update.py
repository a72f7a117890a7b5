"""What is to be replaced by what, and what has become of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ooni_common.database import quoted
from ooni_common.swap.content import Block, Content, Row, blocks_of


@dataclass(frozen=True)
class Table:
    """A table that is replaced as a whole.

    Attributes:
        name: the live table.
        shadow: the table that new rows go into.
        columns: name → type, in the order of the rows' values.
        engine: the text from `ENGINE` on, for a first run; later the live table's own is kept.
        identity: the columns by which a row is still the same row after a change of the others.
    """

    name: str
    shadow: str
    columns: Mapping[str, str]
    engine: str
    identity: tuple[str, ...]

    def ddl(self, name: str) -> str:
        """Return the statement that creates a table of this kind called `name`."""
        columns = ", ".join(f"{quoted(column)} {kind}" for column, kind in self.columns.items())
        return f"CREATE TABLE IF NOT EXISTS {quoted(name)} ({columns}) {self.engine}"


@dataclass(frozen=True)
class LossLimit:
    """How many live rows may disappear: a share (0 to 1) of them.

    A loss of up to `rows` rows is always accepted. A `net` loss is how many fewer rows there are,
    any other one how many rows are gone by their identity, whatever came for them.
    """

    share: float
    rows: int = 0
    net: bool = False


@dataclass(frozen=True)
class Update:
    """The new content of a table and the limits that it must keep.

    Attributes:
        table: what to replace.
        blocks: the new rows; iterated once.
        bounds: the number of rows must lie between these, both excluded.
        limits: on the rows that disappear.
        content: what the rows add up to, when the caller knows it beforehand: then an update that
            changes nothing writes nothing.
    """

    table: Table
    blocks: Iterable[Block]
    bounds: tuple[int, int]
    limits: tuple[LossLimit, ...] = ()
    content: Content | None = None

    @classmethod
    def of_rows(
        cls,
        table: Table,
        rows: Iterable[Row],
        bounds: tuple[int, int],
        limits: tuple[LossLimit, ...] = (),
    ) -> "Update":
        """Return an update of rows that fit into memory, so that its content is known."""
        blocks = list(blocks_of(rows))
        content = sum((block.content for block in blocks), start=Content())
        return cls(table, blocks, bounds, limits, content)


@dataclass(frozen=True)
class Change:
    """What an update changed.

    Attributes:
        table: the table.
        live: its new content.
        previous: the content that it had before.
        difference: rows added and lost, for people.
    """

    table: Table
    live: Content
    previous: Content
    difference: str = ""

    @property
    def swapped(self) -> bool:
        """Whether the live table's content is another one now."""
        return self.live != self.previous

    def __str__(self) -> str:
        difference = self.difference if self.swapped else ", unchanged"
        return f"{self.table.name}: {self.live.rows:,} rows{difference}"
