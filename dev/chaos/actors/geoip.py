"""The GeoIP downloader, and an upstream with a newer month each time."""

import contextlib
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import geoip2.database

from dev.chaos.actors.actor import Actor
from dev.chaos.scene import Scene
from dev.chaos.versions import Versions
from dev.samples.geoip import ASN, COUNTRY, write_month
from dev.servers.fault_proxy import FaultProxy
from dev.servers.upstream import SampleUpstream

FILES = {"asn.mmdb": ASN, "cc.mmdb": COUNTRY}
FIRST_YEAR, LAST_MONTH = 1996, 12 * 30
NETWORKS = 400


class GeoIP(Actor):
    """The GeoIP downloader.

    Attributes:
        published: by file, what upstream has had, compressed, oldest first.
    """

    name = "geoip"
    script = "geoip/ooni_download_geoip.py"
    has_database = False

    def __init__(self, scene: Scene, upstream: FaultProxy) -> None:
        super().__init__(scene, upstream)
        self.output_dir = self.folder / "ooniapi"
        self.output_dir.mkdir()
        self.versions = {name: Versions[bytes](name) for name in FILES}
        self.published: dict[str, list[bytes]] = {name: [] for name in FILES}
        self._month = 0
        self.advance(0)

    @classmethod
    @contextlib.contextmanager
    def running(cls, scene: Scene) -> Iterator[Self]:
        """Serve the databases of the newest month."""
        folder = scene.folder / "geoip-upstream"
        folder.mkdir()
        with SampleUpstream(folder) as server, FaultProxy(server.address) as proxy:
            yield cls(scene, proxy)

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The folder that the databases are installed in."""
        return (self.output_dir,)

    def keys(self) -> dict[str, object]:
        """Return where its upstream and its folder are."""
        return {
            "output_dir": str(self.output_dir),
            "asn_url": f"{self.upstream.url}/asn.mmdb.gz",
            "cc_url": f"{self.upstream.url}/cc.mmdb.gz",
            "total_time": 6,
            "max_bytes": 1_000_000,
            "max_size": 5_000_000,
            "max_age_days": 100_000,  # the months are of long ago
        }

    def advance(self, draw: float) -> None:
        """Publish the databases of the next month; after thirty years there is nothing new."""
        if self._month == LAST_MONTH:
            return
        folder = self.scene.folder / "geoip-upstream"
        month = f"{FIRST_YEAR + self._month // 12}-{self._month % 12 + 1:02}"
        self._month += 1
        write_month(folder, month, networks=NETWORKS)
        for name, kind in FILES.items():
            made = folder / f"{kind.file.format(month)}.gz"
            self.published[name].append(made.read_bytes())
            self.versions[name].add(gzip.decompress(self.published[name][-1]))
            made.replace(folder / f"{name}.gz")

    def versions_seen(self) -> list[Versions[bytes]]:
        """Return those of both files."""
        return list(self.versions.values())

    def violations(self, *, current: bool, reader: int) -> Iterator[str]:
        """Yield an installed file that isn't a version, or is an older one, or can't be read."""
        for name, versions in self.versions.items():
            path = self.output_dir / name
            content = path.read_bytes() if path.is_file() else None
            yield versions.violation(content, current=current)
        if current and not self._can_be_looked_up():
            yield "an address is not found in the installed files"

    def _can_be_looked_up(self) -> bool:
        with (
            geoip2.database.Reader(self.output_dir / "asn.mmdb") as asn,
            geoip2.database.Reader(self.output_dir / "cc.mmdb") as country,
        ):
            number = asn.asn("8.8.8.8").autonomous_system_number
            return (number, country.country("8.8.8.8").country.iso_code) == (15169, "US")
