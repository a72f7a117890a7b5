"""The cluster that the tests of this folder share, and OONI's tables on it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Database
from dev.cluster import zookeeper
from dev.cluster.cluster import Cluster
from dev.cluster.configuration import NAME
from dev.samples.test_lists import SampleTestLists
from dev.servers.git import GitServer
from dev.servers.s3 import S3Server
from production.backup_tool import Tool
from production.harness import everywhere, forget_replicas, wait_until_writable
from production.lists import ROWS, Updater
from production.ooni import REPLICATED, create_tables
from production.private_tables import TABLES, create_private_tables, create_sharded_table


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
    forget_replicas(shared_cluster, REPLICATED)


@pytest.fixture(scope="session")
def shared_shards(zookeeper_is_installed: None) -> Iterator[Cluster]:
    """Two shards of two replicas for the whole session."""
    with Cluster(shards=2, replicas=2) as cluster:
        yield cluster


@pytest.fixture
def shards(shared_shards: Cluster) -> Iterator[Cluster]:
    """Two shards with an empty database `ooni` on each node; afterwards they are whole again."""
    everywhere(shared_shards, "CREATE DATABASE ooni ENGINE = Atomic")
    yield shared_shards
    shared_shards.mend()
    wait_until_writable(*shared_shards.nodes)
    everywhere(shared_shards, "DROP DATABASE ooni SYNC")


@pytest.fixture
def production(cluster: Cluster) -> Cluster:
    """The cluster with OONI's tables."""
    create_tables(cluster)
    return cluster


@pytest.fixture
def lists(tmp_path: Path) -> SampleTestLists:
    """The upstream repository of the test lists."""
    folder = tmp_path / "upstream"
    folder.mkdir()
    sample = SampleTestLists(folder)
    sample.create(rows=ROWS, countries=("ae", "fr", "it", "ru"))
    return sample


@pytest.fixture
def updater(
    tmp_path: Path,
    production: Cluster,
    git: GitServer,
    capsys: pytest.CaptureFixture[str],
) -> Updater:
    """The updater of the lists with nothing but a configuration file, at the first node."""
    made = Updater(tmp_path, Database("ooni", production.nodes[0]), capsys)
    uri = production.nodes[0].uri("write", "write", "ooni")
    made.configure(db_uri=uri, git_url=git.url("test-lists"), min_rows=100, cluster=NAME)
    return made


@pytest.fixture
def saving(
    tmp_path: Path, cluster: Cluster, s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> Tool:
    """The backup tool, and private tables of each kind with rows."""
    create_private_tables(cluster)
    tool = Tool(tmp_path, cluster, s3, capsys)
    tool.keep_private(TABLES)
    return tool


@pytest.fixture
def sharded(
    tmp_path: Path, shards: Cluster, s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> Tool:
    """The backup tool, and a table with 50 rows on one shard and 70 on the other."""
    create_sharded_table(shards)
    tool = Tool(tmp_path, shards, s3, capsys)
    tool.keep_private({"numbers": "private"})
    return tool
