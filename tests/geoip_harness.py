"""The GeoIP downloader as a whole, in a test, and its upstream."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import geoip2.database
import pytest

import ooni_download_geoip as script
from dev.samples.geoip import Kind, write_database
from dev.servers.upstream import SampleUpstream
from ooni_common.fetch import Limits
from privileges import without_privileges

OCTOBER, NOVEMBER, DECEMBER = "2026-10", "2026-11", "2026-12"
LIMITS = Limits(max_bytes=10**7, retries=1, backoff=0.01)
IMPATIENT = replace(LIMITS, read_timeout=0.3)
PERSISTENT = replace(IMPATIENT, retries=10)
AMPLE = 60  # seconds; far more than what is waited for takes, for a machine under load
FILES = ("asn.mmdb", "cc.mmdb")
INSTALLED = {*FILES, "geoipdbts"}
PAIR_BEFORE = {f"{name}.previous" for name in FILES}
STATE = "ooni_download_geoip.json"


def on(day: str) -> datetime:
    return datetime.fromisoformat(f"{day}T12:00:00+00:00")


class Geoip:
    """The script with a configuration and a folder of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.output = folder / "output"
        self.state = folder / "state"
        self.output.mkdir()
        self.limits = LIMITS
        self.config_file = folder / "download-geoip.conf"
        self._capsys = capsys
        self._config: dict[str, object] = {
            "output_dir": str(self.output),
            "state_dir": str(self.state),
            "statsd": "",
        }

    def configure(self, **keys: object) -> None:
        self._config |= keys
        lines = (f"{key} = {json.dumps(value)}\n" for key, value in self._config.items())
        self.config_file.write_text("".join(lines))
        self.config_file.chmod(0o640)  # an address can hold a key

    def run(self, *flags: str, day: str = "2026-11-10", **keys: object) -> tuple[int, str]:
        self.configure(**keys)
        self._capsys.readouterr()
        status = script.main(
            ["--config", str(self.config_file), *flags], now=on(day), limits=self.limits
        )
        printed = self._capsys.readouterr()
        return status, printed.out + printed.err

    def run_unprivileged(self, *flags: str, **keys: str) -> tuple[int, str]:
        """Run as a user who owns what the service's user owns: the state."""
        self.state.mkdir(exist_ok=True)
        self.configure()
        with without_privileges(self.state, *self.state.iterdir(), self.config_file):
            return self.run(*flags, **keys)

    def start(self) -> "subprocess.Popen[bytes]":
        root = Path(script.__file__).parents[1]
        return subprocess.Popen(
            [sys.executable, script.__file__, "--config", str(self.config_file)],
            env=os.environ | {"PYTHONPATH": str(root)},
            stderr=subprocess.DEVNULL,
        )

    def months(self) -> tuple[str, ...]:
        """Return when each of the installed databases was built; they are looked up in, too."""
        with geoip2.database.Reader(self.output / "asn.mmdb") as reader:
            assert reader.asn("8.8.8.8").autonomous_system_number == 15169
            asn = reader.metadata().build_epoch
        with geoip2.database.Reader(self.output / "cc.mmdb") as reader:
            assert reader.country("2001:4860:4860::8888").country.iso_code == "US"
            country = reader.metadata().build_epoch
        return tuple(f"{datetime.fromtimestamp(epoch, UTC):%Y-%m}" for epoch in (asn, country))

    def stamp(self) -> str:
        return (self.output / "geoipdbts").read_text()

    def content(self) -> dict[str, bytes]:
        """Return what is in the folders of the output and the state, but for the lock."""
        files = [*self.output.iterdir(), *self.state.glob("*.json")]
        return {path.name: path.read_bytes() for path in files}

    def names(self) -> set[str]:
        return {path.name for path in self.output.iterdir()}


class Upstream:
    """An upstream that has published nothing yet."""

    def __init__(self, folder: Path, published: Path, server: SampleUpstream) -> None:
        self._folder = folder
        self._published = published
        self.server = server

    def publish(self, *months: str) -> None:
        for month in months:
            for path in self._published.glob(f"*-{month}.*"):
                shutil.copy(path, self._folder)

    def keys(self) -> dict[str, str]:
        return {
            "asn_url": self.server.url() + "dbip-asn-lite-{year}-{month}.mmdb.gz",
            "cc_url": self.server.url() + "dbip-country-lite-{year}-{month}.mmdb.gz",
        }

    def bodies(self) -> int:
        return sum(request.sent > 0 for request in self.server.requests if request.status == 200)


def good_bodies(published: Path) -> tuple[bytes, bytes]:
    asn, country = (
        (published / f"dbip-{name}-lite-{NOVEMBER}.mmdb.gz").read_bytes()
        for name in ("asn", "country")
    )
    return asn, country


def packed(kind: Kind, folder: Path, **options: int) -> bytes:
    path = folder / "made.mmdb"
    write_database(path, kind, NOVEMBER, **options)
    return path.read_bytes()
