"""A ClickHouse for development: the real engine (chdb) behind the native protocol and HTTP.

What works is what the engine does: SQL, types, table engines, EXCHANGE, mutations, backups. What
it cannot do it refuses with an exception: ON CLUSTER, users and grants made by SQL, totals and
extremes by the native protocol, INSERT of JSON, Dynamic, Variant and aggregate states by the native
protocol. Replicated tables need a ZooKeeper (`--config-file`), and their rows `dev.cluster`.

Different from a server: a query's id is the engine's own (the client's is in `log_comment`), there
is no system.query_log, the one progress packet comes at a query's end, and scalar subqueries of the
native protocol run a second time, to find out the types.

By hand:

    python -m dev.embedded_clickhouse /tmp/db --tcp 9000 --http 8123

From Python (tests, demo, benchmarks):

    with EmbeddedClickHouse(path) as server:
        client = clickhouse_driver.Client.from_url(server.uri())
"""

from dev.embedded_clickhouse.process import EmbeddedClickHouse, StartError

__all__ = ["EmbeddedClickHouse", "StartError"]
