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
        self._contents: list[bytes] = []
        self._map = json.loads(asn_map(ASNS, ROWS))
        scene.create_database(self.database)
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
            "url": f"{self.upstream.url}/all_as_org_map.json",
            "total_time": 6,
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
        rows = {
            (int(asn), name, cc, date(int(day[:4]), int(day[4:6]), int(day[6:])), network, source)
            for asn, history in self._map.items()
            for name, cc, day, network, source in history
        }
        self._publish(content, sorted(rows, key=repr))

    def go_back(self) -> None:
        """Publish the former map again."""
        self._publish(self._contents[-2:][0], self.versions.former)

    def versions_seen(self) -> tuple[Versions[list[Any]]]:
        """Return those of the table."""
        return (self.versions,)

    def violations(self, *, current: bool, reader: int) -> Iterator[str]:
        """Yield that the table isn't a complete version, or is an older one than was seen."""
        rows = self.rows_of("asnmeta", COLUMNS, reader)
        yield self.versions.violation(rows, current=current, reader=reader)

    def _publish(self, content: bytes, rows: list[Any]) -> None:
        (self.scene.folder / "asnmeta-upstream" / "all_as_org_map.json").write_bytes(content)
        self._contents.append(content)
        self.versions.add(rows)
