"""Small invented stand-ins for the authors' files, in their exact formats, imported into a data directory.

Run as ``python tests/make_data.py FOLDER``; tests use ``write_sources``.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from make_reports import report_sources

from make_xbrl import xbrl_filing_sets, xbrl_sources

LABELS = ("negative", "neutral", "positive")
LEVELS = ("strong negative", "moderately negative", "mildly negative", "neutral", "mildly positive")
LEVELS += ("moderately positive", "strong positive")
_VERBS = {
    "negative": ("fell", "slid", "shrank"),
    "neutral": ("was", "stood at", "came to"),
    "positive": ("rose", "grew", "jumped"),
}


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """``count`` distinct (sentence, label) pairs about companies that do not exist."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        label = LABELS[number % 3]
        company = f"{rng.choice(['Alder', 'Birch', 'Cedar', 'Elm'])}{number + 1000 * seed} plc"
        made.append((f"{company} said its profit {rng.choice(_VERBS[label])} EUR {rng.randint(2, 99)} mn .", label))
    return made


def _jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _prompt(noun: str, labels: Iterable[str], text: str, label: str) -> dict[str, str]:
    """A row of FinLoRA's files."""
    offered = f"Please choose an answer from {{{'/'.join(labels)}}}"
    context = f"Instruction: What is the sentiment of this {noun}? {offered}.\nInput: {text}\nAnswer: "
    return {"context": context, "target": label}


def _sentiment(folder: Path, count: int) -> dict[str, list[Path]]:
    made: dict[str, list[Path]] = {}
    rows = sentences(count, 1)
    fifty, every = folder / "Sentences_50Agree.txt", folder / "Sentences_AllAgree.txt"
    fifty.write_bytes("".join(f"{text}@{label}\r\n" for text, label in rows).encode("iso-8859-1"))
    every.write_bytes("".join(f"{text}@{label}\r\n" for text, label in rows[: count // 2]).encode("iso-8859-1"))
    made["fpb"] = [fifty, every]
    scores = {"negative": "-0.5", "neutral": "0.0", "positive": "0.6"}
    made["fiqa_sa"] = []
    for number, split in enumerate(("train", "test")):
        path = folder / f"task1_headline_ABSA_{split}.json"
        entries = {
            str(key): {
                "sentence": text,
                "info": [{"snippets": "['']", "target": "Alder", "sentiment_score": scores[label], "aspects": "[]"}],
            }
            for key, (text, label) in enumerate(sentences(count // (1 + 2 * number), 2 + number))
        }
        path.write_text(json.dumps(entries), encoding="utf-8")
        made["fiqa_sa"].append(path)
    codes = {"negative": 0, "positive": 1, "neutral": 2}
    made["tfns"] = []
    for number, split in enumerate(("train", "valid")):
        path = folder / f"sent_{split}.csv"
        lines = [f'"$ALDR {text}",{codes[label]}\n' for text, label in sentences(count // (1 + 2 * number), 4 + number)]
        path.write_text("text,label\n" + "".join(lines), encoding="utf-8")
        made["tfns"].append(path)
    texts = [text for text, _ in sentences(count, 6)]
    rows7 = [_prompt("news", LEVELS, text, LEVELS[number % 7]) for number, text in enumerate(texts)]
    made["nwgi"] = made["finlora_nwgi"] = [_jsonl(folder / "finlora_nwgi_test.jsonl", rows7)]
    for name, noun in (("fpb", "news"), ("fiqa", "tweet"), ("tfns", "tweet")):
        prompts = [_prompt(noun, LABELS, text, label) for text, label in sentences(count // 3, 7)]
        made[f"finlora_{name}"] = [_jsonl(folder / f"finlora_{name}_test.jsonl", prompts)]
    return made


_HEADLINE = (
    "Dates,URL,News,PriceOrNot,DirectionUp,DirectionConstant,DirectionDown,PastPrice,FuturePrice,PastNews,FutureNews"
)


def _headlines(folder: Path, count: int) -> dict[str, list[Path]]:
    lines = [f"{_HEADLINE},AssetComparision"]
    prompts = []
    for number in range(count):
        verb, up = (("climbs", 1), ("slips", 0))[number % 2]
        other = number % 3 == 0
        mine = "".join("abcdefghij"[int(digit)] for digit in str(number))  # else all would be of one template
        text = f'"gold {verb} ${number + 1}.50 at {mine}, {"outshines silver" if other else "dollar mixed"}"'
        answers = [1, up, 0, 1 - up, number % 5 > 0, number % 7 == 0, number % 4 == 0, number % 11 == 0, other]
        date, cells = f"2016-01-{number % 28 + 1:02}", ",".join(str(int(answer)) for answer in answers)
        lines.append(f"{date},http://a.example/{number},{text},{cells}")
        asked = "Instruction: Does the news headline talk about price going up? Please choose an answer from {Yes/No}."
        prompts.append({"context": f"{asked}\nInput: {text}\nAnswer: ", "target": "Yes" if up else "No"})
    path = folder / "headlines.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"headlines": [path], "finlora_headline": [_jsonl(folder / "finlora_headline_test.jsonl", prompts)]}


_TAGGED = (
    [
        ("Lender", "PER"),
        ("pays", ""),
        ("Norvane", "ORG"),
        ("{n}", "ORG"),
        ("in", ""),
        ("Port", "LOC"),
        ("Lessing", "LOC"),
    ],
    [("Ana", "PER"), ("Brock{n}", "PER"), ("left", ""), ("Bexley{n}", "ORG"), (".", "")],
    [("Clause", ""), ("{n}", ""), ("is", ""), ("void", ""), (".", "")],
)


def _entities(folder: Path, count: int) -> dict[str, list[Path]]:
    def sentence(number: int) -> list[tuple[str, str]]:
        return [(token.format(n=number), kind) for token, kind in _TAGGED[number % 3]]

    files = []
    for name, start, size in (("FIN5", 0, count), ("FIN3", 10_000, count // 2)):
        blocks = ["-DOCSTART- -X- O O\n"]
        for number in range(start, start + size):
            blocks.append("".join(f"{t} NN - {'I-' + k if k else 'O'}\n" for t, k in sentence(number)))
        files.append(folder / f"{name}.txt")
        files[-1].write_text("\n".join(blocks), encoding="utf-8")
    codes = {"PER": 1, "LOC": 3, "ORG": 5}
    tables = []
    for name, start, size in (("train", 20_000, count), ("val", 30_000, count // 3), ("test", 40_000, count // 2)):
        lines, before = ["gold_label,gold_token,doc_idx,sent_idx"], ""
        for number in range(start, start + size):
            for token, kind in sentence(number):
                code = codes[kind] + (kind == before) if kind else 0
                lines.append(f"{code},{token},{number // 10},{number % 10}")
                before = kind
        tables.append(folder / f"{name}.csv")
        tables[-1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    kinds = {"PER": "person", "ORG": "organization", "LOC": "location"}
    asked = "Options: location, organization, person"
    rows = [
        {
            "context": f"Instruction: {verb} the entity type of '{token}' in the input sentence.\n{asked}\n"
            f"Input: {' '.join(t for t, _ in sentence(number))}\nAnswer: ",
            "target": kinds[kind],
        }
        for number in range(count // 3)
        for token, kind in sentence(number)[:1]
        if kind
        for verb in ("What is", "Tell")
    ]
    made = {"fin_ner": files, "fin_ner_typing": files, "finer_ord": tables}
    return {**made, "finlora_ner": [_jsonl(folder / "finlora_ner_test.jsonl", rows)]}


def _questions(folder: Path, count: int) -> dict[str, list[Path]]:
    def formula(number: int) -> dict[str, str]:
        asked = f"Current assets are ${number + 2} and current liabilities $4. What is the ratio?"
        context = (
            "Use formula Current Ratio to answer the question. Answer with a numerical answer with 2 decimal places "
            "and with no explanations or other text. Formula: CR = CA / CL, Explanation: CA: Current assets, "
            f'CL: Current liabilities. Question: "{asked}". Answer:'
        )
        return {"context": context, "target": str((number + 2) / 4)}

    formulas = [
        _jsonl(folder / f"finlora_formula_{split}.jsonl", [formula(number) for number in range(start, start + size)])
        for split, start, size in (("train", 0, count), ("test", count, count // 3))
    ]
    bench = [
        {
            "financebench_id": f"id_{number}",
            "company": "Alder",
            "doc_name": f"ALDER_{number // 3}_10K",
            "question": f"What is the FY{number} capital expenditure (in USD millions)?",
            "answer": f"${number + 5}.00" if number % 4 else "It rose.",
            "evidence": [
                {"evidence_text": f"Cash flow\n \nCapital expenditure\n {number + 5}", "evidence_page_num": 1}
            ],
        }
        for number in range(count)
    ]
    asked = "Answer the following question very briefly using scanned text from pages. No explanation needed."
    free = [
        {
            "context": f"{asked} Question: Who runs Alder{number}?\nDocument Pages Context:\nPage 1:\nAna{number}\n"
            "Answer: ",
            "target": f"Ana{number}",
        }
        for number in range(count // 3)
    ]  # fmt: skip
    return {
        "fin_math": formulas,
        "finlora_fin_math": formulas[1:],
        "financebench": [_jsonl(folder / "financebench_open_source.jsonl", bench)],
        "finlora_financebench": [_jsonl(folder / "finlora_financebench_test.jsonl", free)],
    }


def _general(folder: Path, count: int) -> dict[str, list[Path]]:
    def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path

    def adapters(name: str, prompt: Callable[[int], str], answer: str) -> Path:
        rows = [
            {"instruction": prompt(n), "input": "", "output": "the correct answer is", "answer": f"{answer}{n % 2 + 1}"}
            for n in range(count)
        ]  # fmt: skip
        path = folder / f"{name}_test.json"
        path.write_text(json.dumps(rows), encoding="utf-8")
        return path

    numbers = range(count)
    letters = ["A", "B", "C", "D"]
    return {
        "piqa": [
            adapters(
                "piqa",
                lambda n: f"Please choose the correct solution to the question: To open jar {n}\n\n"
                f"Solution1: turn lid {n}.\n\nSolution2: sing to lid {n}.\n\nAnswer format: solution1/solution2",
                "solution",
            )
        ],
        "winogrande": [
            adapters(
                "winogrande",
                lambda n: "Please choose the correct answer to fill in the blank to complete the given sentence: "
                f"Cup {n} did not fit in the box as the _ was small.\n\nOption1: cup Option2: box "
                "Answer format: option1/option2",
                "option",
            )
        ],
        "boolq": [
            parquet(
                folder / "boolq_test.parquet",
                [
                    {"question": f"is tin {n} soft", "passage": f"Tin {n} is soft.", "idx": n, "label": n % 2}
                    for n in numbers
                ],
            )
        ],
        "hellaswag": [
            _jsonl(
                folder / "hellaswag_test.jsonl",
                [
                    {"ind": n, "activity_label": "Tea", "ctx_a": f"A woman fills kettle {n}.", "ctx_b": "she",
                     "endings": [f"[step] boils it {n}.", "sings.", "sleeps.", "flies."], "label": str(n % 4)}
                    for n in numbers
                ],
            )
        ],
        "arc_easy": [
            _jsonl(
                folder / "arc_easy_test.jsonl",
                [
                    {"id": f"q{n}", "question": f"Which of {n} is solid?", "answerKey": letters[n % 4],
                     "choices": {"text": ["iron", "water", "air", "milk"], "label": letters}}
                    for n in numbers
                ],
            )
        ],
        "mmlu": [
            parquet(
                folder / "mmlu_test.parquet",
                [
                    {"question": f"What is {n} and 1?", "subject": "abstract_algebra", "answer": n % 4,
                     "choices": [str(n + step) for step in range(4)]}
                    for n in numbers
                ],
            )
        ],
    }  # fmt: skip


def write_sources(folder: Path, count: int = 120) -> dict[str, list[Path]]:
    """The authors' files of every set, by set name."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = (_sentiment, _headlines, _entities, _questions, _general, xbrl_sources, report_sources)
    return {name: files for part in parts for name, files in part(folder, count).items()}


def as_whole(home: Path) -> None:
    """Let every imported stand-in count as the authors' whole set."""
    for path in home.glob("*/dataset.json"):
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"share": None}), encoding="utf-8")


if __name__ == "__main__":
    from finbench.data.sources import import_data

    target = Path(sys.argv[1])
    for name, files in write_sources(target / "sources").items():
        print(name, import_data(name, files, target).rows)
    print(xbrl_filing_sets(target))
