"""The git server of the tests serves as a forge does, and misbehaves as it is told."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3

from dev.samples.git import git_environment
from dev.samples.test_lists import SampleTestLists
from dev.servers.git import GitServer

AMPLE = 60  # seconds


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> SampleTestLists:
    sample = SampleTestLists(tmp_path_factory.mktemp("served"))
    sample.create(rows=5_000)
    sample.add_rows("it", 1)
    return sample


@pytest.fixture
def server(lists: SampleTestLists) -> Iterator[GitServer]:
    with GitServer(lists.repository.parent) as running:
        yield running


def git(*arguments: str | Path, protocol: int = 2) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "-c", f"protocol.version={protocol}", *arguments],
        env=git_environment(),
        capture_output=True,
        text=True,
        timeout=AMPLE,
        check=False,
    )


@contextmanager
def running_git(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        ["git", *arguments], env=git_environment(), stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_a_listing_is_counted_apart_from_a_fetch(
    server: GitServer, lists: SampleTestLists, tmp_path: Path, protocol: int
) -> None:
    url, copy = server.url("test-lists"), tmp_path / "copy"
    listing = git("ls-remote", url, protocol=protocol)
    assert f"{lists.head()}\trefs/heads/master\n" in listing.stdout
    assert (server.listings(), server.fetches()) == (1, 0)
    server.clear()
    assert git("clone", "--depth=1", url, copy, protocol=protocol).returncode == 0
    assert (server.listings(), server.fetches()) == (1, 1)
    assert git("-C", copy, "rev-list", "HEAD").stdout.split() == [lists.head()]


@pytest.mark.parametrize("path", ["/HEAD", "/config", "/objects/info/packs", "/../x"])
def test_files_of_the_repository_are_not_served(server: GitServer, path: str) -> None:
    with urllib3.PoolManager(retries=False) as pool:
        assert pool.request("GET", server.url("test-lists") + path).status in {400, 403, 404}


def test_a_failing_server_answers_with_the_status_until_it_resumes(server: GitServer) -> None:
    server.fail_with(503)
    for _ in range(2):
        assert "503" in git("ls-remote", server.url("test-lists")).stderr
    server.resume()
    assert git("ls-remote", server.url("test-lists")).returncode == 0


@pytest.mark.parametrize("after", [None, 2_000], ids=["before the answer", "in the pack"])
def test_a_hanging_server_goes_on_when_it_resumes(
    server: GitServer, tmp_path: Path, after: int | None
) -> None:
    server.hang(after=after)
    with running_git("clone", server.url("test-lists"), tmp_path / "copy") as process:
        server.wait_for_requests(1 if after is None else 3)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        server.resume()
        assert process.wait(AMPLE) == 0
    assert (tmp_path / "copy" / "README.md").exists()


def test_a_pack_that_is_cut_off_fails_the_clone(server: GitServer, tmp_path: Path) -> None:
    server.cut(after=2_000)
    cloned = git("clone", server.url("test-lists"), tmp_path / "copy")
    assert (cloned.returncode, "early EOF" in cloned.stderr) == (128, True)
    assert git("ls-remote", server.url("test-lists")).returncode == 0


@pytest.mark.parametrize("after", [None, 2_000], ids=["before the answer", "in the pack"])
def test_the_server_stops_while_a_client_waits(
    lists: SampleTestLists, tmp_path: Path, after: int | None
) -> None:
    threads = set(threading.enumerate())
    with GitServer(lists.repository.parent) as server:
        server.hang(after=after)
        with running_git("clone", server.url("test-lists"), tmp_path / "copy") as process:
            server.wait_for_requests(1 if after is None else 3)
            server.__exit__()
            assert process.wait(AMPLE) != 0
    assert set(threading.enumerate()) <= threads


def test_gits_environment_has_no_configuration_but_the_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".gitconfig").write_text("[user]\nname = Someone\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    listing = subprocess.run(
        ["git", "config", "--list", "--show-scope"],
        env=git_environment({"user.name": "Other"}),
        cwd=tmp_path,
        capture_output=True,
        check=True,
        text=True,
    )
    assert listing.stdout == "command\tuser.name=Other\n"
