"""The HTTP interface of the very node that a table is read from.

The one of the configuration may be that of another node, which may lack rows: on a cluster, or
where several servers share a name.
"""

import contextlib

from exports.clickhouse_http import ClickHouseHTTP
from exports.reader import Reader
from ooni_common.database import literal
from ooni_common.errors import ScriptError, Unavailable

# Which server it is, and which replica of the table: servers in containers can be copies.
IDENTITY = (
    "toString(tuple(serverUUID(), hostName(), (SELECT groupArray(replica_path) FROM system.replicas"
    " WHERE database = currentDatabase() AND table = {})))"
)


class NodeHTTP:
    """Finds the interface of a node by its identity, as the server itself tells it.

    Args:
        http: that of the configuration; another node has its own on the same port.
    """

    def __init__(self, http: ClickHouseHTTP) -> None:
        self._http = http
        self._of: dict[str, ClickHouseHTTP] = {}

    def of(self, reader: Reader) -> ClickHouseHTTP:
        """Return the interface of the node that a table is read from; it is that of one shard.

        Raises:
            Unavailable: it is not where it should be.
        """
        name = reader.replicas.chosen[0].name if reader.replicas else ""
        if name not in self._of:
            self._of[name] = self._of_node(name, reader)
        return self._of[name]

    def _of_node(self, node: str, reader: Reader) -> ClickHouseHTTP:
        expression = IDENTITY.format(literal(reader.table.name))
        ((identity,),) = reader.databases[0].query(f"SELECT {expression}")
        if not node:
            if self._http.value(expression) == identity:
                return self._http
            raise Unavailable(
                f"no Parquet: {self._http.address} is another server than db_uri reaches; name one"
                " in http_url"
            )
        own = self._http.at(node.rpartition(":")[0])
        for http in (self._http, own):
            with contextlib.suppress(ScriptError):  # it is another one, or none
                if http.value(expression) == identity:
                    return http
        raise Unavailable(
            f"no Parquet: the HTTP interface of {node}, from which rows are read, is neither at"
            f" {self._http.address} nor at {own.address}; let this host reach it, or set http_url"
        )
