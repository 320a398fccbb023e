"""Pairs of answers as rows of the user's own: which rows are none, and that no test row is among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from finbench.core.errors import FinbenchError, unknown
from finbench.core.files import digest
from finbench.core.records import LearntData, Recipe
from finbench.training import holdout

COLUMNS = ("prompt", "chosen", "rejected")  # as TRL calls them
_SHOWN = 5  # faults that are named one by one


class AnswerPair(NamedTuple):
    """A prompt, the answer to give and the one to give up, as texts that follow it; where they stand."""

    prompt: str
    chosen: str
    rejected: str
    place: str


@dataclass
class Source:
    """The pairs of one task, or of a file. ``dropped``: why others were left out -> how many."""

    data: LearntData
    pairs: list[AnswerPair]
    dropped: Counter[str] = field(default_factory=Counter)

    def recorded(self) -> LearntData:
        """Which pairs exactly."""
        content = digest([[pair.prompt, pair.chosen, pair.rejected] for pair in self.pairs])
        left = {why: count for why, count in self.dropped.items() if count}
        return self.data.model_copy(update={"rows": len(self.pairs), "digest": content, "dropped": left})


def of_rows(located: Any, recipe: Recipe, template: Callable[..., str] | None, sieve: holdout.Sieve) -> Source:
    """Pairs of the user's own, by TRL's names of columns; ``map`` gives those of others."""
    stated, name = located.stated, located.name
    for column in stated.map:
        if column not in COLUMNS:
            raise unknown("column", column, COLUMNS, "--map prompt=COLUMN,chosen=COLUMN,rejected=COLUMN")
    of = {column: stated.map.get(column, column) for column in COLUMNS}
    data = LearntData(set=name, split="train", rows=0, digest="", origin="own", sha256=located.sha256)
    source, faults = Source(data, []), list[str]()
    for file in located.files:
        for record in file.records():
            if isinstance(record, str):
                faults.append(f"{file.name}:{record}")
                continue
            if record.detail not in (None, "train"):  # of another split, as its file's name says
                source.dropped[f"of split {record.detail}"] += 1
                continue
            place, texts = f"{file.name}{record.place}", [record.row.get(column) for column in of.values()]
            if why := _unlike(texts, list(of.values()), record.row):
                faults.append(f"{place}: {why}")
                continue
            prompt, *answers = map(str, texts)
            if sieve.fits((prompt, *answers)):
                shown = template([{"role": "user", "content": prompt}], True) if template else prompt
                joined = "" if template or shown[-1:].isspace() else stated.delimiter
                chosen, rejected = (said if said[:1].isspace() else joined + said for said in answers)
                source.pairs.append(AnswerPair(shown, chosen, rejected, place))
    if hit := {key: count for key, count in sieve.counts.items() if key != "any" and count}:
        told = ", ".join(f"{count:,} are test rows of {key}" for key, count in hit.items())
        raise FinbenchError(f"Of the pairs of {name}, {told}.", "Take them out of the file.")
    if faults and recipe.bad_rows == "refuse":
        more = [f"... and {len(faults) - _SHOWN:,} more"] * (len(faults) > _SHOWN)
        raise FinbenchError(
            f"{len(faults):,} rows of {name} are no pairs:\n  " + "\n  ".join([*faults[:_SHOWN], *more]),
            "Correct them, or leave such rows out: --set bad_rows=drop",
        )
    source.dropped["bad"] += len(faults)
    if not source.pairs:
        raise FinbenchError(f"{name} has no pair.", "A row has prompt, chosen and rejected.")
    return source


def _unlike(texts: Sequence[Any], columns: Sequence[str], row: Mapping[str, Any]) -> str:
    """What makes a row no pair; empty if it is one."""
    for column, text in zip(columns, texts, strict=True):
        if column not in row:
            return f"it has no {column} (--map chosen=COLUMN,rejected=COLUMN says what others are)"
        if not isinstance(text, str):
            return f"its {column} is no text"
        try:
            text.encode()
        except UnicodeEncodeError:
            return f"its {column} has half of a character (a lone surrogate)"
        if not text.strip():
            return f"its {column} is empty"
    return "its two answers are the same" if texts[1].strip() == texts[2].strip() else ""
