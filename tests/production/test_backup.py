"""Exports on OONI's three replicas, and on two shards of two replicas."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from dev.cluster.cluster import Cluster, Node
from dev.cluster.configuration import NAME
from dev.samples import measurements
from dev.servers.s3 import S3Server
from exports.clickhouse_http import PORTS
from exports.parquet_footer import footer_of
from exports.row_source import ReplicaSource
from production.backup_tool import Tool
from production.harness import everywhere, wait_for

pytestmark = pytest.mark.production

ROWS = 2_000
PUBLIC = {
    "fastpath": "public",
    "jsonl": "public",
    "citizenlab": "public",
    "fingerprints_*": "public",
    "asnmeta": "public",
    "analysis_web_measurement": "public",
    "event_detector_changepoints": "public",
    "faulty_measurements": "none",
    "citizenlab_flip": "none",
}
NUMBERS = """
    CREATE TABLE ooni.numbers (number UInt64, version UInt64)
    ENGINE = ReplicatedReplacingMergeTree(
        '/clickhouse/{cluster}/tables/ooni/numbers/{shard}', '{replica}', version
    )
    ORDER BY number
"""
INSERT = "INSERT INTO ooni.numbers SELECT number, 1 FROM numbers({}, {})"
COUNT = "SELECT count() FROM ooni.numbers"


@pytest.fixture
def exporting(
    tmp_path: Path, production: Cluster, s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> Tool:
    """The tool, and rows in the tables, NULLs among them."""
    first = production.nodes[0]
    with first.client("ooni") as client:
        measurements.fill(client, "fastpath", ROWS)
        measurements.fill(client, "jsonl", ROWS)
    first.execute(
        "INSERT INTO ooni.analysis_web_measurement (domain, measurement_uid, top_dns_failure)"
        " SELECT 'example.org', concat('202501', toString(number)), if(number % 2, NULL, 'x')"
        " FROM numbers(1000)"
    )
    first.execute(
        "INSERT INTO ooni.event_detector_changepoints (domain, ts, tcp_blocked)"
        " SELECT 'example.org', toDateTime(1735689600 + number * 3600), if(number % 2, NULL, 1)"
        " FROM numbers(1000)"
    )
    first.execute("INSERT INTO ooni.asnmeta (asn) SELECT number FROM numbers(100)")
    everywhere(production, "SYSTEM SYNC REPLICA ooni.fastpath", "SYSTEM SYNC REPLICA ooni.jsonl")
    tool = Tool(tmp_path, production, s3, capsys)
    tool.config["tables"] = PUBLIC
    return tool


@pytest.fixture
def counting(
    tmp_path: Path, cluster: Cluster, s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> Tool:
    """The tool, and a replicated table of 100 numbers."""
    everywhere(cluster, NUMBERS)
    cluster.nodes[0].execute(INSERT.format(0, 100))
    wait_for_counts(cluster.nodes, 100)
    return replicated_tool(tmp_path, cluster, s3, capsys)


@pytest.fixture
def sharded(
    tmp_path: Path, shards: Cluster, s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> Tool:
    """The tool, and a table whose even and odd numbers are on two shards."""
    everywhere(shards, NUMBERS)
    for shard in (0, 1):
        shards.nodes[2 * shard].execute(
            f"INSERT INTO ooni.numbers SELECT 2 * number + {shard}, 1 FROM numbers(500)"
        )
    wait_for_counts(shards.nodes, 500)
    return replicated_tool(tmp_path, shards, s3, capsys)


def replicated_tool(
    folder: Path, cluster: Cluster, s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> Tool:
    """Return the tool that reads `numbers` by the cluster, from one node of each shard."""
    tool = Tool(folder, cluster, s3, capsys)
    tool.config.pop("http_url")
    tool.config |= {"tables": {"numbers": "public"}, "cluster": NAME}
    return tool


def wait_for_counts(nodes: Sequence[Node], count: int) -> None:
    """Return when nodes have so many numbers."""
    for node in nodes:
        wait_for(lambda node=node: node.execute(COUNT) == [(count,)], f"{count} numbers")  # type: ignore[misc]


def numbers(tool: Tool) -> list[int]:
    """Return the exported numbers."""
    return sorted(int(line.partition(b",")[0]) for line in tool.lines("numbers"))


def test_the_public_tables_are_exported_and_good(exporting: Tool) -> None:
    exporting.succeed("export")
    names = exporting.exports()
    assert any(name.startswith("fastpath_") for name in names)
    assert "analysis_web_measurement" in names
    exporting.succeed("verify")
    exporting.succeed("export")


def test_without_an_http_port_rows_come_over_the_native_protocol(
    exporting: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporting.succeed("export")
    over_http = exporting.exports()
    monkeypatch.setitem(PORTS, "clickhouse", ("http", 9))  # which nobody listens on
    exporting.config.pop("http_url")
    log = exporting.succeed("export", "--force")
    assert log.count("rows come over the native protocol") == 1
    assert exporting.exports() == over_http
    exporting.succeed("verify")


def test_any_replica_gives_the_same_exports(exporting: Tool, production: Cluster) -> None:
    exporting.succeed("export", http_url="")
    by_one_server = exporting.exports()
    exporting.config |= {"cluster": NAME, "http_url": ""}
    assert "nothing to do" in exporting.succeed("export")
    exporting.succeed("export", "--force")
    assert exporting.exports() == by_one_server
    production.nodes[0].kill()
    everything = exporting.succeed("export", "--force")
    assert "asnmeta" not in everything  # the first node alone has it
    assert exporting.exports() == by_one_server
    exporting.succeed("verify")


def test_a_replica_that_has_all_rows_is_read(counting: Tool, cluster: Cluster) -> None:
    second = cluster.nodes[1]
    second.refuse_parts()
    second.execute(INSERT.format(100, 50))
    counting.succeed("export")
    assert numbers(counting) == list(range(150))


def test_an_export_of_a_replica_that_lacks_rows_is_corrected(
    counting: Tool, cluster: Cluster
) -> None:
    second = cluster.nodes[1]
    second.refuse_parts()
    second.execute(INSERT.format(100, 50))
    second.kill()
    log = counting.succeed("export")
    assert (numbers(counting), "lacks rows" in log) == (list(range(100)), True)
    second.mend()
    second.start()
    wait_for_counts(cluster.nodes, 150)
    counting.succeed("export")
    assert numbers(counting) == list(range(150))


def test_a_replica_that_lacks_exported_rows_takes_none_away(
    counting: Tool, cluster: Cluster
) -> None:
    second = cluster.nodes[1]
    second.refuse_parts()
    second.execute(INSERT.format(100, 50))
    counting.succeed("export")
    second.kill()
    log = counting.succeed("export")
    assert ("has yet to fetch parts that were exported" in log, "exported (" in log) == (
        True,
        False,
    )
    assert numbers(counting) == list(range(150))
    second.mend()
    second.start()
    wait_for_counts(cluster.nodes, 150)
    assert "nothing to do" in counting.succeed("export")


def test_a_replica_that_dies_before_its_rows_are_read_is_replaced(
    counting: Tool, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ReplicaSource.rows

    def killing(source: ReplicaSource, *arguments: object, **options: object) -> object:
        if cluster.nodes[0].pid:
            cluster.nodes[0].kill()
        return rows(source, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ReplicaSource, "rows", killing)
    counting.succeed("export", retries=1)
    assert numbers(counting) == list(range(100))


def test_each_shard_is_read_once_whichever_replica_answers(sharded: Tool, shards: Cluster) -> None:
    sharded.succeed("export")
    assert numbers(sharded) == list(range(1000))
    assert "nothing to do" in sharded.succeed("export")
    for node in (shards.nodes[0], shards.nodes[3]):
        node.kill()
    assert "nothing to do" in sharded.succeed("export")
    sharded.succeed("export", "--force")
    assert numbers(sharded) == list(range(1000))
    sharded.succeed("verify")


def test_ranges_are_of_all_shards(sharded: Tool) -> None:
    ranges = {"policy": "public", "chunk_by": "range", "rows_per_chunk": 300}
    sharded.succeed("export", tables={"numbers": ranges})
    assert len(sharded.exports()) == 3
    assert numbers(sharded) == list(range(1000))


def test_without_any_replica_of_a_shard_there_is_no_export(sharded: Tool, shards: Cluster) -> None:
    for node in shards.nodes[2:]:
        node.kill()
    status, log = sharded.run("export")
    assert (status, "0 of the 2 nodes of shard 2 take part" in log) == (69, True), log
    assert sharded.exports() == {}


PARQUET = {"formats": ["csv.zstd", "parquet"]}


def test_parquet_is_read_from_the_node_that_has_counted_the_rows(
    counting: Tool, cluster: Cluster
) -> None:
    first, second, _ = (node.http_url().partition("?")[0] for node in cluster.nodes)
    counting.config |= PARQUET
    status, log = counting.run("export", http_url=second)
    assert (status, "the HTTP interface of" in log) == (69, True), log
    assert numbers(counting) == list(range(100))
    counting.succeed("export", http_url=first)
    (parquet,) = (one for key, one in counting.objects().items() if "/parquet/" in key)
    assert footer_of(parquet).rows == 100
    counting.succeed("verify", http_url=first)
    assert "nothing to do" in counting.succeed("export", http_url=first)


def test_of_several_shards_there_is_no_parquet(sharded: Tool) -> None:
    status, log = sharded.run("export", **PARQUET)
    assert (status, "numbers: no Parquet of a table on several shards" in log) == (78, True), log
    assert numbers(sharded) == list(range(1000))
    one = {"policy": "public", "formats": ["csv.zstd"]}
    assert "nothing to do" in sharded.succeed("export", **PARQUET, tables={"numbers": one})
