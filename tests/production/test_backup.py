"""The backup tool on OONI's three replicas: exports; BACKUP needs a server of its own."""

import hashlib
import json
import uuid
from pathlib import Path

import pytest

import ooni_db_backup
from dev.cluster.cluster import Cluster
from dev.samples import measurements
from dev.servers.s3 import KEY, KEY_ID, S3Server, contents
from exports.clickhouse_http import PORTS
from production.harness import everywhere

pytestmark = pytest.mark.production

ROWS = 20_000
TABLES = {
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


class Exporting:
    """The tool with nothing but a configuration file, connected to the first node."""

    def __init__(
        self, folder: Path, cluster: Cluster, s3: S3Server, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._config_file = folder / "db-backup.conf"
        self._capsys = capsys
        self._s3 = s3
        self._bucket = f"test-{uuid.uuid4().hex[:16]}"
        s3.create_bucket(self._bucket)
        node = cluster.nodes[0]
        self.config: dict[str, object] = {
            "public_aws_access_key_id": KEY_ID,
            "public_aws_secret_access_key": KEY,
            "public_bucket_name": self._bucket,
            "public_endpoint": s3.endpoint,
            "clickhouse_url": node.uri("write", "write", "ooni"),
            "http_url": node.http_url().partition("?")[0],
            "state_dir": str(folder / "state"),
            "statsd": "",
            "rest": 0,
            "retries": 0,
            "tables": TABLES,
        }

    def run(self, *arguments: str, **keys: object) -> tuple[int, str]:
        """Run a command; return the exit status and what was printed."""
        self._config_file.write_text(json.dumps(self.config | keys))
        self._config_file.chmod(0o600)
        self._capsys.readouterr()
        status = ooni_db_backup.main(["--config", str(self._config_file), *arguments])
        printed = self._capsys.readouterr()
        return status, printed.out + printed.err

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each object with rows, by its name."""
        client = self._s3.client()
        return {
            key.rpartition("/")[2]: hashlib.sha256(
                client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            ).hexdigest()
            for key in contents(client, self._bucket)
            if "/csv/" in key
        }

    def exports(self) -> set[str]:
        """Return the names of the objects with rows."""
        keys = contents(self._s3.client(), self._bucket)
        return {key.rpartition("/")[2] for key in keys if "/csv/" in key}


@pytest.fixture
def exporting(
    tmp_path: Path, production: Cluster, s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> Exporting:
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
    everywhere(production, "SYSTEM SYNC REPLICA ooni.fastpath", "SYSTEM SYNC REPLICA ooni.jsonl")
    return Exporting(tmp_path, production, s3, capsys)


def test_the_public_tables_are_exported_and_good(exporting: Exporting) -> None:
    status, log = exporting.run("export")
    assert status == 0, log
    names = {name.partition(".")[0] for name in exporting.exports()}
    assert any(name.startswith("fastpath_") for name in names)
    assert any(name.startswith("analysis_web_measurement") for name in names)
    status, log = exporting.run("verify")
    assert status == 0, log
    status, log = exporting.run("export")
    assert status == 0, log


def test_without_an_http_port_rows_come_over_the_native_protocol(
    exporting: Exporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exporting.run("export")[0] == 0
    over_http = exporting.digests()
    monkeypatch.setitem(PORTS, "clickhouse", ("http", 9))  # which nobody listens on
    exporting.config.pop("http_url")
    status, log = exporting.run("export", "--force")
    assert (status, log.count("rows come over the native protocol")) == (0, 1), log
    assert exporting.digests() == over_http
    status, log = exporting.run("verify")
    assert status == 0, log
