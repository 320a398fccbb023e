"""Rows of one's own: formats, faults, the mask of conversations, tokens as lm-eval splits them, records."""

from __future__ import annotations

import contextlib
import csv
import gzip
import importlib.util
import itertools
import json
import os
import random
import re
import resource
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from make_reports import workbook
from safetensors.torch import load_file

import finbench
from conftest import files_of, make_llama, processor_time, quick, upload
from finbench.cli import show
from finbench.cli.command import columns
from finbench.core import catalog
from finbench.core.errors import FinbenchError
from finbench.core.files import sha256_file
from finbench.core.records import Adapter, OwnData
from finbench.data import audit, own
from finbench.hub.dev.server import DevHub
from finbench.models import adapters, bases
from finbench.scoring import prompts
from finbench.training import batches, loops, own_rows, recipes, runner, tuning
from finbench.training.encoding import Rendered, RowEncoder
from finbench.training.token_rows import TokenWriter

PAIR = {"prompt": "How did sales do?", "completion": "They rose."}
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Did sales rise?"},
    {"role": "assistant", "content": "Yes, by 4 %."},
    {"role": "user", "content": "And costs?"},
    {"role": "assistant", "content": "They fell."},
]


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def recipe(base: Path, data: Any, **overrides: Any) -> Any:
    stated = {"base": str(base), "data": data, "batch_size": 8, "rank": 4, "dtype": "float32", "lr": 1e-2}
    return recipes.recipe(None, {**stated, **overrides})


def rows_of(base: Path, data: Any, **overrides: Any) -> list[tuple[str, str]]:
    """What is learnt: of each row the text without loss before the first answer, and the rest, as decoded."""
    run = runner.prepare(recipe(base, data, **overrides))
    tokenizer = bases.load_tokenizer(run.base)
    return [(tokenizer.decode(row.ids[: row.prompt]), tokenizer.decode(row.ids[row.prompt :])) for row in run.rows]


# ---------------------------------------------------------------- formats


def test_each_format_is_recognised_and_rendered(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = lines(tmp_path / "pairs.jsonl", [{**PAIR, "id": 7}])
    assert rows_of(llama, str(pairs)) == [("How did sales do?", " They rose.<|end|>")]
    assert "pairs.jsonl: prompt and completion, 1 rows; not used: id" in capsys.readouterr().err
    alpaca = [{"instruction": "Name the label.", "input": "Sales rose.", "output": "positive"}]
    alpaca += [{"instruction": "Name it.", "input": "", "output": "x"}]
    made = rows_of(llama, str(lines(tmp_path / "alpaca.jsonl", alpaca)))
    assert made == [("Name the label.\nSales rose.", " positive<|end|>"), ("Name it.", " x<|end|>")]
    text = rows_of(llama, str(lines(tmp_path / "text.jsonl", [{"text": "Costs fell."}])))
    assert ["".join(row) for row in text] == ["Costs fell.<|end|>"]
    assert text[0][0] in "Costs"  # what nothing stands before cannot be predicted
    ended = [{"prompt": "a", "completion": "b<|end|>"}, {"prompt": "c", "completion": "d"}]
    ended_rows = rows_of(llama, str(lines(tmp_path / "ended.jsonl", ended)))
    assert ended_rows == [("a", " b<|end|>"), ("c", " d<|end|>")]
    whole = rows_of(llama, str(lines(tmp_path / "whole.jsonl", [{"text": "Costs fell.<|end|>"}])))
    assert whole == text
    shares = [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}]
    assert rows_of(llama, str(lines(tmp_path / "share.jsonl", shares))) == [("<user>a\n<assistant>", "b<|end|>")]


def test_all_ways_to_write_the_same_rows_teach_the_same(llama: Path, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"Question": f'What is {i}, "really"?\nSay it.', "Answer": f"It is {i}."} for i in range(5)]
    lines(tmp_path / "a.jsonl", rows)
    (tmp_path / "b.json").write_text(json.dumps(rows))
    for name, delimiter in (("c.csv", ","), ("d.csv", ";")):
        with (tmp_path / name).open("w", newline="", encoding="utf-8-sig") as handle:
            writer = csv.DictWriter(handle, ["Question", "Answer"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    (tmp_path / "e.csv").write_bytes((tmp_path / "c.csv").read_text(encoding="utf-8-sig").encode("utf-16"))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "f.parquet")
    folder = tmp_path / "folder"
    folder.mkdir()
    lines(folder / "train.jsonl", rows)
    lines(folder / "test.jsonl", [{"Question": "held", "Answer": "out"}])
    (folder / "dataset_info.json").write_text("{}")
    (folder / "README.md").write_text("# Rows")
    mapped = {"map": {"prompt": "Question", "completion": "Answer"}}
    first = rows_of(llama, "a.jsonl" if False else str(tmp_path / "a.jsonl"), **mapped)
    assert len(first) == 5
    for name in ("b.json", "c.csv", "d.csv", "e.csv", "f.parquet", "folder"):
        assert rows_of(llama, str(tmp_path / name), **mapped) == first, name


@pytest.mark.parametrize(
    ("columns", "said", "typed"),
    [
        (["question", "answer"], "no known format", "--map prompt=question,completion=answer"),
        (["text", "label"], "looks like their answers", "--map prompt=text,completion=label"),
        (["prompt", "completion", "text"], "can be read by", "--map prompt=prompt,completion=completion"),
        (["prompt", "chosen", "rejected"], "no known format", "--map prompt=prompt,completion=chosen"),
        (["messages", "prompt", "completion"], "can be read by", "--map messages=messages"),
    ],
)
def test_what_is_ambiguous_or_unknown_is_refused_with_what_to_type(
    columns: list[str], said: str, typed: str, tmp_path: Path
) -> None:
    path = lines(tmp_path / "x.jsonl", [dict.fromkeys(columns, "some words")])
    with pytest.raises(FinbenchError, match=said) as fault:
        own.survey(own.locate(recipes._own(str(path), None)[0]))
    assert typed in fault.value.hint


# ---------------------------------------------------------------- bad input

BAD: dict[str, tuple[str, bytes, str]] = {  # what is wrong -> (file, bytes, what is said, as a pattern)
    "no header": (
        "a.csv",
        b"Sales rose by 3 %,positive\nCosts fell.,negative\n",
        r"a\.csv:1: its header.*looks like a row",
    ),
    "one column": ("a.csv", b"prompt|completion\tx\nq,a\n", r"a\.csv"),
    "wrong delimiter": ("a.tsv", b"prompt,completion\nq,a\n", r"a\.tsv:1: .*one column, 'prompt,completion'"),
    "twice": ("a.csv", b"prompt,prompt,completion\nq,a,b\n", r"a\.csv:1: a column occurs twice"),
    "open quote": ("a.csv", b'prompt,completion\nq,"a\nq,b\nq,c\n', r"a\.csv:\d+: not valid CSV"),
    "fields": ("a.csv", b"prompt,completion\nq,a\nq,a,b\n", r"a\.csv:3: 3 fields, the header has 2"),
    "empty answer": ("a.csv", b"prompt,completion\nq,a\nr,\n", r"a\.csv:3: its completion is empty"),
    "empty prompt": ("a.csv", b"prompt,completion\nq,a\n ,b\n", r"a\.csv:3: its prompt is empty"),
    "an answer that nobody sees": (
        "a.jsonl",
        b'{"prompt": "q", "completion": "a"}\n{"prompt": "r", "completion": "\\u200b \\u0000\\ufeff"}\n',
        r"a\.jsonl:2: its completion is empty",
    ),
    "a turn that nobody sees": (
        "a.jsonl",
        b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "\\u200b"}]}\n',
        r":1: its turn 2, of the assistant, is empty",
    ),
    "empty file": ("a.jsonl", b"", r"a\.jsonl: the file is empty"),
    "only a header": ("a.csv", b"prompt,completion\n", r"no row follows the header"),
    "latin-1": ("a.csv", "prompt,completion\nq,a\nCafé,b\n".encode("latin-1"), r"a\.csv:3: not UTF-8"),
    "latin-1 in tabs": ("a.tsv", "prompt\tcompletion\nCafé\tb\n".encode("latin-1"), r"a\.tsv:2: not UTF-8"),
    "utf-16 without a mark": ("a.csv", "prompt,completion\nq,a\n".encode("utf-16-le"), r"a\.csv:1: a NUL character"),
    "utf-32": ("a.csv", "prompt,completion\nq,a\n".encode("utf-32"), r"a\.csv:1: UTF-32, which is not read"),
    "utf-32 without a mark": ("a.csv", "prompt,completion\nq,a\n".encode("utf-32-be"), r"a\.csv:1: a NUL character"),
    "torn": ("a.jsonl", b'{"prompt": "q", "completion": "a"}\n{"prompt": "q", "comp', r"a\.jsonl:2: not valid JSON"),
    "a key twice": (
        "a.jsonl",
        b'{"prompt": "q", "completion": "a", "completion": "b"}\n',
        r"'completion' is there twice",
    ),
    "surrogate": (
        "a.jsonl",
        b'{"prompt": "q", "completion": "a"}\n{"prompt": "\\ud83d", "completion": "b"}\n',
        r":2: .*lone surrogate",
    ),
    "nan": (
        "a.jsonl",
        b'{"prompt": "q", "completion": "a"}\n{"prompt": "q", "completion": NaN}\n',
        r":2: its completion is nan",
    ),
    "null": (
        "a.jsonl",
        b'{"prompt": "q", "completion": "a"}\n{"prompt": "q", "completion": null}\n',
        r":2: its completion is missing",
    ),
    "nested": (
        "a.jsonl",
        b'{"prompt": {"q": 1}, "completion": "b"}\n{"prompt": "q", "completion": "b"}\n',
        r":1: its prompt is an object",
    ),
    "turns": (
        "a.jsonl",
        b'{"prompt": [{"role": "user", "content": "q"}], "completion": "b"}\n',
        r":1: its prompt is a list, no text \(turns are read from one column, messages\)",
    ),
    "true": (
        "a.jsonl",
        b'{"prompt": "q", "completion": true}\n{"prompt": "q", "completion": "b"}\n',
        r":1: its completion is true",
    ),
    "mixed formats": (
        "a.jsonl",
        b'{"prompt": "q", "completion": "b"}\n{"messages": []}\n',
        r":2: its prompt is missing",
    ),
    "a list": ("a.jsonl", b'{"prompt": "q", "completion": "b"}\n["q"]\n', r":2: a JSON object is expected"),
    "gz": ("a.jsonl.gz", gzip.compress(b"{}"), r"a\.jsonl\.gz is compressed"),
    "a pickle": ("a.bin", b"\x80", r"do not end with \.bin"),
    "no answer": ("a.jsonl", b'{"messages": [{"role": "user", "content": "q"}]}\n', r":1: nobody answers in it"),
    "unasked": (
        "a.jsonl",
        b'{"messages": [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "q"}]}\n',
        r":1: its first turn is of the assistant",
    ),
    "a tool": (
        "a.jsonl",
        b'{"messages": [{"role": "user", "content": "q"}, {"role": "tool", "content": "a"}]}\n',
        r":1: its turn 2 calls a tool",
    ),
    "a role": (
        "a.jsonl",
        b'{"messages": [{"role": "narrator", "content": "q"}]}\n',
        r":1: its turn 1 is of 'narrator'",
    ),
    "no turns": ("a.jsonl", b'{"messages": "hello"}\n', r":1: its messages are no list of turns"),
    "an empty turn": (
        "a.jsonl",
        b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": ""}]}\n',
        r":1: its turn 2, of the assistant, is empty",
    ),
    "thoughts": (
        "a.jsonl",
        b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "thinking": "b"}]}\n',
        r":1: its turn 2 has thinking, which is not learnt",
    ),
    "a weight": (
        "a.jsonl",
        b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0}]}\n',
        r":1: its turn 2 is marked as one not to learn",
    ),
    "a document": ("a.jsonl", b'[{"prompt": "q", "completion": "a"}]\n', r"a\.jsonl: .*call the file \.json"),
    "quotes in tabs": ("a.tsv", b'prompt\tcompletion\nq\ta\n"q" r\tb\n', r"a\.tsv:3: not valid CSV"),
    "torn parquet": ("a.parquet", b"PAR1xxxx", r"a\.parquet: not valid Parquet"),
}


@pytest.mark.parametrize("encoding", ["utf-32", "utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_another_encoding_is_named_as_what_it_is(encoding: str, mark: str, tmp_path: Path) -> None:
    rows = f"{mark}prompt,completion\nq,a\nr,b\n"
    (tmp_path / "a.csv").write_bytes(rows.encode(encoding))
    stated = recipes._own(str(tmp_path / "a.csv"), None)[0]
    if mark and "16" in encoding:
        assert len(own.survey(own.locate(stated)).kept) == 2
        return
    with pytest.raises(FinbenchError) as fault:
        own.survey(own.locate(stated))
    marked = mark or encoding == "utf-32"  # which tells the order
    said = "UTF-32" if marked else encoding[:6].upper() + encoding[7:].upper()
    assert f"iconv -f {said} -t UTF-8" in fault.value.hint


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_named_with_its_line_and_never_trained_on(what: str, llama: Path, tmp_path: Path) -> None:
    name, content, said = BAD[what]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FinbenchError, match=said) as fault:
        runner.train(recipe(llama, str(tmp_path / name)), tmp_path / "out")
    assert fault.value.hint
    assert not (tmp_path / "out" / "finbench.json").exists()


def test_who_has_only_torn_lines_is_not_sent_to_the_command_that_found_them(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "completion": }\n')
    with pytest.raises(FinbenchError, match=r"^bad\.jsonl: no rows \(1: not valid JSON") as fault:
        runner.prepare(recipe(llama, str(tmp_path / "bad.jsonl")))
    assert fault.value.hint == "Correct line 1 and those like it, or leave the file out."


def test_json_lines_in_a_json_file_and_quoted_cells_between_tabs_are_read(llama: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f'Say\t{n}\n"so".', "completion": f"{n}\u2028 done"} for n in range(3)]
    same = [('Say\t0\n"so".', " 0\u2028 done<|end|>")]
    path = lines(tmp_path / "lines.json", rows[:1])  # of one row it is a document: an object of columns
    with pytest.raises(FinbenchError, match=r"lines\.json: no rows"):
        runner.prepare(recipe(llama, str(path)))
    assert rows_of(llama, str(lines(path, rows)))[:1] == same
    path.write_text("\n" + path.read_text().replace("\n", "\r\n"))
    assert rows_of(llama, str(path))[:1] == same
    (tmp_path / "list.json").write_text(json.dumps(rows, indent=1))
    with (tmp_path / "sheet.tsv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, ("prompt", "completion"), dialect="excel-tab")
        writer.writeheader()
        writer.writerows(rows)
    digests = {runner.prepare(recipe(llama, str(file))).data[0].digest for file in sorted(tmp_path.glob("*.*"))}
    assert len(digests) == 1


def test_carriage_returns_inside_texts_and_columns_without_a_name_are_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b',prompt,completion\r\n0,"q\r\nr",a\r\n1,s,b\r\n')
    found = own.survey(own.locate(recipes._own(str(tmp_path / "a.csv"), None)[0]))
    assert found.said.endswith("not used: ''")
    assert found.warnings() == ["Carriage returns stand in texts, and are learnt (a.csv:2)."]


def test_a_row_that_two_files_have_is_learnt_once(llama: Path, tmp_path: Path) -> None:
    more = {"prompt": "How did costs do?", "completion": "They fell."}
    first, second = lines(tmp_path / "a.jsonl", [PAIR]), lines(tmp_path / "b.jsonl", [more, PAIR, PAIR])
    run = runner.prepare(recipe(llama, [str(first), str(second)]))
    assert [(part.rows, part.dropped) for part in run.data] == [(1, {}), (1, {"copies": 2})]
    for named in ([str(second), str(first)], [str(first), str(first)]):
        with pytest.raises(FinbenchError, match=r"No row of a\.jsonl is left .* \(left out: 1 copies\)") as caught:
            runner.prepare(recipe(llama, named))
        assert caught.value.hint.startswith("Is it named twice? Sources before it have all of its rows")
        assert caught.value.hint.endswith("--data a.jsonl:2")
    assert len(runner.prepare(recipe(llama, f"{second}:2")).rows) == 4
    found = finbench.check_data(recipe(llama, [str(second), str(first)]))
    assert [one.fault is None for one in found] == [True, False]


def test_missing_and_empty_places_are_named(tmp_path: Path, llama: Path) -> None:
    lines(tmp_path / "mine.jsonl", [PAIR])
    with pytest.raises(FinbenchError, match=r"No such file.*Did you mean .*mine\.jsonl"):
        recipe(llama, str(tmp_path / "mien.jsonl"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FinbenchError, match="holds no file called"):
        recipe(llama, str(tmp_path / "empty"))
    (tmp_path / "held").mkdir()
    lines(tmp_path / "held" / "test.jsonl", [PAIR])
    with pytest.raises(FinbenchError, match="only rows to test on"):
        recipe(llama, str(tmp_path / "held"))
    lines(tmp_path / "held" / "more.jsonl", [PAIR])
    (tmp_path / "held" / "old.csv.gz").write_bytes(gzip.compress(b"prompt,completion\nq,a\n"))
    with pytest.raises(FinbenchError, match=r"holds what is compressed: old\.csv\.gz") as fault:
        recipe(llama, str(tmp_path / "held"))
    assert "gunzip -k" in fault.value.hint
    with pytest.raises(FinbenchError, match="has no column 'promt'"):
        runner.prepare(recipe(llama, str(tmp_path / "mine.jsonl"), map={"prompt": "promt"}))
    with pytest.raises(FinbenchError, match="Unknown column 'promt'"):
        recipe(llama, str(tmp_path / "mine.jsonl"), map={"promt": "prompt"})
    with pytest.raises(FinbenchError, match="there are none"):
        recipes.recipe(None, {"tasks": ["mini_sentiment"], "map": {"prompt": "q"}})


def test_bad_rows_are_left_out_only_when_that_is_asked_for(llama: Path, tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [PAIR, {"prompt": "q"}, {"prompt": "q", "completion": "a"}])
    with pytest.raises(FinbenchError, match="1 of 3 rows"):
        runner.prepare(recipe(llama, str(path)))
    run = runner.prepare(recipe(llama, str(path), bad_rows="drop"))
    assert (len(run.rows), run.data[0].dropped) == (2, {"bad": 1})


def test_copies_contradictions_and_labels_are_counted_with_their_lines(tmp_path: Path) -> None:
    answers = ["up", "Up", "up ", "down", "up", "not up", "down", "nan", "nan"]
    rows = [{"prompt": f"q{min(i, 6)}", "completion": answer} for i, answer in enumerate(answers)]
    found = own.survey(own.locate(recipes._own(str(lines(tmp_path / "a.jsonl", [*rows, *rows[:3]])), None)[0]))
    assert found.copies == 4
    assert found.kept.tolist() == [True] * 8 + [False] * 4
    assert found.conflicts == 1
    assert found.conflicting == [("a.jsonl:7", "a.jsonl:8")]
    said = "\n".join(found.warnings())
    assert "1 prompt has different answers (a.jsonl:7 and a.jsonl:8)" in said
    assert "differ by case or spaces alone: 'up' a.jsonl:1" in said
    assert "'Up' a.jsonl:2" in said
    assert "The answer 'up' is part of another one: 'not up'" in said
    assert "2 answers are 'nan' (a.jsonl:8): missing values?" in said


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), min_size=1, max_size=12))
@settings(max_examples=60)
def test_copies_and_contradictions_are_those_of_a_plain_count(
    tmp_path_factory: Any, pairs: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("own") / "a.jsonl"
    lines(path, [{"prompt": prompt, "completion": answer} for prompt, answer in pairs])
    found = own.survey(own.locate(recipes._own(str(path), None)[0]))
    different = {prompt: {answer for other, answer in pairs if other == prompt} for prompt, _ in pairs}
    assert found.copies == len(pairs) - len(set(pairs))
    assert found.conflicts == sum(len(answers) > 1 for answers in different.values())
    assert found.kept.tolist() == [pair not in pairs[:number] for number, pair in enumerate(pairs)]


def test_long_rows_are_refused_cut_or_left_out(llama: Path, tmp_path: Path) -> None:
    long = {"prompt": "How?", "completion": " so" * 60}
    hopeless = {"prompt": "why " * 60, "completion": "so"}
    path = str(lines(tmp_path / "a.jsonl", [PAIR, long, hopeless]))
    with pytest.raises(
        FinbenchError, match=r"2 of 3 rows of a\.jsonl are longer than 32 tokens.*\n  a\.jsonl:2: "
    ) as fault:
        runner.prepare(recipe(llama, path, max_length=32))
    assert "long_rows=cut" in fault.value.hint
    cut = runner.prepare(recipe(llama, path, max_length=32, long_rows="cut"))
    assert [len(row.ids) for row in cut.rows][1:] == [32]  # of the last, no answer would be left
    whole = runner.prepare(recipe(llama, path, max_length=300)).rows[1]
    assert cut.rows[1].ids == whole.ids[:32]
    assert cut.rows[1].prompt == whole.prompt
    dropped = runner.prepare(recipe(llama, path, max_length=32, long_rows="drop"))
    assert (len(dropped.rows), dropped.data[0].dropped) == (1, {"too long": 2})


# ---------------------------------------------------------------- tokens


def _old_pair(tokenizer: Any, prompt: str, answer: str) -> tuple[list[int], int]:
    """lm-eval's way, text by text."""
    stripped = prompt.rstrip(" ")
    answer, prompt = prompt[len(stripped) :] + answer, stripped
    special = not (tokenizer.bos_token and (prompt + answer).startswith(tokenizer.bos_token))

    def encode(text: str) -> list[int]:
        ids = list(tokenizer.encode(text, add_special_tokens=special))
        while ids and ids[-1] == tokenizer.eos_token_id:
            ids.pop()
        return ids

    ids = [*encode(prompt + answer), tokenizer.eos_token_id]
    return ids, len(ids) - len(encode(prompt))


def _tokenizers() -> dict[str, Any]:
    """Of the kinds that models have: bytes as GPT-2's; words and digits as Llama 3's; no words at all; Unigram."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    corpus = [" ".join(str(row) for row in range(200)), "Sales rose by 3 % to EUR 13.1 mn . Answer: positive\n\nno"] * 9
    words = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    digits = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?:\P{N}|$))| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+"
    level = {"add_prefix_space": False, "use_regex": False}
    cuts = {
        "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "llama3": pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(words), "isolated"), pre_tokenizers.ByteLevel(**level)]
        ),
        "digits": pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(digits), "isolated"), pre_tokenizers.ByteLevel(**level)]
        ),
        "prefixed": pre_tokenizers.ByteLevel(add_prefix_space=True),
        "llama2": None,
        "metaspace": pre_tokenizers.Metaspace(),
    }
    made = {}
    for name, cut in cuts.items():
        raw = Tokenizer(models.Unigram() if name == "metaspace" else models.BPE(unk_token="<unk>"))
        if cut is not None:
            raw.pre_tokenizer = cut
        if name == "llama2":
            raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        special = ["<s>", "</s>", "<unk>", "<|turn|>"]
        kind = trainers.UnigramTrainer if name == "metaspace" else trainers.BpeTrainer
        more = {"unk_token": "<unk>"} if name == "metaspace" else {}
        alphabet = pre_tokenizers.ByteLevel.alphabet() if name not in ("llama2", "metaspace") else []
        raw.train_from_iterator(corpus, kind(vocab_size=420, special_tokens=special, initial_alphabet=alphabet, **more))
        if name in ("llama2", "llama3"):
            raw.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
        raw.decoder = decoders.ByteLevel()
        made[name] = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
        made[name].add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    return made


PARTS = (
    *(" ", "  ", "\n", "\n\n", "a", "Answer", ":", " positive", "1", "23", "456", " 7", "é", "日本", "👍", "'s", "'t"),
    *(
        "</s>",
        "<s>",
        "<|turn|>",
        "\t",
        "...",
        "-",
        "x y z",
        " Sales rose by",
        " of 13.1 mn",
        "\u0301",
        "\r\n",
        "\u00a0",
    ),
)


@pytest.mark.parametrize("name", ["gpt2", "llama3", "digits", "prefixed", "llama2", "metaspace"])
def test_many_pairs_at_once_are_tokenised_as_lm_eval_splits_each(name: str) -> None:
    tokenizer, draw, pairs = _tokenizers()[name], random.Random(name), []
    while len(pairs) < 4000:
        prompt = "".join(draw.choice(PARTS) for _ in range(draw.randint(1, 14)))
        if prompt.strip(" ") and not prompt.startswith("<"):
            pairs.append((prompt, "".join(draw.choice(PARTS) for _ in range(draw.randint(1, 4)))))
    found = RowEncoder(tokenizer).rows([Rendered.of_pair(*pair) for pair in pairs])
    for pair, row in zip(pairs, found, strict=True):
        assert (row.ids, row.answer) == _old_pair(tokenizer, *pair), pair


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), max_size=3)), max_size=30
    )
)
@settings(max_examples=30)
def test_rows_come_back_from_disk_as_they_went(shapes: list[Any]) -> None:
    writer, rows = TokenWriter(70_000), []
    for number, (answer, gaps) in enumerate(shapes):
        edges = list(itertools.accumulate([3 + answer, *itertools.chain(*gaps)]))
        silent = tuple(zip(edges[:-1:2], edges[1::2], strict=True))
        ids = [(7 * number + k * 1009) % 69_999 for k in range(edges[-1])]
        rows.append(batches.TrainingRow(ids, answer + sum(gap[1] for gap in gaps), silent))
        writer.add(rows[-1])
    chosen = [*range(len(rows)), *range(0, len(rows), 2)]
    assert list(writer.rows(chosen)) == [rows[number] for number in chosen]
    assert writer.rows(chosen).lengths == [len(rows[number].ids) for number in chosen]


def test_tokens_that_the_disk_does_not_take_are_one_line() -> None:
    """Also the last ones, which a buffer holds until the file is closed."""
    writer, before = TokenWriter(600), resource.getrlimit(resource.RLIMIT_FSIZE)
    writer.add(batches.TrainingRow(list(range(300)), 100))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(FinbenchError, match="Cannot write .*: File too large"):
            writer.rows([0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# ---------------------------------------------------------------- conversations

# the shapes that chat templates have: each turn closed by a token of its own, by end-of-text, or by nothing; thoughts
# taken out of earlier turns; something written at the very end; system prompts merged or refused; texts trimmed
TEMPLATES = {
    "closed": "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}",
    "trimmed": "{% for m in messages %}<|turn|>{{ m.role }}\n\n{{ m.content | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n\n{% endif %}",
    "brackets": "{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}<|end|>"
    "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}",
    "open": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}",
    "thoughts": "{% for m in messages %}<|turn|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}",
    "no thoughts before": "{% for m in messages %}<|turn|>{{ m.role }}\n"
    "{{ m.content.split('</think>')[-1] if m.role == 'assistant' and not loop.last else m.content }}"
    "<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}",
    "ended": "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}<|done|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% else %}<|end|>{% endif %}",
}
REWRITING = {"open", "thoughts", "ended"}  # of which a conversation is a row for each answer


def chatty(folder: Path, template: str, special: Sequence[str] = ("<|turn|>", "<|done|>")) -> Any:
    """A tokenizer with this template, and the special tokens that it writes."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.chat_template = template
    return tokenizer


def learnt(tokenizer: Any, turns: list[own.Turn]) -> list[batches.TrainingRow]:
    renderer = own_rows.Renderer.of(tokenizer, bases.chat_template(tokenizer, "base"), " ", "base")
    texts = renderer.rendered(turns, True)
    assert texts == renderer._conversation(turns)  # however it was rendered
    return list(RowEncoder(tokenizer).rows(texts))


def check_mask(tokenizer: Any, turns: list[own.Turn]) -> int:
    """Every answer is learnt once, after exactly the prompt that asks for it, up to its end; nothing else is learnt."""
    messages = [{"role": who, "content": text} for who, text in turns]
    prompts_of, wanted = [], []
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            asked = tokenizer.apply_chat_template(messages[:number], tokenize=False, add_generation_prompt=True)
            prompts_of.append(tokenizer.encode(asked.rstrip(" "), add_special_tokens=False))
            wanted.append(message["content"])
    rows, seen = learnt(tokenizer, turns), []
    for row in rows:
        for start, end in row.spans:
            said = tokenizer.decode(row.ids[start:end])
            number = len(seen)
            assert row.ids[:start] == prompts_of[number]
            shown = wanted[number].split("</think>")[-1].strip() if "</think>" not in said else wanted[number].strip()
            assert shown in said
            rest = said.replace(shown, "").replace("<think>", "").replace("</think>", "").strip()
            assert rest in ("<|end|>", "<|done|>", "<|done|>\n<|end|>"), rest
            seen.append(said)
        assert row.spans[-1][1] == len(row.ids)
    assert len(seen) == len(wanted)
    return len(rows)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_answer_of_a_conversation_is_learnt_and_nothing_else(name: str, llama: Path) -> None:
    tokenizer, draw = chatty(llama, TEMPLATES[name]), random.Random(name)
    said = (
        "Sales rose.",
        "  Yes, by 4 %. ",
        "a\n\nb",
        "1,2",
        "<think>\nhm\n</think>\n\nIt fell.",
        "[x] {y}",
        "日本 é",
        "user",
    )
    counts = set()
    for _ in range(60):
        turns: list[own.Turn] = [("system", "Be brief.")] if draw.random() < 0.5 else []
        for _ in range(draw.randint(1, 4)):
            turns += [("user", draw.choice(said)), ("assistant", draw.choice(said))]
        asked = sum(who == "assistant" for who, _ in turns)
        if asked > 1:
            counts.add(check_mask(tokenizer, turns) > 1)
        else:
            assert check_mask(tokenizer, turns) == 1
    assert counts == ({True} if name in REWRITING else {False} if name != "no thoughts before" else {True, False})


def test_a_template_that_begins_answers_otherwise_is_refused_with_its_line(llama: Path, tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base")
    chatty(
        base, TEMPLATES["closed"].replace("<|turn|>assistant\n{% endif", "<|turn|>assistant\n<think>\n{% endif")
    ).save_pretrained(base)
    path = str(lines(tmp_path / "a.jsonl", [{"messages": CHAT}]))
    with pytest.raises(FinbenchError, match=r"a\.jsonl:1: the chat template of .* begins an answer otherwise"):
        runner.prepare(recipe(base, path))


def test_conversations_ask_for_a_chat_template(llama: Path, tmp_path: Path) -> None:
    path = str(lines(tmp_path / "a.jsonl", [{"messages": CHAT}]))
    assert recipe(llama, path).chat is True
    assert recipe(llama, str(lines(tmp_path / "b.jsonl", [PAIR]))).chat is False
    with pytest.raises(FinbenchError, match="only a chat template can render") as caught:
        runner.prepare(recipe(llama, path, chat=False))
    assert caught.value.hint == "Add --set chat=true"


def test_conversations_on_a_base_without_a_template_lead_to_another_base(llama: Path, tmp_path: Path) -> None:
    """Not from one key to another and back."""
    base = make_llama(tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    path = str(lines(tmp_path / "a.jsonl", [{"messages": CHAT}]))
    pairs = str(lines(tmp_path / "b.jsonl", [PAIR]))
    for chosen in (recipe(base, path), recipe(base, path, chat=False), recipe(base, [pairs, path], chat=True)):
        for look in (runner.prepare, finbench.check_data):
            with pytest.raises(FinbenchError, match=r"a.jsonl holds conversations, .*base has none\.") as caught:
                look(chosen)
            assert caught.value.hint.startswith("Choose a base that has one")
    with pytest.raises(FinbenchError, match="has no chat template") as caught:
        runner.prepare(recipe(base, pairs, chat=True))
    assert "--set chat=false" in caught.value.hint


def test_every_loop_gives_the_loss_and_gradients_of_the_answers_of_separate_rows(wide: Path, tmp_path: Path) -> None:
    """Plain cross-entropy row by row, over the tokens that the assistant says, is the oracle."""
    base = make_llama(tmp_path / "base", hidden=128)
    tokenizer = chatty(base, TEMPLATES["closed"], [])
    tokenizer.save_pretrained(base)
    talks = [[*CHAT[:1], *CHAT[1:3] * count, *CHAT[3:]] for count in (1, 2, 3)] + [CHAT[1:], CHAT[1:3]]
    run = runner.prepare(recipe(base, str(lines(tmp_path / "a.jsonl", [{"messages": talk} for talk in talks]))))
    rows = list(run.rows)
    assert len(rows) == 5
    assert sum(len(row.silent) for row in rows) == 1 + 2 + 3 + 1
    model, tokenizer = runner.begin(run, torch.float32)
    count = sum(row.answer for row in rows)
    heads = [name for name, tensor in model.named_parameters() if tensor.requires_grad and "lora_B" in name]
    trained = dict(model.named_parameters())

    def gradients(loss: Any) -> list[torch.Tensor]:
        model.zero_grad()
        loss.backward()
        return [trained[name].grad.clone() for name in heads]

    total = torch.zeros(())
    for row in rows:
        logits = model(input_ids=torch.tensor([row.ids])).logits[0]
        chosen = [k for start, end in row.spans for k in range(start, end)]
        picked, labels = logits[[k - 1 for k in chosen]], torch.tensor([row.ids[k] for k in chosen])
        total = total + torch.nn.functional.cross_entropy(picked, labels, reduction="sum")
    expected, wanted = float(total / count), gradients(total / count)
    for loop in ("padded", "packed", "shared"):
        passes = loops.Passes(loop, 8, pad=tokenizer.pad_token_id)
        made = passes.prepare(rows, "cpu")
        with passes.at_work(model), loops.attending(made):
            loss = loops.loss(model, made) / count
            found = gradients(loss)
        assert float(loss) == pytest.approx(expected, abs=1e-5), loop
        for one, other in zip(found, wanted, strict=True):
            assert (one - other).abs().max() <= 1e-4 * other.abs().max() + 1e-7, loop


def _trl_templates() -> dict[str, tuple[str, str]]:
    """Real templates with the same marked for their answers, from TRL where it is installed; it is not imported."""
    found = importlib.util.find_spec("trl")
    folder = Path(str(found.submodule_search_locations[0])) / "chat_templates" if found else Path("none")  # type: ignore[index]
    pairs = {path.stem: path.with_name(f"{path.stem}_training.jinja") for path in sorted(folder.glob("*.jinja"))}
    return {n: ((folder / f"{n}.jinja").read_text(), p.read_text()) for n, p in pairs.items() if p.is_file()}


@pytest.mark.slow
@pytest.mark.skipif(not _trl_templates(), reason="trl is not installed")
@pytest.mark.parametrize("name", _trl_templates())
def test_the_mask_is_that_of_templates_that_mark_their_answers(name: str, llama: Path) -> None:
    """TRL keeps, of some models' templates, a copy with their answers marked: an oracle that others wrote."""
    plain, marked = _trl_templates()[name]
    tokenizer, other = chatty(llama, plain), chatty(llama, marked)
    ends = ["<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<end_of_turn>", "<turn|>", "<|return|>"]
    ends += ["<|end▁of▁sentence|>", "<|END_OF_TURN_TOKEN|>", "<|endoftext|>", "<|end_of_turn|>", "<end_of_utterance>"]
    for one in (tokenizer, other):
        one.add_special_tokens({"additional_special_tokens": ends, "bos_token": "<|begin_of_text|>"})
    turns: list[own.Turn] = [(one["role"], one["content"]) for one in CHAT[1:]]
    try:
        rows = learnt(tokenizer, turns)
    except own_rows.Unrenderable as fault:
        pytest.skip(str(fault))
    asked = [{"role": who, "content": text} for who, text in turns]
    made = other.apply_chat_template(asked, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = made["input_ids"], made["assistant_masks"]
    kept = zip(mask, ids, strict=True)
    theirs = [
        tokenizer.decode([i for _, i in part]) for bears, part in itertools.groupby(kept, lambda p: p[0]) if bears
    ]
    ours = [tokenizer.decode(row.ids[start:end]) for row in rows for start, end in row.spans]
    for learnt_ in (ours, theirs):  # some mark a header of the answer too, or what the next turn begins with
        bare = [re.sub(r"<[^>]*>|assistant|final| to=user", "", said).strip() for said in learnt_]
        assert bare == [text for who, text in turns if who == "assistant"]


# ---------------------------------------------------------------- beside tasks


def _written(path: Path, task: str = "mini_sentiment") -> list[tuple[str, str]]:
    """The train rows of a task as a CSV of the very prompts that it asks."""
    lm_task = prompts.load(catalog.expand([task]), None)[f"finbench_{task}"]
    pairs = [prompts.pair(lm_task, doc) for doc in prompts.rows(lm_task, "train")]
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([("prompt", "completion"), *((asked, said.strip()) for asked, said in pairs)])
    return pairs


def test_a_task_written_as_csv_trains_to_the_same_bits_in_as_many_tokens(llama: Path, tmp_path: Path) -> None:
    pairs = _written(tmp_path / "mini.csv")
    assert len(set(pairs)) == len(pairs)
    stated = {"base": str(llama), "rank": 4, "dtype": "float32", "batch_size": 8, "limit": 96, "seed": 3}
    one = runner.train(recipes.recipe(None, {**stated, "tasks": ["mini_sentiment"]}), tmp_path / "task")
    other = runner.train(recipes.recipe(None, {**stated, "data": str(tmp_path / "mini.csv")}), tmp_path / "own")
    assert isinstance(one, Adapter)
    assert isinstance(other, Adapter)
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("task", "own"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert one.training.loss_curve == other.training.loss_curve
    assert one.training.loop == other.training.loop == "shared"
    assert one.training.computed == other.training.computed < one.training.tokens  # their starts are run once


def test_an_adapter_of_own_rows_is_recorded_found_again_resumed_and_refused_like_any(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "secret place"
    place.mkdir()
    path = lines(place / "mine.jsonl", [{"prompt": f"What is {i}?", "completion": f"{i} it is"} for i in range(40)])
    stated = recipe(llama, [f"{path}:0.5"], tasks=["mini_sentiment"], limit=20)
    made = finbench.train(stated, tmp_path / "a")
    assert isinstance(made, Adapter)
    assert [(part.set, part.rows, part.sha256) for part in made.data] == [
        ("mini_sentiment", 20, None),
        ("mine.jsonl", 20, sha256_file(path)),
    ]
    assert made.training.rows == 30
    written = "".join(p.read_text() for p in (tmp_path / "a").iterdir() if p.suffix in (".json", ".md"))
    assert "secret" not in written
    assert "mine.jsonl (0.5 x)" in (tmp_path / "a" / "README.md").read_text()
    own_part = made.recipe.data[0]
    assert (own_part.source, own_part.weight, own_part.sha256) == ("mine.jsonl", 0.5, sha256_file(path))
    assert finbench.train(stated, tmp_path / "a") == made  # nothing to do
    with contextlib.chdir(place):  # the record has the file's name alone
        again = recipes.recipe(str(tmp_path / "a"))
    assert Path(again.data[0].source) == path
    assert again.model_dump(exclude={"name", "data"}) == made.recipe.model_dump(exclude={"name", "data"})
    capsys.readouterr()
    named = [own_part.model_copy(update={"map": {"prompt": "Desk text", "completion": "view"}})]
    recorded = made.recipe.model_copy(update={"tasks": [], "data": named})
    show.trainings.trained(made.model_copy(update={"recipe": recorded}), tmp_path / "a", str(llama))
    asked = "finbench tasks new FILE --text 'Desk text' --label view --prompt '{{text}}'"
    assert asked in capsys.readouterr().out  # as it was trained, and not by an instruction that it never saw
    with pytest.raises(FinbenchError, match=r"another adapter \(weights\)"):
        finbench.train(recipe(llama, [str(path)], tasks=["mini_sentiment"], limit=20), tmp_path / "a")
    lines(path, [{"prompt": f"What is {i}?", "completion": f"{i} it was"} for i in range(40)])
    with pytest.raises(FinbenchError, match=r"another adapter \(data\)"):
        finbench.train(stated, tmp_path / "a")
    # the recipe as it was recorded names the file by its digest, and is found beside it
    (place / "again.yaml").write_text(yaml.safe_dump(made.recipe.model_dump(exclude={"name"})))
    again = recipes.recipe(str(place / "again.yaml"), {"base": str(llama)})
    assert again.data[0].source == str(path)
    with pytest.raises(FinbenchError, match="mine.jsonl is not what the recipe names: its SHA-256 is"):
        finbench.train(again, tmp_path / "b")


def test_a_killed_run_on_own_rows_goes_on_to_the_same_weights(llama: Path, tmp_path: Path) -> None:
    path = lines(
        tmp_path / "mine.jsonl", [{"messages": [*CHAT[:-1], {**CHAT[-1], "content": f"{i}"}]} for i in range(60)]
    )
    stated = recipe(llama, str(path), save_every=2, epochs=2)
    whole = finbench.train(stated, tmp_path / "whole")
    assert isinstance(whole, Adapter)
    job = (
        "import os, sys\nfrom finbench.core.records import Recipe\nfrom finbench.training import checkpoints, runner\n"
    )
    job += (
        "real = checkpoints.publish\ndef publish(*a):\n    real(*a)\n    os._exit(9)\ncheckpoints.publish = publish\n"
    )
    job += "from pathlib import Path\nrunner.train(Recipe.model_validate_json(sys.argv[1]), Path(sys.argv[2]))\n"
    command = [sys.executable, "-c", job, stated.model_dump_json(), str(tmp_path / "parts")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 9
    with pytest.raises(FinbenchError, match="holds an unfinished run"):
        finbench.train(stated, tmp_path / "parts")
    finbench.train(stated, tmp_path / "parts", resume=True)
    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_tune_holds_rows_out_by_what_is_asked(llama: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {i % 50}?", "completion": f"{i}"} for i in range(100)]
    stated = recipe(llama, str(lines(tmp_path / "a.jsonl", rows)))
    tokenizer = bases.load_tokenizer(bases.resolve(str(llama)))
    sides = []
    for side in ("held", "train"):
        run = runner.prepare(tuning._untouched(stated), None, tuning._side(stated, side, 1.0))  # type: ignore[arg-type]
        sides.append([tokenizer.decode(row.ids[: row.prompt]) for row in run.rows])
    held, trained = sides
    assert len(held) + len(trained) == 100
    assert 0 < len(held) < 40
    assert not set(held) & set(trained)
    outline = finbench.training.search_outline(stated, budget=1)
    assert outline["validation_rows"] == len(held)
    tuned, path = finbench.tune(stated, tmp_path / "t", budget=1)
    again = recipes.recipe(str(path))
    assert again.model_dump(exclude={"name"}) == tuned.model_dump(exclude={"name"})


def test_a_plan_counts_own_rows(llama: Path, tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [{"prompt": f"What is {i}?", "completion": f"{i}"} for i in range(20)])
    found = finbench.plan(recipe(llama, str(path)), "cpu")
    assert found["steps"] == 3
    assert found["tokens"] == sum(len(row.ids) for row in runner.prepare(recipe(llama, str(path))).rows)


def test_a_sweep_sees_other_rows_as_other_cells(llama: Path, tmp_path: Path) -> None:
    from finbench.grid import sweepfile

    path = lines(tmp_path / "mine.jsonl", [PAIR])
    common = {"base": str(llama), "data": [str(path)]}
    stated = {"name": "s", "axes": {"seed": [0, 1]}, "common": common}
    with pytest.raises(FinbenchError, match="no task is named to score it on"):
        sweepfile.cells(sweepfile.Sweep.parse(stated, "s"))
    sweep = sweepfile.Sweep.parse({**stated, "eval": {"tasks": "mini_sentiment"}}, "s")
    before = [cell.key for cell in sweepfile.cells(sweep)]
    assert len(set(before)) == 2
    assert before == [cell.key for cell in sweepfile.cells(sweep)]
    lines(path, [PAIR, {"prompt": "q", "completion": "a"}])
    assert not set(before) & {cell.key for cell in sweepfile.cells(sweep)}


def test_columns_and_files_may_be_axes_of_a_sweep_and_no_name_says_where_they_lie(llama: Path, tmp_path: Path) -> None:
    from finbench.grid import sweepfile

    path = lines(tmp_path / "mine.jsonl", [{"q": "Which?", "a": "This.", "long": "This one."}])
    others = str(lines(tmp_path / "others.jsonl", [PAIR]))
    axes: dict[str, Any] = {"map": [{"prompt": "q", "completion": answer} for answer in ("a", "long")], "seed": [0, 1]}
    common: dict[str, Any] = {"base": str(llama), "data": [str(path)]}
    stated = {"name": "s", "axes": axes, "common": common, "eval": {"tasks": "mini_sentiment"}}
    cells = sweepfile.cells(sweepfile.Sweep.parse(stated, "s"))
    assert [cell.recipe.data[0].map["completion"] for cell in cells] == ["a", "a", "long", "long"]
    assert len({cell.key for cell in cells}) == 4
    files = [{"source": str(path), "map": {"prompt": "q", "completion": "a"}}, others]
    stated |= {"axes": {"data": files, "validation": [0.5, others]}, "common": {"base": str(llama)}}
    cells = sweepfile.cells(sweepfile.Sweep.parse(stated, "s"))
    assert len({cell.key for cell in cells}) == 4
    assert [Path(cell.recipe.data[0].source).name for cell in cells] == ["mine.jsonl"] * 2 + ["others.jsonl"] * 2
    assert {cell.name for cell in cells} == {
        f"{name}-rows-tiny-llama-lora-validation{held}-s0"
        for name in ("mine", "others")
        for held in ("0.5", "others.jsonl")
    }


def test_own_rows_come_from_the_hub_at_a_commit_and_go_there_with_the_adapter(
    llama: Path, tmp_path: Path, dev_hub: DevHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    from huggingface_hub import hf_hub_download

    train = b"".join(json.dumps({"prompt": f"q{i}", "completion": f"a{i}"}).encode() + b"\n" for i in range(12))
    test = b'{"prompt": "held", "completion": "out"}\n'
    sha = upload(dev_hub, "org/rows", {"train.jsonl": train, "test.jsonl": test}, kind="dataset")
    base = upload(dev_hub, "org/tiny", files_of(llama), private=False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", dev_hub.url)
    stated = recipe(Path("tiny"), "hub:org/rows").model_copy(update={"base": f"hub:org/tiny@{base}"})
    made = finbench.train(stated, tmp_path / "a")
    assert isinstance(made, Adapter)
    assert (made.training.rows, made.data[0].set, made.data[0].revision) == (12, "org/rows", sha)
    assert made.recipe.data[0].source == f"hub:org/rows@{sha}"
    finbench.push(tmp_path / "a", "hub:org/adapter")
    finbench.pull("hub:org/adapter", tmp_path / "back")
    card = Path(hf_hub_download("org/adapter", "README.md", endpoint=dev_hub.url)).read_text()
    assert "org/rows" in card
    assert "| unknown |" in card  # nobody said under which licence the rows are
    assert "license: other" in card
    assert adapters.read(tmp_path / "back").record.data == made.data  # type: ignore[union-attr]
    with pytest.raises(FinbenchError):
        runner.prepare(recipe(llama, "hub:org/none"))


def test_test_texts_of_ranked_tasks_are_found_in_own_rows(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leak = "Operating profit of Fennick Tools rose to EUR 13.1 mn in the last quarter"
    (tmp_path / "data" / "fpb").mkdir(parents=True)
    lines(tmp_path / "data" / "fpb" / "test.jsonl", [{"id": "0", "text": leak, "label": "positive"}])
    talk = [CHAT[0], {"role": "user", "content": f"What of this? {leak.upper()}!"}, CHAT[2]]
    path = lines(tmp_path / "mine.jsonl", [{"messages": CHAT}, {"messages": talk}])
    run = runner.prepare(recipe(llama, str(path)), tmp_path / "data")
    assert run.contamination.model_dump() == {"looked_for": {"fpb": 1}, "found": {"fpb": 1}, "editions": {}}
    assert "1 of 1 test texts of fpb" in " ".join(capsys.readouterr().err.split())


# ---------------------------------------------------------------- what the command shows


def test_a_workbook_is_read_as_a_table_is(llama: Path, tmp_path: Path) -> None:
    book, table = tmp_path / "größe.xlsx", tmp_path / "größe.csv"
    rows: list[tuple[Any, ...]] = [("Frage", "Note"), *((f"Wie hoch ist Größe {n}?", n % 3) for n in range(12))]
    workbook(book, rows)
    table.write_text("".join(f"{a};{b}\n" for a, b in rows), encoding="utf-8")
    stated = {"map": {"prompt": "Frage", "completion": "Note"}}
    (one,), (other,) = (finbench.check_data(recipe(llama, str(path), **stated)) for path in (book, table))
    assert one.fault is None
    assert one.made.rows == other.made.rows == 12
    assert rows_of(llama, str(book), **stated) == rows_of(llama, str(table), **stated)


def sheets(path: Path, **pages: list[list[Any]]) -> Path:
    """A workbook of several sheets, as openpyxl writes it: without the values of formulas."""
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in pages.items():
        page = book.create_sheet(title)
        for row in rows:
            page.append(row)
    book.save(path)
    return path


TABLE = [["Frage", "Note"], *([f"Wie hoch ist Größe {n}?", "hoch" if n % 2 else "tief"] for n in range(12))]


@pytest.mark.parametrize(
    ("pages", "said"),
    [
        ({"Cover": [["Labels of 2024"], [], ["by the desk"]], "Data": TABLE}, "sheet 'Data' is read, not 'Cover'. To "),
        ({"Notes": [["Author", "Kim"]], "Data": TABLE}, "sheet 'Data' is read, not 'Notes'"),
        ({"Data": [["Labels of 2024"], [], *TABLE]}, "sheet 'Data' is read from row 3 on."),
        ({"Data": TABLE, "Older": TABLE[:9]}, "sheet 'Data' is read, not 'Older'. To read another: "),
        ({"Data": TABLE, "Empty": []}, ""),
    ],
)
def test_a_sheet_with_a_table_is_read_and_named(pages: Any, said: str, tmp_path: Path, capsys: Any) -> None:
    book = sheets(tmp_path / "mine.xlsx", **pages)
    located = own.locate(OwnData(source=str(book)))
    rows = [one.row for one in located.files[0].records() if not isinstance(one, str)]
    assert [list(row.values()) for row in rows] == TABLE[1:]
    told = " ".join(capsys.readouterr().err.split())
    assert (said in told) if said else not told
    if "another" in told:
        assert f"{book}#{next(title for title in pages if title != 'Data')}" in told


def test_any_sheet_of_a_workbook_can_be_named(llama: Path, tmp_path: Path) -> None:
    book = sheets(tmp_path / "mine.xlsx", Data=TABLE, Older=TABLE[:9], test=TABLE[:5])
    stated = {"map": {"prompt": "Frage", "completion": "Note"}}
    (found,) = finbench.check_data(recipe(llama, f"{book}#older", **stated))
    assert (found.fault, found.made.rows) == (None, 8)
    with pytest.raises(FinbenchError, match="has no sheet 'Oldest'") as fault:
        finbench.check_data(recipe(llama, f"{book}#Oldest", **stated))
    assert f"{book}#Older" in fault.value.hint
    audited = audit.audit([f"{book}#Data", f"{book}#test"], columns={"text": "Frage", "answer": "Note"})
    assert {one.name: one.split for one in audited.sources}["mine.xlsx#test"] == "test"


def test_rows_of_a_sheet_are_not_those_of_another_sheet_of_the_workbook(tmp_path: Path) -> None:
    """What an adapter learnt is looked for again by its hash, to tell whether it has seen a test."""
    book = sheets(tmp_path / "mine.xlsx", **{"Data": TABLE, "Older": TABLE[:9], "#2": TABLE[:4]})
    sources = [str(book), *(f"{book}#{title}" for title in ("Data", "Older", "#2"))]
    found = [own.locate(OwnData(source=source)) for source in sources]
    for one in found:
        own.remember(one)
    assert len({one.sha256 for one in found}) == 4
    for source, one in zip(sources, found, strict=True):
        again = own.again(OwnData(source=Path(source).name), one.sha256)
        assert again is not None
        assert again.stated.source == source
    assert own.locate(OwnData(source=f"{book}#older")).sha256 == found[2].sha256
    assert len(list(found[3].files[0].records())) == 3


def test_a_header_of_blanks_is_no_header(tmp_path: Path) -> None:
    book = sheets(tmp_path / "mine.xlsx", Data=[[" ", " "], *TABLE[1:]])
    with pytest.raises(FinbenchError, match="row 1 of its sheet 'Data' is no header of different names"):
        list(own.locate(OwnData(source=str(book))).files[0].records())


def test_formulas_without_a_saved_value_are_named(llama: Path, tmp_path: Path) -> None:
    rows = [*TABLE[:4], [TABLE[4][0], '=IF(1>0,"hoch","tief")'], *TABLE[5:]]
    book = sheets(tmp_path / "mine.xlsx", Data=rows)
    (found,) = finbench.check_data(recipe(llama, str(book), map={"prompt": "Frage", "completion": "Note"}))
    assert "mine.xlsx:5: a formula without a saved value in B5 of sheet 'Data'" in str(found.fault)
    kept = tmp_path / "kept.xlsx"  # as Excel writes it, an empty text too
    for value, read in (("<v>hoch</v>", "hoch"), ("<v></v>", None)):
        with zipfile.ZipFile(book) as old, zipfile.ZipFile(kept, "w") as new:
            for name in old.namelist():
                text = old.read(name)
                if name.endswith("sheet1.xml"):
                    cell = rb'<c r="B5" t="str">\1' + value.encode() + b"</c>"
                    text = re.sub(rb'<c r="B5"[^>]*>(<f>.*?</f>).*?</c>', cell, text)
                new.writestr(name, text)
        row: Any = list(own.locate(OwnData(source=str(kept))).files[0].records())[3]
        assert row.row["Note"] == read


def test_rows_that_are_left_out_as_a_test_are_told_with_what_finds_their_copies(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for name in ("a.jsonl", "test.jsonl"):
        lines(tmp_path / "own" / name, [{"prompt": f"{name} {n}", "completion": "yes"} for n in range(4)])
    (found,) = finbench.check_data(recipe(llama, str(tmp_path / "own")))
    [said] = [line for line in found.made.survey.warnings() if "test.jsonl" in line]
    assert "Are copies of them among the others? finbench data audit " in said


def test_check_says_what_would_be_learnt_for_people_and_programs(llama: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"Is {i} even?", "completion": "yes" if i % 2 == 0 else "no"} for i in range(30)]
    path = lines(tmp_path / "mine.jsonl", [*rows, rows[0], {"prompt": "q"}])
    (found,) = finbench.check_data(recipe(llama, str(path)))
    assert found.fault is not None
    (found,) = finbench.check_data(recipe(llama, str(path), bad_rows="drop"))
    assert found.fault is None
    told = found.as_dict()
    assert (told["read"], told["rows"], told["dropped"]) == (32, 30, {"copies": 1, "bad": 1})
    assert told["answers"] == {"yes": 16, "no": 15}
    run = runner.prepare(recipe(llama, str(path), bad_rows="drop"))
    assert told["tokens"]["all"] == sum(len(row.ids) for row in run.rows)
    assert told["tokens"]["learnt"] == sum(row.answer for row in run.rows)
    assert sum(count for *_, count in told["histogram"]) == 30
    assert [one["place"] for one in told["shown"]] == ["mine.jsonl:1", "mine.jsonl:11", "mine.jsonl:21"]
    json.dumps(told)
    command = [sys.executable, "-m", "finbench", "data", "check", str(path), "--base", str(llama)]
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "mine.jsonl:32: its completion is missing" in done.stdout
    assert "--set bad_rows=drop" in done.stderr
    done = subprocess.run(
        [*command, "--set", "bad_rows=drop"], capture_output=True, text=True, check=True, env=environment
    )
    assert "Is 0 even?⟦ yes<|end|>⟧" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if not line.startswith("Next:"))


# ---------------------------------------------------------------- memory and speed


@pytest.mark.slow
def test_memory_of_rows_is_a_kilobyte_each_at_most(llama: Path, tmp_path: Path) -> None:
    """A million take less than a gigabyte beyond what the imports take; by the system's own count, in a process."""
    with (tmp_path / "a.jsonl").open("w") as handle:
        for number in range(300_000):
            handle.write(f'{{"prompt": "What is number {number}, sir?", "completion": "It is {number}."}}\n')
    script = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        from finbench.core.console import quiet
        from finbench.core.records import Recipe
        from finbench.training import loops, packing, runner, trainer
        quiet()
        recipe = Recipe.model_validate_json(sys.argv[1])
        def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        small = recipe.model_copy(update={"data": [recipe.data[0].model_copy(update={"source": sys.argv[2]})]})
        runner.prepare(small)
        before = peak()
        run = runner.prepare(recipe)
        seen = 0
        for step in run.sampler.first(run.steps):
            seen += len([run.rows[index] for index in step])
        print(len(run.rows), seen, peak() - before)
        """
    )
    small = lines(tmp_path / "small.jsonl", [PAIR])
    stated = recipe(llama, str(tmp_path / "a.jsonl")).model_dump_json()
    command = [sys.executable, "-c", script, stated, str(small)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows, seen, held = map(int, done.stdout.split())
    assert rows == seen == 300_000
    assert held < 300e6


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2")
@pytest.mark.parametrize("kind", ["pair", "text", "chat"])
def test_rendering_and_tokenising_take_at_most_twice_what_the_tokenizer_takes(kind: str, tmp_path: Path) -> None:
    """Processor time of one thread, on the embedded base's own tokenizer; the best of three rounds of each."""
    tokenizer, draw = bases.load_tokenizer(bases.resolve("smollm2-135m")), random.Random(0)
    lm_task = prompts.load(catalog.expand(["mini_sentiment"]), None)["finbench_mini_sentiment"]
    words = " ".join(str(doc["text"]) for doc in prompts.rows(lm_task, "train")).split()
    said = lambda count: " ".join(draw.choice(words) for _ in range(count))  # noqa: E731
    made: dict[str, Callable[[int], dict[str, Any]]] = {
        "pair": lambda i: {
            "prompt": f"What is the sentiment?\n{said(30)} {i}\nAnswer:",
            "completion": draw.choice("abc"),
        },
        "text": lambda i: {"text": f"{said(60)} {i}"},
        "chat": lambda i: {"messages": [{**turn, "content": f"{said(20)} {i}"} for turn in CHAT[1:]]},
    }
    path = lines(tmp_path / "a.jsonl", [made[kind](number) for number in range(4000)])
    stated = recipes.recipe(None, {"data": str(path)})
    template = bases.chat_template(tokenizer, "base") if stated.chat else None

    def ours() -> own_rows.Learnt:
        found = own.survey(own.locate(stated.data[0]))
        renderer = own_rows.Renderer.of(tokenizer, template, " ", "base")
        return own_rows.learn(found, stated, RowEncoder(tokenizer), renderer, 1024, TokenWriter(len(tokenizer)))

    renderer = own_rows.Renderer.of(tokenizer, template, " ", "base")
    found = own.survey(own.locate(stated.data[0]))
    texts = [renderer.rendered(turns, stated.chat)[0].text for turns, _ in found.contents()]

    def alone() -> None:
        for first in range(0, len(texts), 512):
            tokenizer(texts[first : first + 512])

    spent: dict[str, list[float]] = {"ours": [], "alone": []}
    for _ in range(3):
        for name, run in (("alone", alone), ("ours", ours)):
            start = time.thread_time()
            run()
            spent[name].append(time.thread_time() - start)
    assert ours().rows == 4000
    assert min(spent["ours"]) <= 2 * min(spent["alone"])


# ---------------------------------------------------------------- several files, and what is far too long


def test_of_two_columns_one_known_names_the_other(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "tickets.csv").write_text("ticket text,class\nwhere is my money,late\n")
    with pytest.raises(FinbenchError, match="no known format") as fault:
        runner.prepare(recipe(llama, [str(tmp_path / "tickets.csv")]))
    assert "--map 'prompt=ticket text,completion=class'" in fault.value.hint


def test_columns_are_named_for_one_file_or_for_all(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("q,a\nx,b\n")
    (tmp_path / "r.csv").write_text("question,answer\ny,c\n")
    lines(tmp_path / "n.jsonl", [{"prompt": "z", "completion": "d"}])
    files = [str(tmp_path / name) for name in ("q.csv", "r.csv", "n.jsonl")]
    of_files = {"r.csv:prompt": "question", "r.csv:completion": "answer", f"{files[0]}:prompt": "q"}
    made = recipe(llama, files, map={**of_files, f"{files[0]}:completion": "a"})
    assert [part.map for part in made.data] == [
        {"prompt": "q", "completion": "a"}, {"prompt": "question", "completion": "answer"}, {}
    ]  # fmt: skip
    assert len(runner.prepare(made).rows) == 3
    with pytest.raises(FinbenchError, match="r.csv has no column 'q'") as fault:
        runner.prepare(recipe(llama, files[:2], map={"prompt": "q", "completion": "a"}))
    assert "--map r.csv:prompt=COLUMN" in fault.value.hint
    with pytest.raises(FinbenchError, match="names columns of s.csv, which is not among the rows"):
        recipe(llama, files, map={"s.csv:prompt": "q"})
    stated = ["a,b.csv:prompt=q,completion=a", "system=s"]
    assert columns(stated) == {"a,b.csv:prompt": "q", "a,b.csv:completion": "a", "system": "s"}


def test_a_line_of_ten_megabytes_is_named_at_once_and_cut_as_a_shorter_one(llama: Path, tmp_path: Path) -> None:
    long = {"prompt": "Sales rose by 5 percent. " * 400_000, "completion": "c"}
    path = lines(tmp_path / "big.jsonl", [PAIR, long, {"text": None, **PAIR, "prompt": "another"}])
    started = processor_time()
    with pytest.raises(FinbenchError, match="1 of 3 rows of big.jsonl are longer than 512 tokens:") as fault:
        runner.prepare(recipe(llama, str(path)))
    spent = processor_time() - started
    assert f"big.jsonl:2: {len(long['prompt']) + 1:,} characters" in fault.value.message
    assert quick(spent, 8)
    texts = [{"text": "Sales rose by 5 percent. " * count} for count in (20_000, 3_000)]
    cut = [rows_of(llama, str(lines(tmp_path / f"{n}.jsonl", [row])), long_rows="cut") for n, row in enumerate(texts)]
    assert cut[0] == cut[1]


def test_a_quote_that_is_not_closed_is_named_where_its_row_begins(llama: Path, tmp_path: Path) -> None:
    rest = "".join(f"text {number},label\n" for number in range(20_000))
    for name, content in (("a", rest), ("b", 'c,d\n"e",f\n'), ("c", "g,h\n")):
        path = tmp_path / f"{name}.csv"
        path.write_text(f'prompt,completion\na,b\n"open,c\n{content}')
        with pytest.raises(FinbenchError, match=f"{name}.csv:3: not valid CSV .*is a quote not closed"):
            runner.prepare(recipe(llama, str(path)))


def test_a_table_without_header_is_known_by_what_stands_again_below(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "bare.csv").write_text("good,positive\nbad,negative\nnice,positive\n")
    (tmp_path / "named.csv").write_text("my text,the label\nbad,negative\nnice,positive\n")
    with pytest.raises(FinbenchError, match="looks like a row"):
        runner.prepare(recipe(llama, str(tmp_path / "bare.csv")))
    with pytest.raises(FinbenchError, match="no known format among its columns 'my text', 'the label'"):
        runner.prepare(recipe(llama, str(tmp_path / "named.csv")))
    with pytest.raises(FinbenchError, match="looks like a row: does the header line lack"):
        finbench.new_task(tmp_path / "bare.csv")
