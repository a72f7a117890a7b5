"""Running the backup tool as a whole, in a test."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import clickhouse_driver
import msgspec
import pytest
import zstandard

import ooni_db_backup
from backup_config import Config
from backups.manifest import BackupLayout, BackupManifest
from conftest import Database as FreshDatabase
from dev.samples.measurements import create, fill
from dev.servers.s3 import KEY, KEY_ID, S3Server, contents
from exports.manifest import ExportLayout, TableManifest
from ooni_common.config import Secret
from ooni_common.config_sources import load_config
from store.bucket import Bucket
from store.client import Store

ROOT = Path(__file__).parents[1]
LAYOUT = ExportLayout("clickhouse_export")
CSV = LAYOUT.exports
BACKUPS = BackupLayout("clickhouse_backup")
AMPLE = 120  # seconds; far more than what is waited for takes, for a machine under load


class BackupTool:
    """The backup tool with a configuration, a database and a bucket of its own."""

    def __init__(
        self,
        folder: Path,
        database: FreshDatabase,
        s3: S3Server,
        bucket: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.folder = folder
        self.database = database
        self.s3 = s3
        self.client = s3.client()
        self.bucket_name = bucket
        self.private_bucket_name = ""
        self.config_file = folder / "db-backup.conf"
        self._capsys = capsys
        self.config: dict[str, Any] = {
            "ver": 0,
            "action": "export",
            "public_aws_access_key_id": KEY_ID,
            "public_aws_secret_access_key": KEY,
            "public_bucket_name": bucket,
            "public_endpoint": s3.endpoint,
            "clickhouse_url": database.uri,
            "http_url": database.server.http_url().partition("?")[0],
            "state_dir": str(folder / "state"),
            "statsd": "",
            "rest": 0,
            # Several export in any order; the tests that count on none say so.
            "jobs": int(os.environ.get("OONI_TEST_JOBS", "1")),
            "retries": 0,
            "retry_wait": 0.05,
            "read_timeout": 120,
            "tables": {},
        }

    def configure(self, **keys: object) -> None:
        """Change keys of the configuration."""
        self.config |= keys
        self.config_file.write_text(json.dumps(self.config))
        self.config_file.chmod(0o600)

    def keep_private(self, **keys: object) -> None:
        """Configure another bucket for backups."""
        # What looks like an HTTP status in a name, as in some times, must not be taken for one.
        self.private_bucket_name = f"{self.bucket_name}-403404-private"
        self.s3.create_bucket(self.private_bucket_name)
        private = {
            "action": "",
            "private_bucket_name": self.private_bucket_name,
            "private_endpoint": self.s3.endpoint,
            "private_aws_access_key_id": KEY_ID,
            "private_aws_secret_access_key": KEY,
            "private_retries": 1,
        }
        self.configure(**private | keys)

    def loaded(self) -> Config:
        """Return the configuration as the tool has it."""
        self.configure()
        return load_config(Config, self.config_file, environ={})

    def run(self, *arguments: str, **keys: object) -> tuple[int, str]:
        """Run a command in this process; return the exit status and what was printed."""
        self.configure(**keys)
        self._capsys.readouterr()
        status = ooni_db_backup.main(["--config", str(self.config_file), *arguments])
        printed = self._capsys.readouterr()
        return status, printed.out + printed.err

    def say(self, text: str) -> None:
        """Print a text, past what pytest keeps back."""
        with self._capsys.disabled():
            sys.stdout.write(f"{text}\n")

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command as a process."""
        self.configure()
        script = ROOT / "db-backup" / "ooni_db_backup.py"
        return subprocess.Popen(
            [sys.executable, str(script), "--config", str(self.config_file), *arguments],
            env=dict(os.environ) | {"PYTHONPATH": str(ROOT)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def fill(self, kind: str, rows: int, **options: Any) -> None:
        """Create a table like `fastpath` or `jsonl`, where there is none, and add rows."""
        with clickhouse_driver.Client.from_url(self.database.uri) as client:
            if not client.execute(f"EXISTS TABLE {kind}")[0][0]:
                create(client, kind)
            fill(client, kind, rows, **options)

    def objects(self) -> dict[str, int]:
        """Return the keys and sizes of everything in the bucket but who writes there."""
        objects = contents(self.client, self.bucket_name)
        return {key: size for key, size in objects.items() if key != LAYOUT.writer}

    def exports(self) -> list[str]:
        """Return the names of the objects with rows."""
        return [key.removeprefix(CSV) for key in self.objects() if key.startswith(CSV)]

    def get(self, key: str) -> bytes:
        """Return an object."""
        return self.client.get_object(Bucket=self.bucket_name, Key=key)["Body"].read()

    def csv(self, name: str) -> bytes:
        """Return the decompressed content of an object with rows."""
        return zstandard.ZstdDecompressor().decompressobj().decompress(self.get(CSV + name))

    def put(self, key: str, content: bytes, **options: Any) -> None:
        """Write an object."""
        self.client.put_object(Bucket=self.bucket_name, Key=key, Body=content, **options)

    def manifest(self, table: str) -> TableManifest:
        """Return the manifest of a table."""
        return msgspec.json.decode(self.get(LAYOUT.manifest(table)), type=TableManifest)

    def forget_parts(self, table: str) -> None:
        """Let a manifest not say what parts the table had: then a digest of the rows decides."""
        key = LAYOUT.manifest(table)
        manifest = json.loads(self.get(key))
        manifest["storages"] = {}
        self.put(key, json.dumps(manifest).encode())

    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of every object."""
        return {key: hashlib.sha256(self.get(key)).hexdigest() for key in self.objects()}

    def kept(self) -> dict[str, int]:
        """Return the keys and sizes of everything in the bucket of the backups but who writes."""
        objects = contents(self.client, self.private_bucket_name)
        return {key: size for key, size in objects.items() if key != BACKUPS.writer}

    def backups(self) -> list[BackupManifest]:
        """Return the manifests of the backups, oldest first."""
        keys = [key for key in self.kept() if key.startswith(BACKUPS.manifests)]
        return [msgspec.json.decode(self.get_private(key), type=BackupManifest) for key in keys]

    def get_private(self, key: str) -> bytes:
        """Return an object of the bucket of the backups."""
        return self.client.get_object(Bucket=self.private_bucket_name, Key=key)["Body"].read()

    def uploads(self) -> list[str]:
        """Return the keys of the multipart uploads that are not finished."""
        listed = self.client.list_multipart_uploads(Bucket=self.bucket_name)
        return [upload["Key"] for upload in listed.get("Uploads", [])]

    def query(self, sql: str) -> bytes:
        """Return what the database itself answers over HTTP."""
        url = self.database.server.http_url(database=self.database.name)
        with urlopen(Request(url, data=sql.encode())) as response:
            answer: bytes = response.read()
        return answer

    def checksum(self, table: str) -> list[tuple[Any, ...]]:
        """Return the number of rows of a table, and a checksum of their content."""
        sql = f"SELECT count(), sum(cityHash64(formatRow('RowBinary', *))) FROM {table}"
        rows: list[tuple[Any, ...]] = self.database.execute(sql)
        return rows

    def verifies(self) -> bool:
        """Whether `verify` accepts the bucket."""
        return self.run("verify")[0] == 0

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Check that the block leaves the bucket as it is."""
        before = self.hashes()
        yield
        assert self.hashes() == before


def bucket_of(
    tool: BackupTool, endpoint: str = "", options: Mapping[str, str] | None = None
) -> Bucket:
    """Return the tool's own view of its bucket, through a proxy if its address is given."""
    store = Store(
        bucket=tool.bucket_name,
        endpoint=endpoint or tool.s3.endpoint,
        key_id=Secret(KEY_ID),
        key=Secret(KEY),
        region="eu-central-1",
        options=options or {},
    )
    return Bucket(store, "test")


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when a condition holds."""
    deadline = time.monotonic() + AMPLE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
