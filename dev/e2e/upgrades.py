"""Packages that come and go: upgrades from old ones and to newer ones, removal."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from dev.e2e.container import Container
from dev.e2e.ooni_api import LET_IN, OoniApi
from dev.e2e.steps import expect, title

PACKAGES = (
    "ooni-backend-tools-venv",
    "ooni-backend-tools-monitoring",
    "analysis",
    "ooni-geoip",
    "ooni-db-backup",
    "detector",
)
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


def upgrade_from_old_packages(container: Container, folder: Path, scratch: Path) -> None:
    """Install packages like those of old, settings and all, and upgrade them to the new ones."""
    title("an installed analysis 1.13 and an installed detector 0.3 are upgraded")
    for old in (old_analysis(scratch), old_detector(scratch)):
        shutil.copy(old, container.root / "srv")
    (container.root / "etc/ooni").mkdir()
    (container.root / "etc/ooni/analysis.env").write_text("DB_URI=clickhouse://old@db/default")
    (container.root / "etc/ooni/db-backup.conf").write_text('{"ver": 0}\n')
    (container.root / "etc/ooni/db-backup.conf").chmod(0o600)  # as Ansible writes it
    container.run("dpkg -i /srv/analysis_1.13_all.deb /srv/detector_0.3_all.deb")
    container.run("systemctl disable ooni-update-fingerprints.timer")  # the administrator's will
    wanted = container.output("ls /etc/systemd/system/multi-user.target.wants")
    for service in ("ooni-update-citizenlab", "detector"):
        expect(f"{service}.service" in wanted, f"the old one runs {service} at boot")
    for package in PACKAGES:
        (file,) = folder.glob(f"{package}_*.deb")
        shutil.copy(file, container.root / "srv")
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


def upgrade_with_edited_conffiles(container: Container, folder: Path, scratch: Path) -> None:
    """Upgrade to packages whose configuration files have changed: the edited ones stay."""
    title("an upgrade keeps edited configuration files")
    for package in PACKAGES:
        (file,) = folder.glob(f"{package}_*.deb")
        tree = scratch / f"{package}-newer"
        subprocess.run(["dpkg-deb", "-R", str(file), str(tree)], check=True)
        control = tree / "DEBIAN/control"
        text = control.read_text()
        version = re.findall("(?m)^Version: (.*)$", text)[0]
        control.write_text(text.replace(version, f"{version}+1"))
        for config in tree.glob("etc/ooni/*.conf"):
            config.write_text(config.read_text() + "\n# new\n")
        newer = container.root / "srv" / f"{package}_newer.deb"
        build_package(tree, newer)
    look = "sha256sum /etc/ooni/*.conf; stat -c '%n %U:%G %a' /etc/ooni/*.conf"
    edited = container.output(look)
    files = " ".join(f"/srv/{package}_newer.deb" for package in PACKAGES)
    options = "-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"
    container.run(f"{APT} {options} install {files}")
    upgraded = container.output(look)
    expect(upgraded == edited, f"they are as they were:\n{edited}{upgraded}")
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
    owners = api.owners_and_modes()
    container.run(f"{APT} purge {packages}")
    expect(api.owners_and_modes() == owners, "the folder of the API is as it was")
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
