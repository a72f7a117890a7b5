"""Run statements on the chdb of this interpreter: a line of JSON in, a line of JSON out.

    {"sql": "SELECT 1", "format": "CSV"}  →  {"result": "MQo="} (the bytes, in base64)
                                          or  {"error": "Code: 47. DB::Exception: …"}

It runs in the virtual environments of all versions, so it needs the standard library alone.
"""

import base64
import json
import os
import sys
from typing import Any, BinaryIO

from dev.embedded_clickhouse.compiled import compiled_module


def main() -> None:
    """Answer each line of standard input until it ends."""
    questions, answers = _private_pipes()
    connection = compiled_module().connect(sys.argv[1])
    for line in questions:
        answer = _answer(connection, **json.loads(line))
        answers.write(json.dumps(answer).encode() + b"\n")
    connection.close()
    os._exit(0)  # the engine's threads can hold up the end of the interpreter


def _answer(connection: Any, sql: str, format: str) -> dict[str, str]:  # noqa: A002, ANN401 (the protocol's words, untyped)
    try:
        result = connection.query(sql, format)
    except RuntimeError as error:
        _forget_output(connection)
        return {"error": str(error)}
    except UnicodeDecodeError as error:  # a message that is cut off within a letter
        _forget_output(connection)
        return {"error": error.object.decode(errors="replace")}
    return {"result": base64.b64encode(result.bytes() or b"").decode()}


def _forget_output(connection: Any) -> None:  # noqa: ANN401 (untyped)
    """Drop what a query has written before it failed; the next result would begin with it."""
    connection.query("SELECT 1", "Null")


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Return standard input and output, which the engine would read rows from and print to."""
    questions = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return questions, answers


if __name__ == "__main__":
    main()
