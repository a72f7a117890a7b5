"""What the GeoIP downloader makes of upstreams: other servers, other clocks, other databases."""

import calendar
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import maxminddb
import pytest

import dev.samples.geoip as samples
from dev.samples.geoip import ASN, COUNTRY, MERGED, Kind, write_month
from dev.servers import misbehaving as http
from dev.servers.misbehaving import MisbehavingServer
from dev.servers.statsd import StatsdListener
from geoip_harness import NOVEMBER, OCTOBER, STATE, Geoip, good_bodies, packed

JULY_2100 = "2100-07"


@pytest.fixture
def geoip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Geoip:
    return Geoip(tmp_path, capsys)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("geoip-upstream")
    for month in (OCTOBER, NOVEMBER, JULY_2100):
        write_month(folder, month)
    return folder


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as running:
        yield running


class Bucket:
    """A mirror in a bucket, which answers 403 for what it does not have."""

    def __init__(self, server: MisbehavingServer, published: Path) -> None:
        self._server = server
        self._published = published

    def keys(self, *months: str, of: str = "") -> dict[str, str]:
        """Publish months, all others being 403; return the addresses.

        Args:
            months: what is there.
            of: the month whose databases these really are; each its own otherwise.
        """
        for month in ("2026-09", OCTOBER, NOVEMBER, "2026-12"):
            for name in ("asn", "country"):
                path = self._published / f"dbip-{name}-lite-{of or month}.mmdb.gz"
                there = month in months
                answer = http.body(path.read_bytes()) if there else http.status(403)
                self._server.route(f"/{name}-{month}.mmdb.gz", answer)
        return {
            f"{key}_url": self._server.url(f"/{name}-") + "{year}-{month}.mmdb.gz"
            for key, name in (("asn", "asn"), ("cc", "country"))
        }


@pytest.fixture
def bucket(server: MisbehavingServer, published: Path) -> Bucket:
    return Bucket(server, published)


def test_a_mirror_that_answers_403_for_a_month_that_is_not_out_serves_the_one_before(
    geoip: Geoip, bucket: Bucket
) -> None:
    status, log = geoip.run(**bucket.keys(OCTOBER))
    assert (status, geoip.months(), geoip.stamp()) == (0, (OCTOBER, OCTOBER), "2026-10\n")
    assert "2026-11 is not published yet: http" in log
    before = geoip.content()
    assert (geoip.run()[0], geoip.content()) == (0, before)
    geoip.run(**bucket.keys(OCTOBER, NOVEMBER))
    assert geoip.months() == (NOVEMBER, NOVEMBER)


def test_a_server_that_answers_403_for_every_month_is_unavailable(
    geoip: Geoip, bucket: Bucket
) -> None:
    status, log = geoip.run(**bucket.keys())
    assert status == 69
    assert "HTTP 403 Forbidden" in log.splitlines()[-1]
    assert geoip.run(**bucket.keys(OCTOBER))[0] == 0
    before = geoip.content()
    status, log = geoip.run(**bucket.keys())
    assert (status, geoip.content()) == (69, before)
    assert "error: http://127.0.0.1" in log.splitlines()[-1]
    assert "2026-11.mmdb.gz: HTTP 403 Forbidden" in log.splitlines()[-1]


def test_doctor_takes_a_403_of_a_new_month_for_not_published(geoip: Geoip, bucket: Bucket) -> None:
    _, log = geoip.run("doctor", **bucket.keys(OCTOBER))
    assert "asn-2026-10.mmdb.gz answers" in log
    _, log = geoip.run("doctor", **bucket.keys())
    assert log.count("HTTP 403 Forbidden") == 2


def test_a_database_of_the_future_is_refused(geoip: Geoip, bucket: Bucket) -> None:
    assert geoip.run(**bucket.keys(OCTOBER), day="2026-10-10")[0] == 0
    before = geoip.content()
    status, log = geoip.run(**bucket.keys(NOVEMBER, of=JULY_2100))
    assert (status, geoip.content()) == (65, before)
    assert "built 2100-07-01, in the future (today is 2026-11-10)" in log


def test_an_installed_database_of_the_future_keeps_no_real_month_out(
    geoip: Geoip, bucket: Bucket
) -> None:
    assert geoip.run("--force", **bucket.keys(OCTOBER, of=JULY_2100), day="2026-10-10")[0] == 0
    assert geoip.months() == (JULY_2100, JULY_2100)
    status, log = geoip.run("--check")
    assert status == 65
    assert "asn.mmdb: built 2100-07-01, in the future" in log
    status, log = geoip.run(**bucket.keys(NOVEMBER))
    assert (status, geoip.months()) == (0, (NOVEMBER, NOVEMBER))
    assert "the installed one says that it was built 2100-07-01" in log


def test_a_database_that_is_some_hours_ahead_of_the_clock_is_installed(
    geoip: Geoip, bucket: Bucket
) -> None:
    assert geoip.run(**bucket.keys(OCTOBER, of=NOVEMBER), day="2026-10-31")[0] == 0
    assert geoip.months() == (NOVEMBER, NOVEMBER)


def test_a_stamp_of_the_future_keeps_no_real_month_out(geoip: Geoip, bucket: Bucket) -> None:
    geoip.run(**bucket.keys(OCTOBER), day="2026-10-10")
    (geoip.output / "geoipdbts").write_text("2100-07\n")
    assert geoip.run(**bucket.keys(NOVEMBER))[0] == 0
    assert (geoip.months(), geoip.stamp()) == ((NOVEMBER, NOVEMBER), "2026-11\n")


def of_epoch(content: bytes, epoch: int) -> bytes:
    """Let a database say that it was built then, Unix time."""
    start = content.rindex(b"build_epoch") + len("build_epoch")
    number = bytes([8, content[start + 1]]) + epoch.to_bytes(8, "big")
    return content[:start] + number + content[start + 2 + content[start] :]


@pytest.mark.parametrize("epoch", [2**40, 2**63])
def test_a_database_that_no_calendar_has_the_day_of_is_damaged(
    geoip: Geoip, server: MisbehavingServer, published: Path, tmp_path: Path, epoch: int
) -> None:
    asn, country = good_bodies(published)
    impossible = of_epoch(packed(ASN, tmp_path), epoch)
    bad = {
        "asn_url": server.route("/bad.mmdb.gz", http.body(gzip.compress(impossible))),
        "cc_url": server.route("/cc.mmdb.gz", http.body(country)),
    }
    good = bad | {"asn_url": server.route("/asn.mmdb.gz", http.body(asn))}
    wanted = f"a database with an impossible build_epoch, {epoch}"
    for flags in ((), ("--force",)):
        status, log = geoip.run(*flags, **bad)
        assert (status, geoip.names(), f"bad.mmdb.gz: {wanted}" in log) == (65, set(), True)
    assert geoip.run(**good)[0] == 0
    (geoip.output / "asn.mmdb").write_bytes(impossible)
    assert geoip.run("--check")[0] == 65
    status, log = geoip.run()
    assert (status, geoip.months()) == (0, (NOVEMBER, NOVEMBER))
    assert f"installed: asn.mmdb: {wanted}; it will be fetched again" in log


@pytest.mark.parametrize("encoding", ["x-gzip", "gzip", "X-GZIP"])
def test_a_server_may_call_a_gz_file_an_encoding(
    encoding: str, geoip: Geoip, server: MisbehavingServer, published: Path
) -> None:
    asn, country = good_bodies(published)
    headers = {"Content-Encoding": encoding}
    keys = {
        "asn_url": server.route("/asn.mmdb.gz", http.body(asn, headers=headers)),
        "cc_url": server.route("/cc.mmdb.gz", http.body(country, headers=headers)) + "?key=a-b-c",
    }
    assert geoip.run(**keys)[0] == 0
    assert geoip.months() == (NOVEMBER, NOVEMBER)
    plain = server.route("/asn.mmdb", http.body(asn, headers=headers))
    status, log = geoip.run(**keys | {"asn_url": plain})
    assert status == 65
    assert f"Content-Encoding '{encoding}', which nobody asked for" in log


def without(kind: Kind, gaps: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Return a database that lacks some of the networks that everybody knows."""
    with monkeypatch.context() as patched:
        patched.setattr(samples, "WELL_KNOWN", samples.WELL_KNOWN[gaps:])
        return gzip.compress(packed(kind, folder))


@pytest.mark.parametrize(
    ("kind", "sought"), [(COUNTRY, "country"), (ASN, "ASN")], ids=["country", "asn"]
)
def test_one_well_known_address_may_be_missing(
    kind: Kind,
    sought: str,
    geoip: Geoip,
    server: MisbehavingServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def keys(gaps: int) -> dict[str, str]:
        bodies = {name: gzip.compress(packed(it, tmp_path)) for name, it in KINDS.items()}
        name = "asn" if kind is ASN else "cc"
        bodies[name] = without(kind, gaps, tmp_path, monkeypatch)
        return {
            f"{name}_url": server.route(f"/{gaps}-{name}.mmdb.gz", http.body(content))
            for name, content in bodies.items()
        }

    status, log = geoip.run(**keys(2))
    assert (status, geoip.names()) == (65, set())
    assert f"no {sought} for 8.8.8.8, 1.1.1.1" in log
    status, log = geoip.run(**keys(1))
    assert (status, geoip.names()) == (0, {"asn.mmdb", "cc.mmdb", "geoipdbts"})
    assert f"no {sought} for 8.8.8.8\n" in log
    assert geoip.run("--check", "--stdout")[0] == 0


KINDS = {"asn": ASN, "cc": COUNTRY}


# One database that has both


def merged(server: MisbehavingServer, folder: Path, *months: str, **options: int) -> str:
    """Publish databases as ooni/historical-geoip does; return their address."""
    for month in months:
        path = folder / f"{month}.mmdb"
        samples.write_database(path, MERGED, month, **options)
        name = month.replace("-", "")
        route = f"/ip2country-as/{name}01-ip2country_as.mmdb.gz"
        server.route(route, http.body(gzip.compress(path.read_bytes()), etag=f'"{month}"'))
    return server.url("/ip2country-as/{year}{month}01-ip2country_as.mmdb.gz")


def test_one_database_with_both_is_installed_in_place_of_the_two(
    geoip: Geoip, server: MisbehavingServer, tmp_path: Path, statsd: StatsdListener
) -> None:
    url = merged(server, tmp_path, OCTOBER)
    status, log = geoip.run(asn_cc_url=url, statsd=statsd.address)
    assert status == 0
    assert "2026-11 is not published yet" in log
    assert geoip.names() == {"asn_cc.mmdb", "geoipdbts"}
    assert geoip.stamp() == "2026-10\n"
    with maxminddb.open_database(geoip.output / "asn_cc.mmdb") as reader:
        record = reader.get("8.8.8.8")
    assert isinstance(record, dict)
    assert (record["autonomous_system_number"], record["country"]) == (
        15169,
        {"iso_code": "US", "names": {"en": "US"}},
    )
    epoch = calendar.timegm((2026, 10, 1, 3, 0, 0))
    metrics = statsd.metrics()
    for name in ("asn", "cc"):
        assert metrics[f"ooni_download_geoip.geoip_{name}_epoch"] == [(epoch, "g")]
    assert json.loads((geoip.state / STATE).read_text()).keys() == {"asn_cc"}
    server.clear()
    assert geoip.run(day="2026-11-11")[0] == 0
    assert len(server.requests) == 1  # for November


def test_the_next_merged_database_replaces_it_and_can_be_rolled_back(
    geoip: Geoip, server: MisbehavingServer, tmp_path: Path
) -> None:
    geoip.run(asn_cc_url=merged(server, tmp_path, OCTOBER))
    october = geoip.content()["asn_cc.mmdb"]
    merged(server, tmp_path, NOVEMBER)
    assert geoip.run()[0] == 0
    assert geoip.names() == {"asn_cc.mmdb", "asn_cc.mmdb.previous", "geoipdbts"}
    status, log = geoip.run("--check", "--stdout")
    assert status == 0
    assert "asn_cc.mmdb: DBIP-Country-Lite (compat=GeoLite2-Country), built 2026-11-01" in log
    assert geoip.run("--rollback")[0] == 0
    assert geoip.content()["asn_cc.mmdb"] == october


def test_a_merged_database_needs_networks_and_countries(
    geoip: Geoip, server: MisbehavingServer, tmp_path: Path
) -> None:
    for kind, sought in ((COUNTRY, "ASN"), (ASN, "country")):
        content = gzip.compress(packed(kind, tmp_path))
        url = server.route(f"/{sought}.mmdb.gz", http.body(content))
        status, log = geoip.run(asn_cc_url=url, asn_cc_type="DBIP")
        assert (status, geoip.names()) == (65, set())
        assert f"no {sought} for 8.8.8.8, 1.1.1.1" in log
    status, log = geoip.run(asn_cc_type="Country")
    assert "of type 'DBIP-ASN-Lite (compat=GeoLite2-ASN)', not 'Country'" in log


def test_the_name_of_a_merged_database_is_not_the_stamps(geoip: Geoip) -> None:
    assert geoip.run(asn_cc_file="geoipdbts")[0] == 78
    assert geoip.run(asn_cc_file="asn_cc.mmdb", asn_cc_url="ftp://example.org/")[0] == 78
