"""What the feeds tell of silences: an item of its own kind, one for a curfew that repeats."""

from typing import Any

from ooni_common.output import counted
from outputs.items import paragraphs_of
from outputs.links import AUTHORITY, place_link
from outputs.published import Item
from outputs.silence import USUAL, WEEKS, Episode, Silence
from outputs.wording import country, iso, network_name, spoken, spoken_duration, within
from series import HOUR, time_of

LISTED = 20  # times that a description has; the JSON has all
CAUTION = (
    "Found automatically: usually, at least {usual} runs of OONI Probe an hour come from there at "
    "that time of the week (the middle one of the last {weeks} weeks). People may have been cut "
    "off from the internet, or may just have stopped measuring."
)


def of_silence(silence: Silence) -> Item:
    """Return the item that tells of a silence."""
    code, asn = silence.probe_cc, silence.probe_asn
    where = f"{network_name(asn)} in {within(code)}" if asn else within(code)
    times = len(silence.episodes)
    if times > 1:
        title = f"No measurements from {where}, {times} times since {spoken(silence.start)}"
    elif silence.end is None:
        title = f"No measurements from {where} since {spoken(silence.start)}"
    else:
        lasted = spoken_duration(silence.end - silence.start)
        title = f"No measurements from {where} for {lasted}"
    listed = [_said(episode) for episode in silence.episodes[-LISTED:]]
    more = f"; {times - LISTED:,} earlier ones" if times > LISTED else ""
    return Item(
        f"{AUTHORITY}/silence/{code}/{network_name(asn) if asn else 'all'}/{iso(silence.detected)}",
        title,
        place_link(code, asn or None, silence.start, silence.end or silence.detected),
        silence.detected,
        paragraphs_of(
            [
                f"OONI got no measurements at all from {where}: {'; '.join(listed)}{more}.",
                f"Detected {spoken(silence.detected)}, after three hours.",
                CAUTION.format(usual=USUAL, weeks=WEEKS),
            ]
        ),
        ("Silence", country(code)),
        {"status": "SILENT", "silence": _data(silence)},
        "silence",
        "",
        code,
    )


def _said(episode: Episode) -> str:
    start = spoken(time_of(episode.start))
    if episode.end is None:
        return f"since {start}"
    lasted = (time_of(episode.end) - time_of(episode.start)).total_seconds() // HOUR
    return f"from {start} for {counted(int(lasted), 'hour')}"


def _data(silence: Silence) -> dict[str, Any]:
    return {
        "probe_cc": silence.probe_cc,
        "country": country(silence.probe_cc),
        "probe_asn": silence.probe_asn or None,
        "times": [
            {
                "start": iso(time_of(episode.start)),
                "detected": iso(time_of(episode.detected)),
                "end": None if episode.end is None else iso(time_of(episode.end)),
            }
            for episode in silence.episodes
        ],
    }
