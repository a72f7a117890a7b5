"""All items that the feeds have: those that hold, and those that were withdrawn."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from outputs import items
from outputs.published import KEPT, NEAR, Item, Published
from outputs.report import Report
from outputs.silence_items import of_silence

NOT_CONFIRMED = "Later measurements do not confirm it, or show it as part of another incident."


@dataclass(frozen=True)
class News:
    """What there is to tell.

    Attributes:
        items: of all countries, those that were withdrawn, too.
        published: the same, for the next run.
    """

    items: tuple[Item, ...]
    published: Published

    @property
    def withdrawn(self) -> list[Item]:
        """What was withdrawn, the newest first."""
        return sorted(
            (item for item in self.items if item.withdrawn),
            key=lambda item: (item.time, item.guid),
            reverse=True,
        )


def news_of(report: Report, published: Published | None = None) -> News:
    """Return what there is to tell.

    Args:
        report: what is known now.
        published: what earlier runs have told; None: nothing.
    """
    earlier = {} if published is None else published.items
    current = [
        item for incident in report.incidents for item in items.of_incident(report, incident)
    ]
    current += map(of_silence, report.silences)
    current = _with_names(current, earlier)
    names = {item.guid for item in current}
    missing = [told for told in earlier.values() if told.guid not in names]
    old = [
        _as_it_is_now(told, report)
        for told in missing
        if told.time <= report.until and _is_followed(told, report)
    ]
    limit = report.until - KEPT
    kept = {told.guid: told for told in missing}
    kept |= {item.guid: item for item in (*current, *old)}
    kept = {guid: kept[guid] for guid in sorted(kept) if _is_kept(kept[guid], limit)}
    return News((*current, *old), Published(kept))


def _is_followed(told: Item, report: Report) -> bool:
    return not told.service or told.service in report.services


def _is_kept(told: Item, limit: datetime) -> bool:
    return bool(told.withdrawn) or told.time >= limit


def _with_names(current: Iterable[Item], earlier: Mapping[str, Item]) -> list[Item]:
    """Give the turns of incidents the GUIDs with which they were told, if their times have moved.

    Incidents themselves have them already.
    """
    current = list(current)
    own = {item.guid for item in current}
    missing = [told for told in earlier.values() if told.guid not in own]
    named = []
    for item in current:
        near = [told for told in missing if item.guid not in earlier and _is_same(told, item)]
        if near:
            told = min(near, key=lambda told: (abs(told.time - item.time), told.guid))
            missing.remove(told)
            item = replace(item, guid=told.guid)  # noqa: PLW2901
        named.append(item)
    return named


def _is_same(told: Item, item: Item) -> bool:
    """Tell whether what was told is an item, but for its times."""
    of_same = told.guid.rpartition("/")[0] == item.guid.rpartition("/")[0]
    return of_same and told.kind == item.kind and abs(told.time - item.time) <= NEAR


def _as_it_is_now(told: Item, report: Report) -> Item:
    """Return what was told and is missing now: withdrawn, if it is refuted."""
    by_hand = report.withdrawn_by_hand.get(told.incident, "")
    if told.withdrawn or (told.time < report.learned and not by_hand):
        return told
    return items.withdrawn(told, by_hand or NOT_CONFIRMED)
