"""The updaters of fingerprints and ASN metadata, whose tables do not replicate."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

import asnmeta_updater
import fingerprints_updater
from conftest import Database
from dev.cluster.cluster import Cluster, Node
from dev.cluster.configuration import NAME
from dev.samples.asn_map import asn_map
from dev.samples.fingerprints import SampleFingerprints
from dev.servers.upstream import SampleUpstream
from fingerprints_harness import Upstream
from updater_harness import Harness

pytestmark = pytest.mark.production

ROWS = {"fingerprints_dns": 110, "fingerprints_http": 150, "asnmeta": 1000}


class Fingerprints(Harness):
    """The updater of the fingerprints."""

    module: ClassVar[ModuleType] = fingerprints_updater
    tables = ("fingerprints_dns", "fingerprints_http")


class AsnMetadata(Harness):
    """The updater of the ASN metadata."""

    module: ClassVar[ModuleType] = asnmeta_updater
    tables = ("asnmeta",)


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[SampleUpstream]:
    folder = tmp_path / "upstream"
    folder.mkdir()
    sample = SampleFingerprints(dns=ROWS["fingerprints_dns"], http=ROWS["fingerprints_http"])
    (folder / "fingerprints_dns.csv").write_bytes(sample.dns)
    (folder / "fingerprints_http.csv").write_bytes(sample.http)
    (folder / "map.json").write_bytes(asn_map(300, ROWS["asnmeta"], 1))
    with SampleUpstream(folder) as server:
        yield server


@pytest.fixture(params=[Fingerprints, AsnMetadata])
def updater(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    production: Cluster,
    upstream: SampleUpstream,
    capsys: pytest.CaptureFixture[str],
) -> Harness:
    """One of both, with nothing but a configuration file, connected to the first node."""
    made: Harness = request.param(tmp_path, Database("ooni", production.nodes[0]), capsys)
    made.configure(db_uri=production.nodes[0].uri("write", "write", "ooni"))
    if request.param is AsnMetadata:
        made.configure(url=upstream.url("map.json"), min_rows=100)
    else:
        urls = {f"{kind}_url": upstream.url(f"fingerprints_{kind}.csv") for kind in ("dns", "http")}
        made.configure(**urls)
    return made


def rows(node: Node, updater: Harness) -> dict[str, int]:
    """Return table → its rows on a node; nothing for a table that is not there."""
    tables = [table for table in updater.tables if node.execute(f"EXISTS TABLE ooni.{table}")[0][0]]
    return {table: node.execute(f"SELECT count() FROM ooni.{table}")[0][0] for table in tables}


def expected(updater: Harness) -> dict[str, int]:
    return {table: ROWS[table] for table in updater.tables}


def test_without_a_cluster_the_node_that_has_the_tables_is_updated(
    updater: Harness, production: Cluster
) -> None:
    first, *others = production.nodes
    for _ in range(2):
        status, log = updater.run()
        assert status == 0, log
        assert rows(first, updater) == expected(updater)
    assert [rows(node, updater) for node in others] == [{}, {}]


def test_with_a_cluster_every_node_gets_the_rows(updater: Harness, production: Cluster) -> None:
    status, log = updater.run(cluster=NAME)
    assert status == 0, log
    assert [rows(node, updater) for node in production.nodes] == [expected(updater)] * 3


def test_with_a_cluster_a_node_that_is_away_is_loaded_when_it_is_back(
    updater: Harness, production: Cluster
) -> None:
    third = production.nodes[2]
    third.kill()
    status, log = updater.run(cluster=NAME)
    assert status == 0, log
    third.start()
    status, log = updater.run(cluster=NAME)
    assert status == 0, log
    assert rows(third, updater) == expected(updater)


@pytest.mark.parametrize("updater", [Fingerprints], indirect=True)
def test_a_node_that_lacks_a_column_is_not_asked_which_refused_rows_are_live(
    updater: Harness, production: Cluster, upstream: SampleUpstream, tmp_path: Path
) -> None:
    assert updater.run(cluster=NAME)[0] == 0
    first, *others = production.nodes
    first.execute("DROP TABLE ooni.fingerprints_http SYNC")
    first.execute(
        "CREATE TABLE ooni.fingerprints_http (name String) ENGINE = MergeTree ORDER BY name"
    )
    files = Upstream(tmp_path / "upstream", upstream)
    files.write(http=files.with_row(pattern_type="regexp", pattern="("))
    status, log = updater.run("--force", cluster=NAME)  # so do an upgrade, and a lost state
    assert (status, "does not take part any more: table fingerprints_http" in log) == (0, True), log
    assert [rows(node, updater) for node in others] == [expected(updater)] * 2


def test_a_node_that_was_away_gets_what_the_others_have_been_rolled_back_to(
    updater: Harness, production: Cluster, tmp_path: Path
) -> None:
    assert updater.run(cluster=NAME)[0] == 0
    shorten(tmp_path / "upstream")
    status, log = updater.run("--force", cluster=NAME)
    assert status == 0, log
    newer = rows(production.nodes[0], updater)
    assert newer != expected(updater)
    third = production.nodes[2]
    third.kill()
    status, log = updater.run("--rollback", cluster=NAME)
    assert status == 0, log
    third.start()
    assert rows(third, updater) == newer
    status, log = updater.run(cluster=NAME)
    assert status == 0, log
    assert [rows(node, updater) for node in production.nodes] == [expected(updater)] * 3


def shorten(folder: Path) -> None:
    """Let upstream have fewer rows."""
    dns, http = ROWS["fingerprints_dns"] - 1, ROWS["fingerprints_http"] - 1
    sample = SampleFingerprints(dns=dns, http=http)
    (folder / "fingerprints_dns.csv").write_bytes(sample.dns)
    (folder / "fingerprints_http.csv").write_bytes(sample.http)
    (folder / "map.json").write_bytes(asn_map(300, ROWS["asnmeta"] - 10, 1))
