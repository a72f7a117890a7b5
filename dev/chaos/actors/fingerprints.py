"""The updater of the fingerprints, and a folder with both files."""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal, Self

from dev.chaos.actors.actor import Updater
from dev.chaos.scene import Scene
from dev.chaos.versions import Versions
from dev.samples.fingerprints import HEADER, SampleFingerprints
from dev.servers.fault_proxy import FaultProxy
from dev.servers.upstream import SampleUpstream

Protocol = Literal["dns", "http"]
KINDS: tuple[Protocol, ...] = ("dns", "http")


class Fingerprints(Updater):
    """The updater of the fingerprints."""

    name = "fingerprints"
    script = "analysis/fingerprints_updater.py"
    tables = {f"fingerprints_{kind}": f"fingerprints_{kind}_tmp" for kind in KINDS}  # noqa: RUF012 (of Actor)

    def __init__(self, scene: Scene, upstream: FaultProxy) -> None:
        super().__init__(scene, upstream)
        self.versions = {kind: Versions[list[Any]](f"fingerprints_{kind}") for kind in KINDS}
        self._samples = [SampleFingerprints(dns=110, http=150)]
        scene.create_database(self.database)
        self._publish()

    @classmethod
    @contextlib.contextmanager
    def running(cls, scene: Scene) -> Iterator[Self]:
        """Serve both files."""
        folder = scene.folder / "fingerprints-upstream"
        folder.mkdir()
        with SampleUpstream(folder) as server, FaultProxy(server.address) as proxy:
            yield cls(scene, proxy)

    def keys(self) -> dict[str, object]:
        """Return where its upstream and its tables are."""
        return {
            "dns_url": f"{self.upstream.url}/fingerprints_dns.csv",
            "http_url": f"{self.upstream.url}/fingerprints_http.csv",
            "total_time": 6,
            "max_bytes": 1_000_000,
        }

    def advance(self, draw: float) -> None:
        """Add fingerprints to one file or to both."""
        sample = self._samples[-1]
        if draw < 0.7:
            sample = sample.with_added("dns", 1 + int(draw * 5))
        if draw > 0.3:
            sample = sample.with_added("http", 1 + int(draw * 5))
        self._samples.append(sample)
        self._publish()

    def go_back(self) -> None:
        """Publish the former files again."""
        self._samples.append(self._samples[-2:][0])
        self._publish()

    def versions_seen(self) -> list[Versions[list[Any]]]:
        """Return those of both tables."""
        return list(self.versions.values())

    def violations(self, *, current: bool, reader: int) -> Iterator[str]:
        """Yield a table that isn't a complete version, or is an older one than was seen."""
        for kind, versions in self.versions.items():
            rows = self.rows_of(f"fingerprints_{kind}", ", ".join(HEADER), reader)
            yield versions.violation(rows, current=current, reader=reader)

    def _publish(self) -> None:
        folder = self.scene.folder / "fingerprints-upstream"
        sample = self._samples[-1]
        contents: dict[Protocol, bytes] = {"dns": sample.dns, "http": sample.http}
        for kind, content in contents.items():
            (folder / f"fingerprints_{kind}.csv").write_bytes(content)
            rows = [(*row[:6], int(row[6]), *row[7:]) for row in sample.rows(kind)]
            self.versions[kind].add(sorted(rows, key=repr), alone=True)
