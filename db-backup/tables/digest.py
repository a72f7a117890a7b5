"""The digest of rows: the sum of a hash of each, which tells whether two sets of rows are equal.

It sees every row of every type, and has the same value on every supported version of the server:
- `cityHash64` is NULL as soon as one argument is, and `sum` passes over such a row; so a Nullable
  scalar is given as its own hash and whether it is NULL;
- `cityHash64` of a composite value is an error on some versions and another number on others; so
  that is given as the bytes of `formatRow('RowBinary', …)`. It would do for scalars, too, at twice
  the time. (`formatRowNoNewline` drops the last byte before 26.)
- NaNs have many bit patterns, which CSV makes one; so they are made one before.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ooni_common.database import Database
from ooni_common.errors import DataRefused
from tables.inventory import QUOTED

SCHEME = "2"
FIRST_SCHEME = "1"  # of 2.0.0, without what is said above
SCALAR = re.compile(
    r"U?Int\d+|Float(32|64)|BFloat16|Decimal(\(.*\))?|Bool|(Fixed)?String(\(\d+\))?|UUID|IPv[46]"
    r"|Date(32)?|DateTime(64)?(\(.*\))?|Enum(8|16)\(.*\)",
    re.DOTALL,
)
NULLABLE = "Nullable("
FLOAT = re.compile(r"B?Float\d+")
JSON_TYPE = re.compile(r"\b(JSON|Object)\b(?! )")  # a space follows the name of an element
QUOTED_TEXT = re.compile(QUOTED, re.DOTALL)


@dataclass(frozen=True)
class Expression:
    """A column, or what is computed of some, as SQL, and its type as the server names it."""

    sql: str
    type: str


def expressions(database: Database, texts: Sequence[str], source: str) -> list[Expression]:
    """Return expressions with their types.

    Args:
        database: the connection.
        texts: the expressions, as SQL.
        source: what they are selected from, as SQL.
    """
    rows = database.query(f"DESCRIBE (SELECT {', '.join(texts)} FROM {source})")
    return [Expression(text, row[1]) for text, row in zip(texts, rows, strict=True)]


def row_hash(hashed: Sequence[Expression], scheme: str = SCHEME) -> str:
    """Return the hash of a row as SQL, which is never NULL.

    Args:
        hashed: what is hashed of it.
        scheme: the one by which it is compared with rows hashed earlier.

    Raises:
        DataRefused: a type can't be hashed in a way that lasts.
    """
    if scheme == FIRST_SCHEME:
        return f"cityHash64({', '.join(expression.sql for expression in hashed)})"
    return f"cityHash64({', '.join(map(_hashed, hashed))})"


def digest(hashed: Sequence[Expression], scheme: str = SCHEME) -> str:
    """Return the digest of all rows as SQL: decimal digits. Arguments and errors: `row_hash`."""
    return f"ifNull(toString(sum({row_hash(hashed, scheme)})), '')"


def sum_of_digests(digests: Iterable[str | None]) -> str:
    """Return the digest of all rows of several sets, given those of each."""
    return str(sum(int(one) for one in digests if one) % 2**64)


def is_sound(hashed: Sequence[Expression], scheme: str, aliases: Sequence[str]) -> bool:
    """Tell whether a digest of a scheme has seen every row and every value.

    Args:
        hashed: what is hashed of each row.
        scheme: of the digest.
        aliases: in the queries of the first scheme; they stood for columns of the same name.
    """
    return scheme == SCHEME or all(
        SCALAR.fullmatch(bare_type(expression.type)) and expression.sql.strip("`") not in aliases
        for expression in hashed
    )


def split_arguments(text: str) -> list[str]:
    """Split SQL at the commas that are within no brackets and no quotes."""
    # What is quoted may have brackets and commas: here it is as long, and has none.
    plain = QUOTED_TEXT.sub(lambda match: "_" * len(match[0]), text)
    parts, depth, start = [], 0, 0
    for place, character in enumerate(plain):
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    return [*parts, text[start:].strip()] if text.strip() else []


def _hashed(expression: Expression) -> str:
    """Return what stands for an expression among the arguments of cityHash64."""
    sql, kind = expression.sql, expression.type
    bare = bare_type(kind)
    scalar = SCALAR.fullmatch(_bare_scalar(bare))
    if bare == "JSON" or bare.startswith("JSON("):  # RowBinary has its paths as they are stored
        return f"toString({sql}), toString(JSONAllPathsWithTypes({sql}))"
    if JSON_TYPE.search(without_names(kind)):
        raise DataRefused(
            f"column {sql}: values of type {kind} can't be compared; give JSON a column of its own"
        )
    value = _with_one_nan(sql, bare)
    if not scalar:
        return f"formatRow('RowBinary', {value})"
    if bare.startswith(NULLABLE):
        return f"ifNull(cityHash64({value}), 0), isNull({sql})"
    return value


def _with_one_nan(sql: str, kind: str, depth: int = 0) -> str:
    """Return an expression with the same bytes in which all NaNs are the same, as SQL."""
    if not FLOAT.search(without_names(kind)):
        return sql
    kind = bare_type(kind)
    scalar = _bare_scalar(kind)
    if FLOAT.fullmatch(scalar):
        return f"if(isNaN({sql}), CAST(nan AS {scalar}), {sql})"
    name, _, rest = kind.partition("(")
    inner = split_arguments(rest.removesuffix(")"))
    match name:
        case "Array":
            value = f"_{depth}"
            return f"arrayMap({value} -> {_with_one_nan(value, inner[0], depth + 1)}, {sql})"
        case "Map":
            keys = _with_one_nan(f"mapKeys({sql})", f"Array({inner[0]})", depth)
            values = _with_one_nan(f"mapValues({sql})", f"Array({inner[1]})", depth)
            return f"arrayZip({keys}, {values})"
        case "Tuple":
            elements = [
                _with_one_nan(f"tupleElement({sql}, {number})", _type_of_element(element), depth)
                for number, element in enumerate(inner, 1)
            ]
            return f"tuple({', '.join(elements)})"
    return sql


def _type_of_element(element: str) -> str:
    """Return the type of an element of a tuple, which may have a name before it."""
    match = re.match(rf"(?:{QUOTED}|\w+)\s+(.*)", element, re.DOTALL)
    return match[1] if match else element


def _bare_scalar(kind: str) -> str:
    """Return a type without Nullable around it, where there is one."""
    return kind.removeprefix(NULLABLE).removesuffix(")") if kind.startswith(NULLABLE) else kind


def without_names(kind: str) -> str:
    """Return a type without what is in quotes."""
    return QUOTED_TEXT.sub("", kind)


def bare_type(kind: str) -> str:
    """Return a type without LowCardinality and SimpleAggregateFunction around it."""
    if kind.startswith("LowCardinality("):
        return bare_type(kind.removeprefix("LowCardinality(").removesuffix(")"))
    if kind.startswith("SimpleAggregateFunction("):
        return bare_type(split_arguments(kind.partition("(")[2].removesuffix(")"))[-1])
    return kind
