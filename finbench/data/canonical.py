"""Canonical rows: ``<data dir>/<set>/<split>.jsonl`` and ``dataset.json``.

A row is a JSON object with ``id``, ``text`` and what the set adds (``label``, ``score``, ...); ``group`` names the
source that rows share (a headline, an article), by which intervals cluster. The rule that splits is
``tasks/lib/sets/splits.py``, for lm-eval's own loader follows it too.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finbench.core.files import folder_atomic

SPLITS = ("train", "validation", "test")
SHOWN = 10  # faults kept and listed in a message


@dataclass
class ImportReport:
    """What an import did."""

    set: str
    folder: Path
    read: int = 0
    by_file: Counter[str] = field(default_factory=Counter)
    rows: dict[str, int] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    faults: list[str] = field(default_factory=list)  # the first ``SHOWN``
    note: str = ""

    def fault(self, said: str) -> None:
        """Count a row that cannot be read."""
        self.rejected += 1
        if len(self.faults) < SHOWN:
            self.faults.append(said)


def write(report: ImportReport, splits: Mapping[str, Iterator[Mapping[str, Any]]], about: Mapping[str, Any]) -> None:
    """Write the set's folder at once: rows and ``dataset.json``. An earlier folder stays until then.

    Rows stream to disk; the digest is over the lines of train, validation and test, in this order.
    """
    whole = hashlib.sha256()
    shas = {}
    with folder_atomic(report.folder) as staging:
        for split in SPLITS:
            sha, count, path = hashlib.sha256(), 0, staging / f"{split}.jsonl"
            with path.open("wb") as handle:
                for row in splits[split]:
                    line = (json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
                    handle.write(line)
                    sha.update(line)
                    count += 1
            report.rows[split] = count
            whole.update(f"{split} {count} {sha.hexdigest()}\n".encode())
            if count:
                shas[path.name] = sha.hexdigest()
            else:
                path.unlink()
        card = {
            "schema": 0,
            "set": report.set,
            **about,
            "read": report.read,
            "rows": report.rows,
            "dropped": dict(sorted(report.dropped.items())),
            "rejected": report.rejected,
            "sha256": shas,
            "digest": whole.hexdigest(),
        }
        (staging / "dataset.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
