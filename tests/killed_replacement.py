"""A process that replaces tables and kills itself (SIGKILL) at one statement.

Run by test_tables.py: `python killed_replacement.py URI ROWS WHEN STATEMENT NUMBER`, where WHEN is
`before` or `after`, and STATEMENT the beginning of the statement that is counted up to NUMBER.
"""

import os
import signal
import sys
from typing import Any

from ooni_common.database import Database
from ooni_common.driver import Driver
from ooni_common.nodes import Nodes
from ooni_common.swap.content import blocks_of
from ooni_common.swap.replace import replace_tables
from ooni_common.swap.update import Update
from reference_tables import PAIR, new_rows


class KillingClient:
    """A connection that kills its process before or after a chosen statement."""

    def __init__(self, client: Driver, when: str, statement: str, number: int) -> None:
        self._client = client
        self._when = when
        self._statement = statement
        self._left = number

    def execute(self, query: str, params: Any = None, **options: Any) -> Any:
        """Run the statement, unless it is the one."""
        chosen = query.startswith(self._statement)
        self._left -= chosen
        if chosen and self._left == 0 and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = self._client.execute(query, params, **options)
        if chosen and self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    def disconnect(self) -> None:
        """Close the connection."""
        self._client.disconnect()


def main() -> None:
    """Replace both tables of the pair with ROWS new rows each."""
    uri, rows, when, statement, number = sys.argv[1:]
    client = KillingClient(Driver.from_url(uri), when, statement, int(number))
    updates = [Update(table, blocks_of(new_rows(int(rows))), (0, 10**6)) for table in PAIR]
    replace_tables(Nodes.one(Database(client)), updates)


if __name__ == "__main__":
    main()
