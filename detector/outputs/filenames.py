"""The names of the output files, safe whatever an input or a code holds."""

import hashlib
import re

from outputs.places import is_code
from series import Series

READABLE = 80  # characters, at most, of the part for people
HASH = 16  # hexadecimal digits of the part that tells names apart

GLOBAL = "global"
BY_COUNTRY = "by-country"
BY_SERIES = "by-series"


def of_country(code: str) -> str:
    """Return the path of a country's feed below rss/ and json/, without a suffix."""
    return f"{BY_COUNTRY}/{code if is_code(code) else _safe(code, (code,))}"


def of_series(series: Series) -> str:
    """Return the path of a series' feed below rss/ and json/, without a suffix."""
    target = re.sub("^[a-z]+://", "", series.input)
    parts = (series.probe_cc, f"AS{series.probe_asn}", series.test_name, target)
    return f"{BY_SERIES}/{_safe('.'.join(part for part in parts if part), series)}"


def digest(parts: tuple[object, ...]) -> str:
    """Return what tells these parts from all others."""
    # No part holds NUL: neither a code nor a URL in the database does.
    content = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(content).hexdigest()[:HASH]


def _safe(readable: str, parts: tuple[object, ...]) -> str:
    """Return a name: a part for people, as far as it is safe, and a hash of everything."""
    words = re.sub("[^A-Za-z0-9.]+", "-", readable)
    words = re.sub(r"\.{2,}", ".", words)[:READABLE].strip("-.")
    return f"{words}-{digest(parts)}" if words else digest(parts)


# The files of feeds whose subject can disappear, and nothing else.
FLEETING = re.compile(
    rf"(?:{BY_COUNTRY}/[A-Z]{{2}}|(?:{BY_COUNTRY}|{BY_SERIES})/[A-Za-z0-9.-]*[0-9a-f]{{{HASH}}})"
    r"\.(?:xml|json)"
)
