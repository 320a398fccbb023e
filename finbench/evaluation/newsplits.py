"""How the rows of a new benchmark are divided: by their texts, by a column, or as the names of their files say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from finbench.core import paths
from finbench.core.errors import FinbenchError
from finbench.core.settings import TaskSettings
from finbench.data import SPLITS, audit
from finbench.evaluation import newrows
from finbench.evaluation.newrows import NewRow, Reading


def described(wanted: TaskSettings, found: Reading) -> str:
    """How rows are divided, for the metadata of the task."""
    if wanted.split or found.by_names:
        return f"as {'a column of its source says' if wanted.split else 'the names of its files say'}; no text in two"
    if wanted.all_test:
        return "all rows are test"
    return "20 % test and 10 % validation by salted hash of the normalised text, with texts that are like it"


def divide(found: Reading, name: str, by_author: bool) -> dict[str, list[dict[str, Any]]]:
    """Rows of each split with their ids: the text alone decides, together with all that are like it.

    ``by_author``: rows have a split already, and texts that are like each other across them are told.
    """
    rule = paths.helper("sets").splits
    keys = [str(rule.normalise(row.fields["text"])) for row in found.rows]
    distinct = list(dict.fromkeys(keys))
    home = {key: key for key in distinct}

    def root(key: str) -> str:
        while home[key] != key:
            home[key] = home[home[key]]
            key = home[key]
        return key

    first = {key: row for row, key in zip(reversed(found.rows), reversed(keys), strict=True)}
    golds: dict[str, set[str]] = {key: set() for key in distinct}
    for row, key in zip(found.rows, keys, strict=True):
        golds[key].add(newrows.gold(row.fields))
    copies = audit.near_copies([first[key].fields["text"] for key in distinct], [golds[key] for key in distinct])
    pairs = [] if by_author else sorted({*copies, *audit.near_pairs(distinct)})
    for a, b in pairs:
        one, other = sorted((root(distinct[a]), root(distinct[b])), key=rule.hash_of)
        home[other] = one
    if pairs:
        found.notes.append(f"{len(pairs):,} pairs of texts differ by a few words or numbers, and stay in one split")
    sizes = Counter(root(key) for key in keys)
    alike = {source: count > 1 for source, count in Counter(root(key) for key in distinct).items()}
    divided: dict[str, list[tuple[bytes, dict[str, Any]]]] = {split: [] for split in SPLITS}
    used: Counter[str] = Counter()
    for row, key in zip(found.rows, keys, strict=True):
        source = root(key)
        # not by the smallest hash itself: the more texts are alike, the surer they would all be test
        split = row.split or str(rule.split_of(key if key == source and not alike[source] else f"alike:{source}"))
        identity = f"{name}-{rule.hash_of(newrows.asked(row.fields)).hex()[:16]}"
        used[identity] += 1
        group = {"group": f"{name}-{rule.hash_of(source).hex()[:16]}"} if sizes[source] > 1 else {}
        divided[split].append((rule.hash_of(key), {"id": identity, **row.fields, **group}))
    if by_author:
        _leaks(found, keys)
        _near(found, [(first[distinct[a]], first[distinct[b]]) for a, b in copies])
    test = sorted(divided["test"], key=lambda pair: (pair[0], pair[1]["id"]))  # the first rows are a sample
    return {"train": [row for _, row in divided["train"]], "validation": [row for _, row in divided["validation"]],
            "test": [row for _, row in test]}  # fmt: skip


def _leaks(found: Reading, keys: Sequence[str]) -> None:
    """Of splits that the author gives: one text, but for case and punctuation, on two sides."""
    sides: dict[str, NewRow] = {}
    faults = []
    for row, key in zip(found.rows, keys, strict=True):
        first = sides.setdefault(key, row)
        if row.split != first.split:
            faults.append(f"{row.place}: the same text as {first.place}, in {row.split} and in {first.split}")
    if faults:
        raise FinbenchError(
            f"{len(faults):,} texts are in two splits, so that the test would be learnt:\n  " + "\n  ".join(faults[:8]),
            "Take them out of one, or give all rows in one file without a split: then a text is on one side only.",
        )


def _near(found: Reading, pairs: Sequence[tuple[NewRow, NewRow]]) -> None:
    """Of splits that the author gives: near copies on two sides, which an audit would call leaks."""
    ranks = {split: rank for rank, split in enumerate(SPLITS)}
    across = [sorted(pair, key=lambda row: ranks[str(row.split)]) for pair in pairs if pair[0].split != pair[1].split]
    if across:
        low, high = across[0]
        count = len({id(pair[1]) for pair in across})
        found.notes.append(
            f"{count:,} text{'s differ' if count > 1 else ' differs'} by a few words, numbers or months from one in "
            f"another split, as {high.place} ({high.split}) from {low.place} ({low.split}): what is learnt helps there"
        )
