"""Incidents as the lists have them: those that hold, and those that were withdrawn."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from outputs.incidents import Incident
from outputs.links import incident_page
from outputs.news import News
from outputs.published import Item
from outputs.report import ONGOING, SILENT, WITHDRAWN, Report
from pages.drafts import seed_of

NEW = timedelta(days=7)


@dataclass(frozen=True)
class Entry:
    """An incident in a list.

    Attributes:
        data: what it is, as programs get it (items.data_of).
        state: as in the data, or that it was withdrawn.
        withdrawn: why; "" while it holds.
        items: what the feeds tell of it, the first one first.
        incident: as it is now; None: it was told, and is not there any more.
    """

    data: Mapping[str, Any]
    state: str
    withdrawn: str
    items: Sequence[Item]
    incident: Incident | None

    @property
    def id(self) -> str:
        """The GUID of the incident."""
        return str(self.data["id"])

    @property
    def page(self) -> str:
        """Its path, without a suffix."""
        return incident_page(self.id)

    @property
    def service(self) -> str:
        """The name of it."""
        return str(self.data["service"])

    @property
    def probe_cc(self) -> str:
        """The country."""
        return str(self.data["probe_cc"])

    @cached_property
    def start(self) -> datetime:
        """When it began."""
        return datetime.fromisoformat(self.data["start"])

    @cached_property
    def detected(self) -> datetime:
        """When that was sure."""
        return datetime.fromisoformat(self.data["detected"])

    @property
    def end(self) -> datetime | None:
        """When it ended."""
        end = self.data["end"]
        return None if end is None else datetime.fromisoformat(end)

    @property
    def extent(self) -> tuple[int, int]:
        """Networks with signs of blocking, and those that measured it; the same where unknown."""
        severity = self.data["severity"]
        if severity is None:
            return (len(self.data["networks"]),) * 2
        return severity["networks_blocked"], severity["networks_measured"]

    @property
    def share(self) -> float:
        """The runs that came from networks with signs of blocking, of 1; 0 where unknown."""
        severity = self.data["severity"]
        return severity["runs_blocked"] / severity["runs"] if severity else 0.0

    @cached_property
    def seed(self) -> str:
        """What tells this, as the lists show it, from all that it was or can become."""
        told = [
            (item.guid, item.title, item.time, item.withdrawn, _rest(item)) for item in self.items
        ]
        doubts = self.items[0].description if self.data["doubts"] else ""
        return seed_of(self.data, self.state, told, doubts)

    @property
    def rank(self) -> tuple[object, ...]:
        """What sorts the severe ones first: no doubt, ongoing, many networks, many runs, new."""
        certain = bool(self.data["doubts"]), self.state != ONGOING
        return *certain, -self.extent[0], -self.share, -self.detected.timestamp()


def entries_of(report: Report, news: News) -> list[Entry]:
    """Return all incidents, those detected last first."""
    incidents = {report.guid_of(incident): incident for incident in report.incidents}
    of_incident: dict[str, list[Item]] = {}
    for item in news.items:
        if "incident" in item.data:
            of_incident.setdefault(item.data["incident"]["id"], []).append(item)
    entries = [_entry(items, incidents.get(guid)) for guid, items in of_incident.items()]
    return sorted(entries, key=lambda entry: (entry.data["detected"], entry.id), reverse=True)


def _rest(item: Item) -> dict[str, Any]:
    return {key: value for key, value in item.data.items() if key != "incident"}


def _entry(items: list[Item], incident: Incident | None) -> Entry:
    items = sorted(items, key=lambda item: (item.time, item.guid))
    first = next((item for item in items if item.kind == "blocked"), items[0])
    data = first.data["incident"]
    state = data["state"]
    if first.withdrawn:
        state = WITHDRAWN
    elif incident is None and state == ONGOING:
        state = SILENT  # it was told, and nobody looks at it any more
    return Entry(data, state, first.withdrawn, items, incident)


def ongoing_of(entries: Iterable[Entry]) -> list[Entry]:
    """Return the incidents that are going on, the most severe ones first."""
    return sorted((e for e in entries if e.state == ONGOING), key=lambda entry: entry.rank)
