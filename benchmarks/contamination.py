"""How often test texts are found in training rows of other layouts: docs/numeric.md, its section on contamination.

    python benchmarks/contamination.py --data-dir DATA            # prints the section
    python benchmarks/contamination.py --data-dir DATA --write    # puts it into docs/numeric.md

DATA has the sets as ``finbench data import`` writes them. A layout is what another project's file makes of a text; the
detector sees nothing but that row. False alarms: train rows, of which every text is another one than those of the test.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finbench.data import contamination

PAGE = Path(__file__).resolve().parent.parent / "docs" / "numeric.md"
MARKS = ("<!-- contamination: written by benchmarks/contamination.py -->", "<!-- /contamination -->")
KEYS = {"convfinqa": "document", "tatqa": "text"}  # what rows name their page by
Row = dict[str, Any]


def spreadsheet(text: str) -> str:
    """Numbers as a spreadsheet writes them that took them for numbers."""
    return re.sub(r"(?<![\d.])(\d{3,})(?![\d.%])", r"\1.0", re.sub(r"(?<=\d),(?=\d{3})", "", text))


TEXTS: dict[str, Callable[[str], Row]] = {
    "in an instruction, in a chat": lambda text: {
        "messages": [{"role": "user", "content": f"Read this.\n\nText: {text}\nAnswer:"}]
    },
    "as tokens": lambda text: {"tokens": re.findall(r"\w+|[^\w\s]", text)},
    "HTML": lambda text: {"body": f"<p>{html.escape(text).replace(' the ', ' <b>the</b> ')}</p>"},
    "JSON in a text": lambda text: {"prompt": "Label this: " + json.dumps({"sentence": text})},
    "other quotes, dashes and blanks; soft hyphens": lambda text: {
        "text": text.replace("'", "\u2019").replace("-", "\u2013").replace(" ", "\u00a0").replace("tion", "\u00adtion")
    },
    "capitals, lines of 40 characters": lambda text: {"text": "\n".join(textwrap.wrap(text.upper(), 40))},
    "1234.0 for 1,234": lambda text: {"text": spreadsheet(text)},
    "JSON in a text in JSON in a text": lambda text: {
        "log": json.dumps({"sent": json.dumps({"prompt": f"Q:\n{text}"})})
    },
    "tokens of a model's vocabulary": lambda text: {"tokens": [f"\u0120{word}" for word in text.split()]},
    "the first 300 characters": lambda text: {"text": text[:300]},
    "without the first word": lambda text: {"text": text.partition(" ")[2]},
    "without the last tenth": lambda text: {"text": " ".join(text.split()[: int(0.9 * len(text.split())) or 1])},
    "with a word more in the middle": lambda text: {
        "text": " ".join([*(words := text.split())[: len(words) // 2], "indeed", *words[len(words) // 2 :]])
    },
}


def _cells(text: str) -> list[list[str]]:
    lines = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines if any(cell.strip(" -") for cell in line)]


def _around(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("|"))


def _table(text: str, row: str, cell: str) -> str:
    return "".join(row.format("".join(cell.format(html.escape(one)) for one in line)) for line in _cells(text))


PAGES: dict[str, Callable[[str], Row]] = {
    "as one text": lambda text: {"text": text},
    "capitals, sentences in another order": lambda text: {
        "text": ". ".join(reversed(_around(text).split(". "))).upper() + _table(text, "|{}\n", "{} |")
    },
    "the table in HTML, at the end": lambda text: {
        "text": _around(text) + _table(text, "<tr>{}</tr>", "<td>{}</td>")
    },
    "the table in CSV, 1234.0 for 1,234": lambda text: {
        "text": _around(text), "csv": "\n".join(",".join(map(spreadsheet, line)) for line in _cells(text))
    },
    "the table by columns": lambda text: {
        "text": _around(text), "table": [list(column) for column in zip(*_cells(text), strict=False)]
    },
    "the first 250 words alone": lambda text: {"text": " ".join(text.split()[:250])},
    "the first 300 characters alone": lambda text: {"text": text[:300]},
    "the table alone": lambda text: {"table": [" ".join(line) for line in _cells(text)]},
    "two sentences": lambda text: {"text": ". ".join(_around(text).split(". ")[:2])},
}  # fmt: skip


def rows_of(data_dir: Path, name: str, *splits: str) -> list[Row]:
    paths = [data_dir / name / f"{split}.jsonl" for split in splits]
    lines = [line for path in paths if path.is_file() for line in path.read_text(encoding="utf-8").splitlines()]
    return [json.loads(line) for line in lines]


def _texts(data_dir: Path) -> str:
    names = [path.parent.name for path in sorted(data_dir.glob("*/test.jsonl"))]
    known = {name: contamination.texts_of(rows_of(data_dir, name, "test")) for name in names}
    known = {name: sorted({text for text in texts if isinstance(text, str)}) for name, texts in known.items()}
    known = {name: texts for name, texts in known.items() if texts}
    lines = [f"| in % of the texts | {' | '.join(f'{name} ({len(texts):,})' for name, texts in known.items())} |"]
    lines.append("|--|" + "--:|" * len(known))
    indices = {name: contamination.Index({name: texts}) for name, texts in known.items()}
    for layout, made in TEXTS.items():
        shares = []
        for name, texts in known.items():
            found = indices[name].overlap(made(text) for text in texts).found.get(name, 0)
            shares.append(f"{100 * found / indices[name].texts[name]:.1f}")
        lines.append(f"| {layout} | {' | '.join(shares)} |")
    return "\n".join(lines)


def _pages(data_dir: Path) -> str:
    """Pages of ConvFinQA in FinQA's rows, which other authors wrote; TAT-QA's in its own."""
    columns = []
    for name, source in (("convfinqa", "finqa"), ("tatqa", "tatqa")):
        tests = rows_of(data_dir, name, "test")
        index, pages = contamination.Index({name: contamination.texts_of(tests)}), {row[KEYS[name]] for row in tests}
        texts = {row[KEYS[name]]: row["text"] for row in rows_of(data_dir, source, "train", "validation", "test")}
        mine = [text for page, text in texts.items() if page in pages]
        others = [{"text": text} for page, text in texts.items() if page not in pages]
        seen = [index.overlap(map(made, mine)).found.get(name, 0) for made in PAGES.values()]
        alarms = index.overlap(others).found.get(name, 0)
        columns.append([f"{name} in {source} ({len(mine)})", *seen, f"{alarms} by {len(others)}"])
    names = ["pages found", *PAGES, "by rows about other pages"]
    lines = [f"| {' | '.join(map(str, cells))} |" for cells in zip(names, *columns, strict=True)]
    return "\n".join([lines[0], "|--|" + "--:|" * len(columns), *lines[1:]])


def _alarms(data_dir: Path) -> str:
    lines = ["| set | train rows | test | of it found |", "|--|--:|--:|--:|"]
    for name in sorted(path.parent.name for path in data_dir.glob("*/train.jsonl")):
        train = rows_of(data_dir, name, "train")
        found = contamination.Index({name: contamination.texts_of(rows_of(data_dir, name, "test"))}).overlap(train)
        if train and found.looked_for[name]:
            lines.append(f"| {name} | {len(train):,} | {found.looked_for[name]:,} | {found.found.get(name, 0)} |")
    return "\n".join(lines)


def section(data_dir: Path) -> str:
    return f"""Pages found in rows without their names, by layout; a page of 250 words is whole in the first 250:

{_pages(data_dir)}

Texts of other tests, each in a row of its own:

{_texts(data_dir)}

Train rows against the test of the same set; the two share no text and no page:

{_alarms(data_dir)}
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the imported sets")
    parser.add_argument("--write", action="store_true", help="put the section into docs/numeric.md")
    given = parser.parse_args()
    text = section(given.data_dir)
    if not given.write:
        sys.stdout.write(text)
    else:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
        PAGE.write_text(f"{before}{MARKS[0]}\n{text}{MARKS[1]}{rest.partition(MARKS[1])[2]}", encoding="utf-8")
