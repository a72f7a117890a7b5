"""What every tool's `doctor` finds, and that a run ends with the same before it writes."""

import errno
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest

import asnmeta_updater
import citizenlab_test_lists_updater
import detector
import fingerprints_updater
import ooni_download_geoip
from conftest import Database as FreshDatabase
from conftest import fresh_database
from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.samples.asn_map import asn_map
from dev.samples.fingerprints import SampleFingerprints
from dev.samples.geoip import write_month
from dev.samples.measurements import create
from dev.samples.test_lists import SampleTestLists
from dev.servers.upstream import SampleUpstream
from ooni_common.database import Database
from ooni_common.database_checks import ServerFacts, check_clock, check_profile, check_zone
from ooni_common.doctor import (
    Check,
    Note,
    Unhealthy,
    check_statsd,
    diagnose,
    examine,
    preflight,
)
from ooni_common.errors import ConfigError, DataRefused, ScriptError, TryAgainLater, Unavailable
from ooni_common.files import check_folder
from ooni_common.grants import Need, check_grants, rights_of
from privileges import without_privileges

NOW = datetime(2026, 11, 10, tzinfo=UTC)
UPDATERS = {
    citizenlab_test_lists_updater: ("citizenlab",),
    fingerprints_updater: ("fingerprints_dns", "fingerprints_http"),
    asnmeta_updater: ("asnmeta",),
}
FIVE_COLUMNS = "asn UInt32, org_name String, cc String, changed Date, aut_name String"
ALL_TABLES = "SELECT name FROM system.tables WHERE database = currentDatabase()"
OF_A_DATABASE = [
    "cluster",
    "database",
    "grants",
    "time zone",
    "database, clock",
    "tables",
    "replicas",
    "rows",
]
UPSTREAMS = {
    citizenlab_test_lists_updater: ["upstream", "lists", "refusals"],
    fingerprints_updater: ["answers", "upstream, DNS", "upstream, HTTP"],
    asnmeta_updater: ["upstream"],
}


class Tool:
    """A tool with a configuration of its own."""

    def __init__(
        self, module: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str], **keys: object
    ) -> None:
        self.module = module
        self.state_dir = folder / "state"
        self.config_file = folder / "tool.json"
        self._capsys = capsys
        self._config: dict[str, object] = {"state_dir": str(self.state_dir), "statsd": "", **keys}

    def run(self, *arguments: str, **keys: object) -> tuple[int, list[str]]:
        """Run in this process; return the exit status and the lines that were printed."""
        self._config |= keys
        self.config_file.touch(mode=0o640)
        self.config_file.write_text(json.dumps(self._config))
        self._capsys.readouterr()
        takes_now = self.module in (detector, ooni_download_geoip)
        main: Callable[..., int] = self.module.main
        status = main(
            ["--config", str(self.config_file), *arguments], **({"now": NOW} if takes_now else {})
        )
        printed = self._capsys.readouterr()
        return status, (printed.out + printed.err).splitlines()

    def doctor(self, **keys: object) -> tuple[int, dict[str, tuple[str, str]]]:
        """Return the exit status, and for each check its state and text."""
        status, lines = self.run("doctor", **keys)
        checks = [line for line in lines if line.startswith(("ok", "note", "FAILED"))]
        return status, {line[8:23].rstrip(): (line[:6].rstrip(), line[25:]) for line in checks}


def failed(checks: Mapping[str, tuple[str, str]]) -> list[str]:
    return [name for name, (state, _) in checks.items() if state == "FAILED"]


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of every upstream."""
    folder = tmp_path_factory.mktemp("sources")
    fingerprints = SampleFingerprints(dns=110, http=150)
    (folder / "dns.csv").write_bytes(fingerprints.dns)
    (folder / "http.csv").write_bytes(fingerprints.http)
    (folder / "map.json").write_bytes(asn_map(300, 1000))
    SampleTestLists(folder).create(rows=400, countries=("it", "ru"))
    write_month(folder, "2026-10")
    return folder


@pytest.fixture
def upstream(sources: Path) -> Iterator[SampleUpstream]:
    with SampleUpstream(sources) as server:
        yield server


def configuration(module: ModuleType, upstream: SampleUpstream, sources: Path) -> dict[str, object]:
    """Return what an updater needs beside the database."""
    keys: dict[ModuleType, dict[str, object]] = {
        citizenlab_test_lists_updater: {
            "git_url": (sources / "test-lists.git").as_uri(),
            "min_rows": 100,
        },
        fingerprints_updater: {
            "dns_url": upstream.url("dns.csv"),
            "http_url": upstream.url("http.csv"),
        },
        asnmeta_updater: {"url": upstream.url("map.json"), "min_rows": 100},
    }
    return keys[module]


@pytest.fixture(params=UPDATERS, ids=lambda module: module.__name__)
def updater(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    database: FreshDatabase,
    upstream: SampleUpstream,
    sources: Path,
    capsys: pytest.CaptureFixture[str],
) -> Tool:
    keys = configuration(request.param, upstream, sources)
    return Tool(request.param, tmp_path, capsys, db_uri=database.uri, **keys)


@pytest.fixture
def asn(
    tmp_path: Path,
    database: FreshDatabase,
    upstream: SampleUpstream,
    sources: Path,
    capsys: pytest.CaptureFixture[str],
) -> Tool:
    """The updater of the ASN metadata."""
    keys = configuration(asnmeta_updater, upstream, sources)
    return Tool(asnmeta_updater, tmp_path, capsys, db_uri=database.uri, **keys)


@pytest.fixture
def detecting(tmp_path: Path, database: FreshDatabase, capsys: pytest.CaptureFixture[str]) -> Tool:
    create(database.client(), "fastpath")
    output = str(tmp_path / "output")
    return Tool(detector, tmp_path, capsys, db_uri=database.uri, output_dir=output)


@pytest.fixture
def geoip(tmp_path: Path, upstream: SampleUpstream, capsys: pytest.CaptureFixture[str]) -> Tool:
    (tmp_path / "output").mkdir()
    urls = {
        f"{key}_url": upstream.url(f"dbip-{name}-lite-") + "{year}-{month}.mmdb.gz"
        for key, name in (("asn", "asn"), ("cc", "country"))
    }
    return Tool(ooni_download_geoip, tmp_path, capsys, output_dir=str(tmp_path / "output"), **urls)


# --- each tool ---


def test_all_is_well_before_and_after_a_run(updater: Tool, database: FreshDatabase) -> None:
    tables = UPDATERS[updater.module]
    status, checks = updater.doctor()
    assert (status, failed(checks)) == (0, [])
    names = ["state directory", "metrics", *OF_A_DATABASE, *UPSTREAMS[updater.module]]
    assert list(checks) == names
    assert checks["tables"][1] == f"{', '.join(tables)}: not there yet, a run makes it"
    assert not updater.state_dir.exists()
    assert database.execute(ALL_TABLES) == []
    assert updater.run()[0] == 0
    status, checks = updater.doctor()
    assert (status, failed(checks)) == (0, [])
    assert checks["tables"][1] == f"{', '.join(tables)}: as needed"
    for table in tables:
        ((rows,),) = database.execute(f"SELECT count() FROM {table}")
        assert f"{table}: {rows:,}" in checks["rows"][1]


def test_without_a_command_a_tool_runs_and_flags_may_stand_anywhere(asn: Tool) -> None:
    assert asn.run("--dry-run")[0] == asn.run("run", "--dry-run")[0] == 0
    assert asn.run("--verbose", "doctor", "--stdout")[0] == 0
    assert not asn.state_dir.exists()


def test_upstreams_that_do_not_answer_are_named(updater: Tool) -> None:
    missing = "http://127.0.0.1:9/x"
    keys = {
        citizenlab_test_lists_updater: {"git_url": missing},
        fingerprints_updater: {"dns_url": missing, "http_url": missing},
        asnmeta_updater: {"url": missing},
    }
    status, checks = updater.doctor(**keys[updater.module])
    names = [name for name in UPSTREAMS[updater.module] if name.startswith("upstream")]
    assert (status, failed(checks)) == (69, names)


def test_an_upstream_is_not_fetched_as_a_whole(
    asn: Tool, upstream: SampleUpstream, tmp_path: Path
) -> None:
    assert asn.doctor()[0] == 0
    assert [request.method for request in upstream.requests] == ["GET"]
    assert list(tmp_path.glob("state/*")) == []


def test_the_detector_says_how_far_the_measurements_have_come(detecting: Tool) -> None:
    status, checks = detecting.doctor()
    assert (status, failed(checks)) == (0, [])
    assert list(checks) == [
        "state directory",
        "metrics",
        "outputs",
        *OF_A_DATABASE,
        "measurements",
    ]
    assert checks["measurements"] == ("note", "fastpath has none of the last 60 days")
    assert "fastpath: as needed" in checks["tables"][1]
    assert not (detecting.state_dir.parent / "output").exists()


def test_measurements_that_stay_away_are_noted(detecting: Tool, database: FreshDatabase) -> None:
    insert = "INSERT INTO fastpath (measurement_start_time, measurement_uid) VALUES ('{}', '{}')"
    database.execute(insert.format("2026-11-08 10:00:00", "a"))
    state, text = detecting.doctor()[1]["measurements"]
    assert (state, "37 h ago" in text) == ("note", True), text
    database.execute(insert.format("2026-11-09 22:00:00", "b"))
    assert detecting.doctor()[1]["measurements"][0] == "ok"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("DROP TABLE fastpath", "fastpath: no such table; name the database of OONI in db_uri"),
        (
            "ALTER TABLE fastpath DROP COLUMN msm_failure",
            "table fastpath has no column msm_failure; see tables.sql",
        ),
    ],
)
def test_the_detector_needs_the_columns_that_it_counts(
    detecting: Tool, database: FreshDatabase, change: str, line: str
) -> None:
    database.execute(change)
    status, checks = detecting.doctor()
    assert (status, checks["tables"]) == (78, ("FAILED", line))
    assert detecting.run() == (78, [f"error: {line}"])


def test_geoip_finds_the_month_that_is_published(geoip: Tool) -> None:
    status, checks = geoip.doctor()
    assert (status, failed(checks)) == (0, [])
    assert list(checks) == [
        "state directory",
        "metrics",
        "outputs",
        "upstream, asn",
        "upstream, cc",
    ]
    assert "dbip-asn-lite-2026-10.mmdb.gz answers" in checks["upstream, asn"][1]
    assert list((geoip.state_dir.parent / "output").iterdir()) == []


def test_geoip_looks_at_the_month_that_has_both(geoip: Tool, sources: Path) -> None:
    newer = sources / "dbip-asn-lite-2026-11.mmdb.gz"
    newer.write_bytes((sources / "dbip-asn-lite-2026-10.mmdb.gz").read_bytes())
    try:
        status, checks = geoip.doctor()
        assert (status, failed(checks)) == (0, [])
        for name in ("asn", "cc"):
            assert "-lite-2026-10.mmdb.gz answers" in checks[f"upstream, {name}"][1]
        assert geoip.run()[0] == 0
    finally:
        newer.unlink()


def test_geoip_is_told_that_nothing_is_published_and_that_it_may_not_write(
    geoip: Tool, tmp_path: Path
) -> None:
    output = tmp_path / "missing"
    status, checks = geoip.doctor(output_dir=str(output), cc_url="http://127.0.0.1:9/x")
    assert (status, failed(checks)) == (78, ["outputs", "upstream, cc"])
    assert geoip.run() == (78, [f"error: {checks['outputs'][1]}"])


# --- what a run ends with, too ---


@pytest.fixture(scope="module")
def restricted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    """A server that some may only read from."""
    users = ("default:", "reads:x:readonly", "fixed:x:readonly=1", "inserts:x:no-ddl")
    with EmbeddedClickHouse(tmp_path_factory.mktemp("restricted"), users) as server:
        yield server


@pytest.mark.parametrize(
    ("user", "check", "line"),
    [
        ("reads", "grants", "give the user of db_uri a settings profile with readonly = 0"),
        ("fixed", "database", "every tool sets it to UTC: use a profile with readonly = 0"),
        ("inserts", "grants", "GRANT CREATE TABLE, DROP TABLE ON {}.asnmeta TO default; GRANT"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--dry-run"], ["--rollback"]])
def test_a_user_who_may_not_write_ends_a_run_with_the_line_of_the_doctor(
    asn: Tool, restricted: EmbeddedClickHouse, user: str, check: str, line: str, flags: list[str]
) -> None:
    with fresh_database(restricted) as database:
        uri = restricted.uri(user, "x", database.name)
        status, checks = asn.doctor(db_uri=uri)
        assert (status, failed(checks)) == (78, [check])
        text = checks[check][1]
        assert line.format(database.name) in text
        assert asn.run(*flags) == (78, [f"error: {text}"])
        assert database.execute(ALL_TABLES) == []


def test_a_database_that_can_not_swap_tables(asn: Tool, database: FreshDatabase) -> None:
    name = f"{database.name}_old"
    database.execute(
        f"CREATE DATABASE {name} ENGINE = Ordinary",
        settings={"allow_deprecated_database_ordinary": 1},
    )
    try:
        status, checks = asn.doctor(db_uri=database.server.uri(database=name))
        assert (status, failed(checks)) == (78, ["database"])
        assert "make one with ENGINE = Atomic" in checks["database"][1]
        assert asn.run() == (78, [f"error: {checks['database'][1]}"])
    finally:
        database.execute(f"DROP DATABASE {name}")


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (
            FIVE_COLUMNS.removesuffix(", aut_name String"),
            "see tables.sql, or ALTER TABLE asnmeta ADD COLUMN aut_name String, ADD COLUMN source",
        ),
        (
            f"{FIVE_COLUMNS}, source String MATERIALIZED upper(cc)",
            "is MATERIALIZED, but a run writes it; ALTER TABLE asnmeta MODIFY COLUMN source REMOVE",
        ),
    ],
)
def test_a_table_of_another_structure(
    asn: Tool, database: FreshDatabase, columns: str, reason: str
) -> None:
    database.execute(f"CREATE TABLE asnmeta ({columns}) ENGINE = MergeTree ORDER BY asn")
    status, checks = asn.doctor()
    assert (status, checks["tables"][0]) == (78, "FAILED")
    assert reason in checks["tables"][1]
    assert asn.run() == (78, [f"error: {checks['tables'][1]}"])


def test_a_database_that_is_down_is_one_line_and_hides_nothing_else(asn: Tool) -> None:
    status, checks = asn.doctor(db_uri="clickhouse://127.0.0.1:9/default")
    assert (status, failed(checks)) == (69, ["database"])
    assert list(checks) == ["state directory", "metrics", "cluster", "database", "upstream"]


def test_a_cluster_that_the_server_does_not_have(asn: Tool) -> None:
    status, checks = asn.doctor(cluster="nowhere")
    assert (status, failed(checks)) == (78, ["cluster"])
    assert asn.run() == (78, [f"error: {checks['cluster'][1]}"])


def test_a_state_directory_that_can_not_be_made_is_told_with_the_command(asn: Tool) -> None:
    folder = asn.state_dir.parent / "closed"
    folder.mkdir(mode=0o555)
    asn.run("--check-config", state_dir=str(folder / "state"))
    with without_privileges(asn.config_file):
        status, checks = asn.doctor()
        text = checks["state directory"][1]
        assert (status, checks["state directory"][0]) == (78, "FAILED")
        assert text.endswith(f"make it as root: install -d -o nobody {folder / 'state'}")
        assert asn.run() == (78, [f"error: {text}"])


# --- the shared part ---


def raising(error: Exception) -> Check:
    def check() -> str:
        raise error

    return check


def test_a_sick_check_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    checks: list[tuple[str, Check]] = [
        ("first", raising(Unavailable("away"))),
        ("second", lambda: Note("odd")),
        ("third", raising(OSError(errno.EACCES, "Permission denied", "/x"))),
        ("fourth", lambda: "fine"),
    ]
    with pytest.raises(Unhealthy, match="2 checks failed; a run would not succeed") as caught:
        diagnose(checks)
    assert caught.value.status == 78
    assert capsys.readouterr().out == (
        "FAILED  first            away\n"
        "note    second           odd\n"
        "FAILED  third            /x: Permission denied\n"
        "ok      fourth           fine\n"
    )


@pytest.mark.parametrize(
    ("errors", "status"),
    [
        ([Unavailable, ConfigError, DataRefused], 78),
        ([TryAgainLater, Unavailable, DataRefused], 65),
        ([TryAgainLater, Unavailable], 69),
        ([TryAgainLater], 75),
    ],
)
def test_the_worst_failure_gives_the_status_of_doctor_and_run(
    errors: list[type[ScriptError]], status: int
) -> None:
    checks = [(kind.__name__, raising(kind(kind.__name__))) for kind in errors]
    with pytest.raises(Unhealthy) as unhealthy:
        diagnose(checks)
    with pytest.raises(ScriptError) as refused:
        preflight(checks)
    assert unhealthy.value.status == refused.value.status == status


def test_a_preflight_logs_what_it_does_not_raise(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ooni")
    checks = [
        ("a", raising(Unavailable("away"))),
        ("b", lambda: Note("odd")),
        ("c", raising(ConfigError("wrong"))),
        ("d", raising(Unavailable("away"))),
        ("e", lambda: "fine"),
    ]
    with pytest.raises(ConfigError, match="wrong"):
        preflight(checks)
    assert [record.getMessage() for record in caplog.records] == ["b: odd", "away"]


def test_what_a_check_yields_may_decide_what_is_checked_next() -> None:
    reached: list[str] = []

    def reach() -> str:
        reached.append("there")
        return "there"

    def checks() -> Iterator[tuple[str, Check]]:
        yield "reach", reach
        if reached:
            yield "look", lambda: "fine"

    assert [result.name for result in examine(checks())] == ["reach", "look"]


def test_a_link_of_another_user_is_no_state_directory(tmp_path: Path) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    assert f"{link}, which is {folder}, can be written" in check_folder("state_dir", link)
    with without_privileges(folder):
        assert check_folder("state_dir", folder)
    with without_privileges(tmp_path):
        planted = tmp_path / "planted"
        planted.symlink_to(folder)
    if planted.lstat().st_uid:
        with pytest.raises(ConfigError, match=f'name the folder itself: state_dir = "{folder}"'):
            check_folder("state_dir", planted)


def test_metrics_are_never_a_reason_to_fail() -> None:
    assert check_statsd("localhost:8125").startswith("sent to localhost:8125 (")
    assert check_statsd("") == "none are sent to statsd"
    assert isinstance(check_statsd("no-such-host.invalid:8125"), Note)


FACTS = ServerFacts(
    version="26.9",
    database="ooni",
    session_zone="UTC",
    server_zone="Asia/Kolkata",
    clock=1000.0,
    readonly=0,
    allow_ddl=True,
)


def test_facts_of_a_server() -> None:
    assert check_zone(FACTS) == "the server has Asia/Kolkata; sessions are in UTC"
    assert check_profile(FACTS) == "readonly = 0, allow_ddl = 1"
    with pytest.raises(ConfigError, match="allow_ddl = 1"):
        check_profile(replace(FACTS, allow_ddl=False))
    with pytest.raises(ConfigError, match="session_timezone"):
        check_zone(replace(FACTS, session_zone="Asia/Kolkata"))


def test_a_clock_may_be_a_minute_wrong_and_an_hour_is_too_much() -> None:
    assert check_clock(1000, 1059) == "59 s from this machine's"
    assert isinstance(check_clock(1000, 1061), Note)
    with pytest.raises(ConfigError, match="5000 s behind the database's clock; check its NTP"):
        check_clock(6000, 1000)


# --- SHOW GRANTS ---


@pytest.mark.parametrize(
    ("lines", "insert"),
    [
        (["GRANT SELECT, INSERT ON *.* TO x"], True),
        (["GRANT ALL ON ooni.* TO x WITH GRANT OPTION"], True),
        (["GRANT SELECT, INSERT, CREATE TABLE ON ooni.citizenlab TO `x y`"], True),
        (["GRANT INSERT ON `ooni`.`citizenlab` TO x"], True),
        (["GRANT INSERT ON ooni.citizen* TO x"], True),
        (["GRANT INSERT ON ooni*.* TO x"], True),
        (["GRANT INSERT ON `oo`*.`citizen`* TO x"], True),
        (["GRANT INSERT ON ooni.fastpath TO x", "GRANT INSERT ON default.* TO x"], False),
        (["GRANT SELECT ON *.* TO x", "GRANT INSERT ON oo.* TO x"], False),
        (["GRANT INSERT ON *.* TO x", "REVOKE INSERT ON ooni.* FROM x"], False),
        (["GRANT ALL ON ooni.* TO x", "REVOKE INSERT ON ooni.* FROM x"], False),
        (
            [
                "GRANT INSERT ON *.* TO x",
                "REVOKE INSERT ON ooni.* FROM x",
                "GRANT INSERT ON ooni.citizenlab TO x",
            ],
            True,
        ),
        (["GRANT INSERT(url, cc) ON ooni.citizenlab TO x"], None),
        ([], False),
    ],
)
def test_rights_are_read_from_the_servers_own_lines(lines: list[str], insert: bool | None) -> None:
    assert rights_of(lines).allows("INSERT", "ooni", "citizenlab") is insert


def test_a_group_of_privileges_has_those_that_are_needed() -> None:
    rights = rights_of(["GRANT SHOW, SELECT, CREATE, DROP ON *.* TO x"])
    assert rights.allows("CREATE TABLE", "ooni", "a")
    assert rights.allows("DROP TABLE", "ooni", "a")
    assert not rights.allows("INSERT", "ooni", "a")


def test_roles_and_lines_about_no_table_are_told_from_those_that_can_not_be_read() -> None:
    rights = rights_of(
        [
            "GRANT TABLE ENGINE ON * TO x",
            "GRANT READ, WRITE ON S3('s3://a/.*') TO x",
            "GRANT NAMED COLLECTION ON `a b` TO x",
            "GRANT writers, `more readers` TO x",
            "something else",
            "GRANT SELECT ON a.b.c TO x",
        ]
    )
    assert rights.roles == ["writers", "more readers"]
    assert rights.unread == ["something else", "GRANT SELECT ON a.b.c TO x"]
    assert rights.grants == []


class Answering:
    """A client of a server with users and roles, which the embedded one doesn't have."""

    def __init__(self, answers: Mapping[str, list[str]]) -> None:
        self._answers = answers

    def execute(self, query: str, params: object = None, **options: object) -> object:
        assert not params
        assert not options
        return [(line,) for line in self._answers[query]]

    def disconnect(self) -> None:
        """Close nothing."""


def granted(**answers: list[str]) -> str:
    """Check a need of two privileges, with what SHOW GRANTS answers for the user and the roles."""
    queries = {f"SHOW GRANTS FOR `{role}`": lines for role, lines in answers.items()}
    queries["SHOW GRANTS"] = answers["user"]
    queries["SELECT currentUser()"] = ["x"]
    database = Database(Answering(queries))
    return check_grants(database, "ooni", [Need("a", ("SELECT", "INSERT"))])


def test_roles_add_to_what_a_user_has() -> None:
    user = ["GRANT SELECT ON ooni.* TO x", "GRANT outer TO x"]
    outer, inner = (
        ["GRANT inner TO outer", "GRANT outer TO outer"],
        ["GRANT INSERT ON *.* TO inner"],
    )
    assert granted(user=user, outer=outer, inner=inner) == "SELECT, INSERT on a"
    with pytest.raises(ConfigError, match=r"run: GRANT INSERT ON ooni\.a TO x$"):
        granted(user=user, outer=outer, inner=[])


def test_what_can_not_be_told_stops_no_run() -> None:
    assert isinstance(granted(user=["GRANT SELECT, INSERT(b) ON ooni.a TO x"]), Note)
    assert isinstance(granted(user=["something else"]), Note)
