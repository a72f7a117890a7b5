"""Typed configuration: defaults, then the file, then credentials, environment and flags."""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from ooni_common.errors import ConfigError

C = TypeVar("C", bound="Config")

ENVIRONMENT_PREFIX = "OONI_"
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
    """A URL that can hold a password or a key: shown with `***` in their place."""

    def secret_parts(self) -> list[str]:
        """Return the password, as written and decoded, and the values of the query."""
        parts = urlsplit(self._text)
        password = [parts.password, unquote(parts.password)] if parts.password else []
        return password + [value for _, _, value in self._query(parts) if value]

    def __str__(self) -> str:
        parts = urlsplit(self._text)
        user, at, host = parts.netloc.rpartition("@")
        netloc = f"{user.partition(':')[0]}:***@{host}" if parts.password else f"{user}{at}{host}"
        query = "&".join(f"{name}{equals}***" for name, equals, _ in self._query(parts))
        return parts._replace(netloc=netloc, query=query).geturl()

    @staticmethod
    def _query(parts: SplitResult) -> list[tuple[str, str, str]]:
        return [pair.partition("=") for pair in parts.query.split("&")] if parts.query else []


HostAndPort = Annotated[
    str, msgspec.Meta(pattern=r"^$|^(\[[0-9A-Fa-f:]+\]|[^:\s\[\]]+):[0-9]{1,5}$")
]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys that every script has."""

    state_dir: Path
    statsd: Annotated[
        str, msgspec.Meta(pattern=r"^$|^(\[[0-9A-Fa-f:]+\]|[^:\s\[\]]+):[0-9]{1,5}$")
    ] = "localhost:8125"


class DatabaseConfig(Config, frozen=True, kw_only=True):
    """The keys of a script that replaces tables.

    `max_shrink` is the share of the live rows (0 to 1) that an update may make disappear.
    """

    db_uri: SecretUrl
    cluster: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]*$")] = ""
    max_shrink: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2

    def __post_init__(self) -> None:
        """Refuse a database URI that the driver would misread."""
        check_url("db_uri", self.db_uri.reveal(), schemes=("clickhouse", "clickhouses"))


def check_url(key: str, url: str, schemes: tuple[str, ...], *, needs_host: bool = True) -> None:
    """Raise ValueError unless `url` has one of `schemes`, a host and a valid port."""
    try:
        parts = urlsplit(url)
        usable = parts.port is None or parts.port > 0
    except ValueError:
        usable = False
    if not usable or parts.scheme not in schemes or (needs_host and not parts.hostname):
        raise ValueError(f"{key}: expected a URL like {schemes[0]}://host/…")


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
        environ: `OONI_<KEY>` and `OONI_<KEY>_FILE` for secrets; `CREDENTIALS_DIRECTORY`.

    Raises:
        ConfigError: names the source, the key and what is allowed.
    """
    path = chosen_file or default_file
    text = _read_text(path, required=chosen_file is not None)
    try:
        document = _parse(text)
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    values = _values_of_file(config_type, path, text, document)
    values |= _values_of_credentials(config_type, environ)
    values |= _values_of_environment(config_type, environ)
    values |= {key: (value, "the command line") for key, value in (flags or {}).items()}
    return _build(config_type, values, path)


def secrets_of(config: Config) -> list[str]:
    """Return every secret text in `config` that is long enough to be masked in log lines."""
    values = (getattr(config, name) for name in config.__struct_fields__)
    parts = [part for value in values if isinstance(value, Secret) for part in value.secret_parts()]
    return [part for part in parts if len(part) >= SHORTEST_MASKED_SECRET]


def _read_text(path: Path, *, required: bool) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if required:
            raise ConfigError(f"{path}: no such file") from None
        return ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: {reason}") from None


def _parse(text: str) -> dict[str, Any]:
    if text.lstrip().startswith("{"):
        return cast("dict[str, Any]", msgspec.json.decode(text, type=dict))
    return cast("dict[str, Any]", msgspec.toml.decode(text))


def _values_of_file(
    config_type: type[Config], path: Path, text: str, document: Mapping[str, Any]
) -> dict[str, tuple[Any, str]]:
    """Return key → (value, where it stands); a `<secret>_file` key becomes the secret it names."""
    secret = _secret_keys(config_type)
    allowed = [*config_type.__struct_fields__, *(f"{key}_file" for key in secret)]
    values: dict[str, tuple[Any, str]] = {}
    for key, value in document.items():
        where = f"{path}:{_line_of(text, key)}"
        if key not in allowed:
            raise ConfigError(
                f"{where}: unknown key {key!r}; allowed: {', '.join(sorted(allowed))}"
            )
        if key not in config_type.__struct_fields__:
            if not isinstance(value, str):
                raise ConfigError(f"{where}: {key}: expected the path of a file")
            values[key.removesuffix("_file")] = (_read_secret(Path(value)), value)
        else:
            values[key] = (value, where)
            if key in secret and secret[key](str(value)).secret_parts():
                _refuse_readable_by_others(path, key)
    return values


def _values_of_credentials(
    config_type: type[Config], environ: Mapping[str, str]
) -> dict[str, tuple[Any, str]]:
    """Secrets that systemd hands over with LoadCredential=<key>:<path>."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    files = {key: Path(folder) / key for key in _secret_keys(config_type)} if folder else {}
    return {
        key: (_read_text(path, required=True).rstrip("\n"), f"credential {key}")
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
            path = Path(environ[f"{variable}_FILE"])
            values[field.name] = (_read_secret(path), str(path))
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
        reason = str(error).replace("`", "").replace(" - at $.", " at ")
        raise ConfigError(f"{where}: {reason}") from None


def _decode_own_type(wanted: type, value: Any) -> Any:
    if isinstance(value, wanted):
        return value
    if not isinstance(value, str):
        raise ValueError(f"Expected str, got {type(value).__name__}")  # noqa: TRY004 (msgspec's protocol)
    return wanted(value)


def _secret_keys(config_type: type[Config]) -> dict[str, type[Secret]]:
    fields = msgspec.structs.fields(config_type)
    return {
        field.name: field.type
        for field in fields
        if isinstance(field.type, type) and issubclass(field.type, Secret)
    }


def _read_secret(path: Path) -> str:
    text = _read_text(path, required=True).rstrip("\n")
    _refuse_readable_by_others(path, "a secret")
    return text


def _refuse_readable_by_others(path: Path, what: str) -> None:
    if path.stat().st_mode & stat.S_IROTH:
        raise ConfigError(f"{path}: holds {what} and others may read it; run: chmod o= {path}")


def _line_of(text: str, key: str) -> int:
    found = re.search(rf'^.*?(?<![\w-])"?{re.escape(key)}"?\s*[=:]', text, re.MULTILINE)
    return text.count("\n", 0, found.end()) + 1 if found else 1
