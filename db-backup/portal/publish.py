"""Putting the portal into the bucket: what has changed of it, and none of it where nothing has."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from documents import JSON, TEXT
from exports.manifest import RunManifest, TableManifest
from ooni_common.errors import ScriptError
from ooni_common.output import counted
from portal.about import About
from portal.catalogue import Catalogue, Sources, catalogue_of
from portal.feed import feed_of
from portal.pages import Page, Pages
from portal.places import Places
from portal.schema_changes import brought_up_to_date, read_history, write_history
from store.bucket import Bucket

log = logging.getLogger("ooni.db_backup")

HTML = "text/html; charset=utf-8"
ATOM = "application/atom+xml"


@dataclass(frozen=True)
class Publication:
    """What there is to be published.

    Attributes:
        run: of this run, with the summaries of all tables.
        manifests: by table; those that can be used.
        changed: the tables whose pages have to be written.
        sums: the checksums of all files.
        has_new_files: whether these are others than the last time.
        keys: of the objects that are there; None: not listed.
    """

    run: RunManifest
    manifests: Mapping[str, TableManifest]
    changed: Collection[str]
    sums: bytes
    has_new_files: bool
    keys: Collection[str] | None


def lost_pages(places: Places, tables: Iterable[str], keys: Collection[str]) -> list[str]:
    """Return the keys of what has to be there, and is not; of each table its first page counts."""
    wanted = [*places.always, *(places.page(table) for table in tables)]
    return [key for key in wanted if key not in keys]


def write_portal(bucket: Bucket, places: Places, about: About, publication: Publication) -> Page:
    """Write all but the first page.

    Args:
        bucket: gets it.
        places: where things are.
        about: what the operator says.
        publication: what there is.

    Returns:
        The first page, which has to be written when all is there that it leads to.
    """
    run, keys = publication.run, _present(bucket, places, publication.keys)
    snapshots = places.snapshots_among(keys)
    if publication.has_new_files or not snapshots:
        snapshot = places.snapshot(run.finished)
        bucket.put(snapshot, publication.sums, TEXT)
        snapshots = places.snapshots_among({*snapshots, snapshot})
    snapshots, too_many = snapshots[: about.snapshots], snapshots[about.snapshots :]
    before = read_history(bucket, places)
    unusable = run.tables.keys() - publication.manifests.keys()
    history = brought_up_to_date(before, publication.manifests, unusable, run.finished)
    if history != before or places.schema_changes not in keys:
        write_history(bucket, places, history)
    catalogue = catalogue_of(Sources(run, publication.manifests, places, about, history, snapshots))
    pages = Pages(catalogue, about, places)
    written = [
        page
        for table in catalogue.tables
        if table.name in publication.changed
        for page in pages.table(table)
    ]
    first, *lists = pages.index(has_changes=bucket.look(places.layout.changes) is not None)
    for page in [*written, *lists]:
        bucket.put(page.key, page.content, HTML)
    _write_lists(bucket, places, catalogue)
    _write_parquet_list(bucket, places, catalogue, keys)
    kept = _kept(places, publication, written, lists, keys)
    _delete_stale(bucket, [*_stale_pages(places, keys, kept), *too_many])
    return first


def _present(bucket: Bucket, places: Places, keys: Collection[str] | None) -> set[str]:
    """Return the keys of the portal's objects that are there."""
    if keys is not None:
        return set(keys)
    prefixes = (
        places.pages,
        places.lists,
        places.snapshots,
        places.schema_changes,
        places.parquet_urls,
    )
    return {listed.key for prefix in prefixes for listed in bucket.listing(prefix)}


def _write_lists(bucket: Bucket, places: Places, catalogue: Catalogue) -> None:
    """Write what programs read."""
    urls = "".join(f"{file.url}\n" for table in catalogue.tables for file in table.files)
    bucket.put(places.urls, urls.encode(), TEXT)
    bucket.put(places.feed, feed_of(catalogue, places), ATOM)
    content = msgspec.json.format(msgspec.json.encode(catalogue), indent=1) + b"\n"
    bucket.put(places.catalogue, content, JSON)


def _write_parquet_list(
    bucket: Bucket, places: Places, catalogue: Catalogue, keys: Collection[str]
) -> None:
    """Write the list of the files of Parquet, or delete it where there are none any more."""
    urls = "".join(f"{file.url}\n" for file in catalogue.parquet_files)
    if urls:
        bucket.put(places.parquet_urls, urls.encode(), TEXT)
    elif places.parquet_urls in keys:
        bucket.delete_keys([places.parquet_urls])


def _kept(
    places: Places,
    publication: Publication,
    written: Iterable[Page],
    lists: Iterable[Page],
    keys: Iterable[str],
) -> set[str]:
    """Return the keys of the pages that stay: also those of tables that have not changed."""
    names = set(publication.run.tables) - set(publication.changed)
    owners = {places.page(name, 0).removesuffix("0.html") for name in names}
    unchanged = {key for key in keys if key.removesuffix(".html").rstrip("0123456789") in owners}
    return {page.key for page in [*written, *lists]} | unchanged


def _stale_pages(places: Places, keys: Iterable[str], kept: Collection[str]) -> list[str]:
    """Return the keys of pages that are not among those that stay."""
    ours = (places.pages, places.lists)
    return sorted(key for key in keys if key.startswith(ours) and key not in kept)


def _delete_stale(bucket: Bucket, stale: Sequence[str]) -> None:
    """Delete what nothing leads to any more; where that fails, it does no harm."""
    if not stale:
        return
    try:
        bucket.delete_keys(stale)
    except ScriptError as error:
        what = counted(len(stale), "object")
        log.warning("%s; %s of the pages stay that nothing leads to", error, what)
