"""What tells people and programs of the exports, made of their manifests: pages and checksums."""

import logging
from collections.abc import Iterable, Mapping

import msgspec

from documents import JSON, TEXT, encoded
from exports.manifest import ExportLayout, RunManifest, TableManifest, summary
from exports.stored import TableManifests
from portal.about import About
from portal.places import Places
from portal.publish import HTML, Publication, lost_pages, write_portal
from store.bucket import Bucket, Listed

log = logging.getLogger("ooni.db_backup")


def checksums(manifests: Iterable[TableManifest], layout: ExportLayout) -> bytes:
    """Return SHA256SUMS, for `sha256sum --check` in a copy of the exports."""
    exports = [export for manifest in manifests for export in manifest.exports]
    objects = [stored for export in exports for stored in export.stored]
    lines = (f"{stored.sha256}  {layout.relative(stored.key)}\n" for stored in objects)
    return "".join(sorted(lines, key=lambda line: line[66:])).encode()


def publish(
    bucket: Bucket,
    layout: ExportLayout,
    manifests: TableManifests,
    run: RunManifest,
    about: About,
    objects: Mapping[str, Listed] | None = None,
) -> bool:
    """Write the manifests, checksums and pages of the exports, the manifest of all last.

    Args:
        bucket: gets it.
        layout: where things are.
        manifests: of all tables, and of the last run. What that says of tables whose manifests
            can't be used, or are lost, stays.
        run: of this run; its tables are filled in.
        about: what the operator says of the data.
        objects: in the bucket before, by key: what is lost is written again. None: not listed.

    Returns:
        Whether that was necessary: otherwise all of it is as it has to be.
    """
    sound, last = manifests.sound, manifests.run
    tables = {name: summary(manifest) for name, manifest in sorted(sound.items())}
    if manifests.run_damage:
        log.warning("%s; writing it again", manifests.run_damage)
    kept = last.tables if last else {}
    tables |= {
        name: kept[name] for name in manifests.damaged if name in kept and name not in tables
    }
    if not last and not tables:
        return False
    sums, edition = checksums(sound.values(), layout), about.edition
    before = last.tables if last else {}
    same_pages = last is not None and last.edition == edition
    # Of other tables nobody knows the size that the checksums had.
    sums_before = sums if tables == before else None
    has_parquet = tables == before and any(table.parquet_bytes for table in tables.values())
    lost = (
        same_pages
        and not manifests.damaged
        and _lost(layout, sums_before, sound, objects, has_parquet=has_parquet)
    )
    if same_pages and tables == before and not lost:
        return False
    run = msgspec.structs.replace(run, tables=tables, edition=edition)
    has_pages = same_pages and not lost
    changed = {name for name in sound if not has_pages or tables[name] != before.get(name)}
    first = write_portal(
        bucket,
        Places(layout),
        about,
        Publication(run, sound, changed, sums, tables != before, objects),
    )
    bucket.put(layout.sums, sums, TEXT)
    bucket.put(first.key, first.content, HTML)
    bucket.put_document(layout.run, encoded(run, layout.run), JSON)
    return True


def _lost(
    layout: ExportLayout,
    sums: bytes | None,
    tables: Iterable[str],
    objects: Mapping[str, Listed] | None,
    *,
    has_parquet: bool,
) -> bool:
    """Tell whether checksums or pages are gone, or other ones than were written.

    Args:
        layout: where they are.
        sums: as they were written; None: not known.
        tables: that have pages.
        objects: in the bucket, by key; None: not listed.
        has_parquet: whether there was a file of Parquet.
    """
    if objects is None:
        return False
    listed = objects.get(layout.sums)
    same = listed is not None and (sums is None or listed.size == len(sums))
    lost = [] if same else [layout.sums]
    lost += [] if layout.index in objects else [layout.index]
    places = Places(layout)
    lost += lost_pages(places, tables, objects)
    lost += [places.parquet_urls] if has_parquet and places.parquet_urls not in objects else []
    for key in lost:
        log.warning("%s: gone, or not what was written; writing it again", key)
    return bool(lost)
