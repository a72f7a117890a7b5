"""The feeds, as RSS 2.0 and as JSON: of everything, by country, and by series.

They are the same bytes from run to run while nothing new has happened: nothing in them is a time of
today.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

import msgspec
from feedgenerator import Rss201rev2Feed, rfc2822_date

from outputs import items
from outputs.links import (
    EXPLORER,
    GLOBAL,
    WITHDRAWN,
    country_link,
    country_path,
    series_path,
    service_path,
)
from outputs.news import News
from outputs.published import Item
from outputs.report import Report
from outputs.wording import clean, country, iso, network_name, within
from series import Series

MOST = 100  # items of a feed; that of the withdrawn ones has all
FRESH = 60  # minutes for which a reader needs not ask again


@dataclass(frozen=True)
class Feed:
    """A feed.

    Attributes:
        path: below rss/ and json/, without a suffix.
        title: plain text.
        link: to what it is about.
        description: HTML.
        items: the newest first.
        about: what it is about, for programs.
    """

    path: str
    title: str
    link: str
    description: str
    items: tuple[Item, ...]
    about: Mapping[str, Any] = field(default_factory=dict)


class _Rss(Rss201rev2Feed):  # type: ignore[misc]
    """As usual, but for the date of an empty feed, which would be now."""

    def add_root_elements(self, handler: Any) -> None:  # noqa: ANN401
        """Write what the feed itself is."""
        for name in ("title", "link", "description", "language", "ttl"):
            handler.addQuickElement(name, self.feed[name])
        if own := self.feed["feed_url"]:
            handler.addQuickElement(
                "atom:link", None, {"rel": "self", "href": own, "type": "application/rss+xml"}
            )
        if self.items:
            handler.addQuickElement("lastBuildDate", rfc2822_date(self.latest_post_date()))


def feeds_of(report: Report, news: News) -> Iterator[Feed]:
    """Yield all feeds."""
    by_country: dict[str, list[Item]] = {}
    for item in news.items:
        by_country.setdefault(item.probe_cc, []).append(item)
    yield Feed(
        GLOBAL,
        "Blocking of social media, worldwide",
        EXPLORER,
        "Where OONI measurements show signs that social media are blocked.",
        _newest(news.items),
    )
    yield Feed(
        WITHDRAWN,
        "Withdrawn: what seemed to be blocked, and was not",
        EXPLORER,
        "Signs of blocking that were reported and turned out to be wrong, each with the reason.",
        tuple(news.withdrawn),
    )
    for code in sorted(by_country):
        yield _of_country(code, by_country[code])
    by_service: dict[str, list[Item]] = {}
    for item in news.items:
        if item.service:
            by_service.setdefault(item.service, []).append(item)
    for name in sorted(by_service):
        yield _of_service(name, by_service[name])
    by_series: dict[Series, list[Item]] = {}
    for event in report.events:
        by_series.setdefault(event.series, []).append(items.of_event(report, event))
    for series in sorted(by_series):
        yield _of_series(series, clean(report.service_of(series)), by_series[series])


def _of_country(code: str, news: Iterable[Item]) -> Feed:
    place = within(code)
    return Feed(
        country_path(code),
        f"Blocking of social media in {place}",
        country_link(code),
        f"When OONI measurements show signs that social media are blocked in {escape(place)}.",
        _newest(news),
        {"probe_cc": clean(code), "country": country(code)},
    )


def _of_service(name: str, news: Iterable[Item]) -> Feed:
    return Feed(
        service_path(name),
        f"Blocking of {name}, worldwide",
        EXPLORER,
        f"Where OONI measurements show signs that {escape(name)} is blocked.",
        _newest(news),
        {"service": name},
    )


def _of_series(series: Series, service: str, news: Iterable[Item]) -> Feed:
    newest = _newest(news)
    where = f"on {network_name(series.probe_asn)} in {within(series.probe_cc)}"
    measured = clean(f"{series.test_name} {series.input}".rstrip())
    return Feed(
        series_path(series),
        f"{service} {where}",
        newest[0].link,
        escape(f"When OONI measurements show signs that {service} is blocked {where}: {measured}"),
        newest,
        items.data_of_series(series, service),
    )


def _newest(news: Iterable[Item]) -> tuple[Item, ...]:
    ordered = sorted(news, key=lambda item: (item.time, item.guid), reverse=True)
    return tuple(ordered[:MOST])


def as_rss(feed: Feed, public_url: str = "") -> bytes:
    """Return a feed as RSS 2.0.

    Args:
        feed: which.
        public_url: where the outputs are served; "": nobody knows, and it can't name itself.
    """
    own = f"{public_url}rss/{feed.path}.xml" if public_url else None
    rss = _Rss(feed.title, feed.link, feed.description, language="en", ttl=FRESH, feed_url=own)
    for item in feed.items:
        rss.add_item(
            item.title,
            item.link,
            item.description,
            pubdate=item.time,
            unique_id=item.guid,
            unique_id_is_permalink=False,
            categories=item.categories,
        )
    file = io.StringIO()
    rss.write(file, "utf-8")
    return file.getvalue().encode()


def as_json(feed: Feed, public_url: str = "") -> bytes:
    """Return a feed as JSON; see as_rss."""
    content = {
        "title": feed.title,
        "link": feed.link,
        "self": f"{public_url}json/{feed.path}.json" if public_url else None,
        **feed.about,
        "items": [
            {
                "guid": item.guid,
                "title": item.title,
                "link": item.link,
                "time": iso(item.time),
                "withdrawn": item.withdrawn or None,
                **item.data,
            }
            for item in feed.items
        ],
    }
    return msgspec.json.encode(content)
