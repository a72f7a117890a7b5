"""All pages and data files, in an order in which those that are linked to come first."""

from collections.abc import Iterator, Sequence

from outputs.news import News
from outputs.report import Report
from outputs.statuses import Service
from pages.archive import archive_pages
from pages.data import data_files, data_page
from pages.drafts import Draft
from pages.entries import entries_of
from pages.front import front_page
from pages.incident import incident_pages
from pages.methodology import methodology_page
from pages.places import now_of, place_pages, places_of
from pages.rendering import Site


def pages_of(
    report: Report, services: Sequence[Service], news: News, site: Site
) -> Iterator[Draft]:
    """Yield all pages and data files; the front page is the last one.

    Args:
        report: what there is to tell.
        services: how each service is now.
        news: what the feeds tell.
        site: what the pages say of themselves.
    """
    entries = entries_of(report, news)
    now = now_of(services, entries)
    places = places_of(report, now, entries)
    yield from data_files(report, entries, now, site)
    yield from incident_pages(report, entries, site)
    for of_kind in places:
        yield from place_pages(report, of_kind, site)
    yield from archive_pages(report, news, entries, site)
    yield methodology_page(site)
    yield data_page(places, site)
    yield front_page(report, news, entries, places, site)
