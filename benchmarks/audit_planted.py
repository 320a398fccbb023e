"""What the audit finds of faults that are planted into sound rows, and what it says of the rows before: docs/data.md.

    python benchmarks/audit_planted.py DATA                 # prints the table, on held-out sets and seeds
    python benchmarks/audit_planted.py DATA --tuned         # on those by which the audit was made
    python benchmarks/audit_planted.py DATA --write         # puts the table into docs/data.md

DATA holds the authors' files (``fpb/Sentences_50Agree.txt``, ``tfns/sent_train.csv`` and so on). A case is a fault, a
set and a seed. The sound rows are audited first: what a check says of them is counted beside. A fault is found where
the check says more than before; ``rows`` are those it counts then, of those that were planted.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from finbench.core.prose import wrapped
from finbench.data.audit import Finding, audit

PAGE = Path(__file__).resolve().parent.parent / "docs" / "data.md"
START, END = "<!-- planted: written by benchmarks/audit_planted.py -->", "<!-- end -->"
Row = dict[str, Any]
Files = dict[str, list[Row]]  # by name


# ---------------------------------------------------------------- sound rows


def _read(path: Path) -> list[Row]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found: list[Row] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _labelled(pairs: Iterator[tuple[str, str]]) -> list[Row]:
    """Texts with one label each, digits, case and blanks apart."""
    kept: dict[str, Row] = {}
    for text, label in pairs:
        kept.setdefault(re.sub(r"[\W\d]+", "", text.casefold()), {"text": text, "label": label})
    return list(kept.values())


def fpb(data: Path) -> list[Row]:
    text = (data / "fpb" / "Sentences_50Agree.txt").read_bytes().decode("iso-8859-1")
    return _labelled((line.rpartition("@")[0], line.rpartition("@")[2].strip()) for line in text.splitlines() if line)


def tfns(data: Path) -> list[Row]:
    names = {"0": "negative", "1": "positive", "2": "neutral"}
    return _labelled((row["text"], names[row["label"]]) for row in _read(data / "tfns" / "sent_train.csv"))


def nwgi(data: Path) -> list[Row]:
    rows = _read(data / "nwgi" / "finlora_nwgi_test.jsonl")
    told = [(row["context"].split("Input: ")[1].rpartition("\nAnswer")[0], row["target"].split()[-1]) for row in rows]
    return _labelled(iter(told))


def fiqa(data: Path) -> list[Row]:
    """Sentences with the label of their score."""
    found = [(row["text"], row["score"]) for row in fiqa_scores(data)]
    return _labelled((t, "negative" if s < -0.1 else "positive" if s > 0.1 else "neutral") for t, s in found)


def fiqa_scores(data: Path) -> list[Row]:
    found: dict[str, Row] = {}
    for path in sorted((data / "fiqa").glob("task1_*_ABSA_*.json")):
        for entry in dict(_read(path)).values():  # type: ignore[call-overload]
            score = float(entry["info"][0]["sentiment_score"])
            found.setdefault(entry["sentence"], {"text": entry["sentence"], "score": score})
    return list(found.values())


def gold(data: Path) -> list[Row]:
    """Headlines about gold, by whether the price goes up."""
    rows = _read(data / "headline" / "headlines.csv")
    return _labelled((row["News"], "up" if row["DirectionUp"] == "1" else "not up") for row in rows)
