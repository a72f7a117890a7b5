"""What our code uses of clickhouse-driver's client, on an engine that has no ports."""

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from clickhouse_driver.bufferedreader import CompressedBufferedReader
from clickhouse_driver.context import Context
from clickhouse_driver.errors import ServerException
from clickhouse_driver.streams.native import BlockInputStream
from clickhouse_driver.util.escape import escape_params

from dev.embedded_clickhouse.errors import ServerError
from dev.engines import Engine

BUFFER = 2**16


class EngineClient:
    """Sends the statements of `ooni_common.database.Database` to an engine as they are.

    Only the rows of an INSERT go another way, as JSON, and of SYNC, which the older engines wait
    for without end, the statements are freed.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._context = Context()
        self._context.client_settings = {"use_numpy": False, "strings_as_bytes": False}
        self._context.settings = {}
        self._context.server_info = _ServerInfo()

    def execute(self, query: str, params: Any = None, **options: Any) -> Any:
        """Run a statement; return the rows as the driver decodes them."""
        settings = options.get("settings") or {}
        tables = options.get("external_tables") or ()
        try:
            for name, value in settings.items():
                self._engine.execute(f"SET {name} = {json.dumps(value)}".replace('"', "'"))
            for table in tables:
                self._create(table)
            return self._run(query, params)
        except ServerError as error:
            raise ServerException(error.text, error.code) from None
        finally:
            for table in tables:
                self._engine.execute(f"DROP TEMPORARY TABLE IF EXISTS {table['name']}")
            for name in settings:
                self._engine.execute(f"SET {name} = DEFAULT")

    def disconnect(self) -> None:
        """Leave the engine to the next test."""

    def _run(self, query: str, params: Any) -> list[tuple[Any, ...]]:
        if isinstance(params, Sequence):
            self._insert(query.removesuffix(" VALUES"), params)
            return []
        if params:
            query %= escape_params(params, self._context)
        return self._decoded(self._engine.execute(query.removesuffix(" SYNC"), "Native"))

    def _insert(self, into: str, columns: Sequence[Sequence[Any]]) -> None:
        values = json.dumps([list(map(_as_json, column)) for column in columns])
        self._engine.execute(f"{into} FORMAT JSONCompactColumns {values}")

    def _create(self, table: Mapping[str, Any]) -> None:
        columns = ", ".join(f"{name} {kind}" for name, kind in table["structure"])
        self._engine.execute(f"CREATE TEMPORARY TABLE {table['name']} ({columns})")
        values = table["columns"] if "columns" in table else zip(*table["data"], strict=True)
        self._insert(f"INSERT INTO {table['name']}", list(values))

    def _decoded(self, native: bytes) -> list[tuple[Any, ...]]:
        pieces = iter([native, b""])
        stream = BlockInputStream(
            CompressedBufferedReader(lambda: next(pieces), BUFFER), self._context
        )
        rows: list[tuple[Any, ...]] = []
        try:
            while True:
                rows += stream.read().get_rows()
        except EOFError:
            return rows


class _ServerInfo:
    """Of a server whose blocks are as in `FORMAT Native`."""

    used_revision = 0

    @staticmethod
    def get_timezone() -> str:
        return "UTC"


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return int(value.timestamp())
    return str(value) if isinstance(value, date) else value
