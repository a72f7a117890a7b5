"""The front page: what is new, what goes on, and how it is in each country."""

from collections.abc import Sequence
from datetime import timedelta

from ooni_common.output import counted
from outputs.doubts import wrong_measurements
from outputs.news import News
from outputs.published import Item
from outputs.report import Report
from outputs.silence_items import of_silence
from pages.drafts import Draft
from pages.entries import NEW, Entry, ongoing_of
from pages.places import Now, Place
from pages.rendering import Site, of_countries, render

MOST_LISTED = 25  # of what is new, and of what goes on; the other pages have all
MOST_COUNTRIES = 60  # with a row of their own; the others are named
MOST_ITEMS = 10  # silences, and items that were withdrawn
AGE = timedelta(days=30)  # of the silences that are shown


def front_page(
    report: Report,
    news: News,
    entries: Sequence[Entry],
    places: tuple[Sequence[Place], Sequence[Place]],
    site: Site,
) -> Draft:
    """Return the front page."""
    countries, services = places
    ongoing = ongoing_of(entries)
    limit = report.until - NEW
    fresh = sorted((e for e in entries if e.detected >= limit), key=lambda entry: entry.rank)
    blocked = sorted((c for c in countries if c.blocked), key=_severest)
    return Draft(
        "index.html",
        lambda: render(
            "front",
            "index.html",
            site,
            until=report.until,
            summary=summary_of([now for place in countries for now in place.blocked]),
            wrong=wrong_measurements(report),
            new=[entry for entry in fresh if not entry.withdrawn][:MOST_LISTED],
            new_days=NEW.days,
            ongoing=[entry for entry in ongoing if entry.detected < limit][:MOST_LISTED],
            all_ongoing=len(ongoing),
            countries=blocked[:MOST_COUNTRIES],
            others=[*blocked[MOST_COUNTRIES:], *(c for c in countries if not c.blocked)],
            services=services,
            silences=_silences(report),
            withdrawn=news.withdrawn[:MOST_ITEMS],
        ),
    )


def _severest(place: Place) -> tuple[int, int, str]:
    return -len(place.blocked), -sum(now.blocked for now in place.blocked), place.code


def _silences(report: Report) -> list[Item]:
    """Return the items of the last silences, the newest first."""
    limit = report.until - AGE
    recent = [s for s in report.silences if s.end is None or s.end >= limit]
    return [of_silence(silence) for silence in reversed(recent)][:MOST_ITEMS]


def summary_of(blocked: Sequence[Now]) -> str:
    """Return what matters most."""
    countries = {now.probe_cc for now in blocked}
    if not countries:
        return "No signs of blocking now."
    extent = counted(len({now.service for now in blocked}), "service")
    return f"Now, there are signs of blocking of {extent} in {of_countries(len(countries))}."
