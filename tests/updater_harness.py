"""Running an updater as a whole, in a test."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from conftest import Database as FreshDatabase
from ooni_common.config import Secret


class Harness:
    """An updater with a configuration of its own, to be run in this process or as another.

    A subclass says which: the `module` that is its script, and its `tables`.
    """

    module: ClassVar[ModuleType]
    tables: ClassVar[Sequence[str]]

    def __init__(
        self, folder: Path, database: FreshDatabase, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder = folder
        self.config_file = folder / "updater.conf"
        self.state_dir = folder / "state"
        self.database = database
        self.capsys = capsys
        self._config: dict[str, object] = {
            "db_uri": database.uri,
            "state_dir": str(self.state_dir),
            "statsd": "",
        }

    def configure(self, **keys: object) -> None:
        """Change keys of the configuration."""
        self._config |= keys
        lines = (f"{key} = {json.dumps(value)}\n" for key, value in self._config.items())
        self.config_file.write_text("".join(lines))

    def run(self, *flags: str, **keys: object) -> tuple[int, str]:
        """Run once in this process; return the exit status and what was printed."""
        self.configure(**keys)
        self.capsys.readouterr()
        status = self.main(["--config", str(self.config_file), *flags])
        printed = self.capsys.readouterr()
        return status, printed.out + printed.err

    def main(self, argv: Sequence[str]) -> int:
        """Run once; return the exit status."""
        status: int = self.module.main(argv)
        return status

    def start(self, **environment: str) -> subprocess.Popen[str]:
        """Start it as a process."""
        script = Path(str(self.module.__file__))
        root = script.parents[1]
        return subprocess.Popen(
            [sys.executable, str(script), "--config", str(self.config_file)],
            env=dict(os.environ) | {"PYTHONPATH": str(root)} | environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def rows_of(self, table: str) -> list[tuple[Any, ...]]:
        """Return the rows of a table; none if there is no such table."""
        if not self.database.execute(f"EXISTS TABLE {table}")[0][0]:
            return []
        return sorted(self.database.execute(f"SELECT * FROM {table}"))

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Check that the block leaves the live tables as they are, and the state too."""
        before = self._everything()
        yield
        assert self._everything() == before

    def _everything(self) -> list[object]:
        state = self.state_dir / f"{self.module.SCRIPT.name}.json"
        content = state.read_bytes() if state.exists() else None
        return [content, *map(self.rows_of, self.tables)]


def check_shipped_configuration(module: ModuleType, name: str) -> None:
    """Check that a configuration file beside a script is valid and shows every key's default."""
    shipped = Path(str(module.__file__)).with_name(name)
    assert module.main(["--config", str(shipped), "--check-config"]) == 0
    lines = [line.removeprefix("#") for line in shipped.read_text().splitlines()]
    values = tomllib.loads("\n".join(line for line in lines if not line.startswith(" ")))
    assert values.keys() == set(module.Config.__struct_fields__)
    default = module.Config()
    for key in values.keys() - {"asn_cc_url", "ca_file", "ordinary_dir", "state_dir"}:
        value = getattr(default, key)
        shown = value.reveal() if isinstance(value, Secret) else value
        assert values[key] == (str(shown) if isinstance(shown, Path) else shown)
