"""The months whose databases are worth asking for; they are published once a month."""

from collections.abc import Sequence
from datetime import date, timedelta

from downloads import DatabaseSource


def months_to_try(today: date, installed: str, *, dated: bool, moved: bool = False) -> list[str]:
    """Return the months, YYYY-MM, whose databases are wanted, the best first.

    Args:
        today: decides what the newest month is.
        installed: the month whose databases are installed and whole; "" for none.
        dated: whether each month has its own address. Otherwise the server has to be asked.
        moved: whether the installed month has another address now, and is to be asked for again.
    """
    this = f"{today:%Y-%m}"
    if installed > this:  # a clock was wrong; it would keep every real month out
        installed = ""
    if not dated:
        return [this]
    previous = f"{today.replace(day=1) - timedelta(days=1):%Y-%m}"
    again = [installed] if moved else []
    return [month for month in (this, previous) if month > installed or month in again]


def are_dated(sources: Sequence[DatabaseSource]) -> bool:
    """Tell whether each month has its own address, so that it can be not published yet."""
    return any(source.dated for source in sources)
