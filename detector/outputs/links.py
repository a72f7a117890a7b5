"""Links to OONI Explorer, where the measurements themselves are."""

import functools
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from urllib.parse import quote

from outputs.incidents import Block, Incident
from outputs.places import is_code
from outputs.wording import clean, network
from series import Series

SITE = "https://explorer.ooni.org"
BEFORE = timedelta(days=7)  # shown of the time before, to compare with
AFTER = timedelta(days=7)  # and of the time after
LONGEST = 2000  # characters of an input in a link; servers refuse much longer ones


def of_country(code: str) -> str:
    """Return the link to what is known of a country."""
    return f"{SITE}/country/{code}" if is_code(code) else SITE


def of_incident(incident: Incident, end: datetime) -> str:
    """Return the link to the measurements around an incident.

    A search has one test and one input: those that are blocked in most networks.

    Args:
        incident: which.
        end: up to when there is something to see.
    """
    networks = incident.networks
    asn = networks[0] if len(networks) == 1 else None
    return search(_main(incident.blocks), asn, incident.start, end)


def of_network(blocks: Sequence[Block], end: datetime) -> str:
    """Return the link to the measurements around the blocks in one network."""
    start = min(block.start for block in blocks)
    return search(_main(blocks), blocks[0].series.probe_asn, start, end)


def of_target(incident: Incident, test_name: str, input_: str, end: datetime) -> str:
    """Return the link to the measurements of one test and input, in the whole country."""
    return search(Series(test_name, input_, incident.probe_cc, 0), None, incident.start, end)


def search(series: Series, asn: int | None, start: datetime, end: datetime) -> str:
    """Return the link to the measurements of a test and input in a country, from first to last day.

    Args:
        series: its test, input and country.
        asn: the only network that counts; None: all.
        start: the search begins some days before.
        end: and it ends some days after.
    """
    # A day means its first second, so that the last one wanted needs the next one.
    until = (end + AFTER + timedelta(days=1)).date()
    network_ = "" if asn is None else f"&probe_asn={network(asn)}"
    return (
        f"{SITE}/search?test_name={_quoted(series.test_name)}{_input(series.input)}"
        f"&probe_cc={_quoted(series.probe_cc)}{network_}"
        f"&since={(start - BEFORE).date()}&until={until}&failure=false"
    )


def _input(input_: str) -> str:
    quoted = _quoted(input_)
    return f"&input={quoted}" if 0 < len(quoted) <= LONGEST else ""


@functools.cache  # a few texts, in many links
def _quoted(text: str) -> str:
    return quote(clean(text), safe="")


def _main(blocks: Sequence[Block]) -> Series:
    """Return a series of the test and input that most networks block."""
    pairs = {
        (block.series.test_name, block.series.input, block.series.probe_asn): block.series
        for block in blocks
    }
    numbers = Counter((test_name, input_) for test_name, input_, _ in pairs)
    most = min(numbers, key=lambda target: (-numbers[target], target))
    return next(s for s in pairs.values() if (s.test_name, s.input) == most)
