"""Canonical rows: ``<data dir>/<set>/<split>.jsonl`` and ``dataset.json``, and the rule that splits them.

A row is a JSON object with ``id``, ``text`` and what the set adds (``label``, ``score``, ...). The split of a
text depends on the text alone, so that no text is on two sides, and adding rows moves none.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finbench.errors import FinbenchError
from finbench.files import digest, folder_atomic, sha256_file

SALT = "finbench-v1:"
MIXED = "mixed"  # the label of a text whose parts have different ones: no label of the whole is right
SPLITS = ("train", "validation", "test")
_LINK = re.compile(r"https?://\S+")
_WORD = re.compile(r"\w+", re.UNICODE)


def normalise(text: str) -> str:
    """The text by which duplicates and leaks are found: no links, case, punctuation or spacing.

    Copies of one sentence differ in these between files ("profit rose ." and "Profit rose."). A text with no
    word at all stands for itself.
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", _LINK.sub(" ", text)).casefold())
    return " ".join(words) or text.strip()


def share(normalised: str) -> float:
    """A number in [0, 1) by salted hash of a normalised text."""
    return (
        int.from_bytes(hashlib.sha256((SALT + normalised).encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64
    )


def split_of(normalised: str, has_test: bool = False) -> str:
    """20 % test, 10 % validation, 70 % train; with ``has_test`` (the authors gave a test split) 10 % and 90 %."""
    place = share(normalised)
    if not has_test and place < 0.2:
        return "test"
    return "validation" if place < (0.1 if has_test else 0.3) else "train"


@dataclass
class Example:
    """One example as the authors gave it: ``split`` is theirs, if they gave one; ``place`` is file:line."""

    text: str
    fields: dict[str, Any]
    place: str
    split: str | None = None


@dataclass
class Report:
    """What an import did."""

    set: str
    folder: Path
    read: int = 0
    by_file: Counter[str] = field(default_factory=Counter)
    rows: dict[str, int] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    note: str = ""


def split_rows(name: str, examples: list[Example], report: Report) -> dict[str, list[dict[str, Any]]]:
    """Rows by split, without duplicates, conflicts and leaks; every drop is counted in ``report``.

    Texts are compared normalised. Copies with different labels are all dropped: nobody knows which is right.
    Of copies with one label the first is kept, and one in the authors' test split goes before one in train.
    """
    authors_split = any(example.split for example in examples)
    groups: dict[str, list[Example]] = {}
    for example in sorted(examples, key=lambda e: SPLITS.index(e.split) if e.split else 0, reverse=True):
        groups.setdefault(normalise(example.text), []).append(example)
    kept: dict[int, str] = {}  # id() of the example -> split
    for text, group in groups.items():
        labels = {example.fields.get("label") for example in group}
        if MIXED in labels or len(labels) > 1:
            why = "several targets with different labels" if MIXED in labels else "same text, different labels"
            report.dropped[why] += len(group)
            continue
        first = group[0]
        authors = first.split if first.split in ("test", "validation") else None
        kept[id(first)] = authors or split_of(text, has_test=authors_split)
        crossing = sum(example.split != first.split for example in group)
        report.dropped["also in the test or validation split"] += crossing
        report.dropped["duplicate"] += len(group) - 1 - crossing
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for example in examples:  # in the authors' order
        if split := kept.get(id(example)):
            identity = hashlib.sha256((SALT + normalise(example.text)).encode("utf-8", "surrogatepass")).hexdigest()[
                :16
            ]
            rows[split].append({"id": f"{name}-{identity}", "text": example.text, **example.fields})
    report.dropped = +report.dropped
    return rows


def write(report: Report, rows: dict[str, list[dict[str, Any]]], about: dict[str, Any], files: list[Path]) -> None:
    """Write the set's folder at once: rows and ``dataset.json``. An earlier folder stays until then."""
    for split in ("train", "test"):
        if not rows[split]:
            raise FinbenchError(
                f"{report.set}: no row is left for the {split} split.", "Give all of the authors' files."
            )
    report.rows = {split: len(part) for split, part in rows.items()}
    with folder_atomic(report.folder) as staging:
        for split, part in rows.items():
            lines = (json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in part)
            (staging / f"{split}.jsonl").write_bytes("".join(lines).encode("utf-8"))
        card = {
            "schema": 0,
            "set": report.set,
            **about,
            "sources": {
                os.fsencode(path.name).decode("utf-8", "replace"): sha256_file(path)
                for path in sorted(files, key=lambda path: path.name)
            },
            "read": report.read,
            "rows": report.rows,
            "dropped": dict(sorted(report.dropped.items())),
            "rejected": len(report.faults),
            "sha256": {f"{split}.jsonl": sha256_file(staging / f"{split}.jsonl") for split in rows},
            "digest": digest(rows),
        }
        (staging / "dataset.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
