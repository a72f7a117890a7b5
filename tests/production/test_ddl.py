"""DDL of replicated tables on an engine as it is: a ZooKeeper, nothing written into its memory."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import clickhouse_driver
import pytest
from clickhouse_driver import errors

from dev.cluster.cluster import free_ports
from dev.cluster.configuration import server_configuration
from dev.cluster.zookeeper import ZooKeeper
from dev.embedded_clickhouse import EmbeddedClickHouse
from ooni_common.database import Database, StatementFailed, StatementRefused

pytestmark = pytest.mark.production

CREATE = """
    CREATE TABLE ooni.{name} (number UInt64)
    ENGINE = ReplicatedMergeTree('/clickhouse/{{cluster}}/{path}/{{shard}}', '{{replica}}')
    ORDER BY number
"""


@pytest.fixture
def client(tmp_path: Path, zookeeper_is_installed: None) -> Iterator[clickhouse_driver.Client]:
    """A client of a server with an empty database `ooni`."""
    zookeeper_port, tcp = free_ports(2)
    config = tmp_path / "config.xml"
    config.write_text(server_configuration(zookeeper_port, [[tcp]], 0))
    with ExitStack() as stack:
        stack.enter_context(ZooKeeper(tmp_path / "zookeeper", zookeeper_port))
        options = ("--config-file", str(config))
        server = EmbeddedClickHouse(tmp_path / "server", tcp=tcp, options=options)
        server.start()
        stack.callback(server.kill)  # to stop it takes as long as ZooKeeper is missed
        made = stack.enter_context(clickhouse_driver.Client.from_url(server.uri()))
        made.execute("CREATE DATABASE ooni ENGINE = Atomic")
        yield made


def test_tables_are_made_attached_exchanged_and_dropped(client: clickhouse_driver.Client) -> None:
    for name in ("a", "b"):
        client.execute(CREATE.format(name=name, path=name))
    client.execute("EXCHANGE TABLES ooni.a AND ooni.b")
    query = "SELECT zookeeper_path FROM system.replicas WHERE table = 'a'"
    assert client.execute(query) == [("/clickhouse/oonidata_cluster/b/01",)]
    client.execute("DETACH TABLE ooni.a SYNC")
    client.execute("ATTACH TABLE ooni.a")
    client.execute("DROP TABLE ooni.a SYNC")
    client.execute(CREATE.format(name="a", path="b"))


def test_a_replica_path_that_exists_is_refused(client: clickhouse_driver.Client) -> None:
    client.execute(CREATE.format(name="a", path="a"))
    with pytest.raises(errors.ServerException) as failure:
        client.execute("CREATE TABLE ooni.b AS ooni.a")
    assert failure.value.code == errors.ErrorCodes.REPLICA_IS_ALREADY_EXIST


def test_a_path_with_an_identity_needs_a_cluster(client: clickhouse_driver.Client) -> None:
    with pytest.raises(errors.ServerException) as failure:
        client.execute(CREATE.format(name="a", path="{uuid}"))
    assert failure.value.code == errors.ErrorCodes.BAD_ARGUMENTS


def test_without_an_address_of_its_own_it_takes_no_rows(client: clickhouse_driver.Client) -> None:
    client.execute(CREATE.format(name="a", path="a"))
    with pytest.raises(errors.ServerException) as failure:
        client.execute("INSERT INTO ooni.a SELECT 1 SETTINGS insert_keeper_max_retries = 0")
    assert failure.value.code == errors.ErrorCodes.TABLE_IS_READ_ONLY


def test_a_tool_says_what_a_person_can_do(client: clickhouse_driver.Client) -> None:
    database = Database(client)
    client.execute(CREATE.format(name="a", path="a"))
    with pytest.raises(
        StatementRefused, match=r"SYSTEM DROP REPLICA '[^']+' FROM ZKPATH"
    ) as failure:
        database.query("CREATE TABLE ooni.b AS ooni.a")
    (statement,) = re.findall("SYSTEM DROP REPLICA '[^']+' FROM ZKPATH '[^']+'", str(failure.value))
    client.execute("DETACH TABLE ooni.a PERMANENTLY SYNC")
    client.execute(statement)
    client.execute(CREATE.format(name="b", path="a"))  # the path is free
    with pytest.raises(StatementRefused, match=r"without \{uuid\} or with ON CLUSTER"):
        database.query(CREATE.format(name="c", path="{uuid}"))
    with pytest.raises(StatementFailed, match="no connection to ZooKeeper"):
        database.query("INSERT INTO ooni.b SELECT 1 SETTINGS insert_keeper_max_retries = 0")
