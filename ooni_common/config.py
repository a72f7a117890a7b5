"""The types of a configuration: the keys that every script has, secrets, URLs."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar
from urllib.parse import unquote, urlsplit

import msgspec

from ooni_common.database_uri import check_parameters

Section = Mapping[str, tuple[Any, str]]  # key → its value, and where that comes from
Count = Annotated[int, msgspec.Meta(ge=0)]
MOST_SECONDS = 24 * 86400  # sockets count milliseconds up to 2**31
Seconds = Annotated[float, msgspec.Meta(gt=0, le=MOST_SECONDS)]
Bytes = Annotated[int, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\s\[\]/?#@\0]+):([0-9]{1,5})")

SHORTEST_MASKED_SECRET = 6  # shorter ones are words like "api", and masking those garbles the log


class Secret:
    """A text that never shows in a log or a traceback: only `reveal` gives it away."""

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def secret_parts(self) -> list[str]:
        """Return the parts of the text that must never be shown."""
        return [self._text] if self._text else []

    def __str__(self) -> str:
        return "***"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


class SecretUrl(Secret):
    """A URL that can hold a password or a key: shown with `***` in their place.

    In a web address a user without password is a token, and the values of the query can be keys; in
    a database URI neither is.
    """

    def __init__(self, text: str) -> None:
        """Raise ValueError, without the text, when it can't be taken apart."""
        super().__init__(text)
        try:
            self._parts = urlsplit(text)
        except ValueError:
            raise ValueError("expected a URL") from None

    def secret_parts(self) -> list[str]:
        """Return the password or token, as written and decoded, and the values of the query.

        A database's password that equals its user's name isn't secret: masking it garbles the log.
        """
        web = self._is_web_address()
        values = [value for _, value in self._query()] if web else []
        password = self._password() if web or self._password() != self._parts.username else ""
        written = [text for text in (password, *values) if text]
        return list(dict.fromkeys([*written, *map(unquote, written)]))

    def __str__(self) -> str:
        parts = self._parts
        user, at, host = parts.netloc.rpartition("@")
        if password := self._password():
            user = f"{user.removesuffix(password)}***"
        query = "&".join(f"{name}***" for name, _ in self._query())
        fragment = "***" if parts.fragment else ""
        return parts._replace(netloc=f"{user}{at}{host}", query=query, fragment=fragment).geturl()

    @property
    def identity(self) -> str:
        """What a state file says of the source: the address, or its SHA-256 if it holds secrets.

        The query is part of that, because it can choose the content; the user isn't.
        """
        if str(self) == self.reveal():
            return self.reveal()
        address = self._parts._replace(netloc=self._parts.netloc.rpartition("@")[2])
        return hashlib.sha256(address.geturl().encode()).hexdigest()

    def _is_web_address(self) -> bool:
        return not self._parts.scheme.startswith("clickhouse")

    def _password(self) -> str:
        token = self._parts.username if self._is_web_address() else ""
        return self._parts.password or token or ""

    def _query(self) -> list[tuple[str, str]]:
        """Return ("name=", value) of each pair, and ("", text) where there is no name."""
        pairs = self._parts.query.split("&") if self._parts.query else []
        return [(pair[:start], pair[start:]) for pair in pairs for start in [pair.find("=") + 1]]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys that every script has."""

    state_dir: Path
    statsd: str = "localhost:8125"
    textfile_dir: str = ""

    aliases: ClassVar[Mapping[str, str]] = {}  # names that keys have in files of old

    def __post_init__(self) -> None:
        """Refuse what no metric can be sent to; a subclass with checks of its own calls this."""
        if self.statsd and not host_and_port(self.statsd):
            raise ValueError('statsd: expected host:port, [IPv6 address]:port or ""')

    def sections(self, _sources: Mapping[str, str]) -> Mapping[str, Section]:
        """Return what is shown in the place of a key, as a table of its own.

        Args:
            sources: key → where its value comes from.
        """
        return {}


class DatabaseConfig(Config, frozen=True, kw_only=True):
    """The keys of a script that replaces tables.

    `max_shrink` is the share of the live rows (0 to 1) that an update may make disappear. `nodes`
    are host:port of each replica of the one shard, where those of `cluster` are not for clients.
    """

    db_uri: SecretUrl
    cluster: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]*$")] = ""
    nodes: list[str] = []
    max_shrink: Share = 0.2

    def __post_init__(self) -> None:
        """Refuse a database URI that the driver would misread."""
        super().__post_init__()
        uri = self.db_uri.reveal()
        check_url("db_uri", uri, schemes=("clickhouse", "clickhouses"))
        if uri.count("@") > urlsplit(uri).netloc.count("@"):
            raise ValueError("db_uri: in the password write / as %2F, ? as %3F and # as %23")
        try:
            check_parameters(uri)
        except ValueError as error:
            raise ValueError(f"db_uri: {error}") from None
        for node in self.nodes:
            if not host_and_port(node):
                raise ValueError(f"nodes: expected host:port or [IPv6 address]:port, got {node!r}")
        if len(set(self.nodes)) < len(self.nodes):
            raise ValueError("nodes: one of them is there twice")


def host_and_port(text: str) -> tuple[str, int] | None:
    """Return the host and the port that a text names, None where it does not."""
    match = HOST_AND_PORT.fullmatch(text)
    if not match or not 0 < int(match[2]) < 65536:
        return None
    try:
        (urlsplit(f"//{text}").hostname or "").encode("idna")  # as whoever looks it up does
    except ValueError:
        return None
    return match[1].strip("[]"), int(match[2])


def check_url(key: str, url: str, schemes: tuple[str, ...], *, needs_host: bool = True) -> None:
    """Raise ValueError, without the URL, unless scheme, host and port are as they must be."""
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")  # as whoever looks it up does
        usable = "\0" not in url and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or parts.scheme not in schemes or (needs_host and not parts.hostname):
        names = " or ".join(f"{scheme}://…" for scheme in schemes)
        host = " with a host" if needs_host else ""
        raise ValueError(f"{key}: expected {names}{host}, and a port, if any, from 1 to 65535")


def secrets_of(config: Config) -> list[str]:
    """Return every secret text in `config` that is long enough to be masked in log lines.

    Also as a statement has it, where quotes and backslashes are escaped.
    """
    values = (getattr(config, name) for name in config.__struct_fields__)
    parts = [part for value in values if isinstance(value, Secret) for part in value.secret_parts()]
    parts += [part.replace("\\", "\\\\").replace("'", "\\'") for part in parts]
    long_enough = {part for part in parts if len(part) >= SHORTEST_MASKED_SECRET}
    return sorted(long_enough, key=len, reverse=True)  # one can be a part of another
