"""The only place that knows how canonical sets lie on the disk: ``<folder>/<set>/<split>.jsonl``, ``dataset.json``."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from finbench.core.files import digest, folder_atomic, sha256_file
from finbench.data.canonical import SPLITS

_RULE = (
    "by company: those named are test, the others train, of whose questions 10 % by salted hash are validation; "
    "all are test where none is named"
)


class Spool:
    """Rows on their way to the disk, in a scratch folder: memory stays flat, and nothing is seen before ``publish``."""

    def __init__(self, scratch: Path, sets: Sequence[str]) -> None:
        self.scratch, self.sets = scratch, sets
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in sets}
        self._files: dict[tuple[str, str], IO[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._files.values():
            handle.close()

    def add(self, set_: str, side: str, row: dict[str, Any]) -> None:
        """Append a row. Of the train ``side`` a tenth goes to validation, by the row's identity."""
        share = int(hashlib.sha256(str(row["id"]).encode()).hexdigest()[:8], 16) / 2**32
        self.put(set_, "validation" if side == "train" and share < 0.1 else side, row)

    def put(self, set_: str, split: str, row: dict[str, Any]) -> None:
        """Append a row to a split."""
        if (set_, split) not in self._files:
            self._files[set_, split] = (self.scratch / f"{set_}.{split}.jsonl").open("wb")
        text = json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"
        self._files[set_, split].write(text.encode("utf-8", "replace"))
        self.counts[set_][split] += 1

    def has(self, split: str) -> bool:
        """Whether any set has rows of ``split``."""
        return any(counts[split] for counts in self.counts.values())

    def publish(self, folder: Path, about: dict[str, Any]) -> dict[str, dict[str, int]]:
        """Put every set that has rows into ``folder``; an earlier one of the same name stays until then.

        Returns the row counts. Raises FinbenchError if the folder cannot be written.
        """
        written = {}
        with contextlib.ExitStack() as stack:
            for name in self.sets:
                counts = {split: self.counts[name][split] for split in SPLITS if self.counts[name][split]}
                if not counts:
                    continue
                staging = stack.enter_context(folder_atomic(folder / name))
                for split in counts:
                    shutil.move(self.scratch / f"{name}.{split}.jsonl", staging / f"{split}.jsonl")
                sums = {f"{split}.jsonl": sha256_file(staging / f"{split}.jsonl") for split in counts}
                card = {
                    "schema": 0,
                    "set": name,
                    "source": "SEC filings in XBRL, read by finbench data xbrl",
                    "licence": "the companies' own public filings",
                    "restricted": False,
                    "split_rule": _RULE,
                    "complete": True,
                    "sources": {file: sha for entry in about["filings"] for file, sha in entry["sha256"].items()},
                    "read": sum(entry["facts"] for entry in about["filings"]),
                    "rows": counts,
                    **about,
                    "rejected": 0,
                    "sha256": sums,
                    "digest": digest(sums),
                }
                text = json.dumps(card, indent=1, ensure_ascii=False) + "\n"
                (staging / "dataset.json").write_text(text, encoding="utf-8")
                written[name] = counts
        return written
