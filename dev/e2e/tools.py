"""The tools as the container runs them: their configuration, and what a run has to bring about."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clickhouse_driver import Client

from dev.e2e.container import Container
from dev.e2e.steps import expect
from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.samples.asn_map import write_asn_map
from dev.samples.fingerprints import SampleFingerprints
from dev.samples.geoip import write_month
from dev.samples.measurements import create
from dev.samples.test_lists import SampleTestLists
from dev.servers import misbehaving as http
from dev.servers.git import GitServer
from dev.servers.misbehaving import MisbehavingServer
from dev.servers.s3 import KEY, KEY_ID, S3Server, contents

# Measurements of Facebook in two countries, three networks each, until two hours ago. In the last
# three days of these, one of the countries blocks it.
MEASUREMENTS = """\
INSERT INTO fastpath (measurement_uid, report_id, input, probe_cc, probe_asn, test_name,
    test_start_time, measurement_start_time, anomaly, confirmed, msm_failure)
WITH
    toStartOfHour(now('UTC')) - toIntervalHour(2) AS end,
    end - toIntervalMinute(number * 10) AS time
SELECT toString(number), toString(number), 'https://www.facebook.com/',
    ['DE', 'IR'][number % 2 + 1], 65001 + intDiv(number, 2) % 3, 'web_connectivity', time, time,
    if(number % 2 = 1 AND time > end - toIntervalDay(3), 't', 'f'), 'f', 'f'
FROM numbers(6 * 24 * 20)
"""

# README.Debian has this for whose configuration root alone may read.
AS_THE_BACKUP_SERVICE = (
    "systemd-run --quiet --pipe --wait -p User=ooni"
    " -p LoadCredential=db-backup.conf:/etc/ooni/db-backup.conf"
)


@dataclass(frozen=True)
class Tool:
    """A tool, as the container runs it.

    Attributes:
        command: its name, and its unit's.
        config: its configuration file.
        identifier: what the journal calls it.
        keys: the configuration that leads to the servers of the test; its file can be JSON.
        effect: checks what a run has done.
        again: what it says when it has nothing new.
    """

    command: str
    config: str
    identifier: str
    keys: dict[str, Any]
    effect: Callable[[Container], None]
    again: str = "nothing to do"

    @property
    def uses_database(self) -> bool:
        """Whether it writes to the database."""
        return "db_uri" in self.keys or "clickhouse_url" in self.keys


def upstream(scratch: Path) -> Path:
    """Make a git repository with sample test lists."""
    folder = scratch / "git"
    folder.mkdir()
    SampleTestLists(folder).create()
    return folder


def tools_for(
    scratch: Path, clickhouse: EmbeddedClickHouse, https: MisbehavingServer, git: GitServer
) -> list[Tool]:
    """Publish sample data; return the tools with the configuration that leads there."""
    fingerprints = SampleFingerprints()
    write_asn_map(scratch / "asn.json")
    month = f"{datetime.now(UTC):%Y-%m}"
    write_month(scratch, month)
    ca_file = {"ca_file": "/etc/ssl/private-ca.pem"}
    api = {"db_uri": clickhouse.uri(user="api", password="api")}  # noqa: S106 (the default one)

    def published(name: str, content: bytes) -> str:
        return https.route(f"/{name}", http.body(content))

    def filled(table: str, least: int) -> Callable[[Container], None]:
        def check(_container: Container) -> None:
            with Client.from_url(clickhouse.uri()) as client:
                ((rows,),) = client.execute(f"SELECT count() FROM {table}")  # noqa: S608 (our name)
            expect(rows >= least, f"{table} has {rows:,} rows")

        return check

    return [
        Tool(
            "ooni-update-citizenlab",
            "update-citizenlab.conf",
            "analysis.citizenlab_test_lists_updater",
            {"db_uri": clickhouse.uri(user="citizenlab"), "git_url": git.url("test-lists")},
            filled("citizenlab", 20_000),
        ),
        Tool(
            "ooni-update-fingerprints",
            "update-fingerprints.conf",
            "analysis.fingerprints_updater",
            api
            | ca_file
            | {
                "dns_url": published("fingerprints_dns.csv", fingerprints.dns),
                "http_url": published("fingerprints_http.csv", fingerprints.http),
            },
            filled("fingerprints_http", 1000),
        ),
        Tool(
            "ooni-update-asn-metadata",
            "update-asn-metadata.conf",
            "analysis.asnmeta_updater",
            api | ca_file | {"url": published("asn.json", (scratch / "asn.json").read_bytes())},
            filled("asnmeta", 100_000),
        ),
        Tool(
            "ooni-download-geoip",
            "download-geoip.conf",
            "ooni_download_geoip",
            ca_file
            | {
                f"{key}_url": published(name, (scratch / name).read_bytes())
                for key, name in (
                    ("asn", f"dbip-asn-lite-{month}.mmdb.gz"),
                    ("cc", f"dbip-country-lite-{month}.mmdb.gz"),
                )
            },
            databases_are_installed,
        ),
    ]


def backup_tool(clickhouse: EmbeddedClickHouse, s3: S3Server) -> Tool:
    """Return the backup tool, which exports and backs up what the others have loaded."""
    for bucket in ("ooni-data", "ooni-private"):
        s3.create_bucket(bucket)

    def exported_and_backed_up(container: Container) -> None:
        names = [key.rpartition("/")[2] for key in contents(s3.client(), "ooni-data")]
        print(container.output("ooni-db-backup list"))
        expect("citizenlab.csv.zstd" in names, f"the bucket has the export: {names}")
        expect("index.html" in names, "and what leads there")
        verified = container.output("ooni-db-backup verify --stdout")
        expect("everything is as exported" in verified, "it is verified")
        examined = container.output("ooni-db-backup doctor")
        print(examined)
        expect("FAILED" not in examined, "all is well")
        backups = json.loads(container.output("ooni-db-backup list --json"))["backups"]
        states = [(backup["state"], sorted(backup["manifest"]["tables"])) for backup in backups]
        expect(states == [("good", ["asnmeta", "citizenlab"])], f"there is a backup: {states}")
        expect("can be restored" in verified, "it is verified, too")
        pruned = container.output("ooni-db-backup prune --stdout")
        expect("kept: 1 backup" in pruned, f"prune has nothing to do: {pruned}")
        restored = container.output(
            f"{AS_THE_BACKUP_SERVICE} ooni-db-backup restore --all --to-database drill --stdout"
        )
        print(restored)
        with Client.from_url(clickhouse.uri()) as client:
            counts = client.execute(
                "SELECT (SELECT count() FROM asnmeta), (SELECT count() FROM drill.asnmeta)"
            )[0]
            client.execute("DROP DATABASE drill SYNC")
        expect(counts[0] == counts[1] > 0, f"everything is restored: {counts}")

    return Tool(
        "ooni-db-backup",
        "db-backup.conf",
        "ooni-db-backup",
        {
            "public_aws_access_key_id": KEY_ID,
            "public_aws_secret_access_key": KEY,
            "public_bucket_name": "ooni-data",
            "public_endpoint": s3.endpoint,
            "private_aws_access_key_id": KEY_ID,
            "private_aws_secret_access_key": KEY,
            "private_bucket_name": "ooni-private",
            "private_endpoint": s3.endpoint,
            "clickhouse_url": clickhouse.uri(),
            "http_url": clickhouse.http_url(),
            "tables": {"citizenlab": "both", "asnmeta": "private", "*": "none"},
        },
        exported_and_backed_up,
    )


def detector(clickhouse: EmbeddedClickHouse) -> Tool:
    """Return the detector; the database has measurements of a block that it is to find."""
    with Client.from_url(clickhouse.uri()) as client:
        create(client, "fastpath")
        client.execute(MEASUREMENTS)

    def found_and_published(container: Container) -> None:
        with Client.from_url(clickhouse.uri()) as client:
            series = client.execute("SELECT count() FROM blocking_status FINAL")[0][0]
            events = client.execute(
                "SELECT probe_cc, probe_asn, status FROM blocking_events FINAL ORDER BY ALL"
            )
        expect(series == 6, f"all series have a status: {series}")
        expected = [("IR", asn, "BLOCKED") for asn in (65001, 65002, 65003)]
        expect(events == expected, f"each network that blocks is an event: {events}")
        output = "/var/lib/detector/output"
        as_others = "runuser -u www-data --"
        page = container.output(f"{as_others} cat {output}/index.html")
        expect("Facebook" in page and "Iran" in page, "the page says who blocks what")
        feed = container.output(f"{as_others} cat {output}/rss/global.xml")
        expect("Iran" in feed and "<item>" in feed, "the feed, too")
        container.run(f"{as_others} find {output} -type f -exec cat {{}} + > /dev/null")
        folders = container.output(
            f"find {output} -type d -not -perm 0755 -o -type f -not -perm 0644"
        )
        expect(folders == "", f"a web server can read everything: {folders}")
        state = container.output("stat -c '%U %a' /var/lib/detector").strip()
        expect(state == "ooni 755", f"the state directory of old is the user's: {state}")
        files = f"find {output} -type f -printf '%P %i %C@\\n' | sort"
        first_run = container.output(files)
        print(container.output(f"find {output} -type f -printf '%s %P\\n'"))
        container.run("systemctl start detector")
        expect(container.output(files) == first_run, "a second run writes none of these again")

    return Tool(
        "detector",
        "detector.conf",
        "detector",
        {"db_uri": clickhouse.uri(user="detector", password="detector")},  # noqa: S106 (the default)
        found_and_published,
        again="unchanged",
    )


def databases_are_installed(container: Container) -> None:
    """Check the files of the GeoIP downloader, and that everybody can read them."""
    listed = container.output("cd /var/lib/ooniapi; stat -c '%n %U %a' asn.mmdb cc.mmdb geoipdbts")
    expected = ["asn.mmdb ooni 644", "cc.mmdb ooni 644", "geoipdbts ooni 644"]
    expect(listed.splitlines() == expected, f"/var/lib/ooniapi: {listed!r}")
    checked = container.output("ooni-download-geoip --check --stdout")
    expect("cc.mmdb: DBIP-Country-Lite" in checked, "--check reads the databases")
