"""The statements of docs/migration-of-ooni.md, on replicas that Airflow has crossed."""

import re
from datetime import datetime
from operator import itemgetter
from pathlib import Path

import pytest

from dev.cluster.cluster import Cluster
from production import airflow
from production.harness import everywhere, wait_for
from production.ooni import REPLICATED

pytestmark = pytest.mark.production

RUNBOOK = Path(__file__).parents[2] / "docs/migration-of-ooni.md"
ROW = ("example.org", "http://example.org/", "it", "NEWS")


def statement(about: str) -> str:
    """Return the one statement of the runbook that asks for this."""
    blocks = re.findall(r"^```sql\n(.*?)^```$", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL)
    (wanted,) = (block for block in blocks if about in block)
    return str(wanted)


@pytest.fixture
def crossed(production: Cluster) -> Cluster:
    first = production.nodes[0]
    for _ in range(3):
        airflow.update(first, [ROW])
    everywhere(
        production,
        "SYSTEM SYNC REPLICA ooni.citizenlab",
        "SYSTEM SYNC REPLICA ooni.citizenlab_flip",
    )
    return production


def test_the_runbook_shows_crossed_replicas(crossed: Cluster) -> None:
    first = crossed.nodes[0]
    path = "/clickhouse/oonidata_cluster/tables/ooni/citizenlab"
    assert sorted(first.execute(statement("replica_name, table")), key=itemgetter(1, 0)) == [
        ("01", "citizenlab", f"{path}_flip/01"),
        ("02", "citizenlab", f"{path}/01"),
        ("03", "citizenlab", f"{path}/01"),
        ("01", "citizenlab_flip", f"{path}/01"),
        ("02", "citizenlab_flip", f"{path}_flip/01"),
        ("03", "citizenlab_flip", f"{path}_flip/01"),
    ]
    contents = first.execute(statement("AS content"))
    assert sorted(replica for replica, _, _ in contents) == ["01", "02", "03"]
    assert len({(rows, content) for _, rows, content in contents}) == 1
    tables = first.execute(statement("name, engine"))
    assert {(replica, engine) for replica, _, engine in tables} == {
        ("01", "EmbeddedRocksDB"),
        ("01", "MergeTree"),
    }
    ports = first.execute(statement("host_name, port"))
    assert ports == [("127.0.0.1", node.port) for node in crossed.nodes]


def test_the_runbook_shows_whether_somebody_still_swaps(crossed: Cluster) -> None:
    first = crossed.nodes[0]

    def newest() -> dict[tuple[str, str], datetime]:
        rows = first.execute(statement("AS newest"))
        return {(replica, table): time for replica, table, time in rows}

    quiet = newest()
    tables = ("citizenlab", "citizenlab_flip")
    assert quiet.keys() == {(node, table) for node in ("01", "02", "03") for table in tables}

    def somebody_swaps() -> bool:
        airflow.update(first, [ROW])
        return max(newest().values()) > max(quiet.values())  # they have whole seconds

    wait_for(somebody_swaps, "a newer part")


def test_the_runbook_shows_replicas_that_are_gone(crossed: Cluster) -> None:
    first, _, third = crossed.nodes
    query = statement("active_replicas <")
    assert first.execute(query) == []
    third.kill()
    wait_for(lambda: len(first.execute(query)) == len(REPLICATED), "the end of a session")
