"""Which proxy an address is asked through."""

import contextlib
import io
import os
from urllib.parse import urlsplit

import pytest

from citizenlab.git import Git, environment_of
from dev.servers.misbehaving import MisbehavingServer, status
from ooni_common.config import SecretUrl
from ooni_common.errors import Unavailable
from ooni_common.fetch import Fetcher, Limits
from ooni_common.proxies import proxy_of

PROXY = "http://proxy.example:3128"
OTHER = "http://other.example:3128"


@pytest.mark.parametrize(
    ("environ", "url", "expected"),
    [
        ({}, "https://a.example/", None),
        ({"https_proxy": PROXY}, "https://a.example/", PROXY),
        ({"HTTPS_PROXY": PROXY}, "https://a.example/", PROXY),
        ({"https_proxy": PROXY}, "http://a.example/", None),
        ({"http_proxy": PROXY}, "http://a.example/", PROXY),
        ({"all_proxy": PROXY}, "https://a.example/", PROXY),
        ({"ALL_PROXY": PROXY}, "http://a.example/", PROXY),
        ({"all_proxy": OTHER, "https_proxy": PROXY}, "https://a.example/", PROXY),
        ({"all_proxy": OTHER, "HTTPS_PROXY": PROXY}, "https://a.example/", PROXY),
        ({"https_proxy": "", "all_proxy": PROXY}, "https://a.example/", PROXY),
        ({"https_proxy": " "}, "https://a.example/", None),
    ],
)
def test_the_scheme_names_the_variable_and_all_proxy_is_for_the_rest(
    environ: dict[str, str], url: str, expected: str | None
) -> None:
    proxy = proxy_of(urlsplit(url), environ)
    assert (proxy and proxy.url) == expected


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("a.example", "a.example", True),
        ("a.example", "A.Example", True),
        ("a.example", "a.example.", True),
        ("a.example", "www.a.example", True),
        ("a.example", "ba.example", False),
        (".a.example", "www.a.example", True),
        (".a.example", "a.example", True),
        ("*.a.example", "www.a.example", True),
        ("example", "a.example", True),
        ("a.example:443", "a.example", True),
        ("a.example:8443", "a.example", False),
        ("a.example:8443", "a.example:8443", True),
        ("x.example, a.example", "a.example", True),
        ("x.example a.example", "a.example", True),
        ("*", "a.example", True),
        ("", "a.example", False),
        (",,", "a.example", False),
        (".", "a.example", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3/8", "10.9.9.9", True),
        ("10.0.0.0/8", "ten.example", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.30", False),
        ("10.1.2.3:443", "10.1.2.3", True),
        ("10.1.2.3:80", "10.1.2.3", False),
        ("fd00::/8", "[fd12::1]", True),
        ("fd00::/8", "[fe80::1]", False),
        ("::1", "[0:0::1]", True),
        ("[::1]", "[::1]", True),
        ("[::1]:443", "[::1]", True),
        ("[::1]:80", "[::1]", False),
        ("10.0.0.0/99", "10.1.2.3", False),
    ],
)
def test_no_proxy_has_names_suffixes_addresses_and_networks(
    no_proxy: str, host: str, direct: bool
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        environ = {"all_proxy": PROXY, name: no_proxy}
        proxy = proxy_of(urlsplit(f"https://{host}/file"), environ)
        assert (proxy is None) == direct


def test_other_programs_are_told_the_outcome() -> None:
    environ = {"https_proxy": PROXY, "no_proxy": "10.0.0.0/8"}
    assert environment_of(urlsplit("https://a.example/"), environ) == {"all_proxy": PROXY}
    assert environment_of(urlsplit("https://10.1.1.1/"), environ) == {"no_proxy": "*"}


@pytest.mark.parametrize(
    ("variable", "no_proxy", "through"),
    [
        ("http_proxy", "", True),
        ("HTTP_PROXY", "", True),
        ("all_proxy", "", True),
        ("ALL_PROXY", "", True),
        ("https_proxy", "", False),
        ("http_proxy", "localhost", True),
        ("http_proxy", "127.0.0.0/8", False),
        ("http_proxy", "10.0.0.0/8", True),
        ("all_proxy", "127.0.0.1", False),
        ("all_proxy", "*", False),
    ],
)
def test_git_and_http_go_the_same_way(
    variable: str, no_proxy: str, through: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with MisbehavingServer() as upstream, MisbehavingServer() as proxy:
        url = upstream.route("/lists.git", status(404))
        monkeypatch.setenv(variable, proxy.url(""))
        monkeypatch.setenv("no_proxy", no_proxy)
        with contextlib.suppress(Unavailable):
            Fetcher("ooni-tool/1.0", Limits(1000, retries=0)).fetch(SecretUrl(url), io.BytesIO())
        with contextlib.suppress(Unavailable):
            Git(30, proxies=environment_of(urlsplit(url), os.environ)).run("ls-remote", url)
        asked, other = (proxy, upstream) if through else (upstream, proxy)
        agents = [request.headers["User-Agent"].split("/")[0] for request in asked.requests]
        assert agents == ["ooni-tool", "git"]
        assert other.requests == []
