"""The configuration files of examples/ooni, run on OONI's three replicas as they stand there.

What a test replaces, by the environment: addresses of servers, passwords, folders.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Protocol
from urllib.parse import urlsplit

import pytest

import asnmeta_updater
import citizenlab_test_lists_updater
import detector
import fingerprints_updater
import ooni_db_backup
import ooni_download_geoip
from dev.cluster.cluster import Cluster
from dev.samples import blocking, measurements
from dev.samples.asn_map import write_asn_map
from dev.samples.fingerprints import SampleFingerprints
from dev.samples.geoip import write_month
from dev.samples.test_lists import SampleTestLists
from dev.servers.git import GitServer
from dev.servers.s3 import KEY, KEY_ID, S3Server, contents
from dev.servers.upstream import SampleUpstream
from ooni_common.config_sources import load_config
from production.harness import everywhere
from production.proxy import round_robin

pytestmark = pytest.mark.production

EXAMPLES = Path(__file__).parents[2] / "examples/ooni"
NOW = datetime(2025, 6, 1, tzinfo=UTC)
MODULES = {
    "update-citizenlab.conf": citizenlab_test_lists_updater,
    "update-fingerprints.conf": fingerprints_updater,
    "update-asn-metadata.conf": asnmeta_updater,
    "detector.conf": detector,
    "db-backup.conf": ooni_db_backup,
    "download-geoip.conf": ooni_download_geoip,
}
# Tables of the API beside those that the other tests have.
OF_THE_API = (
    "event_detector_cusums",
    "incidents",
    "msmt_feedback",
    "obs_web",
    "obs_web_ctrl",
    "obs_http_middlebox",
    "test_helper_instances",
    "url_priorities",
)


class Run(Protocol):
    """Runs a tool with its example; returns the exit status and what was printed."""

    def __call__(self, name: str, *arguments: str) -> tuple[int, str]: ...


@pytest.fixture
def run(
    tmp_path: Path,
    production: Cluster,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Run]:
    """Run tools behind the TCP proxy, which connects to each replica in turn."""
    monkeypatch.setenv("OONI_STATSD", "")
    monkeypatch.setenv("OONI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("OONI_OUTPUT_DIR", str(tmp_path / "output"))
    with round_robin([node.port for node in production.nodes]) as proxy:

        def run(name: str, *arguments: str) -> tuple[int, str]:
            module = MODULES[name]
            if "db_uri" in module.SCRIPT.config_type.__struct_fields__:
                monkeypatch.setenv("OONI_DB_URI", at(f"127.0.0.1:{proxy}", module, name))
            options = {"now": NOW} if module is detector else {}
            capsys.readouterr()
            status = module.main(["--config", str(EXAMPLES / name), *arguments], **options)
            printed = capsys.readouterr()
            return status, printed.out + printed.err

        yield run


def at(address: str, module: ModuleType, name: str) -> str:
    """Return the URI of an example with another address, and the password of the test's servers."""
    config = load_config(module.SCRIPT.config_type, EXAMPLES / name, environ={})
    uri: str = config.db_uri.reveal()
    parts = urlsplit(uri)
    assert parts.password is None
    return parts._replace(netloc=f"{parts.username}:{parts.username}@{address}").geturl()


def rows(cluster: Cluster, table: str) -> list[int]:
    """Return how many each node has."""
    query = f"SELECT count() FROM ooni.{table}"
    return [node.execute(query)[0][0] for node in cluster.nodes]


def expect_the_same_everywhere(cluster: Cluster, table: str) -> None:
    counts = rows(cluster, table)
    assert len(counts) == 3
    assert counts[0] > 0
    assert len(set(counts)) == 1


def test_every_tool_has_an_example() -> None:
    assert sorted(MODULES) == sorted(path.name for path in EXAMPLES.iterdir())
    for name, module in MODULES.items():
        assert module.SCRIPT.config_file.name == name


def test_the_lists_are_loaded_and_loaded_once(
    run: Run, production: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "upstream").mkdir()
    lists = SampleTestLists(tmp_path / "upstream")
    lists.create()
    with GitServer(lists.repository.parent) as git:
        monkeypatch.setenv("OONI_GIT_URL", git.url("test-lists"))
        status, log = run("update-citizenlab.conf")
        assert status == 0, log
        expect_the_same_everywhere(production, "citizenlab")
        status, log = run("update-citizenlab.conf")
        assert (status, log.count("nothing to do")) == (0, 1), log


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[SampleUpstream]:
    """Fingerprints, the map of the ASNs, and databases of addresses."""
    folder = tmp_path / "upstream"
    folder.mkdir()
    fingerprints = SampleFingerprints()
    (folder / "dns.csv").write_bytes(fingerprints.dns)
    (folder / "http.csv").write_bytes(fingerprints.http)
    with SampleUpstream(folder) as server:
        yield server


def test_fingerprints_are_loaded_everywhere_and_loaded_once(
    run: Run, production: Cluster, upstream: SampleUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("dns", "http"):
        monkeypatch.setenv(f"OONI_{kind.upper()}_URL", upstream.url(f"{kind}.csv"))
    status, log = run("update-fingerprints.conf")
    assert status == 0, log
    for table in ("fingerprints_dns", "fingerprints_http"):
        expect_the_same_everywhere(production, table)
    status, log = run("update-fingerprints.conf")
    assert (status, log.count("nothing to do")) == (0, 1), log


def test_the_history_of_asns_is_loaded_everywhere_and_loaded_once(
    run: Run,
    production: Cluster,
    upstream: SampleUpstream,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_asn_map(tmp_path / "upstream/map.json", 30_000, 110_000)
    monkeypatch.setenv("OONI_URL", upstream.url("map.json"))
    status, log = run("update-asn-metadata.conf")
    assert status == 0, log
    expect_the_same_everywhere(production, "asnmeta")
    status, log = run("update-asn-metadata.conf")
    assert (status, log.count("nothing to do")) == (0, 1), log


def test_databases_of_addresses_are_installed_and_installed_once(
    run: Run, upstream: SampleUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "output").mkdir()  # the API's
    month = f"{datetime.now(UTC):%Y-%m}"
    write_month(tmp_path / "upstream", month)
    for kind, name in (("ASN", "asn"), ("CC", "country")):
        url = f"{upstream.url()}dbip-{name}-lite-{{year}}-{{month}}.mmdb.gz"
        monkeypatch.setenv(f"OONI_{kind}_URL", url)
    status, log = run("download-geoip.conf")
    assert status == 0, log
    assert (tmp_path / "output/geoipdbts").read_text().strip() == month
    status, log = run("download-geoip.conf")
    assert (status, log.count("nothing to do")) == (0, 1), log


def test_the_detector_writes_events_everywhere_and_the_same_again(
    run: Run, production: Cluster, tmp_path: Path
) -> None:
    with production.nodes[0].client("ooni") as client:
        blocking.fill(client, blocking.sample(NOW))
    everywhere(production, "SYSTEM SYNC REPLICA ooni.fastpath")
    for _ in range(2):
        status, log = run("detector.conf")
        assert status == 0, log
        for table in ("blocking_status", "blocking_events"):
            expect_the_same_everywhere(production, f"{table} FINAL")
    assert (tmp_path / "output/rss/global.xml").exists()


def test_public_tables_are_exported_and_exported_once(
    run: Run, production: Cluster, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = json.loads((EXAMPLES / "db-backup.conf").read_text())["public_bucket_name"]
    s3.create_bucket(bucket)
    monkeypatch.setenv("OONI_PUBLIC_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("OONI_PUBLIC_AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("OONI_PUBLIC_AWS_SECRET_ACCESS_KEY", KEY)
    with production.nodes[0].client("ooni") as client:
        measurements.fill(client, "fastpath", 5_000)
        measurements.fill(client, "jsonl", 5_000)
    for table in OF_THE_API:
        path = f"'/clickhouse/{{cluster}}/tables/ooni/{table}/{{shard}}', '{{replica}}'"
        engine = f"ReplicatedReplacingMergeTree({path}) ORDER BY x"
        everywhere(production, f"CREATE TABLE ooni.{table} (x String) ENGINE = {engine}")
    everywhere(production, "SYSTEM SYNC REPLICA ooni.fastpath", "SYSTEM SYNC REPLICA ooni.jsonl")
    status, log = run("db-backup.conf")
    assert status == 0, log
    objects = exported(s3, bucket)
    assert {name.partition("_20")[0] for name in objects} >= {"fastpath", "jsonl"}
    assert "msmt_feedback.csv.zstd" not in objects
    status, log = run("db-backup.conf")
    assert status == 0, log
    assert exported(s3, bucket) == objects
    status, log = run("db-backup.conf", "verify")
    assert status == 0, log


def exported(s3: S3Server, bucket: str) -> dict[str, str]:
    """Return the ETag of each object with rows, by its name."""
    client = s3.client()
    keys = [key for key in contents(client, bucket) if "/csv/" in key]
    return {
        key.rpartition("/")[2]: client.head_object(Bucket=bucket, Key=key)["ETag"] for key in keys
    }
