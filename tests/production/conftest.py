"""The cluster that the tests of this folder share, and OONI's tables on it."""

import os
from collections.abc import Iterator

import pytest

from dev.cluster import zookeeper
from dev.cluster.cluster import Cluster
from production.harness import everywhere, wait_until_writable
from production.ooni import create_tables


@pytest.fixture(scope="session")
def zookeeper_is_installed() -> None:
    """Skip a test where Debian's ZooKeeper is missing; fail it where that is not expected."""
    if reason := zookeeper.missing():
        if os.environ.get("OONI_TEST_NEEDS_ZOOKEEPER"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_cluster(zookeeper_is_installed: None) -> Iterator[Cluster]:
    """One shard of three replicas for the whole session."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with an empty database `ooni` on each node; afterwards it is whole again."""
    everywhere(shared_cluster, "CREATE DATABASE ooni ENGINE = Atomic")
    yield shared_cluster
    shared_cluster.mend()
    wait_until_writable(*shared_cluster.nodes)
    everywhere(shared_cluster, "DROP DATABASE ooni SYNC")


@pytest.fixture
def production(cluster: Cluster) -> Cluster:
    """The cluster with OONI's tables."""
    create_tables(cluster)
    return cluster
