"""Names on the command line: of tables, exports and backups."""

import difflib
from collections.abc import Collection, Iterable

from ooni_common.errors import UsageError

MOST_LISTED = 20


def check_names(names: Iterable[str], there: Collection[str], what: str = "table") -> None:
    """Check that names are of things that exist.

    Args:
        names: from the command line.
        there: the names of all that exists.
        what: these are, for the message.

    Raises:
        UsageError: one of them does not; it says what does.
    """
    for name in names:
        if name not in there:
            raise UsageError(f"there is no {what} {name!r}{_instead(name, sorted(set(there)))}")


def _instead(name: str, there: list[str]) -> str:
    if not there:
        return "; there is none at all"
    if similar := difflib.get_close_matches(name, there, n=3):
        return f"; did you mean {' or '.join(map(repr, similar))}?"
    more = f" and {len(there) - MOST_LISTED} more" if len(there) > MOST_LISTED else ""
    return f"; there are: {', '.join(there[:MOST_LISTED])}{more}"
