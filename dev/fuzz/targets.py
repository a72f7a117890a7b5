"""The parsers of foreign bytes, and how each may refuse them."""

import csv
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import maxminddb

import mmdb
from asn_map_file import AsnMap
from asnmeta_updater import Config
from backups.manifest import BackupManifest
from checkpoint import read_checkpoint
from citizenlab.lists import Format, read_categories, read_list
from csv_source import BrokenFileError
from documents import decoded_manifest
from exports.csv_rows import RowCounter
from exports.manifest import TableManifest
from fingerprints_file import KINDS, read_fingerprints
from ooni_common.config_sources import load_config
from ooni_common.errors import ConfigError, DataRefused
from ooni_common.state import read_state
from refusals import Refusal
from schemas.create_table import create_table
from schemas.tokens import SchemaRefused

LISTS = Format("url", "category_code", frozenset({"NEWS", "HUMR"}))
PIECE = 7  # bytes; pieces end at any place


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
    """What is accepted must be safe for the reader in C, too."""

    def check(path: Path) -> None:
        mmdb.check(path, mmdb.ASN, "ASN")
        with maxminddb.open_database(path) as reader:
            for _ in reader:
                pass

    _in_file(content, check)


def _csv_rows(content: bytes) -> None:
    """Quoted rows are counted as Python's reader counts them, however they are cut into pieces."""
    rows = [["a", "b"], *([text, "x"] for text in content.decode("latin-1").split("\t"))]
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    document = text.getvalue().encode()
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
    "csv-rows": Target(_csv_rows),
    "configuration": Target(
        lambda content: _in_file(content, lambda path: load_config(Config, path, environ={})),
        (ConfigError,),
    ),
    "state": Target(lambda content: _in_file(content, lambda path: read_state(path, Refusal))),
    "checkpoint": Target(lambda content: _in_file(content, partial(read_checkpoint, services={}))),
}
