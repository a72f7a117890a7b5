"""What has been told: kept, so that it keeps its name, and what was wrong does not just disappear.

Measurements that come late, or are processed again, can move the hour in which something was
detected, or take the reason for it away. Then its item stays, with its GUID, and says that it is
withdrawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from ooni_common.state import read_state, write_state
from outputs.incidents import Incident, Key
from outputs.links import guid_of
from outputs.wording import clean

PUBLISHED = "published.json"  # in state_dir
NEAR = timedelta(hours=48)  # by which late measurements can move what has been told
KEPT = timedelta(days=400)  # for which what holds is kept; what was withdrawn stays for ever


@dataclass(frozen=True)
class Item:
    """One entry of a feed.

    Attributes:
        guid: never changes, and no other one has it.
        title: plain text.
        link: to the measurements.
        time: when it was sure.
        description: HTML.
        categories: what a reader can filter by.
        data: the same for programs.
        kind: of what it tells: blocked, mostly-over, ended, silence.
        service: that it is about; "" of a silence.
        probe_cc: the country.
        withdrawn: why it was wrong; "" while it holds.
    """

    guid: str
    title: str
    link: str
    time: datetime
    description: str
    categories: tuple[str, ...]
    data: dict[str, Any]
    kind: str
    service: str
    probe_cc: str
    withdrawn: str = ""

    @property
    def incident(self) -> str:
        """The GUID of the incident that it is about; "" of a silence."""
        if self.kind == "silence":
            return ""
        return self.guid if self.kind == "blocked" else self.guid.rsplit("/", 2)[0]


class Published(msgspec.Struct, frozen=True):
    """What earlier runs have told.

    Attributes:
        items: all of them, by GUID.
        learned: from this hour since 1970 on, runs have learned more since they were told: what is
            missing is refuted. None: an older version has told them.
    """

    items: dict[str, Item] = {}
    learned: int | None = None


def read_published(state_dir: Path) -> Published:
    """Read what earlier runs have told; nothing where there is no usable file."""
    return read_state(state_dir / PUBLISHED, Published)


def write_published(state_dir: Path, published: Published) -> None:
    """Write it, if it has changed."""
    if published != read_published(state_dir):
        write_state(state_dir / PUBLISHED, published)


def names_of(
    incidents: Sequence[Incident], published: Published, until: datetime
) -> Mapping[Key, str]:
    """Return the GUIDs of incidents that were published under another hour of detection.

    Args:
        incidents: as they are detected now.
        published: what earlier runs have told.
        until: the end of the last hour that was looked at; what was told of later ones is not
            missing now.
    """
    own = {guid_of(incident) for incident in incidents}
    missing = [
        told
        for told in published.items.values()
        if told.kind == "blocked" and told.guid not in own and told.time <= until
    ]
    names: dict[Key, str] = {}
    for incident in incidents:
        if guid_of(incident) in published.items:
            continue
        place = (clean(incident.service), clean(incident.probe_cc))
        near = [told for told in missing if _is_near(told, place, incident.detected)]
        if near:
            told = min(near, key=lambda told: (abs(told.time - incident.detected), told.guid))
            names[incident.key] = told.guid
            missing.remove(told)
    return names


def _is_near(told: Item, place: tuple[str, str], time: datetime) -> bool:
    return (told.service, told.probe_cc) == place and abs(told.time - time) <= NEAR
