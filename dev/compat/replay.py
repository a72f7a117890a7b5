"""Running a history on an engine, and what came out of each of its statements."""

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from botocore.exceptions import ClientError

from dev.compat import rewriting
from dev.compat.histories import History
from dev.compat.kinds import is_of_a_tool
from dev.embedded_clickhouse import sql
from dev.embedded_clickhouse.errors import Code, ServerError
from dev.embedded_clickhouse.record import Statement
from dev.engines import Engine
from dev.servers.s3 import S3Server

_IN_BACKGROUND = re.compile(r"\s*(BACKUP|RESTORE)\b.*\bASYNC\s*$", re.IGNORECASE | re.DOTALL)
_MAKES_TEMPORARY = re.compile(r"\s*CREATE\s+TEMPORARY\b", re.IGNORECASE)
_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FORMAT = "TabSeparatedWithNamesAndTypes"
_POLL_SECONDS = 0.02
# Types that an older server has only on demand.
_EXPERIMENTAL = {
    "allow_experimental_variant_type": "1",
    "allow_experimental_dynamic_type": "1",
    "allow_experimental_json_type": "1",
}
_CONFIG = """<clickhouse>
<backups><allowed_path>{folder}/backups/</allowed_path></backups>
<users_config>{folder}/users.xml</users_config>
</clickhouse>"""
_USERS = """<clickhouse>
<profiles><default/></profiles>
<quotas><default/></quotas>
<users><default>
<password></password><networks><ip>::/0</ip></networks>
<profile>default</profile><quota>default</quota>
<access_management>1</access_management>
<named_collection_control>1</named_collection_control>
</default></users>
</clickhouse>"""


@dataclass(frozen=True)
class Outcome:
    """What a statement led to.

    Attributes:
        code: of the error; 0 for none.
        message: its text.
        lines: of the result, sorted: without ORDER BY they come in any order.
    """

    code: int = 0
    message: str = ""
    lines: tuple[bytes, ...] = ()


@contextlib.contextmanager
def running_engine(python: Path, folder: Path) -> Iterator[Engine]:
    """Run an engine that may write backups into the folder, and whose user may do everything."""
    config = folder / "config.xml"
    config.write_text(_CONFIG.format(folder=folder))
    (folder / "users.xml").write_text(_USERS)
    with Engine(python, folder / "engine", config) as engine:
        yield engine


class Replay:
    """Runs histories on one engine.

    Args:
        engine: which.
        record: the folder with the rows.
        folder: for backups.
        store: for what statements read from S3 and write there.
    """

    def __init__(self, engine: Engine, record: Path, folder: Path, store: S3Server) -> None:
        self._engine = engine
        self._record = record.absolute()
        self._backups = folder / "backups"
        self._store = store
        self._buckets: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        self._database = ""
        self._settings: dict[str, str] = {}
        self._missing: set[str] = set()  # settings that a tool knows that this engine lacks
        self._inner_tables: dict[str, str] = {}  # UUID in the record → UUID here
        self._temporary: set[str] = set()  # sessions that have made such tables

    def outcomes(self, history: History) -> list[Outcome]:
        """Run the statements on an empty engine; return what came out."""
        servers: set[str] = set()
        outcomes = []
        for statement in history.statements:
            if statement.server not in servers:
                servers.add(statement.server)
                self._empty()
            outcomes.append(self._outcome(statement))
        return outcomes

    def _empty(self) -> None:
        """Remove what is there, and make an Atomic database of the default one."""
        self._set({})
        self._drop_temporary()
        self._begin()
        self._engine.execute("USE system")
        for (name,) in self._engine.rows("SELECT name FROM system.databases"):
            if name not in {"system", "INFORMATION_SCHEMA", "information_schema"}:
                self._engine.execute(f"DROP DATABASE {sql.quote(name)}")
        for (name,) in self._engine.rows("SELECT name FROM system.named_collections"):
            self._engine.execute(f"DROP NAMED COLLECTION {sql.quote(name)}")
        self._engine.execute("CREATE DATABASE default ENGINE = Atomic")

    def _drop_temporary(self) -> None:
        for (name,) in self._engine.rows("SELECT name FROM system.tables WHERE is_temporary"):
            self._engine.execute(f"DROP TEMPORARY TABLE {sql.quote(name)}")

    def _outcome(self, statement: Statement) -> Outcome:
        if statement.ended:
            if statement.session in self._temporary:
                self._temporary.clear()
                self._drop_temporary()
            return Outcome()
        try:
            result = self._run(statement)
        except ServerError as error:
            return Outcome(error.code, error.text)
        return Outcome(lines=tuple(sorted(_UUID.sub(b"#", result).splitlines())))

    def _run(self, statement: Statement) -> bytes:
        self._use(statement.database or "default")
        self._set(self._accepted(statement), ignore_unknown=statement.protocol == "native")
        for name, value in statement.parameters.items():
            self._engine.execute(f"SET param_{name} = {sql.quote_string(value)}")
        with self._external_tables(statement):
            if _MAKES_TEMPORARY.match(statement.text):
                self._temporary.add(statement.session)
            try:
                result = self._engine.execute(self._text(statement), _FORMAT)
            except ServerError as error:
                self._mend(statement, error)
                raise
        if asked := rewriting.settings_asked_for(statement.text):
            self._missing |= asked - set(re.split(r"[\s,]+", result.decode()))
        return self._end_of_backup(result) if _IN_BACKGROUND.match(statement.text) else result

    def _mend(self, statement: Statement, error: ServerError) -> None:
        """Do it in another way, so that the statements that follow have something to work on."""
        if "experimental" in error.text:
            self._set(self._settings | _EXPERIMENTAL, ignore_unknown=True)
            self._engine.execute(self._text(statement), _FORMAT)

    def _text(self, statement: Statement) -> str:
        """Return the statement as this engine gets it."""
        insert = sql.parse_insert(statement.text) if statement.rows else None
        if insert:
            name = "Native" if statement.protocol == "native" else insert.format_name
            return insert.from_file(str(self._record / statement.rows), name)
        text = rewriting.without_sync(statement.text)
        text = rewriting.without_clock(text)
        text = rewriting.without_settings(text, self._missing)
        text = rewriting.to_files(text, self._backups)
        for bucket in rewriting.buckets(text):
            self._make_bucket(bucket)
        text = rewriting.to_store(text, self._store.endpoint)
        text = rewriting.INNER_TABLE.sub(self._inner_table, text)
        return text if is_of_a_tool(statement) else rewriting.with_same_rows(text)

    def _make_bucket(self, name: str) -> None:
        if name not in self._buckets:
            self._buckets.add(name)
            with contextlib.suppress(ClientError):  # not a name for one
                self._store.create_bucket(name)

    def _inner_table(self, match: re.Match[str]) -> str:
        """Return the name here of what a materialized view keeps its rows in."""
        if match[1] not in self._inner_tables:
            query = "SELECT name FROM system.tables WHERE startsWith(name, '.inner_id.')"
            listed = {name.removeprefix(".inner_id.") for (name,) in self._engine.rows(query)}
            unassigned = sorted(listed - set(self._inner_tables.values()))
            self._inner_tables[match[1]] = unassigned[0] if unassigned else match[1]
        return f".inner_id.{self._inner_tables[match[1]]}"

    @contextlib.contextmanager
    def _external_tables(self, statement: Statement) -> Iterator[None]:
        for table in statement.tables:
            columns = ", ".join(f"{sql.quote(name)} {kind}" for name, kind in table.columns)
            self._engine.execute(f"CREATE TEMPORARY TABLE {sql.quote(table.name)} ({columns})")
            for rows in table.rows:
                file = f"{sql.quote_string(str(self._record / rows))} COMPRESSION 'none'"
                self._engine.execute(
                    f"INSERT INTO {sql.quote(table.name)} FROM INFILE {file} FORMAT Native"
                )
        try:
            yield
        finally:
            for table in statement.tables:
                self._engine.execute(f"DROP TEMPORARY TABLE IF EXISTS {sql.quote(table.name)}")

    def _end_of_backup(self, answer: bytes) -> bytes:
        """Wait until what runs in the background has ended; return how."""
        number = answer.splitlines()[-1].split(b"\t")[0].decode()
        quoted = sql.quote_string(number)
        query = f"SELECT status, error FROM system.backups WHERE id = {quoted}"  # noqa: S608 (quoted)
        while True:
            ((status, error),) = self._engine.rows(query)
            if status not in {"CREATING_BACKUP", "RESTORING"}:
                if error:
                    raise ServerError.from_engine(RuntimeError(error))
                return bytes(status, "ascii")
            time.sleep(_POLL_SECONDS)

    def _use(self, database: str) -> None:
        if database != self._database:
            self._engine.execute(f"USE {sql.quote(database)}")
            self._database = database

    def _accepted(self, statement: Statement) -> dict[str, str]:
        """Return the settings without those that the tool would not send to this engine."""
        if not is_of_a_tool(statement):
            return _EXPERIMENTAL | statement.settings
        return {
            name: value for name, value in statement.settings.items() if name not in self._missing
        }

    def _set(self, settings: Mapping[str, str], *, ignore_unknown: bool = False) -> None:
        """Make these the settings of the session, in place of the last statement's."""
        if settings == self._settings:
            return
        for name in self._settings:
            self._engine.execute(f"SET {name} = DEFAULT")
        self._settings = {}
        for name, value in settings.items():
            try:
                self._engine.execute(f"SET {name} = {sql.quote_string(value)}")
            except ServerError as error:
                if error.code != Code.UNKNOWN_SETTING or not ignore_unknown:
                    raise
            else:
                self._settings[name] = value
