"""`make sandbox`: the commands that it tells one to try do what it says; SIGINT ends all of it."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from clickhouse_driver import Client

from dev.samples.test_lists import SampleTestLists
from dev.sandbox import READY, TOOLS, TRY

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[1]
AMPLE = 1800  # seconds; far more than any of it takes, for a machine under load
RESULTS = (
    r"citizenlab: would be created with 25,000 rows",
    r"citizenlab: 25,000 rows \(\+25,000 -0\)",
    r"incidents: 2 ongoing, 1 ended",
    r"ok +backups, server",
    r"is complete: 99 rows in 1 table",
    r"restored `ooni`.`accounts_restored`: 99 rows",
)
# What README.md, docs/running.md, the README.Debian and the manuals have one type, and what is
# printed then; in an order in which each can be done.
DOCUMENTED = {
    "ooni-update-citizenlab doctor": r"^ok +database",
    "ooni-update-citizenlab --dry-run --stdout": r"nothing to do",
    "ooni-update-citizenlab --check-config": r'^git_url = "http://127.0.0.1:\d+/test-lists.git"',
    "ooni-update-citizenlab --accept it": r"it is not held: there is nothing to accept",
    "ooni-update-fingerprints doctor": r"^ok +upstream",
    "ooni-update-fingerprints --dry-run --stdout": r"fingerprints_dns: would be created with 230",
    "ooni-update-fingerprints --check-config": r"^dns_url = ",
    "ooni-update-asn-metadata doctor": r"^ok +upstream",
    "ooni-update-asn-metadata --dry-run --stdout": r"asnmeta: would be created with 420,000 rows",
    "ooni-update-asn-metadata --check-config": r"^min_rows = 100000  # default",
    "ooni-download-geoip doctor": r"^ok +",
    "ooni-download-geoip --dry-run": r"would",
    "ooni-download-geoip --dry-run --stdout": r"would",
    "ooni-download-geoip --check-config": r"^output_dir = ",
    "ooni-download-geoip --check": r"cc.mmdb: DBIP-Country-Lite",
    "detector doctor": r"^ok +database",
    "detector --dry-run --stdout": r"blocking_events: 112 rows, unchanged",
    "detector --check-config": r"^services = ",
    "detector": r"blocking_events: 112 rows, unchanged",
    "detector --reprocess --start-date 2026-01-01 --stdout": r"blocking_events: 112 rows",
    "ooni-db-backup doctor": r"^ok +backups, server",
    "ooni-db-backup --dry-run --stdout": r"unchanged: 14|would export 0 chunks",
    "ooni-db-backup": r"nothing to do",
    "ooni-db-backup export fastpath": r"nothing to do",
    "ooni-db-backup backup": r"nothing to do: all is as in the backup",
    "ooni-db-backup list": r"^fastpath .*\n(.*\n)*.* good$",
    "ooni-db-backup verify --quick": r"",
    "ooni-db-backup verify": r"can be restored",
    "ooni-db-backup restore fastpath --from exports --as fastpath_2": r"as fastpath_2: ",
    "ooni-db-backup restore jsonl --from exports": r"as jsonl_restored: 20,000 rows",
    "ooni-db-backup restore accounts": r"restored `ooni`.`accounts_restored`: 99 rows",
    "ooni-db-backup restore accounts --replace": r"99 rows; what was there is",
    "ooni-db-backup restore --all": r"nothing to do",
    "ooni-db-backup restore --all --to-database drill": r"restored `drill`.`accounts`: 99 rows",
    "ooni-db-backup prune": r"nothing to do",
    "ooni-db-backup prune --keep 2": r"kept: 1 backup",
    "ooni-db-backup backup --full": r"is complete: 99 rows",
}
NOT_HERE = {
    "analysis --update-citizenlab --dry-run --stdout": "it reads /etc/ooni alone",
    "ooni-update-citizenlab --rollback": "another test, with an upstream that has changed",
    "ooni-update-fingerprints --rollback": "there was one update only, as in the next two lines",
    "ooni-update-asn-metadata --rollback": "",
    "ooni-download-geoip --rollback": "",
    "ooni-db-backup init": "it asks on a terminal: tests/test_first_config.py",
    "ooni-db-backup init --db-uri clickhouse://backup@db.example.org/ooni --public-bucket ooni-data"
    " --private-bucket ooni-private": "the host is one of no network",
    "ooni-db-backup delete NAME ... --confirm": "another test, with a name that is there",
    "ooni-db-backup forget fastpath --chunk 202306 --note 'asked for by the volunteer' --confirm": (
        "the same, with a chunk"
    ),
    "ooni-db-backup restore measurements --partition 202306": (
        "the sandbox keeps no private table with partitions: tests/test_restore_partitions.py"
    ),
    "detector evaluate --observations FILE --labels FILE": "the demo does it",
    "detector evaluate --observations observations.csv.gz --labels labels.json": "the demo does it",
}
TEXTS = [
    ROOT / "README.md",
    ROOT / "docs/running.md",
    *sorted(ROOT.glob("debian/*.README.Debian")),
    *sorted(ROOT.glob("debian/man/*.h2m")),
]
COMMAND = re.compile(
    r"^ *(?:runuser -u ooni -- |as_service \S+ )?"
    rf"(?P<command>(?:analysis|{'|'.join(tool.name for tool in TOOLS)})(?: [^#;]*)?)(?:[#;].*)?$"
)


@dataclass(frozen=True)
class Sandbox:
    """A sandbox that is running, and what it has printed."""

    folder: Path
    process: subprocess.Popen[str]
    printed: str

    @property
    def database(self) -> str:
        """The address of the database."""
        match = re.search(r"clickhouse://\S+", self.printed)
        assert match
        return match[0]

    def run(self, command: str, *, succeeds: bool = True) -> str:
        """Run a command as one would type it after `. activate`; return what it prints."""
        script = f". {shlex.quote(str(self.folder / 'activate'))}; {command}"
        done = subprocess.run(
            ["/bin/sh", "-c", script],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=AMPLE,
        )  # fmt: skip
        assert (done.returncode == 0) == succeeds, f"{command}\n{done.stdout}"
        return done.stdout


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    folder = tmp_path_factory.mktemp("sandbox") / "here"
    command = [sys.executable, "-m", "dev.sandbox", "--folder", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        lines = []
        for line in process.stdout or ():
            lines.append(line)
            if line.startswith(READY):
                break
        try:
            yield Sandbox(folder, process, "".join(lines))
        finally:
            process.kill()  # where the last test has not ended it


@pytest.fixture(scope="module")
def tried(sandbox: Sandbox) -> Sandbox:
    """The sandbox in which somebody has tried what it says; tests may run in several processes."""
    for (command, _), result in zip(TRY, RESULTS, strict=True):
        assert re.search(result, sandbox.run(command)), command
    return sandbox


def test_it_says_what_to_try(sandbox: Sandbox) -> None:
    shown = re.findall(r"^    (\S.*\S) +# ", sandbox.printed, re.MULTILINE)
    assert shown == [command for command, _ in TRY]
    assert sorted(path.name for path in (sandbox.folder / "bin").iterdir()) == sorted(
        tool.name for tool in TOOLS
    )


def test_the_commands_to_try_do_what_it_says(tried: Sandbox) -> None:
    for address in re.findall(r"http://\S+index.html", tried.printed):
        with urllib.request.urlopen(address, timeout=AMPLE) as page:
            assert b"<!doctype html>" in page.read(200)
    assert len(list((tried.folder / "textfiles").glob("*.prom"))) == 3


def commands_in(path: Path) -> set[str]:
    """Return the commands of our own that a text has one type."""
    text = path.read_text()
    if path.suffix == ".md":
        blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    elif path.suffix == ".h2m":
        text = re.sub(r"\\f[BRI]", "", text).replace("\\-", "-")
        blocks = re.findall(r"^\[EXAMPLES\](.*?)^\[", text, re.MULTILINE | re.DOTALL)
        blocks += re.findall(r"^\.nf\n(.*?)^\.fi", text, re.MULTILINE | re.DOTALL)
    else:
        blocks = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    return {match["command"].strip() for line in lines if (match := COMMAND.match(line))}


def test_every_command_of_the_documentation_is_run_here_or_has_a_reason() -> None:
    written = {command for path in TEXTS for command in commands_in(path)}
    assert written == DOCUMENTED.keys() | NOT_HERE.keys()


def test_the_commands_of_the_documentation_do_what_they_say(tried: Sandbox) -> None:
    with Client.from_url(tried.database) as client:
        for command, result in DOCUMENTED.items():
            client.execute("DROP TABLE IF EXISTS accounts_restored SYNC")
            if command == "ooni-download-geoip --check":  # where it is typed, the service has run
                tried.run("ooni-download-geoip")
            said = tried.run(command)
            assert re.search(result, said, re.MULTILINE), f"{command}\n{said}"


def test_what_an_update_replaced_is_put_back(tried: Sandbox) -> None:
    """A rollback needs a second update, of an upstream that has changed."""
    upstream = tried.folder / "upstream"
    lists = SampleTestLists(tried.folder / "more")
    (tried.folder / "more").mkdir()
    lists.create(25_100)
    shutil.rmtree(upstream / "test-lists.git")
    shutil.copytree(lists.repository, upstream / "test-lists.git")
    tried.run("ooni-update-citizenlab --stdout")
    said = tried.run("ooni-update-citizenlab --rollback --stdout")
    assert re.search(r"rolled back: .*citizenlab", said), said


def back_up(sandbox: Sandbox) -> None:
    """Export and back up what there was before the restores of other tests."""
    with Client.from_url(sandbox.database) as client:
        client.execute("DROP DATABASE IF EXISTS drill SYNC")
        for (name,) in client.execute("SHOW TABLES"):
            if name == "fastpath_2" or re.search("_(restored|replaced_.*)$", name):
                client.execute(f"DROP TABLE {name} SYNC")
    sandbox.run("ooni-db-backup")
    sandbox.run("ooni-db-backup backup --full --force")


def test_a_backup_and_an_exported_chunk_can_go(tried: Sandbox) -> None:
    """As `delete` and `forget` of the manual do it, with names that are there."""
    back_up(tried)
    stored = json.loads(tried.run("ooni-db-backup list --json fastpath"))
    chunk = next(iter(stored["exports"]["fastpath"]["chunks"]))
    note = "--note 'asked for by the volunteer' --confirm --stdout"
    said = tried.run(f"ooni-db-backup forget fastpath --chunk {chunk} {note}")
    assert re.search("fastpath: 1 chunk exported again", said), said
    backups = json.loads(tried.run("ooni-db-backup list --json"))["backups"]
    name = backups[0]["name"]
    said = tried.run(f"ooni-db-backup delete {name} --confirm --stdout")
    assert re.search("1 backup deleted", said), said


def drill() -> list[str]:
    """Return the commands of the manual's DISASTER DRILL, but for those of systemd."""
    manual = (ROOT / "debian/man/ooni-db-backup.h2m").read_text().replace("\\-", "-")
    section = manual[manual.index("[DISASTER DRILL]") : manual.index("[TRUST]")]
    blocks = re.findall(r"^\.nf\n(.*?)^\.fi", section, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if not line.startswith("systemctl ")]


def test_the_disaster_drill_brings_everything_back(tried: Sandbox) -> None:
    """As it is written, on a server that has lost its database; see also tests/test_drill.py."""
    back_up(tried)
    server = tried.database.removesuffix("/ooni") + "/default"
    with Client.from_url(server) as client:
        client.execute("DROP DATABASE ooni SYNC")
        for command in drill():
            program, _, arguments = command.removeprefix("runuser -u ooni -- ").partition(" ")
            if program == "clickhouse-client":
                _, query = shlex.split(arguments)
                client.execute(query)
            elif arguments == "doctor" and not client.execute("SHOW TABLES FROM ooni"):
                said = tried.run(f"{program} doctor", succeeds=False)
                failed = re.findall(r"^FAILED +(\S.*?)  ", said, re.MULTILINE)
                assert set(failed) <= {"tables", "backups, list"}, said
            else:
                tried.run(f"{program} {arguments}")
        counts = client.execute(
            "SELECT (SELECT count() FROM ooni.accounts), (SELECT count() FROM ooni.jsonl)"
        )
        databases = {name for (name,) in client.execute("SHOW DATABASES")}
    assert counts == [(99, 20_000)]
    assert "drill" not in databases


def test_ctrl_c_ends_it(sandbox: Sandbox) -> None:
    sandbox.process.send_signal(signal.SIGINT)
    rest, _ = sandbox.process.communicate(timeout=AMPLE)
    assert (sandbox.process.returncode, rest) == (0, "ended\n")
