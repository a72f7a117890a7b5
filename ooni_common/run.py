"""Running a script: flags, logging, lock, signals, metrics and exit status.

A script describes itself with a `Script` and has one function that does the work, given a `Job`:

    def main(argv: Sequence[str] | None = None) -> int:
        return execute(SCRIPT, update, argv)
"""

import argparse
import contextlib
import errno
import fcntl
import io
import logging
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TextIO, TypeVar

from ooni_common import __version__
from ooni_common.config import Config, load_config, secrets_of
from ooni_common.doctor import OUT_OF_SOMETHING, cannot_write, check_folder
from ooni_common.errors import ConfigError, RefusedBefore, ScriptError, Stopped, TryAgainLater
from ooni_common.metrics import Metrics
from ooni_common.output import LogHandler, all_written, printable
from ooni_common.textfile import METRICS_FILE, metrics_of, textfile

C = TypeVar("C", bound=Config)
C_co = TypeVar("C_co", bound=Config, covariant=True)

log = logging.getLogger("ooni.run")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
STDERR = 2  # also where sys.stderr is None, because it is closed
LONGEST_ARGUMENT = 4000  # characters, of what a message is about
RUNNING, DONE, FAILED = 1, 0, 2  # the gauge `status`

ROLLBACK = {"rollback": "put back what the last update replaced"}
EXIT_STATUS_HELP = """\
exit status:
  0   done, or nothing to do
  2   wrong usage
  65  the data was refused; nothing was changed
  69  the upstream, the database or the object store is unavailable
  70  a bug in this program (with a traceback)
  75  another run is at work, or try again later
  78  what only a person can mend: configuration, grants, a server that is too old
"""


def _no_arguments(_parser: argparse.ArgumentParser) -> None:
    pass


@dataclass(frozen=True)
class Command:
    """One of the things that a script can do: `tool NAME …`.

    Attributes:
        name: as typed.
        help: one line.
        arguments: declares those that only this command has.
        looks_only: it changes nothing, and so takes no lock and sends no metrics.
        aside: it is not the script's job, so that it has a lock of its own and sends no metrics.
    """

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], object] = _no_arguments
    looks_only: bool = False
    aside: bool = False


ONLY_COMMAND = Command("", "")
DOCTOR = Command("doctor", "examine whether a run can succeed", looks_only=True)


@dataclass(frozen=True)
class Script(Generic[C]):
    """What `execute` has to know of a script.

    `name` is the prefix of its metrics and the stem of its files in the state directory. `flags`
    are those that only it has, with their help; with one of `looking` it changes nothing; `options`
    are flags with a value, with what argparse has to know of them. Of the `commands`, where it has
    any, the first one is done when none is named; `flags` and `options` are this one's. Its
    metrics are in `metrics_file`.
    """

    name: str
    command: str
    description: str
    config_type: type[C]
    config_file: Path
    flags: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    looking: Collection[str] = ()
    commands: Sequence[Command] = ()
    metrics_file: Path = METRICS_FILE


@dataclass(frozen=True)
class Job(Generic[C_co]):
    """One run of a script: what its work is given.

    `flags` are those of its own that were set, `command` is one of its commands and `arguments` are
    that command's, and the script's `options`. It is `attended` where somebody reads along: on a
    terminal, or with --stdout.
    """

    config: C_co
    metrics: Metrics
    signals: "StopSignals"
    user_agent: str
    state_file: Path
    dry_run: bool = False
    force: bool = False
    attended: bool = False
    flags: frozenset[str] = frozenset()
    command: str = ""
    arguments: argparse.Namespace = field(default_factory=argparse.Namespace)


class StopSignals:
    """Turns SIGTERM and SIGINT into `Stopped`; a second one ends the process at once."""

    def __init__(self) -> None:
        self._deferring = False
        self._pending = ""

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals within the block."""
        handlers = {number: signal.signal(number, self._handle) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Hold the signals back within the block, which must be short and not be left half done."""
        outer, self._deferring = self._deferring, True
        try:
            yield
        finally:
            self._deferring = outer
        if self._pending and not outer:
            raise Stopped(self._pending)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        for stop_signal in STOP_SIGNALS:
            signal.signal(stop_signal, signal.SIG_DFL)
        self._pending = signal.Signals(number).name
        if not self._deferring:
            raise Stopped(self._pending)


class LogFormatter(logging.Formatter):
    """Plain lines for people, lines with sd-daemon's `<N>` prefixes for the journal; no secrets."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal
        self.secrets: list[str] = []

    def format(self, record: logging.LogRecord) -> str:
        """Return the message, prefixed on every line: a traceback keeps its priority.

        What a message is about has no line breaks of its own: a name could pretend to be a message.
        """
        if isinstance(record.args, tuple):
            record.args = tuple(map(self._harmless, record.args))
        elif isinstance(record.args, Mapping):
            record.args = {
                printable(str(key)): self._harmless(value) for key, value in record.args.items()
            }
        text = super().format(record)
        for secret in self.secrets:
            text = text.replace(secret, "***")
        if self._journal:
            prefix = f"<{_syslog_priority(record.levelno)}>"
        else:
            prefix = f"{record.levelname.lower()}: " if record.levelno != logging.INFO else ""
        return "\n".join(prefix + line for line in text.splitlines() or [""])

    def _harmless(self, argument: object) -> object:
        """Return an argument without what it may have of secrets, control characters and length."""
        if isinstance(argument, int | float):
            return argument
        text = str(argument)
        shown = text
        for secret in self.secrets:  # before the characters are written in another way
            shown = shown.replace(secret, "***")
        shown = printable(shown)
        if len(shown) > LONGEST_ARGUMENT:
            shown = f"{shown[:LONGEST_ARGUMENT]}… ({len(shown):,} characters)"
        return argument if shown == text else shown


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
    arguments = _argument_parser(script).parse_args(argv)
    formatter = _set_up_logging(to_stdout=arguments.stdout, verbose=arguments.verbose)
    try:
        config = _load(script, arguments)
        formatter.secrets = secrets_of(config)
        if arguments.check_config:
            _show(config)
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


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace a file: readers see the old content or the new one, also after a power cut.

    Raises:
        ConfigError: a folder is in its place.
    """
    temporary = path.with_name(f".{path.name}.new")  # one name, so that a kill leaves one file
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, IsADirectoryError):
            place = path if path.is_dir() else temporary
            raise ConfigError(f"{place}: a folder is in the place of a file; remove it") from None
        if isinstance(error, OSError):
            error.filename = str(path)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on `path`; the kernel releases it when the process dies.

    Raises:
        TryAgainLater: another process holds it.
        ConfigError: it can't be opened.
    """
    safe = os.O_NOFOLLOW | os.O_NONBLOCK  # a link could lead to a file that must not be emptied
    try:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | safe, 0o644)
        except PermissionError:  # made by root, by hand: it can be locked; the pid stays unwritten
            descriptor = os.open(path, os.O_RDONLY | safe)
    except OSError as error:
        if error.errno in OUT_OF_SOMETHING:
            raise
        if error.errno == errno.ELOOP:
            raise ConfigError(f"{path}: a symbolic link is no lock; remove it") from None
        raise ConfigError(f"{path}: {error.strerror}; the lock of a run has to be there") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise ConfigError(f"{path}: it is no file of its own; remove it")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
            raise TryAgainLater(f"another run (pid {pid}) holds {path}") from None
        with contextlib.suppress(OSError):
            os.truncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _argument_parser(script: Script[C]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=script.command,
        description=script.description,
        epilog=EXIT_STATUS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_flags(parser, script, default=False)
    _add_own_flags(parser, script, default=None)
    parser.add_argument("--version", action="version", version=f"{script.command} {__version__}")
    if script.commands:
        default = script.commands[0].name
        title = f"commands (without one: {default})"
        parsers = parser.add_subparsers(title=title, dest="command", metavar="COMMAND")
        for command in script.commands:
            subparser = parsers.add_parser(
                command.name, help=command.help, description=command.help, allow_abbrev=False
            )
            command.arguments(subparser)
            # A flag may stand before the command, and must not be undone by its absence after it.
            _add_flags(subparser, script, default=argparse.SUPPRESS)
            if command.name == default:
                _add_own_flags(subparser, script, default=argparse.SUPPRESS)
        parser.set_defaults(command=default)
    return parser


def _add_flags(parser: argparse.ArgumentParser, script: Script[C], *, default: object) -> None:
    def add(*names: str, **options: Any) -> None:
        if "metavar" not in options:
            options |= {"action": "store_true", "default": default}
        elif default is argparse.SUPPRESS:
            options["default"] = default
        parser.add_argument(*names, **options)

    add("--config", type=Path, metavar="FILE", help=f"default: {script.config_file}")
    add("--check-config", help="check the configuration, show it, and end")
    if "db_uri" in script.config_type.__struct_fields__:
        add("--db-uri", metavar="URI", help="database; a password belongs into the configuration")
    add("--dry-run", help="change nothing; print what would change")
    add("--force", help="go on if nothing is new, or if much is lost")
    add("--stdout", help="log plainly to standard output")
    add("--textfile", metavar="DIR", help="write metrics for node_exporter's textfile collector")
    add("-v", "--verbose", help="log each step")


def _add_own_flags(parser: argparse.ArgumentParser, script: Script[C], *, default: object) -> None:
    """Add what only this script has."""
    for flag, meaning in script.flags.items():
        parser.add_argument(
            f"--{flag}", help=meaning, action="store_true", default=default or False
        )
    for option, details in script.options.items():
        parser.add_argument(f"--{option}", default=default, **details)


def _set_up_logging(*, to_stdout: bool, verbose: bool) -> LogFormatter:
    """Log to standard error or output; ours only, as libraries log URLs with their secrets."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # whatever the locale, no line is lost
    stream = sys.stdout if to_stdout else sys.stderr
    formatter = LogFormatter(journal=not to_stdout and is_journal(stream, os.environ))
    handler = LogHandler(stream)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.CRITICAL, handlers=[handler], force=True)
    logging.getLogger("ooni").setLevel(logging.DEBUG if verbose else logging.INFO)
    return formatter


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Tell whether systemd connected `stream` to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):  # without a file behind it, as in tests; closed
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _syslog_priority(level: int) -> int:
    steps = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
    return next((priority for limit, priority in steps if level >= limit), 7)


def _load(script: Script[C], arguments: argparse.Namespace) -> C:
    flags = {"db_uri": getattr(arguments, "db_uri", None), "textfile_dir": arguments.textfile}
    return load_config(
        script.config_type,
        script.config_file,
        chosen_file=arguments.config,
        flags={key: value for key, value in flags.items() if value is not None},
    )


def _show(config: Config) -> None:
    for name in config.__struct_fields__:
        log.info("%s = %s", name, getattr(config, name))
    log.info("the configuration is valid")


def _run(
    script: Script[C], work: Callable[[Job[C]], None], config: C, arguments: argparse.Namespace
) -> None:
    """Do the work under the lock, with metrics; what changes nothing has neither."""
    signals = StopSignals()
    flags = frozenset(flag for flag in script.flags if getattr(arguments, flag))
    chosen = getattr(arguments, "command", "")
    commands = {command.name: command for command in script.commands}
    command = commands.get(chosen, ONLY_COMMAND)
    looks_only = arguments.dry_run or command.looks_only or not flags.isdisjoint(script.looking)
    job = Job(
        config=config,
        metrics=Metrics(script.name, "" if looks_only or command.aside else config.statsd),
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
            work(job)
            return
        make_writable("state_dir", config.state_dir)
        lock = f"{script.name}.{command.name}.lock" if command.aside else f"{script.name}.lock"
        with locked(config.state_dir / lock):
            report = _nothing if command.aside else _textfile_writer(script, config, job.metrics)
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


def _textfile_writer(script: Script[C], config: Config, metrics: Metrics) -> Callable[[int], None]:
    """Return what writes the metrics into a file, if the configuration names a folder for it.

    A file that can't be written fails no run: that is only logged, with the level that it is given.
    """
    if not config.textfile_dir:
        return _nothing
    path = Path(config.textfile_dir) / f"ooni_{script.name}.prom"
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


def make_writable(key: str, path: Path) -> None:
    """Make a folder if it is missing.

    Raises:
        ConfigError: files can't be written there; `key` is where the configuration names it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte
        if isinstance(error, OSError) and error.errno in OUT_OF_SOMETHING:
            raise
        check_folder(key, path)  # it may know why
        raise ConfigError(cannot_write(key, path)) from None
    check_folder(key, path)
