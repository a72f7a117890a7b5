"""The parsers of foreign bytes, and how each may refuse them."""

import csv
import gzip
import io
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO, cast
from unittest import mock

import maxminddb

import mmdb
from asn_map_file import AsnMap
from asnmeta_updater import Config
from backups.manifest import BackupManifest
from checkpoint import read_checkpoint
from citizenlab.git import Clone, Git
from citizenlab.lists import Format, country_of, read_categories, read_list
from csv_source import BrokenFileError
from documents import decoded_manifest
from downloads import Unpacker
from exports.clickhouse_http import TAIL, reported_failure
from exports.csv_rows import RowCounter
from exports.manifest import TableManifest
from fingerprints_file import KINDS, read_fingerprints
from mmdb_tree import MOST_WAYS
from ooni_common.config import SecretUrl
from ooni_common.config_sources import load_config
from ooni_common.errors import ConfigError, DataRefused, ScriptError
from ooni_common.fetch import Fetcher, Limits, Validators
from ooni_common.state import read_state
from refusals import Refusal
from schemas.create_table import create_table
from schemas.expressions import take_expression
from schemas.tokens import Reader, SchemaRefused

LISTS = Format("url", "category_code", frozenset({"NEWS", "HUMR"}))
PIECE = 7  # bytes; pieces end at any place
TAG = "kqxwzvjpbtrnmdfg"  # that a server gives its answer; 16 letters, of its own each time
MOST_UNPACKED = 100_000  # bytes
LOOPBACK = "127.0.0.1"
LOOK_UP = socket.getaddrinfo
MOST_SECONDS = 10  # for a database of 64 KiB, while each branch that is taken is counted


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        parse: gives it the bytes.
        refusals: how it may refuse them.
    """

    parse: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...] = ()

    def __call__(self, content: bytes) -> None:
        """Give it bytes; whatever it raises but its refusals is a fault."""
        try:
            self.parse(content)
        except self.refusals:
            return


def _test_list(content: bytes) -> None:
    parsed = read_list("lists/it.csv", "it", content, LISTS)
    parsed.rows.block()


def _fingerprints(content: bytes) -> None:
    for name, kind in KINDS.items():
        read_fingerprints(f"{name}.csv", content, kind)


def _asn_map(content: bytes) -> None:
    for _ in AsnMap("map.json", io.BytesIO(content)).blocks():
        pass


def _in_file(content: bytes, read: Callable[[Path], object]) -> None:
    with tempfile.NamedTemporaryFile(prefix="fuzz-") as file:
        file.write(content)
        file.flush()
        read(Path(file.name))


def _mmdb(content: bytes) -> None:
    """What is accepted is safe for the reader in C, too; and none takes long to judge."""

    def check(path: Path) -> None:
        begun = time.process_time()
        try:
            mmdb.check(path, mmdb.ASN, "ASN")
        finally:
            if (took := time.process_time() - begun) > MOST_SECONDS:
                raise AssertionError(f"{took:.1f} s for {len(content):,} bytes")
        with maxminddb.open_database(path, maxminddb.MODE_MMAP_EXT) as reader:
            for address in mmdb.WELL_KNOWN:
                reader.get(address)
            networks = sum(1 for _ in reader)
            if networks > MOST_WAYS * (reader.metadata().node_count + 1):
                raise AssertionError(f"{networks:,} networks")

    _in_file(content, check)


class _Listing:
    """In the place of git: lists files that anybody can have put into a repository."""

    def __init__(self, listed: bytes) -> None:
        self._listed = listed

    def run(self, *arguments: str) -> bytes:
        """Return the commit, or the files."""
        return b"0" * 40 if "rev-parse" in arguments else self._listed

    @contextmanager
    def printed_by(self, *_arguments: str, stdin: bytes) -> Iterator[BinaryIO]:
        """Yield the content of attributes, which sets no filter."""
        count = stdin.count(b"\n")
        yield io.BytesIO(b"0 blob 5\n*.csv\n" * count)


def _git_tree(content: bytes) -> None:
    """A path, after a letter for its mode: what is accepted lies within the tree."""
    modes = {b"l": b"120000 blob", b"m": b"160000 commit", b"x": b"100755 blob"}
    listed = b"".join(
        b"%b %b %7d\t%b\0" % (modes.get(line[:1], b"100644 blob"), b"0" * 40, 5, line[1:])
        for line in content.split(b"\0")
    )
    for entry in Clone(cast("Git", _Listing(listed)), Path("clone")).entries():
        parts = entry.path.split("/")
        if entry.mode not in ("100644", "100755") or {"", ".", "..", ".git"} & set(parts):
            raise AssertionError(f"{entry!r} is accepted")
        country_of(entry.path)


def _gzip(content: bytes) -> None:
    """What is accepted is what Python's gzip unpacks."""
    unpacked = io.BytesIO()
    unpacker = Unpacker(unpacked, SecretUrl("https://h/x.gz"), MOST_UNPACKED)
    for start in range(0, len(content), PIECE):
        unpacker.write(content[start : start + PIECE])
        if unpacked.tell() > MOST_UNPACKED:
            raise AssertionError("more than allowed is unpacked")
    unpacker.finish()
    if unpacked.getvalue() != gzip.decompress(content):
        raise AssertionError("it is unpacked as something else")


class _Answering:
    """A server that answers each request with the bytes that it has been given, and its client."""

    def __init__(self) -> None:
        self.answer = b""
        limits = Limits(MOST_UNPACKED, total_time=5, read_timeout=1, retries=0)
        self.fetcher = Fetcher("fuzz", limits)  # made once: it reads all certificates
        self._listening = socket.create_server((LOOPBACK, 0))
        threading.Thread(target=self._serve, daemon=True).start()
        self.url = SecretUrl(f"http://{LOOPBACK}:{self._listening.getsockname()[1]}/x")

    def _serve(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            with connection, suppress(OSError):
                connection.recv(65_536)
                connection.sendall(self.answer)


@cache
def _answering() -> _Answering:
    return _Answering()


def _look_up_loopback(host: str, *rest: object, **options: object) -> object:
    """Look up no other address: a redirect to elsewhere is to fail at once."""
    if host != LOOPBACK:
        raise socket.gaierror(socket.EAI_NONAME, host)
    return LOOK_UP(host, *rest, **options)  # type: ignore[arg-type]


def _http_answer(content: bytes) -> None:
    server, body = _answering(), io.BytesIO()
    server.answer = content
    with mock.patch.object(socket, "getaddrinfo", _look_up_loopback):
        server.fetcher.fetch(server.url, body, Validators())
    if body.tell() > MOST_UNPACKED:
        raise AssertionError("more than allowed is kept")


def _quoted(content: bytes) -> tuple[list[list[str]], bytes]:
    """Return rows of texts, and how the server writes them."""
    rows = [["a", "b"], *([text, "x"] for text in content.decode("latin-1").split("\t"))]
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return rows, text.getvalue().encode()


def _exception(content: bytes) -> None:
    """Rows never become errors, whatever is in them; a block with this answer's tag does."""
    _, document = _quoted(content)
    for rows, tag in ((content, TAG), (document, TAG), (document, "")):
        if TAG.encode() not in content and (failure := reported_failure(rows[-TAIL:], tag)):
            raise AssertionError(f"rows are taken for {failure!r}")
    block = b"\r\n__exception__\r\n%b\r\nCode: 241. DB::Exception: x\n27 %b\r\n__exception__\r\n"
    marked = document + block % (TAG.encode(), TAG.encode())
    if not reported_failure(marked[-TAIL:], TAG):
        raise AssertionError("a failure is taken for rows")


def _expression(content: bytes) -> None:
    reader = Reader(content.decode(errors="replace"))
    take_expression(reader, "the default")
    reader.written()


def _csv_rows(content: bytes) -> None:
    """Quoted rows are counted as Python's reader counts them, however they are cut into pieces."""
    rows, document = _quoted(content)
    counter = RowCounter(exact=True)
    for start in range(0, len(document), PIECE):
        counter.add(document[start : start + PIECE])
    if counter.rows != len(rows) - 1 or not counter.complete:
        raise AssertionError(f"{counter.rows} rows of {len(rows) - 1}")


TARGETS = {
    "test-list": Target(_test_list),
    "legend": Target(lambda content: read_categories(content, "New Code"), (BrokenFileError,)),
    "fingerprints": Target(_fingerprints),
    "asn-map": Target(_asn_map, (DataRefused,)),
    "mmdb": Target(_mmdb, (DataRefused,)),
    "export-manifest": Target(
        lambda content: decoded_manifest(content, TableManifest, "it is"), (DataRefused,)
    ),
    "backup-manifest": Target(
        lambda content: decoded_manifest(content, BackupManifest, "it is"), (DataRefused,)
    ),
    "create-table": Target(
        lambda content: create_table(content.decode(errors="replace")), (SchemaRefused,)
    ),
    "expression": Target(_expression, (SchemaRefused,)),
    "csv-rows": Target(_csv_rows),
    "exception": Target(_exception),
    "git-tree": Target(_git_tree, (DataRefused,)),
    "gzip": Target(_gzip, (DataRefused,)),
    "http-answer": Target(_http_answer, (ScriptError,)),
    "configuration": Target(
        lambda content: _in_file(content, lambda path: load_config(Config, path, environ={})),
        (ConfigError,),
    ),
    "state": Target(lambda content: _in_file(content, lambda path: read_state(path, Refusal))),
    "checkpoint": Target(lambda content: _in_file(content, partial(read_checkpoint, services={}))),
}
