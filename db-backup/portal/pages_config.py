"""The keys of db-backup.conf of which the pages are made."""

import re
from typing import Annotated

from msgspec import Meta

from ooni_common.config import DatabaseConfig, check_url

OWNER = "Open Observatory of Network Interference"
BASE_URL = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9._~:/-]*")  # needs no quoting anywhere


class PagesConfig(DatabaseConfig, frozen=True, kw_only=True):
    """What the operator says of the data; the keys are explained in db-backup.conf."""

    public_base_url: str = ""
    public_licence: str = "CC BY-NC-SA 4.0"
    public_licence_url: str = "https://creativecommons.org/licenses/by-nc-sa/4.0/"
    public_owner: str = OWNER
    public_contact: str = ""
    keep_snapshots: Annotated[int, Meta(ge=1)] = 1000

    @property
    def public_databases(self) -> tuple[str, ...]:
        """The names of other databases that have pages of their own."""
        return ()

    def __post_init__(self) -> None:
        """Refuse addresses that the pages can't have."""
        super().__post_init__()
        check_url("public_licence_url", self.public_licence_url, ("https", "http"))
        if self.public_base_url and not BASE_URL.fullmatch(self.public_base_url):
            raise ValueError(
                "public_base_url: expected https://… of letters, digits and -._~:/, as commands on"
                " the pages have it"
            )
