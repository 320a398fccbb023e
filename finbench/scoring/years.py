"""The year of a row: what its set says, else that of the filing it is from. No text is searched for years."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_FIRST, _LAST = 1900, 2100
_NAMES = {  # columns that name a document -> how its year stands in the name
    "year": re.compile(r"\A(\d{4})\Z"),
    "end": re.compile(r"\A(\d{4})-\d\d-\d\d\Z"),  # of the period that an XBRL question is about
    "document": re.compile(r"\A[^/]+/(\d{4})/"),  # FinQA, ConvFinQA: AAL/2014/page_89.pdf
    "group": re.compile(r"-(\d{4})\d{4}(?=\||\Z)|_(\d{4})(?:Q\d)?_"),  # 0000320193-10-K-20220924; 3M_2018_10K
}


def year_of(doc: Mapping[str, Any]) -> int | None:
    """The year of a row's document; of several filings the latest; None where the row names none."""
    for column, pattern in _NAMES.items():
        told = [int(match[match.lastindex or 0]) for match in pattern.finditer(str(doc.get(column, "")))]
        if years := [year for year in told if _FIRST <= year <= _LAST]:
            return max(years)
    return None


def row_of(doc: Mapping[str, Any]) -> dict[str, int]:
    """What a sample row says of the year of its document; nothing where the row names none."""
    year = year_of(doc)
    return {} if year is None else {"year": year}
