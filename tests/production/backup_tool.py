"""The backup tool on the nodes of a cluster, with nothing but a configuration file."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
import zstandard

import ooni_db_backup
from dev.cluster.cluster import Cluster
from dev.cluster.configuration import NAME
from dev.servers.s3 import KEY, KEY_ID, S3Server, contents


class Tool:
    """The tool, connected to the first node, with a bucket of its own for each side.

    Attributes:
        config: its configuration.
    """

    def __init__(
        self, folder: Path, cluster: Cluster, s3: S3Server, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._config_file = folder / "db-backup.conf"
        self._capsys = capsys
        self._s3 = s3
        self._bucket = f"test-{uuid.uuid4().hex[:16]}"
        s3.create_bucket(self._bucket)
        node = cluster.nodes[0]
        others = ",".join(f"127.0.0.1:{other.port}" for other in cluster.nodes[1:])
        self.config: dict[str, object] = {
            "public_aws_access_key_id": KEY_ID,
            "public_aws_secret_access_key": KEY,
            "public_bucket_name": self._bucket,
            "public_endpoint": s3.endpoint,
            "clickhouse_url": f"{node.uri('write', 'write', 'ooni')}?alt_hosts={others}",
            "http_url": node.http_url().partition("?")[0],
            "state_dir": str(folder / "state"),
            "statsd": "",
            "rest": 0,
            "retries": 0,
            "retry_wait": 0.05,
        }

    def keep_private(self, tables: dict[str, str]) -> None:
        """Have backups of these tables, and no exports."""
        self.config |= {
            "action": "backup",
            "cluster": NAME,
            "tables": tables,
            "private_bucket_name": self._bucket,
            "private_endpoint": self._s3.endpoint,
            "private_aws_access_key_id": KEY_ID,
            "private_aws_secret_access_key": KEY,
            "private_retries": 1,
            "manifest_key": "k" * 32,
        }

    def run(self, *arguments: str, **keys: object) -> tuple[int, str]:
        """Run a command; return the exit status and what was printed."""
        self._config_file.write_text(json.dumps(self.config | keys))
        self._config_file.chmod(0o600)
        self._capsys.readouterr()
        status = ooni_db_backup.main(["--config", str(self._config_file), *arguments])
        printed = self._capsys.readouterr()
        return status, printed.out + printed.err

    def succeed(self, *arguments: str, **keys: object) -> str:
        """Run a command, which must succeed; return what was printed."""
        status, log = self.run(*arguments, **keys)
        assert status == 0, log
        return log

    def exports(self) -> dict[str, bytes]:
        """Return the objects with rows, decompressed, by their names."""
        client = self._s3.client()
        return {
            key.rpartition("/")[2].partition(".")[0]: zstandard.ZstdDecompressor()
            .decompressobj()
            .decompress(client.get_object(Bucket=self._bucket, Key=key)["Body"].read())
            for key in contents(client, self._bucket)
            if "/csv/" in key
        }

    def objects(self) -> dict[str, bytes]:
        """Return everything in the bucket."""
        client = self._s3.client()
        return {
            key: client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            for key in contents(client, self._bucket)
        }

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        self._s3.client().put_object(Bucket=self._bucket, Key=key, Body=content)

    def manifests(self) -> list[dict[str, Any]]:
        """Return the manifests of the backups, oldest first."""
        return [
            json.loads(content)
            for key, content in sorted(self.objects().items())
            if key.startswith("clickhouse_backup/manifest/")
        ]

    def lines(self, table: str) -> list[bytes]:
        """Return the exported rows of a table, sorted, without the headers."""
        return sorted(
            line
            for name, content in self.exports().items()
            if name.startswith(table)
            for line in content.splitlines()[1:]
        )
