"""Run the embedded ClickHouse until SIGTERM or SIGINT.

Prints one line of JSON with `tcp`, `http` and `pid` once it accepts connections. Its time zone is
that of the process: the environment variable TZ, else the machine's.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from dev.embedded_clickhouse.engine import DataDirectoryError, Engine, User
from dev.embedded_clickhouse.lifetime import catch_signals, leave, wait_for_the_end
from dev.embedded_clickhouse.server import ListenError, Server


def main() -> None:
    """Start, print the ports, wait for the end."""
    arguments = _parse_arguments()
    stop = catch_signals()
    try:
        engine = Engine(
            arguments.path,
            dict(arguments.user),
            arguments.claimed_version,
            record=arguments.record,
            config_file=arguments.config_file,
            defaults=arguments.profile,
        )
        server = Server(engine, arguments.tcp, arguments.http)
    except (DataDirectoryError, ListenError) as error:
        print(f"embedded_clickhouse: {error}", file=sys.stderr, flush=True)
        leave(1)
    server.start()
    ports = {"tcp": server.tcp, "http": server.http, "pid": os.getpid()}
    print(json.dumps(ports), flush=True)
    wait_for_the_end(stop, arguments.exit_with_parent)
    server.stop()
    leave(0)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dev.embedded_clickhouse",
        description="A ClickHouse for development, on 127.0.0.1 only.",
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="data directory, kept between runs")
    parser.add_argument("--tcp", type=int, default=0, metavar="PORT", help="native protocol")
    parser.add_argument("--http", type=int, default=0, metavar="PORT", help="HTTP interface")
    parser.add_argument(
        "--user",
        type=_user,
        action="append",
        default=[],
        metavar="NAME:PASSWORD[:readonly]",
        help="only these may connect (readonly: with readonly = 2, :readonly=1: with that, :no-ddl:"
        " only to read and insert); without it default and citizenlab without a password, api:api"
        " and detector:detector",
    )
    parser.add_argument(
        "--claim-version",
        dest="claimed_version",
        default="",
        metavar="VERSION",
        help="tell clients this version instead of the real one, for example 23.8.2.7",
    )
    parser.add_argument(
        "--profile",
        default="",
        metavar="SETTINGS",
        help="of all users, for example 'limit = 5, extremes = 1'",
    )
    record = os.environ.get("OONI_RECORD_STATEMENTS")
    parser.add_argument(
        "--record",
        type=Path,
        default=Path(record) if record else None,
        metavar="FOLDER",
        help="write down what clients send (default: $OONI_RECORD_STATEMENTS)",
    )
    parser.add_argument(
        "--config-file",
        type=Path,
        dest="config_file",
        metavar="FILE",
        help="a server's configuration: ZooKeeper, macros, clusters",
    )
    parser.add_argument(
        "--exit-with-parent",
        dest="exit_with_parent",
        action="store_const",
        const=os.getppid(),
        default=0,
        help="stop when the process that started this one is gone",
    )
    return parser.parse_args()


def _user(value: str) -> tuple[str, User]:
    name, _, password = value.partition(":")
    for suffix, readonly in {":readonly": 2, ":readonly=1": 1}.items():
        if password.endswith(suffix):
            return name, User(password.removesuffix(suffix), readonly)
    if password.endswith(":no-ddl"):
        return name, User(password.removesuffix(":no-ddl"), ddl=False)
    return name, User(password)


if __name__ == "__main__":
    main()
