"""Where things are: the measurements in OONI Explorer, and the files that the outputs consist of.

The names of the files are safe, whatever an input or a code holds.
"""

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from urllib.parse import quote

from outputs.incidents import Blocking, Incident, Network
from outputs.wording import clean, is_code, iso, network_name
from series import Series, Target

AUTHORITY = "tag:ooni.org,2025:detector"  # RFC 4151: what begins like this is ours to name
EXPLORER = "https://explorer.ooni.org"
LONGEST = 2000  # characters of an input in a link; servers refuse much longer ones

READABLE = 80  # characters, at most, of the part for people
HASH = 16  # hexadecimal digits of the part that tells names apart

GLOBAL = "global"
WITHDRAWN = "withdrawn"
BY_COUNTRY = "by-country"
BY_SERIES = "by-series"
BY_SERVICE = "by-service"
ARCHIVE, COUNTRY, INCIDENT, SERVICE = "archive", "country", "incident", "service"
FOLDERS = (
    *(
        f"{top}{below}"
        for top in ("rss", "json")
        for below in ("", f"/{BY_COUNTRY}", f"/{BY_SERIES}", f"/{BY_SERVICE}")
    ),
    *("data", ARCHIVE, COUNTRY, INCIDENT, SERVICE),
)
# The files whose subject can disappear, and nothing else.
_HASHED = f"[A-Za-z0-9.-]*[0-9a-f]{{{HASH}}}"
_NUMBER = r"(?:\.[1-9][0-9]*)?"  # of a page of a long list
FLEETING = re.compile(
    rf"(?:rss|json)/{BY_COUNTRY}/(?:[A-Z]{{2}}|{_HASHED})\.(?:xml|json)"
    rf"|(?:rss|json)/(?:{BY_SERIES}|{BY_SERVICE})/{_HASHED}\.(?:xml|json)"
    rf"|{COUNTRY}/(?:[A-Z]{{2}}|{_HASHED}){_NUMBER}\.html"
    rf"|{SERVICE}/{_HASHED}{_NUMBER}\.html"
    rf"|{INCIDENT}/{_HASHED}\.html"
    rf"|{ARCHIVE}/[0-9]{{4}}-[0-9]{{2}}{_NUMBER}\.html"
    r"|(?:ongoing|withdrawn)\.[1-9][0-9]*\.html"
)


def guid_of(incident: Incident) -> str:
    """Return what tells an incident from all others, by service, country and first detection."""
    place = f"{quote(clean(incident.probe_cc))}/{quote(clean(incident.service), safe='')}"
    return f"{AUTHORITY}/{place}/{iso(incident.detected)}"


def country_link(code: str) -> str:
    """Return the link to what is known of a country."""
    return f"{EXPLORER}/country/{code}" if is_code(code) else EXPLORER


def incident_link(incident: Incident, end: datetime) -> str:
    """Return the link to the measurements of an incident.

    A search has one test and one input: those that are blocked in most networks.

    Args:
        incident: which.
        end: up to when there is something to see.
    """
    networks = incident.networks
    asn = networks[0] if len(networks) == 1 else None
    target = _main_target(incident.blockings)
    return search_link(target, incident.probe_cc, asn, incident.start, end)


def network_link(network: Network, code: str, end: datetime) -> str:
    """Return the link to the measurements of an incident in one network of a country."""
    return search_link(_main_target(network.blockings), code, network.asn, network.start, end)


def search_link(target: Target, code: str, asn: int | None, start: datetime, end: datetime) -> str:
    """Return the link to the measurements of a test and input in a country that count.

    These are the measurements that did not fail. The Explorer knows whole days only: it shows the
    first and the last one as a whole.

    Args:
        target: the test and the input.
        code: of the country.
        asn: the only network that counts; None: all.
        start: of the time.
        end: of the time, without it.
    """
    test_name, input_ = target
    # A day means its first second, so that the last one wanted needs the next one.
    until = (max(start, end - timedelta(seconds=1)) + timedelta(days=1)).date()
    network = "" if asn is None else f"&probe_asn={network_name(asn)}"
    return (
        f"{EXPLORER}/search?test_name={_quoted(test_name)}{_input(input_)}"
        f"&probe_cc={_quoted(code)}{network}"
        f"&since={start.date()}&until={until}&failure=false"
    )


def place_link(code: str, asn: int | None, start: datetime, end: datetime) -> str:
    """Return the link to all measurements of a country, or of a network, in a time."""
    network = "" if asn is None else f"&probe_asn={network_name(asn)}"
    until = (end + timedelta(days=1)).date()
    return f"{EXPLORER}/search?probe_cc={_quoted(code)}{network}&since={start.date()}&until={until}"


def _input(input_: str) -> str:
    quoted = _quoted(input_)
    return f"&input={quoted}" if 0 < len(quoted) <= LONGEST else ""


@functools.cache  # a few texts, in many links
def _quoted(text: str) -> str:
    return quote(clean(text), safe="")


def _main_target(blockings: Sequence[Blocking]) -> Target:
    """Return the test and input that most networks block."""
    pairs = {(blocking.series.target, blocking.series.probe_asn) for blocking in blockings}
    numbers = Counter(target for target, _ in pairs)
    return min(numbers, key=lambda target: (-numbers[target], target))


def country_path(code: str) -> str:
    """Return the path of a country's feed below rss/ and json/, without a suffix."""
    return f"{BY_COUNTRY}/{code if is_code(code) else _safe(code, (code,))}"


def series_path(series: Series) -> str:
    """Return the path of a series' feed below rss/ and json/, without a suffix."""
    target = re.sub("^[a-z]+://", "", series.input)
    parts = (series.probe_cc, f"AS{series.probe_asn}", series.test_name, target)
    return f"{BY_SERIES}/{_safe('.'.join(part for part in parts if part), series)}"


def service_path(name: str) -> str:
    """Return the path of a service's feed below rss/ and json/, without a suffix."""
    return f"{BY_SERVICE}/{_safe(name, (name,))}"


def country_page(code: str) -> str:
    """Return the path of a country's page, without a suffix."""
    return f"{COUNTRY}/{country_path(code).partition('/')[2]}"


def service_page(name: str) -> str:
    """Return the path of a service's page, without a suffix."""
    return f"{SERVICE}/{service_path(name).partition('/')[2]}"


@functools.cache  # asked for in several lists
def incident_page(guid: str) -> str:
    """Return the path of an incident's page, without a suffix; like the GUID it never changes."""
    return f"{INCIDENT}/{_safe(guid.removeprefix(f'{AUTHORITY}/'), (guid,))}"


def name_hash(parts: tuple[object, ...]) -> str:
    """Return what tells these parts from all others."""
    # No part holds NUL: neither a code nor a URL in the database does.
    content = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(content).hexdigest()[:HASH]


def _safe(readable: str, parts: tuple[object, ...]) -> str:
    """Return a name: a part for people, as far as it is safe, and a hash of everything."""
    words = re.sub("[^A-Za-z0-9.]+", "-", readable)
    words = re.sub(r"\.{2,}", ".", words)[:READABLE].strip("-.")
    return f"{words}-{name_hash(parts)}" if words else name_hash(parts)
