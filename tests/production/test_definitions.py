"""Tables that are not defined alike on all nodes: one definition is saved, and it is told."""

import pytest

from dev.cluster.cluster import Cluster
from production.backup_tool import Tool
from production.harness import everywhere
from production.private_tables import content, wait_for_rows

pytestmark = pytest.mark.production

NAMED = """
    CREATE TABLE ooni.named (number UInt64)
    ENGINE = ReplicatedMergeTree('/clickhouse/named/named', 'node {}') ORDER BY number
"""
EVERYTHING = {"named": "both", "*": "none"}


@pytest.fixture
def named(saving: Tool, cluster: Cluster) -> Tool:
    """The tool, with a table whose replicas have names without a macro."""
    for number, node in enumerate(cluster.nodes):
        node.execute(NAMED.format(number))
    cluster.nodes[0].execute("INSERT INTO ooni.named SELECT number FROM numbers(50)")
    cluster.nodes[0].execute("DROP TABLE ooni.rocks SYNC")  # which no other node has
    wait_for_rows(cluster, "named", 50)
    saving.config |= {"tables": EVERYTHING, "action": ""}
    saving.config["public_bucket_name"] = saving.config["private_bucket_name"]
    return saving


def schemas(tool: Tool) -> dict[str, bytes]:
    """Return the published definitions."""
    return {key: text for key, text in tool.objects().items() if key.endswith("/schema/named.sql")}


def test_a_name_of_a_replica_is_no_change_of_the_table(named: Tool, cluster: Cluster) -> None:
    named.succeed("run")
    (published,) = schemas(named).values()
    assert b"'{replica}'" in published
    cluster.nodes[0].kill()
    log = named.succeed("run")
    assert "nothing to do: all is as in the backup" in log
    assert "is defined in another way" not in log
    assert len(named.manifests()) == 1
    named.succeed("export", "--force", "named")
    assert list(schemas(named).values()) == [published]


def test_the_definition_that_most_nodes_have_is_saved(named: Tool, cluster: Cluster) -> None:
    first = cluster.nodes[0]
    first.execute("ALTER TABLE ooni.named MODIFY SETTING merge_with_ttl_timeout = 100")
    log = named.succeed("run")
    told = f"named is defined in another way on 127.0.0.1:{first.port} than on 127.0.0.1:"
    assert log.count(told) == 2  # for the export, and for the backup
    (manifest,) = named.manifests()
    assert "merge_with_ttl_timeout" not in manifest["tables"]["named"]["schema"]
    assert "merge_with_ttl_timeout" not in str(schemas(named))


def test_a_view_in_the_place_of_a_table_is_not_read(named: Tool, cluster: Cluster) -> None:
    first = cluster.nodes[0]
    first.execute("DROP TABLE ooni.named SYNC")
    first.execute("CREATE VIEW ooni.named AS SELECT toUInt64(1) AS number")
    log = named.succeed("run")
    assert f"named is defined in another way on 127.0.0.1:{first.port} than" in log
    assert len(named.lines("named")) == 50
    named.succeed("verify")
    assert named.manifests()[0]["tables"]["named"]["engine"] == "ReplicatedMergeTree"


def test_shards_with_other_columns_are_refused(sharded: Tool, shards: Cluster) -> None:
    third = shards.nodes[2]
    third.execute("ALTER TABLE ooni.numbers ADD COLUMN more String")
    bucket = sharded.config["private_bucket_name"]
    sharded.config |= {
        "tables": {"numbers": "public"},
        "public_bucket_name": bucket,
        "private_bucket_name": "",
    }
    status, log = sharded.run("export")
    assert (status, f"numbers: columns on 127.0.0.1:{third.port} differ" in log) == (78, True), log
    everywhere(shards, "ALTER TABLE ooni.numbers ADD COLUMN IF NOT EXISTS more String")
    sharded.succeed("export")
    assert len(sharded.lines("numbers")) == sum(
        content(shards.nodes[n], "numbers")[0] for n in (0, 2)
    )
