"""The sources of a configuration: defaults, the file, credentials, environment and flags."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin

import msgspec

from ooni_common.config import Config, Secret
from ooni_common.config_environment import refuse_unknown, variable_of
from ooni_common.config_errors import fault_in
from ooni_common.config_files import (
    copy_from_systemd,
    read_secret,
    read_text,
    refuse_readable_by_others,
)
from ooni_common.errors import ConfigError
from ooni_common.suggestions import did_you_mean

C = TypeVar("C", bound="Config")
COMMENT = "__"  # a key that begins so is one: JSON has no other comments


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
    reason = reason[: place.start()]
    return f"{reason}; a text needs quotes" if reason == "Invalid value" else reason, line


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
            raise ConfigError(f"{where}: unknown key {key!r}; {did_you_mean(key, allowed)}")
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
        if os.path.exists(path)  # noqa: PTH110 (never an error: the folder may not be for this user)
    }


def _values_of_environment(
    config_type: type[Config], environ: Mapping[str, str]
) -> dict[str, tuple[Any, str]]:
    refuse_unknown(environ, config_type.__struct_fields__)
    values: dict[str, tuple[Any, str]] = {}
    for field in msgspec.structs.fields(config_type):
        variable = variable_of(field.name)
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
        keys, reason = fault_in(value, wanted, str(error))
        raise ConfigError(": ".join([_nearer(where, keys), *keys, reason])) from None


def _nearer(where: str, keys: Sequence[str]) -> str:
    """Return the place of a key within a table, given that of the table, "FILE:LINE: KEY"."""
    match = re.fullmatch(r"(.+):(\d+)(: \w+)", where)
    if not keys or not match:
        return where
    try:
        lines = Path(match[1]).read_text(encoding="utf-8-sig").splitlines(keepends=True)
    except (OSError, ValueError):  # systemd's copy was read, or a credential of such a name
        return where
    start = int(match[2]) - 1
    line = start + _line_of("".join(lines[start:]), keys[0])
    return f"{match[1]}:{line}{match[3]}"


def _decode_own_type(wanted: type, value: Any) -> Any:
    if isinstance(value, wanted):
        return value
    if not isinstance(value, str):
        raise ValueError(f"Expected str, got {type(value).__name__}")  # noqa: TRY004 (msgspec's protocol)
    if issubclass(wanted, Path) and "\0" in value:
        raise ValueError("no path has a NUL byte in it")
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
