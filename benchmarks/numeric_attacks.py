"""What cheap tricks reach on the numeric sets, stance, claims and textbooks: docs/numeric.md, its section on attacks.

    python benchmarks/numeric_attacks.py --data-dir DATA            # prints the section
    python benchmarks/numeric_attacks.py --data-dir DATA --write    # puts it into docs/numeric.md

No attack reads the text as a model does. Each is the best of its kind in hindsight, chosen on the test rows
themselves, so that a stranger reaches at most that.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline

from finbench.core import paths
from finbench.core.prose import wrapped

PAGE = Path(__file__).resolve().parent.parent / "docs" / "numeric.md"
MARKS = ("<!-- attacks: written by benchmarks/numeric_attacks.py -->", "<!-- /attacks -->")
reports: Any = paths.helper("reports")
SCORERS = {
    "tatqa": reports.score_tatqa, "finqa": reports.score_finqa, "convfinqa": reports.score_turn,
    "xfinbench_calc": reports.score_textbook, "xbrl_reason": reports.score_finqa,
}  # fmt: skip
OPERATIONS: dict[str, Callable[[float, float], float]] = {
    "a": lambda a, b: a,
    "a - b": lambda a, b: a - b,
    "(a - b) / b": lambda a, b: (a - b) / b,
    "a / b": lambda a, b: a / b,
    "(a + b) / 2": lambda a, b: (a + b) / 2,
}
_FIGURE = re.compile(r"(?<![\w.])\(?-?\$? ?\d[\d,]*(?:\.\d+)?\)?")


def rows_of(data_dir: Path, name: str, split: str = "test") -> list[dict[str, Any]]:
    path = data_dir / name / f"{split}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def figures(text: str) -> list[float]:
    """The numbers of a text; brackets are a minus sign."""
    found = [part.replace("$", "").replace(",", "").replace(" ", "") for part in _FIGURE.findall(text)]
    return [-float(one.strip("()")) if one.startswith("(") else float(one.strip("()")) for one in found]


def named(row: dict[str, Any]) -> str:
    """The line of the page's table whose label the question names most fully."""
    words = set(re.findall(r"[a-z]{3,}", row["question"].casefold()))
    lines = [line for line in row["text"].splitlines() if line.startswith("|") and re.search(r"\d", line)]
    labels = [set(re.findall(r"[a-z]{3,}", line.split("|")[1].casefold())) for line in lines]
    scores = [len(words & label) / (len(label) + 1) for label in labels]
    return lines[max(range(len(lines)), key=scores.__getitem__)].partition("|")[2].partition("|")[2] if lines else ""


def programs(rows: list[dict[str, Any]], score: Any, line: Callable[[dict[str, Any]], str]) -> tuple[str, float]:
    """The fixed program over the figures of a line that is right most often, and how often."""
    right: Counter[str] = Counter()
    for row in rows:
        told = figures(line(row))[:3]
        for name, operation in OPERATIONS.items():
            for one, other in ((0, 1), (1, 0), (0, 2)):
                if max(one, other) < len(told):
                    try:
                        value = operation(told[one], told[other])
                    except ZeroDivisionError:
                        continue
                    right[f"{name} of figures {one + 1}, {other + 1}"] += score(row, [f"{value:.5f}"])["acc"] == 1
    best = max(right, key=lambda name: right[name])
    return best, right[best] / len(rows)


def numbers(data_dir: Path) -> Iterator[str]:
    yield "| task | rows | best constant | best fixed program, first figures | the same, of the line that is named |"
    yield "|--|--:|--:|--:|--:|"
    for name, score in SCORERS.items():
        rows = rows_of(data_dir, name)
        likely = [answer for answer, _ in Counter(row["answer"] for row in rows).most_common(20)]
        tries = dict.fromkeys([*likely, "0", "1", "-1", "2", "1%", "5%", "10%", "50%", "100", "yes", "no"])
        constant = {said: sum(score(row, [said])["acc"] for row in rows) / len(rows) for said in tries}
        said = max(constant, key=lambda one: constant[one])
        cells = [name, f"{len(rows):,}", f"{100 * constant[said]:.1f} (`{said}`)"]
        for line in (lambda row: row["text"], named):
            usable = rows if "question" in rows[0] else []
            best, share = programs(usable, score, line) if usable else ("", 0.0)
            cells.append(f"{100 * share:.1f} (`{best}`)" if usable else "")
        yield "| " + " | ".join(cells) + " |"


def labels(data_dir: Path) -> Iterator[str]:
    yield "| task | rows | constant | longest choice | linear model, choices alone | linear model, whole text |"
    yield "|--|--:|--:|--:|--:|--:|"
    for name in ("fomc", "numclaim", "xfinbench_truth", "xfinbench_choice"):
        test = rows_of(data_dir, name)
        train = rows_of(data_dir, name, "train") or rows_of(data_dir, name, "validation")
        gold = [row["label"] for row in test]
        constant = max(_macro(gold, [label] * len(gold)) for label in set(gold))
        cells = [name, f"{len(test):,}", f"{constant:.1f}"]
        if "options" in test[0]:
            longest = [max(_choices(row), key=lambda pair: len(pair[1]))[0] for row in test]
            cells += [f"{_macro(gold, longest):.1f}", f"{_linear(train, test, 'options'):.1f}"]
        else:
            cells += ["", ""]
        yield "| " + " | ".join([*cells, f"{_linear(train, test, 'text'):.1f}"]) + " |"


def _choices(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [(line[0], line[3:]) for line in row["options"].splitlines()]


def _linear(train: list[dict[str, Any]], test: list[dict[str, Any]], column: str) -> float:
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=10, max_iter=2000))
    model.fit([row[column] for row in train], [row["label"] for row in train])
    return _macro([row["label"] for row in test], list(model.predict([row[column] for row in test])))


def _macro(gold: list[str], said: list[str]) -> float:
    return 100 * float(f1_score(gold, said, average="macro", zero_division=0))


def section(data_dir: Path) -> Iterator[str]:
    yield "## What cheap tricks reach"
    yield ""
    yield "In %, on the test rows at hand. Each number is the best of its kind in hindsight. Accuracy:"
    yield ""
    yield from numbers(data_dir)
    yield ""
    yield "Macro-F1. The linear models (words and pairs of words) learn from train, or validation where there is none:"
    yield ""
    yield from labels(data_dir)
    yield ""
    yield "A task is worth what a model reaches above these. The longest choice of XFinBench is often the right one."


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--write", action="store_true", help="put the section into docs/numeric.md")
    given = parser.parse_args()
    text = wrapped("\n".join(section(given.data_dir)) + "\n")
    if not given.write:
        sys.stdout.write(text)
        sys.exit(0)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    PAGE.write_text(f"{before}{MARKS[0]}\n{text}{MARKS[1]}{rest.partition(MARKS[1])[2]}", encoding="utf-8")
