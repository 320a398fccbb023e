"""finbench/data/readers: files that are odd, huge or hostile are read exactly, or refused at once and in one line."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from conftest import processor_time, quick
from finbench.core import paths
from finbench.core.errors import FinbenchError
from finbench.data import readers as data_files
from finbench.data.sources import import_data
from make_data import sentences, write_sources

sets = paths.helper("sets")
TEXTS = [f"{text}@{label}" for text, label in sentences(60, 5)]


def phrases(folder: Path, text: str | None = None, name: str = "Sentences_50Agree.txt") -> Path:
    path = folder / name
    path.write_text("\n".join(TEXTS) + "\n" if text is None else text, encoding="utf-8")
    return path


def refused(name: str, path: Path, tmp_path: Path, **options: Any) -> str:
    """The message of an import that must fail within seconds and leave nothing."""
    start = processor_time()
    with pytest.raises(FinbenchError) as caught:
        import_data(name, [path], tmp_path / "data", **options)
    assert quick(processor_time() - start, 5)
    assert not list((tmp_path / "data").rglob("*.jsonl"))
    return caught.value.message


# ---------------------------------------------------------------- a sentence is read whole or not at all


def test_a_sentence_with_a_bad_line_is_left_out_whole(tmp_path: Path) -> None:
    path = tmp_path / "FIN5.txt"
    path.write_text("Acme NN O I-ORG\nbad line\nBank NN O I-ORG\n\nBob NN O I-PER\npaid VB O O\n", encoding="utf-8")
    found = list(data_files.decode_conll(data_files.SourceFile(path)))
    assert [record.row["tokens"] for record in found if not isinstance(record, str)] == [["Bob", "paid"]]
    assert [record for record in found if isinstance(record, str)] == [
        f"{path}:2: a line is token POS chunk tag, found 'bad line'"
    ]


@pytest.mark.parametrize("line", ["0,Bank", "5,,0,0", "9,Bank,0,0"], ids=["a field short", "no token", "a bad tag"])
def test_a_sentence_of_finer_ord_never_loses_a_word(tmp_path: Path, line: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text(f"gold_label,gold_token,doc_idx,sent_idx\n5,Acme,0,0\n{line}\n0,won,0,0\n", encoding="utf-8")
    if line.count(",") < 3:
        assert "another sentence" in refused("finer_ord", path, tmp_path, skip_bad=True)
    else:
        records = [(record.row, record.place, "train") for record in data_files.decode_csv(data_files.SourceFile(path))]
        assert [type(item) for item in sets.SETS["finer_ord"].units(records)] == [str]


def test_a_word_that_pandas_took_for_missing_is_read_as_it_was() -> None:
    table = [("5", "Acme"), ("0", "has"), ("0", None)]
    rows = [{"gold_label": tag, "gold_token": token, "doc_idx": 0, "sent_idx": 0} for tag, token in table]
    (unit,) = sets.SETS["finer_ord"].units([(row, "hub:1", "train") for row in rows])
    assert unit.text == "Acme has none"


def test_copies_of_a_sentence_that_differ_in_spacing_agree_on_their_entities() -> None:
    def unit(tokens: list[str], tags: list[str]) -> Any:
        (found,) = sets.SETS["fin_ner"].units([({"tokens": tokens, "tags": tags}, "x:1", "train")])
        return found

    one = unit(["Loan", "to", "Acme", "."], ["O", "O", "I-ORG", "O"])
    other = unit(["Loan", ",", "to", "ACME"], ["O", "O", "O", "I-ORG"])
    assert one.label == other.label
    assert one.label != unit(["Loan", "to", "Acme"], ["O", "O", "I-PER"]).label


# ---------------------------------------------------------------- time and memory are bounded


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("fin_math", {"context": "Use formula " * 30_000 + " to answer the question." * 10_000, "target": "1"}),
        ("finlora_ner", {"context": " '" * 100_000 + "\nOptions: x\nInput: " * 10_000, "target": "person"}),
        (
            "piqa",
            {"instruction": "Please choose the correct solution to the question: " * 20_000, "answer": "solution1"},
        ),
        ("nwgi", {"context": "Instruction: {strong negative/" * 30_000 + "\n" * 100_000, "target": "neutral"}),
        ("financebench", {"question": "q", "answer": "1" * 200_000 + "x", "evidence": [{"evidence_text": "e"}]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_row_made_to_stall_the_reader_is_read_in_no_time(name: str, row: dict[str, Any]) -> None:
    start = processor_time()
    with contextlib.suppress(sets.WrongFile):
        list(sets.SETS[name].units([({"doc_name": "", **row}, "x:1", "test")]))
    assert quick(processor_time() - start, 2)


def test_marks_in_brackets_go_as_upstream_takes_them() -> None:
    strip = sets.general._hellaswag_text
    assert strip("[header] Fold it [title] Now [step] go [substeps]on [open") == " Fold it. Now go on [open"
    start = processor_time()
    assert strip("[" * 300_000) == "[" * 300_000
    assert quick(processor_time() - start, 2)


def test_an_archive_of_many_members_opens_once(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(4000):
            archive.writestr(f"{number}/Sentences_50Agree.txt", f"Sentence number {number} of many.@neutral\n")
    start = processor_time()
    assert sum(import_data("fpb", [path], tmp_path / "data").rows.values()) == 4000
    assert quick(processor_time() - start, 20)


@pytest.mark.parametrize(("suffix", "cap"), [("txt", "_LINE"), ("json", "_DOCUMENT")])
def test_what_cannot_be_held_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, cap: str) -> None:
    monkeypatch.setattr(data_files, cap, 1000)
    name = {"txt": "fpb", "json": "fiqa_sa"}[suffix]
    path = phrases(tmp_path, "x" * 5000 + "@neutral\n", f"task1_headline_ABSA_train.{suffix}")
    assert {"txt": "a line of more than 1,000 characters", "json": "a JSON document of 5,009 bytes"}[suffix] in refused(
        name, path, tmp_path
    )


def test_a_pipe_and_a_device_are_no_files(tmp_path: Path) -> None:
    pipe = tmp_path / "Sentences_50Agree.txt"
    os.mkfifo(pipe)
    assert "not a file or folder" in refused("fpb", pipe, tmp_path)
    assert "not a file or folder" in refused("fpb", Path("/dev/zero"), tmp_path)


def test_old_macintosh_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "Sentences_50Agree.txt"
    path.write_bytes("\r".join(TEXTS).encode())
    assert "carriage returns alone" in refused("fpb", path, tmp_path)


def test_a_full_disk_for_temporary_rows_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sets.Divided, "_divide", full)
    path = phrases(tmp_path)
    assert "database or disk is full" in refused("fpb", path, tmp_path)
    assert list(tmp_path.iterdir()) == [path]  # nor what lay there meanwhile


def test_what_a_killed_import_left_is_swept_up_a_day_later(tmp_path: Path) -> None:
    data = tmp_path / "data"
    names = (".fpb.abcd_123.finbench-staging", ".fpb.abcd_124.finbench-staging", ".fpb.abcd_125.finbench-staging.old")
    old, new, aside = (data / name for name in names)
    # a user's own, however old: backups, other sets', and a link with our name
    theirs = [data / name for name in (".fpb.backup", ".fpb.old", ".fpb.20240101", ".fpb2.abcd_123.finbench-staging")]
    theirs += [data / ".fpb.abcdefgh", data / ".fpb.backup.finbench-staging", tmp_path / "elsewhere"]
    for folder in (old, new, aside, *theirs):
        folder.mkdir(parents=True)
        (folder / "rows").write_text("x")
    link = data / ".fpb.abcd_126.finbench-staging"
    link.symlink_to(tmp_path / "elsewhere")
    for folder in (old, aside, *theirs):
        os.utime(folder, (time.time() - 100_000,) * 2)
    import_data("fpb", [phrases(tmp_path)], data)
    assert not old.exists()
    assert not aside.exists()
    assert new.exists()  # it may be of an import that runs
    assert all((folder / "rows").is_file() for folder in theirs)
    assert link.is_symlink()


# ---------------------------------------------------------------- one set's file is not another's


@pytest.mark.parametrize(
    ("name", "prompt", "count"),
    [
        ("finlora_tfns", "Instruction: What is the sentiment of this news?", 1),
        ("finlora_fpb", "Instruction: What is the sentiment of this tweet?", 1),
        ("finlora_ner", "Instruction: What is the sentiment of this news?", 1),
        ("finlora_fin_math", "What is the entity type of 'Acme'?\nOptions: x", 1),
        ("finlora_fiqa", "Instruction: What is the sentiment of this news?", 236),
    ],
)
def test_another_sets_prompts_are_refused(tmp_path: Path, name: str, prompt: str, count: int) -> None:
    path = tmp_path / "finlora_x_test.jsonl"
    row = {"context": f"{prompt}\nInput: A\nAnswer: ", "target": "positive"}
    path.write_text((json.dumps(row) + "\n") * count, encoding="utf-8")
    assert "here are more" in refused(name, path, tmp_path) if count > 1 else "says" in refused(name, path, tmp_path)


def test_whole_numbers_with_a_point_are_codes_too() -> None:
    (unit,) = sets.SETS["tfns"].units([({"text": "Up", "label": "1.0"}, "x:1", "test")])
    assert unit.label == "positive"
    (unit,) = sets.SETS["fpb"].units([({"sentence": "Up", "label": "2.0"}, "x:1", "50")])
    assert unit.label == "positive"
    row = {"goal": "g", "sol1": "a", "sol2": "b", "label": "1.0"}
    (unit,) = sets.SETS["piqa"].units([(row, "x:1", "test")])
    assert unit.rows[0]["label"] == 1


@pytest.mark.parametrize("answer", ["1,2,3", ",,", "12,34", "1.2.3", "(5", "5)"])
def test_what_only_looks_like_a_number_is_no_gold(answer: str) -> None:
    row = {"question": "q", "answer": answer, "evidence": [{"evidence_text": "e"}], "doc_name": "d"}
    (item,) = sets.SETS["financebench"].units([(row, "x:1", "test")])
    assert isinstance(item, sets.Drop)
    context = "Use formula A to answer the question. Formula: a, Explanation: b Question: c. Answer:"
    (item,) = sets.SETS["fin_math"].units([({"context": context, "target": answer}, "x:1", "test")])
    assert isinstance(item, str)


@pytest.mark.parametrize("answer", ["$1,577.00", "(1,234)", "-0.02", "8.70%", "$ 5", ".5", "-$3.5"])
def test_a_number_as_accountants_write_it_is_gold(answer: str) -> None:
    row = {"question": "q", "answer": answer, "evidence": [{"evidence_text": "e"}], "doc_name": "d"}
    (item,) = sets.SETS["financebench"].units([(row, "x:1", "test")])
    assert isinstance(item, sets.Unit)


def test_the_kind_of_a_fiqa_text_is_told_by_its_own_file(tmp_path: Path) -> None:
    path = tmp_path / "post.zip"
    entry = {"sentence": "Acme rose", "info": [{"sentiment_score": "0.5", "target": "Acme"}]}
    with zipfile.ZipFile(path, "w") as archive:
        for split in ("train", "test"):
            rows = {f"{split}{number}": {**entry, "sentence": f"Acme {split} {number}"} for number in range(30)}
            archive.writestr(f"task1_headline_ABSA_{split}.json", json.dumps(rows))
    import_data("fiqa_sa", [path], tmp_path / "data")
    lines = (tmp_path / "data" / "fiqa_sa" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["kind"] for line in lines} == {"headline"}


@pytest.mark.parametrize("name", ["notes.txt", "train.jsonl", "deeper/rows.csv"])
def test_an_import_beside_the_authors_files_removes_none(tmp_path: Path, name: str) -> None:
    """``data import tfns data/tfns --data-dir data``: where the rows go is where the files lay."""
    folder = tmp_path / "data" / "tfns"
    source = write_sources(tmp_path / "sources")["tfns"]
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("mine")
    with pytest.raises(FinbenchError, match=f"holds other files .{name.partition('/')[0]}"):
        import_data("tfns", source, tmp_path / "data")
    assert (folder / name).read_text() == "mine"
    (folder / name).unlink()
    if name == "notes.txt":
        import_data("tfns", source, tmp_path / "data")
        import_data("tfns", source, tmp_path / "data")  # its own it replaces
        (folder / name).write_text("mine")
        with pytest.raises(FinbenchError, match="holds other files"):
            import_data("tfns", source, tmp_path / "data")
