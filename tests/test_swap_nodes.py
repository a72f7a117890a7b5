"""Replica paths, statements and majorities: what needs no server."""

import pytest

from ooni_common.database import Database
from ooni_common.doctor import Note
from ooni_common.errors import ConfigError, Unavailable
from ooni_common.node_checks import check_clocks
from ooni_common.nodes import Node, Nodes, ShardsOfNode, check_one_shard
from ooni_common.replica_checks import Replica, check_replicas
from ooni_common.replicas import fresh_name, fresh_path
from ooni_common.swap.content import Content
from ooni_common.swap.shadow import Standing, as_another

STATEMENT = """CREATE TABLE ooni.citizenlab
(
    `url` String COMMENT 'Replicated(\\'/not/this\\')'
)
ENGINE = ReplicatedReplacingMergeTree('{}', '{{replica}}')
ORDER BY url
SETTINGS index_granularity = 4"""
RUN = "20260101T000000-0123abcd"
FRESH = [
    (
        "/clickhouse/{cluster}/tables/ooni/citizenlab/{shard}",
        f"/clickhouse/{{cluster}}/tables/ooni/citizenlab-{RUN}/{{shard}}",
    ),
    (
        "/clickhouse/{cluster}/tables/ooni/citizenlab-20250101T000000-89abcdef/{shard}",
        f"/clickhouse/{{cluster}}/tables/ooni/citizenlab-{RUN}/{{shard}}",
    ),
    (
        "/clickhouse/{cluster}/tables/{database}/{table}/{shard}",
        f"/clickhouse/{{cluster}}/tables/{{database}}/{{table}}-{RUN}/{{shard}}",
    ),
    ("/clickhouse/tables/{uuid}/{shard}", f"/clickhouse/tables/citizenlab-{RUN}/{{shard}}"),
    ("/lists", f"/lists-{RUN}"),
    ("/{cluster}/{shard}", f"/clickhouse/tables/citizenlab-{RUN}/{{shard}}"),
]


class NoClient:
    """A connection that is not used."""

    def execute(self, query: str, params: object = None, **_options: object) -> object:
        raise AssertionError(query)

    def disconnect(self) -> None:
        pass


def nodes_of(*shards: int) -> Nodes:
    """Return a cluster with so many nodes in each shard."""
    database = Database(NoClient())
    up = [
        Node(f"{shard}.{number}", shard, database)
        for shard, count in enumerate(shards)
        for number in range(count)
    ]
    return Nodes(dict(enumerate(shards)), up)


def fail(node: Node) -> None:
    raise Unavailable("it is gone")


@pytest.mark.parametrize(("path", "fresh"), FRESH)
def test_a_fresh_path_keeps_the_pattern_of_the_live_one(path: str, fresh: str) -> None:
    assert fresh_path(STATEMENT.format(path), "citizenlab", RUN) == fresh


def test_a_fresh_name_is_another_each_time() -> None:
    assert fresh_name() != fresh_name()


def test_a_table_that_does_not_replicate_has_no_path() -> None:
    statement = STATEMENT.replace("ReplicatedReplacingMergeTree('{}', '{{replica}}')", "MergeTree")
    assert fresh_path(statement, "citizenlab", RUN) == ""
    standing = Standing(statement, "", Content())
    assert as_another(standing, "other", "") == statement.replace("ooni.citizenlab", "`other`")


def test_another_table_differs_in_its_name_and_path_alone() -> None:
    standing = Standing(STATEMENT.format("/a/{shard}"), "/a/01", Content())
    expected = STATEMENT.format("/b/{shard}").replace("ooni.citizenlab", "`other`")
    assert as_another(standing, "other", "/b/{shard}") == expected


def test_a_minority_that_fails_is_left_out() -> None:
    nodes = nodes_of(3)
    nodes.each(fail, among=nodes.up[:1])
    assert [node.name for node in nodes.up] == ["0.1", "0.2"]
    assert nodes.absent == {"0.0": "it is gone"}


@pytest.mark.parametrize("shards", [(2,), (3, 2), (1,)])
def test_without_a_majority_in_each_shard_nothing_goes_on(shards: tuple[int, ...]) -> None:
    nodes = nodes_of(*shards)
    last = nodes.of_shard(len(shards) - 1)[:1]
    with pytest.raises(Unavailable, match="no majority"):
        nodes.each(fail, among=last)


def test_a_server_of_its_own_says_itself_what_is_wrong() -> None:
    nodes = Nodes.one(Database(NoClient()))
    with pytest.raises(Unavailable, match=r"^it is gone$"):
        nodes.each(fail)


def told(*nodes: ShardsOfNode) -> dict[Node, ShardsOfNode]:
    """Return what nodes say of their shards."""
    database = Database(NoClient())
    return {Node(str(number), 1, database): one for number, one in enumerate(nodes)}


def member(**clusters: tuple[int, set[int]]) -> ShardsOfNode:
    """Return what a node without the macro says."""
    return ShardsOfNode("", {name: (n, frozenset(own)) for name, (n, own) in clusters.items()})


@pytest.mark.parametrize(
    "nodes",
    [
        told(ShardsOfNode("01", {}), ShardsOfNode("01", {})),
        told(ShardsOfNode("01", {}), ShardsOfNode("", {})),
        told(member(), member()),
        told(member(one=(2, {1})), member(one=(2, {1}))),
        # Each replica is a shard of another cluster, too.
        told(member(one=(2, {1}), all=(2, {1})), member(one=(2, {1}), all=(2, {2}))),
        told(member(hidden=(2, set())), member(hidden=(2, set()))),
    ],
)
def test_nodes_of_one_shard_can_be_named(nodes: dict[Node, ShardsOfNode]) -> None:
    check_one_shard(nodes, 2)


@pytest.mark.parametrize(
    "nodes",
    [
        told(ShardsOfNode("01", {}), ShardsOfNode("02", {})),
        told(member(two=(4, {1})), member(two=(4, {2}))),
        # Every server has a cluster of itself alone.
        told(member(own=(1, {1}), two=(4, {1})), member(own=(1, {1}), two=(4, {2}))),
    ],
)
def test_nodes_of_several_shards_are_refused(nodes: dict[Node, ShardsOfNode]) -> None:
    with pytest.raises(ConfigError, match="several shards"):
        check_one_shard(nodes, 2)


def test_clocks_that_are_right_are_one_group_whatever_the_rounding() -> None:
    nodes = nodes_of(3)
    right = dict(zip(nodes.up, (0.4, 0.6, -1.2), strict=True))
    assert check_clocks(nodes, right) == "at most 1 s from this machine's"
    third = nodes.up[2]
    said = check_clocks(nodes, right | {third: 90.0})
    assert isinstance(said, Note)
    assert said == (
        f"{nodes.up[0]}, {nodes.up[1]}: at most 1 s from this machine's; {third}: this machine is"
        " 90 s ahead of the database's clock; check its NTP"
    )
    with pytest.raises(ConfigError, match="check its NTP"):
        check_clocks(nodes, dict.fromkeys(nodes.up, 9000.0))


def test_a_node_that_could_not_say_what_it_holds_may_be_any_replica() -> None:
    nodes = nodes_of(3)
    active = {"01": True, "02": True, "03": True, "04": False}
    held = {
        node: [Replica("ooni", "lists", "/lists", name, active)]
        for node, name in zip(nodes.up[:2], active, strict=False)
    }
    said = check_replicas(nodes, held)
    assert isinstance(said, Note)
    assert said.endswith("some of '03', '04' belong to 0.2: look again when that is back")
    active["04"] = True
    with pytest.raises(ConfigError, match="'03', '04' has a running server"):
        check_replicas(nodes, held)
