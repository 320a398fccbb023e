"""``finbench tasks new``: rows of a user become a benchmark in which nothing leaks; every bad row is named."""

from __future__ import annotations

import collections
import csv
import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import finbench
from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError
from finbench.data.audit import audit, near_pairs
from finbench.evaluation import evaluate, verify
from finbench.publishing import push
from finbench.scoring import prompts, task_faults

LABELS = ("dovish", "hawkish", "neutral")


def sentences(count: int = 240, seed: int = 0) -> list[tuple[str, str]]:
    """(sentence, stance): invented, no two alike."""
    choose = random.Random(seed)
    words = [chr(97 + a) + "aeiou"[b] + chr(97 + c) + "or" for a in range(18) for b in range(5) for c in range(18)]
    cue = {"dovish": "eased", "hawkish": "tightened", "neutral": "met"}
    return [
        (f"The {' '.join(choose.sample(words, 7))} board {cue[stance]} {choose.choice(words)}.", stance)
        for stance in (LABELS[number % 3] for number in range(count))
    ]


def table(path: Path, rows: Any, header: tuple[str, ...] = ("sentence", "stance"), delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def new(path: Path, **options: Any) -> Any:
    chosen = {"text": "sentence", "label": "stance", "to": path.parent / "made" / path.stem, **options}
    return finbench.new_task(path, **chosen)


def rows_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    files = {split: folder / "rows" / f"{split}.jsonl" for split in ("train", "validation", "test")}
    return {
        split: [json.loads(line) for line in file.read_text().splitlines()]
        for split, file in files.items()
        if file.is_file()
    }


# ---------------------------------------------------------------- what is made


def test_a_csv_becomes_a_folder_that_stock_lm_eval_runs_without_finbench(tmp_path: Path) -> None:
    made = new(table(tmp_path / "fed.csv", sentences()))
    assert sum(made.rows.values()) == 240
    assert all(0.6 * share < made.rows[split] / 240 < 1.5 * share for split, share in (("train", 0.7), ("test", 0.2)))
    assert made.baselines["majority"]["acc"] == pytest.approx(max(made.labels.values()) / made.rows["test"])
    assert 0.2 < made.baselines["random"]["acc"] < 0.45
    assert "finbench" not in "".join(
        path.read_text() for path in made.folder.glob("lib/*.py") if "import finbench" in path.read_text()
    )
    assert list(task_faults(catalog.tasks()["fed"])) == []
    script = (
        "import sys, json\nsys.modules['finbench'] = None\n"
        "from lm_eval import simple_evaluate\nfrom lm_eval.tasks import TaskManager\n"
        f"manager = TaskManager(include_path={str(made.folder)!r}, include_defaults=False)\n"
        "found = simple_evaluate('dummy', tasks=['fed'], task_manager=manager, bootstrap_iters=0)\n"
        "print(json.dumps([found['n-samples']['fed'], sorted(found['results']['fed'])]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    counted, names = json.loads(done.stdout.splitlines()[-1])
    assert counted["effective"] == made.rows["test"]
    assert "macro_f1,none" in names
    readme = (made.folder / "README.md").read_text()
    assert "license: unknown" in readme
    assert f"{made.rows['test']} test" in readme


def test_no_text_and_nothing_like_it_is_in_two_splits_and_new_rows_move_none(tmp_path: Path) -> None:
    rows = sentences(300)
    twins = [(text.replace("board", "Board").replace(".", " ..."), stance) for text, stance in rows[:60]]
    near = [(text.replace("The ", "The very ", 1), stance) for text, stance in rows[60:120]]
    made = new(table(tmp_path / "fed.csv", [*rows, *twins, *near]))
    assert made.dropped == {"duplicate": 60}
    rule = paths.helper("sets").splits
    home = {}
    for split, found in rows_of(made.folder).items():
        for row in found:
            assert home.setdefault(rule.normalise(row["text"]), split) == split
    texts = list(home)
    pairs = near_pairs(texts)
    assert len(pairs) >= 50
    assert all(home[texts[a]] == home[texts[b]] for a, b in pairs)
    assert 0.1 < sum(side == "test" for side in home.values()) / len(home) < 0.3
    other = new(table(tmp_path / "more.csv", [*rows, *twins, *near, *sentences(100, seed=9)]))
    moved = {rule.normalise(row["text"]): split for split, found in rows_of(other.folder).items() for row in found}
    assert all(moved[text] == split for text, split in home.items())


Row = Callable[[str, int], tuple[Any, ...]]
TWO = ("sentence", "stance")
ASK, FROM = (*TWO, "ask"), (*TWO, "company")
KINDS: list[tuple[dict[str, Any], tuple[str, ...], Row]] = [
    ({"kind": "yesno", "question": "ask"}, ASK, lambda t, n: (t, ("yes", "0")[n % 2], f"Is it {n % 3}?")),
    ({"kind": "yesno", "question": "ask", "metric": "question_f1"}, ASK, lambda t, n: (t, "ny"[n % 2], f"{n % 3}?")),
    ({"kind": "number", "tolerance": "1%"}, TWO, lambda t, n: (t, f"{n}.5")),
    ({"kind": "spans"}, TWO, lambda t, n: (t, json.dumps([{"text": t.split()[1], "type": "org"}] * (n % 2)))),
    ({"kind": "text", "metric": "chrf"}, TWO, lambda t, n: (t, f"answer {n}")),
    ({"kind": "choice", "choices": "a,b,c"}, (*TWO, "a", "b", "c"), lambda t, n: (t, "ABC"[n % 3], f"{n}x", n, "z")),
    ({"kind": "choice", "choices": "a"}, (*TWO, "a"), lambda t, n: (t, n % 2, json.dumps([f"x{n}", "y"]))),
    ({"prompt": "{{company}} says: {{ sentence }}\nStance:"}, FROM, lambda t, n: (t, LABELS[n % 3], f"C{n}")),
]


@pytest.mark.parametrize(("options", "header", "row"), KINDS)
def test_every_kind_scores_right_answers_as_right(
    options: dict[str, Any], header: tuple[str, ...], row: Row, tmp_path: Path
) -> None:
    rows = [row(text, number) for number, (text, _) in enumerate(sentences(160))]
    made = new(table(tmp_path / "mine.csv", rows, header), **options)
    gold = {"answers": "gold"}
    [card] = evaluate(tasks=str(made.folder), engine="dummy", arguments=gold, out=tmp_path / "cards")
    assert card.scores[0].main.value == 1.0
    [poor] = evaluate(tasks=str(made.folder), engine="dummy", out=tmp_path / "poor")
    assert poor.scores[0].main.value < 0.8
    assert verify(tmp_path / "cards" / "dummy.json").level == "samples-attached"
    if options.get("kind") == "yesno":
        assert {found["label"] for found in rows_of(made.folder)["test"]} == {"Yes", "No"}
    if "prompt" in options:
        lm_task = prompts.load([made.task], None)[made.task.name]
        assert prompts.prompt(lm_task, prompts.rows(lm_task, "test")[0]).startswith("C")
        assert prompts.prompt(lm_task, prompts.rows(lm_task, "test")[0]).endswith("\nStance:")


def test_a_number_is_right_within_its_tolerance() -> None:
    score = paths.helper("within").score
    row = {"answer": "1,200", "tolerance": "1%"}
    for said, strict, lenient in (("1212", 1, 1), ("$1.2 thousand", 1, 1), ("1213", 0, 0), ("It is 1,195 or so", 0, 1)):
        found = score(row, [said])
        assert (found["acc"], found["acc_lenient"]) == (strict, lenient), said
    assert score({"answer": "0", "tolerance": "1%"}, ["0"])["acc"] == 1
    assert score({"answer": "-2.5", "tolerance": "0.5"}, ["-3"])["acc"] == 1
    assert score({"answer": "-2.5", "tolerance": "0.4"}, ["-3"])["acc"] == 0


def test_free_text_by_exact_match_and_by_chrf_as_sacrebleu_has_it() -> None:
    import sacrebleu

    score = paths.helper("texts").score
    gold, said = "Rates were raised by 25 basis points.", "rates were raised by 25  basis points"
    found = score({"answer": gold}, [said + "\nand more"])
    assert (found["exact_match"], found["exact_match_lenient"], found["parse_rate"]) == (0, 1, 1)
    assert found["chrf"] == pytest.approx(sacrebleu.sentence_chrf(" ".join(said.split()), [gold]).score / 100)
    assert score({"answer": gold}, ["<think>" + gold])["chrf"] == 0
    assert score({"answer": gold}, [f"<think>hm</think> {gold}"])["exact_match"] == 1


def test_labels_may_be_renamed_and_take_what_differs_by_case(tmp_path: Path) -> None:
    rows = [(text, {"dovish": "0", "hawkish": "1", "neutral": "2"}[stance]) for text, stance in sentences()]
    made = new(table(tmp_path / "codes.csv", rows), labels="0=dovish,1=hawkish,2=neutral")
    assert set(made.labels) == set(LABELS)
    rows = [(text, stance.upper() + " " if number % 5 else stance) for number, (text, stance) in enumerate(sentences())]
    made = new(table(tmp_path / "cases.csv", rows), labels="dovish,hawkish,neutral")
    assert set(made.labels) == set(LABELS)


def test_splits_of_the_author_are_kept_and_a_leak_is_named(tmp_path: Path) -> None:
    rows = [(text, stance, "train" if number % 4 else "test") for number, (text, stance) in enumerate(sentences())]
    path = table(tmp_path / "split.csv", rows, ("sentence", "stance", "part"))
    assert new(path, split="part").rows == {"train": 180, "validation": 0, "test": 60}
    leak = (rows[0][0].upper(), rows[0][1], "train")
    path = table(tmp_path / "leak.csv", [*rows, leak], ("sentence", "stance", "part"))
    with pytest.raises(FinbenchError, match=r"leak.csv:242: the same text as .*leak.csv:2, in train and in test"):
        new(path, split="part")


def test_files_called_train_and_test_keep_their_rows(tmp_path: Path) -> None:
    folder, rows = tmp_path / "my test", sentences()
    folder.mkdir()
    for name, part in (("train_set", rows[:150]), ("dev", rows[150:190]), ("test", rows[190:])):
        table(folder / f"{name}.csv", part)
    made = new(folder)
    assert made.rows == {"train": 150, "validation": 40, "test": 50}
    assert {row["text"] for row in rows_of(made.folder)["test"]} == {text for text, _ in rows[190:]}
    assert "divided as names say: dev.csv is validation, test.csv is test, train_set.csv is train" in made.notes
    assert made.task.split == "as the names of its files say; no text in two"
    assert new(folder, all_test=True, to=tmp_path / "all").rows["test"] == 240
    (folder / "test.csv").rename(folder / "more.csv")
    made = new(folder, to=tmp_path / "anew")
    assert made.rows["test"] < 80
    assert any("more.csv is no split" in note for note in made.notes)


def numbered() -> list[tuple[str, str]]:
    """Sentences, and each once more with other numbers."""
    rows = [
        (f"{text[:-1]} by {number + 11} points in 2021.", stance) for number, (text, stance) in enumerate(sentences())
    ]
    return [
        *rows,
        *((re.sub(r"by \d+ points in 2021", "by 7.5 points in 2023", text), stance) for text, stance in rows),
    ]


def test_what_an_audit_calls_near_copies_is_in_one_split(tmp_path: Path) -> None:
    rows = numbered()
    made = new(table(tmp_path / "points.csv", rows))
    assert [one for one in audit([made.folder / "rows"]).findings if one.check in ("leak", "near-leak")] == []
    sides = [(*row, ("train", "Testing")[number // 240]) for number, row in enumerate(rows)]
    made = new(table(tmp_path / "stated.csv", sides, ("sentence", "stance", "part")), split="part")
    assert made.rows == {"train": 240, "validation": 0, "test": 240}
    [said] = [note for note in made.notes if "numbers or months from one in another split" in note]
    [finding] = [one for one in audit([made.folder / "rows"]).findings if one.check == "near-leak"]
    assert said.startswith(f"{finding.count} texts differ")


# ---------------------------------------------------------------- bad input


GOOD = sentences(60)
CHOICES = {"kind": "choice", "choices": "a,b"}


def lines(*more: Any) -> str:
    """JSON Lines of the good rows, and more."""
    return "".join(json.dumps(row) + "\n" for row in ([dict(zip(TWO, row, strict=True)) for row in GOOD] + list(more)))


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {  # rows of a CSV, or text of a file; options; what is said
    "no header": ("".join(f'"{t}",{s}\n' for t, s in GOOD), {}, r"bad.csv:1: no column 'sentence'.*like a row"),
    "other column": ([("sentences", "stance"), *GOOD], {}, r":1: no column 'sentence'. Did you mean sentences"),
    "delimiter": ("sentence^stance\n" + "".join(f"{t}^{s}\n" for t, s in GOOD), {}, r":1: no column.*sentence\^stance"),
    "long line": ([TWO, *GOOD, ("x" * 10_000_000, "neutral")], {}, r"bad.csv:62: not valid CSV \(field larger"),
    "long json": (lines({"sentence": "x" * 10_000_000, "stance": "neutral"}), {}, r":61: sentence has 10,000,000 char"),
    "torn json": (lines()[:-20], {}, r"bad.jsonl:60: not valid JSON"),
    "mixed": (lines({"prompt": "a", "completion": "b"}), {}, r"bad.jsonl:61: no 'sentence'; it has prompt, completion"),
    "latin": ("sentence,stance\nThe caf\u00e9 rose.,neutral\n".encode("latin-1"), {}, r"bad.csv:2: not UTF-8"),
    "nan": ([TWO, *GOOD, ("A text.", "NaN")], {}, r"bad.csv:62: no answer in stance"),
    "nothing": (lines({"sentence": "A text.", "stance": float("nan")}), {}, r"bad.jsonl:61: no answer in stance"),
    "infinite": (
        lines({"sentence": "A.", "stance": float("inf")}),
        {"labels": ",".join(LABELS)},
        r":61: the label 'inf'",
    ),
    "a list": (json.dumps([dict(zip(TWO, GOOD[0], strict=True))]), {}, r"bad.jsonl:1: a list of rows, .* \.json"),
    "case": ([TWO, *GOOD, ("A text.", "Neutral ")], {}, r"bad.csv:62: the label 'Neutral ' differs from 'neutral' by"),
    "spaces": (
        [TWO, *((t, f"{s} ") for t, s in GOOD), ("A text.", "neutral")],
        {},
        r"'neutral ' differs from 'neutral' ",
    ),
    "unicode": (
        [TWO, *((t, f"{s}\u00e9") for t, s in GOOD), ("A text.", "neutrale\u0301")],
        {},
        "by how it is written in Unicode alone",
    ),
    "empty": ([TWO, *GOOD, ("A text.", " ")], {}, r"bad.csv:62: no answer in stance"),
    "empty text": ([TWO, *GOOD, ("  ", "neutral")], {}, r"bad.csv:62: sentence is empty"),
    "conflict": ([TWO, *GOOD, (GOOD[3][0].upper(), "hawkish")], {}, r"bad.csv:62: the same text as .*bad.csv:5, with"),
    "unknown": ([TWO, *GOOD, ("A text.", "up")], {"labels": ",".join(LABELS)}, r":62: the label 'up' is none of"),
    "unread": ([TWO, *((t, "sentiment is low" if s == "dovish" else s) for t, s in GOOD)], {}, "cannot be read from"),
    "free text": ([TWO, *((t, t[4:20]) for t, _ in GOOD)], {}, r"60 different values .* these are no labels"),
    "one label": ([TWO, *((t, "neutral") for t, _ in GOOD)], {}, "nothing to tell"),
    "few": ([TWO, *GOOD[:12]], {}, "8 each are the least"),
    "number": ([TWO, *((t, "12,5") for t, _ in GOOD)], {"kind": "number"}, r"bad.csv:2: '12,5' is not one number"),
    "span": (
        [TWO, ("A text.", '[{"text": "no", "type": "x"}]')],
        {"kind": "spans"},
        r":2: the span 'no' does not",
    ),
    "choice": (
        [(*TWO, "a", "b"), *((t, "D", "x", "y") for t, _ in GOOD)],
        CHOICES,
        r":2: 'D' is none of the 2",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_with_its_line_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    content, options, said = BAD[name]
    path = tmp_path / ("bad.jsonl" if isinstance(content, str) and content[:1] in "[{" else "bad.csv")
    if isinstance(content, list):
        table(path, content[1:], content[0])
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FinbenchError, match=said) as caught:
        new(path, **options)
    assert caught.value.hint
    assert len(caught.value.message) < 3_000
    assert not (tmp_path / "made").exists() or not any((tmp_path / "made").iterdir())


def test_bad_rows_may_be_left_out_and_are_counted(tmp_path: Path) -> None:
    good = sentences(90)
    rows = [*good, ("A text.", ""), (good[3][0], "hawkish"), (good[4][0], good[4][1])]
    made = new(table(tmp_path / "mixed.csv", rows), skip_bad=True)
    assert made.dropped == {"cannot be used": 1, "same text, different answers": 2, "duplicate": 1}
    assert sum(made.rows.values()) == 89
    texts = collections.Counter(row["text"] for found in rows_of(made.folder).values() for row in found)
    assert good[3][0] not in texts


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters_are_seen_and_said(delimiter: str, tmp_path: Path) -> None:
    made = new(table(tmp_path / "mine.csv", sentences(), delimiter=delimiter))
    assert sum(made.rows.values()) == 240
    assert any("fields are separated by" in note for note in made.notes)


def test_other_files_of_the_same_rows_make_the_same_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Spaces around a label are no other label, where no row has it without them."""
    rows = sentences()
    objects = [dict(zip(TWO, row, strict=True)) for row in rows]
    text = "".join(json.dumps(one) + "\n" for one in objects)
    for name in ("mine.ndjson", "lines.json"):
        (tmp_path / name).write_text(text)
    (tmp_path / "list.json").write_text(json.dumps(objects, indent=2))
    (tmp_path / "under.json").write_text(json.dumps({"data": objects}))
    (tmp_path / "spaced.csv").write_text("sentence, stance\n" + "".join(f'"{t}", {s}\n' for t, s in rows))
    table(tmp_path / "mine.tsv", rows, delimiter="\t")
    table(tmp_path / "mine.csv", rows)
    made = []
    for path in sorted(file for file in tmp_path.iterdir()):
        made.append(rows_of(new(path, to=tmp_path / "out" / "mine").folder))
        shutil.rmtree(tmp_path / "out")
    assert len(made) == 7
    assert "under.json: its rows are the list under 'data'." in capsys.readouterr().err
    assert all(one == made[0] for one in made)
    for name, content, said, typed in (
        (
            "columns.json",
            json.dumps({"sentence": ["a"], "stance": ["b"]}).encode(),
            "lists under 'sentence'",
            "list of",
        ),
        ("split.json", json.dumps({"test": objects}).encode(), "lists under 'test'", "list of"),
        ("mine.csv.gz", b"\x1f\x8b", "is compressed", "gunzip -k"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FinbenchError, match=said) as fault:
            new(tmp_path / name)
        assert typed in fault.value.hint


def test_a_label_inside_another_is_said_and_read_whole(tmp_path: Path) -> None:
    names = {"dovish": "rate cut", "hawkish": "rate", "neutral": "none"}
    made = new(table(tmp_path / "mine.csv", [(text, names[stance]) for text, stance in sentences()]))
    assert any("'rate' is a part of 'rate cut'" in note for note in made.notes)
    parse = paths.helper("labels").parse
    assert parse("rate cut", made.task.labels) == "rate cut"
    assert parse("rate", made.task.labels) == "rate"


@pytest.mark.parametrize("names", [("up", "down", "flat", "up a lot"), tuple("abcdefg")])
def test_any_number_of_labels_makes_a_benchmark(names: tuple[str, ...], tmp_path: Path) -> None:
    rows = [(text, names[number % len(names)]) for number, (text, _) in enumerate(sentences())]
    made = new(table(tmp_path / "mine.csv", rows))
    assert sorted(made.task.labels) == sorted(names)
    assert len(made.task.examples) == len(names)


def test_numbers_that_are_only_read_as_answers_are_no_gold(tmp_path: Path) -> None:
    rows = [(text, "about 5" if number == 3 else number) for number, (text, _) in enumerate(sentences(60))]
    with pytest.raises(FinbenchError, match="1 of 60 rows cannot be used:\n.*mine.csv:5: 'about 5' is not one number"):
        new(table(tmp_path / "mine.csv", rows), kind="number")
    rows = [(text, f"{number}%") for number, (text, _) in enumerate(sentences(60))]
    with pytest.raises(FinbenchError, match="no small part"):
        new(table(tmp_path / "mine.csv", rows), kind="number", tolerance="0.5")


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"metric": "f1"}, "Unknown metric of kind labels 'f1'"),
    ({"kind": "choice"}, "choice needs --choices"),
    ({"tolerance": "1%"}, "--tolerance is for --kind number"),
    ({"kind": "number", "tolerance": "some"}, "is no number"),
    ({"prompt": "{{stance}} {{sentence}}"}, "which is the answer"),
    ({"prompt": "{{nothing}}: {{text}}"}, "no column 'nothing'"),
    ({"prompt": "{{label}}: {{text}}"}, "a name that the task itself uses"),
    ({"prompt": "{{ text.__class__ }}"}, "more than a form to fill"),
    ({"prompt": "Text: {{text"}, "fault of syntax"),
    ({"prompt": "{{stances}}"}, "does not show the text"),
    ({"text": "stance"}, "name one column"),
    ({"kind": "labels", "question": "q"}, "--question is for"),
]


@pytest.mark.parametrize(("options", "said"), OPTIONS)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match=said.replace("[", r"\[")):
        new(table(tmp_path / "mine.csv", sentences(60)), **options)


QUESTIONS = [f"How many {what} has the company" for what in ("mills", "ships", "banks", "shops", "mines") * 12]


def chosen(folder: Path, made: list[dict[str, Any]]) -> dict[str, int]:
    """The right choice of each question, of a benchmark of these rows."""
    path = folder / f"{len(made)}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    options = {"kind": "choice", "text": "question", "label": "answer", "choices": "choices", "all_test": True}
    new(path, **options, to=folder / f"of_{len(made)}")
    return {row["text"]: row["label"] for row in rows_of(folder / f"of_{len(made)}")["test"]}


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_are_places_of_choices_wherever_one_of_them_cannot_be_a_text(first: int, tmp_path: Path) -> None:
    """In half of the rows the choices are numbers too, as in MMLU: a gold of 2 is the third of 3, 2, 4, 1."""
    made = [
        {
            "question": f"{asks} in {1900 + n}?",
            "choices": [["3", "2", "4", "1"], ["north", "south", "east", "west"]][n % 2],
            "answer": n // 2 % 4 + first,
        }
        for n, asks in enumerate(QUESTIONS)
    ]
    assert chosen(tmp_path, made) == {row["question"]: row["answer"] - first for row in made}
    if first == 0:  # every one is a place, and some are no text
        assert chosen(tmp_path, made[::2]) == {row["question"]: row["answer"] for row in made[::2]}
    else:
        with pytest.raises(FinbenchError, match="a choice's text or its place") as raised:
            chosen(tmp_path, made[::2])
        assert "letters" in str(raised.value.hint)


def test_texts_of_choices_may_be_numbers_that_are_no_places(tmp_path: Path) -> None:
    made = [
        {"question": f"{asks} in {1900 + n}?", "choices": ["10", "20", "30"], "answer": str(10 * (n % 3 + 1))}
        for n, asks in enumerate(QUESTIONS)
    ]
    assert chosen(tmp_path, made) == {row["question"]: n % 3 for n, row in enumerate(made)}


def test_text_that_parquet_holds_as_bytes_is_text(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    texts, stances = zip(*GOOD, strict=True)
    columns = {"sentence": [text.encode() for text in texts], "stance": [stance.encode() for stance in stances]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    new(tmp_path / "a.parquet", all_test=True, to=tmp_path / "a")
    assert {row["text"]: row["label"] for row in rows_of(tmp_path / "a")["test"]} == dict(GOOD)


def test_a_workbook_in_a_folder_is_read(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    folder, book = tmp_path / "mixed", openpyxl.Workbook()
    folder.mkdir()
    table(folder / "a.csv", GOOD[:30])
    for row in (TWO, *GOOD[30:]):
        book.active.append(row)
    book.save(folder / "b.xlsx")
    new(folder, all_test=True, to=tmp_path / "both")
    assert len(rows_of(tmp_path / "both")["test"]) == len(GOOD)


def test_a_folder_that_tasks_could_not_name_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", GOOD)
    for name in ("notes, v2", "a:2"):
        with pytest.raises(FinbenchError, match="could not be named by --tasks"):
            new(path, all_test=True, to=tmp_path / name)
        assert not (tmp_path / name).exists()


def test_a_file_whose_name_has_no_letter_of_ascii_says_what_to_type(tmp_path: Path) -> None:
    path = table(tmp_path / "\u65e5\u672c.csv", sentences())
    with pytest.raises(FinbenchError, match="A benchmark's name has a-z and 0-9, of which .* has none") as fault:
        new(path, to=None)
    assert "--to my_task" in fault.value.hint


def test_a_name_of_finbenchs_own_gets_another(tmp_path: Path) -> None:
    made = new(table(tmp_path / "mine.csv", sentences()), to=tmp_path / "fpb")
    assert (made.task.name, made.folder) == ("own_fpb", tmp_path / "fpb")
    assert any("this one is called own_fpb" in note for note in made.notes)


def test_a_folder_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    path = table(tmp_path / "mine.csv", sentences())
    made = new(path)
    with pytest.raises(FinbenchError, match="is there already"):
        new(path)
    (made.folder / "README.md").write_text("other")
    with pytest.raises(FinbenchError, match="was not made by this command"):
        new(path)


# ---------------------------------------------------------------- further on


def test_an_adapter_learns_an_own_task_and_is_scored_on_it(llama: Path, tmp_path: Path) -> None:
    made = new(table(tmp_path / "fed.csv", sentences()))
    recipe = {"base": str(llama), "tasks": [str(made.folder)], "rank": 4, "limit": 32, "dtype": "float32", "lr": 1e-3}
    from finbench.training import recipes

    found = finbench.train(recipes.recipe(None, recipe), tmp_path / "adapter")
    assert found.recipe.tasks == {"fed": 1.0}
    assert (found.data[0].set, found.data[0].origin, found.data[0].rows) == ("fed", "own", 32)
    assert str(tmp_path) not in (tmp_path / "adapter" / "finbench.json").read_text()
    base, adapter = evaluate(
        str(tmp_path / "adapter"), base=str(llama), limit=12, arguments={"dtype": "float32"}, out=tmp_path / "cards"
    )
    assert [score.task for score in adapter.scores] == ["fed"]
    card, base_card = (tmp_path / "cards" / f"{one.subject.name}.json" for one in (adapter, base))
    assert verify(card, rerun=4, adapter=str(tmp_path / "adapter"), base=str(llama)).level == "reproduced"
    [pair] = finbench.compare([card, base_card])
    assert pair.contests[0].n == 12
    assert finbench.push(card, "hub:you/results", dry_run=True).plan


def test_a_benchmark_is_pushed_if_its_licence_allows(tmp_path: Path) -> None:
    made = new(table(tmp_path / "fed.csv", sentences()))
    with pytest.raises(FinbenchError, match="licence of fed .not stated. does not let us publish"):
        push(made.folder, "hub:you/fed", dry_run=True)
    free = new(table(tmp_path / "free.csv", sentences()), licence="CC-BY-4.0")
    done = push(free.folder, "hub:you/free", dry_run=True)
    names = {change.path for change in done.plan.changes}
    assert {"free.yaml", "rows/test.jsonl", "lib/labels.py", "README.md"} <= names
    assert "license: cc-by-4.0" in done.readme


def test_rows_that_are_all_for_the_test_make_a_benchmark_without_train(tmp_path: Path) -> None:
    rows = [(text, stance, "test") for text, stance in sentences(60)]
    path = table(tmp_path / "tests.csv", rows, ("sentence", "stance", "part"), ";")
    made = new(path, split="part", prompt="Read: {{text}}\\nStance:")  # as a shell gives it
    assert made.rows == {"train": 0, "validation": 0, "test": 60}
    assert any("all rows are test" in note for note in made.notes)
    assert any("60 test rows are few: differences below about 13 points" in note for note in made.notes)
    assert not list(task_faults(made.task))
    lm_task = prompts.load([made.task], None)[made.task.name]
    assert prompts.shown(lm_task, prompts.rows(lm_task, "test")[0]).endswith("\nStance:")
    [card] = evaluate(engine="dummy", arguments={"answers": "gold"}, tasks=[str(made.folder)], out=tmp_path / "cards")
    assert card.scores[0].main.value == 1.0
    with pytest.raises(FinbenchError, match="no split for worked examples"):
        evaluate(engine="dummy", tasks=[str(made.folder)], shots=2, out=tmp_path / "shots")
    plain = table(tmp_path / "plain.csv", sentences(60))
    with pytest.raises(FinbenchError, match="Are all of them for the test\\? Then: --all-test"):
        new(plain)
    option = new(plain, all_test=True)
    assert option.rows == made.rows
    assert option.task.split == "all rows are test"
    assert not any("--all-test" in note for note in option.notes)
    with pytest.raises(FinbenchError, match="name one of the two"):
        new(path, split="part", all_test=True, to=tmp_path / "both")
