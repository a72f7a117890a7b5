"""What a script is called with: its flags, its commands, and what they are for."""

import argparse
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from ooni_common import __version__
from ooni_common.config import Config
from ooni_common.suggestions import did_you_mean
from ooni_common.textfile import METRICS_FILE

C = TypeVar("C", bound=Config)

ROLLBACK = {"rollback": "put back what the last update replaced"}
METAVAR = "COMMAND"
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
        reports: it looks only, and sends metrics of its own all the same; none of how it went.
        aside: it is not the script's job, so that it has a lock of its own and sends no metrics.
        configures: it writes the configuration file, and so reads none.
    """

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], object] = _no_arguments
    looks_only: bool = False
    reports: bool = False
    aside: bool = False
    configures: bool = False


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


def argument_parser(script: Script[C]) -> argparse.ArgumentParser:
    """Return what reads a command line; it ends the process for --help and wrong usage."""
    parser = Parser(
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
        parsers = parser.add_subparsers(title=title, dest="command", metavar=METAVAR)
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
    add("--check-config", help="check the configuration, show it with its sources, and end")
    if "db_uri" in script.config_type.__struct_fields__:
        add("--db-uri", metavar="URI", help="database; a password belongs in the configuration")
    add("--dry-run", help="change nothing; print what would change")
    add("--force", help="run even if nothing changed, and accept losses beyond the limits")
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
