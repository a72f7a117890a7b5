"""A table of times of all kinds, around a turn of the year, and what its exports must be."""

from datetime import UTC, datetime, timedelta

ZONES = ("Asia/Kolkata", "America/New_York")
TURN_OF_THE_YEAR = datetime(2025, 1, 1, tzinfo=UTC)
# It is New Year's Eve in New York until hour 5, and New Year in Kolkata from hour -5.5 on.
HOURS = (-30, -6, -5, -1, 0, 4, 5, 18, 30)
COLUMNS = {
    "at": "DateTime",
    "ms": "DateTime64(3)",
    "own": "DateTime('Asia/Tokyo')",
    "utc": "DateTime64(3, 'UTC')",
    "maybe": "Nullable(DateTime)",
    "list": "Array(Nullable(DateTime64(3)))",
    "named": "Map(String, DateTime)",
    "pair": "Tuple(DateTime DateTime, s String)",
    "n": "Int32",
}


def create(table: str, partition: str = "") -> str:
    """Return the statement that makes the table."""
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    return f"CREATE TABLE {table} ({columns}) ENGINE = MergeTree {partition} ORDER BY at"


def fill(table: str) -> str:
    """Return the statement that fills it, whatever the zone of the session."""
    turn = int(TURN_OF_THE_YEAR.timestamp())
    values = ", ".join(str(turn + hour * 3600) for hour in HOURS)
    return (
        f"INSERT INTO {table} SELECT toDateTime(arrayJoin([{values}])) AS t, t, t, t,"
        " if(n % 2 != 0, NULL, t), [t, NULL], map('k', t), tuple(t, 'x'),"
        f" intDiv(toInt64(toUnixTimestamp(t)) - {turn}, 3600) AS n"
    )


def exported(year: int) -> str:
    """Return the CSV of the month of this year, in UTC."""
    times = {hour: TURN_OF_THE_YEAR + timedelta(hours=hour) for hour in HOURS}
    header = ",".join(f'"{name}"' for name in COLUMNS)
    lines = [_line(time, hour) for hour, time in times.items() if time.year == year]
    return "".join(f"{line}\n" for line in [header, *lines])


def _line(time: datetime, hour: int) -> str:
    text = f"{time:%Y-%m-%d %H:%M:%S}"
    maybe = "\\N" if hour % 2 else f'"{text}"'
    return (
        f'"{text}","{text}.000","{text}","{text}.000",{maybe},'
        f"\"['{text}.000',NULL]\",\"{{'k':'{text}'}}\",\"('{text}','x')\",{hour}"
    )
