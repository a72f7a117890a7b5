"""The server's own BACKUP and RESTORE: their statements, and watching them while they run.

The server reads and writes the objects itself. It does so in the background (ASYNC), and tells in
system.backups how far it is.
"""

import contextlib
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from backup_config import Config
from backups.bucket_address import address_of
from backups.manifest import BackupLayout
from ooni_common.database import (
    Database,
    ServerError,
    StatementFailed,
    literal,
    quoted,
    server_error,
)
from ooni_common.errors import ConfigError, ScriptError, Unavailable
from store.errors import S3_CODES_OF_WRONG_CONFIG
from throttle import Throttle, in_units, progress

log = logging.getLogger("ooni.db_backup")

OURS = "ooni-db-backup-"  # how the IDs of our statements begin
POLLS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # seconds between two looks, the last one for good
NOTE_AFTER = 600  # seconds between two lines in the log
ENDING_TIME = 20  # seconds that a statement has to end when it is killed
# How the AWS library of the server calls what boto3 calls by the names of the documentation.
SERVER_CODES = (
    "ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|NO_SUCH_BUCKET"
    "|REQUEST_TIME_TOO_SKEWED"
)
# "403" alone could be a part of a time or of a bucket's name, so it is looked for where it is told.
WRONG_CONFIG = re.compile(
    rf"\b({SERVER_CODES}|{'|'.join(S3_CODES_OF_WRONG_CONFIG - {'403'})})\b"
    r"|HTTP response code: 403\b|does not exist, bucket|There is no named collection"
    r"|\(Code: 15\)"
)
# A number of the AWS library, where the server tells nothing else.
NUMBERED = {"(Code: 15)": "ACCESS_DENIED"}


@dataclass(frozen=True)
class BackupSize:
    """What a BACKUP has written: bytes, and the bytes of all that is restored from it."""

    bytes: int
    total_bytes: int


class ServerBackups:
    """Runs BACKUP and RESTORE, and has what their callers need.

    Attributes:
        database: the connection.
        config: says what is done, and has the limits of a statement.
        layout: where things are in the bucket.
        collection: the named collection by which the server reaches the bucket, "" for none: that
            of the configuration, unless a backup was made by another one.
        throttle: lets statements begin.
        clock: gives the time, UTC.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        database: Database,
        config: Config,
        collection: str | None = None,
        *,
        layout: BackupLayout | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.database = database
        self.config = config
        self.layout = layout or BackupLayout(config.private_prefix)
        self.collection = config.private_named_collection if collection is None else collection
        self.clock = clock
        self.throttle = Throttle(lambda: [database], config, sleep=sleep)
        self.sleep = sleep
        self._address = address_of(config, self.collection)
        retries = str(config.private_retries)
        self._optional = {"backup_restore_s3_retry_attempts": retries}
        self._optional_for_rows = {"s3_retry_attempts": retries}
        if config.max_bandwidth:
            self._optional["max_backup_bandwidth"] = str(config.max_bandwidth)

    def back_up(
        self, tables: Sequence[str], path: str, base: str = "", *, structure_only: bool = False
    ) -> BackupSize:
        """Write a backup of tables of the current database.

        Args:
            tables: their names.
            path: where it goes, in the bucket.
            base: where the backup is that has what is not new; "" for a full one.
            structure_only: without rows.
        """
        ((database,),) = self.database.query("SELECT currentDatabase()")
        listed = ", ".join(f"TABLE {_full_name(database, table)}" for table in tables)
        settings = {"structure_only": "true"} if structure_only else {}
        if self.config.private_storage_class:
            settings["s3_storage_class"] = literal(self.config.private_storage_class)
        if base:
            settings["base_backup"] = self._address.backup(base)
            settings |= self._same_credentials()
        statement = f"BACKUP {listed} TO {self._address.backup(path)}"
        total = 0 if structure_only else self._size(database, tables)
        return self._run(statement, settings, path, "BACKUP_CREATED", total)

    def restore(
        self,
        tables: Mapping[tuple[str, str], tuple[str, str]],
        path: str,
        *,
        has_base: bool = False,
        partitions: Sequence[str] = (),
    ) -> None:
        """Restore rows into tables that are there; none is made.

        Args:
            tables: database and name in the backup → those of the table.
            path: where the backup is, in the bucket.
            has_base: whether it needs another one.
            partitions: the IDs of those whose rows are restored; empty: all.
        """
        ids = ", ".join(f"ID {literal(partition)}" for partition in partitions)
        only = f" PARTITIONS {ids}" if ids else ""
        listed = ", ".join(
            f"TABLE {_full_name(*source)} AS {_full_name(*target)}{only}"
            for source, target in tables.items()
        )
        settings = {"allow_different_table_def": "true", "create_table": "0"}
        if has_base:
            settings |= self._same_credentials()
        statement = f"RESTORE {listed} FROM {self._address.backup(path)}"
        self._run(statement, settings, path, "RESTORED", 0)

    def save_rows(self, table: str, columns: Sequence[str], key: str) -> None:
        """Write the rows of a table of the current database as one object."""
        selected = ", ".join(map(quoted, columns))
        with self._store_errors():
            self.database.query(
                f"INSERT INTO FUNCTION {self._address.rows(key)}"
                f" SELECT {selected} FROM {quoted(table)}{self._patience}"
            )

    def load_rows(self, database: str, table: str, columns: Sequence[str], key: str) -> None:
        """Insert the rows of such an object into a table."""
        selected = ", ".join(map(quoted, columns))
        with self._store_errors():
            self.database.query(
                f"INSERT INTO {_full_name(database, table)} ({selected})"
                f" SELECT {selected} FROM {self._address.rows(key)}{self._patience}"
            )

    def write_probe(self, key: str, text: str) -> None:
        """Let the server write an object, to see whether it can."""
        with self._store_errors():
            self.database.query(
                f"INSERT INTO FUNCTION {self._address.rows(key)}"
                f" SELECT {literal(text)} AS probe{self._patience}"
            )

    def running(self) -> list[str]:
        """Return the IDs of our backups that the server is at."""
        rows = self.database.query(
            "SELECT id FROM system.backups WHERE status = 'CREATING_BACKUP'"
            " AND startsWith(id, %(ours)s)"
            # Another configuration may have backups of its own on this server.
            " AND position(name, %(bucket)s) > 0 AND position(name, %(prefix)s) > 0",
            {
                "ours": OURS,
                "bucket": self._address.collection or self._address.url,
                "prefix": f"{self.config.private_prefix}/",
            },
        )
        return [backup_id for (backup_id,) in rows]

    def end_abandoned(self) -> None:
        """End the backups of runs that were killed: the server goes on with them otherwise."""
        for backup_id in self.running():
            log.warning("%s is of a run that was interrupted; ending it", backup_id)
            try:
                self._end(backup_id)
            except ScriptError as error:
                log.warning("%s", error)

    def _run(
        self, statement: str, settings: dict[str, str], path: str, done: str, total: int
    ) -> BackupSize:
        # The backup, and which part of it.
        name = path.removeprefix(self.layout.all_data).strip("/").replace("/", " ")
        backup_id = f"{OURS}{name.replace(' ', '-')}-{uuid.uuid4().hex[:8]}"
        optional = self.database.settings_it_has(self._optional)
        settings = {"id": literal(backup_id)} | settings
        listed = ", ".join(f"{name} = {value}" for name, value in settings.items())
        try:
            with self._store_errors():
                # 24.8 has the optional ones, but takes them for settings of the session alone.
                self.database.query(f"{statement} SETTINGS {listed} ASYNC", settings=optional)
            return self._watch(backup_id, name, done, total)
        except BaseException:
            # A connection that was interrupted while it waited for an answer is of no use.
            self.database.close()
            with contextlib.suppress(ScriptError):
                self._end(backup_id)
            raise

    def _watch(self, backup_id: str, name: str, done: str, total: int) -> BackupSize:
        """Wait until it is done.

        Raises:
            ConfigError: the store lets the server do nothing there.
            Unavailable: it failed, the server has forgotten it, or it takes too long.
        """
        started = noted = time.monotonic()
        polls = iter(POLLS)
        with progress(name, total, "B") as shown:
            while True:
                rows = self.database.query(
                    "SELECT status, error, total_size, compressed_size FROM system.backups"
                    " WHERE id = %(id)s",
                    {"id": backup_id},
                )
                if not rows:
                    raise Unavailable(f"database: it has forgotten {backup_id}: was it restarted?")
                ((status, error, size, written),) = rows
                if status == done:
                    return BackupSize(written, size)
                if not status.startswith(("CREATING", "RESTORING")):
                    raise _failure(str(status), str(error))
                now = time.monotonic()
                if now - started > self.config.max_backup_time:
                    raise Unavailable(
                        f"database: {name} has taken longer than max_backup_time"
                        f" ({self.config.max_backup_time:g} s)"
                    )
                if now - noted > NOTE_AFTER:
                    log.info("%s: %s so far", name, in_units(size))
                    noted = now
                shown.show(size)
                self.sleep(next(polls, POLLS[-1]))

    def _end(self, backup_id: str) -> None:
        """Let the server end a statement, and wait until it has."""
        self.database.query(
            "KILL QUERY WHERE position(query, %(id)s) > 0"
            " AND (startsWith(query, 'BACKUP') OR startsWith(query, 'RESTORE')) ASYNC",
            {"id": backup_id},
        )
        until = time.monotonic() + ENDING_TIME
        while time.monotonic() < until:
            rows = self.database.query(
                "SELECT count() FROM system.backups WHERE id = %(id)s"
                " AND status IN ('CREATING_BACKUP', 'RESTORING')",
                {"id": backup_id},
            )
            if rows == [(0,)]:
                return
            self.sleep(POLLS[1])
        log.warning("%s does not end; look at system.backups", backup_id)

    def _size(self, database: str, tables: Sequence[str]) -> int:
        """Return how many bytes tables have on the disk, about."""
        ((size,),) = self.database.query(
            "SELECT sum(total_bytes) FROM system.tables"
            " WHERE database = %(database)s AND name IN %(tables)s",
            {"database": database, "tables": tuple(tables)},
        )
        return int(size or 0)

    def _same_credentials(self) -> dict[str, str]:
        """Let a base be read with the credentials of the statement: they are not stored in it."""
        return {"use_same_s3_credentials_for_base_backup": "true"} if self._address.has_key else {}

    @property
    def _patience(self) -> str:
        """Limit the server's S3 retries; by default it keeps retrying for almost an hour."""
        supported = self.database.settings_it_has(self._optional_for_rows)
        listed = ", ".join(f"{name} = {value}" for name, value in supported.items())
        return f" SETTINGS {listed}" if listed else ""

    @contextlib.contextmanager
    def _store_errors(self) -> Iterator[None]:
        """Tell the store's refusals from the database's failures."""
        try:
            yield
        except StatementFailed as error:
            raise _sorted(error) from None


def _full_name(database: str, table: str) -> str:
    return f"{quoted(database)}.{quoted(table)}"


def _failure(status: str, text: str) -> ScriptError:
    """Return what a status and an error of system.backups mean to the operator."""
    match = re.match(r"Code: (\d+)\. ?(.*)", text, re.DOTALL)
    if not match:
        return Unavailable(f"database: {status}")
    return _sorted(server_error(int(match[1]), match[2]))


def _sorted(error: ServerError) -> ScriptError:
    """Return the error, as one of configuration where the store has refused the server."""
    codes = (match[0] for match in WRONG_CONFIG.finditer(error.said))
    refusals = dict.fromkeys(NUMBERED.get(code, code) for code in codes)
    return ConfigError(f"{error}; the store says: {', '.join(refusals)}") if refusals else error
