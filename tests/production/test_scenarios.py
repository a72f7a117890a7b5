"""The test lists through long chains of faults: whatever happens, readers see complete versions."""

import contextlib
import os
import random
import subprocess
import time

import pytest

from dev.cluster.cluster import Cluster, Node
from dev.samples.test_lists import SampleTestLists
from production import airflow
from production.harness import wait_for, wait_until_writable
from production.lists import ROWS, Updater, agree, live, paths
from production.watching import Watch

pytestmark = [pytest.mark.production, pytest.mark.timeout(600)]

SCENARIOS = int(os.environ.get("OONI_TEST_SCENARIOS", "10"))
FIRST_SEED = int(os.environ.get("OONI_TEST_FIRST_SEED", "0"))
RUNS = 5
LATE = 5  # seconds
STEPS = ("^DROP", "^CREATE", "^INSERT", "^EXCHANGE", "^SELECT count", "^SHOW CREATE", "^RENAME")


class Chain:
    """Runs of the updater with something that goes wrong in each.

    Attributes:
        rows: how many rows the newest version upstream has.
        versions: the numbers of rows of all versions up to now.
    """

    def __init__(
        self, cluster: Cluster, updater: Updater, lists: SampleTestLists, seed: int
    ) -> None:
        self.rows = ROWS
        self.versions = {0, ROWS}
        self.told: list[str] = []
        self._random = random.Random(seed)
        self._cluster = cluster
        self._updater = updater
        self._lists = lists

    def go(self) -> None:
        """Let things go wrong, run after run."""
        faults = [
            self._fails,
            self._hangs_and_the_tool_is_killed,
            self._dies,
            self._comes_back,
            self._serves_late,
            self._is_swapped_alone,
            self._is_cut,
            self._dies_at_a_step,
        ]
        for _ in range(RUNS):
            if self._random.random() < 0.6:
                self._new_version()
            fault = self._random.choice(faults)
            node = self._random.choice(self._cluster.nodes)
            self.told.append(f"{fault.__name__} {self._cluster.nodes.index(node)}")
            fault(node)

    def end(self) -> None:
        """End all faults; two runs later all must be well."""
        self._cluster.mend()
        wait_until_writable(*self._cluster.nodes)
        for _ in range(2):
            self._run()
        agree(self._cluster, self.rows)

    def _run(self) -> None:
        status, log = self._updater.run()
        self.told.append(f"run: {status} {log.splitlines()[-1]}")
        assert status in {0, 69}, log

    def _new_version(self) -> None:
        self._lists.add_rows("it", 1)
        self.rows += 1
        self.versions.add(self.rows)

    def _fails(self, node: Node) -> None:
        node.fail(self._random.choice(STEPS), 999, "Session expired")
        self._run()
        node.mend()

    def _hangs_and_the_tool_is_killed(self, node: Node) -> None:
        node.delay(self._random.choice(STEPS), LATE)
        process = self._updater.start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self._random.uniform(1, 5))
        process.kill()
        process.communicate()
        node.mend()
        time.sleep(LATE)  # an EXCHANGE that comes after the next run's is not covered (0004)

    def _dies(self, node: Node) -> None:
        if all(other.pid for other in self._cluster.nodes):
            node.kill()
        self._run()

    def _dies_at_a_step(self, node: Node) -> None:
        if not all(other.pid for other in self._cluster.nodes):
            return
        node.delay(self._random.choice(STEPS), 1)
        process = self._updater.start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self._random.uniform(0.5, 3))
        node.kill()
        process.communicate()
        node.mend()

    def _comes_back(self, node: Node) -> None:
        if not node.pid:
            node.start()
        self._run()

    def _serves_late(self, node: Node) -> None:
        node.serve_parts_after(0.5)
        self._run()
        node.mend()

    def _is_swapped_alone(self, node: Node) -> None:
        """Airflow swaps in what is live there already: the paths are crossed, the rows are not."""
        contents = set(live(self._cluster))
        if None not in contents and len(contents) == 1 and len(paths(self._cluster)) == 1:
            wait_until_writable(node)
            airflow.update(node, node.execute("SELECT * FROM ooni.citizenlab"))
        self._run()

    def _is_cut(self, node: Node) -> None:
        node.cut()
        self._run()
        node.mend()


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SCENARIOS))
def test_whatever_happens_readers_see_complete_versions_that_never_go_back(
    production: Cluster, updater: Updater, lists: SampleTestLists, seed: int
) -> None:
    chain = Chain(production, updater, lists, seed)
    with Watch(production) as watch:
        chain.go()
        chain.end()
        wait_for(lambda: all(seen[-1][0] == chain.rows for seen in watch.seen.values()), "readers")
    story = "\n".join(chain.told)
    for node, seen in watch.seen.items():
        rows = [count for count, _ in seen]
        assert set(rows) <= chain.versions, (story, rows)
        assert rows == sorted(rows), (story, production.nodes.index(node), rows)
    contents = watch.contents()
    assert len(contents) == len({rows for rows, _ in contents}), story
