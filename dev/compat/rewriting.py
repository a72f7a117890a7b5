"""What is changed in a statement so that an embedded engine, or one of another version, runs it."""

import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from dev.embedded_clickhouse import sql

# The older engines wait for it without end.
_SYNC = re.compile(r"\s+SYNC\s*;?\s*$", re.IGNORECASE)
_BACKUP = re.compile(r"\s*(BACKUP|RESTORE)\b", re.IGNORECASE)
_S3 = re.compile(r"\bS3\(([^()]*)\)")
_TEXT = re.compile(r"['`]([^'`]*)['`]")
_OF_S3 = ("use_same_s3_credentials_for_base_backup", "s3_storage_class")
_USES_STORE = re.compile(r"\bs3\b|\bNAMED\s+COLLECTION\b", re.IGNORECASE)
_BUCKET = re.compile(r"http://127\.0\.0\.1:\d+/([\w.-]+)")
_SETTINGS_ASKED_FOR = re.compile(
    r"SELECT (?:name|arrayStringConcat\(\(SELECT groupArray\(name\)) FROM system\.settings"
    r" WHERE name IN \(([^)]*)\)"
)
_FILLS_TABLE = re.compile(r"\s*(CREATE|INSERT|ALTER|ATTACH)\b", re.IGNORECASE)
_CLOCK = re.compile(r"\bnow(64)?\((\d?)\)")
# What a test fills a table with that older engines do not know, or that is another each time.
_OF_TESTS = {
    r"\bbase64Encode\(": "hex(",
    r"\b5e-324\b": "reinterpretAsFloat64(toUInt64(1))",
    r"\brandomPrintableASCII\(": "repeat('r', ",
    r"\bgenerateUUIDv4\([^()]*\)": "toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0')",
}
INNER_TABLE = re.compile(r"\.inner_id\.([0-9a-f-]{36})")


def without_sync(text: str) -> str:
    """Take off SYNC, which the older engines wait for without end."""
    return _SYNC.sub("", text)


def without_clock(text: str) -> str:
    """Let a table that has the time of an insertion have the same on all versions."""

    def constant(match: re.Match[str]) -> str:
        noon = "'2026-01-01 12:00:00'"
        return f"toDateTime64({noon}, {match[2] or 3})" if match[1] else f"toDateTime({noon})"

    return _CLOCK.sub(constant, text) if _FILLS_TABLE.match(text) else text


def without_settings(text: str, names: Iterable[str]) -> str:
    """Take settings out of a list; the first of it is never one of them."""
    listed = "|".join(names)
    return re.sub(rf",\s*(?:{listed}) = (?:'[^']*'|\w+)", "", text) if listed else text


def settings_asked_for(text: str) -> set[str]:
    """Return which settings a tool asks whether the server has them."""
    match = _SETTINGS_ASKED_FOR.match(text)
    return set(_TEXT.findall(match[1])) if match else set()


def to_files(text: str, folder: Path) -> str:
    """Let a backup go to a file: the older engines lack the thread pool for S3."""
    if not _BACKUP.match(text):
        return text

    def file(match: re.Match[str]) -> str:
        first, *others = _TEXT.findall(match[1])
        place = urlsplit(first).path if "://" in first else f"{first}/{others[0]}"
        return f"File({sql.quote_string(str(folder / place.strip('/')))})"

    return without_settings(_S3.sub(file, text), _OF_S3)


def buckets(text: str) -> list[str]:
    """Return the names of the buckets that a statement reads or writes."""
    return _BUCKET.findall(text) if _USES_STORE.search(text) else []


def to_store(text: str, endpoint: str) -> str:
    """Let a statement use another S3 server."""
    return _BUCKET.sub(rf"{endpoint}/\1", text) if _USES_STORE.search(text) else text


def with_same_rows(text: str) -> str:
    """Let a test fill a table with the same rows on all versions."""
    for pattern, other in _OF_TESTS.items():
        text = re.sub(pattern, other, text)
    return text
