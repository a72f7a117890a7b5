"""Dates of the command line."""

import argparse
from datetime import UTC, datetime


def date_argument(text: str) -> datetime:
    """Read a day or an hour, UTC.

    Raises:
        argparse.ArgumentTypeError: it is neither, or before the year 1 or after 9999 in UTC.
    """
    try:
        time = datetime.fromisoformat(text)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (OverflowError, ValueError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a date; expected 2025-01-31 or 2025-01-31T12:00"
        ) from None
    if time != time.replace(minute=0, second=0, microsecond=0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a full hour")
    return time
