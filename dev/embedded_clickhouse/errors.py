"""Exceptions as a ClickHouse client sees them: a code, a name and a text."""

import re
from enum import IntEnum

_ENGINE_ERROR = re.compile(r"Code: (\d+)\. DB::Exception: (.*)", re.DOTALL)
_NAME_SUFFIX = re.compile(r"\s*\(([A-Z][A-Z0-9_]+)\)\s*$")


class Code(IntEnum):
    """Error codes that the server itself raises, under ClickHouse's own numbers and names."""

    NO_SUCH_COLUMN_IN_TABLE = 16
    ILLEGAL_COLUMN = 44
    NOT_IMPLEMENTED = 48
    SYNTAX_ERROR = 62
    CHECKSUM_DOESNT_MATCH = 40
    UNKNOWN_COMPRESSION_METHOD = 89
    UNKNOWN_PACKET_FROM_CLIENT = 99
    UNEXPECTED_PACKET_FROM_CLIENT = 101
    UNKNOWN_SETTING = 115
    INCORRECT_DATA = 117
    READONLY = 164
    CANNOT_DECOMPRESS = 271
    SESSION_NOT_FOUND = 372
    SESSION_IS_LOCKED = 373
    QUERY_WAS_CANCELLED = 394
    ACCESS_DENIED = 497
    AUTHENTICATION_FAILED = 516
    UNKNOWN_EXCEPTION = 1002


# A message that chDB cuts off in the middle of a letter is raised as the other one.
ENGINE_ERRORS = (RuntimeError, UnicodeDecodeError)


class ServerError(Exception):
    """What a client gets as a ClickHouse exception.

    Args:
        code: ClickHouse's error number.
        text: the message, without `Code: …` in front and without the name behind.
        name: ClickHouse's name for the code; looked up when it is left out.
    """

    def __init__(self, code: int, text: str, name: str = "") -> None:
        super().__init__(text)
        self.code = int(code)
        self.text = text
        self.name = name or (Code(code).name if code in set(Code) else "")

    @classmethod
    def from_engine(cls, error: Exception) -> "ServerError":
        """Read code, text and name out of an exception that chdb raised."""
        said = str(error)
        if isinstance(error, UnicodeDecodeError):
            said = error.object.decode(errors="replace")
        match = _ENGINE_ERROR.search(said)
        if match is None:
            return cls(Code.UNKNOWN_EXCEPTION, said)
        text = match[2]
        name = _NAME_SUFFIX.search(text)
        if name is None:
            return cls(int(match[1]), text)
        return cls(int(match[1]), text[: name.start()], name[1])

    def full_text(self, version: str) -> str:
        """The one-line form of HTTP bodies, as a real server writes it."""
        name = f" ({self.name})" if self.name else ""
        return f"Code: {self.code}. DB::Exception: {self.text}{name} (version {version})"


class ConnectionLost(Exception):
    """The client went away; there is nobody left to tell."""
