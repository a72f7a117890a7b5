"""A ClickHouse for development: the real engine (chdb) behind the native protocol and HTTP.

By hand:

    python -m dev.embedded_clickhouse /tmp/db --tcp 9000 --http 8123

From Python (tests, demo, benchmarks):

    with EmbeddedClickHouse(path) as server:
        client = clickhouse_driver.Client.from_url(server.uri())
"""

from dev.embedded_clickhouse.process import EmbeddedClickHouse, StartError

__all__ = ["EmbeddedClickHouse", "StartError"]
