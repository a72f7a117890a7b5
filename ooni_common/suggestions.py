"""What somebody may have meant who wrote a name that does not exist."""

import difflib
from collections.abc import Iterable

MOST_LISTED = 20


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return the end of a message about a name: what is closest to it, else what is allowed.

    Args:
        name: as it was written.
        allowed: every name that would do.
    """
    names = sorted(set(allowed))
    in_lower_case = {allowed_name.lower(): allowed_name for allowed_name in names}
    if similar := difflib.get_close_matches(name.lower(), in_lower_case, n=1):
        return f"did you mean {in_lower_case[similar[0]]!r}?"
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return f"allowed: {', '.join(names[:MOST_LISTED])}{more}"
