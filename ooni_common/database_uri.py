"""The parameters of a database URI: those that the driver misreads, or fails at, are refused.

What the driver has no parameter for goes to the server as a setting, and is the server's business.
"""

import ssl
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

TRUE = {"true", "yes", "on", "y", "t", "1"}
FALSE = {"false", "no", "off", "n", "f", "0"}
LONGEST_TIME = 1_000_000  # seconds
LARGEST_BLOCK = 100_000_000  # bytes, or rows
LONGEST_KEEPALIVE = 32_767  # seconds; the system's limit
KEEPALIVE_NUMBERS = 3  # idle time, interval, probes


class Kind(NamedTuple):
    """What the value of a parameter must be."""

    fits: Callable[[str], bool]
    expected: str


def _is_boolean(value: str) -> bool:
    return value.strip().lower() in TRUE | FALSE


def _is_compression(value: str) -> bool:
    return value.lower() in {"lz4", "lz4hc"} or _is_boolean(value)


def _is_time(value: str) -> bool:
    try:
        return 0 < float(value) <= LONGEST_TIME
    except ValueError:
        return False


def _is_number(value: str, most: int = LARGEST_BLOCK) -> bool:
    try:
        return 0 < int(value) <= most
    except ValueError:
        return False


def _is_keepalive(value: str) -> bool:
    numbers = value.split(",")
    return _is_boolean(value) or (
        len(numbers) == KEEPALIVE_NUMBERS
        and all(_is_number(number, LONGEST_KEEPALIVE) for number in numbers)
    )


def _are_hosts(value: str) -> bool:
    return all(map(_is_host_and_port, value.split(",")))


def _is_host_and_port(value: str) -> bool:
    try:
        parts = urlsplit(f"//{value}")
        address_alone = parts.netloc == value and parts.username is None and parts.port != 0
        return address_alone and _is_host(parts.hostname or "")
    except ValueError:
        return False


def _is_host(value: str) -> bool:
    try:
        return value.isprintable() and not value.startswith(".") and bool(value.encode("idna"))
    except UnicodeError:
        return False


def _are_ciphers(value: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers(value)
    except (ssl.SSLError, ValueError):
        return False
    return True


BOOLEAN = Kind(_is_boolean, "true or false")
TIME = Kind(_is_time, f"seconds, more than 0 and at most {LONGEST_TIME}")
SIZE = Kind(_is_number, f"a whole number from 1 to {LARGEST_BLOCK}")
PARAMETERS: Mapping[str, Kind] = {
    "alt_hosts": Kind(_are_hosts, "host:port,host:port,…"),
    "check_hostname": BOOLEAN,
    "ciphers": Kind(_are_ciphers, "a list of ciphers as OpenSSL has it"),
    "compress_block_size": SIZE,
    "compression": Kind(_is_compression, "lz4, lz4hc, true or false"),
    "connect_timeout": TIME,
    "insert_block_size": SIZE,
    "round_robin": Kind(
        lambda value: value.strip().lower() in FALSE,
        "false, because the statements of a run would go to different servers",
    ),
    "secure": BOOLEAN,
    "send_receive_timeout": TIME,
    "server_hostname": Kind(_is_host, "the name of a host"),
    "settings_is_important": BOOLEAN,
    "sync_request_timeout": TIME,
    "tcp_keepalive": Kind(_is_keepalive, "true, false, or idle time,interval,probes"),
    "verify": BOOLEAN,
}
IN_FRONT = dict.fromkeys(
    ("database", "host", "password", "port", "user"),
    "belongs in front of the question mark: clickhouse://user:password@host:port/database",
)
RELIED_ON = dict.fromkeys(
    (
        "client_revision",
        "input_format_null_as_default",
        "namedtuple_as_json",
        "opentelemetry_traceparent",
        "opentelemetry_tracestate",
        "server_side_params",
        "ssl_version",
        "strings_as_bytes",
        "strings_encoding",
        "use_numpy",
    ),
    "the tools rely on the driver's default; remove it",
)
REFUSED: Mapping[str, str] = {**IN_FRONT, **RELIED_ON}


def check_parameters(uri: str) -> None:
    """Raise ValueError, without any value, for a parameter that the tools can't work with."""
    # As the driver reads them: the first one counts, and an empty one does not.
    values = {name: value for name, (value, *_) in parse_qs(urlsplit(uri).query).items()}
    for name, value in values.items():
        if name in REFUSED:
            raise ValueError(f"{name}: {REFUSED[name]}")
        kind = PARAMETERS.get(name)
        if kind and not kind.fits(value):
            raise ValueError(f"{name}: expected {kind.expected}")
    _check_tls_files(values)


def _check_tls_files(values: Mapping[str, str]) -> None:
    """Raise ValueError unless the files can be read and are what they must be."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if ca_certs := values.get("ca_certs"):
            context.load_verify_locations(ca_certs)
    except (OSError, ValueError) as error:
        raise ValueError(f"ca_certs: {_reason(error)}") from None
    try:
        if certfile := values.get("certfile"):
            # A passphrase would be asked for on the terminal.
            passphrase = values.get("keypass", "")
            context.load_cert_chain(certfile, values.get("keyfile"), passphrase)
    except (OSError, ValueError) as error:
        raise ValueError(f"certfile, keyfile, keypass: {_reason(error)}") from None


def _reason(error: OSError | ValueError) -> str:
    """Return why a file is of no use, without its content."""
    if isinstance(error, ssl.SSLError) or not isinstance(error, OSError):
        return "not a PEM file that OpenSSL can use"
    return str(error.strerror)


def with_login(uri: str, user: str, password: str) -> str:
    """Return a URI with another user, and the password of that one."""
    parts = urlsplit(uri)
    address = parts.netloc.rpartition("@")[2]
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return parts._replace(netloc=f"{login}@{address}").geturl()
