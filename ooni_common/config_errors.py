"""What is wrong with a value of a configuration: which part of it, and what is allowed there."""

from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from ooni_common.suggestions import did_you_mean

Path = tuple[str, ...]  # keys, from the value inwards


def fault_in(value: object, wanted: Any, reason: str) -> tuple[Path, str]:
    """Return where a value is not of its type, and why.

    msgspec says "Invalid enum value 'publik' - at `$[...]`": neither of which table, nor what is
    allowed.

    Args:
        value: as the file has it.
        wanted: the type that it can't be converted to.
        reason: what msgspec says of the whole value.
    """
    if get_origin(wanted) in (Union, UnionType):
        wanted = _meant(value, get_args(wanted))
    if get_origin(wanted) is Literal:
        return (), _not_a_choice(value, get_args(wanted))
    if isinstance(value, Mapping):
        for key, part in value.items():
            kind = _kind_of(key, wanted)
            if kind is None:
                return (str(key),), f"unknown key; {did_you_mean(str(key), _fields(wanted))}"
            if part_reason := _refusal(part, kind):
                path, why = fault_in(part, kind, part_reason)
                return (str(key), *path), why
    return (), reason.replace("`", "")


def _meant(value: object, kinds: tuple[Any, ...]) -> Any:
    """Return the type of a union that a value was meant for, by what it is made of."""
    is_table = isinstance(value, Mapping)
    fitting = [kind for kind in kinds if kind is not type(None) and _is_table(kind) == is_table]
    return fitting[0] if fitting else kinds[0]


def _is_table(kind: Any) -> bool:
    return get_origin(kind) is dict or _is_struct(kind)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _not_a_choice(value: object, choices: tuple[Any, ...]) -> str:
    *others, last = map(repr, choices)
    allowed = f"{', '.join(others)} or {last}" if others else last
    texts = [choice for choice in choices if isinstance(choice, str)]
    said = did_you_mean(value, texts) if isinstance(value, str) and value else ""
    return f"expected {allowed}" + (f"; {said}" if said.startswith("did") else "")


def _kind_of(key: object, wanted: Any) -> Any:
    """Return the type of what stands under a key; None: no such key is allowed."""
    if get_origin(wanted) is dict:
        return get_args(wanted)[1]
    return _fields(wanted).get(str(key))


def _fields(wanted: Any) -> dict[str, Any]:
    if not _is_struct(wanted):
        return {}
    return {field.encode_name: field.type for field in msgspec.structs.fields(wanted)}


def _refusal(value: object, wanted: Any) -> str:
    try:
        msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        return str(error)
    return ""
