r"""Generate a map of autonomous systems in the format of OONI's `all_as_org_map.json`.

One JSON object on one line: by ASN, in ascending order, the history of its organisation, oldest
first, each row with name, country, date of the change, AS name and registry:

    {"1": [["Kadelu Net, Inc.", "US", "20040604", "KADELU-7", "ARIN"], ...], ...}

All names are invented, and all follows from the seed: the same calls give the same bytes. Names
beyond ASCII are in there as \u escapes, as upstream writes them, and as raw UTF-8.

    write_asn_map(folder / "all_as_org_map.json")
    small = asn_map(asns=10, rows=30)
"""

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import accumulate, repeat
from pathlib import Path

from dev.samples.vocabulary import FOREIGN_WORDS, SYLLABLES

ASNS = 120_000
ROWS = 420_000

LARGEST_ASN = 2**32 - 1
FIRST_RESERVED = 64_496
FIRST_LONG = 131_072
"""The first ASN of four bytes that registries give out."""
LONG_SPREAD = 4
"""One ASN in so many is in use."""
FIRST_TALL = 4_200_000_000
TALL_EVERY = 1000

FIRST_DAY = date(1980, 1, 1)
LAST_DAY = date(2026, 6, 30)
PIECE_ASNS = 2000
"""ASNs that are written at a time."""

# Weights of the lengths of histories: most have one to three rows, the longest about a hundred.
LENGTH_SHAPE = 1.2
LARGEST_WEIGHT = 125

ORGANISATIONS = 2000
"""Of each registry at most; so many AS names as well."""
UNUSUAL_EVERY = 40
"""One organisation in so many has an unusual name."""
EMPTY_AT = 7
"""Of each registry this organisation has no country, and this AS no name, as a few upstream."""
UNUSUAL_NAMES = (
    'Net "{}", in quotes',
    "{} \\ backslash \\\\ and / slash A/S",
    "{} 🌐 beyond the first plane 𠮷",
    "{} Ge\u0301sellschaft, combining",
    "{} <b>&amp; Söhne</b>, 'tab\there'",
    "{}," + " a name as long as a name gets" * 12,
    "{}\u2028line\u00a0and\u200bspace",
    "سلام {}",
    "株式会社{}",
    "{} Ελλάς",
    "Завод «{}»",
    "{}",
)


@dataclass(frozen=True)
class _Registry:
    """A registry, its share of the ASNs, and what is usual in its region."""

    name: str
    share: int
    countries: tuple[str, ...]
    forms: tuple[str, ...]


REGISTRIES = (
    _Registry("ARIN", 26, ("US", "US", "US", "CA", "JM"), ("{}, Inc.", "{} LLC", "City of {}")),
    _Registry(
        "RIPE",
        38,
        ("RU", "UA", "DE", "GB", "PL", "IR", "CH", "SE", "AE"),
        ("{} GmbH", "{} Ltd.", "{} LLC", "{} SAS", "{} Sp. z o.o.", "{} Kommunikációs Kft."),
    ),
    _Registry("APNIC", 17, ("IN", "AU", "ID", "CN", "BD"), ("{} Pty Ltd", "PT {}", "{} Pvt. Ltd.")),
    _Registry("LACNIC", 13, ("BR", "MX", "AR"), ("{} Telecomunicações Ltda", "{} S.A. de C.V.")),
    _Registry("AFRINIC", 3, ("ZA", "NG", "KE"), ("{} (Pty) Ltd", "{} University")),
    _Registry("JPNIC", 2, ("JP",), ("{} Corporation", "{} K.K.")),
    _Registry("KRNIC", 1, ("KR",), ("{} Co., Ltd.",)),
)


@dataclass(frozen=True)
class _Parts:
    """Encoded rows but for the date: what comes before it and what comes after."""

    heads: tuple[str, ...]
    tails: tuple[str, ...]


def write_asn_map(
    path: Path, asns: int = ASNS, rows: int = ROWS, seed: int = 1, *, duplicates: int = 0
) -> None:
    """Write a map to a file, piece by piece.

    Args:
        path: The file; one that is there is replaced.
        asns: Autonomous systems, at least 1.
        rows: Rows of all histories together, without the duplicates.
        seed: Other seeds give other rows.
        duplicates: So many rows are in the file once more, at their history's end.

    Raises:
        ValueError: There are fewer rows than ASNs, or more than days for them.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(_pieces(asns, rows, seed, duplicates))


def asn_map(asns: int, rows: int, seed: int = 1, *, duplicates: int = 0) -> bytes:
    """Give the bytes that `write_asn_map` writes."""
    return "".join(_pieces(asns, rows, seed, duplicates)).encode()


def _pieces(asns: int, rows: int, seed: int, duplicates: int) -> Iterator[str]:
    if not 1 <= asns <= rows:
        raise ValueError(f"{rows} rows can't be shared out among {asns} ASNs")
    source = random.Random(f"{seed} asn map")  # noqa: S311 - sample data
    systems = zip(
        _numbers(source, asns),
        _lengths(source, asns, rows),
        _registries(source, asns, min(rows, ORGANISATIONS)),
        _shares(duplicates, asns),
        strict=True,
    )
    days = _days()
    entries: list[str] = []
    start = "{"
    for number, length, parts, copies in systems:
        history = _history(source, parts, _some_days(source, days, length))
        history.extend(repeat(history[0], copies))
        entries.append(f'"{number}": [{", ".join(history)}]')
        if len(entries) == PIECE_ASNS:
            yield start + ", ".join(entries)
            start = ", "
            entries.clear()
    yield (start if entries else "") + ", ".join(entries) + "}"


def _history(source: random.Random, parts: _Parts, days: Sequence[str]) -> list[str]:
    """Give one encoded row a day; one after the other differs in more than the date."""
    heads, tails = parts.heads, parts.tails
    # Half as long as with randrange, for each of a hundred thousand.
    head, tail = int(source.random() * len(heads)), int(source.random() * len(tails))
    step = 1 + int(source.random() * (len(heads) - 1))
    return [
        f"{heads[(head + place * step) % len(heads)]}{day}{tails[(tail + place) % len(tails)]}"
        for place, day in enumerate(days)
    ]


def _some_days(source: random.Random, days: Sequence[str], count: int) -> list[str]:
    """Give that many different days, oldest first, so that no two rows are the same."""
    if count == 1:
        return [source.choice(days)]
    # The days sort as text.
    return sorted(source.sample(days, count))


def _days() -> list[str]:
    ordinals = range(FIRST_DAY.toordinal(), LAST_DAY.toordinal() + 1)
    return [date.fromordinal(day).isoformat().replace("-", "") for day in ordinals]


def _numbers(source: random.Random, count: int) -> list[int]:
    """Give that many ASNs in ascending order: the first, the last, about half of two bytes."""
    edges = [1, LARGEST_ASN][:count]
    rest = count - len(edges)
    tall = rest // TALL_EVERY
    short = min(rest // 2, FIRST_RESERVED * 9 // 10)
    long = rest - short - tall
    ranges = (
        (range(2, FIRST_RESERVED), short),
        (range(FIRST_LONG, FIRST_LONG + LONG_SPREAD * long), long),
        (range(FIRST_TALL, LARGEST_ASN), tall),
    )
    return sorted(edges + [number for all_, some in ranges for number in source.sample(all_, some)])


def _lengths(source: random.Random, count: int, total: int) -> Iterator[int]:
    """Share rows out among that many histories, one at least to each and many to a few."""
    weights = (min(source.paretovariate(LENGTH_SHAPE), LARGEST_WEIGHT) for _ in range(count))
    more = Counter(
        source.choices(range(count), cum_weights=list(accumulate(weights)), k=total - count)
    )
    return (1 + more[place] for place in range(count))


def _shares(total: int, count: int) -> Iterator[int]:
    """Share something out among that many, evenly, the first ones first."""
    share, left = divmod(total, count)
    return (share + (place < left) for place in range(count))


def _registries(source: random.Random, count: int, size: int) -> list[_Parts]:
    """Choose a registry for each ASN; each has that many organisations, or a few less."""
    parts = [_parts(source, registry, size) for registry in REGISTRIES]
    return source.choices(parts, weights=[registry.share for registry in REGISTRIES], k=count)


def _parts(source: random.Random, registry: _Registry, size: int) -> _Parts:
    # At least two, for a history to change.
    heads = (_head(source, registry, place) for place in range(size + 1))
    tails = (_tail(source, registry, place) for place in range(size + 1))
    # Two that came out the same would make rows that differ in nothing but the date.
    return _Parts(tuple(dict.fromkeys(heads)), tuple(tails))


def _head(source: random.Random, registry: _Registry, place: int) -> str:
    turn, left = divmod(place, UNUSUAL_EVERY)
    form = source.choice(registry.forms) if left else UNUSUAL_NAMES[turn % len(UNUSUAL_NAMES)]
    word = _word(source).capitalize()
    if source.random() < 0.05:
        word = f"{word} {source.choice(FOREIGN_WORDS)}"
    country = "" if place == EMPTY_AT else source.choice(registry.countries)
    return f'[{_encoded(source, form.format(word))}, "{country}", "'


def _tail(source: random.Random, registry: _Registry, place: int) -> str:
    word = _word(source).upper()
    name = source.choice((f"{word}-AS", f"AS-{word}", f"{word}-{place}", f"{word}-AS-AP"))
    if place == EMPTY_AT:
        name = ""
    return f'", "{name}", "{registry.name}"]'


def _encoded(source: random.Random, text: str) -> str:
    """Encode a string in one of the ways that JSON has for it."""
    raw = source.random() < 0.3
    encoded = json.dumps(text, ensure_ascii=not raw)
    return encoded.replace("/", "\\/") if raw else encoded


def _word(source: random.Random) -> str:
    return "".join(source.choices(SYLLABLES, k=4))
