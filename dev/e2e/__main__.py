"""End to end: the packages on a real Debian with the real systemd, in a container. `make e2e`.

    python -m dev.e2e FOLDER RELEASE PACKAGES

FOLDER keeps what is made once; the folder PACKAGES has the packages to test. It ends with an error
if anything is not as a sysadmin would expect it.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clickhouse_driver import Client

from dev.e2e.container import Container, base_system, running
from dev.e2e.ooni_api import OoniApi
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
from ooni_common import __version__

PACKAGES = ("ooni-backend-tools-venv", "analysis", "ooni-geoip", "ooni-db-backup", "detector")
APT = "DEBIAN_FRONTEND=noninteractive apt-get -qq -y"
OLD_UNIT = """\
[Unit]
Description=as it was
[Service]
Type=oneshot
EnvironmentFile=-/etc/ooni/analysis.env
ExecStart=/usr/bin/{}
[Install]
WantedBy=multi-user.target
"""
OLD_TIMER = "[Timer]\nOnCalendar=*:0/30\n[Install]\nWantedBy=timers.target\n"
OLD_POSTINST = """\
#!/bin/sh
set -e
for tool in citizenlab fingerprints asn-metadata; do
    deb-systemd-helper enable ooni-update-$tool.service ooni-update-$tool.timer
done
deb-systemd-helper enable ooni-db-backup.timer
systemctl daemon-reload
systemctl start ooni-update-asn-metadata.timer
"""
OLD_DETECTOR_POSTINST = """\
#!/bin/sh
set -e
mkdir -p /var/lib/detector/output
chown -R games /var/lib/detector
deb-systemd-helper enable detector.service detector.timer
"""
# What 2.0.0 did to the folder of the API, and what it left there.
OLD_GEOIP_UNIT = """\
User=ooni
Group=ooni
StateDirectory=ooniapi
UMask=0022
"""
OLD_GEOIP_POSTINST = """\
#!/bin/sh
set -e
echo 'u ooni - "OONI backend tools" /nonexistent /usr/sbin/nologin' | systemd-sysusers -
systemctl daemon-reload
systemctl start ooni-download-geoip
cd /var/lib/ooniapi
runuser -u ooni -- tee asn.mmdb cc.mmdb asn.mmdb.previous .cc.mmdb.new geoipdbts < /etc/hostname
echo '{}' | runuser -u ooni -- tee ooni_download_geoip.json ooni_download_geoip.lock
"""
LET_IN = "setfacl -m u:ooni:rwx /var/lib/ooniapi"
PROBE = """\
#!/bin/sh
try() { if "$@" 2> /dev/null; then echo "allowed: $*"; else echo "denied: $*"; fi; }
try touch /etc/probe
try touch /usr/probe
try touch /var/lib/probe
try touch /var/lib/ooniapi/probe
try ls /home/somebody
try ls /root
try chmod u+s /var/lib/analysis
try mknod /tmp/device c 1 3
try unshare -U true
try cat /proc/1/environ
try touch /var/lib/analysis/probe
touch /tmp/left-in-private-tmp
"""
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
# What bash does when somebody presses the tabulator.
COMPLETION = """bash -c '
. /usr/share/bash-completion/bash_completion
_comp_load {command} 2> /dev/null || __load_completion {command}
COMP_WORDS=({command} {words}) COMP_CWORD={number} COMP_LINE="{command} {words}"
COMP_POINT=${{#COMP_LINE}} COMP_TYPE=9
_{command} {command} {last} {before}
echo "${{COMPREPLY[@]}}"'
"""


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


def main() -> None:
    """Test the packages of a folder on one release of Debian."""
    folder, release, packages = Path(sys.argv[1]).resolve(), sys.argv[2], Path(sys.argv[3])
    archive = base_system(folder, release)
    with tempfile.TemporaryDirectory(dir=folder, prefix="run-") as name:
        scratch = Path(name)
        with (
            EmbeddedClickHouse(scratch / "clickhouse") as clickhouse,
            MisbehavingServer(tls="private-ca") as https,
            GitServer(upstream(scratch)) as git,
            S3Server() as s3,
            running(archive, scratch) as container,
        ):
            (container.root / "etc/ssl/private-ca.pem").write_bytes(https.ca_file.read_bytes())
            tools = [
                *tools_for(scratch, clickhouse, https, git),
                backup_tool(clickhouse, s3),
                detector(clickhouse),
            ]
            api = OoniApi(container)
            damage_as_2_0_0_did(container, scratch, api)
            upgrade_from_old_packages(container, packages, scratch)
            let_geoip_in(container, api)
            look_at_installation(container)
            configure(container, tools)
            give_as_credential(container, tools)
            prune_after_backups(container)
            before, failures = api.owners_and_modes(), api.failures()
            run_services(container, tools)
            expect(api.owners_and_modes() == before, "the folder of the API is as it was")
            probe_sandbox(container)
            let_timer_fire(container)
            stop_database(container, tools, clickhouse)
            keep_out_of_the_folder_of_the_api(container, api)
            expect(api.failures() == failures, "the API could spool all the time")
            upgrade_with_edited_conffiles(container, packages, scratch)
            remove_and_purge(container, api)
    print(f"\nEnd to end on Debian {release}: everything is as it should be.")


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
        expect("all 1 backups stay" in pruned, f"prune has nothing to do: {pruned}")
        restored = container.output(
            "runuser -u ooni -- ooni-db-backup restore --all --to-database drill --stdout"
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
        before = container.output(files)
        print(container.output(f"find {output} -type f -printf '%s %P\\n'"))
        container.run("systemctl start detector")
        expect(container.output(files) == before, "a second run writes none of these again")

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


def damage_as_2_0_0_did(container: Container, scratch: Path, api: OoniApi) -> None:
    """Install a package like ooni-geoip 2.0.0: its first start takes the folder from the API."""
    title("ooni-geoip 2.0.0 takes the folder of the API away")
    units = {"ooni-download-geoip": f"ooni-geoip\n{OLD_GEOIP_UNIT}"}
    old = build_old_package(scratch, "ooni-geoip", "2.0.0", units, OLD_GEOIP_POSTINST)
    shutil.copy(old, container.root / "srv/old-geoip.deb")
    before = api.owners_and_modes()
    container.run("dpkg -i /srv/old-geoip.deb")
    api.wait_until("failed")
    expect(api.owners_and_modes() != before, "all of it is another user's")
    container.run("touch /var/lib/ooniapi/measurements/of-root")


def let_geoip_in(container: Container, api: OoniApi) -> None:
    """After the upgrade the API has its folder again, and can spool; then let the tool in."""
    api.wait_until("spooled")
    failures = api.failures()
    api.wait_until("spooled")
    expect(api.failures() == failures, "the API can spool again")
    print(api.owners_and_modes())
    expected = """\
d ooniapi:ooniapi 755 /var/lib/ooniapi
d ooniapi:ooniapi 755 /var/lib/ooniapi/measurements
d ooniapi:ooniapi 755 /var/lib/ooniapi/measurements/incoming
f ooniapi:ooniapi 640 /var/lib/ooniapi/measurements/private
f root:root 644 /var/lib/ooniapi/measurements/of-root
l ooniapi:ooniapi 777 /var/lib/ooniapi/measurements/link
l ooniapi:ooniapi 777 /var/lib/ooniapi/measurements/links
"""
    expect(api.owners_and_modes() == expected, "what was taken is given back, nothing else")
    expect(api.taken() == "", "the spool, too")
    owners = container.output("stat -c %U /etc /etc/passwd /etc/hostname").split()
    expect(set(owners) == {"root"}, "no link was followed")
    state = container.output("stat -c '%n %U:%G %s' /var/lib/ooni-geoip/* /var/lib/ooni-geoip")
    expect(
        state.splitlines()[0] == "/var/lib/ooni-geoip/ooni_download_geoip.json ooni:ooni 3",
        f"the state has moved: {state}",
    )
    container.run(LET_IN)


def keep_out_of_the_folder_of_the_api(container: Container, api: OoniApi) -> None:
    """Where the service may not write, it says what to type; as the API's user it needs nothing."""
    title("a folder that the GeoIP downloader may not write, or that is missing")
    container.run("setfacl -b /var/lib/ooniapi")
    before = api.owners_and_modes()
    expect_78(container, f"ooni can't write there; run: {LET_IN} (or ")
    expect(api.owners_and_modes() == before, "nothing is changed")
    drop_in = container.root / "etc/systemd/system/ooni-download-geoip.service.d/user.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nUser=ooniapi\n")
    container.run("rm /var/lib/ooniapi/asn.mmdb; systemctl daemon-reload")
    container.run("systemctl start ooni-download-geoip")
    installed = container.output("stat -c '%U %a' /var/lib/ooniapi/asn.mmdb").strip()
    expect(installed == "ooniapi 644", f"it can run as the user of the API: {installed}")
    expect(api.owners_and_modes() == before, "nothing else is changed")
    shutil.rmtree(drop_in.parent)
    api.wait_until("spooled")
    container.run("systemctl daemon-reload; systemctl stop ooni-api")
    container.run("mv /var/lib/ooniapi /var/lib/elsewhere")
    expect_78(container, "missing; unless the API's installation makes it, run: install -d -o ooni")
    container.run("mv /var/lib/elsewhere /var/lib/ooniapi; systemctl start ooni-api")
    container.run("systemctl reset-failed")


def expect_78(container: Container, line: str) -> None:
    """Start the GeoIP downloader, which ends with 78 and logs the line as its last."""
    container.run("systemctl start ooni-download-geoip", check=False)
    status = container.output("systemctl show -P ExecMainStatus ooni-download-geoip").strip()
    last = container.journal("ooni_download_geoip", "-p err -o cat").splitlines()[-1:]
    print(*last)
    expect(status == "78" and line in "".join(last), f"status {status}: {line}")


def upgrade_from_old_packages(container: Container, folder: Path, scratch: Path) -> None:
    """Install packages like those of old, settings and all, and upgrade them to the new ones."""
    title("an installed analysis 1.13 and an installed detector 0.3 are upgraded")
    for old in (old_analysis(scratch), old_detector(scratch)):
        shutil.copy(old, container.root / "srv")
    (container.root / "etc/ooni").mkdir()
    (container.root / "etc/ooni/analysis.env").write_text("DB_URI=clickhouse://old@db/default")
    (container.root / "etc/ooni/db-backup.conf").write_text('{"ver": 0}\n')
    container.run("dpkg -i /srv/analysis_1.13_all.deb /srv/detector_0.3_all.deb")
    container.run("systemctl disable ooni-update-fingerprints.timer")  # the administrator's will
    before = container.output("ls /etc/systemd/system/multi-user.target.wants")
    for service in ("ooni-update-citizenlab", "detector"):
        expect(f"{service}.service" in before, f"the old one runs {service} at boot")
    for package in PACKAGES:
        (found,) = folder.glob(f"{package}_*.deb")
        shutil.copy(found, container.root / "srv")
    files = " ".join(f"/srv/{package}_2*.deb" for package in PACKAGES)
    printed = container.output(f"{APT} install {files} 2>&1")
    print(printed)
    expect(LET_IN in printed, "the upgrade says how to let the GeoIP downloader in")
    settings = (container.root / "etc/ooni/analysis.env").read_text()
    kept = ["DB_URI=clickhouse://old@db/default", "OONI_DB_URI=clickhouse://old@db/default"]
    expect(settings.splitlines() == kept, "DB_URI is kept")
    files = container.output("systemctl show -P EnvironmentFiles ooni-db-backup")
    expect("analysis.env" not in files, "DB_URI is not for the backup tool, which never had it")
    backup = (container.root / "etc/ooni/db-backup.conf").read_text()
    expect(backup == '{"ver": 0}\n', "/etc/ooni/db-backup.conf is as it was")
    wants = container.output("ls /etc/systemd/system/multi-user.target.wants")
    expect("ooni-" not in wants and "detector" not in wants, "nothing runs at boot any more")
    enabled = container.run("systemctl is-enabled ooni-update-fingerprints.timer", check=False)
    expect(enabled.stdout.strip() == "disabled", "a disabled timer stays disabled")
    container.run("systemctl enable --now ooni-update-fingerprints.timer")
    (container.root / "etc/ooni/analysis.env").unlink()


def old_analysis(scratch: Path) -> Path:
    """Build a package with the files of the old `analysis` that matter in an upgrade."""
    units = {
        f"ooni-update-{tool}": f"analysis --update-{tool} --db-uri ${{DB_URI}}"
        for tool in ("citizenlab", "fingerprints", "asn-metadata")
    }
    units["ooni-db-backup"] = "analysis --backup-db --db-uri ${DB_URI}"
    return build_old_package(scratch, "analysis", "1.13", units, OLD_POSTINST)


def old_detector(scratch: Path) -> Path:
    """Build a package with the files of the old `detector` that matter in an upgrade."""
    units = {"detector": "detector"}
    return build_old_package(scratch, "detector", "0.3", units, OLD_DETECTOR_POSTINST)


def build_old_package(
    scratch: Path, name: str, version: str, units: Mapping[str, str], postinst: str
) -> Path:
    """Build a package with a command and units (name, command line)."""
    tree = scratch / f"old-{name}"
    folder = tree / "lib/systemd/system"
    folder.mkdir(parents=True)
    for unit, command in units.items():
        (folder / f"{unit}.service").write_text(OLD_UNIT.format(command))
        (folder / f"{unit}.timer").write_text(OLD_TIMER)
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin" / name).write_text("#!/bin/sh\n")
    (tree / "usr/bin" / name).chmod(0o755)
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
        "Maintainer: OONI <contact@openobservatory.org>\nDescription: as it was\n"
    )
    (tree / "DEBIAN/postinst").write_text(postinst)
    (tree / "DEBIAN/postinst").chmod(0o755)
    package = scratch / f"{name}_{version}_all.deb"
    build_package(tree, package)
    return package


def build_package(tree: Path, package: Path) -> None:
    """Make a package of a folder; quickly, so not compressed."""
    subprocess.run(
        ["dpkg-deb", "-Znone", "--root-owner-group", "--build", str(tree), str(package)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def look_at_installation(container: Container) -> None:
    """Check users, modes, timers, units, manuals and completion."""
    title("what is installed")
    timers = container.output("systemctl list-timers 'ooni-*' 'detector*'")
    print(timers)
    for tool in (
        "ooni-db-backup",
        "ooni-update-citizenlab",
        "ooni-update-fingerprints",
        "ooni-update-asn-metadata",
        "ooni-download-geoip",
        "detector",
    ):
        expect(timers.count(f" {tool}.timer") == 1, f"the timer of {tool} is there, once")
    modes = container.output("stat -c '%n %U:%G %a' /etc/ooni/*.conf")
    expect(modes.count("root:ooni 640") == 6, f"configuration is protected: {modes}")
    verified = container.run(
        "cd /lib/systemd/system;"
        " systemd-analyze verify --man=no ooni-*[a-z].service detector.service"
    )
    expect(verified.stdout + verified.stderr == "", f"units: {verified.stderr}")
    for page in (
        "8 ooni-update-citizenlab",
        "5 update-citizenlab.conf",
        "8 analysis",
        "8 ooni-db-backup",
        "8 detector",
        "5 detector.conf",
    ):
        expect("NAME" in container.output(f"man {page}"), f"man {page}")
    for command, words, expected in (
        ("ooni-download-geoip", "--che", "--check"),
        ("ooni-db-backup", "res", "restore"),
        ("ooni-db-backup", "ba", "backup"),
        ("ooni-db-backup", "--ver", "--verbose --version"),
        ("ooni-db-backup", "backup --fu", "--full"),
        ("ooni-db-backup", "restore accounts --to", "--to-database"),
        ("detector", "ev", "evaluate"),
        ("detector", "--rep", "--reprocess"),
        ("detector", "run --start", "--start-date"),
        ("detector", "evaluate --obs", "--observations"),
    ):
        *_, before, last = [command, *words.split()]
        completed = container.output(
            COMPLETION.format(
                command=command, words=words, number=len(words.split()), last=last, before=before
            )
        )
        expect(expected in completed.replace("\n", " "), f"{command} {words} is completed")
    for command in (
        "ooni-update-citizenlab",
        "ooni-download-geoip",
        "ooni-db-backup",
        "analysis",
        "detector",
    ):
        expect(
            container.output(f"{command} --version") == f"{command} {__version__}\n",
            f"{command} starts",
        )


def configure(container: Container, tools: list[Tool]) -> None:
    """Edit the configuration files, as an administrator does: in place, modes stay."""
    for tool in tools:
        path = container.root / "etc/ooni" / tool.config
        text = path.read_text()
        if text.startswith("{"):
            path.write_text(json.dumps(json.loads(text) | tool.keys))
        else:
            lines = "".join(f'{key} = "{value}"\n' for key, value in tool.keys.items())
            path.write_text(f"{text}\n{lines}")
        checked = container.output(f"{tool.command} --check-config --stdout")
        expect("the configuration is valid" in checked, f"{tool.command} takes its configuration")


def give_as_credential(container: Container, tools: list[Tool]) -> None:
    """Let one tool get the address of its database as a credential that only root can read."""
    title("a secret as a systemd credential")
    tool = next(tool for tool in tools if tool.command == "ooni-update-asn-metadata")
    config = container.root / "etc/ooni" / tool.config
    uri = tool.keys["db_uri"]
    config.write_text(config.read_text().replace(f'db_uri = "{uri}"\n', ""))
    secret = container.root / "etc/ooni/credentials/db_uri"
    secret.parent.mkdir(mode=0o700)
    secret.write_text(f"{uri}\n")
    secret.chmod(0o600)
    drop_in = container.root / f"etc/systemd/system/{tool.command}.service.d/credential.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nLoadCredential=db_uri:/etc/ooni/credentials/db_uri\n")
    container.run("systemctl daemon-reload")
    expect(uri not in config.read_text(), "it is in no configuration file")


def prune_after_backups(container: Container) -> None:
    """Let old backups be deleted after each run, as the manual says."""
    drop_in = container.root / "etc/systemd/system/ooni-db-backup.service.d/override.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nExecStartPost=/usr/bin/ooni-db-backup prune --confirm\n")
    container.run("systemctl daemon-reload")


def run_services(container: Container, tools: list[Tool]) -> None:
    """Start each service: it does its job under its sandbox, and the journal has its lines."""
    for tool in tools:
        title(f"{tool.command} does its job")
        container.run(f"systemctl start {tool.command}")
        tool.effect(container)
        print(container.journal(tool.identifier, "-o short-iso --no-hostname"))
        container.run(f"systemctl start {tool.command}")
        log = container.journal(tool.identifier, "-p info -o cat")
        expect(tool.again in log, f"a second run says: {tool.again}")
        errors = container.journal(tool.identifier, "-p err -o cat")
        expect(errors == "", f"no errors are logged: {errors}")
    container.run("runuser -u ooni -- ooni-download-geoip --textfile /tmp", check=False)
    textfile = container.output("cat /tmp/ooni_ooni_download_geoip.prom")
    expect("# HELP ooni_exit_status" in textfile, "the descriptions of metrics are installed")


def probe_sandbox(container: Container) -> None:
    """Run a probe in the place of a tool: only its state directory can be written."""
    title("the sandbox of a service")
    container.run("mkdir -p /home/somebody")
    probe = container.root / "usr/local/bin/probe"
    probe.write_text(PROBE)
    probe.chmod(0o755)
    drop_in = container.root / "etc/systemd/system/ooni-update-citizenlab.service.d/probe.conf"
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text(
        "[Service]\nExecStart=\nExecStart=/usr/local/bin/probe\nSyslogIdentifier=probe\n"
    )
    container.run("systemctl daemon-reload; systemctl start ooni-update-citizenlab")
    log = container.journal("probe", "-o cat")
    print(log)
    expect("allowed: touch /var/lib/analysis/probe" in log, "the state directory can be written")
    expect(log.count("allowed:") == 1, "nothing else is allowed")
    expect(not (container.root / "tmp/left-in-private-tmp").exists(), "temporary files are private")
    drop_in.unlink()
    container.run("rm /var/lib/analysis/probe; systemctl daemon-reload")


def let_timer_fire(container: Container) -> None:
    """Let a timer fire in a second."""
    title("a timer fires")
    folder = container.root / "etc/systemd/system/ooni-update-fingerprints.timer.d"
    folder.mkdir(parents=True)
    (folder / "soon.conf").write_text(
        "[Timer]\nOnCalendar=\nOnActiveSec=1s\nRandomizedDelaySec=0\nAccuracySec=100ms\n"
    )
    container.run("systemctl daemon-reload")

    def runs() -> int:
        return container.journal("analysis.fingerprints_updater", "-o cat").count("nothing to do")

    before = runs()
    container.run("systemctl restart ooni-update-fingerprints.timer")
    deadline = time.monotonic() + 30
    while runs() == before and time.monotonic() < deadline:
        time.sleep(0.5)
    expect(runs() == before + 1, "its service has run once")
    shutil.rmtree(folder)
    container.run("systemctl daemon-reload; systemctl restart ooni-update-fingerprints.timer")


def stop_database(container: Container, tools: list[Tool], clickhouse: EmbeddedClickHouse) -> None:
    """Without the database a service fails with its documented status, and somebody is told."""
    title("the database is down")
    clickhouse.stop()
    for tool in tools:
        if not tool.uses_database:
            continue
        started = container.run(f"systemctl start {tool.command}", check=False)
        expect(started.returncode != 0, f"{tool.command} fails")
        status = container.output(f"systemctl show -P ExecMainStatus {tool.command}").strip()
        expect(status == "69", f"{tool.command} ends with 69: {status}")
        errors = container.journal(tool.identifier, "-p err -o cat").strip()
        expect(len(errors.splitlines()) == 1, f"one line says why: {errors}")
        print(container.run(f"systemctl status --no-pager {tool.command}", check=False).stdout)
    told = container.journal("ooni-tool-failed", "-p err -o cat")
    print(told)
    for tool in tools:
        expect(
            (f"{tool.command} has failed" in told) == tool.uses_database, f"told: {tool.command}"
        )
    container.run("systemctl reset-failed")


def upgrade_with_edited_conffiles(container: Container, folder: Path, scratch: Path) -> None:
    """Upgrade to packages whose configuration files have changed: the edited ones stay."""
    title("an upgrade keeps edited configuration files")
    for package in PACKAGES:
        (found,) = folder.glob(f"{package}_*.deb")
        tree = scratch / f"{package}-newer"
        subprocess.run(["dpkg-deb", "-R", str(found), str(tree)], check=True)
        control = tree / "DEBIAN/control"
        control.write_text(control.read_text().replace(__version__, f"{__version__}+1"))
        for config in tree.glob("etc/ooni/*.conf"):
            config.write_text(config.read_text() + "\n# new\n")
        newer = container.root / "srv" / f"{package}_newer.deb"
        build_package(tree, newer)
    before = container.output("sha256sum /etc/ooni/*.conf; stat -c '%n %U:%G %a' /etc/ooni/*.conf")
    files = " ".join(f"/srv/{package}_newer.deb" for package in PACKAGES)
    options = "-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"
    container.run(f"{APT} {options} install {files}")
    after = container.output("sha256sum /etc/ooni/*.conf; stat -c '%n %U:%G %a' /etc/ooni/*.conf")
    expect(after == before, f"they are as they were:\n{before}{after}")
    offered = container.output("ls /etc/ooni")
    expect("update-citizenlab.conf.dpkg-dist" in offered, "the new ones lie beside them")
    active = container.output("systemctl is-active ooni-update-citizenlab.timer").strip()
    expect(active == "active", "the timers run")


def remove_and_purge(container: Container, api: OoniApi) -> None:
    """Remove the packages, then purge them: nothing is left but the user, and the API."""
    title("removed, and purged")
    packages = " ".join(PACKAGES)
    container.run("rm -r /etc/systemd/system/ooni-*.service.d /etc/ooni/credentials")
    container.run(f"{APT} remove {packages}")
    expect(
        container.output("systemctl list-timers --no-legend 'ooni-*' 'detector*'") == "",
        "no timer is left",
    )
    container.run("test -e /etc/ooni/update-citizenlab.conf && test -d /var/lib/analysis")
    container.run("test -e /var/lib/detector/output/index.html")
    before = api.owners_and_modes()
    container.run(f"{APT} purge {packages}")
    expect(api.owners_and_modes() == before, "the folder of the API is as it was")
    files = container.output("find /var/lib/ooniapi -maxdepth 1 -type f")
    expect(files == "", f"the databases are gone: {files}")
    api.remove()
    left = container.output(
        "find /etc /usr /var /lib/systemd /run"
        " \\( -name '*ooni*' -o -path '*/analysis*' -o -path '*/detector*' \\)"
        " -not -path '/var/log/*' -not -path '/run/log/*' -not -path '/usr/lib/python3*'"
        " -not -path '/usr/share/bash-completion/*' -not -path '/run/credentials/*' | sort -u"
    )
    expect(left == "", f"nothing is left:\n{left}")
    expect(container.output("systemctl --failed --no-legend") == "", "no unit has failed")


def title(text: str) -> None:
    """Print a heading."""
    print(f"\n{text}\n{'=' * len(text)}", flush=True)


def expect(fulfilled: bool, what: str) -> None:  # noqa: FBT001 (reads like the sentence it is)
    """End with an error unless the expectation is fulfilled."""
    if not fulfilled:
        raise SystemExit(f"not as it should be: {what}")
    print(f"ok: {what}", flush=True)


if __name__ == "__main__":
    main()
