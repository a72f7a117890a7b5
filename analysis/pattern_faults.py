"""What the database tells of patterns: which do not compile, which match ordinary answers."""

import re
from collections.abc import Sequence

from csv_source import excerpt
from fingerprints_file import LOCATION, NAME, PATTERN, PATTERN_TYPE, SCOPE
from ooni_common.database import Database, StatementFailed
from ooni_common.swap.content import Row
from ordinary_answers import BYTES_AT_ONCE, OrdinaryAnswers, Pattern, batches, size_in_query

CANNOT_COMPILE_REGEXP = 427  # ClickHouse's error code


def harmful_patterns_of(
    database: Database, rows: Sequence[Row], ordinary: OrdinaryAnswers
) -> dict[str, str]:
    """Return the rows that match what every site sends: name → the pattern, and what it matches."""
    patterns = {
        row[NAME]: Pattern(row[LOCATION], row[SCOPE], row[PATTERN_TYPE], row[PATTERN])
        for row in rows
    }
    matched = ordinary.matched_by(database, list(patterns.values()))
    return {
        name: f"{pattern.type} {excerpt([pattern.text])} matches ordinary answers:"
        f" {matched[pattern].place}"
        for name, pattern in patterns.items()
        if pattern in matched
    }


def wrong_regexps_of(database: Database, rows: Sequence[Row]) -> dict[str, str]:
    """Return the rows whose regular expression does not compile: name → why."""
    regexps = [row[PATTERN] for row in rows if row[PATTERN_TYPE] == "regexp"]
    errors: dict[str, str] = {}
    for batch in batches(regexps, len(regexps), BYTES_AT_ONCE, size_in_query):
        errors |= wrong_regexps(database, batch)
    return {
        row[NAME]: f"the regular expression does not compile: {errors[row[PATTERN]]}"
        for row in rows
        if row[PATTERN_TYPE] == "regexp" and row[PATTERN] in errors
    }


def wrong_regexps(database: Database, regexps: Sequence[str]) -> dict[str, str]:
    """Ask the database which regular expressions its RE2 can't compile, and why.

    One question is enough for files in which all of them compile.
    """
    # Servers before 26 refuse (44) to search in a constant for what differs from row to row.
    question = "SELECT arrayMap(regexp -> match(materialize(''), regexp), %(regexps)s)"
    try:
        if regexps:
            database.query(question, {"regexps": list(regexps)})
    except StatementFailed as error:
        if error.code != CANNOT_COMPILE_REGEXP:
            raise
        if len(regexps) == 1:
            return {regexps[0]: re.sub(r".*error: |\. Look at .*", "", error.said)}
        half = len(regexps) // 2
        return wrong_regexps(database, regexps[:half]) | wrong_regexps(database, regexps[half:])
    return {}
