"""Rows of the ASN map, and what a correct loader makes of a document."""

import json
from datetime import date
from typing import Any

GOOD = ["Level 3", "US", "20040604", "LVLT-1", "ARIN"]


def expected_rows(document: bytes) -> list[tuple[Any, ...]]:
    """Return what a correct loader gets, computed plainly."""
    rows = {
        (int(asn), org, cc, date.fromisoformat(f"{day[:4]}-{day[4:6]}-{day[6:]}"), aut, source)
        for asn, history in json.loads(document).items()
        for org, cc, day, aut, source in history
    }
    return sorted(rows)
