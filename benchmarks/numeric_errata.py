"""docs/errata.md, the section on numeric sets, stance and claims: counted in the authors' files.

    python benchmarks/numeric_errata.py FOLDER            # prints the section
    python benchmarks/numeric_errata.py FOLDER --write    # puts it into docs/errata.md

FOLDER holds tatqa/, finqa/, convfinqa/, fomc/, numclaim/, xfinbench/ and formula/. What ``finbench data audit`` says of
the same files, each on its own, is not repeated here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finbench.core import paths
from finbench.core.prose import wrapped
from finbench.data import read_rows

PAGE = Path(__file__).resolve().parent.parent / "docs" / "errata.md"
MARKS = ("<!-- numeric: written by benchmarks/numeric_errata.py -->", "<!-- /numeric -->")
SEEDS = ("5768", "78516", "944601")
sets: Any = paths.helper("sets")
reports: Any = paths.helper("reports")


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _twice(items: list[Any]) -> str:
    """What one page is asked twice, by the importer's count."""
    counts = Counter(item.why for item in items if isinstance(item, sets.Drop))
    repeated, disputed = counts["duplicate"], counts[sets.reports.DISPUTED]
    return f"{repeated:,} repeat another question of their page; {disputed:,} share one with another answer."


def tatqa(folder: Path) -> Iterator[str]:
    items: list[Any] = []
    for name in ("dev", "test_gold"):
        records = ((row, name, None) for row in _json(folder / f"tatqa_dataset_{name}.json"))
        items += sets.SETS["tatqa"].units(records)
    rows: list[dict[str, Any]] = [row for unit in items if isinstance(unit, sets.Unit) for row in unit.rows]
    number = {"count", "arithmetic"}
    bare = [reports.official_tatqa(r["spans"], "", r["spans"], r["scale"], r["kind"] in number)[0] for r in rows]
    negative = [r for r in rows if r["kind"] == "arithmetic"]
    below = sum(r["spans"][0].startswith("-") for r in negative)
    brackets = sum(any(span.startswith("(") and "," in span for span in r["spans"]) for r in rows)
    kinds = Counter(row["kind"] for row in rows)
    yield (
        f"**TAT-QA**, {len(rows):,} questions of dev and test_gold ("
        + ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())
        + ")."
    )
    yield f"- The gold answers without their scale reach an official EM of {100 * sum(bare) / len(rows):.1f}."
    yield f"- {below:,} of {len(negative):,} arithmetic answers are negative: the sign counts."
    yield (
        f"- {brackets:,} answers are figures such as (1,212). The official metric takes them for positive, unless they "
        "have no comma; here a bracket is a minus sign."
    )
    yield "- The official metric takes a numeric 0 for no answer; here it is one."
    yield "- One question has a scale beside words and is left out; one has an empty span, which is dropped."
    yield f"- {_twice(items)} None of the latter is asked: nobody knows which answer is right."


def finqa(folder: Path) -> Iterator[str]:
    files = sorted(folder.glob("finqa_*_of_*.json"))
    records = [record for file in files for record in _json(file)]
    wrong = []
    for record in records:
        human = str(record["qa"]["answer"] or "").removesuffix("\\n").strip()
        result = sets.reports.result_of(record["qa"]["exe_ans"])
        if human and sets.reports.contradicts(human, result):
            wrong.append((record["id"], human, result))
    yield f"**FinQA**, {len(records):,} whole records in {len(files)} files."
    yield (
        f"- In {len(wrong):,} the annotator's answer is another number than the program's, rounding, sign and a factor "
        "of 100 forgiven. They are left out: " + "; ".join(f"{i}: {human}, program {r}" for i, human, r in wrong) + "."
    )
    ran = sum(
        str(reports.programs.execute(r["qa"]["program"], json.dumps(r["table"]))) == str(r["qa"]["exe_ans"])
        for r in records
    )
    yield f"- The program gives exe_ans in {ran:,} of {len(records):,}."
    names = [file for file in files if "_dev_" not in file.name] + [folder / "finqa_dataset_dev.tatllm.json"]
    told = list(sets.SETS["finqa"].units((row, file.name, None) for file in names for row in _json(file)))
    yield f"- Of these files and TAT-LLM's copy of dev, {_twice(told)} The first of repeats is asked."


def convfinqa(folder: Path, other: Path) -> Iterator[str]:
    units = list(sets.SETS["convfinqa_own"].units((r, "c", None) for r in _json(folder / "convfinqa_dev.json")))
    talks = [row for unit in units if isinstance(unit, sets.Unit) for row in unit.rows]
    turns = list(sets.SETS["convfinqa"].units((r, "c", None) for r in _json(folder / "convfinqa_dev.json")))
    asked = sets.SETS["finqa"].units((r, "f", None) for r in _json(other / "finqa_dataset_dev.tatllm.json"))
    pages = {row["document"] for unit in asked if isinstance(unit, sets.Unit) for row in unit.rows}
    mine = {row["document"] for row in talks}
    yield f"**ConvFinQA**, {len(talks):,} conversations about {len(mine):,} pages."
    both = f"{len(mine & pages):,} of {len(mine):,}"
    yield f"- {both} pages are in FinQA's dev set: never train on one and test on the other."
    yield f"- The last program gives the stated answer in {len(talks):,} of {len(talks):,}."
    yield f"- Of turns after the same turns, {_twice(turns)}"


def _sentences(path: Path, column: str) -> list[tuple[str, str]]:
    return [(str(sets.normalise(str(row[column]))), str(row["label"])) for row in read_rows(path)]


def fomc(folder: Path) -> Iterator[str]:
    yield "**FOMC**, as published."
    for kind in ("combine", "split-combine"):
        shared, double, tested = [], [], Counter[str]()
        for seed in SEEDS:
            test = _sentences(folder / "test_data" / f"lab-manual-{kind}-test-{seed}.xlsx", "sentence")
            train = _sentences(folder / "training_data" / f"lab-manual-{kind}-train-{seed}.xlsx", "sentence")
            known = {text for text, _ in train}
            shared.append(sum(text in known for text, _ in test))
            labels: dict[str, set[str]] = {}
            for text, label in test + train:
                labels.setdefault(text, set()).add(label)
            double.append(sum(len(found) > 1 for found in labels.values()))
            tested.update({text for text, _ in test})
        yield (
            f"- {kind}: {', '.join(map(str, shared))} test sentences are in train (by seed), "
            f"{', '.join(map(str, double))} texts have two labels; the three tests have {tested.total():,} sentences, "
            f"{len(tested):,} different ones: their mean is no mean of independent tests."
        )


def numclaim(folder: Path) -> Iterator[str]:
    yield "**NumClaim**, as published."
    for kind, name in (("arpts", "analyst reports"), ("ec", "earnings calls")):
        shared, claims, constant = [], [], []
        for seed in SEEDS:
            test = _sentences(folder / "test" / f"gold_{kind}_numclaim-test-{seed}.xlsx", "text")
            known = {
                text for text, _ in _sentences(folder / "train" / f"gold_{kind}_numclaim-train-{seed}.xlsx", "text")
            }
            shared.append(sum(text in known for text, _ in test))
            yes = sum(label == "1" for _, label in test)
            claims.append(yes)
            rest = (len(test) - yes) / len(test)
            constant.append(100 * rest * 2 * rest / (1 + rest))
        yield (
            f"- {name}: {', '.join(map(str, shared))} test sentences are in train, {', '.join(map(str, claims))} are "
            f"claims; a constant no-claim has a weighted F1 of {min(constant):.0f} to {max(constant):.0f}, so macro-F1 "
            "ranks."
        )


def xfinbench(folder: Path) -> Iterator[str]:
    rows = [row for name in ("validation", "test") for row in read_rows(folder / f"{name}_set.csv")]
    figures = sum(bool(row["figure"]) for row in rows)
    dashes = sum(str(row["ground_truth"]).startswith("–") for row in rows)
    two = sum("," in str(row["ground_truth"]) for row in rows)
    yield f"**XFinBench**, {len(rows):,} questions."
    yield (
        f"- {figures:,} need a picture and are left out; {dashes:,} answers have a dash for a minus sign; {two:,} is "
        "two numbers."
    )


def fin_math(folder: Path) -> Iterator[str]:
    """What ``tasks/lib/sets/formulas.py`` leaves out of the questions about formulas, and an example of each reason."""
    found: dict[str, dict[str, list[str]]] = {}
    asked: Counter[str] = Counter()
    for split in ("train", "test"):
        for row in read_rows(folder / f"finlora_formula_{split}.jsonl"):
            asked[split] += 1
            (item,) = sets.SETS["fin_math"].units([(row, split, split)])
            if isinstance(item, sets.Drop) and not item.why.startswith("net present value"):
                question = str(row["context"]).rpartition("Question: ")[2].removesuffix(". Answer:").strip('" ')
                shown = f"{' '.join(question.split())} {row['target']}"
                found.setdefault(item.why, {}).setdefault(split, []).append(shown)
    out = sum(len(own.get("test", [])) for own in found.values())
    yield (
        f"**fin_math**, {asked.total():,} questions about formulas; {out:,} of {asked['test']:,} of the test are left "
        "out, besides net present values."
    )
    for why, own in sorted(found.items()):
        counts = ", ".join(f"{len(texts):,} of {split}" for split, texts in own.items())
        yield f"- {why[:1].upper()}{why[1:]}: {counts}. For one: {own.get('test', next(iter(own.values())))[0]}"


def section(folder: Path) -> Iterator[str]:
    yield "## Numeric sets, stance and claims"
    yield ""
    yield "Counted in the files at hand, about three quarters of the authors'."
    parts = (
        tatqa(folder / "tatqa"), finqa(folder / "finqa"), convfinqa(folder / "convfinqa", folder / "finqa"),
        fomc(folder / "fomc"), numclaim(folder / "numclaim"), xfinbench(folder / "xfinbench"),
        fin_math(folder / "formula"),
    )  # fmt: skip
    for part in parts:
        head, *points = part
        yield from ("", head, "", *points)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true", help="put the section into docs/errata.md")
    given = parser.parse_args()
    text = wrapped("\n".join(section(given.folder)) + "\n")
    if not given.write:
        sys.stdout.write(text)
        sys.exit(0)
    whole = PAGE.read_text(encoding="utf-8")
    before, _, rest = whole.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2] or "\n"
    PAGE.write_text(f"{before.rstrip()}\n\n{MARKS[0]}\n{text}{MARKS[1]}{after}", encoding="utf-8")
