"""The command line of a script: its commands, and the arguments that all scripts have."""

import argparse
import enum
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from ooni_common import __version__
from ooni_common.config import Config
from ooni_common.suggestions import did_you_mean
from ooni_common.textfile import METRICS_FILE

C = TypeVar("C", bound=Config)
J = TypeVar("J")  # the job of a script with its configuration, see `run`

DOCTOR = "examine whether a run can succeed"
METAVAR = "COMMAND"
EXIT_STATUS_HELP = """\
exit status:
  0   done, or nothing to do
  2   wrong usage
  65  data was refused, and changed nothing
  69  the upstream, the database or the object store is unavailable
  70  a bug in this program (with a traceback)
  75  another run is at work, or try again later
  78  what only a person can mend: configuration, grants, a server that is too old
"""


class Lock(enum.Enum):
    """Which lock in the state directory a command holds while it changes something.

    This is the one rule for locks. What changes nothing holds none: any command with --dry-run or
    --check, and one that has --confirm without it. Only `RUN` sends metrics of how it goes.
    """

    RUN = "that of a run: it is the script's job, and two can't be at work"
    OF_RUNS = "that of a run, too: it isn't one, but none may be at work meanwhile"
    OWN = "its own: it can be at work beside a run, but not twice"
    NONE = "none: it only looks"


@dataclass(frozen=True)
class Command(Generic[J]):
    """What a script does as `tool NAME …`.

    Attributes:
        function: does it, given a `Job`; raises a `ScriptError` when it can't.
        help: one line.
        arguments: adds those that only this command has.
        lock: which one it holds.
        reports: it sends metrics of what it finds, into a file of its own.
        configures: it writes the configuration file, and so reads none.
    """

    function: Callable[[J], None]
    help: str
    arguments: Callable[[argparse.ArgumentParser], object] = lambda _parser: None
    lock: Lock = Lock.NONE
    reports: bool = False
    configures: bool = False


@dataclass(frozen=True)
class Script(Generic[C]):
    """What stays the same in all runs of a script.

    Attributes:
        name: the prefix of its metrics, and the stem of its files in the state directory.
        command: as it is called.
        description: one line.
        config_type: of its configuration.
        config_file: where that is, unless --config says otherwise.
        metrics_file: describes its metrics.
    """

    name: str
    command: str
    description: str
    config_type: type[C]
    config_file: Path
    metrics_file: Path = METRICS_FILE


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with a command line, and what may have been meant."""

    def error(self, message: str) -> NoReturn:
        """End the process with status 2."""
        explained = self._explained(message)
        see = " See" if explained.endswith("?") else "; see"
        self.exit(2, f"{self.prog}: {explained}{see} {self.prog} --help\n")

    def _explained(self, message: str) -> str:
        if unknown := re.fullmatch(r"unrecognized arguments: (\S+).*", message, re.DOTALL):
            options = [name for action in self._actions for name in action.option_strings]
            word = unknown[1].partition("=")[0]
            if not word.startswith("-"):
                return f"unexpected argument {word!r}"
            return f"unknown option {word}" + self._similar(word, options)
        if unknown := re.search(r"(\S+): invalid choice: '(.*)' \(choose from (.*)\)$", message):
            argument, word = unknown[1], unknown[2]
            choices = re.findall(r"[\w-]+", unknown[3])
            fault = "unknown command" if argument == METAVAR else f"{argument}: unknown value"
            return f"{fault} {word!r}; {did_you_mean(word, choices)}"
        return message

    def _similar(self, word: str, names: Sequence[str]) -> str:
        meant = did_you_mean(word, [name for name in names if name.startswith("--")])
        return f"; {meant}" if meant.startswith("did") else ""


def argument_parser(
    script: Script[C], commands: Mapping[str, Command[J]]
) -> argparse.ArgumentParser:
    """Return the parser of a command line: the script's arguments, then its commands.

    The first command is done when none is named, so its arguments are the script's, too.
    """
    parser = Parser(
        prog=script.command,
        description=script.description,
        epilog=EXIT_STATUS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    default = next(iter(commands))
    common_arguments(parser, script)
    commands[default].arguments(parser)
    parser.add_argument("--version", action="version", version=f"{script.command} {__version__}")
    title = f"commands (without one: {default})"
    parsers = parser.add_subparsers(title=title, dest="command", metavar=METAVAR)
    parser.set_defaults(command=default)
    for name, command in commands.items():
        subparser = parsers.add_parser(
            name, help=command.help, description=command.help, allow_abbrev=False
        )
        if name != default:
            command.arguments(subparser)
        # A flag may stand before the command, and must not be undone by its absence after it.
        subparser.argument_default = argparse.SUPPRESS
        common_arguments(subparser, script)
        if name == default:
            command.arguments(subparser)
    return parser


def common_arguments(parser: argparse.ArgumentParser, script: Script[Any]) -> None:
    """Add the arguments that all scripts have."""
    flag = partial(parser.add_argument, action="store_true")
    add = parser.add_argument
    add("--config", type=Path, metavar="FILE", help=f"default: {script.config_file}")
    flag("--check-config", help="check the configuration, show it with its sources, and end")
    if "db_uri" in script.config_type.__struct_fields__:
        add("--db-uri", metavar="URI", help="database; a password belongs in the configuration")
    flag("--dry-run", help="change nothing; print what would change")
    flag("--force", help="run even if nothing changed, and accept losses beyond the limits")
    flag("--stdout", help="log plainly to standard output")
    add("--textfile", metavar="DIR", help="write metrics for node_exporter's textfile collector")
    flag("-v", "--verbose", help="log each step")


def rollback_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--rollback`."""
    parser.add_argument(
        "--rollback", action="store_true", help="put back what the last update replaced"
    )
