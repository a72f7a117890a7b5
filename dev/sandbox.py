"""Everything that the tools talk to, kept running, with configuration files that lead there.

    make sandbox            until Ctrl-C; all of it lies in build/sandbox

The folder `bin` there has every command under the name that it has on a server, with a
configuration of its own: what the manuals say can be typed as it stands, without `runuser …`.
"""

import argparse
import contextlib
import functools
import http.server
import json
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from clickhouse_driver import Client

from dev.demo.stage import ROOT
from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.embedded_clickhouse.lifetime import catch_signals, wait_for_the_end
from dev.samples import blocking
from dev.samples.asn_map import write_asn_map
from dev.samples.fingerprints import SampleFingerprints
from dev.samples.geoip import write_month
from dev.samples.measurements import create, fill
from dev.samples.test_lists import SampleTestLists
from dev.servers.git import GitServer
from dev.servers.s3 import KEY, KEY_ID, S3Server
from dev.servers.statsd import StatsdListener
from dev.servers.upstream import SampleUpstream

DATABASE = "ooni"
ANYBODY_MAY_READ = {
    "Effect": "Allow",
    "Principal": "*",
    "Action": "s3:GetObject",
    "Resource": "arn:aws:s3:::ooni-data/*",
}
READY = "Ctrl-C ends the sandbox; its files stay until the next one."
TRY = (
    ("ooni-update-citizenlab --dry-run --stdout", "what would the test lists' table get?"),
    ("ooni-update-citizenlab --stdout", "load it"),
    ("detector --stdout", "find blocking in 30 days of measurements"),
    ("ooni-db-backup doctor", "can exports and backups be made?"),
    ("ooni-db-backup --stdout", "export the public tables, back up the private one"),
    ("ooni-db-backup restore accounts --stdout", "make a table of the backup"),
)


@dataclass(frozen=True)
class Tool:
    """A command of the sandbox."""

    name: str
    script: str
    config: str = ""


TOOLS = (
    Tool(
        "ooni-update-citizenlab",
        "analysis/citizenlab_test_lists_updater.py",
        "update-citizenlab.conf",
    ),
    Tool(
        "ooni-update-fingerprints", "analysis/fingerprints_updater.py", "update-fingerprints.conf"
    ),
    Tool("ooni-update-asn-metadata", "analysis/asnmeta_updater.py", "update-asn-metadata.conf"),
    Tool("ooni-download-geoip", "geoip/ooni_download_geoip.py", "download-geoip.conf"),
    Tool("ooni-db-backup", "db-backup/ooni_db_backup.py", "db-backup.conf"),
    Tool("detector", "detector/detector.py", "detector.conf"),
)


def main() -> int:
    """Start everything, say what to try, wait for the end."""
    parser = argparse.ArgumentParser(prog="make sandbox", description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "build/sandbox")
    folder: Path = parser.parse_args().folder.resolve()
    stop = catch_signals()
    print("starting a database, a store and upstreams; this takes half a minute", flush=True)
    with sandbox(folder) as addresses:
        print(introduction(folder, addresses), flush=True)
        wait_for_the_end(stop)
    print("ended")
    return 0


@contextlib.contextmanager
def sandbox(folder: Path) -> Iterator[Mapping[str, str]]:
    """Keep the servers running within the block; give what there is to open, and its address."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("bin", "state", "textfiles", "ooniapi", "detector", "upstream"):
        (folder / name).mkdir(parents=True)
    write_upstreams(folder / "upstream")
    with (
        EmbeddedClickHouse(folder / "clickhouse") as clickhouse,
        StatsdListener() as statsd,
        S3Server() as s3,
        GitServer(folder / "upstream") as git,
        SampleUpstream(folder / "upstream") as upstream,
        served(folder / "detector") as page,
    ):
        fill_database(clickhouse)
        for bucket in ("ooni-data", "ooni-private"):
            s3.create_bucket(bucket)
        policy = json.dumps({"Version": "2012-10-17", "Statement": [ANYBODY_MAY_READ]})
        s3.client().put_bucket_policy(Bucket="ooni-data", Policy=policy)
        common = {"statsd": statsd.address, "textfile_dir": str(folder / "textfiles")}
        for name, keys in configurations(folder, clickhouse, s3, git, upstream).items():
            write_config(folder / name, common | keys)
        write_commands(folder)
        yield {
            "the page of the detector": f"{page}/index.html",
            "the page of the exports": f"{s3.endpoint}/ooni-data/clickhouse_export/index.html",
            "the database": clickhouse.uri(database=DATABASE),
            "metrics of each run": f"{folder}/textfiles/",
        }


def configurations(
    folder: Path,
    clickhouse: EmbeddedClickHouse,
    s3: S3Server,
    git: GitServer,
    upstream: SampleUpstream,
) -> dict[str, dict[str, object]]:
    """Return the keys of each configuration file."""
    state: dict[str, object] = {"state_dir": str(folder / "state")}
    uri: dict[str, object] = {"db_uri": clickhouse.uri(database=DATABASE)} | state
    buckets: dict[str, object] = {
        f"{side}_{key}": value
        for side, bucket in (("public", "ooni-data"), ("private", "ooni-private"))
        for key, value in {
            "bucket_name": bucket,
            "endpoint": s3.endpoint,
            "aws_access_key_id": KEY_ID,
            "aws_secret_access_key": KEY,
        }.items()
    }
    return {
        "update-citizenlab.conf": uri | {"git_url": git.url("test-lists")},
        "update-fingerprints.conf": uri
        | {
            "dns_url": upstream.url("fingerprints_dns.csv"),
            "http_url": upstream.url("fingerprints_http.csv"),
        },
        "update-asn-metadata.conf": uri | {"url": upstream.url("all_as_org_map.json")},
        "download-geoip.conf": state
        | {
            "output_dir": str(folder / "ooniapi"),
            "asn_url": upstream.url() + "dbip-asn-lite-{year}-{month}.mmdb.gz",
            "cc_url": upstream.url() + "dbip-country-lite-{year}-{month}.mmdb.gz",
        },
        "db-backup.conf": uri
        | {"http_url": clickhouse.http_url(), "rest": 0}
        | buckets
        | {"tables": {"accounts": "private"}},
        "detector.conf": uri | {"output_dir": str(folder / "detector")},
    }


def write_config(path: Path, keys: Mapping[str, object]) -> None:
    """Write a configuration file, which can hold secrets; tables come last."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items() if key != "tables"]
    tables = keys.get("tables")
    if isinstance(tables, dict):
        lines += ["", "[tables]", *(f'"{name}" = "{policy}"' for name, policy in tables.items())]
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")


def write_commands(folder: Path) -> None:
    """Write the commands, and what puts them on the path of a shell."""
    for tool in TOOLS:
        path = folder / "bin" / tool.name
        path.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / tool.script}"'
            f' --config "{folder / tool.config}" "$@"\n'
        )
        path.chmod(0o755)
    (folder / "activate").write_text(f'PATH="{folder / "bin"}:$PATH"\n')


def write_upstreams(folder: Path) -> None:
    """Write what the upstreams serve."""
    SampleTestLists(folder).create()
    sample = SampleFingerprints()
    (folder / "fingerprints_dns.csv").write_bytes(sample.dns)
    (folder / "fingerprints_http.csv").write_bytes(sample.http)
    write_asn_map(folder / "all_as_org_map.json")
    write_month(folder, f"{datetime.now(UTC):%Y-%m}", networks=20_000)


def fill_database(clickhouse: EmbeddedClickHouse) -> None:
    """Make a database with measurements, in which social media are blocked, and accounts."""
    with Client.from_url(clickhouse.uri()) as client:
        client.execute(f"CREATE DATABASE {DATABASE} ENGINE = Atomic")
    with Client.from_url(clickhouse.uri(database=DATABASE)) as client:
        create(client, "fastpath")
        blocking.fill(client, blocking.sample(datetime.now(UTC)))
        create(client, "jsonl")
        fill(client, "jsonl", 20_000)
        client.execute(
            "CREATE TABLE accounts (account_id FixedString(32), role String)"
            " ENGINE = EmbeddedRocksDB PRIMARY KEY account_id"
        )
        client.execute(
            "INSERT INTO accounts SELECT lower(hex(MD5(toString(number)))), 'user' FROM numbers(99)"
        )


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the files of a folder on 127.0.0.1, as nginx would; give the address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="pages")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def introduction(folder: Path, addresses: Mapping[str, str]) -> str:
    """Return what to try, and what there is to open."""
    width = max(len(command) for command, _ in TRY) + 2
    place = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    return "\n".join(
        [
            "",
            "In another terminal, here:",
            "",
            f"    . {place}/activate",
            *(f"    {command:<{width}}# {purpose}" for command, purpose in TRY),
            "",
            f"The configuration files are {place}/*.conf. There is also",
            "",
            *(f"    {name:<26}{address}" for name, address in addresses.items()),
            "",
            READY,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
