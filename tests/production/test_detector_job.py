"""The detector on OONI's three replicas."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

import detector
from dev.cluster.cluster import Cluster
from dev.cluster.configuration import NAME
from dev.samples import blocking
from production.harness import everywhere

pytestmark = pytest.mark.production

NOW = datetime(2025, 6, 1, tzinfo=UTC)


class Detecting:
    """The detector with nothing but a configuration file, connected to the first node."""

    def __init__(self, folder: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
        self._config_file = folder / "detector.conf"
        self._capsys = capsys
        self._config: dict[str, object] = {
            "db_uri": cluster.nodes[0].uri("write", "write", "ooni"),
            "state_dir": str(folder / "state"),
            "output_dir": str(folder / "output"),
            "statsd": "",
        }

    def run(self, **keys: object) -> tuple[int, str]:
        """Run once; return the exit status and what was printed."""
        self._config_file.write_text(json.dumps(self._config | keys))
        self._capsys.readouterr()
        status = detector.main(["--config", str(self._config_file)], now=NOW)
        printed = self._capsys.readouterr()
        return status, printed.out + printed.err


@pytest.fixture
def detecting(tmp_path: Path, production: Cluster, capsys: pytest.CaptureFixture[str]) -> Detecting:
    """The detector, and a month of measurements."""
    with production.nodes[0].client("ooni") as client:
        blocking.fill(client, blocking.sample(NOW))
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


def test_with_a_cluster_every_node_has_the_events(
    detecting: Detecting, production: Cluster
) -> None:
    status, log = detecting.run(cluster=NAME)
    assert status == 0, log
    counts = events(production)
    assert len(counts) == 3
    assert len(set(counts)) == 1


def test_events_are_not_read_from_a_node_that_was_away(
    detecting: Detecting, production: Cluster
) -> None:
    first = production.nodes[0]
    assert detecting.run(cluster=NAME)[0] == 0
    (count,) = set(events(production))
    first.execute("TRUNCATE TABLE ooni.blocking_events")
    status, log = detecting.run(cluster=NAME)
    assert status == 0, log
    assert set(events(production)) == {count}
