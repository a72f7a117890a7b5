"""The English names of countries, from the CLDR (https://cldr.unicode.org)."""

import functools
import re
from collections.abc import Mapping

from outputs.wording import clean

# Where English says "in the …"; what ends in "Islands" is known by that.
_WITH_ARTICLE = frozenset(
    {"AE", "BQ", "BS", "CF", "DO", "GB", "GM", "IM", "KM", "MV", "NL", "PH", "PS", "TF", "US"}
)


def is_code(code: str) -> bool:
    """Tell whether this can be the code of a country (ISO 3166-1 alpha-2)."""
    return re.fullmatch("[A-Z]{2}", code) is not None


def country(code: str) -> str:
    """Return the name of a country, or its code where it has none."""
    return _names().get(code, code) if is_code(code) else clean(code)


def within(code: str) -> str:
    """Return the name of a country as it follows "in": "Iran", "the Netherlands"."""
    name = country(code)
    return f"the {name}" if code in _WITH_ARTICLE or name.endswith("Islands") else name


@functools.cache
def _names() -> Mapping[str, str]:
    from babel import Locale  # noqa: PLC0415 (it reads large files; most commands need none)

    return Locale("en").territories
