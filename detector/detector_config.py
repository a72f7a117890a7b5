"""The configuration of the detector: what is followed, and for how long."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from ooni_common.config import DatabaseConfig, SecretUrl, check_url
from series import WEB_TEST, Target

Name = Annotated[str, Meta(min_length=1, max_length=60, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
ServiceEntry = Annotated[str, Meta(min_length=1, max_length=4000, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
Guid = Annotated[str, Meta(min_length=1, max_length=1000, pattern=r"^tag:[^\x00-\x20\x7f]+\Z")]
PublicUrl = Annotated[
    str, Meta(max_length=500, pattern=r"^(https?://[^\s/<>\"]+/([^\s<>\"?#]*/)?)?\Z")
]
Said = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
Contact = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x20\x7f<>\"]*\Z")]
Reason = Annotated[str, Meta(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
Hours = Annotated[int, Meta(ge=1, le=10_000)]
Days = Annotated[int, Meta(ge=1, le=1000)]

# URLs of the global test list, and the tests of their own that apps have.
SERVICES: Mapping[str, tuple[str, ...]] = {
    "Facebook": ("https://www.facebook.com/", "https://web.facebook.com/robots.txt"),
    "Facebook Messenger": ("facebook_messenger",),
    "Instagram": ("https://www.instagram.com/", "https://i.instagram.com/robots.txt"),
    "Signal": ("https://signal.org/", "signal"),
    "Telegram": ("https://telegram.org/", "https://telegram.me/", "telegram"),
    "TikTok": ("https://www.tiktok.com/",),
    "Twitter": ("https://twitter.com/", "https://x.com/"),
    "WhatsApp": ("https://www.whatsapp.com/", "whatsapp"),
    "YouTube": ("https://www.youtube.com/",),
}


class Config(DatabaseConfig, frozen=True, kw_only=True):
    """The keys of detector.conf, where each is explained."""

    state_dir: Path = Path("/var/lib/detector")
    db_uri: SecretUrl = SecretUrl("clickhouse://detector:detector@localhost/default")
    output_dir: Path = Path("/var/lib/detector/output")
    services: dict[Name, tuple[ServiceEntry, ...]] = msgspec.field(
        default_factory=lambda: dict(SERVICES)
    )
    late_days: Days = 3
    history_days: Days = 60
    incident_hours: Hours = 48
    stale_days: Days = 30
    page_days: Days = 60
    public_url: PublicUrl = ""
    public_licence: Said = "CC BY-NC-SA 4.0"
    public_licence_url: str = "https://creativecommons.org/licenses/by-nc-sa/4.0/"
    public_owner: Said = "Open Observatory of Network Interference"
    public_contact: Contact = ""
    publish: bool = True
    withdrawn: dict[Guid, Reason] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse services that can't be told from each other."""
        super().__post_init__()
        check_url("public_licence_url", self.public_licence_url, ("https", "http"))
        if not any(self.services.values()):
            raise ValueError("services: at least one, with a URL or a test, is needed")
        seen: dict[Target, str] = {}
        for service, entries in self.services.items():
            for target in map(target_of, entries):
                if target in seen:
                    raise ValueError(
                        f"services: {target[1] or target[0]} is in {seen[target]!r}"
                        f" and in {service!r}"
                    )
                seen[target] = service

    @property
    def service_of(self) -> dict[Target, str]:
        """The service of each test and input."""
        return {
            target_of(entry): service
            for service, entries in self.services.items()
            for entry in entries
        }


def target_of(entry: str) -> Target:
    """Return the test and input that an entry of a service means: a URL, or the name of a test."""
    return (WEB_TEST, entry) if "://" in entry else (entry, "")
