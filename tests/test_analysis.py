"""The wrapper that keeps the old command line of `analysis`."""

import os
import subprocess
from pathlib import Path

import pytest

import analysis
from conftest import Database as FreshDatabase
from dev.samples.asn_map import asn_map
from dev.samples.fingerprints import SampleFingerprints

ROOT = Path(__file__).parents[1]


@pytest.fixture
def environment(tmp_path: Path, database: FreshDatabase, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources for two of the updaters, set in the environment, and their state directory."""
    sample = SampleFingerprints(dns=110, http=150)
    (tmp_path / "dns.csv").write_bytes(sample.dns)
    (tmp_path / "http.csv").write_bytes(sample.http)
    (tmp_path / "map.json").write_bytes(asn_map(300, 1000))
    variables = {
        "OONI_DNS_URL": (tmp_path / "dns.csv").as_uri(),
        "OONI_HTTP_URL": (tmp_path / "http.csv").as_uri(),
        "OONI_URL": (tmp_path / "map.json").as_uri(),
        "OONI_MIN_ROWS": "100",
        "OONI_STATE_DIR": str(tmp_path / "state"),
        "OONI_STATSD": "",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "state"


def count(database: FreshDatabase, table: str) -> int:
    (rows,) = database.execute(f"SELECT count() FROM {table}")[0]
    return int(rows)


@pytest.mark.usefixtures("environment")
def test_an_option_runs_its_updater_on_the_database_that_is_named(
    database: FreshDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analysis.main(["--update-asnmeta", "--stdout", "--db-uri", database.uri]) == 0
    assert "asnmeta: 1,000 rows (+1,000 -0)" in capsys.readouterr().out
    assert count(database, "asnmeta") == 1000


@pytest.mark.usefixtures("environment")
def test_several_options_run_one_after_the_other(database: FreshDatabase) -> None:
    status = analysis.main(["--update-fingerprints", "--update-asnmeta", "--db-uri", database.uri])
    assert status == 0
    assert count(database, "fingerprints_http") == 150
    assert count(database, "asnmeta") == 1000


def test_each_updater_writes_its_metrics_into_the_folder_that_is_named(
    database: FreshDatabase, environment: Path
) -> None:
    folder = environment.parent
    options = ["--update-fingerprints", "--update-asnmeta", "--textfile", str(folder)]
    assert analysis.main([*options, "--db-uri", database.uri]) == 0
    rows = [
        line
        for script in ("fingerprints_updater", "asnmeta_updater")
        for line in (folder / f"ooni_{script}.prom").read_text().splitlines()
        if line.startswith("ooni_table_rows")
    ]
    assert rows == [
        'ooni_table_rows{script="fingerprints_updater",table="fingerprints_dns"} 110.0',
        'ooni_table_rows{script="fingerprints_updater",table="fingerprints_http"} 150.0',
        'ooni_table_rows{script="asnmeta_updater",table="asnmeta"} 1000.0',
    ]


def test_a_dry_run_writes_nothing(database: FreshDatabase, environment: Path) -> None:
    assert analysis.main(["--update-asnmeta", "--dry-run", "--db-uri", database.uri]) == 0
    assert database.execute("EXISTS TABLE asnmeta") == [(0,)]
    assert not environment.exists()


@pytest.mark.usefixtures("environment")
def test_devel_logs_each_step_to_standard_output(
    database: FreshDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    analysis.main(["--update-asnmeta", "--devel", "--db-uri", database.uri])
    assert "debug: EXISTS TABLE `asnmeta`" in capsys.readouterr().out


@pytest.mark.usefixtures("environment")
def test_the_exit_status_is_that_of_the_first_that_failed(
    database: FreshDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OONI_MIN_ROWS", "200")
    options = ["--update-fingerprints", "--update-asnmeta"]
    assert analysis.main([*options, "--db-uri", database.uri]) == 65
    assert count(database, "asnmeta") == 1000
    assert analysis.main([*options, "--db-uri", "clickhouse://127.0.0.1:1/x"]) == 69
    assert analysis.main([*options, "--db-uri", "http://127.0.0.1:1/x"]) == 78


def test_no_option_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        analysis.main(["--dry-run"])
    assert stopped.value.code == 2
    assert "choose at least one of --update-citizenlab, --update-f" in capsys.readouterr().err


@pytest.mark.skipif(not (ROOT / ".venv/.ready").exists(), reason="`make venv` did not run here")
def test_it_runs_from_a_checkout(database: FreshDatabase, environment: Path) -> None:
    process = subprocess.run(
        ["./run_analysis", "--update-asnmeta", "--dry-run", "--stdout", "--db-uri", database.uri],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "analysis"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert "asnmeta: would be created with 1,000 rows" in process.stdout
    assert not environment.exists()
