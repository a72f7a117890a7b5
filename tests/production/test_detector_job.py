"""The detector on OONI's three replicas."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import detector
from dev.cluster.cluster import Cluster, Node
from dev.cluster.configuration import NAME
from dev.samples import blocking
from production.harness import everywhere, wait_until_writable

pytestmark = pytest.mark.production

NOW = datetime(2025, 6, 1, tzinfo=UTC)
EARLIER = NOW - timedelta(days=10)
TABLES = ("blocking_status", "blocking_events")
CONTENT = "SELECT count(), sum(cityHash64(*)) FROM ooni.{}"
# Runs the detector until one node has both tables swapped.
KILLED = """
import os, signal, sys
from datetime import datetime
from ooni_common.swap import replace
import detector

put_live, done = replace.put_live, []

def counted(*arguments):
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(arguments)
    put_live(*arguments)

replace.put_live = counted
detector.main(["--config", sys.argv[1]], now=datetime.fromisoformat(sys.argv[2]))
"""


class Detecting:
    """The detector with nothing but a configuration file, connected to the first node."""

    def __init__(self, folder: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
        others = ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes[1:])
        self._config_file = folder / "detector.conf"
        self._capsys = capsys
        self._config: dict[str, object] = {
            "db_uri": f"{cluster.nodes[0].uri('write', 'write', 'ooni')}?alt_hosts={others}",
            "state_dir": str(folder / "state"),
            "output_dir": str(folder / "output"),
            "statsd": "",
        }

    def configure(self, **keys: object) -> Path:
        """Write the configuration; return its file."""
        self._config_file.write_text(json.dumps(self._config | keys))
        return self._config_file

    def run(self, *arguments: str, now: datetime = NOW, **keys: object) -> tuple[int, str]:
        """Run once; return the exit status and what was printed."""
        file = self.configure(**keys)
        self._capsys.readouterr()
        status = detector.main(["--config", str(file), *arguments], now=now)
        printed = self._capsys.readouterr()
        return status, printed.out + printed.err

    def succeed(self, *arguments: str, now: datetime = NOW) -> str:
        """Run once on the cluster, which must succeed; return what was printed."""
        status, log = self.run(*arguments, now=now, cluster=NAME)
        assert status == 0, log
        return log


@pytest.fixture(scope="module")
def measured() -> list[blocking.Hour]:
    """A month of measurements."""
    return list(blocking.sample(NOW))


@pytest.fixture
def detecting(
    tmp_path: Path,
    production: Cluster,
    measured: list[blocking.Hour],
    capsys: pytest.CaptureFixture[str],
) -> Detecting:
    """The detector, and a month of measurements."""
    with production.nodes[0].client("ooni") as client:
        blocking.fill(client, measured)
    everywhere(production, "SYSTEM SYNC REPLICA ooni.fastpath")
    return Detecting(tmp_path, production, capsys)


def events(cluster: Cluster) -> list[int]:
    """Return the number of events on each node that has the table."""
    return [
        node.execute("SELECT count() FROM ooni.blocking_events FINAL")[0][0]
        for node in cluster.nodes
        if node.execute("EXISTS TABLE ooni.blocking_events")[0][0]
    ]


def test_without_a_cluster_one_node_has_the_events(
    detecting: Detecting, production: Cluster
) -> None:
    status, log = detecting.run()
    assert status == 0, log
    (count,) = events(production)
    assert count > 30


def holdings(cluster: Cluster) -> list[set[tuple[int, int]]]:
    """Return, by table, what the nodes that are up hold: the same, if it is one thing."""
    return [
        {node.execute(CONTENT.format(table))[0] for node in cluster.nodes if node.pid}
        for table in TABLES
    ]


def agree(cluster: Cluster) -> list[tuple[int, int]]:
    """Check that the nodes that are up hold the same; return that, by table."""
    held = holdings(cluster)
    assert [len(contents) for contents in held] == [1, 1], held
    return [content for contents in held for content in contents]


def test_with_a_cluster_every_node_has_the_events(
    detecting: Detecting, production: Cluster
) -> None:
    detecting.succeed()
    (statuses, _), (count, _) = first = agree(production)
    assert statuses > 0
    assert count > 30
    detecting.succeed()
    assert agree(production) == first


def test_events_are_not_read_from_a_node_that_was_away(
    detecting: Detecting, production: Cluster
) -> None:
    first = production.nodes[0]
    detecting.succeed()
    before = agree(production)
    first.execute("TRUNCATE TABLE ooni.blocking_events")
    detecting.succeed()
    assert agree(production) == before


def test_a_node_that_was_away_gets_the_events_when_it_is_back(
    detecting: Detecting, production: Cluster
) -> None:
    third = production.nodes[2]
    detecting.succeed(now=EARLIER)
    third.kill()
    detecting.succeed()
    news = agree(production)
    third.start()
    assert len(holdings(production)[1]) == 2
    detecting.succeed()
    assert agree(production) == news


def test_measurements_are_not_read_from_a_replica_that_fetches_them_yet(
    tmp_path: Path,
    production: Cluster,
    measured: list[blocking.Hour],
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second, third = production.nodes
    first.kill()
    with second.client("ooni") as client:
        blocking.fill(client, measured)
    third.execute("SYSTEM SYNC REPLICA ooni.fastpath")
    second.refuse_parts()
    third.refuse_parts()
    first.start()
    wait_until_writable(first)
    Detecting(tmp_path, production, capsys).succeed()
    assert agree(production)[1][0] > 30


def test_a_run_that_is_killed_between_two_nodes_is_made_good_by_the_next(
    detecting: Detecting, production: Cluster
) -> None:
    detecting.succeed(now=EARLIER)
    before = agree(production)
    file = detecting.configure(cluster=NAME)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(file), NOW.isoformat()],
        env=dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(holdings(production)[1]) == 2
    detecting.succeed()
    assert agree(production) != before


def test_history_is_reprocessed_on_every_node(detecting: Detecting, production: Cluster) -> None:
    detecting.succeed()
    everywhere(production, "TRUNCATE TABLE ooni.blocking_events")
    start = f"{NOW - timedelta(days=25):%Y-%m-%d}"
    detecting.succeed("--reprocess", "--start-date", start)
    assert agree(production)[1][0] > 10


def test_crossed_paths_of_replicated_tables_are_straight_again(
    detecting: Detecting, production: Cluster
) -> None:
    detecting.succeed(now=EARLIER)
    for table in TABLES:
        replicate(production, table)
    detecting.succeed(now=EARLIER)
    production.nodes[0].execute("EXCHANGE TABLES ooni.blocking_events AND ooni.blocking_events_tmp")
    detecting.succeed()
    agree(production)
    detecting.succeed(now=NOW + timedelta(hours=1))
    agree(production)
    for table in TABLES:
        assert len({path_of(node, table) for node in production.nodes}) == 1


def replicate(cluster: Cluster, table: str) -> None:
    """Make empty replicated tables in the place of the detector's own, shadows too."""
    ((create,),) = cluster.nodes[0].execute(f"SHOW CREATE TABLE ooni.{table}")
    columns = create.partition("\n")[2]
    for name in (f"{table}_tmp", table):
        engine = (
            f"ReplicatedReplacingMergeTree('/clickhouse/{{cluster}}/tables/ooni/{name}/{{shard}}',"
            " '{replica}')"
        )
        made = columns.replace("ReplacingMergeTree", engine, 1)
        everywhere(
            cluster,
            f"DROP TABLE IF EXISTS ooni.{name} SYNC",
            f"CREATE TABLE ooni.{name}\n{made}",
        )


def path_of(node: Node, table: str) -> str:
    """Return the replica path of a table."""
    query = f"SELECT zookeeper_path FROM system.replicas WHERE table = '{table}'"
    ((path,),) = node.execute(query)
    return str(path)
