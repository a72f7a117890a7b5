"""Mirrors of the test lists: tokens that nobody sees, and repositories of another user."""

import base64
import os
import shutil
import time
from pathlib import Path

import pytest

from citizenlab.git import Git
from citizenlab_harness import ROWS, Updater, updater_of
from conftest import Database as FreshDatabase
from dev.samples.test_lists import SampleTestLists
from dev.servers.git import GitServer
from dev.servers.loopback import Exchange, LoopbackServer
from dev.servers.misbehaving import MisbehavingServer
from ooni_common.errors import Unavailable

TOKEN = "ghp_Zx81kQ3vTn5w"
RECORDING_GIT = """\
#!/bin/sh
tr '\\0' ' ' < /proc/$$/cmdline >> {log}
tr '\\0' '\\n' < /proc/$$/environ >> {log}.environment
exec {git} "$@"
"""


@pytest.fixture
def updater(
    tmp_path: Path, database: FreshDatabase, git: GitServer, capsys: pytest.CaptureFixture[str]
) -> Updater:
    """The updater, configured for the small upstream."""
    return updater_of(tmp_path, database, git, capsys)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A file with a token."""
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


class Redirecting(LoopbackServer):
    """A mirror that has moved."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self._target = target

    def answer(self, exchange: Exchange) -> None:
        """Send the client to another host."""
        exchange.answer(301, headers={"Location": f"{self._target}{exchange.request.target}"})


@pytest.mark.parametrize(
    ("secret", "login"),
    [(TOKEN, f"x-access-token:{TOKEN}"), (f"reader:{TOKEN}", f"reader:{TOKEN}")],
)
def test_a_token_reaches_the_mirror_and_is_in_no_command_line_and_no_log(
    updater: Updater,
    git: GitServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    secret: str,
    login: str,
) -> None:
    (tmp_path / "token").write_text(f"{secret}\n")
    (tmp_path / "token").chmod(0o600)
    folder, log = tmp_path / "bin", tmp_path / "commands"
    folder.mkdir()
    wrapper = folder / "git"
    wrapper.write_text(RECORDING_GIT.format(log=log, git=shutil.which("git")))
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    status, printed = updater.run("-v", git_token_file=str(tmp_path / "token"))
    assert (status, len(updater.live())) == (0, ROWS)
    encoded = base64.b64encode(login.encode()).decode()
    assert {request.headers["Authorization"] for request in git.requests} == {f"Basic {encoded}"}
    states = "".join(path.read_text() for path in updater.state_dir.glob("*.json"))
    for text in (printed, log.read_text(), states):
        assert TOKEN not in text
        assert encoded not in text
    assert "GIT_CONFIG_VALUE_" in Path(f"{log}.environment").read_text()


def test_a_token_goes_along_with_no_redirect(
    updater: Updater, git: GitServer, token_file: Path
) -> None:
    with Redirecting(git.address) as elsewhere:
        keys = {"git_url": f"{elsewhere.address}/test-lists.git", "git_token_file": str(token_file)}
        status, log = updater.run(**keys)
        assert (status, git.requests) == (69, [])
        assert "error: git ls-remote: " in log
        assert elsewhere.requests


def test_a_mirror_that_refuses_the_token_is_unavailable_and_does_not_show_it(
    updater: Updater, git: GitServer, token_file: Path
) -> None:
    git.fail_with(401)
    status, log = updater.run(git_token_file=str(token_file))
    assert (status, len(log.splitlines())) == (69, 1)
    assert TOKEN not in log


@pytest.mark.parametrize("secret", [f"{TOKEN} {TOKEN}", f"{TOKEN}\r\nX-Other: header"])
def test_a_token_of_several_words_is_a_wrong_configuration(
    updater: Updater, token_file: Path, secret: str
) -> None:
    token_file.write_text(secret)
    status, log = updater.run(git_token_file=str(token_file))
    assert status == 78
    assert "git_token: expected one word, or user:password" in log
    assert TOKEN not in log


@pytest.mark.parametrize(
    "url",
    [
        f"https://example.org/x.git?token={TOKEN}",
        f"https://example.org/x.git?{TOKEN}",
        f"https://{TOKEN}@example.org/x.git",
        f"https://reader:{TOKEN}@example.org/x.git",
        f"https://example.org/x.git#{TOKEN}",
    ],
)
def test_a_secret_in_git_url_is_a_wrong_configuration_and_is_not_shown(
    updater: Updater, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L15: git shows its arguments to everybody."""
    for flags in ([], ["--check-config"], ["doctor"], ["-v"]):
        status, log = updater.run(*flags, git_url=url)
        assert (status, len(log.splitlines())) == (78, 1)
        assert f"{updater.config_file}:" in log
        assert "a token belongs in git_token_file" in log
        assert TOKEN not in log
    monkeypatch.setenv("OONI_GIT_URL", url)
    status, log = updater.run()
    assert status == 78
    assert TOKEN not in log


def test_the_time_limit_is_of_the_commands_and_not_of_what_lies_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = tmp_path / "git"
    wrapper.write_text('#!/bin/sh\nsleep "$1"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    git = Git(1)
    git.run("0.6")
    time.sleep(0.6)  # a statement of the database
    git.run("0")
    with pytest.raises(Unavailable, match="not done after 1 s"):
        git.run("0.6")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository away")
def test_a_mirror_on_this_machine_that_another_user_owns_says_so(
    updater: Updater, lists: SampleTestLists
) -> None:
    """L14: the reason was cut off, and it looked as if another run could succeed."""
    for path in (lists.repository, *lists.repository.rglob("*")):
        os.chown(path, 12345, 12345)
    status, log = updater.run(git_url=lists.repository.as_uri())
    assert (status, len(log.splitlines())) == (78, 1)
    assert "dubious ownership" in log
    assert str(lists.repository) in log
    assert "make the user of this run its owner" in log


def test_a_ca_file_that_is_none_is_a_matter_of_the_configuration(
    updater: Updater, tmp_path: Path
) -> None:
    no_certificate = tmp_path / "ca.pem"
    no_certificate.write_text("hello")
    for path, reason in (
        (no_certificate, "holds no certificate in PEM format"),
        (tmp_path / "missing", "No such file or directory"),
    ):
        status, log = updater.run(ca_file=str(path))
        assert (status, log) == (78, f"error: ca_file {path}: {reason}\n")
        status, log = updater.run("doctor")
        assert (status, f"ca_file {path}: {reason}\n" in log) == (78, True)


def test_a_private_ca_is_trusted_when_its_file_is_given(updater: Updater) -> None:
    with MisbehavingServer(tls="private-ca") as server:
        url = f"{server.address}/test-lists.git"
        status, log = updater.run(git_url=url)
        assert (status, "certificate verification failed" in log) == (69, True)
        status, log = updater.run(ca_file=str(server.ca_file))
        assert (status, "not found" in log) == (69, True)
