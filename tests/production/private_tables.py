"""Private tables of each kind on the cluster, and what its nodes have of them."""

from dev.cluster.cluster import Cluster, Node
from production.harness import everywhere, wait_for

TABLES = {"facts": "private", "rocks": "private", "plain": "private", "counted": "private"}
PATH = "/clickhouse/{cluster}/tables/ooni/facts/{shard}"
FACTS = f"""
    CREATE TABLE ooni.facts (month UInt32, number UInt64, version UInt64)
    ENGINE = ReplicatedReplacingMergeTree('{PATH}', '{{replica}}', version)
    PARTITION BY month ORDER BY number
"""
EVERYWHERE = (
    FACTS,
    "CREATE TABLE ooni.plain (number UInt64) ENGINE = MergeTree ORDER BY number",
    "INSERT INTO ooni.plain SELECT number FROM numbers(10)",
    "CREATE VIEW ooni.newest AS SELECT max(number) FROM ooni.facts",
    """CREATE MATERIALIZED VIEW ooni.counted ENGINE = SummingMergeTree ORDER BY month
    AS SELECT month, count() AS rows FROM ooni.facts GROUP BY month""",
)
# As OONI's fingerprints: without ON CLUSTER, so on the first node only.
ON_THE_FIRST = (
    "CREATE TABLE ooni.rocks (name String) ENGINE = EmbeddedRocksDB PRIMARY KEY name",
    "INSERT INTO ooni.rocks SELECT toString(number) FROM numbers(20)",
)
INSERT = "INSERT INTO ooni.facts SELECT {0} + number % 3, number + {1}, 1 FROM numbers({2})"
CONTENT = "SELECT count(), sum(cityHash64(*)) FROM ooni.{}"
NUMBERS = f"""
    CREATE TABLE ooni.numbers (number UInt64)
    ENGINE = ReplicatedMergeTree('{PATH.replace("facts", "numbers")}', '{{replica}}')
    ORDER BY number
"""


def create_private_tables(cluster: Cluster) -> None:
    """Create tables of each kind, with rows."""
    everywhere(cluster, *EVERYWHERE)
    for statement in (*ON_THE_FIRST, INSERT.format(202501, 0, 300)):
        cluster.nodes[0].execute(statement)
    wait_for_rows(cluster, "facts", 300)


def create_sharded_table(shards: Cluster) -> None:
    """Create a table with 50 rows on one shard and 70 on the other."""
    everywhere(shards, NUMBERS)
    for node, first, count in ((shards.nodes[0], 0, 50), (shards.nodes[2], 1000, 70)):
        node.execute(f"INSERT INTO ooni.numbers SELECT {first} + number FROM numbers({count})")
    wait_for_shards(shards, "numbers")


def wait_for_rows(cluster: Cluster, table: str, rows: int) -> None:
    """Return when all nodes that are up have so many rows."""
    for node in cluster.nodes:
        if node.pid:
            wait_for(
                lambda node=node: content(node, table)[0] == rows,  # type: ignore[misc]
                f"{rows} rows of {table}",
            )


def content(node: Node, table: str) -> tuple[int, int]:
    """Return what a node has in a table."""
    rows: list[tuple[int, int]] = node.execute(CONTENT.format(table))
    return rows[0]


def contents_of(cluster: Cluster, table: str) -> set[tuple[int, int]]:
    """Return what the nodes that are up have in a table."""
    return {content(node, table) for node in cluster.nodes if node.pid}


def path_of(node: Node, table: str) -> str:
    """Return the replica path of a table."""
    ((path,),) = node.execute(
        f"SELECT zookeeper_path FROM system.replicas WHERE database = 'ooni' AND table = '{table}'"
    )
    return str(path)


def tables(cluster: Cluster) -> list[set[str]]:
    """Return the names of the tables on each node that is up."""
    return [
        {name for (name,) in node.execute("SHOW TABLES FROM ooni") if not name.startswith(".")}
        for node in cluster.nodes
        if node.pid
    ]


def wait_for_shards(shards: Cluster, table: str) -> None:
    """Return when each node that is up has the rows of its shard, once."""
    for node, rows in zip(shards.nodes, (50, 50, 70, 70), strict=True):
        if node.pid:
            wait_for(
                lambda node=node, rows=rows: content(node, table)[0] == rows,  # type: ignore[misc]
                f"{rows} rows",
            )
