"""What tells people and programs of the exports, made of their manifests: pages and checksums."""

import logging
from collections.abc import Iterable, Mapping

import msgspec

from documents import JSON, TEXT, encoded
from exports.manifest import ExportLayout, RunManifest, TableManifest, TableSummary, summary
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
    if manifests.run_damage:
        log.warning("%s; writing it again", manifests.run_damage)
    before = last.tables if last else {}
    tables = _summaries(manifests, before)
    if not last and not tables:
        return False
    sums, has_changed = checksums(sound.values(), layout), tables != before
    same_pages = last is not None and last.edition == about.edition
    has_pages = same_pages and not _lost(layout, manifests, None if has_changed else sums, objects)
    if has_pages and not has_changed:
        return False
    run = msgspec.structs.replace(run, tables=tables, edition=about.edition)
    changed = {name for name in sound if not has_pages or tables[name] != before.get(name)}
    publication = Publication(run, sound, changed, sums, has_changed, objects)
    first = write_portal(bucket, Places(layout), about, publication)
    bucket.put(layout.sums, sums, TEXT)
    bucket.put(first.key, first.content, HTML)
    bucket.put_document(layout.run, encoded(run, layout.run), JSON)
    return True


def _summaries(
    manifests: TableManifests, before: Mapping[str, TableSummary]
) -> dict[str, TableSummary]:
    """Return what is said of each table; what was said before, where a manifest can't be used."""
    sound = {name: summary(manifest) for name, manifest in sorted(manifests.sound.items())}
    return sound | {
        name: before[name] for name in manifests.damaged if name in before and name not in sound
    }


def _lost(
    layout: ExportLayout,
    manifests: TableManifests,
    sums: bytes | None,
    objects: Mapping[str, Listed] | None,
) -> bool:
    """Tell whether checksums or pages are gone, or other ones than were written.

    Args:
        layout: where they are.
        manifests: of all tables, and of the last run. While one is damaged, nobody can tell.
        sums: as they were written; None: not known, as tables have changed.
        objects: in the bucket, by key; None: not listed.
    """
    if objects is None or manifests.damaged:
        return False
    places, listed = Places(layout), objects.get(layout.sums)
    same = listed is not None and (sums is None or listed.size == len(sums))
    lost = [] if same else [layout.sums]
    lost += [] if layout.index in objects else [layout.index]
    lost += lost_pages(places, manifests.sound, objects)
    has_parquet = any(export.parquet for one in manifests.sound.values() for export in one.exports)
    if sums is not None and has_parquet and places.parquet_urls not in objects:
        lost.append(places.parquet_urls)
    for key in lost:
        log.warning("%s: gone, or not what was written; writing it again", key)
    return bool(lost)
