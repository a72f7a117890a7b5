"""The feed of the files that changed last, in Atom; index.json has all files."""

import io
import uuid
from datetime import datetime

from feedgenerator import Atom1Feed

from portal.catalogue import Catalogue, File
from portal.places import Places
from throttle import in_units

MOST = 100  # entries
OURS = uuid.UUID("6a3f5a0e-7a44-4f0b-9d0e-5d2a4f4c2b11")  # the namespace of the entries' names


class _Atom(Atom1Feed):  # type: ignore[misc]
    """As usual, but its time is that of the exports, which an empty feed has, too."""

    def latest_post_date(self) -> datetime:
        """Return when the exports changed last."""
        updated: datetime = self.feed["updated"]
        return updated


def feed_of(catalogue: Catalogue, places: Places) -> bytes:
    """Return the feed; where the address of the exports is not known, links are relative to it."""
    base = f"{catalogue.base_url}/" if catalogue.base_url else ""
    feed = _Atom(
        title="OONI database exports: changes",
        link=f"{base}index.html",
        description="Files of the exports that are new, or were replaced.",
        language="en",
        author_name=catalogue.licence.owner,
        feed_url=f"{base}{places.relative(places.feed)}",
        feed_guid=f"urn:uuid:{uuid.uuid5(OURS, base)}",
        feed_copyright=f"© {catalogue.licence.owner}, {catalogue.licence.name}",
        updated=datetime.fromisoformat(catalogue.updated),
    )
    for _, file in catalogue.newest[:MOST]:
        name = file.path.rsplit("/", 1)[1]
        feed.add_item(
            title=f"{name}: {file.rows:,} rows, {in_units(file.compressed_bytes)}",
            link=file.url,
            description=f"SHA-256 {file.sha256}",
            unique_id=f"urn:uuid:{_name_of(file)}",
            updateddate=datetime.fromisoformat(file.changed),
            pubdate=datetime.fromisoformat(file.changed),
        )
    written = io.BytesIO()
    feed.write(written, "utf-8")
    return written.getvalue()


def _name_of(file: File) -> uuid.UUID:
    """Return an ID of this version of a file."""
    return uuid.uuid5(OURS, f"{file.path} {file.sha256} {file.changed}")
