"""The backup tool, with three tables and two buckets."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Any, Self

from dev.chaos.actors.actor import Run, Updater
from dev.chaos.scene import Scene
from dev.chaos.versions import Versions
from dev.samples.measurements import create, fill
from dev.servers.fault_proxy import FaultProxy
from dev.servers.s3 import KEY, KEY_ID

PUBLIC, PRIVATE = "chaos-public", "chaos-private"
MANIFESTS = "clickhouse_export/manifest/"
PENDING = "clickhouse_export/pending/"
TABLES = {"fastpath": "both", "jsonl": "public", "accounts": "private"}
ROWS, DAYS = 300, 45
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
        self._read: dict[tuple[str, str], tuple[str, bytes]] = {}
        scene.create_database(self.database)
        with scene.client(self.database) as client:
            for kind in ("fastpath", "jsonl"):
                create(client, kind)
                fill(client, kind, ROWS, days=DAYS)
            client.execute(
                "CREATE TABLE accounts (id UInt64, name Nullable(String))"
                " ENGINE = MergeTree ORDER BY id"
            )
        self._inserted = ROWS
        self.advance(0)

    @classmethod
    @contextlib.contextmanager
    def running(cls, scene: Scene) -> Iterator[Self]:
        """Fill the tables, and create the buckets."""
        yield cls(scene, scene.store)

    def keys(self) -> dict[str, object]:
        """Return where the database and the buckets are."""
        keys: dict[str, object] = {
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
        self._inserted += count
        with self.scene.client(self.database) as client:
            for kind in ("fastpath", "jsonl"):
                fill(client, kind, count, start=start, days=1)
            client.execute(f"INSERT INTO accounts SELECT rand64(), NULL FROM numbers({count})")

    def violations(self, *, current: bool, reader: int) -> Iterator[str]:
        """Yield objects that a manifest names and that are not as it says; if current, all rows."""
        del reader
        objects = self.objects(PUBLIC)
        for key in damaged_objects(objects):
            yield f"{key}: not what the manifest says"
        if current:
            for key, manifest in _manifests(objects):
                if manifest.get("pending") or _pending_beside(key, objects):
                    yield f"{key}: something is still pending"
            yield from self._missing(objects)

    def versions_seen(self) -> tuple[Versions[Any], ...]:
        """Return none: it has no table that others read."""
        return ()

    def prove(self, run: Run) -> None:
        """Verify all exports and backups."""
        run("verify", looks=True)

    def written(self) -> dict[str, bytes]:
        """Return files and objects, by name."""
        objects = {
            f"{bucket}/{key}": content
            for bucket in (PUBLIC, PRIVATE)
            for key, content in self.objects(bucket).items()
        }
        return super().written() | objects

    def own_tables(self) -> set[str]:
        """Return what it saves."""
        return set(TABLES)

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Return the objects of a bucket; those that have not changed are not read again."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        tags = {entry["Key"]: entry["ETag"] for page in pages for entry in page.get("Contents", [])}
        objects = {}
        for key, tag in tags.items():
            if self._read.get((bucket, key), ("",))[0] != tag:
                self._read[bucket, key] = (tag, self.get(bucket, key))
            objects[key] = self._read[bucket, key][1]
        return objects

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

    def _missing(self, objects: Mapping[str, bytes]) -> Iterator[str]:
        rows = dict.fromkeys(TABLES, 0)
        for _, manifest in _manifests(objects):
            for export in manifest.get("chunks", {}).values():
                rows[manifest["table"]] += export["rows"]
        with self.scene.client(self.database) as client:
            for table in ("fastpath", "jsonl"):
                ((count,),) = client.execute(f"SELECT count() FROM {table} FINAL")
                # Some were inserted twice: an export has both, or what a merge has left of them.
                if not count <= rows[table] <= self._inserted:
                    yield f"{table}: {rows[table]} rows are exported of {count}"


def damaged_objects(objects: Mapping[str, bytes]) -> Iterator[str]:
    """Yield the keys of manifests that can't be read, and of exports that are not as these say.

    What is pending may have taken an export's place.

    Args:
        objects: of the public bucket, by key.
    """
    for key, manifest in _manifests(objects):
        if not manifest:
            yield key
            continue
        pending = [*manifest["pending"].values(), *_pending_beside(key, objects)]
        digests = {export["sha256"] for export in pending}
        for export in manifest["chunks"].values():
            digest = hashlib.sha256(objects.get(export["key"], b"")).hexdigest()
            if digest != export["sha256"] and digest not in digests:
                yield export["key"]


def _manifests(objects: Mapping[str, bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the keys of manifests and what they hold; nothing for one that can't be read."""
    for key, content in sorted(objects.items()):
        if key.startswith(MANIFESTS):
            try:
                yield key, json.loads(content)
            except ValueError:
                yield key, {}


def _pending_beside(manifest: str, objects: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Return what is pending beside a manifest."""
    folder = f"{PENDING}{manifest.removeprefix(MANIFESTS).removesuffix('.json')}/"
    beside = [content for key, content in objects.items() if key.startswith(folder) and content]
    return [json.loads(content)["export"] for content in beside]
