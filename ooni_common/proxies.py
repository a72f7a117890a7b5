"""The proxy of a web address, as the environment says: one rule for HTTP and for git.

The variables are those of curl: `http_proxy` and `https_proxy` by the scheme of the address, else
`all_proxy`, each also in capitals; `no_proxy` names what is asked directly: names, with all below
them, addresses, networks, any of these with a port, or `*` for everything.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult

PORTS = {"http": 80, "https": 443}
ENTRY = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>\d+))?")  # a name or an IPv4 address


class Proxy(NamedTuple):
    """A proxy, and the variable that names it; its URL can have a login."""

    variable: str
    url: str


def proxy_of(address: SplitResult, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy that an address is asked through; None: it is asked directly."""
    names = (f"{address.scheme}_proxy", "all_proxy")
    variables = [variable for name in names for variable in (name, name.upper())]
    proxy = next((name for name in variables if environ.get(name, "").strip()), None)
    if proxy is None or _is_excepted(address, environ):
        return None
    return Proxy(proxy, environ[proxy].strip())


def _is_excepted(address: SplitResult, environ: Mapping[str, str]) -> bool:
    entries = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    host = (address.hostname or "").rstrip(".")
    port = address.port or PORTS.get(address.scheme)
    return any(_names(entry, host, port) for entry in re.split(r"[,\s]+", entries) if entry)


def _names(entry: str, host: str, port: int | None) -> bool:
    """Tell whether an entry of `no_proxy` is about a host."""
    if entry == "*":
        return True
    if (network := _network(entry)) is not None:
        return _is_in(host, network)
    match = ENTRY.fullmatch(entry)
    if match is None or (match["port"] and int(match["port"]) != port):
        return False
    name = match["host"]
    if (network := _network(name)) is not None:
        return _is_in(host, network)
    name = name.lower().removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return the network, or the address as one, that a text is."""
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None


def _is_in(host: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(host) in network
    except ValueError:  # a name, which nobody looks up for this
        return False
