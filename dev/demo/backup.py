"""The backup tool: exports to a public bucket, backups to a private one, and back."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path

from clickhouse_driver import Client

from dev.demo.stage import KEPT, ROOT, Script, Servers
from dev.demo.story import expect, figure
from dev.samples.measurements import create, fill
from dev.servers.s3 import KEY, KEY_ID, S3Server, contents

BACKUP = Script("db-backup/ooni_db_backup.py", "db-backup.conf")


def show_backup(servers: Servers) -> None:
    """Export tables of measurements to S3, then back up the database."""
    uri = servers.clickhouse.uri(database="measurements")
    with S3Server() as s3, Client.from_url(servers.clickhouse.uri()) as client:
        client.execute("CREATE DATABASE measurements ENGINE = Atomic")
        with Client.from_url(uri) as measurements:
            for kind in ("fastpath", "jsonl"):
                create(measurements, kind)
                fill(measurements, kind, 200_000)
            keys = {
                "db_uri": uri,
                "http_url": servers.clickhouse.http_url(),
                **bucket_keys(s3, "public", "ooni-data"),
                "rest": 0,
                "tables": {
                    "fastpath": "public",
                    "jsonl": {"policy": "public", "chunk_by": "range", "rows_per_chunk": 50_000},
                },
                "state_dir": str(servers.folder / "state"),
                "statsd": servers.statsd.address,
            }
            show_exports(servers, s3, measurements, keys)
            show_private_backups(servers, s3, measurements, keys)
        client.execute("DROP DATABASE measurements SYNC")  # the detector's has the same name


def bucket_keys(s3: S3Server, side: str, name: str) -> dict[str, object]:
    """Create a bucket; return the keys that lead there."""
    s3.create_bucket(name)
    return {
        f"{side}_bucket_name": name,
        f"{side}_endpoint": s3.endpoint,
        f"{side}_aws_access_key_id": KEY_ID,
        f"{side}_aws_secret_access_key": KEY,
    }


def show_exports(
    servers: Servers, s3: S3Server, measurements: Client, keys: Mapping[str, object]
) -> None:
    """Export everything; again, with nothing new; after a change in one month; restore a table."""
    story = servers.story
    story.chapter("Exports", "the public tables, as files in a bucket for researchers")
    servers.run(BACKUP, keys, "doctor")
    log = servers.run(BACKUP, keys)
    objects, size = figure(r"([0-9]+) chunks exported", log), figure(r"exported \(([^)]+)\)", log)
    log_bucket(servers, s3, "ooni-data")
    servers.log_metrics()
    log = servers.run(BACKUP, keys, "verify")
    expect("everything is as exported" in log, "what is in the bucket is what was exported")
    story.tell(
        "first run", f"400,000 rows in {objects} objects, {size}; verify reads them all back"
    )
    expect("nothing to do" in servers.run(BACKUP, keys), "the second run repeats nothing")
    story.tell("second run", "nothing to do: no table is read again to find that out")
    fill(measurements, "fastpath", 1, start=date(2023, 3, 8), days=1)
    servers.run(BACKUP, keys, "--dry-run")
    log = servers.run(BACKUP, keys)
    expect("1 chunk exported" in log and "_202303" in log, "only March is exported")
    story.tell("1 row comes late", "only its month, March 2023, is exported again")
    servers.run(BACKUP, keys, "list")
    servers.run(BACKUP, keys, "restore", "fastpath")
    expect(same_rows(measurements, "fastpath", "fastpath_restored"), "it has the same content")
    story.tell("restore", "the table fastpath, made of its export, has the same rows")
    story.outcome("ooni-db-backup export", f"{objects} objects, a page and SHA-256 sums: {size}")
    page = keep_bucket(s3, "ooni-data") / "clickhouse_export/index.html"
    story.page(str(page), "the page that researchers see")


def show_private_backups(
    servers: Servers, s3: S3Server, measurements: Client, keys: Mapping[str, object]
) -> None:
    """Back up; again, with nothing new, and with new rows; verify; restore everything."""
    story = servers.story
    story.chapter("Backups", "the private tables, in a bucket of their own")
    measurements.execute(
        "CREATE TABLE accounts (account_id FixedString(32), role String)"
        " ENGINE = EmbeddedRocksDB PRIMARY KEY account_id"
    )
    measurements.execute(
        "INSERT INTO accounts SELECT lower(hex(MD5(toString(number)))), 'user' FROM numbers(5000)"
    )
    policy = {"accounts": "private", "jsonl": "both", "fastpath": "public", "*_restored": "none"}
    private = bucket_keys(s3, "private", "ooni-private")
    keys = {**keys, **private, "tables": policy, "action": "backup"}
    servers.statsd.clear()
    log = servers.run(BACKUP, keys)
    expect("205,000 rows in 2 tables" in log, "both tables are backed up")
    story.tell("first run", f"a full backup: 205,000 rows of 2 tables, {written(log)}")
    servers.log_metrics()
    expect("nothing to do" in servers.run(BACKUP, keys), "the second run repeats nothing")
    story.tell("second run", "nothing to do: all is as in that backup")
    fill(measurements, "jsonl", 300, start=date(2024, 1, 1), days=1)
    log = servers.run(BACKUP, keys)
    newest = figure(r"the backup (\S+) is complete", log)
    story.tell("300 rows more", f"an incremental backup, with what is new: {written(log)}")
    log = servers.run(BACKUP, keys, "list")
    expect("205,300" in log and log.count("good") == 2, "there are two good backups")
    log = servers.run(BACKUP, keys, "verify", "--from", newest)
    expect(f"{newest} can be restored" in log, "it can be restored")
    servers.run(BACKUP, keys, "restore", "--all", "--to-database", "drill")
    for table in ("accounts", "jsonl"):
        expect(same_rows(measurements, table, f"drill.{table}"), f"{table} is as it was")
    log = servers.run(BACKUP, keys, "restore", "--all", "--to-database", "drill")
    expect("nothing to do" in log, "a second restore repeats nothing")
    story.tell("disaster drill", "everything, restored beside the originals, has the same rows")
    story.outcome("ooni-db-backup backup", "2 backups that can be restored, one chain")
    measurements.execute("DROP DATABASE drill SYNC")


def written(log: str) -> str:
    """Return how many bytes a backup has written."""
    return figure(r", (\S+ \S+) written\n", log.partition("is complete")[2])


def same_rows(client: Client, left: str, right: str) -> bool:
    """Tell whether two tables have the same rows."""
    ((first, second),) = client.execute(
        f"SELECT (SELECT sum(cityHash64(*)) FROM {left}), (SELECT sum(cityHash64(*)) FROM {right})"  # noqa: S608 (constants of this file)
    )
    return bool(first == second)


def log_bucket(servers: Servers, s3: S3Server, name: str) -> None:
    """Log what is in a bucket."""
    servers.story.note(f"\nobjects in the bucket {name}:")
    for key, size in contents(s3.client(), name).items():
        servers.story.note(f"    {size:>11,}  {key}")


def keep_bucket(s3: S3Server, name: str) -> Path:
    """Copy the objects of a bucket to where they stay after the demo; return their folder."""
    client = s3.client()
    for key in contents(client, name):
        path = KEPT / "bucket" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(name, key, str(path))
    return (KEPT / "bucket").relative_to(ROOT)
