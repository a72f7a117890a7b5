"""What the database has: its tables, their columns and keys."""

import difflib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ooni_common.database import Database, ServerError, literal, quoted
from ooni_common.errors import DataRefused, UsageError
from ooni_common.nodes import Nodes
from ooni_common.replicas import with_path

# Engines whose rows the server's BACKUP has. The others either have rows of their own, which BACKUP
# leaves out without a word (EmbeddedRocksDB before 26.7, Join and Set in all versions), or none.
BACKED_UP = re.compile(r"\w*MergeTree|(Tiny|Stripe)?Log|Memory|KeeperMap")
NOT_BACKED_UP = ("EmbeddedRocksDB", "Join")
UNREADABLE_ENGINES = ("Set",)
# They show what other tables have.
WITHOUT_DATA = ("View", "LiveView", "WindowView", "Dictionary")
# Their rows are in other tables, other systems, or nowhere.
WITHOUT_OWN_ROWS = re.compile(
    r"Alias|ArrowFlight|Azure\w*|COSN|DeltaLake\w*|Distributed|Executable(Pool)?"
    r"|ExternalDistributed|FileLog|GenerateRandom|HDFS|Hive|Hudi|Iceberg\w*|JDBC|Kafka|Loop|Merge"
    r"|MongoDB|MySQL|NATS|Null|ODBC|OSS|Paimon\w*|PostgreSQL|RabbitMQ|Redis|S3|S3Queue|SQLite|URL"
    r"|YTsaurus"
)
# Where a materialized view without a target keeps its rows, and has those that it computes again.
INNER = (".inner.", ".inner_id.", ".tmp.inner.", ".tmp.inner_id.")
IDENTIFIER = r"`(?:[^`\\]|\\.|``)*`|\w+"
NAMES_OF_UTC = re.compile(r"(Etc/)?(UTC|UCT|GMT|Universal|Zulu|Greenwich)")
# A time without a zone in a type; what is in quotes is a name, and so is what a space follows.
QUOTED = r"'(?:[^'\\]|\\.|'')*'|`(?:[^`\\]|\\.|``)*`"
TIME_TYPE = r"DateTime(?:64\(\d\))?"
TIME_WITHOUT_ZONE = re.compile(rf"{QUOTED}|\b{TIME_TYPE}(?=[,)]|$)")
# The zone of a time: its text is one of that zone, where an hour occurs twice a year.
ZONE = re.compile(
    rf"(?P<type>DateTime\(|DateTime64\(\d, )(?P<zone>'(?:[^'\\]|\\.|'')*')\)|{QUOTED}"
)
LOW_CARDINALITY_OF_TIME = re.compile(
    rf"{QUOTED}|LowCardinality\(({TIME_TYPE}|Nullable\({TIME_TYPE}\))\)"
)
LOW_CARDINALITY_OF_UTC = re.compile(
    rf"LowCardinality\((DateTime(?:64\(\d, 'UTC'\)|\('UTC'\))|Nullable\(DateTime(?:64\(\d, 'UTC'\)"
    rf"|\('UTC'\))\))\)|{QUOTED}"
)
NOT_CONVERTIBLE = re.compile(r"\b(AggregateFunction|Variant|Dynamic|JSON|Object)\b(?! )")
VANISHED = {60, 390}  # what the server says of a table that is not there any more
MOST_LISTED = 20  # names in a message
MOST_CHARACTERS = 10_000  # of a text: a query may have 262,144 bytes


@dataclass(frozen=True)
class Column:
    """A column that `SELECT *` returns."""

    name: str
    type: str


@dataclass(frozen=True)
class SourceTable:
    """A table.

    Attributes:
        name: as it is, unquoted.
        engine: its name.
        columns: those that `SELECT *` returns.
        key: the expressions by which its rows are sorted, as SQL; "" if they are not.
        version: the column that tells which of the rows with one key is valid, as SQL; "" for none.
        create: what SHOW CREATE TABLE says.
    """

    name: str
    engine: str
    columns: tuple[Column, ...]
    key: str
    version: str
    create: str


def without_zones(kind: str) -> str:
    """Return a type whose times are UTC where they have another zone of their own.

    As text, a time of that zone would stand for two instants in the hour that occurs twice.
    """
    if NOT_CONVERTIBLE.search(re.sub(QUOTED, "", kind)):
        return kind

    def in_utc(match: re.Match[str]) -> str:
        if match["zone"] is None or NAMES_OF_UTC.fullmatch(match["zone"].strip("'")):
            return match[0]
        return f"{match['type']}'UTC')"

    converted = ZONE.sub(in_utc, kind)
    if converted == kind:
        return kind
    # Of times, it is not allowed by default, though a table can have it.
    return LOW_CARDINALITY_OF_UTC.sub(lambda match: match[1] or match[0], converted)


def with_utc(kind: str) -> str:
    """Return a type whose times are UTC where they have no zone of their own.

    The setting session_timezone does not reach what functions make of a column: its type has the
    zone of the server. Nor, before 26, does it reach what a query returns and an INSERT takes.
    """
    if NOT_CONVERTIBLE.search(re.sub(QUOTED, "", kind)):
        return kind

    def with_zone(match: re.Match[str]) -> str:
        text = match[0]
        if text.startswith(("'", "`")):
            return text
        return text[:-1] + ", 'UTC')" if text.endswith(")") else f"{text}('UTC')"

    # Of times, it is not allowed by default, though a table can have it.
    plain = LOW_CARDINALITY_OF_TIME.sub(lambda match: match[1] or match[0], kind)
    return TIME_WITHOUT_ZONE.sub(with_zone, plain)


def is_in_utc(database: Database) -> bool:
    """Tell whether the server's own zone is UTC."""
    ((zone,),) = database.query("SELECT serverTimezone()")
    return bool(NAMES_OF_UTC.fullmatch(zone))


def table_names(database: Database) -> list[str]:
    """Return the names of the tables of the database that hold data."""
    rows = database.query(
        "SELECT name, engine, toString(uuid) FROM system.tables"
        " WHERE database = currentDatabase() AND NOT is_temporary ORDER BY name"
    )
    names = {name for name, _, _ in rows}

    def holds_data(name: str, engine: str, uuid: str) -> bool:
        if engine == "MaterializedView":
            return not names.isdisjoint(_inner_names(name, uuid))
        return engine not in WITHOUT_DATA and not name.startswith(INNER)

    return [name for name, engine, uuid in rows if holds_data(name, engine, uuid)]


def all_table_names(nodes: Nodes) -> list[str]:
    """Return the names of the tables that hold data, on any node.

    Raises:
        Unavailable, ConfigError: too few nodes are left.
    """
    names = nodes.each(lambda node: table_names(node.database))
    return sorted(set().union(*names.values()))


def definitions(database: Database) -> dict[str, str]:
    """Return the CREATE statement of everything in the database, with or without rows, by name.

    What is dropped meanwhile is left out.
    """
    created = {}
    for name in all_names(database):
        try:
            created[name] = _show_create(database, name)
        except ServerError as error:
            if error.code not in VANISHED or name in all_names(database):
                raise
    return created


def all_names(database: Database) -> list[str]:
    """Return the names of everything in the database, with or without rows."""
    rows = database.query(
        "SELECT name FROM system.tables"
        " WHERE database = currentDatabase() AND NOT is_temporary ORDER BY name"
    )
    return [name for (name,) in rows if not name.startswith(INNER)]


def loaded_first(database: Database) -> dict[str, list[str]]:
    """Return what of the database the server loads before a table of it, by the table's name."""
    rows = database.query(
        "SELECT name, arrayFilter((table, of) -> of = database, loading_dependencies_table,"
        " loading_dependencies_database) AS needed FROM system.tables"
        " WHERE database = currentDatabase() AND NOT is_temporary AND notEmpty(needed)"
    )
    return {name: list(needed) for name, needed in rows}


def storage_of(database: Database, name: str, of: str = "") -> str:
    """Return the name of the table that has the rows of a table: its own, or a hidden one's.

    Args:
        database: the connection.
        name: of the table.
        of: the database that has it; "" for the current one.
    """
    where = f"WHERE database = {literal(of) if of else 'currentDatabase()'} AND name "
    views = database.query(
        f"SELECT toString(uuid) FROM system.tables {where}= %(table)s"
        " AND engine = 'MaterializedView'",
        {"table": name},
    )
    if not views:
        return name
    candidates = _inner_names(name, views[0][0])
    rows = database.query(
        f"SELECT name FROM system.tables {where}IN %(names)s", {"names": candidates}
    )
    return str(rows[0][0]) if rows else name


def _inner_names(view: str, uuid: str) -> tuple[str, str]:
    """Return where a materialized view without a target may keep its rows."""
    return f".inner.{view}", f".inner_id.{uuid}"


def _show_create(database: Database, name: str) -> str:
    ((create,),) = database.query(f"SHOW CREATE TABLE {quoted(name)}")
    return str(create)


def read_table(database: Database, name: str) -> SourceTable:
    """Describe one table.

    Raises:
        DataRefused: the table is gone.
    """
    where = "WHERE database = currentDatabase() AND {} = %(table)s"
    rows = database.query(
        "SELECT engine, engine_full, sorting_key, primary_key FROM system.tables "
        + where.format("name"),
        {"table": name},
    )
    if not rows:
        raise DataRefused(f"{name!r}: the table is gone")
    ((engine, engine_full, sorting_key, primary_key),) = rows
    columns = database.query(
        "SELECT name, type FROM system.columns "
        + where.format("table")
        + " AND default_kind NOT IN ('MATERIALIZED', 'ALIAS', 'EPHEMERAL') ORDER BY position",
        {"table": name},
    )
    return SourceTable(
        name=name,
        engine=engine,
        columns=tuple(Column(*column) for column in columns),
        key=sorting_key or primary_key,
        version=version_column(engine_full),
        create=_show_create(database, name),
    )


def version_column(engine_full: str) -> str:
    """Return the version column of a ReplacingMergeTree, replicated or not, as SQL; else ""."""
    match = re.match(r"(Replicated|Shared)?ReplacingMergeTree\((.*?)\)(?: [A-Z]|$)", engine_full)
    if not match:
        return ""
    arguments = re.findall(rf"'(?:[^'\\]|\\.)*'|{IDENTIFIER}", match[2])
    columns = [argument for argument in arguments if not argument.startswith("'")]
    return columns[0] if columns else ""


def first_column(key: str) -> str:
    """Return the name of the first column of a sorting key; "" if it is an expression."""
    match = re.match(rf"({IDENTIFIER})(?:,|$)", key)
    return re.sub(r"\\(.)", r"\1", match[1].strip("`")) if match else ""


def renamed(create: str, target: str, path: str = "") -> str:
    """Return a CREATE TABLE statement for another table.

    Args:
        create: the statement of a table.
        target: what stands for the other one, as SQL.
        path: in ZooKeeper, which a replicated table gets; without it, it becomes a plain one: the
            path in the statement is that of the original table.

    Raises:
        ValueError: the statement can't be understood.
    """
    match = re.match(rf"CREATE TABLE (?:(?:{IDENTIFIER})\.)?(?:{IDENTIFIER})\s", create)
    if not match:
        raise ValueError("no CREATE TABLE statement")
    text = f"CREATE TABLE {target}\n{create[match.end() :]}"
    return with_path(text, path) if path else _without_replication(text)


def refreshes_itself(create: str) -> bool:
    """Tell whether a view computes all its rows again from time to time; BACKUP leaves them out."""
    return bool(re.search(r"^REFRESH (?!.*\bAPPEND\b)", create, re.MULTILINE))


def merges_rows(engine: str) -> bool:
    """Tell whether the server makes one row of those with the same key, whenever it likes."""
    return bool(re.search("Replacing|Collapsing|Coalescing|Summing|Aggregating|Graphite", engine))


def is_replicated(engine: str) -> bool:
    """Tell whether a table of this engine has a path in Keeper, which no other one can have."""
    return engine.startswith(("Replicated", "Shared"))


def _without_replication(create: str) -> str:
    literal = r"'(?:[^'\\]|\\.)*'"
    return re.sub(
        rf"(\nENGINE = )(?:Replicated|Shared)(\w*MergeTree)"
        rf"(?:\({literal}, {literal}(?:, )?([^\n]*)\))?(?=\s|$)",
        lambda match: f"{match[1]}{match[2]}" + (f"({match[3]})" if match[3] else ""),
        create,
        count=1,
    )


def check_names(names: Iterable[str], existing: Collection[str], kind: str = "table") -> None:
    """Check that names are of things that exist.

    Args:
        names: from the command line.
        existing: the names of all that exists.
        kind: these are, for the message.

    Raises:
        UsageError: one of them does not; it says what does.
    """
    for name in names:
        if name not in existing:
            raise UsageError(f"there is no {kind} {name!r}{_instead(name, sorted(set(existing)))}")


def check_text(option: str, value: str) -> None:
    """Check that the server can be asked for a text of the command line.

    Raises:
        UsageError: it is too long for a query, or its bytes are not UTF-8.
    """
    if len(value) > MOST_CHARACTERS:
        raise UsageError(
            f"{option}: it has {len(value):,} characters, more than {MOST_CHARACTERS:,}"
        )
    try:
        value.encode()
    except UnicodeEncodeError:  # what Python makes of such bytes
        raise UsageError(f"{option}: {value!r} is not UTF-8") from None


def _instead(name: str, existing: list[str]) -> str:
    if not existing:
        return "; there is none at all"
    similar = difflib.get_close_matches(name, existing, n=3)
    if similar and not name[:1].isdigit():  # times, which backups are named by, are all similar
        return f"; did you mean {' or '.join(map(repr, similar))}?"
    more = f" and {len(existing) - MOST_LISTED} more" if len(existing) > MOST_LISTED else ""
    return f"; there are: {', '.join(existing[:MOST_LISTED])}{more}"
