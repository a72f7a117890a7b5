"""The detector, thirty days of measurements, and another one that nothing happens to."""

import contextlib
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, Self

from dev.chaos.actors.actor import FILLING, Updater
from dev.chaos.actors.page import check_page
from dev.chaos.scene import Scene
from dev.chaos.tool import Tool
from dev.chaos.versions import Versions
from dev.samples import blocking
from dev.samples.blocking import Hour
from dev.samples.measurements import FASTPATH
from dev.servers.fault_proxy import FaultProxy

AGE = timedelta(days=2)  # of the last measurements; older than two months, they were not followed
HELD_BACK = 15 * 24  # hours that come one after the other
HOURS = 6  # at a time
COUNTRIES = ("IR", "RU", "ET", "DE")  # two with blocking, one with an outage, one with neither
AMPLE_SECONDS = 600
TABLES = ("blocking_status", "blocking_events")
SERIES = "test_name, input, probe_cc, probe_asn"
CONTENT = {  # somebody may add columns
    "blocking_status": f"{SERIES}, confirmed_perc, pure_anomaly_perc, accessible_perc, cnt, status,"
    " old_status, change, stability, service, since, last_measurement",
    "blocking_events": f"{SERIES}, status, time, detection_time",
}
REFERENCE = "chaos_reference"


class Detector(Updater):
    """The detector; a second one, with a database and folders of its own, says what is right."""

    name = "detector"
    script = "detector/detector.py"
    tables = {name: f"{name}_tmp" for name in TABLES}  # noqa: RUF012 (of Actor)

    def __init__(self, scene: Scene, upstream: FaultProxy) -> None:
        super().__init__(scene, upstream)
        self.output_dir = self.folder / "output"
        self.versions = {name: Versions[list[Any]](name) for name in TABLES}
        self._files: dict[str, bytes] = {}
        self._hours = _by_hour()
        scene.create_database(self.database)
        scene.create_table(self.database, "fastpath", FASTPATH.format(table="fastpath"))
        with scene.client(self.database) as client:
            client.execute(f"CREATE DATABASE {REFERENCE} ENGINE = Atomic")
            client.execute(
                f"CREATE VIEW {REFERENCE}.fastpath AS SELECT * FROM {self.database}.fastpath"
            )
        self._measure(len(self._hours) - HELD_BACK)

    @classmethod
    @contextlib.contextmanager
    def running(cls, scene: Scene) -> Iterator[Self]:
        """Fill `fastpath`; there is nothing else upstream."""
        yield cls(scene, scene.store)

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The folder of the feeds."""
        return (self.output_dir,) if self.output_dir.exists() else ()

    def keys(self) -> dict[str, object]:
        """Return where its tables and its folder are."""
        return {"output_dir": str(self.output_dir)}

    def own_tables(self) -> set[str]:
        """Return the table of the measurements."""
        return {"fastpath"}

    def advance(self, draw: float) -> None:
        """Let some more hours be measured; after two weeks of them there are no more."""
        self._measure(1 + int(draw * HOURS))

    def versions_seen(self) -> list[Versions[list[Any]]]:
        """Return those of both tables."""
        return list(self.versions.values())

    def violations(self, *, current: bool, reader: int) -> Iterator[str]:
        """Yield a table that the undisturbed detector never had, and a file that can't be read."""
        for name, versions in self.versions.items():
            rows = self.rows_of(name, CONTENT[name], reader)
            yield versions.violation(rows, current=current, reader=reader)
        if self.output_dir.is_dir():
            files = _published(self.output_dir)
            yield from _unreadable(files)
            if current and files != self._files:
                names = {
                    name for name in files | self._files if files.get(name) != self._files.get(name)
                }
                yield f"not as the undisturbed detector has written them: {sorted(names)[:5]}"

    def _measure(self, count: int) -> None:
        hours, self._hours = self._hours[:count], self._hours[count:]
        with self.scene.client(self.database) as client:
            blocking.fill(client, [hour for measured in hours for hour in measured])
        self.scene.wait_for_rows(self.database, "fastpath")
        self._run_undisturbed()

    def _run_undisturbed(self) -> None:
        folder = self.folder / "reference"
        folder.mkdir(exist_ok=True)
        uri = self.scene.direct_uri(REFERENCE)
        keys = {"db_uri": uri, "output_dir": str(folder / "output"), "statsd": ""}
        config = folder / "detector.conf"
        config.write_text(json.dumps({**keys, "state_dir": str(folder / "state")}))
        config.chmod(0o600)
        tool = Tool(self.script, ["--config", str(config)], {}, folder / "log")
        outcome = tool.end(AMPLE_SECONDS)
        if outcome.status:
            raise RuntimeError(f"the undisturbed detector: {outcome.output}")
        with self.scene.client(REFERENCE) as client:
            for name in TABLES:
                rows = client.execute(f"SELECT {CONTENT[name]} FROM {name}")
                self.versions[name].add(sorted(rows, key=repr))
        self._files = _published(folder / "output")


def _by_hour() -> list[list[Hour]]:
    sample = (hour for hour in blocking.sample(datetime.now(UTC) - AGE) if hour.cc in COUNTRIES)
    hours = sorted(sample, key=lambda hour: hour.hour)
    return [list(group) for _, group in groupby(hours, key=lambda hour: hour.hour)]


def _published(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != FILLING
    }


def _unreadable(files: dict[str, bytes]) -> Iterator[str]:
    for name, content in files.items():
        try:
            if name.endswith(".json"):
                json.loads(content)
            if name.endswith(".xml"):
                ET.fromstring(content)  # noqa: S314 (our own)
            if name.endswith(".html"):
                check_page(content.decode())
        except (ValueError, ET.ParseError) as error:
            yield f"{name}: {error}"
