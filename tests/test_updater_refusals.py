"""A bad upstream of the fingerprints or the ASN map costs a question a run, and stops no month."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

import asnmeta_updater
import fingerprints_updater
from conftest import Database as FreshDatabase
from dev.samples.asn_map import asn_map as sample_map
from dev.samples.fingerprints import to_csv
from dev.servers.fault_proxy import Exchange, FaultProxy
from dev.servers.upstream import SampleUpstream
from fingerprints_harness import GOOD, Upstream, served_upstream
from updater_harness import Harness

DAY = 86_400
START = 1_767_225_600.0


class Timed(Harness):
    """An updater whose clock a test moves."""

    now = START

    def main(self, argv: Sequence[str]) -> int:
        status: int = self.module.main(argv, clock=lambda: self.now)
        return status


class Fingerprints(Timed):
    module: ClassVar[ModuleType] = fingerprints_updater
    tables = ("fingerprints_dns", "fingerprints_http")


class AsnMap(Timed):
    module: ClassVar[ModuleType] = asnmeta_updater
    tables = ("asnmeta",)


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    with served_upstream(tmp_path / "upstream") as served:
        yield served


@pytest.fixture
def fingerprints(
    tmp_path: Path,
    database: FreshDatabase,
    upstream: Upstream,
    capsys: pytest.CaptureFixture[str],
) -> Fingerprints:
    made = Fingerprints(tmp_path, database, capsys)
    made.configure(
        dns_url=upstream.server.url("fingerprints_dns.csv"),
        http_url=upstream.server.url("fingerprints_http.csv"),
    )
    assert made.run()[0] == 0
    upstream.server.clear()
    return made


def bad_rows(first: int, count: int) -> bytes:
    return b"".join(
        b"made.%d,isp,,body,full,,5,,,,\r\n" % number for number in range(first, first + count)
    )


GOOD_ROW = to_csv([GOOD], header=[]).removeprefix(b"\r\n")


@pytest.mark.long
def test_bad_rows_keep_the_good_ones_out_for_two_weeks_at_most(
    fingerprints: Fingerprints, upstream: Upstream
) -> None:
    """Eleven bad rows, and nobody there."""
    upstream.write(http=upstream.with_raw_row(bad_rows(0, 11) + GOOD_ROW))
    with fingerprints.unchanged():
        status, log = fingerprints.run()
    assert status == 65
    assert "the others are loaded on 2026-01-15, or by --force" in log
    told = 0
    for hour in range(1, 14 * 24, 20):
        fingerprints.now = START + hour * 3600
        upstream.server.clear()
        status, log = fingerprints.run()
        assert status == 65
        answer = 200 if hour == 1 else 304  # once more: were these the bytes that it has?
        assert [request.status for request in upstream.server.requests] == [304, answer]
        assert len(log.splitlines()) <= 3
        told += "refused since 2026-01-01" in log
    assert 7 <= told <= 14
    fingerprints.now = START + 14 * DAY + 1
    assert fingerprints.run()[0] == 0
    assert len(fingerprints.rows_of("fingerprints_http")) == 151
    assert not any(row[5] == "" for row in fingerprints.rows_of("fingerprints_http"))
    assert "nothing to do" in fingerprints.run()[1]


def test_rows_that_are_added_later_do_not_prolong_that(
    fingerprints: Fingerprints, upstream: Upstream
) -> None:
    upstream.write(http=upstream.with_raw_row(bad_rows(0, 11)))
    assert fingerprints.run()[0] == 65
    fingerprints.now += 13 * DAY
    upstream.write(http=upstream.with_raw_row(bad_rows(0, 15) + GOOD_ROW))
    assert fingerprints.run()[0] == 65
    fingerprints.now += 1.01 * DAY
    assert fingerprints.run()[0] == 0
    assert len(fingerprints.rows_of("fingerprints_http")) == 151


def test_a_file_that_is_mended_is_loaded_with_the_one_that_had_changed_before(
    fingerprints: Fingerprints, upstream: Upstream
) -> None:
    """The other file is what was refused with it, and still not what is live."""
    upstream.write(dns=upstream.sample.with_added("dns", 3).dns, http=b"<html>")
    assert fingerprints.run()[0] == 65
    upstream.write(http=upstream.with_row())
    assert fingerprints.run()[0] == 0
    assert len(fingerprints.rows_of("fingerprints_dns")) == 113
    assert len(fingerprints.rows_of("fingerprints_http")) == 151


def test_an_upstream_that_goes_back_to_what_is_live_is_fine(
    fingerprints: Fingerprints, upstream: Upstream
) -> None:
    upstream.write(http=b"<html>")
    assert fingerprints.run()[0] == 65
    upstream.write(http=upstream.sample.http)
    for _ in range(2):
        status, log = fingerprints.run()
        assert (status, "nothing to do" in log) == (0, True)
    upstream.write(http=b"<html>")
    assert fingerprints.run()[0] == 65


def test_force_and_another_configuration_judge_again(
    fingerprints: Fingerprints, upstream: Upstream
) -> None:
    upstream.write(http=upstream.with_raw_row(bad_rows(0, 11) + GOOD_ROW))
    assert fingerprints.run()[0] == 65
    assert fingerprints.run(max_rejected_rows=11)[0] == 0
    upstream.write(http=upstream.with_raw_row(bad_rows(0, 30) + GOOD_ROW))
    assert fingerprints.run()[0] == 65
    assert fingerprints.run("--force")[0] == 0


@pytest.mark.long
@pytest.mark.parametrize("statement", ["DROP TABLE {} SYNC", "TRUNCATE TABLE {}"])
def test_a_loss_is_refused_no_more_where_the_table_is_gone(
    tmp_path: Path, database: FreshDatabase, capsys: pytest.CaptureFixture[str], statement: str
) -> None:
    folder = tmp_path / "upstream"
    folder.mkdir()
    (folder / "map.json").write_bytes(sample_map(300, 1000, 1))
    with SampleUpstream(folder) as server:
        updater = AsnMap(tmp_path, database, capsys)
        updater.configure(url=server.url("map.json"), min_rows=100)
        assert updater.run()[0] == 0
        (folder / "map.json").write_bytes(sample_map(200, 500, 1))
        for said in ("would disappear", "the same bytes", "not modified"):
            status, log = updater.run()
            assert (status, said in log) == (65, True), log
        database.execute(statement.format("asnmeta"))
        status, log = updater.run()
        assert (status, len(updater.rows_of("asnmeta"))) == (0, 500), log


@pytest.mark.parametrize(
    ("what", "status"), [(b"[", 65), (b"0", 0)], ids=["the document", "one row"]
)
def test_bytes_that_were_damaged_on_their_way_are_refused_once(
    tmp_path: Path,
    database: FreshDatabase,
    capsys: pytest.CaptureFixture[str],
    what: bytes,
    status: int,
) -> None:
    folder = tmp_path / "upstream"
    folder.mkdir()
    (folder / "map.json").write_bytes(sample_map(300, 1000, 1))

    def damage(exchange: Exchange) -> None:
        with exchange.forwarded() as response:
            content = response.read()
            exchange.pass_head(response)
            exchange.send(content.replace(what, b"\xdb", 1))
            exchange.end()

    with SampleUpstream(folder) as server, FaultProxy(server.address) as proxy:
        updater = AsnMap(tmp_path, database, capsys)
        updater.configure(url=f"{proxy.url}/map.json", min_rows=100)
        proxy.fail(damage, lambda _request: True, times=1)
        assert updater.run()[0] == status
        for _ in range(2):
            assert updater.run()[0] == 0
            assert len(updater.rows_of("asnmeta")) == 1000
        assert [request.status for request in server.requests] == [200, 200, 304]


@pytest.mark.long
def test_a_map_that_was_refused_is_not_fetched_again(
    tmp_path: Path, database: FreshDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "upstream"
    folder.mkdir()
    (folder / "map.json").write_bytes(sample_map(300, 1000, 1))
    with SampleUpstream(folder) as server:
        updater = AsnMap(tmp_path, database, capsys)
        updater.configure(url=server.url("map.json"), min_rows=100)
        assert updater.run()[0] == 0
        many = json.loads(sample_map(300, 1000, 1)) | {f"AS{n}": [["a"]] for n in range(100)}
        (folder / "map.json").write_text(json.dumps(many))
        status, log = updater.run()
        assert status == 65
        assert "100 of 1,100 rows are refused" in log
        assert len(log.splitlines()) < 30
        for day in range(1, 31, 5):
            server.clear()
            updater.now = START + day * DAY
            status, log = updater.run()
            answer = 200 if day == 1 else 304  # once more: were these the bytes that it has?
            assert (status, [request.status for request in server.requests]) == (65, [answer])
            assert len(log.splitlines()) <= 2
        (folder / "map.json").write_bytes(sample_map(300, 1000, 1, duplicates=3))
        assert updater.run()[0] == 0
        assert len(updater.rows_of("asnmeta")) == 1000
