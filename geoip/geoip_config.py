"""The configuration of ooni-download-geoip, and the databases that it names."""

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from downloads import DatabaseSource
from installation import STAMP
from mmdb import ASN, COUNTRY, MERGED
from ooni_common.config import Bytes, Seconds, SecretUrl, Share, check_url
from ooni_common.config import Config as CommonConfig
from ooni_common.fetch import Limits

LIMITS = Limits(max_bytes=500_000_000, total_time=3600, retries=7)

FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
DBIP = "https://download.db-ip.com/free/dbip-{}-lite-{{year}}-{{month}}.mmdb.gz"


class Config(CommonConfig, frozen=True, kw_only=True):
    """The keys of download-geoip.conf, where each is explained."""

    state_dir: Path = Path("/var/lib/ooni-geoip")
    output_dir: Path = Path("/var/lib/ooniapi")
    asn_url: SecretUrl = SecretUrl(DBIP.format("asn"))
    cc_url: SecretUrl = SecretUrl(DBIP.format("country"))
    asn_cc_url: SecretUrl | None = None
    asn_file: FileName = "asn.mmdb"
    cc_file: FileName = "cc.mmdb"
    asn_cc_file: FileName = "asn_cc.mmdb"
    asn_type: str = "ASN"
    cc_type: str = "Country"
    asn_cc_type: str = "Country"
    ca_file: Path | None = None
    total_time: Seconds = LIMITS.total_time
    max_bytes: Bytes = LIMITS.max_bytes
    max_shrink: Share = 0.2
    max_size: Bytes = 500_000_000
    max_age_days: Annotated[int, Meta(gt=0)] = 45

    def __post_init__(self) -> None:
        """Refuse URLs that can't be fetched, and names that are one file."""
        super().__post_init__()
        for key in ("asn_url", "cc_url", "asn_cc_url"):
            if url := getattr(self, key):
                check_url(key, url.reveal(), ("https", "http", "file"), needs_host=False)
        names = (self.asn_file, self.cc_file, STAMP)
        if len({name.removesuffix(".previous") for name in names}) < len(names):
            raise ValueError(f"cc_file: expected another name than asn_file, and not {STAMP}")
        if self.asn_cc_file.removesuffix(".previous") == STAMP:
            raise ValueError(f"asn_cc_file: expected another name than {STAMP}")


def sources_of(config: Config) -> tuple[DatabaseSource, ...]:
    """Return what has to be installed: two databases, or one that has both."""
    if config.asn_cc_url:
        url, file = config.asn_cc_url, config.asn_cc_file
        return (DatabaseSource(MERGED, url, file, config.asn_cc_type),)
    return (
        DatabaseSource(ASN, config.asn_url, config.asn_file, config.asn_type),
        DatabaseSource(COUNTRY, config.cc_url, config.cc_file, config.cc_type),
    )
