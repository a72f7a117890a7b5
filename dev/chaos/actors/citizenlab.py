"""The updater of the test lists, and a repository with four countries."""

import contextlib
import csv
import io
from collections import defaultdict
from collections.abc import Iterator
from typing import Self

from dev.chaos.actors.actor import Updater
from dev.chaos.scene import Scene
from dev.chaos.versions import Versions
from dev.samples.test_lists import SampleTestLists, list_path
from dev.servers.fault_proxy import FaultProxy
from dev.servers.git import GitServer

COUNTRIES = ("ae", "fr", "it", "ru", "ZZ")
ROWS = 300
Version = list[tuple[str, str]]
TABLE = """\
CREATE TABLE citizenlab
(`domain` String, `url` String, `cc` FixedString(32), `category_code` String)
ENGINE = ReplacingMergeTree()
ORDER BY (domain, url, cc, category_code) SETTINGS index_granularity = 4
"""


class CitizenLab(Updater):
    """The updater of the test lists.

    Attributes:
        lists: its upstream.
        unchanged: the countries whose lists the last commit has not changed.
    """

    name = "citizenlab"
    script = "analysis/citizenlab_test_lists_updater.py"
    tables = {"citizenlab": "citizenlab_flip"}  # noqa: RUF012 (of Actor)

    def __init__(self, scene: Scene, upstream: FaultProxy, lists: SampleTestLists) -> None:
        super().__init__(scene, upstream)
        self.lists = lists
        self.unchanged: tuple[str, ...] = COUNTRIES
        self._files: list[dict[str, bytes]] = []
        self.versions = {cc: Versions[Version](f"the list of {cc}") for cc in COUNTRIES}
        scene.create_database(self.database)
        scene.create_table(self.database, "citizenlab", TABLE)
        self._note_versions()

    @classmethod
    @contextlib.contextmanager
    def running(cls, scene: Scene) -> Iterator[Self]:
        """Serve a repository."""
        folder = scene.folder / "git"
        folder.mkdir()
        lists = SampleTestLists(folder)
        lists.create(rows=ROWS, countries=[cc for cc in COUNTRIES if cc != "ZZ"])
        with GitServer(folder) as git, FaultProxy(git.address) as proxy:
            yield cls(scene, proxy, lists)

    def keys(self) -> dict[str, object]:
        """Return where its upstream and its table are."""
        return {
            "git_url": f"{self.upstream.url}/test-lists.git",
            "git_token": self.scene.token,
            "git_time_limit": 60,
            "min_rows": 100,
        }

    def advance(self, draw: float) -> None:
        """Add or remove some rows of a country."""
        cc = COUNTRIES[int(draw * 1000) % len(COUNTRIES)]
        self.unchanged = tuple(other for other in COUNTRIES if other != cc)
        if draw < 0.75:
            self.lists.add_rows(cc, 1 + int(draw * 10))
        else:
            self.lists.remove_rows(cc, 1)
        self._note_versions()

    def go_back(self) -> None:
        """Commit the former lists again."""
        self.lists.commit("Go back", self._files[-2:][0])
        self._note_versions()

    def versions_seen(self) -> list[Versions[Version]]:
        """Return those of each country."""
        return list(self.versions.values())

    def violations(self, *, current: bool, reader: int) -> Iterator[str]:
        """Yield countries whose rows aren't a complete version, or are an older one than seen."""
        rows = self.rows_of("citizenlab", "cc, url, category_code", reader)
        seen: dict[str, Version] = defaultdict(list)
        for cc, url, category in rows or []:
            seen[str(cc).rstrip("\0")].append((str(url), str(category)))
        if seen.keys() - self.versions.keys():
            yield f"rows of other countries: {sorted(seen)}"
        for cc, versions in self.versions.items():
            version = None if rows is None else sorted(seen[cc])
            yield versions.violation(version, current=current, reader=reader)

    def _note_versions(self) -> None:
        files = {list_path(cc): self.lists.read(list_path(cc)) for cc in COUNTRIES}
        self._files.append(files)
        for cc, versions in self.versions.items():
            lines = csv.DictReader(io.StringIO(files[list_path(cc)].decode(), newline=""))
            versions.add(sorted((line["url"], line["category_code"]) for line in lines))
