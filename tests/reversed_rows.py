"""A plugin for pytest: rows that no ORDER BY orders come in reverse.

The engine promises them in no order, mostly gives one, and under load gives another. A test, or a
tool, that counts on it fails with `-p tests.reversed_rows`, instead of once a week.
"""

import re
from typing import Any

import clickhouse_driver
import pytest

NESTED = re.compile(r"\([^()]*\)")
READS = re.compile(r"\s*(SELECT|WITH|SHOW TABLES)\b", re.IGNORECASE)
ORDERS = re.compile(r"\bORDER\s+BY\b", re.IGNORECASE)


def is_ordered(query: str) -> bool:
    """Say whether a statement orders its rows, or returns none that have an order."""
    if not READS.match(query):
        return True
    nested, outermost = query, NESTED.sub("", query)
    while nested != outermost:
        nested, outermost = outermost, NESTED.sub("", outermost)
    return ORDERS.search(outermost) is not None


@pytest.hookimpl(trylast=True)
def pytest_configure() -> None:
    """Put it between each client and who uses it."""
    execute = clickhouse_driver.Client.execute

    def reversing(self: clickhouse_driver.Client, query: str, *args: Any, **options: Any) -> Any:
        rows = execute(self, query, *args, **options)
        return rows[::-1] if isinstance(rows, list) and not is_ordered(query) else rows

    clickhouse_driver.Client.execute = reversing
