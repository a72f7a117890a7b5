"""The backup tool, with three tables and two buckets."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any, Self

from dev.chaos.actors.actor import Run, Updater
from dev.chaos.scene import Scene
from dev.samples.measurements import create, fill
from dev.servers.fault_proxy import FaultProxy
from dev.servers.s3 import KEY, KEY_ID, contents

PUBLIC, PRIVATE = "chaos-public", "chaos-private"
MANIFESTS = "clickhouse_export/manifest/"
PENDING = "clickhouse_export/pending/"
TABLES = {"fastpath": "both", "jsonl": "public", "accounts": "private"}
DAYS = 90
START = date(2023, 1, 1)


class Backup(Updater):
    """The backup tool.

    Attributes:
        client: of the store, past the proxy.
    """

    name = "backup"
    script = "db-backup/ooni_db_backup.py"

    def __init__(self, scene: Scene, upstream: FaultProxy) -> None:
        super().__init__(scene, upstream)
        self.client: Any = scene.s3.client()
        for bucket in (PUBLIC, PRIVATE):
            scene.s3.create_bucket(bucket)
        self.create_database()
        with scene.client(self.database) as client:
            for kind in ("fastpath", "jsonl"):
                create(client, kind)
                fill(client, kind, 300, days=DAYS)
            client.execute(
                "CREATE TABLE accounts (id UInt64, name Nullable(String))"
                " ENGINE = MergeTree ORDER BY id"
            )
        self.advance(0)

    @classmethod
    @contextlib.contextmanager
    def running(cls, scene: Scene) -> Iterator[Self]:
        """Fill the tables, and create the buckets."""
        yield cls(scene, scene.store)

    def keys(self) -> dict[str, object]:
        """Return where the database and the buckets are."""
        keys: dict[str, object] = {
            "db_uri": self.scene.uri(self.database),
            "http_url": f"http://127.0.0.1:{self.scene.rows.port}/",
            "tables": TABLES,
            "rest": 0,
            "retries": 1,
            "retry_wait": 0.05,
            "read_timeout": 20,
            "private_retries": 1,
            "full_every": 3,
            "keep": {"daily": 2},
            "manifest_key": self.scene.token,
        }
        for side, bucket in (("public", PUBLIC), ("private", PRIVATE)):
            keys |= {
                f"{side}_bucket_name": bucket,
                f"{side}_endpoint": self.scene.store.url,
                f"{side}_aws_access_key_id": KEY_ID,
                f"{side}_aws_secret_access_key": KEY,
            }
        return keys

    def advance(self, draw: float) -> None:
        """Add rows to all tables."""
        count, start = 1 + int(draw * 50), START + timedelta(days=int(draw * DAYS))
        with self.scene.client(self.database) as client:
            for kind in ("fastpath", "jsonl"):
                fill(client, kind, count, start=start, days=1)
            client.execute(f"INSERT INTO accounts SELECT rand64(), NULL FROM numbers({count})")

    def violations(self, *, current: bool) -> Iterator[str]:
        """Yield objects that a manifest names and that are not as it says; if current, all rows."""
        rows = dict.fromkeys(TABLES, 0)
        for key in sorted(self.objects(PUBLIC)):
            if not key.startswith(MANIFESTS):
                continue
            beside = list(self._pending(key))  # first: it goes when the manifest has taken it
            manifest = json.loads(self.get(PUBLIC, key))
            pending = [*manifest["pending"].values(), *beside]
            digests = {export["sha256"] for export in pending}
            for export in manifest["chunks"].values():
                rows[manifest["table"]] += export["rows"]
                digest = hashlib.sha256(self.get(PUBLIC, export["key"])).hexdigest()
                if digest != export["sha256"] and digest not in digests:
                    yield f"{export['key']}: not what the manifest says"
            if current and pending:
                yield f"{key}: something is still pending"
        if current:
            yield from self._missing(rows)

    def _pending(self, manifest: str) -> Iterator[dict[str, Any]]:
        """Yield what is pending beside a manifest."""
        folder = f"{PENDING}{manifest.removeprefix(MANIFESTS).removesuffix('.json')}/"
        for key in self.objects(PUBLIC):
            if key.startswith(folder) and (content := self.get(PUBLIC, key)):
                yield json.loads(content)["export"]

    def prove(self, run: Run) -> None:
        """Verify all exports and backups."""
        run("verify", looks=True)

    def objects(self, bucket: str) -> dict[str, int]:
        """Return the keys of a bucket and the sizes of its objects."""
        return contents(self.client, bucket)

    def get(self, bucket: str, key: str) -> bytes:
        """Return an object; nothing where there is none."""
        try:
            content: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return b""
        return content

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Write an object, with the metadata of the one that it replaces."""
        metadata = self.client.head_object(Bucket=bucket, Key=key)["Metadata"]
        self.client.put_object(Bucket=bucket, Key=key, Body=content, Metadata=metadata)

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object."""
        self.client.delete_object(Bucket=bucket, Key=key)

    def left_behind(self) -> Iterator[str]:
        """Yield temporary files, tables and databases, and uploads that are not finished."""
        yield from super().left_behind()
        for bucket in (PUBLIC, PRIVATE):
            uploads = self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
            yield from (f"an upload of {upload['Key']}" for upload in uploads)
        with self.scene.client(self.database) as client:
            names = {name for (name,) in client.execute("SHOW TABLES")}
        yield from (f"table {name}" for name in names - TABLES.keys())

    def _missing(self, rows: dict[str, int]) -> Iterator[str]:
        with self.scene.client(self.database) as client:
            for table in ("fastpath", "jsonl"):
                ((count,),) = client.execute(f"SELECT count() FROM {table}")
                if count != rows[table]:
                    yield f"{table}: {rows[table]} rows are exported of {count}"
