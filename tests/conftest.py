"""Fixtures that several test files share."""

import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import clickhouse_driver
import hypothesis
import pytest

from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.engines import VERSIONS, Engine, python_of
from dev.servers.s3 import S3Server
from dev.servers.statsd import StatsdListener
from ooni_common.driver import Driver

if TYPE_CHECKING:
    import boto3.session

    from db_backup_harness import BackupTool
    from dev.samples.test_lists import SampleTestLists
    from dev.servers.fault_proxy import FaultProxy
    from dev.servers.git import GitServer


# However slow the machine is, an example is right or wrong.
hypothesis.settings.register_profile("any machine", deadline=None)
# Of `make mutation`, which asks whether a test fails, the same each time, and not with what.
hypothesis.settings.register_profile(
    "first fault",
    deadline=None,
    derandomize=True,
    database=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
hypothesis.settings.load_profile("any machine")

# The time zone of this process, and of the embedded server, which inherits it.
if zone := os.environ.get("OONI_TEST_TIMEZONE"):
    os.environ["TZ"] = zone
    time.tzset()


@pytest.fixture(autouse=True)
def rotation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let exports look at unchanged chunks in tests of that alone: which ones depends on names."""
    if not request.node.get_closest_marker("rotation"):
        monkeypatch.setattr("exports.export_command.looked_at", lambda *given: given[2])  # the plan


class ClickHouseServer(Protocol):
    """What a test needs of a server, embedded or not."""

    def uri(
        self,
        user: str = "default",
        password: str = "",
        database: str = "default",
        **settings: object,
    ) -> str:
        """Return the address that clickhouse-driver takes."""

    def http_url(self, user: str = "", password: str = "", **parameters: object) -> str:
        """Return the address of the HTTP interface."""


@dataclass(frozen=True)
class ExternalServer:
    """A server that somebody else runs, named by OONI_TEST_CLICKHOUSE_URL and …_HTTP_URL."""

    native: str
    http: str

    def uri(
        self,
        user: str = "default",
        password: str = "",
        database: str = "default",
        **settings: object,
    ) -> str:
        """Return the address; the default user is the one in the environment."""
        parts = urlsplit(self.native)
        netloc = parts.netloc
        if user != "default":
            host = netloc.rpartition("@")[2]
            netloc = (
                f"{quote(user)}:{quote(password)}@{host}" if password else f"{quote(user)}@{host}"
            )
        query = "&".join(filter(None, (parts.query, urlencode(settings))))
        return urlunsplit((parts.scheme, netloc, f"/{database}", query, ""))

    def http_url(self, user: str = "", password: str = "", **parameters: object) -> str:
        """Return the address; without a user, the one in the environment."""
        if user:
            parameters = {"user": user, "password": password, **parameters}
        parts = urlsplit(self.http)
        query = "&".join(filter(None, (parts.query, urlencode(parameters))))
        return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", query, ""))


@dataclass
class Database:
    """A fresh database of one test.

    Attributes:
        name: its name.
        server: where it is.
    """

    name: str
    server: ClickHouseServer
    _clients: list[clickhouse_driver.Client] = field(default_factory=list)

    @property
    def uri(self) -> str:
        """The address of this database for clickhouse-driver."""
        return self.server.uri(database=self.name)

    def client(self, **settings: object) -> Driver:
        """Return a client connected to this database; it is disconnected after the test."""
        query = f"?{urlencode(settings)}" if settings else ""
        client: Driver = Driver.from_url(self.uri + query)
        self._clients.append(client)
        return client

    def execute(self, query: str, *arguments: object, **options: object) -> Any:
        """Run one query on a connection of its own."""
        with clickhouse_driver.Client.from_url(self.uri) as client:
            return client.execute(query, *arguments, **options)

    def disconnect(self) -> None:
        """Close what the test has opened."""
        for client in self._clients:
            client.disconnect()


@pytest.fixture(scope="session")
def embedded_clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    """One embedded server for the whole session."""
    with EmbeddedClickHouse(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


@pytest.fixture(scope="session")
def clickhouse_server(request: pytest.FixtureRequest) -> ClickHouseServer:
    """The server of the session: the one named in the environment, else the embedded one."""
    native = os.environ.get("OONI_TEST_CLICKHOUSE_URL")
    if native:
        return ExternalServer(native, os.environ.get("OONI_TEST_CLICKHOUSE_HTTP_URL", ""))
    server: EmbeddedClickHouse = request.getfixturevalue("embedded_clickhouse")
    return server


@contextmanager
def fresh_database(server: ClickHouseServer) -> Iterator[Database]:
    """Create a database with a unique name and drop it at the end."""
    database = Database(f"test_{uuid.uuid4().hex[:16]}", server)
    with clickhouse_driver.Client.from_url(server.uri()) as client:
        client.execute(
            f"CREATE DATABASE {database.name} ENGINE = Atomic",
            settings={"log_comment": os.environ.get("PYTEST_CURRENT_TEST", "")},
        )
    try:
        yield database
    finally:
        database.disconnect()
        with clickhouse_driver.Client.from_url(server.uri()) as client:
            client.execute(f"DROP DATABASE {database.name} SYNC")


@pytest.fixture
def database(clickhouse_server: ClickHouseServer) -> Iterator[Database]:
    """A fresh database on the session's server."""
    with fresh_database(clickhouse_server) as made:
        yield made


@pytest.fixture(scope="session")
def engines_are_installed() -> None:
    """Skip a test where an engine is missing; fail it where that is not expected."""
    for version in VERSIONS:
        if not python_of(version).exists():
            message = f"ClickHouse {version} is not installed here: `make compat` does it"
            if os.environ.get("OONI_TEST_NEEDS_ENGINES"):
                pytest.fail(message)
            pytest.skip(message)


@pytest.fixture(scope="session")
def engine_processes(
    engines_are_installed: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Engine]]:
    """Version → its engine, for the whole session."""
    with ExitStack() as stack:
        yield {
            version: stack.enter_context(
                Engine(python_of(version), tmp_path_factory.mktemp("engine"))
            )
            for version in VERSIONS
        }


def _settings_of(engine: Engine) -> set[str]:
    """Return the names of the settings that are not the default ones."""
    return {name for (name,) in engine.rows("SELECT name FROM system.settings WHERE changed")}


@contextmanager
def _in_fresh_database(engine: Engine) -> Iterator[Engine]:
    """Make an Atomic database the engine's current one; drop it at the end, and reset settings."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    set_before = _settings_of(engine)
    engine.execute(f"CREATE DATABASE {name} ENGINE = Atomic")
    engine.execute(f"USE {name}")
    try:
        yield engine
    finally:
        for (table,) in engine.rows("SELECT name FROM system.tables WHERE is_temporary"):
            engine.execute(f"DROP TEMPORARY TABLE {table}")
        for setting in _settings_of(engine) - set_before:
            engine.execute(f"SET {setting} = DEFAULT")
        engine.execute("USE default")
        engine.execute(f"DROP DATABASE {name}")


@pytest.fixture
def engines(engine_processes: Mapping[str, Engine]) -> Iterator[Mapping[str, Engine]]:
    """Version → its engine, each in a fresh database; for tests that compare the versions."""
    with ExitStack() as stack:
        yield {
            version: stack.enter_context(_in_fresh_database(engine))
            for version, engine in engine_processes.items()
        }


@pytest.fixture(params=VERSIONS)
def engine(
    request: pytest.FixtureRequest, engine_processes: Mapping[str, Engine]
) -> Iterator[Engine]:
    """The engine of one version after the other, in a fresh database."""
    with _in_fresh_database(engine_processes[request.param]) as engine:
        yield engine


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """One S3 server for the whole session."""
    with S3Server() as server:
        yield server


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch) -> Iterator[StatsdListener]:
    """A daemon that runs in this process can tell everything, also on a machine under load."""
    monkeypatch.setattr("ooni_common.metrics.CLOSING_SECONDS", 60)
    with StatsdListener() as listener:
        yield listener


@pytest.fixture(scope="session")
def boto_session() -> "boto3.session.Session":
    """A session for all: its second client is made in no time."""
    import boto3.session  # noqa: PLC0415 (few tests need it)

    return boto3.session.Session()


@pytest.fixture
def quick_backups(monkeypatch: pytest.MonkeyPatch, boto_session: "boto3.session.Session") -> None:
    """Make clients of S3 quickly, that try again at once; look often whether a BACKUP is over."""
    monkeypatch.setattr("boto3.session.Session", lambda: boto_session)
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _seconds: None))
    monkeypatch.setattr("backups.server.POLLS", (0.02, 0.02))


@pytest.fixture
def backup_tool(
    tmp_path: Path,
    database: Database,
    s3: S3Server,
    capsys: pytest.CaptureFixture[str],
    quick_backups: None,
) -> "BackupTool":
    """The backup tool, with a fresh database and a fresh bucket."""
    from db_backup_harness import BackupTool  # noqa: PLC0415 (it needs this file)

    bucket = f"test-{uuid.uuid4().hex[:16]}"
    s3.create_bucket(bucket)
    return BackupTool(tmp_path, database, s3, bucket, capsys)


@pytest.fixture
def s3_proxy(backup_tool: "BackupTool") -> Iterator["FaultProxy"]:
    """The tool's way to the store of the exports: it sees each request, and can go wrong."""
    from dev.servers.fault_proxy import FaultProxy  # noqa: PLC0415 (few tests need it)

    with FaultProxy(backup_tool.s3.endpoint) as proxy:
        backup_tool.config["public_endpoint"] = proxy.url
        yield proxy


@pytest.fixture
def lists(tmp_path: Path) -> "SampleTestLists":
    """A small upstream repository of test lists."""
    from citizenlab_harness import sample_lists  # noqa: PLC0415 (it needs this file)

    return sample_lists(tmp_path)


@pytest.fixture
def git(lists: "SampleTestLists") -> Iterator["GitServer"]:
    """A server for the repository of `lists`, whichever a test file has."""
    from dev.servers.git import GitServer  # noqa: PLC0415 (few tests need it)

    with GitServer(lists.repository.parent) as server:
        yield server


def _real_data(name: str) -> Path:
    """Return a file of real upstream data, which lies beside the checkout and is not part of it."""
    default = Path(__file__).parents[2] / "shared" / "fixtures"
    path = Path(os.environ.get("OONI_TEST_REAL_DATA", default)) / name
    if not path.exists():
        pytest.skip(
            f"no real upstream data: {path} is absent (OONI_TEST_REAL_DATA names its folder)"
        )
    return path


@pytest.fixture
def real_test_lists() -> Path:
    """The CitizenLab test lists as a tar archive."""
    return _real_data("test-lists-7f01e430.tar.xz")


@pytest.fixture
def real_test_list_counts() -> Path:
    """What a correct loader gets from the real test lists, as JSON."""
    return _real_data("expected_counts.json")


@pytest.fixture
def real_fingerprints_dns() -> Path:
    """The fingerprints of DNS answers."""
    return _real_data("fingerprints_dns.csv")


@pytest.fixture
def real_fingerprints_http() -> Path:
    """The fingerprints of HTTP answers."""
    return _real_data("fingerprints_http.csv")
