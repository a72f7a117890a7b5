"""The pages for people: index.html with the tables, and a page or more for each table.

A page has fewer than LARGEST bytes, however many tables, files and columns there are: what does not
fit goes to a further page, and of columns to the schema.
"""

import base64
import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from ooni_common.output import printable
from ooni_common.templates import templates_in
from portal.about import About
from portal.catalogue import Catalogue, Table
from portal.places import Places
from portal.schema_changes import SchemaChange
from portal.snippets import example_of, snippets_of
from throttle import in_units

LARGEST = 96_000  # bytes of a page
MOST_OF_COLUMNS = 30_000  # bytes of a page that explain columns
LONGEST_MEANING = 300  # characters; comments in a database can be essays
MOST_RECENT = 20  # files that index.html shows as the last to have changed
MOST_SNAPSHOTS = 60
MOST_CHANGES = 20  # of a table's columns, on its page
MOST_OF_A_CHANGE = 10  # columns of a kind
PLACEHOLDER = "BASE"  # where the address of the exports is not known


@dataclass(frozen=True)
class Page:
    """A page, and the key under which it is put."""

    key: str
    content: bytes


@dataclass(frozen=True)
class Pages:
    """Makes pages.

    Attributes:
        catalogue: what is exported.
        about: what the operator says.
        places: where things are.
    """

    catalogue: Catalogue
    about: About
    places: Places

    def index(self, *, has_changes: bool) -> list[Page]:
        """Return index.html, and the further lists of tables.

        Args:
            has_changes: whether there are notes of what was removed.
        """
        catalogue, rows_of = self.catalogue, _rows_of()
        items = [*catalogue.tables, *catalogue.unavailable]
        sizes = [_size(rows_of.table_row(table, "../")) for table in catalogue.tables]
        sizes += [_size(rows_of.unavailable_row(name)) for name in catalogue.unavailable]
        newest = catalogue.newest
        periods = [table.first for table in catalogue.tables if table.first]

        def context(number: int) -> dict[str, Any]:
            root = "" if number == 1 else "../"
            return {
                "root": root,
                "address": lambda other: root + self.places.relative(self.places.table_list(other)),
                "has_changes": has_changes,
                "recent": newest[:MOST_RECENT],
                "files": len(newest),
                "first": min(periods, default=""),
                "last": max((table.last for table in catalogue.tables), default=""),
                "snapshots": catalogue.snapshots[:MOST_SNAPSHOTS],
            }

        contents = self._paged("index.html.jinja", list(zip(items, sizes, strict=True)), context)
        return [
            Page(self.places.table_list(number), page) for number, page in enumerate(contents, 1)
        ]

    def table(self, table: Table) -> list[Page]:
        """Return the pages of a table, the newest files first."""
        rows_of = _rows_of()
        columns = [_size(rows_of.column_row(column)) for column in table.columns]
        shown = fitting(columns, MOST_OF_COLUMNS)
        example = example_of(table)
        snippets = snippets_of(table, example, self._base) if example else []

        def context(_number: int) -> dict[str, Any]:
            return {
                "root": "../",
                "address": lambda other: "../" + quote(self._relative_page(table, other)),
                "table": table,
                "shown": table.columns[:shown],
                "hidden": len(columns) - shown,
                "changes": table.column_changes[:MOST_CHANGES],
                "snippets": snippets,
                "example": example.path.rsplit("/", 1)[1] if example else "",
            }

        parquet = table.has_parquet
        files = [
            (file, _size(rows_of.file_row(file, "../", parquet))) for file in reversed(table.files)
        ]
        contents = self._paged("table.html.jinja", files, context)
        return [
            Page(self.places.page(table.name, number), page)
            for number, page in enumerate(contents, 1)
        ]

    def _relative_page(self, table: Table, number: int) -> str:
        return self.places.relative(self.places.page(table.name, number))

    @property
    def _base(self) -> str:
        return self.about.base_url or PLACEHOLDER

    def _paged(
        self,
        name: str,
        items: Sequence[tuple[object, int]],
        context: Callable[[int], dict[str, Any]],
    ) -> list[bytes]:
        """Return the pages of a template.

        Args:
            name: of the template.
            items: its rows, and how many bytes they have; so many are on each page as fit.
            context: gives what else it shows, by the number of the page.
        """
        template = _environment().get_template(name)

        def render(number: int, pages: int, rows: Sequence[object]) -> bytes:
            shared = {"catalogue": self.catalogue, "about": self.about, "places": self.places}
            numbers = {"number": number, "pages": pages, "rows": rows, "base": self._base}
            return template.render(shared | numbers | context(number)).encode()

        taken: list[list[object]] = []
        left = list(items)
        while left or not taken:
            # Of one row, so that all is there that stands around rows.
            around = len(render(len(taken) + 1, 10**6, [item for item, _ in left[:1]]))
            count = max(1, 1 + fitting([size for _, size in left[1:]], LARGEST - around))
            taken.append([item for item, _ in left[:count]])
            left = left[count:]
        return [render(number, len(taken), rows) for number, rows in enumerate(taken, 1)]


def _size(text: str) -> int:
    return len(text.encode())


def fitting(sizes: Sequence[int], room: int) -> int:
    """Return how many of the first have no more bytes together than there is room."""
    for count, size in enumerate(sizes):
        room -= size
        if room < 0:
            return count
    return len(sizes)


def _rows_of() -> Any:  # noqa: ANN401 (macros)
    return _environment().get_template("rows.html.jinja").module


@functools.cache
def _environment() -> jinja2.Environment:
    environment = templates_in(Path(__file__).parent)
    environment.filters |= {
        "units": in_units,
        "number": lambda number: f"{number:,}",
        "shown": printable,
        "day": lambda stamp: stamp[:10],
        "moment": lambda stamp: stamp.replace("T", " ").replace("Z", ""),
        "period": period,
        "short": short,
        "name": lambda path: path.rsplit("/", 1)[-1],
        "told": _told,
    }
    script = Path(__file__).with_name("script.jinja").read_text()
    style = Path(__file__).with_name("style.jinja").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "script": Markup(script),  # noqa: S704 (a file of ours)
        "style": Markup(style),  # noqa: S704
        "script_digest": digest,
    }
    return environment


def period(text: str) -> str:
    """Return a month or a day in words: 2026-11 is Nov 2026."""
    if not text:
        return ""
    form, shown = ("%Y-%m", "%b %Y") if len(text) == len("2026-11") else ("%Y-%m-%d", "%-d %b %Y")
    try:
        return f"{datetime.strptime(text, form):{shown}}"  # noqa: DTZ007 (a day has no zone)
    except ValueError:  # 31 February, in a bucket that somebody else has written to
        return text


def short(text: str) -> str:
    """Return the beginning of a long text, in one line."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= LONGEST_MEANING else f"{line[:LONGEST_MEANING].rstrip()} …"


def _told(change: SchemaChange) -> str:
    """Return a change of columns in words, as far as a page has room for it."""
    added = [f"added {name} {kind}" for name, kind in change.added]
    removed = [f"removed {name}" for name, _ in change.removed]
    retyped = [f"{name} was {before}, is {after}" for name, before, after in change.retyped]
    told = [short(text) for part in (added, removed, retyped) for text in part[:MOST_OF_A_CHANGE]]
    left = len(added + removed + retyped) - len(told)
    return "; ".join([*told, f"{left:,} more"] if left else told)
