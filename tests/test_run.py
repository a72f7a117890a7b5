"""Running a script: its flags, exit statuses, log lines, lock, signals and metrics."""

import argparse
import errno
import json
import logging
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from dev.servers.statsd import StatsdListener
from ooni_common import __version__
from ooni_common.command_line import Command, Lock, Script, rollback_argument
from ooni_common.config import Config as CommonConfig
from ooni_common.config import DatabaseConfig, Secret, SecretUrl
from ooni_common.errors import (
    ConfigError,
    DataRefused,
    ScriptError,
    Stopped,
    TryAgainLater,
    Unavailable,
)
from ooni_common.files import locked, write_atomically
from ooni_common.logs import LogFormatter
from ooni_common.output import printable
from ooni_common.run import RUNNING, Job, execute
from ooni_common.textfile import METRICS_FILE
from privileges import without_privileges

ROOT = Path(__file__).parent.parent
AMPLE = 60  # seconds; far more than what is waited for takes, for a machine under load
SECRET = "correct-horse"


class Config(CommonConfig, frozen=True, kw_only=True):
    state_dir: Path
    statsd: str = ""
    token: Secret = Secret("")


C = TypeVar("C", bound=CommonConfig)

METRICS = """
tool = [
    {name = "rows", kind = "gauge", meaning = "Rows.", when = "", exported = "tool_rows"},
    {name = "refused", kind = "counter", meaning = "", when = "", exported = "tool_refused_total"},
    {name = "fetch", kind = "timer", meaning = "", when = "", exported = "tool_fetch_seconds"},
]
"""


class ConfigWithDatabase(DatabaseConfig, frozen=True, kw_only=True):
    state_dir: Path = Path("/nonexistent")
    db_uri: SecretUrl = SecretUrl(f"clickhouse://api:{SECRET}@localhost/default")


@dataclass
class Tool:
    """The script under test and its configuration file."""

    folder: Path

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    @property
    def file(self) -> Path:
        return self.folder / "tool.conf"

    @property
    def metrics_file(self) -> Path:
        return self.folder / "metrics.toml"

    def configure(self, **values: str) -> None:
        """Write the configuration file, in which only the state directory has to be."""
        values = {"state_dir": str(self.state_dir), **values}
        self.file.write_text(json.dumps(values))
        self.file.chmod(0o600)

    def run(self, work: Callable[[Job[Config]], None], *flags: str) -> int:
        """Run `work` in this process."""
        script = Script(
            "tool", "ooni-tool", "Do something.", Config, self.file, metrics_file=self.metrics_file
        )
        return execute(script, {"run": Command(work, "the job", lock=Lock.RUN)}, flags)


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    made = Tool(tmp_path)
    made.configure()
    made.metrics_file.write_text(METRICS + METRICS_FILE.read_text())
    return made


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("ooni")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], root.level, ours.level = before


def nothing(_job: Job[Config]) -> None:
    """Work that is done at once."""


def raising(error: BaseException) -> Callable[[Job[C]], None]:
    def work(_job: Job[C]) -> None:
        raise error

    return work


# --- a script in a process of its own, for signals, locks and the journal ---

PROGRAM = """
import logging, os, signal, subprocess, sys, time
from pathlib import Path
from ooni_common.config import Config, Secret
from ooni_common.errors import *
from ooni_common.output import show
from ooni_common.command_line import Command, Lock, Script
from ooni_common.files import write_atomically
from ooni_common.run import Job, execute

log = logging.getLogger("ooni.tool")

class ToolConfig(Config, frozen=True, kw_only=True):
    state_dir: Path
    statsd: str = ""
    token: Secret = Secret("")

def say(text):
    print(text, flush=True)

def work(job):
{work}

commands = {{"run": Command(work, "the job", lock=Lock.RUN)}}
status = execute(Script("tool", "ooni-tool", "Do something.", ToolConfig, Path(sys.argv[1])),
                 commands, sys.argv[2:])
{after}
sys.exit(status)
"""


@contextmanager
def started(
    tool: Tool,
    work: str,
    *flags: str,
    after: str = "",
    environ: Mapping[str, str] | None = None,
    wrapper: tuple[str, ...] = (),
    output: int = subprocess.PIPE,
    errors: int = subprocess.PIPE,
) -> Iterator[subprocess.Popen[str]]:
    """Run the body of a `work` function in a process, which is killed at the end of the block."""
    program = tool.folder / "program.py"
    body = textwrap.indent(textwrap.dedent(work), "    ")
    program.write_text(PROGRAM.format(work=body, after=after))
    process = subprocess.Popen(
        [*wrapper, sys.executable, str(program), str(tool.file), *flags],
        stdout=output,
        stderr=errors,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def result(
    tool: Tool,
    work: str,
    *flags: str,
    after: str = "",
    environ: Mapping[str, str] | None = None,
    wrapper: tuple[str, ...] = (),
) -> tuple[int, str, str]:
    """Run to the end; return exit status, standard output and error."""
    with started(tool, work, *flags, after=after, environ=environ, wrapper=wrapper) as process:
        output, errors = process.communicate(timeout=AMPLE)
    return process.returncode, output, errors


def result_without_a_reader(
    tool: Tool, work: str, *flags: str, closed: Collection[str]
) -> tuple[int, str]:
    """Run to the end with `closed` streams; return exit status and what the other one got."""
    reading, writing = os.pipe()
    os.close(reading)
    output, errors = (
        writing if name in closed else subprocess.PIPE for name in ("output", "errors")
    )
    held_back = {"PYTHONUNBUFFERED": ""}  # as usually: until the end of the process
    with started(tool, work, *flags, output=output, errors=errors, environ=held_back) as process:
        os.close(writing)
        printed = process.communicate(timeout=AMPLE)
    return process.returncode, "".join(filter(None, printed))


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().rstrip("\n")


# --- exit status and messages ---


def test_a_run_that_does_its_work_ends_with_0_and_says_nothing(
    tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.run(nothing) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DataRefused("lists/it.csv:5: no URL"), 65),
        (Unavailable("https://h/x: HTTP 503 Service Unavailable"), 69),
        (TryAgainLater("another run is at work"), 75),
        (ConfigError("tool.conf:1: url: expected a URL"), 78),
    ],
)
def test_an_error_for_the_operator_is_one_line_and_its_own_status(
    tool: Tool, capsys: pytest.CaptureFixture[str], error: ScriptError, status: int
) -> None:
    assert tool.run(raising(error)) == status
    assert capsys.readouterr() == ("", f"error: {error}\n")


def test_a_bug_ends_with_70_and_a_traceback(tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.run(raising(ZeroDivisionError("division by zero"))) == 70
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: this is a bug in ooni-tool {__version__}, please report it"
    assert lines[1] == "error: Traceback (most recent call last):"
    assert lines[-1] == "error: ZeroDivisionError: division by zero"
    assert all(line.startswith("error: ") for line in lines)


def test_a_full_disk_asks_to_try_again_later(
    tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(_job: Job[Config]) -> None:
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"data")

    assert tool.run(work) == 75
    assert capsys.readouterr().err == "error: No space left on device\n"


def test_too_little_memory_asks_to_try_again_later(
    tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(_job: Job[Config]) -> None:
        bytes(2**62)

    assert tool.run(work) == 75
    assert capsys.readouterr().err == "error: out of memory\n"


def test_too_many_open_files_ask_to_try_again_later(tool: Tool) -> None:
    work = """
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
    files = [open("/dev/null") for _ in range(20)]
    """
    assert result(tool, work) == (75, "", "error: Too many open files: /dev/null\n")


@pytest.mark.parametrize(
    "flags", [("--no-such-flag",), ("--dry",), ("argument",), ("--rollback",), ("--db-uri=x",)]
)
def test_wrong_usage_ends_with_2(
    tool: Tool, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as caught:
        tool.run(nothing, *flags)
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("ooni-tool: unknown option " if flags[0][0] == "-" else "ooni-tool: ")
    assert message.endswith(("; see ooni-tool --help\n", "? See ooni-tool --help\n"))
    assert message.count("\n") == 1


# --- commands ---


def commanded(tool: Tool, *arguments: str) -> Job[Config]:
    """Run a script that has commands; return what its work was given."""
    jobs: list[Job[Config]] = []
    do = jobs.append
    commands = {
        "work": Command(do, "the job", add_check, Lock.RUN),
        "look": Command(do, "look only"),
        "help-out": Command(do, "by hand", lambda parser: parser.add_argument("what"), Lock.OWN),
        "delete": Command(do, "delete something", add_confirm, Lock.OF_RUNS),
    }
    script = Script("tool", "ooni-tool", "", Config, tool.file)
    assert execute(script, commands, arguments) == 0
    return jobs[0]


def add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true")


def add_confirm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--confirm", action="store_true")


def test_without_a_command_the_first_one_is_done(tool: Tool) -> None:
    assert commanded(tool).command == "work"
    assert commanded(tool, "look").command == "look"
    assert commanded(tool, "help-out", "x").arguments.what == "x"


@pytest.mark.parametrize("arguments", [("--dry-run", "work"), ("work", "--dry-run")])
def test_flags_stand_before_or_after_a_command(tool: Tool, arguments: tuple[str, ...]) -> None:
    job = commanded(tool, *arguments)
    assert (job.command, job.dry_run, job.force) == ("work", True, False)


def test_only_the_job_needs_its_lock(tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    tool.state_dir.mkdir()
    with locked(tool.state_dir / "tool.lock"):
        assert commanded(tool, "look").command == "look"
        assert commanded(tool, "help-out", "x").command == "help-out"
        assert commanded(tool, "delete").command == "delete"
        for changes_nothing in (("--check",), ("work", "--check"), ("delete", "--dry-run")):
            commanded(tool, *changes_nothing)
        for changes in (("work",), ("delete", "--confirm")):
            with pytest.raises(AssertionError):
                commanded(tool, *changes)
        commanded(tool, "delete", "--confirm", "--dry-run")
    assert "another run" in capsys.readouterr().err
    with locked(tool.state_dir / "tool.help-out.lock"), pytest.raises(AssertionError):
        commanded(tool, "help-out", "x")


def test_only_the_job_sends_metrics(tool: Tool, statsd: StatsdListener) -> None:
    for arguments in (
        ("look",), ("help-out", "x"), ("work", "--dry-run"), ("--check",), ("delete", "--confirm"),
    ):  # fmt: skip
        commanded(tool, *arguments)
    assert statsd.received() == []
    commanded(tool, "work")
    assert any("tool.status" in line for line in statsd.received())


# --- flags ---


def test_help_says_what_the_script_does_its_flags_and_its_exit_statuses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = Path("/etc/ooni/tool.conf")
    script = Script("tool", "ooni-tool", "Do something.", ConfigWithDatabase, file)
    do: Callable[[Job[ConfigWithDatabase]], None] = raising(AssertionError())
    commands = {"run": Command(do, "the job", rollback_argument)}
    with pytest.raises(SystemExit) as caught:
        execute(script, commands, ["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "Do something." in text
    assert "default: /etc/ooni/tool.conf" in text
    for flag in ("--config FILE", "--check-config", "--db-uri URI", "--dry-run", "--force"):
        assert flag in text
    for flag in ("--rollback", "--stdout", "-v, --verbose", "--version"):
        assert flag in text
    statuses = [int(number) for number in re.findall(r"^ {2}(\d+) ", text, re.MULTILINE)]
    assert statuses == [0, 2, 65, 69, 70, 75, 78]


def test_version_is_that_of_the_package(tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        tool.run(nothing, "--version")
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"ooni-tool {__version__}\n"


def test_the_work_is_given_what_the_command_line_says(tool: Tool) -> None:
    jobs: list[Job[Config]] = []
    assert tool.run(jobs.append) == 0
    assert tool.run(jobs.append, "--force", "--dry-run") == 0
    assert [(job.force, job.dry_run) for job in jobs] == [(False, False), (True, True)]
    assert jobs[0].state_file == tool.state_dir / "tool.json"
    assert jobs[0].user_agent == f"ooni-tool/{__version__} (+https://ooni.org)"


def test_an_argument_of_the_first_command_can_stand_without_it(tool: Tool) -> None:
    script = Script("tool", "ooni-tool", "", Config, tool.file)
    jobs: list[Job[Config]] = []
    commands = {"run": Command(jobs.append, "the job", rollback_argument, Lock.RUN)}
    for argv in (["--rollback"], ["--rollback", "run"], ["run", "--rollback"], ["run"], []):
        assert execute(script, commands, argv) == 0
    assert [job.arguments.rollback for job in jobs] == [True, True, True, False, False]


def test_a_configuration_named_on_the_command_line_is_used(tool: Tool) -> None:
    other = Tool(tool.folder / "other")
    other.folder.mkdir()
    other.configure()
    assert tool.run(nothing, "--config", str(other.file)) == 0
    assert other.state_dir.exists()
    assert not tool.state_dir.exists()


def test_a_wrong_configuration_ends_with_78_before_any_work(
    tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    tool.configure(nonsense="1")
    assert tool.run(raising(AssertionError())) == 78
    assert capsys.readouterr().err == (
        f"error: {tool.file}:1: unknown key 'nonsense'; allowed: state_dir, statsd,"
        " textfile_dir, token, token_file\n"
    )
    assert tool.run(nothing, "--config", "/nonexistent/x.conf") == 78
    assert capsys.readouterr().err == "error: /nonexistent/x.conf: no such file\n"


def test_check_config_shows_the_configuration_without_its_secrets_and_does_no_work(
    tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    tool.configure(token=SECRET, statsd="[::1]:8125")
    assert tool.run(raising(AssertionError()), "--check-config") == 0
    assert capsys.readouterr().out.splitlines() == [
        f'state_dir = "{tool.state_dir}"  # {tool.file}:1',
        f'statsd = "[::1]:8125"  # {tool.file}:1',
        'textfile_dir = ""  # default',
        f'token = "***"  # {tool.file}:1',
        "# the configuration is valid",
    ]
    assert not tool.state_dir.exists()


def test_the_database_of_the_command_line_is_that_of_the_job(
    tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Script("tool", "ooni-tool", "", ConfigWithDatabase, tool.folder / "none.conf")
    argv = ["--check-config", "--db-uri", f"clickhouse://me:{SECRET}@db.example/x"]
    assert execute(script, {"run": Command(raising(AssertionError()), "the job")}, argv) == 0
    shown = 'db_uri = "clickhouse://me:***@db.example/x"  # the command line\n'
    assert shown in capsys.readouterr().out


# --- log lines ---


def log_at_all_levels(_job: Job[Config]) -> None:
    log = logging.getLogger("ooni.tool")
    log.debug("a step")
    log.info("12 rows")
    log.warning("refused\nfor a reason")
    log.error("broken")
    logging.getLogger("urllib3").error("GET /?key=%s", SECRET)


def test_of_the_log_only_what_matters_to_an_operator_is_shown(
    tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    tool.run(log_at_all_levels)
    assert capsys.readouterr() == (
        "",
        "12 rows\nwarning: refused\nwarning: for a reason\nerror: broken\n",
    )


@pytest.mark.parametrize("flag", ["-v", "--verbose"])
def test_verbose_adds_the_steps_but_not_those_of_libraries(
    tool: Tool, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    tool.run(log_at_all_levels, flag)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["debug: a step", "12 rows"]
    assert SECRET not in "".join(lines)


def test_stdout_takes_the_log_there(tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.run(raising(DataRefused("x.csv:1: no URL")), "--stdout") == 65
    assert capsys.readouterr() == ("error: x.csv:1: no URL\n", "")


@pytest.mark.parametrize(
    ("work", "flags"),
    [
        ("show('a line of output')", ()),
        ("[show('a line of output') for _ in range(20_000)]", ()),
        ("log.info('a line of the log')", ("--stdout",)),
        ("[log.info('a line of the log') for _ in range(20_000)]", ("--stdout",)),
        ("", ("--check-config", "--stdout")),
        ("", ("--help",)),
        ("", ("--version",)),
    ],
    ids=["output", "much-output", "log", "long-log", "configuration", "help", "version"],
)
def test_a_closed_pipe_is_no_failure(tool: Tool, work: str, flags: tuple[str, ...]) -> None:
    """As `| head` leaves one; the work goes on."""
    done = f"{work}\nPath(job.config.state_dir, 'done').touch()"
    assert result_without_a_reader(tool, done, *flags, closed=["output"]) == (0, "")
    assert (tool.state_dir / "done").exists() == bool(work)


@pytest.mark.parametrize("lines", [1, 20_000])
def test_a_log_that_nobody_reads_fails_no_run(tool: Tool, lines: int) -> None:
    work = f"[log.info('a line') for _ in range({lines})]; show('done')"
    assert result_without_a_reader(tool, work, closed=["errors"]) == (0, "done\n")
    assert result_without_a_reader(tool, work, closed=["errors", "output"]) == (0, "")
    failing = "raise DataRefused('x.csv:1: no URL')"
    assert result_without_a_reader(tool, failing, closed=["errors"]) == (65, "")


def test_a_disk_without_space_for_the_output_is_a_failure(tool: Tool) -> None:
    with (
        Path("/dev/full").open("w") as full,
        started(
            tool, "show('x')", output=full.fileno(), environ={"PYTHONUNBUFFERED": ""}
        ) as process,
    ):
        assert process.wait(AMPLE) != 0


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_that_are_closed_from_the_start_fail_no_run(tool: Tool, redirection: str) -> None:
    shell = ("/bin/sh", "-c", f'"$@" {redirection}', "sh")
    status, _, _ = result(tool, "show('x'); log.info('y')", wrapper=shell)
    assert status == 0


def test_no_line_is_lost_to_a_locale_or_to_text_that_cannot_be_encoded(tool: Tool) -> None:
    environ = {"PYTHONIOENCODING": "ascii"}
    work = r"log.info('%s → %s', 'rows', '\ud800')"
    expected = "rows \\u2192 \\ud800\n"
    assert result(tool, work, "--stdout", environ=environ) == (0, expected, "")
    assert result(tool, work, environ=environ) == (0, "", expected)
    assert result(tool, r"show('→ \ud800')", environ=environ) == (0, "\\u2192 \\ud800\n", "")


def test_secrets_of_the_configuration_are_masked_in_log_lines_and_tracebacks(
    tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    tool.configure(token=SECRET)

    def work(job: Job[Config]) -> None:
        token = job.config.token.reveal()
        logging.getLogger("ooni.tool").info("asking with %s", token)
        raise ValueError(f"bad answer to {token}") from KeyError(token)

    assert tool.run(work) == 70
    text = capsys.readouterr().err
    assert "asking with ***\n" in text
    assert "KeyError: '***'\n" in text
    assert "ValueError: bad answer to ***\n" in text
    assert SECRET not in text


JOURNAL_WORK = """
    log.debug("a step")
    log.info("12 rows")
    log.warning("refused\\nfor a reason")
    1 / 0
"""


def run_into_pipe(tool: Tool, journal_stream: str, *flags: str) -> list[str]:
    """Return the lines on standard output and error, which are one pipe, as they are one socket
    under systemd; in `journal_stream`, `{}` is the place of the pipe.
    """
    reader, writer = os.pipe()
    status = os.fstat(writer)
    environ = {"JOURNAL_STREAM": journal_stream.format(f"{status.st_dev}:{status.st_ino}")}
    with (
        os.fdopen(reader, encoding="utf-8") as pipe,
        started(tool, JOURNAL_WORK, *flags, environ=environ, output=writer, errors=writer),
    ):
        os.close(writer)
        return pipe.read().splitlines()


def test_in_the_journal_every_line_has_its_priority(tool: Tool) -> None:
    lines = run_into_pipe(tool, "{}", "-v")
    assert lines[:5] == [
        "<7>a step",
        "<6>12 rows",
        "<4>refused",
        "<4>for a reason",
        f"<3>this is a bug in ooni-tool {__version__}, please report it",
    ]
    assert lines[5] == "<3>Traceback (most recent call last):"
    assert len(lines) > 7
    assert all(line.startswith("<3>") for line in lines[5:])


@pytest.mark.parametrize("journal_stream", ["", "1:1", "8:{}"])
def test_outside_of_the_journal_lines_are_plain(tool: Tool, journal_stream: str) -> None:
    lines = run_into_pipe(tool, journal_stream)
    assert lines[:3] == ["12 rows", "warning: refused", "warning: for a reason"]


def test_standard_output_is_plain_also_in_the_journal(tool: Tool) -> None:
    lines = run_into_pipe(tool, "{}", "--stdout")
    assert lines[:2] == ["12 rows", "warning: refused"]


# --- the state directory ---


def test_the_state_directory_is_made(tool: Tool) -> None:
    tool.configure(state_dir=str(tool.folder / "a/b"))
    assert tool.run(nothing) == 0
    assert (tool.folder / "a/b").is_dir()


@pytest.mark.parametrize("path", ["/dev/null", "/dev/null/x", "/proc/ooni"])
def test_a_state_directory_that_cannot_be_is_a_matter_of_the_configuration(
    tool: Tool, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    tool.configure(state_dir=path)
    assert tool.run(raising(AssertionError())) == 78
    assert capsys.readouterr().err == (
        f"error: state_dir {path}: cannot write there; name another folder, or run as the"
        " service's user\n"
    )


def test_a_state_directory_of_another_user_is_a_matter_of_the_configuration(
    tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    tool.file.chmod(0o644)
    tool.state_dir.mkdir(mode=0o555)
    with without_privileges(tool.folder):
        assert tool.run(raising(AssertionError())) == 78
        user = pwd.getpwuid(os.geteuid()).pw_name
    message = capsys.readouterr().err
    assert f"state_dir {tool.state_dir}: {user} cannot write there; run as the" in message
    assert message.endswith(f", or as root: chown {user} {tool.state_dir}\n")


def test_a_lock_that_another_user_has_left_still_works(
    tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Root ran the script by hand once, and then its service must not fail."""
    tool.configure(state_dir=str(tool.folder))
    tool.file.chmod(0o644)
    lock = tool.folder / "tool.lock"
    lock.touch(mode=0o444)
    with without_privileges(tool.folder):
        assert tool.run(lambda _job: None) == 0
        with locked(lock):
            assert tool.run(raising(AssertionError())) == 75
    assert "another run (pid unknown) holds" in capsys.readouterr().err


# --- writing files ---


def test_a_file_is_replaced_and_readable_by_all_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(b"old and longer")
    before = os.umask(0o077)
    try:
        write_atomically(path, b"new")
        write_atomically(tmp_path / "secret", b"", mode=0o600)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in tmp_path.iterdir()) == ["secret", "state.json"]


def test_a_file_that_cannot_be_replaced_keeps_its_content_and_nothing_is_left_behind(
    tool: Tool,
) -> None:
    tool.state_dir.mkdir()
    (tool.state_dir / "tool.json").write_text("old")
    work = """
    import resource
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        write_atomically(job.state_file, bytes(10_000))
    except OSError as error:
        say(f"{error.strerror}: {error.filename}")
    finally:  # what measures the coverage writes a file at the end
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    """
    path = tool.state_dir / "tool.json"
    assert result(tool, work) == (0, f"File too large: {path}\n", "")
    assert path.read_text() == "old"
    assert {file.name for file in tool.state_dir.iterdir()} == {"tool.json", "tool.lock"}


def test_a_state_directory_without_space_asks_to_try_again_later(tool: Tool) -> None:
    mount = ("unshare", "--user", "--map-root-user", "--mount")
    if not shutil.which("unshare") or subprocess.run([*mount, "true"], check=False).returncode:
        pytest.skip("mounting a small file system needs user namespaces")
    tool.state_dir.mkdir()
    work = """
    write_atomically(job.state_file, b"old")
    write_atomically(job.state_file, bytes(200_000))
    """
    after = """
folder = Path(sys.argv[1]).parent / "state"
say((folder / "tool.json").read_text())
say(sorted(os.listdir(folder)))
"""
    small = f'mount -t tmpfs -o size=64k none "{tool.state_dir}" && exec "$@"'
    status, output, errors = result(
        tool, work, after=after, wrapper=(*mount, "sh", "-c", small, "sh")
    )
    assert status == 75
    assert errors == f"error: No space left on device: {tool.state_dir / 'tool.json'}\n"
    assert output.splitlines() == ["old", "['tool.json', 'tool.lock']"]


# --- the lock ---

HOLD = """
say("working")
time.sleep(600)
"""


def test_a_second_run_asks_to_try_again_later_and_names_the_first(
    tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    with started(tool, HOLD) as first:
        assert next_line(first) == "working"
        assert tool.run(raising(AssertionError())) == 75
    lock = tool.state_dir / "tool.lock"
    assert capsys.readouterr().err == f"error: another run (pid {first.pid}) holds {lock}\n"


def test_a_lock_ends_with_its_process_however_it_ends(tool: Tool) -> None:
    with started(tool, HOLD) as first:
        assert next_line(first) == "working"
        first.kill()
        assert first.wait(AMPLE) == -signal.SIGKILL
        assert tool.run(nothing) == 0
    assert tool.run(raising(ZeroDivisionError())) == 70
    assert tool.run(nothing) == 0


def test_a_child_that_outlives_the_run_does_not_hold_the_lock(tool: Tool) -> None:
    work = """
    child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    say(child.pid)
    """
    status, output, _ = result(tool, work)
    try:
        assert status == 0
        assert tool.run(nothing) == 0
    finally:
        os.kill(int(output), signal.SIGKILL)


def test_a_lock_that_cannot_be_taken_is_a_matter_of_the_configuration(
    tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    (tool.state_dir / "tool.lock").mkdir(parents=True)
    assert tool.run(nothing) == 78
    assert f"{tool.state_dir}/tool.lock: Is a directory" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="No such file or directory"), locked(tool.folder / "a/b"):
        pass


def test_the_lock_names_only_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("4294967296\n")
    with locked(path):
        assert path.read_text() == f"{os.getpid()}\n"
        with pytest.raises(TryAgainLater), locked(path):
            pass


def test_a_dry_run_takes_no_lock_and_makes_nothing(tool: Tool) -> None:
    assert tool.run(nothing, "--dry-run") == 0
    assert not tool.state_dir.exists()
    with started(tool, HOLD) as first:
        assert next_line(first) == "working"
        assert tool.run(nothing, "--dry-run") == 0


# --- signals ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("flags", [(), ("--dry-run",)], ids=["run", "dry-run"])
def test_a_signal_ends_the_run_after_its_cleanup(
    tool: Tool, number: signal.Signals, flags: tuple[str, ...]
) -> None:
    work = """
    try:
        say("working")
        try:
            time.sleep(600)
        except Exception:
            say("swallowed")
    finally:
        say("cleaned up")
    """
    with started(tool, work, *flags) as process:
        assert next_line(process) == "working"
        process.send_signal(number)
        output, errors = process.communicate(timeout=AMPLE)
    assert (process.returncode, output) == (75, "cleaned up\n")
    assert errors == f"warning: stopped by {number.name}\n"


def test_a_signal_that_another_thread_receives_ends_a_wait_of_the_main_thread(tool: Tool) -> None:
    # As does one that comes after the main thread's last look for signals, just before the wait.
    work = """
    import queue, threading
    def stop():
        time.sleep(0.5)  # too short on a slow machine: the test passes without need
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    threading.Thread(target=stop).start()
    queue.SimpleQueue().get()
    """
    assert result(tool, work) == (75, "", "warning: stopped by SIGTERM\n")


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once(
    tool: Tool, first: signal.Signals, second: signal.Signals
) -> None:
    work = """
    try:
        say("working")
        time.sleep(600)
    finally:
        say("cleaning up")
        time.sleep(600)
    """
    with started(tool, work) as process:
        assert next_line(process) == "working"
        process.send_signal(first)
        assert next_line(process) == "cleaning up"
        process.send_signal(second)
        assert process.wait(AMPLE) == -second


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_signal_waits_for_the_end_of_a_critical_block_and_of_one_around_it(
    tool: Tool, step: int
) -> None:
    work = """
    def done(step):
        if step == int(os.environ["STEP"]):
            os.kill(os.getpid(), signal.SIGTERM)
        say(step)

    with job.signals.deferred():
        done(1)
        with job.signals.deferred():
            done(2)
        done(3)
    say("more work")
    """
    status, output, errors = result(tool, work, environ={"STEP": str(step)})
    assert (status, output, errors) == (75, "1\n2\n3\n", "warning: stopped by SIGTERM\n")


def test_a_failure_in_a_critical_block_counts_more_than_the_signal(tool: Tool) -> None:
    work = """
    with job.signals.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        raise Unavailable("the swap failed")
    """
    assert result(tool, work) == (69, "", "error: the swap failed\n")


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_critical_block_that_waits_for_ever_is_left_after_a_while(
    tool: Tool, number: str
) -> None:
    work = f"""
    from ooni_common import stop_signals
    stop_signals.PATIENCE = 0.2
    with job.signals.deferred():
        os.kill(os.getpid(), signal.{number})
        while True:
            signal.pause()
    """
    status, output, errors = result(tool, work)
    assert (status, output, errors) == (75, "", f"warning: stopped by {number}\n")


def test_what_a_critical_block_does_when_it_is_left_may_hang_no_longer(tool: Tool) -> None:
    work = """
    from ooni_common import stop_signals
    stop_signals.PATIENCE = 0.2
    with job.signals.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            while True:
                signal.pause()
        finally:
            say("left")
            while True:
                signal.pause()
    """
    assert result(tool, work) == (75, "left\n", "warning: stopped by SIGTERM\n")


def test_a_critical_block_without_a_signal_is_like_any_other(tool: Tool) -> None:
    steps: list[str] = []

    def work(job: Job[Config]) -> None:
        with job.signals.deferred():
            steps.append("swapped")
        steps.append("went on")

    assert tool.run(work) == 0
    assert steps == ["swapped", "went on"]


def test_after_a_run_the_signals_are_handled_as_before(tool: Tool) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    assert tool.run(raising(Stopped("SIGTERM"))) == 75
    assert [signal.getsignal(number) for number in numbers] == before


# --- metrics ---


@pytest.fixture
def statsd(tool: Tool, statsd: StatsdListener) -> StatsdListener:
    tool.configure(statsd=statsd.address)
    return statsd


def status_gauges(statsd: StatsdListener) -> list[float]:
    return [value for value, _ in statsd.metrics().get("tool.status", [])]


def test_a_run_reports_its_status_its_duration_and_its_success(
    tool: Tool, statsd: StatsdListener
) -> None:
    def work(job: Job[Config]) -> None:
        job.metrics.gauge("rows", 5)

    assert tool.run(work) == 0
    [(last_success, kind)] = statsd.wait_for("tool.last_success", AMPLE)
    lock = tool.state_dir / "tool.lock"
    assert kind == "g"
    assert lock.stat().st_mtime - 1 <= last_success <= lock.stat().st_mtime + AMPLE
    assert status_gauges(statsd) == [1, 0]
    metrics = statsd.metrics()
    assert metrics["tool.exit_status"] == [(0, "g")]
    assert metrics["tool.rows"] == [(5, "g")]
    assert [kind for _, kind in metrics["tool.run"]] == ["ms"]


class ErrorOfALibrary(Exception):
    status = 503


FAILURES = [
    (ErrorOfALibrary(), 70),
    (DataRefused("a list is broken"), 65),
    (Unavailable("away"), 69),
    (ZeroDivisionError(), 70),
    (Stopped("SIGTERM"), 75),
    (MemoryError(), 75),
    (OSError(errno.ENOSPC, "No space left on device"), 75),
    (ConfigError("no such table"), 78),
]


@pytest.mark.parametrize(("error", "status"), FAILURES)
def test_a_run_that_fails_reports_so_with_its_exit_status(
    tool: Tool, statsd: StatsdListener, error: BaseException, status: int
) -> None:
    assert tool.run(raising(error)) == status
    assert statsd.wait_for("tool.exit_status", AMPLE) == [(status, "g")]
    assert status_gauges(statsd) == [1, 2]
    assert "tool.last_success" not in statsd.metrics()


def test_a_run_that_is_stopped_reports_so_before_its_process_ends(
    tool: Tool, statsd: StatsdListener
) -> None:
    with started(tool, HOLD) as process:
        assert next_line(process) == "working"
        process.terminate()
        assert process.wait(AMPLE) == 75
    assert status_gauges(statsd) == [1, 2]


def test_a_run_that_finds_the_lock_taken_does_not_touch_the_status_of_the_other(
    tool: Tool, statsd: StatsdListener
) -> None:
    tool.state_dir.mkdir()
    with locked(tool.state_dir / "tool.lock"):
        assert tool.run(nothing) == 75
    assert statsd.received() == []


def test_a_dry_run_reports_nothing(tool: Tool, statsd: StatsdListener) -> None:
    def work(job: Job[Config]) -> None:
        job.metrics.gauge("rows", 5)

    assert tool.run(work, "--dry-run") == 0
    assert statsd.received() == []


def test_no_run_leaves_its_sender_of_metrics_behind(tool: Tool, statsd: StatsdListener) -> None:
    assert tool.run(nothing) == 0
    for thread in threading.enumerate():
        if thread.name == "metrics":
            thread.join(AMPLE / 4)
            assert not thread.is_alive()
    assert status_gauges(statsd) == [1, 0]


def test_a_statsd_host_that_does_not_exist_fails_no_run(tool: Tool) -> None:
    tool.configure(statsd="no-such-host.invalid:8125")
    assert tool.run(nothing) == 0


# --- metrics in a file ---


def sending(job: Job[Config]) -> None:
    """Work that sends metrics of each kind."""
    job.metrics.gauge("rows", 5)
    job.metrics.count("refused")
    with job.metrics.timer("fetch"):
        pass


@pytest.fixture
def textfile(tool: Tool) -> Path:
    """Return the file of the tool, in a folder that its configuration names."""
    folder = tool.folder / "textfiles"
    folder.mkdir()
    tool.configure(textfile_dir=str(folder))
    return folder / "ooni_tool.prom"


def samples(path: Path) -> dict[str, float]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_without_statsd_the_metrics_of_a_run_can_go_into_a_file(tool: Tool, textfile: Path) -> None:
    assert tool.run(sending) == 0
    values = samples(textfile)
    assert textfile.stat().st_mode & 0o777 == 0o644
    assert time.time() - AMPLE < values.pop('ooni_last_success_timestamp_seconds{script="tool"}')
    assert 0 < values.pop('ooni_run_last_seconds{script="tool"}') < AMPLE
    assert 0 <= values.pop("tool_fetch_last_seconds") < AMPLE
    assert values == {
        'ooni_status{script="tool"}': 0,
        'ooni_exit_status{script="tool"}': 0,
        'ooni_run_last_calls{script="tool"}': 1,
        "tool_rows": 5,
        "tool_refused_total": 1,
        "tool_fetch_last_calls": 1,
    }


def test_the_metrics_can_go_into_a_file_and_to_statsd(tool: Tool, statsd: StatsdListener) -> None:
    assert tool.run(sending, "--textfile", str(tool.folder)) == 0
    assert samples(tool.folder / "ooni_tool.prom")["tool_rows"] == 5
    assert statsd.wait_for("tool.rows", AMPLE) == [(5, "g")]


def test_the_flag_for_the_file_overrides_the_configuration(tool: Tool, textfile: Path) -> None:
    assert tool.run(sending, "--textfile", "") == 0
    assert not textfile.exists()


@pytest.mark.parametrize(("error", "status"), FAILURES)
def test_a_run_that_fails_writes_so_and_leaves_what_it_has_not_sent(
    tool: Tool, textfile: Path, error: BaseException, status: int
) -> None:
    assert tool.run(sending) == 0
    before = samples(textfile)
    assert tool.run(raising(error)) == status
    after = samples(textfile)
    changed = {name for name in after if after[name] != before.pop(name)}
    assert before == {}
    assert after['ooni_status{script="tool"}'] == 2
    assert after['ooni_exit_status{script="tool"}'] == status
    assert changed - {'ooni_run_last_seconds{script="tool"}'} == {
        'ooni_status{script="tool"}',
        'ooni_exit_status{script="tool"}',
    }


def test_while_a_run_is_at_work_its_file_says_so(tool: Tool, textfile: Path) -> None:
    seen: list[float] = []
    work = lambda _job: seen.append(samples(textfile)['ooni_status{script="tool"}'])  # noqa: E731
    assert tool.run(work) == 0
    assert seen == [RUNNING]


def test_counters_in_the_file_add_up_from_run_to_run(tool: Tool, textfile: Path) -> None:
    for _ in range(3):
        assert tool.run(sending) == 0
    assert samples(textfile)["tool_refused_total"] == 3
    assert samples(textfile)["tool_fetch_last_calls"] == 1


def test_only_the_job_writes_its_metrics_into_the_file(tool: Tool, textfile: Path) -> None:
    tool.state_dir.mkdir()
    assert tool.run(nothing, "--dry-run") == 0
    assert tool.run(nothing, "--check-config") == 0
    for arguments in (("look",), ("help-out", "x")):
        commanded(tool, *arguments)
    with locked(tool.state_dir / "tool.lock"):
        assert tool.run(nothing) == 75
    assert not textfile.exists()
    commanded(tool, "work")
    assert textfile.exists()


@pytest.mark.parametrize("folder", ["no-such-folder", "tool.conf", "\0", "not-mine"])
def test_a_file_that_cannot_be_written_is_a_warning_and_fails_no_run(
    tool: Tool, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    path = tool.folder / folder
    if folder == "not-mine":
        path.mkdir(mode=0o555)
    tool.configure(textfile_dir=str(path))
    tool.file.chmod(0o644)
    with without_privileges(tool.folder):
        assert tool.run(sending) == 0
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 1
    shown = printable(f"{path}/ooni_tool.prom")
    assert warnings[0].startswith(f"warning: metrics are not written to {shown}: ")


@pytest.mark.parametrize("content", [None, b"", b"tool = [", b"\xff", b"tool = [{name = 1}]"])
def test_descriptions_that_cannot_be_read_fail_no_run(
    tool: Tool, textfile: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    tool.metrics_file.unlink()
    if content is not None:
        tool.metrics_file.write_bytes(content)
    assert tool.run(sending) == 0
    assert ("warning: metrics are not written to" in capsys.readouterr().err) == (content != b"")
    assert textfile.exists() == (content == b"")


def test_a_file_that_was_damaged_is_written_anew(tool: Tool, textfile: Path) -> None:
    textfile.write_bytes(b'tool_rows 7\n\xff\0}{" x\ntool_refused_total 1e999\nother 3\n')
    assert tool.run(nothing) == 0
    assert samples(textfile)["tool_rows"] == 7
    assert samples(textfile)["tool_refused_total"] == 0
    assert "other" not in samples(textfile)


def test_what_a_message_is_about_is_shown_also_when_it_is_given_by_name() -> None:
    formatter = LogFormatter(journal=False)
    formatter.secrets = ["sesame"]
    record = logging.LogRecord(
        "x", logging.INFO, "", 0, "%(a)s, %(b)d", ({"a": "\x1b[2J\u202esesame", "b": 7},), None
    )
    assert formatter.format(record) == "\\x1b[2J\\u202e***, 7"
