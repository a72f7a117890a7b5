"""What `init` asks on a terminal, and whether an answer is good."""

import getpass
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

from backup_config import Config
from commands.first_config import FILE
from ooni_common.config_files import read_secret
from ooni_common.config_sources import load_config
from ooni_common.database_uri import with_login
from ooni_common.errors import ConfigError, UsageError
from ooni_common.output import counted, printable, show
from tables.policy import Policy

log = logging.getLogger("ooni.db_backup")

NO_FILE = Path(os.devnull)
CONTENTS = {"public": "public exports", "private": "private backups"}
POLICIES: tuple[Policy, ...] = ("public", "private", "both", "none")
SAFE: Policy = "private"  # what nobody has decided is not published, and not lost


@dataclass(frozen=True)
class Questions:
    """Asks somebody on a terminal.

    Attributes:
        ask: a question, and what an empty answer stands for; returns the answer.
        ask_secretly: the same; the answer is not shown.
    """

    ask: Callable[[str, str], str]
    ask_secretly: Callable[[str], str]

    def until_good(self, question: str, default: str, check: Callable[[str], None]) -> str:
        """Ask until `check` accepts the answer, which raises ConfigError where it does not."""
        while True:
            answer = self.ask(question, default) or default
            try:
                check(answer)
            except ConfigError as error:
                show(f"  {reason_of(error)}")
            else:
                return answer


def with_database(values: Mapping[str, str], questions: Questions) -> dict[str, str]:
    """Return the values and the address of the database; its password is asked for apart."""
    if is_answered("db_uri", values):
        return dict(values)
    default = Config().db_uri.reveal()
    uri = questions.until_good("Database", default, lambda answer: check_value("db_uri", answer))
    user = unquote(urlsplit(uri).username or "")
    if user and urlsplit(uri).password is None:
        uri = with_login(uri, user, questions.ask_secretly(f"Password of {user}"))
    return {**values, "db_uri": uri}


def with_buckets(values: Mapping[str, str], questions: Questions) -> dict[str, str]:
    """Return the values, where the buckets are, and their credentials."""
    answers = dict(values)

    def ask_for(key: str, question: str) -> str:
        if not is_answered(key, answers):
            answers[key] = questions.until_good(
                question, "", lambda answer: check_value(key, answer)
            )
        return answers.get(key, "")

    for side, contents in CONTENTS.items():
        bucket = ask_for(f"{side}_bucket_name", f"Bucket of the {contents} (empty: none)")
        if not bucket:
            continue
        ask_for(f"{side}_endpoint", "Address of its store (empty: AWS)")
        ask_for(f"{side}_region", "Region (empty: the store's own)")
        key = f"{side}_aws_secret_access_key"
        if not is_answered(key, answers) and ask_for(
            f"{side}_aws_access_key_id", "Access key ID (empty: of the environment, or a role)"
        ):
            answers[key] = questions.ask_secretly("Secret access key")
    return {key: value for key, value in answers.items() if value}


def decided(
    names: Sequence[str], said: Mapping[str, Policy], questions: Questions | None
) -> dict[str, Policy]:
    """Return what the file says of tables: what was said, and then what nobody has said.

    Without somebody to ask, these are private: not published, and not lost.
    """
    if not questions:
        if names:
            log.warning("private, as nobody says otherwise: %s", ", ".join(map(printable, names)))
        return {**said, **dict.fromkeys(names, SAFE)}
    if names:
        show(f"{counted(len(names), 'table')} to decide on: {', '.join(POLICIES)}")
    answers = {name: questions.until_good(printable(name), SAFE, check_policy) for name in names}
    return {**said, **cast("dict[str, Policy]", answers)}


def check_policy(answer: str) -> None:
    """Raise ConfigError where an answer is not one of the policies."""
    if answer not in POLICIES:
        raise ConfigError(f"expected {', '.join(POLICIES[:-1])} or {POLICIES[-1]}")


def check_value(key: str, answer: str) -> None:
    """Raise ConfigError where a key can't have this value."""
    if answer and not key.endswith("aws_access_key_id"):  # which goes with its key
        config_of({key: answer})


def config_of(values: Mapping[str, str]) -> Config:
    """Return the configuration that these keys make.

    Raises:
        ConfigError: one of them is wrong.
    """
    flags = {
        key.removesuffix(FILE): read_secret(Path(value)) if key.endswith(FILE) else value
        for key, value in values.items()
    }
    return load_config(Config, NO_FILE, flags=flags, environ={})


def is_answered(key: str, values: Mapping[str, str]) -> bool:
    """Tell whether a key has a value, of its own or in a file."""
    return key in values or key + FILE in values


def reason_of(error: ConfigError) -> str:
    """Return what is wrong with a value that was typed."""
    return str(error).removeprefix("the command line: ").removeprefix(f"{NO_FILE}: ")


def ask(question: str, default: str) -> str:
    """Ask on the terminal.

    Raises:
        UsageError: no answer can come any more.
    """
    sys.stderr.write(f"{question}{f' [{default}]' if default else ''}: ")
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise UsageError("no answer; nothing was written")
    return line.strip()


def ask_secretly(question: str) -> str:
    """Ask for what the terminal must not show.

    Raises:
        UsageError: no answer can come any more.
    """
    try:
        return getpass.getpass(f"{question} (not shown): ", sys.stderr)
    except EOFError:
        raise UsageError("no answer; nothing was written") from None
