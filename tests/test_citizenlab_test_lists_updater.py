"""The updater as a whole: a real git server, a real ClickHouse engine, a real statsd listener."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

import citizenlab_test_lists_updater
from citizenlab.git import MAX_FILE_BYTES
from citizenlab_harness import COUNTRIES, ROWS, Updater, changed_row, updater_of
from conftest import Database as FreshDatabase
from dev.samples.git import git_environment
from dev.samples.test_lists import Entry, SampleTestLists, list_path
from dev.servers.git import GitServer
from dev.servers.statsd import StatsdListener
from ooni_common import __version__
from updater_harness import check_shipped_configuration

AMPLE = 60  # seconds; far more than what is waited for takes, for a machine under load


@pytest.fixture
def updater(
    tmp_path: Path,
    database: FreshDatabase,
    git: GitServer,
    capsys: pytest.CaptureFixture[str],
) -> Updater:
    """The updater, configured for the small upstream."""
    return updater_of(tmp_path, database, git, capsys)


def test_the_first_run_creates_and_fills_the_table(
    updater: Updater, lists: SampleTestLists
) -> None:
    status, log = updater.run()
    assert status == 0
    assert updater.per_cc() == lists.expected.per_cc
    assert f"at commit {lists.head()}\n" in log
    assert f"citizenlab: {ROWS} rows (+{ROWS} -0)" in log
    assert "lists/cis.csv: not loaded, 'cis' is not a country" in log


def test_the_real_lists_are_loaded_and_a_second_run_only_asks_for_the_commit(
    tmp_path: Path,
    updater: Updater,
    real_test_lists: Path,
    real_test_list_counts: Path,
) -> None:
    expected = json.loads(real_test_list_counts.read_text())
    unpack(real_test_lists, tmp_path / "real")
    commit_folder(tmp_path / "real" / "test-lists")
    with GitServer(tmp_path / "real") as server:
        real = {"git_url": server.url("test-lists"), "min_rows": 20_000}
        status, log = updater.run(**real)
        assert status == 0
        assert len(updater.live()) == 38_867
        assert updater.per_cc() == expected["per_cc"]
        assert "refused" not in log
        assert "lists/cis.csv: not loaded" in log
        server.clear()
        with updater.unchanged():
            status, log = updater.run(**real)
        assert (status, server.listings(), server.fetches()) == (0, 1, 0)
        assert "nothing to do: citizenlab holds commit" in log


def unpack(archive: Path, folder: Path) -> None:
    """Write the files of an archive; extractall has a filter only from 3.11.4 on."""
    with tarfile.open(archive) as members:
        for member in members:
            content = members.extractfile(member)
            if content:
                path = folder / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())


def commit_folder(folder: Path) -> None:
    """Turn a folder into a bare repository NAME.git beside it."""
    run = ["git", "-C", str(folder)]
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "All"]):
        subprocess.run([*run, *arguments], env=git_environment(), check=True)
    shutil.move(folder / ".git", folder.with_suffix(".git"))


def test_an_unchanged_upstream_costs_one_listing_and_no_clone(
    updater: Updater, git: GitServer
) -> None:
    updater.run()
    git.clear()
    with updater.unchanged():
        status, _ = updater.run()
    assert (status, git.listings(), git.fetches()) == (0, 1, 0)


def test_no_http_client_is_loaded_by_a_tool_that_asks_git() -> None:
    script = str(Path(citizenlab_test_lists_updater.__file__))
    imported = subprocess.run(
        [sys.executable, "-X", "importtime", script, "--version"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    ).stderr
    assert "citizenlab.git" in imported
    assert "urllib3" not in imported


@pytest.mark.long
@pytest.mark.parametrize("damage", ["DELETE", "INSERT", "DROP"])
def test_a_table_that_somebody_changed_is_loaded_again_from_the_same_commit(
    updater: Updater, damage: str
) -> None:
    updater.run()
    before = updater.live()
    statements = {
        "DELETE": "DELETE FROM citizenlab WHERE cc = 'ru'",
        "INSERT": "INSERT INTO citizenlab VALUES ('x.org', 'http://x.org/', 'ru', 'NEWS')",
        "DROP": "DROP TABLE citizenlab SYNC",
    }
    updater.database.execute(statements[damage])
    assert updater.live() != before
    assert updater.run()[0] == 0
    assert updater.live() == before


def test_a_damaged_state_file_costs_one_clone(updater: Updater, git: GitServer) -> None:
    updater.run()
    (updater.state_dir / "citizenlab_test_lists_updater.json").write_text("{")
    git.clear()
    status, log = updater.run()
    assert (status, git.fetches()) == (0, 1)
    assert "citizenlab: 400 rows, unchanged" in log


def test_the_commit_is_one_of_its_repository_another_one_costs_one_clone(
    updater: Updater, lists: SampleTestLists, git: GitServer
) -> None:
    updater.run()
    shutil.copytree(lists.repository, lists.repository.with_name("mirror.git"))
    git.clear()
    for clones in (1, 1):
        status, log = updater.run(git_url=git.url("mirror"))
        assert (status, git.fetches()) == (0, clones)
    assert "nothing to do" in log


def test_force_clones_again_and_does_not_write_what_is_there_already(
    updater: Updater, git: GitServer
) -> None:
    updater.run()
    git.clear()
    with updater.unchanged():
        status, log = updater.run("--force")
    assert (status, git.fetches()) == (0, 1)
    assert "unchanged" in log


def test_a_new_commit_is_loaded_and_can_be_rolled_back_until_the_next_one(
    updater: Updater, lists: SampleTestLists, statsd: StatsdListener
) -> None:
    updater.run()
    before = updater.live()
    lists.add_rows("ru", 7)
    status, log = updater.run()
    assert (status, len(updater.live())) == (0, ROWS + 7)
    assert "citizenlab: 407 rows (+7 -0)" in log
    status, log = updater.run("--rollback", statsd=statsd.address)
    assert (status, updater.live()) == (0, before)
    assert statsd.metrics()["citizenlab_test_lists_updater.citizenlab_test_list_len"] == [
        (400, "g")
    ]
    assert "rolled back: citizenlab: 400 rows; what was replaced will not be loaded again" in log
    status, log = updater.run()
    assert (status, updater.live()) == (0, before)
    state = updater.state_dir / "citizenlab_test_lists_updater.json"
    state.write_text(state.read_text().replace(f'"{__version__}"', '"1.0"'))  # an upgrade
    assert (updater.run()[0], updater.live()) == (0, before)
    lists.add_rows("it", 1)
    updater.run()
    assert len(updater.live()) == ROWS + 8


def test_a_commit_that_changes_no_list_leaves_the_table_and_its_shadow_alone(
    updater: Updater, lists: SampleTestLists
) -> None:
    updater.run()
    before = updater.live()
    lists.add_rows("ru", 7)
    updater.run()
    lists.commit("Explain", {"README.md": b"# Other words\n"})
    status, log = updater.run()
    assert status == 0
    assert "407 rows, unchanged" in log
    assert updater.run("--rollback")[0] == 0
    assert updater.live() == before


def test_a_dry_run_prints_the_difference_and_writes_nothing(
    updater: Updater, lists: SampleTestLists
) -> None:
    updater.run()
    changed_row(lists, "ru", "http://new.example.org/,NEWS,News Media,2026-01-01,test,")
    with updater.unchanged():
        status, printed = updater.run("--dry-run", "--stdout")
    assert status == 0
    assert "would change: citizenlab: 401 rows (+1 -0)" in printed
    assert "+ new.example.org | http://new.example.org/ | ru | NEWS" in printed


def test_a_dry_run_needs_neither_state_directory_nor_table(updater: Updater) -> None:
    status, printed = updater.run("--dry-run")
    assert status == 0
    assert "citizenlab: would be created with 400 rows" in printed
    assert updater.live() == []
    assert not updater.state_dir.exists()


ROW_FINDINGS = {
    "ftp://a.org/,NEWS,d,d,s,": "the URL does not start with http:// or https://",
    "http://a.org/ x,NEWS,d,d,s,": "the URL has a space or a control character",
    "http://a.org/\\,NEWS,d,d,s,": "the URL has a backslash",
    "http://me@a.org/,NEWS,d,d,s,": "the URL has user information before its host",
    "http://a.org:99999/,NEWS,d,d,s,": "bad port '99999'",
    "http://999.999.999.999/,NEWS,d,d,s,": "bad host '999.999.999.999': not an IPv4 address",
    "http://localhost/,NEWS,d,d,s,": "bad host 'localhost': it has only one label",
    "http://a.org/,NOPE,d,d,s,": "category code 'NOPE' is not in the legend",
    "http://a.org/,NEWS": "2 columns instead of 6",
    "url,category_code,category_description,date_added,source,notes": "the header again",
}


def test_refused_rows_are_logged_with_file_line_and_reason_and_the_rest_is_loaded(
    updater: Updater, lists: SampleTestLists
) -> None:
    updater.run()
    count = len(ROW_FINDINGS)
    expected = []
    for cc, rows in (("ru", list(ROW_FINDINGS)[::2]), ("fr", list(ROW_FINDINGS)[1::2])):
        first = lists.read(list_path(cc)).count(b"\n") + 1
        changed_row(lists, cc, "\n".join(rows))
        expected += [
            f"lists/{cc}.csv:{line}: {ROW_FINDINGS[row]}" for line, row in enumerate(rows, first)
        ]
    with updater.unchanged():
        status, log = updater.run(max_rejected_rows=count - 1, on_broken_file="refuse")
    assert status == 65
    assert [line for line in expected if line not in log] == []
    assert f"error: {count} rows refused in 2 files: " in log
    assert f"; more than max_rejected_rows = {count - 1}" in log
    lists.add_rows("it", 1)
    assert updater.run(on_broken_file="hold")[0] == 0
    assert len(updater.live()) == ROWS + 1


def test_the_second_of_two_equal_urls_is_refused(updater: Updater, lists: SampleTestLists) -> None:
    first = lists.read(list_path("ru")).splitlines()[1].decode()
    changed_row(lists, "ru", first)
    status, log = updater.run()
    assert (status, len(updater.live())) == (0, ROWS)
    assert "the URL is in line 2 already" in log


def test_refuse_brings_back_all_or_nothing(updater: Updater, lists: SampleTestLists) -> None:
    """What makes a file a broken one is in test_citizenlab_lists."""
    updater.run()
    lists.add_rows("it", 3)
    lists.break_file("ru", "quote")
    with updater.unchanged():
        status, log = updater.run(on_broken_file="refuse")
    assert status == 65
    assert "error: 1 list is refused, and so are all others, first lists/ru.csv:" in log
    assert "unbalanced quotes" in log


@pytest.mark.long
@pytest.mark.parametrize(
    ("legend", "mode"),
    [
        (None, "refuse"),
        (None, "hold"),
        (b"", "refuse"),
        (b"Category Description,New Code\n", "refuse"),
        (b"<html></html>", "hold"),
    ],
)
def test_without_a_legend_nothing_is_loaded(
    updater: Updater, lists: SampleTestLists, legend: bytes | None, mode: str
) -> None:
    updater.run()
    lists.commit("Break the legend", {"lists/00-LEGEND-new_category_codes.csv": legend})
    with updater.unchanged():
        status, log = updater.run(on_broken_file=mode)
    assert status == 65
    assert "error: lists/00-LEGEND-new_category_codes.csv:" in log
    assert "legend_file" in log


def test_only_files_directly_in_the_folder_of_lists_are_loaded(
    updater: Updater, lists: SampleTestLists
) -> None:
    content = lists.read(list_path("ru"))
    paths = ("lists/archive/aq.csv", "lists/official/it/it.csv", "lists/official/it/xx.csv")
    lists.commit("Archive lists", dict.fromkeys(paths, content))
    status, log = updater.run()
    assert status == 0
    assert updater.per_cc() == lists.expected.per_cc
    assert log.count("not loaded: lists/archive/aq.csv and 2 more") == 1
    assert "official" not in log


def test_a_table_that_shrinks_too_much_is_refused(updater: Updater, lists: SampleTestLists) -> None:
    updater.run()
    for cc in COUNTRIES:
        lists.remove_rows(cc, 15)
    with updater.unchanged():
        status, log = updater.run()
    assert status == 65
    assert "60 of 400 rows would disappear, more than 10%" in log


@pytest.mark.parametrize("bounds", [{"min_rows": ROWS}, {"max_rows": ROWS}])
def test_totals_outside_the_bounds_are_refused(updater: Updater, bounds: dict[str, int]) -> None:
    status, log = updater.run(**bounds)
    assert status == 65
    assert "citizenlab: 400 rows; between" in log
    assert updater.live() == []


SUBMODULE = "0123456789012345678901234567890123456789"
HOSTILE: dict[str, Entry] = {
    "a symbolic link": ("120000", "lists/xx.csv", b"/etc/passwd"),
    "a symbolic link elsewhere": ("120000", "docs/link", b"../../../etc/shadow"),
    "a submodule": ("160000", "lists/sub", SUBMODULE),
    "a submodule's file": ("100644", ".gitmodules", b'[submodule "x"]\n\turl = http://x/\n'),
    "a name that leads out": ("100644", "lists/../../../outside.csv", b"x"),
    "a .git folder": ("100644", "lists/.git/config", b"[core]\n\tfsmonitor = touch /tmp/x\n"),
    "a .GIT folder": ("100644", ".GIT/config", b"[core]\n"),
    "a hook": ("100755", ".githooks/post-checkout", b"#!/bin/sh\ntouch /tmp/x\n"),
    "a filter": ("100644", ".gitattributes", b"# x\n*.csv filter=evil\n"),
    "a filter in the folder": ("100644", "lists/.gitattributes", b"*.csv text filter=lfs diff\n"),
    "a large file": ("100644", "lists/xx.csv", b"x" * (MAX_FILE_BYTES + 1)),
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "mode"),
    [(kind, "refuse") for kind in HOSTILE]
    + [(kind, "hold") for kind in ("a symbolic link", "a large file")],
)
def test_a_hostile_repository_is_refused(
    updater: Updater, lists: SampleTestLists, kind: str, mode: str
) -> None:
    updater.run()
    lists.commit_tree([HOSTILE[kind]])
    with updater.unchanged():
        status, log = updater.run(on_broken_file=mode)
    assert status == 65
    assert log.splitlines()[-1].startswith(f"error: {HOSTILE[kind][1]}")
    assert log.splitlines()[-1].endswith("nothing is loaded from it")


@pytest.mark.long
def test_a_list_of_two_gigabytes_is_refused_and_fills_neither_memory_nor_disk(
    updater: Updater, lists: SampleTestLists, tmp_path: Path
) -> None:
    updater.run()
    blob = lists.add_sparse_blob(2 * 2**30)
    lists.commit_tree([("100644", "lists/xx.csv", blob)])
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    with updater.unchanged():
        status, log = updater.run()
    assert status == 65
    assert "lists/xx.csv: 2,147,483,648 bytes, 10,485,760 is the most" in log
    after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert after <= max(before, 200 * 1024)
    assert not list(tmp_path.rglob("ooni-citizenlab-*"))


def test_the_programs_and_files_of_the_machine_are_out_of_a_repositorys_reach(
    updater: Updater, lists: SampleTestLists, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hooks, filters and settings of the user would run at a checkout; here nothing is."""
    home, proof = tmp_path / "home", tmp_path / "something-ran"
    hooks = home / "template" / "hooks"
    hooks.mkdir(parents=True)
    run = f"touch {proof}"
    for name in ("post-checkout", "post-merge", "reference-transaction", "fsmonitor-watchman"):
        (hooks / name).write_text(f"#!/bin/sh\n{run}\n")
        (hooks / name).chmod(0o755)
    (home / ".gitconfig").write_text(
        f"[init]\n\ttemplateDir = {home}/template\n"
        f'[core]\n\thooksPath = {hooks}\n\tfsmonitor = "{run}"\n'
        f'[filter "evil"]\n\tsmudge = "{run}"\n\tclean = "{run}"\n\trequired = true\n'
        f'[credential]\n\thelper = "!{run}"\n'
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_ASKPASS", str(hooks / "post-checkout"))
    lists.add_rows("it", 1)
    assert updater.run()[0] == 0
    lists.commit_tree([HOSTILE["a filter"], HOSTILE["a hook"]])
    assert updater.run()[0] == 65
    assert not proof.exists()


def test_an_upstream_that_is_down_is_unavailable(updater: Updater, git: GitServer) -> None:
    updater.run()
    with updater.unchanged():
        git.fail_with(503)
        status, log = updater.run()
        assert status == 69
        assert "error: git ls-remote: unable to access" in log
        assert "503" in log
        status, log = updater.run(git_url="http://127.0.0.1:1/test-lists.git")
        assert status == 69
        status, log = updater.run(git_url="http://nobody.invalid/test-lists.git")
        assert (status, len(log.splitlines())) == (69, 1)


def test_an_upstream_that_asks_for_a_password_is_unavailable(
    updater: Updater, git: GitServer
) -> None:
    git.fail_with(401)
    status, log = updater.run()
    assert status == 69
    assert "terminal prompts disabled" in log or "Authentication failed" in log


def test_a_clone_that_is_cut_off_changes_nothing(
    updater: Updater, lists: SampleTestLists, git: GitServer
) -> None:
    updater.run()
    lists.add_rows("it", 1)
    git.cut(after=2000)
    with updater.unchanged():
        status, log = updater.run()
    assert status == 69
    assert "error: git clone: " in log


def test_a_machine_without_git_is_told_so(
    updater: Updater, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    status, log = updater.run()
    assert (status, log) == (78, "error: git is not installed, or not on PATH\n")


def test_an_empty_repository_is_refused(updater: Updater, tmp_path: Path, git: GitServer) -> None:
    subprocess.run(
        ["git", "init", "-q", "--bare", str(tmp_path / "upstream" / "empty.git")],
        env=git_environment(),
        check=True,
    )
    status, log = updater.run(git_url=git.url("empty"))
    assert status == 65
    assert "the repository has no commits" in log


@pytest.mark.long
@pytest.mark.parametrize("after", [None, 2000], ids=["before an answer", "in the middle"])
def test_a_git_that_hangs_is_ended_with_its_child_processes(
    updater: Updater, lists: SampleTestLists, git: GitServer, after: int | None
) -> None:
    updater.run()
    lists.add_rows("it", 1)
    git.hang(after=after)
    with updater.unchanged():
        status, log = updater.run(git_time_limit=1.5)
    assert status == 69
    assert "not done after 1.5 s, ended it" in log
    assert no_git_is_left(git)


def no_git_is_left(git: GitServer) -> bool:
    """Wait for the processes that were killed: they need not have been at the processor yet."""
    deadline = time.monotonic() + AMPLE
    while git_processes(git):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def git_processes(git: GitServer) -> list[str]:
    """Return the command lines of git clients of this server."""
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if command.startswith(("git", "/usr/lib/git-core")) and git.url("test-lists") in command:
            commands.append(command)
    return commands


def test_sigterm_ends_a_run_and_its_git_and_changes_nothing(
    updater: Updater, lists: SampleTestLists, git: GitServer
) -> None:
    updater.run()
    lists.add_rows("it", 1)
    git.clear()
    git.hang()
    with updater.unchanged():
        process = updater.start()
        git.wait_for_requests(1)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=AMPLE)
    assert (process.returncode, log) == (75, "warning: stopped by SIGTERM\n")
    assert no_git_is_left(git)


def test_a_stop_while_git_is_being_started_ends_it(
    updater: Updater, git: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a busy machine git can have asked the server before its start has returned."""
    git.hang()

    class Stopping(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            git.wait_for_requests(1)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("citizenlab.git.subprocess.Popen", Stopping)
    assert updater.run() == (75, "warning: stopped by SIGTERM\n")
    assert no_git_is_left(git)


def test_a_second_run_at_the_same_time_is_told_to_try_again(
    updater: Updater, lists: SampleTestLists, git: GitServer
) -> None:
    updater.run()
    lists.add_rows("it", 1)
    git.clear()
    git.hang()
    process = updater.start()
    git.wait_for_requests(1)
    status, log = updater.run()
    assert status == 75
    assert f"another run (pid {process.pid}) holds" in log
    git.resume()
    process.communicate(timeout=AMPLE)
    assert process.returncode == 0
    assert len(updater.live()) == ROWS + 1


def test_a_database_that_is_down_is_unavailable(updater: Updater) -> None:
    status, log = updater.run("--db-uri", "clickhouse://127.0.0.1:1/default")
    assert status == 69
    assert log.splitlines()[-1].startswith("error: database: ")
    assert "Traceback" not in log


def test_a_wrong_password_is_a_wrong_configuration(updater: Updater) -> None:
    updater.run()
    with updater.unchanged():
        wrong = updater.database.server.uri("citizenlab", "wrong-password", updater.database.name)
        status, log = updater.run("--force", "--db-uri", wrong)
    assert status == 78
    assert log.splitlines()[-1].startswith("error: database: ")
    assert "Authentication failed" in log
    assert "wrong-password" not in log


def test_a_wrong_configuration_is_refused_before_anything_is_done(
    updater: Updater, git: GitServer
) -> None:
    for keys in (
        {"git_url": "https://user:pw@example.org/x.git"},
        {"git_url": "https://example.org/x.git?token=abcdefgh"},
        {"git_url": "ext::sh -c touch% /tmp/x"},
        {"git_url": "git@github.com:citizenlab/test-lists.git"},
        {"on_broken_file": "ignore"},
        {"max_shrink": 2},
        {"min_row": 1},
    ):
        status, log = updater.run(**keys)
        assert (status, len(log.splitlines())) == (78, 1)
        assert f"{updater.config_file}:" in log
        assert "pw" not in log
        updater = Updater(updater.folder, updater.database, updater.capsys)
        updater.configure(git_url=git.url("test-lists"), min_rows=100)
    assert git.requests == []


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can only be mounted by root")
@pytest.mark.parametrize("size", ["4k", "32k"])
def test_a_full_disk_in_the_temporary_folder_changes_nothing(
    updater: Updater, lists: SampleTestLists, tmp_path: Path, size: str
) -> None:
    updater.run()
    lists.add_rows("it", 1)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(small)], check=True)
    try:
        with updater.unchanged():
            process = updater.start(TMPDIR=str(small))
            _, log = process.communicate(timeout=AMPLE)
        assert (process.returncode, log.count("Traceback")) == (75, 0), log
        assert "o space left" in log.splitlines()[-1]
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_metrics_tell_what_was_done(
    updater: Updater, lists: SampleTestLists, statsd: StatsdListener
) -> None:
    changed_row(lists, "ru", "bad")
    assert updater.run(statsd=statsd.address)[0] == 0
    lists.break_file("it")
    assert updater.run()[0] == 0
    lists.break_file("ru")
    assert updater.run(on_broken_file="refuse")[0] == 65
    received = statsd.metrics()
    prefix = "citizenlab_test_lists_updater."
    assert {name.removeprefix(prefix) for name in received} == {
        "absent_nodes",
        "accepted_at_it",
        "broken_files",
        "citizenlab_test_list_len",
        "fetch_citizen_lab_lists",
        "held_countries",
        "last_success",
        "rejected_rows",
        "run",
        "exit_status",
        "status",
        "update_citizenlab_table",
    }
    values = {name.removeprefix(prefix): sent for name, sent in received.items()}
    assert values["status"] == [(1, "g"), (0, "g"), (1, "g"), (0, "g"), (1, "g"), (2, "g")]
    assert values["citizenlab_test_list_len"] == [(ROWS, "g"), (ROWS, "g")]
    assert values["rejected_rows"] == [(1, "g"), (1, "g"), (0, "g")]
    assert values["broken_files"] == [(0, "g"), (1, "g"), (2, "g")]
    assert values["held_countries"] == [(0, "g"), (1, "g")]
    assert values["accepted_at_it"] == [(0, "g")]
    assert abs(values["last_success"][0][0] - time.time()) < 600
    assert {kind for _, kind in values["run"] + values["fetch_citizen_lab_lists"]} == {"ms"}
    assert received.keys() >= {f"{prefix}run"}


def test_the_shipped_configuration_holds_every_key_with_its_default() -> None:
    check_shipped_configuration(citizenlab_test_lists_updater, "update-citizenlab.conf")
