"""The updater of the test lists as a whole, in a test, and its upstream."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

import citizenlab_test_lists_updater
from conftest import Database as FreshDatabase
from dev.samples.test_lists import SampleTestLists, list_path
from dev.servers.git import GitServer
from updater_harness import Harness

COUNTRIES = ("ae", "fr", "it", "ru")
ROWS = 400
DAY = 86_400

Row = tuple[str, ...]


class Updater(Harness):
    """The updater of the test lists; its clock stands still unless a test moves it."""

    module: ClassVar[ModuleType] = citizenlab_test_lists_updater
    tables = ("citizenlab",)

    def __init__(
        self, folder: Path, database: FreshDatabase, capsys: pytest.CaptureFixture[str]
    ) -> None:
        super().__init__(folder, database, capsys)
        self.now = time.time()

    def main(self, argv: Sequence[str]) -> int:
        """Run once; return the exit status."""
        status: int = self.module.main(argv, clock=lambda: self.now)
        return status

    def live(self) -> list[Row]:
        """Return the rows of the live table; none if there is no table."""
        return [tuple(cell.rstrip("\0") for cell in row) for row in self.rows_of("citizenlab")]

    def live_of(self, cc: str) -> list[Row]:
        """Return the live rows of a country."""
        return [row for row in self.live() if row[2] == cc]

    def per_cc(self) -> dict[str, int]:
        """Return the number of live rows by country."""
        countries = [row[2] for row in self.live()]
        return {cc: countries.count(cc) for cc in set(countries)}

    def held(self) -> dict[str, Any]:
        """Return what the state directory says of the countries that are held."""
        path = self.state_dir / "citizenlab_test_lists_updater.holds.json"
        by_country: dict[str, Any] = json.loads(path.read_text())["by_country"]
        return by_country


def sample_lists(
    tmp_path: Path, rows: int = ROWS, countries: Sequence[str] = COUNTRIES
) -> SampleTestLists:
    """Make a small upstream repository."""
    folder = tmp_path / "upstream"
    folder.mkdir()
    sample = SampleTestLists(folder)
    sample.create(rows=rows, countries=countries)
    return sample


def updater_of(
    tmp_path: Path, database: FreshDatabase, git: GitServer, capsys: pytest.CaptureFixture[str]
) -> Updater:
    """Return the updater, configured for a small upstream."""
    made = Updater(tmp_path, database, capsys)
    made.configure(git_url=git.url("test-lists"), min_rows=100)
    return made


def changed_row(lists: SampleTestLists, cc: str, row: str) -> None:
    """Commit a list with one more line."""
    lists.commit("Change", {list_path(cc): lists.read(list_path(cc)) + row.encode() + b"\n"})
