"""The git server of the tests serves as a forge does, and misbehaves as it is told."""

import gzip
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3

from dev.samples.test_lists import SampleTestLists
from dev.servers.git import GitServer, git_environment

LS_REFS = b"0014command=ls-refs\n0000"


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


def git(
    *arguments: str | Path, protocol: int = 2, timeout: float = 20
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "-c", f"protocol.version={protocol}", *arguments],
        env=git_environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@contextmanager
def running_git(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        ["git", *arguments], env=git_environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def no_thread_left_after() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_ls_remote_is_one_listing_and_no_fetch(
    server: GitServer, lists: SampleTestLists, protocol: int
) -> None:
    listing = git("ls-remote", server.url("test-lists"), protocol=protocol)
    assert f"{lists.head()}\trefs/heads/master\n" in listing.stdout
    assert server.requests[0] == "GET /test-lists.git/info/refs?service=git-upload-pack"
    assert (server.listings(), server.fetches()) == (1, 0)


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_a_shallow_clone_is_one_fetch_and_has_one_commit(
    server: GitServer, lists: SampleTestLists, tmp_path: Path, protocol: int
) -> None:
    copy = tmp_path / "copy"
    git("clone", "--depth=1", server.url("test-lists"), copy, protocol=protocol)
    assert (server.listings(), server.fetches()) == (1, 1)
    assert git("-C", copy, "rev-list", "HEAD").stdout.split() == [lists.head()]
    assert (copy / "lists" / "it.csv").read_bytes() == lists.read("lists/it.csv")


def test_a_partial_clone_is_allowed(server: GitServer, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    url = server.url("test-lists")
    cloned = git("clone", "--depth=1", "--filter=blob:none", "--no-checkout", url, copy)
    assert cloned.returncode == 0
    assert "warning" not in cloned.stderr
    missing = git("-C", copy, "rev-list", "--objects", "--missing=print", "HEAD").stdout
    assert "?" in missing


def test_a_commit_can_be_fetched_by_its_id(
    server: GitServer, lists: SampleTestLists, tmp_path: Path
) -> None:
    git("init", "--quiet", tmp_path)
    url = server.url("test-lists")
    git("-C", tmp_path, "fetch", "--depth=1", url, lists.head())
    assert git("-C", tmp_path, "rev-parse", "FETCH_HEAD").stdout.strip() == lists.head()


def test_an_incremental_fetch_brings_the_new_commit(
    server: GitServer, lists: SampleTestLists, tmp_path: Path
) -> None:
    git("clone", server.url("test-lists"), tmp_path / "copy")
    before = lists.head()
    lists.add_rows("fr", 1)
    server.clear()
    git("-C", tmp_path / "copy", "fetch")
    assert server.fetches() >= 1
    fetched = git("-C", tmp_path / "copy", "rev-list", "origin/master").stdout.split()
    assert fetched[:2] == [lists.head(), before]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_request_bodies_may_be_compressed_and_chunked(
    server: GitServer, lists: SampleTestLists, *, chunked: bool, compressed: bool
) -> None:
    headers = {
        "Content-Type": "application/x-git-upload-pack-request",
        "Git-Protocol": "version=2",
    }
    body = LS_REFS
    if compressed:
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body)
    url = server.url("test-lists") + "/git-upload-pack"
    with urllib3.PoolManager(retries=False) as pool:
        answer = pool.request("POST", url, body=body, headers=headers, chunked=chunked)
    assert lists.head().encode() in answer.data
    assert server.listings() == 1


def test_nothing_can_be_pushed(server: GitServer, lists: SampleTestLists, tmp_path: Path) -> None:
    git("clone", server.url("test-lists"), tmp_path / "copy")
    before = lists.head()
    pushed = git("-C", tmp_path / "copy", "push", "origin", "HEAD~1:refs/heads/other")
    assert pushed.returncode != 0
    assert "403" in pushed.stderr
    assert lists.head() == before


@pytest.mark.parametrize("path", ["/HEAD", "/config", "/objects/info/packs", "/../x"])
def test_files_of_the_repository_are_not_served(server: GitServer, path: str) -> None:
    with urllib3.PoolManager(retries=False) as pool:
        assert pool.request("GET", server.url("test-lists") + path).status in {400, 403, 404}


def test_an_unknown_repository_is_not_found(server: GitServer) -> None:
    listing = git("ls-remote", server.url("nowhere"))
    assert listing.returncode == 128
    assert "not found" in listing.stderr


def test_cleared_requests_are_forgotten(server: GitServer) -> None:
    git("ls-remote", server.url("test-lists"))
    server.clear()
    assert (server.requests, server.listings()) == ([], 0)


def test_a_failing_server_answers_with_the_status_until_it_resumes(server: GitServer) -> None:
    server.fail_with(503)
    for _ in range(2):
        assert "503" in git("ls-remote", server.url("test-lists")).stderr
    server.resume()
    assert git("ls-remote", server.url("test-lists")).returncode == 0


def test_a_server_can_fail_a_number_of_times(server: GitServer) -> None:
    server.fail_with(500, times=2)
    codes = [git("ls-remote", server.url("test-lists")).returncode for _ in range(3)]
    assert codes == [128, 128, 0]


def test_a_hanging_server_answers_when_it_resumes(server: GitServer) -> None:
    server.hang()
    with running_git("ls-remote", server.url("test-lists")) as process:
        server.wait_for_requests(1)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        server.resume()
        assert process.wait(5) == 0


def test_a_pack_can_hang_in_the_middle_and_go_on(server: GitServer, tmp_path: Path) -> None:
    server.hang(after=2_000)
    with running_git("clone", server.url("test-lists"), tmp_path / "copy") as process:
        server.wait_for_requests(3)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        server.resume()
        assert process.wait(10) == 0
    assert (tmp_path / "copy" / "README.md").exists()


def test_a_pack_that_is_cut_off_fails_the_clone(server: GitServer, tmp_path: Path) -> None:
    server.cut(after=2_000)
    cloned = git("clone", server.url("test-lists"), tmp_path / "copy")
    assert cloned.returncode == 128
    assert "early EOF" in cloned.stderr
    assert not (tmp_path / "copy").exists()


def test_listings_work_while_packs_are_cut_off(server: GitServer) -> None:
    server.cut(after=0)
    assert git("ls-remote", server.url("test-lists")).returncode == 0


def test_the_server_stops_at_once_while_clients_wait(
    lists: SampleTestLists, tmp_path: Path
) -> None:
    with no_thread_left_after(), GitServer(lists.repository.parent) as server:
        server.hang(after=2_000)
        copy = tmp_path / "copy"
        with running_git("clone", server.url("test-lists"), copy) as in_pack:
            server.wait_for_requests(3)
            server.hang()
            with running_git("ls-remote", server.url("test-lists")) as before_answer:
                server.wait_for_requests(4)
                start = time.monotonic()
                server.__exit__()
                assert time.monotonic() - start < 1
                assert before_answer.wait(5) != 0
                assert in_pack.wait(5) != 0


def test_waiting_for_requests_that_do_not_come_is_an_error(server: GitServer) -> None:
    with pytest.raises(TimeoutError, match="0 of 1 requests"):
        server.wait_for_requests(1, timeout=0.05)


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
