"""Whether a Parquet object has the rows of its CSV, value by value, as the database reads both.

The database gets a row group at a time, as a file in the query itself, reads it with the types of
the table, and returns the text that the export of such rows would be. The records of that text are
summed as those of the CSV object are (comparison.py): whatever the order of the rows, one that
differs in anything changes the sum. Nothing is stored, and no table is made.

What a row group takes of the database's memory is limited for each query, as whoever can write to
the bucket can write a file that unpacks to anything.
"""

import hashlib
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from exports.clickhouse_http import ClickHouseHTTP
from exports.comparison import Records
from exports.csv_rows import header_of
from exports.manifest import Export, ParquetObject, TableManifest
from exports.parquet_footer import MAGIC, Footer
from exports.parquet_groups import RowGroup, row_groups
from ooni_common.database import ServerError, StatementRefused, literal, quoted
from ooni_common.errors import DataRefused, ScriptError
from ooni_common.output import counted
from ooni_common.server_errors import CODES_OF_LACKS
from schemas.create_table import SETTINGS as SETTINGS_OF_TYPES
from schemas.tokens import SchemaRefused
from schemas.types import checked_type
from tables.digest import JSON_TYPE, without_names
from tables.inventory import with_utc, without_zones
from throttle import in_units

LARGEST_GROUP = 32 * 1024 * 1024  # bytes; 100,000 rows of `fastpath` have 4 MiB
LONGEST_RECORD = 32 * 1024 * 1024  # bytes; longer ones are not compared
MOST_MEMORY = 2 * 1024**3  # bytes, of the database, for a row group
MEMORY_LIMIT_EXCEEDED, NOT_IMPLEMENTED = 241, 48  # codes of ClickHouse
# As in "ClickHouse v24.8.4.1-lts" and "ClickHouse version 26.9.2 (build …)".
VERSION = re.compile(r"\d+\.\d+")
OF_THE_QUERY = re.compile(r"\(for query\)|Query memory limit")  # and not of the server
JSON_ALONE = re.compile(r"JSON(\(.*\))?", re.DOTALL)
SETTINGS = {
    "max_memory_usage": MOST_MEMORY,
    # A missing column, or a NULL, must not be read as the default value.
    "input_format_null_as_default": 0,
    "input_format_parquet_allow_missing_columns": 0,
    "log_queries_cut_to_length": 1000,  # characters: the log does not need the file
}


class NotReadBack(Exception):
    """A file was not read back, for a reason that does not make it wrong."""


@dataclass(frozen=True)
class TextOfCSV:
    """The records of a CSV object that is sound, and how many bytes they are.

    Attributes:
        key: of the object.
        records: its records.
        size: of its text.
    """

    key: str
    records: Records
    size: int


class ReadBack:
    """Lets the database read Parquet objects; for several threads.

    Args:
        http: of the database.

    Attributes:
        failure: why the database is not asked any more; None: it answers.
    """

    def __init__(self, http: ClickHouseHTTP) -> None:
        self._http = http
        self._lock = threading.Lock()
        self._types: dict[str, str] | None = None
        self.failure: ScriptError | None = None

    def compare(
        self,
        manifest: TableManifest,
        export: Export,
        footer: Footer,
        pieces: Iterable[bytes],
        csv: TextOfCSV,
    ) -> str:
        """Return what of the rows of a Parquet object differs from its CSV; "": nothing.

        Args:
            manifest: of the table.
            export: it belongs to.
            footer: of the object.
            pieces: of the object, once more.
            csv: what it is to be.

        Raises:
            NotReadBack: it can't be compared, or the database fails.
        """
        if self.failure:
            raise NotReadBack("the database has failed")
        if export.parquet is None:
            raise NotReadBack("there is none any more")
        names = [name for name, _ in manifest.columns]
        if csv.records.header is None or csv.records.header + b"\n" != header_of(names):
            raise NotReadBack("it was exported when the table had other columns")
        if [name.encode() for name in names] != _columns_of(footer):
            return "its columns are not those of the CSV"
        try:
            structure = _structure(manifest, export)
            try:
                back = self._records(export.parquet, footer, pieces, structure, csv)
            except ServerError as error:
                return self._explained(error, footer)
        except DataRefused as error:
            return str(error)
        except ScriptError as error:
            self._fail(error)
        if not (back.whole and csv.records.whole):
            raise NotReadBack(f"some rows have more than {in_units(LONGEST_RECORD)} of CSV")
        if back.same_as([csv.records]):
            return ""
        return f"its rows are not those of {csv.key}, though they are as many"

    def _fail(self, error: ScriptError) -> NoReturn:
        with self._lock:
            self.failure = self.failure or error
        raise NotReadBack(str(error)) from None

    def _explained(self, error: ServerError, footer: Footer) -> str:
        """Return what the server has against a file; it may be none of the file's.

        Versions do not read all that others write: 26.9 no DateTime64(9) of 24.8 and 25.5, for one.
        """
        if error.code == MEMORY_LIMIT_EXCEEDED and OF_THE_QUERY.search(error.said):
            raise NotReadBack(
                f"a row group takes more than {in_units(MOST_MEMORY)} of the database's memory"
            )
        refused = isinstance(error, StatementRefused) and error.code != NOT_IMPLEMENTED
        if refused or error.code in CODES_OF_LACKS:
            self._fail(error)
        if self._is_of_another_version(footer.written_by):
            raise NotReadBack(f"it was written by {footer.written_by}: {error}")
        return f"the database can't read it: {error}"

    def _is_of_another_version(self, program: str) -> bool:
        versions = [VERSION.search(text) for text in (program, self._http.value("version()"))]
        ours, theirs = (found[0] if found else "" for found in versions)
        return ours != theirs

    def _records(
        self,
        parquet: ParquetObject,
        footer: Footer,
        pieces: Iterable[bytes],
        structure: str,
        csv: TextOfCSV,
    ) -> Records:
        """Return the records of all row groups."""
        records, size = Records(LONGEST_RECORD), 0
        records.write((csv.records.header or b"") + b"\n")
        cut = _Cut(pieces, parquet)
        for group in row_groups(footer, parquet.compressed_bytes):
            if group.size > LARGEST_GROUP:
                raise NotReadBack(
                    f"{counted(group.rows, 'row')} in one row group of {in_units(group.size)}, more"
                    f" than {in_units(LARGEST_GROUP)}"
                )
            before = records.count
            for piece in self._text_of(cut.of(group), group, structure):
                size += len(piece)
                if size > csv.size:
                    raise DataRefused(f"its rows are not those of {csv.key}, but larger")
                records.write(piece)
            if records.count - before != group.rows:
                raise DataRefused(
                    f"{records.count - before:,} rows in a row group instead of {group.rows:,}"
                )
        cut.end()
        return records

    def _text_of(self, content: bytes, group: RowGroup, structure: str) -> Iterator[bytes]:
        """Yield the rows of a row group as CSV without a header."""
        head = f"SELECT * FROM format('Parquet', {literal(structure)}, unhex('"
        file = [MAGIC.hex(), content.hex(), group.ending.hex()]
        query = "".join([head, *file, "')) FORMAT CSV"]).encode()
        with self._http.result(query, {**self._settings_of_types(), **SETTINGS}) as pieces:
            yield from pieces

    def _settings_of_types(self) -> dict[str, str]:
        """Return the settings by which this server takes all types that a table can have."""
        with self._lock:
            if self._types is None:
                names = ", ".join(map(literal, SETTINGS_OF_TYPES))
                known = self._http.value(
                    "arrayStringConcat((SELECT groupArray(name) FROM system.settings"
                    f" WHERE name IN ({names})), ',')"
                ).split(",")
                self._types = {
                    name: value for name, value in SETTINGS_OF_TYPES.items() if name in known
                }
            return self._types


class _Cut:
    """Cuts row groups out of a file while it comes.

    Args:
        pieces: of the file.
        parquet: what it is.
    """

    def __init__(self, pieces: Iterable[bytes], parquet: ParquetObject) -> None:
        self._pieces = iter(pieces)
        self._parquet = parquet
        self._sha256 = hashlib.sha256()
        self._held = bytearray()
        self._position = 0  # of the first byte that is held

    def of(self, group: RowGroup) -> bytes:
        """Return the bytes of a row group; those before it are gone then.

        Raises:
            DataRefused: the file ends before.
        """
        while self._position + len(self._held) < group.end:
            piece = self._next()
            if not piece:
                raise DataRefused("it was replaced while it was verified")
            self._held += piece
            self._drop(group.start)
        self._drop(group.start)
        return bytes(self._held[: group.size])

    def end(self) -> None:
        """Read the rest.

        Raises:
            DataRefused: what came is another file.
        """
        while self._next():
            pass
        if self._sha256.hexdigest() != self._parquet.sha256:
            raise DataRefused("it was replaced while it was verified")

    def _next(self) -> bytes:
        piece = next(self._pieces, b"")
        self._sha256.update(piece)
        return piece

    def _drop(self, start: int) -> None:
        gone = min(start - self._position, len(self._held))
        del self._held[:gone]
        self._position += gone


def _columns_of(footer: Footer) -> list[bytes]:
    """Return the names of the columns in a schema; what they are made of is left out."""
    names, position = [], 1
    while position < len(footer.elements):
        names.append(footer.elements[position].name)
        open_ones = 1
        while open_ones and position < len(footer.elements):
            open_ones += footer.elements[position].children - 1
            position += 1
    return names


def _structure(manifest: TableManifest, export: Export) -> str:
    """Return names and types of the columns, with which a file is read.

    Raises:
        DataRefused: a type in the manifest is none.
        NotReadBack: there is a type whose values have no text of their own.
    """
    kinds = export.types or tuple(without_zones(kind) for _, kind in manifest.columns)
    if len(kinds) != len(manifest.columns):
        raise NotReadBack("it was exported when the table had other columns")
    try:
        checked = [checked_type(kind) for kind in kinds]
    except SchemaRefused as error:
        raise DataRefused(f"its columns in the manifest: {error}") from None
    return ", ".join(
        f"{quoted(name)} {_type_to_read(name, with_utc(kind))}"
        for (name, _), kind in zip(manifest.columns, checked, strict=True)
    )


def _type_to_read(name: str, kind: str) -> str:
    """Return a type that has the same text. JSON is text there, and what that means depends."""
    if JSON_ALONE.fullmatch(kind):
        return "String"
    if JSON_TYPE.search(without_names(kind)):
        raise NotReadBack(f"{name} has JSON within another type")
    return kind
