"""Running a script: lock, signals, metrics and exit status.

A script describes itself with a `Script` and has one function that does the work, given a `Job`:

    def main(argv: Sequence[str] | None = None) -> int:
        return execute(SCRIPT, update, argv)
"""

import argparse
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from ooni_common import __version__
from ooni_common.command_line import ONLY_COMMAND, Command, Script, argument_parser
from ooni_common.config import Config, secrets_of
from ooni_common.config_sources import load_config, sources_of
from ooni_common.config_text import config_as_toml
from ooni_common.doctor import OUT_OF_SOMETHING
from ooni_common.errors import RefusedBefore, ScriptError, Stopped, TryAgainLater
from ooni_common.files import locked, make_writable, write_atomically
from ooni_common.logs import set_up_logging
from ooni_common.metrics import Metrics
from ooni_common.output import all_written, show
from ooni_common.stop_signals import StopSignals
from ooni_common.textfile import metrics_of, textfile

C = TypeVar("C", bound=Config)
C_co = TypeVar("C_co", bound=Config, covariant=True)

log = logging.getLogger("ooni.run")

STDERR = 2  # also where sys.stderr is None, because it is closed
RUNNING, DONE, FAILED = 1, 0, 2  # the gauge `status`


@dataclass(frozen=True)
class Job(Generic[C_co]):
    """One run of a script: what its work is given.

    `flags` are those of its own that were set, `command` is one of its commands and `arguments` are
    that command's, and the script's `options`. It is `attended` where somebody reads along: on a
    terminal, or with --stdout.
    """

    config: C_co
    metrics: Metrics
    signals: StopSignals
    user_agent: str
    state_file: Path
    dry_run: bool = False
    force: bool = False
    attended: bool = False
    flags: frozenset[str] = frozenset()
    command: str = ""
    arguments: argparse.Namespace = field(default_factory=argparse.Namespace)


def execute(
    script: Script[C], work: Callable[[Job[C]], None], argv: Sequence[str] | None = None
) -> int:
    """Run `work` once as the command line says; return the exit status.

    Args:
        script: the script's description.
        work: does the job; raises a `ScriptError` when it can't.
        argv: the arguments after the program's name; None: those of the process.

    Raises:
        SystemExit: for --help, --version and wrong usage (2).
    """
    with all_written():
        return _executed(script, work, argv)


def _executed(script: Script[C], work: Callable[[Job[C]], None], argv: Sequence[str] | None) -> int:
    arguments = argument_parser(script).parse_args(argv)
    formatter = set_up_logging(to_stdout=arguments.stdout, verbose=arguments.verbose)
    try:
        config = _load(script, arguments)
        formatter.secrets = secrets_of(config)
        if arguments.check_config:
            show(f"{configuration_shown(script, config, arguments)}\n# the configuration is valid")
        else:
            _run(script, work, config, arguments)
    except ScriptError as error:
        # A traceback is for bugs; this is for the operator, who is told once.
        log.log(logging.DEBUG if isinstance(error, RefusedBefore) else logging.ERROR, "%s", error)
        return error.status
    except Stopped as stop:
        log.warning("stopped by %s", stop)
        return stop.status
    except Exception:
        log.exception("this is a bug in %s %s, please report it", script.command, __version__)
        return ScriptError.status
    return 0


def _load(script: Script[C], arguments: argparse.Namespace) -> C:
    configures = _command_of(script, arguments).configures
    return load_config(
        script.config_type,
        Path(os.devnull) if configures else script.config_file,
        chosen_file=None if configures else arguments.config,
        flags=keys_among(arguments),
    )


def _command_of(script: Script[C], arguments: argparse.Namespace) -> Command:
    commands = {command.name: command for command in script.commands}
    return commands.get(getattr(arguments, "command", ""), ONLY_COMMAND)


def keys_among(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the keys of the configuration that the command line gives."""
    flags = {"db_uri": getattr(arguments, "db_uri", None), "textfile_dir": arguments.textfile}
    return {key: value for key, value in flags.items() if value is not None}


def configuration_shown(script: Script[C], config: C, arguments: argparse.Namespace) -> str:
    """Return the configuration in force as TOML, and where each value comes from."""
    sources = sources_of(
        script.config_type,
        script.config_file,
        chosen_file=arguments.config,
        flags=keys_among(arguments),
    )
    return config_as_toml(config, sources, config.sections(sources))


def _run(
    script: Script[C], work: Callable[[Job[C]], None], config: C, arguments: argparse.Namespace
) -> None:
    """Do the work under the lock, with metrics; what changes nothing has neither."""
    signals = StopSignals()
    flags = frozenset(flag for flag in script.flags if getattr(arguments, flag))
    command = _command_of(script, arguments)
    looks_only = arguments.dry_run or command.looks_only or not flags.isdisjoint(script.looking)
    reports = command.reports and not arguments.dry_run
    is_silent = (looks_only and not reports) or command.aside
    job = Job(
        config=config,
        metrics=Metrics(script.name, "" if is_silent else config.statsd),
        signals=signals,
        user_agent=f"{script.command}/{__version__} (+https://ooni.org)",
        state_file=config.state_dir / f"{script.name}.json",
        dry_run=arguments.dry_run,
        force=arguments.force,
        attended=arguments.stdout or os.isatty(STDERR),
        flags=flags,
        command=command.name,
        arguments=arguments,
    )
    with signals.installed(), _errors_of_this_machine(), contextlib.closing(job.metrics):
        if looks_only:
            try:
                work(job)
            finally:
                if reports:  # into a file of its own: a run may be at work, and write that of runs
                    file = f"{script.name}-{command.name}"
                    _textfile_writer(script, config, job.metrics, file)(logging.WARNING)
            return
        make_writable("state_dir", config.state_dir)
        lock = f"{script.name}.{command.name}.lock" if command.aside else f"{script.name}.lock"
        with locked(config.state_dir / lock):
            report = (
                _nothing
                if command.aside
                else _textfile_writer(script, config, job.metrics, script.name)
            )
            with _measured(job.metrics, report), _errors_of_this_machine():
                work(job)


@contextlib.contextmanager
def _measured(metrics: Metrics, report: Callable[[int], None]) -> Iterator[None]:
    """Send how the block goes; report at its beginning and at its end."""
    metrics.gauge("status", RUNNING)
    report(logging.DEBUG)
    try:
        with metrics.timer("run"):
            yield
    except BaseException as error:
        metrics.gauge("status", FAILED)
        metrics.gauge("exit_status", _exit_status(error))
        report(logging.WARNING)
        raise
    metrics.gauge("status", DONE)
    metrics.gauge("exit_status", 0)
    metrics.gauge("last_success", int(time.time()))
    report(logging.WARNING)


def _exit_status(error: BaseException) -> int:
    """Return the exit status that `execute` will make of it."""
    return error.status if isinstance(error, ScriptError | Stopped) else ScriptError.status


def _nothing(_level: int) -> None:
    pass


def _textfile_writer(
    script: Script[C], config: Config, metrics: Metrics, file: str
) -> Callable[[int], None]:
    """Return what writes the metrics into a file, if the configuration names a folder for it.

    A file that can't be written fails no run: that is only logged, with the level that it is given.
    """
    if not config.textfile_dir:
        return _nothing
    path = Path(config.textfile_dir) / f"ooni_{file}.prom"
    previous = _previous_text(path)

    def write(level: int) -> None:
        try:
            described = metrics_of(script.name, script.metrics_file)
            content = textfile(script.name, described, metrics.sent, previous)
            write_atomically(path, content)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            log.log(level, "metrics are not written to %s: %s", path, reason)

    return write


def _previous_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):  # there is none yet, or whoever writes says why it can't be read
        return ""


@contextlib.contextmanager
def _errors_of_this_machine() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in OUT_OF_SOMETHING:
            where = f": {error.filename}" if error.filename else ""
            raise TryAgainLater(f"{error.strerror}{where}") from error
        raise
    except MemoryError as error:
        raise TryAgainLater("out of memory") from error
