"""Telling people what was found in an upstream's files: the cause first, and never all of it."""

import itertools
import logging
from collections import Counter
from collections.abc import Iterator, Sequence

from csv_source import Finding, ParsedFile
from ooni_common.output import counted

log = logging.getLogger("ooni.updates")

MOST_OF_A_FILE = 20  # findings that are logged
MOST_IN_ALL = 40
MOST_CAUSES = 3  # that are named in the first line


def report_findings(files: Sequence[ParsedFile], *, in_full: bool = True) -> None:
    """Log what was refused and repaired: the causes in one line, then the first of the findings.

    Args:
        files: as they were read; that one is broken is left to the caller.
        in_full: False where the log has the findings of this version already.
    """
    refused = sum(len(file.refusals) for file in files)
    if refused > 1 or (refused and not in_full):
        log.warning("%s", causes_of(files))
    if not in_full:
        return
    findings = [_first_of(file) for file in files]
    for finding in itertools.islice(itertools.chain.from_iterable(findings), MOST_IN_ALL):
        log.warning("%s", finding)
    total = sum(len(file.refusals) + len(file.warnings) for file in files)
    logged = min(sum(map(len, findings)), MOST_IN_ALL)
    if total > logged:
        log.warning("%s more findings are not shown", f"{total - logged:,}")


def causes_of(files: Sequence[ParsedFile]) -> str:
    """Return how many rows were refused, and mostly why, in one line."""
    causes: Counter[str] = sum((file.causes() for file in files), start=Counter())
    rows, hit = causes.total(), sum(bool(file.refusals) for file in files)
    most = causes.most_common(MOST_CAUSES)
    named = ", ".join(f"{cause} ({count:,})" for cause, count in most)
    left = rows - sum(count for _, count in most)
    others = f", other causes ({left:,})" if left else ""
    return f"{counted(rows, 'row')} refused in {counted(hit, 'file')}: {named}{others}"


def _first_of(file: ParsedFile) -> list[str]:
    return list(itertools.islice(_lines(file.refusals, file.warnings), MOST_OF_A_FILE))


def _lines(refusals: Sequence[Finding], warnings: Sequence[Finding]) -> Iterator[str]:
    for refusal in refusals:
        yield f"{refusal}; row refused"
    for warning in warnings:
        yield str(warning)
