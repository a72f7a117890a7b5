"""Which backups a schedule keeps: the newest one of each of the last days, weeks, months and years.

Only days on which there is a backup count: where none is made any more, none is lost.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from backup_config import Period
from backups.stored import Backup

# As `strftime` writes them; of the same period the same text, UTC. Weeks begin on Mondays.
PERIODS: Mapping[Period, str] = {
    "daily": "%Y-%m-%d",
    "weekly": "%G-W%V",
    "monthly": "%Y-%m",
    "yearly": "%Y",
}


def scheduled(backups: Iterable[Backup], keep: Mapping[Period, int]) -> dict[str, list[str]]:
    """Return the names of the backups that a schedule keeps, and what for, such as "2026-W07".

    Args:
        backups: good ones. The newest of them stays, whatever the schedule says.
        keep: how many of the last days, weeks, months and years keep their newest one.
    """
    newest_first = sorted(backups, key=lambda backup: backup.name, reverse=True)
    kept: dict[str, list[str]] = {}
    if newest_first:
        kept[newest_first[0].name] = ["the newest"]
    for period, count in keep.items():
        for name, text in _newest_of_each(newest_first, PERIODS[period], count):
            kept.setdefault(name, []).append(text)
    return kept


def _newest_of_each(
    newest_first: Iterable[Backup], pattern: str, count: int
) -> list[tuple[str, str]]:
    """Return the newest backup of each of the last periods, and the period."""
    newest: dict[str, str] = {}
    for backup in newest_first:
        newest.setdefault(_period(backup.started, pattern), backup.name)
    return [(name, period) for period, name in list(newest.items())[:count]]


def _period(time: datetime, pattern: str) -> str:
    return time.strftime(pattern)
