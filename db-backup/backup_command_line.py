"""The arguments of the backup tool's commands."""

import argparse
from pathlib import Path

from backup_config import MOST_DAYS, Config
from ooni_common.command_line import Script


def tables_arguments(parser: argparse.ArgumentParser) -> None:
    """Name tables."""
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="only these")


def _source(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--from", dest="source", default="", metavar="BACKUP", help=text)


def backup_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what kind of backup."""
    parser.add_argument("--full", action="store_true", help="begin a new chain")


def list_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what is listed, and how."""
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="show the chunks of this table, or the tables of this backup",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON, for scripts")


def verify_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what is verified, and how thoroughly."""
    tables_arguments(parser)
    _source(
        parser, "this backup, 'all' of them, or only the 'exports'; default: the newest, and both"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="check that everything exists, without reading or restoring rows",
    )
    parser.add_argument(
        "--sample",
        type=_at_least_one,
        metavar="N",
        help="read only N objects of the exports, chosen by chance; look whether all are there",
    )
    _trust(parser)


def restore_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what is restored, from where, and what it becomes."""
    scope = parser.add_mutually_exclusive_group(required=True)
    scope.add_argument("table", nargs="?", default="", metavar="TABLE", help="table to restore")
    scope.add_argument(
        "--all",
        dest="everything",
        action="store_true",
        help="everything in the backup, under its own names; identical tables stay",
    )
    _source(parser, "this one, or 'exports'; default: the newest backup, else the exports")
    parser.add_argument(
        "--as", dest="name", default="", metavar="NAME", help="default: TABLE_restored"
    )
    parser.add_argument(
        "--chunk",
        dest="chunks",
        action="append",
        default=[],
        metavar="CHUNK",
        help="of its export only these rows, such as 202306; can be given several times",
    )
    parser.add_argument(
        "--partition",
        dest="partitions",
        action="append",
        default=[],
        metavar="PARTITION",
        help="of a backup only these rows, by the partition's ID, such as 202306, or by its key if"
        " that is a text; likewise",
    )
    parser.add_argument(
        "--to-database", default="", metavar="DB", help="there, under its own name unless --as"
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="in the place of the live table, which is kept as TABLE_replaced_TIME",
    )
    _trust(parser)
    _whole_backup(parser)


def _whole_backup(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--skip",
        action="append",
        default=[],
        metavar="TABLE",
        help="with --all: leave this one out; can be given several times",
    )
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument(
        "--schema-only", action="store_true", help="with --all: make tables, without rows"
    )
    parts.add_argument(
        "--data-only", action="store_true", help="with --all: fill tables that are there, and empty"
    )


def _trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust-definitions",
        dest="trusted",
        action="store_true",
        help="execute the definitions of an unsigned backup or an export as they stand there",
    )


def prune_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what is still needed."""
    parser.add_argument(
        "--keep",
        type=_at_least_one,
        metavar="N",
        help="chains of backups; default: keep, or else keep_chains, of the configuration",
    )
    parser.add_argument(
        "--keep-days",
        type=_days,
        metavar="DAYS",
        help="and younger ones; default: keep_days of the configuration",
    )
    parser.add_argument(
        "--older-than",
        type=_days,
        default=90,
        metavar="DAYS",
        help="exports of rows that are gone from the database, and objects that no manifest names:"
        " since how long; default: 90",
    )
    parser.add_argument(
        "--damaged",
        action="store_true",
        help="damaged backups, too, that may have the last rows of a table",
    )
    parser.add_argument("--confirm", action="store_true", help="delete; without it, only show")


def delete_arguments(parser: argparse.ArgumentParser) -> None:
    """Name backups."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="of a backup, as `list` has it")
    parser.add_argument("--confirm", action="store_true", help="delete; without it, only show")


def forget_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which rows had to go."""
    parser.add_argument("table", metavar="TABLE", help="the one with the rows that have to go")
    parser.add_argument(
        "--chunk",
        dest="chunks",
        action="append",
        default=[],
        required=True,
        metavar="CHUNK",
        help="which had them, such as 202306; can be given several times",
    )
    parser.add_argument("--note", default="", metavar="TEXT", help="added to the public note")
    parser.add_argument("--confirm", action="store_true", help="do it; without it, only show")


def init_arguments(parser: argparse.ArgumentParser) -> None:
    """Answer what `init` would ask."""
    parser.add_argument(
        "--output", type=Path, metavar="PATH", help=f"the file; default: {CONFIG_FILE}"
    )
    parser.add_argument(
        "--db-uri-file", default="", metavar="FILE", help="holds the address of the database"
    )
    parser.add_argument("--endpoint", default="", metavar="URL", help="of the store; default: AWS")
    parser.add_argument("--region", default="", metavar="NAME", help="of the buckets")
    for side, contents in (("public", "exports"), ("private", "backups")):
        parser.add_argument(
            f"--{side}-bucket", default="", metavar="NAME", help=f"where {contents} go"
        )
        parser.add_argument(
            f"--{side}-key-id", default="", metavar="ID", help="of the credentials for it"
        )
        parser.add_argument(
            f"--{side}-key-file", default="", metavar="FILE", help="holds the secret access key"
        )
    for flag, meaning in (
        ("public", "export this one"),
        ("private", "back up this one"),
        ("none", "do neither with this one"),
    ):
        parser.add_argument(
            f"--{flag}",
            action="append",
            default=[],
            metavar="TABLE",
            help=f"{meaning}; can be given several times",
        )


def _days(text: str) -> float:
    days = float(text)
    if not 0 <= days <= MOST_DAYS:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to {MOST_DAYS}")
    return days


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return number


CONFIG_FILE = Path("/etc/ooni/db-backup.conf")
SCRIPT = Script(
    name="db-backup",
    command="ooni-db-backup",
    description="Export the tables of the OONI database to S3 for everybody, and back them up.",
    config_type=Config,
    config_file=CONFIG_FILE,
)
