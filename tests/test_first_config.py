"""`ooni-db-backup init`: what it writes leads to good runs, and is read by nobody else."""

import os
import pty
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import ooni_db_backup
from backup_config import Config
from db_backup_harness import BackupTool
from dev.servers.s3 import KEY, KEY_ID
from ooni_common.config_sources import load_config

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "db-backup/db-backup.conf"
SCRIPT = ROOT / "db-backup/ooni_db_backup.py"
NO_ADDRESS = "expected https://… or http://… with a host, and a port, if any, from 1 to 65535"
NOWHERE = "clickhouse://localhost:1/ooni"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A state directory, where the package has not made one, and no metrics."""
    monkeypatch.setenv("OONI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("OONI_STATSD", "")
    (tmp_path / "state").mkdir()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "written.conf"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    path.chmod(0o600)
    return path


def init(*arguments: str | Path) -> int:
    return ooni_db_backup.main(["init", *map(str, arguments)])


def loaded(path: Path) -> Config:
    return load_config(Config, path, chosen_file=path, environ={})


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def buckets(tool: BackupTool, key_file: Path) -> list[str | Path]:
    """Return the flags that lead to two buckets."""
    tool.keep_private()
    return [
        "--endpoint", tool.s3.endpoint,
        "--public-bucket", tool.bucket_name, "--public-key-id", KEY_ID,
        "--public-key-file", key_file,
        "--private-bucket", tool.private_bucket_name, "--private-key-id", KEY_ID,
        "--private-key-file", key_file,
    ]  # fmt: skip


@pytest.mark.long
def test_what_flags_say_leads_to_a_run_that_succeeds(
    backup_tool: BackupTool, output: Path, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables that nobody speaks of are saved and not published; the others have their defaults."""
    backup_tool.fill("fastpath", 1)
    for name in ("accounts", "sessions", "incidents", "citizenlab_flip"):
        backup_tool.database.execute(f"CREATE TABLE {name} (n UInt8) ENGINE = MergeTree ORDER BY n")
        backup_tool.database.execute(f"INSERT INTO {name} VALUES (1)")
    flags = [*buckets(backup_tool, key_file), "--db-uri", backup_tool.database.uri]
    said = ["--public", "incidents", "--private", "incidents", "--none", "sess*"]
    assert init(*flags, *said, "--output", output) == 0
    printed = capsys.readouterr()
    assert "private, as nobody says otherwise: accounts\n" in printed.err
    assert f"wrote {output} (mode 0" in printed.out
    assert loaded(output).tables == {
        "incidents": "both", "sess*": "none", "accounts": "private",
    }  # fmt: skip
    assert KEY not in output.read_text()  # it stays in its file
    assert mode_of(output) & 0o007 == 0
    for command in ("--check-config", "doctor", "run"):
        status = ooni_db_backup.main(["--config", str(output), command])
        assert (status, "FAILED" in capsys.readouterr().out) == (0, False), command
    assert {name.split("_")[0] for name in backup_tool.exports()} == {
        "fastpath", "incidents.csv.zstd",
    }  # fmt: skip
    assert [sorted(one.tables) for one in backup_tool.backups()] == [["accounts", "incidents"]]


def test_a_bucket_that_no_store_can_have_is_refused_and_nothing_is_written(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init("--public-bucket", "A b", "--db-uri", NOWHERE, "--output", output) == 2
    assert "public_bucket_name: 'A b' can't name a bucket" in capsys.readouterr().err
    assert not output.exists()


def test_credentials_come_from_the_environment_too(
    output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OONI_DB_URI", "clickhouse://backup:correct-horse@localhost:1/ooni")
    monkeypatch.setenv("OONI_PRIVATE_AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("OONI_PRIVATE_AWS_SECRET_ACCESS_KEY", "battery-staple")
    assert init("--private-bucket", "b", "--dry-run", "--output", output) == 0
    assert not output.exists()
    assert init("--private-bucket", "b", "--output", output) == 0
    printed = capsys.readouterr()
    assert "correct-horse" not in printed.out + printed.err
    assert "battery-staple" not in printed.out + printed.err
    assert 'private_aws_secret_access_key = "***"' in printed.out
    assert 'db_uri = "clickhouse://backup:***@localhost:1/ooni"' in printed.out
    config = loaded(output)
    assert config.private_aws_secret_access_key.reveal() == "battery-staple"
    assert "correct-horse" in config.db_uri.reveal()
    assert mode_of(output) & 0o007 == 0


def test_without_a_database_it_writes_what_it_was_told(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--db-uri", NOWHERE, "--public-bucket", "ooni-data", "--private", "accounts"]
    assert init(*flags, "--output", output) == 0
    assert "Connection refused" in capsys.readouterr().err
    config = loaded(output)
    assert (config.action, config.public_bucket_name, config.tables) == (
        "export", "ooni-data", {"accounts": "private"},
    )  # fmt: skip


def test_where_nothing_is_exported_all_tables_are_saved(
    backup_tool: BackupTool, output: Path
) -> None:
    backup_tool.fill("fastpath", 1)
    flags = ["--db-uri", backup_tool.database.uri, "--private-bucket", "ooni-private"]
    assert init(*flags, "--output", output) == 0
    assert loaded(output).action == "backup"
    assert loaded(output).tables == {"fastpath": "private"}


@pytest.mark.parametrize(
    ("text", "flags", "replaced"),
    [
        (SHIPPED.read_text(), (), True),
        ('public_bucket_name = "mine"\n', (), False),
        ('{"ver": 0}', (), False),
        ('public_bucket_name = "mine"\n', ("--force",), True),
    ],
    ids=["the package's", "TOML", "JSON", "with --force"],
)
def test_only_a_file_without_settings_is_replaced(
    output: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    flags: tuple[str, ...],
    replaced: bool,
) -> None:
    output.write_text(text)
    output.chmod(0o644)
    status = init("--db-uri", NOWHERE, "--public-bucket", "new", "--output", output, *flags)
    assert status == (0 if replaced else 2)
    assert (output.read_text() != text) == replaced
    if replaced:
        assert mode_of(output) == 0o640
    else:
        assert capsys.readouterr().err == (
            f"error: {output} has settings; --force replaces it, --output names another file\n"
        )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--db-uri", NOWHERE], "no bucket: give --public-bucket, --private-bucket or both"),
        (
            ["--db-uri", NOWHERE, "--public-bucket", "b", "--endpoint", "s3.example.org"],
            f"public_endpoint: {NO_ADDRESS}",
        ),
        (
            ["--db-uri", NOWHERE, "--public-bucket", "b", "--public-key-id", "AKIA"],
            "public_aws_secret_access_key: expected with public_aws_access_key_id, or neither",
        ),
        (
            ["--db-uri", NOWHERE, "--public-bucket", "b", "--public", "t", "--none", "t"],
            "'t': --none does not go together with --public or --private",
        ),
        (
            ["--config", "some.conf", "--public-bucket", "b"],
            "init reads no configuration; name the file to write with --output",
        ),
        (["--db-uri-file", "/nonexistent"], "/nonexistent: no such file"),
    ],
)
def test_wrong_usage_is_one_line(
    output: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert init(*flags, "--output", output) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {message}"
    assert not output.exists()


def test_a_table_that_is_not_there_is_wrong_usage(
    backup_tool: BackupTool, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backup_tool.fill("fastpath", 1)
    flags = ["--db-uri", backup_tool.database.uri, "--public-bucket", "b", "--public", "fastpat"]
    assert init(*flags, "--output", output) == 2
    assert "there is no table 'fastpat'; did you mean 'fastpath'?" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "missing/db-backup.conf"
    assert init("--db-uri", NOWHERE, "--public-bucket", "b", "--output", output) == 78
    assert f"{output}: No such file or directory; run as root" in capsys.readouterr().err


def on_a_terminal(dialogue: list[tuple[str, str]], output: Path) -> tuple[int, str]:
    """Run it on a terminal, and answer its questions; return the exit status and what is seen.

    Args:
        dialogue: the questions in their order, and what is typed then.
        output: the file that it writes.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        command = [sys.executable, str(SCRIPT), "init", "--output", str(output)]
        os.execv(sys.executable, command)
    seen = ""
    try:
        while True:
            try:
                seen += os.read(terminal, 4096).decode()
            except OSError:  # it has ended
                break
            if dialogue and seen.endswith(f"{dialogue[0][0]}: "):
                os.write(terminal, f"{dialogue.pop(0)[1]}\n".encode())
    finally:
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), seen


def test_on_a_terminal_it_asks_and_shows_no_secret(backup_tool: BackupTool, output: Path) -> None:
    backup_tool.database.execute("CREATE TABLE accounts (n UInt8) ENGINE = MergeTree ORDER BY n")
    backup_tool.database.execute("CREATE TABLE incidents (n UInt8) ENGINE = MergeTree ORDER BY n")
    status, seen = on_a_terminal(
        [
            ("Database [clickhouse://localhost/default]", backup_tool.database.uri),
            ("Password of default (not shown)", ""),
            ("Bucket of the public exports (empty: none)", backup_tool.bucket_name),
            ("Address of its store (empty: AWS)", "localhost"),
            (f"{NO_ADDRESS}\r\nAddress of its store (empty: AWS)", backup_tool.s3.endpoint),
            ("Region (empty: the store's own)", ""),
            ("Access key ID (empty: of the environment, or a role)", KEY_ID),
            ("Secret access key (not shown)", "battery-staple"),
            ("Bucket of the private backups (empty: none)", ""),
            ("accounts [private]", ""),
            ("incidents [private]", "pub"),
            ("expected public, private, both or none\r\nincidents [private]", "public"),
        ],
        output,
    )
    assert status == 0, seen
    assert "battery-staple" not in seen
    config = loaded(output)
    assert config.tables == {"accounts": "private", "incidents": "public"}
    assert config.public_aws_secret_access_key.reveal() == "battery-staple"
    assert (config.action, config.public_endpoint) == ("export", backup_tool.s3.endpoint)


def test_the_end_of_the_answers_writes_nothing(output: Path) -> None:
    status, seen = on_a_terminal([("Database [clickhouse://localhost/default]", "\x04")], output)
    assert (status, output.exists()) == (2, False), seen


def test_a_broken_configuration_does_not_keep_one_from_writing_another(
    output: Path, tmp_path: Path
) -> None:
    """Neither the file of the default place nor --config is read."""
    done = subprocess.run(
        [
            sys.executable, str(SCRIPT), "init", "--db-uri", NOWHERE, "--public-bucket", "b",
            "--output", str(output),
        ],
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert (done.returncode, output.exists()) == (0, True)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", "no"),
        (SHIPPED.read_text(), "no"),
        ('public_bucket_name = "ooni-data"', "yes"),
        ('[tables]\naccounts = "private"', "yes"),
        ('{"ver": 0, "action": "export", "backup_tables": {"jsonl": "ignore"}}', "yes"),
    ],
)
def test_a_timer_runs_only_what_somebody_has_configured(
    output: Path, capsys: pytest.CaptureFixture[str], text: str, answer: str
) -> None:
    output.write_text(text)
    assert ooni_db_backup.main(["--config", str(output), "is-configured"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{answer}\n"
    assert ("run ooni-db-backup init" in printed.err) == (answer == "no")


def test_a_configuration_that_is_lost_fails_its_runs(
    backup_tool: BackupTool, capsys: pytest.CaptureFixture[str]
) -> None:
    backup_tool.fill("fastpath", 1)
    assert backup_tool.run("export")[0] == 0
    backup_tool.config_file.write_text(f'state_dir = "{backup_tool.folder}/state"')
    assert ooni_db_backup.main(["--config", str(backup_tool.config_file), "is-configured"]) == 0
    assert capsys.readouterr().out == "yes\n"
