"""Private backups on OONI's three replicas, and on two shards of two replicas."""

import json
import re

import pytest

from backups.signature import signature_of
from backups.table_restore import put_in_place
from db_backup_harness import BACKUPS
from dev.cluster.cluster import Cluster
from ooni_common.errors import Stopped
from production.backup_tool import Tool
from production.harness import everywhere
from production.private_tables import (
    INSERT,
    TABLES,
    content,
    contents_of,
    path_of,
    tables,
    wait_for_rows,
    wait_for_shards,
)

pytestmark = pytest.mark.production


def databases(cluster: Cluster) -> set[str]:
    """Return the names of the scratch databases, on any node."""
    names = [node.execute("SHOW DATABASES LIKE 'ooni_verify_%%'") for node in cluster.nodes]
    return {name for rows in names for (name,) in rows}


def test_a_backup_is_made_by_one_node_and_verified(saving: Tool, cluster: Cluster) -> None:
    saving.succeed("backup")
    (manifest,) = saving.manifests()
    assert "shards" not in manifest
    assert {name: table["method"] for name, table in manifest["tables"].items()} == {
        "facts": "incremental",
        "plain": "incremental",
        "counted": "incremental",
        "rocks": "rows",
    }
    saving.succeed("verify")
    assert databases(cluster) == set()
    cluster.nodes[1].execute(INSERT.format(202504, 1000, 30))
    wait_for_rows(cluster, "facts", 330)
    assert "nothing to do" not in saving.succeed("backup")
    first, second = saving.manifests()
    assert (second["kind"], second["base"]) == ("incremental", first["name"])
    saving.succeed("verify")
    assert "nothing to do" in saving.succeed("backup")


def test_a_table_is_restored_beside_the_live_one_on_every_node(
    saving: Tool, cluster: Cluster
) -> None:
    saving.succeed("backup")
    for name in ("facts", "plain", "rocks"):
        saving.succeed("restore", name)
        assert contents_of(cluster, f"{name}_restored") == {content(cluster.nodes[0], name)}
    paths = {path_of(node, "facts_restored") for node in cluster.nodes}
    assert len(paths) == 1
    assert paths != {path_of(cluster.nodes[0], "facts")}
    cluster.nodes[2].execute("INSERT INTO ooni.facts_restored VALUES (1, 1, 1)")
    wait_for_rows(cluster, "facts_restored", 301)
    assert saving.run("restore", "facts")[0] == 78
    assert not any("ooni_restoring" in name for names in tables(cluster) for name in names)


def test_a_live_table_is_replaced_on_every_node(saving: Tool, cluster: Cluster) -> None:
    before = content(cluster.nodes[0], "facts")
    saving.succeed("backup")
    cluster.nodes[0].execute("TRUNCATE TABLE ooni.facts")
    cluster.nodes[0].execute(INSERT.format(1, 5000, 7))
    wait_for_rows(cluster, "facts", 7)
    cluster.nodes[0].execute("TRUNCATE TABLE ooni.rocks")
    saving.succeed("restore", "facts", "--replace")
    saving.succeed("restore", "rocks", "--replace")
    assert contents_of(cluster, "facts") == {before}
    assert [content(node, "rocks")[0] for node in cluster.nodes] == [20, 20, 20]
    kept = [next(name for name in names if "facts_replaced" in name) for names in tables(cluster)]
    assert {content(node, name)[0] for node, name in zip(cluster.nodes, kept, strict=True)} == {7}


def test_what_was_dropped_everywhere_comes_back_everywhere(saving: Tool, cluster: Cluster) -> None:
    before = {name: content(cluster.nodes[0], name) for name in TABLES}
    path = path_of(cluster.nodes[0], "facts")
    saving.succeed("backup")
    everywhere(cluster, "DROP DATABASE ooni SYNC")
    saving.succeed("restore", "--all")
    for name in TABLES:
        assert contents_of(cluster, name) == {before[name]}, name
    assert {path_of(node, "facts") for node in cluster.nodes} == {path}
    assert all("newest" in names for names in tables(cluster))
    assert saving.succeed("restore", "--all").count("is there already") >= len(TABLES)
    cluster.nodes[1].execute(INSERT.format(202504, 1000, 30))
    wait_for_rows(cluster, "facts", 330)
    assert content(cluster.nodes[0], "counted")[0] > 0


def test_a_path_that_a_dead_node_still_has_is_not_used(saving: Tool, cluster: Cluster) -> None:
    before, path = content(cluster.nodes[0], "facts"), path_of(cluster.nodes[0], "facts")
    saving.succeed("backup")
    third = cluster.nodes[2]
    third.kill()
    for node in cluster.nodes[:2]:
        node.execute("DROP TABLE ooni.facts SYNC")
    log = saving.succeed("restore", "facts", "--as", "facts")
    assert contents_of(cluster, "facts") == {before}
    assert path_of(cluster.nodes[0], "facts") != path
    assert f"127.0.0.1:{third.port}: when it is back: CREATE TABLE ooni.facts" in log
    third.start()
    third.execute("DROP TABLE ooni.facts SYNC")
    (statement,) = [
        line.partition("when it is back: ")[2] for line in log.splitlines() if "is back" in line
    ]
    third.execute(statement)
    wait_for_rows(cluster, "facts", 300)


def test_a_node_that_was_away_joins_at_the_next_restore(saving: Tool, cluster: Cluster) -> None:
    saving.succeed("backup")
    cluster.nodes[0].kill()  # the one of db_uri
    saving.succeed("restore", "facts")
    cluster.nodes[0].start()
    assert "joined" in saving.succeed("restore", "facts")
    wait_for_rows(cluster, "facts_restored", 300)
    assert len({path_of(node, "facts_restored") for node in cluster.nodes}) == 1


def test_a_restore_that_ends_between_two_nodes_is_finished_by_the_next(
    saving: Tool, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = []

    def once(*arguments: object) -> str:
        places.append(arguments)
        if len(places) > 1:
            raise Stopped("killed")
        return put_in_place(*arguments)  # type: ignore[arg-type]

    saving.succeed("backup")
    for name in ("facts", "plain"):
        places.clear()
        with monkeypatch.context() as patched:
            for module in ("cluster_restore", "replica_restore"):
                patched.setattr(f"backups.{module}.put_in_place", once)
            assert saving.run("restore", name)[0] == 75
        saving.succeed("restore", name)
        assert contents_of(cluster, f"{name}_restored") == {content(cluster.nodes[0], name)}
    assert len({path_of(node, "facts_restored") for node in cluster.nodes}) == 1
    assert not any("ooni_restoring" in name for names in tables(cluster) for name in names)


def test_scratch_databases_of_a_verification_that_was_killed_are_dropped_on_every_node(
    saving: Tool, cluster: Cluster
) -> None:
    saving.succeed("backup")
    everywhere(cluster, "CREATE DATABASE ooni_verify_0badcafe")
    saving.succeed("verify", "plain")
    assert databases(cluster) == set()


def test_a_table_of_an_absent_node_alone_is_told_and_the_others_are_saved(
    saving: Tool, cluster: Cluster
) -> None:
    saving.succeed("backup")
    cluster.nodes[0].kill()
    status, log = saving.run("backup")
    assert "rocks: not in the backup: no node that is up has it" in log
    # The view has its rows where they were inserted: nothing is saved in their place.
    assert (status, "'counted': 0 rows, and 3 in the backup" in log) == (65, True), log
    assert set(saving.manifests()[-1]["tables"]) == {"facts", "plain"}
    saving.succeed("verify")


def test_a_backup_that_was_made_on_cluster_is_restored(saving: Tool, cluster: Cluster) -> None:
    saving.config["tables"] = {"facts": "private", "*": "none"}
    saving.succeed("backup")
    on_cluster(saving)
    saving.succeed("verify")
    saving.succeed("restore", "facts")
    assert contents_of(cluster, "facts_restored") == {content(cluster.nodes[0], "facts")}
    cluster.nodes[0].execute(INSERT.format(202504, 1000, 30))
    wait_for_rows(cluster, "facts", 330)
    saving.succeed("backup")
    saving.succeed("verify")


def test_a_backup_of_several_shards_made_on_cluster_is_refused(saving: Tool) -> None:
    saving.config["tables"] = {"facts": "private", "*": "none"}
    saving.succeed("backup")
    (part,) = (key for key in saving.objects() if key.endswith("/incremental/.backup"))
    for shard in (1, 2):
        saving.put(part.replace(".backup", f"shards/{shard}/replicas/1/metadata/ooni.sql"), b"")
    for command in (("verify",), ("restore", "facts")):
        status, log = saving.run(*command)
        assert (status, "ON CLUSTER, of several shards" in log) == (65, True), log


def on_cluster(tool: Tool) -> None:
    """Make the objects of a backup what BACKUP ON CLUSTER had made of them."""
    root = "shards/1/replicas/1"
    for key, saved in tool.objects().items():
        _, is_part, name = key.partition("/incremental/")
        if name == ".backup":
            tool.put(key, re.sub(rb"<name>(?=data/|metadata/)", f"<name>{root}/".encode(), saved))
        elif is_part:
            tool.put(key.replace(name, f"{root}/{name}"), saved)
    (manifest,) = tool.manifests()
    manifest["parts"]["incremental"]["sha256"] = ""
    text = json.dumps(manifest).encode()
    tool.put(BACKUPS.manifest(manifest["name"]), text)
    tool.put(BACKUPS.signature(manifest["name"]), signature_of(b"k" * 32, text))


def test_each_shard_is_saved_and_restored_once(sharded: Tool, shards: Cluster) -> None:
    sharded.succeed("backup")
    (manifest,) = sharded.manifests()
    assert [shard["tables"]["numbers"]["partitions"]["all"]["rows"] for shard in manifest["shards"]]
    assert manifest["tables"]["numbers"]["partitions"]["all"]["rows"] == 120
    assert "120" in sharded.succeed("list")
    assert "nothing to do" in sharded.succeed("backup")
    sharded.succeed("verify")
    sharded.succeed("restore", "numbers")
    wait_for_shards(shards, "numbers_restored")
    status, log = sharded.run("restore", "numbers", "--as", "one", cluster="")
    assert (status, "is of 2 shards" in log) == (78, True), log


def test_shards_are_saved_and_restored_with_a_node_of_each_away(
    sharded: Tool, shards: Cluster
) -> None:
    for node in (shards.nodes[0], shards.nodes[3]):
        node.kill()
    sharded.succeed("backup")
    sharded.succeed("verify")
    for node in (shards.nodes[1], shards.nodes[2]):
        node.execute("DROP TABLE ooni.numbers SYNC")
    sharded.succeed("restore", "--all")
    wait_for_shards(shards, "numbers")


def test_nodes_of_several_shards_are_refused(sharded: Tool, shards: Cluster) -> None:
    nodes = [f"127.0.0.1:{shards.nodes[number].port}" for number in (0, 2)]
    for command in ("backup", "doctor"):
        status, log = sharded.run(command, cluster="", nodes=nodes)
        assert (status, "nodes: these are of several shards" in log) == (78, True), log
    assert sharded.manifests() == []
