"""Where the portal's objects are.

    <prefix>/index.html                  the first page
    <prefix>/tables/2.html …             more tables, where one page can't list all
    <prefix>/pages/<table>.1.html …      a table: columns, snippets, files
    <prefix>/index.json                  all of it for programs
    <prefix>/urls.txt                    the addresses of all files with rows as CSV
    <prefix>/urls-parquet.txt            and of those as Parquet, if there are any
    <prefix>/changes.xml                 Atom: the files that changed last
    <prefix>/schema/changes.json         which columns came and went
    <prefix>/snapshots/<time>.SHA256SUMS the checksums of a run, to cite

They are made of the manifests, so what is lost or spoilt is written again.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from exports.manifest import ExportLayout
from store.bucket import escaped

SNAPSHOT = re.compile(r"[0-9]{8}T[0-9]{6}Z\.SHA256SUMS")


@dataclass(frozen=True)
class Places:
    """The keys of the portal's objects; `relative` are the same as seen from index.html."""

    layout: ExportLayout

    def relative(self, key: str) -> str:
        """Return a key as seen from index.html."""
        return self.layout.relative(key)

    @property
    def catalogue(self) -> str:
        """The key of index.json."""
        return f"{self.layout.prefix}/index.json"

    @property
    def urls(self) -> str:
        """The key of the list of addresses."""
        return f"{self.layout.prefix}/urls.txt"

    @property
    def parquet_urls(self) -> str:
        """The key of the list of addresses of the files of Parquet."""
        return f"{self.layout.prefix}/urls-parquet.txt"

    @property
    def feed(self) -> str:
        """The key of the feed."""
        return f"{self.layout.prefix}/changes.xml"

    @property
    def schema_changes(self) -> str:
        """The key of the changelog of columns; no table's schema ends in .json."""
        return f"{self.layout.prefix}/schema/changes.json"

    @property
    def pages(self) -> str:
        """What the keys of the pages of tables start with."""
        return f"{self.layout.prefix}/pages/"

    @property
    def lists(self) -> str:
        """What the keys of the further lists of tables start with."""
        return f"{self.layout.prefix}/tables/"

    @property
    def snapshots(self) -> str:
        """What the keys of the snapshots start with."""
        return f"{self.layout.prefix}/snapshots/"

    def page(self, table: str, number: int = 1) -> str:
        """Return the key of a page of a table; `..` as a folder would lead elsewhere."""
        return f"{self.pages}{escaped(table)}.{number}.html"

    def table_list(self, number: int) -> str:
        """Return the key of a list of tables, of which the first is on index.html."""
        return self.layout.index if number == 1 else f"{self.lists}{number}.html"

    def snapshot(self, stamp: str) -> str:
        """Return the key of the checksums of a run that ended then (ISO 8601)."""
        return f"{self.snapshots}{re.sub('[-:]', '', stamp)}.SHA256SUMS"

    def snapshots_among(self, keys: Iterable[str]) -> list[str]:
        """Return those of some keys that are of snapshots, the newest first."""
        names = (key.removeprefix(self.snapshots) for key in keys if key.startswith(self.snapshots))
        return [
            f"{self.snapshots}{name}"
            for name in sorted(names, reverse=True)
            if SNAPSHOT.fullmatch(name)
        ]

    @property
    def always(self) -> tuple[str, ...]:
        """The objects that are there whatever is exported."""
        return (self.catalogue, self.urls, self.feed, self.schema_changes)
