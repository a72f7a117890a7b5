#!/usr/bin/env python3
"""Run the updaters of this folder under the command line that `analysis` always had.

    analysis --update-citizenlab --dry-run --stdout

Each option of the form --update-… runs the script of that name, which has more options of its own:
ooni-update-citizenlab, ooni-update-fingerprints, ooni-update-asn-metadata. The exit status is
theirs; with several, that of the first that failed.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from ooni_common import __version__
from ooni_common.command_line import EXIT_STATUS_HELP
from ooni_common.output import all_written

UPDATERS = {  # option → the module of its script
    "--update-citizenlab": "citizenlab_test_lists_updater",
    "--update-fingerprints": "fingerprints_updater",
    "--update-asnmeta": "asnmeta_updater",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen updaters; return the exit status."""
    with all_written():
        parser = _argument_parser()
        arguments = parser.parse_args(argv)
        if not arguments.modules:
            parser.error(f"choose at least one of {', '.join(UPDATERS)}")
    statuses = [
        importlib.import_module(module).main(_flags(arguments)) for module in arguments.modules
    ]
    return next(filter(None, statuses), 0)


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="analysis",
        description="Update reference tables of the OONI database.",
        epilog=EXIT_STATUS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    for option, module in UPDATERS.items():
        add(
            option,
            dest="modules",
            action="append_const",
            const=module,
            help=f"run {module}.py",
        )
    add("--db-uri", metavar="URI", help="database; a password belongs in the configuration")
    add("--textfile", metavar="DIR", help="write metrics for node_exporter's textfile collector")
    add("--dry-run", action="store_true", help="change nothing; print what would change")
    add("--stdout", action="store_true", help="log plainly to standard output")
    add("--devel", action="store_true", help="log each step, to standard output")
    add("--version", action="version", version=f"analysis {__version__}")
    return parser


def _flags(arguments: argparse.Namespace) -> list[str]:
    """Return the arguments of an updater."""
    flags = ["--db-uri", arguments.db_uri] if arguments.db_uri is not None else []
    if arguments.textfile is not None:
        flags += ["--textfile", arguments.textfile]
    if arguments.dry_run:
        flags.append("--dry-run")
    if arguments.stdout or arguments.devel:
        flags.append("--stdout")
    if arguments.devel:
        flags.append("--verbose")
    return flags


if __name__ == "__main__":
    sys.exit(main())
