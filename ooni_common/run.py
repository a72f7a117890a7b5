"""Running a script: lock, signals, metrics and exit status.

A script has a table of its commands, each with the function that does it, given a `Job`:

    def main(argv: Sequence[str] | None = None) -> int:
        return execute(SCRIPT, {"run": Command(update, "…", lock=Lock.RUN)}, argv)
"""

import argparse
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from ooni_common import __version__
from ooni_common.command_line import Command, Lock, Script, argument_parser
from ooni_common.config import Config, secrets_of
from ooni_common.config_sources import load_config, sources_of
from ooni_common.config_text import config_as_toml
from ooni_common.errors import OUT_OF_SOMETHING, RefusedBefore, ScriptError, Stopped, TryAgainLater
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
Clock = Callable[[], float]  # returns Unix time, seconds
RUNNING, DONE, FAILED = 1, 0, 2  # the gauge `status`


@dataclass(frozen=True)
class Job(Generic[C_co]):
    """One run of a script: what its work is given.

    `command` is the name of one of its commands, `arguments` are what argparse made of the command
    line. It is `attended` where somebody reads along: on a terminal, or with --stdout.
    """

    config: C_co
    metrics: Metrics
    signals: StopSignals
    user_agent: str
    state_file: Path
    dry_run: bool = False
    force: bool = False
    attended: bool = False
    command: str = ""
    arguments: argparse.Namespace = field(default_factory=argparse.Namespace)
    clock: Clock = time.time


def execute(
    script: Script[C],
    commands: Mapping[str, Command[Job[C]]],
    argv: Sequence[str] | None = None,
    clock: Clock = time.time,
) -> int:
    """Do once what the command line says; return the exit status.

    Args:
        script: which one.
        commands: what it can do, by name; the first one is done when none is named.
        argv: the arguments after the program's name; None: those of the process.
        clock: the job's.

    Raises:
        SystemExit: for --help, --version and wrong usage (2).
    """
    with all_written():
        arguments = argument_parser(script, commands).parse_args(argv)
        return _executed(script, commands[arguments.command], arguments, clock)


def _executed(
    script: Script[C], command: Command[Job[C]], arguments: argparse.Namespace, clock: Clock
) -> int:
    formatter = set_up_logging(to_stdout=arguments.stdout, verbose=arguments.verbose)
    try:
        file, chosen = script.config_file, arguments.config
        if command.configures:
            file, chosen = Path(os.devnull), None
        flags = keys_among(arguments)
        config = load_config(script.config_type, file, chosen_file=chosen, flags=flags)
        formatter.secrets = secrets_of(config)
        if arguments.check_config:
            show(f"{configuration_shown(script, config, arguments)}\n# the configuration is valid")
        else:
            _run(script, command, config, arguments, clock)
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
    script: Script[C],
    command: Command[Job[C]],
    config: C,
    arguments: argparse.Namespace,
    clock: Clock,
) -> None:
    """Do the work under the lock, with metrics; what changes nothing has neither."""
    signals = StopSignals()
    lock = command.lock if changes_something(arguments) else Lock.NONE
    reports = command.reports and not arguments.dry_run
    job = Job(
        config=config,
        metrics=Metrics(script.name, config.statsd if reports or lock is Lock.RUN else ""),
        signals=signals,
        user_agent=f"{script.command}/{__version__} (+https://ooni.org)",
        state_file=config.state_dir / f"{script.name}.json",
        dry_run=arguments.dry_run,
        force=arguments.force,
        attended=arguments.stdout or os.isatty(STDERR),
        command=arguments.command,
        arguments=arguments,
        clock=clock,
    )
    with (
        signals.installed(),
        _errors_of_this_machine(),
        contextlib.closing(job.metrics),
        _holding(lock, script, job),
    ):
        if lock is Lock.RUN:
            report = _textfile_writer(script, job, script.name)
            with _measured(job.metrics, report), _errors_of_this_machine():
                command.function(job)
            return
        try:
            command.function(job)
        finally:
            if reports:  # into a file of its own: a run may be at work, and write that of runs
                _textfile_writer(script, job, f"{script.name}-{job.command}")(logging.WARNING)


def changes_something(arguments: argparse.Namespace) -> bool:
    """Tell whether a command may change something, by the flags that decide it."""
    looks_only = arguments.dry_run or getattr(arguments, "check", False)
    return not looks_only and getattr(arguments, "confirm", True)


def _holding(lock: Lock, script: Script[C], job: Job[C]) -> contextlib.AbstractContextManager[None]:
    if lock is Lock.NONE:
        return contextlib.nullcontext()
    make_writable("state_dir", job.config.state_dir)
    of_command = f".{job.command}" if lock is Lock.OWN else ""
    return locked(job.config.state_dir / f"{script.name}{of_command}.lock")


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


def _textfile_writer(script: Script[C], job: Job[C], file: str) -> Callable[[int], None]:
    """Return what writes the metrics into a file, if the configuration names a folder for it.

    A file that can't be written fails no run: that is only logged, with the level that it is given.
    """
    if not job.config.textfile_dir:
        return lambda _level: None
    path = Path(job.config.textfile_dir) / f"ooni_{file}.prom"
    previous = _previous_text(path)

    def write(level: int) -> None:
        try:
            described = metrics_of(script.name, script.metrics_file)
            content = textfile(script.name, described, job.metrics.sent, previous)
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
