"""How the strict rules read answers that a large chat model gave and its authors published, for docs/tasks.md.

    python benchmarks/published_answers.py --data DIR            # says whether tasks/answers.json is right
    python benchmarks/published_answers.py --data DIR --write

DIR holds ``fomc/chatgpt_answers/*.csv`` of the authors of FOMC (Shah et al. 2023, arXiv:2305.07972): ChatGPT's answers
to "dovish, hawkish or neutral", with a column ``text_output``.
"""

from __future__ import annotations

import argparse
import collections
import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

from finbench.core import paths

FILE = Path(__file__).resolve().parent.parent / "tasks" / "answers.json"
LABELS = ("dovish", "hawkish", "neutral")
KINDS = (  # what an answer is, told by its form alone, without the scorer
    ("the label alone", re.compile(r"\w+[.!]?\s*")),
    ("the label, and a reason in later lines", re.compile(r"\w+[.!]?[ \t]*\n.*", re.DOTALL)),
    ("the label, a dash, and a reason in the line", re.compile(r"\w+ ?[-–—] .*", re.DOTALL)),
    ("the label, a colon, and a reason in the line", re.compile(r"\w+: .*", re.DOTALL)),
    ("anything else", re.compile(r".*", re.DOTALL)),
)


def counted(data: Path) -> list[list[Any]]:
    """``[kind, labels named in its first line, verdict, answers]``; the verdict as in ``tasks/answers.json``."""
    labels = paths.helper("labels")
    found: collections.Counter[tuple[str, int, str]] = collections.Counter()
    for file in sorted((data / "fomc" / "chatgpt_answers").glob("*.csv")):
        with file.open(encoding="utf-8", newline="") as handle:
            for row in csv.DictReader(handle):
                answer = row["text_output"].strip()
                kind = next(name for name, form in KINDS if form.fullmatch(answer))
                first = answer.partition("\n")[0].casefold()
                named = sum(label in re.findall(r"\w+", first) for label in LABELS)
                lenient = labels.parse_lenient(answer, LABELS) is not None
                verdict = "+" if labels.parse(answer, LABELS) else "~" if lenient else "-"
                found[kind, named, verdict] += 1
    return [[*key, count] for key, count in sorted(found.items(), key=lambda item: -item[1])]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    text = FILE.read_text(encoding="utf-8")
    rows = ",\n  ".join(json.dumps(row) for row in counted(given.data))
    fresh = re.sub(r'"published": \[.*?\n \]', lambda _: f'"published": [\n  {rows}\n ]', text, flags=re.DOTALL)
    if given.write:
        FILE.write_text(fresh, encoding="utf-8")
    sys.exit(0 if given.write or fresh == text else "stale: --write")
