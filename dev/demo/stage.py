"""The stage of the demo: scripts that are run for real, and the servers that they talk to."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clickhouse_driver import Client

from dev.demo.story import Story, expect
from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.metrics_catalogue import undocumented
from dev.servers.statsd import StatsdListener

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build/demo"  # what stays after the demo, to be looked at
LAST_LINES = 20


@dataclass(frozen=True)
class Script:
    """A script and the name of its configuration file."""

    path: str
    config: str


@dataclass(frozen=True)
class Servers:
    """The servers that the scripts talk to, a folder for their files, and what is told of them."""

    folder: Path
    clickhouse: EmbeddedClickHouse
    statsd: StatsdListener
    story: Story

    @property
    def textfiles(self) -> Path:
        """The folder into which the scripts write their metrics, too."""
        return self.folder / "textfiles"

    def run(self, script: Script, keys: Mapping[str, object], *flags: str) -> str:
        """Run a script as its timer would, or another command of it; return what it printed.

        Raises:
            SystemExit: the script failed; its last lines are printed before.
        """
        config = self.folder / script.config
        config.write_text(json.dumps({"textfile_dir": str(self.textfiles), **keys}))
        config.chmod(0o640)  # it can hold a password
        command = f"{script.path} --config {script.config} {' '.join(flags)}".rstrip()
        self.story.note(f"\n$ {command}")
        process = subprocess.run(
            [sys.executable, str(ROOT / script.path), "--config", str(config), *flags],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.story.note(indented(process.stdout))
        if process.returncode != 0:
            *lines, reason = process.stdout.splitlines()[-LAST_LINES:] or ["it printed nothing"]
            print("\n".join([f"\n$ {command}", *lines]), flush=True)
            sys.exit(f"{script.path} failed with exit status {process.returncode}: {reason}")
        unknown = undocumented(self.statsd.metrics())
        expect(not unknown, f"metrics are in monitoring/README.md: {', '.join(unknown)}")
        return process.stdout

    def log_table(self, table: str, columns: Sequence[str], order: str) -> int:
        """Log a few rows of a table; return how many it has."""
        with Client.from_url(self.clickhouse.uri()) as client:
            ((rows, size),) = client.execute(
                f"SELECT count(), formatReadableSize(sum(byteSize(*))) FROM {table}"  # noqa: S608 (constants of this file)
            )
            sample = client.execute(
                f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order} LIMIT 5"  # noqa: S608 (constants of this file)
            )
        self.story.note(f"\ntable {table}: {rows:,} rows, {size} uncompressed")
        for row in sample:
            cells = (ascii(str(value).rstrip("\0"))[1:-1] for value in row)
            self.story.note("    " + "  ".join(cells))
        return int(rows)

    def log_metrics(self) -> None:
        """Log the metrics that arrived since the last call."""
        self.story.note("\nmetrics received over UDP:")
        self.story.note(indented("\n".join(self.statsd.received())))
        self.statsd.clear()


@contextlib.contextmanager
def running_servers() -> Iterator[Servers]:
    """Start the servers, with a new log; end them and remove their files afterwards."""
    shutil.rmtree(KEPT, ignore_errors=True)
    KEPT.mkdir(parents=True)
    with (
        (KEPT / "log.txt").open("w", encoding="utf-8") as log,
        tempfile.TemporaryDirectory(prefix="ooni-demo-") as name,
        EmbeddedClickHouse(Path(name) / "clickhouse") as clickhouse,
        StatsdListener() as statsd,
    ):
        servers = Servers(Path(name), clickhouse, statsd, Story(log))
        servers.story.note(f"embedded ClickHouse: {clickhouse.uri()}, {clickhouse.http_url()}")
        servers.story.note(f"statsd listener: {statsd.address}")
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


def keep(folder: Path, name: str) -> Path:
    """Copy a folder to where it stays after the demo; return its path there, from the root."""
    shutil.copytree(folder, KEPT / name)
    return (KEPT / name).relative_to(ROOT)


def indented(text: str) -> str:
    """Return the text with each line indented."""
    return "\n".join(f"    {line}" for line in text.splitlines())
