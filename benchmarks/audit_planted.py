"""What the audit finds of faults planted into published rows, and what it says of the same rows before: docs/data.md.

    python benchmarks/audit_planted.py DATA            # prints the table, on the sets and seeds held out
    python benchmarks/audit_planted.py DATA --tuned    # on those by which thresholds were chosen
    python benchmarks/audit_planted.py DATA --write    # puts the table into docs/data.md

DATA holds the authors' files (``tfns/sent_train.csv``, ``filings/``). A case is a fault, a set and a seed: 600 rows are
drawn and audited, then the fault is planted and they are audited again. It is found where the checks named in the table
count more rows than before; ``rows`` are these, of those planted. An alarm is a finding of these checks before.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import json
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from finbench.core.console import progress
from finbench.data.audit import audit

PAGE = Path(__file__).resolve().parent.parent / "docs" / "data.md"
START, END = "<!-- planted: written by benchmarks/audit_planted.py -->", "<!-- end -->"
ROWS, COPIES, SHARE, SEEDS = 600, 30, 0.05, 3
MONTHS = tuple(
    "January February March April May June July August September October November December".split()  # noqa: SIM905
)
Row = dict[str, Any]
Files = dict[str, list[Row]]  # name -> rows
Planted = tuple[Files, int]  # and how many rows are wrong


# ---------------------------------------------------------------- published rows


def _read(path: Path) -> Any:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle))
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def _labelled(pairs: Iterable[tuple[str, str]]) -> list[Row]:
    """Texts with one label each; of those that differ in digits, case or signs the first."""
    kept: dict[str, Row] = {}
    for text, label in pairs:
        kept.setdefault(re.sub(r"https?://\S+|[\W\d]+", "", text.casefold()), {"text": text, "label": label})
    return list(kept.values())


def fpb(data: Path) -> list[Row]:
    lines = (data / "fpb" / "Sentences_50Agree.txt").read_bytes().decode("iso-8859-1").splitlines()
    return _labelled((line.rpartition("@")[0], line.rpartition("@")[2].strip()) for line in lines if line)


def tfns(data: Path) -> list[Row]:
    names = {"0": "negative", "1": "positive", "2": "neutral"}
    return _labelled((row["text"], names[row["label"]]) for row in _read(data / "tfns" / "sent_train.csv"))


def nwgi(data: Path) -> list[Row]:
    rows = _read(data / "nwgi" / "finlora_nwgi_test.jsonl")
    return _labelled(
        (row["context"].split("Input: ")[1].rpartition("\nAnswer")[0], row["target"].split()[-1]) for row in rows
    )


def fiqa_scores(data: Path) -> list[Row]:
    entries = [entry for path in sorted((data / "fiqa").glob("task1_*.json")) for entry in _read(path).values()]
    found = {entry["sentence"]: float(entry["info"][0]["sentiment_score"]) for entry in entries}
    return [{"text": text, "sentiment_score": score} for text, score in found.items()]


def fiqa(data: Path) -> list[Row]:
    scores = ((row["text"], row["sentiment_score"]) for row in fiqa_scores(data))
    return _labelled((text, "negative" if s < -0.1 else "positive" if s > 0.1 else "neutral") for text, s in scores)


def headlines(data: Path) -> list[Row]:
    rows = _read(data / "headline" / "headlines.csv")
    return _labelled((row["News"], "up" if row["DirectionUp"] == "1" else "not up") for row in rows)


def _tatqa(data: Path, name: str) -> list[Row]:
    found: list[Row] = _read(data / "tatqa" / f"tatqa_dataset_{name}.json")
    return [
        {**page, "questions": [question]}
        for page in found
        for question in page["questions"]
        if question["answer_type"] == "arithmetic"
    ]


def convfinqa(data: Path) -> list[Row]:
    return [row for row in _read(data / "convfinqa" / "convfinqa_dev.json") if isinstance(row["answer"], float)]


def finqa(data: Path) -> list[Row]:
    rows = _read(data / "finqa" / "finqa_dev_200_of_883.sukritganesh.json")
    return [row for row in rows if isinstance(row["qa"]["exe_ans"], float)]


def _formula(data: Path, split: str) -> list[Row]:
    rows: list[Row] = _read(data / "formula" / f"finlora_formula_{split}.jsonl")
    return [row for row in rows if "(NPV)" not in row["context"]]  # these are known to be wrong


@functools.cache
def _filed(data: Path, name: str) -> tuple[Row, ...]:
    """Questions that ``finbench data xbrl`` makes of the filings; the shorter half, whose facts are fewer."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "finbench", "data", "xbrl", *map(str, sorted((data / "filings").glob("a*")))]
        subprocess.run([*command, "--out", folder], check=True, capture_output=True)
        rows = sorted(_read(Path(folder) / name / "test.jsonl"), key=lambda row: len(row["text"]))
    return tuple(rows[: len(rows) // 2])


def companies(data: Path) -> list[Row]:
    return [dict(row) for row in _read(data / "xbrl_analysis" / "value_test.csv")]


def reports(data: Path) -> list[Row]:
    rows = [row for name in ("train", "dev", "test") for row in _read(data / "fnxl" / f"{name}_sample.csv")]
    kept = {
        row["sentence"]: {"text": row["sentence"], "tags": row["ner_tags"], "company": row["company"]} for row in rows
    }
    return list(kept.values())


# ---------------------------------------------------------------- faults


def _one(rows: list[Row]) -> Files:
    return {"rows.jsonl": rows}


def _halves(rows: list[Row]) -> Files:
    edge = len(rows) * 3 // 4
    return {"train.jsonl": rows[:edge], "test.jsonl": rows[edge:]}


def _by_company(rows: list[Row]) -> Files:
    names = sorted({row["company"] for row in rows})
    held = set(names[:: 4 if len(names) < 100 else 5])
    return {
        name: [row for row in rows if (row["company"] in held) == (name == "test.jsonl")]
        for name in ("train.jsonl", "test.jsonl")
    }


def exchange(
    one: str, other: str, part: float = 1.0, file: str = "rows.jsonl"
) -> Callable[[Files, random.Random], Planted]:
    def plant(files: Files, draw: random.Random) -> Planted:
        names, made = {one: other, other: one}, []
        for row in files[file]:
            moved = draw.random() < part
            made.append({**row, "label": names.get(row["label"], row["label"])} if moved else row)
        return {**files, file: made}, sum(a != b for a, b in zip(made, files[file], strict=True))

    return plant


def _digits(text: str, draw: random.Random) -> str:
    return re.sub(r"\d", lambda found: str((int(found[0]) + draw.randint(1, 8)) % 10), text)


def _month(text: str, draw: random.Random) -> str:
    return re.sub("|".join(MONTHS), lambda found: draw.choice([name for name in MONTHS if name != found[0]]), text)


def _word(text: str, draw: random.Random) -> str:
    words = text.split()
    words[draw.randrange(len(words))] = draw.choice(("also", "today", "reported", "company"))
    return " ".join(words)


def _less(text: str, draw: random.Random) -> str:
    words = text.split()
    del words[draw.randrange(len(words))]
    return " ".join(words)


def copies(*edits: Callable[[str, random.Random], str]) -> Callable[[Files, random.Random], Planted]:
    def plant(files: Files, draw: random.Random) -> Planted:
        made = []
        for row in draw.sample(files["train.jsonl"], len(files["train.jsonl"])):
            text = row["text"]
            if len(text.split()) < 9:  # of fewer words texts are alike by chance
                continue
            for edit in edits:
                before, text = text, edit(text, draw)
                if text == before:
                    break
            else:
                made.append({**row, "text": text})
        made = made[:COPIES]
        return {**files, "test.jsonl": files["test.jsonl"] + made}, len(made)

    return plant


def answers(change: Callable[[float], Any]) -> Callable[[Files, random.Random], Planted]:
    """Another answer in one row of twenty, wherever the row keeps it."""

    def plant(files: Files, draw: random.Random) -> Planted:
        rows = json.loads(json.dumps(files["rows.jsonl"]))
        kept = [
            (holder, key)
            for row in rows
            for holder in (row, row.get("qa"), *(row.get("questions") or [])[:1])
            if isinstance(holder, dict)
            for key in ("exe_ans", "answer", "target")
            if key in holder and _number(holder[key])
        ]
        chosen = draw.sample(
            sorted({id(holder): n for n, (holder, _) in enumerate(kept)}.values()), round(SHARE * len(rows))
        )
        wrong = {id(kept[n][0]) for n in chosen}
        for holder, key in kept:
            if id(holder) in wrong:
                value = change(_number(holder[key]))
                if isinstance(holder[key], str) and isinstance(value, float):
                    value = f"{value:.10f}".rstrip("0").rstrip(".") + "%" * holder[key].endswith("%")
                holder[key] = value
        return {"rows.jsonl": rows}, len(chosen)

    return plant


def _number(value: Any) -> float:
    with contextlib.suppress(TypeError, ValueError):
        return float(str(value).replace(",", "").removesuffix("%").strip("$ "))
    return 0.0


def beyond(files: Files, draw: random.Random) -> Planted:
    rows = [dict(row) for row in files["rows.jsonl"]]
    for row in draw.sample(rows, 3):
        row["sentiment_score"] = round(draw.choice((-1, 1)) * draw.uniform(1.05, 3), 3)
    return _one(rows), 3


def guest(files: Files, draw: random.Random) -> Planted:
    """The rows of one company of train in the test too."""
    name = draw.choice(sorted({row["company"] for row in files["train.jsonl"]}))
    rows = [row for row in files["train.jsonl"] if row["company"] == name]
    edge = (len(rows) + 1) // 2
    kept = [row for row in files["train.jsonl"] if row not in rows[:edge] or len(rows) == 1]
    return {"train.jsonl": kept, "test.jsonl": files["test.jsonl"] + rows[:edge]}, 1


def constant(column: str, value: Any) -> Callable[[Files, random.Random], Planted]:
    def plant(files: Files, draw: random.Random) -> Planted:
        return _one([{**row, column: value} for row in files["rows.jsonl"]]), len(files["rows.jsonl"])

    return plant


class Fault(NamedTuple):
    said: str
    checks: tuple[str, ...]
    sets: dict[str, Callable[[Path], Iterable[Row]]]
    shape: Callable[[list[Row]], Files]
    plant: Callable[[Files, random.Random], Planted]


def faults(tuned: bool) -> list[Fault]:
    """``tuned``: on the sets by which thresholds were chosen."""
    label: dict[str, Any] = {"fpb": fpb, "fiqa": fiqa} if tuned else {"tfns": tfns, "nwgi": nwgi}
    apart: dict[str, Any] = {"fpb": fpb} if tuned else {"tfns": tfns, "nwgi": nwgi, "fiqa": fiqa}
    near: dict[str, Any] = {"fpb": fpb, "tfns": tfns} if tuned else {"nwgi": nwgi, "fiqa": fiqa, "headlines": headlines}
    worked: dict[str, Any] = {"finqa": finqa, "tatqa dev": lambda data: _tatqa(data, "dev")}
    if not tuned:
        worked = {"tatqa test": lambda data: _tatqa(data, "test_gold"), "convfinqa": convfinqa}
    facts = {name: functools.partial(_filed, name=name) for name in ("xbrl_values", "xbrl_calc")}
    stated = {"fin_math": functools.partial(_formula, split="train" if tuned else "test")}
    score: dict[str, Any] = {"fiqa_score": fiqa_scores}
    firm: dict[str, Any] = {"fnxl": reports} if tuned else {"xbrl_analysis": companies}
    gold = ("impossible-gold",)
    leak = ("near-leak", "leak")
    by_tone, by_model = ("label-meaning",), ("label-swap",)
    changes = {"answer times ten": lambda value: value * 10, "answer with the other sign": lambda value: -value}
    places = {"the row works it out": worked, "the facts are in the row": {} if tuned else facts}
    places["the formula is in the row"] = stated
    in_test = exchange("positive", "neutral", file="test.jsonl")
    made = [
        Fault("positive and neutral exchanged in 85 %", by_tone, label, _one, exchange("positive", "neutral", 0.85)),
        Fault("positive and negative exchanged", by_tone, label, _one, exchange("positive", "negative")),
        Fault("positive and neutral exchanged in the test", by_model, apart, _halves, in_test),
        Fault("copies of train in test, other digits", leak, near, _halves, copies(_digits)),
        Fault("copies, another month", leak, near, _halves, copies(_month)),
        Fault("copies, a word less", leak, near, _halves, copies(_less)),
        Fault("copies, another word", leak, near, _halves, copies(_word)),
        Fault("copies, other digits and another word", leak, near, _halves, copies(_digits, _word)),
        *(
            Fault(f"{said}, {where}", gold, sets, _one, answers(change))
            for where, sets in places.items()
            for said, change in changes.items()
        ),
        Fault("scores outside [-1, 1]", ("out-of-range",), score, _one, beyond),
        Fault("one company on both sides", ("entity-leak",), firm, _by_company, guest),
        Fault("one label in all rows", ("constant-answer",), label, _one, constant("label", "neutral")),
        Fault("1e400 as answer", ("missing-answer",), score, _one, constant("sentiment_score", "1e400")),
    ]
    return [fault for fault in made if fault.sets]


# ---------------------------------------------------------------- the table


def _audited(files: Files, checks: tuple[str, ...]) -> tuple[int, int]:
    """(findings of these checks, rows that they count)."""
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in files.items():
            (Path(folder) / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        found = [finding for finding in audit([Path(folder)]).findings if finding.check in checks]
    return len(found), sum(finding.count for finding in found)


def table(data: Path, tuned: bool) -> list[str]:
    lines = ["| planted | set | found | rows | alarms before |", "|--|--|--|--|--|"]
    chosen = [(fault, name) for fault in faults(tuned) for name in fault.sets]
    with progress() as bar:
        line = bar.add_task("auditing", total=len(chosen), note="")
        for fault, name in chosen:
            bar.update(line, note=f"{fault.said}, {name}")
            rows = sorted(fault.sets[name](data), key=json.dumps)
            hits = right = wrong = alarms = 0
            for seed in range(SEEDS) if tuned else range(100, 100 + SEEDS):
                draw = random.Random(seed)
                files = fault.shape(draw.sample(rows, min(ROWS, len(rows))))
                before, counted = _audited(files, fault.checks)
                planted, number = fault.plant(files, draw)
                after = _audited(planted, fault.checks)[1] - counted
                hits, right, wrong = hits + (after > 0), right + max(0, min(after, number)), wrong + number
                alarms += before
            shown = f"{right:,} of {wrong:,}" if fault.checks != ("label-meaning",) else ""
            lines.append(f"| {fault.said} | {name} | {hits} of {SEEDS} | {shown} | {alarms} |")
            bar.advance(line)
    return lines


def main() -> int:
    """Print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    text = "\n".join(table(given.data, given.tuned)) + "\n"
    if not given.write:
        sys.stdout.write(text)
        return 0
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    PAGE.write_text(f"{before}{START}\n\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
