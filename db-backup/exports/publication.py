"""What is made from the manifests of the tables: the manifest of all, the checksums, the page."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from exports.manifest import (
    JSON,
    Layout,
    RunManifest,
    TableManifest,
    checksums,
    encoded,
    read_manifest,
    summary,
)
from store import Bucket
from throttle import in_units

TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
TEMPLATE = "index.html.jinja"


def publish(
    bucket: Bucket, layout: Layout, manifests: Mapping[str, TableManifest], run: RunManifest
) -> bool:
    """Write what tells people and programs of the exports, the manifest of all last.

    Args:
        bucket: gets it.
        layout: where things are.
        manifests: of all tables.
        run: of this run; its tables are filled in.

    Returns:
        Whether that was necessary: otherwise all of it is as it has to be.
    """
    tables = {name: summary(manifest) for name, manifest in sorted(manifests.items())}
    before = read_manifest(bucket, layout.run, RunManifest)
    if tables == (before.tables if before else {}):
        return False
    run = msgspec.structs.replace(run, tables=tables)
    bucket.put(layout.sums, checksums(manifests.values(), layout), TEXT)
    bucket.put(layout.index, page(run, manifests, layout), HTML)
    bucket.put(layout.run, encoded(run, layout.run), JSON)
    return True


def page(run: RunManifest, manifests: Mapping[str, TableManifest], layout: Layout) -> bytes:
    """Return the page for people."""
    import jinja2  # noqa: PLC0415 (most runs have nothing to publish)

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["units"] = in_units
    text = environment.get_template(TEMPLATE).render(
        run=run, manifests=dict(sorted(manifests.items())), layout=layout
    )
    return text.encode()
