"""A first configuration: its text, and what it says of each table."""

from collections.abc import Iterable, Mapping
from typing import get_args

from backup_config import Side
from ooni_common.config import SecretUrl
from ooni_common.config_text import toml_key, toml_value
from tables.policy import SHIPPED, Policy, TablePolicy, policy_among, shipped_policies

FILE = "_file"  # at the end of a key that names the file of a secret
HEAD = """\
# Configuration of ooni-db-backup, as `ooni-db-backup init` wrote it. A key in a comment has the
# value shown; `man db-backup.conf` explains all keys."""
DATABASE = """\
# The database. The address can stand in a file of its own: db_uri_file = "/etc/ooni/…"."""
ACTION = """\
# What a run does: "export" (the public exports), "backup" (the private backups), or "" for both."""
BUCKETS: Mapping[Side, str] = {
    "public": """\
# The bucket of the exports, which everybody may read. Credentials: without them, those of the
# environment or of the instance's role.""",
    "private": """\
# The bucket of the backups, which nobody else should read. The server itself writes there, with the
# same credentials.""",
}
KEEP = """\
# Which backups stay. Until this is set, no run deletes any.
#keep = { daily = 7, weekly = 4, monthly = 12, yearly = 5 }"""
TABLES = """\
# What is done with each table: "public" (exported for everybody), "private" (backed up), "both" or
# "none". Comments show the defaults. A table that is not listed fails the run after the listed ones
# are done, so that nobody forgets a new table.
[tables]"""


def keys_of(side: Side) -> list[str]:
    """Return the keys of a bucket, as they stand in the file."""
    names = ("bucket_name", "endpoint", "region", "aws_access_key_id", "aws_secret_access_key")
    return [f"{side}_{name}" for name in names]


KEYS = ("db_uri", *(key for side in get_args(Side) for key in keys_of(side)))
SECRETS = ("db_uri", *(f"{side}_aws_secret_access_key" for side in get_args(Side)))


def action_of(values: Mapping[str, str]) -> str:
    """Return what a run can do: of two buckets, one may have no name."""
    named = [bool(values.get(f"{side}_bucket_name")) for side in get_args(Side)]
    return {(True, False): "export", (False, True): "backup"}.get((named[0], named[1]), "")


def undecided(
    names: Iterable[str], said: Mapping[str, Policy], values: Mapping[str, str]
) -> list[str]:
    """Return the tables of which somebody has to say what is done.

    What the tool exports by default is among them where nothing is exported.

    Args:
        names: of the database's tables.
        said: what was said, by name or pattern.
        values: the keys of the configuration.
    """
    listed = {name: TablePolicy(policy=policy) for name, policy in said.items()}

    def is_decided(name: str) -> bool:
        if policy_among(listed, name):
            return True
        shipped = policy_among(shipped_policies(), name)
        return shipped is not None and not (shipped.exported and action_of(values) == "backup")

    return [name for name in names if not is_decided(name)]


def config_text(values: Mapping[str, str], tables: Mapping[str, Policy]) -> str:
    """Return the file.

    Args:
        values: key → value; the key of a secret can end in `_file`.
        tables: name or pattern → what is done with it.
    """
    stores = [f"{comment}\n{lines(keys_of(side), values)}" for side, comment in BUCKETS.items()]
    defaults = [
        f"#{toml_key(name)} = {toml_value(policy)}"
        for name, policy in SHIPPED.items()
        if name not in tables
    ]
    listed = [f"{toml_key(name)} = {toml_value(policy)}" for name, policy in tables.items()]
    return "\n\n".join(
        [
            HEAD,
            f"{DATABASE}\n{lines(['db_uri'], values)}",
            f"{ACTION}\n{lines(['action'], {'action': action_of(values)})}",
            *stores,
            KEEP,
            "\n".join([TABLES, *listed, *defaults, ""]),
        ]
    )


def lines(keys: Iterable[str], values: Mapping[str, str]) -> str:
    """Return a line for each key; one without a value is a comment."""

    def line(key: str) -> str:
        if path := values.get(key + FILE):
            return f"{key}{FILE} = {toml_value(path)}"
        return f"{'' if values.get(key) else '#'}{key} = {toml_value(values.get(key, ''))}"

    return "\n".join(map(line, keys))


def masked(values: Mapping[str, str]) -> dict[str, str]:
    """Return the values as they can be shown."""
    hidden = {key: "***" for key in SECRETS if key in values}
    if "db_uri" in values:
        hidden["db_uri"] = str(SecretUrl(values["db_uri"]))
    return {**values, **hidden}


def sets_nothing(text: str) -> bool:
    """Tell whether a file leaves every key at its default, as the one of the package does."""
    rows = (line.strip() for line in text.splitlines())
    return all(not row or row.startswith("#") or row == "[tables]" for row in rows)
