"""The months whose databases are worth asking for; they are published once a month."""

from collections.abc import Sequence
from datetime import date, timedelta

from downloads import DatabaseSource


def months_to_try(today: date, installed: str, *, dated: bool, again: bool = False) -> list[str]:
    """Return the months, YYYY-MM, whose databases are wanted, the best first.

    Args:
        today: decides what the newest month is.
        installed: the month whose databases are installed and whole; "" for none.
        dated: whether each month has its own address. Otherwise the server has to be asked.
        again: whether the installed month is to be asked for once more.
    """
    this = f"{today:%Y-%m}"
    if installed > this:  # a clock was wrong; it would keep every real month out
        installed = ""
    if not dated:
        return [this]
    previous = f"{today.replace(day=1) - timedelta(days=1):%Y-%m}"
    return [
        month for month in (this, previous) if month > installed or (again and month == installed)
    ]


def are_dated(sources: Sequence[DatabaseSource]) -> bool:
    """Tell whether each month has its own address, so that it can be not published yet."""
    return any(source.dated for source in sources)


def may_change(sources: Sequence[DatabaseSource]) -> bool:
    """Tell whether an address has no month, so that it can have something new at any time."""
    return not all(source.dated for source in sources)
