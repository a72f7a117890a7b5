"""What of a URL the table has beside it: its host, in one form; and which URLs can't be tested."""

import ipaddress
import re

import idna

LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
HOST = re.compile(rf"(?:{LABEL}\.)+{LABEL}")
# Nearly every URL is like this, and then this one expression is all its validation. Its labels are
# those above; it never goes back on what it has taken (`+` twice), which halves its time.
PLAIN_LABEL = r"(?!-)[a-z0-9_-]{1,63}+(?<!-)"
PLAIN_URL = re.compile(rf"https?://((?:{PLAIN_LABEL}\.)++[a-z]{{2,63}}+)(?:[/?#][!-\[\]-~]*+)?")
LONGEST_HOST = 253
LABEL_SEPARATORS = re.compile("[.\u3002\uff0e\uff61]")  # RFC 3490, section 3.1
NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")


def domain_of(url: str) -> str:
    """Return the host of a URL in the table's form: lower case, punycode, no port, no final dot.

    Raises:
        ValueError: says why the URL can't be tested.
    """
    plain = PLAIN_URL.fullmatch(url)
    if plain and len(plain[1]) <= LONGEST_HOST:
        return plain[1]
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise ValueError("the URL does not start with http:// or https://")
    if not url.isprintable() or " " in url:
        raise ValueError("the URL has a space or a control character")
    if "\\" in url:
        raise ValueError("the URL has a backslash")
    return _host_of(re.split("[/?#]", rest, maxsplit=1)[0])


def _host_of(authority: str) -> str:
    if "@" in authority:
        raise ValueError("the URL has user information before its host")
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](:?)(.*)", authority)
    host, colon, port = bracketed.groups() if bracketed else authority.partition(":")
    if colon and not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 2**16):
        raise ValueError(f"bad port {port!r}")
    return _ip_address(host, version=6) if bracketed else _host_name(host)


def _ip_address(host: str, version: int) -> str:
    try:
        address = ipaddress.ip_address(host)
        if address.version == version and "%" not in host:
            return host.lower()
    except ValueError:
        pass
    raise ValueError(f"bad host {host!r}: not an IPv{version} address")


def _host_name(host: str) -> str:
    """Return a domain name or IPv4 address in the table's form."""
    labels = LABEL_SEPARATORS.split(host)
    if len(labels) > 1 and not labels[-1]:
        labels.pop()
    try:
        name = ".".join(map(_ascii_label, labels))
    except idna.IDNAError as error:
        raise ValueError(f"bad host {host!r}: {error}") from None
    if NUMERIC_LABEL.fullmatch(name.rpartition(".")[2]):
        return _ip_address(name, version=4)
    if len(labels) == 1:
        raise ValueError(f"bad host {host!r}: it has only one label")
    if len(name) > LONGEST_HOST or not HOST.fullmatch(name):
        raise ValueError(f"bad host {host!r}")
    return name


def _ascii_label(label: str) -> str:
    return label.lower() if label.isascii() else idna.encode(label, uts46=True).decode("ascii")
