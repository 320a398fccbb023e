"""Test texts inside training data: found by containment, so that prompts and conversations hide nothing.

Texts are compared normalised, as splits are divided (no case, punctuation, links). A test text of eight words or more
counts as seen when all of them, or the first 200, stand in this order in one training row. One of three to seven words
must be a field of the row, or what a prompt in it asks about: such texts occur by chance inside others. Shorter ones
are not looked for. Where each row of a test has a question of its own, the question is what counts. Of questions about
pages that other sets ask about too, the page counts as well: its name, and its text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError
from finbench.core.records import Contamination
from finbench.data.audit.columns import unwrap
from finbench.data.sources import edition_of_test

_LONG, _LEAST, _WORDS = 8, 3, 200


class Index:
    """The test texts of some sets. ``seen`` says which of them stand in a row."""

    def __init__(self, tests: Mapping[str, Iterable[str]]) -> None:
        self._normal = paths.helper("sets").splits.signed
        self.texts: dict[str, int] = {}  # set -> different texts
        self.tests: list[tuple[str, str]] = []  # (set, text, normalised) by number
        self._anchors: dict[str, list[tuple[int, int]]] = {}  # words in a row -> (text, where in it)
        self._whole: dict[str, list[int]] = {}
        for name, texts in tests.items():
            normal = {str(self._normal(text)) for text in texts}
            different = sorted(text for text in normal if text.count(" ") >= _LEAST - 1)
            self.texts[name] = len(different)
            self.tests += [(name, text) for text in different]
        self._words = [text.split()[:_WORDS] for _, text in self.tests]
        runs = []  # of each text its first, middle and last words: the run that fewest others have is its anchor
        for number, words in enumerate(self._words):
            last = len(words) - _LONG
            if last < 0:
                self._whole.setdefault(" ".join(words), []).append(number)
            runs.append([(" ".join(words[at : at + _LONG]), at) for at in sorted({0, last // 2, last}) if last >= 0])
        counts = Counter(run for choice in runs for run, _ in choice)
        for number, choice in enumerate(runs):
            if choice:
                run, at = min(choice, key=lambda found: counts[found[0]])
                self._anchors.setdefault(run, []).append((number, at))

    def seen(self, fields: Iterable[str]) -> set[int]:
        """Numbers of the test texts that stand in one of these texts."""
        found: set[int] = set()
        for field in fields:
            normal = str(self._normal(field))
            if self._whole:
                for text in {normal, str(self._normal(unwrap(field)[0]))}:
                    found.update(self._whole.get(text, ()))
            words = normal.split()
            for at in range(len(words) - _LONG + 1):
                for number, offset in self._anchors.get(" ".join(words[at : at + _LONG]), ()):
                    own = self._words[number]
                    start = at - offset
                    if start >= 0 and number not in found and words[start : start + len(own)] == own:
                        found.add(number)
        return found

    def overlap(self, rows: Iterable[Mapping[str, Any]]) -> Contamination:
        """How many test texts of each set stand in training rows."""
        found: set[int] = set()
        for row in rows:
            found |= self.seen(fields(row))
        return self.counted(found)

    def counted(self, found: Iterable[int]) -> Contamination:
        """What ``seen`` has found in all rows, by set."""
        counts = Counter(self.tests[number][0] for number in found)
        return Contamination(looked_for=dict(sorted(self.texts.items())), found=dict(sorted(counts.items())))


def fields(value: Any) -> Iterator[str]:
    """Every text in a row, however nested: columns, turns of a conversation. Lists of tokens are one text."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from fields(part)
    elif isinstance(value, list | tuple):
        if len(value) > 3 and all(isinstance(part, str) and " " not in part for part in value):
            yield " ".join(value)
        else:
            for part in value:
                yield from fields(part)


def of_tests(data_dir: Path | None = None) -> dict[str, list[str]]:
    """Set -> test texts, of the sets that are here and that a ranked task evaluates.

    Of a test whose rows each have a question of their own the questions. Raises FinbenchError for a file that is torn.
    """
    home = paths.data_dir(data_dir)
    found: dict[str, list[str]] = {}
    for task in catalog.expand(["finbench"]):
        path = home / task.set / "test.jsonl"
        if task.set not in found and not task.shipped and path.is_file():
            try:
                with path.open(encoding="utf-8") as handle:
                    rows = [json.loads(line) for line in handle if line.strip()]
                if not all(isinstance(row, dict) for row in rows):
                    raise ValueError("a JSON object a line is expected")
            except (OSError, ValueError, RecursionError) as fault:
                raise FinbenchError(f"{path} is torn ({fault}).", f"Import it again: {task.data}") from fault
            found[task.set] = texts_of(rows)
    return found


def texts_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the rows of a test are known by. Of tasks of others without such columns: the one of longest texts."""
    questions = {str(row["question"]) for row in rows if row.get("question")}
    pages = any(row.get("document") for row in rows)
    columns = ["question" if len(questions) > max(20, 0.5 * len(rows)) else "text"]
    if pages:  # a turn of a conversation ("and in 2008?") is no text by which it is known
        columns = ["document", "text", *([] if any("history" in row for row in rows) else ["question"])]
    if not any(row.get(column) for row in rows for column in columns):
        lengths = Counter[str]()
        for row in rows:
            lengths.update({name: len(value) for name, value in row.items() if isinstance(value, str)})
        columns = [name for name, _ in lengths.most_common(1)]
    return [str(row[column]) for row in rows for column in columns if row.get(column)]


def with_editions(found: Contamination, data_dir: Path | None = None) -> Contamination:
    """The same, naming the test rows of every set by their digest: of those that another imports nothing is known."""
    known = {name: edition_of_test(name, data_dir) for name in found.looked_for}
    return found.model_copy(update={"editions": {name: sha for name, sha in known.items() if sha}})


def of_one_family(trained: Iterable[str]) -> list[str]:
    """One line for each family of sets about the same pages of which some were ``trained``."""
    table = paths.helper("sets").SETS
    told = {}
    for name in trained:
        family = table[name].family if name in table else ""
        others = [other for other, known in table.items() if family and known.family == family and other != name]
        if others:
            told[family] = f"{name} and {', '.join(others)} ask about the same pages: test on none of them."
    return list(told.values())


def warnings(found: Contamination) -> list[str]:
    """One line for each set of which training rows hold test texts."""
    return [
        f"{count:,} of {found.looked_for[name]:,} test texts of {name} stand in training rows, alone or inside "
        "a longer text: of these its score says how well they were learnt by heart."
        for name, count in found.found.items()
    ]
