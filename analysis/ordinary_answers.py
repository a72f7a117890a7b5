"""What sites send that nobody blocks, and which fingerprints match it.

Such a fingerprint would make ordinary measurements count as blocked. The answers are files: those
of the folder `ordinary` beside this module, whose README.md says what is in them, and a site's own.
Regular expressions are matched by the database's engine, RE2; a dot matches line ends, too, as it
does for the fastpath.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from ooni_common.database import Database
from ooni_common.errors import ConfigError
from ooni_common.state import read_local

T = TypeVar("T")

SHIPPED = Path(__file__).with_name("ordinary")
PAGES, ERROR_PAGES, HEADERS, ANSWERS = "pages", "pages/errors", "headers", "answers"
LARGEST_FILE = 2**20  # bytes
MOST_FILES = 1_000  # in one folder
COMMENT = "#"
REGEXPS_AT_ONCE = 20  # the server keeps a copy of each answer for each of them
BYTES_AT_ONCE = 2**17  # of regular expressions in a query, which has 256 KiB at most
ANSWERS_AT_ONCE = 2**20  # characters

MATCHERS: Mapping[str, Callable[[str, str], bool]] = MappingProxyType(
    {
        "full": lambda text, pattern: text == pattern,
        "prefix": lambda text, pattern: text.startswith(pattern),
        "contains": lambda text, pattern: pattern in text,
    }
)


@dataclass(frozen=True)
class Answer:
    """A text that ordinary sites send, and where it is from, for people."""

    place: str
    text: str


NOTHING = (Answer("the empty text", ""), Answer("a blank", " "))


class Pattern(NamedTuple):
    """A pattern of a fingerprint, with what decides where it is looked for."""

    location: str
    scope: str
    type: str
    text: str

    @property
    def kind(self) -> str:
        """The kind of the answers that it must not match.

        Upstream itself says of the scopes fp (false positive) and vbw (vague) that they match what
        servers send when they can't answer.
        """
        if self.location == "dns":
            return ANSWERS
        if self.location.startswith("header."):
            return HEADERS
        if self.location == "body":
            return PAGES if self.scope in ("fp", "vbw") else ERROR_PAGES
        raise ValueError(f"nobody has said what is ordinary in {self.location!r}")


@dataclass(frozen=True)
class OrdinaryAnswers:
    """Answers by their kind; those of the kind ERROR_PAGES are all pages."""

    by_kind: Mapping[str, Sequence[Answer]]

    @property
    def count(self) -> int:
        """How many different answers there are."""
        return len({answer for answers in self.by_kind.values() for answer in answers})

    def matched_by(self, database: Database, patterns: Iterable[Pattern]) -> dict[Pattern, Answer]:
        """Return the patterns that match an answer, and the first that they match.

        Args:
            database: matches regular expressions, which have to compile.
            patterns: those to judge.
        """
        matched: dict[Pattern, Answer] = {}
        for kind, answers in self.by_kind.items():
            judged = [pattern for pattern in patterns if pattern.kind == kind]
            regexps = [pattern.text for pattern in judged if pattern.type == "regexp"]
            by_regexps = matched_by_regexps(database, regexps, answers)
            for pattern in judged:
                if pattern.type == "regexp":
                    answer = by_regexps.get(pattern.text)
                else:
                    answer = first_matched(pattern.type, pattern.text, answers)
                if answer:
                    matched[pattern] = answer
        return matched


def read_ordinary_answers(own_folder: Path | None) -> OrdinaryAnswers:
    """Read the answers that are shipped, and a site's own.

    Raises:
        ConfigError: a file of `own_folder` can't be used.
    """
    folders = [SHIPPED, *([own_folder] if own_folder else [])]
    if own_folder and not any((own_folder / kind).is_dir() for kind in (PAGES, HEADERS, ANSWERS)):
        kinds = f"{PAGES}, {HEADERS} or {ANSWERS}"
        raise ConfigError(f"ordinary_dir {own_folder}: expected a folder with {kinds} in it")

    def texts(kind: str) -> list[tuple[str, str]]:
        return [text for folder in folders for text in _texts_in(folder, kind)]

    pages = [*NOTHING, *(Answer(place, text) for place, text in texts(PAGES))]
    error_pages = [Answer(place, text) for place, text in texts(ERROR_PAGES)]
    answers = [
        Answer(f"{place}, {entry}", entry)
        for place, text in texts(ANSWERS)
        for entry in _entries(text)
    ]
    return OrdinaryAnswers(
        {
            PAGES: pages,
            ERROR_PAGES: pages + error_pages,
            HEADERS: [*NOTHING, *_headers(texts(HEADERS))],
            ANSWERS: [*NOTHING, *answers],
        }
    )


def first_matched(pattern_type: str, pattern: str, answers: Iterable[Answer]) -> Answer | None:
    """Return the first answer that a pattern of the type full, prefix or contains matches."""
    matches = MATCHERS[pattern_type]
    return next((answer for answer in answers if matches(answer.text, pattern)), None)


def matched_by_regexps(
    database: Database, regexps: Sequence[str], answers: Sequence[Answer]
) -> dict[str, Answer]:
    """Ask the database which regular expressions match an answer, and return the first of these.

    Args:
        database: matches them.
        regexps: they have to compile.
        answers: a few megabytes at most.
    """
    matched: dict[str, Answer] = {}
    for some_answers in batches(answers, len(answers), ANSWERS_AT_ONCE, lambda a: len(a.text)):
        for some_regexps in batches(regexps, REGEXPS_AT_ONCE, BYTES_AT_ONCE, size_in_query):
            table = {
                "name": "ordinary_answers",
                "structure": [("number", "UInt32"), ("answer", "String")],
                "data": [(number, answer.text) for number, answer in enumerate(some_answers)],
            }
            rows = database.query(
                "SELECT number, arrayMap(regexp -> match(answer, regexp), %(regexps)s)"
                " FROM ordinary_answers ORDER BY number",
                {"regexps": list(some_regexps)},
                [table],
            )
            for number, flags in rows:
                for regexp, matches in zip(some_regexps, flags, strict=True):
                    if matches:
                        matched.setdefault(regexp, some_answers[number])
    return matched


def batches(
    items: Sequence[T], most: int, largest: int, size: Callable[[T], int]
) -> Iterator[Sequence[T]]:
    """Yield items in batches of at most so many, and of that size unless one alone is larger."""
    start, total = 0, 0
    for end, item in enumerate(items):
        total += size(item)
        if end > start and (end - start == most or total > largest):
            yield items[start:end]
            start, total = end, size(item)
    if start < len(items):
        yield items[start:]


def size_in_query(text: str) -> int:
    """Return how many bytes a text has at most in a list of a query: escaped, each may be two."""
    return 2 * len(text.encode()) + len("'', ")


def _texts_in(folder: Path, kind: str) -> Iterator[tuple[str, str]]:
    """Yield (place, text) of each file directly in a folder of a kind."""
    try:
        paths = sorted(path for path in (folder / kind).iterdir() if not path.is_dir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"ordinary_dir: {folder / kind}: {error.strerror}") from None
    if len(paths) > MOST_FILES:
        raise ConfigError(f"ordinary_dir: {folder / kind} has more than {MOST_FILES:,} files")
    for path in paths:
        content = read_local(path, LARGEST_FILE)
        if content is None:
            raise ConfigError(
                f"ordinary_dir: {path} can't be used; expected a file of at most"
                f" {LARGEST_FILE:,} bytes that this user can read"
            )
        shown = path.relative_to(folder) if folder == SHIPPED else path
        yield str(shown), content.decode("utf-8", "replace")


def _headers(files: Iterable[tuple[str, str]]) -> Iterator[Answer]:
    for place, text in files:
        for entry in _entries(text):
            name, colon, value = entry.partition(":")
            if not colon:
                raise ConfigError(f"ordinary_dir: {place}: expected Name: value, got {entry!a}")
            yield Answer(f"{place}, {name.lower()}", value.strip())


def _entries(text: str) -> list[str]:
    """Return the lines of a list that are not empty and no comments."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith(COMMENT)]
