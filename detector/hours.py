"""Hours are numbers here: hours since 1970, UTC."""

from datetime import UTC, datetime

HOUR = 3600  # seconds


def hour_of(time: datetime) -> int:
    """Return the hour of a time; a time without zone is UTC."""
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()) // HOUR


def time_of(hour: int) -> datetime:
    """Return when an hour begins."""
    return datetime.fromtimestamp(hour * HOUR, tz=UTC)
