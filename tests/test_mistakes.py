"""The likeliest mistakes: each is made for real, and ends with one line that says what to do.

Where one process runs them all, build/mistakes.md has a table of what is printed afterwards.
"""

import importlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from db_backup_harness import BackupTool
from privileges import without_privileges

TABLE = Path(__file__).parents[1] / "build/mistakes.md"
MODULES = {
    "ooni-update-citizenlab": "citizenlab_test_lists_updater",
    "ooni-download-geoip": "ooni_download_geoip",
    "ooni-db-backup": "ooni_db_backup",
    "detector": "detector",
}


@dataclass(frozen=True)
class Mistake:
    """Something that somebody does wrong.

    Attributes:
        title: that.
        tool: the command.
        status: its exit status.
        said: at the end of what is printed; FILE is the configuration file, FOLDER its folder.
        config: of the file.
        arguments: of the command line; without --config FILE where they have one.
        environ: variables.
    """

    title: str
    tool: str
    status: int
    said: str
    config: str = ""
    arguments: tuple[str, ...] = ("--check-config",)
    environ: dict[str, str] = field(default_factory=dict)


LISTS, GEOIP, BACKUP, DETECTOR = MODULES
WITHOUT_SERVERS = [
    Mistake(
        "a misspelt key", LISTS, 78, "FILE:2: unknown key 'max_shrin'; did you mean 'max_shrink'?",
        "hold_days = 7\nmax_shrin = 0.1\n",
    ),
    Mistake(
        "a key of another tool", LISTS, 78, "FILE:1: unknown key 'tables'; allowed: ca_file,",
        "[tables]\n",
    ),
    Mistake(
        "a number in quotes", LISTS, 78, "FILE:1: min_rows: Expected int, got str",
        'min_rows = "5"\n',
    ),
    Mistake(
        "a text without quotes", LISTS, 78, "FILE:1: Invalid value; a text needs quotes",
        "statsd = localhost:8125\n",
    ),
    Mistake(
        "a comma too many", BACKUP, 78, "FILE:2: JSON is malformed: trailing comma in object",
        '{"ver": 0,\n}',
    ),
    Mistake(
        "a misspelt policy", BACKUP, 78,
        "FILE:2: tables: accounts: expected 'public', 'private', 'both', 'none' or 'gone'; did you"
        " mean 'public'?", '[tables]\naccounts = "publik"\n',
    ),
    Mistake(
        "a misspelt key of a table", BACKUP, 78,
        "FILE:2: tables: fastpath: chunkby: unknown key; did you mean 'chunk_by'?",
        '[tables]\nfastpath = { policy = "public", chunkby = "month" }\n',
    ),
    Mistake(
        "months of no column", BACKUP, 78,
        "FILE:1: tables: t: chunk_by = 'month' needs a column",
        '[tables]\nt = { policy = "public", chunk_by = "month" }\n',
    ),
    Mistake(
        "a misspelt period", BACKUP, 78, "FILE:1: keep: unknown 'dayly'; did you mean 'daily'?",
        "keep = { dayly = 7 }\n",
    ),
    Mistake(
        "a misspelt choice", BACKUP, 78,
        "FILE:1: action: expected '', 'export' or 'backup'; did you mean 'backup'?",
        'action = "back-up"\n',
    ),
    Mistake(
        "a key ID without its secret", BACKUP, 78,
        "FILE: public_aws_secret_access_key: expected with public_aws_access_key_id, or neither",
        'public_aws_access_key_id = "AKIA"\n',
    ),
    Mistake(
        "an address of HTTP for the database", LISTS, 78,
        "FILE:1: db_uri: expected clickhouse://… or clickhouses://… with a host, and a port, if"
        " any, from 1 to 65535", 'db_uri = "http://localhost:8123"\n',
    ),
    Mistake(
        "a slash in a password", LISTS, 78,
        "FILE:1: db_uri: in the password write / as %2F, ? as %3F and # as %23",
        'db_uri = "clickhouse://api:12/34@localhost/default"\n',
    ),
    Mistake(
        "statsd without a port", LISTS, 78,
        'FILE:1: statsd: expected host:port, [IPv6 address]:port or ""', 'statsd = "localhost"\n',
    ),
    Mistake(
        "a configuration file that is not there", LISTS, 78, "FOLDER/other.conf: no such file",
        arguments=("--config", "FOLDER/other.conf"),
    ),
    Mistake(
        "a misspelt variable", LISTS, 78,
        "OONI_DB_URL: no tool has such a key; did you mean 'db_uri'? (OONI_<KEY> sets a key)",
        environ={"OONI_DB_URL": "clickhouse://localhost/default"},
    ),
    Mistake(
        "a wrong value of a variable", LISTS, 78, "OONI_MAX_SHRINK: Expected float, got str",
        environ={"OONI_MAX_SHRINK": "20%"},
    ),
    Mistake(
        "a misspelt command", BACKUP, 2,
        "ooni-db-backup: unknown command 'restor'; did you mean 'restore'? See ooni-db-backup"
        " --help", arguments=("restor", "accounts"),
    ),
    Mistake(
        "a misspelt option", LISTS, 2,
        "ooni-update-citizenlab: unknown option --dryrun; did you mean '--dry-run'? See"
        " ooni-update-citizenlab --help", arguments=("--dryrun",),
    ),
    Mistake(
        "an argument that is not expected", GEOIP, 2,
        "ooni-download-geoip: unknown command 'now'; allowed: doctor, run; see ooni-download-geoip"
        " --help", arguments=("now",),
    ),
    Mistake(
        "restore of nothing", BACKUP, 2,
        "ooni-db-backup restore: one of the arguments TABLE --all is required; see ooni-db-backup"
        " restore --help", arguments=("restore",),
    ),
    Mistake(
        "a date as others write it", DETECTOR, 2, "; see detector --help",
        arguments=("--reprocess", "--start-date", "31.1.2025"),
    ),
    Mistake(
        "a country by its name", LISTS, 2,
        "--accept 'italy': expected a country's two letters, or global",
        'state_dir = "FOLDER"\nstatsd = ""\ngit_url = "file:///none"\n', ("--accept", "Italy"),
    ),
    Mistake(
        "no bucket", BACKUP, 78, "public_bucket_name is missing: where do the exports go?",
        'state_dir = "FOLDER"\nstatsd = ""\n', ("list",),
    ),
    Mistake(
        "a database that does not answer", LISTS, 69, "Connection refused",
        'db_uri = "clickhouse://localhost:9/x"\nstate_dir = "FOLDER"\nstatsd = ""\n', ("--stdout",),
    ),
    Mistake(
        "an upstream that does not answer", GEOIP, 69, "Connection refused",
        'asn_url = "http://127.0.0.1:9/{year}"\ncc_url = "http://127.0.0.1:9/{month}"\n'
        'state_dir = "FOLDER"\noutput_dir = "FOLDER"\nstatsd = ""\ntotal_time = 0.5\n', (),
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def printed() -> Iterator[list[str]]:
    """The rows of the table, which is written in the end."""
    rows: list[str] = []
    yield rows
    TABLE.parent.mkdir(exist_ok=True)
    head = "| mistake | exit status | what is printed |\n|---|---|---|\n"
    TABLE.write_text(head + "".join(rows))


def row(title: str, status: int, text: str) -> str:
    return f"| {title} | {status} | `{text.replace('|', ' ')}` |\n"


@pytest.mark.parametrize("mistake", WITHOUT_SERVERS, ids=lambda mistake: mistake.title)
def test_a_mistake_is_told_in_one_line(
    mistake: Mistake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    printed: list[str],
) -> None:
    file = tmp_path / "tool.conf"
    file.write_text(mistake.config.replace("FOLDER", str(tmp_path)))
    file.chmod(0o640)
    for name, value in mistake.environ.items():
        monkeypatch.setenv(name, value)
    arguments = [word.replace("FOLDER", str(tmp_path)) for word in mistake.arguments]
    if "--config" not in arguments:
        arguments = ["--config", str(file), *arguments]
    status = run(mistake.tool, arguments)
    output = capsys.readouterr()
    lines = (output.out + output.err).replace(str(file), "FILE").replace(str(tmp_path), "FOLDER")
    last = lines.splitlines()[-1]
    printed.append(row(mistake.title, status, last))
    assert (status, mistake.said in last) == (mistake.status, True), lines
    assert "Traceback" not in lines


def run(tool: str, arguments: list[str]) -> int:
    """Run a command in this process; return its exit status."""
    try:
        status: int = importlib.import_module(MODULES[tool]).main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return status


@dataclass(frozen=True)
class StoredMistake:
    """One that needs a database and a bucket; `keys` are those of the configuration."""

    title: str
    arguments: tuple[str, ...]
    status: int
    said: str
    keys: dict[str, object] = field(default_factory=dict)


WITH_SERVERS = [
    StoredMistake(
        "a misspelt table", ("export", "accountz"), 2,
        "there is no table 'accountz'; did you mean 'accounts'?",
    ),
    StoredMistake(
        "a table that is in no backup", ("restore", "accountz"), 2, "did you mean 'accounts'?"
    ),
    StoredMistake(
        "a bucket that is not there", ("list",), 78,
        "NoSuchBucket: The specified bucket does not exist; create it, or name another one",
        {"public_bucket_name": "no-such-bucket"},
    ),
    StoredMistake(
        "an endpoint where nobody listens", ("list",), 69,
        "EndpointConnectionError: http://127.0.0.1:9 does not answer as a store does; check the"
        " endpoint", {"public_endpoint": "http://127.0.0.1:9"},
    ),
    StoredMistake("a table of which nothing is said", ("run",), 65, "accounts", {"tables": {}}),
]  # fmt: skip


@pytest.fixture
def tool(backup_tool: BackupTool) -> BackupTool:
    backup_tool.database.execute("CREATE TABLE accounts (a UInt8) ENGINE = MergeTree ORDER BY a")
    backup_tool.configure(tables={"accounts": "public"})
    assert backup_tool.run("export")[0] == 0
    return backup_tool


@pytest.mark.parametrize("mistake", WITH_SERVERS, ids=lambda mistake: mistake.title)
def test_a_mistake_about_tables_and_buckets_is_told_in_one_line(
    mistake: StoredMistake, tool: BackupTool, printed: list[str]
) -> None:
    status, log = tool.run(*mistake.arguments, **mistake.keys)
    last = log.splitlines()[-1]
    printed.append(row(mistake.title, status, last))
    assert (status, mistake.said in last) == (mistake.status, True), log


def test_a_secret_that_everybody_may_read_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], printed: list[str]
) -> None:
    file = tmp_path / "tool.conf"
    file.write_text(json.dumps({"db_uri": "clickhouse://api:secret-word@localhost/default"}))
    file.chmod(0o644)
    status = run(LISTS, ["--config", str(file), "--check-config"])
    said = capsys.readouterr().err.replace(str(file), "FILE").rstrip()
    printed.append(row("a password in a file that all may read", status, said))
    assert (status, said) == (
        78,
        "error: FILE: holds db_uri and others may read it; run: chmod o= FILE",
    )


def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], printed: list[str]
) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o555)
    file = tmp_path / "tool.conf"
    file.write_text(f'state_dir = "{folder}"\nstatsd = ""\n')
    with without_privileges(tmp_path):
        status = run(LISTS, ["--config", str(file)])
    said = capsys.readouterr().err.replace(str(tmp_path), "FOLDER").splitlines()[-1]
    printed.append(row("the state directory of another user", status, said))
    assert (status, "FOLDER/state: " in said) == (78, True), said
    assert os.access(folder, os.R_OK)
