"""Replica paths, statements and majorities: what needs no server."""

import pytest

from ooni_common.database import Database
from ooni_common.errors import Unavailable
from ooni_common.nodes import Node, Nodes
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
