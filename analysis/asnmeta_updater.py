#!/usr/bin/env python3
"""Load the history of the ASNs into the table `asnmeta`.

    https://archive.org/download/ip2country-as/all_as_org_map.json
        → asnmeta (asn, org_name, cc, changed, aut_name, source)

It names the networks in everything that OONI publishes. The document is read, validated and loaded
piece by piece, and the table is replaced as a whole or not at all.

Source of the format: https://archive.org/details/ip2country-as. It is one JSON object, ASN →
history, a row being organisation, country, date of change, AS name and source:

    {"1": [["Level 3 Communications, Inc.", "US", "20040604", "LVLT-1", "ARIN"]]}

Upstream's document has 120,000 ASNs and 420,000 rows in 32 MB. A piece of it is validated as a
whole; only where anything can be wrong with that is it gone through row by row, for the reasons.

By hand: asnmeta_updater.py --dry-run --stdout
"""

import contextlib
import dataclasses
import gc
import itertools
import json
import logging
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ooni_common.config import Bytes, Count, DatabaseConfig, Seconds, SecretUrl, check_url
from ooni_common.errors import DataRefused
from ooni_common.fetch import Limits, configured_fetcher
from ooni_common.nodes import Nodes, connected_nodes
from ooni_common.run import DOCTOR, ROLLBACK, Command, Job, Script, execute
from ooni_common.state import read_state
from ooni_common.swap.content import Block, Content, blocks_of
from ooni_common.swap.update import LossLimit, Table, Update, UpdateState
from table_updates import (
    Fetched,
    check_before_writing,
    examine_updater,
    fetch_changed,
    load,
    loaded_source,
    note_unchanged,
    roll_back_tables,
    upstream_checks,
)

log = logging.getLogger("ooni.asnmeta")

TABLE = Table(
    name="asnmeta",
    shadow="asnmeta_tmp",
    columns={
        "asn": "UInt32",
        "org_name": "String",
        "cc": "String",
        "changed": "Date",
        "aut_name": "String",
        "source": "String",
    },
    engine="ENGINE = MergeTree ORDER BY (asn, changed)",
    identity=("asn", "changed"),
)
# The file has 32 MB: an hour lets a link of 10 kB/s have it. Tries are over after two minutes.
LIMITS = Limits(max_bytes=500_000_000, total_time=3600, retries=7)

DIGEST = f"{TABLE.name}.sha256"  # of the document, in the state file

T = TypeVar("T")
Json = Any  # whatever upstream has written
AsnRow = tuple[int, str, str, date, str, str]  # asn, org_name, cc, changed, aut_name, source
Members = Sequence[tuple[str, Json]]  # (ASN, history)

READ_AT_ONCE = 256 * 2**10  # bytes read at a time: what a processor keeps at hand
LONGEST_PIECE = 32 * 2**20  # bytes without the end of a history
FIELDS = 5
NUMBER = re.compile("0|[1-9][0-9]{0,9}")
LARGEST_ASN = 2**32 - 1
FIRST_DATE, LAST_DATE = date(1970, 1, 1), date(2149, 6, 6)  # of the database's type Date
TOLERATED_REFUSED_SHARE = 0.01
MOST_REFUSALS = 1000  # are kept for the log; the others are counted
EXCERPT = 100  # characters

OPENING = re.compile(rb"[ \t\r\n]*\{")
# Ends a member in any valid document; it can also stand in a text, and then the piece is not valid.
BOUNDARY = re.compile(rb'\][ \t\r\n]*(,)[ \t\r\n]*"')


class Config(DatabaseConfig, frozen=True, kw_only=True):
    """The keys of update-asn-metadata.conf, where each is explained."""

    state_dir: Path = Path("/var/lib/analysis")
    db_uri: SecretUrl = SecretUrl("clickhouse://api:api@localhost/default")
    url: SecretUrl = SecretUrl("https://archive.org/download/ip2country-as/all_as_org_map.json")
    ca_file: Path | None = None
    total_time: Seconds = LIMITS.total_time
    max_bytes: Bytes = LIMITS.max_bytes
    min_rows: Count = 100_000
    max_rows: Count = 1_000_000

    def __post_init__(self) -> None:
        """Refuse a URL that can't be fetched."""
        super().__post_init__()
        check_url("url", self.url.reveal(), ("https", "http", "file"), needs_host=False)


SCRIPT = Script(
    name="asnmeta_updater",
    command="ooni-update-asn-metadata",
    description="Load the history of the ASNs into the table `asnmeta`.",
    config_type=Config,
    config_file=Path("/etc/ooni/update-asn-metadata.conf"),
    flags=ROLLBACK,
    commands=(Command("run", "load the map if it has changed"), DOCTOR),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run once as the command line says; return the exit status."""
    return execute(SCRIPT, lambda job: (examine if job.command == "doctor" else update)(job), argv)


def examine(job: Job[Config]) -> None:
    """Print whether a run can succeed."""
    limits = dataclasses.replace(LIMITS, retries=0)
    fetcher = configured_fetcher(job.user_agent, job.config, limits)
    examine_updater(job, [TABLE], upstream_checks(fetcher, {"upstream": job.config.url}))


def update(job: Job[Config]) -> None:
    """Load the map if it has changed since the last run."""
    with connected_nodes(job.config) as nodes, tempfile.TemporaryDirectory() as folder:
        check_before_writing(nodes, [TABLE])
        if "rollback" in job.flags:
            roll_back_tables(job, nodes, [TABLE])
            return
        report_progress(job, 0)
        loaded = loaded_source(job, nodes, [TABLE])
        with job.metrics.timer("fetch_data"):
            fetched = fetch_map(job, loaded, Path(folder))
        if not fetched.files:
            note_unchanged(job, nodes, [TABLE], fetched.source)
        else:
            report_progress(job, 50)
            load_map(job, nodes, fetched)
        report_progress(job, 100)


def report_progress(job: Job[Config], percent: int) -> None:
    """Tell how far the run has come."""
    job.metrics.gauge("asnmeta_update_progress", percent)


def fetch_map(job: Job[Config], loaded: Mapping[str, str], folder: Path) -> Fetched:
    """Fetch the map unless it is what the table was loaded from."""
    config = job.config
    fetcher = configured_fetcher(job.user_agent, config, LIMITS)
    return fetch_changed(fetcher, {TABLE.name: config.url}, loaded, folder)


def load_map(job: Job[Config], nodes: Nodes, fetched: Fetched) -> None:
    """Replace the table, or print what that would change."""
    config = job.config
    with fetched.files[TABLE.name].open("rb") as file, garbage_left_alone():
        asn_map = AsnMap("all_as_org_map.json", file)
        bounds = (config.min_rows, config.max_rows)
        limits = (LossLimit(config.max_shrink),)
        content = content_if_loaded(job, file, fetched.source)
        file.seek(0)
        try:
            update = Update(TABLE, asn_map.blocks(), bounds, limits, content)
            changes = load(job, nodes, [update], fetched.source)
        finally:
            report_refused_rows(job, asn_map)
    for change in changes:
        job.metrics.gauge("asnmeta_tmp_len", change.live.rows)


def content_if_loaded(
    job: Job[Config], file: BinaryIO, source: Mapping[str, str]
) -> Content | None:
    """Return what the file adds up to if the table was loaded from the same bytes; else None.

    After an upgrade, and with `--force`, they are read once more. Rows that the table has must not
    be written into the shadow, which has those that the last update replaced.
    """
    loaded = read_state(job.state_file, UpdateState).source
    if loaded.get(DIGEST) != source[DIGEST]:
        return None
    blocks = AsnMap("all_as_org_map.json", file).blocks()
    return sum((block.content for block in blocks), start=Content())


@contextlib.contextmanager
def garbage_left_alone() -> Iterator[None]:
    """Keep Python from searching a million new texts for cycles, of which they have none."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class AsnMap:
    """The rows of a map, and what was found in it while they were read.

    Attributes:
        file: its name, for findings.
        read: how many rows have been read, refused ones included.
        refused_rows: how many of them were refused.
        refusals: why, for the first of them.
    """

    def __init__(self, file: str, content: BinaryIO) -> None:
        """Read from `content`, which is at its start."""
        self.file = file
        self.read = 0
        self.refused_rows = 0
        self.refusals: list[str] = []
        self._content = content
        self._dates = _Dates()
        self._seen: set[int] = set()

    def blocks(self) -> Iterator[Block]:
        """Yield each valid row once, in blocks; exact duplicates within a history collapse.

        Raises:
            DataRefused: it is no such document; at its end also: too many rows are refused.
        """
        buffer = self._opening()
        ended = False
        while not ended:
            piece = self._content.read(READ_AT_ONCE)
            ended, buffer = not piece, buffer + piece
            end = len(buffer) if ended else _last_boundary(buffer)
            document = b"{" + buffer[:end] + (b"" if ended else b"}")
            members = _members(document) if end else None
            if members is None:
                self._check_extensible(buffer, ended=ended)
                continue
            buffer = buffer[end + 1 :]
            if block := self._block(members, may_have_nul=b"\\u0000" in document):
                yield block
            else:
                yield from blocks_of([row for member in members for row in self._rows(*member)])
        if self.refused_rows > self.read * TOLERATED_REFUSED_SHARE:
            raise DataRefused(
                f"{self.file}: {self.refused_rows:,} of {self.read:,} rows are refused, more than"
                f" {TOLERATED_REFUSED_SHARE:.0%}"
            )

    def _opening(self) -> bytes:
        start = self._content.read(READ_AT_ONCE)
        opening = OPENING.match(start)
        if not opening:
            raise DataRefused(f"{self.file}: no JSON object")
        return start[opening.end() :]

    def _check_extensible(self, buffer: bytes, *, ended: bool) -> None:
        """Raise unless reading on can make the buffer hold whole members."""
        if ended or len(buffer) > LONGEST_PIECE:
            reason = "cut off, or no JSON" if ended else "no end of an ASN's history"
            raise DataRefused(f"{self.file}: {reason}, after {len(self._seen):,} ASNs")

    def _block(self, members: Members, *, may_have_nul: bool) -> Block | None:
        """Return the rows of members as one block; None if anything can be wrong with them."""
        names, histories = zip(*members, strict=True) if members else ((), ())
        try:
            asns = list(map(int, names))
            rows = list(itertools.chain.from_iterable(histories))
            org, cc, changed, aut, source = columns = list(zip(*rows, strict=True))
            fine = (
                {*map(type, histories), *map(type, rows)} == {list}
                and tuple(map(str, asns)) == names
                and min(asns) >= 0
                and max(asns) <= LARGEST_ASN
                and len(set(asns)) == len(asns)
                and self._seen.isdisjoint(asns)
                and not may_have_nul
            )
            dates = list(map(self._dates.__getitem__, changed))
            lengths = list(map(len, histories))
            block = Block(
                [repeated(asns, lengths), org, cc, dates, aut, source],
                [repeated(names, lengths), *columns],
            )
            if not fine or len(set(block.hashes)) < len(rows):
                return None
        except (TypeError, ValueError):  # the hashes find what is no text, or a lone surrogate
            return None
        self._seen.update(asns)
        self.read += len(rows)
        return block

    def _rows(self, name: str, history: Json) -> list[AsnRow]:
        """Validate a history row by row, and note what is wrong."""
        rows = history if isinstance(history, list) else [history]
        self.read += len(rows)
        try:
            asn = self._asn(name)
        except ValueError as error:
            self._refuse(len(rows), f"ASN {name!a}: {error}")
            return []
        valid: dict[AsnRow, None] = {}
        for number, row in enumerate(rows, start=1):
            try:
                valid[self._row(asn, row)] = None
            except ValueError as error:
                self._refuse(1, f"ASN {name}, row {number}: {error}: {ascii(row)[:EXCERPT]}")
        return list(valid)

    def _asn(self, name: str) -> int:
        if not NUMBER.fullmatch(name) or int(name) > LARGEST_ASN:
            raise ValueError(f"not a plain number from 0 to {LARGEST_ASN}")
        asn = int(name)
        if asn in self._seen:
            raise ValueError("here for the second time")
        self._seen.add(asn)
        return asn

    def _row(self, asn: int, row: Json) -> AsnRow:
        if not isinstance(row, list) or len(row) != FIELDS:
            fields = f"{len(row)} fields" if isinstance(row, list) else type(row).__name__
            raise ValueError(f"{fields} instead of {FIELDS} fields")
        for number, field in enumerate(row, start=1):
            _check_text(number, field)
        org, cc, changed, aut, source = row
        return (asn, org, cc, self._dates[changed], aut, source)

    def _refuse(self, rows: int, reason: str) -> None:
        self.refused_rows += rows
        if len(self.refusals) < MOST_REFUSALS:
            self.refusals.append(f"{self.file}: {reason}")


def repeated(values: Sequence[T], times: Sequence[int]) -> list[T]:
    """Return the values, each so many times."""
    return list(itertools.chain.from_iterable(map(itertools.repeat, values, times)))


def _last_boundary(buffer: bytes) -> int:
    """Return where the comma behind the last whole member is; 0 if there is none."""
    width, start = READ_AT_ONCE // 16, len(buffer)
    while start > 0:
        start = max(len(buffer) - width, 0)
        if boundaries := [match.start(1) for match in BOUNDARY.finditer(buffer, start)]:
            return boundaries[-1]
        width *= 4
    return 0


def _members(document: bytes) -> Members | None:
    """Return the members with all their faults; None if it is no JSON object.

    Lone surrogates stay what they are here, and bytes that are not UTF-8 become such.
    """
    text = document.decode("utf-8", "surrogateescape")
    try:
        members: Members = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return None
    return members


def _check_text(number: int, field: Json) -> None:
    if not isinstance(field, str):
        raise ValueError(f"field {number} is no text")  # noqa: TRY004 (a finding like the others)
    if "\0" in field:
        raise ValueError(f"field {number} has a NUL byte")
    try:
        field.encode()
    except UnicodeEncodeError:
        raise ValueError(f"field {number} has a lone surrogate, or is not UTF-8") from None


class _Dates(dict[str, date]):
    """YYYYMMDD → date, computed once for each."""

    def __missing__(self, text: str) -> date:
        """Raise ValueError for what is no date that the database can hold."""
        try:
            if not (len(text) == 8 and text.isascii() and text.isdigit()):
                raise ValueError  # noqa: TRY301 (the same answer as below)
            day = date.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} is no date like 20040604") from None
        if not FIRST_DATE <= day <= LAST_DATE:
            raise ValueError(f"{text!r} is not from {FIRST_DATE} to {LAST_DATE}")
        return self.setdefault(text, day)


def report_refused_rows(job: Job[Config], asn_map: AsnMap) -> None:
    """Log what was found in the map."""
    for refusal in asn_map.refusals:
        log.warning("%s; row refused", refusal)
    if asn_map.refused_rows > len(asn_map.refusals):
        log.warning("%s rows are refused in all", f"{asn_map.refused_rows:,}")
    job.metrics.gauge("rejected_rows", asn_map.refused_rows)


if __name__ == "__main__":
    sys.exit(main())
