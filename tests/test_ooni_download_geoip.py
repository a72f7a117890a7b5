"""The GeoIP downloader as a whole, against real HTTP servers and real MMDB files."""

import gzip
import hashlib
import io
import json
import os
import pwd
import random
import shlex
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import maxminddb
import pytest

import ooni_download_geoip as script
from dev.samples.geoip import ASN, COUNTRY, Kind, Record, write_database, write_month
from dev.servers import misbehaving as http
from dev.servers.loopback import Exchange
from dev.servers.misbehaving import Behaviour, MisbehavingServer
from dev.servers.statsd import StatsdListener
from dev.servers.upstream import SampleUpstream
from geoip_config import Config
from geoip_harness import (
    AMPLE,
    DECEMBER,
    FILES,
    IMPATIENT,
    INSTALLED,
    LIMITS,
    NOVEMBER,
    OCTOBER,
    PAIR_BEFORE,
    PERSISTENT,
    STATE,
    Geoip,
    Upstream,
    good_bodies,
    on,
    packed,
)
from installation import STAMP, Installation
from ooni_common.errors import DataRefused
from privileges import NOBODY
from updater_harness import check_shipped_configuration


@pytest.fixture
def geoip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Geoip:
    return Geoip(tmp_path, capsys)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three months, as the upstream has them."""
    folder = tmp_path_factory.mktemp("geoip-upstream")
    for month in (OCTOBER, NOVEMBER, DECEMBER):
        write_month(folder, month)
    return folder


@pytest.fixture
def upstream(tmp_path: Path, published: Path, geoip: Geoip) -> Iterator[Upstream]:
    folder = tmp_path / "upstream"
    folder.mkdir()
    with SampleUpstream(folder) as server:
        made = Upstream(folder, published, server)
        geoip.configure(**made.keys())
        yield made


# Months


def test_before_the_month_is_published_the_one_before_is_installed(
    geoip: Geoip, upstream: Upstream
) -> None:
    upstream.publish(OCTOBER)
    status, log = geoip.run(day="2026-11-01")
    assert (status, geoip.months(), geoip.stamp()) == (0, (OCTOBER, OCTOBER), "2026-10\n")
    assert "2026-11 is not published yet" in log
    assert geoip.names() == INSTALLED
    assert {path.name for path in geoip.state.iterdir()} == {STATE, "ooni_download_geoip.lock"}
    assert {(geoip.output / name).stat().st_mode & 0o777 for name in INSTALLED} == {0o644}


def test_the_next_month_replaces_it_and_it_is_kept_beside(geoip: Geoip, upstream: Upstream) -> None:
    upstream.publish(OCTOBER)
    geoip.run(day="2026-11-01")
    before = geoip.content()
    upstream.publish(NOVEMBER)
    assert geoip.run(day="2026-11-02")[0] == 0
    assert (geoip.months(), geoip.stamp()) == ((NOVEMBER, NOVEMBER), "2026-11\n")
    after = geoip.content()
    assert [after[f"{name}.previous"] for name in FILES] == [before[name] for name in FILES]


def test_the_same_month_costs_no_request(geoip: Geoip, upstream: Upstream) -> None:
    upstream.publish(NOVEMBER)
    geoip.run()
    upstream.server.clear()
    before = geoip.content()
    status, log = geoip.run()
    assert (status, upstream.server.requests) == (0, [])
    assert "nothing to do" in log
    assert geoip.content() == before


def test_a_month_that_is_not_published_yet_changes_nothing(
    geoip: Geoip, upstream: Upstream
) -> None:
    upstream.publish(NOVEMBER)
    geoip.run()
    before = geoip.content()
    status, log = geoip.run(day="2026-12-01")
    assert (status, geoip.content()) == (0, before)
    assert "2026-12 is not published yet" in log


def test_one_of_the_two_files_is_not_enough(
    geoip: Geoip, upstream: Upstream, published: Path
) -> None:
    upstream.publish(OCTOBER)
    geoip.run(day="2026-10-10")
    before = geoip.content()
    shutil.copy(published / f"dbip-asn-lite-{NOVEMBER}.mmdb.gz", upstream._folder)
    assert geoip.run()[0] == 0
    assert geoip.content() == before


def test_a_missed_month_is_made_up_for(geoip: Geoip, upstream: Upstream) -> None:
    upstream.publish(OCTOBER)
    geoip.run(day="2026-10-10")
    upstream.publish(NOVEMBER)
    geoip.run(day="2026-12-01")
    assert (geoip.months(), geoip.stamp()) == ((NOVEMBER, NOVEMBER), "2026-11\n")


def test_nothing_published_and_nothing_installed_is_a_failure(
    geoip: Geoip,
    upstream: Upstream,
) -> None:
    status, log = geoip.run()
    assert status == 69
    assert "nothing to install: 2026-11 and 2026-10 are not published" in log


def test_a_standstill_upstream_is_a_failure_in_the_end(geoip: Geoip, upstream: Upstream) -> None:
    upstream.publish(OCTOBER)
    geoip.run(day="2026-10-10")
    assert geoip.run(day="2026-11-14")[0] == 0
    status, log = geoip.run(day="2026-11-16")
    assert status == 69
    assert "look whether the address has changed" in log
    assert geoip.months() == (OCTOBER, OCTOBER)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["deleted", "truncated", "overwritten"])
def test_a_damaged_file_is_fetched_again_whatever_the_stamp_says(
    geoip: Geoip, upstream: Upstream, name: str, damage: str
) -> None:
    upstream.publish(OCTOBER)
    geoip.run(day="2026-10-10")
    upstream.publish(NOVEMBER)
    geoip.run()
    before = geoip.content()  # the replaced pair in it, too
    path = geoip.output / name
    match damage:
        case "deleted":
            path.unlink()
        case "truncated":
            os.truncate(path, path.stat().st_size // 2)
        case "overwritten":
            path.write_bytes(random.Random(1).randbytes(50_000))
    damaged = geoip.content()
    status, log = geoip.run("--dry-run")
    assert (status, geoip.content()) == (0, damaged)
    assert f"would install 2026-11: {path.stem}" in log
    upstream.server.clear()
    assert geoip.run()[0] == 0
    assert geoip.content() == before
    assert upstream.bodies() == 1  # the other one is not modified


def test_databases_without_a_state_are_checked_and_adopted(
    geoip: Geoip, upstream: Upstream
) -> None:
    upstream.publish(NOVEMBER)
    geoip.run()
    (geoip.state / STATE).unlink()
    upstream.server.clear()
    assert geoip.run()[0] == 0
    assert upstream.server.requests == []
    state = json.loads((geoip.state / STATE).read_text())
    digest = hashlib.sha256((geoip.output / "asn.mmdb").read_bytes()).hexdigest()
    assert state["asn"]["sha256"] == digest


def test_a_dry_run_changes_nothing(geoip: Geoip, upstream: Upstream) -> None:
    upstream.publish(NOVEMBER)
    status, log = geoip.run("--dry-run", "--stdout")
    assert (status, geoip.content()) == (0, {})
    assert "would install 2026-11: asn and cc" in log


def test_an_address_without_month_is_asked_at_each_run(
    geoip: Geoip, upstream: Upstream, published: Path
) -> None:
    keys = {key: upstream.server.url(f"{key}.mmdb.gz") for key in ("asn_url", "cc_url")}

    def publish(month: str) -> None:
        shutil.copy(
            published / f"dbip-asn-lite-{month}.mmdb.gz", upstream._folder / "asn_url.mmdb.gz"
        )
        shutil.copy(
            published / f"dbip-country-lite-{month}.mmdb.gz", upstream._folder / "cc_url.mmdb.gz"
        )

    assert geoip.run(**keys)[0] == 69
    publish(OCTOBER)
    assert geoip.run(**keys)[0] == 0
    upstream.server.clear()
    assert geoip.run(**keys)[0] == 0
    assert [request.status for request in upstream.server.requests] == [304, 304]
    publish(NOVEMBER)
    assert geoip.run(**keys)[0] == 0
    assert geoip.months() == (NOVEMBER, NOVEMBER)


def test_an_address_without_month_is_asked_at_each_run_beside_one_with_a_month(
    geoip: Geoip, upstream: Upstream, published: Path
) -> None:
    upstream.publish(OCTOBER)
    asn = upstream._folder / "asn.mmdb.gz"
    shutil.copy(published / f"dbip-asn-lite-{OCTOBER}.mmdb.gz", asn)
    keys = {"asn_url": upstream.server.url(asn.name)}
    assert geoip.run(**keys)[0] == 0
    upstream.server.clear()
    status, log = geoip.run()
    assert (status, "nothing to do" in log, upstream.bodies()) == (0, True, 0)
    shutil.copy(published / f"dbip-asn-lite-{NOVEMBER}.mmdb.gz", asn)
    assert geoip.run()[0] == 0
    assert (geoip.months(), geoip.stamp()) == ((NOVEMBER, OCTOBER), "2026-10\n")
    upstream.publish(NOVEMBER)
    assert geoip.run()[0] == 0
    assert (geoip.months(), geoip.stamp()) == ((NOVEMBER, NOVEMBER), "2026-11\n")
    shutil.copy(published / f"dbip-asn-lite-{DECEMBER}.mmdb.gz", asn)
    assert geoip.run(day="2026-11-30")[0] == 0
    assert (geoip.months(), geoip.stamp()) == ((DECEMBER, NOVEMBER), "2026-11\n")


def test_the_same_bytes_are_not_installed_again(
    geoip: Geoip, server: MisbehavingServer, published: Path
) -> None:
    asn, country = good_bodies(published)
    keys = {
        "asn_url": server.route("/asn.mmdb.gz", http.body(asn)),
        "cc_url": server.route("/cc.mmdb.gz", http.body(country)),
    }
    geoip.run(**keys)
    before = geoip.content()
    status, log = geoip.run(**keys)
    assert (status, geoip.content()) == (0, before)
    assert "the same bytes as before" in log
    assert "nothing to do" in log


def test_another_address_is_not_asked_for_changes_since_the_first(
    geoip: Geoip, upstream: Upstream, server: MisbehavingServer, published: Path
) -> None:
    upstream.publish(NOVEMBER)
    geoip.run()
    geoip.run("--dry-run", day="2026-12-10", asn_url=server.url("/asn"), cc_url=server.url("/cc"))
    assert "If-None-Match" not in server.requests[0].headers
    asn, country = good_bodies(published)
    keys = {
        "asn_url": server.route("/asn.gz", http.body(asn, etag='"1"')),
        "cc_url": server.route("/cc.gz", http.body(country, etag='"1"')),
    }
    assert geoip.run(day="2026-12-10", **keys)[0] == 0
    assert ["If-None-Match" in request.headers for request in server.requests] == [False] * 3


def test_a_month_is_asked_for_again_under_another_address(
    geoip: Geoip, upstream: Upstream, server: MisbehavingServer, published: Path
) -> None:
    upstream.publish(NOVEMBER)
    geoip.run()
    asn, country = good_bodies(published)
    for name, content in (("asn", asn), ("cc", country)):
        server.route(f"/{name}-2026-11.gz", http.body(content, etag='"1"'))
    mirror = {
        f"{name}_url": server.url(f"/{name}-") + "{year}-{month}.gz" for name in ("asn", "cc")
    }
    before = geoip.months()
    for answers in (2, 0):
        server.clear()
        status, log = geoip.run(**mirror)
        assert (status, geoip.months(), len(server.requests)) == (0, before, answers)
    assert "nothing to do" in log


def test_the_same_bytes_under_another_address_are_fetched_once(
    geoip: Geoip, server: MisbehavingServer, published: Path
) -> None:
    asn, country = good_bodies(published)

    def keys(word: str) -> dict[str, str]:
        bodies = {"asn": asn, "cc": country}
        urls = {
            f"{name}_url": server.route(f"/{word}-{name}.gz", http.body(content, etag='"1"'))
            for name, content in bodies.items()
        }
        return {name: f"{url}?key=hidden-{word}&suffix=gz" for name, url in urls.items()}

    assert geoip.run(**keys("first"))[0] == 0
    for validators in (None, '"1"'):
        server.clear()
        status, log = geoip.run(**keys("second"))
        assert (status, "nothing to do" in log) == (0, True)
        asked = [request.headers.get("If-None-Match") for request in server.requests]
        assert asked == [validators, validators]
    assert "hidden" not in (geoip.state / STATE).read_text()


# What is refused, and what is unavailable


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as running:
        yield running


@pytest.fixture
def old_pair(geoip: Geoip, upstream: Upstream) -> Geoip:
    """October is installed."""
    upstream.publish(OCTOBER)
    assert geoip.run(day="2026-10-10")[0] == 0
    return geoip


def overwritten(content: bytes, start: int, size: int) -> bytes:
    return content[:start] + b"\xff" * size + content[start + size :]


def looped(content: bytes) -> bytes:
    """Let the first node lead to itself; its right side has the IPv6 networks."""
    return content[:3] + bytes(3) + content[6:]


def without_nodes(content: bytes) -> bytes:
    """Let the metadata say so: a number of no bytes is 0."""
    start = content.rindex(b"node_count") + len("node_count")
    return content[:start] + b"\xc0" + content[start + 1 + (content[start] & 31) :]


def text_instead_of_number(asn: int, _name: str, _country: str) -> Record:
    return {"autonomous_system_number": f"AS{asn}"}


BAD_DATA: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "not-gzip": (lambda _: b"<html>Service maintenance</html>", "no gzip data"),
    "cut-off": (lambda f: gzip.compress(packed(ASN, f))[:-100], "gzip data is cut off"),
    "unreadable-gzip": (
        lambda f: overwritten(gzip.compress(packed(ASN, f)), 2000, 50),
        "unreadable gzip data",
    ),
    "trailing-junk": (
        lambda f: gzip.compress(packed(ASN, f)) + b"junk",
        "something else follows the gzip data",
    ),
    "bomb": (lambda _: gzip.compress(bytes(3_000_000)), "larger than max_size, 2,000,000 bytes"),
    "empty": (lambda _: gzip.compress(b""), "an empty file"),
    "no-database": (lambda _: gzip.compress(b"x" * 5000), "no MMDB database"),
    "without-end": (lambda f: gzip.compress(packed(ASN, f)[:-600]), "no MMDB database"),
    "unreadable-tree": (
        lambda f: gzip.compress(overwritten(packed(ASN, f), 3000, 600)),
        "a record of the tree leads to 16,777,215",
    ),
    "loop": (lambda f: gzip.compress(looped(packed(ASN, f))), "a path in the tree is a loop"),
    "unreadable-data": (
        lambda f: gzip.compress(overwritten(packed(ASN, f), 16_000, 600)),
        "an unreadable database",
    ),
    "other-type": (
        lambda f: gzip.compress(packed(COUNTRY, f)),
        "of type 'DBIP-Country-Lite (compat=GeoLite2-Country)', not 'ASN'",
    ),
    "type-that-geoip2-refuses": (
        lambda f: gzip.compress(packed(replace(ASN, database_type="ASN-Lite"), f)),
        "geoip2 can't read it (The asn method cannot be used with the ASN-Lite database)",
    ),
    "no-number": (
        lambda f: gzip.compress(packed(replace(ASN, record=text_instead_of_number), f)),
        "no ASN for 8.8.8.8: 'AS15169'",
    ),
    "no-nodes": (lambda f: gzip.compress(without_nodes(packed(ASN, f))), "no MMDB database"),
    "no-networks": (
        lambda f: gzip.compress(packed(ASN, f, networks=0)),
        "no ASN for 8.8.8.8, 1.1.1.1, 9.9.9.9, 2001:4860:4860::8888",
    ),
    "smaller": (
        lambda f: gzip.compress(packed(ASN, f, networks=1300)),
        "1,579 nodes, more than 20% fewer than the installed one (2,279)",
    ),
    "only-ipv4": (lambda f: gzip.compress(packed(ASN, f, ip_version=4)), "without IPv6"),
}


@pytest.mark.long
@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_refused_and_changes_nothing(
    case: str,
    old_pair: Geoip,
    published: Path,
    server: MisbehavingServer,
    tmp_path: Path,
    statsd: StatsdListener,
) -> None:
    make, message = BAD_DATA[case]
    good = (published / f"dbip-country-lite-{NOVEMBER}.mmdb.gz").read_bytes()
    keys = {
        "asn_url": server.route("/asn.mmdb.gz", http.body(make(tmp_path))),
        "cc_url": server.route("/cc.mmdb.gz", http.body(good)),
    }
    before = old_pair.content()
    status, log = old_pair.run(**keys, max_size=2_000_000, statsd=statsd.address)
    metrics = statsd.metrics()
    assert (status, old_pair.content()) == (65, before)
    assert message in log
    assert "error: http://127.0.0.1" in log
    assert metrics["ooni_download_geoip.ooni_geoip_checkfail"] == [(1, "c")]
    assert metrics["ooni_download_geoip.status"] == [(1, "g"), (2, "g")]


def test_the_second_file_can_spoil_both(
    old_pair: Geoip, published: Path, server: MisbehavingServer
) -> None:
    good = (published / f"dbip-asn-lite-{NOVEMBER}.mmdb.gz").read_bytes()
    keys = {
        "asn_url": server.route("/asn.mmdb.gz", http.body(good)),
        "cc_url": server.route("/cc.mmdb.gz", http.body(b"oops")),
    }
    before = old_pair.content()
    assert old_pair.run(**keys)[0] == 65
    assert old_pair.content() == before


def test_an_older_database_is_refused_unless_forced(
    geoip: Geoip, upstream: Upstream, published: Path
) -> None:
    upstream.publish(NOVEMBER)
    geoip.run()
    for name in ("asn", "country"):
        old = published / f"dbip-{name}-lite-{OCTOBER}.mmdb.gz"
        shutil.copy(old, upstream._folder / f"dbip-{name}-lite-{DECEMBER}.mmdb.gz")
    before = geoip.content()
    status, log = geoip.run(day="2026-12-10")
    assert (status, geoip.content()) == (65, before)
    assert "built 2026-10-01, before the installed one (2026-11-01)" in log
    assert geoip.run("--force", day="2026-12-10")[0] == 0
    assert geoip.months() == (OCTOBER, OCTOBER)


UNAVAILABLE: dict[str, tuple[Callable[[bytes], Behaviour], str]] = {
    "403": (lambda _: http.status(403), "HTTP 403 Forbidden"),
    "404": (lambda _: http.status(404), "HTTP 404 Not Found"),
    "429": (
        lambda _: http.status(429, headers={"Retry-After": "3600"}),
        "it asks to wait for 3600 s",
    ),
    "500": (lambda _: http.status(500), "HTTP 500"),
    "stall": (lambda good: http.stall(good, after=2000), "sent nothing for too long"),
    "cut": (lambda good: http.short_body(good, declared=len(good) + 9), "the connection broke"),
}


@pytest.mark.parametrize("case", UNAVAILABLE)
def test_an_unavailable_server_changes_nothing(
    case: str, old_pair: Geoip, published: Path, server: MisbehavingServer
) -> None:
    make, message = UNAVAILABLE[case]
    asn, country = good_bodies(published)
    before = old_pair.content()
    old_pair.limits = IMPATIENT if case == "stall" else LIMITS
    status, log = old_pair.run(
        asn_url=server.route("/asn.mmdb.gz", make(asn)),
        cc_url=server.route("/cc.mmdb.gz", http.body(country)),
    )
    assert (status, old_pair.content()) == (69, before)
    assert message in log


@pytest.mark.parametrize(
    "first",
    [http.status(500), http.status(429, headers={"Retry-After": "1"}), http.cut(reset=True)],
    ids=["500", "429", "cut"],
)
def test_what_passes_is_tried_again(
    first: Behaviour, old_pair: Geoip, published: Path, server: MisbehavingServer
) -> None:
    asn, country = good_bodies(published)
    stalled = http.stall(country, after=len(country) // 2)
    old_pair.limits = PERSISTENT
    status, _ = old_pair.run(
        asn_url=server.route("/asn.mmdb.gz", http.sequence(first, http.body(asn))),
        cc_url=server.route("/cc.mmdb.gz", http.sequence(stalled, http.body(country))),
    )
    assert (status, old_pair.months()) == (0, (NOVEMBER, NOVEMBER))
    assert "ooni-download-geoip/" in server.requests[0].headers["User-Agent"]


# Other sources


def test_an_address_with_a_key_and_plain_files_serve_as_well(
    geoip: Geoip, server: MisbehavingServer, tmp_path: Path
) -> None:
    asn = gzip.compress(packed(ASN, tmp_path))
    status, log = geoip.run(
        asn_url=server.route("/asn", http.body(asn)) + "?key=sesame-open&suffix=gz",
        cc_url=server.route("/cc.mmdb", http.body(packed(COUNTRY, tmp_path))),
    )
    assert (status, geoip.months()) == (0, (NOVEMBER, NOVEMBER))
    assert geoip.names() == INSTALLED
    assert "sesame" not in log + str(geoip.content()[STATE])


# Rolling back, checking, configuration


def test_a_rollback_installs_the_replaced_pair_until_the_next_month(
    old_pair: Geoip, upstream: Upstream
) -> None:
    old = old_pair.content()
    upstream.publish(NOVEMBER)
    old_pair.run()
    new = old_pair.content()
    assert old_pair.run("--rollback")[0] == 0
    back = old_pair.content()
    assert [back[name] for name in FILES] == [old[name] for name in FILES]
    assert [back[f"{name}.previous"] for name in FILES] == [new[name] for name in FILES]
    upstream.server.clear()
    assert old_pair.run()[0] == 0
    assert old_pair.content() == back
    assert upstream.server.requests == []
    upstream.publish(DECEMBER)
    assert old_pair.run(day="2026-12-02")[0] == 0
    assert old_pair.months() == (DECEMBER, DECEMBER)


@pytest.fixture
def bare_server(server: MisbehavingServer) -> Callable[..., dict[str, str]]:
    """Publishes databases at addresses without a month; the server never says 304."""

    def publish(**contents: bytes) -> dict[str, str]:
        return {
            f"{name}_url": server.route(f"/{name}.mmdb", http.body(content))
            for name, content in contents.items()
        }

    return publish


def in_versions(kind: Kind, folder: Path) -> list[bytes]:
    return [packed(kind, folder, networks=networks) for networks in (2000, 2010, 2020)]


def test_what_was_rolled_back_stays_away_whatever_the_server_says(
    geoip: Geoip, bare_server: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    asn, country = in_versions(ASN, tmp_path), in_versions(COUNTRY, tmp_path)

    def installed() -> list[bytes]:
        return [geoip.content()[name] for name in FILES]

    for version in (0, 1):
        assert geoip.run(**bare_server(asn=asn[version], cc=country[version]))[0] == 0
    assert geoip.run("--rollback")[0] == 0
    for _ in range(2):
        status, log = geoip.run()
        assert (status, installed()) == (0, [asn[0], country[0]])
        assert log.count("the bytes that were rolled back") == 2
    # The other one of the pair changes, and is rolled back, too.
    assert geoip.run(**bare_server(asn=asn[2], cc=country[1]))[0] == 0
    assert installed() == [asn[2], country[0]]
    assert geoip.run("--rollback")[0] == 0
    assert (geoip.run()[0], installed()) == (0, [asn[0], country[0]])
    assert (geoip.run("--force")[0], installed()) == (0, [asn[2], country[1]])
    assert (geoip.run()[0], installed()) == (0, [asn[2], country[1]])


def test_a_second_rollback_undoes_the_first(
    geoip: Geoip, bare_server: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    asn, country = in_versions(ASN, tmp_path), in_versions(COUNTRY, tmp_path)
    for version in (0, 1):
        geoip.run(**bare_server(asn=asn[version], cc=country[version]))
    for version in (0, 1):
        assert geoip.run("--rollback")[0] == 0
        assert geoip.run()[0] == 0
        assert geoip.content()["asn.mmdb"] == asn[version]
    geoip.run(**bare_server(asn=asn[0], cc=country[0]))  # as upstream thinks, too
    assert geoip.content()["asn.mmdb"] == asn[0]


def test_what_was_damaged_and_rolled_back_stays_away(
    geoip: Geoip, bare_server: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    asn, country = in_versions(ASN, tmp_path), in_versions(COUNTRY, tmp_path)
    for version in (0, 1):
        geoip.run(**bare_server(asn=asn[version], cc=country[version]))
    (geoip.output / "asn.mmdb").write_bytes(b"junk")
    assert geoip.run("--rollback")[0] == 0
    assert geoip.run()[0] == 0
    assert geoip.content()["asn.mmdb"] == asn[0]


def test_a_state_of_an_earlier_version_can_be_rolled_back(
    geoip: Geoip, bare_server: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    asn, country = in_versions(ASN, tmp_path), in_versions(COUNTRY, tmp_path)
    for version in (0, 1):
        geoip.run(**bare_server(asn=asn[version], cc=country[version]))
    state = json.loads((geoip.state / STATE).read_text())
    for loaded in state.values():
        del loaded["put_away"]
    (geoip.state / STATE).write_text(json.dumps(state))
    assert geoip.run("--rollback")[0] == 0
    assert geoip.run()[0] == 0
    assert geoip.content()["asn.mmdb"] == asn[0]


def test_a_rollback_helps_where_the_installed_files_are_gone(
    old_pair: Geoip, upstream: Upstream
) -> None:
    upstream.publish(NOVEMBER)
    old_pair.run()
    for name in INSTALLED:
        (old_pair.output / name).unlink()
    assert old_pair.run("--rollback")[0] == 0
    assert (old_pair.months(), old_pair.stamp()) == ((OCTOBER, OCTOBER), "2026-11\n")


def test_a_rollback_needs_both_replaced_files_whole(old_pair: Geoip, upstream: Upstream) -> None:
    before = old_pair.content()
    assert old_pair.run("--rollback") == (
        65,
        f"error: nothing to roll back to: {old_pair.output}/asn.mmdb.previous is missing\n",
    )
    assert old_pair.content() == before
    upstream.publish(NOVEMBER)
    old_pair.run()
    (old_pair.output / "cc.mmdb.previous").write_bytes(b"junk")
    before = old_pair.content()
    assert old_pair.run("--rollback")[0] == 65
    assert old_pair.content() == before


def test_check_reads_what_is_installed_and_its_age(old_pair: Geoip) -> None:
    status, log = old_pair.run("--check", day="2026-11-15")
    assert status == 0
    assert "asn.mmdb: DBIP-ASN-Lite (compat=GeoLite2-ASN), built 2026-10-01, 2,279 nodes" in log
    status, log = old_pair.run("--check", day="2026-11-16")
    assert status == 65
    assert "asn.mmdb: built 46 days ago, more than 45 are too old" in log
    (old_pair.output / "asn.mmdb").unlink()
    os.truncate(old_pair.output / "cc.mmdb", 10_000)
    before = old_pair.content()
    status, log = old_pair.run("--check")
    assert (status, old_pair.content()) == (65, before)
    assert "asn.mmdb: missing; cc.mmdb: no MMDB database" in log


def test_metrics_of_an_update(geoip: Geoip, upstream: Upstream, statsd: StatsdListener) -> None:
    upstream.publish(NOVEMBER)
    geoip.run(statsd=statsd.address)
    metrics = statsd.metrics()
    prefix = "ooni_download_geoip"
    assert metrics[f"{prefix}.ooni_geoip_updated"] == [(1, "c")]
    assert metrics[f"{prefix}.geoip_asn_node_cnt"] == [(2279, "g")]
    assert metrics[f"{prefix}.geoip_cc_node_cnt"] == [(2279, "g")]
    built = on("2026-11-01").timestamp() - 9 * 3600
    assert metrics[f"{prefix}.geoip_asn_epoch"] == [(built, "g")]
    assert metrics[f"{prefix}.geoip_cc_epoch"] == [(built, "g")]
    assert [kind for _, kind in metrics[f"{prefix}.download_geoip"]] == ["ms", "ms"]
    assert metrics[f"{prefix}.status"] == [(1, "g"), (0, "g")]


def test_the_shipped_configuration_shows_the_defaults() -> None:
    check_shipped_configuration(script, "download-geoip.conf")


def test_a_purge_of_the_package_removes_every_file_that_the_tool_installs() -> None:
    postrm = Path(script.__file__).parents[1] / "debian/ooni-geoip.postrm"
    config = Config()
    names = {config.asn_file, config.cc_file, config.asn_cc_file}
    wanted = {STAMP, *names, *(f"{name}.previous" for name in names)}
    assert wanted <= set(postrm.read_text().split())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"cc_file": "asn.mmdb"}, "cc_file: expected another name than asn_file"),
        ({"asn_file": "../asn.mmdb"}, "asn_file: Expected str matching regex"),
        ({"asn_url": "ftp://example.org/"}, "asn_url: expected https://…"),
        ({"asn_checksum_url": ""}, "unknown key 'asn_checksum_url'"),
    ],
)
def test_wrong_configuration(geoip: Geoip, keys: dict[str, str], message: str) -> None:
    status, log = geoip.run(**keys)
    assert status == 78
    assert message in log


def test_geoip2_works_without_the_libraries_of_its_web_service() -> None:
    root = Path(script.__file__).parents[1]
    code = "import sys; sys.modules |= dict.fromkeys(['aiohttp', 'requests']); import mmdb"
    path = os.pathsep.join(map(str, (root, root / "geoip")))
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, check=True)


# The folder of the databases, which is the API's


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def type_in(log: str, command: str) -> None:
    """Do what the one line of `log` says, as root."""
    assert log.count("\n") == 1
    if not shutil.which(command.split(maxsplit=1)[0]):
        pytest.skip(f"without {command.split(maxsplit=1)[0]}")
    assert command in log
    subprocess.run(shlex.split(command), check=True)


def owners_and_modes(*paths: Path) -> list[tuple[Path, int, int, str]]:
    statuses = [(path, path.lstat()) for path in paths]
    return [(path, it.st_uid, it.st_gid, stat.filemode(it.st_mode)) for path, it in statuses]


@pytest.fixture
def api_folder(geoip: Geoip) -> Path:
    """The output folder with the API's spool in it; both are another user's than the tool's."""
    spool = geoip.output / "measurements" / "incoming"
    spool.mkdir(parents=True, mode=0o750)
    (spool / "measurement").touch(0o600)
    return geoip.output


@needs_root
def test_the_tool_replaces_its_files_in_a_folder_of_the_api_and_changes_nothing_else(
    geoip: Geoip, api_folder: Path, upstream: Upstream
) -> None:
    upstream.publish(OCTOBER, NOVEMBER)
    assert geoip.run(day="2026-10-10")[0] == 0  # by another user
    (api_folder / "cc.mmdb").chmod(0o600)  # which the tool can't read
    api_folder.chmod(0o2777)
    of_the_api = [api_folder, *(api_folder / "measurements").rglob("*")]
    before = owners_and_modes(*of_the_api)
    assert geoip.run_unprivileged()[0] == 0
    assert geoip.months() == (NOVEMBER, NOVEMBER)
    assert geoip.run_unprivileged("--force")[0] == 0
    assert geoip.run_unprivileged("--rollback")[0] == 0
    assert owners_and_modes(*of_the_api) == before
    assert geoip.names() == INSTALLED | PAIR_BEFORE | {"measurements"}
    for name in INSTALLED | PAIR_BEFORE:
        status = (api_folder / name).stat()
        assert (status.st_uid, status.st_mode & 0o777) == (NOBODY, 0o644)


@needs_root
def test_a_folder_that_the_user_may_not_write_needs_one_command(
    geoip: Geoip, api_folder: Path, upstream: Upstream
) -> None:
    upstream.publish(NOVEMBER)
    status, log = geoip.run_unprivileged()
    assert (status, geoip.names()) == (78, {"measurements"})
    assert f"output_dir {api_folder}: nobody can't write there" in log
    assert "systemctl edit ooni-download-geoip, User=" in log
    type_in(log, f"setfacl -m u:nobody:rwx {api_folder}")
    assert geoip.run_unprivileged()[0] == 0
    assert geoip.months() == (NOVEMBER, NOVEMBER)


def test_a_folder_whose_owner_may_not_write_needs_one_command(
    geoip: Geoip, upstream: Upstream
) -> None:
    upstream.publish(NOVEMBER)
    if os.geteuid() == 0:
        os.chown(geoip.output, NOBODY, NOBODY)
    geoip.output.chmod(0o555)
    status, log = geoip.run_unprivileged()
    assert (status, geoip.names()) == (78, set())
    type_in(log, f"chmod u+rwx {geoip.output}")
    assert geoip.run_unprivileged()[0] == 0


@needs_root
def test_a_folder_that_is_closed_while_a_database_is_downloaded_needs_one_command(
    geoip: Geoip, server: MisbehavingServer, published: Path
) -> None:
    asn, country = good_bodies(published)

    def close_and_send(exchange: Exchange) -> None:
        geoip.output.chmod(0o555)
        http.body(country)(exchange)

    os.chown(geoip.output, NOBODY, NOBODY)
    status, log = geoip.run_unprivileged(
        asn_url=server.route("/asn.mmdb.gz", http.body(asn)),
        cc_url=server.route("/cc.mmdb.gz", http.sequence(close_and_send, http.body(country))),
    )
    assert status == 78
    assert f"error: output_dir {geoip.output}: nobody can't write there; run: chmod u+rwx" in log
    assert not (geoip.output / "asn.mmdb").exists()
    geoip.output.chmod(0o755)
    assert geoip.run_unprivileged()[0] == 0
    assert geoip.names() == INSTALLED


def test_a_missing_folder_needs_one_command(geoip: Geoip, upstream: Upstream) -> None:
    upstream.publish(NOVEMBER)
    geoip.output.rmdir()
    status, log = geoip.run()
    assert (status, geoip.output.exists()) == (78, False)
    user = "ooni" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    wanted = f"output_dir {geoip.output}: missing; unless the API's installation makes it, run: "
    assert log == f"error: {wanted}install -d -o {user} {geoip.output}\n"
    assert geoip.run("--dry-run") == (status, log)
    assert not geoip.output.exists()


@pytest.mark.parametrize("name", [*sorted(INSTALLED), "asn.mmdb.previous"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_where_one_goes_needs_one_command(
    geoip: Geoip, upstream: Upstream, make: Callable[[Path], None], name: str
) -> None:
    upstream.publish(NOVEMBER)
    make(geoip.output / name)
    status, log = geoip.run("--force")
    assert (status, geoip.names()) == (78, {name})
    wanted = f"output_dir: {geoip.output}/{name} is not a file; run: rm -r {geoip.output}/{name}"
    assert log == f"error: {wanted}\n"
    if make is Path.mkdir:
        assert geoip.run("--check")[0] == 65


@needs_root
def test_a_stamp_that_cannot_be_read_counts_as_none(
    geoip: Geoip, api_folder: Path, upstream: Upstream
) -> None:
    upstream.publish(NOVEMBER)
    os.chown(api_folder, NOBODY, NOBODY)
    assert geoip.run()[0] == 0
    (api_folder / "geoipdbts").chmod(0o600)
    status, log = geoip.run_unprivileged()
    assert (status, "nothing to do" in log) == (0, True), log


def test_a_file_in_the_place_of_the_folder_is_named(geoip: Geoip) -> None:
    geoip.output.rmdir()
    geoip.output.touch()
    assert geoip.run() == (78, f"error: output_dir {geoip.output}: Not a directory\n")


@needs_root
def test_a_folder_that_cannot_be_reached_needs_one_command(geoip: Geoip, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "ooniapi").mkdir(parents=True)
    closed.chmod(0o700)
    status, log = geoip.run_unprivileged(output_dir=str(closed / "ooniapi"))
    assert status == 78
    type_in(log, f"namei -l {closed}/ooniapi")


def test_a_folder_that_the_sandbox_holds_read_only_needs_one_line_in_the_unit(
    geoip: Geoip, small_disk: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    status, log = geoip.run(output_dir=str(small_disk))
    assert status == 78
    assert f"systemctl edit ooni-download-geoip, ReadWritePaths={small_disk}\n" in log


@needs_root
def test_databases_of_another_user_in_a_sticky_folder_need_one_command(
    geoip: Geoip, api_folder: Path, upstream: Upstream
) -> None:
    upstream.publish(OCTOBER, NOVEMBER)
    assert geoip.run(day="2026-10-10")[0] == 0
    api_folder.chmod(0o1777)
    before = (geoip.months(), geoip.stamp(), geoip.names())
    status, log = geoip.run_unprivileged()
    assert (status, (geoip.months(), geoip.stamp(), geoip.names())) == (78, before)
    files = " ".join(f"{api_folder}/{name}" for name in ("asn.mmdb", "cc.mmdb", "geoipdbts"))
    type_in(log, f"chown -h nobody {files}")
    assert geoip.run_unprivileged()[0] == 0
    assert geoip.months() == (NOVEMBER, NOVEMBER)


def test_no_file_is_changed_through_a_link_of_the_owner_of_the_folder(tmp_path: Path) -> None:
    output, secret = tmp_path / "output", tmp_path / "secret"
    output.mkdir()
    (output / "asn.mmdb").write_bytes(b"old")
    secret.touch(0o600)
    kept = {"asn.mmdb": hashlib.sha256(b"old").hexdigest()}
    for name in ("asn.mmdb", "asn.mmdb.previous"):
        link = output / f".{name}.new"
        link.symlink_to(secret)
        with pytest.raises(OSError, match=r"symbolic links|File exists"):
            Installation(output, ["asn.mmdb"]).prepare(kept if "previous" in name else {})
        link.unlink()
    assert (secret.read_bytes(), secret.stat().st_mode & 0o777) == (b"", 0o600)


def planted(path: Path, secret: Path, how: str) -> None:
    """Do what the owner of the folder may: put a link, or another file, where a database was."""
    path.unlink()
    if how == "link":
        path.symlink_to(secret)
    else:
        path.write_bytes(b"something else")


@pytest.mark.parametrize(
    ("how", "said"), [("link", "a symbolic link"), ("file", "changed since it was checked")]
)
def test_nothing_is_kept_but_what_was_checked(
    geoip: Geoip, server: MisbehavingServer, published: Path, tmp_path: Path, how: str, said: str
) -> None:
    asn, country = good_bodies(published)
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    keys = {
        name: server.route(f"/{name}", http.body(packed(kind, tmp_path, networks=1900)))
        for name, kind in (("asn_url", ASN), ("cc_url", COUNTRY))
    }
    assert geoip.run(**keys)[0] == 0

    def plant_and_send(exchange: Exchange) -> None:
        planted(geoip.output / "asn.mmdb", secret, how)
        http.body(gzip.decompress(country))(exchange)

    server.route("/asn_url", http.body(gzip.decompress(asn)))
    server.route("/cc_url", http.sequence(plant_and_send, http.body(gzip.decompress(country))))
    status, log = geoip.run(**keys)
    assert (status, f"error: asn.mmdb: {said}" in log, geoip.names()) == (65, True, INSTALLED)
    status, log = geoip.run(**keys)
    assert (status, geoip.months(), geoip.names()) == (0, (NOVEMBER, NOVEMBER), INSTALLED)


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_rollback_follows_no_link(
    old_pair: Geoip, upstream: Upstream, tmp_path: Path, dry: tuple[str, ...]
) -> None:
    upstream.publish(NOVEMBER)
    old_pair.run()
    previous = old_pair.output / "cc.mmdb.previous"
    elsewhere = tmp_path / "elsewhere"
    previous.rename(elsewhere)
    previous.symlink_to(elsewhere)
    before = old_pair.content()
    status, log = old_pair.run("--rollback", *dry)
    assert (status, old_pair.content()) == (65, before)
    assert "error: cc.mmdb.previous: a symbolic link" in log


def test_a_database_that_changes_before_it_is_staged_again_is_refused(tmp_path: Path) -> None:
    (tmp_path / "asn.mmdb.previous").write_bytes(b"secret")
    installation = Installation(tmp_path, ["asn.mmdb"])
    with pytest.raises(DataRefused, match=r"asn\.mmdb\.previous: changed since it was checked"):
        installation.stage_previous("asn.mmdb", hashlib.sha256(b"database").hexdigest())
    assert installation.staged("asn.mmdb").stat().st_mode & 0o777 == 0o600


# Readers, kills, a full disk


def test_readers_never_meet_anything_but_whole_databases(
    geoip: Geoip, upstream: Upstream, published: Path
) -> None:
    addresses = ("8.8.8.8", "2620:fe::fe", *(f"11.{number}.7.9" for number in range(0, 250, 10)))
    expected = {
        file: {
            month: answers(unpacked(published, name, month), addresses)
            for month in (OCTOBER, NOVEMBER)
        }
        for file, name in zip(FILES, ("asn", "country"), strict=True)
    }
    upstream.publish(OCTOBER, NOVEMBER)
    geoip.run(day="2026-10-10")
    mixed: list[str] = []
    lookups = [0, 0]
    looked_up = threading.Condition()
    stop = threading.Event()

    def read(number: int) -> None:
        file = FILES[number]
        while not stop.is_set():
            with maxminddb.open_database(geoip.output / file) as reader:
                records = [reader.get(address) for address in addresses]
                if records not in expected[file].values():
                    mixed.append(file)
            with looked_up:
                lookups[number] += 1
                looked_up.notify_all()
            time.sleep(0.002)  # the update runs in this process, too

    threads = [threading.Thread(target=read, args=(number,)) for number in (0, 1)]
    with maxminddb.open_database(geoip.output / "asn.mmdb") as opened_before:
        for thread in threads:
            thread.start()
        try:
            for number in range(20):
                day = "2026-11-10" if number % 2 == 0 else "2026-10-10"
                status, log = geoip.run("--force", day=day)
                assert status == 0, log
                with looked_up:
                    lookups[:] = 0, 0
                    assert looked_up.wait_for(lambda: min(lookups) > 1, AMPLE)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert [opened_before.get(address) for address in addresses] == expected["asn.mmdb"][
            OCTOBER
        ]
    assert mixed == []


def unpacked(published: Path, name: str, month: str) -> bytes:
    return gzip.decompress((published / f"dbip-{name}-lite-{month}.mmdb.gz").read_bytes())


def answers(content: bytes, addresses: tuple[str, ...]) -> list[object]:
    with maxminddb.open_database(io.BytesIO(content), maxminddb.MODE_FD) as reader:
        return [reader.get(address) for address in addresses]


KILLS = int(os.environ.get("OONI_TEST_KILLS", "10"))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_after_a_kill_the_pair_is_valid_and_the_next_run_completes_it(
    geoip: Geoip, tmp_path: Path
) -> None:
    """Two versions take turns at the same addresses, so that each run has something to install."""
    folder = tmp_path / "now"
    folder.mkdir()
    versions = [tmp_path / "first", tmp_path / "second"]
    for version, month in zip(versions, (OCTOBER, NOVEMBER), strict=True):
        version.mkdir()
        write_database(version / "asn.mmdb", ASN, month, networks=20_000)
        write_database(version / "cc.mmdb", COUNTRY, month, networks=20_000)
        for path in version.iterdir():  # the second is not newer, so that both replace the other
            path.write_bytes(same_epoch(path.read_bytes()))
    contents = {name: [(version / name).read_bytes() for version in versions] for name in FILES}
    with SampleUpstream(folder) as server:
        geoip.configure(
            asn_url=server.url("asn.mmdb"), cc_url=server.url("cc.mmdb"), max_age_days=10**5
        )
        publish(versions[0], folder)
        started = time.monotonic()
        assert geoip.start().wait() == 0
        duration = time.monotonic() - started
        choose = random.Random(2026)
        for number in range(1, KILLS + 1):
            publish(versions[number % 2], folder)
            process = geoip.start()
            time.sleep(choose.uniform(0.1, duration * 1.1))
            process.kill()
            process.wait()
            for name in FILES:
                assert (geoip.output / name).read_bytes() in contents[name]
            if number % 5 == 0:
                assert geoip.start().wait() == 0
                now = [(geoip.output / name).read_bytes() for name in FILES]
                assert now == [contents[name][number % 2] for name in FILES]
                assert geoip.names() <= INSTALLED | PAIR_BEFORE


def same_epoch(content: bytes) -> bytes:
    start = content.rindex(b"build_epoch") + len("build_epoch") + 2
    return content[:start] + bytes.fromhex("6a000000") + content[start + 4 :]


def publish(version: Path, folder: Path) -> None:
    for path in version.iterdir():
        new = folder / f"{path.name}.new"
        shutil.copy(path, new)
        new.replace(folder / path.name)


STEPS = ["asn.mmdb.previous", "cc.mmdb.previous", "asn.mmdb", "cc.mmdb", "geoipdbts"]


@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_is_killed_between_two_renames_is_completed_by_the_next(
    step: str, old_pair: Geoip, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = old_pair.content()
    upstream.publish(NOVEMBER)
    rename = Path.replace

    def die_before(path: Path, target: Path) -> Path:
        if path.name == f".{step}.new":
            os._exit(9)
        return rename(path, target)

    pid = os.fork()
    if pid == 0:
        monkeypatch.setattr(Path, "replace", die_before)
        old_pair.run()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    upstream.server.clear()
    status, log = old_pair.run()
    assert (status, upstream.server.requests) == (0, [])
    assert "an update that was interrupted is complete now" in log
    assert (old_pair.months(), old_pair.stamp()) == ((NOVEMBER, NOVEMBER), "2026-11\n")
    now = old_pair.content()
    assert [now[f"{name}.previous"] for name in FILES] == [old[name] for name in FILES]
    assert old_pair.names() == INSTALLED | PAIR_BEFORE


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 KB, where root may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("filler", [0, 70_000, 100_000, 130_000])
def test_a_full_disk_changes_nothing_and_leaves_nothing(
    filler: int, geoip: Geoip, upstream: Upstream, small_disk: Path
) -> None:
    upstream.publish(OCTOBER)
    geoip.output = small_disk
    assert geoip.run(day="2026-10-10", output_dir=str(small_disk))[0] == 0
    upstream.publish(NOVEMBER)
    (small_disk / "filler").write_bytes(bytes(filler))
    before = geoip.content()
    status, log = geoip.run()
    if filler == 0:
        assert status == 0
        return
    assert (status, geoip.content()) == (75, before)
    assert "No space left on device" in log
