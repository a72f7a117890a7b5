"""Running the detector as a whole, in a test, on measurements of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import feedparser
import pytest

import detector
from conftest import Database as FreshDatabase
from dev.samples.blocking import Hour, fill
from dev.samples.measurements import create
from outputs.news import News, news_of
from outputs.publish import drafts_of
from outputs.report import Report
from pages.rendering import Site
from series import Series

START = datetime(2025, 3, 1, tzinfo=UTC)
FACEBOOK = ("web_connectivity", "https://www.facebook.com/")
WHATSAPP = ("whatsapp", "")
ROOT = Path(__file__).parents[1]


def series(cc: str = "IT", asn: int = 1, target: tuple[str, str] = FACEBOOK) -> Series:
    return Series(*target, cc, asn)


def at(hours: float) -> datetime:
    """Return a time, so many hours after the first one of the tests."""
    return START + timedelta(hours=hours)


def measured(
    of: Series, start: int, end: int, *, count: int = 2, anomalies: int = 0, step: int = 1
) -> list[Hour]:
    """Return the same measurements for each of some hours, numbered from START on."""
    first = int(START.timestamp()) // 3600
    return [
        Hour(*of, hour=first + hour, measurements=count, anomalies=anomalies)
        for hour in range(start, end, step)
    ]


def blocked(of: Series, end: int, block: int, unblock: int | None = None) -> list[Hour]:
    """Return measurements up to a time of a series that is blocked in between."""
    until = end if unblock is None else unblock
    return [
        *measured(of, 0, block),
        *measured(of, block, until, anomalies=2),
        *measured(of, until, end),
    ]


def outputs_of(
    report: Report, news: News | None = None, public_url: str = ""
) -> Iterator[tuple[str, bytes]]:
    """Yield all files of the outputs, path and content."""
    for draft in drafts_of(report, news or news_of(report), Site(public_url)):
        yield draft.path, draft.make()


class Detecting:
    """The detector, with a database and folders of its own."""

    def __init__(
        self, folder: Path, database: FreshDatabase, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder = folder
        self.database = database
        self._capsys = capsys
        self._config: dict[str, object] = {"db_uri": database.uri, "statsd": ""}
        self.begin_anew()
        create(database.client(), "fastpath")

    def begin_anew(self, name: str = "first") -> None:
        """Forget what was found: other folders, and no tables."""
        self.state_dir = self.folder / name / "state"
        self.output_dir = self.folder / name / "output"
        self._config |= {"state_dir": str(self.state_dir), "output_dir": str(self.output_dir)}
        for table in ("blocking_status", "blocking_events"):
            self.database.execute(f"DROP TABLE IF EXISTS {table} SYNC")
            self.database.execute(f"DROP TABLE IF EXISTS {table}_tmp SYNC")

    def measure(self, hours: Iterable[Hour]) -> None:
        """Add measurements."""
        fill(self.database.client(), hours)

    @property
    def config_file(self) -> Path:
        return self.folder / "detector.conf"

    def configure(self, **keys: object) -> None:
        """Change keys of the configuration."""
        self._config |= keys
        self.config_file.write_text(json.dumps(self._config))

    def run(self, *arguments: str, hour: float | None = None, **keys: object) -> tuple[int, str]:
        """Run once in this process, at so many hours after START; return status and output."""
        self.configure(**keys)
        self._capsys.readouterr()
        now = None if hour is None else at(hour)
        status = detector.main(["--config", str(self.config_file), *arguments], now=now)
        printed = self._capsys.readouterr()
        return status, printed.out + printed.err

    def detect(self, hour: float, *arguments: str, **keys: object) -> str:
        """Run, which must succeed; return what was printed."""
        status, log = self.run(*arguments, hour=hour, **keys)
        assert status == 0, log
        return log

    def reprocess(self, start: float, end: float) -> str:
        """Reprocess from an hour up to another one."""
        dates = [f"{at(hour):%Y-%m-%dT%H:%M}" for hour in (start, end)]
        status, log = self.run("--reprocess", "--start-date", dates[0], "--end-date", dates[1])
        assert status == 0, log
        return log

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start it as a process."""
        self.configure()
        script = Path(detector.__file__)
        return subprocess.Popen(
            [sys.executable, str(script), "--config", str(self.config_file), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def events(self) -> list[tuple[Any, ...]]:
        """Return what is in blocking_events: series, status, time, detection time, in order."""
        rows: list[tuple[Any, ...]] = self.database.execute(
            "SELECT test_name, input, probe_cc, probe_asn, status, toString(time, 'UTC'),"
            " toString(detection_time, 'UTC') FROM blocking_events ORDER BY ALL"
        )
        return rows

    def changes(self) -> list[tuple[int, str, int, int]]:
        """Return network, status, and when it began and was detected, in hours after START."""
        rows = self.database.execute(
            "SELECT probe_asn, status, toUnixTimestamp(time), toUnixTimestamp(detection_time)"
            " FROM blocking_events ORDER BY detection_time, probe_asn"
        )
        first = int(START.timestamp())
        return [
            (row[0], row[1], (row[2] - first) // 3600, (row[3] - first) // 3600) for row in rows
        ]

    def statuses(self) -> dict[Series, str]:
        """Return the status of each series."""
        rows = self.database.execute(
            "SELECT test_name, input, probe_cc, probe_asn, status FROM blocking_status"
        )
        return {Series(*row[:4]): row[4] for row in rows}

    def outputs(self) -> dict[str, bytes]:
        """Return every file that was written for people."""
        return {
            str(path.relative_to(self.output_dir)): path.read_bytes()
            for path in sorted(self.output_dir.rglob("*"))
            if path.is_file()
        }

    def counted(
        self, code: str, networks: list[int], start: str, end: str, url: str = ""
    ) -> dict[str, int]:
        """Return what fastpath has of networks in a time: measurements, anomalies and runs."""
        ((measurements, anomalies, runs),) = self.database.execute(
            "SELECT count(), countIf(anomaly = 't'), uniqExact(report_id) FROM fastpath"
            " WHERE msm_failure = 'f' AND probe_cc = %(code)s AND probe_asn IN %(networks)s"
            " AND measurement_start_time >= parseDateTimeBestEffort(%(start)s)"
            " AND measurement_start_time < parseDateTimeBestEffort(%(end)s)"
            " AND (%(url)s = '' OR input = %(url)s)",
            {
                "code": code,
                "networks": tuple(networks),
                "start": start,
                "end": end,
                "url": url,
            },
        )
        return {"measurements": measurements, "anomalies": anomalies, "runs": runs}

    def description_of(self, guid: str) -> str:
        """Return the description of an item in whatever feed has it."""
        feeds = [content for name, content in self.outputs().items() if name.startswith("rss/")]
        entries = [entry for feed in feeds for entry in feedparser.parse(feed).entries]
        return next(str(entry.description) for entry in entries if entry.id == guid)

    def everything(self) -> tuple[object, ...]:
        """Return all that readers see."""
        status = self.database.execute("SELECT * FROM blocking_status ORDER BY ALL")
        return status, self.events(), self.outputs()

    def page(self) -> str:
        return (self.output_dir / "index.html").read_text()

    def pages(self, folder: str = "") -> str:
        """Return all pages of a folder, one after the other; "": of all folders."""
        return "".join(
            content.decode()
            for name, content in self.outputs().items()
            if name.startswith(folder) and name.endswith(".html")
        )
