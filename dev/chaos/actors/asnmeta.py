"""The updater of the ASN metadata, and a small map."""

import contextlib
import json
from collections.abc import Iterator
from datetime import date
from typing import Any, Self

from dev.chaos.actors.actor import Updater
from dev.chaos.scene import Scene
from dev.chaos.versions import Versions
from dev.samples.asn_map import asn_map
from dev.servers.fault_proxy import FaultProxy
from dev.servers.upstream import SampleUpstream

ASNS, ROWS = 300, 900
FIRST_ADDED = 4_100_000_000
COLUMNS = "asn, org_name, cc, changed, aut_name, source"


class AsnMeta(Updater):
    """The updater of the ASN metadata."""

    name = "asnmeta"
    script = "analysis/asnmeta_updater.py"
    tables = {"asnmeta": "asnmeta_tmp"}  # noqa: RUF012 (of Actor)

    def __init__(self, scene: Scene, upstream: FaultProxy) -> None:
        super().__init__(scene, upstream)
        self.versions = Versions[list[Any]]("asnmeta")
        self._map = json.loads(asn_map(ASNS, ROWS))
        self.create_database()
        self.advance(0)

    @classmethod
    @contextlib.contextmanager
    def running(cls, scene: Scene) -> Iterator[Self]:
        """Serve the map."""
        folder = scene.folder / "asnmeta-upstream"
        folder.mkdir()
        with SampleUpstream(folder) as server, FaultProxy(server.address) as proxy:
            yield cls(scene, proxy)

    def keys(self) -> dict[str, object]:
        """Return where its upstream and its table are."""
        return {
            "db_uri": self.scene.uri(self.database),
            "url": f"{self.upstream.url}/all_as_org_map.json",
            "total_time": 20,
            "max_bytes": 1_000_000,
            "min_rows": 100,
        }

    def advance(self, draw: float) -> None:
        """Add some organisations to the map, and rename the last one."""
        for _ in range(1 + int(draw * 10)):
            number = FIRST_ADDED + len(self._map)
            self._map[str(number)] = [[f"Net {number}", "IT", "20260101", f"AS-{number}", "RIPE"]]
        self._map[str(number)][0][0] = f"Net of {draw}"
        content = json.dumps(self._map, ensure_ascii=draw < 0.5).encode()
        (self.scene.folder / "asnmeta-upstream" / "all_as_org_map.json").write_bytes(content)
        rows = {
            (int(asn), name, cc, date(int(day[:4]), int(day[4:6]), int(day[6:])), network, source)
            for asn, history in self._map.items()
            for name, cc, day, network, source in history
        }
        self.versions.add(sorted(rows, key=repr))

    def forget_seen(self) -> None:
        """Let readers see any version next."""
        self.versions.forget_seen()

    def violations(self, *, current: bool) -> Iterator[str]:
        """Yield that the table isn't a complete version, or is an older one than was seen."""
        yield self.versions.violation(self.rows_of("asnmeta", COLUMNS), current=current)
