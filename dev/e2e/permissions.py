"""Who may read the configuration, and write the state: the services, and a person by hand."""

from dev.e2e.container import Container
from dev.e2e.steps import expect, title
from dev.e2e.tools import AS_THE_BACKUP_SERVICE, Tool

FOLDERS = ("analysis", "ooni-db-backup", "ooni-geoip")  # an old detector has left its own
NOBODY_LISTENS = "127.0.0.1:9"
AS_OONI = "runuser -u ooni --"
UNREACHABLE = {
    "ooni-update-citizenlab": f"{AS_OONI} env OONI_GIT_URL=https://{NOBODY_LISTENS}/",
    "ooni-download-geoip": f"{AS_OONI} env OONI_TOTAL_TIME=5 OONI_ASN_URL=https://{NOBODY_LISTENS}/",
    "ooni-db-backup": f"{AS_THE_BACKUP_SERVICE} env OONI_DB_URI=clickhouse://{NOBODY_LISTENS}/",
}


def run_by_hand_first(container: Container, tools: list[Tool]) -> None:
    """Run tools by hand before any service has, as far as to an upstream that is not there."""
    title("commands by hand, right after the installation")
    listed = container.output(f"cd /var/lib; stat -c '%n %U:%G %a' {' '.join(FOLDERS)}")
    expect(listed == "".join(f"{name} ooni:ooni 755\n" for name in FOLDERS), listed)
    for command, prefix in UNREACHABLE.items():
        ran = container.run(f"{prefix} {command}", check=False)
        expect(ran.returncode == 69, f"{command} reaches for its upstream: {ran.stderr}")
    fingerprints = next(tool for tool in tools if tool.command == "ooni-update-fingerprints")
    container.run(f"{AS_OONI} ooni-update-fingerprints")
    fingerprints.effect(container)


def keep_for_root(container: Container, tools: list[Tool]) -> None:
    """Let root alone read a configuration, as Ansible does; what a person then sees by hand."""
    title("a configuration file that root alone may read")
    backup = next(tool for tool in tools if tool.config == "db-backup.conf")
    for name in (backup.config, "update-citizenlab.conf"):
        container.run(f"cd /etc/ooni; chown root:root {name}; chmod 600 {name}")
    refused = container.run(f"{AS_OONI} ooni-db-backup list", check=False)
    print(refused.stderr)
    expect(refused.returncode == 78, "by hand the user may not read it")
    expect(len(refused.stderr.splitlines()) == 1, "one line says so")
    expect("/etc/ooni/db-backup.conf: Permission denied; run as root" in refused.stderr, "and how")
    shown = container.output(f"{AS_THE_BACKUP_SERVICE} ooni-db-backup --check-config --stdout")
    expect(
        f'public_bucket_name = "{backup.keys["public_bucket_name"]}"' in shown,
        "as the service's user, with systemd's copy, it is read",
    )
    expect(
        "the configuration is valid" in container.output("ooni-db-backup --check-config --stdout"),
        "as root",
    )


def expect_defaults_without_a_file(container: Container) -> None:
    """Start a service whose configuration file somebody has deleted: every key has its default."""
    title("a configuration file that was deleted")
    drop_in = container.root / "etc/systemd/system/detector.service.d/show.conf"
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text("[Service]\nExecStart=\nExecStart=/usr/bin/detector --check-config\n")
    container.run("mv /etc/ooni/detector.conf /etc/ooni/detector.away; systemctl daemon-reload")
    container.run("systemctl start detector")
    shown = container.journal("detector", "-o cat")
    expect('db_uri = "clickhouse://detector:***@localhost/default"' in shown, "it has the defaults")
    expect(shown.endswith("the configuration is valid\n"), "its service starts")
    container.run("mv /etc/ooni/detector.away /etc/ooni/detector.conf")
    drop_in.unlink()
    drop_in.parent.rmdir()
    container.run("systemctl daemon-reload")
