"""The levels of change on three replicas, two of which lag: no change is hidden by a replica."""

from pathlib import Path

import pytest

from dev.cluster.cluster import Cluster, Node
from dev.servers.s3 import S3Server
from production.backup_tool import Tool
from production.harness import everywhere, wait_for

pytestmark = pytest.mark.production

ROWS = 1_000_000
CREATE = """
    CREATE TABLE ooni.{0} (t DateTime, id UInt64, v UInt64, text String)
    ENGINE = ReplicatedReplacingMergeTree(
        '/clickhouse/{{cluster}}/tables/ooni/{0}/{{shard}}', '{{replica}}', v
    )
    PARTITION BY toYear(t) ORDER BY (t, id)
"""
INSERT = (
    "INSERT INTO ooni.{} SELECT toDateTime('{}-01-01') + number % {}, {} + number, {}, 'x'"
    " FROM numbers({})"
)
YEAR = 365 * 86400
FIGURES = "SELECT count(), sum(id), sum(v), countIf(text = 'y') FROM ooni.events"
NOW = " SETTINGS mutations_sync = 1, lightweight_deletes_sync = 1"
CHANGES = {
    "new rows": [INSERT.format("events", 2025, 3600, 2_000_000, 1, 50)],
    "late rows": [INSERT.format("events", 2023, 3600, 3_000_000, 1, 50)],
    "a changed cell": ["ALTER TABLE ooni.events UPDATE text = 'y' WHERE id = 700000" + NOW],
    "rows, deleted lightly": ["DELETE FROM ooni.events WHERE id = 3000007" + NOW],
    "rows of another table": [
        INSERT.format("others", 2024, 3600, 4_000_000, 1, 50),
        "ALTER TABLE ooni.events ATTACH PARTITION 2024 FROM ooni.others",
    ],
    "a dropped part": ["ALTER TABLE ooni.events DROP PART '{part}'"],
}
OTHER_CELLS = "INSERT INTO ooni.others SELECT t, id, v, 'y' FROM ooni.events"
NEWEST = (
    "SELECT argMax(name, max_block_number) FROM system.parts"
    " WHERE active AND database = 'ooni' AND table = 'events' AND partition = '2024'"
)


@pytest.fixture
def tool(
    tmp_path: Path, cluster: Cluster, s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> Tool:
    """The tool, and two years with a million rows; the second node sends its parts to no other."""
    everywhere(cluster, CREATE.format("events"), CREATE.format("others"))
    for year, first in ((2023, 0), (2024, 500_000)):
        cluster.nodes[1].execute(INSERT.format("events", year, YEAR, first, 1, ROWS // 2))
    for node in cluster.nodes:
        wait_for(lambda node=node: figures(node)[0] == ROWS, "all rows")  # type: ignore[misc]
    cluster.nodes[1].refuse_parts()
    tool = Tool(tmp_path, cluster, s3, capsys)
    tool.config.pop("http_url")
    return tool


def read_from(tool: Tool, node: Node) -> None:
    """Let the tool read one node, whatever the others have."""
    tool.config["clickhouse_url"] = node.uri("write", "write", "ooni")


def figures(node: Node) -> tuple[int, ...]:
    """Return what tells which rows a node has."""
    return tuple(node.execute(FIGURES)[0])


def exported_figures(tool: Tool) -> tuple[int, ...]:
    """Return the same of the exports."""
    rows = [line.rstrip().split(b",") for line in tool.lines("events")]
    return (
        len(rows),
        sum(int(row[1]) for row in rows),
        sum(int(row[2]) for row in rows),
        sum(row[3] == b'"y"' for row in rows),
    )


def change(node: Node, statements: list[str]) -> None:
    """Change the table on one node, which keeps its parts for itself."""
    for statement in statements:
        node.execute(statement.format(part=node.execute(NEWEST)[0][0]))


def exchange(cluster: Cluster) -> None:
    """Put another table of the same keys in its place, on each node."""
    cluster.nodes[1].execute(OTHER_CELLS)
    everywhere(cluster, "EXCHANGE TABLES ooni.events AND ooni.others")


def test_exports_see_each_change_though_other_replicas_lag(tool: Tool, cluster: Cluster) -> None:
    lagging, leading, _ = cluster.nodes
    tool.config["tables"] = {
        "events": {"policy": "public", "chunk_by": "month", "column": "t"},
        "*": "none",
    }
    tool.succeed("export")
    assert exported_figures(tool) == figures(leading)
    for name, statements in CHANGES.items():
        change(leading, statements)
        read_from(tool, lagging)
        tool.succeed("export")
        read_from(tool, leading)
        tool.succeed("export")
        assert exported_figures(tool) == figures(leading), name
        assert "nothing to do" in tool.succeed("export"), name
    leading.execute("OPTIMIZE TABLE ooni.events FINAL")
    assert "nothing to do" in tool.succeed("export")
    exchange(cluster)
    tool.succeed("export")
    assert exported_figures(tool) == figures(leading)


def test_backups_see_each_change_though_other_replicas_lag(tool: Tool, cluster: Cluster) -> None:
    lagging, leading, _ = cluster.nodes
    tool.keep_private({"events": "private", "*": "none"})
    tool.config.pop("cluster")
    tool.config["max_shrink"] = 1
    read_from(tool, leading)
    tool.succeed("backup")
    for name, statements in CHANGES.items():
        change(leading, statements)
        read_from(tool, lagging)
        tool.succeed("backup")
        read_from(tool, leading)
        tool.succeed("backup")
        assert rows_of_the_last_backup(tool) == figures(leading)[0], name
        assert "nothing to do" in tool.succeed("backup"), name
    leading.execute("OPTIMIZE TABLE ooni.events FINAL")
    assert "nothing to do" in tool.succeed("backup")
    exchange(cluster)
    assert "changed: events" in tool.succeed("backup")


def rows_of_the_last_backup(tool: Tool) -> int:
    """Return how many rows the newest backup has."""
    partitions = tool.manifests()[-1]["tables"]["events"]["partitions"]
    return sum(partition["rows"] for partition in partitions.values())
