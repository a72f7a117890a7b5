"""Every tool refuses a server that is older than the oldest supported version."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pytest

import asnmeta_updater
import citizenlab_test_lists_updater
import detector
import fingerprints_updater
import ooni_db_backup
from conftest import Database as FreshDatabase
from conftest import fresh_database
from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.samples.asn_map import asn_map
from dev.samples.fingerprints import SampleFingerprints
from dev.samples.test_lists import SampleTestLists
from ooni_common.driver import refuse_old_server
from ooni_common.errors import ConfigError

REFUSAL = (
    "database: ClickHouse 23.8.2 is too old; 24.8 is the oldest supported version;"
    " upgrade the server"
)
BUCKET = {
    "public_bucket_name": "ooni",
    "public_endpoint": "http://127.0.0.1:1",
    "public_aws_access_key_id": "key",
    "public_aws_secret_access_key": "secret-key",
    "tables": {"fastpath": "public"},
}


@pytest.fixture(scope="module")
def old_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    path = tmp_path_factory.mktemp("old")
    with EmbeddedClickHouse(path, claimed_version="23.8.2.7") as server:
        yield server


@pytest.fixture
def old_database(old_server: EmbeddedClickHouse) -> Iterator[FreshDatabase]:
    with fresh_database(old_server) as made:
        yield made


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
    old_database: FreshDatabase,
    sources: Mapping[ModuleType, Mapping[str, object]],
    capsys: pytest.CaptureFixture[str],
    tool: ModuleType,
    arguments: Sequence[str],
) -> None:
    state_dir, config_file = tmp_path / "state", tmp_path / "tool.json"
    config = {"db_uri": old_database.uri, "state_dir": str(state_dir), "statsd": ""}
    config_file.touch(mode=0o600)
    config_file.write_text(json.dumps({**config, **sources[tool]}))
    assert tool.main(["--config", str(config_file), *arguments]) == 78
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {REFUSAL}"
    assert old_database.execute("SHOW TABLES") == []
    assert [path.name for path in state_dir.glob("*") if path.suffix != ".lock"] == []
    assert not Path(str(sources[tool].get("output_dir", "/nonexistent"))).exists()


@pytest.mark.parametrize("version", [(24, 8, 1), (24, 10, 0), (25, 1, 3), (26, 9, 2)])
def test_the_oldest_supported_version_and_those_after_it_are_accepted(
    version: tuple[int, ...],
) -> None:
    refuse_old_server(version)


@pytest.mark.parametrize("version", [(18, 16, 1), (23, 12, 9), (24, 7, 30)])
def test_those_before_it_are_refused(version: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"is too old; 24\.8 is the oldest supported version"):
        refuse_old_server(version)
