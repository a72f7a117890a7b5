"""The stage of the demo: scripts that are run for real, and the servers that they talk to."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clickhouse_driver import Client

from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.metrics_catalogue import undocumented
from dev.servers.statsd import StatsdListener

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Script:
    """A script and the name of its configuration file."""

    path: str
    config: str


@dataclass(frozen=True)
class Servers:
    """The servers that the scripts talk to, and a folder for their configuration and state."""

    folder: Path
    clickhouse: EmbeddedClickHouse
    statsd: StatsdListener

    @property
    def textfiles(self) -> Path:
        """The folder into which the scripts write their metrics, too."""
        return self.folder / "textfiles"

    def run(self, script: Script, keys: Mapping[str, object], *flags: str) -> str:
        """Run a script as its timer would, or another command of it; return what it printed.

        Raises:
            SystemExit: the script failed.
        """
        config = self.folder / script.config
        config.write_text(json.dumps({"textfile_dir": str(self.textfiles), **keys}))
        config.chmod(0o640)  # it can hold a password
        print(f"\n$ {script.path} --config {script.config} {' '.join(flags)}".rstrip())
        process = subprocess.run(
            [sys.executable, str(ROOT / script.path), "--config", str(config), *flags],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(indented(process.stdout))
        if process.returncode != 0:
            sys.exit(f"{script.path} ended with exit status {process.returncode}")
        unknown = undocumented(self.statsd.metrics())
        expect(not unknown, f"metrics are in monitoring/README.md: {', '.join(unknown)}")
        return process.stdout

    def show_table(self, table: str, columns: Sequence[str], order: str) -> None:
        """Print a table's size and a few of its rows."""
        with Client.from_url(self.clickhouse.uri()) as client:
            ((rows, size),) = client.execute(
                f"SELECT count(), formatReadableSize(sum(byteSize(*))) FROM {table}"  # noqa: S608 (constants of this file)
            )
            print(f"\ntable {table}: {rows:,} rows, {size} uncompressed")
            sample = client.execute(
                f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order} LIMIT 5"  # noqa: S608 (constants of this file)
            )
        for row in sample:
            print("    " + "  ".join(ascii(str(value).rstrip("\0"))[1:-1] for value in row))

    def show_metrics(self) -> None:
        """Print the metrics that arrived since the last call."""
        print("\nmetrics received over UDP:")
        for line in self.statsd.received():
            print(f"    {line}")
        self.statsd.clear()


@contextlib.contextmanager
def running_servers() -> Iterator[Servers]:
    """Start the servers; end them and remove their files afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="ooni-demo-") as name,
        EmbeddedClickHouse(Path(name) / "clickhouse") as clickhouse,
        StatsdListener() as statsd,
    ):
        print(f"embedded ClickHouse: {clickhouse.uri()}, {clickhouse.http_url()}")
        print(f"statsd listener: {statsd.address}")
        servers = Servers(Path(name), clickhouse, statsd)
        servers.textfiles.mkdir()
        yield servers


def keys_for(servers: Servers, user: str) -> dict[str, str]:
    """Return the keys of the configuration that say where these servers are."""
    name, _, password = user.partition(":")
    return {
        "db_uri": servers.clickhouse.uri(user=name, password=password),
        "state_dir": str(servers.folder / "state"),
        "statsd": servers.statsd.address,
    }


def title(text: str) -> None:
    """Print a heading."""
    print(f"\n\n{text}\n{'=' * len(text)}")


def expect(fulfilled: bool, expectation: str) -> None:  # noqa: FBT001 (reads like the sentence it is)
    """End the demo with an error unless the expectation is fulfilled."""
    if not fulfilled:
        sys.exit(f"not as it should be: {expectation}")


def indented(text: str) -> str:
    """Return the text with each line indented."""
    return "\n".join(f"    {line}" for line in text.splitlines())
