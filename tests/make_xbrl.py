"""Small invented stand-ins for the authors' files of the XBRL sets, in their exact formats."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

FIGURES: list[tuple[str, str]] = [
    ("Goodwill was $ {n} million .", "Goodwill"),
    ("The note bears interest at {n} % .", "DebtInstrumentInterestRateStatedPercentage"),
    ("Depreciation was $ {n} million in the year .", "Depreciation"),
]


def _sentence(number: int, split: int) -> tuple[str, str, str]:
    text, tag = FIGURES[number % len(FIGURES)]
    figure = str(1000 * split + number + 1)
    return text.format(n=figure), figure, tag


def _fnxl(folder: Path, count: int) -> list[Path]:
    files = []
    for split, name in enumerate(("train", "dev", "test")):
        path = folder / f"{name}_sample.csv"
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(["sentence", "numerals-tags", "company", "docEndDate", "docType", "fileName", "year"])
            for number in range(count):
                text, figure, tag = _sentence(number, split)
                tags = repr({f"us-gaap:{tag}": [figure]})
                writer.writerow([text, tags, "ALDER PLC", "December 31, 2019", "10-K", "/alder/10-K.html", "20"])
        files.append(path)
    return files


def _finer(folder: Path, count: int) -> list[Path]:
    def line(number: int, split: int) -> str:
        text, figure, tag = _sentence(number, split)
        tokens = text.split()
        tags = [f"B-{tag}" if token == figure else "O" for token in tokens]
        return json.dumps({"id": number, "tokens": tokens, "ner_tags": tags}) + "\n"

    parts = folder / "finer139"
    parts.mkdir(exist_ok=True)
    files = []
    for split, name in enumerate(("train", "validation", "test")):
        files.append(parts / f"finer_{name}.jsonl")
        files[-1].write_text("".join(line(number, split) for number in range(count)), encoding="utf-8")
    return files


def _terms(folder: Path, count: int) -> list[Path]:
    ask = "Explain this XBRL term briefly in one sentence: Alder item {n}, {split}. Answer:"
    files = []
    for split in ("train", "test"):
        rows = [
            {"context": ask.format(n=n, split=split), "target": f"Amount of item {n} in the {split} part."}
            for n in range(count)
        ]
        files.append(folder / f"xbrl_term_{split}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return files


def xbrl_sources(folder: Path, count: int) -> dict[str, list[Path]]:
    """The authors' files of ``fnxl``, ``finer139`` and ``xbrl_term``, by set name."""
    makers: dict[str, Callable[[Path, int], list[Path]]] = {"fnxl": _fnxl, "finer139": _finer, "xbrl_term": _terms}
    return {name: make(folder, count) for name, make in makers.items()}


def xbrl_filing_sets(data: Path) -> dict[str, Any]:
    """The sets that are made of filings, into the data directory ``data``: from the invented filings that ship."""
    from finbench.core import paths
    from finbench.data.xbrl.build import build_questions

    folder = paths.shipped("tasks") / "mini" / "filings"
    published = data.parent / "finlora"
    published.mkdir(parents=True, exist_ok=True)
    asked = {
        "xbrl_tags": "us-gaap:Assets",
        "value": "4100.0",
        "formula_formatted_with_tags": "us-gaap:Assets / us-gaap:StockholdersEquity",
        "formula_calculation": "4100 / 200",
    }
    files = []
    for name, answer in asked.items():
        files.append(published / f"{name}_test.csv")
        with files[-1].open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(["instruction", "input", "output", "year", "company", "doc_path", "context_id"])
            for path in sorted(folder.glob("*.htm")):
                writer.writerow(
                    ["Answer.", f"Question: {name}?\nAnswer:", answer, "2023", "ALDR", f"x/{path.name}", "i1"]
                )
    built = build_questions([folder], data, max_context=300, test_companies=["Vexford", "Ostrava"], finlora=files)
    return built.rows
