"""Generate fingerprint files in the format of ooni/blocking-fingerprints.

Everything in them is invented: block pages that nobody serves, on hosts and in networks that are
reserved for examples. All follows from the seed: the same calls give the same bytes. The files have
what upstream's have and a loader must keep as it is: rows that end in CRLF, patterns with CRLF,
quotes, commas, backslashes, HTML and many scripts, and quotes around cells that need none.

    sample = SampleFingerprints()
    sample.dns, sample.http
    sample.with_added("http", 3).http
"""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Self

from dev.samples.vocabulary import COUNTRIES, SYLLABLES

Protocol = Literal["dns", "http"]

HEADER = (
    "name",
    "scope",
    "other_names",
    "location_found",
    "pattern_type",
    "pattern",
    "confidence_no_fp",
    "expected_countries",
    "source",
    "exp_url",
    "notes",
)
EVERYWHERE = "ZZ"

# Of a common row the first scopes are the likely ones; the unusual rows take turns with all.
SCOPES: Mapping[Protocol, tuple[str, ...]] = MappingProxyType(
    {
        "dns": ("isp", "nat", "prod", "inst", "vbw", "fp"),
        "http": ("isp", "fp", "nat", "prod", "vbw", "inst", "injb", "prov"),
    }
)
LIKELY_SCOPES = 4
CONFIDENCES = 11
"""From 0 to 10."""

UNUSUAL_EVERY = 6
"""One row in so many has an unusual pattern."""
WITHOUT_COUNTRY: Mapping[Protocol, float] = MappingProxyType({"dns": 0.04, "http": 0.6})


@dataclass(frozen=True)
class _Shape:
    """Where a pattern is looked for, how, and its text with NAME, HOST, … in place of words."""

    location: str
    pattern_type: str
    pattern: str


COMMON: Mapping[Protocol, tuple[_Shape, ...]] = MappingProxyType(
    {
        "dns": (
            _Shape("dns", "full", "IPV4"),
            _Shape("dns", "full", "IPV4"),
            _Shape("dns", "full", "IPV4"),
            _Shape("dns", "full", "IPV6"),
            _Shape("dns", "full", "HOST"),
        ),
        "http": (
            _Shape("body", "contains", "<title>SAID</title>"),
            _Shape("body", "contains", "<h1>SAID</h1>"),
            _Shape("body", "contains", "SAID"),
            _Shape("body", "contains", '<div class="NAME-notice">SAID'),
            _Shape("body", "contains", '<iframe src="http://HOST/stop?id=NUMBER"'),
            _Shape("body", "contains", "HOST/closed/NUMBER"),
            _Shape("header.location", "prefix", "http://HOST/closed"),
            _Shape("header.location", "prefix", "https://HOST:8443/NAME?from="),
            _Shape("header.location", "full", "http://HOST/sorry.html"),
            _Shape("header.server", "prefix", "NAMEGate/"),
            _Shape("header.via", "full", "1.1 gate.HOST:3128 (NAME proxy/2.4)"),
        ),
    }
)

UNUSUAL: Mapping[Protocol, tuple[_Shape, ...]] = MappingProxyType(
    {
        "dns": (
            _Shape("dns", "prefix", "203.0.113."),
            _Shape("dns", "contains", ".HOST"),
            _Shape("dns", "regexp", r"^198\.51\.100\.(NUMBER|1?\d)$"),
        ),
        "http": (
            _Shape("body", "contains", "<title>NAME: closed</title>\r\n"),
            _Shape("body", "regexp", r"<p>Order no\. \d{1,6}/NUMBER</p>"),
            _Shape(
                "body", "contains", "<body>\r\n<h2>NAME NUMBER</h2>\r\n<p>Come back, or do not.</p>"
            ),
            _Shape(
                "body", "contains", '<font color="red" size="5">"NAME" says: no, and "no" again'
            ),
            _Shape("header.location", "regexp", r"^https?://[^/]*HOST(:\d+)?/"),
            _Shape("body", "contains", "</head>\r\n<body>SAID</body>"),
            _Shape("body", "contains", r"C:\NAME\pages\closed.htm"),
            _Shape("body", "regexp", r"(?i)your (school|office|library)'s gate, HOST"),
            _Shape("body", "prefix", "\r\n\r\n<!DOCTYPE html><!-- NAME -->"),
            _Shape("body", "contains", " <title>NAME, with a space before it</title>"),
            _Shape("body", "regexp", r"(?s)<html>.*?\\NAME\\.*</html>"),
            _Shape("body", "contains", '<script>location.replace("http:\\/\\/HOST\\/\\u0041");'),
            _Shape("body", "contains", "<pre>\r\nNAME\r\n\r\nNUMBER\r\n</pre>"),
            _Shape("body", "regexp", r'"gate":\s*"[^"]*NAME",\s*"until":null'),
            _Shape("header.server", "full", '"NAME", (gate)'),
            _Shape("body", "contains", "<center>SAID</center> \r\n<hr>"),
            _Shape("body", "regexp", r"Страница № \d+ (закрыта|убрана)"),
            _Shape("body", "full", "closed"),
            _Shape("body", "contains", "<img alt='SAID', src=x>\r\n\t<br/>"),
            _Shape("body", "contains", "&lt;NAME&gt; 100% %s {0} $1 '' `NAME`;--\ttab"),
            _Shape("header.location", "full", "https://HOST/закрыто?страница=NUMBER"),
            _Shape("body", "contains", "LONG"),
        ),
    }
)

# What block pages say, of networks that do not exist.
SAYINGS = (
    "Here the network of NAME ends",
    "NAME put this page away by letter NUMBER",
    "Page NUMBER sleeps, and so should you",
    "The gate keeper of HOST shakes his head",
    "Сеть NAME не открывает страницу № NUMBER",
    "Эта страница убрана письмом «NUMBER» узла HOST",
    "أغلقت شبكة NAME الصفحة رقم NUMBER",
    "لا تفتح البوابة HOST هذه الصفحة، عذرا",
    "شبکه NAME صفحه NUMBER را باز نمی‌کند",
    "NAME网络已收起第NUMBER页",
    "本页由HOST看门人保管,请回",
    "Bekçi HOST: bugün bir şey göstermez, güle güle",
    "La red NAME no enseña la página NUMBER, señora",
    "NAME 망의 문지기가 NUMBER쪽을 덮었습니다",
    "เครือข่าย NAME ปิดหน้า NUMBER",
    "Mạng NAME đã cất trang NUMBER",
    "Le réseau NAME a rangé la page NUMBER, « voilà »",
)
LONG_SAYINGS = 12
"""So many in a row make the longest pattern."""

SOURCES = (
    "sample",
    "sample",
    "sample",
    "Invented, Page by Page: A Collection of Gates",
    "https://www.source.example/gates,https://www.source.example/more",
    "",
)
NOTES = (
    "",
    "",
    "",
    "Seen on a network that does not exist",
    'The keeper calls it "the gate", others a wall',
    "Redirects, shows a letter and a number, then nothing",
    "Замечено один раз",
)


class SampleFingerprints:
    """The two generated files; an object never changes, `with_…` gives a changed copy.

    Args:
        seed: Other seeds give other rows.
        dns: Rows of `fingerprints_dns.csv`.
        http: Rows of `fingerprints_http.csv`; from about 150 on, every unusual pattern is there.
    """

    def __init__(self, seed: int = 1, dns: int = 230, http: int = 1750) -> None:
        self._seed = seed
        # Rows made so far, removed ones as well: a name is never given twice.
        self._made: dict[Protocol, int] = {"dns": dns, "http": http}
        self._rows: dict[Protocol, list[list[str]]] = {
            protocol: [_row(seed, protocol, place) for place in range(count)]
            for protocol, count in self._made.items()
        }

    @property
    def dns(self) -> bytes:
        """The bytes of `fingerprints_dns.csv`."""
        return to_csv(self._rows["dns"])

    @property
    def http(self) -> bytes:
        """The bytes of `fingerprints_http.csv`."""
        return to_csv(self._rows["http"])

    def rows(self, protocol: Protocol) -> list[list[str]]:
        """Give the rows of a file, without its header, as cells with their exact values."""
        return [list(row) for row in self._rows[protocol]]

    def with_added(self, protocol: Protocol, n: int) -> Self:
        """Give a copy with that many new rows at a file's end."""
        made = self._made[protocol]
        added = [_row(self._seed, protocol, place) for place in range(made, made + n)]
        return self._changed(protocol, [*self.rows(protocol), *added], made + n)

    def with_removed(self, protocol: Protocol, n: int) -> Self:
        """Give a copy without a file's last rows, as many as there are up to that many."""
        rows = self.rows(protocol)
        return self._changed(protocol, rows[: max(0, len(rows) - n)], self._made[protocol])

    def _changed(self, protocol: Protocol, rows: list[list[str]], made: int) -> Self:
        copy = type(self)(self._seed, dns=0, http=0)
        copy._rows = self._rows | {protocol: rows}  # noqa: SLF001 - an object of this class
        copy._made = self._made | {protocol: made}  # noqa: SLF001 - the same
        return copy


def to_csv(rows: Iterable[Sequence[str]], header: Sequence[str] = HEADER) -> bytes:
    """Write rows as upstream does: comma, CRLF, UTF-8, quotes where a cell needs them.

    The country ZZ gets quotes that it does not need: upstream's files were edited by hand and have
    such cells, so that their bytes are not those of any one CSV writer.

    Args:
        rows: Cells with their exact values; rows of a wrong length are written as they are.
        header: The first line's cells.
    """
    return "".join(",".join(map(_cell, row)) + "\r\n" for row in (header, *rows)).encode()


def _cell(value: str) -> str:
    if value == EVERYWHERE or re.search('[",\r\n]', value):
        return '"' + value.replace('"', '""') + '"'
    return value


def _row(seed: int, protocol: Protocol, place: int) -> list[str]:
    """Make the row with this number; it depends on nothing else."""
    source = random.Random(f"{seed} {protocol} {place}")  # noqa: S311 - sample data
    turn, left = divmod(place, UNUSUAL_EVERY)
    if left == 0:
        # In turn, not at random, so that small files have them all.
        shape = UNUSUAL[protocol][turn % len(UNUSUAL[protocol])]
        scope = SCOPES[protocol][turn % len(SCOPES[protocol])]
        confidence = turn % CONFIDENCES
    else:
        shape = source.choice(COMMON[protocol])
        scope = source.choice(SCOPES[protocol][:LIKELY_SCOPES])
        confidence = source.choice((5, 5, 5, 5, 8, 10))
    countries = _countries(source, protocol, scope)
    return [
        _fingerprint_name(source, protocol, place, countries),
        scope,
        _other_names(source, protocol, place),
        shape.location,
        shape.pattern_type,
        _pattern(source, shape),
        str(confidence),
        ",".join(countries),
        source.choice(SOURCES),
        _example_url(source),
        source.choice(NOTES),
    ]


def _countries(source: random.Random, protocol: Protocol, scope: str) -> list[str]:
    """Give upper-case codes in order; products are sold everywhere."""
    if scope == "prod" and source.random() < 0.3:
        return [EVERYWHERE]
    if source.random() < WITHOUT_COUNTRY[protocol]:
        return []
    count = source.choice((1, 1, 1, 1, 1, 1, 1, 1, 2, 4))
    return sorted(code.upper() for code, _ in source.sample(COUNTRIES, count))


def _fingerprint_name(
    source: random.Random, protocol: Protocol, place: int, countries: list[str]
) -> str:
    """Give a name that only this row of this file has: its number is in it."""
    country = countries[0].lower() if countries else "any"
    if source.random() < 0.5:
        return f"sample.{country}_{protocol}_{place}"
    return f"made.{protocol}_{country}_{_word(source)}_gate_{place}"


def _other_names(source: random.Random, protocol: Protocol, place: int) -> str:
    count = source.choice((0, 0, 0, 0, 0, 0, 0, 0, 1, 3))
    return ",".join(f"old.{protocol}_{_word(source)}_{place}_{i}" for i in range(count))


def _example_url(source: random.Random) -> str:
    if source.random() < 0.6:
        return ""
    day = f"20{source.randrange(17, 26)}{source.randrange(1, 13):02}{source.randrange(1, 29):02}"
    report = f"{day}T{source.randrange(24):02}0000Z_AS{source.randrange(64496, 64512)}"
    page = f"http://{_word(source)}.example/{source.choice(('', 'a,b', 'news/'))}"
    return f"https://explorer.example/measurement/{report}_{_word(source)}?input={page}"


def _pattern(source: random.Random, shape: _Shape) -> str:
    """Put invented words into the shape's pattern."""
    sayings = source.choices(SAYINGS, k=LONG_SAYINGS)
    text = shape.pattern.replace("SAID", sayings[0]).replace("LONG", ". ".join(sayings))
    host = f"{source.choice(('www', 'gate', 'stop-page'))}.{_word(source)}.example"
    words = {
        "NAME": _word(source).capitalize(),
        "HOST": re.escape(host) if shape.pattern_type == "regexp" else host,
        "IPV4": f"{source.choice(('192.0.2', '198.51.100', '203.0.113'))}.{source.randrange(256)}",
        "IPV6": f"2001:db8:{source.randrange(1, 65536):x}::{source.randrange(1, 65536):x}",
        "NUMBER": str(source.randrange(1, 1000)),
    }
    return re.sub("|".join(words), lambda match: words[match[0]], text)


def _word(source: random.Random) -> str:
    return "".join(source.choices(SYLLABLES, k=4))
