"""The rows of exports over the native protocol, which every server speaks.

The server writes the CSV itself, by `formatRow`: the same bytes as over HTTP. A failure is a packet
of its own, so that no row can be taken for one, nor one for a row.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from backup_config import Config
from exports.csv_rows import OUTPUT_SETTINGS, RowStream, header_of
from ooni_common.database import Database, Texts, quoted


@dataclass
class BlockCounter:
    """Counts the rows that the server says it has sent."""

    rows: int = 0
    complete: bool = False
    exact: bool = True
    line_breaks: bool = False  # nobody has looked

    def counting(self, header: bytes, sources: Iterable[Texts]) -> Iterator[bytes]:
        """Yield a document's header and its rows, these when they are counted."""
        yield header
        for texts in sources:
            for piece, rows in texts:
                self.rows += rows
                yield piece
        self.complete = True


class ClickHouseNative:
    """Runs one query at a time, on the connection that everything else is asked on, too.

    So the rows are those of the server that has counted them, also where others share its address.

    Args:
        databases: the connections, one to each shard; the rows of one follow those of another.
        config: the limits of a statement.
    """

    def __init__(self, databases: Sequence[Database], config: Config) -> None:
        self._databases = databases
        self._config = config

    @contextlib.contextmanager
    def rows(
        self,
        select: str,
        names: Sequence[str],
        *,
        exact: bool = True,
    ) -> Iterator[RowStream]:
        """Run a query, as RowSource has it."""
        counter = BlockCounter()
        settings = self._config.query_settings | OUTPUT_SETTINGS
        query = csv_of(select, names)
        with contextlib.ExitStack() as stack:
            # Nothing is sent before the first row is taken.
            sources = [
                stack.enter_context(contextlib.closing(database.texts(query, settings)))
                for database in self._databases
            ]
            yield RowStream(counter.counting(header_of(names), sources), counter)


def csv_of(select: str, names: Sequence[str]) -> str:
    """Return the query of the rows as lines of CSV."""
    return f"SELECT formatRow('CSV', {', '.join(map(quoted, names))}) FROM ({select})"
