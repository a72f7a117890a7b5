"""The test lists on tables whose replica paths are of other kinds than OONI's."""

import uuid
from collections.abc import Sequence

import pytest

from dev.cluster.cluster import Cluster
from dev.samples.test_lists import SampleTestLists
from production import airflow
from production.harness import everywhere
from production.lists import ROWS, Updater, agree, load, paths
from production.ooni import CITIZENLAB

pytestmark = pytest.mark.production

OONIS = "/clickhouse/{cluster}/tables/ooni/citizenlab/{shard}"
PATHS = {
    "database and table": "/clickhouse/{cluster}/tables/{database}/{table}/{shard}",
    "identity": "/clickhouse/tables/{uuid}/{shard}",
    "no macro": "/clickhouse/tables/ooni_citizenlab",
    "shard first": "/clickhouse/{shard}/{database}.{table}",
    "a quote": "/clickhouse/o\\'oni/{shard}",
}
TABLES = ("citizenlab", "citizenlab_flip")
LIVE = uuid.uuid4()


def make(cluster: Cluster, path: str, tables: Sequence[str] = ("citizenlab",)) -> None:
    """Put tables with this path in the place of OONI's."""
    for table in TABLES:
        everywhere(cluster, f"DROP TABLE ooni.{table} SYNC")
    for table in tables:
        statement = CITIZENLAB.format(table="citizenlab").replace(OONIS, path)
        statement = statement.replace("ooni.citizenlab\n", f"ooni.{table} UUID '{LIVE}'\n")
        everywhere(cluster, statement)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_an_update_and_a_heal_work_with_any_path(
    updater: Updater, production: Cluster, lists: SampleTestLists, path: str
) -> None:
    make(production, path)
    seen = set()
    for rows in (ROWS, ROWS + 1, ROWS + 2):
        load(updater)
        agree(production, rows)
        seen |= paths(production)
        lists.add_rows("it", 1)
    assert len(seen) == 3
    load(updater)
    first = production.nodes[0]
    airflow.update(first, first.execute("SELECT * FROM ooni.citizenlab"))
    load(updater)
    agree(production, ROWS + 3)


def test_replicas_keep_names_that_no_macro_gives(
    updater: Updater, production: Cluster, lists: SampleTestLists
) -> None:
    everywhere(production, *(f"DROP TABLE ooni.{table} SYNC" for table in TABLES))
    for number, node in enumerate(production.nodes):
        for table in TABLES:
            statement = CITIZENLAB.format(table=table).replace("{replica}", f"host-{number}")
            node.execute(statement)
    load(updater)
    lists.add_rows("it", 1)
    load(updater)
    agree(production, ROWS + 1)
    first = production.nodes[0]
    airflow.update(first, first.execute("SELECT * FROM ooni.citizenlab"))
    load(updater)
    agree(production, ROWS + 1)
    names = "SELECT replica_name FROM system.replicas WHERE table = 'citizenlab'"
    assert [node.execute(names) for node in production.nodes] == [
        [("host-0",)],
        [("host-1",)],
        [("host-2",)],
    ]


def test_from_nothing_each_node_gets_a_table_of_its_own(
    updater: Updater, production: Cluster, lists: SampleTestLists
) -> None:
    for table in TABLES:
        everywhere(production, f"DROP TABLE ooni.{table} SYNC")
    load(updater)
    for node in production.nodes:
        assert node.execute("SELECT count() FROM ooni.citizenlab") == [(ROWS,)]
    third = production.nodes[2]
    third.kill()
    lists.add_rows("it", 1)
    load(updater)
    third.start()
    load(updater)
    for node in production.nodes:
        assert node.execute("SELECT count() FROM ooni.citizenlab") == [(ROWS + 1,)]
