"""Typed configuration: defaults, then the file, then credentials, environment and flags."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, cast, get_args, get_origin
from urllib.parse import unquote, urlsplit

import msgspec

from ooni_common.config_files import (
    copy_from_systemd,
    read_secret,
    read_text,
    refuse_readable_by_others,
)
from ooni_common.database_uri import check_parameters
from ooni_common.errors import ConfigError

C = TypeVar("C", bound="Config")

Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Bytes = Annotated[int, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\s\[\]]+):([0-9]{1,5})")

ENVIRONMENT_PREFIX = "OONI_"
COMMENT = "__"  # a key that begins so is one: JSON has no other comments
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

        A database's password that is only its user's name is none: masking it garbles the log.
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

        The user is no part of that, but the query is, because it can choose the content.
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


def load_config(
    config_type: type[C],
    default_file: Path,
    *,
    chosen_file: Path | None = None,
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> C:
    """Build the configuration of a script from all its sources.

    Args:
        config_type: the keys, their types and defaults.
        default_file: read when `chosen_file` is None; may be missing.
        chosen_file: the file named on the command line; must exist.
        flags: values from the command line, by key; they win.
        environ: `OONI_<KEY>` and `OONI_<KEY>_FILE` for secrets; `CREDENTIALS_DIRECTORY`, which can
            also have a copy of the default file, under its name.

    Raises:
        ConfigError: names the source, the key and what is allowed.
    """
    path = chosen_file or default_file
    values = _values(config_type, default_file, chosen_file, flags or {}, environ)
    return _build(config_type, values, path)


def sources_of(
    config_type: type[Config],
    default_file: Path,
    *,
    chosen_file: Path | None = None,
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """Return where the values of a configuration come from, by key; its defaults are left out.

    The arguments are those of `load_config`, and so is what it raises.
    """
    values = _values(config_type, default_file, chosen_file, flags or {}, environ)
    return {key: where for key, (_, where) in values.items()}


def _values(
    config_type: type[Config],
    default_file: Path,
    chosen_file: Path | None,
    flags: Mapping[str, str],
    environ: Mapping[str, str],
) -> dict[str, tuple[Any, str]]:
    """Return key → (value, where it comes from); of several sources the one that wins."""
    path = chosen_file or default_file
    copy = copy_from_systemd(path, environ) if path == default_file else None
    text = read_text(path, required=chosen_file is not None, copy=copy)
    values = _values_of_file(config_type, path, text)
    values |= _values_of_credentials(config_type, environ)
    values |= _values_of_environment(config_type, environ)
    values |= {key: (value, "the command line") for key, value in flags.items()}
    return values


def secrets_of(config: Config) -> list[str]:
    """Return every secret text in `config` that is long enough to be masked in log lines."""
    values = (getattr(config, name) for name in config.__struct_fields__)
    parts = [part for value in values if isinstance(value, Secret) for part in value.secret_parts()]
    long_enough = {part for part in parts if len(part) >= SHORTEST_MASKED_SECRET}
    return sorted(long_enough, key=len, reverse=True)  # one can be a part of another


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        if text.lstrip().startswith("{"):
            return cast("dict[str, Any]", msgspec.json.decode(text, type=dict))
        return cast("dict[str, Any]", msgspec.toml.decode(text))
    except msgspec.DecodeError as error:
        reason, line = _without_place(str(error), text)
        raise ConfigError(f"{path}:{line}: {reason}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None


def _without_place(reason: str, text: str) -> tuple[str, int]:
    """Return what msgspec says of a syntax error, and its line."""
    if place := re.search(r" \(byte (\d+)\)$", reason):  # JSON
        line = text.encode().count(b"\n", 0, int(place[1])) + 1
    elif place := re.search(r" \(at line (\d+), column \d+\)$", reason):  # TOML
        line = int(place[1])
    else:
        return reason, text.rstrip().count("\n") + 1
    return reason[: place.start()], line


def _values_of_file(config_type: type[Config], path: Path, text: str) -> dict[str, tuple[Any, str]]:
    """Return key → (value, where it stands); a `<secret>_file` key becomes the secret it names."""
    secret = _secret_keys(config_type)
    allowed = [*config_type.__struct_fields__, *(f"{key}_file" for key in secret)]
    values: dict[str, tuple[Any, str]] = {}
    files: dict[str, tuple[Any, str]] = {}
    given: dict[str, str] = {}  # key → the name under which it stands there
    for name, value in _parse(path, text).items():
        if name.startswith(COMMENT):
            continue
        where = f"{path}:{_line_of(text, name)}"
        key = config_type.aliases.get(name, name)
        if key not in allowed:
            raise ConfigError(
                f"{where}: unknown key {key!r}; allowed: {', '.join(sorted(allowed))}"
            )
        in_file = key not in config_type.__struct_fields__
        if in_file:
            key = key.removesuffix("_file")
        if key in given:
            raise ConfigError(f"{where}: both {given[key]} and {name} are there; keep one of them")
        given[key] = name
        if not in_file:
            values[key] = (value, where)
        elif isinstance(value, str):
            files[key] = (read_secret(Path(value)), value)
        else:
            raise ConfigError(f"{where}: {name}: expected the path of a file")
    for key in secret.keys() & values.keys():
        value, where = values[key]
        held = _convert(value, secret[key], strict=True, where=f"{where}: {key}")
        if held and held.secret_parts():
            refuse_readable_by_others(path, key)
    return values | files


def _values_of_credentials(
    config_type: type[Config], environ: Mapping[str, str]
) -> dict[str, tuple[Any, str]]:
    """Secrets that systemd hands over with LoadCredential=<key>:<path>."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    files = {key: Path(folder) / key for key in _secret_keys(config_type)} if folder else {}
    return {
        key: (read_text(path, required=True).rstrip("\r\n"), f"credential {key}")
        for key, path in files.items()
        if path.exists()
    }


def _values_of_environment(
    config_type: type[Config], environ: Mapping[str, str]
) -> dict[str, tuple[Any, str]]:
    values: dict[str, tuple[Any, str]] = {}
    for field in msgspec.structs.fields(config_type):
        variable = ENVIRONMENT_PREFIX + field.name.upper()
        if f"{variable}_FILE" in environ and field.name in _secret_keys(config_type):
            if variable in environ:
                raise ConfigError(f"both {variable} and {variable}_FILE are set; keep one of them")
            path = Path(environ[f"{variable}_FILE"])
            values[field.name] = (read_secret(path), str(path))
        if variable in environ:
            value = _convert(environ[variable], field.type, strict=False, where=variable)
            values[field.name] = (value, variable)
    return values


def _build(config_type: type[C], values: Mapping[str, tuple[Any, str]], path: Path) -> C:
    built = {}
    for field in msgspec.structs.fields(config_type):
        if field.name in values:
            value, where = values[field.name]
            built[field.name] = _convert(
                value, field.type, strict=True, where=f"{where}: {field.name}"
            )
        elif field.required:
            raise ConfigError(f"{path}: the key {field.name!r} is missing")
    try:
        return config_type(**built)
    except ValueError as error:  # from a __post_init__: its message starts with the key
        where = values.get(str(error).partition(":")[0], ("", str(path)))[1]
        raise ConfigError(f"{where}: {error}") from None


def _convert(value: Any, wanted: Any, *, strict: bool, where: str) -> Any:
    try:
        return msgspec.convert(value, wanted, strict=strict, dec_hook=_decode_own_type)
    except msgspec.ValidationError as error:
        if get_origin(wanted) is Literal:
            allowed = " or ".join(map(repr, get_args(wanted)))
            raise ConfigError(f"{where}: expected {allowed}") from None
        reason = str(error).replace("`", "").replace(" - at $.", " at ")
        raise ConfigError(f"{where}: {reason}") from None


def _decode_own_type(wanted: type, value: Any) -> Any:
    if isinstance(value, wanted):
        return value
    if not isinstance(value, str):
        raise ValueError(f"Expected str, got {type(value).__name__}")  # noqa: TRY004 (msgspec's protocol)
    return wanted(value)


def _secret_keys(config_type: type[Config]) -> dict[str, Any]:
    """Return the keys that hold a secret, or can hold one, and their types."""
    return {
        field.name: field.type
        for field in msgspec.structs.fields(config_type)
        if any(
            isinstance(part, type) and issubclass(part, Secret) for part in _types_in(field.type)
        )
    }


def _types_in(wanted: Any) -> tuple[Any, ...]:
    """Return the types in a union, or the one type."""
    return get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,)


def _line_of(text: str, key: str) -> int:
    name = re.escape(key)
    match = re.search(
        rf"""^[ \t\[]*["']?(?P<toml>{name})["']?[ \t]*[=.\]]|"(?P<json>{name})"\s*:""",
        text,
        re.MULTILINE,
    )
    return text.count("\n", 0, match.end("toml" if match["toml"] else "json")) + 1 if match else 1
