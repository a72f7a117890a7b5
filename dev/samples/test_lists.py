"""Generate a git repository of test lists in the format of citizenlab/test-lists.

Everything in it is invented (see `vocabulary`), the hosts are in names and networks reserved
for examples, and all follows from the seed: the same calls give the same commits. Besides intact
lists it makes the commits that an updater must refuse: broken files, and trees with symlinks,
submodules, hostile names and oversized files.

    lists = SampleTestLists(folder)
    lists.create()
    lists.add_rows("it", 3)
    lists.break_file("fr")
"""

import csv
import io
import random
import re
import subprocess
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from dev.samples.git import git_environment, write_object, write_tree, write_zero_blob
from dev.samples.vocabulary import (
    CATEGORIES,
    COUNTRIES,
    DOMAINS,
    FOREIGN_WORDS,
    NOTES,
    OLD_CATEGORIES,
    SECTIONS,
    SOURCES,
    SYLLABLES,
)

BRANCH = "refs/heads/master"
LIST_HEADER = ("url", "category_code", "category_description", "date_added", "source", "notes")
ALL_COUNTRIES = tuple(code for code, _ in COUNTRIES)
GLOBAL = "ZZ"
REGION = "cis"
REGION_ROWS = 40
FIRST_COMMIT_TIME = 1_767_225_600
"""Unix time, seconds; each commit is an hour later than the one before."""

SPECIAL_EVERY = 40
"""One URL in so many is of an unusual kind."""
SHARED_URLS = 500
FIRST_DAY = date(2014, 4, 15)
DAYS = 4000
CRLF_EVERY = 5
CELLS_PER_ROW = len(LIST_HEADER)

Damage = Literal["conflict", "quote", "html", "lfs-pointer", "nul", "encoding", "header", "empty"]
REPLACEMENTS: Mapping[str, bytes] = MappingProxyType(
    {
        "html": b"<!DOCTYPE html>\n<html><body><h1>Not available, try later</h1></body></html>\n",
        "lfs-pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize 1\n"
        % (b"0" * 64),
        "empty": b"",
    }
)
Entry = tuple[str, str, bytes | str]
"""Mode, path, and the content, or the id of an object or a submodule's commit."""


@dataclass(frozen=True)
class Expected:
    """What a correct loader gets from the last intact commit.

    Attributes:
        per_cc: Rows by lower-case country code; "ZZ" is the global list.
    """

    per_cc: dict[str, int]

    @property
    def total(self) -> int:
        """Rows of all lists."""
        return sum(self.per_cc.values())


class SampleTestLists:
    """A bare repository `test-lists.git` with generated test lists.

    Args:
        folder: Where the repository is created; it must exist.
    """

    def __init__(self, folder: Path) -> None:
        self.repository = folder / "test-lists.git"
        self._makers: dict[str, _RowMaker] = {}
        self._expected: dict[str, int] = {}
        self._commits = 0

    def create(
        self, rows: int = 25_000, *, countries: Sequence[str] = ALL_COUNTRIES, seed: int = 1
    ) -> str:
        """Create the repository with a first commit of intact lists.

        Args:
            rows: Rows of all country lists and the global list together.
            countries: Lower-case codes of the country lists.
            seed: Other seeds give other rows.

        Returns:
            The commit's id.

        Raises:
            FileExistsError: The repository exists.
            ValueError: There are fewer rows than lists.
        """
        self.repository.mkdir()
        self._git("init", "--quiet", "--bare", "--template=", "--initial-branch=master")
        counts = _share_out(rows, [GLOBAL, *countries]) | {REGION: REGION_ROWS}
        files: dict[str, bytes | None] = dict(_accompanying_files())
        shared = tuple(_shared_urls(seed))
        for cc, count in counts.items():
            maker = self._makers[cc] = _RowMaker(cc, seed, shared)
            files[list_path(cc)] = maker.file(count)
        return self.commit("Add the sample lists", files)

    @property
    def expected(self) -> Expected:
        """The rows that a correct loader gets from the last intact commit."""
        return Expected(dict(self._expected))

    def head(self) -> str:
        """Give the id of the newest commit."""
        return self._git("rev-parse", "--verify", BRANCH).decode().strip()

    def read(self, path: str) -> bytes:
        """Give a file of the newest commit.

        Raises:
            subprocess.CalledProcessError: There is none.
        """
        return self._git("cat-file", "blob", f"{BRANCH}:{path}")

    def commit(self, message: str, changes: Mapping[str, bytes | None]) -> str:
        """Commit changed files on top of the newest commit, and count their rows for `expected`.

        The count is of whole rows, valid or not; a file that isn't a list counts as none.

        Args:
            message: The commit's message.
            changes: New contents by path; None deletes the file.

        Returns:
            The commit's id.
        """
        sha = self._commit(message, changes)
        for path, content in changes.items():
            if (cc := _country_of(path)) is None:
                continue
            self._expected.pop(cc, None)
            if content is not None and (count := _count_rows(content)):
                self._expected[cc] = count
        return sha

    def add_rows(self, cc: str, count: int) -> str:
        """Commit a list with that many new rows at its end."""
        content = self.read(list_path(cc))
        added = self._makers[cc].lines(count, _line_end(content))
        if not content.endswith(b"\n"):
            content += _line_end(content).encode()
        return self.commit(f"Add {count} rows to {cc}", {list_path(cc): content + added})

    def remove_rows(self, cc: str, count: int) -> str:
        """Commit a list without its last rows."""
        content = self.read(list_path(cc))
        rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
        kept = _to_csv(rows[: max(1, len(rows) - count)], _line_end(content))
        return self.commit(f"Remove {count} rows from {cc}", {list_path(cc): kept})

    def empty_country(self, cc: str) -> str:
        """Commit a list that has a header and no rows."""
        return self.commit(f"Empty {cc}", {list_path(cc): _to_csv([LIST_HEADER], "\n")})

    def break_file(self, cc: str, how: Damage = "conflict") -> str:
        """Commit a list that no longer is one; `expected` stays what it was.

        Args:
            cc: The list.
            how: A merge conflict, an unbalanced quote, an HTML page or a Git LFS pointer in place
                of the list, NUL bytes, bytes that are not UTF-8, a header without `url`, no bytes.
        """
        broken = _damage(self.read(list_path(cc)), how)
        return self._commit(f"Break {cc}: {how}", {list_path(cc): broken})

    def commit_tree(self, entries: Iterable[Entry], *, keep: bool = True) -> str:
        """Commit a tree that git itself would not make; `expected` stays what it was.

        Args:
            entries: For example ("120000", "lists/it.csv", b"/etc/passwd") for a symlink,
                ("160000", "lists/sub", "40 hex digits") for a submodule, ("100644",
                "lists/../.git/hooks/post-checkout", b"…") for a hostile name.
            keep: Keep the files of the newest commit that these do not replace.

        Returns:
            The commit's id.
        """
        added = [(mode, path, self._oid(content)) for mode, path, content in entries]
        kept = self._entries() if keep else []
        tree = write_tree(self.repository, [*_not_replaced(kept, added), *added])
        text = f"tree {tree}\nparent {self.head()}\n"
        text += f"author {self._signature()}\ncommitter {self._signature()}\n\nCrafted tree\n"
        sha = write_object(self.repository, "commit", text.encode())
        self._git("update-ref", BRANCH, sha)
        self._commits += 1
        return sha

    def add_sparse_blob(self, size: int) -> str:
        """Store a file of that many zero bytes, for an entry of `commit_tree`.

        It takes hardly any space here and on the wire, and all of it in a checkout.

        Args:
            size: Bytes.

        Returns:
            The blob's id.
        """
        return write_zero_blob(self.repository, size)

    def _commit(self, message: str, changes: Mapping[str, bytes | None]) -> str:
        stream = io.BytesIO()
        stream.write(f"commit {BRANCH}\nmark :1\n".encode())
        stream.write(f"author {self._signature()}\ncommitter {self._signature()}\n".encode())
        stream.write(_import_data(message.encode()))
        if self._commits:
            stream.write(f"from {BRANCH}^0\n".encode())
        for path, content in changes.items():
            if content is None:
                stream.write(f'D "{path}"\n'.encode())
            else:
                stream.write(f'M 100644 inline "{path}"\n'.encode() + _import_data(content))
        stream.write(b"get-mark :1\n")
        sha = self._git("fast-import", "--quiet", stdin=stream.getvalue()).decode().strip()
        self._commits += 1
        return sha

    def _entries(self) -> list[tuple[str, str, str]]:
        listing = self._git("ls-tree", "-r", "-z", BRANCH).decode()
        entries = []
        for line in listing.split("\0")[:-1]:
            description, _, path = line.partition("\t")
            mode, _, oid = description.split(" ")
            entries.append((mode, path, oid))
        return entries

    def _oid(self, content: bytes | str) -> str:
        if isinstance(content, bytes):
            return write_object(self.repository, "blob", content)
        return content

    def _signature(self) -> str:
        time = FIRST_COMMIT_TIME + 3600 * self._commits
        return f"Sample Author <author@sample.invalid> {time} +0000"

    def _git(self, *arguments: str, stdin: bytes = b"") -> bytes:
        return subprocess.run(
            ["git", *arguments],
            cwd=self.repository,
            env=git_environment() | {"GIT_DIR": str(self.repository.resolve())},
            input=stdin,
            stdout=subprocess.PIPE,
            check=True,
        ).stdout


class _RowMaker:
    """Makes rows of one list, each URL once."""

    def __init__(self, cc: str, seed: int, shared: Sequence[str]) -> None:
        self._random = random.Random(f"{seed} {cc}")  # noqa: S311 - sample data
        self._shared = shared
        self._domains = _domains_of(cc)
        self._seen: set[str] = set()
        # Files start at different kinds, so that short lists have unusual URLs as well.
        self._place = self._random.randrange(SPECIAL_EVERY * 20)
        self._line_end = "\r\n" if zlib.crc32(cc.encode()) % CRLF_EVERY == 0 else "\n"

    def file(self, count: int) -> bytes:
        return _to_csv([LIST_HEADER], self._line_end) + self.lines(count, self._line_end)

    def lines(self, count: int, line_end: str) -> bytes:
        return _to_csv((self._row() for _ in range(count)), line_end)

    def _row(self) -> tuple[str, ...]:
        code, name, _ = self._random.choice(CATEGORIES)
        added = FIRST_DAY + timedelta(days=self._random.randrange(DAYS))
        source, note = self._random.choice(SOURCES), self._random.choice(NOTES)
        return self._new_url(), code, name, added.isoformat(), source, note

    def _new_url(self) -> str:
        self._place += 1
        while (url := self._url()) in self._seen:
            pass
        self._seen.add(url)
        return url

    def _url(self) -> str:
        if self._place % SPECIAL_EVERY == 0:
            return _special_url(self._random, self._domains[0], self._place // SPECIAL_EVERY)
        if self._random.random() < 0.05:
            return self._random.choice(self._shared)
        return _plain_url(self._random, self._domains)


def list_path(cc: str) -> str:
    """Give the path of a list in the repository, "lists/global.csv" for "ZZ"."""
    return f"lists/{'global' if cc == GLOBAL else cc}.csv"


def _shared_urls(seed: int) -> Iterator[str]:
    """Give the URLs that occur in several lists."""
    source = random.Random(f"{seed} shared")  # noqa: S311 - sample data
    return (_plain_url(source, DOMAINS) for _ in range(SHARED_URLS))


def _domains_of(cc: str) -> tuple[str, ...]:
    if cc in {GLOBAL, REGION}:
        return DOMAINS
    return (f"{cc}.example", *DOMAINS)


def _plain_url(source: random.Random, domains: Sequence[str]) -> str:
    scheme = source.choice(("https", "https", "http"))
    www = source.choice(("www.", ""))
    domain = source.choice(domains)
    return f"{scheme}://{www}{_name(source)}.{domain}/{source.choice(SECTIONS)}"


def _name(source: random.Random) -> str:
    return "".join(source.choices(SYLLABLES, k=4))


def _special_url(source: random.Random, domain: str, number: int) -> str:
    """Give a valid URL of one of the kinds that parsers stumble over, in turn."""
    name, word = _name(source), source.choice(FOREIGN_WORDS)
    byte = source.randrange(1, 255)
    kinds = (
        f"http://WWW.{name.capitalize()}.{domain.upper()}/",
        f"http://{name}.{domain}./",
        f"http://192.0.2.{byte}/{name}/",
        f"https://[2001:db8::{byte:x}]/{name}",
        f"http://{name}.{domain}:8080/",
        f"https://{word}.{name}.{domain}/",
        f"https://{word.encode('idna').decode()}.{name}.{domain}/",
        f"http://my_{name}.{domain}/",
        f"https://{name}.{domain}/{word}/{word}",
        f"https://{name}.{domain}/find?q=" + "&".join(f"{s}={byte}" for s in SYLLABLES),
        f"https://{name}.{domain}/a%20b,c?d=%C3%A9#part",
        f"https://{name}.{domain}",
    )
    return kinds[number % len(kinds)]


def _share_out(rows: int, lists: Sequence[str]) -> dict[str, int]:
    """Give each list at least one row, the first ones most.

    Raises:
        ValueError: There are fewer rows than lists.
    """
    spare = rows - len(lists)
    if spare < 0:
        raise ValueError(f"{rows} rows are too few for {len(lists)} lists")
    weights = [1 / (place + 10) for place in range(len(lists))]
    counts = [1 + int(spare * weight / sum(weights)) for weight in weights]
    counts[0] += rows - sum(counts)
    return dict(zip(lists, counts, strict=True))


def _accompanying_files() -> Iterator[tuple[str, bytes]]:
    new_codes = [(name, code, code, text) for code, name, text in CATEGORIES]
    new_header = ("Category Description", "New Code", "Replaces old code(s)", "Description")
    countries = sorted((code.upper(), name) for code, name in COUNTRIES)
    yield "README.md", b"# Sample test lists\n\nGenerated; no row of them is a real site.\n"
    for name, rows in (
        ("category_codes", [("CategoryCode", "CategoryName"), *OLD_CATEGORIES]),
        ("country_codes", [("CountryCode", "CountryName"), *countries]),
        ("new_category_codes", [new_header, *new_codes]),
    ):
        yield f"lists/00-LEGEND-{name}.csv", _to_csv(rows, "\n")


def _to_csv(rows: Iterable[Sequence[str]], line_end: str) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=line_end).writerows(rows)
    return text.getvalue().encode()


def _line_end(content: bytes) -> str:
    return "\r\n" if content.split(b"\n", 1)[0].endswith(b"\r") else "\n"


def _country_of(path: str) -> str | None:
    """Give the cc that a loader stores for the rows of this file, None where it loads none."""
    match = re.fullmatch(r"lists/([a-z]{2}|global)\.csv", path)
    return match and match[1].replace("global", GLOBAL)


def _count_rows(content: bytes) -> int:
    """Count the rows below the header; in a file that isn't a list, none."""
    try:
        text = io.StringIO(content.decode(), newline="")
        lines = sum(len(row) == CELLS_PER_ROW for row in csv.reader(text, strict=True))
        return max(0, lines - 1)
    except (UnicodeDecodeError, csv.Error):
        return 0


def _not_replaced(
    kept: Iterable[tuple[str, str, str]], added: Iterable[tuple[str, str, str]]
) -> Iterator[tuple[str, str, str]]:
    """Give the kept entries that are not at, above or below the path of an added one."""
    paths = [path for _, path, _ in added]
    for mode, old, oid in kept:
        if not any(f"{old}/".startswith(f"{new}/") or new.startswith(f"{old}/") for new in paths):
            yield mode, old, oid


def _import_data(data: bytes) -> bytes:
    return b"data %d\n%b\n" % (len(data), data)


def _damage(content: bytes, how: Damage) -> bytes:
    if how in REPLACEMENTS:
        return REPLACEMENTS[how]
    if how == "header":
        return content.replace(b"url,", b"link,", 1)
    if how == "nul":
        return content + bytes(16)
    row = b"https://www.damaged.example/,NEWS,News Media,2024-01-01,sample,"
    if how == "encoding":
        return content + row + "café\n".encode("latin-1")
    if how == "quote":
        return _insert_after_header(content, row + b'"never closed\n')
    both = row + b"ours\n=======\n" + row + b"theirs\n"
    return _insert_after_header(content, b"<<<<<<< HEAD\n" + both + b">>>>>>> other\n")


def _insert_after_header(content: bytes, lines: bytes) -> bytes:
    header, _, rest = content.partition(b"\n")
    return header + b"\n" + lines + rest
