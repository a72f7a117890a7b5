"""The backup tool: exports to a public bucket, backups to a private one, and back."""

from collections.abc import Mapping
from datetime import date

from clickhouse_driver import Client

from dev.demo.stage import Script, Servers, expect, title
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
    title("Backup tool: can a run succeed?")
    servers.run(BACKUP, keys, "doctor")
    title("200,000 measurements by month, and their index by ranges of its key")
    servers.run(BACKUP, keys)
    show_bucket(s3, "ooni-data")
    servers.show_metrics()
    servers.run(BACKUP, keys, "verify")
    title("the second run: nothing is read but the fingerprints")
    expect("nothing to do" in servers.run(BACKUP, keys), "nothing is repeated")
    title("one row comes late, in March: a dry run says what would be exported, and why")
    fill(measurements, "fastpath", 1, start=date(2023, 3, 8), days=1)
    servers.run(BACKUP, keys, "--dry-run")
    log = servers.run(BACKUP, keys)
    expect("1 chunks are exported" in log and "_202303" in log, "only March is exported")
    servers.run(BACKUP, keys, "list")
    title("a table is made of the export")
    servers.run(BACKUP, keys, "restore", "fastpath")
    expect(same_rows(measurements, "fastpath", "fastpath_restored"), "it has the same content")


def show_private_backups(
    servers: Servers, s3: S3Server, measurements: Client, keys: Mapping[str, object]
) -> None:
    """Back up; again, with nothing new, and with new rows; verify; restore everything."""
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
    title("Private backups: the database's own BACKUP, to another bucket; the first one is full")
    log = servers.run(BACKUP, keys)
    expect("205,000 rows in 2 tables" in log, "both tables are backed up")
    servers.show_metrics()
    title("the second run: nothing has changed, and nothing is written")
    expect("nothing to do" in servers.run(BACKUP, keys), "nothing is repeated")
    title("300 rows more: an incremental backup, which has these alone")
    fill(measurements, "jsonl", 300, start=date(2024, 1, 1), days=1)
    log = servers.run(BACKUP, keys)
    newest = log.partition("the backup ")[2].partition(" ")[0]
    log = servers.run(BACKUP, keys, "list")
    expect("205,300" in log and log.count("good") == 2, "there are two good backups")
    title(
        "is it any good? It is restored, with what it needs, into a database that is dropped again"
    )
    log = servers.run(BACKUP, keys, "verify", "--from", newest)
    expect(f"{newest} can be restored" in log, "it can be restored")
    title("everything is restored, as on an empty server, and its rows are compared")
    servers.run(BACKUP, keys, "restore", "--all", "--to-database", "drill")
    for table in ("accounts", "jsonl"):
        expect(same_rows(measurements, table, f"drill.{table}"), f"{table} is as it was")
    log = servers.run(BACKUP, keys, "restore", "--all", "--to-database", "drill")
    expect("nothing to do" in log, "nothing is repeated")
    measurements.execute("DROP DATABASE drill SYNC")


def same_rows(client: Client, left: str, right: str) -> bool:
    """Tell whether two tables have the same rows."""
    ((first, second),) = client.execute(
        f"SELECT (SELECT sum(cityHash64(*)) FROM {left}), (SELECT sum(cityHash64(*)) FROM {right})"  # noqa: S608 (constants of this file)
    )
    return bool(first == second)


def show_bucket(s3: S3Server, name: str) -> None:
    """Print what is in a bucket."""
    print(f"\nobjects in the bucket {name}:")
    for key, size in contents(s3.client(), name).items():
        print(f"    {size:>11,}  {key}")
