"""The lists of incidents: by month, those that go on, and what was withdrawn."""

import functools
from collections.abc import Iterator, Sequence
from datetime import datetime

from outputs.links import ARCHIVE
from outputs.news import News
from outputs.published import Item
from outputs.report import WITHDRAWN, Report
from pages.drafts import Draft, seed_of
from pages.entries import Entry, ongoing_of
from pages.lists import numbers_of, pages_of
from pages.rendering import Site, render


def archive_pages(
    report: Report, news: News, entries: Sequence[Entry], site: Site
) -> Iterator[Draft]:
    """Yield the archive, the page of each month, and the lists of the ongoing and the withdrawn."""
    months: dict[datetime, list[Entry]] = {}
    for entry in entries:
        start = entry.detected.replace(day=1, hour=0, minute=0, second=0)
        months.setdefault(start, []).append(entry)
    for month, of_month in months.items():
        stem = f"{ARCHIVE}/{month:%Y-%m}"
        yield from _list_pages(stem, of_month, site, month=month)
    counts = [
        (month, len(months[month]), sum(e.state == WITHDRAWN for e in months[month]))
        for month in months
    ]
    path = "archive.html"
    make = functools.partial(render, "archive", path, site, months=counts)
    yield Draft(path, make, seed_of(counts, site))
    yield from _list_pages("ongoing", ongoing_of(entries), site, until=report.until)
    yield from _withdrawn_pages(news.withdrawn, site)


def _list_pages(
    stem: str,
    entries: Sequence[Entry],
    site: Site,
    *,
    month: datetime | None = None,
    until: datetime | None = None,
) -> Iterator[Draft]:
    for number, shown in pages_of(entries):
        path = f"{stem}.{number}.html" if number else f"{stem}.html"
        numbers = numbers_of(entries, number)
        make = functools.partial(
            render,
            "list",
            path,
            site,
            entries=shown,
            numbers=numbers,
            stem=stem.rpartition("/")[2],
            month=month,
            until=until,
        )
        yield Draft(path, make, seed_of([entry.seed for entry in shown], numbers, until, site))


def _withdrawn_pages(withdrawn: Sequence[Item], site: Site) -> Iterator[Draft]:
    for number, items in pages_of(withdrawn):
        path = f"withdrawn.{number}.html" if number else "withdrawn.html"
        numbers = numbers_of(withdrawn, number)
        make = functools.partial(
            render, "withdrawn", path, site, items=items, numbers=numbers, number=number
        )
        said = [(item.guid, item.title, item.time, item.withdrawn) for item in items]
        yield Draft(path, make, seed_of(said, numbers, site))
