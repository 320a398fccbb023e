"""tasks/lib/sets: every set's reader, on its authors' rows and on rows of the Hub's shape."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import random
import subprocess
import sys
import time
import zipfile
from collections import Counter
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import quick, task_helper
from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError
from finbench.data import contamination, sources
from finbench.data.sources import describe_set, import_data
from finbench.scoring import prompts
from make_data import LABELS, LEVELS, write_sources

sets = paths.helper("sets")
formulas = sets.qa.formulas
ATTRIBUTES = [name for name, _, _ in sets.headlines.QUESTIONS]


def read(name: str, *rows: dict[str, Any], split: str | None = "test") -> list[Any]:
    """What the reader of a set makes of rows."""
    return list(sets.SETS[name].units((row, f"file:{number}", split) for number, row in enumerate(rows, 1)))


def one(name: str, row: dict[str, Any], split: str | None = "test") -> list[dict[str, Any]]:
    """The canonical rows of one row."""
    (unit,) = read(name, row, split=split)
    assert isinstance(unit, sets.Unit), unit
    return list(unit.rows)


def stored(folder: Path, split: str = "test") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


# ---- every set


@pytest.mark.parametrize("name", sets.SETS)
def test_every_set_is_imported_from_its_files_and_read_by_its_tasks(name: str, tmp_path: Path) -> None:
    files = write_sources(tmp_path / "sources", 60)
    if name not in files:
        pytest.fail(f"no invented files of {name}")
    report = import_data(name, files[name], tmp_path / "data")
    assert (report.rejected, report.rows["test"] > 0) == (0, True)
    tasks = [task for task in catalog.tasks().values() if task.set == name]
    assert tasks
    for task, lm_task in zip(tasks, prompts.load(tasks, tmp_path / "data").values(), strict=True):
        docs = prompts.rows(lm_task, "test")
        assert len(docs) == report.rows["test"]
        assert prompts.pair(lm_task, docs[0])[1].strip()
        assert prompts.data_id(task, lm_task, "test", docs).origin == "files"


@pytest.mark.parametrize("name", sets.SETS)
def test_files_may_come_in_a_zip_archive_or_a_folder(name: str, tmp_path: Path) -> None:
    files = write_sources(tmp_path / "sources", 60)[name]
    plain = import_data(name, files, tmp_path / "plain")
    folder = tmp_path / "box" / "inner"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "box.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("readme.md", "about")
        for file in files:
            (folder / file.name).write_bytes(file.read_bytes())
            archive.write(file, f"data/{file.name}")
    assert import_data(name, [tmp_path / "box"], tmp_path / "folder").rows == plain.rows
    cards = [describe_set(name, tmp_path / "plain"), describe_set(name, tmp_path / "folder")]
    if all(file.suffix != ".parquet" for file in files):
        assert import_data(name, [tmp_path / "box.zip"], tmp_path / "zip").rows == plain.rows
        cards.append(describe_set(name, tmp_path / "zip"))
    assert len({card["digest"] for card in cards if card}) == 1


def test_every_set_has_a_task_and_every_task_a_set() -> None:
    made = "finbench data xbrl "  # these are made of filings, not of a publisher's rows
    tasks = {task.set for task in catalog.tasks().values() if not task.shipped and not task.data.startswith(made)}
    assert tasks == set(sets.SETS)


# ---- the Hub


HUB_ROWS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "tfns": {
        "train": [{"text": f"$ALDR up {n}", "label": 1} for n in range(30)],
        "validation": [{"text": f"$ALDR down {n}", "label": 0} for n in range(9)],
    },
    "fiqa_sa": {
        "train": [
            {
                "_id": str(n),
                "sentence": f"Alder gains {n} .",
                "target": "Alder",
                "aspect": "[]",
                "score": 0.4,
                "type": "post",
            }
            for n in range(30)
        ],
        "valid": [
            {
                "_id": "v",
                "sentence": "Birch falls .",
                "target": "Birch",
                "aspect": "",
                "score": -0.4,
                "type": "headline",
            },
        ],
        "test": [
            {
                "_id": "a",
                "sentence": "Up and down .",
                "target": "Alder",
                "aspect": "",
                "score": 0.4,
                "type": "headline",
            },
            {
                "_id": "b",
                "sentence": "Up and down .",
                "target": "Birch",
                "aspect": "",
                "score": -0.4,
                "type": "headline",
            },
            {"_id": "c", "sentence": "Both up .", "target": "Alder", "aspect": "", "score": 0.2, "type": "post"},
            {"_id": "d", "sentence": "Both up .", "target": "Birch", "aspect": "", "score": 0.4, "type": "post"},
        ],
    },
    "nwgi": {
        split: [{"news": f"{split} {n}", "prompt": "", "out": "", "label": LEVELS[n % 7]} for n in range(21)]
        for split in ("train", "test")
    },
    "headlines": {
        split: [
            {
                "News": f"gold {split} {chr(97 + n % 26)}{chr(97 + n // 26)}",
                "Price or Not": 1,
                "Direction Up": n % 2,
                "Direction Constant": 0,
                "Direction Down": 1 - n % 2,
                "Past Price": 1,
                "Future Price": 0,
                "Past News": 0,
                "Future News": 0,
                "Asset Comparison": 0,
            }
            for n in range(30)
        ]
        for split in ("train", "validation", "test")
    },
    "finer_ord": {
        split: [
            {"gold_label": code, "gold_token": token, "doc_idx": n, "sent_idx": 0}
            for n in range(12)
            for token, code in ((f"{split}{n}", 5), (None, 6), ("falls", 0))
        ]
        for split in ("train", "validation", "test")
    },
    "fin_math": {
        "train": [
            {"Formula Name": f"Ratio {f}", "Formula": "A / B", "Explanation": "A, B"}
            | {f"Question {q}": f"A is {q} and B is {f + 1}." for q in range(1, 21)}
            | {f"Answer {q}": f"{q / (f + 1):.2f}" for q in range(1, 21)}
            for f in range(3)
        ]
    },
    "financebench": {
        "train": [
            {
                "financebench_id": str(n),
                "company": "Alder",
                "doc_name": f"ALDER_{n}",
                "question": f"Capex {n} in USD millions?",
                "answer": f"${n + 1}.00",
                "evidence": [{"evidence_text": "Capex\n \n 7", "doc_name": "ALDER", "evidence_page_num": 3}],
            }
            for n in range(5)
        ]
    },
    "piqa": {"validation": [{"goal": f"Open {n}", "sol1": "turn", "sol2": "sing", "label": n % 2} for n in range(6)]},
    "hellaswag": {
        "validation": [
            {
                "ind": n,
                "activity_label": "Tea",
                "ctx_a": f"A woman [title] fills {n}.",
                "ctx_b": "she",
                "ctx": "",
                "endings": ["[step] boils.", "sings.", "sleeps.", "flies."],
                "label": "1",
            }
            for n in range(6)
        ]
    },
}
CONFIGS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "winogrande": {
        "validation": [
            {"sentence": f"Cup {n} beat box as _ was big.", "option1": "cup", "option2": "box", "answer": "1"}
            for n in range(6)
        ]
    },
    "boolq": {
        "validation": [{"question": f"is {n} odd", "passage": f"On {n}.", "idx": n, "label": n % 2} for n in range(6)]
    },
    "arc_easy": {
        "test": [
            {
                "id": str(n),
                "question": f"Which {n}?",
                "choices": {"text": ["a", "b"], "label": ["1", "2"]},
                "answerKey": "2",
            }
            for n in range(6)
        ]
    },
    "mmlu": {
        "test": [
            {"question": f"What {n}?", "subject": "moral_disputes", "choices": ["a", "b", "c", "d"], "answer": 3}
            for n in range(6)
        ]
    },
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Repositories as they lie on the Hub, in the working folder, where ``datasets`` finds them by the same names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FINBENCH_DATA", str(tmp_path / "data"))
    for name, splits in {**HUB_ROWS, **CONFIGS}.items():
        place = sets.SETS[name].hub
        config = next((part.config for part in place.parts), None) or "default"
        folder = Path(place.path)
        folder.mkdir(parents=True, exist_ok=True)
        listed = []
        for split, rows in splits.items():
            (folder / f"{config}-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            listed.append(f"  - {{split: {split}, path: {config}-{split}.jsonl}}")
        (folder / "README.md").write_text(
            f"---\nconfigs:\n- config_name: '{config}'\n  data_files:\n" + "\n".join(listed) + "\n---\n"
        )
    monkeypatch.setattr(sources.hub, "dataset_sha", lambda path, ref: "0" * 40)
    return tmp_path


@pytest.mark.parametrize("name", [*HUB_ROWS, *CONFIGS])
def test_rows_of_the_hubs_shape_become_canonical_rows(name: str, hub: Path) -> None:
    report = import_data(name, [])
    given = {**HUB_ROWS, **CONFIGS}[name]
    assert report.read == sum(len(rows) for rows in given.values())
    assert (report.rejected, report.rows["test"] > 0) == (0, True)
    card = describe_set(name)
    assert card
    assert card["hub"] == {"path": sets.SETS[name].hub.path, "revision": "0" * 40, "pinned": False}
    tasks = [task for task in catalog.tasks().values() if task.set == name]
    for task, lm_task in zip(tasks, prompts.load(tasks, None).values(), strict=True):
        identity = prompts.data_id(task, lm_task, "test", prompts.rows(lm_task, "test"))
        assert (identity.origin, identity.pinned) == (f"hub:{sets.SETS[name].hub.path}", False)


@pytest.mark.parametrize("name", ["tfns", "fiqa_sa", "boolq", "mmlu"])
def test_lm_eval_reads_the_hub_itself_where_nothing_was_imported_and_gets_the_same_rows(name: str, hub: Path) -> None:
    import_data(name, [])
    task = next(task for task in catalog.tasks().values() if task.set == name)
    load = task_helper("rows").load
    given_labels = {"finbench_labels": task.labels} if task.labels else {}
    imported = load(name, "", finbench_data_dir=str(hub / "data"), **given_labels)
    straight = load(name, "", finbench_data_dir=str(hub / "nothing"), **given_labels)
    assert {split: list(rows) for split, rows in straight.items()} == {
        split: list(rows) for split, rows in imported.items()
    }


def test_a_pinned_set_is_taken_at_its_commit(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = hub / "datasets.lock"
    monkeypatch.setattr(sources, "lock_file", lambda: lock)
    found = sources.lock_sets()
    assert found["tfns"] == {"path": "zeroshot/twitter-financial-news-sentiment", "revision": "0" * 40}
    assert json.loads(lock.read_text()) == found
    assert set(found) == {name for name, each in sets.SETS.items() if each.hub}
    import_data("tfns", [])
    card = describe_set("tfns")
    assert card
    assert card["hub"]["pinned"] is True


def test_what_cannot_be_pinned_is_named_and_the_others_are_pinned(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = hub / "datasets.lock"
    lock.write_text("{torn")
    monkeypatch.setattr(sources, "lock_file", lambda: lock)

    def gated(path: str, ref: str) -> str:
        if path == "PatronusAI/financebench":
            raise FinbenchError(f"hub:{path} is gated.", "hf auth login")
        return "1" * 40

    monkeypatch.setattr(sources.hub, "dataset_sha", gated)
    with pytest.raises(
        FinbenchError, match="1 of the sets were not pinned.*financebench: hub:PatronusAI/financebench is gated"
    ):
        sources.lock_sets()
    assert set(sources.locked_sets()) == {name for name, each in sets.SETS.items() if each.hub} - {"financebench"}


def test_without_a_network_nothing_is_pinned_and_what_is_missing_is_said_with_its_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "datasets.lock"
    monkeypatch.setattr(sources, "lock_file", lambda: lock)
    with pytest.raises(FinbenchError, match="cannot be reached"):
        sources.lock_sets()
    assert not lock.exists()
    with pytest.raises(FinbenchError, match="cannot be reached") as caught:
        import_data("tfns", [], tmp_path)
    assert "finbench data import tfns sent_train.csv sent_valid.csv" in caught.value.hint
    tasks = catalog.expand(["tfns", "finlora_tfns"])
    with pytest.raises(FinbenchError, match="No data for tfns, finlora_tfns") as caught:
        prompts.load(tasks, tmp_path)
    assert all(task.data in caught.value.hint for task in tasks)


def test_a_torn_lock_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "datasets.lock"
    monkeypatch.setattr(sources, "lock_file", lambda: lock)
    for content in ("{", "[]", '{"tfns": 1}', '{"tfns": {"path": "a"}}'):
        lock.write_text(content)
        with pytest.raises(FinbenchError, match=r"datasets\.lock"):
            sources.locked_sets()


# ---- sentiment


def test_fpb_codes_on_the_hub_are_negative_neutral_positive() -> None:
    found = [one("fpb", {"sentence": f"s {code}", "label": code}, "75")[0] for code in (0, 1, 2)]
    assert [row["label"] for row in found] == list(LABELS)
    assert found[0]["agreement"] == "75"


@pytest.mark.parametrize(("least", "kept"), [(50, 4), ("66", 3), (75, 2), (100, 1)])
def test_an_agreement_level_keeps_rows_of_at_least_that_level(tmp_path: Path, least: Any, kept: int) -> None:
    folder = tmp_path / "fpb"
    folder.mkdir()
    lines = [{"id": a, "text": f"text {a}", "label": "neutral", "agreement": a} for a in ("50", "66", "75", "100")]
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    lm_task = prompts.load(catalog.expand(["fpb"]), tmp_path, metadata={"agreement": least})["finbench_fpb"]
    assert len(prompts.rows(lm_task, "test")) == kept
    identity = prompts.data_id(catalog.tasks()["finbench_fpb"], lm_task, "test", prompts.rows(lm_task, "test"))
    assert identity.choices == {"agreement": str(least)}


@pytest.mark.parametrize(
    ("metadata", "tasks", "message"),
    [
        ({"agreement": "60"}, ["fpb"], "50, 66, 75 or 100"),
        ({"agrement": "75"}, ["fpb"], "agreement"),
        ({"agreement": "75"}, ["tfns"], "No task here"),
    ],
)
def test_a_wrong_choice_of_a_set_is_named(
    tmp_path: Path, metadata: dict[str, str], tasks: list[str], message: str
) -> None:
    files = write_sources(tmp_path / "s", 60)
    for name in tasks:
        import_data(name, files[name], tmp_path / "d")
    with pytest.raises(FinbenchError, match=message):
        prompts.load(catalog.expand(tasks), tmp_path / "d", metadata=metadata)


@pytest.mark.parametrize(
    ("label", "coarse"),
    [
        ("strong negative", "negative"),
        ("moderately negative", "negative"),
        ("mildly negative", "neutral"),
        ("neutral", "neutral"),
        ("mildly positive", "neutral"),
        ("moderately positive", "positive"),
        ("strong positive", "positive"),
    ],
)
def test_nwgi_has_seven_levels_and_three(label: str, coarse: str) -> None:
    (row,) = one("nwgi", {"news": "Alder rose.", "label": label.upper()})
    assert (row["label"], row["level3"]) == (label, coarse)
    asked = "Instruction: What is the sentiment of this news? Please choose an answer from"
    prompt = asked + " {%s}.\nInput: Alder\nrose.\nAnswer: "
    (row,) = one("nwgi", {"context": prompt % "/".join(LEVELS), "target": label})
    assert (row["text"], row["label"]) == ("Alder\nrose.", label)


def test_nwgi_names_an_unknown_label_and_a_prompt_it_does_not_know() -> None:
    assert "very good" in read("nwgi", {"news": "a", "label": "very good"})[0]
    assert "no news text" in read("nwgi", {"context": "What?", "target": "neutral"})[0]


# ---- headlines


def headline(text: str, **answers: int) -> dict[str, Any]:
    columns = dict.fromkeys((column for _, column, _ in sets.headlines.QUESTIONS), 0)
    return {"Dates": "", "URL": "", "News": text, **columns, **answers}


def test_a_headline_is_nine_rows_of_one_cluster(tmp_path: Path) -> None:
    rows = one("headlines", headline("gold up", PriceOrNot=1, DirectionUp=1))
    assert [row["attribute"] for row in rows] == ATTRIBUTES
    assert [row["label"] for row in rows] == ["Yes", "Yes", *["No"] * 7]
    import_data("headlines", write_sources(tmp_path / "s", 60)["headlines"], tmp_path)
    found = [row for split in sets.SPLITS for row in stored(tmp_path / "headlines", split)]
    assert set(Counter(row["group"] for row in found).values()) == {9}
    sides = [{row["text"] for row in stored(tmp_path / "headlines", split)} for split in sets.SPLITS]
    assert not (sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2])


def test_copies_of_a_headline_that_differ_in_any_answer_are_dropped_whole(tmp_path: Path) -> None:
    path = tmp_path / "headlines.csv"
    rows = [headline(f"gold {chr(97 + n % 20)}{chr(97 + n // 20)}", DirectionUp=n % 2) for n in range(40)]
    rows += [headline("Silver up!", FutureNews=1), headline("silver up"), headline("tin up"), headline("Tin, up")]
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    report = import_data("headlines", [path], tmp_path / "data")
    assert report.dropped == {"same text, different labels": 2, "duplicate": 1}
    assert sum(report.rows.values()) == 41 * 9


MONTHS = [date(2016, month, 1).strftime(form) for month in range(1, 13) for form in ("%B", "%b")]


def spoken(text: str) -> str:
    """By another way than the importer's: word by word, what holds a digit or names a month is a slot."""
    words = "".join(sign if sign.isalnum() else " " for sign in text.casefold()).split()
    slots = ["#" if any(sign.isdigit() for sign in word) or word.title() in MONTHS else word for word in words]
    return " ".join(word for n, word in enumerate(slots) if (word, slots[n - 1 : n]) != ("#", ["#"]))


def test_headlines_of_one_template_are_on_one_side_and_the_test_stays_as_it_was(tmp_path: Path) -> None:
    words = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "islet", "joint"]
    texts = [f"{one} gold {number} up for {MONTHS[number % 24]}" for one in words for number in range(1, 9)]
    texts += [f"gold of the {one} {other} mine" for one in words for other in words]
    sides = {text: sets.split_of(sets.normalise(text)) for text in texts}
    path = tmp_path / "headlines.csv"
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(headline("")))
        writer.writeheader()
        writer.writerows(headline(text) for text in texts)
    report = import_data("headlines", [path], tmp_path / "data")
    kept = {split: {row["text"] for row in stored(tmp_path / "data" / "headlines", split)} for split in sets.SPLITS}
    assert kept["test"] == {text for text, side in sides.items() if side == "test"}
    forms = {split: {spoken(text) for text in own} for split, own in kept.items()}
    assert not forms["train"] & (forms["test"] | forms["validation"])
    assert not forms["validation"] & forms["test"]
    tests = {spoken(text) for text in kept["test"]}
    held = {text for text, side in sides.items() if side == "validation" and spoken(text) not in tests}
    assert kept["validation"] == held
    tests |= {spoken(text) for text in held}
    assert kept["train"] == {text for text, side in sides.items() if side == "train" and spoken(text) not in tests}
    gone = len(texts) - sum(map(len, kept.values()))
    assert report.dropped == {"from the same template as one of the test or validation split": gone}
    assert gone > 20


def test_the_real_headlines_of_one_template_are_on_one_side(real_data: Path, tmp_path: Path) -> None:
    import_data("headlines", [real_data / "headline" / "headlines.csv"], tmp_path)
    rows = {split: stored(tmp_path / "headlines", split) for split in sets.SPLITS}
    train, held, test = ({spoken(row["text"]) for row in rows[split]} for split in sets.SPLITS)
    assert not train & test | train & held | held & test
    index = contamination.Index({"headlines": contamination.texts_of(rows["test"])})
    learnt = " | ".join(f" {sets.splits.signed(row['text'])} " for row in rows["train"])
    longer = {text for text in map(sets.splits.signed, {row["text"] for row in rows["test"]}) if f" {text} " in learnt}
    assert index.overlap(rows["train"]).found == {"headlines": sum(text.count(" ") >= 7 for text in longer)}
    again = index.overlap([*rows["train"], *rows["test"]])
    assert again.found == again.looked_for  # the check itself has not become blind


def test_a_headline_of_other_columns_or_codes_is_named() -> None:
    assert "DirectionUp is 0 or 1, found '2'" in read("headlines", headline("a", DirectionUp=2))[0]
    with pytest.raises(sets.WrongFile, match=r"file:1.*PriceOrNot"):
        read("headlines", {"News": "a"})


# ---- entities


TAGS = st.lists(
    st.sampled_from(["O", *(f"{b}-{t}" for b in "BI" for t in ("PER", "ORG", "LOC"))]), min_size=1, max_size=12
)


@settings(deadline=None)
@given(TAGS)
def test_spans_are_those_of_seqeval(tags: list[str]) -> None:
    from seqeval.metrics.sequence_labeling import get_entities

    tokens = [f"t{number}" for number in range(len(tags))]
    text = " ".join(tokens)
    found = {(span["type"], span["start"], span["text"]) for span in sets.entities.spans(tokens, tags)}
    expected = {
        (kind, text.index(tokens[first]), " ".join(tokens[first : last + 1]))
        for kind, first, last in get_entities(tags)
    }
    assert (
        {(kind, start, words) for kind, start, words in found if text[start : start + len(words)] == words}
        == expected
        == found
    )


def test_fin_ner_reads_io_tags_and_the_hubs_numbers_and_leaves_misc_out() -> None:
    tokens = ["Ana", "Brock", "of", "Alder", "Inc", "owes", "$5"]
    io = ["I-PER", "I-PER", "O", "I-ORG", "I-ORG", "O", "I-MISC"]
    numbers = [1, 5, 0, 3, 7, 0, 4]
    expected = [
        {"text": "Ana Brock", "type": "person", "start": 0},
        {"text": "Alder Inc", "type": "organization", "start": 13},
    ]
    for tags in (io, numbers):
        assert one("fin_ner", {"tokens": tokens, "tags": tags})[0]["entities"] == expected
    assert "one tag a token" in read("fin_ner", {"tokens": tokens, "tags": io[1:]})[0]
    assert "one tag a token" in read("fin_ner", {"tokens": ["a"], "tags": ["I-XYZ"]})[0]
    assert "one tag a token" in read("fin_ner", {"tokens": ["a"], "tags": [9]})[0]


def test_typing_asks_each_entity_of_a_sentence_once_and_no_entity_of_two_types() -> None:
    tokens = ["Lender", "and", "Lender", "and", "Paris", "met", "Paris"]
    items = read("fin_ner_typing", {"tokens": tokens, "tags": ["I-PER", "O", "I-PER", "O", "I-LOC", "O", "I-PER"]})
    assert [type(item).__name__ for item in items] == ["Drop", "Unit"]
    assert [(row["entity"], row["label"]) for row in items[1].rows] == [("Lender", "person")]
    assert isinstance(read("fin_ner_typing", {"tokens": ["a"], "tags": ["O"]})[0], sets.Drop)


def test_finer_ord_gathers_sentences_and_starts_an_entity_at_a_stray_inside_tag() -> None:
    rows = [
        ("6", "Alder", 0, 0),
        ("6", "plc", 0, 0),
        ("2", "Ana", 0, 0),
        ("0", "left", 0, 1),
        (3, None, 0, 1),
        ("3", "Rome", 1, 1),
    ]
    items = read("finer_ord", *({"gold_label": a, "gold_token": b, "doc_idx": c, "sent_idx": d} for a, b, c, d in rows))
    assert [item.text for item in items] == ["Alder plc Ana", "left none", "Rome"]
    assert [[(e["text"], e["type"]) for e in item.rows[0]["entities"]] for item in items] == [
        [("Alder plc", "organization"), ("Ana", "person")],
        [("none", "location")],
        [("Rome", "location")],
    ]
    assert [item.rows[0]["group"] for item in items] == ["test article 0", "test article 0", "test article 1"]
    assert "0 to 6" in read("finer_ord", {"gold_label": "7", "gold_token": "a", "doc_idx": 0, "sent_idx": 0})[0]


# ---- formulas and FinanceBench


def npv(question: str) -> tuple[str | None, str]:
    found: tuple[str | None, str] = sys.modules["finbench_sets.npv"].audit(question)
    return found


def discounted(flows: dict[int, float], rate: float) -> str:
    """The same by floating point, year by year."""
    return f"{sum(amount / (1 + rate / 100) ** year for year, amount in flows.items()):.2f}"


@pytest.mark.parametrize(
    ("question", "flows", "rate"),
    [
        ("A project returns $6,000 per year for 4 years at 8%. What is the NPV?", dict.fromkeys((1, 2, 3, 4), 6000), 8),
        (
            "It costs $1,000 upfront and yields $300 annually for five years. Discount rate 5%.",
            {0: -1000, **dict.fromkeys(range(1, 6), 300)},
            5,
        ),
        (
            "An initial investment of $500 returns $200 each year for 3 years; the rate is 2.5%.",
            {0: -500, 1: 200, 2: 200, 3: 200},
            2.5,
        ),
        (
            "You receive $90 annually for 3 years, the first payment received immediately, at 10%.",
            {0: 90, 1: 90, 2: 90},
            10,
        ),
        (
            "It earns $10 in its first year, $20 in its second year and $30 in its third year at 4%.",
            {1: 10, 2: 20, 3: 30},
            4,
        ),
        (
            "An immediate inflow of $50, followed by $65 in one year and $80 in two years, at 6%.",
            {0: 50, 1: 65, 2: 80},
            6,
        ),
        (
            "You get $100 at the end of the first year, and it increases by $10 each year up to four years at 5%.",
            {1: 100, 2: 110, 3: 120, 4: 130},
            5,
        ),
        (
            "A project costs $1,000 today and returns $500 per year for 3 years at 10%.",
            {0: -1000, **dict.fromkeys((1, 2, 3), 500)},
            10,
        ),
    ],
)
def test_net_present_values_follow_the_words(question: str, flows: dict[int, float], rate: float) -> None:
    assert npv(question) == (discounted(flows, rate), "")


# Wordings of a hostile reader, each with something that a hasty one misses.
UNCERTAIN = [
    (
        "An investment of $5,000 is made today. It returns $2,000 at the end of each year for 4 years. The "
        "discount rate is 8%."
    ),
    "A firm invests $10,000 now and receives $3,000 annually for 5 years at 7%.",
    "You receive $1,000 per year for 5 years, with the first payment in 2 years. Rate 5%.",
    "A bond pays $100 per year for 10 years and $1,000 after 10 years. Discount rate 6%.",
    "A project loses $2,000 in the first year and earns $5,000 in the second year, discount rate 9%.",
    "A project pays $500 per month for 2 years at 12% annual discount rate.",
    "A company receives $1,000 annually for 3 years and then $2,000 annually for 2 years at 5%.",
    "Annual cash flows of $1,000 for 5 years growing by 3% per year with a 3% discount rate.",
    (
        "A project generates annual cash flows of $1,000 for 5 years and has maintenance costs of $200 per "
        "year; rate 10%."
    ),
    "An annual cost of $500 for 4 years at a discount rate of 5%.",
    (
        "A project with an initial investment of $2,000, annual inflows of $900 for 3 years, and a salvage "
        "value of $300, 10%."
    ),
    "A project has annual cash inflows of $900 for 3 years and a salvage value of $300 in 3 years, at 10%.",
    "Cash flows of $1,000 each year for years 3 to 7, 8 years in total? discount rate 8%.",
    "What is the net present value of $5,000 received in 3 years at 6%?",
    "A 5-year project with annual expenses of $1,000, discount rate 5%.",
    "A machine returns $4,000 in the first year, and after 3 years it is sold for $1,000 at a rate of 10%.",
    "A project returns $4,000 in the first year and costs $1,500 in the second year at 10%.",
    "Annual payments of $1,000 for 5 years starting immediately at a 6% discount rate.",
    "Annual cash flows of $1,000 for 5 years, paid at the beginning of the year, at 6%.",
    "A two-year-old company expects annual cash inflows of $1,000 for the next 5 years at 6%.",
    "Annual cash inflows of $1,000 starting in year 3 for 5 years at 6% discount.",
    "A project pays $1.5 million per year for 3 years at a rate of 10%.",
    "A project pays $2 million in the first year and $3 million in the second year at 10%.",
    (
        "The company pays an upfront cost of $1,000 and receives $400 per year for 3 years, half-yearly "
        "compounding at 10%."
    ),
    "Annual cash flows of $1,000 for 5 years, delayed by one year, 6%.",
    (
        "The investment requires an outlay of $3,000, half now and half in year 2; annual returns of $1,500 "
        "for 4 years, rate 5%."
    ),
    (
        "A project yields $1,000 at the end of each year for 5 years. The tax rate is 0 and the discount "
        "rate is 6 percent. Inflation is 2%."
    ),
    "A lease needs a payment of $1,000 per year for 5 years, 6%.",
    "An upfront cost of $500. Annual inflows of $300 for 3 years. In the second year the firm pays $100. 5%.",
    "Inflow of $1,000 in the first year, with an outflow of $500 in the second year; 10%.",
    "A project returns $1,000 after its first year and every year thereafter for 4 years at 10%.",
    "$1,000 in the first year, increasing by $100 each year for 4 years, with a 10% discount rate.",
    ("Cash inflow of $1,000 in the first year, increasing by $100 each year until year 4 of a 10 year machine, 10%."),
    "Cash inflow of $5,000 in its second year, decreasing by $500 each year over 4 years, at 10%.",
    (
        "An annual return of $1,000 over 5 years and an initial investment of $2,000 paid at the end of year "
        "one, at 10%."
    ),
    "A perpetuity pays $100 per year; the firm keeps it for 5 years and gets annual gains of $100, 10%.",
    "Quarterly inflows of $1,000, i.e. annual inflows of $4,000 for 3 years, at 8%.",
    "Annual cash inflows of 1,000 dollars for 5 years and initial cost of 3,000 dollars at 6%.",
    "Annual savings of $2,000 for 5 years on a machine bought for 6,000 USD at 6%.",
    "Annual cash inflows of $1,000 for 5 years with no upfront cost at 6%.",
    ("Annual cash inflows of $1,000 for 5 years; the discount rate is 6% for the project, bought at a cost of €2,000."),
    "A ten-year lease has annual payment of $1,000 for the first 10 years at 6%.",
    "A project provides annual profit of $1,000 for 5 years, every 2 years an overhaul is free, at 6%.",
    "Net inflow of $1,000 in the third year and the fourth year at 10%.",
    "$1,000 in the first and second year, $2,000 in the third year at 5%.",
    "An initial cost of $1,000 in the second year, returns $2,000 in the third year at 5%.",
    "A project pays back $1,000 in year 1, $2,000 in year 2, and $3,000 in year 3 at 5%.",
    "Annual cash outflow of $1,000 for 3 years at 5%.",
    "Annual loss of $1,000 for 3 years at 5%.",
    "A project costs $1,000 per year for 3 years at 5%.",
    "A project with an immediate payment of $500 and returns $800 in the first year at 5%.",
    "The buyer makes an immediate payment of $500 and receives $700 in the first year at 5%.",
    "Annual return of $1,000 for 5 years discounted at 10% semiannually.",
    "Annual return of $1,000 for 5 years at a monthly rate of 1%.",
    "It pays $80 for 7 years. With an initial investment cost and a rate of 12%, what is the NPV?",
    "An initial cash inflow of $70, decreasing by $5 annually over 5 years at 4%.",
    "It returns $80 annually for 7 years at 12% or 13%.",
    "It returns $80 annually for 7 years with a scrap value of $9 and a rate of 12%.",
    "What is the NPV at 5%?",
    "It returns -$80 annually for 7 years at 12%.",
    "It returns $80-$90 annually for 7 years at 12%.",
]


@pytest.mark.parametrize("question", UNCERTAIN)
def test_net_present_values_that_are_not_certain_are_not_guessed(question: str) -> None:
    value, said = npv(question)
    assert value is None
    assert said


CLAUSES = (
    " in year 3",
    ", plus a fee of $50",
    " growing 2% yearly",
    " before a tax of 20%",
    " paid monthly",
    " less half of it",
)


@given(st.integers(1, 10**6), st.integers(1, 12), st.integers(1, 40), st.sampled_from(CLAUSES))
def test_another_clause_makes_a_question_uncertain(amount: int, years: int, rate: int, clause: str) -> None:
    asked = f"A plan returns ${amount:,} annually for {years} years{clause}. The discount rate is {rate}%."
    assert npv(asked)[0] is None


@pytest.mark.parametrize("text", ["$1,000 ", "annual ", "$1 a b c ", "5% ", "year ", "for ", "the next ", " "])
def test_a_long_question_is_refused_at_once(text: str) -> None:
    start = time.process_time()
    npv(text * (10_000 // len(text)))
    npv(text * (1_990 // len(text)))
    assert quick(time.process_time() - start, 0.5)


@given(st.text(max_size=300))
def test_any_question_has_a_value_or_a_reason(question: str) -> None:
    value, why = npv(question)
    assert (value is None) == bool(why)


@given(st.integers(1, 10**7), st.integers(1, 12), st.integers(1, 40))
def test_annuities_are_those_of_the_closed_form(amount: int, years: int, rate: int) -> None:
    value, _ = npv(f"A plan returns ${amount:,} annually for {years} years. The discount rate is {rate}%.")
    factor = (1 - (1 + Decimal(rate) / 100) ** -years) / (Decimal(rate) / 100)
    assert value is not None
    assert abs(Decimal(value) - amount * factor) <= Decimal("0.01")


def test_fin_math_corrects_or_drops_net_present_values_and_nothing_else() -> None:
    def row(name: str, question: str, target: str) -> dict[str, str]:
        context = (
            f"Use formula {name} to answer the question. Answer with a number. Formula: A = B, Explanation: B: it "
            f'Question: "{question}". Answer:'
        )
        return {"context": context.replace("it Question", "it. Question"), "target": target}

    (ratio,) = one("fin_math", row("Current Ratio", "A is 4 and B is 2", "2.0"))
    assert (ratio["answer"], ratio["answer_published"], ratio["group"]) == ("2.0", "2.0", "Current Ratio")
    asked = "It returns $6,000 per year for 4 years at 8%"
    (value,) = one("fin_math", row("Net Present Value (NPV)", asked, "21462.58"))
    assert (value["answer"], value["answer_published"]) == ("19872.76", "21462.58")
    assert isinstance(read("fin_math", row("Net Present Value (NPV)", "It pays.", "1.0"))[0], sets.Drop)
    assert "a number" in read("fin_math", row("Ratio", "A?", "many"))[0]
    assert "not a prompt" in read("fin_math", {"context": "What?", "target": "1"})[0]


MONEY, PERCENT, RATE = st.integers(2, 10**6), st.integers(1, 60), st.integers(1, 19)
FORMULAS: dict[str, tuple[tuple[Any, ...], str, Any]] = {  # by hand, in whole numbers and fractions: an oracle apart
    "Return on Equity (ROE)": ((MONEY, MONEY), "Net income ${0:,}, equity ${1:,}.", lambda n, e: Fraction(100 * n, e)),
    "Current Ratio": ((MONEY, MONEY), "Liabilities of ${1:,} and assets of ${0:,}.", lambda a, b: Fraction(a, b)),
    "Simple Interest": (
        (MONEY, RATE, PERCENT),
        "What does ${0:,} at {1}% earn over {2} years?",
        lambda p, r, t: Fraction(p * r * t, 100),
    ),
    "Future Value (FV)": (
        (MONEY, RATE, st.integers(1, 30)),
        "${0:,} grow by {1}% for {2} years.",
        lambda p, r, n: p * Fraction(100 + r, 100) ** n,
    ),
    "Treynor Ratio": (
        (PERCENT, RATE, st.integers(1, 30)),
        "A return of {0}%, the risk-free rate {1}%, a beta of {2}.5.",
        lambda p, f, b: Fraction(p - f, 100) / (b + Fraction(1, 2)),
    ),
    "WACC (Weighted Average Cost of Capital)": (
        (MONEY, MONEY, PERCENT, RATE, RATE),
        "Equity ${0:,} at {2}%, debt ${1:,} at {3}%, taxes {4}%.",
        lambda e, d, re, rd, t: Fraction(e * re, 100 * (e + d)) + Fraction(d * rd * (100 - t), 10_000 * (e + d)),
    ),
    "Market Capitalization": ((MONEY, MONEY), "{0:,} shares at ${1:,} each.", lambda n, p: Fraction(n * p)),
}


@pytest.mark.parametrize("name", FORMULAS)
@given(data=st.data())
def test_an_answer_that_its_formula_gives_is_kept_with_its_decimals_and_another_left_out(name: str, data: Any) -> None:
    drawn, wording, formula = FORMULAS[name]
    values = [data.draw(one) for one in drawn]
    true, question = formula(*values), wording.format(*values)
    gold = f"{float(true):.2f}"
    why, unrounded = formulas.recomputed(name, question, gold)
    assert why == ""
    assert any(math.isclose(float(value), true, rel_tol=1e-5, abs_tol=1e-12) for value in unrounded.split())
    far = f"{float(true) * 3.7 + 1.1:.2f}"
    ways = {formula(*order) for order in itertools.permutations(values) if all(order)}
    if name in ("Return on Equity (ROE)", "Current Ratio") and all(abs(way - float(far)) > 1e-3 * way for way in ways):
        assert "the formula does not give" in formulas.recomputed(name, question, far)[0]


def test_the_real_files_unsound_answers_are_left_out(real_data: Path, tmp_path: Path) -> None:
    """Worked out by hand: what is left out of the test, and the true number or what makes the answer none."""
    report = import_data("fin_math", sorted(real_data.glob("formula/finlora_formula_*.jsonl")), tmp_path)
    records = [json.loads(line) for line in (real_data / "formula/finlora_formula_test.jsonl").open(encoding="utf-8")]
    kept = {row["text"] for row in stored(tmp_path / "fin_math")}
    gone = [row["context"] for row in records if not any(text in " ".join(row["context"].split()) for text in kept)]
    by_hand = (
        "rise from 4% to 6%",  # 500, not -1499.76
        "asset price (S) is $52",  # two prices are asked for; the answer is another row's
        "a 0.5% increase in risk-free interest rate",  # the same
        "a labor market expands by 50,000",  # cannot be answered
        "rises from 120,000 to 130,000",  # 136,842, not 2,600,000
        "$600,000 Net Income", "$260,000, Depreciation of $48,000", "$980,000 Net Income", "$425,000 Net Income",
        "Meditown exported",  # a deficit of 100 million, not of -100
        "price level in the Philippines",  # asks for what it states
    )  # fmt: skip
    unsound = [text for text in gone if "net present value" not in text.casefold()]
    assert len(unsound) == len(by_hand) == 11
    assert all(any(part in text for text in unsound) for part in by_hand)
    assert report.rows["test"] == 152 - 11


@pytest.mark.parametrize(
    ("answer", "numeric"),
    [
        ("$1577.00", True),
        ("1.9%", True),
        ("-0.02", True),
        ("0", True),
        ("(12)", True),
        ("$1,577", True),
        ("Yes", False),
        ("$400,000,000 increase.", False),
        ("2.7 times", False),
        ("FY2022", False),
    ],
)
def test_financebench_keeps_answers_that_are_one_number(answer: str, numeric: bool) -> None:
    row = {
        "question": "How much, in USD billions?",
        "answer": answer,
        "doc_name": "A",
        "evidence": [{"evidence_text": "x  1\n \ny"}],
    }
    (item,) = read("financebench", row)
    assert isinstance(item, sets.Unit) == numeric
    if numeric:
        assert item.rows[0] == {
            "text": "x 1\ny",
            "question": row["question"],
            "answer": answer,
            "group": "A",
            "scale": 9,
        }


# ---- general


def test_general_prompts_are_those_of_lm_eval(tmp_path: Path) -> None:
    """The same rows through upstream's own YAMLs give the same contexts, continuations and gold choices."""
    import datasets
    import lm_eval
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    upstream = {
        "piqa": "piqa/piqa.yaml",
        "winogrande": "winogrande/default.yaml",
        "boolq": "super_glue/boolq/default.yaml",
        "hellaswag": "hellaswag/hellaswag.yaml",
        "arc_easy": "arc/arc_easy.yaml",
        "mmlu": "mmlu/default/mmlu_moral_disputes.yaml",
    }
    for name, file in upstream.items():
        (rows,) = {**HUB_ROWS, **CONFIGS}[name].values()
        config = load_yaml(Path(lm_eval.__file__).parent / "tasks" / file)
        table = datasets.Dataset.from_list(rows)
        config["custom_dataset"] = lambda table=table, **_: dict.fromkeys(("train", "validation", "test", "dev"), table)
        theirs = ConfigurableTask(config=config)
        folder = tmp_path / name
        folder.mkdir()
        made = [row for unit in read(name, *rows) for row in unit.rows]
        (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
        ours = prompts.load(catalog.expand([name]), tmp_path)[f"finbench_{name}"]
        for their_doc, our_doc in zip(theirs.eval_docs, prompts.rows(ours, "test"), strict=True):
            asked = theirs.fewshot_context(their_doc, num_fewshot=0)
            description = theirs.config.description or ""
            if isinstance(asked, list):
                assert prompts.prompt(ours, our_doc) == asked
            else:
                assert prompts.prompt(ours, our_doc).rstrip() == (
                    asked if asked.startswith(description) else description + asked
                )
            requests = [
                [
                    instance.args[1]
                    for instance in lm_task.construct_requests(doc, prompts.prompt(lm_task, doc), metadata=("", 0, 1))
                ]
                for lm_task, doc in ((theirs, their_doc), (ours, our_doc))
            ]
            assert requests[0] == requests[1]
            lls = [(-float(n), False) for n in range(len(requests[0]))]
            wanted = theirs.process_results(their_doc, lls)
            found = ours.process_results(our_doc, lls)
            assert {key: wanted[key] for key in found if key in wanted} == {
                key: value for key, value in found.items() if key in wanted
            }
            assert "acc" in found


def test_boolq_without_its_passage_is_refused() -> None:
    with pytest.raises(sets.WrongFile, match="passage"):
        read("boolq", {"instruction": "true or false?", "answer": "true"})


# ---- FinLoRA's prompts


def test_finlora_prompts_are_kept_to_the_letter_with_their_duplicates(tmp_path: Path) -> None:
    asked = "Instruction: What is the entity type of 'Alder Inc' in the input sentence."
    text = f"{asked}\nOptions: person\nInput: Alder Inc .\nAnswer: "
    path = tmp_path / "finlora_ner_test.jsonl"
    path.write_text("".join(json.dumps({"context": text, "target": "organization"}) + "\n" for _ in range(3)))
    report = import_data("finlora_ner", [path], tmp_path / "data")
    assert report.rows == {"train": 0, "validation": 0, "test": 3}
    rows = stored(tmp_path / "data" / "finlora_ner")
    assert [row["text"] for row in rows] == [text] * 3
    assert {row["group"] for row in rows} == {"Alder Inc in Alder Inc ."}
    assert len({row["id"] for row in rows}) == 3
    lm_task = prompts.load(catalog.expand(["finlora_ner"]), tmp_path / "data")["finbench_finlora_ner"]
    assert prompts.pair(lm_task, prompts.rows(lm_task, "test")[0]) == (text, "organization")


# ---- size, order, hostile archives


def test_the_first_rows_of_a_test_are_a_random_sample_of_it(tmp_path: Path) -> None:
    """Test rows lie in the order of their salted hash, whatever the order of the file."""
    path = tmp_path / "finlora_nwgi_test.jsonl"
    rows = [{"news": f"text {n}", "label": LEVELS[n // 100]} for n in range(700)]
    found = []
    for seed in (0, 1):
        random.Random(seed).shuffle(rows)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        import_data("nwgi", [path], tmp_path / "data")
        found.append([(row["id"], row["label"]) for row in stored(tmp_path / "data" / "nwgi")])
    assert found[0] == found[1]
    assert set(Counter(label for _, label in found[0][:200])) == set(LEVELS)


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peaks = []
    for count in (20_000, 120_000):
        path = tmp_path / f"sent_train_{count}.csv"
        with path.open("w") as handle:
            handle.write("text,label\n")
            handle.writelines(
                f"the tweet number {n} of a long file about markets and prices,{n % 3}\n" for n in range(count)
            )
        test = tmp_path / "sent_test.csv"
        test.write_text("text,label\nexam,1\n")
        code = (
            "import resource, sys; from pathlib import Path; from finbench.data.sources import import_data\n"
            f"r = import_data('tfns', [Path(r'{path}'), Path(r'{test}')], Path(r'{tmp_path / 'data'}'))\n"
            f"assert sum(r.rows.values()) == {count} + 1, r\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    assert peaks[1] < peaks[0] + 60, peaks  # MB; the rows alone are 12 MB as text and 90 MB as objects


def test_archives_that_are_bombs_or_point_outside_are_refused(tmp_path: Path) -> None:
    bomb, outside, link, locked = (tmp_path / f"{name}.zip" for name in ("bomb", "outside", "link", "locked"))
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("sent_train.csv", "w") as member:
        for _ in range(200):
            member.write(b"0" * (1 << 20))
    with zipfile.ZipFile(outside, "w") as archive:
        archive.writestr("../sent_train.csv", "text,label\n")
    with zipfile.ZipFile(link, "w") as archive:
        info = zipfile.ZipInfo("sent_train.csv")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with zipfile.ZipFile(locked, "w") as archive:
        archive.writestr("sent_train.csv", "text,label\na,1\n")
    raw = bytearray(locked.read_bytes())
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):
        raw[raw.index(mark) + (6 if mark == b"PK\x03\x04" else 8)] |= 1
    locked.write_bytes(raw)
    for path, said in ((bomb, "zip bomb"), (outside, "outside"), (link, "a link"), (locked, "encrypted")):
        with pytest.raises(FinbenchError, match=said) as caught:
            import_data("tfns", [path], tmp_path / "data")
        assert path.name in caught.value.message
    assert not (tmp_path / "data").exists() or not os.listdir(tmp_path / "data")


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sent.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("sent_train.csv", "text,label\n" + "".join(f"tweet {n},1\n" for n in range(5000)))
        archive.writestr("sent_valid.csv", "text,label\nexam,1\n")
    raw = bytearray(path.read_bytes())
    raw[60:90] = b"\xff" * 30
    path.write_bytes(raw)
    with pytest.raises(FinbenchError, match=r"sent\.zip"):
        import_data("tfns", [path], tmp_path / "data")


# ---- the authors' real files


REAL = {
    "nwgi": ("nwgi/finlora_nwgi_test.jsonl", 3032),
    "headlines": ("headline/headlines.csv", 9 * 7960),
    "fin_ner": ("ner/FIN*.txt", 1071),
    "fin_ner_typing": ("ner/FIN*.txt", 769),
    "finer_ord": ("finer_ord/*.csv", 2820),
    "fin_math": ("formula/finlora_formula_*.jsonl", None),
    "financebench": ("financebench/financebench_open_source.jsonl", 36),
    "piqa": ("general/piqa*.json", 300),
    "winogrande": ("general/winogrande*.json", 300),
    "finlora_ner": ("ner/finlora_ner_test.jsonl", 2669),
    "finlora_fin_math": ("formula/finlora_formula_test.jsonl", 153),
    "finlora_financebench": ("financebench/finlora_financebench_test.jsonl", 34),
}


@pytest.mark.parametrize("name", REAL)
def test_the_real_files_are_read_without_a_fault(real_data: Path, tmp_path: Path, name: str) -> None:
    pattern, expected = REAL[name]
    report = import_data(name, sorted(real_data.glob(pattern)), tmp_path)
    assert report.rejected == 0
    if expected is not None and report.read <= 85_000:
        assert math.isclose(sum(report.rows.values()), expected, rel_tol=0.5)
    texts = {split: {row["text"] for row in stored(tmp_path / name, split)} for split, n in report.rows.items() if n}
    if not sets.SETS[name].verbatim and "train" in texts and name != "fin_math":
        assert not {sets.normalise(text) for text in texts["train"]} & {sets.normalise(text) for text in texts["test"]}


def test_every_net_present_value_of_the_real_files_is_right_or_left_out(real_data: Path, tmp_path: Path) -> None:
    """Worked out by hand from the wording of the published questions."""
    import_data("fin_math", sorted(real_data.glob("formula/finlora_formula_*.jsonl")), tmp_path)
    rows = [row for split in sets.SPLITS for row in stored(tmp_path / "fin_math", split)]
    found = {row["answer_published"]: row["answer"] for row in rows if "Net Present Value" in row["formula_name"]}
    by_hand = {
        "41698.65": "37907.87",
        "23650.49": "22961.64",
        "22950.89": "21449.43",
        "61206.67": "58292.07",
        "18252.05": "18252.05",
        "14869.85": "14869.85",
        "21317.91": "302.77",
        "11935.1": "10752.34",
        "15092.44": "974.49",
        "2297.17": "230.26",
        "89606.94": "82208.20",
    }
    assert {key: value for key, value in found.items() if key in by_hand} == {
        k: v for k, v in by_hand.items() if k in found
    }
    assert len(found) >= 8
    assert not {"27960.84", "40891.26", "11717.85"} & set(found)  # ambiguous, or a cost that is not told
