"""What is there after an installation, and how an administrator configures it."""

import json

from dev.e2e.container import Container
from dev.e2e.steps import expect, title
from dev.e2e.tools import Tool
from ooni_common import __version__

# What bash does when somebody presses the tabulator.
COMPLETION = """bash -c '
. /usr/share/bash-completion/bash_completion
_comp_load {command} 2> /dev/null || __load_completion {command}
COMP_WORDS=({command} {words}) COMP_CWORD={number} COMP_LINE="{command} {words}"
COMP_POINT=${{#COMP_LINE}} COMP_TYPE=9
_{command} {command} {last} {previous}
echo "${{COMPREPLY[@]}}"'
"""


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
    expect(modes.count("root:ooni 640") == 5, f"configuration is protected: {modes}")
    expect("db-backup.conf root:root 600" in modes, "what was root's alone is so still")
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
        *_, previous, last = [command, *words.split()]
        completed = container.output(
            COMPLETION.format(
                command=command,
                words=words,
                number=len(words.split()),
                last=last,
                previous=previous,
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


def expect_no_failure_before_a_configuration(container: Container) -> None:
    """Start what cannot work without a configuration, where nobody has written one."""
    title("before there is a configuration")
    for unit in ("ooni-db-backup", "ooni-db-backup-verify"):
        container.run(f"systemctl start {unit}")
        result = container.output(f"systemctl show -P Result {unit}").strip()
        expect(result == "exec-condition", f"{unit} is skipped: {result}")
    log = container.journal("ooni-db-backup", "-o cat")
    expect(log.count("run ooni-db-backup init") == 2, f"the journal says what to do: {log}")
    expect(container.journal("ooni-tool-failed", "-o cat") == "", "nobody is told of a failure")
    for command in ("ooni-db-backup", "ooni-update-citizenlab", "detector"):
        completion = container.root / f"usr/share/zsh/vendor-completions/_{command}"
        expect(completion.exists(), f"zsh completes {command}")


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
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text("[Service]\nLoadCredential=db_uri:/etc/ooni/credentials/db_uri\n")
    container.run("systemctl daemon-reload")
    expect(uri not in config.read_text(), "it is in no configuration file")


def prune_after_backups(container: Container) -> None:
    """Let old backups be deleted after each run, as the manual says."""
    drop_in = container.root / "etc/systemd/system/ooni-db-backup.service.d/override.conf"
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text("[Service]\nExecStart=/usr/bin/ooni-db-backup prune --confirm\n")
    container.run("systemctl daemon-reload")
