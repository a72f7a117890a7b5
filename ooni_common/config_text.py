"""A configuration as TOML that says where each value comes from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ooni_common.config import Config, Secret, Section

DEFAULT = "default"


def config_as_toml(
    config: Config, sources: Mapping[str, str], sections: Mapping[str, Section] | None = None
) -> str:
    """Return a configuration as TOML, with a comment at each value.

    Secrets are `***`; a key that has no value is a comment.

    Args:
        config: to be shown.
        sources: key → where its value comes from; a key that is not there has its default.
        sections: what is shown in the place of a key, as a table of its own.
    """
    sections = sections or {}
    lines, tables = [], []
    for key in config.__struct_fields__:
        value, source = getattr(config, key), sources.get(key, DEFAULT)
        if key in sections:
            pairs = [
                f"{toml_key(name)} = {toml_value(shown)}  # {_comment(where)}"
                for name, (shown, where) in sections[key].items()
            ]
            tables.append("\n".join([f"\n[{key}]", *pairs]))
        elif value is None:
            lines.append(f"# {key} is not set")
        else:
            lines.append(f"{key} = {toml_value(value)}  # {_comment(source)}")
    return "\n".join([*lines, *tables])


def toml_value(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, msgspec.Struct):
        defaults = {field.name: field.default for field in msgspec.structs.fields(type(value))}
        own = {name: getattr(value, name) for name in value.__struct_fields__}
        return toml_value({name: one for name, one in own.items() if one != defaults[name]})
    if isinstance(value, Mapping):
        pairs = (f"{toml_key(name)} = {toml_value(one)}" for name, one in value.items())
        return f"{{ {', '.join(pairs)} }}" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, str | Path | Secret):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    raise TypeError(f"{type(value).__name__} can't be written as TOML")


def toml_key(name: str) -> str:
    """Return a key as TOML; quoted unless it needs no quotes."""
    is_bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if is_bare else toml_value(name)


def _comment(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
