"""Answers of the database as bytes: numpy reads a million numbers of them in no time.

The driver makes a Python object of each number, and needs longer for it than the database for the
whole question.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooni_common.database import Database

KINDS = {"UInt8": "<u1", "UInt16": "<u2", "UInt32": "<u4"}  # ClickHouse's → numpy's
LETTERS = "reinterpretAsUInt16(probe_cc)"  # of a code of two letters


class Packed:
    """Columns of an answer, in each row one after the other.

    Args:
        columns: name → type.

    Attributes:
        sql: what to select, where there are columns with these names.
        kind: of the rows, for numpy.
    """

    def __init__(self, **columns: str) -> None:
        pieces = (f"reinterpretAsFixedString(to{kind}({name}))" for name, kind in columns.items())
        self.sql = f"arrayStringConcat(groupArray(concat({', '.join(pieces)})))"
        self.kind = np.dtype([(name, KINDS[kind]) for name, kind in columns.items()])


def asked(
    database: Database, sql: str, parameters: Mapping[str, Any] | None, packed: Packed
) -> NDArray[Any]:
    """Return the rows of a question for `packed.sql`."""
    ((answer,),) = database.query(sql, parameters, settings={"strings_as_bytes": "1"})
    return np.frombuffer(answer, dtype=packed.kind)


def letters_of(country: int) -> str:
    """Return the two letters of a number that LETTERS has made."""
    return chr(country & 0xFF) + chr(country >> 8)
