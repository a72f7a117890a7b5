"""What tells people and programs of the exports, made of their manifests: page and checksums."""

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from documents import JSON, TEXT, encoded
from exports.manifest import ExportLayout, RunManifest, TableManifest, summary
from exports.stored import TableManifests
from store import Bucket, Listed
from throttle import in_units

log = logging.getLogger("ooni.db_backup")

HTML = "text/html; charset=utf-8"
TEMPLATE = "index.html.jinja"
SAFE_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def checksums(manifests: Iterable[TableManifest], layout: ExportLayout) -> bytes:
    """Return SHA256SUMS, for `sha256sum --check` in a copy of the exports."""
    exports = [export for manifest in manifests for export in manifest.exports]
    lines = (f"{export.sha256}  {layout.relative(export.key)}\n" for export in exports)
    return "".join(sorted(lines, key=lambda line: line[66:])).encode()


def publish(
    bucket: Bucket,
    layout: ExportLayout,
    manifests: TableManifests,
    run: RunManifest,
    objects: Mapping[str, Listed] | None = None,
) -> bool:
    """Write the manifests, checksums and pages of the exports, the manifest of all last.

    Args:
        bucket: gets it.
        layout: where things are.
        manifests: of all tables, and of the last run. What that says of tables whose manifests
            can't be used, or are lost, stays.
        run: of this run; its tables are filled in.
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
    sums = checksums(sound.values(), layout)
    if last and tables == last.tables and (manifests.damaged or not _lost(layout, sums, objects)):
        return False
    run = msgspec.structs.replace(run, tables=tables)
    bucket.put(layout.sums, sums, TEXT)
    has_changes = bucket.look(layout.changes) is not None
    content = page(run, sound, layout, has_changes=has_changes)
    bucket.put(layout.index, content, HTML)
    bucket.put_document(layout.run, encoded(run, layout.run), JSON)
    return True


def _lost(layout: ExportLayout, sums: bytes, objects: Mapping[str, Listed] | None) -> bool:
    """Tell whether checksums or page are gone, or other ones than were written."""
    if objects is None:
        return False
    listed = objects.get(layout.sums)
    lost = [] if listed and listed.size == len(sums) else [layout.sums]
    lost += [] if layout.index in objects else [layout.index]
    for key in lost:
        log.warning("%s: gone, or not what was written; writing it again", key)
    return bool(lost)


def page(
    run: RunManifest,
    manifests: Mapping[str, TableManifest],
    layout: ExportLayout,
    *,
    has_changes: bool = False,
) -> bytes:
    """Return the page for people, with a link to the notes of removals if there are any."""
    import jinja2  # noqa: PLC0415 (most runs have nothing to publish)

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["units"] = in_units
    keys = [export.key for manifest in manifests.values() for export in manifest.exports]
    # Of keys, only those that need no quoting in the languages of the examples.
    plain = [name for key in keys if SAFE_NAME.fullmatch(name := key.removeprefix(layout.exports))]
    example = min(plain, default="")
    text = environment.get_template(TEMPLATE).render(
        run=run,
        manifests=dict(sorted(manifests.items())),
        layout=layout,
        example=example,
        has_changes=has_changes,
    )
    return text.encode()
