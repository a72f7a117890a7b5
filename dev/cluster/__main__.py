"""Run a cluster by hand until Ctrl-C: `make cluster`."""

import argparse
import sys

from dev.cluster.cluster import Cluster
from dev.cluster.configuration import NAME
from dev.cluster.zookeeper import ZooKeeperError
from dev.embedded_clickhouse.lifetime import catch_signals, wait_for_the_end
from dev.embedded_clickhouse.process import StartError


def main() -> int:
    """Start, tell where the nodes are, wait for the end."""
    parser = argparse.ArgumentParser(prog="python -m dev.cluster", description=__doc__)
    parser.add_argument("--shards", type=int, default=1, help="default: 1")
    parser.add_argument("--replicas", type=int, default=3, help="of each shard; default: 3")
    arguments = parser.parse_args()
    stop = catch_signals()
    try:
        cluster = Cluster(arguments.shards, arguments.replicas).start()
    except (ZooKeeperError, StartError) as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    print(f"cluster {NAME}, ZooKeeper on port {cluster.zookeeper.port}")
    for number, node in enumerate(cluster.nodes, start=1):
        print(f"node {number}: {node.uri()} {node.http_url()}")
    print("Ctrl-C ends it, and removes what it has.", flush=True)
    wait_for_the_end(stop)
    cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
