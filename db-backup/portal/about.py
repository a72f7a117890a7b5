"""What the operator says of the data, and what changes when pages have to be rewritten."""

import hashlib
from pathlib import Path

import msgspec

from documents import TOOL
from portal.pages_config import OWNER, PagesConfig

OONI = "https://ooni.org"


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator says of the data.

    Attributes:
        licence: its name.
        licence_url: where it is.
        owner: who holds the rights, and is cited.
        contact: an address of mail or the web, or a text; "" for none.
        base_url: of the exports, as the public reads them, without a slash at the end; "": unknown.
        databases: other ones that have pages of their own.
        snapshots: how many snapshots stay, at most.
    """

    licence: str
    licence_url: str
    owner: str
    contact: str = ""
    base_url: str = ""
    databases: tuple[str, ...] = ()
    snapshots: int = 1000

    @property
    def contact_link(self) -> str:
        """The address behind the contact; "" for a text."""
        if self.contact.startswith(("https://", "http://")):
            return self.contact
        is_mail = "@" in self.contact and not any(mark in self.contact for mark in " ?&<>/")
        return f"mailto:{self.contact}" if is_mail else ""

    @property
    def owner_url(self) -> str:
        """Where the owner can be reached; "": nobody knows."""
        return OONI if self.owner == OWNER else ""

    @property
    def is_non_commercial(self) -> bool:
        """Whether the licence is one of Creative Commons that excludes commercial use."""
        return "creativecommons.org/licenses/by-nc" in self.licence_url

    @property
    def edition(self) -> str:
        """What is another text wherever the same manifests would give other pages."""
        templates = sorted(Path(__file__).parent.glob("*.jinja"))
        digest = hashlib.sha256(msgspec.json.encode([TOOL, self]))
        for template in templates:
            digest.update(template.read_bytes())
        return digest.hexdigest()[:16]


def about_of(config: PagesConfig) -> About:
    """Return what a configuration says of the data."""
    return About(
        licence=config.public_licence,
        licence_url=config.public_licence_url,
        owner=config.public_owner,
        contact=config.public_contact,
        base_url=config.public_base_url.removesuffix("index.html").rstrip("/"),
        databases=config.public_databases,
        snapshots=config.keep_snapshots,
    )
