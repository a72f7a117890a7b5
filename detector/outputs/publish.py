"""From a report to files that a web server can serve, each of them always whole."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ooni_common.files import write_atomically
from outputs import feeds, page, statuses
from outputs.feeds import Feed
from outputs.links import BY_COUNTRY, BY_SERIES, FLEETING
from outputs.news import News, news_of
from outputs.report import Report
from outputs.wording import iso

FOLDERS = [
    f"{top}{below}" for top in ("rss", "json") for below in ("", f"/{BY_COUNTRY}", f"/{BY_SERIES}")
]


@dataclass(frozen=True)
class Published:
    """What was done.

    Attributes:
        written: files that are new or have changed.
        kept: files that are as they were.
        removed: files that are no longer among the outputs.
    """

    written: int
    kept: int
    removed: int


def outputs_of(
    report: Report, news: News | None = None, public_url: str = ""
) -> Iterator[tuple[str, bytes]]:
    """Yield all files, path and content, those first to which others link.

    The same report gives the same bytes.

    Args:
        report: what is known now.
        news: what there is to tell of it; None: as if nothing had been told before.
        public_url: where they are served, with a slash at the end; "": nobody knows.
    """
    news = news or news_of(report)
    all_feeds: list[Feed] = []
    for feed in feeds.feeds_of(report, news):
        yield f"rss/{feed.path}.xml", feeds.as_rss(feed, public_url)
        yield f"json/{feed.path}.json", feeds.as_json(feed, public_url)
        all_feeds.append(feed)
    summary = statuses.services_of(report)
    yield "json/status.json", statuses.as_json(report, summary)
    yield "index.json", _index(report, all_feeds)
    yield "index.html", page.page(report, summary, news)


def _index(report: Report, all_feeds: Iterable[Feed]) -> bytes:
    """Return what there is, for programs."""
    content: dict[str, object] = {
        "until": iso(report.until),
        "page": "index.html",
        "status": "json/status.json",
    }
    listed = [
        {**feed.about, "rss": f"rss/{feed.path}.xml", "json": f"json/{feed.path}.json"}
        for feed in all_feeds
    ]
    content["global"] = listed[0]
    content["withdrawn"] = listed[1]
    content["by_country"] = [feed for feed in listed[2:] if "test_name" not in feed]
    content["by_series"] = [feed for feed in listed[2:] if "test_name" in feed]
    return msgspec.json.encode(content)


def publish(files: Iterable[tuple[str, bytes]], folder: Path) -> Published:
    """Write files, each atomically, if their content has changed; remove those that are no more.

    A run that was killed at any point is made good by the next one.

    Args:
        files: path below the folder, and content; in this order they are written.
        folder: where; it is made if it is missing. Of what is in there, only files with names that
            the feeds of countries and series can have are ever removed.
    """
    _make_folders(folder)
    names: set[str] = set()
    written = 0
    for name, content in files:
        names.add(name)
        path = folder / name
        if not _has(path, content):
            write_atomically(path, content)
            written += 1
    stale = _stale(folder, names)
    for path in stale:
        path.unlink(missing_ok=True)
    return Published(written, len(names) - written, len(stale))


def _make_folders(folder: Path) -> None:
    """Make the folders that are missing, open to all readers whatever the umask."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        folder.chmod(0o755)
    for name in FOLDERS:
        path = folder / name
        path.mkdir(exist_ok=True)
        if path.stat().st_mode & 0o777 != 0o755:
            path.chmod(0o755)


def _has(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except FileNotFoundError:
        return False


def _stale(folder: Path, names: set[str]) -> list[Path]:
    """Return our files that are not among the names, and what killed runs have left of any."""
    stale = []
    for below in ("", *FOLDERS):
        for path in (folder / below).iterdir():
            # write_atomically calls a file so until it is complete.
            part = path.name.startswith(".") and path.name.endswith(".new")
            name = path.name[1:-4] if part else path.name
            name = f"{below}/{name}" if below else name
            ours = name in names or FLEETING.fullmatch(name.partition("/")[2])
            if ours and (part or name not in names) and path.is_file():
                stale.append(path)
    return stale
