"""The updater of the ASN metadata as a whole."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

import asnmeta_updater
from asn_map_harness import GOOD, expected_rows
from conftest import Database as FreshDatabase
from dev.samples.asn_map import asn_map as sample_map
from dev.servers.misbehaving import MisbehavingServer, body, short_body, unfinished_chunks
from dev.servers.statsd import StatsdListener
from dev.servers.upstream import SampleUpstream
from ooni_common import __version__
from updater_harness import Harness, check_shipped_configuration


class Updater(Harness):
    """The updater of the ASN metadata."""

    module: ClassVar[ModuleType] = asnmeta_updater
    tables = ("asnmeta",)


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[SampleUpstream]:
    folder = tmp_path / "upstream"
    folder.mkdir()
    (folder / "map.json").write_bytes(sample_map(300, 1000, 1))
    with SampleUpstream(folder) as server:
        yield server


@pytest.fixture
def updater(
    tmp_path: Path,
    database: FreshDatabase,
    upstream: SampleUpstream,
    capsys: pytest.CaptureFixture[str],
) -> Updater:
    made = Updater(tmp_path, database, capsys)
    made.configure(url=upstream.url("map.json"), min_rows=100)
    return made


def write(updater: Updater, content: bytes) -> None:
    """Replace the upstream's file."""
    (updater.folder / "upstream" / "map.json").write_bytes(content)


def test_the_first_run_stores_what_was_sent(updater: Updater, upstream: SampleUpstream) -> None:
    status, log = updater.run()
    assert status == 0
    document = (updater.folder / "upstream" / "map.json").read_bytes()
    assert updater.rows_of("asnmeta") == expected_rows(document)
    assert "asnmeta: 1,000 rows (+1,000 -0)" in log


def test_an_unchanged_upstream_costs_one_conditional_request(
    updater: Updater, upstream: SampleUpstream
) -> None:
    updater.run()
    upstream.clear()
    with updater.unchanged():
        status, log = updater.run()
    assert status == 0
    assert [request.status for request in upstream.requests] == [304]
    assert "nothing to do: upstream has nothing new" in log


def test_another_url_is_asked_for_the_whole_map(updater: Updater) -> None:
    """A mirror whose map is older would answer that it is not modified."""
    newer, older = datetime(2026, 8, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)
    with MisbehavingServer() as server:
        document = json.dumps(json.loads(sample_map(300, 1000, 1)) | {"77": [GOOD]})
        first = body(document.encode(), last_modified=newer)
        updater.run(url=server.route("/map.json", first))
        mirror = body(sample_map(300, 1000, 1), last_modified=older)
        assert updater.run(url=server.route("/mirror.json", mirror))[0] == 0
        assert len(updater.rows_of("asnmeta")) == 1000


def test_a_new_document_is_loaded_and_can_be_rolled_back(
    updater: Updater, statsd: StatsdListener
) -> None:
    updater.run()
    before = updater.rows_of("asnmeta")
    document = json.loads(sample_map(300, 1000, 1)) | {"77": [GOOD]}
    write(updater, json.dumps(document).encode())
    assert updater.run(statsd=statsd.address)[0] == 0
    assert len(updater.rows_of("asnmeta")) == 1001
    assert updater.run("--rollback", statsd=statsd.address)[0] == 0
    assert updater.rows_of("asnmeta") == before
    assert statsd.metrics()["asnmeta_updater.asnmeta_tmp_len"] == [(1001, "g"), (1000, "g")]
    with updater.unchanged():
        assert updater.run()[0] == 0
        upgrade(updater)
        assert updater.run()[0] == 0
    assert updater.run("--rollback")[0] == 0
    upgrade(updater)
    status, log = updater.run()
    assert (status, "asnmeta: 1,001 rows, unchanged" in log) == (0, True), log


def upgrade(updater: Updater) -> None:
    """Let another version of the package have loaded what is there."""
    path = updater.state_dir / "asnmeta_updater.json"
    path.write_text(path.read_text().replace(f'"{__version__}"', '"1.0"'))


@pytest.mark.parametrize("again", ["--force", "after an upgrade"])
def test_the_same_map_read_once_more_keeps_what_can_be_rolled_back_to(
    updater: Updater, again: str
) -> None:
    updater.run()
    before = updater.rows_of("asnmeta")
    members = json.loads(sample_map(300, 1000, 1)) | {"77": [GOOD], "no number": [GOOD]}
    write(updater, json.dumps(members).encode())
    assert updater.run()[0] == 0
    if again == "--force":
        status, log = updater.run("--force")
    else:
        upgrade(updater)
        status, log = updater.run()
    assert status == 0
    assert "asnmeta: 1,001 rows, unchanged" in log
    assert "row refused" in log
    assert updater.run("--rollback")[0] == 0
    assert updater.rows_of("asnmeta") == before


def test_the_same_rows_in_another_document_are_said_to_end_the_rollback(updater: Updater) -> None:
    updater.run()
    write(updater, json.dumps(json.loads(sample_map(300, 1000, 1)), indent=1).encode())
    status, log = updater.run()
    assert status == 0
    assert "asnmeta: has the same rows already; asnmeta_tmp has them, too, now: nothing is" in log


def test_a_dry_run_prints_the_difference_and_writes_nothing(updater: Updater) -> None:
    updater.run()
    document = json.loads(sample_map(300, 1000, 1)) | {"77": [GOOD]}
    write(updater, json.dumps(document).encode())
    with updater.unchanged():
        status, printed = updater.run("--dry-run")
    assert status == 0
    assert "+ 77 | Level 3 | US | 2004-06-04 | LVLT-1 | ARIN" in printed


def test_refused_rows_are_logged_and_the_others_loaded(updater: Updater) -> None:
    document = json.loads(sample_map(300, 1000, 1)) | {"AS5": [GOOD], "5": [[*GOOD, "x"], GOOD]}
    write(updater, json.dumps(document).encode())
    status, log = updater.run()
    assert status == 0
    assert "warning: all_as_org_map.json: ASN 'AS5': not a plain number" in log
    assert "warning: all_as_org_map.json: ASN 5, row 1: 6 fields instead of 5 fields" in log


@pytest.mark.long
@pytest.mark.parametrize("damage", ["cut", "html", "too many refused", "too few", "shrunk"])
def test_a_refused_document_changes_nothing(updater: Updater, damage: str) -> None:
    updater.run()
    document = sample_map(300, 1000, 1)
    changed = {
        "cut": document[: len(document) // 2],
        "html": b"<html>Item not available</html>",
        "too many refused": document.replace(b'["', b'["x", "', 50),
        "too few": sample_map(20, 90, 1),
        "shrunk": sample_map(200, 700, 1),
    }
    write(updater, changed[damage])
    with updater.unchanged():
        status, log = updater.run()
    assert status == 65
    assert "Traceback" not in log


def test_a_download_that_is_cut_off_changes_nothing(
    updater: Updater, monkeypatch: pytest.MonkeyPatch
) -> None:
    updater.run()
    monkeypatch.setattr(
        asnmeta_updater, "LIMITS", asnmeta_updater.LIMITS.__class__(10**8, retries=1, backoff=0.01)
    )
    document = sample_map(310, 1100, 1)
    for behaviour in (
        short_body(document[:20_000], declared=len(document)),
        unfinished_chunks(document[:20_000]),
    ):
        with MisbehavingServer() as server, updater.unchanged():
            status, log = updater.run(url=server.route("/map.json", behaviour))
        assert status == 69
        assert "the body ended too early" in log.splitlines()[-1]


def test_metrics_tell_what_was_done(updater: Updater, statsd: StatsdListener) -> None:
    assert updater.run(statsd=statsd.address)[0] == 0
    received = {
        name.removeprefix("asnmeta_updater."): values for name, values in statsd.metrics().items()
    }
    assert received.keys() == {
        "absent_nodes",
        "asnmeta_tmp_len",
        "asnmeta_update_progress",
        "fetch_data",
        "last_success",
        "rejected_rows",
        "run",
        "exit_status",
        "status",
    }
    assert received["asnmeta_tmp_len"] == [(1000, "g")]
    assert received["rejected_rows"] == [(0, "g")]
    assert [value for value, _ in received["asnmeta_update_progress"]] == [0, 50, 100]


def test_the_shipped_configuration_holds_every_key_with_its_default() -> None:
    check_shipped_configuration(asnmeta_updater, "update-asn-metadata.conf")
