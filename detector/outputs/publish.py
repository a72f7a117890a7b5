"""From a report to files that a web server can serve, each of them always whole."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from ooni_common.state import read_state, write_state
from outputs import feeds, statuses
from outputs.feeds import Feed
from outputs.links import FLEETING, FOLDERS
from outputs.news import News
from outputs.report import Report
from outputs.wording import iso
from outputs.writing import writing
from pages.drafts import Draft, ready, seed_of
from pages.rendering import Site
from pages.site import pages_of

LEDGER = "outputs.json"  # in state_dir


@dataclass(frozen=True)
class Done:
    """What was done.

    Attributes:
        written: files that are new or have changed.
        kept: files that are as they were.
        removed: files that are no longer among the outputs.
    """

    written: int
    kept: int
    removed: int


class Ledger(msgspec.Struct, frozen=True):
    """What the last run has written: path → seed, size and time of change."""

    files: dict[str, tuple[str, int, int]] = {}


def drafts_of(report: Report, news: News, site: Site) -> Iterator[Draft]:
    """Yield all files, those first to which others link.

    The same report gives the same bytes.

    Args:
        report: what is known now.
        news: what there is to tell of it.
        site: what the pages say of themselves.
    """
    all_feeds: list[Feed] = []
    for feed in feeds.feeds_of(report, news):
        seed = seed_of(feed, site.public_url)
        for path, make in (
            (f"rss/{feed.path}.xml", feeds.as_rss),
            (f"json/{feed.path}.json", feeds.as_json),
        ):
            yield Draft(path, partial(make, feed, site.public_url), seed)
        all_feeds.append(feed)
    summary = statuses.services_of(report)
    yield ready("json/status.json", statuses.as_json(report, summary))
    *pages, front = pages_of(report, summary, news, site)
    yield from pages
    yield ready("index.json", _index(report, all_feeds, [page.path for page in pages]))
    yield front


def _index(report: Report, all_feeds: Iterable[Feed], pages: Iterable[str]) -> bytes:
    """Return what there is, for programs."""
    content: dict[str, object] = {
        "until": iso(report.until),
        "page": "index.html",
        "status": "json/status.json",
        "schema": "schema.json",
    }
    listed = [
        {**feed.about, "rss": f"rss/{feed.path}.xml", "json": f"json/{feed.path}.json"}
        for feed in all_feeds
    ]
    content["global"] = listed[0]
    content["withdrawn"] = listed[1]
    content["by_country"] = [
        feed for feed in listed[2:] if "probe_cc" in feed and "test_name" not in feed
    ]
    content["by_service"] = [feed for feed in listed[2:] if "probe_cc" not in feed]
    content["by_series"] = [feed for feed in listed[2:] if "test_name" in feed]
    paths = list(pages)
    content["data"] = [path for path in paths if path.startswith("data/")]
    # Those of incidents are in data/incidents.json.
    content["pages"] = [
        path for path in paths if path.endswith(".html") and not path.startswith("incident/")
    ]
    return msgspec.json.encode(content)


def publish(files: Iterable[Draft], folder: Path, ledger: Path | None = None) -> Done:
    """Write files, each atomically, if their content has changed; remove those that are no more.

    A run that was killed at any point is made good by the next one.

    Args:
        files: in this order they are written.
        folder: where; it is made if it is missing. Of what is in there, only files with names that
            ours can have are ever removed.
        ledger: keeps of what files were made, so that those are not made again.
    """
    _make_folders(folder)
    earlier = {} if ledger is None else read_state(ledger, Ledger).files
    names: set[str] = set()
    seeds: dict[str, str] = {}
    written = 0
    with writing() as writer:
        for draft in files:
            names.add(draft.path)
            path = folder / draft.path
            if draft.seed:
                seeds[draft.path] = draft.seed
                if draft.path in earlier and earlier[draft.path] == _noted(path, draft.seed):
                    continue
            content = draft.make()
            if not _has(path, content):
                writer.write(path, content)
                written += 1
    stale = _stale(folder, names)
    for path in stale:
        path.unlink(missing_ok=True)
    if ledger is not None:
        _keep(ledger, earlier, {name: _noted(folder / name, seeds[name]) for name in seeds})
    return Done(written, len(names) - written, len(stale))


def _keep(
    ledger: Path,
    earlier: dict[str, tuple[str, int, int]],
    files: dict[str, tuple[str, int, int] | None],
) -> None:
    if files != earlier:
        write_state(ledger, Ledger({name: noted for name, noted in files.items() if noted}))


def _noted(path: Path, seed: str) -> tuple[str, int, int] | None:
    """Return what the ledger says of a file; None where it is not there."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return seed, status.st_size, status.st_mtime_ns


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
            # writing.Writer calls a file so until it is complete.
            part = path.name.startswith(".") and path.name.endswith(".new")
            name = path.name[1:-4] if part else path.name
            name = f"{below}/{name}" if below else name
            ours = name in names or FLEETING.fullmatch(name)
            if ours and (part or name not in names) and path.is_file():
                stale.append(path)
    return stale
