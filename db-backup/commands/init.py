"""`init` writes a first configuration, and `is-configured` tells whether there is one."""

import contextlib
import grp
import logging
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

from backup_command_line import CONFIG_FILE
from backup_config import Config, Side
from commands.first_config import (
    FILE,
    KEYS,
    SECRETS,
    config_text,
    masked,
    sets_nothing,
    undecided,
)
from commands.init_questions import (
    Questions,
    ask,
    ask_secretly,
    config_of,
    decided,
    is_answered,
    reason_of,
    with_buckets,
    with_database,
)
from ooni_common.config_environment import variable_of
from ooni_common.database import connected
from ooni_common.errors import ConfigError, Unavailable, UsageError
from ooni_common.files import write_atomically
from ooni_common.output import show
from ooni_common.run import Job
from store.one_writer import state_file
from tables.inventory import check_names, table_names
from tables.policy import Policy, is_name

log = logging.getLogger("ooni.db_backup")

GROUP = "ooni"  # that of the services
SIDES = get_args(Side)


def init(job: Job[Config]) -> None:
    """Write a configuration file.

    Raises:
        UsageError: something is missing, wrong, or in the way.
        ConfigError: the file can't be written, or the database refuses the login.
    """
    arguments = job.arguments
    path: Path = arguments.output or CONFIG_FILE
    if arguments.config:
        raise UsageError("init reads no configuration; name the file to write with --output")
    refuse_to_overwrite(path, force=job.force)
    questions = Questions(ask, ask_secretly) if sys.stdin and sys.stdin.isatty() else None
    values = given(vars(arguments), os.environ)
    if questions:
        values = with_database(values, questions)
    with usage_errors():
        config_of(values)
    said = policies_given(arguments.public, arguments.private, arguments.none)
    names = names_of_tables(config_of(values), said)
    if questions:
        values = with_buckets(values, questions)
    values = without_unused(values)
    if not values.get("public_bucket_name") and not values.get("private_bucket_name"):
        raise UsageError("no bucket: give --public-bucket, --private-bucket or both")
    with usage_errors():
        config_of(values)
    tables = decided(undecided(names, said, values), said, questions)
    if job.dry_run:
        show(config_text(masked(values), tables))
        return
    mode = write(path, config_text(values, tables))
    show(f"wrote {path} ({mode})")
    user = f"runuser -u {GROUP} -- " if os.geteuid() == 0 else ""
    chosen = "" if path == CONFIG_FILE else f" --config {path}"
    show(f"next: {user}ooni-db-backup doctor{chosen}")


def tell_whether_configured(job: Job[Config]) -> None:
    """Print "no" where a timer has nothing to run yet, else "yes".

    Where this machine has written to a bucket, a configuration has been there: its loss must not
    go unnoticed.
    """
    config = job.config
    buckets = config.public_bucket_name or config.private_bucket_name
    says_anything = buckets or config.action or config.tables or config.backup_tables
    if says_anything or state_file(config.state_dir).exists():
        show("yes")
        return
    log.warning(
        "nothing is exported or backed up: no bucket is configured; run ooni-db-backup init"
    )
    show("no")


def refuse_to_overwrite(path: Path, *, force: bool) -> None:
    """Raise UsageError where a file has settings, unless it may be replaced."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; name another file with --output") from None
    if not force and not sets_nothing(text):
        raise UsageError(f"{path} has settings; --force replaces it, --output names another file")


def given(flags: Mapping[str, object], environ: Mapping[str, str]) -> dict[str, str]:
    """Return key → value as flags and variables give them; flags go first.

    Args:
        flags: of the command line, by name.
        environ: OONI_<KEY> and, for secrets, OONI_<KEY>_FILE.
    """
    in_flags = {"db_uri": flags["db_uri"], "db_uri_file": flags["db_uri_file"]}
    for side in SIDES:
        in_flags |= {
            f"{side}_bucket_name": flags[f"{side}_bucket"],
            f"{side}_endpoint": flags["endpoint"],
            f"{side}_region": flags["region"],
            f"{side}_aws_access_key_id": flags[f"{side}_key_id"],
            f"{side}_aws_secret_access_key_file": flags[f"{side}_key_file"],
        }
    values = {key: str(value) for key, value in in_flags.items() if value}
    for key in (*KEYS, *(key + FILE for key in SECRETS)):
        value = environ.get(variable_of(key))
        if value and not is_answered(key.removesuffix(FILE), values):
            values[key] = value
    return values


def without_unused(values: Mapping[str, str]) -> dict[str, str]:
    """Return the values without those of a bucket that has no name."""
    unnamed = [f"{side}_" for side in SIDES if not values.get(f"{side}_bucket_name")]
    return {key: value for key, value in values.items() if not key.startswith(tuple(unnamed))}


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Say of what was typed that it is wrong usage, and not a wrong configuration."""
    try:
        yield
    except ConfigError as error:
        raise UsageError(reason_of(error)) from None


def names_of_tables(config: Config, said: Mapping[str, Policy]) -> list[str]:
    """Return the names of the database's tables; none where it does not answer.

    Raises:
        UsageError: something was said of a table that is not there.
    """
    try:
        with connected(config) as database:
            names = table_names(database)
    except Unavailable as error:
        log.warning("%s; the file will list no tables but those of the command line", error)
        return []
    check_names(filter(is_name, said), names)
    return names


def policies_given(
    public: Sequence[str], private: Sequence[str], none: Sequence[str]
) -> dict[str, Policy]:
    """Return what the command line says of tables: a public and private one is "both"."""
    said: dict[str, Policy] = {}
    for name in [*public, *private, *none]:
        if name in none and name in (*public, *private):
            raise UsageError(f"{name!r}: --none does not go together with --public or --private")
        both = name in public and name in private
        said[name] = "both" if both else "public" if name in public else "private"
        if name in none:
            said[name] = "none"
    return said


def write(path: Path, text: str) -> str:
    """Write the file so that others can't read it; return its mode and owner.

    One that is there keeps its owner and group. Root gives a new one to the services' group.

    Raises:
        ConfigError: it can't be written.
    """
    try:
        owner, group, mode = ownership(path)
        write_atomically(path, text.encode(), mode=0o600)
        if os.geteuid() == 0:
            os.chown(path, owner, group)
        path.chmod(mode)
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}; run as root, or name another file with --output"
        ) from None
    return f"mode {mode:04o}, of {path.owner()}:{path.group()}"


def ownership(path: Path) -> tuple[int, int, int]:
    """Return owner, group and mode that the file is to have."""
    try:
        status = path.stat()
    except FileNotFoundError:
        try:
            return os.geteuid(), grp.getgrnam(GROUP).gr_gid, 0o640 if os.geteuid() == 0 else 0o600
        except KeyError:  # the package is not installed
            return os.geteuid(), os.getegid(), 0o600
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode) & 0o640
