"""TAT-QA, FinQA, ConvFinQA, XFinBench, FOMC, NumClaim: readers, scorers beside the official scripts, bad input."""

from __future__ import annotations

import importlib
import json
import random
import re
import sys
import types
import zipfile
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_reports import context, conversation, page, program_of_thoughts, report_sources, workbook

from conftest import quick, task_helper, upload
from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError
from finbench.core.files import sha256_file
from finbench.core.records import Generation
from finbench.data import contamination, sources
from finbench.data.readers import decoder_of, expand
from finbench.data.sources import describe_set, import_data, read_rows
from finbench.engines.thinking import taken_apart
from finbench.hub.dev.server import DevHub
from finbench.scoring import metrics, prompts, task_of_examples

reports = task_helper("reports")
sets = paths.helper("sets")


def read(name: str, *rows: dict[str, Any], split: str | None = "test") -> list[Any]:
    return list(sets.SETS[name].units((row, f"f:{n}", split) for n, row in enumerate(rows, 1)))


def tatqa(answer: str, kind: str = "span", spans: list[str] | None = None, scale: str = "") -> dict[str, Any]:
    """A question with its gold as the importer writes it."""
    return {"answer": answer, "kind": kind, "spans": spans or answer.split(" | "), "scale": scale}


# ---- readers


def test_a_context_of_tatqa_becomes_a_row_for_each_question() -> None:
    (unit,) = read("tatqa", context(3))
    assert [row["answer"] for row in unit.rows] == ["$43.5 million", "dies | moulds", "2", "-15.5 million", "-22.22%"]
    text = unit.rows[0]["text"]
    assert text.startswith("|  | 2019 | 2018 |\n| -- | -- | -- |\n| Sales 3 | $43.5 | (56) |\n\nNorvane 3 sells")
    assert text.endswith("All figures are in millions.")
    assert {row["text"] for row in unit.rows} == {text}


def test_dev_is_the_test_where_no_test_is_given_and_only_there() -> None:
    alone = read("tatqa", context(1), split="validation")
    assert [unit.split for unit in alone] == ["test"]
    rows = [(context(1), "a", "validation"), (context(2), "b", "test"), (context(3), "c", "train")]
    assert [unit.split for unit in sets.SETS["tatqa"].units(rows)] == ["validation", "test", "train"]


def test_the_same_question_of_finqa_in_both_spellings_is_one() -> None:
    record = page(7)
    prompt = (
        "Below ...\n### Instruction\nGiven\n### Table \n\n| |2019 |\n|item 7 |$ 107 |\n\n### Text\n\n"
        "1 norvane group .\n"
        f"\n### Question \n\n{record['qa']['question']}\n\n### Response"
    )
    other = {"id": record["id"], "user_prompt": prompt, "resp": "The answer is: 0.2675"}
    for order in ([record, other], [other, record]):
        items = read("finqa", *order, split="validation")
        (unit,) = [item for item in items if isinstance(item, sets.Unit)]
        assert [row["answer"] for row in unit.rows] == ["0.2675"]
        assert unit.rows[0]["program"] == "divide(107, 400)"
        assert "it is stated in millions" in unit.rows[0]["text"]
        assert [item.why for item in items if isinstance(item, sets.Drop)] == ["duplicate"]
    (unit,) = read("finqa", other)
    assert unit.rows[0]["document"] == "NRV/2010/page_7.pdf"


@pytest.mark.parametrize(
    ("human", "result", "wrong"),
    [
        ("56%", "0.56197", False), ("-56.2 %", "0.56197", False), ("4.9\\n", "4.85514", False), ("", "1", False),
        ("$ 7.22 million", "7.22222", False), ("44%", "1.25", True), ("78.4", "68.4", True), ("yes", "no", True),
        ("no", "no", False), ("1,106", "1106", False), (".33%", "0.00327", False), ("0.05", "0.04545", False),
    ],
)  # fmt: skip
def test_an_annotator_who_gives_another_number_contradicts_the_program(human: str, result: str, wrong: bool) -> None:
    assert sets.reports.contradicts(human, result) is wrong


def test_a_contradicted_question_is_left_out_and_counted() -> None:
    record = page(7)
    record["qa"]["answer"] = "44%"
    items = read("finqa", record, page(7, 2))
    assert [item.why for item in items if isinstance(item, sets.Drop)] == [
        "the annotator's answer contradicts the program"
    ]
    (unit,) = [item for item in items if isinstance(item, sets.Unit)]
    assert [row["id"] for row in unit.rows] == ["2"]


DISPUTED, REPEAT = "same question, different answers", "duplicate"


def _asked_again(name: str, answer: Any) -> list[dict[str, Any]]:
    """Records of one page whose first question is asked again, spelt otherwise, with this answer."""
    if name == "tatqa":
        record = context(3)
        first = record["questions"][1]
        again = {**first, "uid": "again", "question": "what does norvane 3 sell", "answer": answer}
        record["questions"].append(again)
        return [record]
    if name == "finqa":
        other = page(7, 2)
        other["qa"] |= {"question": "What share of the 400 is item 7", "exe_ans": answer, "answer": ""}
        return [page(7), other, page(8)]
    talk = conversation(7)
    talk["id"] = talk["id"].replace("-1", "-2")
    talk["annotation"]["exe_ans_list"][2] = answer
    return [conversation(7), talk, conversation(8)]


@pytest.mark.parametrize(
    ("name", "answer", "dropped", "kept"),
    [
        ("tatqa", ["moulds", "dies"], [REPEAT], 5),
        ("tatqa", ["moulds"], [DISPUTED] * 2, 4),
        ("finqa", 0.2675, [REPEAT], 2),
        ("finqa", 0.3, [DISPUTED] * 2, 1),
        ("convfinqa_own", 0.2675, [REPEAT], 2),
        ("convfinqa_own", 0.3, [DISPUTED] * 2, 1),
        ("convfinqa", 0.2675, [REPEAT], 6),
        ("convfinqa", 0.3, [DISPUTED] * 2, 3),
    ],
)
def test_a_page_is_asked_a_question_once_and_a_disputed_one_never(
    name: str, answer: Any, dropped: list[str], kept: int
) -> None:
    items = read(name, *_asked_again(name, answer))
    assert sorted(item.why for item in items if isinstance(item, sets.Drop)) == sorted(dropped)
    assert sum(len(item.rows) for item in items if isinstance(item, sets.Unit)) == kept


@pytest.mark.parametrize(("total", "why", "kept"), [(400.0, REPEAT, 4), (401.0, DISPUTED, 3)])
def test_a_turn_after_the_same_turns_is_asked_once(total: float, why: str, kept: int) -> None:
    other = conversation(7)
    other["id"] = other["id"].replace("-1", "-2")
    other["annotation"]["dialogue_break"][2] = "and what is the rest?"
    other["annotation"]["exe_ans_list"][1] = total
    items = read("convfinqa", conversation(7), other)
    whys = [item.why for item in items if isinstance(item, sets.Drop)]
    assert whys == [REPEAT] + ([REPEAT] if why == REPEAT else [DISPUTED] * 2)
    assert sum(len(item.rows) for item in items if isinstance(item, sets.Unit)) == kept
    assert len(read("convfinqa_own", conversation(7), other)[0].rows) == 2


def test_a_bracket_is_a_minus_sign_where_repeats_are_compared() -> None:
    for answer, why in (("-$43.5", "duplicate"), ("$43.5", DISPUTED)):
        record = context(3)
        record["questions"][0]["answer"] = ["($43.5)"]
        record["questions"].append({**record["questions"][0], "uid": "again", "answer": [answer]})
        assert {item.why for item in read("tatqa", record) if isinstance(item, sets.Drop)} == {why}


def test_one_id_of_finqa_with_two_answers_is_asked_by_neither() -> None:
    other = page(7)
    other["qa"] |= {"exe_ans": 0.3, "answer": "30%"}
    assert [item.why for item in read("finqa", page(7), other)] == [DISPUTED] * 2


def test_a_repeat_of_a_contradicted_question_is_not_asked_either() -> None:
    record, other = page(7), page(7, 2)
    record["qa"]["answer"], other["qa"] = "44%", record["qa"] | {"answer": ""}
    assert [item.why for item in read("finqa", record, other)] == [DISPUTED] * 2


def test_the_real_pages_ask_no_question_twice(real_data: Path) -> None:
    dev = json.loads((real_data / "tatqa" / "tatqa_dataset_dev.json").read_text(encoding="utf-8"))
    assert [item.why for item in read("tatqa", *dev) if not isinstance(item, sets.Unit)] == [DISPUTED] * 2
    asked = json.loads((real_data / "finqa" / "finqa_dataset_dev.tatllm.json").read_text(encoding="utf-8"))
    items = read("finqa", *asked)
    assert [item.why for item in items if isinstance(item, sets.Drop)] == [REPEAT] * 5
    assert sum(len(item.rows) for item in items if isinstance(item, sets.Unit)) == len(asked) - 5 == 627


@pytest.mark.parametrize("form", [conversation, program_of_thoughts])
def test_conversations_become_turns_with_their_history(form: Any) -> None:
    (own,) = read("convfinqa_own", form(5), split="validation")
    assert own.rows[0]["answers"] == ["105", "400", "0.2625"]
    assert own.split == "test"
    (unit,) = read("convfinqa", form(5), split="validation")
    last = unit.rows[-1]
    assert [turn["answer"] for turn in last["history"]] == ["105", "400"]
    assert [row["last"] for row in unit.rows] == [0, 0, 1]
    assert last["document"] == read("finqa", page(5))[0].rows[0]["document"]


@pytest.mark.parametrize(
    ("program", "value"),
    [
        ("ans = 15 - 19", -4), ("x0 = 15 - 19; ans = x0 / 19", -4 / 19), ("ans = 13.4%", 0.134), ("ans = -2 * 3", -6),
        ("ans = 3 > 2", True), ("x0 = 2 ** 3;ans = x0", 8),
    ],
)  # fmt: skip
def test_programs_of_thought_are_run(program: str, value: float) -> None:
    assert sets.conversations.run(program) == pytest.approx(value)


@pytest.mark.parametrize(
    "program",
    ["ans = __import__('os')", "import os; ans = 1", "ans = [1][0]", "ans = 1 / 0", "ans = 9 ** 9 ** 9 ** 9", "x0 = 1",
     "ans = 'a'", "ans = (" * 500, "ans = True + 1", "ans = 1 if 2 > 1 else 3"],
)  # fmt: skip
def test_programs_that_are_no_arithmetic_are_refused(program: str) -> None:
    with pytest.raises(ValueError):
        sets.conversations.run(program)


def test_textbook_rows_that_need_a_picture_or_have_no_answer_are_left_out() -> None:
    row = {"task": "mcq", "question": "Q?", "choice": "A. a\nB. b\nC. c", "ground_truth": "B", "figure": "", "id": "x"}
    row["fin_capability"] = "TR: SP"
    (unit,) = read("xfinbench_choice", row)
    assert unit.rows == [{"text": "Q?", "options": "A. a\nB. b\nC. c", "label": "B", "capability": "TR SP"}]
    assert [d.why for d in read("xfinbench_choice", {**row, "figure": "a.png"})] == ["it needs a picture"]
    assert [d.why for d in read("xfinbench_truth", row)] == ["another kind of question"]
    assert "no ground_truth" in read("xfinbench_choice", {**row, "ground_truth": ""})[0]
    calc = {**row, "task": "calcu", "choice": ""}
    assert read("xfinbench_calc", {**calc, "ground_truth": "–2035.00"})[0].rows[0]["answer"] == "-2035.00"
    assert read("xfinbench_calc", {**calc, "ground_truth": "8.3e-09"})[0].rows[0]["answer"] == "0.0000000083"
    assert isinstance(read("xfinbench_calc", {**calc, "ground_truth": "56.14, -85.77"})[0], sets.Drop)


def test_json_of_the_hub_is_read_as_it_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TAT-QA's answers are numbers and lists: no column of Arrow holds them."""
    asked = []

    class Manager:
        def download(self, url: str) -> str:
            asked.append(url)
            name = url.rpartition("/")[2]
            (tmp_path / name).write_text(json.dumps([context(len(asked))]))
            return str(tmp_path / name)

    monkeypatch.setattr(importlib.import_module("datasets"), "DownloadManager", Manager)
    found = list(sets.hub_records(sets.SETS["tatqa"].hub, "0" * 40))
    assert asked[0] == f"hf://datasets/next-tat/TAT-QA@{'0' * 40}/tatqa_dataset_train.json"
    assert [unit.split for unit in sets.SETS["tatqa"].units(found)] == ["train", "validation", "test"]


def test_the_commit_that_the_hub_gave_is_recorded_and_said(
    dev_hub: DevHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets = importlib.import_module("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", dev_hub.url)
    monkeypatch.setattr(sources, "lock_file", lambda: tmp_path / "datasets.lock")
    chosen = sets.SETS["tatqa"]

    def uploaded(more: int) -> str:
        files = {part.file: json.dumps([context(at + more)]).encode() for at, part in enumerate(chosen.hub.parts, 1)}
        return upload(dev_hub, chosen.hub.path, files, kind="dataset", private=False)

    def imported() -> tuple[dict[str, Any], str]:
        import_data("tatqa", [], tmp_path / "data")
        found = describe_set("tatqa", tmp_path / "data")
        assert found
        return found["hub"], " ".join(capsys.readouterr().err.split())

    sha = uploaded(0)
    with pytest.raises(FinbenchError, match="no such revision"):  # the commit that finbench names is not there
        imported()
    monkeypatch.setitem(sets.SETS, "tatqa", chosen._replace(hub=chosen.hub._replace(ref="main")))
    card, said = imported()
    assert card == {"path": "next-tat/TAT-QA", "revision": sha, "pinned": False}
    assert f"tatqa is hub:next-tat/TAT-QA at commit {sha}, the newest; pin it: finbench data lock." in said
    (tmp_path / "datasets.lock").write_text(json.dumps({"tatqa": {"path": chosen.hub.path, "revision": sha}}))
    assert uploaded(3) != sha
    card, said = imported()
    assert card == {"path": "next-tat/TAT-QA", "revision": sha, "pinned": True}
    assert f"at commit {sha}, as pinned." in said
    (tmp_path / "datasets.lock").unlink()
    monkeypatch.setitem(sets.SETS, "tatqa", chosen._replace(hub=chosen.hub._replace(ref=sha)))
    assert imported()[0] == card
    latest = uploaded(6)
    followed = chosen.hub._replace(ref="main", known=latest[:7])  # looked up, but only the beginning was to be had
    monkeypatch.setitem(sets.SETS, "tatqa", chosen._replace(hub=followed))
    card, said = imported()
    assert card == {"path": "next-tat/TAT-QA", "revision": latest, "pinned": True}
    assert f"at commit {latest}, as pinned." in said
    newest = uploaded(9)
    card, said = imported()
    assert card == {"path": "next-tat/TAT-QA", "revision": newest, "pinned": False}
    assert f"hub:next-tat/TAT-QA has moved on from {latest[:7]}" in said


def test_files_are_compared_with_the_authors_by_their_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = _finqa_files(tmp_path / "f")
    known = {files[0].name: sha256_file(files[0]), files[1].name: "0" * 64}
    monkeypatch.setitem(sets.SETS, "finqa", sets.SETS["finqa"]._replace(shas=known))
    import_data("finqa", files, tmp_path / "data")
    card = describe_set("finqa", tmp_path / "data")
    assert card
    assert card["as_published"] == {files[0].name: True, files[1].name: False}
    said = " ".join(capsys.readouterr().err.split())
    assert f"By SHA-256 {files[0].name}: the authors' own to the byte." in said
    assert f"By SHA-256 {files[1].name}: a part or a copy, not the authors' own." in said


def test_csv_of_the_hub_is_the_rows_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {path.name: str(path) for path in report_sources(tmp_path, 20)["xfinbench_calc"]}
    datasets = importlib.import_module("datasets")
    load = datasets.load_dataset

    def here(kind: str, data_files: dict[str, str], split: str) -> Any:
        names = {name: url.rpartition("/")[2] for name, url in data_files.items()}
        assert all(url == f"hf://datasets/Zhihan/XFinBench@main/{names[key]}" for key, url in data_files.items())
        return load(kind, data_files={key: files[name] for key, name in names.items()}, split=split)

    monkeypatch.setattr(datasets, "load_dataset", here)
    for kind in ("truth", "choice", "calc"):
        chosen = sets.SETS[f"xfinbench_{kind}"]
        hub = [unit for unit in chosen.units(sets.hub_records(chosen.hub)) if isinstance(unit, sets.Unit)]
        local = [
            (record.row, record.place, chosen.detail(name))
            for name, path in files.items()
            for record in decoder_of(*expand([Path(path)], "*"), None)(*expand([Path(path)], "*"))
        ]
        own = [unit for unit in chosen.units(local) if isinstance(unit, sets.Unit)]
        assert [(unit.rows, unit.split) for unit in hub] == [(unit.rows, unit.split) for unit in own]
        assert len(own) == 29


# ---- bad input: recognised and said, nothing imported


def _finqa_files(folder: Path, **changes: Any) -> list[Path]:
    rows = {"train": [page(1), page(2)], "test": [page(3), {**page(4), **changes}]}
    made = []
    for split, records in rows.items():
        folder.mkdir(exist_ok=True)
        path = folder / f"{split}.json"
        path.write_text(json.dumps([{k: v for k, v in r.items() if v != "gone"} for r in records]), encoding="utf-8")
        made.append(path)
    return made


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pre_text": "gone"}, "entry 2: pre_text expected, found post_text, filename"),
        ({"qa": {"question": "q?", "exe_ans": float("nan")}}, "exe_ans, a number or yes or no, found 'nan'"),
        ({"qa": {"q": "q?"}}, "qa has a question and exe_ans"),
        ({"qa": {"question": "q?"}}, r"it has no answer \(exe_ans\): private_test.json comes without; give test.json"),
        ({"table": "a | b"}, "table is a list of rows"),
        ({"pre_text": [1]}, "the text is a list of sentences"),
        ({"annotation": {}}, "a conversation of ConvFinQA"),
    ],
)
def test_finqa_reserialised_by_others_is_recognised(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(FinbenchError, match=said):
        import_data("finqa", _finqa_files(tmp_path / "f", **changes), tmp_path / "data")
    assert not (tmp_path / "data" / "finqa").exists()


@pytest.mark.parametrize("printed", [str, json.dumps])
def test_lists_kept_as_text_are_read_back(printed: Any) -> None:
    """As CSV of pandas has them."""

    def texts(record: dict[str, Any], *keys: str) -> dict[str, Any]:
        return record | {key: printed(record[key]) for key in keys}

    keys = ("pre_text", "post_text", "table")
    assert read("finqa", texts(page(1), *keys, "qa")) == read("finqa", page(1))
    assert read("tatqa", texts(context(1), "table", "paragraphs", "questions")) == read("tatqa", context(1))
    assert read("convfinqa", texts(conversation(1), *keys, "annotation")) == read("convfinqa", conversation(1))
    thoughts = program_of_thoughts(1)
    assert read("convfinqa", texts(thoughts, "questions", "programs")) == read("convfinqa", thoughts)


@pytest.mark.parametrize(
    "shown", ["['a .' 'b .']", "['a .', 'b", "['a .', ...]", "['a .', nan]", "[" * 5000 + "]" * 5000]
)
def test_a_list_that_was_printed_and_cannot_be_read_back_is_refused(shown: str) -> None:
    shown = shown if shown.endswith("]") else shown + "]"
    with pytest.raises(sets.WrongFile, match=r"f:1: a list that was printed as text, .*; write it anew"):
        read("finqa", page(1) | {"pre_text": shown})
    with pytest.raises(sets.WrongFile, match="printed as text"):
        read("convfinqa", program_of_thoughts(1) | {"questions": shown})


GAPS = (None, float("nan"), "nan", "NaN")


@pytest.mark.parametrize("gap", GAPS)
def test_a_gap_of_a_table_is_an_empty_cell_and_never_an_answer(gap: Any) -> None:
    for name, record in (("finqa", page(1)), ("convfinqa", conversation(1))):
        record["table"][0][1] = gap
        assert read(name, record)[0].rows[0]["text"].splitlines()[2] == "|  |  |"
    thoughts = program_of_thoughts(1)
    thoughts["table"] = thoughts["table"].replace("2019", "nan")
    assert read("convfinqa", thoughts)[0].rows[0]["text"].startswith("| - |  |")
    asked = context(1)
    asked["table"]["table"][0][1] = gap
    assert read("tatqa", asked)[0].rows[0]["text"].startswith("|  |  | 2018 |")
    for answer in (gap, [gap], ["dies", gap]):
        asked = context(1)
        asked["questions"][1]["answer"] = answer
        fault, unit = read("tatqa", asked)
        assert "question 2: an answer is a text, a number or a list of them" in fault
        assert len(unit.rows) == 4
    record = page(1)
    record["qa"] |= {"answer": gap, "program": gap}
    (row,) = read("finqa", record)[0].rows
    assert (row["answer_published"], row["program"]) == ("", "")
    for name, record in (
        ("finqa", page(1) | {"pre_text": gap}),
        ("convfinqa", program_of_thoughts(1) | {"text": gap}),
        ("convfinqa", program_of_thoughts(1) | {"table": gap}),
    ):
        with pytest.raises(sets.WrongFile):
            read(name, record)
    (fault,) = read("convfinqa", program_of_thoughts(1) | {"answer": gap})
    assert "needs the answer of the last turn" in fault
    for asked in (context(1),):
        asked["questions"][0]["question"] = gap
        assert read("tatqa", asked)[0] == "f:1, question 1: not a question of TAT-QA"


def test_textbook_questions_that_are_gaps_are_no_questions() -> None:
    row = {
        "task": "bool",
        "question": "nan",
        "choice": "",
        "ground_truth": "1.0",
        "figure": "nan",
        "fin_capability": "",
    }
    for question in ("nan", float("nan")):
        assert [item.why for item in read("xfinbench_truth", row | {"question": question})] == [
            "its answer is not of its kind"
        ]


def test_line_ends_do_not_matter_and_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    files = _finqa_files(tmp_path / "f")
    for file in files:
        file.write_bytes(json.dumps(json.loads(file.read_text()), indent=1).replace("\n", "\r\n").encode())
    assert import_data("finqa", files, tmp_path / "data").rows["test"] == 2
    oid = "0" * 64
    files[1].write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 9171717\n")
    with pytest.raises(FinbenchError, match=r"test.json: a pointer of Git LFS") as fault:
        import_data("finqa", files, tmp_path / "other")
    assert "git lfs pull" in fault.value.hint
    assert not (tmp_path / "other").exists()


def test_tatqa_without_answers_and_single_turns_are_refused(tmp_path: Path) -> None:
    blind = context(1)
    file = tmp_path / "tatqa_dataset_test.json"
    for empty in ({"answer": None, "answer_type": None, "scale": None}, {"answer": "", "answer_type": ""}, {}):
        given = ("uid", "order", "question")
        blind["questions"] = [{key: one[key] for key in given} | empty for one in blind["questions"]]
        file.write_text(json.dumps([blind]))
        with pytest.raises(FinbenchError, match="tatqa_dataset_test.json comes without; give ..._test_gold.json"):
            import_data("tatqa", [file], tmp_path / "data")
    turn = conversation(1)
    turn["annotation"] |= {"turn_ind": 0, "cur_dial": ["what?"], "exe_ans": 1.0}
    file = tmp_path / "dev_turn.json"
    file.write_text(json.dumps([turn]))
    with pytest.raises(FinbenchError, match=r"one turn of a conversation; give the authors' train.json and dev.json"):
        import_data("convfinqa", [file], tmp_path / "data")
    blind = conversation(1)
    del blind["annotation"]["exe_ans_list"]
    file = tmp_path / "test_private.json"
    file.write_text(json.dumps([conversation(2), blind]))
    with pytest.raises(FinbenchError, match=r"entry 2: it has no answers \(exe_ans_list\): test_private.json comes"):
        import_data("convfinqa", [file], tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_answers_of_a_model_are_not_taken_for_the_set(tmp_path: Path) -> None:
    file = tmp_path / "lab-manual-split-combine-test-5768.csv"
    file.write_text("true_label,original_sent,text_output\n1,Rates rose.,HAWKISH\n")
    with pytest.raises(FinbenchError, match="answers of a model; score them with: finbench card import"):
        import_data("fomc", [file], tmp_path / "data")


# ---- Excel


@pytest.mark.parametrize("shared", [False, True])
def test_workbooks_are_read_as_tables(tmp_path: Path, shared: bool) -> None:
    rows = [("index", "sentence", "year", "label"), (7, "Rates & <risks> rose – 5%.", 2020, 1), (8, "Cut.", 1.5, 0)]
    file = workbook(tmp_path / "a.xlsx", rows, shared)
    found = list(read_rows(file))
    assert found == [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    with zipfile.ZipFile(tmp_path / "box.zip", "w") as box:
        box.write(file, "in/a.xlsx")
    (member,) = expand([tmp_path / "box.zip"], "*.xlsx")
    assert [record.row for record in decoder_of(member, None)(member)] == found


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not a zip", "not an Excel workbook"),
        ({}, "not an Excel workbook"),
        ({"xl/workbook.xml": "<!DOCTYPE a [<!ENTITY b 'c'>]><a/>"}, "entities"),
        ({"xl/workbook.xml": "<workbook/>", "xl/_rels/workbook.xml.rels": "<r/>"}, "not an Excel workbook"),
        ({"xl/workbook.xml": "<workbook>" + " " * (3 << 20) + "</workbook>"}, "a zip bomb"),
    ],
)
def test_hostile_workbooks_are_refused(tmp_path: Path, content: Any, said: str) -> None:
    file = tmp_path / "a.xlsx"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as book:
            for name, text in content.items():
                book.writestr(name, text)
    with pytest.raises(FinbenchError, match=said):
        import_data("fomc", [file], tmp_path / "data")


# ---- TAT-QA's scorer


@pytest.mark.parametrize(
    ("answer", "doc", "right"),
    [
        ("-12.6 million", tatqa("-12.6 million", "arithmetic", ["-12.6"], "million"), True),
        ("(12.60) million", tatqa("-12.6 million", "arithmetic", ["-12.6"], "million"), True),
        ("-12,600,000", tatqa("-12.6 million", "arithmetic", ["-12.6"], "million"), True),
        ("12.6 million", tatqa("-12.6 million", "arithmetic", ["-12.6"], "million"), False),
        ("-12.6", tatqa("-12.6 million", "arithmetic", ["-12.6"], "million"), False),
        ("-12.6 thousand", tatqa("-12.6 million", "arithmetic", ["-12.6"], "million"), False),
        ("9.51%", tatqa("9.51%", "arithmetic", ["9.51"], "percent"), True),
        ("9.51 percent", tatqa("9.51%", "arithmetic", ["9.51"], "percent"), True),
        ("0.0951", tatqa("9.51%", "arithmetic", ["9.51"], "percent"), True),
        ("9.51", tatqa("9.51%", "arithmetic", ["9.51"], "percent"), False),
        ("9.5%", tatqa("9.51%", "arithmetic", ["9.51"], "percent"), False),
        ("9.514%", tatqa("9.51%", "arithmetic", ["9.51"], "percent"), True),
        ("0", tatqa("0", "arithmetic", ["0"]), True),
        ("3", tatqa("3", "count", ["3"]), True),
        ("3.004", tatqa("3", "count", ["3"]), False),
        ("Moulds | the dies", tatqa("dies | moulds", "multi-span"), True),
        ("dies", tatqa("dies | moulds", "multi-span"), False),
        ("dies | moulds | dies", tatqa("dies | moulds", "multi-span"), False),
        ("$1,496.50 million", tatqa("$1,496.5 million", "span", ["$1,496.5"], "million"), True),
        ("1.4965 billion", tatqa("$1,496.5 million", "span", ["$1,496.5"], "million"), True),
        ("$1,496 million", tatqa("$1,496.5 million", "span", ["$1,496.5"], "million"), False),
        ("-1,212 million", tatqa("(1,212) million", "span", ["(1,212)"], "million"), True),
        ("1,212 million", tatqa("(1,212) million", "span", ["(1,212)"], "million"), False),
        ("a drop of 5", tatqa("a drop of -5"), False),
        ("", tatqa("dies"), False),
        ("<think>dies</think> moulds", tatqa("dies"), False),
        ("5 years", tatqa("5 years"), True), ("5 year", tatqa("5 years"), True), ("5", tatqa("5 years"), True),
        ("5 months", tatqa("5 years"), False), ("5 per year", tatqa("5 years"), False),
        ("$5/share", tatqa("$5 per share"), True), ("$5 a month", tatqa("$5 per share"), False),
        ("€5", tatqa("$5"), False), ("US$5", tatqa("$5"), True), ("500%", tatqa("$5"), False),
        ("€5 million", tatqa("$5 million", scale="million"), False), ("5x", tatqa("5"), True),
        # the sign and the point of a span, with a lead and without
        ("-12.6", tatqa("12.6"), False), ("- $5 million", tatqa("$5 million"), False), (".5", tatqa("5"), False),
        ("Answer: **-5**", tatqa("5"), False), ("-5 | 6", tatqa("5 | 6", "multi-span"), False),
        ("The answer is -168", tatqa("(168)"), True), ("The answer is (168) thousand", tatqa("(168) thousand"), True),
        ("The answer is -168", tatqa("168"), False), ("-5% in 2019", tatqa("5% in 2019"), False),
        ("- dies", tatqa("dies"), True), ("> (dies)", tatqa("dies"), True), ("• 5", tatqa("5"), True),
        # a share is no copy of a number without a unit, nor a count
        ("201900%", tatqa("2019"), False), ("400%", tatqa("4", "count"), False), ("0%", tatqa("0"), True),
        ("87%", tatqa("0.87", "arithmetic"), True), ("0.0951", tatqa("9.51%"), True),
    ],
)  # fmt: skip
def test_tatqa_compares_values_and_words(answer: str, doc: dict[str, Any], right: bool) -> None:
    scored = reports.score_tatqa(doc, [answer])
    assert scored["acc"] == float(right)
    assert scored["acc_lenient"] >= scored["acc"]
    assert scored[reports.KINDS[doc["kind"]]] == (1.0, float(right))


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("They are dies and moulds.", "moulds | dies", True), ("In 2018-2019", "2019 | 2018", True),
        ("It was 5 and 6 million", "5 million | 6 million", True), ("It was -5 | 6", "5 | 6", False),
        ("It lost 5,062 | (43) thousand", "(5,062) thousand | (43) thousand", False),
        ("It was -5,062 | -43 thousand", "(5,062) thousand | (43) thousand", True),
        ("It was -5% in 2019", "5% in 2019", False), ("It was 5", "5 | 6", False),
    ],
)  # fmt: skip
def test_several_spans_of_tatqa_keep_their_signs_in_leniency(answer: str, gold: str, right: bool) -> None:
    doc = tatqa(gold, "multi-span" if "|" in gold else "span")
    scored = reports.score_tatqa(doc, [answer])
    assert (scored["acc"], scored["acc_lenient"]) == (0.0, float(right))


def test_no_real_span_of_tatqa_is_right_with_another_sign(real_data: Path) -> None:
    (source,) = expand([real_data / "tatqa" / "tatqa_dataset_dev.json"], "*")
    units = read("tatqa", *(record.row for record in decoder_of(source, None)(source)))
    rows = [row for unit in units if isinstance(unit, sets.Unit) for row in unit.rows if row["kind"] == "span"]
    values = [(row, amount.value) for row in rows if (amount := reports.parse(row["answer"])) and amount.value]
    assert len(values) > 250
    for lead in ("", "The answer is "):
        said = [reports.score_tatqa(row, [f"{lead}{-value:f}"]) for row, value in values]
        assert sum(one["acc"] + one["acc_lenient"] for one in said) == 0
    assert all(reports.score_tatqa(row, [f"The answer is {row['answer']}"])["acc"] for row, _ in values)


def test_tatqa_accuracies_apart_are_means_of_their_kind() -> None:
    docs = [tatqa("1", "count"), tatqa("2", "count"), tatqa("dies"), tatqa("5", "arithmetic")]
    items = [reports.score_tatqa(doc, [answer])["acc_count"] for doc, answer in zip(docs, "19x5", strict=True)]
    assert reports.chosen_mean(items) == 0.5
    assert reports.chosen_mean([(0.0, 1.0)]) == 0.0
    found = metrics.summed("chosen_mean", items)
    assert found is not None
    assert found.statistic(found.parts.sum(axis=0)) == 0.5


@pytest.fixture
def official(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[types.ModuleType, types.ModuleType]]:
    """The authors' own scripts, run where they lie."""
    for name in ("tatqa", "finqa"):
        monkeypatch.syspath_prepend(str(real_data / name))
    for name in ("tqdm", "sympy", "pandas"):
        pytest.importorskip(name)
    modules = ("tatqa_metric", "tatqa_utils", "evaluate")
    hidden = {name: sys.modules.pop(name) for name in modules if name in sys.modules}
    yield importlib.import_module("tatqa_metric"), importlib.import_module("evaluate")
    for name in modules:
        sys.modules.pop(name, None)
    sys.modules.update(hidden)


def _theirs(script: Any, question: dict[str, Any], answer: Any, scale: str) -> tuple[float, float]:
    metric = script.TaTQAEmAndF1()
    metric(question, answer, scale)
    return float(metric._total_em), float(metric._total_f1)


def _spelt(answer: Any, scale: str) -> str:
    spans = [] if answer in (None, "") else answer if isinstance(answer, list) else [answer]
    return " | ".join(f"{span} {scale}".strip() for span in spans)


def test_em_and_f1_are_the_official_scripts_row_by_row(official: Any, real_data: Path) -> None:
    """On the authors' sample predictions; ours differs in two rows, each for a reason."""
    told = json.loads((real_data / "tatqa" / "sample_prediction.json").read_text(encoding="utf-8"))
    contexts = json.loads((real_data / "tatqa" / "tatqa_dataset_dev.json").read_text(encoding="utf-8"))
    questions = {question["uid"]: question for each in contexts for question in each["questions"]}
    rows = {row["uid"]: row for unit in read("tatqa", *contexts) if isinstance(unit, sets.Unit) for row in unit.rows}
    assert set(rows) < set(told)
    totals, differing = Counter[str](), []
    for uid in rows:
        answer, scale = told[uid]
        scored = reports.score_tatqa(rows[uid], [_spelt(answer, scale)])
        assert (scored["em"], scored["f1"]) == _theirs(official[0], questions[uid], answer, scale), (answer, scale)
        totals.update({"n": 1, "em": scored["em"], "acc": scored["acc"]})
        if scored["em"] != scored["acc"]:
            differing.append((answer, rows[uid]["answer"], scored["em"]))
    assert (totals["n"], totals["em"], totals["acc"]) == (1264, 582, 582)
    # a dollar sign moves a span in the order of the official comparison; a bracket is a sign, which it loses
    assert differing == [(["$26,069", "256,660"], "26,069 | 256,660", 0.0), (["(12,632)"], "12,632", 1.0)]


def test_gold_answers_are_right_and_officially_so(real_data: Path) -> None:
    for name in ("dev", "test_gold"):
        contexts = json.loads((real_data / "tatqa" / f"tatqa_dataset_{name}.json").read_text(encoding="utf-8"))
        rows = [row for unit in read("tatqa", *contexts) if isinstance(unit, sets.Unit) for row in unit.rows]
        scored = [reports.score_tatqa(row, [f" {row['answer']}\n"]) for row in rows]
        assert {one["acc"] for one in scored} == {one["em"] for one in scored} == {one["parse_rate"] for one in scored}
        assert all(one["acc"] == 1 for one in scored)


def test_random_answers_have_the_official_scripts_em_and_f1(official: Any) -> None:
    rng = random.Random(5)
    bits = ["1", "2", "0", ".", ",", "-", "(", ")", "%", "$", " ", "million", "thousand", "percent", "a ", "the ",
            "cash", "+", "'", "12.345", "1,234", "nan", "inf", "hundred", "e5", "_", ".5", "€"]  # fmt: skip
    for _ in range(4000):
        gold = ["".join(rng.choices(bits, k=rng.randint(1, 6))) for _ in range(rng.choice((1, 1, 2)))]
        said = [span + rng.choice(("", "%", " ", "0")) for span in gold] if rng.random() < 0.6 else gold[::-1]
        scale, own = rng.choice(("", "thousand", "percent")), rng.choice(("", "thousand", "percent"))
        question = {"answer": gold, "scale": scale, "answer_type": "multi-span"}
        try:
            expected = _theirs(official[0], question, list(said), own)
        except (ValueError, OverflowError):  # numbers that their script cannot hold
            continue
        assert reports.tatqa.official(said, own, gold, scale, False) == expected, (said, own, gold, scale)


# ---- FinQA's scorer


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("0.56197", "0.56197", True), ("56.2%", "0.56197", True), ("56 %", "0.56197", True), ("56.2", "0.56197", False),
        ("57%", "0.56197", False), ("0.6", "0.56197", False), ("-56.2%", "0.56197", False), ("1", "0.56197", False),
        ("56.2%", "56.197", True), ("0", "0.00327", False), ("0", "0", True), ("0.0", "0", True), ("-0.4%", "0", False),
        ("$8,953", "8953.33333", True), ("8,950", "8953.33333", False), ("8.95 thousand", "8953.33333", True),
        ("8,953.33 million", "8953.33333", False), ("9000", "8953.33333", False), ("(2.4)", "-2.4", True),
        ("2.4", "-2.4", False), ("Yes.", "yes", True), ("no", "yes", False), ("yes and no", "yes", False),
        ("yes, not really", "yes", False), ("1", "yes", False), ("yes", "1", False), ("0.00003", "0.00003", True),
        ("divide(25048, 44572)", "0.56197", True), ("divide(25048, 44573)", "0.56197", False),
        ("greater(3, 2)", "yes", True), ("divide(25048,44572)", "0.56197", True), ("greater(3,2)", "yes", True),
        ("subtract(25,048,44,572)", "-19524", False), ("divide(12,000,3)", "4000", True),
        ("divide(1,4),multiply(#0,2)", "0.5", True), ("divide(1, 2),", "0.5", True), ("56.2%, down", "0.56197", False),
        ("56.2% (a decrease)", "0.56197", False), ("-56.2%, down", "-0.56197", True), ("-56.2%, up", "-0.56197", False),
        ("0.562%", "0.56197", False), ("5 billion", "5", False), 
        ("0.562", "56.197", True), ("-0.562", "56.197", False), ("5.62", "56.197", False),
        ("The answer is 0.56197", "0.56197", True), ("1e400", "1", False),
    ],
)  # fmt: skip
def test_finqa_takes_rounding_as_printed_and_never_another_sign(answer: str, gold: str, right: bool) -> None:
    scored = reports.score_finqa({"answer": gold, "table": "[]"}, [answer])
    assert scored["acc"] == float(right)
    assert scored["acc_lenient"] >= scored["acc"]


PAGE = "| $ in millions | 2009 | 2008 |\n| -- | -- | -- |\n| sales | 380 | 360.5 |\n| tax rate | 38.4% | 37.1% |\n\n"
PAGE += "It has 5 directors and paid $2.5 billion for Bexley."


@pytest.mark.parametrize(
    ("answer", "gold", "right", "question", "program"),
    [
        # per cent: as the value that is stated, or where the row says that the gold is in it
        ("1.3%", "1.3", True, "by what percentage points did the tax rate rise?", "subtract(38.4, 37.1)"),
        ("0.013", "1.3", True, "by what percentage points did the tax rate rise?", "subtract(38.4, 37.1)"),
        ("-1.3%", "1.3", False, "by what percentage points did the tax rate rise?", "subtract(38.4, 37.1)"),
        ("0.4%", "0.4", True, "how did the tax rate change?", "subtract(37.5, 37.1)"),
        ("5.41%", "5.40943", True, "what percent of it?", "divide(19.5, 360.5), multiply(#0, const_100)"),
        ("5.41%", "5.40943", True, "what percent of it?", "divide(19.5,360.5),multiply(#0,const_100)"),
        ("0.0541", "5.40943", True, "what percent of it?", "divide(19.5, 360.5), multiply(#0, const_100)"),
        ("1.25%", "1.25", False, "what percent higher is it?", "divide(450, 360)"),
        ("125%", "1.25", True, "what percent higher is it?", "divide(450, 360)"),
        ("0.054%", "0.05409", False, "what percent of it?", "divide(19.5, 360.5)"),
        ("5%", "5", False, "how many directors are there?", ""),
        ("-2.4%", "-2.4", True, "what is the change in percentage points in the debt ratio?", "subtract(57.3, 59.7)"),
        ("80%", "80", False, "margin change in basis points?", "subtract(36%, 28%), multiply(#0, const_1000)"),
        ("19.5%", "19.5", False, "what was the change in sales?", "subtract(380, 360.5)"),
        ("38.4%", "38.4", True, "what was it in 2009?", ""),
        ("62.06%", "62.06", False, "assuming a return of 10 % , what was the profit?", "subtract(380, 317.94)"),
        # a scale word: the same
        ("19.5 million", "19.5", True, "what was the change in sales?", "subtract(380, 360.5)"),
        ("$0.0195 billion", "19.5", True, "what was the change in sales?", "subtract(380, 360.5)"),
        ("19.5 thousand", "19.5", False, "what was the change in sales?", "subtract(380, 360.5)"),
        ("19.5 billion", "19.5", False, "what was the change in sales?", "subtract(380, 360.5)"),
        ("2.5 billion", "2.5", True, "what was paid for bexley?", "add(2.5, 0)"),
        ("5 billion", "5", False, "what was paid?", "add(3, 2)"),
        ("1.05 million", "1.05409", False, "what is the ratio of sales?", "divide(380, 360.5)"),
        ("19.5 thousand", "19500", True, "what was the change in sales?", "subtract(380000, 360500)"),
    ],
)  # fmt: skip
def test_an_answer_is_read_in_the_unit_that_the_row_states(
    answer: str, gold: str, right: bool, question: str, program: str
) -> None:
    doc = {"answer": gold, "table": "[]", "text": PAGE, "question": question, "program": program}
    scored = reports.score_finqa(doc, [answer])
    assert scored["acc"] == float(right)
    assert scored["acc_lenient"] >= scored["acc"]


@pytest.mark.parametrize(
    ("answer", "gold", "right", "question", "before"),
    [
        ("1.3%", "1.3", True, "and the change?", ["38.4", "37.1"]),
        ("1.3 million", "1.3", False, "and the change, as a percentage?", ["38.4", "37.1"]),
        ("1.054%", "1.05409", False, "and that as a percentage?", ["380", "360.5"]),
        ("105.4%", "1.05409", True, "and that as a percentage?", ["380", "360.5"]),
        ("80%", "80", True, "how much is that in percentage?", ["0.8"]),
        ("19.5 million", "19.5", True, "and the change?", ["380", "360.5"]),
        ("19.5 billion", "19.5", False, "and the change?", ["380", "360.5"]),
        ("5 billion", "5", False, "how many directors?", []),
    ],
)  # fmt: skip
def test_a_turn_is_read_in_the_unit_of_the_turns_before(
    answer: str, gold: str, right: bool, question: str, before: list[str]
) -> None:
    history = [{"question": "?", "answer": one} for one in before]
    doc = {"answer": gold, "text": PAGE, "question": question, "history": history, "last": 1}
    assert reports.score_turn(doc, [answer])["acc"] == float(right)
    own = {"answers": [*before, gold], "questions": ["?"] * len(before) + [question], "text": PAGE}
    assert reports.score_conversation(own, ["\n".join([*before, answer])])["acc_last"] == float(right)


@pytest.mark.parametrize("name", ["finqa", "convfinqa", "xfinbench_calc"])
def test_real_golds_are_right_in_their_unit_and_never_with_another_sign_or_size(real_data: Path, name: str) -> None:
    files = {
        "finqa": sorted((real_data / "finqa").glob("finqa_*_of_*.json")),
        "convfinqa": [real_data / "convfinqa" / "convfinqa_dev.json"],
        "xfinbench_calc": [real_data / "xfinbench" / "validation_set.csv"],
    }
    sources = [source for file in files[name] for source in expand([file], "*")]
    records = [record.row for source in sources for record in decoder_of(source, None)(source)]
    score = {"finqa": reports.score_finqa, "convfinqa": reports.score_turn, "xfinbench_calc": reports.score_textbook}
    units = [unit for unit in read(name, *records) if isinstance(unit, sets.Unit)]
    rows = [row for unit in units for row in unit.rows if row["answer"] not in ("yes", "no") and float(row["answer"])]
    rows = rows[:: len(rows) // 140]

    def right(form: Any) -> float:
        return sum(score[name](row, [form(Decimal(row["answer"]))])["acc"] for row in rows) / len(rows)

    assert right(lambda gold: f"{gold:f}") == right(lambda gold: f"{100 * gold:f}%") == 1
    for factor in (-1, 10, 100, 1000, Decimal("0.1"), Decimal("0.001")):
        assert right(lambda gold, factor=factor: f"{factor * gold:f}") == 0
    assert right(lambda gold: f"{-gold:f}%") == right(lambda gold: f"{gold:f} trillion") == 0
    assert right(lambda gold: f"{gold:f}%") < 0.2  # per cent that are stored as such
    assert right(lambda gold: f"{gold:f} billion") < 0.1


def test_execution_accuracy_is_exact_and_lenient_forgives_words_and_a_hundred() -> None:
    doc = {"answer": "0.56197", "table": "[]"}
    assert [reports.score_finqa(doc, [a])["exe_acc"] for a in ("0.56197", "56.197%", "56.2%")] == [1.0, 1.0, 0.0]
    said = ["56.2", "The share is 25048 / 44572 = 56.2 %.", "It fell by 56.2 %: -56.2 %", "20% or 30%"]
    assert [reports.score_finqa(doc, [a])["acc_lenient"] for a in said] == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("answer", "right"),
    [("0.25", 1), ("25", 1), ("0.0025", 1), ("25%", 1), ("0.25%", 1), ("0.000025", 0), ("2500", 0), ("2500%", 0)],
)
def test_leniency_forgives_a_hundred_once(answer: str, right: int) -> None:
    doc = {"answer": "0.25", "table": "[]", "last": 1}
    assert [score(doc, [answer])["acc_lenient"] for score in (reports.score_finqa, reports.score_turn)] == [right] * 2


def test_leniency_pays_for_no_copy_of_a_page() -> None:
    doc = tatqa("dies | moulds", "multi-span")
    copied = "Norvane sells many things, " + "and more of them, " * 10 + "such as dies and moulds, in many lands."
    listed = " | ".join(map(str, range(20)))
    for said in (
        "They are dies and moulds.",
        "It sells dies and moulds. " + "The notes of the report say so too. " * 9,
    ):
        assert reports.score_tatqa(doc, [said])["acc_lenient"] == 1.0
    assert reports.score_tatqa(doc, [copied])["acc_lenient"] == 0.0
    assert reports.score_tatqa(tatqa("5 | 6", "multi-span"), [listed])["acc_lenient"] == 0.0


def test_programs_give_what_the_official_script_gives(official: Any, real_data: Path) -> None:
    records = [
        record
        for file in sorted((real_data / "finqa").glob("finqa_*_of_*.json"))
        for record in json.loads(file.read_text(encoding="utf-8"))
    ]
    rng = random.Random(2)
    operations = ("add", "subtract", "multiply", "divide", "exp", "greater")
    arguments = ("#0", "#1", "#3", "const_100", "const_m1", "5.2%", "12,000", "3", "-4", "0", "none", "abc")
    programs = [(record["qa"]["program"], record["table"]) for record in records]
    programs += [
        (", ".join(f"{rng.choice(operations)}({rng.choice(arguments)}, {rng.choice(arguments)})" for _ in range(n)), [])
        for n in (1, 2, 3)
        for _ in range(700)
    ]
    for program, table in programs:
        invalid, expected = official[1].eval_program(official[1].program_tokenization(program), table)
        found = reports.programs.execute(program, json.dumps(table))
        if invalid or expected == "n/a" or isinstance(expected, complex):
            assert found is None, program
        else:
            assert found == expected or (found != found and expected != expected), program
    for record in records:
        doc = {"answer": sets.reports.result_of(record["qa"]["exe_ans"]), "table": json.dumps(record["table"])}
        for answer in (doc["answer"], record["qa"]["program"]):
            scored = reports.score_finqa(doc, [answer])
            assert (scored["acc"], scored["exe_acc"]) == (1.0, 1.0)


def test_constants_reach_nothing_on_finqa(real_data: Path) -> None:
    records = json.loads((real_data / "finqa" / "finqa_dataset_dev.tatllm.json").read_text(encoding="utf-8"))
    golds = [sets.reports.result_of(record["resp"].partition(":")[2].strip()) for record in records]
    for guess in ("0", "1", "-1", "0.5", "50%", "10%", "1%", "100", "yes", "no"):
        right = sum(reports.score_finqa({"answer": gold, "table": "[]"}, [guess])["acc"] for gold in golds)
        assert right / len(golds) < 0.02, guess


@given(st.decimals(-(10**9), 10**9, places=5), st.integers(0, 6))
def test_any_rounding_of_a_number_to_three_figures_is_right(gold: Any, places: int) -> None:
    said = round(gold, places)
    scored = reports.score_finqa({"answer": f"{gold:f}", "table": "[]"}, [f"{said:f}"])
    assert scored["acc"] == float(abs(said - gold) <= max(abs(gold) * reports._RELATIVE, reports._FIFTH))
    if abs(gold) > 1:
        assert reports.score_finqa({"answer": f"{gold:f}", "table": "[]"}, [f"{-said:f}"])["acc"] == 0.0


def test_a_conversation_is_scored_turn_by_turn() -> None:
    doc = {"answers": ["105", "400", "0.2625"]}

    def of(answer: str) -> tuple[float, float]:
        scored = reports.score_conversation(doc, [answer])
        return round(scored["acc_turns"], 2), scored["acc_last"]

    assert of("1. 105\n2. 400\n3. 26.25%\n") == (1.0, 1.0)
    assert of("105\n400\n0.26") == (1.0, 1.0)
    assert of("2. 400\n1. 105") == (0.67, 0.0)
    assert of("0.2625") == (0.0, 0.0)
    assert of("") == (0.0, 0.0)
    for dressed in (
        "Answers:\n1. 105\n2. 400\n3. 0.2625", "Here are the answers:\n105\n400\n0.2625", "- 105\n- 400\n- 0.2625",
        "* 105\n* 400\n* 26.25%", "**1.** 105\n**2.** 400\n**3.** 0.2625", "**105**\n**400**\n**0.2625**",
        "1. **105**\n2. **400**\n3. **0.2625**", "- **105**\n- **400**\n- **0.2625**", "(1) 105\n(2) 400\n(3) 0.2625",
        "**Answers:**\n\n- 1. 105\n- 2. 400\n- 3. 0.2625",
    ):  # fmt: skip
        assert of(dressed) == (1.0, 1.0), dressed
    assert of("-105\n- 400\n-0.2625") == of("- -105\n- -400\n- -0.2625") == (0.0, 0.0)
    assert reports.score_conversation({"answers": ["-105"]}, ["- 105"])["acc_turns"] == 1.0  # one line is no list
    assert reports.score_turn({"answer": "400", "last": 1}, ["400"])["acc_last"] == (1.0, 1.0)


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [("23.05", "23.05", True), ("23.05%", "23.05", True), ("23.1", "23.05", True), ("23.3", "23.05", False),
     ("0.2305", "23.05", False), ("-20", "-20", True), ("20", "-20", False), ("$889", "889.2", True),
     ("384.65 million", "384650000", True), ("0", "0.0118", False), ("5 million", "5", False),
     # the gold prints two decimals; 3.05 is not 3, which prints none
     ("0.0183", "0.018", True), ("0.0187", "0.018", False), ("0.234", "0.23", True), ("3.05", "3", False),
     ("3.01", "3", True), ("50.5", "50", False)],
)  # fmt: skip
def test_textbook_calculations_within_half_a_per_cent(answer: str, gold: str, right: bool) -> None:
    assert reports.score_textbook({"answer": gold}, [answer])["acc"] == float(right)


@pytest.mark.parametrize(
    ("answer", "gold", "right", "question"),
    [("12.5%", "12.5", True, "How much? (Unit: percentage)"), ("0.8%", "0.8", True, "How much? (Unit: percent)"),
     ("0.8%", "0.8", False, "How much? (Unit: decimal)"), ("80%", "0.8", True, "How much? (Unit: decimal)"),
     ("12.5%", "12.5", False, "How much? (Unit: dollar)"), ("$5 million", "5", True, "How much? (Unit: million USD)"),
     ("5 billion", "5000", True, "How much? (Unit: million USD)"), ("5 million", "5", False, "How? (Unit: dollar)"),
     ("5 billion", "5", False, "How much? (Unit: million USD)"), ("9.2%", "9.2", True, "The rate? (Unit: per annum)"),
     ("0.092", "9.2", False, "What is the rate? (Unit: per annum)"), ("5%", "5", False, "At 7% p.a.How many are it?"),
     ("34.99%", "34.99", True, "It pays 5%.What is the implied volatility?"),
     ("0.2%", "0.2", False, "Ignore it.What is the expected return?")],
)  # fmt: skip
def test_textbook_answers_are_in_the_unit_that_is_asked_for(answer: str, gold: str, right: bool, question: str) -> None:
    assert reports.score_textbook({"answer": gold, "text": question}, [answer])["acc"] == float(right)


def test_shares_and_percentages_alike_in_the_count_of_xfinbenchs_authors() -> None:
    scored = [
        reports.score_textbook({"answer": "23.05"}, [a])["acc_published"] for a in ("0.2305", "23.05", "2305", "0")
    ]
    assert scored == [1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "attack", ["9" * 100_000, "(" * 50_000, "1 " * 50_000, "a|" * 50_000, ",1" * 50_000, "." * 99_999]
)
def test_long_answers_cost_little(attack: str) -> None:
    import time

    start = time.process_time()
    for scorer, doc in (
        (reports.score_tatqa, tatqa("-12.6 million", "arithmetic", ["-12.6"], "million")),
        (reports.score_tatqa, tatqa("dies | moulds")),
        (reports.score_finqa, {"answer": "0.5", "table": "[]"}),
        (reports.score_conversation, {"answers": ["1", "2"]}),
        (reports.score_textbook, {"answer": "5"}),
    ):
        scored = scorer(doc, [attack])
        assert scored.get("acc", scored.get("acc_turns")) == 0.0
    assert quick(time.process_time() - start, 2.0)


# ---- reasoning before the answer

REASONED = """The table says 44.1 in 2019 and 56.7 in 2018.
1. 44.1 - 56.7 = -12.6
So it fell by 22.22%, or 0.2222. Not 17, nor 3."""


@pytest.mark.parametrize(
    "name",
    ["tatqa", "finqa", "convfinqa", "convfinqa_own", "fomc", "numclaim", "xfinbench_truth", "xfinbench_choice",
     "xfinbench_calc", "xbrl_reason"],
)  # fmt: skip
def test_under_cot_the_answer_is_what_the_task_asks_for_at_the_end(name: str) -> None:
    """As models write it: the reasoning, then the form that the prompt has named; in a chat and without one."""
    task = catalog.tasks()[f"finbench_{name}"]
    lm_task = task_of_examples(task)
    for doc in prompts.rows(lm_task, "test"):
        shown = str(prompts.prompt(lm_task, doc, how=Generation(profile="cot")))
        assert shown.endswith(f"\n\n{prompts.REASONING}")
        assert "step by step" in shown
        assert not re.search(r"Answers?:\s*First", shown)  # the bare cue would be answered at once
        gold = str(lm_task.doc_to_target(doc)).strip()
        until = lm_task.config.generation_kwargs["until"]
        for raw, prompt in (
            (f"{REASONED}\nAnswer: {gold}", ""),
            (f"{REASONED}\n\n**Answer:** {gold}<|im_end|>", ""),
            (f"{REASONED}\nAnswer:\n{gold}\n\n", shown),
            (f"{REASONED}\nAnswer: {gold}\n\nQuestion: And 17?\nAnswer: 17\n", shown),
        ):
            given = taken_apart(
                raw, profile="cot", until=until, ended=not prompt, tokens=99, count=len, prompt=prompt,
                specials=("<|im_end|>",),
            )  # fmt: skip
            assert "44.1 in 2019" in given.reasoning
            scored = lm_task.process_results(doc, [given.text])
            assert _main(scored, task.main_metric), (given.text, gold)
        cut = taken_apart(REASONED, profile="cot", until=until, ended=False, tokens=99, count=len)
        assert not _main(lm_task.process_results(doc, [cut.text]), task.main_metric)


def _main(scored: dict[str, Any], metric: str) -> bool:
    """Whether an answer is right; macro-F1 has items of (gold, label)."""
    found = scored[metric]
    return bool(found == 1.0 if isinstance(found, float | int) else found[0] == found[1])


@pytest.mark.parametrize(
    ("name", "record", "hint"),
    [
        ("convfinqa", page(1), "It reads as a file of finqa: finbench data import finqa ..."),
        ("tatqa", page(1), "It reads as a file of finqa: finbench data import finqa ..."),
        ("finqa", context(1), "It reads as a file of tatqa: finbench data import tatqa ..."),
        ("finqa", {"any": 1}, "Is it a file of finqa? Its authors' are: train.json dev.json test.json finqa_*.json"),
    ],
)
def test_a_file_of_another_set_is_named(name: str, record: dict[str, Any], hint: str, tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_text(json.dumps([record]), encoding="utf-8")
    with pytest.raises(FinbenchError) as caught:
        import_data(name, [tmp_path / "dev.json"], tmp_path / "data")
    assert caught.value.hint == hint
    assert not (tmp_path / "data" / name).exists()


# ---- one family of pages


def test_pages_of_one_family_are_found_in_training_rows(tmp_path: Path) -> None:
    """Trained on FinQA, tested on ConvFinQA: the pages are the same, though the texts are laid out otherwise."""
    folder = tmp_path / "c"
    folder.mkdir()
    for split, numbers in (("train", range(5)), ("dev", range(20, 30))):
        (folder / f"{split}.json").write_text(json.dumps([program_of_thoughts(n) for n in numbers]))
    import_data("convfinqa", [folder], tmp_path / "data")
    index = contamination.Index(contamination.of_tests(tmp_path / "data"))
    trained = [row for n in range(18, 24) for unit in read("finqa", page(n), split="train") for row in unit.rows]
    found = index.overlap(trained)
    assert (found.found, found.looked_for) == ({"convfinqa": 4}, {"convfinqa": 10})  # a page counts once
    raw = index.overlap([page(n) for n in range(18, 24)])  # the authors' own file, read by somebody else's trainer
    assert raw.found["convfinqa"] == 4
    for spelt in ("{}", "{}-2", "Single_{}-1", "Double_{}-12", "{}#3"):
        named = [{"question": "What?", "id": spelt.format(page(n)["filename"]).upper()} for n in range(18, 24)]
        assert index.overlap(named).found == {"convfinqa": 4}, spelt
    assert index.overlap([{"text": "What else?", "document": "NRV/2010/page_99.pdf"}]).found == {}
    (line,) = contamination.of_one_family(["fpb", "finqa"])
    assert line.startswith("finqa and convfinqa, convfinqa_own ask about the same pages")


def _sentences(number: int, count: int = 30) -> list[str]:
    """A page of a report, as no other one is: sentences with figures."""
    draw = random.Random(number)
    words = [
        a + b for a in ("bel", "cor", "dan", "fen", "gor", "hul") for b in ("amont", "evis", "irak", "otol", "ust")
    ]
    return [" ".join([*draw.choices(words, k=12), str(draw.randrange(10**6)), *draw.choices(words, k=6)]) + " ."
            for _ in range(count)]  # fmt: skip


def _cells(number: int) -> list[list[str]]:
    draw = random.Random(-number)
    return [["", "2019", "2018"]] + [[f"item {n}", *(f"$ {draw.randrange(10**5)}" for _ in "ab")] for n in range(6)]


def _marked(cells: list[list[str]], row: str, cell: str) -> str:
    return "".join(row.format("".join(cell.format(value) for value in line)) for line in cells)


LAYOUTS: dict[str, Any] = {
    "TAT-LLM": lambda text, cells: {
        "user_prompt": "### Table\n" + _marked(cells, "|{}\n", "{} |")
        + "### Text\n" + "\n".join(f"{n} {one}" for n, one in enumerate(text, 1)) + "\n### Question\nWhat share?"
    },
    "authors": lambda text, cells: {"pre_text": text[:20], "post_text": text[20:], "table": cells},
    "HTML, the table first": lambda text, cells: {
        "messages": [{"role": "user", "content": _marked(cells, "<tr>{}</tr>", "<td>{}</td>") + " ".join(text)}]
    },
    "table by columns, sentences in another order": lambda text, cells: {
        "text": " ".join(reversed(text)).upper(), "table": json.dumps([*zip(*cells, strict=True)])
    },
    "half of the page": lambda text, cells: {"prompt": " ".join(text[:15])},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_page_is_found_however_a_row_lays_it_out(layout: str) -> None:
    """And without its name. A page of which few sentences are the same is another one."""
    texts, tables = [_sentences(n) for n in range(40)], [_cells(n) for n in range(40)]
    shown = [" ".join(text[:20]) + "\n\n" + sets.reports.markdown(cells, "t") + "\n\n" + " ".join(text[20:])
             for text, cells in zip(texts, tables, strict=True)]  # fmt: skip
    tests = [{"document": f"NRV/2010/page_{n}.pdf", "text": shown[n], "history": []} for n in range(20)]
    index = contamination.Index({"convfinqa": contamination.texts_of(tests)})
    assert index.texts == {"convfinqa": 20}
    rows = [LAYOUTS[layout](texts[n], tables[n]) for n in range(40)]
    assert index.overlap(rows[12:]).found == {"convfinqa": 8}
    assert index.overlap(rows[20:]).found == {}
    mixed = [LAYOUTS[layout](texts[n][:4] + texts[n + 20][4:], tables[n + 20]) for n in range(20)]
    assert index.overlap(mixed).found == {}


def test_what_pages_of_one_test_share_tells_none_of_them() -> None:
    notice = " ".join(_sentences(99, 60))
    tests = [{"document": f"A/2010/page_{n}.pdf", "text": f"{notice} {' '.join(_sentences(n, 8))}"} for n in range(4)]
    index = contamination.Index({"own": contamination.texts_of(tests)})
    assert index.overlap([{"text": notice}]).found == {}
    assert index.overlap([{"text": " ".join(_sentences(2, 8))}]).found == {"own": 1}


def test_one_page_in_two_sets_is_found_in_both() -> None:
    tests = [{"document": "A/2010/page_1.pdf", "text": " ".join(_sentences(1))}]
    index = contamination.Index({name: contamination.texts_of(tests) for name in ("one", "other")})
    assert index.overlap([{"text": " ".join(_sentences(1)[::-1])}]).found == {"one": 1, "other": 1}


def test_a_question_tells_the_page_where_the_row_holds_a_little_of_it() -> None:
    """Alone it tells nothing: the same is asked of many pages."""
    asked = "what share of the total obligations of 2011 is due to leases?"
    rows = [{"document": "A/2010/page_1.pdf", "text": " ".join(_sentences(1)), "question": asked}]
    rows += [{"document": "A/2010/page_2.pdf", "text": " ".join(_sentences(2)), "question": "What is the sum?"}]
    index = contamination.Index({"own": contamination.texts_of(rows)})
    little = " ".join(_sentences(1)[:5])
    assert index.overlap([{"q": asked.upper(), "page": little}]).found == {"own": 1}
    assert (
        index.overlap([{"q": asked}, {"page": little}, {"q": "What is the sum?", "page": _sentences(2)[:5]}]).found
        == {}
    )


def test_pages_of_tatqa_are_found_by_their_text_and_not_by_what_is_asked_of_many() -> None:
    asked = [f"What was the percentage change in {item} between 2018 and 2019?" for item in ("sales", "costs", "cash")]
    asked.append("What does the table show?")
    rows = [{"text": " ".join(_sentences(n)), "question": f"{question}{n}"} for n in range(8) for question in asked]
    index = contamination.Index({"tatqa": contamination.texts_of(rows)})
    assert index.texts == {"tatqa": 8}
    assert index.overlap([{"context": _sentences(3)[::-1], "answer": "5"}]).found == {"tatqa": 1}
    assert index.overlap([{"context": _sentences(30), "q": row["question"]} for row in rows]).found == {}


def test_real_pages_of_convfinqa_are_found_in_rows_of_finqa_and_in_few_others(real_data: Path) -> None:
    talks = json.loads((real_data / "convfinqa" / "convfinqa_dev.json").read_text(encoding="utf-8"))[:60]
    rows = [row for unit in read("convfinqa_own", *talks) for row in unit.rows]
    index, pages = contamination.Index({"c": contamination.texts_of(rows)}), {row["document"] for row in rows}
    asked = json.loads((real_data / "finqa" / "finqa_dataset_dev.tatllm.json").read_text(encoding="utf-8"))
    mine = [{"p": row["user_prompt"]} for row in asked if row["id"].rpartition("-")[0] in pages]
    others = [{"p": row["user_prompt"]} for row in asked if row["id"].rpartition("-")[0] not in pages][::4]
    assert index.overlap(mine).found["c"] == len(pages) == index.texts["c"]
    assert index.overlap(others).found.get("c", 0) <= 2  # one company's pages of two years


def test_all_pages_of_convfinqa_are_finqas(real_data: Path) -> None:
    talks = json.loads((real_data / "convfinqa" / "convfinqa_dev.json").read_text(encoding="utf-8"))
    asked = json.loads((real_data / "finqa" / "finqa_dataset_dev.tatllm.json").read_text(encoding="utf-8"))
    mine = {row["document"] for unit in read("convfinqa_own", *talks) for row in unit.rows}
    theirs = {row["document"] for unit in read("finqa", *asked) if isinstance(unit, sets.Unit) for row in unit.rows}
    assert len(mine) == 164
    assert mine <= theirs


def test_published_tests_are_never_ranked() -> None:
    published = {task.name for task in catalog.expand(["finbench_published"])}
    assert len(published) == 6
    assert not published & {task.name for task in catalog.expand(["finbench"])}


ODD: tuple[Any, ...] = (None, 5, -1.5, "x", "", [], {}, [[1]], [None], {"a": 1}, True, float("nan"))


def _odd(value: Any) -> Iterator[Any]:
    """Copies of a record with one part, however deep, replaced by something odd or taken away."""
    if isinstance(value, dict):
        for key in value:
            yield {name: part for name, part in value.items() if name != key}
            yield from ({**value, key: part} for part in (*ODD, *_odd(value[key])))
    elif isinstance(value, list) and value:
        yield from ([part, *value[1:]] for part in (*ODD, *_odd(value[0])))


@pytest.mark.parametrize(
    ("name", "record"),
    [("tatqa", context(1)), ("finqa", page(1)), ("convfinqa", conversation(1)), ("convfinqa", program_of_thoughts(1))],
)
def test_no_damage_to_a_record_is_more_than_a_fault_or_a_refusal(name: str, record: dict[str, Any]) -> None:
    for damaged in _odd(record):
        try:
            items = read(name, damaged)
        except sets.WrongFile:
            continue
        for item in items:
            rows = item.rows if isinstance(item, sets.Unit) else []
            assert all(isinstance(row["text"], str) and row["text"].strip() for row in rows)
            assert all(isinstance(row["answer"], str) and row["answer"] and row["question"] for row in rows)


@pytest.mark.parametrize(
    ("answer", "golds", "right"),
    [
        ("In fiscal 2019 and 2018, the main product was dies.", "dies", True),  # years of the question
        ("- dies\n- moulds\n\n" + 2 * "The table of segments says so for both of these years. ", "dies | moulds", True),
        (
            "The answers are:\n1. dies\n2. moulds\n\nThe table of segments says so for both years.",
            "dies | moulds",
            True,
        ),
        ("dies; moulds\n\nThe table of segments says so.", "dies | moulds", True),
        ("It is not dies.", "dies", False),
        ("dies? No.", "dies", False),
        ("Anything but dies.", "dies", False),
        ("I am not sure whether it is dies or moulds.", "dies", False),
        ("It could be dies, moulds, tools or forms.", "dies", False),
        ("neither dies nor moulds", "dies | moulds", False),
        ("4, 5, 6, 7", "5 | 6", False),
        ("...", "-", False),
    ],
)
def test_leniency_takes_lists_and_no_denials(answer: str, golds: str, right: bool) -> None:
    spans = golds.split(" | ")
    doc = {"answer": golds, "kind": "spans", "spans": str(spans), "scale": ""}
    doc["question"] = "what were the main products in 2019 and 2018?"
    assert reports.score_tatqa(doc, [answer])["acc_lenient"] == float(right)
