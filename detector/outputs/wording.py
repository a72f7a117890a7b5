"""How the outputs write texts, numbers, times, durations and places: plain English, UTC."""

import functools
import re
from collections.abc import Mapping
from datetime import datetime, timedelta

from ooni_common.output import counted

# Not of strftime(), which asks the locale.
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# What XML 1.0 can't hold, whatever the escape; lone surrogates are in it, which UTF-8 can't.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# Where English says "in the …"; what ends in "Islands" is known by that.
_WITH_ARTICLE = frozenset(
    {"AE", "BQ", "BS", "CF", "DO", "GB", "GM", "IM", "KM", "MV", "NL", "PH", "PS", "TF", "US"}
)


def clean(text: str) -> str:
    """Return a text that every output can hold; what none can is a replacement character."""
    return _UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def iso(time: datetime) -> str:
    """Return a time, UTC, for programs."""
    return f"{time.isoformat()[:19]}Z"


def spoken(time: datetime) -> str:
    """Return a time, UTC, for people."""
    return f"{spoken_date(time)}, {time.hour:02}:{time.minute:02} UTC"


def spoken_date(time: datetime) -> str:
    """Return a day for people."""
    return f"{time.day} {MONTHS[time.month - 1]} {time.year}"


def spoken_duration(duration: timedelta) -> str:
    """Return a duration for people, as they would round it."""
    hours = max(0, round(duration.total_seconds() / 3600))
    days, hours = divmod(hours, 24)
    if days >= 14:
        return counted(days, "day")
    if days:
        return f"{counted(days, 'day')} {counted(hours, 'hour')}" if hours else counted(days, "day")
    return counted(hours, "hour") if hours else "less than an hour"


def of_measurements(measurements: int, anomalies: int, runs: int) -> str:
    """Return counts for people: "8 of 8 measurements, from 5 runs,"; a verb follows."""
    whole = counted(measurements, "measurement")
    return f"{anomalies:,} of {whole}, from {counted(runs, 'run')},"


def percent(part: int, whole: int) -> int:
    """Return the rounded share; only none is 0, and only all is 100."""
    rounded = round(100 * part / whole)
    return min(max(1, rounded), 99) if 0 < part < whole else rounded


def network_name(asn: int) -> str:
    """Return the name of a network."""
    return f"AS{asn}"


def is_code(code: str) -> bool:
    """Tell whether this can be the code of a country (ISO 3166-1 alpha-2)."""
    return re.fullmatch("[A-Z]{2}", code) is not None


def country(code: str) -> str:
    """Return the name of a country as the CLDR has it, or its code (https://cldr.unicode.org)."""
    return _names().get(code, code) if is_code(code) else clean(code)


def within(code: str) -> str:
    """Return the name of a country as it follows "in": "Iran", "the Netherlands"."""
    name = country(code)
    return f"the {name}" if code in _WITH_ARTICLE or name.endswith("Islands") else name


@functools.cache
def _names() -> Mapping[str, str]:
    from babel import Locale  # noqa: PLC0415 (it reads large files; most commands need none)

    return Locale("en").territories
