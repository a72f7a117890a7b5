"""Every tool refuses a server that is older than the oldest supported version.

One is the embedded server with another version's number; the other one, which `make compat` needs,
is Debian's, of 2018, with users of its own.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import clickhouse_driver
import pytest

import asnmeta_updater
import citizenlab_test_lists_updater
import detector
import fingerprints_updater
import ooni_db_backup
from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.samples.asn_map import asn_map
from dev.samples.fingerprints import SampleFingerprints
from dev.samples.test_lists import SampleTestLists
from dev.servers import old_clickhouse
from dev.servers.old_clickhouse import OldClickHouse
from ooni_common.driver import refuse_old_server
from ooni_common.errors import ConfigError

REFUSAL = (
    "database: ClickHouse {} is too old; 24.8 is the oldest supported version; upgrade the server"
)
BUCKET = {
    "public_bucket_name": "ooni",
    "public_endpoint": "http://127.0.0.1:1",
    "public_aws_access_key_id": "key",
    "public_aws_secret_access_key": "secret-key",
    "tables": {"fastpath": "public"},
}


@dataclass(frozen=True)
class OldServer:
    """A server, and the version that it tells."""

    tcp: int
    http: int
    version: str

    def uri(self, user: str) -> str:
        return f"clickhouse://{user}@127.0.0.1:{self.tcp}/default"

    def contents(self) -> object:
        """Return its databases and tables."""
        with clickhouse_driver.Client.from_url(self.uri("default")) as client:
            tables = client.execute("SELECT database, name FROM system.tables ORDER BY 1, 2")
            return client.execute("SHOW DATABASES"), tables


@contextmanager
def embedded_server(folder: Path) -> Iterator[OldServer]:
    with EmbeddedClickHouse(folder, options=("--claim-version", "23.8.2.7")) as server:
        yield OldServer(server.tcp, server.http, "23.8.2")


@contextmanager
def debian_server(folder: Path) -> Iterator[OldServer]:
    if reason := old_clickhouse.missing():
        if os.environ.get("OONI_TEST_NEEDS_OLD_SERVER"):
            pytest.fail(reason)
        pytest.skip(reason)
    with OldClickHouse(folder) as server:
        yield OldServer(server.tcp, server.http, old_clickhouse.VERSION)


@pytest.fixture(
    scope="module",
    params=[embedded_server, pytest.param(debian_server, marks=pytest.mark.compat)],
    ids=lambda server: server.__name__,
)
def old_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OldServer]:
    with request.param(tmp_path_factory.mktemp("old")) as server:
        yield server


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Mapping[ModuleType, Mapping[str, object]]:
    """What each tool needs beside the database, to get as far as that."""
    folder = tmp_path_factory.mktemp("sources")
    fingerprints = SampleFingerprints(dns=110, http=150)
    files = {"dns": fingerprints.dns, "http": fingerprints.http, "map": asn_map(300, 1000)}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    uris = {name: (folder / name).as_uri() for name in files}
    lists = SampleTestLists(folder)
    lists.create(rows=400, countries=("it", "ru"))
    return {
        citizenlab_test_lists_updater: {"git_url": lists.repository.as_uri(), "min_rows": 100},
        fingerprints_updater: {"dns_url": uris["dns"], "http_url": uris["http"]},
        asnmeta_updater: {"url": uris["map"], "min_rows": 100},
        ooni_db_backup: BUCKET,
        detector: {"output_dir": str(folder / "output")},
    }


USERS = {
    citizenlab_test_lists_updater: "citizenlab",
    fingerprints_updater: "api:api",
    asnmeta_updater: "api:api",
    ooni_db_backup: "default",
    detector: "detector:detector",
}


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        (citizenlab_test_lists_updater, []),
        (citizenlab_test_lists_updater, ["--dry-run"]),
        (citizenlab_test_lists_updater, ["--rollback"]),
        (fingerprints_updater, []),
        (fingerprints_updater, ["--force"]),
        (asnmeta_updater, []),
        (asnmeta_updater, ["--dry-run"]),
        (ooni_db_backup, []),
        (ooni_db_backup, ["export"]),
        (ooni_db_backup, ["schema"]),
        (detector, []),
        (detector, ["--dry-run"]),
    ],
    ids=lambda value: value.__name__ if isinstance(value, ModuleType) else " ".join(value),
)
def test_a_server_that_is_too_old_is_refused_before_anything_is_written(
    tmp_path: Path,
    old_server: OldServer,
    sources: Mapping[ModuleType, Mapping[str, object]],
    capsys: pytest.CaptureFixture[str],
    tool: ModuleType,
    arguments: Sequence[str],
) -> None:
    before = old_server.contents()
    state_dir, config_file = tmp_path / "state", tmp_path / "tool.json"
    config = {"db_uri": old_server.uri(USERS[tool]), "state_dir": str(state_dir), "statsd": ""}
    if tool is ooni_db_backup:
        config["http_url"] = f"http://127.0.0.1:{old_server.http}/"
    config_file.touch(mode=0o600)
    config_file.write_text(json.dumps({**config, **sources[tool]}))
    assert tool.main(["--config", str(config_file), *arguments]) == 78
    assert errors(capsys) == [f"error: {REFUSAL.format(old_server.version)}"]
    assert old_server.contents() == before
    assert [path.name for path in state_dir.glob("*") if path.suffix != ".lock"] == []
    assert not Path(str(sources[tool].get("output_dir", "/nonexistent"))).exists()


@pytest.mark.compat
@pytest.mark.parametrize(
    ("user", "reason"),
    [("api:wrong", "Wrong password for user api"), ("nobody", "Unknown user nobody")],
)
def test_a_user_that_the_server_does_not_let_in_is_one_line_whatever_its_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], user: str, reason: str
) -> None:
    config_file = tmp_path / "tool.json"
    with debian_server(tmp_path) as server:
        config = {"db_uri": server.uri(user), "state_dir": str(tmp_path / "state"), "statsd": ""}
        config_file.touch(mode=0o600)
        config_file.write_text(json.dumps(config))
        assert detector.main(["--config", str(config_file)]) == 78
    (line,) = errors(capsys)
    assert line.startswith("error: database: ")
    assert reason in line
    assert "Stack trace" not in line


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what was said of errors."""
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("version", [(24, 8, 1), (24, 10, 0), (25, 1, 3), (26, 9, 2)])
def test_the_oldest_supported_version_and_those_after_it_are_accepted(
    version: tuple[int, ...],
) -> None:
    refuse_old_server(version)


@pytest.mark.parametrize("version", [(18, 16, 1), (23, 12, 9), (24, 7, 30)])
def test_those_before_it_are_refused(version: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"is too old; 24\.8 is the oldest supported version"):
        refuse_old_server(version)
