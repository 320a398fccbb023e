"""Importers: FNXL, FiNER-139, XBRL terms; FinLoRA's questions joined with filings."""

from __future__ import annotations

import csv
import json
import random
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from finbench.core import paths
from finbench.core.errors import FinbenchError
from finbench.data.sources import import_data
from finbench.data.xbrl.build import build_questions
from xbrl_samples import fact, instance, statement

sets = paths.helper("sets")
xbrl = sets.xbrl
offer = sets.xbrl.offer


def rows_of(folder: Path, set_: str, split: str) -> list[dict[str, Any]]:
    path = folder / set_ / f"{split}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(("tags", "rows"), [(587, 1203), (139, 5000), (12, 40), (3, 60), (1, 4), (30, 9), (0, 0)])
def test_no_rule_over_the_candidates_alone_is_above_chance(tags: int, rows: int) -> None:
    drawn = random.Random(rows)
    heads, tails = ("Debt", "Lease", "Share", "Income", "Goodwill"), ("Gross", "Net", "PaidCurrent", "FairValue")
    names = [f"{drawn.choice(heads)}{drawn.choice(tails)}Item{n}" for n in range(tags)]
    weights = [1 / (1 + n / 5) for n in range(tags)]
    questions = [(f"q{n}", tag) for n, tag in enumerate(drawn.choices(names, weights, k=rows) if rows else [])]
    offered = offer(questions)
    lists = Counter(frozenset(choices) for choices in offered)
    for choices, (_, tag) in zip(offered, questions, strict=True):
        assert tag in choices
        assert len(set(choices)) == len(choices)
    # of the questions that show one list, each candidate is the answer equally often: a rule cannot choose well
    answers = Counter((frozenset(choices), tag) for choices, (_, tag) in zip(offered, questions, strict=True))
    assert all(count * len(shown) == lists[shown] for (shown, _), count in answers.items())
    most = max(Counter(tag for _, tag in questions).values(), default=0)
    if rows >= 20 and most <= rows // 10:
        assert set(map(len, offered)) <= {10, 11}
    assert offered == offer(questions)


def test_the_candidates_are_near_and_their_places_tell_nothing() -> None:
    names = [
        f"{head}{tail}" for head in ("Goodwill", "Debt", "Lease", "Share") for tail in map("Item{}".format, range(10))
    ]
    questions = [(f"{name}:{n}", name) for n in range(5) for name in names]
    random.Random(0).shuffle(questions)
    offered = offer(questions)
    heads = [len({choice.split("Item")[0] for choice in choices}) for choices in offered]
    assert sum(heads) / len(heads) < 1.2  # drawn at random they would be of about 3.9 of the four kinds
    places = Counter(choices.index(tag) for choices, (_, tag) in zip(offered, questions, strict=True))
    assert set(places) == set(range(10))
    assert max(places.values()) < 40  # 20 expected, 4.2 the standard deviation


def fnxl(folder: Path) -> list[Path]:
    def row(sentence: str, tags: object) -> dict[str, str]:
        return {"sentence": sentence, "numerals-tags": repr(tags), "company": "Bexley plc", "fileName": "/x"}

    files = [
        write_csv(
            folder / "train_sample.csv",
            [row(f"Goodwill was ${n} million .", {"us-gaap:Goodwill": [str(n)]}) for n in range(10, 30)]
            + [row("Dividends of $ 5 were paid .", {"us-gaap:Dividends": ["5"]})],
        ),
        write_csv(
            folder / "test_sample.csv",
            [
                row("Dividends of $ 5 were paid .", {"us-gaap:Dividends": ["5"]}),
                row("Rent was 7 and tax 8 , of 9 .", {"us-gaap:Rent": ["7", "9"], "us-gaap:Tax": ["8", "9"]}),
            ],
        ),
    ]
    return files


def test_fnxl(tmp_path: Path) -> None:
    report = import_data("fnxl", fnxl(tmp_path), tmp_path / "out")
    test = rows_of(tmp_path / "out", "fnxl", "test")
    assert {(row["numeral"], row["label"]) for row in test} == {("5", "Dividends"), ("7", "Rent"), ("8", "Tax")}
    assert report.dropped["a figure with two tags in one sentence"] == 1
    assert report.dropped["also in the test or validation split"] == 1
    for row in test:
        assert set(row["choices"]) == {"Dividends", "Rent", "Tax"}
    rent = next(row for row in test if row["label"] == "Rent")
    assert rent["group"] == next(row for row in test if row["label"] == "Tax")["group"]


@pytest.mark.parametrize(
    "told", ["{'us-gaap:A': '5'}", "{'own:A': ['5']}", "[", "__import__('os')", "{}", "5", "(" * 500]
)
def test_fnxl_rows_that_cannot_be_read(told: str, tmp_path: Path) -> None:
    files = fnxl(tmp_path)
    write_csv(files[1], [{"sentence": "A 5 .", "numerals-tags": told}])
    with pytest.raises(FinbenchError, match="test_sample.csv:2.*dictionary of us-gaap tags"):
        import_data("fnxl", files, tmp_path / "out")


def finer_rows(coded: bool) -> dict[str, list[dict[str, Any]]]:
    names = list(xbrl.finer139_names())

    def row(number: int, words: str, tags: list[str]) -> dict[str, Any]:
        return {"id": number, "tokens": words.split(), "ner_tags": [names.index(t) for t in tags] if coded else tags}

    term = "DebtInstrumentTerm"
    train = [row(n, f"Goodwill was {n} million .", ["O", "O", "B-Goodwill", "O", "O"]) for n in range(30)]
    train.append(row(99, "Nothing is tagged .", ["O"] * 4))
    test = [row(0, "It runs for 3 - 5 years .", ["O", "O", "O", f"B-{term}", f"I-{term}", f"I-{term}", "O", "O"])]
    return {"train": train, "test": test}


@pytest.mark.parametrize("coded", [False, True], ids=["names", "codes"])
def test_finer139_from_the_authors_zip(coded: bool, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "finer139.zip", "w") as archive:
        for split, rows in finer_rows(coded).items():
            archive.writestr(f"finer139/{split}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    report = import_data("finer139", [tmp_path / "finer139.zip"], tmp_path / "out")
    (row,) = rows_of(tmp_path / "out", "finer139", "test")
    assert (row["numeral"], row["label"], row["text"]) == ("3 - 5", "DebtInstrumentTerm", "It runs for 3 - 5 years .")
    assert report.dropped["no figure is tagged"] == 1
    assert len(rows_of(tmp_path / "out", "finer139", "train")) > 20


def test_finer139_has_139_tags() -> None:
    names = xbrl.finer139_names()
    tags = [name[2:] for name in names if name.startswith("B-")]
    assert (names[0], len(tags), len(set(tags))) == ("O", 139, 139)
    assert tags == sorted(tags)
    assert all(names[names.index(name) - 1] == f"B-{name[2:]}" for name in names if name.startswith("I-"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"tokens": ["a"], "ner_tags": []}, "1 tokens, 0 tags"),
        ({"tokens": ["a"], "ner_tags": ["X"]}, "a tag is O"),
        ({"tokens": ["a"], "ner_tags": [999]}, "a tag is O"),
        ({"tokens": ["a"], "ner_tags": ["B-Nonsense"]}, "none of the 139 tags"),
        ({"text": "a"}, "columns tokens and ner_tags"),
    ],
)
def test_finer139_rows_that_cannot_be_read(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    for split, rows in finer_rows(False).items():
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [*rows, row]))
    with pytest.raises(FinbenchError, match=reason):
        import_data("finer139", [tmp_path / "train.jsonl", tmp_path / "test.jsonl"], tmp_path / "out")


def test_terms(tmp_path: Path) -> None:
    def write(split: str, pairs: list[tuple[str, str]]) -> Path:
        path = tmp_path / f"xbrl_term_{split}.jsonl"
        ask = "Explain this XBRL term briefly in one sentence: {}. Answer:"
        path.write_text("".join(json.dumps({"context": ask.format(a), "target": b}) + "\n" for a, b in pairs))
        return path

    train = [(f"Term {n}, Net", f"Explanation {n}.") for n in range(30)]
    train += [("nan", "x"), ("Lost", "nan"), ("Assets", "Other words."), ("Wealth", "Things of value.")]
    files = [write("train", train), write("test", [("Assets", "Things of value."), ("Assets", "Things of worth.")])]
    report = import_data("xbrl_term", files, tmp_path / "out")
    (row,) = rows_of(tmp_path / "out", "xbrl_term", "test")
    assert (row["text"], row["answer"]) == ("Assets", "Things of value.")
    kept = [row["text"] for split in ("train", "validation") for row in rows_of(tmp_path / "out", "xbrl_term", split)]
    assert sorted(kept) == sorted(f"Term {n}, Net" for n in range(30))
    assert report.dropped['the term or its explanation is "nan"'] == 2
    assert report.dropped["the explanation is also in the test split"] == 1


# ---------------------------------------------------------------- FinLoRA's questions


def finlora(folder: Path, name: str, answers: list[str]) -> Path:
    return write_csv(
        folder / name,
        [
            {"instruction": "Answer.\n", "input": f"Question: {n}?\nAnswer:", "output": answer, "year": "2023",
             "company": "BEX", "doc_path": f"bexley/{place}", "context_id": where}
            for n, (answer, place, where) in enumerate((a, p, c) for a in answers for p, c in
                                                       (("a.xml", "i"), ("b.xml", "i"), ("a.xml", "zz")))
        ],
    )  # fmt: skip


def test_questions_get_the_facts_of_their_context(tmp_path: Path) -> None:
    long = f'<us-gaap:Note contextRef="i">{"x" * 999}</us-gaap:Note>'
    (tmp_path / "a.xml").write_bytes(instance(statement() + fact("Part", 7, "s") + long))
    tags = finlora(tmp_path, "xbrl_tags_test.csv", ["us-gaap:Assets", "4100.0", "own:Assets"])
    calc = finlora(tmp_path, "formula_calculation_train.csv", ["4100 / 200"])
    built = build_questions([tmp_path / "a.xml"], tmp_path / "out", finlora=[tags, calc])
    assert built.rows["finlora_xbrl_tags"] == {"test": 1}
    assert built.rows["finlora_xbrl_calc"] == {"train": 1}
    (row,) = rows_of(tmp_path / "out", "finlora_xbrl_tags", "test")
    assert row["text"].splitlines()[0] == "<us-gaap:Assets>4100</>"
    assert len(row["text"].splitlines()) == 5
    assert (row["instruction"], row["question"]) == ("Answer.", "Question: 0?\nAnswer:")
    assert built.dropped["finlora_xbrl_tags: the answer is a number"] == 1
    assert built.dropped["finlora_xbrl_tags: the answer is no us-gaap tag"] == 1
    assert built.dropped["finlora_xbrl_tags: its context has no short us-gaap facts"] == 3


def test_files_that_are_not_finloras(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(instance(statement()))
    other = write_csv(tmp_path / "value_test.csv", [{"a": "b"}])
    named = write_csv(tmp_path / "values.csv", [{"a": "b"}])
    for path, reason in (
        (other, "column context_id"),
        (named, "does not say which"),
        (tmp_path / "no.csv", "No such file"),
    ):
        with pytest.raises(FinbenchError, match=reason):
            build_questions([tmp_path / "a.xml"], tmp_path / "out", finlora=[path])
    assert not (tmp_path / "out").exists()
