"""What `ooni-db-backup doctor` says of three replicas: it looks at each of them."""

from typing import Any

import pytest

from dev.cluster.cluster import Cluster
from ooni_common.database import Database
from production.backup_tool import Tool
from production.private_tables import TABLES

pytestmark = pytest.mark.production

Checks = dict[str, tuple[str, str]]


def examined(tool: Tool) -> tuple[int, Checks]:
    """Return the exit status, and for each check its state and text."""
    status, printed = tool.run("doctor")
    lines = [line for line in printed.splitlines() if line.startswith(("ok", "note", "FAILED"))]
    return status, {line[8:23].rstrip(): (line[:6].rstrip(), line[25:]) for line in lines}


def unwell(checks: Checks) -> dict[str, str]:
    """Return the checks that are not ok, and their states."""
    return {name: state for name, (state, _) in checks.items() if state != "ok"}


def test_three_nodes_that_are_well_are_one_line_each(saving: Tool, cluster: Cluster) -> None:
    status, checks = examined(saving)
    assert (status, unwell(checks)) == (0, {}), checks
    assert checks["cluster"][1] == "3 of 3 nodes of oonidata_cluster"
    nodes = [f":{node.port}" for node in cluster.nodes]
    assert not [text for _, text in checks.values() if any(node in text for node in nodes)]


@pytest.mark.parametrize(
    ("statement", "check"),
    [
        ("serverTimezone", "database"),
        ("^SHOW GRANTS", "grants"),
        ("^INSERT INTO FUNCTION", "backups, server"),
        ("^SHOW ACCESS", "backups, access"),
    ],
)
def test_what_one_node_alone_can_not_do_is_noted(
    saving: Tool, cluster: Cluster, statement: str, check: str
) -> None:
    third = cluster.nodes[2]
    third.fail(statement, 241, "Memory limit exceeded")
    status, checks = examined(saving)
    assert (status, unwell(checks)) == (0, {check: "note"}), checks
    assert f"127.0.0.1:{third.port}: " in checks[check][1]
    assert "MEMORY_LIMIT" in checks[check][1]
    for node in cluster.nodes[:2]:
        node.fail(statement, 241, "Memory limit exceeded")
    status, checks = examined(saving)
    assert (status, checks[check][0]) == (69, "FAILED"), checks


def test_a_node_that_is_away_is_noted(saving: Tool, cluster: Cluster) -> None:
    first = cluster.nodes[0]
    first.kill()
    # What it alone has can't be looked at.
    status, checks = examined(saving)
    assert (status, unwell(checks)) == (0, {"cluster": "note"}), checks
    assert checks["cluster"][1].startswith("2 of 3 nodes of oonidata_cluster; ")
    assert f"127.0.0.1:{first.port}: " in checks["cluster"][1]


def test_the_right_to_back_up_all_definitions_is_asked_for(
    saving: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = Database.query
    granted = ["GRANT SELECT ON *.* TO default"]
    granted += [f"GRANT BACKUP ON ooni.{name} TO default" for name in TABLES]

    def with_grants(database: Database, sql: str, *arguments: Any, **options: Any) -> Any:
        if sql == "SHOW GRANTS":
            return [(line,) for line in granted]
        return query(database, sql, *arguments, **options)

    monkeypatch.setattr(Database, "query", with_grants)
    status, checks = examined(saving)
    assert (status, unwell(checks)) == (78, {"grants": "FAILED"}), checks
    assert checks["grants"][1].endswith("run: GRANT BACKUP ON ooni.* TO default")  # for the view
    granted.append("GRANT BACKUP ON ooni.* TO default")
    assert examined(saving)[0] == 0
