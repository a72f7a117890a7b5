"""The updater of the fingerprints as a whole, in a test, and its upstream."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

import fingerprints_updater
from conftest import Database as FreshDatabase
from dev.samples.fingerprints import HEADER, SampleFingerprints, to_csv
from dev.servers.upstream import SampleUpstream
from updater_harness import Harness

GOOD = [
    "made.it_1",
    "isp",
    "",
    "body",
    "contains",
    "<h1>Gate closed</h1>",
    "5",
    "IT,FR",
    "ooni",
    "",
    "a note",
]


class Updater(Harness):
    """The updater of the fingerprints."""

    module: ClassVar[ModuleType] = fingerprints_updater
    tables = ("fingerprints_dns", "fingerprints_http")


class Upstream:
    """A folder with both files, and a server for it."""

    def __init__(self, folder: Path, server: SampleUpstream) -> None:
        self.folder = folder
        self.server = server
        self.sample = SampleFingerprints(dns=110, http=150)
        self.write(dns=self.sample.dns, http=self.sample.http)

    def write(self, **files: bytes) -> None:
        """Replace files."""
        for kind, content in files.items():
            (self.folder / f"fingerprints_{kind}.csv").write_bytes(content)

    def rows(self, kind: Any) -> list[tuple[Any, ...]]:
        """Return the rows that a correct loader gets."""
        return sorted((*row[:6], int(row[6]), *row[7:]) for row in self.sample.rows(kind))

    def with_row(self, **cells: str) -> bytes:
        """Return the HTTP file with one more row, GOOD but for these cells."""
        return self.with_rows(cells)

    def with_rows(self, *changes: Mapping[str, str]) -> bytes:
        """Return the HTTP file with more rows, each of them GOOD but for some cells."""
        rows = [
            [cells.get(name, value) for name, value in zip(HEADER, GOOD, strict=True)]
            for cells in changes
        ]
        return self.with_raw_row(to_csv(rows, header=[]).removeprefix(b"\r\n"))

    def with_own_rows(self, kind: Any, rows: list[list[str]]) -> bytes:
        """Return a file with more rows."""
        content = {"dns": self.sample.dns, "http": self.sample.http}[kind]
        return content + to_csv(rows, header=[]).removeprefix(b"\r\n")

    def with_raw_row(self, row: bytes) -> bytes:
        """Return the HTTP file with more bytes at its end."""
        return self.sample.http + row

    def line_of_next_row(self) -> int:
        """Return the line that an added row has in the HTTP file."""
        return self.sample.http.count(b"\n") + 1


@contextmanager
def served_upstream(folder: Path) -> Iterator[Upstream]:
    """Serve both files from a folder that is made for them."""
    folder.mkdir()
    with SampleUpstream(folder) as server:
        yield Upstream(folder, server)


def updater_of(
    upstream: Upstream, folder: Path, database: FreshDatabase, capsys: pytest.CaptureFixture[str]
) -> Updater:
    """Return an updater that is configured for an upstream."""
    made = Updater(folder, database, capsys)
    made.configure(
        dns_url=upstream.server.url("fingerprints_dns.csv"),
        http_url=upstream.server.url("fingerprints_http.csv"),
    )
    return made
