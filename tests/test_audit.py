"""The audit finds each kind of fault in small invented copies and in the authors' files, and nothing in clean data."""

from __future__ import annotations

import csv
import gzip
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make_reports import context, conversation, page, program_of_thoughts
from typer.testing import CliRunner

import finbench
from conftest import quick
from finbench.cli.app import app
from finbench.core import paths
from finbench.core.errors import FinbenchError
from finbench.data import import_data
from finbench.data.audit import Audit, Finding, audit, audit_against, row_store
from finbench.data.audit.figures import evaluate
from finbench.data.audit.texts import damage
from finbench.data.contamination import Index
from make_data import LABELS, _prompt, sentences, write_sources

CODES = {"negative": "0", "positive": "1", "neutral": "2"}


def jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows(count: int, seed: int) -> list[dict[str, str]]:
    """Sentences that are all different, with labels that fit their verbs."""
    return [{"text": text.replace("profit", "output"), "label": label} for text, label in sentences(count, seed)]


def varied(count: int, seed: int) -> list[dict[str, str]]:
    """Texts of random words: no template."""
    draw = random.Random(seed)
    words = [a + b + c for a in ("bel", "cor", "dan", "fen") for b in "aeiou" for c in ("rak", "mont", "vis", "tol")]
    return [{"text": " ".join(draw.choices(words, k=14)), "label": LABELS[n % 3]} for n in range(count)]


def prompts(made: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """The same as FinLoRA writes it."""
    return [_prompt("news", LABELS, row["text"], row["label"]) for row in made]


def test_a_conversation_whose_role_is_no_text_is_read(tmp_path: Path) -> None:
    turns = [
        {"role": ["user"], "content": "a b c"},
        {"role": "user", "content": "d e"},
        {"role": "model", "content": "x"},
    ]
    assert audit([jsonl(tmp_path / "chat.jsonl", [{"messages": turns}] * 3)]).sources[0].rows == 3


def test_a_packed_file_of_a_folder_is_named_as_not_read(tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl", topics(60, 1))
    (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a", "label": "b"}\n'))
    assert "gunzip -k" in audit([tmp_path]).unread["test.jsonl.gz"]


def found(seen: Audit, check: str) -> list[Finding]:
    return [finding for finding in seen.findings if finding.check == check]


def one(seen: Audit, check: str, *names: str) -> Finding:
    """The only finding of a check that is about these files."""
    fitting = [finding for finding in found(seen, check) if all(name in finding.sources for name in names)]
    assert len(fitting) == 1, [(finding.check, finding.sources, finding.said) for finding in seen.findings]
    return fitting[0]


# ---------------------------------------------------------------- clean data


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_clean_data_pass_in_every_shape(tmp_path: Path, seed: int) -> None:
    train, test = rows(600, seed), rows(200, seed + 10)
    jsonl(tmp_path / "plain_train.jsonl", train)
    jsonl(tmp_path / "plain_test.jsonl", test)
    jsonl(tmp_path / "prompts_train.jsonl", prompts(rows(600, seed + 20)))
    jsonl(tmp_path / "prompts_test.jsonl", prompts(rows(200, seed + 30)))
    table(tmp_path / "columns_train.csv", list(rows(600, seed + 40)))
    seen = audit([tmp_path])
    assert [finding.said for finding in seen.findings] == []
    assert {source.name: source.rows for source in seen.sources}["prompts_train.jsonl"] == 600
    assert {source.split for source in seen.sources} == {"train", "test"}


def test_a_disk_that_is_full_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own: of pages beyond so many."""
    monkeypatch.setattr(row_store, "_SCHEMA", f"PRAGMA max_page_count = 40;{row_store._SCHEMA}")
    monkeypatch.setattr(row_store.tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    with pytest.raises(FinbenchError, match=f"Cannot write {tmp_path}/tmp: database or disk is full"):
        audit([jsonl(tmp_path / "a.jsonl", rows(2000, 0))])
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_sets_that_come_with_finbench_pass() -> None:
    seen = audit(["mini_sentiment", "mini_headline", "mini_ner", "mini_xbrl", "mini_xbrl_value"])
    assert len(seen.sources) == 10
    assert [(finding.check, finding.said) for finding in but_few(seen)] == []
    assert {finding.level for finding in seen.findings} <= {"note"}
    assert audit([paths.shipped("tasks") / "mini"]).faults == []


def test_clean_questions_with_numbers_pass(tmp_path: Path) -> None:
    rng = random.Random(1)
    made = []
    for number in range(200):
        a, b = rng.randint(10_000, 99_999), rng.randint(10_000, 99_999)
        question = f"Calculate the sum that firm {chr(65 + number % 26)} paid: {a} + {b}"
        made.append({"question": question, "answer": str(a + b)})
    seen = audit([jsonl(tmp_path / "sums_test.jsonl", made)])
    assert [finding.said for finding in seen.faults] == []


# ---------------------------------------------------------------- pages of reports and their questions


def report_files(folder: Path) -> Path:
    """TAT-QA, FinQA and ConvFinQA, by their authors' keys and as Program-of-Thoughts has them, all of them sound."""
    made = {
        "tatqa_dataset_train.json": [context(n) for n in range(30)],
        "tatqa_dataset_test_gold.json": [context(n) for n in range(30, 60)],
        "finqa/train.json": [page(n, q) for n in range(30) for q in (1, 2)],
        "finqa/test.json": [page(n) for n in range(30, 60)],
        "talks/dev.json": [conversation(n) for n in range(60, 100)],
        "talks_of_programs.json": [program_of_thoughts(n) for n in range(200, 240)],
    }
    for questions in (row["questions"] for name in list(made)[:2] for row in made[name]):
        for question in questions:
            question["derivation"] = {"-22.22": "(3.5 - 4.5) / 4.5", "2": "2019##2018"}.get(str(question["answer"]), "")
    for record in made["finqa/train.json"]:  # two questions about a page are two questions
        record["qa"]["question"] += f" ({record['id'][-1]})"
    for name, rows_of in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(rows_of), encoding="utf-8")
    return folder


def test_pages_are_read_question_by_question_and_sound_ones_pass(tmp_path: Path) -> None:
    seen = audit([report_files(tmp_path)])
    assert {source.name: source.rows for source in seen.sources} == {
        "finqa/test.json": 30, "finqa/train.json": 60, "talks/dev.json": 40, "talks_of_programs.json": 40,
        "tatqa_dataset_test_gold.json": 150, "tatqa_dataset_train.json": 150,
    }  # fmt: skip
    assert seen.skipped == {}
    assert all(source.texts[0] == "text" and source.gold for source in seen.sources)
    serious = ("impossible-gold", "conflicts", "duplicates", "leak", "missing-answer", "shared-pages")
    assert [finding.said for finding in seen.findings if finding.check in serious] == []


def test_answers_that_contradict_their_program_or_derivation_are_found(tmp_path: Path) -> None:
    folder = report_files(tmp_path)
    finqa = json.loads((folder / "finqa/train.json").read_text())
    for number, told in enumerate(("44%", "25%", "-25.2 %", "0.25", "the share is unknown", "7.5", "no")):
        finqa[number]["qa"] |= {"exe_ans": 0.25166, "answer": told}  # 44%, the minus, 7.5 and no are other answers
    (folder / "finqa/train.json").write_text(json.dumps(finqa))
    tatqa = json.loads((folder / "tatqa_dataset_train.json").read_text())
    derived = ("40.5 - 53", "53 - 40.5", "(40.5)", "40.5 * 2", "(1-15%)*($2.2/15%)", "40.5##53", "40.5")
    for row, derivation in zip(tatqa, derived, strict=False):
        row["questions"][3] |= {"answer": 12.47 if "%" in derivation else -12.5, "derivation": derivation}
    (folder / "tatqa_dataset_train.json").write_text(json.dumps(tatqa))
    seen = audit([folder])
    finding = one(seen, "impossible-gold", "finqa/train.json")
    assert (finding.count, finding.level) == (4, "error")
    assert finding.places == [f"finqa/train.json: entry {number}" for number in (1, 3, 6, 7)]
    assert one(seen, "impossible-gold", "tatqa_dataset_train.json").places == [
        f"tatqa_dataset_train.json: entry {number}, question 4"
        for number in (2, 4)  # the sign, the number
    ]


def test_two_sets_about_the_same_pages_are_named(tmp_path: Path) -> None:
    folder = report_files(tmp_path)
    talks = [program_of_thoughts(n) for n in range(30, 40)]
    (folder / "convfinqa_dev.json").write_text(json.dumps(talks), encoding="utf-8")
    finding = one(audit([folder]), "shared-pages")
    assert set(finding.sources) == {"convfinqa_dev.json", "finqa/test.json"}
    assert (finding.count, finding.of) == (10, 10)


def test_the_authors_report_files_are_audited(real_data: Path) -> None:
    seen = audit([real_data / name for name in ("tatqa", "finqa", "convfinqa", "fomc", "numclaim", "xfinbench")])
    rows_of = {source.name: source.rows for source in seen.sources}
    assert (rows_of["tatqa_dataset_dev.json"], rows_of["tatqa_dataset_test_gold.json"]) == (1266, 1261)
    contradicted = found(seen, "impossible-gold")
    assert {finding.sources[0].split("_")[0] for finding in contradicted} == {"finqa"}
    assert sum(finding.count for finding in contradicted) == 7
    pages = [finding for finding in found(seen, "shared-pages") if "convfinqa_dev.json" in finding.sources]
    assert (164, 164) in {(finding.count, finding.of) for finding in pages}
    assert not any("convfinqa_dev.json" in finding.sources for finding in found(seen, "conflicts"))
    seeds = [finding for finding in found(seen, "leak") if "combine" in finding.sources[0]]
    assert len(seeds) == 6
    assert all("sha256" in str(finding.example) for finding in seeds)


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("form", ["prompts", "plain"])
def test_two_labels_that_are_swapped_between_two_copies(tmp_path: Path, form: str) -> None:
    made = rows(300, 1)
    swap = {"positive": "neutral", "neutral": "positive"}
    other = [{**row, "label": swap.get(row["label"], row["label"])} for row in made]
    random.Random(3).shuffle(other)
    jsonl(tmp_path / "copy_test.jsonl", prompts(other) if form == "prompts" else other)
    table(tmp_path / "sent_valid.csv", [{"text": row["text"], "label": CODES[row["label"]]} for row in made])
    seen = audit([tmp_path])
    swapped = one(seen, "label-swap", "copy_test.jsonl", "sent_valid.csv")
    assert (swapped.level, swapped.count, swapped.of) == ("error", 200, 300)
    assert swapped.detail["positive -> 2 (neutral)"] == 100
    assert swapped.detail["negative -> 0 (negative)"] == 100
    assert one(seen, "label-meaning", "copy_test.jsonl").level == "error"
    assert [finding for finding in found(seen, "label-meaning") if "sent_valid.csv" in finding.sources] == []


def test_copies_that_agree_are_no_finding(tmp_path: Path) -> None:
    made = rows(300, 1)
    jsonl(tmp_path / "copy_test.jsonl", prompts(made))
    table(tmp_path / "sent_valid.csv", [{"text": row["text"], "label": CODES[row["label"]]} for row in made])
    assert [finding.said for finding in audit([tmp_path]).faults] == []


def test_codes_are_known_of_a_file_that_is_sorted_by_label(tmp_path: Path) -> None:
    made = sorted(rows(3600, 1), key=lambda row: row["label"])
    jsonl(tmp_path / "copy_test.jsonl", made[::20])
    table(
        tmp_path / "sent_train.csv",
        [
            {"text": row["text"], "label": {"negative": "0", "neutral": "1", "positive": "2"}[row["label"]]}
            for row in made
        ],
    )
    assert one(audit([tmp_path]), "label-swap").count == 120


EXCHANGES = {
    "positive and neutral": ("positive", "neutral"),
    "positive and negative": ("positive", "negative"),
    "negative and neutral": ("negative", "neutral"),
}


def exchanged(made: list[dict[str, str]], pair: tuple[str, str], part: float = 1.0) -> list[dict[str, str]]:
    """The two labels exchanged in a part of all rows."""
    draw, other = random.Random(1), {pair[0]: pair[1], pair[1]: pair[0]}
    return [
        {**row, "label": other.get(row["label"], row["label"]) if draw.random() < part else row["label"]}
        for row in made
    ]


@pytest.mark.parametrize("form", ["prompts", "plain", "scores"])
@pytest.mark.parametrize("part", [0.85, 1.0])
@pytest.mark.parametrize("pair", EXCHANGES.values(), ids=EXCHANGES)
def test_labels_that_contradict_their_texts_are_found_without_a_second_copy(
    tmp_path: Path, pair: tuple[str, str], part: float, form: str
) -> None:
    scores = {"negative": -0.5, "neutral": 0.0, "positive": 0.6}
    for name, made in (("clean", rows(240, 1)), ("swapped", exchanged(rows(240, 1), pair, part))):
        if form == "prompts":
            made = prompts(made)
        elif form == "scores":
            made = [{"text": row["text"], "sentiment_score": scores[row["label"]]} for row in made]  # type: ignore[dict-item]
        seen = audit([jsonl(tmp_path / f"{name}.jsonl", made)])
        assert len(seen.faults) == (name == "swapped"), [finding.said for finding in seen.findings]
    finding = one(seen, "label-meaning")
    assert (finding.level, finding.of) == ("error", 240)
    assert all(f"{label} as" in finding.said for label in pair)


def but_few(seen: Audit) -> list[Finding]:
    """The findings, but for notes that rows are too few to find swapped labels among them."""
    return [finding for finding in seen.findings if finding.check != "few-rows"]


def topics(count: int, seed: int) -> list[dict[str, str]]:
    """Texts of three labels that no dictionary knows, each with words of its own among many."""
    draw = random.Random(seed)
    own = [row["text"].split() for row in varied(3, 99)]
    noise = sorted(
        {word for row in varied(40, 7) for word in row["text"].split()} - {w for words in own for w in words}
    )
    made = []
    for number in range(count):
        words = draw.choices(noise, k=9) + draw.choices(own[number % 3], k=3)
        draw.shuffle(words)
        made.append({"text": " ".join(words), "label": f"class {'abc'[number % 3]}"})
    return made


@pytest.mark.parametrize("where", ["test", "a part of the file"])
def test_labels_that_one_part_has_swapped_are_found_by_cross_validation(tmp_path: Path, where: str) -> None:
    one_part = exchanged(topics(150, 2), ("class a", "class c"))
    if where == "test":
        jsonl(tmp_path / "news_train.jsonl", topics(450, 1))
        jsonl(tmp_path / "news_test.jsonl", topics(150, 2))
        assert but_few(audit([tmp_path])) == []
        jsonl(tmp_path / "news_test.jsonl", one_part)
    else:
        made = topics(600, 1)
        assert but_few(audit([jsonl(tmp_path / "news.jsonl", made)])) == []
        jsonl(tmp_path / "news.jsonl", made[:300] + one_part + made[450:])
    finding = one(audit([tmp_path]), "label-swap")
    assert (finding.level, finding.count) == ("error", 100)
    assert "'class a' or 'class c'" in finding.said


def questions(made: Iterable[Mapping[str, str]], asked: Mapping[str, str]) -> list[dict[str, str]]:
    """Each text with every question: whether it is of the class that the question means."""
    return [
        {"text": row["text"], "question": ask, "label": "Yes" if row["label"] == label else "No"}
        for row in made
        for ask, label in asked.items()
    ]


@pytest.mark.parametrize("asks", [3, 300])
def test_swapped_labels_of_rows_that_share_texts_are_found_by_question(tmp_path: Path, asks: int) -> None:
    """Three questions of every text; or one of its own for nearly every row, which alone tells the label."""
    if asks == 3:
        asked = {
            f"Is this about {thing}?": f"class {label}" for thing, label in (("oil", "a"), ("gas", "b"), ("tin", "c"))
        }
        train, test = (questions(topics(count, seed), asked) for count, seed in ((300, 1), (90, 2)))
    else:
        own = [
            [" ".join(row["text"].split()[:9]) for row in varied(count, seed)] for count, seed in ((390, 3), (90, 4))
        ]
        train, test = (
            [
                {"text": text, "entity": f"{ends[n % 2]} {text.split()[n % 2]}", "label": LABELS[n % 2]}
                for n, text in enumerate(text for text in texts for _ in range(2))
            ]
            for texts, ends in ((texts, ("Bank of", "Doctor")) for texts in own)
        )
    jsonl(tmp_path / "news_train.jsonl", train)
    jsonl(tmp_path / "news_test.jsonl", test)
    clean = audit([tmp_path])
    assert found(clean, "label-swap") == []
    assert found(clean, "few-rows") == []
    one_label, other = sorted({row["label"] for row in test})
    jsonl(tmp_path / "news_test.jsonl", exchanged(test, (one_label, other)))
    swap = one(audit([tmp_path]), "label-swap")
    assert (swap.level, swap.count, swap.of) == ("error", len(test), len(test))


def test_texts_with_one_label_for_this_question_and_another_for_that_are_no_exchange(tmp_path: Path) -> None:
    """A model that learnt the words of a text with one of its labels is wrong about its other question."""
    draw = random.Random(5)
    made = [
        {"passage": row["text"], "question": f"Does it speak of {' '.join(draw.sample(row['text'].split(), 2))}?",
         "answer": answer}
        for row in varied(350, 8) for answer in ("yes", "no")
    ]  # fmt: skip
    draw.shuffle(made)
    jsonl(tmp_path / "claims.jsonl", made)
    assert found(audit([tmp_path]), "label-swap") == []


@pytest.mark.parametrize(("low", "high"), [(0.15, 0.35), (0.4, 0.6), (0.88, 1.0), (0.0, 0.12)])
@pytest.mark.parametrize("where", ["file", "test"])
def test_labels_swapped_in_any_run_of_rows_are_found(tmp_path: Path, where: str, low: float, high: float) -> None:
    made = topics(1200, 1)
    first, last = int(low * len(made)), int(high * len(made))
    wrong = made[:first] + exchanged(made[first:last], ("class a", "class c")) + made[last:]
    if where == "test":
        jsonl(tmp_path / "news_train.jsonl", topics(600, 2))
    file = tmp_path / ("news_test.jsonl" if where == "test" else "news.jsonl")
    jsonl(file, made)
    assert but_few(audit([tmp_path])) == []
    jsonl(file, wrong)
    swap = one(audit([tmp_path]), "label-swap")
    planted = 2 * (last - first) // 3
    assert swap.level == "error"
    assert 0.6 * planted <= swap.count <= 1.2 * planted
    places = [int(place.rpartition(":")[2]) for place in swap.places]
    assert all(first - 75 <= place <= last + 75 for place in places)


@pytest.mark.parametrize("seed", range(5))
def test_labels_that_no_word_tells_are_no_swap_anywhere(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    made = [{**row, "label": draw.choice(["up", "down", "flat"])} for row in topics(900, seed)]
    assert found(audit([jsonl(tmp_path / "news.jsonl", made)]), "label-swap") == []


@pytest.mark.parametrize("count", [300, 120])
def test_a_small_file_is_looked_through_in_larger_parts(tmp_path: Path, count: int) -> None:
    """Of three hundred rows a quarter has 25 of each of three labels; of 120 a half has 20."""
    made = topics(count, 1)
    assert not [f for f in audit([jsonl(tmp_path / "news.jsonl", made)]).findings if f.level != "note"]
    part = 3 * (count // 12) if count == 300 else count // 2
    jsonl(tmp_path / "news.jsonl", exchanged(made[:part], ("class a", "class c")) + made[part:])
    seen = audit([tmp_path])
    swap = one(seen, "label-swap")
    assert swap.level == "error"
    assert ("models of the rest" if count == 300 else "a model of the other half") in swap.said


def test_rows_that_are_too_few_to_find_swapped_labels_are_told(tmp_path: Path) -> None:
    jsonl(tmp_path / "few.jsonl", topics(40, 1))
    said = one(audit([tmp_path]), "few-rows").said
    assert (
        said == "Too few rows to look for swapped labels: that takes 15 texts with one label, of each of two labels, "
        "in each half of the file."
    )
    draw = random.Random(4)
    made = [{**row, "label": draw.choice(["up", "down"])} for row in topics(200, 1)]  # labels that no word tells
    jsonl(tmp_path / "few.jsonl", made)
    note = one(audit([tmp_path]), "few-rows")
    assert note.level == "note"
    assert "Too few rows to tell whether 'down' and 'up' are swapped" in note.said
    assert "4 would show it" in note.said


@pytest.mark.parametrize("names", [("a.csv", "test.csv"), ("a.csv", "b.csv")])
def test_near_copies_in_files_of_any_name_are_found(tmp_path: Path, names: tuple[str, str]) -> None:
    made, draw = varied(90, 1), random.Random(2)
    for row in made:
        words = row["text"].split()
        row["text"] = " ".join([*words[:7], "paid a sum of 750 dollars in cash on 4 July to", *words[7:]])
    copies = [{**row, "text": COPIES["digits, month and a word"](row["text"], draw)} for row in made[:10]]
    for name, part in zip(names, (made[:70], made[70:] + copies), strict=True):
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, list(made[0]), delimiter=";")
            writer.writeheader()
            writer.writerows(part)
    near = one(audit([tmp_path]), "near-leak")
    assert (near.level, near.count) == ("warning", 10)
    assert {Path(name).name for name in near.sources} == set(names)


def test_a_single_label_that_differs_between_copies(tmp_path: Path) -> None:
    made = rows(300, 1)
    changed = [{**row, "label": "neutral"} if number == 0 else row for number, row in enumerate(made)]
    seen = audit([jsonl(tmp_path / "a.jsonl", made), jsonl(tmp_path / "b.jsonl", changed)])
    assert one(seen, "label-conflict").count == 1
    assert found(seen, "label-swap") == []


@pytest.mark.parametrize("told", ["yes", 0.25, "We cannot say; the report does not state it."])
def test_an_answer_that_never_changes_is_an_error(tmp_path: Path, told: Any) -> None:
    made = [{"text": row["text"], "label": told} for row in rows(30, 1)]
    finding = one(audit([jsonl(tmp_path / "same.jsonl", made)]), "constant-answer")
    assert (finding.level, finding.count, finding.of) == ("error", 30, 30)


def test_one_of_several_answers_that_never_changes_is_a_warning(tmp_path: Path) -> None:
    columns = [{"News": row["text"], "Up": str(n % 2), "Past": "1"} for n, row in enumerate(rows(30, 1))]
    finding = one(audit([jsonl(tmp_path / "headlines.jsonl", columns)]), "constant-answer")
    assert (finding.level, finding.count) == ("warning", 30)
    beside = [{**row, "sentiment": "positive"} for row in rows(30, 2)]
    assert "sentiment" in one(audit([jsonl(tmp_path / "two.jsonl", beside)]), "constant-answer").said


def test_skewed_and_misspelt_labels(tmp_path: Path) -> None:
    made = [{"text": row["text"], "label": "yes" if n else "no"} for n, row in enumerate(rows(300, 1))]
    assert one(audit([jsonl(tmp_path / "same.jsonl", made)]), "skew").level == "note"
    typed = rows(300, 2)
    typed[7]["label"] = "negativ"
    assert one(audit([jsonl(tmp_path / "typed.jsonl", typed)]), "label-typo").places == ["typed.jsonl:8"]


# ---------------------------------------------------------------- copies


@pytest.mark.parametrize("column", ["choice", "figure"])
def test_other_choices_or_another_picture_make_another_question(column: str, tmp_path: Path) -> None:
    """Though most rows have none: XFinBench's file is true or false, choices and calculations together."""
    made = [{"question": row["text"], column: "", "ground_truth": row["label"]} for row in varied(300, 4)]
    asked = {"question": "Which of these firms would give the longest credit?"}
    pair = [asked | {column: "A. rugs B. hats", "ground_truth": "A"}, asked | {column: "A. fruit B. toupees"}]
    pair[1]["ground_truth"] = "B"
    assert not found(audit([table(tmp_path / "test.csv", made + pair)]), "conflicts")
    pair[1][column] = pair[0][column]
    (conflict,) = found(audit([table(tmp_path / "test.csv", made + pair)]), "conflicts")
    assert (conflict.count, conflict.of) == (1, 1)


def test_duplicates_conflicts_and_what_a_row_wise_split_leaks(tmp_path: Path) -> None:
    made = rows(400, 1)
    made += [dict(row) for row in made[:60]]
    made += [{**row, "label": "positive" if row["label"] != "positive" else "negative"} for row in made[60:70]]
    made[400]["text"] = made[400]["text"].upper() + "  "  # case and blanks make no other text
    seen = audit([jsonl(tmp_path / "news.jsonl", made)])
    assert one(seen, "duplicates").count == 60
    conflicts = one(seen, "conflicts")
    assert (conflicts.level, conflicts.count, conflicts.of) == ("error", 10, 70)
    assert conflicts.places[0] == "news.jsonl:61"
    # of 70 pairs a test row (1 in 5) has its twin in train 4 times in 5
    assert one(seen, "row-split").count == round(0.2 * 140 * 0.8)


@pytest.mark.parametrize("shape", [";", "\t", "|", "one part", "several parts", "with an id"])
def test_conflicts_are_found_in_unusual_shapes(shape: str, tmp_path: Path) -> None:
    made = varied(60, 8)
    made.append({"text": made[3]["text"], "label": LABELS[(3 + 1) % 3]})
    nested: dict[str, Callable[[int, dict[str, str]], dict[str, Any]]] = {
        "one part": lambda n, row: {"input": {"sentence": row["text"]}, "output": {"label": row["label"]}},
        "several parts": lambda n, row: {
            "doc": {"text": row["text"], "n": n},
            "gold": {"label": row["label"], "by": 1},
        },
        "with an id": lambda n, row: {"id": f"a{n}", "doc": {"text": row["text"]}, "label": {"name": row["label"]}},
    }
    if shape in nested:
        file = jsonl(tmp_path / "set.jsonl", [nested[shape](n, row) for n, row in enumerate(made)])
    else:
        file = tmp_path / "set.csv"
        with file.open("w", encoding="utf-8-sig", newline="") as handle:
            csv.writer(handle, delimiter=shape).writerows([("Satz", "Label"), *(row.values() for row in made)])
    seen = audit([file])
    assert seen.sources[0].rows == 61
    [conflict] = found(seen, "conflicts")
    assert (conflict.count, conflict.of) == (1, 1)


def test_test_texts_in_train_and_splits_that_contradict_each_other(tmp_path: Path) -> None:
    train, test = rows(300, 1), rows(100, 2)
    jsonl(tmp_path / "news_train.jsonl", train + test[:7])
    jsonl(tmp_path / "news_test.jsonl", test)
    jsonl(tmp_path / "other_test.jsonl", prompts(train[:80] + rows(20, 3)))
    seen = audit([tmp_path])
    leak = one(seen, "leak", "news_train.jsonl", "news_test.jsonl")
    assert (leak.level, leak.count, leak.of) == ("error", 7, 100)
    assert leak.places[0] == "news_test.jsonl:1"
    assert one(seen, "split-conflict", "news_train.jsonl", "other_test.jsonl").count == 80


def test_texts_that_differ_by_a_word_are_near_duplicates(tmp_path: Path) -> None:
    train, test = varied(200, 1), varied(60, 2)
    test[0] = {"text": train[5]["text"].rpartition(" ")[0], "label": train[5]["label"]}
    jsonl(tmp_path / "news_train.jsonl", train)
    jsonl(tmp_path / "news_test.jsonl", test)
    seen = audit([tmp_path])
    near = one(seen, "near-leak")
    assert (near.count, near.places) == (1, ["news_test.jsonl:1"])
    assert but_few(seen) == [near]


_MONTH = ("January", "March", "August", "November")
COPIES: dict[str, Callable[[str, random.Random], str]] = {
    "other digits": lambda text, draw: text.replace("750", str(draw.randint(100, 740))),
    "another month": lambda text, draw: text.replace("July", draw.choice(_MONTH)),
    "a word less": lambda text, draw: text.replace(" in cash", ""),
    "a word more": lambda text, draw: text.replace(" sum", " larger sum"),
    "another word": lambda text, draw: text.replace("cash", "shares"),
    "digits, month and a word": lambda text, draw: text.replace("750", "213").replace("July", "May").replace("in ", ""),
}


@pytest.mark.parametrize("how", COPIES)
def test_near_copies_of_train_in_test_are_found_whatever_their_digits_and_months(tmp_path: Path, how: str) -> None:
    draw = random.Random(how)
    made = varied(230, 1)
    for row in made:
        words = row["text"].split()
        row["text"] = " ".join([*words[:7], "paid a sum of 750 dollars in cash on 4 July to", *words[7:]])
    train, test = made[:200], made[200:]
    jsonl(tmp_path / "news_train.jsonl", train)
    jsonl(tmp_path / "news_test.jsonl", test)
    assert but_few(audit([tmp_path])) == []
    planted = [{**row, "text": COPIES[how](row["text"], draw)} for row in draw.sample(train, 30)]
    jsonl(tmp_path / "news_test.jsonl", test + planted)
    near = one(audit([tmp_path]), "near-leak")
    assert (near.level, near.count) == ("warning", 30)
    assert all(int(place.rpartition(":")[2]) > 30 for place in near.places)
    # inside one file a sentence with another number is an ordinary one
    inside = found(audit([jsonl(tmp_path / "all.jsonl", train + planted)]), "near-duplicates")
    assert len(inside) == (how in ("a word less", "a word more", "another word"))


@pytest.mark.parametrize(("length", "caught"), [(24, True), (10, False)])
def test_two_other_words_are_few_in_a_long_text(tmp_path: Path, length: int, caught: bool) -> None:
    """The answers are no labels, so the words decide alone; in a short text two words may be the point of it."""
    draw, vocabulary = random.Random(6), sorted({word for row in varied(60, 7) for word in row["text"].split()})
    made = [
        {"text": " ".join(draw.sample(vocabulary, length)), "entities": f"Firm {n} of town {n}"} for n in range(230)
    ]
    copies = []
    for row in made[:30]:
        words = row["text"].split()
        for at in draw.sample(range(length), 2):
            words[at] = draw.choice([word for word in vocabulary if word not in words])
        copies.append({**row, "text": " ".join(words)})
    jsonl(tmp_path / "news_train.jsonl", made[:200])
    jsonl(tmp_path / "news_test.jsonl", made[200:])
    assert found(audit([tmp_path]), "near-leak") == []
    jsonl(tmp_path / "news_test.jsonl", made[200:] + copies)
    assert sum(finding.count for finding in found(audit([tmp_path]), "near-leak")) in (
        range(27, 31) if caught else (0,)
    )


def test_copies_with_other_digits_are_found_among_rows_with_choices(tmp_path: Path) -> None:
    """As of a report's next year; with other choices, or another answer, it is another question."""
    tags = [f"Tag{a}{b}" for a in ("Cash", "Debt", "Lease", "Tax", "Share", "Bond", "Loan") for b in "ABCDEFG"]
    made = []
    for number, row in enumerate(varied(230, 1)):
        words = row["text"].split()
        text = " ".join([*words[:7], f"was ${number + 100}million at December31, 2019 and", *words[7:]])
        choices = random.Random(number).sample(tags, 6)
        made.append({"text": text, "label": choices[number % 6], "choices": choices})
    train, test = made[:200], made[200:]
    later = [
        {**row, "text": row["text"].replace("2019", "2020").replace("December31", "March31").replace("$1", "$7")}
        for row in train[:30]
    ]
    jsonl(tmp_path / "facts_train.jsonl", train)
    other = [
        {**row, "choices": row["choices"][::-1], "label": row["choices"][(n + 1) % 6]} for n, row in enumerate(later)
    ]
    jsonl(tmp_path / "facts_test.jsonl", test + other)
    assert found(audit([tmp_path]), "near-leak") == []
    jsonl(tmp_path / "facts_test.jsonl", test + later)
    near = one(audit([tmp_path]), "near-leak")
    assert (near.level, near.count) == ("warning", 30)


def test_texts_of_one_template_are_not_near_duplicates(tmp_path: Path) -> None:
    subjects = ["the northern shipyard", "a regional bank", "our paper mill", "this bakery chain", "the tram operator"]
    acts = ["signed a contract", "opened an office", "closed its foundry", "hired forty engineers", "sold a ferry"]
    ends = ["after years of talks", "despite heavy rain", "near the old harbour", "with help of the state", "on Monday"]
    texts = [f"{s} {a} {e} and told its owners so by letter" for s in subjects for a in acts for e in ends]
    made = [{"text": text, "label": LABELS[number % 3]} for number, text in enumerate(texts)]
    assert but_few(audit([jsonl(tmp_path / "news.jsonl", made)])) == []


def by_company(companies: Iterable[str], seed: int) -> list[dict[str, str]]:
    """Six rows of each company."""
    names = list(companies)
    return [{**row, "company": names[n // 6]} for n, row in enumerate(rows(6 * len(names), seed))]


def test_a_company_on_both_sides_of_a_split_by_company(tmp_path: Path) -> None:
    train, test = ([f"{kind} {n} Inc." for n in range(count)] for kind, count in (("Alder", 20), ("Birch", 8)))
    jsonl(tmp_path / "train.jsonl", by_company(train, 1))
    jsonl(tmp_path / "test.jsonl", by_company(test, 2))
    assert but_few(audit([tmp_path])) == []
    jsonl(tmp_path / "test.jsonl", by_company([*test, "ALDER 3, INC"], 2))
    finding = one(audit([tmp_path]), "entity-leak", "train.jsonl", "test.jsonl")
    assert (finding.level, finding.count, finding.of, finding.places) == ("warning", 1, 9, ["test.jsonl:49"])
    jsonl(tmp_path / "test.jsonl", by_company(train, 2))  # the same companies by intent
    assert found(audit([tmp_path]), "entity-leak") == []
    draw, made = random.Random(1), by_company(train, 1)  # a split by row
    for row in made:
        row["split"] = draw.choice(["train", "train", "train", "test"])
    assert found(audit([jsonl(tmp_path / "all.jsonl", made)]), "entity-leak") == []


@pytest.mark.parametrize("column", ["filer_name", "companyTicker", "CIK number", "firm_id", "lei", "Ticker"])
def test_columns_of_companies_by_many_names(tmp_path: Path, column: str) -> None:
    train, test = ([f"{kind} {n}" for n in range(count)] for kind, count in (("Alder", 20), ("Birch", 8)))
    for name, made in (("train", by_company(train, 1)), ("test", by_company([*test, "Alder 3"], 2))):
        jsonl(
            tmp_path / f"{name}.jsonl", [{"text": r["text"], "label": r["label"], column: r["company"]} for r in made]
        )
    assert column in one(audit([tmp_path]), "entity-leak").said


# ---------------------------------------------------------------- answers


def test_rows_that_are_one_fact_asked_in_many_wordings(tmp_path: Path) -> None:
    asks = [
        "What is the entity type of '{}' in the input sentence",
        "Tell the entity type of '{}'",
        "Which type is '{}'",
    ]
    made = []
    for number in range(40):
        name = f"Firm{number} Holdings"
        text = f"Under clause {number} {name} shall repay the sum of {number + 3} dollars ."
        for ask in asks:
            context = f"Instruction: {ask.format(name)}.\nOptions: location, person\nInput: {text}\nAnswer: "
            made.append({"context": context, "target": ["location", "person"][number % 2]})
    fact = one(audit([jsonl(tmp_path / "ner_test.jsonl", made)]), "one-fact")
    assert (fact.count, fact.of) == (40, 120)


def test_answers_that_are_a_missing_value_of_another_kind_or_known_from_train(tmp_path: Path) -> None:
    terms = [
        f"{a} {b}"
        for a in ("Gross", "Net", "Deferred", "Accrued", "Current")
        for b in ("profit", "debt", "tax", "cost")
    ]
    defined = [
        {"term": t, "definition": f"What a firm states as {t.casefold()} in note {n}"} for n, t in enumerate(terms)
    ]
    defined[3]["definition"] = "nan"
    missing = one(audit([jsonl(tmp_path / "terms.jsonl", defined)]), "missing-answer")
    assert (missing.level, missing.count, missing.places) == ("error", 1, ["terms.jsonl:4"])

    tags = [
        {"question": f"Which tag states the {t} of {c}?", "answer": f"us-gaap:{t.title().replace(' ', '')}"}
        for t in terms
        for c in ("Alder", "Birch")
    ]
    tags[5]["answer"] = "29508000000.0"
    kind = one(audit([jsonl(tmp_path / "tags.jsonl", tags)]), "answer-kind")
    assert (kind.level, kind.count, kind.of) == ("error", 1, 40)
    assert kind.places == ["tags.jsonl:6"]

    formulas = [f"(us-gaap:{name} / us-gaap:Assets) * 100" for name in ("Liabilities", "Revenues", "NetIncomeLoss")]
    for split, years in (("train", range(2000, 2015)), ("test", range(2015, 2020))):
        asked = [
            {"input": f"Which formula gives ratio {n} of {c} in {y}?", "output": formulas[n], "company": c}
            for n in range(3)
            for c in ("Alder", "Birch", "Cedar", "Elm")
            for y in years
        ]
        # an answer that others have by chance counts nowhere
        asked += [{"input": f"Is {c} sound?", "output": "yes", "company": c} for c in ("Alder", "Birch")]
        table(tmp_path / f"formula_{split}.csv", asked)
    known = one(audit([tmp_path / "formula_train.csv", tmp_path / "formula_test.csv"]), "answers-in-train")
    assert (known.level, known.count, known.of) == ("error", 60, 62)
    assert "; 60 of 62 (96.8 %) with the same company: " in known.said


def test_net_present_values_that_ignore_the_outlay(tmp_path: Path) -> None:
    def row(outlay: int, flow: int, years: int, answer: float) -> dict[str, str]:
        return {
            "context": "Use formula Net Present Value (NPV) to answer the question. Question: "
            f'"For an investment proposition of ${outlay:,} now and expected cash inflows of ${flow:,} annually for '
            f'the next {years} years at a discount rate of 3%, compute its NPV.". Answer:',
            "target": f"{answer:.2f}",
        }

    flows = {(flow, years): sum(flow / 1.03**t for t in range(1, years + 1)) for flow in (600, 700) for years in (4, 5)}
    right = [row(2000, flow, years, value - 2000) for (flow, years), value in flows.items()]
    assert found(audit([jsonl(tmp_path / "right.jsonl", right)]), "impossible-gold") == []
    wrong = [row(2000, flow, years, value) for (flow, years), value in flows.items()]
    finding = one(audit([jsonl(tmp_path / "wrong.jsonl", wrong)]), "impossible-gold")
    assert (finding.level, finding.count, finding.of) == ("error", 4, 4)


def test_arithmetic_that_does_not_come_out(tmp_path: Path) -> None:
    made = [{"question": f"Calculate {a} * {a + 3} + 1", "answer": str(a * (a + 3) + 1)} for a in range(100, 160)]
    made[4]["answer"] = "12"
    finding = one(audit([jsonl(tmp_path / "sums.jsonl", made)]), "impossible-gold")
    assert (finding.count, finding.of, finding.places) == (1, 60, ["sums.jsonl:5"])
    assert evaluate("(3 + 1,000) × 2 ÷ 4") == 501.5
    assert evaluate("__import__('os')") is None
    assert evaluate("9**9**9**9") is None


def scored(count: int, seed: int, column: str, low: float = -1, high: float = 1) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    return [{"text": row["text"], column: round(draw.uniform(low, high), 3)} for row in rows(count, seed)]


FACTORS = {"ten times": 10, "a tenth": 0.1, "the other sign": -1}


def values_of_facts(count: int) -> list[dict[str, Any]]:
    """Facts of a filing, and a question about one of them, whose answer is a loss now and then."""
    draw, made = random.Random(count), []
    for number in range(count):
        facts = [round(draw.lognormvariate(18, 2)) * draw.choice((1, 1, 1, -1)) for _ in range(12)]
        text = "\n".join(f"us-gaap:Item{at} {value} USD" for at, value in enumerate(facts))
        asked = f"What does Alder {number} report for item {number % 12}?"
        made.append({"text": text, "question": asked, "answer": str(facts[number % 12])})
    return made


@pytest.mark.parametrize("rows_wrong", [range(0, 120, 20), range(120)])
@pytest.mark.parametrize(("how", "factor"), FACTORS.items())
def test_answers_that_are_other_numbers_than_their_facts(
    tmp_path: Path, how: str, factor: float, rows_wrong: range
) -> None:
    made = values_of_facts(120)
    assert audit([jsonl(tmp_path / "facts.jsonl", made)]).faults == []
    for at in rows_wrong:
        made[at]["answer"] = str(round(int(made[at]["answer"]) * factor, 1)).removesuffix(".0")
    findings = found(audit([jsonl(tmp_path / "facts.jsonl", made)]), "impossible-gold")
    assert len(findings) == 1
    assert how in findings[0].said
    assert len(rows_wrong) * 0.9 <= findings[0].count <= len(rows_wrong)


@pytest.mark.parametrize("factor", FACTORS.values())
def test_answers_that_are_other_numbers_than_programs_and_formulas_give(tmp_path: Path, factor: float) -> None:
    def wrong(value: float, number: int) -> float:
        return round(value * (factor if number % 10 == 3 else 1), 4)

    draw = random.Random(5)
    pairs = [(draw.randint(100, 999), draw.randint(100, 999)) for _ in range(60)]
    asked = [f"By what share did item {n} of the report change between the years?" for n in range(60)]
    programs = [f"subtract({a}, {b}), divide(#0, {b})" for a, b in pairs]
    both = [{"exe_ans": wrong((a - b) / b, n), "answer": str(wrong((a - b) / b, n))} for n, (a, b) in enumerate(pairs)]
    facts = [f"us-gaap:Cash {a} USD\nus-gaap:Debt {b} USD\nus-gaap:Other {a + b} USD" for a, b in pairs]
    formula = "us-gaap:Cash / us-gaap:Debt"
    prompt = (
        "Use formula Margin to answer. Formula: Margin = (Profit / Revenue) × 100, Explanation: Profit: what is left, "
    )
    prompt += (
        "Revenue: sales. Question: The profit of firm {} was ${},000 of a revenue of ${},000. Its margin?. Answer:"
    )
    sets = {
        "finqa": [
            {"question": q, "program": p, **more} for q, p, more in zip(asked, programs, both, strict=True)
        ],
        "tatqa": [
            {"question": q, "derivation": f"{a} - {b}", "answer": wrong(a - b, n)}
            for n, (q, (a, b)) in enumerate(zip(asked, pairs, strict=True))
        ],
        "talks": [
            {"text": q, "programs": ["ans = 1", f"x0 = {a} - {b}; ans = x0 / {b}"], "answer": wrong((a - b) / b, n)}
            for n, (q, (a, b)) in enumerate(zip(asked, pairs, strict=True))
        ],
        "calc": [
            {"text": t, "question": q, "formula": formula, "answer": str(wrong(a / b, n))}
            for n, (t, q, (a, b)) in enumerate(zip(facts, asked, pairs, strict=True))
        ],
        "math": [
            {"context": prompt.format(chr(65 + n % 26), a, b), "target": str(round(wrong(100 * a / b, n), 2))}
            for n, (a, b) in enumerate(pairs)
        ],
    }  # fmt: skip
    for name, made in sets.items():
        finding = one(audit([jsonl(tmp_path / f"{name}.jsonl", made)]), "impossible-gold")
        assert (finding.level, finding.count) == ("error", 6), name
        assert finding.places[0] == f"{name}.jsonl:4"


@pytest.mark.parametrize(
    ("column", "low", "high", "beyond"),
    [("sentiment_score", -1, 1, 1.2), ("score", -1, 1, 4.5), ("probability", 0, 1, -0.25), ("score", 0, 100, 455.0)],
)
def test_scores_beyond_their_range(tmp_path: Path, column: str, low: float, high: float, beyond: float) -> None:
    made = scored(100, 1, column, low, high)
    assert but_few(audit([jsonl(tmp_path / "clean.jsonl", made)])) == []
    made[3][column], made[70][column] = beyond, beyond + 0.2 * abs(beyond) / beyond
    finding = one(audit([jsonl(tmp_path / "scores.jsonl", made)]), "out-of-range")
    assert (finding.count, finding.of, finding.places) == (2, 100, ["scores.jsonl:4", "scores.jsonl:71"])


@pytest.mark.parametrize("factor", FACTORS.values())
@pytest.mark.parametrize("column", ["unrounded", "formula"])
def test_answers_against_other_columns_of_their_rows(tmp_path: Path, column: str, factor: float) -> None:
    draw, made = random.Random(7), []
    for number in range(60):
        profit, sales = draw.randint(11, 97), draw.randint(101, 997)
        asked = f"Firm {chr(65 + number % 26)} made a profit of ${profit},000 of sales of ${sales},000. Its margin?"
        told = {"unrounded": f"{100 * profit / sales:.6e}"} if column == "unrounded" else {}
        if column == "formula":
            told = {
                "formula": "Margin = (Profit / Sales) × 100",
                "explanation": "Profit: what is left, Sales: revenue.",
            }
        wrong = factor if number % 10 == 3 else 1
        made.append({"text": asked, **told, "answer": f"{wrong * 100 * profit / sales:.4f}", "published": "1.5"})
    finding = one(audit([jsonl(tmp_path / "sums.jsonl", made)]), "impossible-gold")
    assert (finding.level, finding.count, finding.places[0]) == ("error", 6, "sums.jsonl:4")


def test_rows_without_an_answer_hide_no_score_beyond_its_range(tmp_path: Path) -> None:
    made = [{"text": f"Text {n} of a company.", "sentiment_score": n % 20 / 10 - 1} for n in range(300)]
    for row in made[::25]:
        row["sentiment_score"] = None
    for row in made[1:33:4]:
        row["sentiment_score"] = 4.5
    finding = one(audit([jsonl(tmp_path / "scores.jsonl", made)]), "out-of-range")
    assert (finding.level, finding.count) == ("error", 8)


@pytest.mark.parametrize("header", ["Text;Umsatz, EUR;Label", "Text;Label;Umsatz, EUR"])
def test_a_comma_in_a_header_of_semicolons_is_part_of_a_name(header: str, tmp_path: Path) -> None:
    names = header.split(";")
    for split, start in (("train", 0), ("test", 150)):
        rows = [
            {
                "Text": f"Company {n} sold {n} mills in the north",
                "Umsatz, EUR": f"{n},5",
                "Label": ("up", "down")[n % 2],
            }
            for n in range(start, start + 200)
        ]
        lines = [header, *(";".join(row[name] for name in names) for row in rows)]
        (tmp_path / f"{split}.csv").write_text("\n".join(lines) + "\n")
    made = audit([tmp_path])
    assert one(made, "leak").count == 50
    assert {finding.check for finding in made.findings if finding.level == "error"} == {"leak"}


@pytest.mark.parametrize("sign", [";", ",", "\t", "|"])
def test_a_line_that_tells_excel_the_delimiter_is_no_header(sign: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = [sign.join((row["text"], row["label"])) for row in varied(90, 1)]
    path.write_text("\r\n".join([f"sep={sign}", f"text{sign}label", *lines]))
    found = audit([path]).sources[0]
    assert (found.rows, found.texts) == (90, ["text"])
    assert sum(finbench.new_task(path, to=tmp_path / "mine").rows.values()) == 90
    path.write_text(f"sep={sign}\n")
    with pytest.raises(FinbenchError, match="no row"):
        audit([path])


def test_a_decimal_comma_is_no_comma_of_thousands(tmp_path: Path) -> None:
    twice = [
        {"text": f"What was the margin of company {n}?", "answer": answer}
        for n in range(60)
        for answer in ("12,5", "125")
    ]
    made = audit([jsonl(tmp_path / "twice.jsonl", twice)])
    assert one(made, "conflicts").count >= 60
    assert not found(made, "one-answer")
    german = [
        {"text": f"Der Umsatz der Firma {n} lag bei {3_000 + 7 * n},0 Mio. Euro.", "answer": 3_000.0 + 7 * n}
        for n in range(100)
    ]
    assert not [one for one in audit([jsonl(tmp_path / "german.jsonl", german)]).findings if one.level == "error"]


@pytest.mark.parametrize(
    ("column", "train", "test"),
    [
        ("Set", "train_set", "Test"),
        ("partition", "TRAIN", "testing"),
        ("fold", "Training", "dev"),
        ("set", "train", "val"),
    ],
)
def test_splits_by_other_names_are_splits(column: str, train: str, test: str, tmp_path: Path) -> None:
    made = [{**row, column: train if n < 120 else test} for n, row in enumerate(varied(160, 1))]
    made += [{**row, column: test} for row in made[:9]]
    assert one(audit([jsonl(tmp_path / "rows.jsonl", made)]), "leak").count == 9
    folds = [{**row, "fold": n % 5} for n, row in enumerate(varied(160, 1))]
    assert all(source.split is None for source in audit([jsonl(tmp_path / "folds.jsonl", folds)]).sources)


@pytest.mark.parametrize("column", ["formula", "Expression", "program", "calculation"])
def test_plain_arithmetic_beside_a_number_is_worked_out(column: str, tmp_path: Path) -> None:
    made = []
    for n in range(60):
        old, new = 900 + 7 * n, 1_000 + 11 * n
        value = {0: 100 * (new - old) / old, 1: (new - old) / old, 2: round((new - old) / old, 4)}[n % 3]
        made.append({"question": f"By how much did sales of unit {n} grow?", column: f"({new:,} - {old}) / {old}"})
        made[-1]["answer"] = str(value)
    path = jsonl(tmp_path / "rows.jsonl", made)
    assert [found for found in audit([path]).findings if found.level == "error"] == []
    for row in made[5:60:6]:
        row["answer"] = str(3 * float(row["answer"]) + 1)
    wrong = [found for found in audit([jsonl(path, made)]).findings if found.level == "error"]
    assert [found.count for found in wrong] == [10]


def test_the_body_of_an_article_is_its_text_and_not_its_title(tmp_path: Path) -> None:
    for body in ("content", "body", "article", "text"):
        made = [
            {"title": f"News of {n % 3}", body: row["text"], "label": row["label"]}
            for n, row in enumerate(varied(90, 1))
        ]
        assert audit([jsonl(tmp_path / f"{body}.jsonl", made)]).sources[0].texts[0] == body


def test_what_a_sentiment_is_about_is_no_answer(tmp_path: Path) -> None:
    made = [
        {"text": f"Company {n} gains, its rival loses", "target": f"{who} {n}", "sentiment": label}
        for n in range(80)
        for who, label in (("Company", "positive"), ("rival", "negative"))
    ]
    for split, part in (("train", made[:120]), ("test", made[120:])):
        jsonl(tmp_path / f"{split}.jsonl", part)
    assert [one for one in audit([tmp_path]).findings if one.level == "error"] == []


@pytest.mark.parametrize("column", ["company", "Ticker", "symbol", "target"])
def test_one_text_about_several_companies_is_no_conflict(column: str, tmp_path: Path) -> None:
    """Here one text in ten is: too few to make each row a question of its own."""
    made = [{**row, column: f"AA{n % 40}"} for n, row in enumerate(varied(200, 4))]
    swapped = {label: LABELS[at - 1] for at, label in enumerate(LABELS)}
    made += [{**row, column: "ZZ", "label": swapped[row["label"]]} for row in made[:20]]
    assert not any(found.check == "conflicts" for found in audit([jsonl(tmp_path / "rows.jsonl", made)]).findings)
    made += [{**row, "label": swapped[row["label"]]} for row in made[50:57]]
    assert one(audit([jsonl(tmp_path / "rows.jsonl", made)]), "conflicts").count == 7


@pytest.mark.parametrize(
    "text",
    [
        "\u5229\u6da6\u540c\u6bd4\u589e\u957f{}\uff05\uff0c\u8425\u4e1a\u6536\u5165\u521b\u65b0\u9ad8\u3002",
        "\u0e01\u0e33\u0e44\u0e23\u0e2a\u0e38\u0e17\u0e18\u0e34{}\u0e25\u0e49\u0e32\u0e19\u0e1a\u0e32\u0e17",
    ],
)
def test_texts_of_scripts_without_spaces_are_found(text: str, tmp_path: Path) -> None:
    made = [{"text": text.format(n), "label": ("up", "down")[n % 2]} for n in range(40)]
    asked = [
        {
            "prompt": f"\u4ee5\u4e0b\u65b0\u95fb\u7684\u60c5\u7eea\uff1f{row['text']}\u7b54\uff1a",
            "completion": row["label"],
        }
        for row in made
    ]
    test = jsonl(tmp_path / "test.jsonl", made[20:])
    for name, rows_of_train in (("plain", made[10:30]), ("prompts", asked[10:30])):
        seen = audit_against([test], [jsonl(tmp_path / f"{name}.jsonl", rows_of_train)])
        assert one(seen, "contamination").count == 10
    assert audit_against([test], [jsonl(tmp_path / "clean.jsonl", asked[:20])]).findings == []


def test_rates_of_growth_have_no_range(tmp_path: Path) -> None:
    draw = random.Random(5)
    made = [{"question": row["text"], "answer": round(draw.uniform(-0.9, 0.9), 3)} for row in varied(300, 1)]
    made[17]["answer"], made[200]["answer"] = 1.3, 2.1
    assert found(audit([jsonl(tmp_path / "growth.jsonl", made)]), "out-of-range") == []


def test_amounts_have_no_range(tmp_path: Path) -> None:
    draw = random.Random(3)
    made = [{"question": row["text"], "answer": round(draw.lognormvariate(0, 4), 2)} for row in rows(300, 1)]
    assert found(audit([jsonl(tmp_path / "amounts.jsonl", made)]), "out-of-range") == []


@pytest.mark.parametrize("told", ["1e400", '"1e400"', "-1e400", "NaN", "Infinity", '"1e999999999"', "1" + "0" * 400])
def test_an_answer_beyond_every_float_is_a_finding(tmp_path: Path, told: str) -> None:
    made = [{"question": f"What was item {n} of the annual report", "answer": str(7 * n + 1000)} for n in range(40)]
    file = jsonl(tmp_path / "sums.jsonl", made)
    line = json.dumps({**made[5], "answer": 0}).replace(": 0}", f": {told}}}")
    file.write_text(file.read_text().replace(json.dumps(made[5]), line))
    finding = one(audit([file]), "missing-answer")
    assert (finding.level, finding.count, finding.of, finding.places) == ("error", 1, 40, ["sums.jsonl:6"])
    file.write_text(file.read_text().replace(line, line.replace(told, '"1e-999999999"')))
    assert but_few(audit([file])) == []


# ---------------------------------------------------------------- texts


@pytest.mark.parametrize("column", ["text", "label", "note\ud800"])
def test_half_a_surrogate_pair_is_damage_and_no_crash(tmp_path: Path, column: str) -> None:
    made = rows(60, 1)
    made[9][column] = made[9].get(column, "") + "\ud83d"
    seen = audit([jsonl(tmp_path / "news.jsonl", made)])
    assert seen.sources[0].rows == 60
    assert [finding.places for finding in found(seen, "encoding")] == [["news.jsonl:10"]] * (column in made[0])
    assert "news" in seen.to_json()


@pytest.mark.parametrize("suffix", [".tsv", ".txt", ".csv"])
def test_a_header_of_huge_length_is_refused_in_a_line(tmp_path: Path, suffix: str) -> None:
    between = "," if suffix == ".csv" else "\t"
    lines = [between.join(("text", "label" + "x" * 200_000)), *[between.join(("some words of a row", "1"))] * 30]
    (tmp_path / f"news{suffix}").write_text("\n".join(lines) + "\n")
    with pytest.raises(FinbenchError, match="field larger than field limit"):
        audit([tmp_path / f"news{suffix}"])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Yhtiön jätehuolto kasvoi", ""),
        ("Profit rose by 5 % – to €12 mn", ""),
        ("R&D costs and AT&T", ""),
        ("Yhtiön jätehuolto".encode().decode("latin-1"), "mojibake"),
        ("it’s".encode().decode("cp1252"), "mojibake"),
        ("a lost \ufffd letter", "lost"),
        ("a bell \x07 rang", "control"),
        ("R&amp;D rose", "html"),
    ],
)
def test_damage_of_encodings(text: str, fault: str) -> None:
    assert damage(text) == fault


def test_rows_with_damage_are_named(tmp_path: Path) -> None:
    made = rows(100, 1)
    made[9]["text"] = "Lännen jätehuolto kasvoi viime vuonna".encode().decode("latin-1")
    encoding = one(audit([jsonl(tmp_path / "news.jsonl", made)]), "encoding")
    assert (encoding.count, encoding.of, encoding.places) == (1, 100, ["news.jsonl:10"])


def test_constant_columns_and_closed_licences(tmp_path: Path) -> None:
    made = [{**row, "source": "wire"} for row in rows(100, 1)]
    made.append(dict(made[0]))
    jsonl(tmp_path / "news.jsonl", made)
    (tmp_path / "LICENSE").write_text("Licensed under CC BY-NC-SA 3.0.\n", encoding="utf-8")
    seen = audit([tmp_path])
    assert "source" in one(seen, "constant").said
    assert "BY-NC" in one(seen, "licence").said
    # what must not be published is not shown either
    assert str(one(seen, "duplicates").example).startswith("sha256 ")
    assert made[0]["text"] not in seen.to_json()


# ---------------------------------------------------------------- the command


def test_strict_fails_on_faults_and_json_is_the_record(tmp_path: Path) -> None:
    clean = jsonl(tmp_path / "clean_train.jsonl", rows(100, 1))
    leaky = jsonl(tmp_path / "clean_test.jsonl", rows(100, 1)[:5])
    call = CliRunner().invoke
    assert call(app, ["data", "audit", str(clean), "--strict"]).exit_code == 0
    shown = call(app, ["data", "audit", str(clean), str(leaky)])
    assert shown.exit_code == 0
    assert "5 of 5 texts of clean_test.jsonl (test) are in clean_train.jsonl (train)." in shown.output
    assert call(app, ["data", "audit", str(clean), str(leaky), "--strict"]).exit_code == 1
    made = call(app, ["data", "audit", str(clean), str(leaky), "--json"])
    assert one(Audit.model_validate_json(made.stdout), "leak").count == 5


def test_what_cannot_be_audited_is_said(tmp_path: Path) -> None:
    (tmp_path / "prose.txt").write_text("Once there was a bank.\n", encoding="utf-8")
    with pytest.raises(FinbenchError, match="prose, not rows"):
        audit([tmp_path / "prose.txt"])
    with pytest.raises(FinbenchError, match="Unknown file or set 'nowhere.csv'"):
        audit(["nowhere.csv"])
    jsonl(tmp_path / "news.jsonl", rows(50, 1))
    assert list(audit([tmp_path]).skipped) == ["prose.txt"]


def parquet(path: Path, texts: list[bytes], column: str, other: Any) -> Path:
    """Texts, of which not all need be UTF-8, with labels and another column."""
    column_of = pa.array(texts, pa.binary())
    text = pa.Array.from_buffers(pa.string(), len(texts), column_of.buffers())
    pq.write_table(pa.table({"text": text, "label": [LABELS[n % 3] for n in range(len(texts))], column: other}), path)
    return path


@pytest.mark.parametrize("fault", ["text", "year", "zone"])
@pytest.mark.parametrize("count", [40, 1500])
def test_a_parquet_file_with_a_value_that_python_lacks_is_left_out_in_a_line(
    tmp_path: Path, fault: str, count: int
) -> None:
    """In the last row, which is read after columns are known; its own texts are in no finding."""
    times = pa.array([*[0] * (count - 1), 253402300800000 if fault == "year" else 0], pa.timestamp("ms"))
    times = times.cast(pa.timestamp("ms", "Mars/Phobos")) if fault == "zone" else times
    texts = [row["text"].encode() for row in varied(count, 1)]
    bad = parquet(
        tmp_path / "bad_train.parquet", [*texts[:-1], b"\xff\xfe" if fault == "text" else b"an end"], "at", times
    )
    with pytest.raises(FinbenchError, match="column " + ("text" if fault == "text" else "at")) as raised:
        audit([bad])
    assert raised.value.hint == "Correct that column, or leave it out."
    parquet(tmp_path / "bad_test.parquet", texts, "at", [0] * count)  # a leak, if those of train were kept
    seen = audit([tmp_path])
    assert [source.name for source in seen.sources] == ["bad_test.parquet"]
    assert list(seen.unread) == ["bad_train.parquet"]
    assert seen.faults == []


HINTS: dict[str, tuple[str, bytes, str]] = {
    "encoding": ("a.jsonl", b'{"text": "\xff"}\n', "iconv -f LATIN1 -t UTF-8"),
    "packed": ("a.jsonl.gz", b"", "gunzip -k"),
    "pointer": ("a.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "quote": ("a.csv", b'text,label\n"never closed,1\nmore,2\n', "quote"),
    "columns": ("a.csv", b"open,close\n1,2\n3,4\n", "--map text=COLUMN"),
}


@pytest.mark.parametrize(("name", "content", "hint"), HINTS.values(), ids=HINTS)
def test_what_cannot_be_read_says_what_to_type_and_strict_fails_on_it(
    tmp_path: Path, name: str, content: bytes, hint: str
) -> None:
    bad, good = tmp_path / name, jsonl(tmp_path / "good.jsonl", rows(90, 1))
    bad.write_bytes(content)
    (tmp_path / "README.txt").write_text("Rows of news.\n", encoding="utf-8")
    with pytest.raises(FinbenchError, match="No rows to audit") as raised:
        audit([bad])
    assert hint in str(raised.value)
    call = CliRunner().invoke
    shown = call(app, ["data", "audit", str(good), str(bad)])
    assert shown.exit_code == 0
    assert hint in shown.output
    assert "1 file not read, or not all of it." in shown.output
    assert call(app, ["data", "audit", str(good), str(bad), "--strict"]).exit_code == 1
    bad.unlink()
    assert call(app, ["data", "audit", str(tmp_path), "--strict"]).exit_code == 0  # prose beside rows is no fault
    readme = str(tmp_path / "README.txt")
    assert call(app, ["data", "audit", str(good), readme, "--strict"]).exit_code == 1  # unless it is named


def test_a_row_that_cannot_be_read_fails_under_strict(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "news.jsonl", rows(90, 1))
    file.write_text(file.read_text() + '{"text"\n', encoding="utf-8")
    call = CliRunner().invoke
    shown = call(app, ["data", "audit", str(file)])
    assert shown.exit_code == 0
    assert "1 row cannot be read (the last: 91:" in shown.output
    assert call(app, ["data", "audit", str(file), "--strict"]).exit_code == 1


# ---------------------------------------------------------------- contamination


def test_test_texts_are_found_in_conversations_and_short_ones_only_as_a_whole() -> None:
    long = "Alder plc said its profit rose to EUR 5 mn in the third quarter"
    index = Index({"a": [long, "Orders rose sharply", "Up"]})
    assert index.texts == {"a": 2}  # one word is nothing to look for
    chat = {"messages": [{"role": "user", "content": f"Label this.\nNews: {long.upper()}!\nLabel:"}]}
    assert index.overlap([chat]).found == {"a": 1}
    assert index.overlap([{"text": "Orders rose sharply, the firm said, and then fell"}]).found == {}
    assert index.overlap([{"text": "orders  rose sharply."}]).found == {"a": 1}
    assert index.overlap([{"text": "Alder plc said its profit rose to EUR 6 mn in the third quarter"}]).found == {}


def test_ones_own_training_files_against_a_test(tmp_path: Path) -> None:
    tested = rows(100, 1)
    test = jsonl(tmp_path / "news_test.jsonl", tested)
    own = jsonl(tmp_path / "mine.jsonl", prompts(tested[10:14] + rows(200, 2)))
    seen = audit_against([test], [own])
    hit = one(seen, "contamination")
    assert (hit.level, hit.count, hit.of) == ("error", 4, 100)
    assert hit.places == [f"mine.jsonl:{number}" for number in range(1, 5)]
    assert audit_against([test], [jsonl(tmp_path / "clean.jsonl", rows(200, 3))]).findings == []
    code = CliRunner().invoke(app, ["data", "audit", str(test), "--against", str(own), "--strict"]).exit_code
    assert code == 1
    other = tmp_path / "b" / own.name
    other.parent.mkdir()
    other.write_bytes(own.read_bytes())
    found = audit_against([test], [own, other, own]).findings
    assert [hit.sources[-1] for hit in found] == ["mine.jsonl", "b/mine.jsonl"]  # two files, told apart


def test_a_set_that_is_here_is_looked_through_as_a_training_file_is(tmp_path: Path) -> None:
    """By its name: of its rows those that it is trained on."""
    import_data("fpb", write_sources(tmp_path / "s")["fpb"], tmp_path / "data")
    lines = {
        split: [json.loads(line) for line in (tmp_path / "data" / "fpb" / f"{split}.jsonl").read_text().splitlines()]
        for split in ("train", "test")
    }
    test = jsonl(tmp_path / "news_test.jsonl", [*lines["train"][:5], *lines["test"][:7], *rows(50, 1)])
    hit = one(audit_against([test], ["fpb"], tmp_path / "data"), "contamination")
    assert (hit.count, hit.sources[-1]) == (5, "fpb/train.jsonl")
    command = ["data", "audit", str(test), "--against", "fpb", "--data-dir", str(tmp_path / "data"), "--strict"]
    assert CliRunner().invoke(app, command).exit_code == 1
    with pytest.raises(FinbenchError, match="Unknown file or set 'fbp'. Did you mean fpb"):
        audit_against([test], ["fbp"], tmp_path / "data")
    (tmp_path / "data" / "fpb" / "train.jsonl").unlink()
    with pytest.raises(FinbenchError, match="fpb has no rows to train on"):
        audit_against([test], ["fpb"], tmp_path / "data")


def renamed(made: list[dict[str, str]], text: str, label: str) -> list[dict[str, str]]:
    return [{text: row["text"], label: row["label"]} for row in made]


def test_columns_of_other_names_are_named_or_said_not_to_be_known(tmp_path: Path) -> None:
    faulty = rows(60, 1)
    faulty += [
        {"text": row["text"], "label": "positive" if row["label"] != "positive" else "neutral"} for row in faulty[:6]
    ]
    seen = audit([table(tmp_path / "kategorie.csv", renamed(faulty, "Ticket-Text (DE/EN)", "Kategorie"))])
    assert one(seen, "conflicts").count == 6
    own = table(tmp_path / "own.csv", renamed(faulty, "was gesagt wurde", "wie es war"))
    unknown = audit([own])
    assert found(unknown, "conflicts") == []
    assert "--map answer=COLUMN" in one(unknown, "no-answer").said
    assert one(unknown, "no-answer").level == "note"
    named = audit([own], columns={"text": "was gesagt wurde", "answer": "wie es war"})
    assert one(named, "conflicts").count == 6
    assert found(named, "no-answer") == []
    done = CliRunner().invoke(app, ["data", "audit", str(own), "--map", "answer=wie es war", "--strict"])
    assert done.exit_code == 1
    assert "conflicts" in done.output
    for columns, said in (({"answer": "gibt es nicht"}, "No file has the column"), ({"label": "x"}, "text and answer")):
        with pytest.raises(FinbenchError, match=said):
            audit([own], columns=columns)


# ---------------------------------------------------------------- size, and the authors' files


@pytest.mark.slow
@pytest.mark.parametrize("make", [varied, rows])
def test_a_hundred_thousand_rows_in_a_minute(tmp_path: Path, make: Callable[[int, int], list[dict[str, str]]]) -> None:
    jsonl(tmp_path / "large_train.jsonl", make(90_000, 1))
    jsonl(tmp_path / "large_test.jsonl", make(10_000, 200))
    started = time.process_time()
    seen = audit([tmp_path])
    assert quick(time.process_time() - started, 60)
    assert found(seen, "leak") == []


@pytest.fixture(scope="module")
def published(real_data: Path) -> Audit:
    """All of the authors' files in one audit."""
    names = "fpb fiqa tfns headline ner xbrl_analysis xbrl_term formula"
    return audit([real_data / name for name in names.split()])


def test_published_labels_are_swapped(published: Audit) -> None:
    swap = one(published, "label-swap", "finlora_tfns_test.jsonl", "sent_valid.csv")
    assert swap.count / swap.of > 0.8
    assert swap.detail["neutral -> 1 (positive)"] + swap.detail["positive -> 2 (neutral)"] == swap.count
    assert one(published, "label-meaning").sources == ["finlora_tfns_test.jsonl"]


def test_published_splits_share_texts(published: Audit) -> None:
    one(published, "overlap", "finlora_fpb_test.jsonl", "Sentences_50Agree.txt")
    one(published, "overlap", "Sentences_AllAgree.txt", "Sentences_50Agree.txt")
    for test in ("finlora_fiqa_test.jsonl", "task1_headline_ABSA_test.json", "task1_post_ABSA_test.json"):
        assert one(published, "split-conflict", "flame_task1_train.json", test).count > 50
    assert one(published, "conflicts", "headlines.csv").level == "error"
    assert one(published, "row-split", "headlines.csv").count > 100


def test_published_answers_cannot_be_right(published: Audit) -> None:
    fact = one(published, "one-fact", "finlora_ner_test.jsonl")
    assert (fact.count, fact.of) == (73, 2669)
    npv = one(published, "impossible-gold", "finlora_formula_test.jsonl")
    assert npv.count == npv.of > 0
    known = one(published, "answers-in-train", "formula_formatted_with_tags_test.csv")
    assert known.count == known.of == 645
    assert one(published, "answer-kind", "xbrl_tags_test.csv").count == 165
    assert one(published, "missing-answer", "finlora_xbrl_term_train.jsonl").count == 5


def test_published_files_that_are_sound_in_a_respect_are_not_accused(published: Audit) -> None:
    accused = {
        name
        for check in ("label-meaning", "answer-kind", "impossible-gold")
        for f in found(published, check)
        for name in f.sources
    }
    assert accused == {
        "finlora_tfns_test.jsonl",
        "xbrl_tags_test.csv",
        "finlora_formula_test.jsonl",
        "finlora_formula_train.jsonl",
    }
    assert {n for f in found(published, "label-swap") for n in f.sources} == {
        "finlora_tfns_test.jsonl",
        "sent_train.csv",
        "sent_valid.csv",
    }
