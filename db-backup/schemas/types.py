"""The types of columns, as SHOW CREATE writes them."""

import re
from collections.abc import Callable

from schemas.harmless import is_aggregate
from schemas.tokens import END, Reader, SchemaRefused

FAMILY = re.compile(
    r"U?Int(8|16|32|64|128|256)|B?Float(16|32|64)|Decimal(32|64|128|256)?|Bool|(Fixed)?String|UUID"
    r"|IPv[46]|Date(32)?|DateTime(64)?|Time(64)?|Enum(8|16)|Array|Map|Nullable|LowCardinality|Variant"
    r"|Dynamic|Nothing|Point|Ring|Polygon|MultiPolygon|LineString|MultiLineString|MultiPoint|Geometry"
    r"|QBit|Interval(Nanosecond|Microsecond|Millisecond|Second|Minute|Hour|Day|Week|Month|Quarter|Year)"
)
NAMED = ("Tuple", "Nested")
AGGREGATING = ("AggregateFunction", "SimpleAggregateFunction")
JSON = ("JSON", "Object")


def take_type(reader: Reader) -> None:
    """Take a type.

    Raises:
        SchemaRefused: it is none that a column can have.
    """
    family = reader.next
    if family.kind != "word":
        raise reader.unexpected("a type")
    if family.value in AGGREGATING:
        _take_aggregating(reader)
        return
    take_element = _take_argument
    if family.value in NAMED:
        take_element = _take_named
    elif family.value in JSON:
        take_element = _take_path
    elif not FAMILY.fullmatch(family.value):
        raise SchemaRefused(f"there is no type {family.value!r}")
    reader.take()
    if reader.next.is_symbol("("):
        take_list(reader, take_element)


def checked_type(kind: str) -> str:
    """Return a type from a bucket, rewritten.

    Raises:
        SchemaRefused: it is none.
    """
    reader = Reader(kind)
    take_type(reader)
    if reader.next is not END:
        raise reader.unexpected("the end of a type")
    return reader.written()


def take_list(reader: Reader, take_element: Callable[[Reader], object]) -> None:
    """Take elements in parentheses, with commas between them.

    Raises:
        SchemaRefused: something else comes.
    """
    reader.take_symbol("(")
    while not reader.next.is_symbol(")"):
        take_element(reader)
        if not reader.accepts_symbol(","):
            break
    reader.take_symbol(")")


def _take_argument(reader: Reader) -> None:
    """Take a type, a number, a text, the value of an enumeration, or `max_types = 3`."""
    kind = reader.next.kind
    if kind == "text":
        reader.take()
        if reader.accepts_symbol("="):
            reader.accepts_symbol("-")
            reader.take_kind("number")
    elif kind == "number":
        reader.take()
    elif reader.next.is_word("max_types", "max_dynamic_paths", "max_dynamic_types"):
        reader.take()
        reader.take_symbol("=")
        reader.take_kind("number")
    elif kind != "word":
        raise reader.unexpected("a type")
    else:
        take_type(reader)


def _take_named(reader: Reader) -> None:
    """Take an element of a tuple: a type, or a name and a type."""
    following = reader.ahead(1)
    is_named = reader.next.kind == "name" or following.kind == "word"
    if is_named:
        reader.take_name()
    take_type(reader)


def _take_path(reader: Reader) -> None:
    """Take what a JSON column says of its paths."""
    if reader.accepts("SKIP", "REGEXP"):
        reader.take_kind("text")
    elif reader.next.is_word("SKIP"):
        reader.take()
        _take_json_path(reader)
    elif reader.next.kind == "text" or reader.ahead(1).is_symbol("="):
        _take_argument(reader)
    else:
        _take_json_path(reader)
        take_type(reader)


def _take_json_path(reader: Reader) -> None:
    reader.take_name()
    while reader.accepts_symbol("."):
        reader.take_name()


def _take_aggregating(reader: Reader) -> None:
    """Take AggregateFunction(1, quantiles(0.5, 0.9), UInt64) and its like."""
    reader.take()
    reader.take_symbol("(")
    if reader.next.kind == "number":  # the version of its states
        reader.take()
        reader.take_symbol(",")
    function = reader.take_kind("word").value
    if not is_aggregate(function):
        raise SchemaRefused(f"the aggregate function {function!r} is not one that is allowed")
    if reader.next.is_symbol("("):
        take_list(reader, _take_parameter)
    while reader.accepts_symbol(","):
        take_type(reader)
    reader.take_symbol(")")


def _take_parameter(reader: Reader) -> None:
    reader.accepts_symbol("-")
    if reader.next.kind not in ("number", "text"):
        raise reader.unexpected("a number")
    reader.take()
