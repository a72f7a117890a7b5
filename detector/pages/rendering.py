"""From templates to pages."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from detector_config import Config
from ooni_common.output import counted
from outputs.links import country_link, country_page, incident_page, service_page
from outputs.tallies import Tally
from outputs.wording import (
    MONTHS,
    clean,
    country,
    iso,
    network_name,
    percent,
    spoken,
    spoken_date,
    spoken_duration,
    within,
)
from pages.figures import PRECISION

if TYPE_CHECKING:
    import jinja2

OONI = "Open Observatory of Network Interference"
OONI_URL = "https://ooni.org"
LONGEST = 90  # characters of a name or an input that a page shows


@dataclass(frozen=True)
class Site:
    """What the pages say of themselves.

    Attributes:
        public_url: where they are served, with a slash at the end; "": nobody knows.
        licence: of the data, by name.
        licence_url: its text.
        copyright: who has it.
        contact: an address of mail, or of a page, for questions and corrections; "": none.
    """

    public_url: str = ""
    licence: str = "CC BY-NC-SA 4.0"
    licence_url: str = "https://creativecommons.org/licenses/by-nc-sa/4.0/"
    copyright: str = OONI
    contact: str = ""

    @classmethod
    def of(cls, config: Config) -> "Site":
        """Return what the configuration says."""
        return cls(
            config.public_url,
            config.public_licence,
            config.public_licence_url,
            config.public_owner,
            config.public_contact,
        )

    @property
    def contact_link(self) -> str:
        """Where a contact leads."""
        on_the_web = self.contact.startswith(("https://", "http://"))
        return self.contact if on_the_web else f"mailto:{self.contact}"

    @property
    def owner_url(self) -> str:
        """Where whoever has the copyright can be reached; "": nobody knows."""
        return OONI_URL if self.copyright == OONI else ""

    @property
    def is_non_commercial(self) -> bool:
        """Whether the licence is one of Creative Commons that excludes commercial use."""
        return "creativecommons.org/licenses/by-nc" in self.licence_url


@dataclass(frozen=True)
class Link:
    """What a link says, and where it leads; "": nowhere."""

    text: str
    url: str


def render(template: str, path: str, site: Site, **values: object) -> bytes:
    """Return a page.

    Args:
        template: its file's name, without the suffixes.
        path: of the page below output_dir.
        site: says who publishes it.
        values: what the template uses.
    """
    up = "../" * path.count("/")
    values = {"charts": False, "precision": round(100 * PRECISION), **values}
    text = (
        _environment()
        .get_template(f"{template}.html.jinja")
        .render(up=up, path=path, site=site, **values)
    )
    return text.encode()


@functools.cache
def _environment() -> "jinja2.Environment":
    from ooni_common.templates import templates_in  # noqa: PLC0415 (most commands need none)

    environment = templates_in(Path(__file__).parent)
    environment.filters |= {
        "clean": clean,
        "counted": counted,
        "country": country_name,
        "country_link": country_link,
        "country_page": country_page,
        "date": spoken_date,
        "duration": spoken_duration,
        "incident_page": incident_page,
        "iso": iso,
        "month": month_name,
        "network_name": network_name,
        "of_countries": of_countries,
        "of_networks": of_networks,
        "percent": percent,
        "said": said,
        "service_page": service_page,
        "shortened": shortened,
        "spoken": spoken,
        "within": within_name,
    }
    return environment


def country_name(code: str) -> str:
    """Return the name of a country, or the beginning of what stands in its place."""
    return shortened(country(code))


def within_name(code: str) -> str:
    """Return the name of a country as it follows "in", or the beginning of what stands there."""
    return shortened(within(code))


def of_countries(number: int) -> str:
    """Return a number of countries for people."""
    return f"{number:,} {'country' if number == 1 else 'countries'}"


def of_networks(part: int, whole: int) -> str:
    """Return a part of some networks for people: "3 of 14 networks"."""
    return f"{part:,} of {counted(whole, 'network')}"


def said(tally: Tally) -> str:
    """Return counts for people: "80 of 88 measurements (91%) from 40 runs"."""
    whole = counted(tally.measurements, "measurement")
    share = percent(tally.anomalies, tally.measurements)
    return f"{tally.anomalies:,} of {whole} ({share}%) from {counted(tally.runs, 'run')}"


def shortened(text: str, longest: int = LONGEST) -> str:
    """Return a text that every page can hold, or its beginning."""
    text = clean(text)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def month_name(time: datetime) -> str:
    """Return a month for people: "Jan 2026"."""
    return f"{MONTHS[time.month - 1]} {time.year}"


def linked_within(links: Sequence[Link], budget: int) -> list[Link]:
    """Return links, of which the last ones lead nowhere if all are too long for a page.

    Args:
        links: which.
        budget: characters of all addresses together.
    """
    kept = []
    for link in links:
        budget -= len(link.url)
        kept.append(link if budget >= 0 else Link(link.text, ""))
    return kept
