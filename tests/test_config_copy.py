"""A configuration file that root alone may read, of which systemd gives the service a copy."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from ooni_common.config import DatabaseConfig, SecretUrl
from ooni_common.config_sources import load_config
from ooni_common.errors import ConfigError
from privileges import without_privileges

URI = "clickhouse://api:correct-horse@db.example/default"


class Config(DatabaseConfig, frozen=True, kw_only=True):
    state_dir: Path = Path("/var/lib/analysis")
    db_uri: SecretUrl = SecretUrl("clickhouse://localhost/default")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file, root's alone."""
    path = tmp_path / "etc" / "tool.conf"
    path.parent.mkdir()
    path.write_text("max_shrink = 0.5")
    path.chmod(0)
    return path


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The copy, which says something else so that tests see what is read."""
    path = tmp_path / "credentials" / "tool.conf"
    path.parent.mkdir()
    path.write_text(f'db_uri = "{URI}"')
    return path


@pytest.fixture
def environ(copy: Path) -> Mapping[str, str]:
    return {"CREDENTIALS_DIRECTORY": str(copy.parent)}


def refusal(file: Path, copy: Path, environ: Mapping[str, str]) -> str:
    """Return the message to a service, without the folder of the file."""
    with without_privileges(copy), pytest.raises(ConfigError) as caught:
        load_config(Config, file, environ=environ)
    return str(caught.value).replace(f"{file.parent}/", "")


def test_a_service_reads_the_copy(file: Path, copy: Path, environ: Mapping[str, str]) -> None:
    with without_privileges(copy):
        config = load_config(Config, file, environ=environ)
        assert load_config(Config, file, chosen_file=file, environ=environ) == config
    assert config.db_uri.reveal() == URI


def test_also_where_root_alone_may_enter_the_folder(
    file: Path, copy: Path, environ: Mapping[str, str]
) -> None:
    file.parent.chmod(0)
    with without_privileges(copy):
        assert load_config(Config, file, environ=environ).db_uri.reveal() == URI


def test_credentials_that_are_not_there_yet_break_nothing(
    tmp_path: Path, copy: Path, environ: Mapping[str, str]
) -> None:
    """An ExecCondition= is told of their folder before it may enter it (systemd 252)."""
    readable = tmp_path / "readable.conf"
    readable.write_text("max_shrink = 0.5")
    copy.parent.chmod(0)
    with without_privileges(readable):
        assert load_config(Config, readable, environ=environ).max_shrink == 0.5


def test_other_credentials_win_over_the_copy_as_over_the_file(
    file: Path, copy: Path, environ: Mapping[str, str]
) -> None:
    (copy.parent / "db_uri").write_text("clickhouse://credential")
    with without_privileges(copy, copy.parent / "db_uri"):
        config = load_config(Config, file, environ=environ)
    assert config.db_uri.reveal() == "clickhouse://credential"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\nmax_shrink = -1\n", "tool.conf:2: max_shrink: Expected float >= 0.0"),
        (b'db_uri = "\xff"', "tool.conf: not UTF-8 text"),
    ],
)
def test_what_is_wrong_in_the_copy_is_said_of_the_file(
    file: Path, copy: Path, environ: Mapping[str, str], content: bytes, message: str
) -> None:
    copy.write_bytes(content)
    assert refusal(file, copy, environ) == message


def test_the_mode_of_the_file_counts_not_that_of_the_copy(
    file: Path, copy: Path, environ: Mapping[str, str]
) -> None:
    copy.chmod(0o444)
    with without_privileges(copy):
        load_config(Config, file, environ=environ)
        gid = os.getegid()
    os.chown(file, 0, gid)
    file.chmod(0o604)  # everybody may read it but the group, which is the service's
    message = refusal(file, copy, environ)
    assert message == "tool.conf: holds db_uri and others may read it; run: chmod o= tool.conf"


@pytest.mark.parametrize("environment", [{}, {"CREDENTIALS_DIRECTORY": "/none"}])
def test_without_a_copy_it_may_not_be_read(
    file: Path, copy: Path, environment: Mapping[str, str]
) -> None:
    assert refusal(file, copy, environment).startswith("tool.conf: Permission denied; run as root")


def test_the_copy_is_of_no_use_for_another_file_of_that_name(
    file: Path, copy: Path, environ: Mapping[str, str], tmp_path: Path
) -> None:
    chosen = tmp_path / "tool.conf"
    chosen.touch(mode=0)
    with without_privileges(copy), pytest.raises(ConfigError, match="Permission denied"):
        load_config(Config, file, chosen_file=chosen, environ=environ)


def test_a_file_that_may_be_read_goes_before_its_copy(
    file: Path, copy: Path, environ: Mapping[str, str]
) -> None:
    file.chmod(0o644)
    with without_privileges(copy):
        assert load_config(Config, file, environ=environ) == Config(max_shrink=0.5)


def test_in_the_place_of_a_missing_file_stand_the_defaults(
    file: Path, copy: Path, environ: Mapping[str, str]
) -> None:
    file.unlink()
    with without_privileges(copy):
        assert load_config(Config, file, environ=environ) == Config()
