"""What OONI's Airflow does beside the tools, every 30 minutes: a swap on the first node alone."""

from collections.abc import Sequence

from dev.cluster.cluster import Node

Row = tuple[str, str, str, str]


def update(node: Node, rows: Sequence[Row]) -> None:
    """Replace the test lists on one node."""
    node.execute("TRUNCATE TABLE ooni.citizenlab_flip")
    node.execute("INSERT INTO ooni.citizenlab_flip VALUES", rows)
    node.execute("EXCHANGE TABLES ooni.citizenlab_flip AND ooni.citizenlab")
