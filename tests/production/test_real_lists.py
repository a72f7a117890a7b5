"""The real lists on OONI's three replicas, and on replicas whose paths are of other kinds."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.cluster.cluster import Cluster
from dev.servers.git import GitServer
from production.lists import Updater, agree, live, load
from production.test_paths import OONIS, PATHS, make
from production.watching import Watch
from test_citizenlab_test_lists_updater import commit_folder, unpack

pytestmark = [pytest.mark.production, pytest.mark.timeout(900)]

ROWS = 38_867
LEGEND = "00-LEGEND-new_category_codes.csv"
KINDS = {"OONI's": OONIS, "database and table": PATHS["database and table"]}
if os.environ.get("OONI_TEST_ALL_PATHS"):
    KINDS |= PATHS


@pytest.fixture
def repository(tmp_path: Path, real_test_lists: Path) -> Path:
    """The real repository, as it was on one day."""
    unpack(real_test_lists, tmp_path / "real")
    commit_folder(tmp_path / "real" / "test-lists")
    return tmp_path / "real" / "test-lists"


@pytest.fixture
def real(repository: Path, updater: Updater) -> Iterator[Updater]:
    """The updater, configured for it as OONI would."""
    with GitServer(repository.parent) as server:
        updater.configure(git_url=server.url("test-lists"), min_rows=20_000)
        yield updater


def drop_lines(repository: Path, name: str, number: int) -> None:
    """Commit a list without its last lines."""
    path = repository / "lists" / name
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-number]))
    shutil.rmtree(repository.with_suffix(".git"))
    commit_folder(repository)


@pytest.mark.parametrize("path", KINDS.values(), ids=KINDS.keys())
def test_a_life_of_the_real_lists(
    real: Updater, production: Cluster, repository: Path, real_test_list_counts: Path, path: str
) -> None:
    if path != OONIS:
        make(production, path)
    load(real)
    agree(production, ROWS)
    node = production.nodes[2]
    per_cc = "SELECT toStringCutToZero(cc), count() FROM ooni.citizenlab GROUP BY cc"
    expected = json.loads(real_test_list_counts.read_text())["per_cc"]
    assert dict(node.execute(per_cc)) == expected
    first = live(production)
    status, log = real.run()
    assert (status, "nothing to do" in log, live(production)) == (0, True, first), log
    with Watch(production) as watch:
        drop_lines(repository, "it.csv", 3)
        status, log = real.run("--dry-run")
        assert (status, f"{ROWS - 3:,} rows (+0 -3)" in log) == (0, True), log
        load(real)
        agree(production, ROWS - 3)
        status, log = real.run("--rollback")
        assert status == 0, log
        assert live(production) == first
        status, log = real.run()
        assert (status, live(production)) == (0, first), log
        drop_lines(repository, "ru.csv", 900)
        status, log = real.run()
        assert (status, "ru is held" in log) == (0, True), log
        agree(production, ROWS - 3)
        assert dict(node.execute(per_cc))["ru"] == expected["ru"]
        held = live(production)
        drop_lines(repository, LEGEND, 25)
        status, log = real.run()
        assert (status, "extra_category_codes" in log, live(production)) == (65, True, held), log
    assert {rows for rows, _ in watch.contents()} == {ROWS, ROWS - 3}
