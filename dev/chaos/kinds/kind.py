"""A kind of fault."""

from collections.abc import Callable
from dataclasses import dataclass

from dev.chaos.play import Play

EVERYBODY = ("citizenlab", "fingerprints", "asnmeta", "geoip", "backup", "detector")
OVER_HTTP = ("citizenlab", "fingerprints", "asnmeta", "geoip", "backup")
UPDATERS = ("citizenlab", "fingerprints", "asnmeta", "geoip")
FILES = ("fingerprints", "asnmeta", "geoip")
WITH_DATABASE = ("citizenlab", "fingerprints", "asnmeta", "backup", "detector")
WITH_SHADOWS = ("citizenlab", "fingerprints", "asnmeta", "detector")
MOSTLY_ROWS = ("citizenlab", "fingerprints", "asnmeta")  # is what they send the database


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        name: in schedules and reports.
        actors: whom it can happen to.
        inflict: lets it happen, and runs the tool.
        needs_news: without something new upstream, it would not be noticed.
        missing: says what this machine lacks for it; "" for nothing.
    """

    name: str
    actors: tuple[str, ...]
    inflict: Callable[[Play], None]
    needs_news: bool = False
    missing: Callable[[], str] = lambda: ""
